//! What the statements need is found out from the statements: each is made the body of a function, of which the server then knows
//! what it depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use coderdb::{
    model::{Cursor, Exclude, JobErrorCode, JobFilter, JobStatus, JobType, PageRequest, Tags, Transition},
    sqlx::{self, AssertSqlSafe, PgConnection, Row as _},
    store,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{run, texts};
use crate::support::{self, random_database::NOW, read_jobs};

/// The statements, by name, with the types of their parameters.
pub(super) async fn prepare_all(conn: &mut PgConnection) -> Vec<(String, Vec<String>, String)> {
    let mut statements = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut files: Vec<_> = walk(&root).collect();
    files.sort();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().with_extension("").to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let text = text.trim().trim_end_matches(';').to_owned();
        run(conn, &format!("PREPARE \"{name}\" AS {text}")).await;
        let types = "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = $1";
        let types: Vec<String> = sqlx::query_scalar(types).bind(&name).fetch_one(&mut *conn).await.unwrap();
        statements.push((name, types, text));
    }
    run(conn, "DEALLOCATE ALL").await;
    statements.extend(dynamic().await);
    statements
}

fn walk(root: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries(root).flat_map(move |directory| entries(&directory).collect::<Vec<_>>())
}

/// The one statement that is put together, with everything that can be in it: as the driver has prepared it.
async fn dynamic() -> Vec<(String, Vec<String>, String)> {
    let id = Uuid::nil();
    let other = Uuid::max();
    let all = || JobFilter {
        tags: Some(Tags::default()),
        has_tags: vec![("a".to_owned(), "b".to_owned())],
        untagged: true,
        transition: Some(Transition::Start),
        template: Some(id.into()),
        types: vec![JobType::WorkspaceBuild],
        error_codes: vec![JobErrorCode::InsufficientQuota],
        created_after: Some(NOW),
        created_before: Some(NOW),
        exclude: Exclude {
            status: vec![JobStatus::Pending],
            ids: vec![id.into()],
            tags: vec![("a".to_owned(), "b".to_owned())],
            untagged: true,
            initiators: vec![id.into()],
            transitions: vec![Transition::Stop],
            templates: vec![id.into()],
            workspaces: vec![id.into()],
            types: vec![JobType::WorkspaceBuild],
            error_codes: vec![JobErrorCode::InsufficientQuota],
        },
        ..JobFilter::default()
    };
    let filters = [
        JobFilter { ids: vec![id.into()], ..all() },
        JobFilter { workspace: Some(id.into()), ..all() },
        JobFilter { status: vec![JobStatus::Pending], ..all() },
        JobFilter { status: vec![JobStatus::Failed], initiator: Some(other.into()), ..all() },
        all(),
    ];
    let mut page = PageRequest::first(50);
    page.after = Some(Cursor { created_at: NOW, id: id.into() });
    let database = support::database().await.with_sessions();
    let mut statements = Vec::new();
    for (operation, filter) in
        ["jobs/list", "jobs/ids", "jobs/count_by_tags"].iter().flat_map(|o| filters.iter().map(move |f| (*o, f)))
    {
        let mut conn = database.connect().await;
        let permit = read_jobs(id);
        match operation {
            "jobs/list" => drop(store::jobs::list(&mut conn, &permit, filter, page).await.unwrap()),
            "jobs/ids" => drop(store::jobs::ids(&mut conn, &permit, filter, page).await.unwrap()),
            _ => drop(store::jobs::count_by_tags(&mut conn, &permit, filter).await.unwrap()),
        }
        let prepared = "SELECT statement, parameter_types::text[] AS types FROM pg_prepared_statements \
                        WHERE statement LIKE '%provisioner_jobs%'";
        let rows = sqlx::raw_sql(prepared).fetch_all(&mut conn).await.unwrap();
        assert!(!rows.is_empty(), "{operation}");
        for row in rows {
            statements.push((operation.to_owned(), row.get("types"), row.get("statement")));
        }
    }
    statements
}

/// What the body of a function does to which table, and which labels stand in it.
const USES: &str = r"
    SELECT 'label', t.typname::text, m[1] FROM regexp_matches(body, '''([^'']*)''::(?:public\.)?(\w+)(?![\w[])', 'g') AS m
    INNER JOIN pg_type AS t ON t.typname = m[2] AND t.typtype = 'e'
    UNION SELECT 'privilege', m[1], 'INSERT' FROM regexp_matches(body, '\mINSERT INTO (?:public\.)?(\w+)', 'g') AS m
    UNION SELECT 'privilege', m[1], 'UPDATE' FROM regexp_matches(body, '\mINSERT INTO (?:public\.)?(\w+)', 'g') AS m
        WHERE body ~ 'DO UPDATE'
    UNION SELECT 'privilege', m[2], 'UPDATE' FROM regexp_matches(body, '(?:^|\n|\()\s*(UPDATE) (?:ONLY )?(?:public\.)?(\w+)', 'g') AS m
    UNION SELECT 'privilege', m[1], 'DELETE' FROM regexp_matches(body, '\mDELETE FROM (?:public\.)?(\w+)', 'g') AS m
    UNION SELECT 'privilege', coalesce(
            (regexp_match(body, '(?:FROM|JOIN) [(]*(?:public\.)?(\w+) ' || m[1] || '\M'))[1],
            (regexp_match(body, 'FROM [(]*(?:public\.)?(\w+)'))[1]
        ), 'UPDATE'
        FROM regexp_matches(body, 'FOR (?:NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)(?: OF (\w+))?', 'g') AS m";

async fn needs(conn: &mut PgConnection) -> String {
    let statements = prepare_all(conn).await;
    run(conn, "CREATE SCHEMA probe").await;
    let mut needs = BTreeMap::<(String, String, String), BTreeSet<String>>::new();
    for (n, (name, types, text)) in statements.iter().enumerate() {
        // The driver keeps what it has prepared, and in that the number of the function.
        let function = format!("probe.f{n}");
        let parameters = types.join(", ");
        run(conn, &format!("CREATE FUNCTION {function}({parameters}) RETURNS void BEGIN ATOMIC {text}\n; END")).await;
        let depends = "SELECT 'column', c.relname::text, a.attname::text FROM pg_depend AS d \
            INNER JOIN pg_class AS c ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace \
            INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND a.attnum > 0 \
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = '{function}'::regproc AND d.refclassid = 'pg_class'::regclass";
        let uses = USES
            .replace("(body,", "((SELECT pg_get_function_sqlbody('{function}'::regproc)),")
            .replace("WHERE body ~", "WHERE pg_get_function_sqlbody('{function}'::regproc) ~");
        for (kind, table, object) in
            triples(conn, &format!("{depends} UNION {uses}").replace("{function}", &function)).await
        {
            if kind == "column" {
                needs
                    .entry(("privilege".to_owned(), table.clone(), "SELECT".to_owned()))
                    .or_default()
                    .insert(name.clone());
            }
            needs.entry((kind, table, object)).or_default().insert(name.clone());
        }
    }
    let of = |needs: &BTreeMap<(String, String, String), BTreeSet<String>>, table: &str, name: &str| {
        needs.get(&("privilege".to_owned(), table.to_owned(), name.to_owned())).cloned()
    };
    // What a row gets from a sequence.
    let sequences = "SELECT 'privilege', c.relname::text, d.refobjid::regclass::text FROM pg_class AS c \
        INNER JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'a' WHERE c.relkind = 'S'";
    for (kind, sequence, table) in triples(conn, sequences).await {
        if let Some(inserting) = of(&needs, &table, "INSERT") {
            needs.insert((kind, sequence, "USAGE".to_owned()), inserting);
        }
    }
    let tables: BTreeSet<String> = needs.keys().map(|(_, table, _)| table.clone()).collect();
    let facts = include_str!("../../../src/migrate/adopt/facts.sql")
        .replace("{relations}", &format!("{{{}}}", tables.into_iter().collect::<Vec<_>>().join(",")));
    let mut lines = Vec::new();
    for fact in texts(conn, &facts).await {
        let fact: Value = serde_json::from_str(&fact).unwrap();
        let [kind, table, name] = ["kind", "table", "name"].map(|key| fact[key].as_str().unwrap().to_owned());
        let inserting = of(&needs, &table, "INSERT");
        let statements = match kind.as_str() {
            // Each key that rows are inserted with, and the others as far as rows are found by them.
            "unique key" => inserting.or_else(|| (name == "(id)").then(|| of(&needs, &table, "SELECT")).flatten()),
            "foreign key" => inserting,
            _ => needs.remove(&(kind.clone(), table.clone(), name.clone())),
        };
        if let Some(statements) = statements {
            let definition = &fact["definition"];
            lines.push(
                json!({ "kind": kind, "table": table, "name": name, "definition": definition, "for": statements }),
            );
        }
    }
    for ((kind, table, name), statements) in needs {
        assert_eq!(kind, "privilege", "{table}.{name}");
        lines.push(json!({ "kind": kind, "table": table, "name": name, "definition": "", "for": statements }));
    }
    lines.iter().map(|line| line.to_string() + "\n").collect()
}

async fn triples(conn: &mut PgConnection, sql: &str) -> Vec<(String, String, String)> {
    sqlx::query_as(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await.unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

#[tokio::test]
async fn the_recorded_needs_are_those_of_the_statements() {
    let database = support::database().await.with_sessions();
    let needs = needs(&mut database.connect().await).await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrate/adopt/needs.jsonl");
    if std::env::var_os("CODERDB_UPDATE").is_some() {
        fs::write(&file, &needs).unwrap();
    }
    let recorded = fs::read_to_string(&file).unwrap();
    let (recorded, needs): (BTreeSet<_>, BTreeSet<_>) = (recorded.lines().collect(), needs.lines().collect());
    let (gone, new): (Vec<_>, Vec<_>) = (recorded.difference(&needs).collect(), needs.difference(&recorded).collect());
    assert!(
        gone.is_empty() && new.is_empty(),
        "scripts/prepare writes it anew\nonly recorded: {gone:#?}\nonly needed: {new:#?}"
    );
}
