//! What an operator is shown of jobs, daemons, quota and licenses.

use coderdb::sqlx;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{
    self, Database, Outcome, fails,
    rows::{Rows, id},
    run,
};

async fn demo() -> Database {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    database
}

fn get(database: &Database, n: u32, args: &[&str]) -> Outcome {
    let id = format!("c0de0000-0009-4000-8000-{n:012}");
    run(database.coderdb().args(["provisioner", "jobs", "get", &id]).args(args))
}

/// The value behind a heading.
fn fact<'a>(shown: &'a str, heading: &str) -> Option<&'a str> {
    shown.lines().find_map(|line| line.strip_prefix(heading).filter(|rest| rest.starts_with("  "))).map(str::trim)
}

// One job --------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_job_that_failed_for_insufficient_quota_shows_why_what_it_built_and_whose_quota_it_was() {
    let database = demo().await;
    let mut conn = database.connect().await;
    let over = "SELECT right(id::text, 12)::int FROM provisioner_jobs WHERE error_code = 'INSUFFICIENT_QUOTA'";
    let job: i32 = sqlx::query_scalar(over).fetch_one(&mut conn).await.expect("one of the demo's");
    let job = u32::try_from(job).expect("small");
    let shown = get(&database, job, &[]).stdout;
    assert_eq!(fact(&shown, "STATUS"), Some("failed"), "{shown}");
    assert_eq!(fact(&shown, "ERROR"), Some("insufficient quota"));
    assert_eq!(fact(&shown, "ERROR CODE"), Some("INSUFFICIENT_QUOTA"));
    let json: Value = serde_json::from_str(&get(&database, job, &["-o", "json"]).stdout).expect("JSON");
    let (owner, quota) = (json["workspace_owner_name"].as_str().expect("an owner"), &json["quota"]);
    let usage = run(database.coderdb().args(["quota", "show", owner, "-o", "json"])).stdout;
    assert_eq!(*quota, serde_json::from_str::<Value>(&usage).expect("JSON"));
    let said = format!("{owner} consumes {} of {} credits now", quota["credits_consumed"], quota["budget"]);
    assert_eq!(fact(&shown, "QUOTA"), Some(said.as_str()));
    let workspace = format!(
        "{owner}/{} ({})",
        json["metadata"]["workspace_name"].as_str().expect("a name"),
        json["metadata"]["workspace_id"].as_str().expect("an id")
    );
    assert_eq!(fact(&shown, "WORKSPACE"), Some(workspace.as_str()));
    let build = &json["workspace_build"];
    assert!(fact(&shown, "BUILD").is_some_and(|said| said.starts_with(&format!("{} start", build["build_number"]))));
    assert!(shown.lines().last().is_some_and(|line| line.contains("quota")), "its last log line:\n{shown}");
    assert_eq!(
        json["logs"].as_array().map(Vec::len),
        Some(shown.lines().filter(|line| line.starts_with("2026-")).count())
    );
    assert_eq!(fact(&get(&database, 1, &[]).stdout, "QUOTA"), None);
    let mut missing = database.coderdb();
    missing.args(["provisioner", "jobs", "get", &id(404).to_string()]);
    fails(&mut missing, 1, &["provisioner job not found"]);
}

#[tokio::test]
async fn only_the_last_lines_of_the_log_are_shown() {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         SELECT u(1), at_second(n), 'provisioner', 'info', 'Stage', 'line ' || n FROM generate_series(1, 30) AS n",
    )
    .await;
    for (args, lines) in [
        (&[][..], 21..31),
        (&["--lines", "2"], 29..31),
        (&["-n", "1"], 30..31),
        (&["--logs", "99"], 1..31),
        (&["--lines", "0"], 31..31),
    ] {
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "get", &id(1).to_string()]).args(args);
        let shown = run(&mut command).stdout;
        let found: Vec<_> =
            shown.lines().filter_map(|line| line.split_once("line ")).map(|(_, n)| n.to_owned()).collect();
        assert_eq!(found, lines.map(|n| n.to_string()).collect::<Vec<_>>(), "{shown}");
    }
}

#[tokio::test]
async fn a_person_is_shown_a_part_of_what_is_too_long_and_a_machine_all_of_it() {
    let mut rows = Rows::new().await;
    rows.run(
        "UPDATE provisioner_jobs SET completed_at = at_second(1), started_at = at_second(0),
            error = repeat('é', 100000) || E'\nthe reason',
            tags = jsonb_build_object('long', repeat('x', 100000))",
    )
    .await;
    let mut command = rows.database.coderdb();
    command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "get", &id(1).to_string()]);
    let shown = run(&mut command).stdout;
    assert!(shown.len() < 20_000, "{}", shown.len());
    assert!(shown.contains("(191820 bytes before this are left out; -o json has all)"), "{}", &shown[..500]);
    assert!(shown.contains("éé\n               the reason\n"), "{shown}");
    assert!(shown.contains("x … and 91813 bytes more; -o json has all\n"), "{shown}");
    let json: Value = serde_json::from_str(&run(command.args(["-o", "json"])).stdout).expect("JSON");
    assert_eq!(json["error"].as_str().map(str::len), Some(200_011));
    assert_eq!(json["tags"]["long"].as_str().map(str::len), Some(100_000));
    // What is short is whole.
    rows.run("UPDATE provisioner_jobs SET error = repeat('e', 8192)").await;
    let mut command = rows.database.coderdb();
    command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "get", &id(1).to_string()]);
    assert_eq!(fact(&run(&mut command).stdout, "ERROR"), Some("e".repeat(8_192).as_str()));
}

#[tokio::test]
async fn the_provisioner_is_shown_wherever_a_job_or_a_daemon_is() {
    let database = demo().await;
    let shown = get(&database, 31, &[]).stdout;
    assert_eq!(fact(&shown, "PROVISIONER"), Some("terraform"), "{shown}");
    let json: Value = serde_json::from_str(&get(&database, 31, &["-o", "json"]).stdout).expect("JSON");
    assert_eq!(json["provisioner"], "terraform");
    let list = |args: &[&str]| run(database.coderdb().args(["provisioner", "jobs", "list"]).args(args)).stdout;
    let column = list(&["-c", "provisioner"]);
    assert!(column.starts_with("PROVISIONER\n") && column.lines().skip(1).all(|line| line == "terraform"), "{column}");
    assert!(list(&["-o", "wide"]).lines().next().is_some_and(|line| line.contains("  PROVISIONER  ")));
    let daemons = run(database.coderdb().args(["provisioner", "daemons", "list"])).stdout;
    let heading = daemons.lines().next().expect("a heading").find("PROVISIONERS").expect("a column");
    assert!(daemons.lines().skip(1).all(|line| line[heading..].starts_with("terraform")), "{daemons}");
}

#[tokio::test]
async fn a_tag_whose_key_has_an_equals_sign_or_a_backslash_is_found() {
    let mut rows = Rows::new().await;
    rows.run(
        r#"SELECT add_job(n) FROM generate_series(2, 4) AS n;
         UPDATE provisioner_jobs SET tags = '{"a=b": "c=d"}' WHERE id = u(1);
         UPDATE provisioner_jobs SET tags = '{"a": "b=c=d"}' WHERE id = u(2);
         UPDATE provisioner_jobs SET tags = '{"a\\": "b, c"}' WHERE id = u(3)"#,
    )
    .await;
    for (tag, n) in [(r"a\=b=c=d", 1), ("a=b=c=d", 2), (r"a\\=b, c", 3)] {
        for args in [["--tag", tag], ["-q", &format!("tag:\"{}\"", tag.replace('\\', r"\\"))]] {
            let mut list = rows.database.coderdb();
            list.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "list", "-o", "name"]).args(args);
            assert_eq!(run(&mut list).stdout, format!("{}\n", id(n)), "{args:?}");
        }
    }
}

/// What each of them runs, its tags, and when it was seen.
type Daemons<'a> = &'a [(&'a str, &'a str, &'a str)];

#[tokio::test]
async fn a_job_that_nobody_works_on_says_why() {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}')",
    )
    .await;
    let why = async |rows: &mut Rows, daemons: &[(&str, &str, &str)], job: &str| {
        rows.run("DELETE FROM provisioner_daemons").await;
        for (n, (provisioner, tags, seen)) in daemons.iter().enumerate() {
            rows.run(&format!(
                "INSERT INTO provisioner_daemons (
                    id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id
                 ) VALUES (u({n}), at_second(0), 'daemon{n}', '{{{provisioner}}}', '{tags}', {seen}, u(1), u(1))"
            ))
            .await;
        }
        rows.run(&format!("UPDATE provisioner_jobs SET tags = '{job}' WHERE id = u(1)")).await;
        let mut command = rows.database.coderdb();
        command.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "get", &id(1).to_string()]);
        let shown = run(&mut command).stdout;
        let json: Value = serde_json::from_str(&run(command.args(["-o", "json"])).stdout).expect("JSON");
        let mut list = rows.database.coderdb();
        list.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "list", "-q"]).arg(format!("id:{}", id(1)));
        let queue = run(list.args(["-c", "queue"])).stdout;
        assert_eq!(fact(&shown, "QUEUE"), queue.lines().nth(1), "{shown}");
        let listed: Vec<Value> = serde_json::from_str(&run(list.args(["-o", "json"])).stdout).expect("JSON");
        for (key, value) in listed[0].as_object().expect("an object") {
            assert_eq!(json.get(key), Some(value), "{key}");
        }
        (fact(&shown, "QUEUE").map(str::to_owned), fact(&shown, "WAITS BECAUSE").map(str::to_owned))
    };
    let untagged = r#"{"scope": "organization", "owner": ""}"#;
    let (aws, gpu) = (
        r#"{"scope": "organization", "owner": "", "env": "aws"}"#,
        r#"{"scope": "organization", "owner": "", "gpu": "true"}"#,
    );
    let both = r#"{"scope": "organization", "owner": "", "env": "aws", "gpu": "true", "dc": "chi"}"#;
    let cases: [(Daemons<'_>, &str, Option<&str>); 11] = [
        (&[], aws, Some("the organization has no daemons")),
        (&[], "{}", Some("the organization has no daemons")),
        (&[("terraform", aws, "now()")], aws, Some("the daemons with these tags do not run echo but terraform")),
        (&[("terraform", aws, "now()")], "{}", Some("the daemons with these tags do not run echo but terraform")),
        (
            &[("terraform", aws, "now()"), ("echo", gpu, "now()")],
            aws,
            Some("the daemons with these tags do not run echo but terraform"),
        ),
        (&[("echo", aws, "now()")], untagged, Some("no daemon is untagged")),
        (&[("echo", aws, "now()"), ("terraform", gpu, "now()")], both, Some("no daemon has dc=chi")),
        (
            &[("echo", aws, "now()"), ("echo", gpu, "now()")],
            r#"{"env": "aws", "gpu": "true"}"#,
            Some("no daemon has all of env=aws gpu=true"),
        ),
        (
            &[("echo", aws, "at_second(0)")],
            aws,
            Some("the only matching daemon is offline, last seen at 2026-05-07T12:00:00Z"),
        ),
        (
            &[("echo", aws, "NULL"), ("echo", aws, "NULL"), ("terraform", aws, "now()")],
            "{}",
            Some("both matching daemons are offline, never seen"),
        ),
        (&[("echo", aws, "at_second(0)"), ("echo", aws, "now()")], aws, None),
    ];
    for (daemons, job, expected) in cases {
        let (queue, because) = why(&mut rows, daemons, job).await;
        assert_eq!(because.as_deref(), expected, "{daemons:?} {job}");
        let position = match expected {
            None => "1/1",
            Some(because) if because.contains("offline") => "1/1 offline",
            Some(_) => "no eligible daemon",
        };
        assert_eq!(queue.as_deref(), Some(position), "{daemons:?} {job}");
    }

    // One that is busy with something else; and then the job is taken, and its daemon goes silent, and away.
    let mut get = rows.database.coderdb();
    get.env("CODER_ORGANIZATION", "org1").args(["provisioner", "jobs", "get", &id(1).to_string()]);
    let echo = why(&mut rows, &[("echo", aws, "now()")], aws).await;
    assert_eq!(echo, (Some("1/1".to_owned()), None));
    let mut shown = async |change: &str| {
        rows.run(change).await;
        let shown = run(&mut get).stdout;
        (fact(&shown, "QUEUE").map(str::to_owned), fact(&shown, "WAITS BECAUSE").map(str::to_owned))
    };
    let said = |queue: Option<&str>, because: &str| (queue.map(str::to_owned), Some(because.to_owned()));
    let busy = "SELECT add_job(9); UPDATE provisioner_jobs SET started_at = now(), worker_id = u(0) WHERE id = u(9)";
    let expected = said(Some("1/1"), "the only matching daemon is busy: position 1 of 1");
    assert_eq!(shown(busy).await, expected);
    let taken = "UPDATE provisioner_jobs SET started_at = now(), worker_id = u(0)";
    assert_eq!(shown(taken).await, (None, None), "its daemon works on it");
    let silent = "UPDATE provisioner_daemons SET last_seen_at = at_second(0)";
    let expected = said(Some("daemon offline"), "taken by a daemon that is offline, last seen at 2026-05-07T12:00:00Z");
    assert_eq!(shown(silent).await, expected);
    assert_eq!(
        shown("DELETE FROM provisioner_daemons").await,
        said(Some("daemon gone"), "taken by a daemon that is gone")
    );
    let canceling = "UPDATE provisioner_jobs SET canceled_at = now()";
    assert_eq!(shown(canceling).await, said(Some("daemon gone"), "taken by a daemon that is gone"));
}

// Daemons --------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn daemons_are_listed_with_what_they_work_on() {
    let database = demo().await;
    let list = ["provisioner", "daemons", "list"];
    let json: Vec<Value> =
        serde_json::from_str(&run(database.coderdb().args(list).args(["-o", "json"])).stdout).expect("JSON");
    let table = run(database.coderdb().args(list)).stdout;
    assert!(json.len() > 1 && table.lines().count() == json.len() + 1, "{table}");
    assert!(table.starts_with("NAME "), "{table}");
    let narrow = run(database.coderdb().env("COLUMNS", "80").args(list)).stdout;
    assert!(narrow.lines().all(|line| line.chars().count() <= 80) && narrow.contains('…'), "{narrow}");
    assert!(!table.contains('…'), "what is no terminal has no width: {table}");
    assert!(json.iter().any(|daemon| daemon["current_job"]["id"].is_string()), "{json:#?}");
    assert!(json.iter().any(|daemon| daemon["previous_job"]["status"].is_string()));
    let tagged = run(database.coderdb().args(list).args(["--tag", "env=on-prem", "-o", "json"])).stdout;
    let tagged: Vec<Value> = serde_json::from_str(&tagged).expect("JSON");
    assert!(!tagged.is_empty() && tagged.iter().all(|daemon| daemon["tags"]["env"] == "on-prem"));
    fails(
        database.coderdb().args(list).args(["--tag", "env=a", "--tag", "env=b"]),
        2,
        &["the tag env is asked for twice; no daemon has both"],
    );
    // The name that it has elsewhere.
    for args in [&["-o", "json"][..], &["--tag", "env=on-prem"], &["--limit", "1"]] {
        let elsewhere = ["provisioner", "list"].iter().chain(args);
        assert_eq!(
            run(database.coderdb().args(elsewhere)).stdout,
            run(database.coderdb().args(list).args(args)).stdout
        );
    }
    assert_eq!(run(database.coderdb().args(["provisioners", "ls"])).stdout, table);
    let one = run(database.coderdb().args(list).args(["--limit", "1", "-o", "json"])).stdout;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&one).expect("JSON"), json[..1]);
    let none = run(database.coderdb().args(list).args(["--tag", "no=such"]));
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "", "No provisioner daemons found\n"));
}

// Quota ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_quota_of_all_members_is_what_is_shown_of_each_in_pages_of_any_size() {
    let mut rows = Rows::new().await;
    rows.run(
        "SELECT add_organization(n) FROM generate_series(2, 3) AS n; SELECT add_user(n) FROM generate_series(2, 1203) AS n;
         UPDATE users SET username = 'B' || username WHERE id > u(600);
         SELECT add_member(1, n), add_group(n, 1, 'g' || n) FROM generate_series(1, 1201) AS n;
         INSERT INTO group_members (group_id, user_id) SELECT u(n), u(n) FROM generate_series(1, 1201, 3) AS n;
         UPDATE groups SET quota_allowance = 10;
         UPDATE users SET deleted = true WHERE id = u(1201); SELECT add_member(2, 1202);
         UPDATE workspace_builds SET daily_cost = 9",
    )
    .await;
    let list = |args: &[&str]| {
        let mut command = rows.database.coderdb();
        let list = run(command.env("CODER_ORGANIZATION", "org1").args(["quota", "list", "-o", "json"]).args(args));
        serde_json::from_str::<Vec<Value>>(&list.stdout).expect("JSON")
    };
    let all = list(&[]);
    let names: Vec<_> = all.iter().map(|user| user["username"].as_str().expect("a name").to_lowercase()).collect();
    assert!(names.is_sorted() && names.len() == 1_200, "{}", names.len());
    for user in all.iter().step_by(97).chain(all.iter().find(|user| user["username"] == "user1")) {
        let mut show = rows.database.coderdb();
        show.env("CODER_ORGANIZATION", "org1").args([
            "quota",
            "show",
            user["username"].as_str().expect("a name"),
            "-o",
            "json",
        ]);
        let shown: Value = serde_json::from_str(&run(&mut show).stdout).expect("JSON");
        assert_eq!(
            (&user["credits_consumed"], &user["budget"]),
            (&shown["credits_consumed"], &shown["budget"]),
            "{user}"
        );
    }
    let over = |percent| list(&["--over", percent]).iter().map(|user| user["username"].clone()).collect::<Vec<_>>();
    assert_eq!(over("90"), ["user1"], "9 of 10");
    assert_eq!(over("91"), [""; 0]);
    assert_eq!(over("0"), ["user1"], "nobody else consumes anything");
    let mut nobody = rows.database.coderdb();
    let nobody = run(nobody.env("CODER_ORGANIZATION", "org1").args(["quota", "list", "--over", "91"]));
    let said = "Nobody consumes 91% of the budget or more\n";
    assert_eq!((nobody.code, nobody.stdout.as_str(), nobody.stderr.as_str()), (0, "", said));
    for args in [&["quota", "list", "--over", "91"][..], &["quota", "list"]] {
        let mut empty = rows.database.coderdb();
        let empty = run(empty.env("CODER_ORGANIZATION", "org3").args(args));
        assert_eq!((empty.stdout.as_str(), empty.stderr.as_str()), ("", "No members found\n"));
    }
    let table = run(rows.database.coderdb().env("CODER_ORGANIZATION", "org1").args(["quota", "list"])).stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0].join(" ").as_str(), lines.len()), ("USER CREDITS CONSUMED BUDGET", 1_201));
    for (line, user) in lines[1..].iter().zip(&all) {
        let said = [user["credits_consumed"].to_string(), user["budget"].to_string()];
        assert_eq!(line[..], [user["username"].as_str().expect("a name"), &said[0], &said[1]]);
    }
}

// Licenses -------------------------------------------------------------------------------------------------------------

/// A token that says this of itself.
fn token(claims: &str) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    format!("e30.{}.s1gnature-s3cret", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn licenses_are_added_listed_and_deleted_and_never_printed() {
    let database = support::database().await;
    let add = |text: &str| run(database.coderdb().args(["licenses", "add"]).write_stdin(format!("{text}\n")));
    let later = OffsetDateTime::now_utc().unix_timestamp() + 86_400;
    let first = token(&format!(r#"{{"exp": {later}, "jti": "{}", "account_id": "acme"}}"#, id(7)));
    let added = add(&first);
    assert!(added.code == 0 && added.stderr.starts_with("License 1 added, expires at 20"), "{}", added.stderr);
    let second = token(&format!(r#"{{"exp": {later}, "nbf": {}}}"#, later - 1));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &second).expect("the license");
    assert_eq!(run(database.coderdb().args(["licenses", "add", "--file"]).arg(file.path())).code, 0, "not valid yet");
    let with_point = token(&format!(r#"{{"exp": {later}.0, "n": 3}}"#));
    assert_eq!(add(&with_point).code, 0);
    assert_eq!(run(database.coderdb().args(["licenses", "delete", "3"])).code, 0);
    let never = token(&format!(r#"{{"exp": {later}, "nbf": {later}}}"#));
    for (text, why) in [
        (first.as_str(), "the license is there already"),
        (&never, "Invalid license: it will never be valid"),
        (&token(r#"{"exp": 1}"#), "Invalid license: it has expired"),
        (&token("{}"), "Invalid license: its exp is missing"),
        (first.rsplit_once('.').expect("a signature").0, "Invalid license: it is not a signed"),
        (&format!("{}.", first.rsplit_once('.').expect("a signature").0), "Invalid license: it is not a signed"),
        ("a.b", "Invalid license: it is not a signed"),
        ("", "Invalid license: it is not a signed"),
    ] {
        let refused = add(text);
        assert!(refused.code == 1 && refused.stderr.contains(why), "{why}: {}", refused.stderr);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
    let list = |args: &[&str]| run(database.coderdb().args(["licenses", "list"]).args(args)).stdout;
    let json: Vec<Value> = serde_json::from_str(&list(&["-o", "json"])).expect("JSON");
    assert_eq!((json[0]["id"].as_i64(), json[1]["id"].as_i64(), json.len()), (Some(1), Some(2), 2));
    assert_eq!((&json[0]["uuid"], &json[0]["claims"]["account_id"]), (&id(7).to_string().into(), &"acme".into()));
    assert!(
        list(&[]).lines().nth(1).is_some_and(|line| line.starts_with('1') && line.ends_with("valid")),
        "{}",
        list(&[])
    );
    assert!(!list(&[]).contains("s3cret") && !list(&["-o", "json"]).contains("s3cret"));
    let delete = |id: &str| run(database.coderdb().args(["licenses", "delete", id]));
    assert_eq!((delete("1").code, delete("1").code), (0, 1));
    assert_eq!(delete("1").stderr, "error: Unknown license ID\n");
    assert_eq!((delete("one").code, delete("one").stderr.as_str()), (2, "error: License ID must be an integer\n"));
    assert_eq!(list(&[]).lines().count(), 2);
}

/// Whatever people paste around a license: it is the same license, and no second copy of it is stored.
#[tokio::test]
async fn a_license_is_the_same_whatever_is_around_it() {
    let database = support::database().await;
    let add = |bytes: Vec<u8>| run(database.coderdb().args(["licenses", "add"]).write_stdin(bytes));
    let later = OffsetDateTime::now_utc().unix_timestamp() + 86_400;
    let clean = token(&format!(r#"{{"exp": {later}}}"#));
    let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(clean.encode_utf16().flat_map(bytes)).collect::<Vec<_>>()
    };
    let (middle, end) = clean.split_at(30);
    // Of the last of these characters four bits say nothing.
    let ending = |last: char| format!("{clean}A{last}");
    let spellings = [
        clean.clone().into_bytes(),
        format!("\u{feff}{clean}").into_bytes(),
        format!(" \t{clean}\r\n\n").into_bytes(),
        format!("{middle}\r\n{end}").into_bytes(),
        format!("{middle} {end}").into_bytes(),
        format!("\u{200b}{clean}\u{a0}").into_bytes(),
        format!("Bearer {clean}").into_bytes(),
        format!("bearer\t{clean}").into_bytes(),
        format!("\"{clean}\"").into_bytes(),
        format!("'{clean}'\n").into_bytes(),
        format!("\u{201c}{clean}\u{201d}").into_bytes(),
        format!("\u{feff}\"Bearer {clean}\"\r\n").into_bytes(),
        utf16([0xff, 0xfe], u16::to_le_bytes),
        utf16([0xfe, 0xff], u16::to_be_bytes),
    ];
    for (n, spelling) in spellings.iter().enumerate() {
        let added = add(spelling.clone());
        let stderr = added.stderr.as_str();
        match n {
            0 => assert_eq!(added.code, 0, "{stderr}"),
            _ => assert_eq!((added.code, stderr), (1, "error: the license is there already: number 1\n"), "{n}"),
        }
    }
    assert_eq!(run(database.coderdb().args(["licenses", "delete", "1"])).code, 0);
    // Each of them is the first one, too.
    let mut conn = database.connect().await;
    for (n, spelling) in spellings.iter().enumerate() {
        assert_eq!(add(spelling.clone()).code, 0, "{n}");
        let stored: String =
            sqlx::query_scalar("DELETE FROM licenses RETURNING jwt").fetch_one(&mut conn).await.expect("one");
        assert_eq!(stored, clean, "{n}");
    }
    // One that was stored with something around it, before.
    for around in [format!("\u{feff}{clean}"), format!("Bearer {clean}"), format!("{middle}\n{end}")] {
        sqlx::query(
            "INSERT INTO licenses (uploaded_at, jwt, exp, uuid) VALUES (now(), $1, now() + interval '1 day', $2)",
        )
        .bind(&around)
        .bind(id(9))
        .execute(&mut conn)
        .await
        .expect("stored");
        assert!(add(clean.clone().into_bytes()).stderr.starts_with("error: the license is there already"), "{around}");
        let json = run(database.coderdb().args(["licenses", "list", "-o", "json"])).stdout;
        assert!(json.contains(&later.to_string()), "its claims are shown: {json}");
        sqlx::query("DELETE FROM licenses").execute(&mut conn).await.expect("deleted");
    }
    // Other bytes are another license.
    assert_eq!((add(ending('A').into()).code, add(ending('B').into()).code), (0, 1));
    assert_eq!(add(format!("{clean}AAAA").into()).code, 0);
}

#[tokio::test]
async fn what_is_no_license_is_refused_with_the_reason() {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let database = support::database().await;
    let add = |text: &str| run(database.coderdb().args(["licenses", "add"]).write_stdin(text.to_owned()));
    let later = OffsetDateTime::now_utc().unix_timestamp() + 86_400;
    let good = token(&format!(r#"{{"exp": {later}}}"#));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let base64 = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    for (text, why) in [
        (String::new(), "it is empty"),
        ("\u{feff}\"\"\n".to_owned(), "it is empty"),
        (payload.to_owned(), "it has 1 parts instead of three"),
        (format!("{good}.{signature}"), "it has 4 parts instead of three"),
        (format!("!!!.{payload}.{signature}"), "its header is not base64url"),
        (format!(".{payload}.{signature}"), "its header is no JSON object"),
        (format!("{}.{payload}.{signature}", base64("[]")), "its header is no JSON object"),
        (format!("{}.{payload}.{signature}", base64("{")), "its header is no JSON object"),
        (format!("{}.{payload}.{signature}", "AAAA"), "its header is no JSON object"),
        (format!("{header}.{payload}==.{signature}"), "its payload is not base64url without padding"),
        (format!("{header}.{}.{signature}", base64("7")), "its payload is no JSON object"),
        (format!("{header}.{payload}."), "its signature is missing"),
        (format!("{header}.{payload}.a+/b"), "its signature is not base64url"),
        (format!("\"{good}"), "its header is not base64url"),
        (format!("Basic {good}"), "its header is "),
    ] {
        let refused = add(&text);
        let why = format!("error: Invalid license: it is not a signed JSON web token: {why}");
        assert!(refused.code == 1 && refused.stderr.starts_with(&why), "{why}: {}", refused.stderr);
        assert!(!refused.stderr.contains(payload), "{}", refused.stderr);
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"a\xff\xfe.b.c").expect("bytes");
    let refused = run(database.coderdb().args(["licenses", "add", "--file"]).arg(file.path()));
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "error: Invalid license: it is not a text in UTF-8\n"));
    // Times that are none, each by its name. What is null is not there.
    for claim in ["exp", "nbf", "iat", "license_expires"] {
        for (value, why) in [
            (r#""soon""#, "is a text; expected a number of seconds since 1970"),
            (r#""1800000000""#, "is a text"),
            ("true", "is no number"),
            ("[1800000000]", "is no number"),
            ("{}", "is no number"),
            ("1800000000000", "is in milliseconds; expected a number of seconds"),
            ("1.8e12", "is in milliseconds"),
            ("1800000000000000", "is not in the years 1 to 9999"),
            ("1e300", "is not in the years 1 to 9999"),
            ("-1e12", "is "),
        ] {
            let exp = if claim == "exp" { String::new() } else { format!(r#""exp": {later}, "#) };
            let refused = add(&token(&format!(r#"{{{exp}"{claim}": {value}}}"#)));
            let expected = format!("error: Invalid license: its {claim} {why}");
            let right = refused.code == 1 && refused.stderr.starts_with(&expected);
            assert!(right, "{claim} {value}: {}", refused.stderr);
        }
    }
    assert!(add(&token(r#"{"exp": null}"#)).stderr.contains("its exp is missing"));
    let list = || run(database.coderdb().args(["licenses", "list"]));
    assert_eq!(list().stderr, "No licenses found\n", "nothing was stored");
    assert_eq!(add(&token(&format!(r#"{{"exp": {later}, "nbf": null, "iat": null}}"#))).code, 0);
    assert_eq!(add(&token(r#"{"exp": 253402300799}"#)).code, 0, "the end of the year 9999");
    let nbf = format!(r#"{{"exp": {later}, "nbf": {}}}"#, later - 60);
    assert_eq!(add(&token(&nbf)).code, 0);
    let mut conn = database.connect().await;
    sqlx::query("UPDATE licenses SET exp = now() WHERE id = 1").execute(&mut conn).await.expect("expired");
    let table = list().stdout;
    let starts = (OffsetDateTime::from_unix_timestamp(later - 60).expect("a time")).format(&Rfc3339).expect("a text");
    let starts = format!("not yet valid: starts at {starts}");
    let states: Vec<_> = table.lines().map(|line| line.trim_end().rsplit("  ").next().unwrap_or("").trim()).collect();
    assert_eq!(states, ["STATE", "expired", "valid", &*starts], "{table}");
}

#[tokio::test]
async fn quota_show_explains_what_the_numbers_are_made_of() {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let shown = run(database.coderdb().args(["quota", "show", "dave", "--explain", "-o", "json"]));
    let explained: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let sum = |list: &str, key: &str| -> i64 {
        explained[list].as_array().expect("a list").iter().map(|part| part[key].as_i64().expect("a number")).sum()
    };
    assert_eq!(explained["credits_consumed"], sum("workspaces", "credits"));
    assert_eq!(explained["budget"], sum("groups", "allowance"));
    let table = run(database.coderdb().args(["quota", "show", "dave", "--explain"])).stdout;
    for part in ["Everyone", "developers", "ALLOWANCE", "it runs", "WHY"] {
        assert!(table.to_uppercase().contains(&part.to_uppercase()), "{part} is not in\n{table}");
    }
}
