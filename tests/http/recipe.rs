//! The recipe of docs/http.md, as it is written there, with curl and jq.

use std::{fs, path::Path, process::Command};

use crate::client::Site;

/// The blocks of shell in the document.
fn blocks() -> Vec<String> {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/http.md")).expect("docs/http.md");
    document.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipe_clears_the_queue_and_says_who_is_over_quota() {
    let mut site = Site::demo().await;
    let (address, alice) = (site.serve().await, site.user("alice").await);
    let script = format!("set -euo pipefail\n{}", blocks().concat());
    let run = tokio::task::spawn_blocking(move || {
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("URL", format!("http://{address}")).env("TOKEN", &alice.token);
        bash.env_remove("http_proxy").env("no_proxy", "*").output().expect("bash starts")
    });
    let output = run.await.expect("no panic");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    for part in [
        "{\"reconciliation_paused\":true}",
        "\"would_be_canceled\": 12",
        "\"canceled\": 12",
        "{\"reconciliation_paused\":false}",
        // Erin asked for more than her budget.
        "{\"user\":\"c0de0000-0002-4000-8000-000000000005\",\"credits_consumed\":60,\"budget\":80}",
    ] {
        assert!(stdout.contains(part), "{part} is not in:\n{stdout}");
    }
    let waiting = "SELECT count(*) FROM provisioner_jobs WHERE job_status::text = 'pending'";
    assert_eq!(site.value::<i64>(waiting).await, 3);
}
