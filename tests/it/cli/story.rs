//! The story of an operator with a flooded queue, from the first mistake to the last command; docs/story.svg shows it.

use std::{fmt::Write as _, process::Stdio};

use coderdb::{
    authz::{Actor, RunJobs, System},
    model::{ByWorker, Capabilities, DaemonId, End, JobId, OrganizationId, ProvisionerType, Tags},
    sqlx::{self, Connection as _, PgConnection},
    store,
};
use time::OffsetDateTime;
use tokio::{io::AsyncBufReadExt as _, task::block_in_place};
use uuid::Uuid;

use crate::support::{
    self, Database, Outcome,
    golden::is_current,
    proxy::{Cut, Proxy},
    run,
    terminal::Terminal,
};

/// What was typed, and what was said.
struct Story {
    database: Database,
    proxy: Proxy,
    shown: String,
}

impl Story {
    /// Runs a command; of an answer of many lines, the picture has the first ones.
    fn tell(&mut self, line: &str) -> Outcome {
        let told = self.run(line);
        self.show(line, &told);
        told
    }

    fn run(&self, line: &str) -> Outcome {
        let mut coderdb = support::coderdb();
        coderdb.envs(self.proxy.environment()).args(line.split(' '));
        block_in_place(|| run(&mut coderdb))
    }

    fn show(&mut self, line: &str, told: &Outcome) {
        const LINES: usize = 4;
        let mut shown = format!("$ coderdb {line}\n");
        let lines = told.stdout.lines().count();
        shown.extend(told.stdout.lines().take(LINES).flat_map(|line| [line, "\n"]));
        if lines > LINES {
            let _ = writeln!(shown, "… {} more lines", lines - LINES);
        }
        // What the driver says of a connection that is lost is not always the same.
        shown.extend(
            told.stderr.lines().flat_map(|line| [line.split(": error communicating").next().unwrap_or(line), "\n"]),
        );
        self.shown += &(shown + "\n");
    }

    /// Runs a command that cancels jobs on a terminal, says yes to its question, and shows how far it is when its second
    /// batch waits for the lock on the last of the jobs.
    async fn tell_on_a_terminal(&mut self, line: &str) -> String {
        let ids = self.run(&format!("{} -o name --limit 0", line.replace(" cancel ", " list ")));
        let last = ids.stdout.lines().last().expect("a job").to_owned();
        let mut holder = self.database.connect().await;
        let mut transaction = holder.begin().await.expect("a transaction");
        let lock = format!("SELECT FROM provisioner_jobs WHERE id = '{last}' FOR UPDATE");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *transaction).await.expect("a lock");
        let terminal = Terminal::with_shell(&["sh"], self.proxy.environment(), (100, 40));
        terminal.press(&[&format!("clear; coderdb {line} > /dev/null"), "Enter"]);
        terminal.shows(|screen| screen.contains("? [y/N]")).await;
        terminal.press(&["y", "Enter"]);
        let screen = terminal.shows(|screen| screen.contains("canceling jobs")).await;
        transaction.rollback().await.expect("an end");
        let ended = terminal.shows(|screen| screen.contains(" canceled\n")).await;
        let ended = ended.lines().find(|line| line.ends_with(" canceled")).expect("a report").to_owned();
        let _ = writeln!(self.shown, "$ coderdb {line}");
        for line in screen.lines().filter(|line| line.contains("? [y/N]") || line.contains("canceling jobs")) {
            let _ = writeln!(self.shown, "{}", line.trim_end());
        }
        let _ = writeln!(self.shown, "{ended}\n");
        ended
    }

    fn note(&mut self, text: &str) {
        let _ = writeln!(self.shown, "# {text}");
    }

    async fn count(&self, which: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM provisioner_jobs WHERE {which}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut self.database.connect().await)
            .await
            .expect("a count")
    }
}

/// What the README says, line by line.
const PAUSE: &str = "prebuilds pause";

const DRY_RUN: &str = "provisioner jobs cancel --initiator prebuilds --status pending --dry-run";
const CANCEL: &str = "provisioner jobs cancel --initiator prebuilds --status pending";
const RESUME: &str = "prebuilds resume";
const FLOOD: &str = "job_status = 'pending' AND initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'";

/// The push of the fixed template, and a prebuild that waits already when it comes.
const IMPORT: Uuid = Uuid::from_u128(0xc0de_0000_0009_4000_8000_0000_0000_9002);

const LEFT: Uuid = Uuid::from_u128(0xc0de_0000_0009_4000_8000_0000_0000_9001);

async fn copy(conn: &mut PgConnection, of: &str, to: Uuid) {
    let sql = format!(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags
         ) SELECT '{to}', now(), now(), organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags
         FROM provisioner_jobs WHERE {of} ORDER BY id LIMIT 1"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect("a job");
}

/// The fixed template is imported before the prebuild that was there first.
async fn the_fix_comes_first(story: &mut Story, conn: &mut PgConnection, organization: OrganizationId) {
    copy(&mut *conn, "initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND tags->>'env' = 'on-prem'", LEFT).await;
    sqlx::raw_sql("UPDATE provisioner_jobs SET completed_at = now(), error = 'x' WHERE job_status = 'pending' AND initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0'")
        .execute(&mut *conn)
        .await
        .expect("the others are done");
    copy(&mut *conn, "type = 'template_version_import' AND tags->>'env' = 'on-prem'", IMPORT).await;
    let runs = RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(Uuid::from_u128(1)))
        .expect("a daemon");
    let tags = Tags::from_iter([("scope", "organization"), ("owner", ""), ("env", "on-prem")]);
    let able = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
    let now = OffsetDateTime::now_utc();
    let taken = store::jobs::acquire(&mut *conn, &runs, able, now).await.expect("an answer").expect("a job");
    assert_eq!(taken.id, JobId(IMPORT), "people come first");
    let logs = format!("provisioner jobs logs {IMPORT} --follow");
    let mut following = tokio::process::Command::new(support::CODERDB);
    following.env_clear().envs(story.proxy.environment()).args(logs.split(' ')).kill_on_drop(true);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let mut lines = tokio::io::BufReader::new(following.stdout.take().expect("a pipe")).lines();
    let log = "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
               VALUES ($1, '2026-05-07 09:12:00Z', 'provisioner', 'info', 'Planning Infrastructure', 'Plan: 1 to add')";
    sqlx::query(log).bind(IMPORT).execute(&mut *conn).await.expect("a line");
    let line = lines.next_line().await.expect("a line").expect("one");
    let ended = store::jobs::complete(&mut *conn, &runs, taken.id, now, None).await.expect("an answer");
    assert!(matches!(ended, ByWorker::Done(End::Ended(_))));
    assert_eq!(lines.next_line().await.expect("the end"), None);
    let ended = following.wait_with_output().await.expect("an end");
    let told = Outcome {
        code: ended.status.code().expect("no signal"),
        stdout: line + "\n",
        stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
    };
    assert_eq!((told.code, told.stderr.as_str()), (0, "Job succeeded\n"));
    story.note("a fixed template is pushed");
    story.show(&logs, &told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_prebuilds_is_cleared_by_the_commands_of_the_readme() {
    let lines = [PAUSE, DRY_RUN, CANCEL, RESUME].map(|line| format!("$ coderdb {line}\n")).concat();
    assert!(include_str!("../../../README.md").contains(&format!("```console\n{lines}```\n")), "{lines}");
    let database = support::database().await;
    assert_eq!(block_in_place(|| run(database.coderdb().arg("demo"))).code, 0);
    let proxy = Proxy::to(&database);
    let mut conn = database.connect().await;
    let mut story = Story { database, proxy, shown: String::new() };
    // A template that fails, and a reconciler that tries again and again.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO provisioner_jobs (
            id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags
         ) SELECT ('c0de0000-0009-4000-8000-' || lpad(n::text, 12, '0'))::uuid, created_at + n * interval '1 millisecond',
             updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type, input, tags
         FROM generate_series(100001, 101488) AS n, (SELECT * FROM provisioner_jobs WHERE {FLOOD} ORDER BY id LIMIT 1) AS j"
    )))
    .execute(&mut conn)
    .await
    .expect("a flood");
    let flood = story.count(FLOOD).await;
    assert!(flood > 1_488);
    let others = "initiator_id <> 'c42fdf75-3097-471c-8c33-fb52454d81c0' AND job_status = 'pending'";
    let people = story.count(others).await;
    let organization: Uuid =
        sqlx::query_scalar("SELECT id FROM organizations WHERE is_default").fetch_one(&mut conn).await.expect("one");

    let mistake = story.tell("provisioner jobs list --org codr --initiator prebuilds --status pending");
    assert_eq!(
        (mistake.code, mistake.stderr.as_str()),
        (1, "error: organization not found: codr\nnext:  check --org and CODER_ORGANIZATION\n")
    );
    assert_eq!(story.tell(PAUSE).stderr, "Prebuilds are now paused.\n");
    let dry = story.tell(DRY_RUN);
    assert_eq!((dry.code, dry.stderr), (0, format!("{flood} would be canceled\n")));
    assert_eq!(story.count(FLOOD).await, flood);

    // The network fails when the second batch is on its way.
    let mut lost = None;
    for n in 1.. {
        story.proxy.cut(Cut::BeforeItIsSent(n));
        let told = story.run(CANCEL);
        assert_eq!(told.code, 4, "{}", told.stderr);
        if told.stderr.contains("500 canceled") {
            lost = Some(told);
            break;
        }
    }
    let lost = lost.expect("the first batch went through");
    story.note("the network fails");
    story.show(CANCEL, &lost);
    assert!(
        lost.stderr.starts_with(&format!("500 canceled, 500 unknown, {} not tried\nerror: ", flood - 1_000)),
        "{}",
        lost.stderr
    );
    assert!(
        lost.stderr.ends_with("next:  run the same command again: it goes on with what is left\n"),
        "{}",
        lost.stderr
    );
    assert_eq!(story.count(FLOOD).await, flood - 500);
    story.proxy.cut(Cut::BeforeItIsSent(usize::MAX));
    let rest = story.tell_on_a_terminal(CANCEL).await;
    assert_eq!(rest, format!("{} canceled", flood - 500));
    assert_eq!((story.count(FLOOD).await, story.count(others).await), (0, people), "and nobody else's");

    the_fix_comes_first(&mut story, &mut conn, OrganizationId(organization)).await;
    assert_eq!(story.tell(RESUME).stderr, "Prebuilds are now resumed.\n");
    assert!(story.run("prebuilds status").stdout.starts_with("Prebuilds are not paused.\n"));
    if !support::is_pooled() {
        let picture = anstyle_svg::Term::new().render_svg(story.shown.trim_end());
        // Where the server is, is another place each time.
        let socket = story.proxy.options().get_socket().expect("a socket").display().to_string();
        is_current("docs/story.svg", &(picture.replace(&socket, "/run/postgresql") + "\n"), str::to_owned);
    }
}
