//! `coderdb mcp`: the program itself, over its standard input and output, line by line.

mod kill;
mod protocol;

use std::{process::Stdio, time::Duration};

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

use crate::support::{
    self, adopted as adopt,
    rows::{Rows, id},
    secrets,
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
    let published: Vec<Value> = serde_json::from_str(include_str!("../golden/tools.json")).expect("JSON");
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
    told("start build pending: position 2 of 2 in the queue of a matching daemon").await;
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

/// So often it is killed at least before the commit, and after it. How many round trips a call takes depends on when a
/// build ends: through a pooler, few of them are left.
fn enough() -> usize {
    if support::is_pooled() { 0 } else { 8 }
}
