//! Agents: those of the latest build, whether they are connected, and their logs.

use std::time::Duration;

use coderdb::{
    authz::{ActAsAgent, Actor, ReadWorkspaces, System},
    model::{
        AgentLifecycle, AgentLogLine, AgentStatus, Append, LogLevel, LogSourceId, OrganizationId, WorkspaceAgent,
        WorkspaceAgentId, WorkspaceId,
    },
    store::{self, agents::OVERFLOW_MESSAGE},
};
use sqlx::{Connection as _, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);
const CAP: usize = 1_048_576;
const AGENT: WorkspaceAgentId = WorkspaceAgentId(Uuid::from_u128(1));

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

async fn world() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql(include_str!("../golden/rows.sql")).execute(&mut conn).await.unwrap();
    (database, conn)
}

fn as_agent(agent: WorkspaceAgentId) -> ActAsAgent {
    ActAsAgent::check(&Actor::system(System::WorkspaceAgent), agent).unwrap()
}

fn may_read(organization: u32) -> ReadWorkspaces {
    ReadWorkspaces::check(&support::operator(), OrganizationId(u(organization))).unwrap()
}

async fn agents(conn: &mut PgConnection) -> Vec<WorkspaceAgent> {
    store::agents::in_latest_build(conn, &may_read(1), WorkspaceId(u(1))).await.unwrap()
}

fn line(output: &str) -> AgentLogLine {
    AgentLogLine { level: LogLevel::Warn, output: output.to_owned() }
}

async fn append(conn: &mut PgConnection, lines: &[AgentLogLine]) -> Append {
    store::agents::append_logs(conn, &as_agent(AGENT), lines, None, NOW).await.unwrap()
}

/// The counter, the flag, the number of lines, and the bytes of them.
async fn log(conn: &mut PgConnection) -> (i32, bool, i64, i64) {
    let sql = "SELECT logs_length, logs_overflowed, (SELECT count(*) FROM workspace_agent_logs),
                      (SELECT coalesce(sum(octet_length(output)), 0) FROM workspace_agent_logs)
               FROM workspace_agents WHERE id = $1";
    sqlx::query_as(sql).bind(AGENT.0).fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn only_agents_of_the_latest_build_that_are_not_deleted_are_found() {
    let (_database, mut conn) = world().await;
    assert_eq!(agents(&mut conn).await.len(), 1);
    sqlx::raw_sql(
        "SELECT add_build(2, 1, 2), add_resource(2, 2), add_agent(2, 2, 'b'), add_agent(3, 2, 'gone', deleted => true);
         SELECT add_agent(4, 2, 'A', 'ready'), add_agent(5, 2, 'first');
         UPDATE workspace_agents SET parent_id = u(2) WHERE name = 'A';
         UPDATE workspace_agents SET display_order = -1 WHERE name = 'first'",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    let found = agents(&mut conn).await;
    assert_eq!(found.iter().map(|agent| &agent.name[..]).collect::<Vec<_>>(), ["first", "A", "b"]);
    assert_eq!(found[1].parent_id, Some(WorkspaceAgentId(u(2))));
    let other = store::agents::in_latest_build(&mut conn, &may_read(2), WorkspaceId(u(1))).await.unwrap();
    assert_eq!(other, []);
    let state = store::agents::lifecycle(&mut conn, &may_read(1), WorkspaceAgentId(u(4))).await.unwrap();
    assert_eq!((state.state, state.started_at), (AgentLifecycle::Ready.into(), None));
    let error = store::agents::lifecycle(&mut conn, &may_read(2), WorkspaceAgentId(u(4))).await.unwrap_err();
    assert_eq!(error.code(), "not_found");
}

// Seconds before now: created, first and last connected, disconnected; the connection timeout; the answer.
type Case = (i64, Option<i64>, Option<i64>, Option<i64>, i32, AgentStatus);

#[tokio::test]
async fn the_status_of_an_agent_is_a_function_of_its_row_the_time_and_the_timeout() {
    use AgentStatus::{Connected, Connecting, Disconnected, Timeout};
    let (_database, mut conn) = world().await;
    let row = agents(&mut conn).await.remove(0);
    let cases: &[Case] = &[
        (10, None, None, None, 0, Connecting),
        (1_000_000, None, None, None, 0, Connecting),
        (1_000_000, None, None, None, -1, Connecting),
        (10, None, None, None, 10, Connecting),
        (11, None, None, None, 10, Timeout),
        (-5, None, None, None, 1, Connecting),
        (11, None, Some(1), Some(0), 10, Timeout),
        (99, Some(50), Some(6), None, 10, Connected),
        (99, Some(50), Some(7), None, 10, Disconnected),
        (99, Some(50), Some(-9), None, 10, Connected),
        (99, Some(50), Some(5), Some(5), 0, Disconnected),
        (99, Some(50), Some(5), Some(4), 0, Disconnected),
        (99, Some(50), Some(4), Some(5), 0, Connected),
        (99, Some(6), None, None, 0, Connected),
        (99, Some(7), None, None, 0, Disconnected),
    ];
    for case in cases {
        let ago = |seconds: i64| NOW - time::Duration::seconds(seconds);
        let agent = WorkspaceAgent {
            created_at: ago(case.0),
            first_connected_at: case.1.map(ago),
            last_connected_at: case.2.map(ago),
            disconnected_at: case.3.map(ago),
            connection_timeout_seconds: case.4,
            ..row.clone()
        };
        assert_eq!(agent.status(NOW, Duration::from_secs(6)), case.5, "{case:?}");
    }
}

#[tokio::test]
async fn lines_are_stored_in_their_order_and_counted_in_bytes() {
    let (_database, mut conn) = world().await;
    let Append::Stored { logs_after: Some(after) } = append(&mut conn, &[line("é"), line("b")]).await else {
        panic!("there is room")
    };
    assert_eq!(log(&mut conn).await, (3, false, 2, 3));
    let read = async |conn: &mut PgConnection, organization, after| {
        store::agents::logs_after(conn, &may_read(organization), AGENT, after).await
    };
    let stored = read(&mut conn, 1, after).await.unwrap();
    assert_eq!(stored.iter().map(|log| log.line.output.as_str()).collect::<Vec<_>>(), ["é", "b"]);
    assert_eq!((stored[0].id, stored[0].created_at, stored[0].source), (after + 1, NOW, LogSourceId::EXTERNAL));
    assert_eq!(read(&mut conn, 1, stored[0].id).await.unwrap(), stored[1..]);
    assert_eq!(read(&mut conn, 1, stored[1].id).await.unwrap(), []);
    assert_eq!(read(&mut conn, 2, after).await.unwrap_err().code(), "not_found");
    assert_eq!(append(&mut conn, &[]).await, Append::Stored { logs_after: None });
    assert!(matches!(append(&mut conn, &[line(&"é".repeat(5_000))]).await, Append::Stored { .. }));
    assert_eq!(log(&mut conn).await, (10_003, false, 3, 2_051), "cut off at 1,024 characters, and counted whole");
}

/// The bytes of the warning, which always find room.
const MESSAGE: usize = OVERFLOW_MESSAGE.len();

#[tokio::test]
async fn the_line_that_would_overflow_becomes_the_warning_and_ends_the_log() {
    let (_database, mut conn) = world().await;
    let room = CAP - MESSAGE;
    let (whole, rest) = (room / 1_024, room % 1_024);
    let mut full = vec![line(&"x".repeat(1_024)); whole];
    full.push(line(&"x".repeat(rest)));
    assert!(matches!(append(&mut conn, &full).await, Append::Stored { .. }));
    let full = (i32::try_from(room).unwrap(), false, i64::try_from(whole).unwrap() + 1, i64::try_from(room).unwrap());
    assert_eq!(log(&mut conn).await, full);
    assert!(matches!(append(&mut conn, &[line("")]).await, Append::Stored { .. }), "nothing needs no room");
    let Append::Overflowed { logs_after, lines: 2 } = append(&mut conn, &[line(""), line("y"), line("")]).await else {
        panic!("there is no room for a byte")
    };
    let last = store::agents::logs_after(&mut conn, &may_read(1), AGENT, logs_after + 1).await.unwrap();
    assert_eq!(last.iter().map(|log| log.line.output.as_str()).collect::<Vec<_>>(), [OVERFLOW_MESSAGE]);
    let cap = i32::try_from(CAP).unwrap();
    assert_eq!(log(&mut conn).await, (cap, true, full.2 + 3, i64::from(cap)));
    for lines in [&[][..], &[line("z")]] {
        assert_eq!(append(&mut conn, lines).await, Append::Dropped);
    }
    assert_eq!(log(&mut conn).await, (cap, true, full.2 + 3, i64::from(cap)));
}

#[tokio::test]
async fn a_log_that_a_foreign_writer_filled_is_only_marked() {
    let (_database, mut conn) = world().await;
    sqlx::raw_sql("UPDATE workspace_agents SET logs_length = 1048576").execute(&mut conn).await.unwrap();
    assert_eq!(append(&mut conn, &[line("x")]).await, Append::Full);
    assert_eq!(log(&mut conn).await, (1_048_576, true, 0, 0));
    store::agents::update_logs_overflowed(&mut conn, &as_agent(AGENT), false).await.unwrap();
    assert_eq!(append(&mut conn, &[]).await, Append::Stored { logs_after: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_never_go_beyond_the_cap_and_warn_once() {
    let (database, mut conn) = world().await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let mut conn = database.connect().await;
        tasks.spawn(async move { append(&mut conn, &vec![line(&"é".repeat(500)); 100]).await });
    }
    let outcomes = tasks.join_all().await;
    let count = |wanted: fn(&Append) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    assert_eq!(count(|outcome| matches!(outcome, Append::Stored { .. })), 10);
    assert_eq!(count(|outcome| matches!(outcome, Append::Overflowed { lines: 49, .. })), 1, "{outcomes:?}");
    assert_eq!(count(|outcome| matches!(outcome, Append::Dropped)), 5);
    let bytes = 1_048_000 + MESSAGE;
    assert_eq!(log(&mut conn).await, (i32::try_from(bytes).unwrap(), true, 1_049, i64::try_from(bytes).unwrap()));
}

#[tokio::test]
async fn append_logs_that_waits_for_another_sees_what_that_one_has_used_up() {
    let (database, mut conn) = world().await;
    let (mut other, mut watcher) = (database.connect().await, database.connect().await);
    let kilobytes = |count| vec![line(&"x".repeat(1_000)); count];
    let _ = append(&mut conn, &kilobytes(1_000)).await;
    let mut transaction = conn.begin().await.unwrap();
    assert!(matches!(append(&mut transaction, &kilobytes(40)).await, Append::Stored { .. }));
    let commit = async {
        let waits =
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut watcher).await.unwrap() {}
        transaction.commit().await.unwrap();
    };
    let lines = kilobytes(40);
    let (second, ()) = tokio::join!(append(&mut other, &lines), commit);
    assert!(matches!(second, Append::Overflowed { lines: 9, .. }), "{second:?}");
}

#[tokio::test]
async fn append_logs_out_of_scope_writes_nothing() {
    let (_database, mut conn) = world().await;
    sqlx::raw_sql("SELECT add_agent(2, 1, 'gone', deleted => true)").execute(&mut conn).await.unwrap();
    for nobody in [2, 3] {
        let permit = as_agent(WorkspaceAgentId(u(nobody)));
        let error = store::agents::append_logs(&mut conn, &permit, &[line("x")], None, NOW).await.unwrap_err();
        assert_eq!(error.code(), "not_found");
        let error = store::agents::update_logs_overflowed(&mut conn, &permit, true).await.unwrap_err();
        assert_eq!(error.code(), "not_found");
    }
    assert_eq!(log(&mut conn).await, (0, false, 0, 0));
}
