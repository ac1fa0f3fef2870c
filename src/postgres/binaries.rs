//! Which `initdb` and `postgres` to use.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Error, Notice, data_directory::DataDirectory, fetch};

/// Older servers lack what the queries use, and `initdb --no-instructions`.
const OLDEST_MAJOR: u32 = 14;

/// The `bin` directory to run `directory` with; fetches one if there is no other way.
pub(super) fn find(directory: &DataDirectory, on_notice: &mut dyn FnMut(Notice)) -> Result<PathBuf, Error> {
    let wanted = directory.data_version();
    let wrong_version = |wanted, found| Error::WrongVersion { data_dir: directory.data(), wanted, found };
    if let Some(dir) = std::env::var_os("PG_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from) {
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        return match (check(directory, &dir), wanted) {
            (Err(problem), _) => Err(Error::BadBinDir { dir, problem }),
            (Ok(major), Some(wanted)) if major != wanted => {
                Err(wrong_version(wanted, vec![format!("{major} (PG_BIN_DIR {})", dir.display())]))
            }
            (Ok(_), _) => Ok(dir),
        };
    }
    if std::env::var_os("CODERDB_POSTGRES").is_some_and(|choice| choice == "pinned") {
        return match wanted {
            Some(wanted) if wanted != fetch::MAJOR => {
                Err(wrong_version(wanted, vec!["CODERDB_POSTGRES=pinned".into()]))
            }
            _ => fetch::fetched(directory, on_notice, &["the cache only (CODERDB_POSTGRES=pinned)".into()]),
        };
    }
    let (mut looked_in, mut other_versions) = (Vec::new(), Vec::new());
    for dir in candidates() {
        match check(directory, &dir) {
            Ok(major) if wanted.is_none_or(|wanted| wanted == major) => return Ok(dir),
            Ok(major) => other_versions.push(format!("{major} ({})", dir.display())),
            Err(problem) => looked_in.push(format!("{} ({problem})", dir.display())),
        }
    }
    looked_in.extend(["pg_config", "PATH"].map(String::from));
    looked_in.extend(VERSIONED.map(|(root, prefix, tail)| format!("{root}/{prefix}*/{tail}")));
    match wanted {
        Some(wanted) if wanted != fetch::MAJOR => Err(wrong_version(wanted, other_versions)),
        _ => fetch::fetched(directory, on_notice, &looked_in),
    }
}

/// The parent directories, the prefix of the version in their entries, and the directory of the programs below.
const VERSIONED: [(&str, &str, &str); 8] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

fn candidates() -> impl Iterator<Item = PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|o| PathBuf::from(String::from_utf8_lossy(&o.stdout).trim_end()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A link on PATH points into the real directory, where share and the other programs are.
    let on_path: Vec<_> = std::env::split_paths(&path)
        .filter_map(|dir| Some(fs::canonicalize(dir.join("postgres")).ok()?.parent()?.to_path_buf()))
        .collect();
    let mut versioned = Vec::new();
    for (root, prefix, tail) in VERSIONED {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(version) = name.to_str().and_then(|name| name.strip_prefix(prefix))
                && let Ok(version) = if version.is_empty() { Ok(0.0) } else { version.parse::<f32>() }
            {
                versioned.push((version, entry.path().join(tail)));
            }
        }
    }
    versioned.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut seen = Vec::new();
    let all = configured.into_iter().chain(on_path).chain(versioned.into_iter().map(|(_, dir)| dir));
    all.filter(move |dir| {
        dir.is_dir() && !seen.contains(dir) && {
            seen.push(dir.clone());
            true
        }
    })
}

/// The major version of a directory that the server's user can run, or what is wrong with it.
fn check(directory: &DataDirectory, dir: &Path) -> Result<u32, String> {
    for program in ["initdb", "postgres"] {
        if !dir.join(program).is_file() {
            return Err(format!("where {program} is missing"));
        }
    }
    if !directory.can_reach(dir) {
        return Err("which the server's user cannot enter".into());
    }
    let said = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|e| format!("whose postgres fails: {e}"))?;
    let said = String::from_utf8_lossy(&said.stdout);
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let digits = number.and_then(|n| n.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    match digits {
        None => Err("whose postgres does not tell its version".into()),
        Some(major) if major < OLDEST_MAJOR => Err(format!("which has version {major}")),
        Some(major) => Ok(major),
    }
}
