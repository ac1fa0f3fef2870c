//! The text of a license as people hand it over. No reason shows any of the text.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use super::{Claims, LicenseError, MAX_TEXT};

/// Base64url without padding. The last character of a part may have bits that say nothing, as the server reads it, too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')];

/// A JSON web token, unverified.
pub(super) struct Token {
    /// The text, without what does not belong to it. Tokens with the same content have the same text.
    pub(super) text: String,
    /// How it is signed.
    pub(super) header: Map<String, Value>,
    /// What it says.
    pub(super) claims: Claims,
    pub(super) signature: Vec<u8>,
}

impl Token {
    /// Reads a token out of an uploaded text.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, LicenseError> {
        if bytes.len() > MAX_TEXT {
            return Err(LicenseError::TooLong);
        }
        Self::read(&text(bytes).ok_or(LicenseError::NotText)?)
    }

    /// Reads a token out of a text with what is harmless around it.
    pub(super) fn read(text: &str) -> Result<Self, LicenseError> {
        Self::parse(&cleaned(text)).map_err(LicenseError::Malformed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        let parts: Vec<_> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(format!("it has {} parts instead of three with points in between", parts.len()));
        };
        let head = serde_json::from_slice(&decoded("header", header)?);
        let head = head.map_err(|_| "its header is no JSON object".to_owned())?;
        let claims = Claims::read(&decoded("payload", payload)?).ok_or("its payload is no JSON object")?;
        if signature.is_empty() {
            return Err("its signature is missing".to_owned());
        }
        // The header and the payload are signed as they are written; of the signature only the bytes count.
        let signature = decoded("signature", signature)?;
        let text = format!("{header}.{payload}.{}", BASE64.encode(&signature));
        Ok(Self { text, header: head, claims, signature })
    }

    /// The part of the text that is signed.
    pub(super) fn signed(&self) -> &str {
        self.text.rsplit_once('.').map_or("", |(signed, _)| signed)
    }
}

/// The text of a file: UTF-8, or UTF-16 behind a byte order mark, as some shells write it.
fn text(bytes: &[u8]) -> Option<String> {
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
