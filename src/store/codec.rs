//! How the types of [`crate::model`] travel to and from PostgreSQL.

use std::borrow::Cow;

use serde_json::Value;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::model::{
    AgentLifecycle, BuildReason, ChatId, DaemonId, DaemonStatus, FileId, GroupId, JobId, JobInput, JobStatus, JobType,
    Label, LicenseId, LogLevel, LogSource, OrganizationId, PrebuildStatus, PresetId, ProvisionerKeyId, ProvisionerType,
    StorageMethod, TemplateId, TemplateVersionId, TimingStage, Transition, UserId, UserStatus, WorkspaceAgentId,
    WorkspaceBuildId, WorkspaceId,
};

macro_rules! ids {
    ($($id:ty),* $(,)?) => {$(
        impl Type<Postgres> for $id {
            fn type_info() -> PgTypeInfo {
                Uuid::type_info()
            }
        }

        impl PgHasArrayType for $id {
            fn array_type_info() -> PgTypeInfo {
                Uuid::array_type_info()
            }
        }

        impl Encode<'_, Postgres> for $id {
            fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                Encode::<Postgres>::encode_by_ref(&self.0, buf)
            }
        }

        impl Decode<'_, Postgres> for $id {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                Ok(Self(Decode::<Postgres>::decode(value)?))
            }
        }
    )*};
}

ids!(OrganizationId, UserId, TemplateId, TemplateVersionId, PresetId, WorkspaceId, WorkspaceBuildId, WorkspaceAgentId);
ids!(JobId, DaemonId, ProvisionerKeyId, FileId, ChatId, GroupId);

impl Type<Postgres> for LicenseId {
    fn type_info() -> PgTypeInfo {
        i32::type_info()
    }
}

impl Decode<'_, Postgres> for LicenseId {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(Decode::<Postgres>::decode(value)?))
    }
}

macro_rules! labels {
    ($($set:ty => $name:literal),* $(,)?) => {$(
        impl Type<Postgres> for Label<$set> {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        }

        impl Decode<'_, Postgres> for Label<$set> {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                Text::decode(value).map(|text| Self::of(text.0))
            }
        }
    )*};
}

labels! {
    AgentLifecycle => "workspace_agent_lifecycle_state",
    BuildReason => "build_reason",
    JobType => "provisioner_job_type",
    LogLevel => "log_level",
    LogSource => "log_source",
    PrebuildStatus => "prebuild_status",
    ProvisionerType => "provisioner_type",
    StorageMethod => "provisioner_storage_method",
    TimingStage => "provisioner_job_timing_stage",
    Transition => "workspace_transition",
    UserStatus => "user_status",
}

/// A status has a value of its own for what is not known.
impl Type<Postgres> for JobStatus {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("provisioner_job_status")
    }
}

impl Decode<'_, Postgres> for JobStatus {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Text::decode(value)?.0.parse().unwrap_or(Self::Unknown))
    }
}

/// Computed by a statement of this layer, as a text.
impl Type<Postgres> for DaemonStatus {
    fn type_info() -> PgTypeInfo {
        Text::type_info()
    }
}

impl Decode<'_, Postgres> for DaemonStatus {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(value.as_str()?.parse()?)
    }
}

impl PgHasArrayType for Label<ProvisionerType> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("provisioner_type")
    }
}

/// A text as the database stores it. One with the encoding `SQL_ASCII` may hold any bytes: those that are no UTF-8 are read
/// as U+FFFD, because one odd row must not fail the page that it is on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text(pub String);

impl Type<Postgres> for Text {
    fn type_info() -> PgTypeInfo {
        String::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        String::compatible(ty)
    }
}

impl PgHasArrayType for Text {
    fn array_type_info() -> PgTypeInfo {
        String::array_type_info()
    }

    fn array_compatible(ty: &PgTypeInfo) -> bool {
        String::array_compatible(ty)
    }
}

impl Decode<'_, Postgres> for Text {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(String::from_utf8_lossy(value.as_bytes()?).into_owned()))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

/// A JSON document as the database stores it; `None` where it is beyond the decoder (a number beyond a double, or
/// hundreds of levels), because one odd row must not fail the page that it is on.
#[derive(Debug, Default)]
pub(crate) struct StoredJson(pub Option<Value>);

impl Type<Postgres> for StoredJson {
    fn type_info() -> PgTypeInfo {
        Value::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <Value as Type<Postgres>>::compatible(ty)
    }
}

impl Decode<'_, Postgres> for StoredJson {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        json_text(&value).map(|text| Self(serde_json::from_str(&text).ok()))
    }
}

/// The input of a job, read whatever else the document holds.
#[derive(Debug, Default)]
pub(crate) struct StoredInput(pub JobInput);

impl Type<Postgres> for StoredInput {
    fn type_info() -> PgTypeInfo {
        Value::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <Value as Type<Postgres>>::compatible(ty)
    }
}

impl Decode<'_, Postgres> for StoredInput {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        json_text(&value).map(|text| Self(JobInput::of(text.as_bytes())))
    }
}

/// Also of a column that is json: Coder's own server may make it that, and what has been written is then read, too.
fn json_text<'a>(value: &'a PgValueRef<'_>) -> Result<Cow<'a, str>, BoxDynError> {
    let text = match (value.format(), value.as_bytes()?) {
        (PgValueFormat::Binary, [1, text @ ..]) => text,
        // No JSON begins with such a byte.
        (PgValueFormat::Binary, [0..=8, ..]) => return Err("jsonb in a format that is not version 1".into()),
        (_, text) => text,
    };
    Ok(String::from_utf8_lossy(text))
}

/// A point in time as the database stores it. sqlx panics at `infinity`; JSON ends with the year 9999. One odd row must
/// not fail the page that it is on, so what lies beyond is the first or the last moment of these years.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamp(pub OffsetDateTime);

impl Timestamp {
    const LATEST: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59.999_999 UTC);
    const EARLIEST: OffsetDateTime = time::macros::datetime!(0000-01-01 0:00 UTC);

    /// So many microseconds after the beginning of 2000, which is how the server sends it.
    pub(crate) fn from_microseconds(microseconds: i64) -> Self {
        let at = POSTGRES_EPOCH.saturating_add(Duration::microseconds(microseconds));
        Self(at.clamp(Self::EARLIEST, Self::LATEST))
    }

    /// Whether a stored moment may be read as this one.
    pub(crate) fn may_be_read(at: OffsetDateTime) -> bool {
        (Self::EARLIEST..=Self::LATEST).contains(&at)
    }

    /// Whether it may be a moment beyond these years, such as `infinity`, that is read as this one.
    pub(crate) fn stands_for_others(at: OffsetDateTime) -> bool {
        at == Self::EARLIEST || at == Self::LATEST
    }
}

const POSTGRES_EPOCH: OffsetDateTime = time::macros::datetime!(2000-01-01 0:00 UTC);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        OffsetDateTime::type_info()
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buf)
    }
}

impl Decode<'_, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self::from_microseconds(i64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}
