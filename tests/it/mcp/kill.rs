//! The program, killed wherever it is.

use std::{
    env, fs,
    process::{self, Stdio},
};

use coderdb::tools::Tool;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use super::{Client, LONG, enough, structured};
use crate::support::{
    self,
    proxy::{Cut, Proxy},
    rows::id,
    tools::{Ending, World, template},
};

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
