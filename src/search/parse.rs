//! A text as a query.

use std::{convert::Infallible, str::FromStr};

use super::{Condition, Created, ParseError, Problem, Query, Term, created::NotCreated, error::nearest};
use crate::model::{JobErrorCode, JobId, JobStatus, JobType, Tags, Transition};

/// The codes (domain: error codes).
const ERROR_CODES: [JobErrorCode; 3] =
    [JobErrorCode::MissingTemplateParameter, JobErrorCode::RequiredTemplateVariables, JobErrorCode::InsufficientQuota];

impl FromStr for Query {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut query = Self::default();
        let mut rest = Rest { text, at: 0 };
        while rest.skip_spaces() {
            let start = rest.at;
            let term = term(&mut rest)?;
            query.push(term).map_err(|problem| rest.error(start, problem))?;
        }
        Ok(query)
    }
}

impl Condition {
    /// The values of a key that has a closed set of them; none for another.
    #[must_use]
    pub fn values(key: &str) -> Vec<&'static str> {
        match key {
            "status" => JobStatus::ALL.iter().map(|value| value.as_str()).collect(),
            "transition" => Transition::ALL.iter().map(|value| value.as_str()).collect(),
            "type" => JobType::ALL.iter().map(|value| value.as_str()).collect(),
            "error_code" => vec!["MISSING_TEMPLATE_PARAMETER", "REQUIRED_TEMPLATE_VARIABLES", "INSUFFICIENT_QUOTA"],
            _ => Vec::new(),
        }
    }
}

/// What is not read yet.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

/// A value, and where it stands.
struct Value {
    at: usize,
    text: String,
}

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    /// The text before the first character that ends it.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let found = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += found.len();
        found
    }

    /// Whether anything follows.
    fn skip_spaces(&mut self) -> bool {
        self.until(|c| !c.is_whitespace());
        self.at < self.text.len()
    }

    fn error(&self, at: usize, problem: Problem) -> ParseError {
        ParseError { position: self.text[..at].chars().count() + 1, problem }
    }

    /// Characters and quotations up to a space or a comma.
    fn value(&mut self) -> Result<Value, ParseError> {
        let at = self.at;
        let mut text = String::new();
        loop {
            text += self.until(|c| c.is_whitespace() || matches!(c, '"' | ','));
            let quote = self.at;
            if !self.eat('"') {
                return Ok(Value { at, text });
            }
            loop {
                text += self.until(|c| matches!(c, '"' | '\\'));
                if self.eat('"') {
                    break;
                }
                self.eat('\\');
                let Some(c) = self.peek() else {
                    return Err(self.error(quote, Problem::OpenQuote));
                };
                self.at += c.len_utf8();
                text.push(c);
            }
        }
    }
}

fn term(rest: &mut Rest<'_>) -> Result<Term, ParseError> {
    let start = rest.at;
    let negated = rest.eat('-');
    let at = rest.at;
    let found = rest.until(|c| c.is_whitespace() || matches!(c, ':' | '"' | ','));
    if !rest.eat(':') {
        rest.until(char::is_whitespace);
        let word = &rest.text[at..rest.at];
        let meant = Condition::KEYS.iter().find_map(|key| {
            let value = Condition::values(key).into_iter().find(|value| value.eq_ignore_ascii_case(word))?;
            Some(format!("{}{key}:{value}", if negated { "-" } else { "" }))
        });
        return Err(rest.error(start, Problem::NoKey { found: word.to_owned(), meant }));
    }
    let Some(key) = Condition::KEYS.iter().find(|key| key.eq_ignore_ascii_case(found)) else {
        let problem = Problem::UnknownKey { found: found.to_owned(), nearest: nearest(found, Condition::KEYS) };
        return Err(rest.error(at, problem));
    };
    let mut values = Vec::new();
    loop {
        let value = rest.value()?;
        if value.text.is_empty() {
            return Err(rest.error(value.at, Problem::NoValue { key }));
        }
        values.push(value);
        if !rest.eat(',') {
            break;
        }
    }
    let condition = condition(rest, key, &values)?;
    let instead = match &condition {
        Condition::Created(_) => "turn the comparison around",
        Condition::Organization(_) => "a query is about one organization",
        _ => return Ok(Term { negated, condition }),
    };
    if negated {
        return Err(rest.error(start, Problem::NotNegatable { key, instead }));
    }
    Ok(Term { negated, condition })
}

fn condition(rest: &Rest<'_>, key: &'static str, values: &[Value]) -> Result<Condition, ParseError> {
    let one = || match values {
        [value] => Ok(value),
        [_, second, ..] => {
            let instead = match key {
                "transition" => "for two of the three, exclude the third, as in type:workspace_build -transition:start",
                "created" => "give a term for each end, as in created:>1h created:<1d",
                "tag" => "give a term for each tag, and quote a comma that belongs to one",
                _ => "search once for each, and quote a comma that belongs to a name",
            };
            Err(rest.error(second.at, Problem::SeveralValues { key, instead }))
        }
        [] => Err(rest.error(rest.at, Problem::NoValue { key })),
    };
    let unreadable = |value: &Value, expected| {
        rest.error(value.at, Problem::Unreadable { key, found: value.text.clone(), expected })
    };
    Ok(match key {
        "status" => Condition::Status(closed(rest, key, values)?),
        "type" => Condition::Type(closed(rest, key, values)?),
        "transition" => {
            one()?;
            Condition::Transition(closed(rest, key, values)?[0])
        }
        "error_code" => {
            let codes = closed::<Code>(rest, key, values)?;
            Condition::ErrorCode(codes.into_iter().map(|Code(code)| code).collect())
        }
        "id" => {
            let id = |value: &Value| value.text.parse().map_err(|_| unreadable(value, "the id of a job"));
            Condition::Id(values.iter().map(id).collect::<Result<Vec<JobId>, _>>()?)
        }
        "tag" => {
            if one()?.text == "none" {
                return Ok(Condition::Untagged);
            }
            let (key, value) = Tags::pair(&one()?.text).ok_or_else(|| unreadable(&values[0], "KEY=VALUE, or none"))?;
            Condition::Tag(key, value)
        }
        "created" => {
            let value = one()?;
            let expected =
                "an age as in >1h or 1h..2d, a day as in 2026-05-07, or a moment as in >2026-05-07T09:00:00Z";
            Condition::Created(Created::parse(&value.text).map_err(|problem| match problem {
                NotCreated::EmptyRange => rest.error(value.at, Problem::EmptyRange { found: value.text.clone() }),
                NotCreated::Unreadable => unreadable(value, expected),
            })?)
        }
        "initiator" => Condition::Initiator(named(one()?)),
        "organization" => Condition::Organization(named(one()?)),
        "template" => Condition::Template(named(one()?)),
        "workspace" => Condition::Workspace(named(one()?)),
        other => unreachable!("the key {other} is in KEYS, and is not read"),
    })
}

/// A name, an id, or `me`.
fn named<T: FromStr<Err = Infallible>>(value: &Value) -> T {
    let Ok(named) = value.text.parse();
    named
}

/// Values of a closed set, in any case.
fn closed<T: FromStr>(rest: &Rest<'_>, key: &'static str, values: &[Value]) -> Result<Vec<T>, ParseError> {
    let all = Condition::values(key);
    let value = |value: &Value| {
        let known = all.iter().find(|known| known.eq_ignore_ascii_case(&value.text));
        known.and_then(|known| known.parse().ok()).ok_or_else(|| {
            let (found, nearest) = (value.text.clone(), nearest(&value.text, &all));
            rest.error(value.at, Problem::UnknownValue { key, found, nearest, expected: all.clone() })
        })
    };
    values.iter().map(value).collect()
}

/// One of the codes that the database allows.
struct Code(JobErrorCode);

impl FromStr for Code {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        ERROR_CODES.into_iter().find(|code| code.as_str() == text).map(Self).ok_or(())
    }
}
