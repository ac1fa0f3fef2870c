//! Whoever may read jobs may not therefore read quota; nobody does anything without a permit.

use coderdb::{authz::ReadJobs, sqlx::PgConnection, store};

async fn with_another(conn: &mut PgConnection, permit: &ReadJobs) {
    let _ = store::quota::usage(conn, permit).await;
}

async fn with_none(conn: &mut PgConnection) {
    let _ = store::licenses::list(conn).await;
}

fn main() {}
