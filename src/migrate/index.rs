//! Concurrent indexes: which one a statement builds or drops, and what the catalog says of it.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Error, sql::quote, statements::Statement};

pub(super) fn is_concurrent(statement: &Statement<'_>) -> bool {
    statement.words().take(4).any(|word| word == "CONCURRENTLY")
}

/// An index that a statement builds or drops beside its users.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    /// What it is built on; `None` when it is dropped.
    pub(super) table: Option<String>,
}

impl Index {
    /// What the catalog can be asked about. `IF NOT EXISTS` is refused: it would accept an invalid index.
    pub(super) fn of(statement: &Statement<'_>) -> Option<Self> {
        let words: Vec<_> = statement.words().take(8).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let name = |word: &str| {
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let is_keyword = ["IF", "ON", "ONLY"].contains(&word);
            (plain && !is_keyword).then(|| word.to_ascii_lowercase())
        };
        match words.as_slice() {
            ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY", index, "ON", table, ..]
            | ["CREATE", "INDEX", "CONCURRENTLY", index, "ON", table, ..] => {
                Some(Self { name: name(index)?, table: Some(name(table)?) })
            }
            ["DROP", "INDEX", "CONCURRENTLY", "IF", "EXISTS", index] | ["DROP", "INDEX", "CONCURRENTLY", index] => {
                Some(Self { name: name(index)?, table: None })
            }
            _ => None,
        }
    }

    /// The table that it is built on, or that has it.
    pub(super) async fn table(&self, conn: &mut PgConnection) -> Result<Option<String>, Error> {
        if self.table.is_some() {
            return Ok(self.table.clone());
        }
        let table = format!(
            "SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = to_regclass({})",
            quote(&self.name)
        );
        let table = sqlx::raw_sql(AssertSqlSafe(table)).fetch_optional(conn).await?;
        Ok(table.map(|row| row.try_get(0)).transpose()?)
    }

    /// The index as SQL names it, and whether it is valid. Another table may have one of this name, too.
    pub(super) async fn find(&self, conn: &mut PgConnection) -> Result<Option<(String, bool)>, Error> {
        let name = quote(&self.name);
        let it = match &self.table {
            None => format!("c.oid = to_regclass({name})"),
            Some(table) => format!("c.relname = {name} AND i.indrelid = to_regclass({})", quote(table)),
        };
        let find = format!(
            "SELECT i.indexrelid::regclass::text, i.indisvalid AND i.indisready AND i.indislive \
             FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid WHERE {it}"
        );
        let found = sqlx::raw_sql(AssertSqlSafe(find)).fetch_optional(conn).await?;
        Ok(found.map(|row| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(sql: &str) -> Option<(String, Option<String>)> {
        Index::of(&Statement { text: sql, at: 0 }).map(|index| (index.name, index.table))
    }

    #[test]
    fn an_index_is_named_where_the_catalog_can_be_asked_about_it() {
        let built = |name: &str| Some((name.to_owned(), Some("t".to_owned())));
        assert_eq!(index("CREATE INDEX CONCURRENTLY i -- why\n    ON t (a)"), built("i"));
        assert_eq!(index("create unique index concurrently I_1 on T (a)"), built("i_1"));
        assert_eq!(index("DROP INDEX CONCURRENTLY IF EXISTS i"), Some(("i".to_owned(), None)));
        assert_eq!(index("DROP INDEX CONCURRENTLY i"), Some(("i".to_owned(), None)));
        for refused in [
            "CREATE INDEX i ON t (a)",
            "CREATE INDEX CONCURRENTLY ON t (a)",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
            "CREATE INDEX CONCURRENTLY i ON ONLY t (a)",
            "DROP INDEX CONCURRENTLY i, j",
            "REINDEX INDEX CONCURRENTLY i",
            "CREATE INDEX CONCURRENTLY \"I\" ON t (a)",
            "",
        ] {
            assert_eq!(index(refused), None, "{refused}");
        }
    }
}
