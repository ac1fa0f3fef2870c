//! Each test has a database of its own, with the migrations of the library and of the service.

use coderdb::{
    authz::{Actor, System},
    migrate, sqlx,
    testing::Database,
};
use coderdb_example_service::{migrate, migrations, waiting};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn invoices_are_of_users() -> Result {
    let database = Database::migrated(&migrations()?).await?;
    let mut conn = database.connect().await?;
    let orphan = "INSERT INTO invoices (user_id, credits) VALUES (gen_random_uuid(), 7)";
    let refused = sqlx::query(orphan).execute(&mut conn).await.unwrap_err();
    assert!(refused.to_string().contains("invoices_user_id_fkey"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn waiting_needs_an_organization() -> Result {
    let database = Database::migrated(&migrations()?).await?;
    let mut conn = database.pool().get().await?;
    assert!(waiting(&mut conn, &Actor::system(System::Operator)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn migrate_again_changes_nothing() -> Result {
    let database = Database::migrated(&migrations()?).await?;
    let mut conn = database.connect().await?;
    migrate(&mut conn).await?;
    for migrations in migrations()? {
        assert!(migrate::status_of(&mut conn, &migrations).await?.is_current());
    }
    assert!(migrate::verify(&mut conn).await?.is_clean());
    Ok(())
}
