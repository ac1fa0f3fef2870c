//! Announcements to other processes: many changes in few notifications.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::sleep;
use uuid::Uuid;

use super::{Change, Shared};
use crate::{
    authz::WatchJobs,
    model::{JobId, OrganizationId},
    store::{self, PgConnection},
};

/// A change is two UUIDs of 32 digits.
const PER_TEXT: usize = store::changes::MAX_TEXT / 64;

/// Sends what has gathered, and again what could not be sent.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.send.notified().await;
        sleep(shared.settings.gather).await;
        let changes: Vec<Change> = mem::take(&mut shared.state().outgoing).into_iter().collect();
        if changes.is_empty() {
            continue;
        }
        let sent = match shared.pool.get().await {
            Ok(mut connection) => announce(&mut connection, &shared.permit, &changes).await.is_ok(),
            Err(_) => false,
        };
        if !sent {
            // The polls of the others find them meanwhile.
            shared.state().outgoing.extend(changes);
            sleep(Duration::from_millis(250)).await;
            shared.send.notify_one();
        }
    }
}

/// Tells all watchers that these jobs have changed, for a program that has none and has changed many; to call after the
/// commit. One round trip. When it fails, the polls of the watchers find the changes.
pub async fn announce(conn: &mut PgConnection, permit: &WatchJobs, changes: &[Change]) -> store::Result<()> {
    let texts: Vec<String> = changes.chunks(PER_TEXT).map(text).collect();
    store::changes::announce(conn, permit, &texts).await
}

fn text(changes: &[Change]) -> String {
    let ids = changes.iter().flat_map(|change| [change.job.0, change.organization.0]);
    ids.map(|id| id.simple().to_string()).collect()
}

/// The changes in a text, as far as it is one of ours.
pub(super) fn changes(text: &str) -> impl Iterator<Item = Change> {
    text.as_bytes().chunks(64).filter_map(|change| {
        let id = |range| Uuid::try_parse_ascii(change.get(range)?).ok();
        Some(Change { job: JobId(id(0..32)?), organization: OrganizationId(id(32..64)?) })
    })
}
