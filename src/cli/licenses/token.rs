//! The text of a license as people hand it over, and what it says of itself. No reason shows any of the text.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

/// Base64url without padding. The last character of a part may have bits that say nothing, as the server reads it, too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')];

/// A JSON web token, unverified.
pub(super) struct Token {
    /// The text, without what does not belong to it. Tokens with the same content have the same text.
    pub(super) text: String,
    /// What it says.
    pub(super) claims: Map<String, Value>,
}

impl Token {
    /// Reads a token out of a text with what is harmless around it, or says why it is none.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = cleaned(text);
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let parts: Vec<_> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(format!("it has {} parts instead of three with points in between", parts.len()));
        };
        object("header", header)?;
        let claims = object("payload", payload)?;
        if signature.is_empty() {
            return Err("its signature is missing".to_owned());
        }
        // The header and the payload are signed as they are written; of the signature only the bytes count.
        let signature = BASE64.encode(decoded("signature", signature)?);
        Ok(Self { text: format!("{header}.{payload}.{signature}"), claims })
    }

    /// The time that the claim says in seconds since 1970, if it is there, or what is wrong with it.
    pub(super) fn time(&self, claim: &str) -> Result<Option<OffsetDateTime>, String> {
        const EXPECTED: &str = "expected a number of seconds since 1970";
        let at = |seconds: f64| {
            let time = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::checked_seconds_f64(seconds)?)?;
            (1..=9999).contains(&time.year()).then_some(time)
        };
        let found = match self.claims.get(claim) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(_)) => return Err(format!("its {claim} is a text; {EXPECTED}")),
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(format!("its {claim} is no number; {EXPECTED}"));
            }
        };
        match found.and_then(at) {
            Some(time) => Ok(Some(time)),
            None if found.is_some_and(|seconds| at(seconds / 1000.0).is_some()) => {
                Err(format!("its {claim} is in milliseconds; {EXPECTED}"))
            }
            None => Err(format!("its {claim} is not in the years 1 to 9999; {EXPECTED}")),
        }
    }
}

/// The text of a file: UTF-8, or UTF-16 behind a byte order mark, as some shells write it.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<_> = units.iter().copied().map(unit).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    match bytes {
        [0xff, 0xfe, bytes @ ..] => utf16(bytes, u16::from_le_bytes),
        [0xfe, 0xff, bytes @ ..] => utf16(bytes, u16::from_be_bytes),
        bytes => str::from_utf8(bytes).ok().map(str::to_owned),
    }
}

/// Without what cannot belong to a token: marks, spaces and line breaks anywhere, and around it quotation marks and the
/// word of a header of HTTP.
fn cleaned(text: &str) -> String {
    let is_invisible = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200d}' | '\u{2060}');
    let mut rest = text.trim_matches(is_invisible);
    loop {
        let unquoted = QUOTES.iter().find_map(|(open, close)| rest.strip_prefix(*open)?.strip_suffix(*close));
        let bare = || {
            let (word, token) = rest.split_once(is_invisible)?;
            word.eq_ignore_ascii_case("bearer").then_some(token)
        };
        match unquoted.or_else(bare) {
            Some(inner) => rest = inner.trim_matches(is_invisible),
            None => return rest.replace(is_invisible, ""),
        }
    }
}

fn decoded(part: &str, text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|_| format!("its {part} is not base64url without padding"))
}

fn object(part: &str, text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(&decoded(part, text)?).map_err(|_| format!("its {part} is no JSON object"))
}
