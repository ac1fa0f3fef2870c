//! Requests that nobody sends by accident: they are refused with JSON, and the next request is answered as ever.

use std::time::Duration;

use axum::{body::Body, http::Request};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Client, Site, TOKEN, demo_id, job_id, query},
    follow::{connect, follow, upgrade},
};

const LONG: Duration = Duration::from_secs(30);

/// NUL, statements, templates, patterns, paths, directions of text, and what is long.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "\0",
        "a\0b",
        "'; DROP TABLE provisioner_jobs; --",
        "' OR '1'='1",
        "\" OR \"\"=\"",
        "1) UNION SELECT hashed_secret FROM api_keys --",
        "$1",
        "\\'; SELECT pg_sleep(10); --",
        "{{7*7}}",
        "${jndi:ldap://example.com/a}",
        "<script>alert(1)</script>",
        "%s%n%x",
        "%",
        "_",
        "*",
        "../../etc/passwd",
        "\r\nX-Injected: 1",
        "\u{202e}\u{200b}\u{feff}",
        "𝒶🦀",
        "-1",
        "1e309",
        "NaN",
        "null",
        "[[[[",
        "initiator:\"",
        "\u{7f}\u{1b}[31m",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(20_000));
    texts.push("(".repeat(5_000));
    texts.push(format!("{}1{}", "{\"a\":".repeat(1_500), "}".repeat(1_500)));
    texts
}

async fn still_works(site: &mut Site, alice: &Client) {
    assert_eq!(alice.get("organizations/coder/provisionerjobs?limit=0").await.ids().len(), 42);
    assert_eq!(
        site.value::<i64>("SELECT count(*) FROM provisioner_jobs WHERE canceled_at > now() - interval '1 h'").await,
        0
    );
    site.idle().await;
}

#[tokio::test]
async fn attack_in_every_parameter_of_a_query_is_refused_or_finds_nothing() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let jobs = "organizations/coder/provisionerjobs";
    let job = format!("{jobs}/{}", job_id(26));
    let logs = format!("workspacebuilds/{}/logs", demo_id("0008", 26));
    let cancel = format!("workspacebuilds/{}/cancel", demo_id("0008", 26));
    for text in texts() {
        for (method, path, names) in [
            ("GET", jobs, &["limit", "status", "ids", "tags", "initiator", "search", "after", "count"][..]),
            ("GET", &job, &["limit", "status", "tags", "initiator"]),
            (
                "GET",
                "organizations/coder/provisionerdaemons",
                &["limit", "ids", "tags", "status", "offline", "max_age"],
            ),
            ("GET", &logs, &["after", "format", "follow"]),
            ("PATCH", &cancel, &["expect_status"]),
        ] {
            for name in names {
                let answer = alice.call(method, &format!("{path}?{}", query(&[(name, &text)])), "").await;
                // A text may be no fault: words of a search, tags, and `null` for no tags.
                let is_read = answer.status == 200 && answer.json().as_array().is_some();
                let is_read = is_read || answer.status == 200 && *name == "tags" && text == "null";
                let is_refused = matches!(answer.status.as_u16(), 400 | 404);
                assert!(is_read || is_refused, "{} for {name}={:?}", answer.status, text.get(..40).unwrap_or(&text));
            }
            let answer = alice.call(method, &format!("{path}?{}", query(&[("x", &text)])), "").await;
            assert_eq!(answer.status, 400);
        }
        // As the name of a parameter, and in tags.
        let named = query(&[("a", "1")]).replace('a', &query(&[("", &text)])[1..]);
        assert_eq!(alice.get(&format!("{jobs}?{named}")).await.status, 400);
        for tags in [json!({ text.clone(): "" }), json!({ "env": text })] {
            let answer = alice.get(&format!("{jobs}?{}", query(&[("tags", &tags.to_string())]))).await;
            if answer.status == 200 {
                answer.is(200, &json!([]));
            } else {
                assert_eq!(answer.status, 400);
            }
        }
    }
    still_works(&mut site, &alice).await;
}

#[tokio::test]
async fn attack_in_every_part_of_a_path_finds_nothing() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let id = demo_id("0005", 3);
    for text in texts() {
        let raw = &query(&[("", &text)])[1..];
        for (method, path) in [
            ("GET", format!("organizations/{raw}/provisionerjobs")),
            ("GET", format!("organizations/{raw}/provisionerdaemons")),
            ("GET", format!("organizations/coder/provisionerjobs/{raw}")),
            ("GET", format!("organizations/{raw}/members/dave/workspace-quota")),
            ("GET", format!("organizations/coder/members/{raw}/workspace-quota")),
            ("GET", format!("workspace-quota/{raw}")),
            ("GET", format!("workspacebuilds/{raw}/logs")),
            ("PATCH", format!("workspacebuilds/{raw}/cancel")),
            ("GET", format!("templateversions/{raw}/logs")),
            ("PATCH", format!("templateversions/{raw}/cancel")),
            ("GET", format!("templateversions/{raw}/dry-run/{}/logs", job_id(15))),
            ("GET", format!("templateversions/{id}/dry-run/{raw}/logs")),
            ("PATCH", format!("templateversions/{id}/dry-run/{raw}/cancel")),
        ] {
            let answer = alice.call(method, &path, "").await;
            let (status, begin) = (answer.status.as_u16(), path.get(..60).unwrap_or(&path));
            assert!(matches!(status, 400 | 404), "{status} for {method} {begin}: {}", answer.text());
        }
    }
    // What is not even a text.
    for path in ["workspacebuilds/%FF%FE/logs", "organizations/%C3%28/provisionerjobs", "workspace-quota/%80"] {
        let answer = alice.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (400, &json!("Invalid path.")), "{path}");
    }
    still_works(&mut site, &alice).await;
}

#[tokio::test]
async fn attack_in_bodies_is_refused() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let cancel = "organizations/coder/provisionerjobs/cancel";
    for text in texts() {
        for body in
            [json!({ "search": text }), json!({ "ids": [text] }), json!({ "ids": [job_id(26)], "expect_status": text })]
        {
            let answer = alice.post(cancel, &body).await;
            let found_nothing = answer.status == 200 && answer.json()["jobs"] == json!([]);
            assert!(found_nothing || answer.status == 400, "{}: {}", answer.status, answer.text());
        }
        assert_eq!(alice.call("PUT", "prebuilds/settings", text.clone()).await.status, 400, "{text:?}");
        assert_eq!(alice.call("POST", cancel, text).await.status, 400);
    }
    for body in [
        "[".repeat(100_000),
        format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
        "{\"a\":".repeat(50_000),
        format!("{{\"search\":\"{}\"}}", "\\u0000".repeat(1_000)),
        "\u{feff}{}".to_owned(),
    ] {
        assert_eq!(alice.call("POST", cancel, body.clone()).await.status, 400);
        if !body.contains("search") {
            assert_eq!(alice.call("PUT", "prebuilds/settings", body).await.status, 400);
        }
    }
    // A body has room for many ids, and no more than that.
    let ids = |count: u32| (1..=count).map(|n| job_id(n + 1_000)).collect::<Vec<_>>().join(",");
    let none = json!({ "outcomes": {}, "jobs": [] });
    alice.post(cancel, &json!({ "search": format!("id:{}", ids(5_000)) })).await.is(200, &none);
    alice
        .post(cancel, &json!({ "search": format!("id:{}", ids(10_000)) }))
        .await
        .says(413, "Request body is too large.");
    still_works(&mut site, &alice).await;
}

#[tokio::test]
async fn attack_by_endless_and_broken_bodies_is_cut_off() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let endless = || futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let broken = || futures_util::stream::iter([Ok(vec![b'{']), Err(std::io::Error::other("gone"))]);
    for (method, path) in [("PUT", "prebuilds/settings"), ("POST", "organizations/coder/provisionerjobs/cancel")] {
        alice.call(method, path, Body::from_stream(endless())).await.says(413, "Request body is too large.");
        alice.call(method, path, Body::from_stream(broken())).await.says(400, "Request body could not be read.");
    }
    // Whoever is not signed in has no body read at all.
    let nobody = site.client("nonsense");
    assert_eq!(nobody.call("PUT", "prebuilds/settings", Body::from_stream(endless())).await.status, 401);
    // Where none is expected, none is read.
    assert_eq!(alice.call("GET", "prebuilds/settings", Body::from_stream(endless())).await.status, 200);
    still_works(&mut site, &alice).await;
}

/// Sends the bytes and reads what is answered until the server ends the connection.
async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.serve().await).await.expect("a connection");
    // The server may have ended it before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn attack_by_headers_ends_the_connection_and_nothing_else() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let begin = "GET /api/v2/workspace-quota/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let many = (0..5_000).fold(String::new(), |flood, n| flood + &format!("X-Flood-{n}: {n}\r\n"));
    let long = format!("X-Flood: {}\r\n", "x".repeat(2_000_000));
    for (flood, statuses) in [(many.as_str(), ["431", "431"]), (&long, ["431", ""])] {
        let answer = raw(&site, format!("{begin}{flood}\r\n").as_bytes()).await;
        assert!(statuses.iter().any(|status| answer.split(' ').nth(1).unwrap_or_default() == *status), "{answer}");
    }
    let uri = format!("GET /api/v2/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(100_000));
    let answer = raw(&site, uri.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 404"), "{answer}");
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v2/prebuilds/settings HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nx\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let answer = raw(&site, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Several tokens in one request: the first one counts.
    let mut request: Request<Body> = alice.request("GET", "workspace-quota/me", "");
    for n in 0..50 {
        request.headers_mut().append(TOKEN, format!("nonsense-{n}").parse().expect("a header"));
    }
    alice.send(request).await.ok();
    still_works(&mut site, &alice).await;
}

#[tokio::test]
async fn attack_by_websocket_frames_ends_the_stream_and_nothing_else() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    let masked = |first: u8, length: u8| vec![first, 0x80 | length, 0, 0, 0, 0];
    for bytes in [
        // Reserved bits, a reserved opcode, a frame without a mask, a fragmented ping, a continuation of nothing, a text
        // that is none, a close code that is none, and a length beyond everything.
        masked(0xf1, 0),
        masked(0x83, 0),
        vec![0x81, 0x01, b'x'],
        masked(0x09, 0),
        masked(0x80, 0),
        [masked(0x81, 2), vec![0xff, 0xfe]].concat(),
        [masked(0x88, 2), vec![0x00, 0x01]].concat(),
        vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        vec![0x82, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        vec![0x00; 1000],
    ] {
        let mut socket = connect(address, upgrade(address, &alice, &follow(24, ""))).await.expect("a socket");
        let stream = socket.0.get_mut();
        stream.write_all(&bytes).await.expect("it is sent");
        let mut rest = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("the stream ends");
    }
    let mut socket = connect(address, upgrade(address, &alice, &follow(24, ""))).await.expect("a socket");
    // It may be ended before all of it is sent.
    let _ = socket.0.send(Message::binary(vec![0; 1_000_000])).await;
    while let Some(Ok(_)) = timeout(LONG, socket.0.next()).await.expect("the stream ends") {}
    timeout(LONG, site.api.close_streams()).await.expect("nobody follows any more");
    still_works(&mut site, &alice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_by_many_requests_at_once_leaves_the_pool_as_it_was() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let call = alice.get("organizations/coder/provisionerjobs?limit=0");
                // Every third is given up at some point.
                if n % 3 == 0 {
                    let _ = timeout(Duration::from_millis(n % 40), call).await;
                    return None;
                }
                Some(call.await.status.as_u16())
            })
        })
        .collect();
    for call in calls {
        let status: Option<u16> = call.await.expect("no panic");
        assert!(matches!(status, None | Some(200 | 503)), "{status:?}");
    }
    let _: Value = alice.get("workspace-quota/me").await.ok();
    still_works(&mut site, &alice).await;
}
