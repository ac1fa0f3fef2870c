//! The public keys: which sets are taken, and what is said of the others.

use coderdb::licenses::{LicenseKeys, LicenseKeysError};
use serde_json::{Value, json};

use crate::support::licenses::Signer;

fn jwk() -> Value {
    Signer::new("key").jwk()
}

fn with(member: &str, value: Value) -> Value {
    let mut jwk = jwk();
    jwk[member] = value;
    json!({ "keys": [jwk] })
}

#[test]
fn from_jwk_set_says_where_a_key_is_wrong_and_what_is_expected() {
    let pkcs = "-----BEGIN PUBLIC KEY-----";
    for (text, expected) in [
        (String::new(), "line 1, column 0: expected a JWK set in JSON"),
        (pkcs.to_owned(), "line 1, column 2: expected a JWK set in JSON"),
        (" {\n  \"keys\": [},\n".to_owned(), "line 2, column 12: expected a JWK set in JSON"),
        (jwk().to_string(), "keys: expected a JWK set: an object with a list of keys"),
        (json!([jwk()]).to_string(), "keys: expected a JWK set: an object with a list of keys"),
        (json!({"keys": jwk()}).to_string(), "keys: expected a JWK set"),
        (json!({"keys": []}).to_string(), "keys: expected at least one key"),
        (json!({"keys": [jwk(), 7]}).to_string(), "keys[1]: expected an object"),
        (with("d", json!("c2VjcmV0")).to_string(), "keys[0].d: expected a public key; this is a private one"),
        (with("kty", json!("RSA")).to_string(), "keys[0].kty: expected \"OKP\""),
        (with("kty", json!(null)).to_string(), "keys[0].kty: expected \"OKP\""),
        (with("crv", json!("X25519")).to_string(), "keys[0].crv: expected \"Ed25519\""),
        (with("use", json!("enc")).to_string(), "keys[0].use: expected \"sig\", or nothing"),
        (with("alg", json!("HS256")).to_string(), "keys[0].alg: expected \"EdDSA\""),
        (with("kid", json!(null)).to_string(), "keys[0].kid: expected the id of the key"),
        (with("kid", json!("")).to_string(), "keys[0].kid: expected the id of the key"),
        (with("kid", json!(2022)).to_string(), "keys[0].kid: expected the id of the key"),
        (with("x", json!("AAAA")).to_string(), "keys[0].x: expected the 32 bytes of the key in base64url"),
        (with("x", json!(null)).to_string(), "keys[0].x: expected the 32 bytes"),
        (with("x", json!("=".repeat(43))).to_string(), "keys[0].x: expected the 32 bytes"),
        (json!({"keys": [jwk(), jwk()]}).to_string(), "keys[1].kid: expected an id that no other key of the set has"),
    ] {
        let error = LicenseKeys::from_jwk_set(&text).expect_err("refused");
        let whole = error.to_string();
        let rest = whole.strip_prefix("the keys of licenses are not usable: ").expect(&whole);
        assert!(rest.starts_with(expected), "{rest}");
        assert!(matches!(error, LicenseKeysError::Invalid { path: None, .. }));
    }
    for (member, value) in [("use", "sig"), ("alg", "EdDSA"), ("alg", "Ed25519"), ("x5u", "ignored")] {
        let keys = LicenseKeys::from_jwk_set(&with(member, json!(value)).to_string()).expect("a key");
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["key"]);
    }
}

#[test]
fn from_setting_takes_a_file_the_set_itself_or_nothing() {
    let set = json!({"keys": [jwk()]}).to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    std::fs::write(path, format!("\u{feff}{set}")).expect("written");
    let from_file = LicenseKeys::from_setting(path).expect("a key");
    assert_eq!(from_file, LicenseKeys::from_setting(&format!("\n {set}")).expect("a key"));
    for nothing in ["", " \n"] {
        assert_eq!(LicenseKeys::from_setting(nothing).expect("nothing"), LicenseKeys::none());
    }
    assert!(LicenseKeys::none().is_empty() && !from_file.is_empty());
    std::fs::write(path, "{}").expect("written");
    let error = LicenseKeys::from_setting(path).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("the keys of licenses are not usable, in {path}: keys: expected")), "{error}");
    let error = LicenseKeys::from_setting("/nowhere/keys.json").expect_err("refused").to_string();
    assert!(error.starts_with("cannot read the keys of licenses in /nowhere/keys.json: No such file"), "{error}");
}
