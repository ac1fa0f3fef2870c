//! Licenses, signed with keys that tests make.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use coderdb::licenses::LicenseKeys;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Whoever signs licenses, and the id of the key.
pub struct Signer {
    id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub fn new(id: &str) -> Self {
        let seed: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
        Self { id: id.to_owned(), pair: Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes") }
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": base64(self.pair.public_key())})
    }

    /// The public key alone, as a file has it.
    pub fn jwk_set(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    pub fn keys(&self) -> LicenseKeys {
        LicenseKeys::from_jwk_set(&self.jwk_set()).expect("a key")
    }

    /// A license that claims this.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_text(&json!({"alg": "EdDSA", "kid": self.id, "typ": "JWT"}).to_string(), &claims.to_string())
    }

    /// A token with this header and this payload.
    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64(header), base64(payload));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", base64(signature))
    }
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Claims that are right at this time, and for a month.
pub fn claims(now: OffsetDateTime) -> Value {
    let now = now.unix_timestamp();
    json!({
        "version": 3,
        "iat": now - 60,
        "nbf": now - 60,
        "license_expires": now + 20 * 86_400,
        "exp": now + 30 * 86_400,
        "account_type": "salesforce",
        "account_id": "acme",
        "jti": "00000000-0000-0000-0000-000000000007",
        "trial": false,
        "feature_set": "premium",
        "features": {"user_limit": 100, "of_the_future": -1},
        "addons": ["ai_governance"],
        "unknown": {"kept": [null]},
    })
}

/// The same claims, with this one instead.
pub fn with(claims: &Value, claim: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[claim] = value;
    claims
}
