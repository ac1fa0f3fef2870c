//! Parsers for the values of options.

use std::{error::Error, ffi::OsStr, str::FromStr, time::Duration};

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};

use crate::{duration, model::Tags};

/// A parser for a closed set in small letters, whose values the help and the errors list.
pub(super) fn values<T>(all: impl Iterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    let all = clap::builder::PossibleValuesParser::new(all.collect::<Vec<_>>());
    Trimmed(all.try_map(|text| text.to_ascii_lowercase().parse()))
}

/// A parser that takes no notice of spaces around a value, as behind a comma.
#[derive(Clone)]
pub(super) struct Trimmed<P>(pub(super) P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.0.parse_ref(command, arg, value.to_str().map_or(value, |text| OsStr::new(text.trim())))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// A parser for what chooses something: what a script forgot to set must not choose everything.
pub(super) fn filled<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    StringValueParser::new().try_map(|text| -> Result<T, Box<dyn Error + Send + Sync>> {
        if text.trim().is_empty() {
            return Err("it is empty; leave the option out to choose everything".into());
        }
        Ok(text.parse()?)
    })
}

pub(super) fn tag(text: &str) -> Result<(String, String), String> {
    Tags::pair(text).ok_or_else(|| "expected KEY=VALUE".to_owned())
}

/// A duration such as `250ms` or `1h30m`.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let length = duration::parse(text).filter(|_| !text.is_empty() && !text.starts_with('-'));
    length.ok_or_else(|| "expected a duration such as 250ms, 2s or 15m".to_owned())
}

/// A duration longer than none.
pub(super) fn some_length(text: &str) -> Result<Duration, String> {
    length(text).and_then(|length| {
        if length.is_zero() { Err("expected a duration longer than 0".to_owned()) } else { Ok(length) }
    })
}

/// A duration longer than none, also in days.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) if days > 0 => Ok(Duration::from_hours(24) * days),
        Some(_) => Err("expected a duration such as 90d or 36h".to_owned()),
        None => some_length(text),
    }
}
