//! The tools of chats, on a real database, with provisioner daemons that do what daemons do.
//!
//! Every reply of every test is checked against the published schema of its tool, and the whole replies are those in
//! `golden/replies.json`.

#[path = "../../../examples/agent.rs"]
#[expect(dead_code, reason = "its main function is for people")]
mod agent;
mod bounded;
mod create;
mod existing;
mod once;
mod quota;
mod rights;
mod schemas;
mod start;

use std::{sync::Arc, time::Duration};

use coderdb::{
    model::{ChatId, WorkspaceAgentId},
    pool::{self, Pool},
    sqlx,
    tools::{ApiError, Connector, ForeignError, Reply, Settings, Tool, Toolbox, Validation},
    watch::{self, Change, Watcher},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};

use crate::support::{
    rows::id,
    tools::{
        Answer, Dials, Ending, SETTINGS, World, assert_golden, call, call_until, create, error, keys, pool_of, refusal,
        start, take, template,
    },
};
