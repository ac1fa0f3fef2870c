//! The recipe of docs/operations.md for a night on which nothing starts, command by command on the storm of the demo.

use std::{fs, path::Path, process::Command};

use tokio::task::block_in_place;

use crate::support::{self, CODERDB, Database, golden::is_current, run, source::root};

const LINES: usize = 8;

/// What a command of a shell prints on both ways, the first lines of it.
fn said(database: &Database, line: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let coderdb = Path::new(CODERDB).parent().expect("a directory").display();
    let mut shell = Command::new("sh");
    shell.env_clear().envs(database.environment()).env("PATH", format!("{coderdb}:{path}"));
    shell.env("CODER_ORGANIZATION", "engineering").args(["-c", &format!("{{ {line} ; }} 2>&1")]);
    let output = block_in_place(|| shell.output().expect("a shell"));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{line}: {text}");
    let count = text.lines().count();
    let mut lines: Vec<_> = text.lines().take(LINES).map(|line| line.trim_end().to_owned()).collect();
    if count > LINES {
        lines.push(format!("… {} more lines", count - LINES));
    }
    lines.iter().map(|line| line.to_owned() + "\n").collect()
}

/// Without numbers, ids and widths: ages and estimates depend on the clock and on the machine.
fn comparable(text: &str) -> String {
    let Some((_, section)) = text.split_once("\n## A bad night\n") else { return text.to_owned() };
    let section = section.split("\n## ").next().unwrap_or_default();
    let word = |word: &str| {
        let is_number = word.contains(|c: char| c.is_ascii_digit());
        if is_number { "#".to_owned() } else { word.to_owned() }
    };
    // Its spread is left out where both ends round to the same.
    let line = |line: &str| line.split(" (").next().filter(|_| line.starts_with("EXPECTED")).unwrap_or(line).to_owned();
    let line = |text: &str| {
        line(text).split(", by").next().unwrap_or_default().split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    };
    section.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_night_ends_with_the_commands_of_the_recipe() {
    let database = support::empty_database().await.with_sessions();
    let mut demo = database.coderdb();
    // Not the moment of the tests: expected waits come from the last days.
    demo.env_remove("CODERDB_DEMO_AT").args(["demo", "--scale", "10000", "--regime", "storm"]);
    let loaded = block_in_place(|| run(&mut demo));
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);

    let page = fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    let (before, rest) = page.split_once("\n## A bad night\n").expect("the recipe");
    let end = rest.find("\n## ").expect("another section");
    let (section, after) = rest.split_at(end);
    let (mut made, mut job, mut commands) = (String::new(), String::new(), 0);
    let mut is_console = false;
    for line in section.lines() {
        match line {
            "```console" => is_console = true,
            "```" => is_console = false,
            _ => {}
        }
        let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) else {
            // What was printed the last time is printed anew.
            if !is_console || line == "```console" {
                made += &(line.to_owned() + "\n");
            }
            continue;
        };
        commands += 1;
        let text = said(&database, &command.replace("JOB", &job));
        if command.contains("-o name") {
            text.trim().clone_into(&mut job);
        }
        made.extend(["$ ", command, "\n", &text]);
    }
    assert_eq!(commands, 9);
    assert!(made.contains("people, 0 prebuilds") && made.contains("Prebuilds are now resumed."), "{made}");
    let page = format!("{before}\n## A bad night\n{}{after}", made.trim_end_matches('\n').to_owned() + "\n");
    is_current("docs/operations.md", &page, comparable);
}
