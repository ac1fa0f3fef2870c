//! Who may do what over HTTP: every actor of the table of the library with every operation on everything.
//!
//! [`ROUTES`] names the lines of that table that a request must pass, and no status is taken from the code.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use coderdb::{http, model::UserId};
use serde_json::json;

use crate::{
    client::{Answer, Client, Site},
    examples::operations,
    support::{
        self,
        policy::{self, At, Line, MISSING, Somebody, u},
        secrets,
    },
};

/// What a job of another kind than a build adds to the table, in its form.
const KINDS: &str = "
imports::cancel                  thing        : owner template-admin @admin @template-admin
imports::logs                    thing        : owner template-admin @admin @template-admin @jobs
";

/// What has happened before, and per request: the lines that it must pass, `?` behind those that need only let ask.
/// `!` before a request means that a refusal is 403, because everybody knows that the thing is there; `[`, an empty list.
const ROUTES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("GET organizations/{o}/provisionerjobs", "organizations::resolve jobs::list?"),
            ("GET organizations/{o}/provisionerjobs/{job}", "organizations::resolve jobs::get"),
            ("GET organizations/{o}/provisionerdaemons", "organizations::resolve daemons::list?"),
            ("POST organizations/{o}/provisionerjobs/cancel", "organizations::resolve jobs::list? jobs::cancel_batch?"),
            ("PATCH workspacebuilds/{build}/cancel", "jobs::find_of_build jobs::cancel"),
            ("GET workspacebuilds/{build}/logs", "jobs::find_of_build job_logs::after"),
            (
                "GET organizations/{o}/members/{user}/workspace-quota",
                "organizations::resolve users::resolve quota::usage",
            ),
            ("GET workspace-quota/{user}", "organizations::default users::resolve quota::usage"),
            ("!GET prebuilds/settings", "settings::prebuilds"),
            ("!PUT prebuilds/settings", "settings::set_prebuilds"),
            ("!DELETE licenses/1", "licenses::delete"),
            ("!POST licenses", "licenses::insert"),
            ("!POST licenses/refresh-entitlements", "licenses::refresh"),
            ("[GET licenses", "licenses::list"),
            // The job of a version may be of another kind than an import; whether one may, that decides.
            ("PATCH templateversions/{version}/cancel", "jobs::find_of_version jobs::cancel"),
            ("GET templateversions/{version}/logs", "jobs::find_of_version job_logs::after"),
            ("PATCH templateversions/{version}/dry-run/{job}/cancel", "nothing"),
        ],
    ),
    (
        "DELETE FROM workspace_builds; SELECT import()",
        &[
            ("PATCH templateversions/{version}/cancel", "jobs::find_of_version imports::cancel"),
            ("GET templateversions/{version}/logs", "jobs::find_of_version imports::logs"),
            ("GET templateversions/{version}/dry-run/{job}/logs", "nothing"),
            ("PATCH workspacebuilds/{build}/cancel", "nothing"),
        ],
    ),
    (
        "DELETE FROM workspace_builds; SELECT dry_run()",
        &[
            ("PATCH templateversions/{version}/dry-run/{job}/cancel", "jobs::find_of_dry_run jobs::cancel"),
            ("GET templateversions/{version}/dry-run/{job}/logs", "jobs::find_of_dry_run job_logs::after"),
            ("GET templateversions/{version}/logs", "jobs::find_of_version job_logs::after"),
        ],
    ),
];

/// All of it as before, after something was changed.
const RESET: &str = "UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL, error = NULL;
    UPDATE site_configs SET value = '{\"reconciliation_paused\":true}' WHERE key = 'prebuilds_settings';
    INSERT INTO licenses (id, uploaded_at, jwt, exp, uuid) VALUES (1, moment(), 'header.claims.signature', moment(), u(1))
    ON CONFLICT DO NOTHING";

/// What is asked for: in an organization, a thing of `home`, or a user.
fn cells(route: &str, who: &Somebody) -> Vec<At> {
    let organizations = [1, 2, 3, MISSING];
    let at = |organization, home, user| At { organization, home, user };
    let squared = |second: Vec<u32>| {
        organizations.into_iter().flat_map(move |one| second.clone().into_iter().map(move |two| (one, two)))
    };
    let users = || [1, 2, 50, 51, MISSING].into_iter().chain(who.user).collect::<BTreeSet<u32>>().into_iter().collect();
    if route.contains("members/{user}") {
        squared(users()).map(|(o, user)| at(o, o, user)).collect()
    } else if route.contains("{user}") {
        users().into_iter().map(|user| at(1, 1, user)).collect()
    } else if route.contains("{job}") || route.ends_with("provisionerjobs/cancel") {
        squared(organizations.into()).map(|(o, home)| at(o, home, home)).collect()
    } else if route.contains('{') {
        organizations.into_iter().map(|o| at(o, o, o)).collect()
    } else {
        vec![at(MISSING, MISSING, MISSING)]
    }
}

fn expected(passes: &str, table: &BTreeMap<&str, Line>, who: &Somebody, at: At) -> bool {
    passes.split(' ').all(|name| {
        let (name, only_asks) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        let Some(line) = table.get(name) else {
            assert_eq!(name, "nothing", "it is in no table");
            return false;
        };
        if only_asks { line.may_ask(who, at) } else { line.expected(who, at) == policy::Answer::Rows(1) }
    })
}

async fn ask(client: &Client, route: &str, at: At) -> Answer {
    let (method, path) = route.trim_start_matches(['!', '[']).split_once(' ').expect("a method and a path");
    let thing = |kind: u32| u(at.home * 100 + kind).to_string();
    // The version is that of the organization, the job that of `home`: both are the same where something is to be found.
    let version = u(at.organization * 100 + 7).to_string();
    let path = path
        .replace("{o}", &u(at.organization).to_string())
        .replace("{user}", &u(at.user).to_string())
        .replace("{job}", &thing(1))
        .replace("{build}", &thing(8))
        .replace("{version}", &version);
    let body = match (method, path.as_str()) {
        ("PUT", _) => r#"{"reconciliation_paused": false}"#.to_owned(),
        ("POST", "licenses") => r#"{"license": "header.claims.signature"}"#.to_owned(),
        ("POST", _) => format!(r#"{{"search": "id:{}"}}"#, thing(1)),
        _ => String::new(),
    };
    client.call(method, &path, body).await
}

/// The fixture of the library's table, with a site over it and a token for each user.
async fn site(before: &str) -> (Site, Vec<(Somebody, Client)>) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let everybody = policy::fixture(&mut conn).await;
    let settings = http::Settings { requests_per_minute: None, ..Default::default() };
    let mut site = Site::over(database, settings).await;
    if !before.is_empty() {
        site.sql(before).await;
    }
    let mut actors = Vec::new();
    for who in everybody {
        let Some(n) = who.user else { continue };
        let client = site.user_by_id(UserId(u(n))).await;
        actors.push((who, client));
    }
    (site, actors)
}

#[tokio::test]
async fn every_operation_answers_everybody_what_the_table_says() {
    let extra = policy::lines(KINDS);
    let table: BTreeMap<_, _> = policy::policy().into_iter().chain(extra).map(|line| (line.operation, line)).collect();
    let (mut cells_looked_at, mut wrong) = (0, Vec::new());
    for (before, routes) in ROUTES {
        let (mut site, actors) = site(before).await;
        for (route, passes) in *routes {
            let mut answers = BTreeSet::new();
            let mut refusals = BTreeSet::new();
            for (who, client) in &actors {
                for at in cells(route, who) {
                    cells_looked_at += 1;
                    let answer = ask(client, route, at).await;
                    let may = expected(passes, &table, who, at);
                    answers.insert(may);
                    let status = answer.status;
                    // Whoever may add licenses is told what is wrong with this one, or that it is too early.
                    let is_right = match (may, &route[..1]) {
                        (true, "[") => answer.ok() != json!([]),
                        (true, _) => status == StatusCode::OK || route.contains("POST licenses") && status == 400,
                        (false, "!") => status == StatusCode::FORBIDDEN,
                        (false, "[") => answer.ok() == json!([]),
                        (false, _) => status == StatusCode::NOT_FOUND,
                    };
                    if !is_right {
                        wrong.push(format!("{route} as {} at {at:?}: {status}, may: {may}", who.name));
                    }
                    if status == 403 || status == 404 {
                        refusals.insert(answer.text());
                    }
                    if status == 200 && !route.contains("GET") {
                        site.sql(RESET).await;
                    } else if !route.contains("GET") {
                        let changed = "SELECT count(*) FROM provisioner_jobs WHERE canceled_at IS NOT NULL";
                        assert_eq!(site.value::<i64>(changed).await, 0, "{route} as {} at {at:?}", who.name);
                    }
                }
            }
            if answers.len() < 2 && *passes != "nothing" {
                wrong.push(format!("{route}: everybody gets the same"));
            }
            // Not there and not allowed are the same to the last byte.
            if refusals.len() != 1 && !route.starts_with('[') {
                wrong.push(format!("{route}: refusals differ: {refusals:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells_looked_at} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells_looked_at >= 2_000, "{cells_looked_at} cells");
}

#[tokio::test]
async fn every_operation_lets_nobody_in_whose_session_is_none() {
    let (mut site, actors) = site("").await;
    let alice = &actors.iter().find(|(who, _)| who.user == Some(30)).expect("an owner").1;
    let suspended = site.user_by_id(UserId(u(50))).await;
    let mut nobodies = vec![(suspended, "User is not active")];
    // A key that was left when its user was deleted, and one whose time is over.
    for (id, user, expires) in [("deletedusr", 51, "infinity"), ("expiredkey", 30, "2026-05-07T00:00:00Z")] {
        site.sql(&format!(
            "ALTER TABLE api_keys DISABLE TRIGGER USER;
             INSERT INTO api_keys (id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type,
                 token_name, scopes, allow_list)
             SELECT '{id}', hashed_secret, u({user}), now(), '{expires}', now(), now(), 'password', '', scopes, allow_list
             FROM api_keys WHERE id = '{}'",
            alice.id()
        ))
        .await;
        nobodies.push((site.client(&format!("{id}-{}", secrets::TOKEN)), "You are signed out"));
    }
    nobodies.push((site.client(&format!("{}-{}", alice.id(), "s".repeat(22))), "You are signed out"));
    nobodies.push((site.client(""), "You are signed out"));
    let routes: BTreeSet<&str> = ROUTES.iter().flat_map(|(_, routes)| *routes).map(|(route, _)| *route).collect();
    for route in routes {
        for (nobody, begin) in &nobodies {
            let answer = ask(nobody, route, At { organization: 1, home: 1, user: 1 }).await;
            assert_eq!(answer.status, 401, "{route} as {}", nobody.id());
            assert!(answer.json()["message"].as_str().is_some_and(|text| text.starts_with(begin)), "{}", answer.text());
        }
    }
}

#[test]
fn every_operation_of_the_document_is_in_the_table() {
    let document = serde_json::to_value(http::document()).expect("JSON");
    let listed: BTreeSet<&str> = ROUTES.iter().flat_map(|(_, routes)| *routes).map(|(route, _)| *route).collect();
    let listed: BTreeSet<&str> = listed.iter().map(|route| route.trim_start_matches(['!', '['])).collect();
    for operation in operations(&document) {
        let (method, path) =
            (operation["method"].as_str().expect("a method"), operation["path"].as_str().expect("a path"));
        let mut route = format!("{method} {}", path.trim_start_matches("/api/v2/"));
        for (name, short) in [
            ("{organization}", "{o}"),
            ("{workspacebuild}", "{build}"),
            ("{templateversion}", "{version}"),
            ("{jobID}", "{job}"),
            ("{id}", "1"),
        ] {
            route = route.replace(name, short);
        }
        assert!(listed.contains(route.as_str()), "ROUTES in tests/http/authz.rs lacks {route}");
    }
}
