//! Tokens are shown nowhere. Every test of this program signs in with the secret that [`secrets::check`] looks for, in all
//! that is logged at the finest level, in panics, and in every answer with its headers; here, what others could read.

use axum::{body::Body, http::Request};
use coderdb::{
    authz::{Actor, SignIn, System},
    model::SessionToken,
    store::api_keys,
};
use time::OffsetDateTime;

use crate::{
    client::{Site, TOKEN, send},
    follow::{connect, follow, upgrade},
    support::{self, secrets},
};

#[tokio::test]
async fn tokens_are_in_no_debug_text_and_in_no_error() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let token: SessionToken = alice.token.parse().expect("a token");
    assert!(token.expose().contains(secrets::TOKEN));
    secrets::check("Debug", &format!("{token:?} {:#?} {:?}", Some(&token), [&token]));
    for wrong in [format!("{}x", alice.token), format!("x{}", alice.token), alice.token.replace('-', "")] {
        let error = wrong.parse::<SessionToken>().expect_err("no token");
        secrets::check("an error", &format!("{error:?} {error}"));
    }
    let permit = SignIn::check(&Actor::system(System::Authenticator)).expect("it signs in");
    let now = OffsetDateTime::now_utc();
    for sql in ["UPDATE api_keys SET expires_at = '1970-01-01Z'", "DELETE FROM api_keys", "DROP TABLE api_keys"] {
        site.sql(sql).await;
        let refused = api_keys::session(&mut site.conn, &permit, &token, now).await;
        assert!(!matches!(refused, Ok(Ok(_))), "{sql}");
        secrets::check("an error", &format!("{:?}", refused.as_ref().map(|refused| refused.as_ref().err())));
        if let Err(error) = refused {
            secrets::check("an error", &error.to_string());
        }
        // And what HTTP makes of it.
        alice.get("workspace-quota/me").await;
    }
}

#[tokio::test]
async fn tokens_in_every_place_of_a_request_are_in_no_answer_and_no_log() {
    let site = Site::demo().await;
    let token = format!("HOOmKyZ0bR-{}", secrets::TOKEN);
    let before = secrets::seen();
    for (name, value) in [
        (TOKEN, token.clone()),
        (TOKEN, format!("{token}-more")),
        ("Authorization", format!("Bearer {token}")),
        ("Authorization", format!("Basic {token}")),
        ("Authorization", token.clone()),
        ("Proxy-Authorization", token.clone()),
        ("Cookie", format!("coder_session_token={token}")),
        ("X-Coder-Request-Id", token.clone()),
        ("traceparent", token.clone()),
    ] {
        let request = Request::builder().uri("/api/v2/workspace-quota/me").header(name, value);
        let answer = send(&site.router, request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, 401, "{name}");
    }
    // Who puts it into the address is refused, and the address is in no log of ours.
    for uri in [
        format!("/api/v2/workspace-quota/me?coder_session_token={token}"),
        format!("/api/v2/workspace-quota/{token}"),
        format!("/{token}"),
    ] {
        send(&site.router, Request::builder().uri(uri).body(Body::empty()).expect("a request")).await;
    }
    assert!(secrets::seen() > before, "the log is looked through");
}

#[tokio::test]
async fn tokens_are_in_no_session_of_the_server_and_in_no_stored_row() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    alice.get("organizations/coder/provisionerjobs").await.ok();
    let address = site.serve().await;
    let _socket = connect(address, upgrade(address, &alice, &follow(26, ""))).await.expect("a socket");
    secrets::check("pg_stat_activity", &support::sessions(site.database.name()).await);
    secrets::check("api_keys", &site.value::<String>("SELECT string_agg(k::text, ' ') FROM api_keys AS k").await);
    secrets::check_process_list();
}

#[test]
fn tokens_are_in_no_metrics_and_in_no_output_of_the_program() {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpStream,
        process::Stdio,
    };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (database, token) = runtime.block_on(async {
        let mut site = Site::demo().await;
        let token = site.user("alice").await.token;
        (site.database, token)
    });
    let mut program = std::process::Command::new(support::CODERDB)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env_clear()
        .envs(database.environment())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(program.stderr.take().expect("its notes")).lines().map_while(Result::ok);
    let listening = lines.by_ref().find(|line| line.contains("listening on")).expect("it listens");
    let address = listening.rsplit("http://").next().expect("an address").trim().to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{TOKEN}: {token}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        secrets::check(path, &answer);
        answer
    };
    assert!(get("/api/v2/workspace-quota/me").starts_with("HTTP/1.1 200"));
    assert!(get(&format!("/api/v2/workspace-quota/{token}")).starts_with("HTTP/1.1 404"));
    assert!(get(&format!("/api/v2/workspace-quota/me?x={token}")).starts_with("HTTP/1.1 400"));
    let metrics = get("/metrics");
    assert!(
        metrics.contains("coderdb_http_requests_total{method=\"GET\",route=\"/api/v2/workspace-quota/{user}\""),
        "{metrics}"
    );
    // A method that nobody knows is no series of its own.
    let mut stream = TcpStream::connect(&address).expect("a connection");
    stream
        .write_all(format!("X{} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "Y".repeat(10)).as_bytes())
        .expect("it is sent");
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(!get("/metrics").contains("XYYYY"));
    let kill = std::process::Command::new("kill").args(["-TERM", &program.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    let output = program.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0));
    secrets::check("the output of the program", &String::from_utf8_lossy(&output.stdout));
    lines.for_each(|line| secrets::check("the notes of the program", &line));
}
