//! get-provisioner-jobs: pages, the count, and long lists that are streamed.

use crate::{
    client::{Client, Site, query},
    jobs::more_jobs,
};

const JOBS: &str = "organizations/coder/provisionerjobs";

/// All ids, page by page, each as the header `Link` of the one before says.
async fn pages(client: &Client, parameters: &str) -> (Vec<String>, usize) {
    let (mut ids, mut count) = (Vec::new(), 0);
    let mut next = Some(format!("{JOBS}?{parameters}"));
    while let Some(page) = next {
        let answer = client.get(&page).await;
        ids.extend(answer.ids());
        count += 1;
        next = answer.header("link").map(|link| {
            let target = link.strip_prefix("</api/v2/").and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
            target.unwrap_or_else(|| panic!("{link} is no link to a next page")).to_owned()
        });
    }
    (ids, count)
}

#[tokio::test]
async fn list_pages_by_the_link_header_are_the_whole_list() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    more_jobs(&mut site, 40).await;
    let all = alice.get(&format!("{JOBS}?limit=0")).await.ids();
    for (limit, expected) in [(1, 82), (7, 12), (41, 2), (81, 2), (82, 1), (500, 1)] {
        assert_eq!(pages(&alice, &format!("limit={limit}")).await, (all.clone(), expected), "{limit}");
    }
    // Without a limit a page has 50.
    assert_eq!(pages(&alice, "").await, (all, 2));
}

#[tokio::test]
async fn list_pages_keep_the_other_parameters() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for pairs in [
        vec![("status", "pending,running"), ("status", "failed")],
        vec![("tags", r#"{"env":"on-prem"}"#), ("count", "true")],
        vec![("search", "initiator:prebuilds status:pending")],
        vec![("initiator", "c42fdf75-3097-471c-8c33-fb52454d81c0")],
    ] {
        let all = alice.get(&format!("{JOBS}?limit=0&{}", query(&pairs))).await.ids();
        assert!(all.len() > 6, "{pairs:?}");
        let (found, count) = pages(&alice, &format!("{}&limit=3", query(&pairs))).await;
        assert_eq!((found, count), (all.clone(), all.len().div_ceil(3)), "{pairs:?}");
    }
}

#[tokio::test]
async fn list_pages_hold_while_jobs_come() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let all = alice.get(&format!("{JOBS}?limit=0")).await.ids();
    let first = alice.get(&format!("{JOBS}?limit=10")).await;
    more_jobs(&mut site, 5).await;
    let link = first.header("link").expect("a next page");
    let next = link.strip_prefix("</api/v2/").and_then(|rest| rest.split_once('>')).expect("a link").0;
    let second = alice.get(&next.replace("limit=10", "limit=0")).await.ids();
    assert_eq!([first.ids(), second].concat(), all);
}

#[tokio::test]
async fn list_counts_what_matches_when_it_is_asked_to() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for (parameters, count) in [
        ("count=true", Some("42")),
        ("count=1&limit=1", Some("42")),
        ("count=t&status=pending", Some("15")),
        ("count=true&limit=0&status=running", Some("2")),
        ("count=true&initiator=11111111-1111-4111-8111-111111111111", Some("0")),
        ("count=false", None),
        ("count=", None),
        ("", None),
    ] {
        assert_eq!(alice.get(&format!("{JOBS}?{parameters}")).await.header("x-total-count"), count, "{parameters}");
    }
}

#[tokio::test]
async fn list_streams_what_is_long_and_it_equals_the_pages() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    more_jobs(&mut site, 1_160).await;
    let all = alice.get(&format!("{JOBS}?limit=0")).await;
    assert_eq!(all.ids().len(), 1_202);
    assert_eq!(pages(&alice, "limit=500").await, (all.ids(), 3));
    for limit in [500, 501, 700, 1_000, 1_001, 1_202, 5_000] {
        let answer = alice.get(&format!("{JOBS}?limit={limit}")).await;
        assert_eq!(answer.ids(), all.ids()[..limit.min(1_202)], "{limit}");
        // Where a part of the list is sent before the last row is known, there is no link.
        assert_eq!(answer.header("link").is_some(), limit == 500, "{limit}");
    }
    // Each row is the same as in a page.
    let page = alice.get(&format!("{JOBS}?limit=500")).await.ok();
    assert_eq!(all.ok().as_array().expect("a list")[..500], page.as_array().expect("a list")[..]);
    let counted = alice.get(&format!("{JOBS}?limit=0&count=true")).await;
    assert_eq!((counted.header("x-total-count"), counted.header("link")), (Some("1202"), None));
}

#[tokio::test]
async fn list_holds_no_connection_while_a_client_takes_its_time() {
    use axum::{body::Body, http::Request};
    use futures_util::StreamExt as _;
    use tower::ServiceExt as _;

    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    more_jobs(&mut site, 1_160).await;
    let request: Request<Body> = alice.request("GET", &format!("{JOBS}?limit=0"), Body::empty());
    let mut body = site.router.clone().oneshot(request).await.expect("an answer").into_body().into_data_stream();
    assert!(body.next().await.expect("the first part").is_ok());
    site.idle().await;
    // Whoever goes away in between leaves nothing behind.
    drop(body);
    site.idle().await;
}

#[tokio::test]
async fn list_breaks_off_when_the_database_is_lost_in_between() {
    use axum::body::Body;
    use futures_util::StreamExt as _;
    use tower::ServiceExt as _;

    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    more_jobs(&mut site, 1_160).await;
    let request = alice.request("GET", &format!("{JOBS}?limit=0"), Body::empty());
    let mut body = site.router.clone().oneshot(request).await.expect("an answer").into_body().into_data_stream();
    assert!(body.next().await.expect("the first part").is_ok());
    site.pool.close();
    let rest: Vec<_> = body.collect().await;
    assert!(rest.iter().any(Result::is_err), "a list that is cut off must not look like a whole one");
}
