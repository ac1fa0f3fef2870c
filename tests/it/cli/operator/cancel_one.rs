//! Canceling one job.

use std::process::Stdio;

use coderdb::sqlx::{self, Connection as _};
use tokio::task::block_in_place;

use super::{cancel, coderdb, flooded, statuses};
use crate::support::{
    self, fails,
    proxy::{Cut, Proxy},
    rows::{Rows, id},
    run,
};

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
