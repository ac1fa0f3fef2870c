//! `coderdb mcp`: the program itself, over its standard input and output, line by line.

use std::{
    env, fs,
    io::Write as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{self, Stdio},
    time::Duration,
};

use coderdb::{
    authz::ReadWorkspaces,
    model::{ByWorker, JobStatus, LogLevel, LogSource, NewJobLog, WorkspaceBuildId},
    store,
    tools::Tool,
    watch::Change,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    adopt,
    jobs::{Rows, id},
    support::{
        self, fails,
        proxy::{Cut, Proxy},
        secrets,
    },
    tools::{Ending, World, end, runs, take, template},
};

/// So long no test waits for anything that comes.
const LONG: Duration = Duration::from_secs(20);

/// A daemon that is online, and may take what is built here.
const ONLINE: &str = "
INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
VALUES (u(7), now(), u(1), 'key', '', '{}');
INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
VALUES (u(7), now(), 'daemon', '{echo}', '{\"scope\": \"organization\", \"owner\": \"\"}', now(), u(1), u(7));
";

/// A client that writes and reads lines.
struct Client {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    requests: u64,
    /// What came in between.
    told: Vec<Value>,
}

impl Client {
    /// Before it has said anything.
    fn silent(world: &World) -> Self {
        Self::spawn(&world.rows.database.environment())
    }

    fn spawn(environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(support::CODERDB);
        command.env_clear().envs(environment.iter().copied());
        command.args(["mcp", "--chat", &id(1).to_string(), "--owner", "user1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, input, output, requests: 0, told: Vec::new() }
    }

    /// After the handshake.
    async fn new(world: &World) -> Self {
        Self::silent(world).greet().await
    }

    async fn greet(mut self) -> Self {
        let client = &mut self;
        let about = json!({ "name": "test", "version": "0" });
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about });
        let reply = client.request("initialize", params).await;
        assert_eq!(reply["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(reply["result"]["capabilities"], json!({ "tools": {} }));
        assert_eq!(reply["result"]["serverInfo"]["name"], "coderdb");
        let instructions = reply["result"]["instructions"].as_str().expect("a text");
        assert!(instructions.contains("There is no tool list_templates here"), "{instructions}");
        client.notify("notifications/initialized", json!({})).await;
        self
    }

    async fn line(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("the program reads");
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.line(&json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()).await;
    }

    async fn send(&mut self, method: &str, params: Value) -> u64 {
        self.requests += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.requests, "method": method, "params": params });
        self.line(&request.to_string()).await;
        self.requests
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        let line = timeout(LONG, self.output.next_line()).await.expect("in time").expect("a line").expect("no end");
        secrets::check("what the server says", &line);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
    }

    async fn reply(&mut self, id: u64) -> Value {
        loop {
            let message = self.next().await;
            if message.get("id").is_none() {
                self.told.push(message);
                continue;
            }
            assert_eq!(message["id"], id, "{message}");
            return message;
        }
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params).await;
        self.reply(id).await
    }

    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Calls the tool, and asks to be told how it goes.
    async fn call_and_ask(&mut self, tool: &str, arguments: Value, token: &str) -> u64 {
        let meta = json!({ "progressToken": token });
        self.send("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": meta })).await
    }

    /// What is told next, with its number.
    async fn progress(&mut self, token: &str) -> (f64, String) {
        let message = self.next().await;
        assert_eq!(message["method"], "notifications/progress", "{message}");
        assert_eq!(message["params"]["progressToken"], token, "{message}");
        let text = message["params"]["message"].as_str().expect("a text").to_owned();
        (message["params"]["progress"].as_f64().expect("a number"), text)
    }

    /// Closes the input, and gives what still came, after the program has ended well.
    async fn finish(mut self) -> Vec<Value> {
        drop(self.input);
        let mut last = Vec::new();
        let rest = async {
            while let Some(line) = self.output.next_line().await.expect("lines") {
                last.push(serde_json::from_str(&line).expect("JSON"));
            }
            self.child.wait().await.expect("an end")
        };
        // A framework of the server's would wait for five seconds.
        let status = timeout(Duration::from_secs(3), rest).await.expect("an end");
        let mut errors = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut errors).await.expect("a text");
        secrets::check("what the server logs", &errors);
        assert!(status.success(), "{status} {errors}");
        assert_eq!(errors, format!("serving the tools of the chat {} on standard input and output\n", id(1)));
        last
    }
}

/// The structured part of a reply, which its text repeats and its schema describes.
fn structured(tool: Tool, reply: &Value) -> Value {
    let result = &reply["result"];
    assert_eq!(result["isError"], false, "{reply}");
    let keys = result["structuredContent"].clone();
    let [content] = result["content"].as_array().expect("a list").as_slice() else { panic!("{reply}") };
    assert_eq!(content["type"], "text");
    assert_eq!(serde_json::from_str::<Value>(content["text"].as_str().expect("a text")).expect("JSON"), keys);
    assert!(jsonschema::is_valid(&Value::Object(tool.reply_schema()), &keys), "{keys}");
    keys
}

/// The text of a reply that is flagged as an error.
fn error(reply: &Value) -> &str {
    assert_eq!(reply["result"]["isError"], true, "{reply}");
    assert!(reply["result"].get("structuredContent").is_none(), "{reply}");
    reply["result"]["content"][0]["text"].as_str().expect("a text")
}

#[tokio::test]
async fn the_tools_are_listed_as_the_library_publishes_them() {
    let world = World::new().await;
    let mut client = Client::new(&world).await;
    let listed = client.request("tools/list", json!({})).await;
    let published: Vec<Value> = serde_json::from_str(include_str!("golden/tools.json")).expect("JSON");
    let expected: Vec<Value> = published
        .iter()
        .zip(["Create workspace", "Start workspace"])
        .map(|(tool, title)| {
            json!({
                "name": tool["name"],
                "title": title,
                "description": tool["description"],
                "inputSchema": tool["arguments"],
                "outputSchema": tool["reply"],
                "annotations": {
                    "title": title,
                    "readOnlyHint": false,
                    "destructiveHint": false,
                    "idempotentHint": true,
                    "openWorldHint": false,
                },
            })
        })
        .collect();
    assert!(listed["result"] == json!({ "tools": expected }), "{listed:#}");
    assert!(client.finish().await.is_empty());
}

#[tokio::test]
async fn a_workspace_is_created_and_found_again() {
    let mut world = World::new().await;
    let mut client = Client::new(&world).await;
    let (created, _) =
        tokio::join!(client.call("create_workspace", template(1)), world.daemon(Ending::Succeeds(&["main"])));
    let created = structured(Tool::CreateWorkspace, &created);
    assert_eq!((&created["created"], &created["workspace_name"]), (&json!(true), &json!("user1/dev")));
    let started = client.request("tools/call", json!({ "name": "start_workspace" })).await;
    let expected = json!({ "started": true, "workspace_name": "dev", "no_build": true });
    assert_eq!(structured(Tool::StartWorkspace, &started), expected);
    assert_eq!(world.counts().await, "1 1 1");
    assert_eq!(client.told, Vec::<Value>::new(), "nobody asked to be told how it goes");
}

#[tokio::test]
async fn create_workspace_and_start_workspace_need_no_rights_but_the_printed_ones_on_a_database_of_coder() {
    let (database, mut conn) = adopt::coder().await;
    adopt::adopt(&database).await;
    let service = format!("{}_service", database.name());
    adopt::run(&mut conn, &format!("CREATE ROLE {service} LOGIN")).await;
    let grants = support::run(database.coderdb().args(["migrate", "adopt", "--print-grants", &service]));
    adopt::run(&mut conn, &grants.stdout).await;
    let url = database.url_as(&service, "");
    let world = World::of(Rows::of(database).await).await;
    let mut client = Client::spawn(&[("DATABASE_URL", &url)]).greet().await;
    let (created, _) =
        tokio::join!(client.call("create_workspace", template(1)), world.daemon(Ending::Succeeds(&["main"])));
    assert_eq!(structured(Tool::CreateWorkspace, &created)["created"], true);
    let mut world = world;
    world.rows.run("UPDATE workspace_builds SET transition = 'stop'").await;
    let (started, _) =
        tokio::join!(client.call("start_workspace", json!({})), world.daemon(Ending::Succeeds(&["main"])));
    assert_eq!(structured(Tool::StartWorkspace, &started)["started"], true);
    assert_eq!(world.counts().await, "1 2 2");
    client.finish().await;
}

#[tokio::test]
async fn a_build_that_is_over_quota_is_a_reply_and_no_error() {
    let world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut client = Client::new(&world).await;
    let (reply, _) = tokio::join!(client.call("start_workspace", json!({})), world.daemon(Ending::Costs(50)));
    let keys = structured(Tool::StartWorkspace, &reply);
    assert_eq!(keys["error_code"], "INSUFFICIENT_QUOTA");
    assert_eq!(keys["quota"], json!({ "credits_consumed": 0, "budget": 40 }));
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_a_result_and_what_is_wrong_with_a_request_an_error() {
    let world = World::new().await;
    let mut client = Client::new(&world).await;
    let reply = client.call("create_workspace", json!({ "template_id": 7 })).await;
    assert_eq!(error(&reply), "invalid template_id: invalid type: integer `7`, expected a string");
    let reply = client.call("start_workspace", json!({})).await;
    assert_eq!(error(&reply), "chat has no workspace; use create_workspace first");

    let reply = client.call("delete_workspace", json!({})).await;
    let text = "unknown tool: delete_workspace; expected one of create_workspace, start_workspace";
    assert_eq!(reply["error"], json!({ "code": -32602, "message": text }));
    let reply = client.call("start_workspace", json!([1])).await;
    assert_eq!(reply["error"]["code"], -32602);
    assert!(reply["error"]["message"].as_str().expect("a text").starts_with("malformed tools/call: "), "{reply}");
    let reply = client.request("tools/drop", json!({})).await;
    assert_eq!(reply["error"]["code"], -32601);

    client.line("this is no JSON").await;
    client.line("{\"jsonrpc\": \"2.0\"}").await;
    let reply = client.next().await;
    assert_eq!(reply["error"]["code"], -32600, "{reply}");
    assert_eq!(client.request("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn who_waits_is_told_of_the_position_in_the_queue_and_of_the_last_line_of_the_log() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut daemon = world.rows.database.connect().await;
    let mut client = Client::new(&world).await;
    let call = client.call_and_ask("start_workspace", json!({}), "t").await;

    let mut counts = Vec::new();
    let mut told = async |expected: &str| {
        let (count, text) = client.progress("t").await;
        assert_eq!(text, expected);
        counts.push(count);
    };
    told("start build pending: the organization has no daemons").await;
    world.rows.run(&format!("SELECT add_job(60); {ONLINE}")).await;
    told("start build pending: position 2 of 2 in the queue").await;
    let before = take(&mut daemon).await;
    assert_eq!(before.id, id(60).into());
    told("start build pending: the only matching daemon is busy: position 1 of 1").await;

    let job = take(&mut daemon).await;
    let change = Change { job: job.id, organization: job.organization_id };
    world.watcher.announce(change);
    told("start build running").await;
    // Of lines that come faster than anybody reads, the last one counts.
    for output in ["first", "second"] {
        let line = NewJobLog {
            created_at: OffsetDateTime::now_utc(),
            source: LogSource::Provisioner,
            level: LogLevel::Info,
            stage: "Planning".to_owned(),
            output: output.to_owned(),
        };
        let appended = store::job_logs::append(&mut daemon, &runs(), job.id, &[line]).await.expect("an answer");
        assert!(matches!(appended, ByWorker::Done(_)));
    }
    world.watcher.announce(change);
    told("start build running: Planning: second").await;
    // An agent that still runs its start-up scripts.
    end(&mut daemon, &job, Ending::Succeeds(&["main"])).await;
    world.rows.run("UPDATE workspace_agents SET lifecycle_state = 'starting'").await;
    world.watcher.announce(change);
    told("start build succeeded: waiting for the agent").await;
    world.rows.run("UPDATE workspace_agents SET lifecycle_state = 'ready'").await;

    let reply = client.reply(call).await;
    assert_eq!(structured(Tool::StartWorkspace, &reply)["started"], true);
    assert_eq!(client.told, Vec::<Value>::new());
    assert!(counts.windows(2).all(|pair| pair[0] < pair[1]), "{counts:?}");
    // A build that has ended before is not told of, however long the call takes.
    world.rows.run("UPDATE workspace_agents SET lifecycle_state = 'starting'").await;
    let again = client.call_and_ask("start_workspace", json!({}), "u").await;
    assert!(timeout(Duration::from_secs(1), client.next()).await.is_err(), "there is nothing to tell");
    world.rows.run("UPDATE workspace_agents SET lifecycle_state = 'ready'").await;
    let reply = client.reply(again).await;
    assert_eq!(structured(Tool::StartWorkspace, &reply)["no_build"], true);
    assert_eq!(client.told, Vec::<Value>::new());
    assert!(client.finish().await.is_empty());
}

/// The error of the build is in the reply twice, and the tags of the job in what is told of a call that waits.
#[tokio::test]
async fn no_message_repeats_a_long_text_of_somebody_else_whole() {
    let mut world = World::after(
        "SELECT has(5, 'stop', 'succeeded');
         UPDATE provisioner_jobs SET tags = jsonb_build_object('scope', 'organization', 'owner', '', 'x', repeat('y', 1000000))
         WHERE type = 'template_version_import'",
    )
    .await;
    world.rows.run(ONLINE).await;
    let mut client = Client::new(&world).await;
    let call = client.call_and_ask("start_workspace", json!({}), "t").await;
    let told = client.next().await;
    assert_eq!(told["method"], "notifications/progress", "{told:.300}");
    let message = told["params"]["message"].as_str().expect("a text");
    assert!(message.len() < 10_000 && message.ends_with(" bytes more"), "{message:.300}");
    assert!(message.starts_with("start build pending: "), "{message:.300}");
    let error = format!("{} THE END", "é".repeat(2_500_000));
    let fail = "UPDATE provisioner_jobs SET started_at = now(), completed_at = now(), error = $1
                WHERE id = (SELECT job_id FROM workspace_builds ORDER BY build_number DESC LIMIT 1) RETURNING id";
    let job = coderdb::sqlx::query_scalar::<_, uuid::Uuid>(fail).bind(error).fetch_one(&mut world.rows.conn).await;
    world.watcher.announce(Change { job: job.expect("the job").into(), organization: id(1).into() });
    let reply = client.reply(call).await;
    assert!(reply.to_string().len() < 25_000, "{} bytes", reply.to_string().len());
    let keys = structured(Tool::StartWorkspace, &reply);
    assert!(keys["error"].as_str().is_some_and(|error| error.ends_with(" THE END")));
    for told in &client.told {
        assert!(told.to_string().len() < 12_000, "{} bytes", told.to_string().len());
    }
}

#[tokio::test]
async fn a_canceled_call_gets_no_reply_and_the_next_one_finds_its_build() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut client = Client::new(&world).await;
    let canceled = client.call_and_ask("start_workspace", json!({}), "a").await;
    client.progress("a").await;
    client.notify("notifications/cancelled", json!({ "requestId": canceled, "reason": "enough" })).await;
    assert_eq!(client.request("ping", json!({})).await["result"], json!({}));

    // It gets its turn only because the first one has ended; then it binds the chat.
    let bound = "SELECT updated_at FROM chats";
    let before = world.one(bound).await;
    let next = client.send("tools/call", json!({ "name": "start_workspace" })).await;
    let waits = async {
        while world.one(bound).await == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, waits).await.expect("a turn");
    assert_eq!(world.counts().await, "1 2 2");
    world.daemon(Ending::Succeeds(&["main"])).await;
    let reply = client.reply(next).await;
    let keys = structured(Tool::StartWorkspace, &reply);
    assert!(keys["started"] == true && keys.get("no_build").is_none(), "{keys}");
    assert!(client.finish().await.is_empty());
}

#[tokio::test]
async fn the_end_of_the_input_cancels_what_is_under_way_and_ends_the_server() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut client = Client::new(&world).await;
    let call = client.call_and_ask("start_workspace", json!({}), "t").await;
    client.progress("t").await;
    let last = client.finish().await;
    let [reply] = last.as_slice() else { panic!("{last:?}") };
    assert_eq!(reply["id"], call);
    let keys = structured(Tool::StartWorkspace, reply);
    let text = "workspace start build failed: timed out waiting for workspace build: the call was canceled";
    assert_eq!(keys["error"], text);

    // The build goes on.
    let build = WorkspaceBuildId(keys["build_id"].as_str().expect("an id").parse().expect("an id"));
    let permit = ReadWorkspaces::check(&support::operator(), id(1).into()).expect("an operator");
    let build = store::builds::get(&mut world.rows.conn, &permit, build).await.expect("the build");
    assert_eq!(build.job_status, JobStatus::Pending);
}

#[tokio::test]
async fn at_the_end_of_the_input_every_call_gets_a_reply_and_no_build_begins_any_more() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut client = Client::new(&world).await;
    let first = client.call_and_ask("start_workspace", json!({}), "t").await;
    client.progress("t").await;
    let mut calls = vec![first];
    for tool in ["start_workspace", "create_workspace", "start_workspace"] {
        calls.push(client.send("tools/call", json!({ "name": tool, "arguments": template_of(tool) })).await);
    }
    let last = client.finish().await;
    let mut answered: Vec<_> = last.iter().filter_map(|reply| reply["id"].as_u64()).collect();
    answered.sort_unstable();
    assert_eq!(answered, calls, "{last:?}");
    for reply in last.iter().filter(|reply| reply["id"] != first) {
        assert_eq!(error(reply), "canceled before anything was begun");
    }
    assert_eq!(world.counts().await, "1 2 2");
}

fn template_of(tool: &str) -> Value {
    if tool == "create_workspace" { template(1) } else { json!({}) }
}

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

/// The reply, and a daemon carries out the build that the call waits for, if there is one; `None` when something else
/// comes first.
async fn served(client: &mut Client, world: &World, first: impl Future<Output = ()>) -> Option<Value> {
    let mut first = std::pin::pin!(first);
    loop {
        let message = tokio::select! {
            message = client.next() => message,
            () = &mut first => return None,
        };
        if message.get("id").is_some() {
            return Some(message);
        }
        if message["params"]["message"].as_str().is_some_and(|text| text.contains("pending")) {
            world.daemon(Ending::Succeeds(&["main"])).await;
        }
    }
}

/// Calls the tool of a program that is killed at each of the round trips of the call in turn; then that of another one.
/// Says how often it was killed before the commit, and after it.
async fn killed_everywhere(tool: Tool, arguments: Value, before: [&str; 2], after: &str) -> [usize; 2] {
    let [setup, before] = before;
    let mut world = World::new().await;
    let reset = format!(
        "UPDATE chats SET workspace_id = NULL, build_id = NULL; DELETE FROM workspaces;
         DELETE FROM provisioner_jobs WHERE type = 'workspace_build'; {setup}"
    );
    let proxy = Proxy::to(&world.rows.database);
    let mut client = Client::spawn(&proxy.environment()).greet().await;
    let mut kills = [0, 0];
    // Through a pooler, only the poll finds out that a build has ended: one round trip in four must do.
    let step = if support::is_pooled() { 4 } else { 1 };
    for cut in (1..).step_by(step).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        world.rows.run(&reset).await;
        proxy.hold(cut);
        client.call_and_ask(tool.name(), arguments.clone(), "t").await;
        if served(&mut client, &world, proxy.held()).await.is_some() {
            return kills;
        }
        client.child.kill().await.expect("killed");
        kills[usize::from(world.counts().await != before)] += 1;
        client = Client::spawn(&proxy.environment()).greet().await;
        client.call_and_ask(tool.name(), arguments.clone(), "t").await;
        let reply = served(&mut client, &world, std::future::pending()).await.expect("a reply");
        assert!(structured(tool, &reply).get("error").is_none(), "{cut:?}: {reply}");
        assert_eq!(world.counts().await, after, "{cut:?}: {reply}");
        let bound = "SELECT (chats.workspace_id, chats.build_id) = (b.workspace_id, b.id)
                     FROM chats, workspace_builds AS b ORDER BY b.build_number DESC LIMIT 1";
        assert_eq!(world.one(bound).await, "true", "{cut:?}: {reply}");
    }
    unreachable!("the call ends before the numbers do")
}

/// So often it is killed at least before the commit, and after it. How many round trips a call takes depends on when a
/// build ends: through a pooler, few of them are left.
fn enough() -> usize {
    if support::is_pooled() { 0 } else { 8 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_program_is_killed_the_next_one_finds_or_makes_the_one_workspace() {
    let kills = killed_everywhere(Tool::CreateWorkspace, template(1), ["SELECT", "0 0 0"], "1 1 1").await;
    assert!(kills.iter().all(|kills| *kills > enough()), "{kills:?} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_program_is_killed_the_next_one_finds_or_makes_the_one_build() {
    let before = ["SELECT has(5, 'stop', 'succeeded')", "1 1 1"];
    let kills = killed_everywhere(Tool::StartWorkspace, json!({}), before, "1 2 2").await;
    assert!(kills.iter().all(|kills| *kills > enough()), "{kills:?} kills");
}

/// The reference client, in an environment of its own, which the first run makes. `None` where there is no Python.
fn python() -> Option<String> {
    const PACKAGE: &str = "mcp==2.3.0";
    if process::Command::new("python3").arg("--version").output().is_err() {
        return None;
    }
    let place = format!("{}/{}", env!("CARGO_TARGET_TMPDIR"), PACKAGE.replace("==", "-"));
    let python = format!("{place}/bin/python");
    let done = format!("{place}/done");
    if fs::read(&done).is_err() {
        for (program, args) in [
            ("python3", ["-m", "venv", "--clear", &place].as_slice()),
            (&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]),
        ] {
            let output = process::Command::new(program).args(args).output().expect("Python");
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::write(done, "").expect("a file");
    }
    Some(python)
}

#[tokio::test]
async fn the_reference_client_lists_and_calls_the_tools() {
    let Some(python) = tokio::task::spawn_blocking(python).await.expect("no panic") else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let world = World::new().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mcp_client.py");
    let (template, chat) = (id(1).to_string(), id(1).to_string());
    let mut command = Command::new(python);
    command.env_clear().envs(world.rows.database.environment()).kill_on_drop(true);
    command.args([script, &template, support::CODERDB, "mcp", "--chat", &chat]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().expect("Python");
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut next = async || {
        let line = timeout(LONG, lines.next_line()).await.expect("in time").expect("a line")?;
        Some(serde_json::from_str::<Value>(&line).expect("JSON"))
    };
    let told = next().await.expect("what the first call waits for");
    assert_eq!(told, json!({ "told": [1.0, "start build pending: the organization has no daemons"] }));
    world.daemon(Ending::Succeeds(&["main"])).await;
    let mut sessions = Vec::new();
    while let Some(line) = next().await {
        if line.get("told").is_none() {
            sessions.push(line);
        }
    }
    let output = client.wait_with_output().await.expect("an end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second] = sessions.as_slice() else { panic!("{sessions:?}") };
    assert_eq!([&first["version"], &second["version"]], ["2025-11-25", "2026-07-28"]);
    for session in [first, second] {
        let tools =
            json!([["create_workspace", "Create workspace", true], ["start_workspace", "Start workspace", true]]);
        assert_eq!(session["tools"], tools);
        assert_eq!(session["bad"][0], true);
        assert!(session["bad"][1].as_str().expect("a text").starts_with("invalid template_id"), "{session}");
        assert_eq!(session["created"][0], false);
        assert_eq!(session["started"][1]["no_build"], true);
        assert!(session["unknown"].as_str().expect("a text").contains("unknown tool"), "{session}");
    }
    assert_eq!(first["created"][1]["created"], true);
    assert_eq!(second["created"][1]["status"], "already_exists");
}
