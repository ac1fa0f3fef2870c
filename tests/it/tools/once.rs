//! Several processes at once, and callers that are gone before their reply: one workspace, one build.

use coderdb::tools::{CancellationToken, Tool};
use serde_json::json;

use super::*;
use crate::support::{
    give_up::give_up,
    proxy::{Cut, Proxy},
};

impl World {
    /// The tools of the same chat in another process: with a pool and a watcher of its own.
    fn elsewhere(&self) -> Toolbox {
        let pool = pool_of(&self.rows);
        let watcher = Watcher::start(&pool, watch::Settings::default());
        let told = self.told.clone();
        Toolbox::new(pool, watcher, ChatId(id(1)), id(1).into(), id(1).into())
            .settings(SETTINGS)
            .on_chat_updated(Arc::new(move |chat| told.lock().expect("no panic").push(chat.clone())))
    }
}

const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_create_a_workspace_for_one_chat_make_one() {
    let mut world = World::new().await;
    let (here, there) = (world.toolbox(), world.elsewhere());
    for round in 1..=ROUNDS {
        // The one of the round before is of no use.
        world.rows.run("UPDATE workspaces SET deleted = true").await;
        // Each with a name of its own: one name for both would keep them apart, too.
        let unnamed = || json!({ "template_id": id(1) });
        let (one, other, _) = tokio::join!(
            call(&here, Tool::CreateWorkspace, unnamed()),
            call(&there, Tool::CreateWorkspace, unnamed()),
            world.daemon(Ending::Succeeds(&["main"])),
        );
        let replies = [keys(&one), keys(&other)];
        assert_eq!(world.counts().await, format!("{round} {round} {round}"), "{replies:#?}");
        let build = world.newest_build().await.to_string();
        assert_eq!(replies.iter().filter(|reply| reply["created"] == true).count(), 1, "{replies:#?}");
        // Who came second waited for the build of the first, or found the workspace running.
        let second = replies.iter().find(|reply| reply["created"] == false).expect("one of them");
        assert_eq!(second["status"], "already_exists");
        assert!(second.get("build_id").is_none_or(|id| *id == build.as_str()), "{second:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_start_one_workspace_make_one_build() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let (here, there) = (world.toolbox(), world.elsewhere());
    for round in 1..=ROUNDS {
        world.rows.run("UPDATE workspace_builds SET transition = 'stop'").await;
        let (one, other, _) = tokio::join!(start(&here), start(&there), world.daemon(Ending::Succeeds(&["main"])));
        let replies = [keys(&one), keys(&other)];
        assert_eq!(world.counts().await, format!("1 {0} {0}", round + 1), "{replies:#?}");
        assert!(replies.iter().all(|reply| reply["started"] == true), "{replies:#?}");
        let build = world.newest_build().await.to_string();
        assert!(replies.iter().any(|reply| reply["build_id"] == build.as_str()), "{replies:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_process_take_turns() {
    let mut world = World::new().await;
    let toolbox = world.toolbox();
    let (created, started, _) =
        tokio::join!(create(&toolbox), start(&toolbox), world.daemon(Ending::Succeeds(&["main"])));
    assert_eq!(keys(&created)["created"], true);
    // It waited for the workspace that the other call made.
    assert_eq!(keys(&started)["no_build"], true);
    assert_eq!(world.counts().await, "1 1 1");
}

#[tokio::test]
async fn a_caller_that_is_gone_between_the_commit_and_the_reply_finds_its_workspace_again() {
    let mut world = World::new().await;
    let (toolbox, _) = world.recorded(Answer::Never);
    {
        let dies = create(&toolbox);
        tokio::pin!(dies);
        while world.counts().await != "1 1 1" {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut dies).await.is_err());
        }
    }
    let build = world.newest_build().await;
    assert!(world.binding().await.ends_with(&build.to_string()), "the chat knows of it");
    let reply =
        world.under_way(&world.elsewhere(), Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    let reply = keys(&reply);
    assert_eq!((&reply["status"], &reply["build_id"]), (&json!("already_exists"), &json!(build)));
    assert_eq!(world.counts().await, "1 1 1");

    // The same for a start.
    world.rows.run("UPDATE workspace_builds SET transition = 'stop'").await;
    let (toolbox, _) = world.recorded(Answer::Never);
    {
        let dies = start(&toolbox);
        tokio::pin!(dies);
        while world.counts().await != "1 2 2" {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut dies).await.is_err());
        }
    }
    let build = world.newest_build().await;
    world.told.lock().expect("no panic").clear();
    let reply = world.under_way(&world.elsewhere(), Tool::StartWorkspace, json!({}), Ending::Succeeds(&["main"])).await;
    assert_eq!(keys(&reply)["build_id"], json!(build));
    assert_eq!(world.counts().await, "1 2 2");
}

#[tokio::test]
async fn wherever_a_call_is_dropped_the_chat_has_one_workspace_after_the_next() {
    let mut world = World::new().await;
    let mut dropped = 0;
    for (polls, at_once) in (1..).flat_map(|polls| [(polls, true), (polls, false)]) {
        // A call that comes so far waits for the build that nobody carries out.
        let toolbox = world.toolbox().settings(Settings { build_timeout: Duration::from_millis(100), ..SETTINGS });
        let answer = give_up(create(&toolbox), polls, at_once).await;
        // In one look, because a commit may be on its way.
        let found = "SELECT concat_ws(' ', (SELECT count(*) FROM workspaces), (SELECT count(*) FROM workspace_builds),
                         (SELECT count(*) FROM provisioner_jobs WHERE type = 'workspace_build'), count(build_id))
                     FROM chats";
        match world.one(found).await.as_str() {
            "0 0 0 0" if answer.is_none() => dropped += 1,
            "1 1 1 1" => break,
            other => panic!("{other} after {polls} polls, at once: {at_once}"),
        }
    }
    assert!(dropped > 5, "{dropped} drops before the commit");
    let build = world.newest_build().await;
    assert!(world.binding().await.ends_with(&build.to_string()));
    world.told.lock().expect("no panic").clear();
    let reply =
        world.under_way(&world.toolbox(), Tool::CreateWorkspace, template(1), Ending::Succeeds(&["main"])).await;
    assert_eq!(keys(&reply)["build_id"], json!(build));
    assert_eq!(world.counts().await, "1 1 1");
}

const LOCKED: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";

#[tokio::test]
async fn a_workspace_that_somebody_else_builds_in_the_same_moment_is_looked_at_again() {
    let mut world = World::after("SELECT has(5, 'stop', 'succeeded')").await;
    let mut other = world.rows.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT FROM workspaces FOR UPDATE").execute(&mut other).await.expect("a lock");
    let toolbox = world.toolbox();
    let waiting = start(&toolbox);
    tokio::pin!(waiting);
    while world.one(LOCKED).await == "0" {
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    }
    sqlx::raw_sql("SELECT add_build(6, 5, 2); COMMIT").execute(&mut other).await.expect("a build");
    // It binds the chat to the build before it waits for that; a build that ended before would not be waited for.
    let daemon = async {
        world.until_told().await;
        world.daemon(Ending::Succeeds(&["main"])).await
    };
    let (reply, _) = tokio::join!(waiting, daemon);
    assert_golden("started", &reply, id(6));
    assert_eq!(world.counts().await, "1 2 2");
}

/// Calls the tool over a connection that is cut at each of its round trips in turn, as the server sees it when a process is
/// killed; then again, while a daemon builds what there is to build. Says how often it was cut.
async fn cut_everywhere(tool: Tool, before: &str, after: &str) -> usize {
    let mut world = World::new().await;
    let reset = format!(
        "UPDATE chats SET workspace_id = NULL, build_id = NULL; DELETE FROM workspaces;
         DELETE FROM provisioner_jobs WHERE type = 'workspace_build'; {before}"
    );
    let arguments = match tool {
        Tool::CreateWorkspace => template(1),
        Tool::StartWorkspace => json!({}),
    };
    let mut cuts = 0;
    for cut in (1..).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        world.rows.run(&reset).await;
        let proxy = Proxy::to(&world.rows.database);
        let pool = Pool::new(proxy.connect_options(), pool::Settings { max_size: 1, ..pool::Settings::default() });
        let impatient = Settings { build_timeout: Duration::from_millis(30), ..SETTINGS };
        let toolbox = Toolbox::new(pool, world.watcher.clone(), ChatId(id(1)), id(1).into(), id(1).into());
        proxy.cut(cut);
        // It looks again over another connection, and waits for its build.
        let left = keys(&call(&toolbox.settings(impatient), tool, arguments.clone()).await);
        assert!(left["error"].as_str().is_some_and(|error| error.contains("timed out")), "{tool:?}, {cut:?}: {left}");
        if !proxy.was_cut() {
            break;
        }
        cuts += 1;
        let (reply, _) = world.built(&world.toolbox(), tool, arguments.clone(), Ending::Succeeds(&["main"])).await;
        assert!(!reply.is_error() && keys(&reply).get("error").is_none(), "{tool:?}, {cut:?}: {reply:?}");
        assert_eq!(world.counts().await, after, "{tool:?}, {cut:?}: {reply:?}");
        let build = world.newest_build().await.to_string();
        assert!(world.binding().await.ends_with(&build), "{tool:?}, {cut:?}: {reply:?}");
    }
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_connection_is_lost_a_workspace_that_runs_is_kept() {
    let mut world =
        World::after("SELECT has(5, 'start', 'succeeded'), add_agent(51, 5, 'main', 'ready'), alive(0)").await;
    let mut cuts = 0;
    for cut in (1..).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        let proxy = Proxy::to(&world.rows.database);
        let pool = Pool::new(proxy.connect_options(), pool::Settings { max_size: 1, ..pool::Settings::default() });
        let toolbox = Toolbox::new(pool, world.watcher.clone(), ChatId(id(1)), id(1).into(), id(1).into());
        proxy.cut(cut);
        let (created, started) = (create(&toolbox).await, start(&toolbox).await);
        assert_golden("already connected", &created, id(0));
        assert_golden("already running", &started, id(0));
        assert_eq!(world.counts().await, "1 1 1", "{cut:?}");
        if !proxy.was_cut() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 15, "{cuts} cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_chats_that_start_one_workspace_make_one_build_and_both_know_of_it() {
    let mut world = World::after(
        "INSERT INTO chats (id, owner_id, last_model_config_id, organization_id) VALUES (u(2), u(1), u(1), u(1));
         SELECT has(5, 'stop', 'succeeded')",
    )
    .await;
    let here = world.toolbox();
    let there = Toolbox::new(pool_of(&world.rows), world.watcher.clone(), ChatId(id(2)), id(1).into(), id(1).into());
    for round in 1..=ROUNDS {
        world.rows.run("UPDATE workspace_builds SET transition = 'stop'; UPDATE chats SET build_id = NULL").await;
        let (one, other, _) = tokio::join!(start(&here), start(&there), world.daemon(Ending::Succeeds(&["main"])));
        let replies = [keys(&one), keys(&other)];
        assert_eq!(world.counts().await, format!("1 {0} {0}", round + 1), "{replies:#?}");
        assert!(replies.iter().all(|reply| reply["started"] == true), "{replies:#?}");
        // Who came so late that the workspace ran already binds nothing.
        let waited = replies.iter().filter(|reply| reply.get("no_build").is_none()).count();
        let build = world.newest_build().await;
        let bound = format!("SELECT count(*) FROM chats WHERE build_id = '{build}'");
        assert_eq!(world.one(&bound).await, waited.to_string(), "{replies:#?}");
    }
}

#[tokio::test]
async fn a_call_that_is_canceled_before_it_began_anything_begins_nothing() {
    for (tool, setup, arguments, counts) in [
        (Tool::CreateWorkspace, "SELECT", template(1), "0 0 0"),
        (Tool::StartWorkspace, "SELECT has(5, 'stop', 'succeeded')", json!({}), "1 1 1"),
    ] {
        let mut world = World::after(setup).await;
        let (toolbox, cancel) = (world.toolbox(), CancellationToken::new());
        let mut other = world.rows.database.connect_with_session().await;
        // The roles of the owner are there.
        sqlx::raw_sql("BEGIN; LOCK TABLE organization_members").execute(&mut other).await.expect("a lock");
        let waiting = call_until(&toolbox, tool, arguments.clone(), &cancel);
        tokio::pin!(waiting);
        while world.one(LOCKED).await == "0" {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        }
        cancel.cancel();
        sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("the end");
        assert_eq!(error(&waiting.await), "canceled before anything was begun");
        assert_eq!(world.counts().await, counts);
        // Nor does one that had to wait for its turn until then, or would have it at once.
        for _ in 0..10 {
            let reply = call_until(&toolbox, tool, arguments.clone(), &cancel).await;
            assert_eq!(error(&reply), "canceled before anything was begun");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_is_killed_the_next_call_finds_or_makes_the_one_workspace() {
    let cuts = cut_everywhere(Tool::CreateWorkspace, "SELECT", "1 1 1").await;
    assert!(cuts > 30, "{cuts} cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_process_is_killed_the_next_call_finds_or_makes_the_one_build() {
    let cuts = cut_everywhere(Tool::StartWorkspace, "SELECT has(5, 'stop', 'succeeded')", "1 2 2").await;
    assert!(cuts > 30, "{cuts} cuts");
}
