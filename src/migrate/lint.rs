//! What is wrong with the text of migrations, before anything runs: squawk's rules, and those of this project.

use std::collections::BTreeMap;

use serde::Serialize;
use squawk_linter::{Linter, Rule};
use squawk_syntax::SourceFile;

use super::{Migrations, index::Index, names, statements};
use crate::duration;

/// The oldest server that migrations run on.
const OLDEST_SERVER: &str = "14";

/// Rules of squawk that do not hold here, each with the reason.
const OFF: &[(Rule, &str)] = &[
    (Rule::RequireLockTimeout, "the runner sets lock_timeout"),
    (Rule::RequireStatementTimeout, "the runner sets statement_timeout"),
    (Rule::PreferRobustStmts, "a run goes on where the last one ended; IF NOT EXISTS would accept an invalid index"),
    (Rule::TransactionNesting, "refused in every file, see statements::problems"),
    (Rule::BanConcurrentIndexCreationInTransaction, "`concurrent-index` knows what the runner can do"),
    (Rule::PreferBigintOverInt, "types are Coder's"),
    (Rule::PreferBigintOverSmallint, "types are Coder's"),
    (Rule::PreferIdentity, "types are Coder's"),
    (Rule::PreferTextField, "types are Coder's"),
    (Rule::PreferTimestampTz, "types are Coder's"),
];

/// Findings in files that are released, and so cannot change any more.
const RELEASED: &[(&str, Rule, &str)] = &[
    ("V0001__base", Rule::RenamingObject, "the sequence is new, too: Coder's name for it"),
    ("V0006__provisioner_job_insufficient_quota", Rule::BanDropConstraint, "the same statement adds a wider one"),
];

/// What breaks the code that is still running: a `breaking_` migration says that there is none.
const BREAKING: &[Rule] = &[
    Rule::BanDropColumn,
    Rule::BanDropConstraint,
    Rule::BanDropDefault,
    Rule::BanDropDomain,
    Rule::BanDropFunction,
    Rule::BanDropGeneratedExpression,
    Rule::BanDropNotNull,
    Rule::BanDropSchema,
    Rule::BanDropSequence,
    Rule::BanDropTable,
    Rule::BanDropType,
    Rule::BanDropView,
    Rule::BanSetSchema,
    Rule::RenamingColumn,
    Rule::RenamingObject,
    Rule::RenamingTable,
];

/// A file to look at.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its path, for people.
    pub(crate) path: String,
    pub(crate) sql: String,
}

/// The files of this version.
pub(crate) fn sources() -> Vec<Source> {
    let own = Migrations::embedded();
    own.files().iter().map(|file| Source { path: file.path.clone(), sql: file.sql().to_owned() }).collect()
}

/// Something in a file that should not be there, or is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    pub(crate) rule: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What is found, file by file and in the order of the places.
pub(crate) fn lint(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<_, &str> = BTreeMap::new();
    for Source { path, sql } in sources {
        let mut file = File { path, sql, findings: Vec::new() };
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        let named = name.strip_suffix(".sql").and_then(names::parse);
        match named {
            None => file.add(0, "file-name", format!("the name is not like {}", names::EXPECTED), None),
            Some((version, _)) => {
                // Versions count within a directory.
                if let Some(other) = versions.insert((path.strip_suffix(name), version), path) {
                    file.add(0, "unique-version", format!("has the version of {other}"), None);
                }
            }
        }
        file.header();
        let problems = statements::problems(sql);
        for problem in &problems {
            file.add(problem.at, "file-content", problem.text.to_owned(), None);
        }
        if let Some(at) = sql.find('\r') {
            file.add(at, "file-content", "a carriage return".to_owned(), Some("end lines with a line feed alone"));
        }
        if problems.is_empty() {
            file.statements();
            file.squawk(name.trim_end_matches(".sql"), named.is_some_and(|(_, name)| names::is_breaking(name)));
        }
        file.findings.sort_by_key(|finding| (finding.line, finding.column));
        findings.append(&mut file.findings);
    }
    findings
}

struct File<'a> {
    path: &'a str,
    sql: &'a str,
    findings: Vec<Finding>,
}

impl File<'_> {
    fn add(&mut self, at: usize, rule: &str, message: String, hint: Option<&str>) {
        let (line, column) = statements::line_and_column(self.sql, at);
        let (rule, hint) = (rule.to_owned(), hint.map(str::to_owned));
        self.findings.push(Finding { file: self.path.to_owned(), line, column, rule, message, hint });
    }

    /// What it does, which locks it takes, what old code sees; and nothing that looks like a directive and is none.
    fn header(&mut self) {
        let comment: Vec<&str> = self.sql.split_inclusive('\n').map_while(|line| line.strip_prefix("--")).collect();
        for part in ["What:", "Locks:", "Old code:"] {
            let found = comment.iter().position(|line| line.trim().starts_with(part));
            if found.is_none_or(|line| comment[line].trim() == part) {
                let at = comment[..found.unwrap_or(0)].iter().map(|line| line.len() + "--".len()).sum();
                let hint = "migrations/README.md says what belongs there";
                self.add(at, "header", format!("the leading comment says nothing after `{part}`"), Some(hint));
            }
        }
        if let Some(problem) = statements::wrong_directive(self.sql, |value| duration::parse(value).is_some()) {
            self.add(0, "directive", problem, None);
        }
        let mut at = 0;
        for (number, line) in self.sql.split_inclusive('\n').enumerate() {
            if number >= comment.len() && line.trim_start().starts_with("-- coderdb:") {
                let hint = "move it into the comment at the beginning of the file";
                self.add(
                    at,
                    "directive",
                    "a directive outside of the leading comment is not read".to_owned(),
                    Some(hint),
                );
            }
            at += line.len();
        }
    }

    /// What the runner can do in a transaction, and what without.
    fn statements(&mut self) {
        const NEVER: &[&[&str]] = &[
            &["VACUUM"],
            &["ALTER", "SYSTEM"],
            &["CREATE", "DATABASE"],
            &["DROP", "DATABASE"],
            &["CREATE", "TABLESPACE"],
            &["DROP", "TABLESPACE"],
        ];
        let is_stepwise = statements::directive(self.sql, "no-transaction").is_some();
        for statement in statements::split(self.sql).unwrap_or_default() {
            let add =
                |file: &mut Self, rule, message: &str, hint| file.add(statement.at, rule, message.to_owned(), hint);
            if NEVER.iter().any(|words| statement.is(words)) {
                add(self, "no-transaction", "runs in no transaction, and leaves nothing to prove that it ran", None);
            } else if statement.words().take(4).any(|word| word == "CONCURRENTLY") {
                if !is_stepwise {
                    let hint = "begin the file with `-- coderdb: no-transaction`";
                    add(self, "concurrent-index", "CONCURRENTLY is not possible in a transaction", Some(hint));
                } else if Index::of(&statement).is_none() {
                    let message = "whether it is done cannot be asked of the catalog";
                    let hint = "CREATE [UNIQUE] INDEX CONCURRENTLY name ON table, without IF NOT EXISTS, which accepts an \
                                invalid index; or DROP INDEX CONCURRENTLY name";
                    add(self, "concurrent-index", message, Some(hint));
                }
            }
        }
    }

    fn squawk(&mut self, stem: &str, is_breaking: bool) {
        let mut off: Vec<Rule> = OFF.iter().map(|(rule, _)| *rule).collect();
        if is_breaking {
            off.extend(BREAKING);
        }
        off.extend(RELEASED.iter().filter(|(file, ..)| *file == stem).map(|(_, rule, _)| *rule));
        let mut linter = Linter::with_rules(&[], &off);
        linter.settings.pg_version = OLDEST_SERVER.parse().expect("a version");
        linter.settings.assume_in_transaction = statements::directive(self.sql, "no-transaction").is_none();
        let parse = SourceFile::parse(self.sql);
        for error in parse.errors() {
            self.add(error.range().start().into(), "syntax-error", error.message().to_owned(), None);
        }
        for violation in linter.lint(&parse, self.sql) {
            let rule = violation.code.to_string();
            self.add(violation.text_range.start().into(), &rule, violation.message, violation.help.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_is_needed() {
        let embedded = sources();
        for (stem, rule, _) in RELEASED {
            let source =
                embedded.iter().find(|source| source.path == format!("migrations/{stem}.sql")).expect("the file");
            // Under another name the same text is not excepted.
            let renamed = Source { path: "V9999__other.sql".to_owned(), sql: source.sql.clone() };
            let rules: Vec<_> = lint(&[renamed]).into_iter().map(|finding| finding.rule).collect();
            assert!(rules.contains(&rule.to_string()), "{stem} has no {rule}: {rules:?}");
        }
    }
}
