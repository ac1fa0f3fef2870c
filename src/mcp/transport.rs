//! Standard input and output, and the end of the input.

use std::{future::Future, io};

use rmcp::{
    RoleServer,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{StdioReader, StdioWriter, Transport, async_rw::AsyncRwTransport, stdio_pipes},
};

use crate::tools::CancellationToken;

/// A line per message. The framework waits five seconds for calls under way when the input ends, and cancels them only
/// then. Their callers are gone, so this cancels them at once.
pub(super) struct Stdio {
    inner: AsyncRwTransport<RoleServer, StdioReader, StdioWriter>,
    closed: CancellationToken,
}

impl Stdio {
    /// With what is canceled when the input ends.
    pub(super) fn new(closed: CancellationToken) -> Self {
        let (reader, writer) = stdio_pipes();
        Self { inner: AsyncRwTransport::new(reader, writer), closed }
    }
}

impl Transport<RoleServer> for Stdio {
    type Error = io::Error;

    fn send(&mut self, item: TxJsonRpcMessage<RoleServer>) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let message = self.inner.receive().await;
        if message.is_none() {
            self.closed.cancel();
        }
        message
    }

    async fn close(&mut self) -> io::Result<()> {
        self.inner.close().await
    }
}
