//! The logs of builds, versions and dry runs, as JSON and as text.

use serde_json::{Value, json};

use crate::client::{Site, demo_id, job_id};

fn build(n: u32) -> String {
    format!("workspacebuilds/{}/logs", demo_id("0008", n))
}

fn version(v: u32) -> String {
    format!("templateversions/{}/logs", demo_id("0005", v))
}

fn dry_run(v: u32, job: u32) -> String {
    format!("templateversions/{}/dry-run/{}/logs", demo_id("0005", v), job_id(job))
}

const STARTED: &str = "2026-05-07T08:56:";

/// What the build that runs has logged, from the id of its first line on.
fn lines(first: i64) -> Value {
    let line = |n: i64, second: u32, source: &str, level: &str, stage: &str, output: &str| {
        json!({
            "id": first + n,
            "created_at": format!("{STARTED}{second:02}Z"),
            "log_source": source,
            "log_level": level,
            "stage": stage,
            "output": output,
        })
    };
    let planning = "Planning Infrastructure";
    json!([
        line(0, 4, "provisioner_daemon", "info", "Setting up", "Unpacking the template gpu-notebook..."),
        line(1, 5, "provisioner", "debug", planning, "Initializing the backend..."),
        line(2, 6, "provisioner", "debug", planning, "Terraform has been successfully initialized!"),
        line(3, 7, "provisioner", "info", planning, "Plan: 2 to add, 0 to change, 0 to destroy."),
        line(4, 9, "provisioner", "info", "Commit quota", "Build cost       —   40"),
        line(5, 10, "provisioner", "info", "Commit quota", "Budget           —   120"),
        line(6, 11, "provisioner", "info", "Commit quota", "Credits consumed —   50"),
        line(7, 14, "provisioner", "info", "Starting workspace", "workspace: Creating..."),
    ])
}

async fn first(site: &mut Site, job: u32) -> i64 {
    site.value(&format!("SELECT min(id) FROM provisioner_job_logs WHERE job_id = '{}'", job_id(job))).await
}

#[tokio::test]
async fn logs_are_all_lines_oldest_first_or_those_after_an_id() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let first = first(&mut site, 26).await;
    let all = lines(first);
    alice.get(&build(26)).await.is(200, &all);
    for parameters in ["after=0", "after=", "format=json", "format=", "follow=false", "follow=0", "after=-5"] {
        alice.get(&format!("{}?{parameters}", build(26))).await.is(200, &all);
    }
    let rest: Vec<_> = all.as_array().expect("lines")[3..].to_vec();
    alice.get(&format!("{}?after={}", build(26), first + 2)).await.is(200, &json!(rest));
    for after in [first + 7, i64::MAX] {
        alice.get(&format!("{}?after={after}", build(26))).await.is(200, &json!([]));
    }
    // None has been written.
    for path in [build(24), version(6), dry_run(3, 29)] {
        alice.get(&path).await.is(200, &json!([]));
    }
    assert_eq!(alice.get(&version(8)).await.ids_of_lines().len(), 5);
    assert_eq!(alice.get(&dry_run(3, 15)).await.ids_of_lines().len(), 4);
}

#[tokio::test]
async fn logs_as_text_have_a_line_each() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let answer = alice.get(&format!("{}?format=text", version(8))).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(
        answer.text(),
        "2026-05-06T10:00:03Z [info] [provisioner_daemon|Setting up] Adding README.md...\n\
         2026-05-06T10:00:05Z [debug] [provisioner|Planning Infrastructure] Initializing the backend...\n\
         2026-05-06T10:00:06Z [debug] [provisioner|Planning Infrastructure] Terraform has been successfully initialized!\n\
         2026-05-06T10:00:08Z [error] [provisioner|Detecting persistent resources] variable \"zone\" has no value\n\
         2026-05-06T10:00:08Z [info] [provisioner_daemon|Cleaning Up] Removed the work directory.\n"
    );
    site.sql(
        "UPDATE provisioner_job_logs SET created_at = created_at + interval '250 ms', output = E'two\\nlines \u{1b}[1mbold'",
    )
    .await;
    let text = alice.get(&format!("{}?format=text&after=0", version(8))).await.text();
    assert!(
        text.starts_with("2026-05-06T10:00:03Z [info] [provisioner_daemon|Setting up] two\nlines \u{1b}[1mbold\n"),
        "{text}"
    );
    let empty = alice.get(&format!("{}?format=text", build(24))).await;
    assert_eq!((empty.status.as_u16(), empty.text()), (200, String::new()));
}

#[tokio::test]
async fn logs_say_what_is_wrong_with_the_parameters() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    let not_integer = json!({
        "message": "Query param \"after\" must be an integer.",
        "validations": [{ "field": "after", "detail": "Must be an integer" }],
    });
    for path in [build(26), version(8), dry_run(3, 15)] {
        for after in ["x", "1.5", "9223372036854775808", "1%20", "0x10"] {
            alice.get(&format!("{path}?after={after}")).await.is(400, &not_integer);
        }
        for format in ["xml", "TEXT", "json,text"] {
            let answer = alice.get(&format!("{path}?format={format}")).await;
            answer.says_more(400, "Invalid format parameter.", "The format must be \"json\" or \"text\".");
        }
        for follow in ["follow", "follow=true", "follow="] {
            let answer = alice.get(&format!("{path}?{follow}&format=text")).await;
            answer.says(400, "Text format is not supported with follow mode.");
            // No upgrade was asked for.
            alice.get(&format!("{path}?{follow}")).await.says(400, "Failed to accept websocket.");
        }
        alice
            .get(&format!("{path}?follow=maybe"))
            .await
            .faults(&[("follow", "Query param \"follow\" must be a valid boolean")]);
        alice.get(&format!("{path}?before=9")).await.faults(&[("before", "\"before\" is not a valid query param")]);
        alice
            .get(&format!("{path}?after=1&after=2"))
            .await
            .faults(&[("after", "Query param \"after\" provided more than once, found 2 times")]);
    }
}

#[tokio::test]
async fn logs_are_of_the_job_that_the_path_names() {
    let mut site = Site::demo().await;
    let alice = site.user("alice").await;
    for path in [
        build(404),
        version(404),
        dry_run(404, 15),
        dry_run(3, 404),
        dry_run(5, 15),
        dry_run(3, 26),
        format!("workspacebuilds/{}/logs", job_id(26)),
    ] {
        for parameters in ["", "?format=text", "?follow"] {
            alice.get(&format!("{path}{parameters}")).await.not_found();
        }
    }
    for path in ["workspacebuilds/x/logs".to_owned(), format!("templateversions/{}/dry-run/x/logs", demo_id("0005", 3))]
    {
        let answer = alice.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.json()["message"].as_str()), (400, Some("Invalid UUID \"x\".")));
    }
}

#[tokio::test]
async fn logs_are_for_owners_and_others_by_the_kind_of_the_job() {
    let mut site = Site::demo().await;
    for (username, readable) in [
        ("alice", [true, true, true, true]),
        ("grace", [true, true, true, true]),
        // The dry run is Bob's own; he manages templates.
        ("bob", [false, false, true, true]),
        ("heidi", [true, false, false, false]),
        ("erin", [false, true, false, false]),
        ("carol", [false, false, false, false]),
        ("ivan", [false, false, false, false]),
    ] {
        let client = site.user(username).await;
        for (path, may) in [build(26), build(23), version(8), dry_run(3, 15)].iter().zip(readable) {
            for path in [path.clone(), format!("{path}?after=1000000000"), format!("{path}?format=text")] {
                let answer = client.get(&path).await;
                assert_eq!(answer.status.as_u16(), if may { 200 } else { 404 }, "{username} {path}");
                if !may {
                    answer.not_found();
                }
            }
            if !may {
                client.get(&format!("{path}?follow")).await.not_found();
            }
        }
    }
}
