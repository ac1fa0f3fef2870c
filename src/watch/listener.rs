//! The one connection that listens.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{sleep, timeout};

use super::{Shared, announcer};
use crate::store;

/// After so much silence the listening connection is checked: a network may drop packets without an error.
const SILENCE: Duration = Duration::from_secs(20);
/// How long its own voice may take to come back.
const ECHO: Duration = Duration::from_secs(5);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = Duration::from_millis(50);
    loop {
        let ended = listen(&shared, &mut pause).await;
        shared.queue.hears(false);
        match ended {
            Ok(()) => tracing::info!(name: "watch.listener_silent", "the listening connection is silent, and replaced"),
            Err(error) => tracing::warn!(name: "watch.listener_failed", error = %error, "cannot listen for changes"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Receives announcements until the connection fails, or misses a notification that was sent as a check.
async fn listen(shared: &Shared, pause: &mut Duration) -> Result<(), sqlx::Error> {
    // The driver listens only through a pool; this one is for one connection.
    let connect = |options| async move {
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        PgListener::connect_with(&pool.acquire_timeout(ECHO).connect_lazy_with(options)).await
    };
    let mut listener = shared.pool.options().connect_by(connect).await?;
    // Where it was lost, it is looked for anew, as the pool does.
    listener.eager_reconnect(false);
    listener.listen(store::changes::CHANNEL).await?;
    *pause = Duration::from_millis(50);
    // What was said before is for others to tell: the look comes after the ear is open.
    shared.queue.hears(true);
    shared.look_at_everything();
    loop {
        let mut heard = timeout(SILENCE, listener.try_recv()).await;
        if heard.is_err() {
            let speak = async {
                let mut connection = shared.pool.get().await.ok()?;
                store::changes::announce(&mut connection, &shared.permit, &[String::new()]).await.ok()
            };
            // If the notification could not be sent, its absence says nothing about the listening connection.
            if timeout(ECHO, speak).await.ok().flatten().is_none() {
                continue;
            }
            heard = timeout(ECHO, listener.try_recv()).await;
        }
        let Ok(heard) = heard else { return Ok(()) };
        match heard? {
            Some(notification) => {
                let mut state = shared.state();
                announcer::changes(notification.payload()).for_each(|change| state.note(change));
                drop(state);
                shared.queue.has_changed();
                shared.look.notify_one();
            }
            None => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
        }
    }
}
