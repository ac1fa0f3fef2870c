//! Embeds the migrations; refuses to build with some that would be skipped in silence, or fail only when they run.

#[path = "src/duration.rs"]
mod duration;
#[path = "src/migrate/names.rs"]
#[expect(dead_code, reason = "the library uses all of it")]
mod names;
#[path = "src/migrate/statements.rs"]
#[expect(dead_code, reason = "the library uses all of it")]
mod statements;

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    env, fs,
    hash::{Hash as _, Hasher as _},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    // Without this, a new migration file would not be embedded until something else changes.
    println!("cargo:rerun-if-changed=migrations");
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("migrations");
    let mut problems = Vec::new();
    let (mut versions, mut embedded) = (BTreeMap::new(), BTreeMap::new());
    for entry in fs::read_dir(&dir).expect("the migrations directory") {
        let file = entry.expect("a directory entry").file_name().into_string().expect("UTF-8");
        if !names::is_meant(&file) {
            continue;
        }
        let Some((version, name)) = file.strip_suffix(".sql").and_then(names::parse) else {
            problems.push(format!("{file}: the name is not like {}", names::EXPECTED));
            continue;
        };
        let sql = fs::read_to_string(dir.join(&file)).expect("UTF-8");
        if sql.contains('\r') {
            problems.push(format!("{file}: holds a carriage return"));
        }
        for problem in statements::problems(&sql) {
            let (line, column) = statements::line_and_column(&sql, problem.at);
            problems.push(format!("{file}:{line}:{column}: {}", problem.text));
        }
        problems.extend(
            statements::wrong_directive(&sql, |value| duration::parse(value).is_some())
                .map(|wrong| format!("{file}: {wrong}")),
        );
        // refinery's checksum: a test compares.
        let mut checksum = DefaultHasher::new();
        (name, version, sql.as_str()).hash(&mut checksum);
        let checksum = checksum.finish();
        let text = dir.join(&file).into_os_string().into_string().expect("UTF-8");
        embedded.insert(version, format!("    ({version}, {name:?}, {checksum}, include_str!({text:?})),\n"));
        if let Some(other) = versions.insert(version, file.clone()) {
            problems.push(format!("{file}: has the version of {other}"));
        }
    }
    for (expected, file) in (1..).zip(versions.iter().map(|(version, file)| (*version, file))) {
        if file.0 != expected {
            problems.push(format!("{}: expected version {expected} next", file.1));
            break;
        }
    }
    let embedded: Vec<_> = embedded.into_values().collect();
    let embedded = format!("pub(super) const MIGRATIONS: &[(i64, &str, u64, &str)] = &[\n{}];\n", embedded.concat());
    let out = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&out).join("migrations.rs"), embedded).expect("a file");
    for problem in &problems {
        println!("cargo:error=migrations/{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
