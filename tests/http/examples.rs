//! The examples of the document: a body for each answer that it lists, received from the demo.
//!
//! `CODERDB_UPDATE=1` writes them to `src/http/examples.json`, and at the next run, which compiles them in, the document.

use std::{collections::BTreeMap, fs, num::NonZeroU32, path::Path};

use axum::body::Body;
use coderdb::http::{self, Settings};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::{
    client::{Answer, Site, demo_id, job_id},
    support::{
        licenses::{Signer, claims},
        secrets,
    },
};

/// Operation, status, what happens before, who asks, for what, and with which body.
type Row = (&'static str, u16, &'static str, &'static str, String, String);

const NO_CANCEL: &str = "UPDATE templates SET allow_user_cancel_workspace_jobs = false";
/// Other demo databases have other licenses.
const NO_LICENSE: &str = "DELETE FROM licenses";

fn rows(license: &str) -> Vec<Row> {
    let organization = "organizations/coder";
    let jobs = format!("GET {organization}/provisionerjobs");
    let daemons = format!("GET {organization}/provisionerdaemons");
    let many = format!("POST {organization}/provisionerjobs/cancel");
    let quota = format!("GET {organization}/members/me/workspace-quota");
    let large = format!("{{\"search\":\"{}\"}}", "x".repeat(300 * 1024));
    let added = json!({ "license": license }).to_string();
    let deleted = "UPDATE licenses SET id = 1; SELECT setval('licenses_id_seq', 1)";
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |id, status, before, user, request: &str, body: &str| {
        rows.push((id, status, before, user, request.to_owned(), body.to_owned()));
    };
    let list = "get-provisioner-jobs";
    row(list, 200, "", "alice", &format!("{jobs}?status=running&limit=2"), "");
    row(list, 400, "", "alice", &format!("{jobs}?limit=-1&user=bob"), "");
    row(list, 404, "", "dave", &jobs, "");
    let get = "get-provisioner-job";
    row(get, 200, "", "alice", &format!("{jobs}/{}", job_id(23)), "");
    row(get, 400, "", "alice", &format!("{jobs}/latest"), "");
    row(get, 404, "", "alice", &format!("{jobs}/{}", job_id(404)), "");
    let list = "get-provisioner-daemons";
    row(list, 200, "", "alice", &format!("{daemons}?offline=true&limit=2"), "");
    row(list, 400, "", "alice", &format!("{daemons}?max_age=1d"), "");
    row(list, 404, "", "dave", &daemons, "");

    let build = |n: u32, more: &str| format!("PATCH workspacebuilds/{}/cancel{more}", demo_id("0008", n));
    let cancel = "cancel-workspace-build";
    row(cancel, 200, "", "alice", &build(26, ""), "");
    row(cancel, 400, "", "alice", &build(19, ""), "");
    row(cancel, 403, NO_CANCEL, "heidi", &build(26, ""), "");
    row(cancel, 404, "", "dave", &build(26, ""), "");
    row(cancel, 412, "", "alice", &build(26, "?expect_status=pending"), "");
    let version = |method: &str, v: u32, rest: &str| format!("{method} templateversions/{}/{rest}", demo_id("0005", v));
    let cancel = "cancel-template-version-by-id";
    row(cancel, 200, "", "bob", &version("PATCH", 2, "cancel"), "");
    row(cancel, 400, "", "bob", &version("PATCH", 5, "cancel"), "");
    row(cancel, 404, "", "dave", &version("PATCH", 2, "cancel"), "");
    let dry_run = |job: u32, rest: &str| format!("dry-run/{}/{rest}", job_id(job));
    let cancel = "cancel-template-version-dry-run-by-job-id";
    row(cancel, 200, "", "bob", &version("PATCH", 3, &dry_run(29, "cancel")), "");
    row(cancel, 400, "", "bob", &version("PATCH", 3, &dry_run(15, "cancel")), "");
    row(cancel, 404, "", "bob", &version("PATCH", 5, &dry_run(29, "cancel")), "");
    let cancel = "cancel-provisioner-jobs";
    row(cancel, 200, "", "alice", &many, r#"{"search": "initiator:heidi"}"#);
    row(cancel, 400, "", "alice", &many, r#"{"search": ""}"#);
    row(cancel, 404, "", "dave", &many, r#"{"search": "initiator:prebuilds"}"#);
    row(cancel, 413, "", "alice", &many, &large);

    for (id, path, more) in [
        ("get-workspace-build-logs", format!("GET workspacebuilds/{}/logs", demo_id("0008", 23)), ""),
        ("get-logs-by-template-version", version("GET", 8, "logs"), ""),
        ("get-template-version-dry-run-logs-by-job-id", version("GET", 3, &dry_run(15, "logs")), ""),
    ] {
        row(id, 200, "", "alice", &format!("{path}{more}"), "");
        row(id, 200, "", "alice", &format!("{path}?format=text"), "");
        row(id, 400, "", "alice", &format!("{path}?after=x"), "");
        row(id, 403, "", "alice", &format!("{path}?follow"), "");
        row(id, 404, "", "carol", &path, "");
    }

    for (id, path) in [
        ("get-workspace-quota-by-user", quota.as_str()),
        ("get-workspace-quota-by-user-deprecated", "GET workspace-quota/me"),
    ] {
        row(id, 200, "", "dave", path, "");
        row(id, 400, "", "dave", &format!("{path}?limit=1"), "");
        row(id, 404, "", "dave", &path.replace("me", "heidi").replace("heidimbers", "members"), "");
    }

    row("get-licenses", 200, deleted, "alice", "GET licenses", "");
    row("get-licenses", 400, "", "alice", "GET licenses?limit=1", "");
    let add = "add-new-license";
    row(add, 201, "DELETE FROM licenses; SELECT setval('licenses_id_seq', 1)", "alice", "POST licenses", &added);
    row(add, 400, "", "alice", "POST licenses", r#"{"license": "nonsense"}"#);
    row(add, 403, "", "bob", "POST licenses", &added);
    row(add, 409, NO_LICENSE, "alice", "POST licenses", &added);
    row(add, 413, "", "alice", "POST licenses", &large);
    let refresh = "POST licenses/refresh-entitlements";
    row("update-license-entitlements", 200, "", "alice", refresh, "");
    row("update-license-entitlements", 400, "", "alice", refresh, "");
    row("update-license-entitlements", 403, "", "bob", refresh, "");
    row("delete-license", 400, deleted, "alice", "DELETE licenses/1?force=true", "");
    row("delete-license", 403, deleted, "bob", "DELETE licenses/1", "");
    row("delete-license", 404, deleted, "alice", "DELETE licenses/2", "");

    let (get, put) = ("GET prebuilds/settings", "PUT prebuilds/settings");
    let paused = r#"{"reconciliation_paused": true}"#;
    row("get-prebuilds-settings", 200, "", "alice", get, "");
    row("get-prebuilds-settings", 400, "", "alice", &format!("{get}?limit=1"), "");
    row("get-prebuilds-settings", 403, "", "dave", get, "");
    row("update-prebuilds-settings", 200, "", "alice", put, paused);
    row("update-prebuilds-settings", 400, "", "alice", put, r#"{"reconciliation_paused": "yes"}"#);
    row("update-prebuilds-settings", 403, "", "dave", put, paused);
    row("update-prebuilds-settings", 413, "", "alice", put, &large);

    let own = "GET workspace-quota/me";
    row("responses", 401, "", "", own, "");
    row("responses", 429, "", "dave", own, "");
    row("responses", 500, "ALTER TABLE groups RENAME TO gone", "dave", own, "");
    row("responses", 503, "", "dave", own, "");
    rows
}

async fn received((id, status, before, user, request, body): &Row, signer: &Signer) -> Answer {
    let limit = if *status == 429 { 10 } else { 512 };
    let settings =
        Settings { requests_per_minute: NonZeroU32::new(limit), license_keys: signer.keys(), ..Settings::default() };
    let mut site = Site::demo().await.with(settings).await;
    let client = match *user {
        "" => site.client(&format!("nonsense-{}", secrets::TOKEN)),
        user => site.user(user).await,
    };
    if !before.is_empty() {
        site.sql(before).await;
    }
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let mut sent = client.request(method, path, Body::from(body.clone()));
    match (*id, status) {
        ("responses", 429) => while client.call(method, path, "").await.status == 200 {},
        ("add-new-license", 409) | ("update-license-entitlements", 400) => {
            client.call(method, path, body.clone()).await;
        }
        ("responses", 503) => site.pool.close(),
        (_, 403) if path.ends_with("?follow") => {
            sent.headers_mut().insert("origin", "https://example.com".parse().expect("a header"));
        }
        _ => {}
    }
    let answer = client.send(sent).await;
    assert_eq!(answer.status.as_u16(), *status, "{id}: {}", answer.text());
    answer
}

fn stored(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// Compares it with the file, or writes that.
fn must_be_stored(path: &str, text: &str) {
    if std::env::var_os("CODERDB_UPDATE").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), text).expect("the file");
    }
    assert!(stored(path) == text, "{path} differs: run it with CODERDB_UPDATE=1, and read the difference");
}

fn name(id: &str, status: u16) -> String {
    match (id, status) {
        ("responses", 401) => "Unauthorized".to_owned(),
        ("responses", 429) => "TooManyRequests".to_owned(),
        ("responses", 500) => "InternalServerError".to_owned(),
        ("responses", 503) => "ServiceUnavailable".to_owned(),
        _ => status.to_string(),
    }
}

#[tokio::test]
async fn every_answer_of_the_document_has_an_example_that_was_received() {
    let signer = Signer::new("example");
    let license = signer.sign(&claims(datetime!(2026-12-01 0:00 UTC)));
    let mut examples: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>> = BTreeMap::new();
    for row in &rows(&license) {
        let answer = received(row, &signer).await;
        let (id, status, ..) = *row;
        let media_type = answer.header("content-type").and_then(|it| it.split(';').next()).expect("a type").to_owned();
        let mut body = if media_type == "text/plain" { Value::from(answer.text()) } else { answer.json() };
        // What depends on when the test runs.
        match (id, status) {
            ("add-new-license", 201) => body["uploaded_at"] = json!("2026-05-07T09:00:00Z"),
            ("update-license-entitlements", 400) => {
                let words = body["message"].as_str().expect("a text").split(' ');
                let words = words.map(|word| if word.parse::<u64>().is_ok() { "42" } else { word });
                body["message"] = json!(words.collect::<Vec<_>>().join(" "));
            }
            _ => {}
        }
        let answers = examples.entry(id.to_owned()).or_default().entry(name(id, status)).or_default();
        assert!(answers.insert(media_type, body).is_none(), "{id} {status} twice");
    }
    must_be_stored("src/http/examples.json", &(serde_json::to_string_pretty(&examples).expect("JSON") + "\n"));

    // Exactly those that the document lists.
    let document = serde_json::to_value(http::document()).expect("JSON");
    let mut listed = BTreeMap::new();
    let mut list = |id: &str, responses: &Value| {
        for (status, response) in responses.as_object().expect("responses") {
            for media_type in response["content"].as_object().into_iter().flat_map(serde_json::Map::keys) {
                listed.insert(format!("{id} {status} {media_type}"), response["content"][media_type].clone());
            }
        }
    };
    list("responses", &document["components"]["responses"]);
    for operation in operations(&document) {
        list(operation["operationId"].as_str().expect("an id"), &operation["responses"]);
    }
    let mut received = BTreeMap::new();
    for (id, answers) in &examples {
        for (status, bodies) in answers {
            received.extend(bodies.iter().map(|(media_type, body)| (format!("{id} {status} {media_type}"), body)));
        }
    }
    let (listed_names, received_names): (Vec<_>, Vec<_>) = (listed.keys().collect(), received.keys().collect());
    assert_eq!(listed_names, received_names);
    // And each is what its schema says.
    for (name, content) in &listed {
        let mut schema = content["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap_or_else(|why| panic!("{name}: {why}"));
        let faults: Vec<_> = validator.iter_errors(received[name]).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}\n{}", received[name]);
    }
}

/// Each with its path and its method.
pub fn operations(document: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let mut operation = operation.clone();
            operation["path"] = json!(path);
            operation["method"] = json!(method.to_uppercase());
            operations.push(operation);
        }
    }
    operations
}

#[test]
fn the_document_is_the_stored_one() {
    let document = serde_json::to_string_pretty(&http::document()).expect("JSON") + "\n";
    must_be_stored("docs/openapi.json", &document);
}
