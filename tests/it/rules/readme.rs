//! What the README shows is what the program prints.

use std::{env, fs, path::Path};

use crate::support::{self, golden::is_current, run};

/// Without the times, which differ from run to run, and without the widths of columns, which follow them.
fn without_times(text: &str) -> String {
    let lines =
        text.lines().map(|line| line.split(" ms").next().unwrap_or_default().trim_end_matches(char::is_numeric));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn demo_prints_what_its_page_and_the_picture_show() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let demo = run(database.coderdb().arg("demo"));
    assert_eq!(demo.code, 0, "{}", demo.stderr);

    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/demo.md")).expect("the page");
    let (before, _) = page.split_once("```text\n").expect("the beginning of the demo's output");
    is_current("docs/demo.md", &format!("{before}```text\n{}```\n", demo.stdout), without_times);

    let list = ["provisioner", "jobs", "list"];
    let columns = "created at,type,status,queue,workspace name,workspace build transition,worker name,error code";
    let table = run(database.coderdb().args(list).args(["--limit", "24", "-c", columns]));
    assert_eq!(table.code, 0, "{}", table.stderr);
    let command = format!("$ coderdb provisioner jobs list --limit 24 -c '{columns}'\n");
    let picture = anstyle_svg::Term::new().render_svg(&(command + &table.stdout));
    is_current("docs/jobs.svg", &(picture + "\n"), str::to_owned);
}

#[tokio::test]
async fn what_the_documents_show_works_on_the_demo() {
    let database = support::database().await;
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let program = Path::new(support::CODERDB).parent().expect("a directory").display().to_string();
    let path = format!("{program}:{}", env::var("PATH").expect("a path"));
    let text = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a document");
    let readme = text("README.md");
    let commands = readme.lines().filter_map(|line| line.strip_prefix("$ "));
    let of_data = |line: &&str| {
        ["coderdb provisioner ", "coderdb quota ", "coderdb prebuilds "].iter().any(|it| line.starts_with(it))
    };
    let mut lines: Vec<String> = commands.filter(of_data).map(str::to_owned).collect();
    assert!(lines.len() >= 8, "{lines:?}");
    let search = text("docs/search.md");
    let queries =
        search.lines().take_while(|line| !line.starts_with("```")).filter_map(|line| line.strip_prefix("    "));
    let queries: Vec<_> = queries.map(|query| format!("coderdb provisioner jobs list --search '{query}'")).collect();
    assert!(queries.len() >= 3, "{queries:?}");
    lines.extend(queries);
    let help = run(support::coderdb().args(["provisioner", "jobs", "list", "--help"])).stdout;
    lines.extend(help.lines().filter_map(|line| line.strip_prefix("  coderdb ")).map(|line| format!("coderdb {line}")));
    for line in lines {
        let mut shell = assert_cmd::Command::new("sh");
        shell.env_clear().env("PATH", &path).envs(database.environment()).args(["-c", &line]);
        let done = run(&mut shell);
        assert_eq!(done.code, 0, "{line}: {}", done.stderr);
    }
}

#[tokio::test]
async fn the_chat_in_the_readme_is_in_the_demo_and_its_owner_is_that_of_the_chat() {
    let database = support::database().await.with_sessions();
    assert_eq!(run(database.coderdb().arg("demo")).code, 0);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let json = readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let args = json["mcpServers"]["workspace"]["args"].as_array().expect("arguments");
    let args: Vec<&str> = args.iter().map(|arg| arg.as_str().expect("a text")).collect();
    let served = run(database.coderdb().args(&args).write_stdin(""));
    assert_eq!(served.code, 0, "{}", served.stderr);
    assert!(served.stderr.starts_with("serving the tools of the chat"), "{}", served.stderr);
    let help = run(database.coderdb().args(["mcp", "--help"])).stdout;
    assert!(help.contains(&args.join(" ")), "{help}");
}
