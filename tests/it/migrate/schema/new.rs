//! `migrate new`.

use std::fs;

use super::{files, linted};
use crate::support;

#[test]
fn a_new_file_has_the_next_version_and_lints_once_it_is_filled_in() {
    let dir = files([("README.md", String::new())]);
    let new = |args: &[&str]| {
        support::run(support::coderdb().current_dir(dir.path()).args(["migrate", "new", "--dir", "."]).args(args))
    };
    let written = |outcome: support::Outcome| {
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        outcome.stdout.trim_end().trim_start_matches("./").to_owned()
    };
    let first = written(new(&["add_teams"]));
    let second = written(new(&["--breaking", "--no-transaction", "teams_by_name"]));
    let third = written(new(&["--breaking", "breaking_again"]));
    assert_eq!(
        [&first, &second, &third],
        ["V0001__add_teams.sql", "V0002__breaking_teams_by_name.sql", "V0003__breaking_again.sql"]
    );
    let to_fill_in = |file: &str, line: usize| {
        let parts = (line..line + 3).map(|line| format!("{file}:{line}:1: header"));
        let mut all: Vec<_> = parts.chain([format!("{file}:1:1: file-content")]).collect();
        all.sort();
        all
    };
    let (mut found, _) = linted(dir.path());
    found.sort();
    assert_eq!(found, [to_fill_in(&first, 1), to_fill_in(&second, 2), to_fill_in(&third, 1)].concat());
    for (file, sql) in
        [(&first, "SELECT 1;"), (&second, "CREATE INDEX CONCURRENTLY i ON t (a);"), (&third, "DROP TABLE t;")]
    {
        let path = dir.path().join(file);
        let mut text = fs::read_to_string(&path).unwrap();
        for part in ["What:", "Locks:", "Old code:"] {
            text = text.replace(&format!("{part}\n"), &format!("{part} something\n"));
        }
        fs::write(path, text + sql).unwrap();
    }
    assert_eq!(linted(dir.path()), (vec![], 0));
}

#[test]
fn a_bad_name_or_directory_is_refused_and_nothing_is_written() {
    let dir = files([]);
    for name in ["", "Add", "add-teams", "add teams", "V0002__add", "../add", "add.sql", "übung"] {
        let mut command = support::coderdb();
        command.current_dir(dir.path()).args(["migrate", "new", "--dir", ".", name]);
        support::fails(&mut command, 2, &["expected lower-case letters, digits and underscores"]);
    }
    support::fails(
        support::coderdb().current_dir(dir.path()).args(["migrate", "new", "add"]),
        2,
        &["no directory migrations"],
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
