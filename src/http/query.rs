//! The parameters of a query: every fault is told at once, and none is overlooked.

use std::{convert::Infallible, fmt::Display, str::FromStr};

use axum::{extract::FromRequestParts, http::request::Parts};

use super::error::{Failure, Validation};

/// The parameters as they were sent, of which handlers take what they know.
#[derive(Debug, Default)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Vec<Validation>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes());
        let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self { pairs: pairs.collect(), ..Self::default() }
    }

    /// The pairs that ask for something, for a link to the next page.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(_, value)| !value.is_empty())
    }

    /// Whether the parameter is there, also without a value.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(it, _)| it == name)
    }

    pub fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Validation { field: name.to_owned(), detail: detail.into() });
    }

    /// The value of a parameter that may be given once; `None` where it is absent or empty.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let values: Vec<_> = self.pairs().filter(|(it, _)| *it == name).map(|(_, value)| value.to_owned()).collect();
        if values.len() > 1 {
            self.fault(name, format!("Query param \"{name}\" provided more than once, found {} times", values.len()));
        }
        values.into_iter().next()
    }

    /// The same, read.
    pub fn value<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        read(&text).map_err(|why| self.fault(name, format!("Query param \"{name}\" {why}"))).ok()
    }

    /// The values of a parameter that may be repeated and may be a list with commas.
    pub fn list<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Vec<T> {
        self.known.push(name);
        let values: Vec<_> = self
            .pairs()
            .filter(|(it, _)| *it == name)
            .flat_map(|(_, value)| value.split(','))
            .map(|value| value.trim().parse().map_err(|why| format!("{why}")))
            .collect();
        let wrong: Vec<_> = values.iter().filter_map(|value| value.as_ref().err().cloned()).collect();
        if !wrong.is_empty() {
            self.fault(name, format!("Query param \"{name}\" has invalid values: {}", wrong.join("; ")));
        }
        values.into_iter().filter_map(Result::ok).collect()
    }

    /// How many rows at most; `None` for all, which is what 0 says.
    pub fn limit(&mut self, default: u32) -> Option<u32> {
        let limit = self.value("limit", |text| {
            let limit: i32 = text.parse().map_err(|why| format!("must be a valid 32-bit positive integer: {why}"))?;
            u32::try_from(limit).map_err(|_| "must be a valid 32-bit positive integer: it is negative".to_owned())
        });
        Some(limit.unwrap_or(default)).filter(|limit| *limit > 0)
    }

    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.value(name, |text| match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            _ => Err("must be a valid boolean".to_owned()),
        })
    }

    /// That nothing is wrong, and that nothing else was asked for.
    pub fn finish(mut self) -> Result<(), Failure> {
        let unknown: Vec<_> = self
            .pairs
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !self.known.contains(&name.as_str()))
            .cloned()
            .collect();
        for (n, name) in unknown.iter().enumerate() {
            if !unknown[..n].contains(name) {
                self.fault(name, format!("{name:?} is not a valid query param"));
            }
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Failure::bad_request("Invalid query parameters.").validations(self.faults))
    }
}
