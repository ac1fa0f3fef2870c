//! The tools of one chat over the Model Context Protocol, on standard input and output.

mod progress;
mod server;
mod transport;

use std::sync::Arc;

use rmcp::{
    serve_server,
    service::{QuitReason, ServerInitializeError},
};
use tokio::sync::watch;

use crate::{
    authz::{Actor, System},
    model::Chat,
    pool::Pool,
    tools::{CancellationToken, Toolbox},
    watch::{Settings, Watcher},
};
use progress::Progress;
use server::Server;
use transport::Stdio;

/// Who acts for the chat where nothing is done in the name of its owner.
pub(crate) const CHAT_DAEMON: Actor = Actor::system(System::ChatDaemon);

/// Why the tools are not served any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The server cannot go on.
    #[error("the server broke down: {0}")]
    BrokeDown(String),
    /// The client does something else first.
    #[error("the client does not begin as the protocol says: {0}")]
    Initialize(#[from] Box<ServerInitializeError>),
}

/// Serves the tools of the chat until its input ends.
pub(crate) async fn serve(pool: Pool, chat: &Chat) -> Result<(), Error> {
    let watcher = Watcher::start(&pool, Settings::default());
    let (bound, builds) = watch::channel(None);
    let toolbox = Toolbox::new(pool.clone(), watcher.clone(), chat.id, chat.owner_id, chat.organization_id)
        .on_chat_updated(Arc::new(move |chat| {
            let build = chat.binding.build_id;
            bound.send_if_modified(|bound| std::mem::replace(bound, build) != build);
        }));
    let progress = Progress { pool, watcher, owner: chat.owner_id, organization: chat.organization_id, builds };
    let closed = CancellationToken::new();
    let server = Server { toolbox, progress, closed: closed.clone() };

    match Box::pin(serve_server(server, Stdio::new(closed))).await {
        Ok(running) => match running.waiting().await {
            Ok(QuitReason::Closed | QuitReason::Cancelled) => Ok(()),
            Ok(reason) => Err(Error::BrokeDown(format!("{reason:?}"))),
            Err(error) => Err(Error::BrokeDown(error.to_string())),
        },
        // A client that has gone away before it said anything.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(Box::new(error).into()),
    }
}
