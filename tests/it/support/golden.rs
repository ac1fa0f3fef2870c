//! Files that show what the program prints.

use std::{env, fs, path::Path};

/// Compares a file with what it should be, or writes it when asked to.
pub fn is_current(path: &str, expected: &str, comparable: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if comparable(&found) != comparable(expected) {
        let how = "CODERDB_UPDATE=1 cargo test --test it readme";
        assert!(env::var_os("CODERDB_UPDATE").is_some(), "{} is out of date: {how}", path.display());
        fs::write(&path, expected).expect("the file");
    }
}
