//! Pausing prebuilds.

use crate::support::{self, fails, run};

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
