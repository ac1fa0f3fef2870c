//! Refuses to build with migrations that refinery would skip in silence, or fail on only when they run.

use std::{collections::BTreeMap, env, fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    // Without this, a new migration file would not be embedded until something else changes.
    println!("cargo:rerun-if-changed=migrations");
    let dir = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("migrations");
    let mut problems = Vec::new();
    let mut versions = BTreeMap::new();
    for entry in fs::read_dir(&dir).expect("the migrations directory") {
        let file = entry.expect("a directory entry").file_name().into_string().expect("UTF-8");
        let Some(stem) = file.strip_suffix(".sql") else { continue };
        let Some(version) = version(stem) else {
            problems.push(format!("{file}: expected V0001__lower_case_name.sql"));
            continue;
        };
        let sql = fs::read_to_string(dir.join(&file)).expect("UTF-8");
        if sql.contains(['\r', '\0']) {
            problems.push(format!("{file}: holds a carriage return or a NUL byte"));
        }
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
    for problem in &problems {
        println!("cargo:error=migrations/{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `V0001__name`: refinery ignores a name with other characters, and never applies it.
fn version(stem: &str) -> Option<u32> {
    let (version, name) = stem.strip_prefix('V')?.split_once("__")?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (version.len() == 4 && !name.is_empty() && name.chars().all(word)).then(|| version.parse().ok()).flatten()
}
