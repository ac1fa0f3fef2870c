//! Where the statements of a file begin and end, and what a file may not contain. `build.rs` uses it, too: nothing here
//! needs anything but the standard library.

/// A statement of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// Without the comments before it, and without its semicolon.
    pub(crate) text: &'a str,
    /// Where it begins, in bytes.
    pub(crate) at: usize,
}

impl<'a> Statement<'a> {
    /// Its words, in capitals but for what is in quotes, without comments; every other character is a word.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> + 'a {
        Tokens { sql: self.text, at: 0 }.filter_map(|(token, _)| match token {
            Token::Word(word) => Some(word.to_ascii_uppercase()),
            Token::Quoted(quoted) => Some(quoted.to_owned()),
            Token::Other(c) => Some(c.to_string()),
            Token::Unclosed(_) => None,
        })
    }

    /// Whether it waits for rows of the client, or sends it some.
    fn copies(&self) -> bool {
        let (mut depth, mut before) = (0_usize, String::new());
        self.is(&["COPY"])
            && self.words().any(|word| {
                match word.as_str() {
                    "(" => depth += 1,
                    ")" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                let is_client = matches!((before.as_str(), word.as_str()), ("FROM", "STDIN") | ("TO", "STDOUT"));
                before = word;
                is_client && depth == 0
            })
    }

    /// Whether it begins with these words.
    pub(crate) fn is(&self, words: &[&str]) -> bool {
        let mut own = self.words();
        words.iter().all(|word| own.next().is_some_and(|own| own == *word))
    }
}

/// What a file cannot have, and where, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) at: usize,
    pub(crate) text: &'static str,
}

/// The statements of a file, in their order, or what keeps it from being one.
pub(crate) fn split(sql: &str) -> Result<Vec<Statement<'_>>, Problem> {
    let mut statements = Vec::new();
    let (mut start, mut end) = (None, 0);
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    let mut before = "";
    for (token, at) in (Tokens { sql, at: 0 }) {
        match token {
            Token::Unclosed(text) => return Err(Problem { at, text }),
            Token::Other('\\') if start.is_none() => {
                return Err(Problem { at, text: "a command of psql, which the server does not know" });
            }
            Token::Other(';') if parentheses == 0 && blocks == 0 => {
                if let Some(at) = start.take() {
                    statements.push(Statement { text: &sql[at..end], at });
                }
                continue;
            }
            Token::Other('(') => parentheses += 1,
            Token::Other(')') => parentheses = parentheses.saturating_sub(1),
            // The body of a function in SQL has semicolons, and cases that end, too.
            Token::Word(word) if blocks > 0 && word.eq_ignore_ascii_case("CASE") => blocks += 1,
            Token::Word(word) if blocks > 0 && word.eq_ignore_ascii_case("END") => blocks -= 1,
            Token::Word(word) if word.eq_ignore_ascii_case("ATOMIC") && before.eq_ignore_ascii_case("BEGIN") => {
                blocks += 1;
            }
            _ => {}
        }
        before = if let Token::Word(word) = token { word } else { "" };
        start.get_or_insert(at);
        end = at + token.length();
    }
    if let Some(at) = start {
        statements.push(Statement { text: &sql[at..end], at });
    }
    Ok(statements)
}

/// What a file has that no migration may have.
pub(crate) fn problems(sql: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if sql.starts_with('\u{feff}') {
        problems.push(Problem { at: 0, text: "a byte order mark" });
    }
    if let Some(at) = sql.find('\0') {
        problems.push(Problem { at, text: "a NUL byte" });
    }
    match split(sql) {
        Err(problem) => problems.push(problem),
        Ok(statements) if statements.is_empty() => problems.push(Problem { at: 0, text: "no statement" }),
        Ok(statements) => {
            // The history row is written in the transaction of the migration: it may not end that.
            let ends = |statement: &&Statement<'_>| {
                ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"].iter().any(|word| {
                    statement.is(&[word]) && (*word != "PREPARE" || statement.is(&["PREPARE", "TRANSACTION"]))
                })
            };
            let text = "a statement that begins or ends a transaction: the migration is one already";
            problems.extend(statements.iter().filter(ends).map(|statement| Problem { at: statement.at, text }));
            let text = "a COPY from or to the client, which has nothing to send and nobody to show it to: use INSERT";
            let copies = statements.iter().filter(|statement| statement.copies());
            problems.extend(copies.map(|statement| Problem { at: statement.at, text }));
        }
    }
    problems
}

/// Whether the leading comment of a file has the line `-- coderdb: <directive>`, and what follows `=` in it.
pub(crate) fn directive<'a>(sql: &'a str, name: &str) -> Option<&'a str> {
    directives(sql).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The directives of the leading comment, with their values.
pub(crate) fn directives(sql: &str) -> impl Iterator<Item = (&str, &str)> {
    let comment = sql.lines().map_while(|line| line.strip_prefix("--"));
    comment.filter_map(|line| line.trim().strip_prefix("coderdb:")).map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        (name.trim(), value.trim())
    })
}

/// What is wrong with a directive of the leading comment.
pub(crate) fn wrong_directive(sql: &str, is_duration: impl Fn(&str) -> bool) -> Option<String> {
    directives(sql).find_map(|(name, value)| match name {
        "no-transaction" if value.is_empty() => None,
        "lock-timeout" | "statement-timeout" if !value.is_empty() && is_duration(value) => None,
        _ => Some(format!(
            "the directive {name:?}: expected no-transaction, or lock-timeout or statement-timeout with a duration (=2s)"
        )),
    })
}

/// Line and column of a place in bytes, both from 1 and in characters.
pub(crate) fn line_and_column(sql: &str, at: usize) -> (usize, usize) {
    let before = &sql[..at];
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    /// A string, or a name, with its quotes.
    Quoted(&'a str),
    Other(char),
    Unclosed(&'static str),
}

impl Token<'_> {
    const fn length(self) -> usize {
        match self {
            Token::Word(text) | Token::Quoted(text) => text.len(),
            Token::Other(c) => c.len_utf8(),
            Token::Unclosed(_) => 0,
        }
    }
}

/// What the server's own scanner would see, as far as it matters where statements end.
struct Tokens<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token<'a>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = &self.sql[self.at..];
            let first = rest.chars().next()?;
            let at = self.at;
            let unclosed = |tokens: &mut Self, text| {
                tokens.at = tokens.sql.len();
                Some((Token::Unclosed(text), at))
            };
            if first.is_whitespace() || first == '\u{feff}' {
                self.at += first.len_utf8();
            } else if rest.starts_with("--") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                match comment(rest) {
                    Some(length) => self.at += length,
                    None => return unclosed(self, "a comment that does not end"),
                }
            } else if is_quote(rest) {
                return match quoted(rest) {
                    Some(length) => {
                        self.at += length;
                        Some((Token::Quoted(&rest[..length]), at))
                    }
                    None => unclosed(self, "a quote that does not end"),
                };
            } else if first.is_alphanumeric() || first == '_' {
                // A dollar inside of a name quotes nothing.
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
                self.at += length;
                return Some((Token::Word(&rest[..length]), at));
            } else {
                self.at += first.len_utf8();
                return Some((Token::Other(first), at));
            }
        }
    }
}

/// Comments may be nested.
fn comment(rest: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next()?.len_utf8();
        }
    }
}

fn is_quote(rest: &str) -> bool {
    rest.starts_with(['\'', '"'])
        || rest.get(..2).is_some_and(|two| two.eq_ignore_ascii_case("e'"))
        || dollar(rest).is_some()
}

/// The length of what is in quotes at the beginning of the text, with its quotes.
fn quoted(rest: &str) -> Option<usize> {
    if let Some(tag) = dollar(rest) {
        return rest[tag.len()..].find(tag).map(|body| body + 2 * tag.len());
    }
    // Only an escape string knows backslashes.
    let is_escape = rest.starts_with(['e', 'E']);
    let open = usize::from(is_escape);
    let quote = rest[open..].chars().next()?;
    let mut characters = rest[open + 1..].char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        if is_escape && c == '\\' {
            characters.next()?;
        } else if c == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => _ = characters.next(),
                _ => return Some(open + 1 + at + 1),
            }
        }
    }
    None
}

/// `$$`, or `$tag$`, at the beginning of the text.
fn dollar(rest: &str) -> Option<&str> {
    let tag = rest.strip_prefix('$')?;
    let length = tag.find('$')?;
    let name = &tag[..length];
    let is_name =
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        split(sql).expect("statements").iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_only_where_the_server_says_so() {
        for (sql, expected) in [
            ("", vec![]),
            (" ;; -- nothing; here\n /* ; /* ; */ ; */ ;", vec![]),
            ("SELECT 1; SELECT 2", vec!["SELECT 1", "SELECT 2"]),
            (
                "-- what\nSELECT 1 -- the last;\n;\n\n  SELECT ';', \";\", E'\\';', 'a'';';",
                vec!["SELECT 1", "SELECT ';', \";\", E'\\';', 'a'';'"],
            ),
            ("SELECT '\\'; SELECT 2", vec!["SELECT '\\'", "SELECT 2"]),
            ("DO $$ BEGIN; $a$ ; $a$ END; $$; SELECT $1;", vec!["DO $$ BEGIN; $a$ ; $a$ END; $$", "SELECT $1"]),
            ("SELECT $ä$;$$;$ä$, a$b; SELECT c$$", vec!["SELECT $ä$;$$;$ä$, a$b", "SELECT c$$"]),
            (
                "CREATE RULE r AS ON UPDATE TO t DO (SELECT 1; SELECT 2); SELECT 3",
                vec!["CREATE RULE r AS ON UPDATE TO t DO (SELECT 1; SELECT 2)", "SELECT 3"],
            ),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
                vec![
                    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                    "SELECT 3",
                ],
            ),
        ] {
            assert_eq!(texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_statement_knows_where_it_begins() {
        let sql = "-- ü\nSELECT 1;\n  -- more\n  SELECT 2;";
        let places: Vec<_> = split(sql).expect("statements").iter().map(|s| line_and_column(sql, s.at)).collect();
        assert_eq!(places, [(2, 1), (4, 3)]);
        assert_eq!(line_and_column("é ü;", 3), (1, 3));
    }

    #[test]
    fn what_no_migration_may_have_is_found_with_its_place() {
        for (sql, at, text) in [
            ("\u{feff}SELECT 1", 0, "byte order mark"),
            ("SELECT '\0'", 8, "NUL byte"),
            ("-- only words", 0, "no statement"),
            ("SELECT 1;\n\\d t\n", 10, "command of psql"),
            ("SELECT 'a", 7, "quote that does not end"),
            ("SELECT $a$ $b$", 7, "quote that does not end"),
            ("SELECT 1 /* /* */", 9, "comment that does not end"),
            ("SELECT 1; commit;", 10, "begins or ends a transaction"),
            ("begin; SELECT 1", 0, "begins or ends a transaction"),
            ("/* c */ START TRANSACTION", 8, "begins or ends a transaction"),
            ("PREPARE TRANSACTION 'a'", 0, "begins or ends a transaction"),
            ("COPY t (a) FROM stdin", 0, "COPY from or to the client"),
            ("copy (SELECT 1) to STDOUT WITH (FORMAT csv)", 0, "COPY from or to the client"),
        ] {
            let problems = problems(sql);
            let [problem] = problems.as_slice() else { panic!("{sql:?}: {problems:?}") };
            assert!(problem.at == at && problem.text.contains(text), "{sql:?}: {problem:?}");
        }
        for sql in [
            "COPY t FROM '/f'; COPY (SELECT a FROM stdin) TO '/f'",
            "SELECT 1",
            "PREPARE p AS SELECT 1",
            "SAVEPOINT a; SELECT 1",
            "DO $$ BEGIN COMMIT; END $$",
        ] {
            assert_eq!(problems(sql), [], "{sql}");
        }
    }

    #[test]
    fn a_directive_counts_only_in_the_leading_comment() {
        assert_eq!(directive("-- what\n-- coderdb: no-transaction\nSELECT 1;", "no-transaction"), Some(""));
        assert_eq!(directive("-- coderdb: lock-timeout = 5s\nSELECT 1;", "lock-timeout"), Some("5s"));
        assert_eq!(directive("SELECT 1;\n-- coderdb: no-transaction\n", "no-transaction"), None);
        assert_eq!(directive("-- coderdb: no-transactions\nSELECT 1;", "no-transaction"), None);
    }
}
