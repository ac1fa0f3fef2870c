//! Who may do what, every actor with every operation on everything: the answers are those of a table written by hand.
//!
//! `POLICY` in support/policy.rs says who may (domain: roles), and shares nothing with `src/authz`. An operation without a
//! line in it fails a test.

mod roles;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use coderdb::{
    sqlx::{self, Connection},
    store::Error,
};

pub use crate::support::policy::policy;
use crate::support::{
    self,
    operations::{
        names::{NO_SCOPE, WRITES, public_operations},
        run::run,
        steps::without_ids,
    },
    policy::{Answer, Line, fixture},
};

#[tokio::test]
async fn every_actor_gets_from_every_operation_exactly_what_the_table_says() {
    let (mut cells, mut wrong, mut lines) = (0, Vec::new(), policy());
    lines.sort_by_key(Line::before);
    for lines in lines.chunk_by(|one, other| one.before() == other.before()) {
        let database = support::database().await;
        let mut conn = database.connect().await;
        let actors = fixture(&mut conn).await;
        sqlx::raw_sql(lines[0].before()).execute(&mut conn).await.expect("what has to have happened");
        for line in lines {
            let mut answers = BTreeSet::new();
            for who in &actors {
                // Per answer to "may I ask?", which everybody knows of oneself: what refusals say.
                let mut texts: BTreeMap<bool, BTreeSet<String>> = BTreeMap::new();
                for at in line.cells(who) {
                    cells += 1;
                    let mut tx = conn.begin().await.expect("a transaction");
                    let result = run(line.operation, &mut tx, &who.actor, at).await;
                    let wrote: bool = sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
                        .fetch_one(&mut *tx)
                        .await
                        // Only an aborted transaction refuses this, and it wrote nothing.
                        .unwrap_or(false);
                    tx.rollback().await.expect("nothing stays");
                    let answer = match &result {
                        Ok(rows) => Answer::Rows(*rows),
                        Err(Error::NotFound { .. }) => Answer::NotFound,
                        Err(other) => panic!("{} as {} at {at:?}: {other:?}", line.operation, who.name),
                    };
                    if let Err(error) = &result {
                        texts.entry(line.may_ask(who, at)).or_default().insert(without_ids(&error.to_string(), at));
                    }
                    let expected = line.expected(who, at);
                    answers.insert(matches!(expected, Answer::Rows(1..)));
                    let may_write = WRITES.contains(&line.operation) && matches!(expected, Answer::Rows(1..));
                    if answer != expected {
                        wrong.push(format!(
                            "{} as {} at {at:?}: {answer:?}, not {expected:?} as POLICY says",
                            line.operation, who.name
                        ));
                    }
                    if wrote != may_write {
                        let listed = if WRITES.contains(&line.operation) { "is" } else { "is not" };
                        wrong.push(format!(
                            "{} as {} at {at:?}: {answer:?}, wrote: {wrote}; it {listed} in WRITES",
                            line.operation, who.name
                        ));
                    }
                }
                for (may_ask, texts) in texts {
                    if texts.len() > 1 && line.operation != "daemons::upsert" {
                        wrong.push(format!("{} as {} ({may_ask}) says {texts:?}", line.operation, who.name));
                    }
                }
            }
            if answers.len() < 2 {
                wrong.push(format!("{}: everybody gets the same", line.operation));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cells} cells:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cells >= 2000, "{cells} cells");
}

#[test]
fn every_operation_is_in_the_table() {
    let listed: BTreeSet<String> = policy().iter().map(|line| line.operation.to_owned()).collect();
    let listed: BTreeSet<String> = listed.into_iter().chain(NO_SCOPE.iter().map(ToString::to_string)).collect();
    let public = public_operations();
    let (missing, gone): (Vec<_>, Vec<_>) =
        (public.difference(&listed).collect(), listed.difference(&public).collect());
    assert!(
        missing.is_empty() && gone.is_empty(),
        "POLICY in tests/it/support/policy.rs lacks {missing:?}; not there: {gone:?}"
    );
}

#[test]
fn nothing_in_authz_makes_a_permit_but_its_check() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/authz")).expect("the permits") {
        let path = entry.expect("an entry").path();
        let code = fs::read_to_string(&path).expect("a text");
        for way in ["Deserialize", "impl Default", "impl From", "derive(Default", "unsafe", "pub fn new"] {
            assert!(!code.contains(way), "{} has {way:?}", path.display());
        }
        // An actor is no permit.
        let makers = code.matches("-> Self {").count() + code.matches("-> Result<Self, Denied> {").count();
        let checks = code.matches("pub fn check(").count();
        let file = path.file_name().and_then(|name| name.to_str());
        assert!(makers == checks || file == Some("actor.rs"), "{}: {makers} makers, {checks} checks", path.display());
    }
}
