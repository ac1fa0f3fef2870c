//! The rows that most tests begin with: an organization, a user, a template, a workspace, its build and its job.

use coderdb::{
    authz::{Actor, LoadActors, RunJobs, System},
    model::{DaemonId, OrganizationId, UserId},
    store,
};
use sqlx::{AssertSqlSafe, PgConnection};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support::{self, Database};

/// A database with `golden/rows.sql`: organization, user, template, workspace, build and job 1.
pub struct Rows {
    pub database: Database,
    pub conn: PgConnection,
}

impl Rows {
    pub async fn new() -> Self {
        Self::of(support::database().await).await
    }

    pub async fn of(database: Database) -> Self {
        let conn = database.connect().await;
        let mut rows = Self { database, conn };
        rows.run(include_str!("../golden/rows.sql")).await;
        rows
    }

    pub async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    }

    /// The first column of all rows, as text; `-` is null.
    pub async fn all(&mut self, sql: &str) -> Vec<String> {
        let sql = format!("SELECT coalesce(x::text, '-') FROM ({sql}) AS t (x)");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut self.conn).await.expect("the rows")
    }

    pub async fn one(&mut self, sql: &str) -> String {
        let rows = self.all(sql).await;
        let [row] = rows.as_slice() else { panic!("{sql}\n{rows:?}") };
        row.clone()
    }

    /// All jobs, builds, log lines and timings as one text: equal before and after what changes nothing.
    pub async fn everything(&mut self) -> Vec<String> {
        self.all(
            "SELECT to_jsonb(j) FROM (SELECT * FROM provisioner_jobs ORDER BY id) AS j
             UNION ALL SELECT to_jsonb(b) FROM (SELECT * FROM workspace_builds ORDER BY id) AS b
             UNION ALL SELECT to_jsonb(l) FROM (SELECT * FROM provisioner_job_logs ORDER BY id) AS l
             UNION ALL SELECT to_jsonb(t) FROM (SELECT * FROM provisioner_job_timings ORDER BY job_id) AS t",
        )
        .await
    }

    /// User `n` with these roles on the site and in organization 1.
    pub async fn user(&mut self, n: u128, site: &str, organization: &str) -> Actor {
        if n != 1 {
            self.run(&format!("SELECT add_user({n})")).await;
        }
        self.run(&format!(
            "SELECT add_member(1, {n}); UPDATE users SET rbac_roles = '{site}' WHERE id = u({n});
             UPDATE organization_members SET roles = '{organization}' WHERE user_id = u({n})"
        ))
        .await;
        let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("the authenticator");
        store::actors::load(&mut self.conn, &permit, UserId(id(n))).await.expect("the user")
    }
}

pub const NOW: OffsetDateTime = datetime!(2026-05-07 12:00:00 UTC);

/// As `u(n)` in `golden/rows.sql`, which spells ids in decimal digits.
pub fn id(n: u128) -> Uuid {
    format!("{n:032}").parse().expect("digits")
}

pub fn daemon(organization: u128, daemon: u128) -> RunJobs {
    let organization = OrganizationId(id(organization));
    RunJobs::check(&Actor::system(System::ProvisionerDaemon), organization, DaemonId(id(daemon))).expect("a daemon")
}
