//! Logs that are followed over a WebSocket.

use std::{net::SocketAddr, time::Duration};

use axum::http::{HeaderName, Request};
use coderdb::{
    model::{JobId, OrganizationId},
    watch::Change,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::client::{Client, Site, TOKEN, demo_id, job_id};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

pub fn follow(n: u32, parameters: &str) -> String {
    format!("workspacebuilds/{}/logs?follow{parameters}", demo_id("0008", n))
}

/// An upgrade of the path below `/api/v2`.
pub fn upgrade(address: SocketAddr, client: &Client, path: &str) -> Request<()> {
    let mut request = format!("ws://{address}/api/v2/{path}").into_client_request().expect("a request");
    let token = client.token.parse().expect("a header");
    request.headers_mut().insert(TOKEN.parse::<HeaderName>().expect("a name"), token);
    request
}

pub async fn connect(address: SocketAddr, request: Request<()>) -> Result<Socket, Error> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    client_async(request, stream).await.map(|(socket, _)| Socket(socket))
}

/// The status and the body of what was answered instead of an upgrade.
async fn refused(address: SocketAddr, request: Request<()>) -> (u16, Value) {
    let Err(Error::Http(answer)) = connect(address, request).await else { panic!("it was upgraded") };
    let body = answer.body().as_ref().expect("a body");
    (answer.status().as_u16(), serde_json::from_slice(body).expect("JSON"))
}

pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    async fn frame(&mut self) -> Message {
        loop {
            match timeout(LONG, self.0.next()).await.expect("a frame in time").expect("no end").expect("no fault") {
                Message::Ping(_) | Message::Pong(_) => {}
                frame => return frame,
            }
        }
    }

    /// The next line.
    pub async fn line(&mut self) -> Value {
        let Message::Text(text) = self.frame().await else { panic!("no text frame") };
        serde_json::from_str(&text).expect("one JSON object")
    }

    async fn outputs(&mut self, count: usize) -> Vec<String> {
        let mut outputs = Vec::new();
        for _ in 0..count {
            outputs.push(self.line().await["output"].as_str().expect("a text").to_owned());
        }
        outputs
    }

    /// The code and the reason of the close frame, which comes next.
    pub async fn end(&mut self) -> (u16, String) {
        let Message::Close(Some(CloseFrame { code, reason })) = self.frame().await else { panic!("no close frame") };
        (u16::from(code), reason.to_string())
    }
}

async fn write(site: &mut Site, output: &str) {
    let sql = format!(
        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         VALUES ('{}', now(), 'provisioner', 'info', 'Starting workspace', '{output}')",
        job_id(26)
    );
    site.sql(&sql).await;
}

#[tokio::test]
async fn logs_of_a_job_that_has_ended_are_sent_and_the_socket_closes() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    for path in [
        format!("workspacebuilds/{}/logs", demo_id("0008", 19)),
        format!("templateversions/{}/logs", demo_id("0005", 8)),
        format!("templateversions/{}/dry-run/{}/logs", demo_id("0005", 3), job_id(15)),
    ] {
        let lines = alice.get(&path).await.ok();
        let lines = lines.as_array().expect("lines");
        let mut socket = connect(address, upgrade(address, &alice, &format!("{path}?follow"))).await.expect("a socket");
        for line in lines {
            assert_eq!(&socket.line().await, line, "one text frame per line: {path}");
        }
        assert_eq!(socket.end().await, (1000, "done".to_owned()), "{path}");
        // From an id on; and when there is nothing more, it ends at once.
        let last = lines.last().expect("a line")["id"].as_i64().expect("an id");
        for (after, count) in [(last - 1, 1), (last, 0), (i64::MAX, 0)] {
            let path = format!("{path}?after={after}&follow=true");
            let mut socket = connect(address, upgrade(address, &alice, &path)).await.expect("a socket");
            socket.outputs(count).await;
            assert_eq!(socket.end().await.0, 1000, "{path}");
        }
    }
}

#[tokio::test]
async fn logs_of_a_job_that_runs_are_sent_as_they_are_written_until_it_has_ended() {
    let mut site = Site::demo().await;
    let (address, heidi) = (site.serve().await, site.user("heidi").await);
    let mut socket = connect(address, upgrade(address, &heidi, &follow(26, ""))).await.expect("a socket");
    assert_eq!(socket.outputs(8).await[7], "workspace: Creating...");
    // Nobody announces this: the poll finds it.
    write(&mut site, "still creating").await;
    assert_eq!(socket.outputs(1).await, ["still creating"]);
    for n in 0..20 {
        write(&mut site, &format!("line {n}")).await;
    }
    let expected: Vec<_> = (0..20).map(|n| format!("line {n}")).collect();
    assert_eq!(socket.outputs(20).await, expected);
    // The last lines come with the end, and before the close frame.
    write(&mut site, "the last one").await;
    site.sql(&format!("UPDATE provisioner_jobs SET completed_at = now() WHERE id = '{}'", job_id(26))).await;
    assert_eq!(socket.outputs(1).await, ["the last one"]);
    assert_eq!(socket.end().await, (1000, "done".to_owned()));
}

#[tokio::test]
async fn logs_that_are_announced_are_sent_at_once_to_every_follower() {
    let mut site = Site::demo().await;
    let address = site.serve().await;
    let alice = site.user("alice").await;
    let last = alice.get(&format!("workspacebuilds/{}/logs", demo_id("0008", 26))).await.ok();
    let last = last[7]["id"].as_i64().expect("an id");
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let request = upgrade(address, &alice, &follow(26, &format!("&after={last}")));
        sockets.push(connect(address, request).await.expect("a socket"));
    }
    write(&mut site, "announced").await;
    let organization = demo_id("0001", 1).parse().expect("an id");
    let job = JobId(job_id(26).parse().expect("an id"));
    site.watcher.announce(Change { job, organization: OrganizationId(organization) });
    for socket in &mut sockets {
        assert_eq!(socket.outputs(1).await, ["announced"]);
    }
}

#[tokio::test]
async fn logs_are_not_followed_any_more_when_the_service_ends() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    let mut sockets = Vec::new();
    for n in [26, 24] {
        sockets.push(connect(address, upgrade(address, &alice, &follow(n, ""))).await.expect("a socket"));
    }
    sockets[0].outputs(8).await;
    let api = site.api.clone();
    let ending = tokio::spawn(async move { api.close_streams().await });
    for socket in &mut sockets {
        assert_eq!(socket.end().await, (1001, "the service ends".to_owned()));
        // Answers the close frame, so that the connection ends in order.
        assert!(timeout(LONG, socket.0.next()).await.expect("an end in time").is_none());
    }
    timeout(LONG, ending).await.expect("all are closed in time").expect("no panic");
    // One that comes late ends, too.
    let mut late = connect(address, upgrade(address, &alice, &follow(24, ""))).await.expect("a socket");
    assert_eq!(late.end().await.0, 1001);
}

#[tokio::test]
async fn logs_are_not_sent_to_a_client_that_sends_data() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    for data in [Message::text("hello"), Message::binary(vec![0, 1, 2]), Message::text("")] {
        let mut socket = connect(address, upgrade(address, &alice, &follow(24, ""))).await.expect("a socket");
        socket.0.send(data).await.expect("it is sent");
        assert_eq!(socket.end().await, (1008, "no data is expected of a client".to_owned()));
    }
    // Pings are answered, and a client may go whenever it likes.
    let mut socket = connect(address, upgrade(address, &alice, &follow(24, ""))).await.expect("a socket");
    socket.0.send(Message::Ping(vec![7].into())).await.expect("it is sent");
    let pong = timeout(LONG, socket.0.next()).await.expect("a frame in time").expect("no end").expect("no fault");
    assert_eq!(pong, Message::Pong(vec![7].into()));
    socket.0.close(Some(CloseFrame { code: CloseCode::Away, reason: "bye".into() })).await.expect("it is sent");
    timeout(LONG, site.api.close_streams()).await.expect("nobody follows any more");
}

#[tokio::test]
async fn logs_are_not_followed_for_a_page_of_another_origin() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    for origin in ["http://evil.example", "null", "https://localhost", "http://127.0.0.1:1", "127.0.0.1"] {
        let mut request = upgrade(address, &alice, &follow(26, ""));
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
        let expected = json!({ "message": "Forbidden.", "detail": "The page has another origin than this service." });
        assert_eq!(refused(address, request).await, (403, expected), "{origin}");
    }
    let mut request = upgrade(address, &alice, &follow(19, ""));
    request.headers_mut().insert("origin", format!("http://{address}").parse().expect("a header"));
    assert!(connect(address, request).await.is_ok());
}

#[tokio::test]
async fn logs_refuse_to_be_followed_with_ordinary_answers_before_the_upgrade() {
    let mut site = Site::demo().await;
    let address = site.serve().await;
    let (alice, dave) = (site.user("alice").await, site.user("dave").await);
    let not_found = json!({ "message": crate::client::NOT_FOUND });
    assert_eq!(refused(address, upgrade(address, &dave, &follow(26, ""))).await, (404, not_found.clone()));
    assert_eq!(refused(address, upgrade(address, &alice, &follow(404, ""))).await, (404, not_found));
    let text = json!({ "message": "Text format is not supported with follow mode." });
    assert_eq!(refused(address, upgrade(address, &alice, &follow(26, "&format=text"))).await, (400, text));
    let nobody = site.client("HOOmKyZ0bR-0000000000000000000000");
    assert_eq!(refused(address, upgrade(address, &nobody, &follow(26, ""))).await.0, 401);
    let mut request = upgrade(address, &alice, &follow(26, ""));
    request.headers_mut().insert("sec-websocket-version", "8".parse().expect("a header"));
    let failed = json!({ "message": "Failed to accept websocket." });
    assert_eq!(refused(address, request).await, (400, failed));
}

#[tokio::test]
async fn logs_that_cannot_be_read_any_more_end_with_a_fault() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    let mut socket = connect(address, upgrade(address, &alice, &follow(26, ""))).await.expect("a socket");
    socket.outputs(8).await;
    site.sql(&format!(
        "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
         VALUES ('22222222-2222-4222-8222-222222222222', 'other', '', now(), now(), '');
         UPDATE provisioner_jobs SET organization_id = '22222222-2222-4222-8222-222222222222', completed_at = now()
         WHERE id = '{}'",
        job_id(26)
    ))
    .await;
    assert_eq!(socket.end().await, (1011, format!("provisioner job not found: {}", job_id(26))));
}
