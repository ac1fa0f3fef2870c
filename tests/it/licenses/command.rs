//! `coderdb licenses add` with keys and without.

use coderdb::sqlx;
use serde_json::json;
use time::OffsetDateTime;

use crate::support::{
    self,
    licenses::{Signer, base64, claims, with},
    run,
};

#[tokio::test]
async fn add_checks_the_signature_when_it_has_keys() {
    let database = support::database().await;
    let now = OffsetDateTime::now_utc();
    let (signer, other) = (Signer::new("key"), Signer::new("key"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), signer.jwk_set()).expect("written");
    let add = |text: &str| {
        let mut coderdb = database.coderdb();
        coderdb.args(["licenses", "add", "--keys"]).arg(file.path());
        run(coderdb.write_stdin(text.to_owned()))
    };
    let good = claims(now);
    let added = add(&format!("{}\n", signer.sign(&good)));
    assert!(added.code == 0 && added.stderr.starts_with("License 1 added, expires at 20"), "{}", added.stderr);
    assert_eq!(added.stderr.lines().count(), 1, "{}", added.stderr);
    for (text, why) in [
        (other.sign(&good), "its signature is not that of the key that it names, or it was changed"),
        (signer.sign(&with(&good, "version", json!(2))), "its version is not 3"),
        (signer.sign(&with(&good, "account_id", json!(""))), "its account_id is missing, empty or no text"),
        (signer.sign(&with(&good, "deployment_ids", json!(["this"]))), "it is for other deployments than this one"),
        ("x".repeat(1 << 20), "it is too long: expected 65536 bytes at most"),
    ] {
        let refused = add(&text);
        let expected = format!("error: Invalid license: {why}");
        assert!(refused.code == 1 && refused.stderr.starts_with(&expected), "{expected}: {}", refused.stderr);
    }
    assert_eq!(add(&signer.sign(&good)).stderr, "error: the license is there already: number 1\n");
    let mut conn = database.connect().await;
    sqlx::query("INSERT INTO site_configs VALUES ('deployment_id', 'this')").execute(&mut conn).await.expect("its id");
    assert_eq!(add(&signer.sign(&with(&good, "deployment_ids", json!(["this"])))).code, 0);
}

#[tokio::test]
async fn add_takes_keys_from_the_environment_and_says_when_it_has_none() {
    let database = support::database().await;
    let good = claims(OffsetDateTime::now_utc());
    let (signer, other) = (Signer::new("key"), Signer::new("key"));
    let add = |keys: &str, text: String| {
        run(database.coderdb().env("CODERDB_LICENSE_KEYS", keys).args(["licenses", "add"]).write_stdin(text))
    };
    assert_eq!(add(&signer.jwk_set(), other.sign(&good)).code, 1);
    assert_eq!(add(&signer.jwk_set(), signer.sign(&good)).code, 0);
    let unchecked = add("", other.sign(&good));
    assert_eq!(unchecked.code, 0, "{}", unchecked.stderr);
    let note = "Its signature was not checked: --keys or CODERDB_LICENSE_KEYS names the public keys for that\n";
    assert!(unchecked.stderr.ends_with(note), "{}", unchecked.stderr);
    for (keys, why) in [
        ("{}", "error: the keys of licenses are not usable: keys: expected a JWK set"),
        ("/nowhere", "error: cannot read the keys of licenses in /nowhere: "),
    ] {
        let refused = add(keys, signer.sign(&good));
        assert!(refused.code == 2 && refused.stderr.starts_with(why), "{why}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn list_shows_claims_to_the_letter() {
    let database = support::database().await;
    let payload = r#"{"exp": 32503680000.0, "n": 12345678901234567890123, "f": 1.10}"#;
    let text = format!("{}.{}.{}", base64("{}"), base64(payload), base64([7; 64]));
    assert_eq!(run(database.coderdb().args(["licenses", "add"]).write_stdin(text)).code, 0);
    let json = run(database.coderdb().args(["licenses", "list", "-o", "json"])).stdout;
    assert!(json.contains(payload), "{json}");
}
