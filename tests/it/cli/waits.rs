//! The commands that say why jobs wait, who has the queue, and how many daemons it takes.

use fastrand::Rng;
use serde_json::Value;

use crate::support::{
    Outcome, fails,
    history::{World, time},
    rows::{Rows, id},
    run,
};

/// `golden/rows.sql` and a history of the simulator at a moment at which more than so many jobs wait. The commands ask for
/// now, so that all of it is moved there.
async fn at_a_busy_moment(waiting: usize) -> Rows {
    let mut rows = Rows::new().await;
    let rng = &mut Rng::with_seed(1);
    let world = World::new(rng, 900, true);
    let count = |moment: i64| {
        world.jobs.iter().filter(|job| job.created < moment && job.started.is_some_and(|at| at > moment)).count()
    };
    let moment = world.jobs.iter().map(|job| job.created).find(|moment| count(*moment) > waiting).expect("one");
    world.at(moment).store(&mut rows.conn, moment).await;
    let shift = format!("now() - timestamptz '{}'", time(moment));
    rows.run(&format!(
        "UPDATE provisioner_jobs
         SET created_at = created_at + ({shift}), started_at = started_at + ({shift}),
            completed_at = completed_at + ({shift});
         UPDATE provisioner_daemons SET last_seen_at = now() + interval '1 hour'"
    ))
    .await;
    rows
}

fn jobs(rows: &Rows, args: &[&str]) -> Outcome {
    run(rows.database.coderdb().env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs"]).args(args))
}

fn json(rows: &Rows, args: &[&str]) -> Value {
    let done = jobs(rows, &[args, &["-o", "json"]].concat());
    assert_eq!(done.code, 0, "{}", done.stderr);
    serde_json::from_str(&done.stdout).expect("JSON")
}

/// The value behind a heading.
fn fact<'a>(shown: &'a str, heading: &str) -> Option<&'a str> {
    shown.lines().find_map(|line| line.strip_prefix(heading).filter(|rest| rest.starts_with("  "))).map(str::trim)
}

#[tokio::test]
async fn explain_says_why_a_job_waits_what_to_do_and_for_how_long() {
    let mut rows = at_a_busy_moment(30).await;
    let last = "SELECT id FROM provisioner_jobs WHERE started_at IS NULL ORDER BY initiator_id = prebuilds() DESC, \
                created_at DESC, id DESC LIMIT 1";
    let last = rows.one(last).await;
    let explained = json(&rows, &["explain", &last]);
    assert_eq!(explained["queue_state"], "all_busy", "{explained:#}");
    let wait = &explained["expected_wait"];
    let seconds = |name: &str| wait[name].as_f64().expect("seconds");
    assert!(seconds("p10_seconds") > 0.0 && seconds("p10_seconds") <= seconds("p50_seconds"), "{wait}");
    assert!(seconds("p50_seconds") <= seconds("p90_seconds"), "{wait}");
    assert!(wait["samples"].as_u64().is_some_and(|samples| samples > 100), "{wait}");
    let ahead = explained["ahead"]["people"].as_i64().zip(explained["ahead"]["prebuilds"].as_i64());
    assert!(ahead.is_some_and(|(people, prebuilds)| people + prebuilds > 0), "{explained:#}");
    let able = explained["daemons"].as_array().expect("daemons");
    assert!(!able.is_empty() && able.iter().all(|daemon| daemon["status"] == "busy"), "{explained:#}");

    let shown = jobs(&rows, &["explain", &last]).stdout;
    let because = explained["waits_because"].as_str().expect("a reason");
    assert_eq!(fact(&shown, "WAITS BECAUSE"), Some(because), "{shown}");
    assert_eq!(fact(&shown, "NEXT"), Some("wait for its turn, or start another daemon with its tags"));
    assert!(fact(&shown, "EXPECTED WAIT").is_some_and(|wait| wait.starts_with("about ")), "{shown}");
    assert!(fact(&shown, "DAEMONS").is_some_and(|daemons| daemons.contains("(busy)")), "{shown}");

    // The others say it, too.
    let get = json(&rows, &["get", &last]);
    assert!(get["expected_wait"]["p50_seconds"].is_f64(), "{get:#}");
    assert!(fact(&jobs(&rows, &["get", &last]).stdout, "EXPECTED WAIT").is_some());
    let wide = jobs(&rows, &["list", "--status", "pending", "-o", "wide"]).stdout;
    assert!(wide.lines().next().is_some_and(|headings| headings.contains("EXPECTED WAIT")), "{wide}");
    assert!(wide.lines().skip(1).all(|line| line.contains("about ")), "{wide}");
    let csv = jobs(&rows, &["list", "--status", "succeeded", "-c", "id,expected wait", "-o", "csv"]).stdout;
    assert!(csv.lines().count() > 10 && csv.lines().skip(1).all(|line| line.ends_with(',')), "{csv}");
}

#[tokio::test]
async fn explain_names_one_reason_for_each_job_and_promises_no_time_to_one_that_is_stuck() {
    let mut rows = Rows::new().await;
    let one = id(1).to_string();
    let shown = jobs(&rows, &["explain", &one]).stdout;
    assert_eq!(fact(&shown, "WAITS BECAUSE"), Some("the organization has no daemons"), "{shown}");
    assert_eq!(fact(&shown, "NEXT"), Some("start a provisioner daemon for the organization"));
    assert_eq!(fact(&shown, "EXPECTED WAIT"), None);
    assert_eq!(json(&rows, &["explain", &one])["expected_wait"], Value::Null);

    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), now(), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         VALUES (u(1), now(), E'a\\tdaemon', '{echo}', '{\"scope\": \"organization\"}', now(), u(1), u(1))",
    )
    .await;
    let shown = jobs(&rows, &["explain", &one]).stdout;
    assert_eq!(fact(&shown, "WAITS BECAUSE"), Some("position 1 of 1 in the queue of a matching daemon"), "{shown}");
    assert_eq!(fact(&shown, "EXPECTED WAIT"), Some("unknown: no job has ended in the last 7 days"));
    assert_eq!(fact(&shown, "AHEAD"), Some("0 of people, 0 prebuilds"));
    let (before, after) = ("now() - interval '1 minute'", "now()");
    rows.run(&format!(
        "SELECT add_job(n) FROM generate_series(2, 9) AS n;
         UPDATE provisioner_jobs SET created_at = {before}, started_at = {before}, completed_at = {after}
         WHERE id <> u(1)"
    ))
    .await;
    let shown = jobs(&rows, &["explain", &one]).stdout;
    let at_once = "about 0s, by 8 jobs that ended in the last 7 days, if people go on asking as in the last day";
    assert_eq!(fact(&shown, "EXPECTED WAIT"), Some(at_once), "{shown}");
    let shown = jobs(&rows, &["explain", &id(2).to_string()]).stdout;
    assert_eq!(fact(&shown, "WAITS BECAUSE"), Some("it does not wait"), "{shown}");
    assert_eq!(json(&rows, &["explain", &id(2).to_string()])["queue_state"], "not_queued");
    rows.run("UPDATE provisioner_jobs SET tags = '{\"gpu\": \"true\"}' WHERE id = u(1)").await;
    let shown = jobs(&rows, &["explain", &one]).stdout;
    assert_eq!(fact(&shown, "WAITS BECAUSE"), Some("no daemon has gpu=true"), "{shown}");
    let next = "start a provisioner daemon with gpu=true, or change the tags of the template's version";
    assert_eq!(fact(&shown, "NEXT"), Some(next));
    let mut missing = rows.database.coderdb();
    missing.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "explain", &id(404).to_string()]);
    fails(&mut missing, 1, &["provisioner job not found"]);
}

#[tokio::test]
async fn queue_shows_who_waits_by_initiator_template_and_tags() {
    let rows = at_a_busy_moment(30).await;
    let waiting = json(&rows, &["list", "--status", "pending", "--all"]).as_array().expect("jobs").len();
    for (by, heading) in [("initiator", "INITIATOR"), ("template", "TEMPLATE"), ("tags", "TAGS")] {
        let shares = json(&rows, &["queue", "--by", by]);
        let shares = shares.as_array().expect("shares");
        let total: i64 = shares.iter().map(|share| share["waiting"].as_i64().expect("a number")).sum();
        assert_eq!(total, i64::try_from(waiting).expect("few"), "{shares:#?}");
        let named = |share: &Value| share["name"].is_string() || share["tags"].is_object();
        assert!(shares.len() > 1 && shares.iter().all(named), "{shares:#?}");
        let shown = jobs(&rows, &["queue", "--by", by]).stdout;
        let mut lines = shown.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with(heading)), "{shown}");
        assert_eq!(lines.count(), shares.len(), "{shown}");
        assert!(shown.contains('%'), "{shown}");
    }
    let recent = json(&rows, &["queue", "--since", "1s"]);
    assert!(recent.as_array().is_some_and(|shares| shares.iter().all(|share| share["started"] == 0)), "{recent:#}");
    let mut wrong = rows.database.coderdb();
    fails(wrong.args(["provisioner", "jobs", "queue", "--since", "yesterday"]), 2, &["expected a duration"]);
}

#[tokio::test]
async fn capacity_shows_what_each_tag_set_needs_and_what_more_daemons_would_do() {
    let rows = at_a_busy_moment(30).await;
    let capacity = |args: &[&str]| {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "daemons", "capacity"]).args(args);
        command
    };
    let all = run(capacity(&["--what-if", "gpu=true:+20", "-o", "json"]).env("NO_COLOR", "1")).stdout;
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let gpu = |it: &&Value| it["tags"]["gpu"] == "true";
    let gpu = all.as_array().expect("sets").iter().find(gpu).expect("one").clone();
    let seconds = |name: &str| gpu[name].as_f64().expect("seconds");
    assert!(seconds("what_if_wait_p95_seconds") <= seconds("wait_p95_seconds"), "{gpu:#}");
    assert!(seconds("what_if_wait_p95_seconds") < 1.0, "{gpu:#}");
    assert!(gpu["daemons_needed"].as_u64().is_some_and(|needed| needed > 0), "{gpu:#}");
    let shown = run(&mut capacity(&["--target-wait", "1h"]));
    assert!(shown.stdout.starts_with("TAGS") && shown.stdout.lines().count() == 4, "{}", shown.stdout);
    assert!(shown.stderr.contains("target 60m"), "{}", shown.stderr);
    let shown = run(&mut capacity(&["--what-if", ":+1", "--what-if", "gpu=true,env=aws:+2"])).stdout;
    assert!(shown.lines().next().is_some_and(|headings| headings.ends_with("WAIT THEN")), "{shown}");
    for wrong in ["gpu=true", "gpu=true:3", "gpu:+1", ":+0", "a=b:+-1"] {
        fails(&mut capacity(&["--what-if", wrong]), 2, &["expected KEY=VALUE"]);
    }
}
