//! What happens on a terminal: tmux is one, and says what is on it.

use crate::support::terminal::Terminal;
use crate::support::{self, rows::Rows};
use coderdb::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};
use std::process::Command;

async fn world() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "UPDATE workspaces SET name = 'wohnung-日本語' WHERE id = u(1);
         SELECT add_job(n) FROM generate_series(2, 40) AS n;
         UPDATE provisioner_jobs SET created_at = now() - interval '3 hours';
         UPDATE provisioner_jobs SET initiator_id = prebuilds() WHERE id > u(30);
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\", \"env\": \"aws\"}' WHERE id > u(20);
         UPDATE provisioner_jobs SET tags = '{\"scope\": \"organization\", \"owner\": \"\"}' WHERE id <= u(20);
         UPDATE provisioner_jobs SET provisioner = 'terraform' WHERE id = u(20);
         UPDATE provisioner_jobs SET worker_id = u(1), started_at = now() - interval '2 minutes' WHERE id IN (u(1), u(2));
         UPDATE provisioner_jobs SET input = jsonb_build_object('workspace_build_id', u(1)) WHERE id = u(1);
         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(1), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         SELECT u(n), at_second(n), 'daemon-' || n, '{echo}', '{\"scope\": \"organization\", \"owner\": \"\"}',
             CASE WHEN n < 3 THEN now() END, u(1), u(1)
         FROM generate_series(1, 9) AS n",
    )
    .await;
    rows
}

const WATCH: &str = "coderdb provisioner jobs watch; echo code $? end";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_shows_queue_jobs_and_daemons_on_80_by_24_and_what_changes() {
    let mut rows = world().await;
    let terminal = Terminal::open(&rows, (80, 24));
    terminal.press(&[WATCH, "Enter"]);
    let screen = terminal.shows(|screen| screen.contains("q quits")).await;
    let lines: Vec<_> = screen.lines().collect();
    assert!(lines[0].starts_with("org1: 38 pending, 2 running, 2 of 9 daemons online, 20"), "{screen}");
    for (heading, row) in [("QUEUE ", "env=aws  "), ("RUNNING ", "wohnung-日本語 "), ("DAEMON ", "daemon-9  ")] {
        let at = lines.iter().position(|line| line.starts_with(heading)).expect(heading);
        assert!(lines[at + 1..at + 3].iter().any(|line| line.starts_with(row)), "{row}:\n{screen}");
    }
    let aws: Vec<_> =
        lines.iter().find(|line| line.starts_with("env=aws")).expect("a row").split_whitespace().collect();
    assert_eq!(aws, ["env=aws", "echo", "20", "10", "3h", "none"], "{screen}");
    let untagged: Vec<_> = lines.iter().filter(|line| line.starts_with("untagged ")).collect();
    let ends = |end: &str| untagged.iter().any(|line| line.split_whitespace().eq(end.split(' ')));
    assert!(ends("untagged echo 17 0 3h 2"), "{screen}");
    assert!(ends("untagged terraform 1 0 3h none"), "both daemons are there for echo alone:\n{screen}");
    assert!(screen.contains("and 4 more"), "of nine daemons, six lines:\n{screen}");

    rows.run("UPDATE provisioner_jobs SET completed_at = now(), canceled_at = now() WHERE id > u(30)").await;
    terminal.shows(|screen| screen.starts_with("org1: 28 pending")).await;
    terminal.ask(&["resize-window", "-x", "120", "-y", "40"]);
    terminal.shows(|screen| screen.contains("daemon-1 ") && !screen.contains("more")).await;
    terminal.press(&["q"]);
    terminal.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_honours_filters_and_leaves_the_terminal_clean_however_it_ends() {
    let mut rows = world().await;
    let terminal = Terminal::open(&rows, (80, 24));
    // Old enough only after the first look.
    rows.run("UPDATE provisioner_jobs SET created_at = now() + interval '2 seconds' WHERE id > u(30)").await;
    let aging = WATCH.replace(';', " --initiator prebuilds -q 'created:>1s';");
    terminal.press(&[&aging, "Enter"]);
    terminal.shows(|screen| screen.starts_with("org1: 10 pending, 0 running")).await;
    terminal.press(&["q"]);
    terminal.ends(0).await;

    let tagged = WATCH.replace(';', " --tag env=aws;");
    terminal.press(&[&tagged, "Enter"]);
    terminal.shows(|screen| screen.starts_with("org1: 20 pending, 0 running, 0 of 0 daemons online")).await;
    terminal.press(&["q"]);
    terminal.ends(0).await;

    let filtered = WATCH.replace(';', " --initiator prebuilds;");
    terminal.press(&[&filtered, "Enter"]);
    terminal.shows(|screen| screen.starts_with("org1: 10 pending, 0 running")).await;
    terminal.press(&["C-c"]);
    terminal.ends(0).await;

    for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
        terminal.press(&["coderdb provisioner jobs watch & p=$!; fg; echo code $? end", "Enter"]);
        terminal.shows(|screen| screen.contains("q quits")).await;
        let pid = terminal.ask(&["display-message", "-p", "#{pane_pid}"]);
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pid.trim())).expect("the shell");
        let killed =
            Command::new("kill").args([signal, children.split_whitespace().last().expect("the program")]).status();
        assert!(killed.expect("kill").success());
        terminal.ends(code).await;
    }

    // Colours and the like only where they are wanted; what is too long ends with an ellipsis.
    rows.run("UPDATE provisioner_daemons SET name = 'daemon-' || repeat('long-', 11) WHERE id = u(9)").await;
    for (how, is_styled) in [("", true), ("NO_COLOR=1 ", false)] {
        terminal.press(&[&format!("{how}{WATCH}"), "Enter"]);
        terminal.shows(|screen| screen.contains("q quits")).await;
        assert!(
            terminal.screen().contains("long-lon…") || terminal.screen().contains("…  offline"),
            "{}",
            terminal.screen()
        );
        let styled = terminal.ask(&["capture-pane", "-p", "-e"]);
        assert_eq!(styled.contains("\u{1b}[1m"), is_styled, "{how}: {styled:?}");
        terminal.press(&["q"]);
        terminal.ends(0).await;
    }

    // Without a terminal there is nothing to watch on.
    terminal.press(&["coderdb provisioner jobs watch < /dev/null; echo code $? end", "Enter"]);
    terminal.ends(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_said_to_be_so_and_watched_again_when_it_is_back() {
    let rows = world().await;
    let terminal = Terminal::open(&rows, (80, 24));
    let mut elsewhere = PgConnection::connect(&support::server().url("postgres")).await.expect("the server");
    let mut alter = async |is_open: bool| {
        let name = rows.database.name();
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {is_open}; {end}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut elsewhere).await.expect("done");
    };
    terminal.press(&[WATCH, "Enter"]);
    terminal.shows(|screen| screen.contains("q quits")).await;
    alter(false).await;
    terminal.shows(|screen| screen.contains("trying again")).await;
    alter(true).await;
    terminal.shows(|screen| screen.contains("q quits")).await;
    terminal.press(&["q"]);
    terminal.ends(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_are_canceled_on_a_terminal_only_by_whoever_says_yes() {
    let mut rows = world().await;
    let terminal = Terminal::open(&rows, (80, 24));
    let pending = "SELECT count(*) FROM provisioner_jobs WHERE job_status = 'pending'";
    let cancel = "clear; coderdb provisioner jobs cancel --initiator prebuilds --status pending";
    for (answer, code, left) in [("n", 1, "38"), ("", 1, "38"), ("y", 0, "28")] {
        terminal.press(&[&format!("{cancel}; echo code $? end"), "Enter"]);
        terminal.shows(|screen| screen.contains("Cancel 10 pending provisioner jobs of org1? [y/N]")).await;
        terminal.press(&[answer, "Enter"]);
        terminal.ends(code).await;
        assert_eq!(rows.one(pending).await, left, "{answer:?}");
    }
    rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id > u(30)").await;
    // Wherever input and output go, there is somebody at the terminal.
    terminal.press(&[&format!("{cancel} > /dev/null 2> /dev/null < /dev/null; echo code $? end"), "Enter"]);
    terminal.ends(0).await;
    assert_eq!(rows.one(pending).await, "28", "none of the three is a terminal: a script");
    rows.run("UPDATE provisioner_jobs SET canceled_at = NULL, completed_at = NULL WHERE id > u(30)").await;
    for redirected in ["< /dev/null", "2> /dev/null", "< /dev/null 2> /dev/null", "> /dev/null 2> /dev/null"] {
        terminal.press(&[&format!("{cancel} {redirected}; echo code $? end"), "Enter"]);
        terminal.shows(|screen| screen.contains("Cancel 10 pending provisioner jobs of org1? [y/N]")).await;
        terminal.press(&["n", "Enter"]);
        terminal.ends(1).await;
        assert_eq!(rows.one(pending).await, "38", "{redirected}");
    }
    terminal.press(&[&format!("{cancel} --yes; echo code $? end"), "Enter"]);
    terminal.ends(0).await;
    assert_eq!(rows.one(pending).await, "28");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bash_completes_words_as_it_then_reads_them() {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO organizations (id, name, description, created_at, updated_at, display_name)
         SELECT gen_random_uuid(), name, '', now(), now(), ''
         FROM unnest(ARRAY['evil$(touch x)', 'two words', '*', E'steer\\u001b[2J']) AS name",
    )
    .await;
    let bash = ["bash", "--norc", "--noprofile"];
    let terminal = Terminal::with_shell(
        &bash,
        rows.database.environment().into_iter().chain([("CODER_ORGANIZATION", "org1")]),
        (120, 10),
    );
    terminal.press(&["source <(coderdb completions bash)", "Enter"]);
    let cases = [
        ("--org ev", r"--org evil\$\(touch\ x\) "),
        ("--org tw", r"--org two\ words "),
        ("--org \"ev", r#"--org "evil\$(touch x)" "#),
        ("--org 'tw", "--org 'two words' "),
        ("--org '*", "--org '*' "),
        ("-c created", r"-c created\ at "),
        ("-c id,created\\ ", r"-c id,created\ at "),
        ("--status pending,ru", "--status pending,running "),
        ("--status=pe", "--status=pending "),
        ("--search status:pe", "--search status:pending "),
        ("--search=status:pending,ru", "--search=status:pending,running "),
        ("--search organization:or", "--search organization:org1 "),
        ("--search 'organization:or", "--search 'organization:org1' "),
        ("--search 'organization:ev", "--search 'organization:ev"),
        ("--search 'initiator:prebuilds stat", "--search 'initiator:prebuilds status:"),
        ("--search 'initiator:prebuilds -status:pe", "--search 'initiator:prebuilds -status:pending' "),
        ("--search stat", "--search status:"),
        ("--org steer", "--org steer"),
    ];
    for (n, (typed, completed)) in cases.into_iter().enumerate() {
        terminal.press(&[&format!("clear; echo ready {n}"), "Enter"]);
        terminal.shows(|screen| screen.starts_with(&format!("ready {n}\n$"))).await;
        // What stands behind the cursor then shows that the shell has answered, and whether with a space.
        terminal.press(&[&format!("coderdb provisioner jobs list {typed}"), "Tab", "X"]);
        let screen = terminal.shows(|screen| screen.trim_end().ends_with('X')).await;
        let expected = format!("$ coderdb provisioner jobs list {completed}X");
        assert_eq!(screen.trim_end().lines().last(), Some(expected.as_str()), "{typed}");
        terminal.press(&["C-u"]);
    }
}
