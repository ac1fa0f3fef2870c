//! Settings of the site (domain 4.12).

use sqlx::PgConnection;

use super::{Error, Result};
use crate::{
    authz::{ReadChatSettings, ReadPrebuildsSettings, WritePrebuildsSettings},
    model::{PrebuildsSettings, SetOutcome},
};

/// The settings of prebuilt workspaces; not paused when nobody ever set them (domain 7.6). One round trip.
///
/// # Errors
/// [`Error::Corrupt`] when the stored text is not such settings.
#[tracing::instrument(name = "db.settings.prebuilds", skip_all)]
pub async fn prebuilds(conn: &mut PgConnection, _permit: &ReadPrebuildsSettings) -> Result<PrebuildsSettings> {
    let stored = sqlx::query_file_scalar!("queries/settings/prebuilds.sql")
        .fetch_one(conn)
        .await
        .map_err(|e| Error::from_sqlx("settings/prebuilds", e))?;
    serde_json::from_str(&stored).map_err(|e| Error::Corrupt {
        query: "settings/prebuilds",
        column: "value".to_owned(),
        source: e.into(),
    })
}

/// Stores the settings of prebuilt workspaces, and says whether they changed (domain 7.6, 10.8); what cannot be read
/// is replaced. One round trip; of callers that make the same change at once, one changes it.
#[tracing::instrument(name = "db.settings.set_prebuilds", skip_all)]
pub async fn set_prebuilds(
    conn: &mut PgConnection,
    _permit: &WritePrebuildsSettings,
    settings: PrebuildsSettings,
) -> Result<SetOutcome> {
    let done = sqlx::query_file!("queries/settings/set_prebuilds.sql", settings.reconciliation_paused)
        .execute(conn)
        .await
        .map_err(|e| Error::from_sqlx("settings/set_prebuilds", e))?;
    Ok(match done.rows_affected() {
        0 => SetOutcome::Unchanged,
        _ => SetOutcome::Changed,
    })
}

/// How long a workspace that a chat created lives, as it was stored: a duration such as `8h`, or an empty text or zero
/// for no end (domain 4.12; the key is that of 15, decision 14). Empty when nobody set it. One round trip.
#[tracing::instrument(name = "db.settings.chat_workspace_ttl", skip_all)]
pub async fn chat_workspace_ttl(conn: &mut PgConnection, _permit: &ReadChatSettings) -> Result<String> {
    sqlx::query_file_scalar!("queries/settings/chat_workspace_ttl.sql")
        .fetch_one(conn)
        .await
        .map_err(|e| Error::from_sqlx("settings/chat_workspace_ttl", e))
}
