//! The tools as the protocol has them.

use std::sync::Arc;

use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest, CustomResult, ErrorCode,
        Implementation, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
        ServerCapabilities, ServerConfig, Tool as McpTool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde_json::Value;
use tokio::sync::watch;

use super::progress::Progress;
use crate::{
    bounds::beginning_of,
    tools::{CancellationToken, Reply, Tool, Toolbox},
};

const INSTRUCTIONS: &str = "The workspace of this chat. A call waits until the workspace can be used, which may take \
                            minutes; it may be repeated, and what a canceled call began goes on. There is no tool \
                            list_templates here: ask for the id of a template where you do not know it. Parameters of \
                            templates are in their documentation.";

/// The tools of one chat, for one client.
pub(super) struct Server {
    pub(super) toolbox: Toolbox,
    pub(super) progress: Progress,
    /// Canceled when the input has ended.
    pub(super) closed: CancellationToken,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let about = Implementation::new("coderdb", env!("CARGO_PKG_VERSION")).with_title("Coder workspaces");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(about)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(Tool::ALL.iter().copied().map(described).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = Tool::ALL.iter().copied().find(|tool| tool.name() == request.name) else {
            let names: Vec<_> = Tool::ALL.iter().map(|tool| tool.name()).collect();
            let text = format!("unknown tool: {}; expected one of {}", request.name, names.join(", "));
            return Err(ErrorData::invalid_params(beginning_of(&text, ""), None));
        };
        let arguments = request.arguments.map_or(Value::Null, Value::Object);
        let cancel = self.closed.child_token();
        let call = Box::pin(async {
            let call = self.toolbox.call(tool, arguments, &cancel);
            tokio::pin!(call);
            tokio::select! {
                reply = &mut call => reply,
                () = context.ct.cancelled() => {
                    cancel.cancel();
                    call.await
                }
            }
        });
        let reply = match context.meta.get_progress_token() {
            Some(token) => self.with_progress(call, &context.peer, token).await,
            None => call.await,
        };
        Ok(result(reply).into())
    }

    /// What the framework could not read as one of the requests that it knows.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if request.method == "tools/call" {
            let params = serde_json::from_value::<CallToolRequestParams>(request.params.unwrap_or_default());
            let reason = params.err().map(|error| error.to_string()).unwrap_or_default();
            return Err(ErrorData::invalid_params(beginning_of(&format!("malformed tools/call: {reason}"), ""), None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, request.method, None))
    }
}

impl Server {
    /// Tells the client what the call waits for. The reply comes after the last of it, and does not wait for more.
    async fn with_progress(
        &self,
        call: impl Future<Output = Reply>,
        peer: &Peer<RoleServer>,
        token: ProgressToken,
    ) -> Reply {
        let (text, mut texts) = watch::channel(String::new());
        let call = async move {
            tokio::select! {
                reply = call => reply,
                never = self.progress.follow(&text) => match never {},
            }
        };
        let tell = async {
            let mut count = 0.0;
            while texts.changed().await.is_ok() {
                count += 1.0;
                let message = texts.borrow_and_update().clone();
                let progress = ProgressNotificationParam::new(token.clone(), count).with_message(message);
                // A client that has gone away gets no reply either.
                let _ = peer.notify_progress(progress).await;
            }
        };
        tokio::join!(call, tell).0
    }
}

fn described(tool: Tool) -> McpTool {
    let title = match tool {
        Tool::CreateWorkspace => "Create workspace",
        Tool::StartWorkspace => "Start workspace",
    };
    // Nothing is changed but the chat's own workspace, and that only for more.
    let annotations =
        ToolAnnotations::with_title(title).read_only(false).destructive(false).idempotent(true).open_world(false);
    McpTool::new(tool.name(), tool.description(), tool.arguments_schema())
        .with_title(title)
        .with_raw_output_schema(Arc::new(tool.reply_schema()))
        .with_annotations(annotations)
}

fn result(reply: Reply) -> CallToolResult {
    match reply {
        Reply::Structured(keys) => CallToolResult::structured(Value::Object(keys)),
        Reply::Error(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
    }
}
