//! What says how to connect: a URL, a service file, variables, in this order, under libpq's names.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    env::{self, VarError},
    fmt::Display,
    fs,
    io::ErrorKind,
    path::PathBuf,
};

use percent_encoding::percent_decode_str;

use super::{Error, error::invalid};

/// libpq's keywords, each with its variable.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Those that say where a database is or how to enter it, and not just how to talk to it.
const NOT_A_PLACE: &[&str] = &["PGAPPNAME", "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS"];

/// libpq's other keywords: with the variables of those that protect, and with the values that ask for nothing that is
/// missing here (`*` for any).
const OTHERS: &[(&str, &str, &[&str])] = &[
    ("channel_binding", "PGCHANNELBINDING", &["disable", "prefer"]),
    ("client_encoding", "", &["utf8", "utf-8", "unicode", "auto"]),
    ("fallback_application_name", "", &["*"]),
    ("gssdelegation", "", &["0"]),
    ("gssencmode", "PGGSSENCMODE", &["disable", "prefer"]),
    ("gsslib", "", &["*"]),
    ("keepalives", "", &["0"]),
    ("keepalives_count", "", &[]),
    ("keepalives_idle", "", &[]),
    ("keepalives_interval", "", &[]),
    ("krbsrvname", "", &["*"]),
    ("load_balance_hosts", "", &["disable"]),
    ("max_protocol_version", "", &["3.0", "3.2", "latest"]),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"]),
    ("replication", "", &["0", "false", "off", "no"]),
    ("require_auth", "PGREQUIREAUTH", &[]),
    ("requirepeer", "PGREQUIREPEER", &[]),
    ("requiressl", "PGREQUIRESSL", &["0"]),
    ("ssl_max_protocol_version", "", &["TLSv1.3"]),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", "", &["allow"]),
    ("sslcompression", "", &["0"]),
    ("sslcrl", "PGSSLCRL", &[]),
    ("sslcrldir", "PGSSLCRLDIR", &[]),
    ("sslnegotiation", "", &["postgres"]),
    ("sslpassword", "", &[]),
    ("sslsni", "", &["1"]),
    ("tcp_user_timeout", "", &["0"]),
];

/// Whether it asks for nothing that is missing here. An empty value says nothing.
fn is_harmless(value: &str, harmless: &[&str]) -> bool {
    value.is_empty() || harmless.iter().any(|one| *one == "*" || one.eq_ignore_ascii_case(value))
}

/// A value, and where it stands.
pub(super) struct Value {
    pub text: String,
    pub origin: String,
}

impl Value {
    /// An error that says where it stands.
    pub fn wrong(&self, keyword: &str, problem: String) -> Error {
        let problem = if self.origin.starts_with("PG") { problem } else { format!("has a {keyword} that {problem}") };
        invalid(&self.origin, problem)
    }
}

/// Values by keyword; the first source that has one wins.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<&'static str, Value>);

impl Parameters {
    pub fn get(&self, keyword: &str) -> Option<&Value> {
        self.0.get(keyword)
    }

    pub fn text(&self, keyword: &str) -> Option<&str> {
        self.get(keyword).map(|value| value.text.as_str())
    }

    /// The items of a list, which is what hosts and ports are; without the value none.
    pub fn list(&self, keyword: &str) -> Vec<&str> {
        self.text(keyword).map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default()
    }

    /// Keeps what a source says of a keyword, unless one before it has. An empty value says nothing.
    fn add(&mut self, keyword: &str, text: String, origin: &str) -> Result<(), Error> {
        if let Some((_, _, harmless)) = OTHERS.iter().find(|(known, ..)| *known == keyword) {
            // Not its value: one of them is a password.
            let problem = match harmless {
                [] => format!("has a {keyword}, which is not supported"),
                some => format!(
                    "has a {keyword} that asks for what is not supported: leave it out, or write {}",
                    some.join(" or ")
                ),
            };
            return if is_harmless(&text, harmless) { Ok(()) } else { Err(invalid(origin, problem)) };
        }
        let Some((keyword, _)) = KEYWORDS.iter().find(|(known, _)| *known == keyword) else {
            let known = KEYWORDS.iter().map(|(keyword, _)| *keyword).collect::<Vec<_>>().join(", ");
            return Err(invalid(origin, format!("has the parameter {keyword:?}, which is not supported; use {known}")));
        };
        if text.contains('\0') {
            return Err(invalid(origin, format!("has a NUL character in {keyword}")));
        }
        if let (Entry::Vacant(entry), false) = (self.0.entry(keyword), text.is_empty()) {
            entry.insert(Value { text, origin: origin.to_owned() });
        }
        Ok(())
    }

    /// What a URL says: `postgres://user:password@host:port,host:port/dbname?keyword=value`.
    pub fn add_url(&mut self, url: &str, origin: &str) -> Result<(), Error> {
        let wrong = |problem: &str| Err(invalid(origin, problem));
        let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
            return wrong("is not a PostgreSQL URL: it begins with postgres:// or postgresql://");
        };
        if rest.contains('#') {
            return wrong("has a # that is not encoded: write %23");
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        // What would follow is a part of a password, which would be taken for a database, and shown.
        if path.contains('@') {
            return wrong(
                "has an @ after its host: write / as %2F in a password, and @ as %40 in the name of a database",
            );
        }
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
                // Text between the bracket and the colon is no port, either.
                Some((address, port)) => {
                    (address, if port.is_empty() { port } else { port.strip_prefix(':').unwrap_or("?") })
                }
                None => host.rsplit_once(':').unwrap_or((host, "")),
            };
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return wrong(
                    "has something after its host that is not a port: in a password, write / as %2F and ? as %3F",
                );
            }
            names.push(name);
            ports.push(port);
        }
        // Of several hosts, those without a port have the usual one, and not that of a variable.
        let (hosts, ports) = (names.join(","), ports.join(","));
        let fixed = [
            ("user", user),
            ("password", password),
            ("host", &hosts),
            ("port", &ports),
            ("dbname", path.strip_prefix('/').unwrap_or(path)),
        ];
        let has_at = query.contains('@');
        let query = query.split('&').filter(|pair| !pair.is_empty());
        let query = query.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // In a URL, the last one wins.
        for (keyword, text) in fixed.into_iter().chain(query).collect::<Vec<_>>().into_iter().rev() {
            let Ok(text) = percent_decode_str(text).decode_utf8() else {
                return wrong("is not UTF-8");
            };
            // As the driver has spelt them.
            let keyword = if keyword.starts_with("ssl-") { keyword.replace('-', "") } else { keyword.to_owned() };
            let is_known = KEYWORDS.iter().any(|(known, _)| *known == keyword)
                || OTHERS.iter().any(|(known, ..)| *known == keyword);
            // It may be a part of a password, and is not shown then.
            if has_at && !is_known {
                return wrong("has an @ after a ?: write ? as %3F in a password, and @ as %40 in a parameter");
            }
            self.add(&keyword, text.into_owned(), origin)?;
        }
        Ok(())
    }

    /// What the service says that the parameters so far, or the variables, name.
    pub fn add_service(&mut self) -> Result<(), Error> {
        self.add_variables(&["service", "servicefile"])?;
        let Some(service) = self.text("service").map(str::to_owned) else { return Ok(()) };
        let files = self.service_files();
        for file in &files {
            let text = match fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(invalid(&file.display().to_string(), format!("cannot be read: {error}"))),
            };
            let mut found = false;
            let (mut section, origin) = (None, |line| format!("line {line} of {}", file.display()));
            for (number, line) in (1..).zip(text.lines().map(str::trim)) {
                if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                    section = Some(name);
                    found |= name == service;
                } else if section == Some(&service) && !line.is_empty() && !line.starts_with('#') {
                    let Some((keyword, text)) = line.split_once('=') else {
                        return Err(invalid(&origin(number), "is not keyword=value"));
                    };
                    if keyword.trim() == "service" {
                        return Err(invalid(&origin(number), "names a service inside of a service"));
                    }
                    self.add(keyword.trim(), text.trim().to_owned(), &origin(number))?;
                }
            }
            if found {
                return Ok(());
            }
        }
        let places = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" and ");
        let origin = self.get("service").map_or_else(String::new, |value| value.origin.clone());
        Err(invalid(&origin, format!("names the service {service:?}, which is not in {places}")))
    }

    /// The user's file, then the system's.
    fn service_files(&self) -> Vec<PathBuf> {
        let user = match self.text("servicefile") {
            Some(file) => Some(PathBuf::from(file)),
            None => env::home_dir().map(|home| home.join(".pg_service.conf")),
        };
        let system = env::var_os("PGSYSCONFDIR").filter(|directory| !directory.is_empty());
        let system = system.map_or_else(|| "/etc/postgresql-common".into(), PathBuf::from);
        user.into_iter().chain([system.join("pg_service.conf")]).collect()
    }

    /// What libpq's variables say of all keywords.
    pub fn add_environment(&mut self) -> Result<(), Error> {
        for (_, name, harmless) in OTHERS.iter().filter(|(_, name, _)| !name.is_empty()) {
            if variable(name)?.is_some_and(|value| !is_harmless(&value, harmless)) {
                return Err(invalid(name, "asks for a protection that is not supported"));
            }
        }
        self.add_variables(&KEYWORDS.iter().map(|(keyword, _)| *keyword).collect::<Vec<_>>())
    }

    fn add_variables(&mut self, keywords: &[&str]) -> Result<(), Error> {
        for (keyword, variable) in KEYWORDS.iter().filter(|(keyword, _)| keywords.contains(keyword)) {
            let text = if *variable == "PGPASSWORD" { secret(variable)? } else { self::variable(variable)? };
            if let Some(text) = text {
                self.add(keyword, text, variable)?;
            }
        }
        Ok(())
    }
}

/// The variable that configures a database, if one does.
#[must_use]
pub fn configured() -> Option<&'static str> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let libpq = KEYWORDS.iter().map(|(_, variable)| *variable).filter(|variable| !NOT_A_PLACE.contains(variable));
    ["DATABASE_URL", "DATABASE_URL_FILE", "PGPASSWORD_FILE"].into_iter().chain(libpq).find(is_set)
}

/// A variable's value; `None` when it is not set.
pub(super) fn variable(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(invalid(name, "is not UTF-8")),
    }
}

/// A variable's value, or the content of the file that the variable of the same name with `_FILE` names: where secrets
/// are mounted as files.
pub(super) fn secret(name: &str) -> Result<Option<String>, Error> {
    let of_file = format!("{name}_FILE");
    let value = variable(name)?.filter(|value| !value.is_empty());
    match (value, variable(&of_file)?.filter(|file| !file.is_empty())) {
        (Some(_), Some(_)) => Err(invalid(&of_file, format!("is set, and so is {name}: unset one of them"))),
        (value, None) => Ok(value),
        (None, Some(file)) => match fs::read_to_string(&file) {
            Ok(text) => match text.trim_end_matches(['\n', '\r']) {
                "" => Err(invalid(&of_file, format!("names {file}, which is empty"))),
                text => Ok(Some(text.to_owned())),
            },
            Err(error) => Err(invalid(&of_file, format!("names {file}, which cannot be read: {error}"))),
        },
    }
}

/// The value of a keyword, read; the error says where it stands.
pub(super) fn read<T>(
    value: &Value,
    keyword: &str,
    expected: impl Display,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    parse(value.text.trim()).ok_or_else(|| value.wrong(keyword, format!("is not {expected}")))
}
