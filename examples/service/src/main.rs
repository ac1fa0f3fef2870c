//! A service that uses the library alone: no command line, no private server, its own connection.
//!
//! Prints what waits in the default organization, and what the first of those who wait consumes and may consume.

use std::error::Error;

use coderdb::{
    authz::{Actor, ReadJobs, ReadOrganizations, ReadQuota, System},
    connect::ConnectOptions,
    model::{JobFilter, JobStatus, PageRequest},
    sqlx::Connection,
    store,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut conn = ConnectOptions::from_environment()?.ok_or("set DATABASE_URL")?.connect().await?;
    let actor = Actor::system(System::Operator);
    let organization = store::organizations::default(&mut conn, &ReadOrganizations::check(&actor)).await?;
    let pending = JobFilter { status: vec![JobStatus::Pending], ..JobFilter::default() };
    let page =
        store::jobs::list(&mut conn, &ReadJobs::check(&actor, organization.id)?, &pending, PageRequest::first(50))
            .await?;
    println!("{}", serde_json::to_string_pretty(&page.rows)?);
    if let Some(details) = page.rows.last() {
        let quota =
            store::quota::usage(&mut conn, &ReadQuota::check(&actor, details.job.initiator_id, organization.id)?)
                .await?;
        println!("{}", serde_json::to_string(&quota)?);
    }
    conn.close().await?;
    Ok(())
}
