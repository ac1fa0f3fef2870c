//! Uploaded files (domain: files).

use coderdb::{
    authz::{ReadFiles, RunJobs, UploadFiles},
    model::{DaemonId, FileId, FileOutcome, JobId, NewFile, OrganizationId, UserId},
    store::{self, Error},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

fn u(n: u32) -> Uuid {
    format!("{n:0>32}").parse().unwrap()
}

/// Users 1 and 2 may upload.
async fn world() -> (Database, PgConnection, [UploadFiles; 2]) {
    let database = support::database().await;
    let mut conn = database.connect().await;
    sqlx::raw_sql(include_str!("../golden/rows.sql")).execute(&mut conn).await.unwrap();
    sql(&mut conn, "SELECT add_user(2); UPDATE users SET rbac_roles = '{template-admin}'").await;
    let permits = [1, 2].map(|n| (n, coderdb::authz::LoadActors::check(&support::operator()).unwrap()));
    let mut uploads = Vec::new();
    for (n, load) in permits {
        let actor = store::actors::load(&mut conn, &load, UserId(u(n))).await.unwrap();
        uploads.push(UploadFiles::check(&actor).unwrap());
    }
    (database, conn, [uploads[0], uploads[1]])
}

async fn sql(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap();
}

fn file(id: u32, data: impl Into<Vec<u8>>) -> NewFile {
    NewFile { id: FileId(u(id)), mimetype: "application/x-tar".to_owned(), data: data.into() }
}

#[tokio::test]
async fn the_same_content_is_stored_once_per_user() {
    let (_database, mut conn, [one, other]) = world().await;
    let may_read = ReadFiles::check(&support::operator()).unwrap();
    assert_eq!(store::files::insert(&mut conn, &one, &file(10, "abc"), NOW).await.unwrap(), FileOutcome::Stored);
    let later = NOW + time::Duration::HOUR;
    let mut transaction = conn.begin().await.unwrap();
    let again = store::files::insert(&mut transaction, &one, &file(11, "abc"), later).await.unwrap();
    assert_eq!(again, FileOutcome::Known(FileId(u(10))));
    let wrote = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    assert!(!sqlx::query_scalar::<_, bool>(wrote).fetch_one(&mut *transaction).await.unwrap());
    transaction.rollback().await.unwrap();
    assert_eq!(store::files::insert(&mut conn, &one, &file(12, ""), NOW).await.unwrap(), FileOutcome::Stored);
    assert_eq!(store::files::insert(&mut conn, &other, &file(13, "abc"), NOW).await.unwrap(), FileOutcome::Stored);

    let found = store::files::get(&mut conn, &may_read, FileId(u(10))).await.unwrap();
    // The second test vector of FIPS 180-2.
    assert_eq!(found.hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!((&found.data[..], &found.mimetype[..]), (&b"abc"[..], "application/x-tar"));
    assert_eq!((found.created_at, found.created_by), (NOW, UserId(u(1))));
    assert!(store::files::get(&mut conn, &may_read, FileId(u(12))).await.unwrap().data.is_empty());
    assert!(matches!(store::files::get(&mut conn, &may_read, FileId(u(11))).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn uploads_of_the_same_content_at_once_agree_on_one_file() {
    let (database, mut conn, [permit, _]) = world().await;
    for keeps in [true, false] {
        sql(&mut conn, "DELETE FROM files").await;
        let (mut one, mut other) = (database.connect().await, database.connect().await);
        let mut first = one.begin().await.unwrap();
        let stored = store::files::insert(&mut first, &permit, &file(10, "abc"), NOW).await.unwrap();
        assert_eq!(stored, FileOutcome::Stored);
        let second =
            tokio::spawn(
                async move { store::files::insert(&mut other, &permit, &file(11, "abc"), NOW).await.unwrap() },
            );
        support::settled(&second, &mut conn, 1).await;
        assert!(!second.is_finished());
        if keeps {
            first.commit().await.unwrap();
            assert_eq!(second.await.unwrap(), FileOutcome::Known(FileId(u(10))));
        } else {
            first.rollback().await.unwrap();
            assert_eq!(second.await.unwrap(), FileOutcome::Stored);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_stored_is_refused_by_name() {
    let (_database, mut conn, [permit, _]) = world().await;
    let field = |error| match error {
        Error::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    for (mimetype, fine) in [("", false), ("a\0", false), (&"x".repeat(65), false), (&"x".repeat(64), true)] {
        let new = NewFile { mimetype: (*mimetype).to_owned(), ..file(10, "abc") };
        let result = store::files::insert(&mut conn, &permit, &new, NOW).await;
        assert_eq!(result.map_err(field).err(), (!fine).then_some("mimetype"), "{mimetype:?}");
    }
    let large = file(11, vec![0; store::files::MAX_SIZE + 1]);
    assert_eq!(field(store::files::insert(&mut conn, &permit, &large, NOW).await.unwrap_err()), "data");
    let taken = store::files::insert(&mut conn, &permit, &file(10, "other"), NOW).await.unwrap_err();
    assert!(matches!(taken, Error::Conflict { constraint: "files_pkey" }), "{taken}");
}

#[tokio::test]
async fn a_daemon_reads_the_source_of_its_job_while_it_has_it() {
    let (_database, mut conn, [permit, _]) = world().await;
    assert_eq!(store::files::insert(&mut conn, &permit, &file(10, "abc"), NOW).await.unwrap(), FileOutcome::Stored);
    let daemon = |n| {
        let actor = coderdb::authz::Actor::system(coderdb::authz::System::ProvisionerDaemon);
        RunJobs::check(&actor, OrganizationId(u(1)), DaemonId(u(n))).unwrap()
    };
    for (change, mine) in [
        ("UPDATE provisioner_jobs SET file_id = u(10)", false),
        ("UPDATE provisioner_jobs SET worker_id = u(7), started_at = at_second(0)", true),
        ("UPDATE provisioner_jobs SET file_id = u(11)", false),
        ("UPDATE provisioner_jobs SET file_id = u(10)", true),
        ("UPDATE provisioner_jobs SET completed_at = at_second(0)", false),
    ] {
        sql(&mut conn, change).await;
        let found = store::files::of_job(&mut conn, &daemon(7), JobId(u(1))).await;
        assert_eq!(found.ok().map(|file| file.data), mine.then(|| b"abc".to_vec()), "{change}");
        let others = store::files::of_job(&mut conn, &daemon(8), JobId(u(1))).await;
        assert!(matches!(others, Err(Error::NotFound { .. })), "{change}");
    }
}
