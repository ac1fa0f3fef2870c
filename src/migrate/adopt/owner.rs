//! What the owner of the tables is to run where another role adopts.

use sqlx::{PgConnection, Row};

use super::{Adoption, check, examination::examine, indexes::IndexState, needs};
use crate::migrate::{
    Error, Migrations, Unknown,
    files::File,
    index::Index,
    settings,
    sql::{quote, quote_name},
};

/// What the owner of the tables is to run where another role adopts: psql runs it, statement by statement.
///
/// # Errors
/// As [`examine`], and [`Error::CannotAdopt`] where something is in the way.
pub async fn owner_sql(conn: &mut PgConnection, how: Adoption) -> Result<String, Error> {
    let examination = examine(conn, how).await?;
    examination.check(Adoption { yes: true, ..how })?;
    let about = "SELECT current_user::text, current_database()::text, to_regnamespace('coderdb') IS NULL \
        AND NOT has_database_privilege(current_database(), 'CREATE')";
    let rows = settings::read(conn, about).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let role: String = row.try_get(0)?;
    let database: String = row.try_get(1)?;
    // A name may have lines, and would go on as SQL.
    let comment = |text: &str| format!("-- {}\n", text.replace(['\r', '\n'], " "));
    let head = format!("As {}, in the database {database}, not in a transaction.", examination.owner);
    let mut sql = vec![comment(&head)];
    sql.extend(examination.warnings().iter().map(|warning| comment(&format!("Then only with --yes: {warning}"))));
    let role = quote_name(&role);
    if examination.coder.unknown == Some(Unknown::Denied) {
        sql.push(comment(&format!("After unadopt: REVOKE SELECT ON schema_migrations FROM {role};")));
        sql.push(format!("GRANT SELECT ON schema_migrations TO {role};\n"));
    }
    if row.try_get(2)? {
        sql.push(format!("-- By whoever may create schemas there:\nCREATE SCHEMA coderdb AUTHORIZATION {role};\n"));
    }
    for statement in Migrations::embedded().files().iter().flat_map(File::statements) {
        let Some(index) = Index::of(&statement).filter(|index| examination.is_to_be_built(&index.name)) else {
            continue;
        };
        if examination.indexes.iter().any(|own| own.name == index.name && own.state == IndexState::Invalid) {
            sql.push(format!("DROP INDEX CONCURRENTLY {};\n", index.name));
        }
        sql.push(format!("{};\n", statement.text));
    }
    if how.error_code_check {
        let done = check::check_state(conn).await?.map_or(0, |is_proved| 1 + usize::from(is_proved));
        sql.extend(check::CHECK.split_inclusive(";\n").skip(done).map(str::to_owned));
    }
    Ok(sql.concat())
}

/// What a role is to be granted that services work as, in SQL.
///
/// # Errors
/// As [`examine`], and [`Error::Unfit`] where there is no such role.
pub async fn grants(conn: &mut PgConnection, role: &str) -> Result<String, Error> {
    examine(conn, Adoption::default()).await?;
    let about = format!(
        "SELECT current_schema()::text, EXISTS (SELECT FROM pg_roles WHERE rolname = {})",
        quote(&role.replace('\0', "\u{fffd}"))
    );
    let rows = settings::read(conn, &about).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if !row.try_get::<bool, _>(1)? {
        return Err(Error::Unfit { reason: format!("there is no role {role:?}: CREATE ROLE first") });
    }
    let schema: String = row.try_get(0)?;
    Ok(needs::grants(&schema, role))
}
