//! Which licenses pass, and why the others do not.

use coderdb::{
    licenses::{self, LicenseError, LicenseKeys, MAX_TEXT},
    model::NewLicense,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::NOW;
use crate::support::{
    licenses::{Signer, base64, claims, with},
    secrets::{self, CANARY},
};

const SEVERAL: &str = "license has multiple issues; contact support";
const HERE: &str = "5d1f4c1e-0000-4000-8000-000000000001";

fn now() -> i64 {
    NOW.unix_timestamp()
}

fn verify(keys: &LicenseKeys, text: impl AsRef<[u8]>) -> Result<NewLicense, LicenseError> {
    licenses::verify(text.as_ref(), keys, Some(HERE), NOW)
}

fn refused(keys: &LicenseKeys, text: impl AsRef<[u8]>) -> (&'static str, String) {
    let error = verify(keys, text).expect_err("it is refused");
    (error.code(), error.detail())
}

#[test]
fn verify_takes_a_signed_license_with_whatever_is_around_it() {
    let signer = Signer::new("key");
    let text = signer.sign(&claims(NOW));
    let (middle, end) = text.split_at(40);
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let around = [
        text.clone().into_bytes(),
        format!("\u{feff}\"Bearer {text}\"\r\n").into_bytes(),
        format!("{middle}\n\t{end}\u{a0}").into_bytes(),
        utf16,
    ];
    for around in around {
        let new = verify(&signer.keys(), around).expect("a license");
        let expires_at = NOW + Duration::days(30);
        let expected = NewLicense { uploaded_at: NOW, jwt: text.clone().into(), expires_at, uuid: Uuid::from_u128(7) };
        assert_eq!(new, expected);
    }
}

#[test]
fn verify_takes_what_is_not_checked_as_it_is() {
    let signer = Signer::new("key");
    let good = claims(NOW);
    for (claim, value) in [
        ("nbf", json!(now() + 86_400)),
        ("nbf", json!(0)),
        ("iat", json!(now())),
        ("iat", json!(0.5)),
        ("license_expires", json!(now() - 86_400)),
        ("license_expires", json!(now() + 5 * 365 * 86_400)),
        ("exp", json!(now() + 1)),
        ("exp", json!(253_402_300_799_i64)),
        ("jti", json!(null)),
        ("iss", json!(7)),
        ("aud", json!(["a"])),
        ("features", json!(null)),
        ("features", json!({})),
        ("deployment_ids", json!(null)),
        ("deployment_ids", json!([])),
        ("deployment_ids", json!(["another", HERE])),
        ("account_type", json!("trial")),
    ] {
        let new = verify(&signer.keys(), signer.sign(&with(&good, claim, value.clone())));
        new.unwrap_or_else(|error| panic!("{claim} {value}: {error}"));
    }
    // An id that is none is replaced by a random one.
    let odd = signer.sign(&with(&good, "jti", json!("seven")));
    let ids = [(); 2].map(|()| verify(&signer.keys(), &odd).expect("a license").uuid);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn verify_says_which_claim_is_wrong() {
    let signer = Signer::new("key");
    let good = claims(NOW);
    let iat = "license has invalid or missing iat (issued at) claim";
    let nbf = "license has invalid or missing nbf (not before) claim";
    let end = "license has invalid or missing license_expires claim";
    let exp = "license has invalid or missing exp (expires at) claim";
    let in_milliseconds = json!(now() * 1000);
    let mut table = vec![
        ("version", json!(null), "license_version", "license must be version 3"),
        ("version", json!(2), "license_version", "license must be version 3"),
        ("version", json!(4), "license_version", "license must be version 3"),
        ("version", json!(-3), "license_version", "license must be version 3"),
        ("version", json!("3"), "license_version", "license must be version 3"),
        ("iat", json!(now() + 1), "license_issued_in_future", SEVERAL),
        ("exp", json!(now()), "license_expired", SEVERAL),
        ("exp", json!(0), "license_expired", SEVERAL),
        ("nbf", json!(now() + 30 * 86_400), "license_never_valid", nbf),
        ("license_expires", json!(now() + 5 * 365 * 86_400 + 1), "license_expires", end),
        ("account_type", json!(null), "license_account_type", "license must contain valid account type"),
        ("account_type", json!(""), "license_account_type", "license must contain valid account type"),
        ("account_type", json!(1), "license_account_type", "license must contain valid account type"),
        ("account_id", json!(null), "license_account_id", "license must contain valid account ID"),
        ("account_id", json!(""), "license_account_id", "license must contain valid account ID"),
        ("account_id", json!(["acme"]), "license_account_id", "license must contain valid account ID"),
        ("deployment_ids", json!(HERE), "license_claim_type", SEVERAL),
        ("deployment_ids", json!([HERE, 7]), "license_claim_type", SEVERAL),
        ("trial", json!("yes"), "license_claim_type", SEVERAL),
        ("all_features", json!(1), "license_claim_type", SEVERAL),
        ("feature_set", json!(true), "license_claim_type", SEVERAL),
        ("features", json!([]), "license_claim_type", SEVERAL),
        ("features", json!({"user_limit": "many"}), "license_claim_type", SEVERAL),
        ("features", json!({"user_limit": 1.5}), "license_claim_type", SEVERAL),
        ("addons", json!({}), "license_claim_type", SEVERAL),
        ("require_telemetry", json!("no"), "license_claim_type", SEVERAL),
        ("publish_usage_data", json!(0), "license_claim_type", SEVERAL),
    ];
    let times = [
        ("iat", "license_iat", iat),
        ("nbf", "license_nbf", nbf),
        ("license_expires", "license_expires", end),
        ("exp", "license_exp", exp),
    ];
    for (claim, code, detail) in times {
        for value in [json!(null), json!("1"), json!(true), json!([1]), json!({}), json!(1e300), json!(-1e12)] {
            table.push((claim, value, code, detail));
        }
        table.push((claim, in_milliseconds.clone(), code, detail));
    }
    for (claim, value, code, detail) in table {
        let error = verify(&signer.keys(), signer.sign(&with(&good, claim, value.clone()))).expect_err("refused");
        assert_eq!((error.code(), error.detail().as_str()), (code, detail), "{claim} {value}: {error}");
        assert_eq!(error.message(), "Invalid license");
    }
}

#[test]
fn verify_says_the_first_fault_in_the_order_of_the_contract() {
    let signer = Signer::new("key");
    let mut all = json!({"deployment_ids": ["another"], "trial": 7});
    let steps = [
        ("license_version", "version", json!(3)),
        ("license_iat", "iat", json!(now() + 60)),
        ("license_issued_in_future", "iat", json!(now() - 60)),
        ("license_nbf", "nbf", json!(now() + 60)),
        ("license_expires", "license_expires", json!(now() + 60)),
        ("license_exp", "exp", json!(now() - 60)),
        ("license_expired", "exp", json!(now() + 60)),
        ("license_never_valid", "nbf", json!(now() - 60)),
        ("license_account_type", "account_type", json!("salesforce")),
        ("license_account_id", "account_id", json!("acme")),
        ("license_claim_type", "trial", json!(true)),
        ("license_deployment", "deployment_ids", json!([])),
    ];
    // A signature that is wrong comes before all of them.
    assert_eq!(refused(&Signer::new("key").keys(), signer.sign(&all)).0, "license_signature");
    for (code, claim, right) in steps {
        assert_eq!(refused(&signer.keys(), signer.sign(&all)).0, code);
        all[claim] = right;
    }
    verify(&signer.keys(), signer.sign(&all)).expect("a license");
}

#[test]
fn verify_takes_a_license_for_this_deployment_only() {
    let signer = Signer::new("key");
    let pinned = |ids: Value| signer.sign(&with(&claims(NOW), "deployment_ids", ids));
    let check = |text: &str, this| licenses::verify(text.as_bytes(), &signer.keys(), this, NOW);
    let error = check(&pinned(json!(["one", "two"])), Some("three")).expect_err("refused");
    assert_eq!((error.code(), error.message()), ("license_deployment", "License cannot be used on this deployment!"));
    assert_eq!(error.detail(), "It is for the deployments: one, two. The id of this deployment is: three.");
    let error = check(&pinned(json!(["one"])), None).expect_err("refused");
    assert_eq!(error.detail(), "It is for the deployments: one. The id of this deployment is: none.");
    check(&pinned(json!(["one", "two"])), Some("two")).expect("for this one");
    check(&pinned(json!([])), None).expect("for all");
    // However many and whatever they are, the answer is short and one line.
    let many: Vec<_> = (0..1_000).map(|n| format!("{n}\n{}", "x".repeat(20))).collect();
    let detail = check(&pinned(json!(many)), Some("three")).expect_err("refused").detail();
    assert!(detail.len() < 1_000 && !detail.contains('\n') && detail.contains(", 990 more."), "{detail}");
}

#[test]
fn verify_takes_one_algorithm_and_known_keys_only() {
    let (signer, other) = (Signer::new("key"), Signer::new("key"));
    let payload = claims(NOW).to_string();
    let with_header = |header: Value| signer.sign_text(&header.to_string(), &payload);
    let good = with_header(json!({"alg": "EdDSA", "kid": "key"}));
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    verify(&signer.keys(), &good).expect("a license");
    // With the public key as the secret of HS256, anybody could sign who has it.
    let cases = [
        (with_header(json!({"alg": "none", "kid": "key"})), "license_algorithm"),
        (with_header(json!({"alg": "HS256", "kid": "key"})), "license_algorithm"),
        (with_header(json!({"alg": "eddsa", "kid": "key"})), "license_algorithm"),
        (with_header(json!({"alg": ["EdDSA"], "kid": "key"})), "license_algorithm"),
        (with_header(json!({"kid": "key"})), "license_algorithm"),
        (with_header(json!({"alg": "EdDSA", "kid": "key", "crit": ["exp"]})), "license_extension"),
        (with_header(json!({"alg": "EdDSA"})), "license_key_id_missing"),
        (with_header(json!({"alg": "EdDSA", "kid": null})), "license_key_id_missing"),
        (with_header(json!({"alg": "EdDSA", "kid": 1})), "license_key_id_missing"),
        (with_header(json!({"alg": "EdDSA", "kid": ""})), "license_key_id_unknown"),
        (with_header(json!({"alg": "EdDSA", "kid": "Key"})), "license_key_id_unknown"),
        (other.sign_text(r#"{"alg":"EdDSA","kid":"key"}"#, &payload), "license_signature"),
        // A key in the header is not one of ours.
        (
            other.sign_text(&json!({"alg": "EdDSA", "kid": "key", "jwk": other.jwk()}).to_string(), &payload),
            "license_signature",
        ),
        (format!("{}.{body}.", base64(r#"{"alg":"none"}"#)), "license_malformed"),
        (format!("{header}.{body}.{}", base64([0; 64])), "license_signature"),
        (format!("{header}.{body}.{}", base64([0; 63])), "license_signature"),
        (format!("{header}.{body}.{signature}AAAA"), "license_signature"),
        (format!("{header}.{}.{signature}", base64(payload.replace("acme", "evil"))), "license_signature"),
        (format!("{}.{body}.{signature}", base64(r#"{"kid":"key","alg":"EdDSA"}"#)), "license_signature"),
    ];
    for (text, code) in cases {
        assert_eq!(refused(&signer.keys(), &text), (code, SEVERAL.to_owned()), "{text}");
    }
    // With two keys, each has its own id.
    let second = Signer::new("second");
    let both = json!({"keys": [signer.jwk(), second.jwk()]}).to_string();
    let both = LicenseKeys::from_jwk_set(&both).expect("two keys");
    for text in [signer.sign(&claims(NOW)), second.sign(&claims(NOW))] {
        verify(&both, &text).expect("a license");
    }
    let error = verify(&both, with_header(json!({"alg": "EdDSA", "kid": "third"}))).expect_err("refused");
    assert_eq!(error.to_string(), "it is signed with a key that is not known here; known is: key, second");
}

#[test]
fn verify_without_keys_refuses_everything() {
    for text in [Signer::new("key").sign(&claims(NOW)), String::new()] {
        let error = verify(&LicenseKeys::none(), text).expect_err("refused");
        assert_eq!(error.code(), "license_keys_missing");
        assert_eq!(error.message(), "Licenses cannot be verified on this deployment");
        assert!(error.detail().contains("configure a JWK set"), "{}", error.detail());
    }
}

#[test]
fn verify_finds_every_flipped_bit() {
    let signer = Signer::new("key");
    let (keys, text) = (signer.keys(), signer.sign(&claims(NOW)));
    let good = verify(&keys, &text).expect("a license");
    let mut same = 0;
    for bit in 0..text.len() * 8 {
        let mut bytes = text.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // The last character of the signature has bits that say nothing.
        if let Ok(other) = verify(&keys, &bytes) {
            assert!(other.jwt == good.jwt && bit / 8 == text.len() - 1, "bit {bit}");
            same += 1;
        }
    }
    assert!(same <= 4, "{same} other spellings of the last character");
}

#[test]
fn verify_reads_no_further_than_it_must() {
    let signer = Signer::new("key");
    let keys = signer.keys();
    let long = |len| signer.sign(&with(&claims(NOW), "padding", json!("x".repeat(len))));
    verify(&keys, long(40_000)).expect("long, but a license");
    for (text, code) in [
        (Vec::new(), "license_malformed"),
        (b"\0".to_vec(), "license_malformed"),
        (b"a.b\0.c".to_vec(), "license_malformed"),
        (format!("{}\0", signer.sign(&claims(NOW))).into_bytes(), "license_malformed"),
        (b"\xff.\xfe.\xfd".to_vec(), "license_not_text"),
        (b"\xff\xfea".to_vec(), "license_not_text"),
        (vec![b'.'; MAX_TEXT], "license_malformed"),
        (vec![b'A'; MAX_TEXT], "license_malformed"),
        (vec![b' '; MAX_TEXT], "license_malformed"),
        (vec![b'"'; MAX_TEXT], "license_malformed"),
        (vec![b'A'; MAX_TEXT + 1], "license_too_long"),
        (vec![b'A'; 1 << 20], "license_too_long"),
        (long(1 << 20).into_bytes(), "license_too_long"),
        (signer.sign_text("{}", &"[".repeat(10_000)).into_bytes(), "license_malformed"),
        (signer.sign_text(&format!(r#"{{"alg":{}"#, "[".repeat(10_000)), "{}").into_bytes(), "license_malformed"),
        (signer.sign_text(r#"{"alg":"EdDSA","kid":"key"}"#, r#"{"a":"\ud800"}"#).into_bytes(), "license_malformed"),
        (signer.sign_text(r#"{"alg":"EdDSA","kid":"key"}"#, r#"{"a":1e400}"#).into_bytes(), "license_malformed"),
        (signer.sign_text(r#"{"alg":"EdDSA","kid":"key"}"#, "{} {}").into_bytes(), "license_malformed"),
        (signer.sign_text(r#"{"alg":"EdDSA","kid":"key"}"#, "[]").into_bytes(), "license_malformed"),
    ] {
        assert_eq!(refused(&keys, &text), (code, SEVERAL.to_owned()), "{} bytes", text.len());
    }
}

/// What a fault shows to whoever reads logs.
fn shown(error: &LicenseError) -> String {
    format!("{error} {error:?} {error:#?} {} {}", error.code(), error.message())
}

#[test]
fn no_error_shows_any_of_the_text() {
    let signer = Signer::new("key");
    let good = with(&claims(NOW), "account_id", json!(CANARY));
    let header = json!({"alg": "EdDSA", "kid": "key", "of": CANARY});
    let mut texts = vec![
        CANARY.to_owned(),
        format!("{CANARY}.{CANARY}.{CANARY}"),
        format!("{}.{}.{CANARY}", base64(header.to_string()), base64(good.to_string())),
        format!("{}.{CANARY}.{CANARY}", base64(header.to_string())),
        signer.sign_text(&json!({"alg": CANARY, "kid": "key"}).to_string(), &good.to_string()),
        signer.sign_text(&json!({"alg": "EdDSA", "kid": CANARY}).to_string(), &good.to_string()),
        signer.sign_text(&json!({"alg": "EdDSA", "kid": "key"}).to_string(), CANARY),
        Signer::new("key").sign(&good),
    ];
    for claim in good.as_object().expect("claims").keys() {
        for wrong in [json!(CANARY), json!({CANARY: CANARY}), json!([CANARY])] {
            texts.push(signer.sign(&with(&good, claim, wrong)));
        }
    }
    texts.push(signer.sign(&with(&good, "deployment_ids", json!([CANARY]))));
    let mut refused = 0;
    for text in texts {
        let pieces: Vec<_> = text.as_bytes().chunks(16).map(String::from_utf8_lossy).collect();
        for error in [
            verify(&signer.keys(), &text).err(),
            licenses::without_verification(text.as_bytes(), NOW).err(),
            licenses::without_verification(text.as_bytes(), OffsetDateTime::now_utc() + Duration::days(40_000)).err(),
        ]
        .into_iter()
        .flatten()
        {
            let shown = shown(&error);
            secrets::check("an error", &shown);
            assert!(pieces.iter().all(|piece| piece.len() < 16 || !shown.contains(&**piece)), "{shown}");
            refused += 1;
        }
    }
    assert!(refused > 50, "{refused}");
}
