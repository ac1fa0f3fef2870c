//! The files of the project.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory, as a path relative to it and its text.
pub fn files(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let base = root().join(dir);
    let mut found = Vec::new();
    walk(&base, &mut found);
    found.sort();
    let relative = |path: &PathBuf| path.strip_prefix(&base).expect("below").display().to_string();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).expect("a text"))).collect()
}
