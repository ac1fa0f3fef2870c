//! Messages that are none, and clients that say nothing.

use std::{
    io::Write as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

use coderdb::tools::Tool;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{Client, LONG, structured};
use crate::support::{
    self, fails,
    rows::id,
    tools::{Ending, World},
};

#[tokio::test]
async fn what_is_no_message_is_passed_over_and_a_long_one_is_read() {
    let mut world = World::new().await;
    let mut client = Client::new(&world).await;
    client.input.write_all(b"\r\n\n\xff\xfe{}\n\0\0\n[]\n").await.expect("the program reads");
    let long = vec![b'a'; 17 << 20];
    client.input.write_all(&long).await.expect("the program reads");
    client.line("").await;
    client.line(r#"{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": "\ud800"}}"#).await;
    let mut refused = 0;
    let ping = client.send("ping", json!({})).await;
    loop {
        let message = client.next().await;
        if message["id"] == ping {
            assert_eq!(message["result"], json!({}));
            break;
        }
        assert_eq!(message["error"]["code"], -32600, "{message}");
        refused += 1;
    }
    assert_eq!(refused, 1, "the list, which is JSON and no message");

    let value = "ä\u{1F600}\u{7f}\"\\ ".repeat(100_000);
    let arguments = json!({ "template_id": id(1), "parameters": { "": "", "long": value } });
    let (reply, _) =
        tokio::join!(client.call("create_workspace", arguments), world.daemon(Ending::Succeeds(&["main"])));
    assert_eq!(structured(Tool::CreateWorkspace, &reply)["created"], true);
    let stored = "SELECT input -> 'rich_parameter_values' -> 1 ->> 'value' FROM provisioner_jobs
                  WHERE type = 'workspace_build'";
    assert!(world.one(stored).await == value);
    assert!(client.finish().await.is_empty());
}

#[tokio::test]
async fn a_client_that_no_longer_reads_is_no_failure_either() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut client = Client::new(&world).await;
    client.call_and_ask("start_workspace", json!({}), "t").await;
    client.progress("t").await;
    drop(client.output);
    world.daemon(Ending::Succeeds(&["main"])).await;
    for _ in 0..3 {
        client
            .input
            .write_all(b"{\"jsonrpc\": \"2.0\", \"id\": 9, \"method\": \"ping\"}\n")
            .await
            .expect("the program reads");
    }
    drop(client.input);
    let output = timeout(LONG, client.child.wait_with_output()).await.expect("an end").expect("a status");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.counts().await, "1 2 2");
}

#[tokio::test]
async fn who_begins_with_something_else_is_told_so_at_once() {
    let world = World::new().await;
    // As some clients do: no pipes, but sockets, which here stay open.
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let mut command = Command::new(support::CODERDB);
    command.env_clear().envs(world.rows.database.environment()).args(["mcp", "--chat", &id(1).to_string()]);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("the program starts");
    let cancels = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    writeln!(ours, "{cancels}").expect("the program reads");
    let output = timeout(LONG, child.wait_with_output()).await.expect("an end").expect("a status");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), [].as_slice()), "{errors}");
    assert!(errors.contains("error: the client does not begin as the protocol says: "), "{errors}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_no_failure() {
    let world = World::new().await;
    assert!(Client::silent(&world).finish().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_served_is_said_before_anything_is() {
    let mut world = World::new().await;
    world.rows.run("SELECT add_user(2)").await;
    let database = &world.rows.database;
    let (chat, other) = (id(1).to_string(), id(2).to_string());
    let mcp = |args: &[&str]| {
        let mut command = database.coderdb();
        command.arg("mcp").args(args);
        command
    };
    fails(&mut mcp(&[]), 2, &["--chat <ID>"]);
    fails(&mut mcp(&["--chat", "one"]), 2, &["'one'", "--chat <ID>"]);
    fails(&mut mcp(&["--chat", &other]), 1, &[&format!("error: chat not found: {other}")]);
    fails(&mut mcp(&["--chat", &chat, "--owner", "nobody"]), 1, &["error: --owner: user not found: nobody"]);
    for owner in ["user2", &other] {
        let text = format!("error: the chat {chat} belongs to somebody else than user2");
        fails(&mut mcp(&["--chat", &chat, "--owner", owner]), 2, &[&text, "leave --owner out"]);
    }
    let serve = ["mcp", "--chat", &chat];
    for (change, said) in [("status = 'suspended'", "suspended"), ("status = 'active', deleted = true", "deleted")] {
        let mut conn = database.connect().await;
        let change = format!("UPDATE users SET {change} WHERE id = u(1)");
        coderdb::sqlx::raw_sql(coderdb::sqlx::AssertSqlSafe(change)).execute(&mut conn).await.expect("the change");
        let text = format!("error: user1, who owns the chat {chat}, is {said}");
        fails(&mut mcp(&["--chat", &chat]), 1, &[&text, "activate the user, or use another chat"]);
    }
    let hint = "name a user who was deleted by the id";
    fails(&mut mcp(&["--chat", &chat, "--owner", "user1"]), 1, &["--owner: user not found: user1", hint]);
    fails(support::coderdb().args(serve), 2, &["no database is configured", "DATABASE_URL"]);
    let elsewhere = "postgres://nobody:s3cret@127.0.0.1:1/db";
    fails(support::coderdb().env("DATABASE_URL", elsewhere).args(serve), 4, &["cannot reach"]);
    // It migrates.
    let empty = support::empty_database().await.with_sessions();
    fails(empty.coderdb().args(serve), 3, &["schema is missing or too old", "coderdb migrate up"]);
    run_up_to(&empty, "7");
    fails(empty.coderdb().args(serve), 3, &["schema is missing or too old", "coderdb migrate up"]);
}

fn run_up_to(database: &support::Database, version: &str) {
    assert_eq!(support::run(database.coderdb().args(["migrate", "up", "--target", version])).code, 0);
}
