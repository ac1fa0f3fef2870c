//! Whether the role may do what is pending, before anything of it is done.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Error, files::File, sql::quote, statements::Statement};

/// Asks the server for what the role lacks: for these files, and for the history.
pub(super) async fn check(conn: &mut PgConnection, schema: &str, files: &[&File]) -> Result<(), Error> {
    let statements: Vec<_> = files.iter().flat_map(|file| file.statements()).collect();
    let creates = statements.iter().any(|statement| statement.is(&["CREATE"]));
    let owned: Vec<_> = statements.iter().filter_map(owned).map(|name| quote(&name)).collect();
    let sql = format!(
        "SELECT current_user::text, ARRAY( \
         SELECT format('CREATE on the schema %I', current_schema()) \
         WHERE {creates} AND NOT has_schema_privilege(current_schema(), 'CREATE') \
         UNION ALL SELECT format('CREATE on the database %1$I, for the schema {schema}: GRANT CREATE ON DATABASE %1$I TO %2$I, \
         or CREATE SCHEMA {schema} AUTHORIZATION %2$I', current_database(), current_user) \
         WHERE to_regnamespace('{schema}') IS NULL AND NOT has_database_privilege(current_database(), 'CREATE') \
         UNION ALL SELECT format('USAGE and CREATE on the schema {schema}') FROM pg_namespace AS n \
         WHERE n.nspname = '{schema}' AND NOT (has_schema_privilege(n.oid, 'USAGE') AND (has_schema_privilege(n.oid, 'CREATE') \
         OR to_regclass('{schema}.refinery_schema_history') IS NOT NULL AND to_regclass('{schema}.migration_log') IS NOT NULL)) \
         UNION ALL SELECT format('SELECT and INSERT on {schema}.%I', c.relname) FROM pg_class AS c \
         WHERE c.relnamespace = to_regnamespace('{schema}') AND c.relname IN ('refinery_schema_history', 'migration_log') \
         AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')) \
         UNION ALL SELECT format('to own %I, as a member of %I', c.relname, pg_get_userbyid(c.relowner)) FROM pg_class AS c \
         WHERE c.relnamespace = quote_ident(current_schema())::regnamespace \
         AND c.relname = ANY (ARRAY[{}]::text[]) AND NOT pg_has_role(c.relowner, 'USAGE'))",
        owned.join(", ")
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await?;
    let missing: Vec<String> = row.try_get(1)?;
    if missing.is_empty() { Ok(()) } else { Err(Error::Rights { role: row.try_get(0)?, missing }) }
}

/// What a statement changes that only an owner may change, where it names that plainly.
fn owned(statement: &Statement<'_>) -> Option<String> {
    const KINDS: &[&str] = &["TABLE", "INDEX", "VIEW", "SEQUENCE"];
    let words: Vec<_> = statement.words().take(16).collect();
    let at = |wanted: &str| words.iter().position(|word| word == wanted);
    let first = match words.first()?.as_str() {
        "CREATE" => at("INDEX").filter(|index| *index <= 2).and_then(|_| at("ON"))?,
        "ALTER" | "DROP" => words.iter().position(|word| KINDS.contains(&word.as_str())).filter(|kind| *kind <= 2)?,
        _ => return None,
    };
    let mut names =
        words[first + 1..].iter().skip_while(|word| ["CONCURRENTLY", "IF", "EXISTS", "ONLY"].contains(&word.as_str()));
    let name = names.next()?;
    if names.next().is_some_and(|word| word == ".") {
        return None;
    }
    match name.strip_prefix('"') {
        Some(quoted) => Some(quoted.strip_suffix('"')?.replace("\"\"", "\"")),
        None => Some(name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_owned_is_read_where_it_is_plain() {
        for (sql, expected) in [
            ("ALTER TABLE a ADD b int", Some("a")),
            ("alter table if exists only A add b int", Some("a")),
            ("ALTER TABLE \"An A\" ADD b int", Some("An A")),
            ("ALTER MATERIALIZED VIEW a RENAME TO b", Some("a")),
            ("CREATE INDEX i ON a (b)", Some("a")),
            ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY a (b)", Some("a")),
            ("DROP INDEX CONCURRENTLY IF EXISTS i", Some("i")),
            ("ALTER TABLE other.a ADD b int", None),
            ("CREATE TABLE a (b int)", None),
            ("CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION f()", None),
            ("UPDATE a SET b = 1", None),
            ("", None),
        ] {
            assert_eq!(owned(&Statement { text: sql, at: 0 }).as_deref(), expected, "{sql}");
        }
    }
}
