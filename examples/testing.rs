//! How long a database for a test takes: `cargo run --example testing --features testing`.

use std::{error::Error, time::Instant};

use coderdb::testing::{self, Database};
use futures_util::future::try_join_all;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    const MANY: u32 = 50;
    let began = Instant::now();
    let server = testing::server()?;
    println!("{:8.1?}  to start PostgreSQL {}", began.elapsed(), server.version());
    let began = Instant::now();
    drop(Database::new().await?);
    println!("{:8.1?}  for the first database, with the migrations", began.elapsed());
    let began = Instant::now();
    for _ in 0..MANY {
        drop(Database::new().await?);
    }
    println!("{:8.1?}  for each of {MANY}, one after the other", began.elapsed() / MANY);
    let began = Instant::now();
    drop(try_join_all((0..MANY).map(|_| Database::new())).await?);
    println!("{:8.1?}  for each of {MANY} at once", began.elapsed() / MANY);
    Ok(())
}
