//! Provisioner daemons: who they are, whether they live, what they do.

use std::time::Duration;

use coderdb::{
    authz::{ActAsDaemon, Actor, MaintainDaemons, ReadDaemons, System},
    model::{
        Daemon, DaemonDetails, DaemonFilter, DaemonId, DaemonStatus, HeartbeatOutcome, JobId, JobStatus, NewDaemon,
        OrganizationId, ProvisionerKeyId, ProvisionerType, Tags,
    },
    sqlx::{self, AssertSqlSafe, PgConnection},
    store::{self, Error, jobs::STALE_INTERVAL},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

/// Two organizations with a daemon each (104 and 204, with the tags `a=b`, seen at [`NOW`]), and a deleted third one.
async fn fixture() -> (Database, PgConnection) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sql(&mut conn, include_str!("../golden/two_organizations.sql")).await;
    (database, conn)
}

async fn sql(conn: &mut PgConnection, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.unwrap_or_else(|error| panic!("{text}\n{error}"));
}

async fn count(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM provisioner_daemons").fetch_one(conn).await.expect("a number")
}

fn u(n: u32) -> Uuid {
    format!("{n:032}").parse().expect("an id")
}

fn act_as(daemon: u32, organization: u32) -> ActAsDaemon {
    let actor = Actor::system(System::ProvisionerDaemon);
    ActAsDaemon::check(&actor, DaemonId(u(daemon)), OrganizationId(u(organization))).expect("a daemon may")
}

fn read(organization: u32) -> ReadDaemons {
    ReadDaemons::check(&support::operator(), OrganizationId(u(organization))).expect("an operator may")
}

fn new(name: &str, tags: &[(&str, &str)]) -> NewDaemon {
    NewDaemon {
        created_at: NOW,
        name: name.to_owned(),
        provisioners: vec![ProvisionerType::Terraform, ProvisionerType::Echo],
        replica_id: Some(u(7)),
        tags: tags.iter().copied().collect(),
        last_seen_at: Some(NOW),
        version: "v2.30.0".to_owned(),
        api_version: "1.11".to_owned(),
        key_id: ProvisionerKeyId(u(105)),
    }
}

async fn list(conn: &mut PgConnection, filter: &DaemonFilter) -> Vec<DaemonDetails> {
    store::daemons::list(conn, &read(1), filter, NOW, STALE_INTERVAL).await.expect("the list")
}

async fn only(conn: &mut PgConnection, daemon: u32) -> DaemonDetails {
    let filter = DaemonFilter { ids: vec![DaemonId(u(daemon))], ..DaemonFilter::default() };
    list(conn, &filter).await.pop().expect("the daemon")
}

fn ids(daemons: &[DaemonDetails]) -> Vec<Uuid> {
    daemons.iter().map(|details| details.daemon.id.0).collect()
}

#[tokio::test]
async fn a_new_daemon_is_stored_as_it_says() {
    let (_database, mut conn) = fixture().await;
    let new = new("fresh", &[("scope", "organization"), ("owner", "")]);
    let stored = store::daemons::upsert(&mut conn, &act_as(40, 1), &new).await.expect("the daemon");
    let expected = Daemon {
        id: DaemonId(u(40)),
        created_at: NOW,
        name: "fresh".to_owned(),
        provisioners: [ProvisionerType::Terraform, ProvisionerType::Echo].map(Into::into).into(),
        replica_id: Some(u(7)),
        tags: new.tags.clone(),
        last_seen_at: Some(NOW),
        version: "v2.30.0".to_owned(),
        api_version: "1.11".to_owned(),
        organization_id: OrganizationId(u(1)),
        key_id: ProvisionerKeyId(u(105)),
    };
    assert_eq!(stored, expected);
    assert_eq!(only(&mut conn, 40).await.daemon, expected);
}

#[tokio::test]
async fn a_daemon_that_comes_back_keeps_its_id_replica_and_creation_time() {
    let (_database, mut conn) = fixture().await;
    let first = new("same", &[("owner", "Ann"), ("old", "tag")]);
    store::daemons::upsert(&mut conn, &act_as(40, 1), &first).await.expect("the daemon");
    let second = NewDaemon {
        created_at: NOW + Duration::from_mins(1),
        name: "same".to_owned(),
        provisioners: vec![ProvisionerType::Echo],
        replica_id: Some(u(8)),
        tags: [("owner", "aNN"), ("new", "tag")].into_iter().collect(),
        last_seen_at: None,
        version: "v3".to_owned(),
        api_version: "2.0".to_owned(),
        key_id: ProvisionerKeyId(u(205)),
    };
    let stored = store::daemons::upsert(&mut conn, &act_as(41, 1), &second).await.expect("the daemon");
    let expected = Daemon {
        id: DaemonId(u(40)),
        created_at: NOW,
        name: "same".to_owned(),
        provisioners: second.provisioners.into_iter().map(Into::into).collect(),
        replica_id: Some(u(7)),
        tags: second.tags,
        // It has been seen.
        last_seen_at: Some(NOW),
        version: second.version,
        api_version: second.api_version,
        organization_id: OrganizationId(u(1)),
        key_id: second.key_id,
    };
    assert_eq!(stored, expected);
    assert_eq!(count(&mut conn).await, 4);
}

#[tokio::test]
async fn another_name_owner_or_organization_is_another_daemon() {
    let (_database, mut conn) = fixture().await;
    for (id, organization, name, tags) in [
        (40, 1, "same", &[("owner", "ann")][..]),
        (41, 1, "Same", &[("owner", "ann")]),
        (42, 1, "same", &[("owner", "bob")]),
        (43, 1, "same", &[]),
        (44, 2, "same", &[("owner", "ann")]),
    ] {
        let stored = store::daemons::upsert(&mut conn, &act_as(id, organization), &new(name, tags)).await;
        assert_eq!(stored.expect("the daemon").id.0, u(id));
    }
    // No owner, and an empty one, are the same.
    let stored = store::daemons::upsert(&mut conn, &act_as(45, 1), &new("same", &[("owner", "")])).await;
    assert_eq!(stored.expect("the daemon").id.0, u(43));
}

#[tokio::test]
async fn an_id_does_not_move_to_another_name_or_organization() {
    let (_database, mut conn) = fixture().await;
    for organization in [1, 2] {
        let error = store::daemons::upsert(&mut conn, &act_as(104, organization), &new("other", &[])).await;
        let error = error.expect_err("the id is taken");
        assert!(matches!(error, Error::Conflict { constraint: "provisioner_daemons_pkey" }), "{error:?}");
        assert_eq!(error.code(), "conflict");
    }
    assert_eq!(only(&mut conn, 104).await.daemon.name, "daemon-1");
}

#[tokio::test]
async fn a_daemon_needs_an_organization_and_a_key_that_are_there() {
    let (_database, mut conn) = fixture().await;
    let error = store::daemons::upsert(&mut conn, &act_as(40, 9), &new("x", &[])).await.expect_err("no organization");
    assert_eq!(error.to_string(), format!("organization not found: {}", u(9)));
    let keyless = NewDaemon { key_id: ProvisionerKeyId(u(9)), ..new("x", &[]) };
    let error = store::daemons::upsert(&mut conn, &act_as(40, 1), &keyless).await.expect_err("no key");
    assert_eq!(error.to_string(), format!("provisioner key not found: {}", u(9)));
    assert_eq!(count(&mut conn).await, 3);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_name_and_nothing_is_written() {
    let (_database, mut conn) = fixture().await;
    let long = "é".repeat(65);
    // Incompressible, or the index would hold it.
    let owner: String = (0..400).map(|n| u(n * 7919).simple().to_string() + &fastrand::u64(..).to_string()).collect();
    for (field, bad) in [
        ("name", new("", &[])),
        ("name", new(&long, &[])),
        ("name", new(&"x".repeat(5000), &[])),
        ("name", new("a\0b", &[])),
        ("tags", new("x", &[("a\0", "b")])),
        ("tags", new("x", &[("a", "\0")])),
        ("tags", new("x", &[("owner", &owner)])),
        ("version", NewDaemon { version: "\0".to_owned(), ..new("x", &[]) }),
        ("api_version", NewDaemon { api_version: "\0".to_owned(), ..new("x", &[]) }),
        ("created_at", NewDaemon { created_at: datetime!(-1-01-01 0:00 UTC), ..new("x", &[]) }),
        ("last_seen_at", NewDaemon { last_seen_at: Some(datetime!(-4713-01-01 0:00 UTC)), ..new("x", &[]) }),
    ] {
        let error = store::daemons::upsert(&mut conn, &act_as(40, 1), &bad).await.expect_err(field);
        assert!(matches!(error, Error::Invalid { field: found, .. } if found == field), "{field}: {error:?}");
        assert_eq!(error.code(), "invalid");
    }
    assert_eq!(count(&mut conn).await, 3);
    let fits = "é".repeat(64);
    assert_eq!(store::daemons::upsert(&mut conn, &act_as(40, 1), &new(&fits, &[])).await.expect("fits").name, fits);
}

#[tokio::test]
async fn of_many_connections_of_one_daemon_all_get_one_row() {
    let (database, mut conn) = fixture().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let mut conn = database.connect().await;
        tasks.spawn(async move {
            store::daemons::upsert(&mut conn, &act_as(40 + n, 1), &new("same", &[])).await.expect("the daemon").id
        });
    }
    let mut found = tasks.join_all().await;
    found.dedup();
    assert_eq!(found.len(), 1);
    assert_eq!(count(&mut conn).await, 4);
}

#[tokio::test]
async fn a_heartbeat_moves_forward_or_stays_but_never_back() {
    let (_database, mut conn) = fixture().await;
    let second = Duration::from_secs(1);
    for (at, outcome, stored) in [
        (NOW, HeartbeatOutcome::Recorded, NOW),
        (NOW + second, HeartbeatOutcome::Recorded, NOW + second),
        (NOW, HeartbeatOutcome::Ignored, NOW + second),
        (NOW + second, HeartbeatOutcome::Recorded, NOW + second),
    ] {
        assert_eq!(store::daemons::heartbeat(&mut conn, &act_as(104, 1), at).await.expect("alive"), outcome);
        assert_eq!(only(&mut conn, 104).await.daemon.last_seen_at, Some(stored));
    }
}

#[tokio::test]
async fn a_heartbeat_does_not_bring_a_daemon_to_life_that_was_never_seen() {
    let (_database, mut conn) = fixture().await;
    sql(&mut conn, "UPDATE provisioner_daemons SET last_seen_at = NULL").await;
    let outcome = store::daemons::heartbeat(&mut conn, &act_as(104, 1), NOW).await.expect("there");
    assert_eq!(outcome, HeartbeatOutcome::Ignored);
    assert_eq!(only(&mut conn, 104).await.daemon.last_seen_at, None);
}

#[tokio::test]
async fn a_heartbeat_of_a_daemon_that_is_gone_or_elsewhere_finds_nothing() {
    let (_database, mut conn) = fixture().await;
    for (daemon, organization) in [(9, 1), (104, 2), (204, 1)] {
        let later = NOW + Duration::from_secs(1);
        let error = store::daemons::heartbeat(&mut conn, &act_as(daemon, organization), later).await.expect_err("none");
        assert_eq!(error.to_string(), format!("daemon not found: {}", u(daemon)));
    }
    let moved: bool = sqlx::query_scalar("SELECT bool_or(last_seen_at <> moment()) FROM provisioner_daemons")
        .fetch_one(&mut conn)
        .await
        .expect("a row");
    assert!(!moved);
}

#[tokio::test]
async fn of_many_heartbeats_at_once_the_latest_stays() {
    let (database, mut conn) = fixture().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=16_u64 {
        let mut conn = database.connect().await;
        tasks.spawn(async move {
            for beat in 0..20 {
                let at = NOW + Duration::from_secs((n * 7 + beat * 13) % 300);
                let _ = store::daemons::heartbeat(&mut conn, &act_as(104, 1), at).await.expect("alive");
            }
        });
    }
    tasks.join_all().await;
    let latest = (1..=16).flat_map(|n| (0..20).map(move |beat| (n * 7 + beat * 13) % 300)).max().expect("some");
    assert_eq!(only(&mut conn, 104).await.daemon.last_seen_at, Some(NOW + Duration::from_secs(latest)));
}

#[tokio::test]
async fn a_daemon_is_offline_idle_or_busy() {
    let (_database, mut conn) = fixture().await;
    let took = "UPDATE provisioner_jobs SET worker_id = u(104), started_at = moment() WHERE id = u(101)";
    let finished = "UPDATE provisioner_jobs SET completed_at = moment() WHERE id = u(101)";
    let elsewhere = "UPDATE provisioner_jobs SET worker_id = u(104), started_at = moment() WHERE id = u(201)";
    for (change, status) in [
        ("SELECT", DaemonStatus::Idle),
        // Seen exactly the interval ago is still online, and a microsecond more is not.
        ("UPDATE provisioner_daemons SET last_seen_at = moment() - interval '90 s'", DaemonStatus::Idle),
        ("UPDATE provisioner_daemons SET last_seen_at = moment() - interval '90.000001 s'", DaemonStatus::Offline),
        (took, DaemonStatus::Offline),
        ("UPDATE provisioner_daemons SET last_seen_at = moment()", DaemonStatus::Busy),
        ("UPDATE provisioner_daemons SET last_seen_at = NULL", DaemonStatus::Offline),
        ("UPDATE provisioner_daemons SET last_seen_at = moment() + interval '1 day'", DaemonStatus::Busy),
        ("UPDATE provisioner_jobs SET canceled_at = moment()", DaemonStatus::Busy),
        ("UPDATE provisioner_jobs SET error = 'lost'", DaemonStatus::Busy),
        (finished, DaemonStatus::Idle),
        // A job of another organization does not count, whatever it says.
        (elsewhere, DaemonStatus::Idle),
    ] {
        sql(&mut conn, change).await;
        assert_eq!(only(&mut conn, 104).await.status, status, "{change}");
    }
    let long = store::daemons::list(&mut conn, &read(1), &DaemonFilter::default(), NOW, Duration::MAX).await;
    assert_eq!(long.expect("the list")[0].status, DaemonStatus::Idle);
}

#[tokio::test]
async fn a_daemon_names_its_key_its_current_job_and_the_last_one_before() {
    let (_database, mut conn) = fixture().await;
    sql(
        &mut conn,
        r#"UPDATE templates SET display_name = 'One', icon = '/one.svg' WHERE id = u(102);
        INSERT INTO provisioner_jobs (
            id, created_at, updated_at, started_at, completed_at, canceled_at, organization_id, initiator_id, provisioner,
            storage_method, type, input, file_id, worker_id
        )
        SELECT u(50 + n), moment(), moment(), moment() + n * interval '1 s', moment() + done * interval '1 s',
            CASE WHEN n = 3 THEN moment() END, u(1), u(1), 'echo', 'file', 'workspace_build', input::jsonb, u(0), u(104)
        FROM (VALUES
            (1, 5, '{}'),
            (2, 7, '{}'),
            (3, 9, '{"workspace_build_id": "00000000-0000-0000-0000-000000000108"}'),
            (4, NULL, '{}'),
            (5, NULL, '{"template_version_id": "00000000-0000-0000-0000-000000000107"}')
        ) AS jobs (n, done, input)"#,
    )
    .await;
    let details = only(&mut conn, 104).await;
    assert_eq!(details.key_name, "key");
    let (current, previous) = (details.current_job.expect("a job"), details.previous_job.expect("a job"));
    // Of two that were never finished, the one that it took last.
    assert_eq!((current.id.0, current.status), (u(55), JobStatus::Running));
    assert_eq!((previous.id.0, previous.status), (u(53), JobStatus::Canceled));
    for job in [current, previous] {
        assert_eq!(
            (&*job.template_name, &*job.template_display_name, &*job.template_icon),
            ("template-1", "One", "/one.svg")
        );
    }
}

#[tokio::test]
async fn a_job_never_shows_the_template_of_another_organization() {
    let (_database, mut conn) = fixture().await;
    let input = r#"{"template_version_id": "00000000-0000-0000-0000-000000000207"}"#;
    sql(&mut conn, &format!("UPDATE provisioner_jobs SET worker_id = u(104), input = '{input}' WHERE id = u(101)"))
        .await;
    let job = only(&mut conn, 104).await.current_job.expect("a job");
    assert_eq!((job.id.0, &*job.template_name), (u(101), ""));
}

#[tokio::test]
async fn a_list_is_newest_first_and_holds_only_what_the_filter_lets_pass() {
    let (_database, mut conn) = fixture().await;
    sql(&mut conn, "DELETE FROM provisioner_daemons WHERE id = u(104)").await;
    for (id, age, tags) in [
        (60, 3, &[("scope", "organization"), ("owner", "")][..]),
        (61, 2, &[("scope", "organization"), ("owner", ""), ("env", "prod")]),
        (63, 1, &[("env", "dev")]),
        (62, 1, &[]),
    ] {
        let new = NewDaemon { created_at: NOW - Duration::from_secs(age), ..new(&format!("d{id}"), tags) };
        store::daemons::upsert(&mut conn, &act_as(id, 1), &new).await.expect("the daemon");
    }
    let tags = |pairs: &[(&str, &str)]| Some(pairs.iter().copied().collect::<Tags>());
    let with = |ids: &[u32], tags, limit| DaemonFilter {
        ids: ids.iter().map(|n| DaemonId(u(*n))).collect(),
        tags,
        limit,
        ..DaemonFilter::default()
    };
    for (filter, expected) in [
        (with(&[], None, None), &[63, 62, 61, 60][..]),
        (with(&[], None, Some(3)), &[63, 62, 61]),
        (with(&[], None, Some(0)), &[]),
        (with(&[60, 63, 204, 9], None, None), &[63, 60]),
        (with(&[], tags(&[("env", "prod")]), None), &[61]),
        // The exact untagged set selects exactly untagged daemons; part of it, whoever has it; nothing, all.
        (with(&[], tags(&[("scope", "organization"), ("owner", "")]), None), &[60]),
        (with(&[], tags(&[("scope", "organization")]), None), &[61, 60]),
        (with(&[], tags(&[]), None), &[63, 62, 61, 60]),
        (with(&[62], tags(&[("env", "prod")]), None), &[]),
    ] {
        let expected: Vec<_> = expected.iter().map(|n| u(*n)).collect();
        assert_eq!(ids(&list(&mut conn, &filter).await), expected, "{filter:?}");
    }
    let error =
        store::daemons::list(&mut conn, &read(1), &with(&[], tags(&[("\0", "")]), None), NOW, STALE_INTERVAL).await;
    assert!(matches!(error, Err(Error::Invalid { field: "tags", .. })));
}

#[tokio::test]
async fn a_daemon_with_odd_tags_does_not_fail_the_list() {
    let (_database, mut conn) = fixture().await;
    for (stored, tags) in [(r#"{"a": 1, "b": null}"#, "a=1 b=null"), ("[]", ""), (r#"{"n": 1e400}"#, "")] {
        sql(&mut conn, &format!("UPDATE provisioner_daemons SET tags = '{stored}' WHERE id = u(104)")).await;
        assert_eq!(only(&mut conn, 104).await.daemon.tags.to_string(), tags, "{stored}");
    }
}

#[tokio::test]
async fn eligible_are_the_daemons_of_the_organization_that_have_the_provisioner_and_the_tags() {
    let (_database, mut conn) = fixture().await;
    for (id, provisioners, tags) in [
        (60, vec![ProvisionerType::Echo], &[("a", "b"), ("c", "d")][..]),
        (61, vec![ProvisionerType::Terraform], &[("a", "b")]),
        (62, vec![], &[("a", "b")]),
        (63, vec![ProvisionerType::Echo, ProvisionerType::Terraform], &[("a", "x")]),
    ] {
        let new = NewDaemon { provisioners, last_seen_at: None, ..new(&format!("d{id}"), tags) };
        store::daemons::upsert(&mut conn, &act_as(id, 1), &new).await.expect("the daemon");
    }
    let jobs = [101, 101, 201, 9].map(|n| JobId(u(n)));
    let found = store::daemons::eligible(&mut conn, &read(1), &jobs).await.expect("the daemons");
    let pairs: Vec<_> = found.iter().map(|pair| (pair.job_id.0, pair.daemon.id.0)).collect();
    assert_eq!(pairs, [(u(101), u(60)), (u(101), u(104))]);
    assert_eq!(store::daemons::eligible(&mut conn, &read(1), &[]).await.expect("nothing"), []);
}

#[tokio::test]
async fn a_daemon_that_was_not_seen_for_seven_days_is_deleted() {
    let (_database, mut conn) = fixture().await;
    sql(
        &mut conn,
        "DELETE FROM provisioner_daemons WHERE id <> u(204);
        INSERT INTO provisioner_daemons (id, created_at, name, provisioners, last_seen_at, organization_id, key_id)
        SELECT u(60 + n), moment() - created, 'd' || n, '{}', moment() - seen, u(1), u(105)
        FROM (VALUES
            (1, interval '30 days', interval '7 days'),
            (2, interval '30 days', interval '7 days 0.000001 s'),
            (3, interval '7 days', NULL),
            (4, interval '7 days 0.000001 s', NULL),
            (5, interval '1 day', interval '8 days')
        ) AS daemons (n, created, seen);
        UPDATE provisioner_jobs SET worker_id = u(64) WHERE id = u(101)",
    )
    .await;
    let permit = MaintainDaemons::check(&Actor::system(System::Reaper)).expect("a reaper may");
    assert_eq!(store::daemons::delete_old(&mut conn, &permit, NOW).await.expect("done"), 3);
    let mut left = ids(&list(&mut conn, &DaemonFilter::default()).await);
    left.sort();
    assert_eq!(left, [u(61), u(63)]);
    assert_eq!(store::daemons::delete_old(&mut conn, &permit, NOW).await.expect("done"), 0);
    // Times beyond the calendar delete nothing rather than everything.
    assert_eq!(store::daemons::delete_old(&mut conn, &permit, datetime!(0001-01-03 0:00 UTC)).await.expect("done"), 0);
    assert_eq!(count(&mut conn).await, 3);
}

#[tokio::test]
async fn upsert_never_takes_a_sign_of_life_back() {
    let (_database, mut conn) = fixture().await;
    let at = |seconds| Some(NOW + Duration::from_secs(seconds));
    for (seen, expected) in [(at(60), at(60)), (at(30), at(60)), (None, at(60)), (at(61), at(61))] {
        let daemon = NewDaemon { last_seen_at: seen, ..new("same", &[]) };
        let stored = store::daemons::upsert(&mut conn, &act_as(40, 1), &daemon).await.expect("the daemon");
        assert_eq!(stored.last_seen_at, expected);
    }
}
