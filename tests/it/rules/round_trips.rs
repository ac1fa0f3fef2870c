//! What each operation costs on the wire, once its statements are prepared.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use coderdb::sqlx::Connection;

use crate::support::{
    operations::{self, names},
    proxy::Proxied,
};

/// The round trips of each operation. More words of a name say how it is called.
const ROUND_TRIPS: &str = "
actors::load                     : 1
agents::append_logs              : 1
agents::in_latest_build          : 1
agents::lifecycle                : 1
agents::logs_after               : 1
agents::update_logs_overflowed   : 1
api_keys::create                 : 1
api_keys::list                   : 1
api_keys::revoke                 : 1
api_keys::session                : 1
api_keys::touch                  : 1
builds::by_job                   : 1
builds::by_number                : 1
builds::create                   : 1
builds::get                      : 1
builds::latest                   : 1
builds::options                  : 1
builds::state                    : 1
builds::state_of_job             : 1
builds::update_deadline          : 1
builds::update_state             : 1
changes::active                  : 1
changes::announce                : 1
changes::of_jobs                 : 1
chats::bind                      : 1
chats::bind_build_agent          : 1
chats::get                       : 1
chats::get_with_lock             : 1
daemons::delete_old              : 1
daemons::eligible                : 1
daemons::heartbeat               : 1
daemons::list                    : 1
daemons::upsert                  : 1
files::get                       : 1
files::insert                    : 1
files::of_job                    : 1
job_logs::after                  : 1
job_logs::append                 : 1
job_logs::prune                  : 1
job_timings::insert              : 1
job_timings::list                : 1
jobs::acquire                    : 1
jobs::acquire_batch              : 1
jobs::by_ids                     : 1
jobs::by_ids_with_queue_position : 1
jobs::cancel                     : 1
jobs::cancel_batch               : 1
jobs::complete                   : 1
jobs::count_by_tags              : 1
jobs::created_after              : 1
jobs::fail                       : 1
jobs::fail_insufficient_quota    : 1
jobs::find_of_build              : 1
jobs::find_of_dry_run            : 1
jobs::find_of_version            : 1
jobs::get                        : 1
jobs::get_for_update_skip_locked : 1
jobs::get_with_lock              : 1
jobs::heartbeat                  : 1
jobs::ids                        : 1
jobs::insert                     : 1
jobs::list                       : 1
jobs::prune                      : 1
jobs::prune_candidates           : 1
jobs::dead_rows                  : 1
jobs::reap                       : 1
jobs::reap_candidates            : 1
jobs::would_cancel_batch         : 1
licenses::delete                 : 1
licenses::get                    : 1
licenses::insert                 : 1
licenses::list                   : 1
licenses::refresh                : 1
licenses::unexpired              : 1
organizations::by_name           : 1
organizations::default           : 1
organizations::get               : 1
organizations::list              : 1
organizations::resolve           : 1
prebuilds::at_failure_limit      : 1
prebuilds::backoff               : 1
prebuilds::cancel_stale_pending  : 1
prebuilds::count_in_progress     : 1
prebuilds::count_stale_pending   : 1
prebuilds::ensure_organization   : 1
prebuilds::metrics               : 1
prebuilds::organizations         : 1
prebuilds::presets               : 1
prebuilds::running               : 1
prebuilds::set_status            : 1
prebuilds::status                : 1
queue::history                   : 1
queue::shares                    : 1
queue::snapshot                  : 1
quota::by_group                  : 1
quota::by_template               : 1
quota::check                     : 1
quota::commit                    : 1
quota::explain                   : 1
quota::list                      : 1
quota::usage                     : 1
settings::chat_workspace_ttl     : 1
settings::deployment_id          : 1
settings::prebuilds              : 1
settings::set_prebuilds          : 2
templates::by_name               : 1
templates::find                  : 1
templates::get                   : 1
templates::resolve               : 1
templates::version               : 1
users::by_username               : 1
users::get                       : 1
users::resolve                   : 1
workspaces::by_name              : 1
workspaces::create               : 1
workspaces::get                  : 1
workspaces::get_with_lock        : 1
runner::commit_quota             : 2
runner::commit_quota over budget : 3
transaction::retry               : 2
";

/// Where the table of authz does one thing more: the commit that is rejected, and a look at the new workspace.
const ONE_MORE: &[&str] = &["jobs::fail_insufficient_quota", "workspaces::create"];

#[tokio::test]
async fn every_operation_costs_the_round_trips_of_the_table() {
    let (mut counted, mut unchanged) = (BTreeMap::new(), BTreeMap::new());
    for operation in operations::all().await {
        let mut written = None;
        let database = if operation.writes {
            written.insert(operations::world(&operation).await)
        } else {
            match unchanged.entry(operation.before) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(operations::world(&operation).await),
            }
        };
        let mut proxied = Proxied::connect(database).await;
        // The first use prepares what each later one needs, and is taken back.
        let mut tx = proxied.conn.begin().await.unwrap();
        operation.call(&mut tx).await.expect(operation.name);
        tx.rollback().await.unwrap();
        proxied.take();
        operation.call(&mut proxied.conn).await.expect(operation.name);
        let around = usize::from(ONE_MORE.contains(&operation.name));
        counted.insert(operation.name, (proxied.take() - around).to_string());
    }
    operations::assert_table(&counted, ROUND_TRIPS, "ROUND_TRIPS in tests/it/rules/round_trips.rs");
}

#[tokio::test]
async fn every_operation_is_counted() {
    let operations = operations::all().await;
    let counted: BTreeSet<_> = operations.iter().map(|operation| operation.function().to_owned()).collect();
    let missing: Vec<_> = names::public_operations().into_iter().filter(|name| !counted.contains(name)).collect();
    assert!(
        missing.is_empty(),
        "neither POLICY in tests/it/support/policy.rs nor OTHERS in tests/it/support/operations/mod.rs has {missing:?}"
    );
}
