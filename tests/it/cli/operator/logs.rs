//! Logs, printed and followed.

use std::process::Stdio;

use serde_json::Value;
use tokio::{io::AsyncBufReadExt as _, task::block_in_place};

use super::{coderdb, flooded};
use crate::support::{
    self, fails,
    rows::{Rows, id},
    run,
};

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
