//! Settings of the site (domain: site settings).

use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::{Error, Result, Text, query::Query as _};
use crate::{
    authz::{ReadChatSettings, ReadLicenses, ReadPrebuildsSettings, WritePrebuildsSettings},
    model::{PrebuildsSettings, SetOutcome},
};

/// The settings of prebuilt workspaces; not paused if they were never set (domain: site settings). One round trip.
///
/// # Errors
/// [`Error::Corrupt`] when the stored text is not such settings.
#[tracing::instrument(name = "db.settings.prebuilds", skip_all)]
pub async fn prebuilds(conn: &mut PgConnection, _permit: &ReadPrebuildsSettings) -> Result<PrebuildsSettings> {
    serde_json::from_str(&stored(conn).await?).map_err(|e| Error::Corrupt {
        query: "settings/prebuilds",
        column: "value".to_owned(),
        source: e.into(),
    })
}

async fn stored(conn: &mut PgConnection) -> Result<String> {
    sqlx::query_file_scalar!("queries/settings/prebuilds.sql").fetch_one(conn).of_query("settings/prebuilds").await
}

/// Stores the settings of prebuilt workspaces, and says whether they changed (domain: site settings). Settings that
/// this version does not know stay; what cannot be read is replaced. One round trip, one more when they change, and
/// and more if they are changed meanwhile; of callers that make the same change at once, one changes it.
#[tracing::instrument(name = "db.settings.set_prebuilds", skip_all)]
pub async fn set_prebuilds(
    conn: &mut PgConnection,
    _permit: &WritePrebuildsSettings,
    settings: PrebuildsSettings,
) -> Result<SetOutcome> {
    loop {
        let before = stored(conn).await?;
        let known: Option<Map<String, Value>> = serde_json::from_str(&before).ok();
        let is_so = serde_json::from_str::<PrebuildsSettings>(&before).is_ok_and(|before| before == settings);
        if is_so && known.is_some() {
            return Ok(SetOutcome::Unchanged);
        }
        let mut all = known.unwrap_or_default();
        all.insert("reconciliation_paused".to_owned(), settings.reconciliation_paused.into());
        let done = sqlx::query_file!("queries/settings/set_prebuilds.sql", Value::Object(all).to_string(), before)
            .execute(&mut *conn)
            .of_query("settings/set_prebuilds")
            .await?;
        if done.rows_affected() > 0 {
            return Ok(SetOutcome::Changed);
        }
    }
}

/// How long a workspace that a chat created lives, as it was stored: a duration such as `8h`, or an empty text or zero
/// for no end (domain: site settings). Empty if it was never set. One round trip.
#[tracing::instrument(name = "db.settings.chat_workspace_ttl", skip_all)]
pub async fn chat_workspace_ttl(conn: &mut PgConnection, _permit: &ReadChatSettings) -> Result<String> {
    sqlx::query_file_scalar!("queries/settings/chat_workspace_ttl.sql")
        .fetch_one(conn)
        .of_query("settings/chat_workspace_ttl")
        .await
}

/// The id of the deployment, which a license may name; `None` if it has none (domain: site settings). One round
/// trip.
#[tracing::instrument(name = "db.settings.deployment_id", skip_all)]
pub async fn deployment_id(conn: &mut PgConnection, _permit: &ReadLicenses) -> Result<Option<String>> {
    let id = sqlx::query_file_scalar!("queries/settings/deployment_id.sql")
        .fetch_one(conn)
        .of_query("settings/deployment_id")
        .await?;
    Ok(id.map(|id| id.0).filter(|id| !id.is_empty()))
}
