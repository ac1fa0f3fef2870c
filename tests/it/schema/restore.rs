//! A database that was dumped on one server and restored on another answers at once as before, also where functions may
//! not be executed by default. `scripts/versions 14 18 -- restore::` restores the dump of the installed
//! server on newer ones.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use coderdb::{
    demo,
    model::{Capabilities, DaemonFilter, JobDetails, JobFilter, JobId, JobWithQueue, Label, PageRequest, Quota},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, jobs::STALE_INTERVAL},
};

use crate::support::{self, CODERDB, Database, coderdb, run};

/// A server of its own with the demo: of the version that is installed, or of that of the target where the target is older,
/// because a dump of a newer server does not fit an older one.
struct Source {
    dir: tempfile::TempDir,
    server: Child,
    url: String,
}

impl Source {
    fn start(target_version: i32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(CODERDB);
        command.args(["postgres", "run"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("CODERDB_DATA_DIR", dir.path().join("data")).stdout(Stdio::piped());
        if target_version < 150_000
            && let Some(programs) = std::env::var_os("PG_BIN_DIR")
        {
            command.env("PG_BIN_DIR", programs);
        }
        let mut server = command.spawn().expect("the program starts");
        let mut url = String::new();
        BufReader::new(server.stdout.take().expect("its output")).read_line(&mut url).expect("its URL");
        let url = url.trim().to_owned();
        let demo = run(coderdb().arg("demo").env("DATABASE_URL", &url));
        assert_eq!(demo.code, 0, "{}", demo.stderr);
        Self { dir, server, url }
    }

    /// The database as a dump in this form, in a file of that directory.
    fn dump(&self, form: &str, options: &[&str]) -> std::path::PathBuf {
        let file = self.dir.path().join(form);
        let dump = Command::new("pg_dump").args(options).arg("-f").arg(&file).arg(&self.url).output();
        let dump = dump.expect("pg_dump, which comes with the server");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        file
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the layer says of a database.
#[derive(Debug, PartialEq)]
struct Answers {
    jobs: Vec<JobDetails>,
    positions: Vec<JobWithQueue>,
    quota: Vec<Quota>,
}

async fn answers(conn: &mut PgConnection) -> Answers {
    let organization =
        store::organizations::default(conn, &support::read_organizations()).await.expect("the organization").id;
    let permit = support::read_jobs(organization);
    let page = store::jobs::list(conn, &permit, &JobFilter::default(), PageRequest::default()).await.expect("the jobs");
    let ids: Vec<JobId> = page.rows.iter().map(|row| row.job.id).collect();
    let positions = store::jobs::by_ids_with_queue_position(conn, &permit, &ids, demo::ANCHOR, STALE_INTERVAL).await;
    let users: Vec<coderdb::model::UserId> =
        sqlx::query_scalar("SELECT id FROM users ORDER BY id").fetch_all(&mut *conn).await.expect("the users");
    let mut quota = Vec::new();
    for user in users {
        quota.push(store::quota::usage(conn, &support::read_quota(user, organization)).await.expect("the quota"));
    }
    Answers { jobs: page.rows, positions: positions.expect("the positions"), quota }
}

/// Every daemon takes what it can, one after the other.
async fn claims(conn: &mut PgConnection) -> Vec<JobId> {
    let organization =
        store::organizations::default(conn, &support::read_organizations()).await.expect("the organization").id;
    let permit = coderdb::authz::ReadDaemons::check(&support::operator(), organization).expect("an operator");
    let daemons = store::daemons::list(conn, &permit, &DaemonFilter::default(), demo::ANCHOR, STALE_INTERVAL).await;
    let mut taken = Vec::new();
    for details in daemons.expect("the daemons") {
        let actor = coderdb::authz::Actor::system(coderdb::authz::System::ProvisionerDaemon);
        let permit = coderdb::authz::RunJobs::check(&actor, organization, details.daemon.id).expect("a daemon");
        let provisioners: Vec<_> = details.daemon.provisioners.iter().filter_map(Label::known).collect();
        let offer = Capabilities { provisioners: &provisioners, tags: &details.daemon.tags };
        while let Some(job) = store::jobs::acquire(conn, &permit, offer, demo::ANCHOR).await.expect("an answer") {
            taken.push(job.id);
        }
    }
    taken
}

async fn execute(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect("a statement");
}

#[tokio::test]
async fn restored_databases_answer_at_once_as_before() {
    let version = "SELECT current_setting('server_version_num')::integer";
    let mut target = support::database().await.directly().connect().await;
    let source = Source::start(sqlx::query_scalar(version).fetch_one(&mut target).await.expect("a version"));
    let mut original = PgConnection::connect(&source.url).await.expect("the source");
    let expected = answers(&mut original).await;
    assert!(expected.jobs.iter().any(|row| row.queue_position > 0));
    let forms = [
        ("plain", &["-Fp"][..], false),
        ("custom", &["-Fc"], true),
        ("without owners", &["-Fc", "--no-owner", "--no-privileges"], true),
    ];
    let mut dumps = Vec::new();
    for (form, options, archive) in forms {
        dumps.push((form, source.dump(form, options), archive));
    }
    let expected_claims = claims(&mut original).await;
    assert!(expected_claims.len() > 5, "{expected_claims:?}");
    for (form, file, archive) in dumps {
        let target: Database = support::empty_database().await.directly();
        let mut owner = target.connect().await;
        execute(&mut owner, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").await;
        let mut restore = if archive {
            let mut restore = Command::new("pg_restore");
            restore.args(["--exit-on-error", "-d", target.url()]);
            restore
        } else {
            let mut restore = Command::new("psql");
            restore.args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", target.url(), "-f"]);
            restore
        };
        let restored = restore.arg(&file).output().expect("the tools of the server");
        assert!(restored.status.success(), "{form}: {}", String::from_utf8_lossy(&restored.stderr));
        let role = format!("restored_{}", target.name());
        execute(
            &mut owner,
            &format!(
                "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
            ),
        )
        .await;
        let mut conn = PgConnection::connect(&target.url_as(&role, "")).await.expect("the role");
        assert_eq!(answers(&mut conn).await, expected, "{form}");
        assert_eq!(claims(&mut conn).await, expected_claims, "{form}");
        let verified = run(target.coderdb().args(["migrate", "verify"]));
        assert_eq!((verified.code, verified.stderr.as_str()), (0, ""), "{form}: {}", verified.stdout);
        conn.close().await.expect("a clean end");
        execute(&mut owner, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }
}
