//! Filters and pages.

use coderdb::{
    model::{JobFilter, JobStatus, Page, PageRequest, Tags, Transition, UserId},
    store,
};
use serde_json::json;
use uuid::Uuid;

use super::{ORGANIZATION, TEMPLATE, USER, WORKSPACE, World, minutes_ago, n};
use crate::support::{
    self,
    model::PREBUILDS,
    random_database::{self as rows, NOW, at, with},
};

#[tokio::test]
async fn filters_combine_by_and() {
    let mut world = World::new().await;
    world.build(1, WORKSPACE, 1, json!({"transition": "start"})).await;
    world.build(2, WORKSPACE, 2, json!({"transition": "stop"})).await;
    let count = json!({"scope": "organization", "owner": "", "count": "1"});
    world.job(3, json!({"created_at": minutes_ago(3), "started_at": at(NOW)})).await;
    world.job(4, json!({"created_at": minutes_ago(2), "tags": count, "initiator_id": PREBUILDS})).await;
    world.job(5, json!({"created_at": minutes_ago(1), "tags": count})).await;
    let none = JobFilter::default;
    let tags = |pairs: &[(&str, &str)]| Some(pairs.iter().copied().collect::<Tags>());
    let user = Some(UserId(USER));
    let time = |minutes| Some(NOW - time::Duration::minutes(minutes));
    let cases: Vec<(JobFilter, &[u128])> = vec![
        (none(), &[5, 4, 3, 2, 1]),
        (JobFilter { status: vec![JobStatus::Running], ..none() }, &[3]),
        (JobFilter { status: vec![JobStatus::Running, JobStatus::Pending], ..none() }, &[5, 4, 3]),
        (JobFilter { status: vec![JobStatus::Running, JobStatus::Running], ..none() }, &[3]),
        (JobFilter { status: vec![JobStatus::Unknown], ..none() }, &[]),
        (JobFilter { ids: vec![n(4).into(), n(2).into(), n(99).into()], ..none() }, &[4, 2]),
        (JobFilter { ids: vec![n(99).into()], ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "1")]), ..none() }, &[5, 4]),
        (JobFilter { tags: tags(&[("scope", "organization"), ("owner", "")]), ..none() }, &[3, 2, 1]),
        (JobFilter { tags: tags(&[("scope", "organization")]), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { tags: tags(&[]), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { initiator: user, ..none() }, &[5, 3, 2, 1]),
        (JobFilter { initiator: Some(UserId::PREBUILDS), ..none() }, &[4]),
        (JobFilter { initiator: Some(UserId(n(99))), ..none() }, &[]),
        (JobFilter { initiator: Some(UserId(Uuid::nil())), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { initiator: user, status: vec![JobStatus::Pending], ..none() }, &[5]),
        (JobFilter { initiator: user, tags: tags(&[("count", "1")]), ..none() }, &[5]),
        (JobFilter { transition: Some(Transition::Stop), ..none() }, &[2]),
        (JobFilter { transition: Some(Transition::Delete), ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "1")]), status: vec![JobStatus::Pending], ..none() }, &[5, 4]),
        (JobFilter { tags: tags(&[("count", "1")]), status: vec![JobStatus::Running], ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "2")]), ..none() }, &[]),
        (JobFilter { initiator: user, tags: tags(&[("count", "2")]), ..none() }, &[]),
        (JobFilter { initiator: user, transition: Some(Transition::Stop), ..none() }, &[2]),
        (JobFilter { template: Some(TEMPLATE.into()), ..none() }, &[2, 1]),
        (JobFilter { template: Some(TEMPLATE.into()), transition: Some(Transition::Start), ..none() }, &[1]),
        (JobFilter { workspace: Some(WORKSPACE.into()), ..none() }, &[2, 1]),
        (JobFilter { workspace: Some(WORKSPACE.into()), ids: vec![n(1).into(), n(3).into()], ..none() }, &[1]),
        (
            JobFilter {
                workspace: Some(WORKSPACE.into()),
                initiator: user,
                status: vec![JobStatus::Pending],
                ..none()
            },
            &[],
        ),
        (JobFilter { workspace: Some(WORKSPACE.into()), transition: Some(Transition::Start), ..none() }, &[1]),
        (JobFilter { created_after: time(3), ..none() }, &[5, 4]),
        (JobFilter { created_before: time(2), ..none() }, &[3, 2, 1]),
        (JobFilter { created_after: time(3), created_before: time(1), ..none() }, &[4]),
    ];
    for (filter, expected) in cases {
        assert_eq!(world.ids(&filter).await, expected, "{filter:#?}");
        let page =
            store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &filter, PageRequest::first(1))
                .await
                .unwrap();
        let first: Vec<_> = page.rows.iter().map(|row| row.job.id.0.as_u128()).collect();
        assert_eq!(first, expected[..expected.len().min(1)], "the first of {filter:#?}");
    }
}

#[tokio::test]
async fn pages_of_fifty_hold_fifty_of_sixty_jobs_and_then_ten() {
    let mut world = World::new().await;
    for (id, minute) in (1..=60).zip(0..) {
        world.job(id, json!({"created_at": minutes_ago(minute / 7)})).await;
    }
    let everything = world.list(&JobFilter::default()).await;
    let first = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(50),
    )
    .await;
    let first = first.unwrap();
    let request = PageRequest::after(first.next.expect("there are more"), 50);
    let second = store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &JobFilter::default(), request)
        .await
        .unwrap();
    assert_eq!((first.rows.len(), second.rows.len(), second.next), (50, 10, None));
    assert_eq!([first.rows, second.rows].concat(), everything);
}

#[tokio::test]
async fn many_tag_sets_and_one_that_is_too_long_for_an_index_are_found() {
    let mut world = World::new().await;
    let long: String = std::iter::repeat_with(fastrand::alphanumeric).take(20_000).collect();
    for id in 1..=100_u128 {
        let tags = json!({"number": id.to_string(), "parity": (id % 2).to_string()});
        world.job(id, json!({"created_at": minutes_ago(100 - i64::try_from(id).unwrap()), "tags": tags})).await;
    }
    world.job(101, json!({"created_at": minutes_ago(1000), "tags": {"long": long, "parity": "0"}})).await;
    let tagged = |tags: &[(&str, &str)]| JobFilter {
        tags: Some(tags.iter().copied().collect::<Tags>()),
        ..JobFilter::default()
    };
    let even: Vec<u128> = (1..=50).rev().map(|half| half * 2).chain([101]).collect();
    assert_eq!(world.ids(&tagged(&[("parity", "0")])).await, even);
    assert_eq!(world.ids(&tagged(&[("parity", "1"), ("number", "7")])).await, [7]);
    assert_eq!(world.ids(&tagged(&[("parity", "1"), ("number", "8")])).await, [0; 0]);
    assert_eq!(world.ids(&tagged(&[("long", &long)])).await, [101]);
}

#[tokio::test]
async fn a_walk_among_inserts_meets_every_row_once() {
    let mut world = World::new().await;
    for id in 1..=200_u128 {
        // Some share a moment.
        world.job(id, json!({"created_at": minutes_ago(10 + i64::try_from(id / 3).unwrap())})).await;
    }
    let filters = [
        JobFilter::default(),
        JobFilter { status: vec![JobStatus::Pending, JobStatus::Failed], ..JobFilter::default() },
        JobFilter { initiator: Some(UserId(USER)), ..JobFilter::default() },
        JobFilter { tags: Some([("scope", "organization")].into_iter().collect()), ..JobFilter::default() },
    ];
    let mut writer = world.database.connect().await;
    let mut id = 1_000_u128;
    for filter in filters {
        let before = world.ids(&filter).await;
        let mut walked = Vec::new();
        let mut request = PageRequest::first(7);
        loop {
            // Newer than all, among those that are there, and older than all.
            for minutes in [0, 10 + i64::try_from(id % 70).unwrap(), 5_000] {
                let row = with(rows::job(n(id), ORGANIZATION, USER), json!({"created_at": minutes_ago(minutes)}));
                rows::insert(&mut writer, "provisioner_jobs", &[row]).await;
                id += 1;
            }
            let page =
                store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &filter, request).await.unwrap();
            walked.extend(page.rows.iter().map(|row| row.job.id.0.as_u128()));
            let Some(next) = page.next else { break };
            request = PageRequest::after(next, 7);
        }
        let mut once = walked.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), walked.len(), "a row twice: {filter:#?}");
        let met: Vec<u128> = walked.into_iter().filter(|id| before.contains(id)).collect();
        assert_eq!(met, before, "{filter:#?}");
    }
}

#[tokio::test]
async fn a_page_of_no_rows_is_empty_and_the_last() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    let page = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(0),
    )
    .await;
    assert_eq!(page.unwrap(), Page { rows: vec![], next: None });
}
