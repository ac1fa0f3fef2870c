//! Canceling many jobs.

use std::collections::BTreeMap;

use coderdb::{
    model::{Capabilities, JobId, ProvisionerType, Tags},
    sqlx::{self, Connection as _},
    store,
};
use serde_json::Value;
use tokio::task::block_in_place;

use super::{cancel, coderdb, flooded, statuses};
use crate::support::{
    self,
    proxy::{Cut, Proxy},
    rows::{NOW, daemon, id},
    run,
};

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
