//! Bash: it splits words at `:` and `=`, and inserts what it is given as it is.

use std::{ffi::OsString, io, path::Path};

use clap_complete::{engine, env::EnvCompleter};

use super::super::text::breaks_lines;

/// Takes the line as it is typed, and gives what replaces the part of its last word that bash replaces.
pub(super) struct Bash;

const SCRIPT: &str = r#"_coderdb() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(VARIABLE=bash COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$2" 2> /dev/null)
    case ${COMPREPLY-} in
        *[=:/]) compopt -o nospace 2> /dev/null ;;
    esac
}
complete -o bashdefault -o nosort -F _coderdb BIN 2> /dev/null || complete -o bashdefault -F _coderdb BIN
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buffer: &mut dyn io::Write,
    ) -> io::Result<()> {
        let script = SCRIPT.replace("VARIABLE", variable).replace("COMPLETER", completer).replace("BIN", bin);
        buffer.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        args: Vec<OsString>,
        directory: Option<&Path>,
        buffer: &mut dyn io::Write,
    ) -> io::Result<()> {
        let [line, replaced] = args.as_slice() else { return Ok(()) };
        let (line, replaced) = (line.to_string_lossy(), replaced.to_string_lossy());
        let words = Words::of(&line);
        // What of the last word stays, because bash counts it as other words, or as a quote.
        let Some(stays) = words.last.strip_suffix(&*replaced) else { return Ok(()) };
        let stays = Word::read(stays);
        let last = words.texts.len() - 1;
        let candidates = engine::complete(command, words.texts.iter().map(Into::into).collect(), last, directory)?;
        let inserted = candidates.iter().filter_map(|candidate| {
            let rest = candidate.get_value().to_str()?.strip_prefix(&stays.text)?;
            stays.quote.insert(rest)
        });
        let inserted: Vec<_> = inserted.collect();
        for text in &inserted {
            writeln!(buffer, "{text}")?;
        }
        // Of two candidates bash inserts what they share; behind a single one it would close the quote.
        if let ([only], true) = (inserted.as_slice(), stays.quote != Quote::None)
            && only.ends_with(':')
        {
            writeln!(buffer, "{only}…")?;
        }
        Ok(())
    }
}

/// What is open where a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

impl Quote {
    /// The text as the shell must read it here; `None` if there is no way to write it.
    fn insert(self, text: &str) -> Option<String> {
        if text.chars().any(breaks_lines) || (self == Self::Double && text.contains('!')) {
            return None;
        }
        let mut inserted = String::new();
        for c in text.chars() {
            match self {
                Self::None if c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-.,:=/@%+".contains(c) => {
                    inserted.extend(['\\', c]);
                }
                Self::Single if c == '\'' => inserted.push_str(r"'\''"),
                Self::Double if "\"\\$`".contains(c) => inserted.extend(['\\', c]),
                _ => inserted.push(c),
            }
        }
        Some(inserted)
    }
}

/// A word without its quotes.
struct Word {
    text: String,
    quote: Quote,
}

impl Word {
    fn read(raw: &str) -> Self {
        let mut words = Words::of(raw);
        Self { text: words.texts.pop().unwrap_or_default(), quote: words.quote }
    }
}

/// The words of a line as the shell reads them. By hand, because shlex reads no line whose quotes are open.
struct Words<'a> {
    /// Without their quotes; the last one is the one that is completed, maybe empty.
    texts: Vec<String>,
    /// The last one as it is typed.
    last: &'a str,
    /// What is open at the end.
    quote: Quote,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (mut texts, mut start, mut quote) = (vec![String::new()], 0, Quote::None);
        let mut chars = line.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let word = texts.last_mut();
            let Some(word) = word else { break };
            match (quote, c) {
                (Quote::None, ' ' | '\t') => {
                    if start < at {
                        texts.push(String::new());
                    }
                    start = at + c.len_utf8();
                }
                (Quote::None, '\'') => quote = Quote::Single,
                (Quote::None, '"') => quote = Quote::Double,
                (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
                (Quote::None, '\\') => word.extend(chars.next().map(|(_, c)| c)),
                (Quote::Double, '\\') => {
                    let escaped = chars.next_if(|(_, c)| "\"\\$`".contains(*c));
                    word.push(escaped.map_or('\\', |(_, c)| c));
                }
                _ => word.push(c),
            }
        }
        Self { texts, last: &line[start..], quote }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_shell_reads_it() {
        for (line, texts, last, quote) in [
            ("coderdb ", &["coderdb", ""][..], "", Quote::None),
            ("coderdb  a", &["coderdb", "a"], "a", Quote::None),
            ("c --status=pe", &["c", "--status=pe"], "--status=pe", Quote::None),
            (r"c created\ a", &["c", "created a"], r"created\ a", Quote::None),
            ("c 'status:pending te", &["c", "status:pending te"], "'status:pending te", Quote::Single),
            (r#"c "a\"b\c "d"#, &["c", r#"a"b\c d"#], r#""a\"b\c "d"#, Quote::None),
            (r#"c "a '"#, &["c", "a '"], r#""a '"#, Quote::Double),
            ("c 'a\\", &["c", "a\\"], "'a\\", Quote::Single),
            ("c 日本", &["c", "日本"], "日本", Quote::None),
        ] {
            let words = Words::of(line);
            assert_eq!(
                (words.texts, words.last, words.quote),
                (texts.iter().map(|t| (*t).to_owned()).collect(), last, quote),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_inserted_is_read_as_what_it_was() {
        let names = [
            "two words",
            "evil$(touch x)",
            "*",
            "a'b",
            "a\"b",
            "`x`",
            "a\\b",
            "~",
            "#x",
            "日本 語",
            "a:b=c,d",
            "{a,b}",
            "a;b|c&d",
        ];
        for (quote, open) in [(Quote::None, ""), (Quote::Single, "'"), (Quote::Double, "\"")] {
            for name in names {
                let line = format!("{open}{}", quote.insert(name).expect("a way"));
                let words = Words::of(&line);
                assert_eq!((words.texts, words.quote), (vec![name.to_owned()], quote), "{line}");
            }
            for name in ["a\nb", "a\u{1b}[2J", "a\u{202e}b"] {
                assert_eq!(quote.insert(name), None);
            }
        }
        assert_eq!(Quote::None.insert("evil$(touch x)!").as_deref(), Some(r"evil\$\(touch\ x\)\!"));
        assert_eq!(Quote::Double.insert("a!"), None, "a backslash would stay");
    }
}
