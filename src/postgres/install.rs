//! How a server is installed on this system.

/// What installs PostgreSQL here.
pub(super) fn install_command() -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |program: &&(&str, &str)| std::env::split_paths(&path).any(|dir| dir.join(program.0).is_file());
    let known = [
        ("apt-get", "sudo apt-get install postgresql"),
        ("dnf", "sudo dnf install postgresql-server"),
        ("apk", "apk add postgresql"),
        ("brew", "brew install postgresql@18"),
        ("pacman", "sudo pacman -S postgresql"),
        ("zypper", "sudo zypper install postgresql-server"),
    ];
    known.iter().find(has).map_or("see postgresql.org/download", |(_, command)| command)
}
