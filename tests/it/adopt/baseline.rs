//! Recognising such a database, recording what is there, and taking everything away again.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{adopt, coder, dump, machine, program, run, text, texts};
use crate::support::{
    self, fails,
    objects::OBJECTS,
    random_database::{self as rows, insert},
};

#[tokio::test]
async fn every_command_says_whose_the_database_is_and_leaves_nothing_behind() {
    let (database, _conn) = coder().await;
    let before = dump(&database);
    let said = "this database was made by Coder (version 440): run `coderdb migrate adopt`";
    for args in [
        &["up"][..],
        &["plan"],
        &["status"],
        &["check"],
        &["verify"],
        &["history"],
        &["repair", "accept", "1", "--yes"],
        &["repair", "mark-applied", "7", "--yes"],
        &["repair", "drop-invalid-indexes", "--yes"],
    ] {
        fails(database.coderdb().arg("migrate").args(args), 12, &[said, "adopt --plan"]);
    }
    fails(database.coderdb().args(["demo", "--allow-existing"]), 12, &[said]);
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn adopt_refuses_what_coder_has_not_made_and_what_a_migration_has_left_halfway() {
    let plain = support::database().await.directly();
    fails(plain.coderdb().args(["migrate", "adopt"]), 14, &["no database that Coder's server made"]);
    fails(plain.coderdb().args(["migrate", "unadopt", "--yes"]), 14, &["no database that Coder's server made"]);
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    fails(database.coderdb().args(["migrate", "unadopt"]), 2, &["say --yes"]);
    assert_eq!(text(&database, &["unadopt", "--yes"], 0), "There is nothing of coderdb.\n");
    run(&mut conn, "UPDATE schema_migrations SET dirty = true").await;
    fails(database.coderdb().args(["migrate", "adopt"]), 14, &["failed halfway"]);
    run(&mut conn, "UPDATE schema_migrations SET dirty = false").await;
    run(&mut conn, "CREATE INDEX provisioner_jobs_running_idx ON provisioner_jobs (id)").await;
    fails(
        database.coderdb().args(["migrate", "adopt"]),
        14,
        &["another index has the name provisioner_jobs_running_idx"],
    );
    run(&mut conn, "DROP INDEX provisioner_jobs_running_idx").await;
    assert_eq!(dump(&database), before);
    run(&mut conn, "DELETE FROM schema_migrations").await;
    for args in [&["adopt"][..], &["adopt", "--print-sql"]] {
        fails(database.coderdb().arg("migrate").args(args), 14, &["schema_migrations is empty"]);
    }
    run(&mut conn, "INSERT INTO schema_migrations (version, dirty) VALUES (440, false)").await;
    // What an index is over must be there, whatever is accepted.
    run(&mut conn, "ALTER TABLE workspaces RENAME COLUMN name TO title").await;
    fails(
        database.coderdb().args(["migrate", "adopt", "--yes"]),
        14,
        &["column workspaces.name is gone, and the index workspaces_organization_id_lower_idx is over it"],
    );
    run(&mut conn, "ALTER TABLE workspaces RENAME COLUMN title TO name").await;
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn adopt_records_what_is_there_and_builds_the_indexes_and_every_command_accepts_it() {
    let (database, mut conn) = coder().await;
    let (before, objects) = (dump(&database), texts(&mut conn, OBJECTS).await);
    let plan = text(&database, &["adopt", "--plan"], 0);
    assert!(
        plan.contains("A database of Coder, version 440")
            && plan.contains("provisioner_jobs_acquire_idx on provisioner_jobs: to be built"),
        "{plan}"
    );
    let plan = machine(&database, &["adopt", "--plan"], 0);
    assert_eq!(
        (&plan["differences"], &plan["warnings"], &plan["coder"]),
        (&json!([]), &json!([]), &json!({ "version": 440, "dirty": false }))
    );
    assert_eq!(dump(&database), before);

    let adopted = machine(&database, &["adopt"], 0);
    assert_eq!((&adopted["coder_version"], &adopted["recorded"]), (&json!(440), &json!([1, 2, 3, 4, 5, 6, 7])));
    let applied: Vec<_> =
        adopted["applied"].as_array().unwrap().iter().map(|applied| applied["version"].clone()).collect();
    assert_eq!(applied, [8, 9, 10]);

    let status = machine(&database, &["status", "--exit-code"], 0);
    let are: Vec<_> =
        status["migrations"].as_array().unwrap().iter().map(|entry| entry["state"].as_str().unwrap()).collect();
    let expected = [["adopted"; 3].as_slice(), &["left_out"; 4], &["applied"; 3]].concat();
    assert_eq!(
        (are.as_slice(), &status["adopted"]),
        (&expected[..], &json!({ "from": 440, "now": 440, "dirty": false }))
    );
    assert_eq!(text(&database, &["check"], 0), "adopted from Coder's version 440: fits: the schema is at version 10\n");
    assert_eq!(machine(&database, &["verify"], 0)["drifts"], json!([]));
    assert_eq!(text(&database, &["up"], 0), "The schema is up to date.\n");
    assert_eq!(text(&database, &["plan"], 0), "Nothing is pending.\n");
    let history = machine(&database, &["history"], 0);
    let actions: Vec<_> =
        history["history"].as_array().unwrap().iter().map(|done| done["action"].as_str().unwrap()).collect();
    assert_eq!(actions.iter().filter(|action| **action == "left out").count(), 4);
    // On Coder's tables this layer has indexes, and nothing else.
    assert_eq!(texts(&mut conn, OBJECTS).await, objects);

    // Again, it changes nothing but that it was done.
    assert_eq!(machine(&database, &["adopt"], 0)["applied"], json!([]));
    run(&mut conn, "DROP INDEX provisioner_jobs_running_idx").await;
    assert_eq!(machine(&database, &["verify"], 12)["drifts"][0]["name"], "provisioner_jobs_running_idx");
    assert_eq!(machine(&database, &["adopt"], 0)["rebuilt"], json!(["provisioner_jobs_running_idx"]));
    assert_eq!(machine(&database, &["verify"], 0)["clean"], json!(true));

    let removed = machine(&database, &["unadopt", "--yes"], 0);
    assert_eq!(removed["removed"].as_array().unwrap().len(), 15);
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn the_closed_set_of_error_codes_is_added_when_it_is_asked_for_and_no_job_is_in_the_way() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    let (organization, job) = (Uuid::from_u128(1), Uuid::from_u128(2));
    insert(&mut conn, "organizations", &[rows::organization(organization, "one")]).await;
    let later = rows::with(rows::job(job, organization, job), json!({ "error_code": "LATER" }));
    insert(&mut conn, "provisioner_jobs", &[later]).await;
    fails(database.coderdb().args(["migrate", "adopt", "--with-error-code-check"]), 14, &["\"LATER\" in 1 jobs"]);
    assert_eq!(dump(&database), before);
    run(&mut conn, "DELETE FROM provisioner_jobs").await;
    for args in
        [&["adopt"][..], &["adopt", "--with-error-code-check"], &["adopt", "--with-error-code-check"], &["adopt"]]
    {
        text(&database, args, 0);
    }
    let status: Value = machine(&database, &["status"], 0);
    assert!(status["migrations"].as_array().unwrap()[..7].iter().all(|entry| entry["state"] == "adopted"), "{status}");
    assert_eq!(machine(&database, &["verify"], 0)["clean"], json!(true));
    let definition =
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'provisioner_jobs_error_code_check'";
    let here = texts(&mut conn, definition).await;
    assert_eq!(here, texts(&mut support::database().await.connect().await, definition).await);
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn a_publication_of_all_tables_is_named_first() {
    let (database, mut conn) = coder().await;
    run(&mut conn, "CREATE PUBLICATION everything FOR ALL TABLES").await;
    fails(
        database.coderdb().args(["migrate", "adopt"]),
        15,
        &["the publication everything is FOR ALL TABLES", "say --yes"],
    );
    let plan = machine(&database, &["adopt", "--plan"], 15);
    assert_eq!(plan["publications"], json!(["everything"]));
    text(&database, &["adopt", "--yes"], 0);
    text(&database, &["adopt"], 0);
}

#[tokio::test]
async fn a_history_that_was_marked_by_hand_is_taken_away_before_it_is_adopted() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    // What `repair mark-applied 7` and `up` did on such a database before they recognised it.
    adopt(&database).await;
    run(&mut conn, "DROP TABLE coderdb.baseline").await;
    fails(database.coderdb().args(["migrate", "adopt"]), 14, &["run `coderdb migrate unadopt`"]);
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
    text(&database, &["adopt"], 0);
}

#[tokio::test]
async fn unadopt_keeps_what_somebody_else_has_put_into_the_schema() {
    let (database, mut conn) = coder().await;
    adopt(&database).await;
    run(&mut conn, "CREATE TABLE coderdb.notes (note text)").await;
    let indexes = "SELECT relname FROM pg_class WHERE relname = 'provisioner_jobs_running_idx'";
    fails(&mut program(&database, &["unadopt", "--yes"]), 14, &["move or drop it: table coderdb.notes"]);
    assert_eq!(texts(&mut conn, indexes).await.len(), 1, "nothing is dropped before");
    run(&mut conn, "DROP TABLE coderdb.notes").await;
    text(&database, &["unadopt", "--yes"], 0);
}

#[tokio::test]
async fn another_index_with_the_name_of_ours_is_neither_recorded_nor_dropped() {
    const INDEX: &str = "provisioner_jobs_running_idx";
    let (database, mut conn) = coder().await;
    let plain = dump(&database);
    adopt(&database).await;
    run(&mut conn, &format!("DROP INDEX {INDEX}; CREATE INDEX {INDEX} ON provisioner_jobs (worker_id)")).await;
    let before = "SELECT indexes ->> 'provisioner_jobs_running_idx' FROM coderdb.baseline ORDER BY id DESC LIMIT 1";
    let recorded = texts(&mut conn, before).await;
    let verified = machine(&database, &["verify"], 12);
    assert_eq!((&verified["drifts"][0]["drift"], &verified["drifts"][0]["name"]), (&json!("changed"), &json!(INDEX)));
    fails(&mut program(&database, &["adopt"]), 14, &["another index has the name provisioner_jobs_running_idx"]);
    assert_eq!(texts(&mut conn, before).await, recorded);
    let removed = machine(&database, &["unadopt", "--yes"], 0);
    assert!(!removed.to_string().contains(INDEX), "{removed}");
    let definition = format!("SELECT pg_get_indexdef('{INDEX}'::regclass)");
    assert!(texts(&mut conn, &definition).await[0].ends_with("(worker_id)"));
    run(&mut conn, &format!("DROP INDEX {INDEX}")).await;
    assert_eq!(dump(&database), plain);
}

#[tokio::test]
async fn adopt_builds_again_what_an_upgrade_has_taken_along_and_leaves_out_what_cannot_be() {
    let (database, mut conn) = coder().await;
    adopt(&database).await;
    run(&mut conn, "DROP INDEX provisioner_jobs_waiting_odd_idx").await;
    run(
        &mut conn,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'provisioner_jobs_acquire_idx'::regclass",
    )
    .await;
    run(&mut conn, "ALTER TABLE workspaces DROP COLUMN name CASCADE").await;
    let plan = text(&database, &["adopt", "--plan", "--yes"], 0);
    assert!(plan.contains("index provisioner_jobs_waiting_odd_idx on provisioner_jobs: to be built\n"), "{plan}");
    let adopted = machine(&database, &["adopt", "--yes"], 0);
    assert_eq!(adopted["rebuilt"], json!(["provisioner_jobs_waiting_odd_idx", "provisioner_jobs_acquire_idx"]));
    assert_eq!(machine(&database, &["verify"], 0)["clean"], json!(true));
    assert_eq!(machine(&database, &["adopt"], 0)["rebuilt"], json!([]));
    text(&database, &["unadopt", "--yes"], 0);
}

#[tokio::test]
async fn check_status_and_verify_say_that_a_migration_of_coder_has_failed_halfway() {
    let (database, mut conn) = coder().await;
    adopt(&database).await;
    run(&mut conn, "UPDATE schema_migrations SET version = 441, dirty = true").await;
    for command in ["check", "status", "verify"] {
        let outcome = support::run(&mut program(&database, &[command]));
        let said = "adopted from Coder's version 440, now 441, of which a migration has failed halfway";
        assert!(outcome.code == 0 && (outcome.stdout + &outcome.stderr).contains(said), "{command}");
        assert_eq!(machine(&database, &[command], 0)["adopted"]["dirty"], json!(true), "{command}");
    }
}

#[tokio::test]
async fn a_constraint_of_others_with_the_name_of_the_closed_set_is_not_taken_for_it() {
    let (database, mut conn) = coder().await;
    run(
        &mut conn,
        "ALTER TABLE provisioner_jobs ADD CONSTRAINT provisioner_jobs_error_code_check CHECK (length(error_code) < 100)",
    )
    .await;
    let before = dump(&database);
    let said = "another constraint has the name provisioner_jobs_error_code_check";
    fails(database.coderdb().args(["migrate", "adopt", "--with-error-code-check"]), 14, &[said]);
    assert_eq!(dump(&database), before);
    text(&database, &["adopt"], 0);
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
}

#[tokio::test]
async fn unadopt_takes_away_what_the_owner_was_told_to_run_also_before_it_was_adopted() {
    let (database, mut conn) = coder().await;
    let before = dump(&database);
    let script = text(&database, &["adopt", "--print-sql", "--with-error-code-check"], 0);
    for statement in script.split_inclusive(";\n") {
        run(&mut conn, statement).await;
    }
    let rest = text(&database, &["adopt", "--print-sql", "--with-error-code-check"], 0);
    assert_eq!(rest.lines().count(), 1, "nothing is left to be run: {rest}");
    text(&database, &["unadopt", "--yes"], 0);
    assert_eq!(dump(&database), before);
}
