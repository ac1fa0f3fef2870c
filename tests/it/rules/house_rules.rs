//! What keeps the folder tree the map of the code: who may use whom, and one name for one operation everywhere.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::source::{files, root};

#[test]
fn modules_depend_on_each_other_in_one_direction_only() {
    let allowed: &[(&str, &[&str])] = &[
        ("model", &[]),
        ("authz", &["model"]),
        ("store", &["authz", "model"]),
        ("migrate", &["connect"]),
        ("postgres", &[]),
        ("connect", &[]),
        ("pool", &["connect", "store"]),
        ("replica", &["authz", "connect", "pool", "store"]),
        ("cancel", &["authz", "model", "store", "watch"]),
        ("watch", &["authz", "connect", "model", "pool", "store"]),
        ("tools", &["authz", "model", "pool", "store", "watch"]),
        ("demo", &["store"]),
        ("search", &["authz", "model", "store"]),
        ("licenses", &["authz", "model", "store"]),
        (
            "cli",
            &[
                "authz", "cancel", "connect", "demo", "licenses", "migrate", "model", "pool", "postgres", "search",
                "store", "tools", "watch",
            ],
        ),
    ];
    let modules = allowed.iter().map(|(module, _)| *module);
    for (module, may_use) in allowed {
        for (file, text) in files(&format!("src/{module}")) {
            for other in modules.clone().filter(|other| other != module && !may_use.contains(other)) {
                let uses = text.split(&format!("crate::{other}")).skip(1).any(|rest| rest.starts_with([':', ';', ',']));
                assert!(!uses, "src/{module}/{file} uses {other}");
            }
        }
    }
}

#[test]
fn each_foreign_crate_has_its_place() {
    let places: &[(&str, &[&str])] = &[
        ("sea_query", &["store/jobs/"]),
        ("refinery", &["migrate/"]),
        ("refinery_core", &["migrate/"]),
        (
            "sqlx",
            &[
                "store/",
                "migrate/",
                "pool/",
                "replica/",
                "watch/listener.rs",
                "tools/database.rs",
                "demo/",
                "search/mod.rs",
                "cli/connect.rs",
                "connect/",
                "cli/error.rs",
                "lib.rs",
                "licenses/mod.rs",
                "testing.rs",
            ],
        ),
        ("ring::signature", &["licenses/keys.rs"]),
        ("deadpool", &["pool/"]),
        ("schemars", &["tools/"]),
        ("axum", &["cli/serve.rs", "http/"]),
        ("governor", &["http/session.rs"]),
        ("hyper_util", &["cli/serve.rs"]),
        ("rmcp", &["mcp/"]),
        ("tower_http", &["http/layers.rs"]),
        ("clap", &["cli/"]),
        ("ratatui", &["cli/jobs/watch.rs"]),
        ("anstream", &["cli/"]),
        ("anstyle", &["cli/"]),
        ("clap_complete", &["cli/"]),
        ("clap_mangen", &["cli/"]),
        ("csv", &["cli/"]),
        ("terminal_size", &["cli/"]),
        ("unicode_segmentation", &["cli/"]),
        ("unicode_width", &["cli/"]),
        ("indicatif", &["cli/"]),
        ("similar", &["cli/migrate/verify.rs"]),
        ("squawk_linter", &["migrate/lint.rs"]),
        ("squawk_syntax", &["migrate/lint.rs"]),
    ];
    for (file, text) in files("src") {
        for (name, allowed) in places {
            let uses = text.contains(&format!("{name}::")) || text.contains(&format!("use {name};"));
            let fine = allowed.iter().any(|place| file.starts_with(place));
            assert!(!uses || fine, "src/{file} names {name}, which belongs to {allowed:?}");
        }
    }
}

#[test]
fn a_query_file_a_function_and_a_span_share_one_name() {
    for (file, _) in files("queries") {
        let name = file.strip_suffix(".sql").expect("a query");
        let (module, function) = name.split_once('/').expect("module/function.sql");
        // A module that is too long for one file has the rest in a folder of its name.
        let rest = root().join(format!("src/store/{module}")).is_dir().then(|| files(&format!("src/store/{module}")));
        let mut code = fs::read_to_string(root().join(format!("src/store/{module}.rs"))).expect("a module per folder");
        code.extend(rest.into_iter().flatten().map(|(_, text)| text));
        for part in [
            format!("queries/{file}"),
            format!("name = \"db.{module}.{function}\""),
            format!("pub async fn {function}("),
        ] {
            assert!(code.contains(&part), "queries/{file}: src/store/{module}.rs has no {part:?}");
        }
    }
}

#[test]
fn every_operation_says_what_it_costs() {
    for (file, code) in files("src/store") {
        let mut doc = String::new();
        for line in code.lines() {
            if let Some(text) = line.strip_prefix("///") {
                doc.push_str(text);
            } else if line.starts_with("pub async fn") {
                assert!(
                    doc.contains("ne round trip"),
                    "src/store/{file}: no `One round trip` in the documentation of {line}"
                );
            } else if !line.starts_with("#[") {
                doc.clear();
            }
        }
    }
}

#[test]
fn every_operation_takes_a_permit() {
    // What runs operations again is none itself.
    for (file, code) in files("src/store").into_iter().filter(|(file, _)| file != "transaction.rs") {
        for signature in code.split("pub async fn ").skip(1) {
            let signature = signature.split(") ->").next().expect("a signature");
            assert!(signature.contains("permit: &"), "src/store/{file}: no `permit: &…` in {signature}");
        }
    }
}

#[test]
fn a_migration_says_what_it_does_what_it_locks_and_what_old_code_sees() {
    for (file, sql) in files("migrations").into_iter().filter(|(file, _)| file.starts_with('V')) {
        let header: String = sql.lines().take_while(|line| line.starts_with("--")).collect();
        for part in ["What:", "Locks:", "Old code:"] {
            assert!(header.contains(part), "migrations/{file}: its header has no {part}");
        }
    }
}

#[test]
fn every_constant_of_the_prebuilds_user_is_the_same() {
    let id = coderdb::model::UserId::PREBUILDS.to_string();
    for (file, text) in files("queries").into_iter().chain(files("migrations")) {
        for found in text.split("c42fdf75").skip(1) {
            assert!(id.strip_prefix("c42fdf75").is_some_and(|rest| found.starts_with(rest)), "{file}");
        }
    }
}

#[test]
fn references_to_the_domain_name_a_heading_of_its_document() {
    let document = fs::read_to_string(root().join("docs/domain.md")).expect("a document");
    let headings: BTreeSet<_> =
        document.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let known = |name: &str| headings.contains(name);
    let is_a = |file: &str, extension: &str| Path::new(file).extension().is_some_and(|it| it == extension);
    let mut references = 0;
    for dir in ["src", "queries", "migrations", "tests/it", "benches", "examples"] {
        let sources = files(dir).into_iter().filter(|(file, _)| is_a(file, "rs") || is_a(file, "sql"));
        for (file, text) in sources.filter(|(file, _)| file != "rules/house_rules.rs") {
            // A reference may continue on the next line of its comment.
            let words = text.split_whitespace().filter(|word| !["///", "//!", "//", "--"].contains(word));
            let text = words.collect::<Vec<_>>().join(" ");
            for reference in text.split("(domain: ").skip(1) {
                for name in reference.split(')').next().expect("a part").split("; ") {
                    assert!(known(name), "{dir}/{file}: docs/domain.md has no heading {name:?}");
                    references += 1;
                }
            }
            let numbered = text.split("omain ").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            assert!(!numbered, "{dir}/{file}: name a heading of docs/domain.md, as in (domain: claims), and no number");
        }
    }
    assert!(references > 200, "{references} references: how they are written has changed, so change this test, too");
    let docs = files("docs").into_iter().filter(|(file, _)| is_a(file, "md") && !file.starts_with("adr/"));
    for (file, text) in docs {
        let inner = if file == "domain.md" { "](#" } else { "](domain.md#" };
        for link in text.split(inner).skip(1) {
            let name = link.split(')').next().expect("a part").replace('-', " ");
            let is_there = known(&name) || document.lines().any(|line| line.to_lowercase() == format!("# {name}"));
            assert!(is_there, "docs/{file}: docs/domain.md has no heading {name:?}");
        }
    }
}

#[test]
fn names_are_the_words_of_the_field() {
    const WORDS: &[(&str, &str)] = &[
        ("fold", "compaction"),
        ("marks", "dirty rows"),
        ("cut", "watermark, or truncation"),
        ("lane", "partition"),
        ("subject", "target; a subject is who acts"),
        ("place", "position, or the name of what is there"),
        ("patience", "lock retry budget, or timeout"),
        ("second", "observer"),
        ("may_lag", "replica-safe"),
        ("fail_over_quota", "fail_insufficient_quota"),
        ("Cut", "Truncation"),
        ("JobSubject", "JobTarget"),
        ("Lead", "AccessPath"),
        ("MayLag", "ReplicaSafe"),
        ("Options", "ConnectOptions, MigrateOptions, DemoOptions"),
        ("Place", "QueuePosition, or DataDirectory"),
    ];
    const BEFORE_A_NAME: &[&str] =
        &["fn ", "let ", "mut ", "const ", "static ", "struct ", "enum ", "trait ", "type ", "mod ", "macro_rules! "];
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for (file, text) in
        files("src").into_iter().filter(|(file, _)| Path::new(file).extension().is_some_and(|it| it == "rs"))
    {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (word, instead) in WORDS {
                let names = line.match_indices(word).any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + word.len()..]);
                    let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
                    let is_field = after.starts_with(": ") && !before.contains('"');
                    is_whole && (is_field || BEFORE_A_NAME.iter().any(|keyword| before.ends_with(keyword)))
                });
                assert!(!names, "src/{file}: {word} is a name of our own for {instead}: {line}");
            }
        }
    }
}

#[test]
fn no_file_of_code_is_longer_than_600_lines() {
    const LINES: usize = 600;
    let long: Vec<_> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir))
        .filter(|(path, text)| Path::new(path).extension().is_some_and(|it| it == "rs") && text.lines().count() > LINES)
        .map(|(path, _)| path)
        .collect();
    assert!(long.is_empty(), "split these by what they are about: {long:?}");
}
