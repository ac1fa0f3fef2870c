//! What an operator does at the command line to a queue that is flooded, failures included.

use std::{collections::BTreeMap, process::Stdio};

use assert_cmd::Command;
use coderdb::{
    model::{Capabilities, JobId, ProvisionerType, Tags},
    sqlx::{self, Connection as _},
    store,
};
use serde_json::Value;
use tokio::{io::AsyncBufReadExt as _, task::block_in_place};

use crate::{
    jobs::{NOW, Rows, daemon, id},
    support::{
        self, Outcome, fails,
        proxy::{Cut, Proxy},
        run,
    },
};

/// Jobs 1001 and on wait: three of four for prebuilt workspaces, the others are imports of user 1. Job 1 is a build that
/// runs, 2 a dry run that runs, 3 has failed, 4 is canceled, and 5 is being canceled.
async fn flooded(jobs: u32) -> Rows {
    let mut rows = Rows::new().await;
    rows.run(&format!(
        "UPDATE templates SET allow_user_cancel_workspace_jobs = false;
         SELECT add_job(n) FROM generate_series(2, 5) AS n;
         SELECT add_job(1000 + n) FROM generate_series(1, {jobs}) AS n;
         UPDATE provisioner_jobs SET created_at = at_second(n), initiator_id = prebuilds()
         FROM generate_series(1, {jobs}) AS n WHERE id = u(1000 + n) AND n % 4 <> 0;
         UPDATE provisioner_jobs SET type = 'template_version_import' WHERE id > u(1000) AND initiator_id = u(1);
         UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0) WHERE id <= u(5);
         UPDATE provisioner_jobs SET type = 'template_version_dry_run' WHERE id = u(2);
         UPDATE provisioner_jobs SET completed_at = at_second(1), error = 'no' WHERE id = u(3);
         UPDATE provisioner_jobs SET completed_at = at_second(1), canceled_at = at_second(1) WHERE id = u(4);
         UPDATE provisioner_jobs SET canceled_at = at_second(1) WHERE id = u(5)"
    ))
    .await;
    rows
}

fn coderdb(rows: &Rows) -> Command {
    let mut coderdb = rows.database.coderdb();
    coderdb.env("CODER_ORGANIZATION", "org1");
    coderdb
}

fn cancel(rows: &Rows, args: &[&str]) -> Outcome {
    block_in_place(|| run(coderdb(rows).args(["provisioner", "jobs", "cancel"]).args(args)))
}

/// The outcome of each job in a report.
fn outcomes(report: &str) -> BTreeMap<String, String> {
    let report: Vec<Value> = serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let outcomes: BTreeMap<_, _> = report.iter().map(|job| (text(&job["id"]), text(&job["outcome"]))).collect();
    assert_eq!(outcomes.len(), report.len(), "each job once");
    outcomes
}

fn counts(report: &str) -> BTreeMap<String, usize> {
    outcomes(report).into_values().fold(BTreeMap::new(), |mut counts, outcome| {
        *counts.entry(outcome).or_default() += 1;
        counts
    })
}

async fn statuses(rows: &mut Rows) -> Vec<String> {
    rows.all("SELECT job_status || ' ' || count(*) FROM provisioner_jobs GROUP BY job_status ORDER BY job_status").await
}

// One job --------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_job_is_canceled_in_the_words_of_its_kind_and_refused_in_those_of_its_state() {
    let mut rows = flooded(4).await;
    let job = |n: u128| id(n).to_string();
    for (n, words, end) in [
        (1001, "workspace build", "canceled"),
        (1004, "template version import", "canceled"),
        (1, "workspace build", "cancel requested"),
        (2, "template version dry run", "cancel requested"),
    ] {
        let done = cancel(&rows, &[&job(n)]);
        let said = format!("Canceling {words} job {}...\nJob {end}\n", job(n));
        assert_eq!((done.code, done.stdout, done.stderr), (0, said, String::new()));
    }
    assert_eq!(
        statuses(&mut rows).await,
        ["pending 2", "canceling 3", "canceled 3", "failed 1"],
        "what runs is canceled by its daemon"
    );
    let before = rows.everything().await;
    rows.run("UPDATE provisioner_jobs SET completed_at = at_second(9) WHERE id = u(2)").await;
    for (n, args, refused) in [
        (2, &[][..], "Job has already completed."),
        (3, &[], "Job has already completed!"),
        (4, &[], "Job has already completed!"),
        (5, &[], "Job has already been marked as canceled!"),
        (1002, &["--expect-status", "running"], "Job is not in the expected state."),
        (
            404,
            &[],
            &format!(
                "provisioner job not found: {}\nnext:  it may be another organization's: name that with --org",
                job(404)
            ),
        ),
    ] {
        let done = cancel(&rows, &[&[job(n).as_str()], args].concat());
        assert_eq!((done.code, done.stderr), (1, format!("error: cancel provisioner job: {refused}\n")), "{n}");
    }
    rows.run("UPDATE provisioner_jobs SET completed_at = NULL WHERE id = u(2)").await;
    assert_eq!(rows.everything().await, before);
    assert_eq!(cancel(&rows, &[&job(1002), "--expect-status", "pending"]).stdout.lines().last(), Some("Job canceled"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_cancels_nothing() {
    let mut rows = flooded(8).await;
    let before = rows.everything().await;
    let one = id(1001).to_string();
    for (args, code, parts) in [
        (&["one"][..], 2, &["error: invalid job ID: one"][..]),
        (&[&one, "two"], 2, &["invalid job ID: two"]),
        (&[&one, "--status", "pending"], 2, &["either ids or filters"]),
        (&["--status", "pending", "-q", "status:running"], 2, &["status is asked for twice"]),
        (&["--initiator", "nobody"], 1, &["initiator not found: nobody"]),
        (&["--status", "pending", "--expect-status", "failed"], 2, &["failed", "pending", "running"]),
        (&["--status", "pending", "--org", "atlantis"], 1, &["organization not found: atlantis"]),
    ] {
        let mut command = coderdb(&rows);
        block_in_place(|| fails(command.args(["provisioner", "jobs", "cancel"]).args(args), code, parts));
    }
    for command in ["get", "logs"] {
        let mut command_of_job = coderdb(&rows);
        command_of_job.args(["provisioner", "jobs", command, "one"]);
        block_in_place(|| fails(&mut command_of_job, 2, &["error: invalid job ID: one"]));
    }
    for option in ["--initiator", "--template", "--workspace", "--org", "--search", "--status", "--tag", "--id"] {
        for blank in ["", "  "] {
            for command in [&["cancel", "--status", "pending"][..], &["list"]] {
                let mut command = [&["provisioner", "jobs"], command].concat();
                command.extend([option, blank]);
                block_in_place(|| fails(coderdb(&rows).args(command), 2, &[option]));
            }
        }
    }
    // What cannot be meant is said before a database is asked.
    for command in ["list", "cancel"] {
        let mut nowhere = support::coderdb();
        nowhere.env("DATABASE_URL", "postgres://u@127.0.0.1:1/db");
        nowhere.args(["provisioner", "jobs", command, "--status", "pending", "-q", "status:running"]);
        block_in_place(|| fails(&mut nowhere, 2, &["status is asked for twice"]));
    }
    let mut garbled = coderdb(&rows);
    garbled.args(["provisioner", "jobs", "cancel", "-"]).write_stdin(format!("{one}\nid\n"));
    block_in_place(|| fails(&mut garbled, 2, &["invalid job ID: id"]));
    assert_eq!(rows.everything().await, before);
}

const IGNORED: &str = "-HUP ignored";

/// Runs a cancel while another transaction holds the job, and lets that go once the signal has come.
async fn canceled_under_a_signal(rows: &mut Rows, signal: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut holder = rows.database.connect().await;
    let mut holding = holder.begin().await.expect("a transaction");
    sqlx::raw_sql("SELECT FROM provisioner_jobs WHERE id = u(1001) FOR UPDATE")
        .execute(&mut *holding)
        .await
        .expect("a lock");
    // As `nohup` does.
    let ignored = if signal == IGNORED { "trap '' HUP; " } else { "" };
    let mut canceling = tokio::process::Command::new("sh");
    canceling.args(["-c", &format!("{ignored}exec \"$0\" \"$@\""), support::CODERDB]);
    canceling.env_clear().envs(rows.database.environment()).env("CODER_ORGANIZATION", "org1");
    canceling.args(["provisioner", "jobs", "cancel"]).args(args);
    canceling.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let canceling = canceling.spawn().expect("the program");
    let pid = canceling.id().expect("it runs").to_string();
    let ended = tokio::spawn(canceling.wait_with_output());
    support::settled(&ended, &mut rows.database.connect().await, 1).await;
    assert!(
        std::process::Command::new("kill")
            .args([signal.trim_end_matches(" ignored"), &pid])
            .status()
            .expect("kill")
            .success()
    );
    // It has come when nobody has it pending any more.
    let is_pending = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status.lines().filter_map(|line| line.strip_prefix("ShdPnd:").or(line.strip_prefix("SigPnd:")));
        pending.map(str::trim).any(|mask| mask.contains(|c| c != '0'))
    };
    while is_pending() {
        tokio::task::yield_now().await;
    }
    holding.rollback().await.expect("the lock is gone");
    let ended = ended.await.expect("no panic").expect("an end");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_lets_the_statement_under_way_end_and_its_outcome_is_reported() {
    let mut rows = flooded(4).await;
    let job = id(1001).to_string();
    for (signal, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129), (IGNORED, 0)] {
        for args in [&[job.as_str()][..], &[&job, "-o", "json"], &["--id", &job]] {
            let (ended, stdout, stderr) = canceled_under_a_signal(&mut rows, signal, args).await;
            assert_eq!(ended, Some(code), "{signal} {args:?}: {stderr}");
            assert!(stdout.contains("canceled"), "{signal} {args:?}: {stdout}");
            assert_eq!(rows.one("SELECT job_status FROM provisioner_jobs WHERE id = u(1001)").await, "canceled");
            rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id = u(1001)").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_while_one_job_is_canceled_leaves_an_outcome() {
    let mut rows = flooded(4).await;
    let proxy = Proxy::to(&rows.database);
    let job = id(1001).to_string();
    let mut unknown = 0;
    for cut in (1..).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id = u(1001)").await;
        proxy.cut(cut);
        let mut coderdb = support::coderdb();
        coderdb.env("CODER_ORGANIZATION", "org1").envs(proxy.environment());
        let done = block_in_place(|| run(coderdb.args(["provisioner", "jobs", "cancel", &job])));
        if done.code == 0 {
            assert!(done.stdout.ends_with("Job canceled\n"));
            if !proxy.was_cut() {
                break;
            }
            // Only those who watch were not told.
            continue;
        }
        assert_eq!(done.code, 4, "{cut:?}: {}", done.stderr);
        assert!(done.stderr.contains("error: cancel provisioner job: "), "{cut:?}: {}", done.stderr);
        let is_canceled = rows.one("SELECT job_status FROM provisioner_jobs WHERE id = u(1001)").await == "canceled";
        let is_unknown = done.stderr.starts_with("1 unknown\n");
        assert!(is_unknown || !is_canceled, "{cut:?}: {}", done.stderr);
        assert_eq!(is_unknown, done.stdout.starts_with("Canceling "), "{cut:?}: {}", done.stderr);
        unknown += usize::from(is_unknown);
    }
    assert!(unknown >= 2, "{unknown}");
    let mut nowhere = support::coderdb();
    nowhere.env("DATABASE_URL", "postgres://u@127.0.0.1:1/db").args(["provisioner", "jobs", "cancel", &job]);
    block_in_place(|| fails(&mut nowhere, 4, &["error: cancel provisioner job: cannot reach"]));
    let elsewhere = cancel(&rows, &[&job, "--org", "atlantis"]);
    assert!(
        elsewhere.stderr.starts_with("error: cancel provisioner job: organization not found"),
        "{}",
        elsewhere.stderr
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_job_has_one_exit_code_in_whatever_form_it_is_named() {
    let rows = flooded(4).await;
    // Failed, canceled, being canceled, not there; then one that can be canceled.
    for (n, code) in [(3, 1), (4, 1), (5, 1), (404, 1), (1001, 0)] {
        let job = id(n).to_string();
        let piped = |args: &[&str]| {
            let mut command = coderdb(&rows);
            command.args(["provisioner", "jobs", "cancel"]).args(args).write_stdin(job.clone());
            block_in_place(|| run(&mut command)).code
        };
        assert_eq!(cancel(&rows, &[&job, "--dry-run"]).code, code, "{n}");
        assert_eq!(piped(&["--dry-run"]), code, "{n}");
        if code == 1 {
            assert_eq!(cancel(&rows, &[&job]).code, code, "{n}");
            assert_eq!(cancel(&rows, &[&job, "-o", "json"]).code, code, "{n}");
        }
        assert_eq!(piped(&[]), code, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_may_not_write_ends_with_14_and_no_advice_to_try_again() {
    let mut rows = flooded(8).await;
    let before = rows.everything().await;
    let url = support::server().url(rows.database.name());
    for (options, args) in [
        ("-c default_transaction_read_only=on", &["cancel", "--status", "pending"][..]),
        ("-c default_transaction_read_only=on", &["cancel", &id(1001).to_string()]),
        ("-c role=pg_monitor", &["cancel", "--status", "pending"]),
        ("-c role=pg_monitor", &["list"]),
    ] {
        let mut command = support::coderdb();
        command.env("DATABASE_URL", &url).env("PGOPTIONS", options).env("CODER_ORGANIZATION", "org1");
        let done = block_in_place(|| run(command.args(["provisioner", "jobs"]).args(args)));
        assert_eq!(done.code, 14, "{options} {args:?}: {}", done.stderr);
        assert!(done.stderr.contains("next:  connect to the primary"), "{}", done.stderr);
        assert!(!done.stderr.contains("same command"), "{}", done.stderr);
    }
    assert_eq!(rows.everything().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_canceled_is_counted_also_when_nothing_can_be_printed() {
    let rows = flooded(8).await;
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full disk");
    let mut command = std::process::Command::new(support::CODERDB);
    command.env_clear().envs(rows.database.environment()).env("CODER_ORGANIZATION", "org1").stdout(full);
    command.args(["provisioner", "jobs", "cancel", "--initiator", "prebuilds"]);
    let done = block_in_place(|| command.output()).expect("the program");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(stderr.starts_with("6 canceled\nerror: "), "{stderr}");
    assert_eq!(done.status.code(), Some(1));
}

// Many jobs ------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_a_run_then_does_and_changes_nothing() {
    let mut rows = flooded(1_100).await;
    let before = rows.everything().await;
    let filters: [&[&str]; 8] = [
        &["--initiator", "prebuilds", "--status", "pending"],
        &["--status", "pending,running,failed,canceled,canceling"],
        &["--status", "pending,running", "--expect-status", "running"],
        &["--tag", "scope=organization", "--expect-status", "pending"],
        &["--initiator", "user1"],
        &["--initiator", "prebuilds", "--status", "pending,pending", "--status", "pending"],
        &["-q", "initiator:prebuilds -status:running"],
        &["-q", "-status:pending"],
    ];
    for filter in filters {
        let json = ["-o", "json"];
        let dry = cancel(&rows, &[filter, &["--dry-run"], &json].concat());
        assert_eq!(rows.everything().await, before, "{filter:?}");
        let done = cancel(&rows, &[filter, &json].concat());
        assert_eq!((dry.code, done.code), (0, 0), "{}{}", dry.stderr, done.stderr);
        let would = |(id, outcome): (String, String)| {
            let is_canceled = ["canceled", "canceling"].contains(&outcome.as_str());
            (id, if is_canceled { "would_be_canceled".to_owned() } else { outcome })
        };
        let done: BTreeMap<_, _> = outcomes(&done.stdout).into_iter().map(would).collect();
        assert!(done.len() > 1, "{filter:?}");
        assert_eq!(outcomes(&dry.stdout), done, "{filter:?}");
        // As it was.
        rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id < u(3) OR id > u(5)")
            .await;
        assert_eq!(rows.everything().await, before, "{filter:?}");
    }
    let table = cancel(&rows, &["--initiator", "prebuilds", "--status", "pending", "--dry-run"]);
    assert_eq!(table.stderr, "825 would be canceled\n");
    assert_eq!(table.stdout.lines().count(), 826);
    let first = table.stdout.lines().nth(1).expect("a job");
    assert_eq!(first, format!("{}  workspace_build  pending  would be canceled", id(2099)), "newest first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_come_as_arguments_or_on_standard_input_and_each_has_an_outcome() {
    let mut rows = flooded(12).await;
    let job = |n: u128| id(n).to_string();
    let json = ["-o", "json"];
    let all = [1001, 1, 3, 4, 5, 404].map(job);
    let mut args: Vec<_> = all.iter().map(String::as_str).collect();
    args.extend(json);
    let done = cancel(&rows, &args);
    let expected = ["canceled", "canceling", "already_finished", "already_canceled", "already_canceled", "not_found"];
    assert_eq!(outcomes(&done.stdout), all.iter().cloned().zip(expected.map(str::to_owned)).collect());
    let summary = "1 canceled, 1 canceling, 2 already canceled, 1 already finished, 1 not found\n";
    assert_eq!((done.code, done.stderr.as_str()), (1, summary));
    for (args, input, code, expected) in [
        (&["-"][..], format!("{}\n\n {}\t{}", job(1002), job(1003), job(1002)), 0, "2 canceled\n"),
        (&[], format!("{}\n{}\n", job(1003), job(1004)), 0, "1 canceled, 1 already canceled\n"),
        (
            &["--expect-status", "running"],
            format!("{}\n{}\n", job(2), job(1005)),
            1,
            "1 canceling, 1 not in the expected state\n",
        ),
        (&[], String::new(), 0, "No provisioner jobs to cancel\n"),
        // Filters and arguments need no input, whatever is there.
        (&["--id", &job(1006)], job(1007), 0, "1 canceled\n"),
        (&[&job(1008)], job(1009), 0, ""),
    ] {
        let mut command = coderdb(&rows);
        let done =
            block_in_place(|| run(command.args(["provisioner", "jobs", "cancel"]).args(args).write_stdin(input)));
        assert_eq!((done.code, done.stderr.as_str()), (code, expected), "{args:?}");
    }
    assert_eq!(statuses(&mut rows).await, ["pending 6", "canceling 3", "canceled 7", "failed 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recipe_that_cancels_one_id_after_the_other_works_and_so_does_a_pipe() {
    let recipe = "ids() {
        coderdb provisioner jobs list --initiator=prebuilds --status=pending -o json |
            sed -n 's/^    \"id\": \"\\(.*\\)\",$/\\1/p'
    }
    set -e
    coderdb prebuilds pause
    ids | head -n 4 | while read -r id; do coderdb provisioner jobs cancel \"$id\"; done
    ids | xargs -n 1 coderdb provisioner jobs cancel
    ids | xargs coderdb provisioner jobs cancel
    ids | coderdb provisioner jobs cancel
    coderdb prebuilds resume";
    let mut rows = flooded(12).await;
    let program = std::path::Path::new(support::CODERDB).parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").expect("a path");
    let mut shell = std::process::Command::new("sh");
    shell.env_clear().env("PATH", format!("{program}:{path}")).envs(rows.database.environment());
    let done =
        block_in_place(|| shell.env("CODER_ORGANIZATION", "org1").args(["-c", recipe]).output()).expect("a shell");
    let stderr = String::from_utf8_lossy(&done.stderr);
    let nothing = "No provisioner jobs to cancel\n".repeat(2);
    assert_eq!(stderr, format!("Prebuilds are now paused.\n{nothing}Prebuilds are now resumed.\n"));
    assert_eq!(done.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&done.stdout).matches("Job canceled\n").count(), 9);
    assert_eq!(statuses(&mut rows).await, ["pending 3", "running 2", "canceling 1", "canceled 10", "failed 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_a_daemon_takes_in_the_moment_of_its_cancel_runs_on_unless_running_ones_are_meant() {
    let cases: [(&[&str], &str, &str); 3] = [
        (&["--initiator", "prebuilds", "--status", "pending"], "not_in_expected_state", "running"),
        (&["-q", "initiator:prebuilds -status:running"], "not_in_expected_state", "running"),
        (&["--initiator", "prebuilds", "--status", "pending,running"], "canceling", "canceling"),
    ];
    for (filter, outcome, status) in cases {
        let mut rows = flooded(1_100).await;
        let mut daemon = rows.database.connect().await;
        let mut taking = daemon.begin().await.expect("a transaction");
        let take = "UPDATE provisioner_jobs SET started_at = now(), worker_id = u(7) WHERE id = u(1502)";
        sqlx::raw_sql(take).execute(&mut *taking).await.expect("a pending job");
        let mut command = coderdb(&rows);
        command.args(["provisioner", "jobs", "cancel", "-o", "json"]).args(filter);
        let canceling = tokio::task::spawn_blocking(move || run(&mut command));
        support::settled(&canceling, &mut rows.conn, 1).await;
        assert!(!canceling.is_finished(), "it waits for the lock of the job that it has chosen");
        taking.commit().await.expect("taken");
        let done = canceling.await.expect("no panic");
        assert_eq!(done.code, 0, "{filter:?}: {}", done.stderr);
        assert!(done.stderr.contains("824 canceled"), "{filter:?}: {}", done.stderr);
        let outcomes = outcomes(&done.stdout);
        assert_eq!(outcomes[&id(1502).to_string()], outcome, "{filter:?}");
        let left = outcomes.values().filter(|outcome| *outcome == "not_in_expected_state").count();
        assert_eq!(left, usize::from(status == "running"), "{filter:?}");
        assert_eq!(rows.one("SELECT job_status FROM provisioner_jobs WHERE id = u(1502)").await, status, "{filter:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_take_jobs_while_many_are_canceled_and_keep_what_they_have_taken() {
    let mut rows = flooded(3_000).await;
    rows.run("UPDATE provisioner_jobs SET worker_id = u(8), started_at = at_second(0) WHERE id > u(3990)").await;
    let mut taking = rows.database.connect().await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let takers = tokio::spawn(async move {
        let tags = Tags::from_iter([("scope", "organization")]);
        let offer = Capabilities { provisioners: ProvisionerType::ALL, tags: &tags };
        let mut taken = Vec::<JobId>::new();
        while stopped.try_recv().is_err() {
            let jobs = store::jobs::acquire_batch(&mut taking, &daemon(1, 7), offer, NOW, 2).await.expect("an answer");
            taken.extend(jobs.iter().map(|job| job.id));
        }
        taken
    });
    let done = cancel(&rows, &["--initiator", "prebuilds", "--status", "pending", "-o", "json"]);
    stop.send(()).expect("it takes on");
    let taken = takers.await.expect("no panic");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let outcomes = outcomes(&done.stdout);
    for job in &taken {
        let outcome = outcomes.get(&job.to_string()).map(String::as_str);
        // Taken before the jobs were chosen, an import, or taken between that and its batch.
        assert!(matches!(outcome, None | Some("not_in_expected_state")), "{job} runs, and is {outcome:?}");
    }
    assert!(!taken.is_empty() && taken.len() < 3_000);
    assert_eq!(rows.one("SELECT count(*) FROM provisioner_jobs WHERE job_status = 'canceling'").await, "1");
    let left = "SELECT count(*) FROM provisioner_jobs WHERE job_status = 'pending' AND initiator_id = prebuilds()";
    assert_eq!(rows.one(left).await, "0");
    let canceled = rows.all("SELECT id FROM provisioner_jobs WHERE job_status = 'canceled' AND id > u(1000)").await;
    assert_eq!(counts(&done.stdout).get("canceled"), Some(&canceled.len()));
}

/// Cuts the connection of a mass cancel at each round trip, before and after the server has done it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_is_reported_with_what_is_done_and_a_re_run_finishes_the_rest() {
    const JOBS: u32 = 1_600;
    let mut rows = flooded(JOBS).await;
    let proxy = Proxy::to(&rows.database);
    let pending = "SELECT id FROM provisioner_jobs WHERE job_status = 'pending' AND initiator_id = prebuilds()";
    let flood = rows.all(pending).await;
    let args = ["provisioner", "jobs", "cancel", "--initiator", "prebuilds", "--status", "pending", "-o", "json"];
    let over_the_proxy = || {
        let mut coderdb = support::coderdb();
        coderdb.env("CODER_ORGANIZATION", "org1").envs(proxy.environment()).args(args);
        block_in_place(|| run(&mut coderdb))
    };
    let (mut half_way, mut unknown_but_done) = (0, 0);
    for cut in (1..).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
        rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id > u(1000)").await;
        proxy.cut(cut);
        let first = over_the_proxy();
        let was_cut = proxy.was_cut();
        let left: Vec<_> = rows.all(pending).await;
        if !was_cut {
            assert_eq!((first.code, left.len()), (0, 0), "{}", first.stderr);
            break;
        }
        if first.stdout.is_empty() {
            // Nothing was chosen yet.
            assert_eq!((first.code, left.len()), (4, flood.len()), "{cut:?}: {}", first.stderr);
            continue;
        }
        let outcomes = outcomes(&first.stdout);
        assert_eq!(outcomes.len(), flood.len(), "{cut:?}");
        let mut by_outcome: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        for (id, outcome) in &outcomes {
            by_outcome.entry(outcome).or_default().push(left.contains(id));
        }
        for (outcome, is_left) in &by_outcome {
            match *outcome {
                "canceled" => assert!(!is_left.contains(&true), "{cut:?}: canceled, and still there"),
                "not_tried" => assert!(!is_left.contains(&false), "{cut:?}: not tried, and canceled"),
                "unknown" => unknown_but_done += usize::from(!is_left.contains(&true)),
                other => panic!("{cut:?}: {other}"),
            }
        }
        let is_complete = by_outcome.keys().eq(&["canceled"]);
        assert_eq!(first.code, if is_complete { 0 } else { 4 }, "{cut:?}: {}", first.stderr);
        assert!(is_complete || first.stderr.contains("run the same command again"), "{}", first.stderr);
        half_way += usize::from(by_outcome.contains_key("canceled") && !is_complete);
        proxy.cut(Cut::BeforeItIsSent(usize::MAX));
        let second = over_the_proxy();
        assert_eq!(second.code, 0, "{cut:?}: {}", second.stderr);
        assert_eq!(outcomes_or_none(&second.stdout), left.len(), "{cut:?}");
        assert_eq!(rows.all(pending).await.len(), 0, "{cut:?}");
    }
    assert!(half_way >= 4 && unknown_but_done >= 3, "half way {half_way}, unknown {unknown_but_done}");
}

fn outcomes_or_none(report: &str) -> usize {
    outcomes(report).len()
}

// Logs -----------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_printed_and_followed_until_the_job_ends() {
    let mut rows = flooded(0).await;
    let line = |job: u32, n: u32| {
        format!(
            "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
             VALUES (u({job}), at_second({n}), 'provisioner', 'info', 'Planning', E'line {n}\\u001b[2J')"
        )
    };
    rows.run(&line(1, 1)).await;
    let logs = ["provisioner", "jobs", "logs", &id(1).to_string()].map(str::to_owned);
    let printed = block_in_place(|| run(coderdb(&rows).args(&logs)));
    let first = "2026-05-07T12:00:01Z  info   Planning  line 1 [2J\n";
    assert_eq!((printed.code, printed.stdout.as_str(), printed.stderr.as_str()), (0, first, ""));
    let json = block_in_place(|| run(coderdb(&rows).args(&logs).args(["-o", "jsonl"]))).stdout;
    let array = block_in_place(|| run(coderdb(&rows).args(&logs).args(["-o", "json"]))).stdout;
    let json: Value = serde_json::from_str(&json).expect("one line of JSON");
    assert_eq!(serde_json::from_str::<Value>(&array).expect("an array"), Value::from_iter([json.clone()]));
    let none = block_in_place(|| run(coderdb(&rows).args(&logs).args(["-o", "json", "--after", "99"])));
    assert_eq!((none.code, none.stdout.as_str()), (0, "[]\n"));
    assert_eq!(json.as_object().expect("an object").len(), 6);
    assert_eq!((&json["log_source"], &json["log_level"]), (&"provisioner".into(), &"info".into()));
    let mut missing = coderdb(&rows);
    missing.args(["provisioner", "jobs", "logs", &id(404).to_string()]);
    block_in_place(|| fails(&mut missing, 1, &["provisioner job not found", "name that with --org"]));

    for (end, code, said) in [
        ("error = NULL", 0, "Job succeeded\n"),
        (
            "error = 'insufficient quota', error_code = 'INSUFFICIENT_QUOTA'",
            1,
            "Job failed: insufficient quota (INSUFFICIENT_QUOTA)\n",
        ),
        ("canceled_at = at_second(3)", 1, "Job canceled\n"),
    ] {
        rows.run("DELETE FROM provisioner_job_logs; UPDATE provisioner_jobs SET completed_at = NULL, error = NULL, error_code = NULL, canceled_at = NULL WHERE id = u(1)").await;
        rows.run(&line(1, 1)).await;
        let mut following = tokio::process::Command::new(support::CODERDB);
        following.env_clear().envs(rows.database.environment()).env("CODER_ORGANIZATION", "org1").args(&logs);
        following.arg("--follow").stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut following = following.spawn().expect("the program");
        let mut lines = tokio::io::BufReader::new(following.stdout.take().expect("a pipe")).lines();
        assert!(lines.next_line().await.expect("a line").is_some_and(|line| line.contains("line 1")));
        rows.run(&line(1, 2)).await;
        assert!(lines.next_line().await.expect("a line").is_some_and(|line| line.contains("line 2")));
        rows.run(&format!(
            "{}; UPDATE provisioner_jobs SET completed_at = at_second(4), {end} WHERE id = u(1)",
            line(1, 3)
        ))
        .await;
        assert!(lines.next_line().await.expect("a line").is_some_and(|line| line.contains("line 3")));
        assert_eq!(lines.next_line().await.expect("the end"), None);
        let ended = following.wait_with_output().await.expect("an end");
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&ended.stderr), said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_followed_no_longer_than_somebody_reads_them() {
    let mut rows = flooded(0).await;
    rows.run(
        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         VALUES (u(1), at_second(1), 'provisioner', 'info', 'Planning', 'line')",
    )
    .await;
    let mut following = tokio::process::Command::new(support::CODERDB);
    following.env_clear().envs(rows.database.environment()).env("CODER_ORGANIZATION", "org1");
    following.args(["provisioner", "jobs", "logs", &id(1).to_string(), "--follow"]);
    let mut following = following.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program");
    let mut lines = tokio::io::BufReader::new(following.stdout.take().expect("a pipe")).lines();
    assert!(lines.next_line().await.expect("a line").is_some());
    // As `head -1` does, while the job runs on and logs nothing.
    drop(lines);
    let ended = tokio::time::timeout(std::time::Duration::from_mins(1), following.wait()).await;
    assert_eq!(ended.expect("an end").expect("a status").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_text_has_no_line_of_its_own_on_standard_error() {
    let mut rows = flooded(30).await;
    rows.run(
        "DELETE FROM provisioner_daemons;
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(99), at_second(0), u(1), 'another', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, organization_id, key_id)
         VALUES (u(99), at_second(0), 'another', '{echo}', '{}', u(1), u(99))",
    )
    .await;
    let tags =
        |value: &str| format!("UPDATE provisioner_jobs SET tags = jsonb_build_object('t', {value}) WHERE id > u(1000)");
    let list = |rows: &Rows| {
        let mut command = coderdb(rows);
        block_in_place(|| run(command.args(["provisioner", "jobs", "list", "-q", "status:pending"]))).stderr
    };
    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         VALUES (u(7), at_second(0), 'daemon', '{echo}', '{\"a\": \"b\"}', now(), u(1), u(1))",
    )
    .await;
    rows.run(&tags("E'x\\nnext:  rm -rf /' || repeat('y', 100000)")).await;
    let told = list(&rows);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("30 jobs wait: no daemon has t=x next:") && told.len() < 500, "{}", told.len());
    rows.run(&tags("id::text")).await;
    let told = list(&rows);
    assert_eq!(told.lines().count(), 21, "{told}");
    assert!(told.ends_with("\nand 10 more, for 10 other reasons\n"), "{told}");

    rows.run(
        "UPDATE provisioner_jobs SET completed_at = at_second(4), error = E'no\\nnext:  rm -rf /' WHERE id = u(1)",
    )
    .await;
    let mut logs = coderdb(&rows);
    logs.args(["provisioner", "jobs", "logs", &id(1).to_string(), "--follow"]);
    assert_eq!(block_in_place(|| run(&mut logs)).stderr, "Job failed: no next:  rm -rf /\n");
}

// Prebuilds ------------------------------------------------------------------------------------------------------------

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
    assert_eq!(json, "{\n  \"reconciliation_paused\": true\n}\n");
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
