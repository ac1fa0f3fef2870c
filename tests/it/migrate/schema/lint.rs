//! `migrate lint`.

use std::{fs, path::Path};

use super::{files, linted};
use crate::support;

const HEADER: &str = "-- What:     w\n-- Locks:    l\n-- Old code: o\n";
const STEPWISE: &str = "-- coderdb: no-transaction\n-- What:     w\n-- Locks:    l\n-- Old code: o\n";

/// Statements below the header, and what is found: line, column and rule. The first line of the statements is the 4th
/// of the file, or the 5th of one without a transaction.
const IN_A_TRANSACTION: &[(&str, &[&str])] = &[
    ("CREATE TABLE t (id int);", &[]),
    ("CREATE TABLE t (id int);\nCREATE INDEX i ON t (id);", &[]),
    ("ALTER TABLE t ADD a text, ADD b int DEFAULT 0 NOT NULL;", &[]),
    ("CREATE INDEX i ON t (a);", &["4:1: require-concurrent-index-creation"]),
    ("SELECT 1;\n  CREATE INDEX CONCURRENTLY i ON t (a);", &["5:3: concurrent-index"]),
    ("CREATE INDEX CONCURRENTLY i ON t (a);", &["4:1: concurrent-index"]),
    ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);", &["4:1: concurrent-index"]),
    ("DROP INDEX i;", &["4:1: require-concurrent-index-deletion"]),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0);", &["4:15: constraint-missing-not-valid"]),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;", &[]),
    (
        "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;\nALTER TABLE t VALIDATE CONSTRAINT c;",
        &["5:15: constraint-missing-not-valid"],
    ),
    (
        "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (id);",
        &["4:19: adding-foreign-key-constraint", "4:15: constraint-missing-not-valid"],
    ),
    ("ALTER TABLE t ADD a int NOT NULL;", &["4:15: adding-required-field"]),
    ("ALTER TABLE t ALTER a SET NOT NULL;", &["4:23: adding-not-nullable-field"]),
    ("ALTER TABLE t ALTER a TYPE bigint;", &["4:23: changing-column-type"]),
    ("ALTER TABLE t ADD a uuid DEFAULT gen_random_uuid();", &["4:34: adding-field-with-default"]),
    ("ALTER TABLE t DROP COLUMN a;", &["4:15: ban-drop-column"]),
    ("DROP TABLE t;", &["4:1: ban-drop-table"]),
    ("ALTER TABLE t RENAME a TO b;", &["4:15: renaming-column"]),
    ("TRUNCATE t CASCADE;", &["4:12: ban-truncate-cascade"]),
    ("CREATE TABLE t (id int;", &["4:23: syntax-error"]),
    ("BEGIN;\nSELECT 1;\nCOMMIT;", &["4:1: file-content", "6:1: file-content"]),
    ("DO $$ BEGIN NULL; END $$;", &[]),
    ("SELECT 1;\n\\connect other", &["5:1: file-content"]),
    ("SELECT 'it';\n SELECT 'ends;", &["5:9: file-content"]),
    ("SELECT 'ü', '\0';", &["4:14: file-content"]),
    ("SELECT 1;\r\nSELECT 2;\r\n", &["4:10: file-content"]),
    ("-- only a comment", &["1:1: file-content"]),
    ("VACUUM t;", &["4:1: no-transaction"]),
    ("SELECT 1;\n-- coderdb: no-transaction", &["5:1: directive"]),
    ("-- coderdb: no-transactions\nSELECT 1;", &["1:1: directive"]),
    ("-- coderdb: lock-timeout=soon\nSELECT 1;", &["1:1: directive"]),
    ("-- coderdb: lock-timeout=5s\nSELECT 1;", &[]),
    ("-- squawk-ignore ban-drop-table\nDROP TABLE t;", &[]),
    ("-- squawk-ignore ban-drop-table\nDROP TABLE t;\nDROP TABLE u;", &["6:1: ban-drop-table"]),
    ("-- squawk-ignore ban-nothing\nSELECT 1;", &["4:18: unused-ignore"]),
];

const WITHOUT: &[(&str, &[&str])] = &[
    ("CREATE INDEX CONCURRENTLY i ON t (a);", &[]),
    ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);\nDROP INDEX CONCURRENTLY j;\nUPDATE t SET a = 1;", &[]),
    ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);", &["5:1: concurrent-index"]),
    ("CREATE INDEX CONCURRENTLY ON t (a);", &["5:1: concurrent-index"]),
    ("DROP INDEX CONCURRENTLY i, j;", &["5:1: concurrent-index"]),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY m;", &["5:1: concurrent-index"]),
    ("COMMIT;", &["5:1: file-content"]),
    ("VACUUM t;", &["5:1: no-transaction"]),
];

#[test]
fn every_rule_points_at_its_place() {
    let (mut sources, mut expected) = (Vec::new(), Vec::new());
    let cases = IN_A_TRANSACTION.iter().map(|case| (HEADER, case)).chain(WITHOUT.iter().map(|case| (STEPWISE, case)));
    for (number, (header, (sql, findings))) in cases.enumerate() {
        let name = format!("V{:04}__case.sql", number + 1);
        expected.extend(findings.iter().map(|finding| format!("{name}:{finding}   {sql:?}")));
        sources.push((name, format!("{header}{sql}"), sql));
    }
    let dir = files(sources.iter().map(|(name, sql, _)| (name.as_str(), sql.clone())));
    let (found, code) = linted(dir.path());
    let statement = |line: &str| sources.iter().find(|(name, ..)| line.starts_with(name.as_str())).expect("a file").2;
    let found: Vec<_> = found.iter().map(|line| format!("{line}   {:?}", statement(line))).collect();
    let missing: Vec<_> =
        expected.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}")).collect();
    let surplus: Vec<_> =
        found.iter().filter(|line| !expected.contains(line)).map(|line| format!("+ {line}")).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "\n{}\n{}", missing.join("\n"), surplus.join("\n"));
    assert_eq!((found.len(), code), (expected.len(), 15));
}

#[test]
fn a_file_is_named_with_a_version_of_its_own_and_says_what_it_does() {
    let fine = format!("{HEADER}SELECT 1;");
    let dir = files([
        ("V0001__Upper.sql", fine.clone()),
        ("V1__short.sql", fine.clone()),
        ("add.sql", fine.clone()),
        ("V0002__a.sql", fine.clone()),
        ("V0002__b.sql", fine.clone()),
        ("V0003__c.sql", fine.replace("-- Locks:    l", "-- Locks:").replace("-- Old code: o\n", "")),
        ("V0004__d.sql", format!("\u{feff}{fine}")),
        ("README.md", "no migration".to_owned()),
    ]);
    let expected = [
        "V0001__Upper.sql:1:1: file-name",
        "V0002__b.sql:1:1: unique-version",
        "V0003__c.sql:1:1: header",
        "V0003__c.sql:2:1: header",
        "V0004__d.sql:1:1: header",
        "V0004__d.sql:1:1: file-content",
        "V1__short.sql:1:1: file-name",
        "add.sql:1:1: file-name",
    ];
    // The same version in another directory is another one.
    let other = files([("V0002__a.sql", fine)]);
    let both = support::run(support::coderdb().args(["migrate", "lint"]).args([other.path(), other.path()]));
    assert!(both.stdout.contains("V0002__a.sql:1:1: unique-version"), "{}", both.stdout);
    let elsewhere = files([("V0002__a.sql", format!("{HEADER}SELECT 1;"))]);
    let both = support::run(support::coderdb().args(["migrate", "lint"]).args([other.path(), elsewhere.path()]));
    assert_eq!(both.stdout, "2 files: nothing found.\n");
    let (mut found, code) = linted(dir.path());
    found.dedup();
    assert_eq!((found.as_slice(), code), (expected.map(str::to_owned).as_slice(), 15));
}

#[test]
fn a_breaking_migration_may_break_what_no_longer_runs_and_nothing_else() {
    let sql = format!("{HEADER}ALTER TABLE t DROP COLUMN a;\nALTER TABLE t RENAME b TO c;\nCREATE INDEX i ON t (b);");
    let dir = files([("V0001__breaking_t.sql", sql.clone()), ("V0002__t_breaking_.sql", sql)]);
    let expected = [
        "V0001__breaking_t.sql:6:1: require-concurrent-index-creation",
        "V0002__t_breaking_.sql:4:15: ban-drop-column",
        "V0002__t_breaking_.sql:5:15: renaming-column",
        "V0002__t_breaking_.sql:6:1: require-concurrent-index-creation",
    ];
    assert_eq!(linted(dir.path()).0, expected);
}

#[test]
fn a_person_reads_the_place_the_rule_and_a_hint() {
    let dir = files([("V0001__t.sql", format!("{HEADER}CREATE INDEX i ON t (b);"))]);
    let lint =
        |args: &[&str]| support::run(support::coderdb().current_dir(dir.path()).args(["migrate", "lint"]).args(args));
    let outcome = lint(&["V0001__t.sql"]);
    let expected = "V0001__t.sql:4:1: require-concurrent-index-creation: During normal index creation, table updates are \
                    blocked, but reads are still allowed.\n    hint: Use `concurrently` to avoid blocking writes.\n";
    assert_eq!((outcome.code, outcome.stdout.as_str()), (15, expected));
    let outcome = lint(&["V0001__t.sql", "-o", "json"]);
    let expected = r#"{
  "format": 1,
  "files": 1,
  "findings": [
    {
      "file": "V0001__t.sql",
      "line": 4,
      "column": 1,
      "rule": "require-concurrent-index-creation",
      "message": "During normal index creation, table updates are blocked, but reads are still allowed.",
      "hint": "Use `concurrently` to avoid blocking writes."
    }
  ]
}
"#;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (15, expected));
    for (file, reason) in
        [("none.sql", "cannot read none.sql"), ("latin1.sql", "cannot read latin1.sql: incomplete utf-8")]
    {
        fs::write(dir.path().join("latin1.sql"), b"-- \xe4").unwrap();
        let outcome = lint(&["V0001__t.sql", file]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
        assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
    }
    fs::create_dir(dir.path().join("empty")).unwrap();
    support::fails(support::coderdb().current_dir(dir.path()).args(["migrate", "lint", "empty"]), 2, &["has no file"]);
}

#[test]
fn the_projects_own_migrations_pass_embedded_and_as_files() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
    let files = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "sql")).count();
    // A database that nobody can reach: none is needed.
    let lint = |args: &[&str]| {
        let mut command = support::coderdb();
        command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").current_dir(env!("CARGO_MANIFEST_DIR"));
        let outcome = support::run(command.args(["migrate", "lint"]).args(args));
        (outcome.code, outcome.stdout, outcome.stderr)
    };
    assert_eq!(lint(&[]), (0, format!("{files} files: nothing found.\n"), String::new()));
    assert_eq!(lint(&["migrations"]), (0, format!("{files} files: nothing found.\n"), String::new()));
}
