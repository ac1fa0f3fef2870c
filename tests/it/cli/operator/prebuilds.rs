//! Pausing prebuilds.

use std::process::Stdio;

use coderdb::{authz::ReadPrebuildsSettings, store};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    task::block_in_place,
};

use crate::support::{self, fails, rows::Rows, run};

#[tokio::test]
async fn prebuilds_are_paused_and_resumed_as_often_as_one_asks() {
    let database = support::database().await;
    let prebuilds = |command: &str| {
        let done = run(database.coderdb().args(["prebuilds", command]));
        (done.code, done.stdout, done.stderr)
    };
    let said = |stdout: &str, stderr: &str| (0, stdout.to_owned(), stderr.to_owned());
    let (paused, resumed) = ("Prebuilds are now paused.\n", "Prebuilds are now resumed.\n");
    assert_eq!(prebuilds("status"), said("Prebuilds are not paused.\n", ""));
    assert_eq!(prebuilds("resume"), said("", resumed));
    for _ in 0..2 {
        assert_eq!(prebuilds("pause"), said("", paused));
        assert_eq!(prebuilds("status"), said("Prebuilds are paused.\n", ""));
    }
    let json = run(database.coderdb().args(["prebuild", "status", "-o", "json"])).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["reconciliation_paused"], &json["presets"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(prebuilds("resume"), said("", resumed));
    assert_eq!(prebuilds("status"), said("Prebuilds are not paused.\n", ""));
    let nowhere = |command: &str| {
        let mut coderdb = support::coderdb();
        coderdb.env("DATABASE_URL", "postgres://u@127.0.0.1:1/db").args(["prebuilds", command]);
        coderdb
    };
    fails(&mut nowhere("pause"), 4, &["error: unable to pause prebuilds: cannot reach"]);
    fails(&mut nowhere("resume"), 4, &["error: unable to resume prebuilds: cannot reach"]);
}

/// The guard, and what it says on standard error.
struct Guard {
    program: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Guard {
    fn start(rows: &Rows, args: &[&str]) -> Self {
        let mut coderdb = Command::new(support::CODERDB);
        coderdb.env_clear().envs(rows.database.environment()).env("CODER_ORGANIZATION", "org1").kill_on_drop(true);
        coderdb.args(["prebuilds", "guard", "--interval", "20ms", "--resume-after", "0s"]).args(args);
        let mut program = coderdb.stderr(Stdio::piped()).spawn().expect("the program");
        let said = BufReader::new(program.stderr.take().expect("a pipe")).lines();
        Self { program, said }
    }

    async fn says(&mut self, expected: &str) {
        let line = self.said.next_line().await.expect("a line").expect("more lines");
        assert_eq!(line, expected);
    }

    async fn ends(&mut self) -> Option<i32> {
        let pid = self.program.id().expect("it runs").to_string();
        block_in_place(|| std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill"));
        self.program.wait().await.expect("an end").code()
    }
}

async fn is_paused(rows: &Rows) -> bool {
    let permit = ReadPrebuildsSettings::check(&support::operator()).expect("an operator");
    let mut conn = rows.database.connect().await;
    store::settings::prebuilds(&mut conn, &permit).await.expect("the settings").reconciliation_paused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_pauses_and_cancels_beyond_the_number_and_resumes_below_it() {
    const START: &str = "Guarding org1: at most 10 jobs of prebuilds may wait";
    let mut rows = super::flooded(40).await;
    let before = super::statuses(&mut rows).await;
    let mut dry = Guard::start(&rows, &["--max-waiting", "10", "--pause", "--cancel", "--dry-run"]);
    dry.says(START).await;
    let why = "30 jobs of prebuilds wait, and 10 may";
    dry.says(&format!("Would have: Prebuilds are now paused: {why}")).await;
    dry.says(&format!("Would have: 20 jobs of prebuilds canceled: {why}")).await;
    assert_eq!(dry.ends().await, Some(143));
    assert_eq!((super::statuses(&mut rows).await, is_paused(&rows).await), (before, false), "nothing is changed");

    let mut guard = Guard::start(&rows, &["--max-waiting", "10", "--pause", "--cancel"]);
    guard.says(START).await;
    guard.says(&format!("Prebuilds are now paused: {why}")).await;
    guard.says(&format!("20 jobs of prebuilds canceled: {why}")).await;
    assert!(is_paused(&rows).await);
    let left = "SELECT string_agg(id::text, ' ' ORDER BY created_at, id) FROM provisioner_jobs
                WHERE initiator_id = prebuilds() AND job_status = 'pending'";
    let oldest = "SELECT string_agg(id::text, ' ' ORDER BY created_at, id) FROM (SELECT * FROM provisioner_jobs
                  WHERE initiator_id = prebuilds() AND id > u(1000) ORDER BY created_at, id LIMIT 10) AS j";
    assert_eq!(rows.one(left).await, rows.one(oldest).await, "the oldest are the next in the queue");
    let people =
        "SELECT count(*) FROM provisioner_jobs WHERE initiator_id = u(1) AND id > u(1000) AND job_status = 'pending'";
    assert_eq!(rows.one(people).await, "10", "jobs of people are not touched");
    rows.run(
        "UPDATE provisioner_jobs SET worker_id = u(7), started_at = now() WHERE id =
         (SELECT id FROM provisioner_jobs WHERE initiator_id = prebuilds() AND job_status = 'pending' ORDER BY id LIMIT 1)",
    )
    .await;
    guard.says("Prebuilds are now resumed: 9 jobs of prebuilds wait, and 10 may").await;
    assert!(!is_paused(&rows).await);
    // What an operator pauses, the guard does not resume, neither while it runs nor at its end.
    assert_eq!(block_in_place(|| run(rows.database.coderdb().args(["prebuilds", "pause"]))).code, 0);
    assert_eq!(guard.ends().await, Some(143));
    assert!(is_paused(&rows).await);
    assert_eq!(block_in_place(|| run(rows.database.coderdb().args(["prebuilds", "resume"]))).code, 0);

    // What it has paused itself, it resumes at its end.
    let mut guard = Guard::start(&rows, &["--max-waiting", "1", "--pause"]);
    guard.says("Guarding org1: at most 1 jobs of prebuilds may wait").await;
    guard.says("Prebuilds are now paused: 9 jobs of prebuilds wait, and 1 may").await;
    assert!(is_paused(&rows).await);
    assert_eq!(guard.ends().await, Some(143));
    guard.says("Prebuilds are now resumed: the guard ends").await;
    assert!(!is_paused(&rows).await);
}

#[tokio::test]
async fn guard_without_an_act_or_an_interval_is_a_mistake() {
    let database = support::database().await;
    let guard = |args: &[&str]| {
        let mut coderdb = database.coderdb();
        coderdb.args(["prebuilds", "guard", "--max-waiting", "1"]).args(args);
        coderdb
    };
    fails(&mut guard(&[]), 2, &["nothing to do: give --pause, --cancel or both, or --dry-run"]);
    fails(&mut guard(&["--pause", "--interval", "0s"]), 2, &["longer than 0"]);
    fails(&mut guard(&["--pause", "--interval", "soon"]), 2, &["expected a duration"]);
}
