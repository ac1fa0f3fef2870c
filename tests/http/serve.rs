//! `coderdb serve`: where it listens, what it says of itself, and how it ends.

use std::{process::Stdio, time::Duration};

use coderdb::model::TemplateVersionId;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::{
    client::{Site, TOKEN, demo_id},
    support::{self, Database},
};

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_mins(1);

/// The service, and what it says.
struct Service {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
    address: String,
}

impl Service {
    async fn start(database: &Database, args: &[&str]) -> Self {
        let mut command = Command::new(support::CODERDB);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(database.environment());
        command.arg("serve").args(args);
        Self::of(command).await
    }

    async fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("it");
        let mut said = BufReader::new(child.stderr.take().expect("standard error")).lines();
        let address = after(&mut said, "listening on http://").await;
        Self { child, said, address }
    }

    /// The status, and the body behind the head.
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        get(&self.address, path, token).await
    }

    async fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill").success());
        let status = timeout(LONG, self.child.wait()).await.expect("an end").expect("a status");
        let mut said = String::new();
        while let Some(line) = self.said.next_line().await.expect("a line") {
            said += &(line + "\n");
        }
        (status.code(), said)
    }
}

/// What stands behind these words in the first line that has them.
async fn after(said: &mut Lines<BufReader<ChildStderr>>, words: &str) -> String {
    timeout(LONG, async {
        loop {
            let line = said.next_line().await.expect("a line").expect("it goes on");
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    })
    .await
    .expect("it says so")
}

async fn get(address: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let token = token.map_or_else(String::new, |token| format!("{TOKEN}: {token}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    timeout(LONG, socket.read_to_string(&mut answer)).await.expect("an answer").expect("a text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

#[tokio::test]
async fn serve_ends_on_sigterm_after_it_has_closed_the_streams_of_logs() {
    let mut site = Site::demo().await;
    let token = site.user("alice").await.token;
    let service = Service::start(&site.database, &["--listen", "127.0.0.1:0"]).await;
    // The import of this version has not ended.
    let version: TemplateVersionId = demo_id("0005", 3).parse().expect("an id");
    site.sql(&format!(
        "UPDATE provisioner_jobs AS j SET completed_at = NULL, error = NULL, canceled_at = NULL
         FROM template_versions AS v WHERE v.id = '{version}' AND j.id = v.job_id"
    ))
    .await;
    let follow = format!("ws://{}/api/v2/templateversions/{version}/logs?follow", service.address);
    let mut request = follow.into_client_request().expect("a request");
    request.headers_mut().insert(TOKEN, token.parse().expect("a header"));
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.expect("a socket");
    let closed = tokio::spawn(async move {
        loop {
            if let Message::Close(frame) = socket.next().await.expect("a frame").expect("a frame") {
                return u16::from(frame.expect("a reason").code);
            }
        }
    });
    let address = service.address.clone();
    let (code, said) = service.terminate().await;
    assert_eq!((code, closed.await.expect("a close frame")), (Some(0), 1001), "{said}");
    assert!(said.contains("ending on Terminate"), "{said}");
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn serve_says_whether_it_lives_and_whether_it_is_ready() {
    let database = support::empty_database().await;
    let service = Service::start(&database, &["--listen", "127.0.0.1:0"]).await;
    assert_eq!(service.get("/healthz", None).await, (200, "OK".to_owned()));
    let (status, body) = service.get("/readyz", None).await;
    assert!(status == 503 && body.contains("coderdb migrate up"), "{status} {body}");
    drop(service);

    let site = Site::demo().await;
    let service = Service::start(&site.database, &["--listen", "127.0.0.1:0"]).await;
    assert_eq!(service.get("/readyz", None).await.0, 200);
    assert_eq!(service.get("/docs/", None).await.0, 200);
}

#[tokio::test]
async fn serve_shows_metrics_on_loopback_alone_unless_told() {
    let mut site = Site::demo().await;
    let token = site.user("alice").await.token;
    let service = Service::start(&site.database, &["--listen", "127.0.0.1:0"]).await;
    assert_eq!(service.get("/api/v2/workspace-quota/me", Some(&token)).await.0, 200);
    let (status, metrics) = service.get("/metrics", None).await;
    assert_eq!(status, 200);
    for shown in [
        "coderdb_http_requests_total{method=\"GET\",route=\"/api/v2/workspace-quota/{user}\",status=\"200\"} 1",
        "coderdb_database_up 1",
        "coderdb_queue_jobs{",
        "coderdb_pool_connections_max 20",
        "coderdb_http_request_duration_seconds_bucket{",
    ] {
        assert!(metrics.contains(shown), "{shown} is not in\n{metrics}");
    }
    assert!(!metrics.contains(&token), "{metrics}");
    // What the rules and the dashboard ask for is shown, or counted where jobs are run.
    let elsewhere =
        ["coderdb_jobs_claimed_total", "coderdb_job_log_bytes_total", "coderdb_transaction_conflicts_total"];
    let asked = [include_str!("../../docs/monitoring/alerts.yaml"), include_str!("../../docs/monitoring/grafana.json")]
        .concat();
    let names =
        asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("coderdb_"));
    for name in names {
        assert!(metrics.contains(name) || elsewhere.contains(&name), "{name} is not in\n{metrics}");
    }

    let open = ["--listen", "0.0.0.0:0", "--metrics-listen", "127.0.0.1:0"];
    let mut command = Command::new(support::CODERDB);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(site.database.environment()).arg("serve").args(open);
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("it");
    let mut said = BufReader::new(child.stderr.take().expect("standard error")).lines();
    let metrics = after(&mut said, "metrics on http://").await;
    let address = after(&mut said, "listening on http://").await.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(get(&address, "/metrics", None).await.0, 404);
    assert_eq!(get(metrics.trim_end_matches("/metrics"), "/metrics", None).await.0, 200);
}

#[tokio::test]
async fn serve_without_a_database_shows_the_demo_with_what_it_prints() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(support::CODERDB);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("CODERDB_DATA_DIR", dir.path()).args(["serve", "--listen", "127.0.0.1:0"]);
    let mut service = Service::of(command).await;
    let mut printed = BufReader::new(service.child.stdout.take().expect("standard output")).lines();
    let mut line = async || timeout(LONG, printed.next_line()).await.expect("a line").expect("a line").expect("a line");
    let request = line().await + "\n" + &line().await;
    let printed = format!("curl --silent --fail {}", &request["curl ".len()..]);
    let answer = Command::new("sh").args(["-c", &printed]).output().await.expect("curl");
    let jobs: Value = serde_json::from_slice(&answer.stdout).expect("jobs");
    assert!(jobs.as_array().is_some_and(|jobs| !jobs.is_empty()), "{request}: {jobs}");
    let (code, said) = service.terminate().await;
    assert_eq!(code, Some(0), "{said}");
    // It stops by itself when nobody uses it any more, but its directory goes with the test.
    let mut stop = Command::new(support::CODERDB);
    stop.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    stop.env("CODERDB_DATA_DIR", dir.path()).args(["postgres", "stop", "--force"]);
    let _ = stop.output().await.expect("it");
}

#[tokio::test]
async fn serve_says_what_to_do_where_it_cannot_listen() {
    let site = Site::demo().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = support::run(site.database.coderdb().args(["serve", "--listen", &address]));
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("--listen"), "{}", ended.stderr);
}
