//! libpq's password file. The driver's own reader logs lines that it cannot read, passwords included.

use std::{env, fs, path::PathBuf};

/// The password of the first line that fits, from the given file or the one in the home directory.
pub(super) fn password(file: Option<&str>, wanted: [&str; 4]) -> Option<String> {
    let path = file.map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".pgpass")))?;
    let text = fs::read(&path).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::metadata(&path).ok()?.permissions().mode() & 0o77 != 0 {
            let path = path.display();
            tracing::warn!(name: "connect.password_file_ignored", %path, "others may read the password file: it is ignored");
            return None;
        }
    }
    // One line in another encoding hides no other.
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
    lines.filter(|line| !line.starts_with('#')).find_map(|line| fits(line, wanted))
}

/// The password of a line `host:port:database:user:password`, in which `*` fits anything and `\` escapes.
fn fits(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut is_escaped = false;
    for c in line.chars() {
        match c {
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            ':' if !is_escaped && fields.len() < 5 => fields.push(String::new()),
            _ => fields.last_mut()?.push(c),
        }
        is_escaped = false;
    }
    let password = fields.pop()?;
    (fields.len() == 4 && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted))
        .then_some(password)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_line_fits_field_by_field_and_escapes_are_undone() {
        let wanted = ["db.example.com", "5432", "coder", "me"];
        for (line, password) in [
            ("db.example.com:5432:coder:me:secret", Some("secret")),
            (r"*:*:*:me:a\:b\\c:d", Some(r"a:b\c:d")),
            ("*:*:*:*:", Some("")),
            ("db.example.com:5433:coder:me:secret", None),
            ("*:*:*:you:secret", None),
            ("*:*:me:secret", None),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(fits(line, wanted).as_deref(), password, "{line}");
        }
    }
}
