//! Taking everything of this layer away from a database that Coder's own server made.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    check::{self, CONSTRAINT},
    examination::cannot,
    indexes::{IndexState, indexes},
    needs,
};
use crate::migrate::{
    Error, Event, MigrateOptions, coder::recognize, files::File, history_table, lock, migrator, run::Run,
    session::alone, settings,
};

/// Removes the indexes of this layer, its constraint, and the schema `coderdb`. Returns what it removed; nothing when
/// nothing of it was there. What was done before a failure stays done, and running again goes on.
///
/// # Errors
/// [`Error::CannotAdopt`] for a database that this layer made itself; otherwise as [`up`](crate::migrate::up()).
#[tracing::instrument(name = "migrate.unadopt", skip_all)]
pub async fn unadopt(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Vec<String>, Error> {
    if recognize(conn).await?.is_none() {
        return Err(cannot("this is no database that Coder's server made: nothing of it can be taken away"));
    }
    may_drop_schema(conn).await?;
    let (removed, file) = own(conn).await?;
    if removed.is_empty() {
        return Ok(removed);
    }
    alone(conn, options, &[&file], &mut on_event, async |conn, pid, on_event| {
        lock::is_held(conn, pid).await?;
        // Again, because another runner may have built more while this one waited, or taken everything away.
        let (removed, file) = own(conn).await?;
        if removed.is_empty() {
            return Ok(removed);
        }
        Run::new(conn, pid, options, on_event).await?.steps(&file, 0, &[]).await?;
        // Without CASCADE: the error names the objects of others in the schema, and they stay.
        let drop_all = format!(
            "DROP TABLE IF EXISTS coderdb.baseline, coderdb.migration_log, {}; DROP SCHEMA IF EXISTS coderdb",
            history_table::table(history_table::SCHEMA)
        );
        migrator::holding(conn, options, async |conn| {
            sqlx::raw_sql(AssertSqlSafe(drop_all.as_str())).execute(conn).await?;
            Ok(())
        })
        .await?;
        Ok(removed)
    })
    .await
}

/// What is of this layer, and what drops all of it but the schema. Indexes that its owner has built may be there
/// without a schema.
async fn own(conn: &mut PgConnection) -> Result<(Vec<String>, File), Error> {
    let schema = sqlx::raw_sql("SELECT FROM pg_namespace WHERE nspname = 'coderdb'").fetch_optional(&mut *conn).await?;
    let baseline = history_table::read_any(conn, history_table::SCHEMA).await?.baseline;
    let differences = needs::all_differences(conn).await?;
    let indexes = indexes(conn, baseline.as_ref(), &differences).await?;
    let indexes = indexes.iter().filter(|index| matches!(index.state, IndexState::Built | IndexState::Invalid));
    let mut removed: Vec<_> = indexes.clone().map(|index| format!("index {}", index.name)).collect();
    let mut sql: Vec<_> = indexes.map(|index| format!("DROP INDEX CONCURRENTLY IF EXISTS {};", index.name)).collect();
    if baseline.is_some_and(|baseline| baseline.error_code_check) || check::check_is_ours(conn).await? == Some(true) {
        sql.push(format!("ALTER TABLE provisioner_jobs DROP CONSTRAINT IF EXISTS {CONSTRAINT};"));
        removed.push(format!("constraint provisioner_jobs.{CONSTRAINT}"));
    }
    removed.extend(schema.map(|_| "schema coderdb".to_owned()));
    let file = File::new(0, "unadopt".to_owned(), 0, Cow::Owned(sql.join("\n")), "unadopt".to_owned());
    Ok((removed, file))
}

/// Checks, before anything is dropped, that this role may drop the schema and that it has no objects of others.
async fn may_drop_schema(conn: &mut PgConnection) -> Result<(), Error> {
    let look = "SELECT pg_has_role(n.nspowner, 'USAGE'), current_user::text, pg_get_userbyid(n.nspowner)::text, \
        coalesce((SELECT string_agg(pg_describe_object(d.classid, d.objid, 0), ', ' ORDER BY d.objid) FROM pg_depend AS d \
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n' \
            AND d.objid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = n.oid \
                AND relname IN ('refinery_schema_history', 'migration_log', 'baseline')) \
            AND NOT EXISTS (SELECT FROM pg_depend AS o WHERE o.classid = d.classid AND o.objid = d.objid \
                AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i'))), '') \
        FROM pg_namespace AS n WHERE n.nspname = 'coderdb'";
    let rows = settings::read(conn, look).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (is_owner, role, owner): (bool, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if !is_owner {
        return Err(Error::Rights {
            role,
            missing: vec![format!("to own the schema coderdb, as a member of {owner}")],
        });
    }
    let others: String = row.try_get(3)?;
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::Unfit {
        reason: format!("others have put something into the schema coderdb, move or drop it: {others}"),
    })
}
