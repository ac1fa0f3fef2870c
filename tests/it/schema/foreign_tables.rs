//! What this layer owns on tables that another server also writes: indexes and named constraints, and nothing else.
//!
//! The base schema is that server's own. What later versions add must not make one of its migrations fail, nor one of its
//! statements.

use coderdb::migrate;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{self, objects::OBJECTS};

async fn lines(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await.expect(sql)
}

/// The indexes of the later versions, as the server writes them.
const INDEXES: &str = "
    SELECT pg_get_indexdef(indexrelid) FROM pg_index INNER JOIN pg_class ON pg_class.oid = indrelid
    WHERE relnamespace = 'public'::regnamespace ORDER BY 1";

#[tokio::test]
async fn later_versions_add_nothing_but_indexes_and_constraints() {
    let database = support::empty_database().await.directly();
    let mut conn = database.connect().await;
    let base = migrate::MigrateOptions { target: Some(1), ..migrate::MigrateOptions::default() };
    migrate::up(&mut conn, &base, |_| {}).await.expect("the base");
    let (objects, indexes) = (lines(&mut conn, OBJECTS).await, lines(&mut conn, INDEXES).await);
    migrate::up(&mut conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the other versions");
    assert_eq!(lines(&mut conn, OBJECTS).await, objects);
    let ours: Vec<String> =
        lines(&mut conn, INDEXES).await.into_iter().filter(|index| !indexes.contains(index)).collect();
    assert!(ours.len() > 5, "{ours:?}");
    let enums = lines(&mut conn, "SELECT '::' || typname FROM pg_type WHERE typtype = 'e'").await;
    let functions =
        lines(&mut conn, "SELECT proname || '(' FROM pg_proc WHERE pronamespace = 'public'::regnamespace").await;
    for index in ours {
        // A migration that recreates an enumerated type fails on an index that names one of its labels; one that adds the
        // generated column again would drop the index; and md5 fails every insert on a server in FIPS mode.
        for never in enums.iter().chain(&functions).map(String::as_str).chain(["job_status", "md5("]) {
            assert!(!index.contains(never), "{index} has {never}");
        }
    }
}

/// An entry of an index is limited to 2,704 bytes: whatever a job holds, no index of ours may make its insertion fail.
#[tokio::test]
async fn no_index_fails_the_insertion_of_a_large_job() {
    let mut rows = crate::support::rows::Rows::new().await;
    // Incompressible texts of about 590, 700, 10,000 and 10,000,000 bytes, and 290 numbers that are larger stored than written.
    rows.run(
        "CREATE FUNCTION noise(n integer) RETURNS text LANGUAGE sql AS
         $$ SELECT string_agg(md5(i::text), '') FROM generate_series(1, n) AS i $$;
         SELECT add_job(n) FROM generate_series(11, 16) AS n;
         UPDATE provisioner_jobs SET tags = jsonb_build_object('t', noise(18)) WHERE id = u(11);
         UPDATE provisioner_jobs SET tags = jsonb_build_object('t', noise(21)) WHERE id = u(12);
         UPDATE provisioner_jobs SET tags = jsonb_build_object('t', noise(312)), input = jsonb_build_object(
            'workspace_build_id', noise(312), 'template_version_id', noise(312)), error = noise(312) WHERE id = u(13);
         UPDATE provisioner_jobs SET tags = jsonb_build_object('t', noise(312500)) WHERE id = u(14);
         UPDATE provisioner_jobs SET tags = (SELECT jsonb_agg(i % 10) FROM generate_series(1, 199) AS i) WHERE id = u(15);
         UPDATE provisioner_jobs SET tags = (SELECT jsonb_agg('[]'::jsonb) FROM generate_series(1, 149) AS i) WHERE id = u(16);
         UPDATE provisioner_jobs SET initiator_id = prebuilds()",
    )
    .await;
    assert_eq!(
        rows.one("SELECT count(*) FROM provisioner_jobs WHERE octet_length(tags::text) BETWEEN 550 AND 600").await,
        "3"
    );
}
