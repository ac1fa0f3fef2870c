//! What the name of a migration's file says. `build.rs` uses it, too: nothing here needs anything but the standard library.

/// What a name must look like.
pub(crate) const EXPECTED: &str = "V0001__lower_case_name.sql";

/// The version and the name in `V0001__name`. refinery ignores a file with other characters, and never applies it.
pub(crate) fn parse(stem: &str) -> Option<(i64, &str)> {
    let (version, name) = stem.strip_prefix('V')?.split_once("__")?;
    let is_version = version.len() >= 4 && version.bytes().all(|digit| digit.is_ascii_digit());
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let version = version.parse().ok().filter(|_| is_version && is_name)?;
    Some((version, name))
}

/// Whether a file is meant to be a migration, also one that is named wrongly: in capitals, or without `.sql`.
pub(crate) fn is_meant(file: &str) -> bool {
    let file = file.to_ascii_lowercase();
    let is_version = |(version, _): (&str, &str)| !version.is_empty() && version.bytes().all(|c| c.is_ascii_digit());
    let is_named = file.strip_prefix('v').and_then(|name| name.split_once("__")).is_some_and(is_version);
    // What an editor leaves behind is not meant: V0001__a.sql.orig.
    file.rsplit_once('.').is_some_and(|(_, end)| end == "sql") || is_named && !file.contains(".sql")
}

/// Whether versions of the library that do not know a migration must not run after it.
pub(crate) fn is_breaking(name: &str) -> bool {
    name.starts_with("breaking_")
}
