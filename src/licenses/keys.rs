//! The public keys that verify licenses.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};
use serde_json::Value;

use super::{error::LicenseError, token::Token};

/// The public keys that verify licenses, by their ids. They come as a JWK set (RFC 7517) of Ed25519 keys (RFC 8037):
///
/// ```
/// let keys = coderdb::licenses::LicenseKeys::from_jwk_set(
///     r#"{"keys": [{"kid": "2026-01", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
/// )?;
/// assert_eq!(keys.ids().collect::<Vec<_>>(), ["2026-01"]);
/// # Ok::<_, coderdb::licenses::LicenseKeysError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LicenseKeys(BTreeMap<String, [u8; ED25519_PUBLIC_KEY_LEN]>);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LicenseKeysError {
    /// The file cannot be read.
    #[error("cannot read the keys of licenses in {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is there is no JWK set of Ed25519 keys.
    #[error("the keys of licenses are not usable{}: {at}: expected {expected}", in_file(.path.as_ref()))]
    Invalid {
        /// The file, if it is one.
        path: Option<PathBuf>,
        /// Where in the document.
        at: String,
        /// What must be there.
        expected: &'static str,
    },
}

fn in_file(path: Option<&PathBuf>) -> String {
    path.map(|path| format!(", in {}", path.display())).unwrap_or_default()
}

impl LicenseKeys {
    /// No keys: every license is refused.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of the keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What a flag or a variable says: the JWK set itself, which begins with `{`, the path of a file with it, or
    /// nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no key in it, or one that is no public Ed25519 key with an id.
    pub fn from_setting(setting: &str) -> Result<Self, LicenseKeysError> {
        if setting.trim().is_empty() {
            return Ok(Self::none());
        }
        if setting.trim_start().starts_with('{') {
            return Self::from_jwk_set(setting);
        }
        let path = PathBuf::from(setting);
        let read = fs::read_to_string(&path);
        let text = read.map_err(|source| LicenseKeysError::Read { path: path.clone(), source })?;
        Self::parse(&text).map_err(|(at, expected)| LicenseKeysError::Invalid { path: Some(path), at, expected })
    }

    /// The keys of a JWK set.
    ///
    /// # Errors
    /// [`LicenseKeysError::Invalid`] when there is no key, or one that is no public Ed25519 key with an id.
    pub fn from_jwk_set(text: &str) -> Result<Self, LicenseKeysError> {
        Self::parse(text).map_err(|(at, expected)| LicenseKeysError::Invalid { path: None, at, expected })
    }

    fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let set: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| (format!("line {}, column {}", error.line(), error.column()), "a JWK set in JSON"))?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or_else(|| ("keys".to_owned(), "a JWK set: an object with a list of keys"))?;
        if list.is_empty() {
            return Err(("keys".to_owned(), "at least one key"));
        }
        let mut keys = BTreeMap::new();
        for (n, key) in list.iter().enumerate() {
            let wrong = |member: &str, expected| Err((format!("keys[{n}]{member}"), expected));
            let text = |member: &str| key.get(member).and_then(Value::as_str).unwrap_or_default();
            // A key for something else is rather a mistake than something to pass over: there is one purpose.
            let is = |member: &str, values: &[&str]| key.get(member).is_none() || values.contains(&text(member));
            if !key.is_object() {
                return wrong("", "an object: a JWK");
            }
            if key.get("d").is_some() {
                return wrong(".d", "a public key; this is a private one, which only its owner may have");
            }
            if text("kty") != "OKP" {
                return wrong(".kty", "\"OKP\", the type of Ed25519 keys");
            }
            if text("crv") != "Ed25519" {
                return wrong(".crv", "\"Ed25519\"");
            }
            if !is("use", &["sig"]) {
                return wrong(".use", "\"sig\", or nothing");
            }
            if !is("alg", &["EdDSA", "Ed25519"]) {
                return wrong(".alg", "\"EdDSA\", \"Ed25519\", or nothing");
            }
            let id = text("kid");
            if id.is_empty() {
                return wrong(".kid", "the id of the key, a text that is not empty");
            }
            let x = BASE64_URL_SAFE_NO_PAD.decode(text("x")).ok().and_then(|bytes| bytes.try_into().ok());
            let Some(x) = x else {
                return wrong(".x", "the 32 bytes of the key in base64url without padding");
            };
            if keys.insert(id.to_owned(), x).is_some() {
                return wrong(".kid", "an id that no other key of the set has");
            }
        }
        Ok(Self(keys))
    }

    /// Checks that one of the keys has signed the token, as its header says.
    pub(super) fn verify(&self, token: &Token) -> Result<(), LicenseError> {
        let header = |name: &str| token.header.get(name);
        if header("alg").and_then(Value::as_str) != Some("EdDSA") {
            return Err(LicenseError::Algorithm);
        }
        // RFC 7515, 4.1.11: who does not know what is critical must not accept it.
        if header("crit").is_some() {
            return Err(LicenseError::Extension);
        }
        let id = header("kid").and_then(Value::as_str).ok_or(LicenseError::KeyIdMissing)?;
        let unknown = || LicenseError::KeyIdUnknown(self.ids().map(str::to_owned).collect());
        let key = self.0.get(id).ok_or_else(unknown)?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(token.signed().as_bytes(), &token.signature)
            .map_err(|_| LicenseError::Signature)
    }
}
