//! The names of the operations.

use std::{collections::BTreeSet, fs, path::Path};

/// What has no scope of its own: it is made of operations that have, or repeats what somebody else asks for.
pub const NO_SCOPE: &[&str] = &["runner::commit_quota", "transaction::retry"];

/// Operations that write when they may and there is something to write. A lock on a row is written, too.
pub const WRITES: &[&str] = &[
    "agents::append_logs",
    "agents::update_logs_overflowed",
    "api_keys::create",
    "api_keys::revoke",
    "api_keys::touch",
    "builds::create",
    "builds::update_deadline",
    "builds::update_state",
    "chats::bind",
    "chats::bind_build_agent",
    "chats::get_with_lock",
    "daemons::delete_old",
    "daemons::heartbeat",
    "daemons::upsert",
    "files::insert",
    "job_logs::append",
    "job_logs::prune",
    "job_timings::insert",
    "jobs::acquire",
    "jobs::acquire_batch",
    "jobs::cancel",
    "jobs::cancel_batch",
    "jobs::complete",
    "jobs::fail",
    "jobs::fail_insufficient_quota",
    "jobs::get_for_update_skip_locked",
    "jobs::get_with_lock",
    "jobs::heartbeat",
    "jobs::insert",
    "jobs::prune",
    "jobs::reap",
    "licenses::delete",
    "licenses::insert",
    "prebuilds::cancel_stale_pending",
    "prebuilds::ensure_organization",
    "prebuilds::set_status",
    "quota::commit",
    "settings::set_prebuilds",
    "workspaces::create",
    "workspaces::get_with_lock",
];

/// Every public operation of the source, as `module::function`.
pub fn public_operations() -> BTreeSet<String> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let (mut public, mut folders) = (BTreeSet::new(), vec![store.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A module may have files of its own; its name is that of the first folder.
            let below = path.strip_prefix(&store).expect("below").with_extension("");
            let module = below.iter().next().expect("a name").to_string_lossy().into_owned();
            let code = fs::read_to_string(&path).expect("a text");
            let names = code.split("\npub async fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            public.extend(names.map(|name| format!("{module}::{name}")));
        }
    }
    public
}
