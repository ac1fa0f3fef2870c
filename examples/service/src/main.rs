//! Migrates its database, and prints what waits.

use std::error::Error;

use coderdb::{
    authz::{Actor, System},
    connect::ConnectOptions,
    sqlx::Connection,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut conn = ConnectOptions::from_environment()?.ok_or("set DATABASE_URL")?.connect().await?;
    coderdb_example_service::migrate(&mut conn).await?;
    let (jobs, quota) = coderdb_example_service::waiting(&mut conn, &Actor::system(System::Operator)).await?;
    println!("{}", serde_json::to_string_pretty(&jobs)?);
    if let Some(quota) = quota {
        println!("{}", serde_json::to_string(&quota)?);
    }
    conn.close().await?;
    Ok(())
}
