//! `provisioner jobs list` as people and machines read it.

use std::{env, fs, io::BufRead as _, path::Path};

use coderdb::sqlx;
use serde_json::Value;

use crate::support::{self, Database, fails, run};

const LIST: [&str; 3] = ["provisioner", "jobs", "list"];

/// The demo, with names that are wide, or that count as fewer characters than they have.
async fn wide_demo() -> Database {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let mut conn = database.connect().await;
    let sql = "UPDATE templates SET display_name = '開発環境（東京リージョン）🚀' WHERE name = 'kubernetes';
               UPDATE templates SET display_name = 'Famille 👨‍👩‍👧‍👦 e\u{301}te\u{301}' WHERE name = 'docker';
               UPDATE provisioner_jobs SET error = '構築に失敗しました: ' || error WHERE error <> '';
               UPDATE provisioner_daemons SET tags = tags - 'env' WHERE tags ? 'env' AND tags ->> 'env' = 'aws';";
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    database
}

fn is_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/list").join(name);
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        let how = "CODERDB_UPDATE=1 cargo test --test it list::";
        assert!(env::var_os("CODERDB_UPDATE").is_some(), "{}: {how}\n{found}", path.display());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
}

#[tokio::test]
async fn a_table_is_as_wide_as_the_terminal_and_no_wider() {
    use unicode_width::UnicodeWidthStr;
    let database = wide_demo().await;
    let columns = "id,status,queue,template display name,workspace name,error code,error";
    for width in [60, 80, 120, 200] {
        for (name, args) in [("jobs", &["--limit", "30"][..]), ("failed", &["-s", "failed", "-c", columns])] {
            let table = run(database.coderdb().env("COLUMNS", width.to_string()).args(LIST).args(args));
            assert_eq!(table.code, 0, "{}", table.stderr);
            for line in table.stdout.lines() {
                assert!(line.width() <= width, "{} cells in {width}: {line}", line.width());
                assert_eq!(line.trim_end(), line);
            }
            is_golden(&format!("{name}-{width}.txt"), &(table.stdout + &table.stderr));
        }
    }
    let wide = run(database.coderdb().env("COLUMNS", "60").args(LIST).args(["-o", "wide"]));
    is_golden("wide.txt", &wide.stdout);
    let nowhere = run(database.coderdb().args(LIST).args(["--limit", "30"])).stdout;
    assert!(!nowhere.contains('…'), "what is no terminal has no width: {nowhere}");
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_whoever_asks() {
    let database = wide_demo().await;
    let failed = |variables: &[(&str, &str)], args: &[&str]| {
        let mut coderdb = database.coderdb();
        coderdb.envs(variables.iter().copied()).args(LIST).args(["-s", "failed"]).args(args);
        run(&mut coderdb).stdout
    };
    let plain = failed(&[], &[]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let colored = failed(&[], &["--color", "always"]);
    assert!(colored.contains("\u{1b}[31mfailed\u{1b}[0m"), "{colored}");
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain, "colours change no width");
    assert_eq!(failed(&[("CLICOLOR_FORCE", "1")], &[]), colored);
    assert_eq!(failed(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], &["--color", "never"]), plain);
    assert_eq!(failed(&[("NO_COLOR", "1")], &[]), plain);
    for format in ["json", "jsonl", "csv", "name"] {
        let machine = failed(&[], &["--color", "always", "-o", format]);
        assert!(!machine.contains('\u{1b}'), "{format}: {machine}");
    }
}

#[tokio::test]
async fn every_format_tells_of_the_same_jobs() {
    let database = wide_demo().await;
    let list = |args: &[&str]| {
        let outcome = run(database.coderdb().args(LIST).args(args));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{args:?}");
        outcome.stdout
    };
    let ids = |args: &[&str]| {
        let json: Vec<Value> = serde_json::from_str(&list(&[args, &["-o", "json"]].concat())).unwrap();
        let ids = json.iter().map(|job| job["id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), json)
    };
    for args in [&["-l", "7"][..], &["--all"], &["-l", "0", "-q", "status:succeeded"], &["-q", "tag:no=such"]] {
        let (expected, json) = ids(args);
        let with = |format| list(&[args, &["-o", format]].concat());
        assert_eq!(with("name").lines().collect::<Vec<_>>(), expected);
        let lines: Vec<Value> = with("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, json);
        let columns = "id,created at,error,template display name,workspace name,tags";
        let csv = list(&[args, &["-o", "csv", "-c", columns]].concat());
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>().join(","), columns);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.iter().map(|row| row[0].to_owned()).collect::<Vec<_>>(), expected);
        for (row, job) in rows.iter().zip(&json) {
            assert_eq!(row[1], *job["created_at"].as_str().unwrap());
            assert_eq!(row[2], *job["error"].as_str().unwrap_or_default());
            assert_eq!(row[3], *job["metadata"]["template_display_name"].as_str().unwrap());
        }
    }
    let (mut limited, _) = ids(&["-l", "1000"]);
    let (all, _) = ids(&["--all"]);
    limited.reverse();
    assert_eq!(all, limited, "all jobs come newest first, and a limited list oldest first");
    assert_eq!(ids(&["-l", "0"]).0, all);
}

#[tokio::test]
async fn all_jobs_come_in_pages_that_neither_lose_nor_repeat_one() {
    let database = wide_demo().await;
    let mut conn = database.connect().await;
    // Many of one moment, more than two pages, and the last page full.
    let jobs = "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                    storage_method, type, input, file_id, tags)
                SELECT gen_random_uuid(), '2026-05-07'::timestamptz + n / 3000 * interval '1 s', '2026-05-07',
                    o.id, u.id, 'echo', 'file', 'template_version_import', '{}', gen_random_uuid(), '{\"n\": \"1\"}'
                FROM generate_series(1, 6000) AS n,
                    (SELECT id FROM organizations WHERE is_default LIMIT 1) AS o, (SELECT id FROM users LIMIT 1) AS u";
    sqlx::raw_sql(jobs).execute(&mut conn).await.unwrap();
    let expected: Vec<String> = sqlx::query_scalar(
        "SELECT id::text FROM provisioner_jobs WHERE tags = '{\"n\": \"1\"}' ORDER BY created_at DESC, id DESC",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let list = |format| run(database.coderdb().args(LIST).args(["--all", "-q", "tag:n=1", "-o", format]));
    assert_eq!(list("name").stdout.lines().collect::<Vec<_>>(), expected);
    let csv = list("csv").stdout;
    assert_eq!(csv.lines().count(), 6001, "one line of headings");
    let table = list("table");
    assert_eq!(table.stdout.lines().count(), 6001, "one line of headings");
    assert_eq!(table.stderr, "6000 jobs wait: no daemon has n=1\n");
    let json: Vec<Value> = serde_json::from_str(&list("json").stdout).unwrap();
    assert_eq!(json.len(), 6000);
}

/// The most memory that a process has ever held, in KiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_jobs_are_listed_in_the_memory_of_a_few_thousand() {
    const JOBS: usize = 100_000;
    let database = wide_demo().await;
    let mut conn = database.connect().await;
    let jobs = format!(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, completed_at, organization_id,
             initiator_id, provisioner, storage_method, type, input, file_id)
         SELECT gen_random_uuid(), '2026-05-07'::timestamptz + n * interval '1 ms', '2026-05-07', '2026-05-07',
             '2026-05-07', o.id, u.id, 'echo', 'file', 'template_version_import', '{{}}', gen_random_uuid()
         FROM generate_series(1, {JOBS}) AS n, (SELECT id FROM organizations WHERE is_default LIMIT 1) AS o,
             (SELECT id FROM users LIMIT 1) AS u; ANALYZE provisioner_jobs"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(jobs)).execute(&mut conn).await.unwrap();
    let mut coderdb = std::process::Command::new(support::CODERDB);
    coderdb.env_clear().envs(database.environment()).args(LIST).args(["--all", "-q", "status:succeeded"]);
    let mut listing = coderdb.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // The pipe holds back the program, which is at most a page ahead of what is read here.
    let mut lines = std::io::BufReader::new(listing.stdout.take().unwrap()).lines();
    assert_eq!(lines.by_ref().take(5_000).count(), 5_000);
    let early = peak(listing.id());
    assert_eq!(lines.by_ref().take(90_000).count(), 90_000);
    let late = peak(listing.id());
    assert!(lines.count() > 5_000);
    assert!(listing.wait().unwrap().success());
    assert!(late < early + 16 * 1_024, "{early} KiB after 5,000 lines, {late} KiB after 95,000");
}

#[tokio::test]
async fn a_reader_that_has_gone_away_ends_the_listing() {
    let database = wide_demo().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut coderdb = std::process::Command::new(support::CODERDB);
    coderdb.envs(database.environment()).args(LIST).args(["--all", "-o", "name"]).stdout(writer);
    assert_eq!(coderdb.output().unwrap().status.code(), Some(0));
}

#[tokio::test]
async fn a_queue_says_why_a_job_waits() {
    let database = wide_demo().await;
    let list = |args: &[&str]| run(database.coderdb().args(LIST).args(args));
    let aws = ["-q", "status:pending tag:env=aws", "-c", "queue"];
    let table = list(&aws);
    assert_eq!(table.stdout, "QUEUE\nno eligible daemon\n");
    assert_eq!(table.stderr, "1 job waits: no daemon has env=aws\n");
    let wide = list(&[&aws[..], &["-o", "wide"]].concat());
    assert_eq!(wide.stdout, "QUEUE\nno eligible daemon: no daemon has env=aws\n");
    let json = |query| {
        let jobs: Vec<Value> = serde_json::from_str(&list(&["-o", "json", "-q", query]).stdout).unwrap();
        jobs.into_iter().next().unwrap()
    };
    let job = json("status:pending tag:env=aws");
    assert_eq!(job["queue_state"], "no_daemon_has_tags");
    assert_eq!(job["missing_tags"], serde_json::json!({"env": "aws"}));
    // The daemons of the demo have been silent since it was made.
    let on_prem = ["-q", "status:pending tag:env=on-prem", "-c", "queue"];
    let table = list(&on_prem);
    assert!(table.stdout.lines().skip(1).all(|line| line.ends_with("/15 offline")), "{}", table.stdout);
    assert!(table.stderr.contains("matching daemons are offline, last seen at 2026-05-07T"), "{}", table.stderr);
    let job = json("status:pending tag:env=on-prem");
    assert_eq!((&job["queue_state"], job.get("missing_tags")), (&"all_offline".into(), None));
    let running = list(&["-q", "status:running", "-c", "queue"]);
    assert!(running.stdout.lines().skip(1).all(|line| line == "daemon offline"), "{}", running.stdout);
    assert!(
        running.stderr.contains("taken by a daemon that is offline, last seen at 2026-05-07T"),
        "{}",
        running.stderr
    );
    let mut conn = database.connect().await;
    sqlx::raw_sql("UPDATE provisioner_daemons SET last_seen_at = now()").execute(&mut conn).await.unwrap();
    let table = list(&on_prem);
    assert!(table.stdout.lines().skip(1).all(|line| line.ends_with("/15")), "{}", table.stdout);
    assert_eq!(table.stderr, "");
    let job = json("status:pending tag:env=on-prem");
    assert!(["ranked", "all_busy"].contains(&job["queue_state"].as_str().unwrap()), "{job}");
    let job = json("status:succeeded");
    assert_eq!((&job["queue_state"], job.get("missing_tags")), (&"not_queued".into(), None));
    assert_eq!(list(&["-q", "status:running", "-c", "queue"]).stdout.trim(), "QUEUE");

    // Each tag has a daemon, but no daemon has both; and nobody takes what has no tags.
    let sql = "UPDATE provisioner_daemons SET tags = tags || '{\"env\": \"cloud\", \"gpu\": \"false\"}';
               UPDATE provisioner_daemons SET tags = tags || '{\"env\": \"other\", \"gpu\": \"true\"}'
                   WHERE id = (SELECT min(id::text)::uuid FROM provisioner_daemons);
               UPDATE provisioner_jobs SET tags = tags || '{\"env\": \"cloud\", \"gpu\": \"true\"}'
                   WHERE tags ? 'env' AND job_status = 'pending'";
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    let told = list(&["-s", "pending"]).stderr;
    assert!(told.contains("jobs wait: no daemon has all of env=cloud gpu=true owner= scope=organization\n"), "{told}");
    assert!(told.contains("no daemon is untagged\n"), "{told}");
}

#[tokio::test]
async fn a_search_and_flags_are_one_query() {
    let database = wide_demo().await;
    let ids = |args: &[&str]| {
        let outcome = run(database.coderdb().args(LIST).args(["-o", "name"]).args(args));
        assert_eq!(outcome.code, 0, "{args:?}: {}", outcome.stderr);
        outcome.stdout
    };
    let flags = ids(&["--initiator", "prebuilds", "--status", "pending", "--tag", "env=on-prem", "--org", "coder"]);
    assert!(!flags.is_empty());
    assert_eq!(ids(&["-q", "organization:coder initiator:prebuilds status:pending tag:env=on-prem"]), flags);
    assert_eq!(ids(&["-q", "status:pending", "--tag", "env=on-prem", "-i", "prebuilds"]), flags);
    assert_eq!(ids(&["-q", "created:>1000d"]), "");
    assert_eq!(ids(&["-q", "created:<2026-05-08"]), ids(&[]));

    let list = |args: &[&str], code, parts: &[&str]| fails(database.coderdb().args(LIST).args(args), code, parts);
    list(&["-q", "stauts:pending"], 2, &["character 1", "\"stauts\" is no key", "did you mean status?"]);
    list(&["-q", "status:pending", "--status", "failed"], 2, &["status is asked for twice"]);
    list(&["--tag", "a=1", "--tag", "a=2"], 2, &["tag is asked for twice"]);
    list(&["-q", "workspace:nobody/x"], 1, &["error: workspace not found: nobody/x", "name a workspace"]);
    list(&["-q", "-initiator:me"], 1, &["error: initiator not found: me", "CODERDB_USER"]);
    list(&["-q", "organization:x"], 1, &["error: organization not found: x"]);
}

#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let database = wide_demo().await;
    let list = |variables: &[(&str, &str)]| {
        run(database.coderdb().envs(variables.iter().copied()).args(LIST).args(["-o", "name"]))
    };
    let all = list(&[]).stdout;
    let names = ["STATUS", "LIMIT", "INITIATOR"].map(|name| format!("CODER_PROVISIONER_JOB_LIST_{name}"));
    let empty: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "")).chain([("CODER_ORGANIZATION", "")]).collect();
    assert_eq!(list(&empty).stdout, all);
    let some = list(&[(&names[0], "pending"), (&names[1], "3"), (&names[2], "prebuilds")]).stdout;
    let flags = ["-s", "pending", "-l", "3", "-i", "prebuilds"];
    assert_eq!(some, run(database.coderdb().args(LIST).args(["-o", "name"]).args(flags)).stdout);
    assert_eq!(some.lines().count(), 3);
    assert_eq!(list(&[(&names[0], "lost")]).code, 2);
}

#[tokio::test]
async fn a_search_wins_over_a_variable_and_not_over_a_flag() {
    let database = wide_demo().await;
    let list = |variables: &[(&str, &str)], args: &[&str]| {
        run(database.coderdb().envs(variables.iter().copied()).args(LIST).args(["-o", "name"]).args(args))
    };
    let status = ("CODER_PROVISIONER_JOB_LIST_STATUS", "failed");
    let initiator = ("CODER_PROVISIONER_JOB_LIST_INITIATOR", "alice");
    let organization = ("CODER_ORGANIZATION", "coder");
    let query = ["-q", "status:pending initiator:prebuilds organization:coder"];
    let expected = list(&[], &query).stdout;
    assert!(!expected.is_empty());
    let found = list(&[status, initiator, organization], &query);
    assert_eq!((found.code, found.stdout), (0, expected), "{}", found.stderr);
    assert_eq!(list(&[status], &["-q", "-status:pending"]).stdout, list(&[], &["-q", "-status:pending"]).stdout);
    assert_eq!(list(&[("CODER_ORGANIZATION", "nowhere")], &query).code, 0);
    assert_eq!(list(&[status], &["-s", "failed", "-q", "status:pending"]).code, 2);
    assert_eq!(list(&[organization], &["-O", "coder", "-q", "organization:coder"]).code, 2);
    // What the search says nothing of, the variable says.
    assert_eq!(list(&[status], &["-q", "organization:coder"]).stdout, list(&[], &["-s", "failed"]).stdout);
}

#[tokio::test]
async fn statuses_and_columns_are_read_in_any_case_and_behind_spaces() {
    let database = wide_demo().await;
    let list = |args: &[&str]| run(database.coderdb().args(LIST).args(args));
    let expected = list(&["-s", "pending,failed", "-c", "id,status"]);
    assert_eq!(expected.code, 0);
    assert_eq!(list(&["-s", "Pending, FAILED", "-c", "ID, Status"]).stdout, expected.stdout);
    fails(database.coderdb().args(LIST).args(["-s", "pendin"]), 2, &["pendin", "'pending'"]);
}

#[tokio::test]
async fn a_listing_that_is_not_all_says_so_to_whoever_gave_no_limit() {
    let database = wide_demo().await;
    let jobs = "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner,
                    storage_method, type, input, file_id, tags, completed_at)
                SELECT gen_random_uuid(), '2026-05-07'::timestamptz, '2026-05-07', o.id, u.id, 'echo', 'file',
                    'template_version_import', '{}', gen_random_uuid(), '{\"n\": \"1\"}', '2026-05-07'
                FROM generate_series(1, 51) AS n,
                    (SELECT id FROM organizations WHERE is_default LIMIT 1) AS o, (SELECT id FROM users LIMIT 1) AS u";
    sqlx::raw_sql(jobs).execute(&mut database.connect().await).await.unwrap();
    let list = |args: &[&str]| run(database.coderdb().args(LIST).args(["-q", "tag:n=1"]).args(args));
    for format in ["table", "json", "name"] {
        let found = list(&["-o", format]);
        assert_eq!((found.code, found.stderr.as_str()), (0, "the newest 50 are shown; --all shows the rest\n"));
    }
    for args in [&["--all"][..], &["-l", "0"], &["-l", "50"], &["-l", "51"], &["--status", "failed"]] {
        let quiet = list(&[args, &["-o", "name"]].concat());
        assert_eq!(quiet.stderr, "", "{args:?}");
    }
    // Of jobs of one moment, the order is that of their ids.
    let ids: Vec<String> = list(&["-o", "name", "-l", "51"]).stdout.lines().map(str::to_owned).collect();
    assert!(ids.len() == 51 && ids.is_sorted(), "{ids:?}");
}

#[tokio::test]
async fn no_json_steers_the_terminal_it_is_printed_on() {
    let database = wide_demo().await;
    let text = "a\u{9b}2J\u{7f}\u{202e}\u{200f}\u{61c}\u{2028}\u{2066}é日本";
    let sql = "UPDATE provisioner_jobs SET error = $1 WHERE job_status = 'failed'";
    sqlx::query(sql).bind(text).execute(&mut database.connect().await).await.unwrap();
    let escaped = r"a\u009b2J\u007f\u202e\u200f\u061c\u2028\u2066é日本";
    let failed = ["-s", "failed"];
    for format in ["json", "jsonl"] {
        let json = run(database.coderdb().args(LIST).args(failed).args(["-o", format])).stdout;
        assert!(json.contains(&format!("\"{escaped}\"")), "{json}");
        let parsed: Value = serde_json::Deserializer::from_str(&json).into_iter().next().unwrap().unwrap();
        let job = parsed.get(0).unwrap_or(&parsed);
        assert_eq!(job["error"], text);
    }
    let id = run(database.coderdb().args(LIST).args(failed).args(["-o", "name"])).stdout;
    let id = id.lines().next().unwrap();
    let one = run(database.coderdb().args(["provisioner", "jobs", "get", id, "-o", "json"])).stdout;
    assert!(one.contains(escaped), "{one}");
    let table = run(database.coderdb().args(LIST).args(failed).args(["-c", "error"])).stdout;
    assert!(table.contains("a 2J      é日本\n"), "{table}");
}

// Help, completions and the manual -------------------------------------------------------------------------------------

/// Every command below this one, with its path.
fn walk(command: &clap::Command, path: &[String], visit: &mut dyn FnMut(&[String])) {
    visit(path);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), visit);
    }
}

#[test]
fn every_help_has_an_example_and_every_command_a_page_in_the_manual() {
    let mut commands = Vec::new();
    walk(&coderdb::cli::command(), &[], &mut |path| commands.push(path.to_vec()));
    assert!(commands.len() > 15);
    let without = |commands: &[Vec<String>], is_fine: &dyn Fn(&[String]) -> bool| {
        commands.iter().filter(|path| !is_fine(path)).map(|path| path.join(" ")).collect::<Vec<_>>()
    };
    let has_example = |path: &[String]| run(support::coderdb().args(path).arg("--help")).stdout.contains("Example");
    assert_eq!(without(&commands, &has_example), [""; 0], "these have no example");
    // Examples are copied: on a terminal of 80 columns, too, a line of one is a line.
    let fits = |path: &[String]| {
        let help = run(support::coderdb().args(path).arg("--help")).stdout;
        let (_, examples) = help.split_once("\nExample").expect("examples");
        let examples = examples.split("\n\n").next().unwrap_or_default();
        examples.lines().skip(1).all(|line| line.starts_with("  ") && line.len() <= 78)
    };
    assert_eq!(without(&commands, &fits), [""; 0], "these have an example that is too long");
    let is_explained = |path: &[String]| {
        let (bare, help) = (run(support::coderdb().args(path)), run(support::coderdb().args(path).arg("-h")));
        bare.code == 0 && bare.stderr.is_empty() && bare.stdout == help.stdout
    };
    let is_group =
        |path: &&Vec<String>| commands.iter().any(|other| other.len() > path.len() && other.starts_with(path));
    let groups: Vec<_> = commands.iter().filter(is_group).cloned().collect();
    assert!(groups.len() > 5);
    assert_eq!(without(&groups, &is_explained), [""; 0], "these groups do not print their help");
    let initiator = run(support::coderdb().args(LIST).arg("--help")).stdout;
    assert!(initiator.contains("Filter by initiator (user ID or username).\n"), "{initiator}");
    let has_page = |path: &[String]| {
        let page = run(support::coderdb().arg("man").args(path)).stdout;
        let title = [&["coderdb".to_owned()][..], path].concat().join("-").replace('-', "\\-");
        page.starts_with(".ie")
            && page.contains(".SH \"EXIT STATUS\"")
            && page.contains(&format!("{title} \\- "))
            && page.contains("Example")
    };
    assert_eq!(without(&commands, &has_page), [""; 0], "these have no page");
    fails(support::coderdb().args(["man", "nothing"]), 2, &["no command nothing"]);
}

fn completed(command: &mut assert_cmd::Command, words: &[&str]) -> Vec<String> {
    let outcome = run(command.env("CODERDB_COMPLETE", "fish").args(["--", "coderdb"]).args(words));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{words:?}");
    // Behind a tab is what the candidate means.
    outcome.stdout.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_shell_completes_columns_statuses_organizations_and_searches() {
    let database = wide_demo().await;
    let complete = |words: &[&str]| completed(&mut database.coderdb(), &[&LIST[..], words].concat());
    assert_eq!(complete(&["--status", "canc"]), ["canceling", "canceled"]);
    assert_eq!(complete(&["--status", "pending,ru"]), ["pending,running"]);
    assert_eq!(complete(&["-c", "id,worker"]), ["id,worker id", "id,worker name"]);
    assert_eq!(complete(&["--org", "co"]), ["coder"]);
    assert_eq!(complete(&["--search", "status:pending organization:co"]), ["status:pending organization:coder"]);
    assert_eq!(complete(&["--search", "st"]), ["status:"]);
    assert_eq!(complete(&["--search", "status:pending -tr"]), ["status:pending -transition:"]);
    assert_eq!(complete(&["--search", "-status:pending,fa"]), ["-status:pending,failed"]);
    assert_eq!(complete(&["-o", "json"]), ["json", "jsonl"]);
    for url in [None, Some("postgres://nobody@127.0.0.1:1/db"), Some("not a url")] {
        let mut coderdb = support::coderdb();
        coderdb.envs(url.map(|url| ("DATABASE_URL", url)));
        assert_eq!(completed(&mut coderdb, &[&LIST[..], &["--org", "co"]].concat()), [""; 0], "{url:?}");
    }
}

#[test]
fn every_shell_gets_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(support::coderdb().args(["completions", shell]));
        assert!(script.code == 0 && script.stdout.contains("CODERDB_COMPLETE"), "{shell}: {}", script.stdout);
    }
    fails(support::coderdb().args(["completions", "tcsh"]), 2, &["tcsh", "bash", "zsh"]);
}
