//! The OpenAPI document: what it says of each operation, and that nothing is mounted beside it.

use std::{collections::BTreeSet, fs, path::Path};

use coderdb::http;
use serde_json::{Value, json};

use crate::{
    client::{Site, TOKEN, demo_id, job_id, request, send},
    examples::operations,
    support,
};

/// Method and path below /api/v2, tag, id, and what a success answers: those of Coder, and behind the line ours.
const OPERATIONS: &str = "
GET    organizations/{organization}/provisionerjobs                   Organizations get-provisioner-jobs                        200
GET    organizations/{organization}/provisionerjobs/{job}             Organizations get-provisioner-job                         200
GET    organizations/{organization}/provisionerdaemons                Provisioning  get-provisioner-daemons                     200
PATCH  workspacebuilds/{workspacebuild}/cancel                        Builds        cancel-workspace-build                      200
GET    workspacebuilds/{workspacebuild}/logs                          Builds        get-workspace-build-logs                    101,200
PATCH  templateversions/{templateversion}/cancel                      Templates     cancel-template-version-by-id               200
GET    templateversions/{templateversion}/logs                        Templates     get-logs-by-template-version                101,200
PATCH  templateversions/{templateversion}/dry-run/{jobID}/cancel      Templates     cancel-template-version-dry-run-by-job-id   200
GET    templateversions/{templateversion}/dry-run/{jobID}/logs        Templates     get-template-version-dry-run-logs-by-job-id 101,200
GET    organizations/{organization}/members/{user}/workspace-quota    Enterprise    get-workspace-quota-by-user                 200
GET    workspace-quota/{user}                                         Enterprise    get-workspace-quota-by-user-deprecated      200
POST   licenses                                                       Enterprise    add-new-license                             201
POST   licenses/refresh-entitlements                                  Enterprise    update-license-entitlements                 200
GET    licenses                                                       Enterprise    get-licenses                                200
DELETE licenses/{id}                                                  Enterprise    delete-license                              200
GET    prebuilds/settings                                             Prebuilds     get-prebuilds-settings                      200
PUT    prebuilds/settings                                             Prebuilds     update-prebuilds-settings                   200,304

POST   organizations/{organization}/provisionerjobs/cancel            Organizations cancel-provisioner-jobs                     200
";

#[test]
fn the_operations_of_the_document_are_those_of_the_table() {
    let document = serde_json::to_value(http::document()).expect("JSON");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let table: BTreeSet<String> = OPERATIONS.lines().filter(|line| !line.is_empty()).map(words).collect();
    let found: BTreeSet<String> = operations(&document)
        .iter()
        .map(|operation| {
            let text = |key: &str| operation[key].as_str().expect("a text").to_owned();
            let path = text("path").strip_prefix("/api/v2/").expect("a path below /api/v2").to_owned();
            let successes = operation["responses"].as_object().expect("responses").keys();
            let successes: Vec<_> = successes.filter(|status| status.as_str() < "400").cloned().collect();
            let tags = operation["tags"].as_array().expect("tags");
            assert_eq!(tags.len(), 1, "{path}");
            let tag = tags[0].as_str().expect("a tag");
            format!("{} {path} {tag} {} {}", text("method"), text("operationId"), successes.join(","))
        })
        .collect();
    assert_eq!(found, table);
}

#[test]
fn every_operation_of_the_document_says_all_that_clients_need() {
    let document = serde_json::to_value(http::document()).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "Coder API");
    let codes = &document["components"]["schemas"]["ErrorCode"]["enum"];
    assert_eq!(
        codes,
        &json!(["MISSING_TEMPLATE_PARAMETER", "REQUIRED_TEMPLATE_VARIABLES", "INSUFFICIENT_QUOTA"]),
        "the values of the contract"
    );
    for operation in operations(&document) {
        let id = operation["operationId"].as_str().expect("an id");
        for key in ["summary", "tags", "security", "responses"] {
            assert!(operation.get(key).is_some_and(|value| !value.is_null()), "{id} has no {key}");
        }
        assert_eq!(operation["security"], json!([{ "CoderSessionToken": [] }, { "Bearer": [] }]), "{id}");
        let path = operation["path"].as_str().expect("a path");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().expect("a name")));
            assert_eq!(parameter["in"] == "path", in_path, "{id}: {parameter}");
            for key in ["description", "schema"] {
                assert!(!parameter[key].is_null(), "{id}: {parameter}");
            }
        }
        let responses = operation["responses"].as_object().expect("responses");
        for status in ["400", "401", "429", "500", "503"] {
            assert!(responses.contains_key(status), "{id} has no {status}");
        }
        for (status, response) in responses {
            let response = match response.get("$ref").and_then(Value::as_str) {
                Some(name) => &document.pointer(name.trim_start_matches('#')).expect("the component").clone(),
                None => response,
            };
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{id} {status}");
            // An upgrade, what has not changed, and what is deleted have no body.
            let has_body = !matches!((id, status.as_str()), (_, "101" | "304") | ("delete-license", "200"));
            let contents: Vec<_> = response["content"].as_object().into_iter().flat_map(|it| it.values()).collect();
            assert_eq!(!contents.is_empty(), has_body, "{id} {status}");
            for content in contents {
                assert!(!content["schema"].is_null() && !content["example"].is_null(), "{id} {status}");
            }
        }
    }
}

#[test]
fn nothing_is_mounted_beside_the_document() {
    let routes = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut mounted = Vec::new();
    for entry in fs::read_dir(routes).expect("the routes") {
        let path = entry.expect("an entry").path();
        let code = fs::read_to_string(&path).unwrap_or_default();
        let routes = code.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned));
        mounted.extend(routes.filter(|_| path.extension().is_some_and(|it| it == "rs")));
        for way in [".nest(", ".nest_service(", ".route_service(", ".fallback_service("] {
            assert!(!code.contains(way), "{} has {way}", path.display());
        }
    }
    mounted.sort();
    assert_eq!(mounted, ["/api/v2/{*rest}", "/healthz", "/openapi.json", "/readyz"]);
}

#[tokio::test]
async fn every_operation_of_the_document_asks_for_a_session() {
    let site = Site::demo().await;
    let document = serde_json::to_value(http::document()).expect("JSON");
    let filled = |path: &str| {
        path.replace("{organization}", "coder")
            .replace("{job}", &job_id(26))
            .replace("{jobID}", &job_id(29))
            .replace("{workspacebuild}", &demo_id("0008", 26))
            .replace("{templateversion}", &demo_id("0005", 3))
            .replace("{user}", "me")
            .replace("{id}", "1")
    };
    for operation in operations(&document) {
        let (method, path) =
            (operation["method"].as_str().expect("a method"), operation["path"].as_str().expect("a path"));
        let path = filled(path);
        assert!(!path.contains('{'), "{path}");
        assert_eq!(send(&site.router, request(method, &path)).await.status, 401, "{method} {path}");
        let mut wrong = request(method, &path);
        wrong.headers_mut().insert(
            axum::http::HeaderName::from_bytes(TOKEN.as_bytes()).expect("a name"),
            "HOOmKyZ0bR-0000000000000000000000".parse().expect("a header"),
        );
        assert_eq!(send(&site.router, wrong).await.status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn the_document_is_served_and_printed_as_it_is() {
    let site = Site::demo().await;
    let document = serde_json::to_value(http::document()).expect("JSON");
    let served = send(&site.router, request("GET", "/openapi.json")).await;
    served.is(200, &document);
    let printed = support::run(support::coderdb().arg("openapi"));
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout).expect("JSON"), document);
    let page = send(&site.router, request("GET", "/docs/")).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/html")));
}
