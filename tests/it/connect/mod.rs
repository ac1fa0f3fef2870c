//! How to connect: what libpq reads, several hosts, and what holds for the session.

mod pooler;
mod tls;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use coderdb::{
    connect::{ConnectOptions, Error, Pooler, Target},
    sqlx::{self, PgConnection, postgres::PgConnectOptions},
};
use tokio::net::{TcpListener, UnixListener};

use crate::support::{self, Database, fails, run};

async fn setting(conn: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(conn).await.expect("a setting")
}

/// The test server's directory, as a host of a URL.
fn socket() -> String {
    let url = support::server().url("postgres");
    url.split_once("?host=").expect("a private server has a socket").1.to_owned()
}

fn url(database: &Database, hosts: &str, more: &str) -> String {
    format!("postgres://postgres@{hosts}/{}?{more}", database.name())
}

#[tokio::test]
async fn what_is_set_for_the_session_holds_and_the_server_knows_the_name() {
    let database = support::empty_database().await.with_sessions();
    let mut conn = options_of(&database)
        .application_name("reaper")
        .statement_timeout(Duration::from_millis(1_500))
        .lock_timeout(Duration::from_micros(1))
        .idle_in_transaction_timeout(Duration::from_mins(1))
        .keepalive(Duration::from_secs(30))
        .connect()
        .await
        .expect("a connection");
    for (name, value) in [
        ("statement_timeout", "1500ms"),
        ("lock_timeout", "1ms"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("application_name", "reaper"),
    ] {
        assert_eq!(setting(&mut conn, name).await, value, "{name}");
    }
    let mut conn = options_of(&database).connect().await.expect("a connection");
    assert_eq!(setting(&mut conn, "application_name").await, "coderdb");
    assert_eq!(setting(&mut conn, "statement_timeout").await, "0");
}

#[tokio::test]
async fn a_time_out_that_a_pooler_would_not_keep_is_refused() {
    let options = options_of(&support::empty_database().await).pooler(Pooler::Transaction);
    let error = options.lock_timeout(Duration::from_secs(1)).connect().await.expect_err("there is no session");
    assert!(error.to_string().ends_with("through a transaction pooler: use ALTER ROLE … SET"), "{error}");
}

fn options_of(database: &Database) -> ConnectOptions {
    database.url().parse().expect("a URL")
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_found_wherever_it_stands_and_tried_first_from_then_on() {
    let database = support::empty_database().await;
    // One that refuses, one that never answers, and the server.
    let black_hole = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = black_hole.local_addr().expect("an address");
    let hosts = format!("127.0.0.1:1,{silent},{}", socket());
    let options: ConnectOptions = url(&database, &hosts, "target_session_attrs=read-write").parse().expect("a URL");
    let mut conn = options.connect().await.expect("the third host");
    assert_eq!(setting(&mut conn, "transaction_read_only").await, "off");
    assert!(format!("{options:?}").contains("last: 2"), "{options:?}");
    drop(black_hole);
}

#[tokio::test]
async fn while_a_host_is_silent_another_one_may_become_the_right_one() {
    let database = support::empty_database().await;
    let mut conn = database.connect().await;
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut conn).await.expect("a name");
    let alter = async |conn: &mut PgConnection, change: &str| {
        let sql = format!("ALTER DATABASE {name} {change}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.expect("the change");
    };
    alter(&mut conn, "SET default_transaction_read_only = on").await;
    let black_hole = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hosts = format!("{},{}", socket(), black_hole.local_addr().expect("an address"));
    let more = "target_session_attrs=read-write&connect_timeout=60";
    let options: ConnectOptions = url(&database, &hosts, more).parse().expect("a URL");
    let connecting = tokio::spawn(async move { options.connect().await });
    // The first one has said no when the second one is asked.
    let _silent = black_hole.accept().await.expect("somebody asks");
    alter(&mut conn, "RESET default_transaction_read_only").await;
    let connected = tokio::time::timeout(Duration::from_secs(20), connecting).await.expect("it is asked again");
    let mut connection = connected.expect("the task").expect("a connection");
    assert_eq!(setting(&mut connection, "transaction_read_only").await, "off");
}

#[tokio::test]
async fn hosts_that_are_all_silent_are_asked_once_each_and_do_not_take_turns() {
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let hosts: Vec<_> = silent.iter().map(|host| host.local_addr().expect("an address").to_string()).collect();
    let options: ConnectOptions =
        format!("postgres://u@{}/db?connect_timeout=1", hosts.join(",")).parse().expect("a URL");
    let connecting = tokio::time::timeout(Duration::from_secs(30), options.connect());
    let error = connecting.await.expect("an end").expect_err("nobody answers");
    assert!(matches!(error, Error::NoAnswer { .. }), "{error:?}");
    for host in silent {
        let _first = host.accept().await.expect("the attempt");
        let second = tokio::time::timeout(Duration::from_millis(10), host.accept()).await;
        assert!(second.is_err(), "asked again");
    }
}

#[tokio::test]
async fn a_socket_is_not_encrypted_whatever_is_asked_for() {
    let database = support::empty_database().await;
    for mode in ["require", "verify-full"] {
        let options: ConnectOptions = url(&database, &socket(), &format!("sslmode={mode}")).parse().expect("a URL");
        options.connect().await.expect(mode);
    }
}

#[tokio::test]
async fn a_server_of_the_wrong_kind_is_not_taken() {
    let database = support::empty_database().await;
    for (target, fits) in [
        (Target::Any, true),
        (Target::ReadWrite, true),
        (Target::Primary, true),
        (Target::ReadOnly, false),
        (Target::Standby, false),
    ] {
        let connected = options_of(&database).target(target).connect().await;
        match connected {
            Ok(_) => assert!(fits, "{target:?}"),
            Err(error @ Error::OtherTarget { .. }) => {
                assert!(!fits && error.is_passing(), "{target:?}");
                assert!(error.to_string().ends_with(&format!("is not {}", target.as_str())), "{error}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    let more = "target_session_attrs=read-write&options=-c%20default_transaction_read_only%3Don";
    let read_only: ConnectOptions = url(&database, &socket(), more).parse().expect("a URL");
    assert!(matches!(read_only.connect().await, Err(Error::OtherTarget { .. })));
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up_after_the_time_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let _silent = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).expect("a socket");
    let options = ConnectOptions::from(PgConnectOptions::new().socket(directory.path()).database("db"));
    let began = Instant::now();
    let error = options.connect_timeout(Duration::from_millis(300)).connect().await.expect_err("nobody answers");
    assert!(matches!(error, Error::NoAnswer { .. }) && error.is_passing(), "{error:?}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(
        error.to_string().contains("database \"db\" at ") && error.to_string().ends_with("within 300ms"),
        "{error}"
    );
}

#[test]
fn what_a_url_means_is_what_libpq_reads_out_of_it() {
    for (url, places) in [
        ("postgres://u@h/db?port=6000", "database \"db\" at h:6000"),
        ("postgresql://u:p%40ss@h:6000/d%20b", "database \"d b\" at h:6000"),
        ("postgres://u@[::1]:6000/db", "database \"db\" at ::1:6000"),
        (
            "postgres://u@a,b:2,[::1]:3/db?sslmode=disable",
            "database \"db\" at a:5432, database \"db\" at b:2, database \"db\" at ::1:3",
        ),
        ("postgres://u@%2Frun%2Fpg/db", "database \"db\" at /run/pg"),
        ("postgres://u@localhost/db?host=/run/pg", "database \"db\" at /run/pg"),
        ("postgres://u@localhost?host=a,b&port=7", "database \"u\" at a:7, database \"u\" at b:7"),
        ("postgres://u@h//db", "database \"/db\" at h:5432"),
        ("postgres:///db?host=h&user=u&password=p%2Bp", "database \"db\" at h:5432"),
        ("postgres://u@h/db?hostaddr=10.0.0.1", "database \"db\" at 10.0.0.1:5432"),
    ] {
        assert_eq!(url.parse::<ConnectOptions>().expect(url).to_string(), places, "{url}");
    }
}

#[test]
fn what_a_url_cannot_mean_is_said_without_what_may_be_a_secret() {
    for (url, problem) in [
        ("mysql://u:s3cret@h/db", "begins with postgres://"),
        ("s3cret", "begins with postgres://"),
        ("postgres://u:s3cret@h:x/db", "not a port"),
        ("postgres://u:s3cret@h:70000/db", "not a port"),
        ("postgres://u:s3cret@h:0/db", "not a port"),
        ("postgres://u:s3cret@[::1]5432/db", "not a port"),
        ("postgres://u:1/s3cret@h/db", "%2F"),
        ("postgres://u:1,2/s3cret@h/db", "%2F"),
        ("postgres://u:1#s3cret@h/db", "%23"),
        ("postgres://u:1?s3cret@h/db", "%3F"),
        ("postgres://u:1?s3cret=1@h/db", "%3F"),
        ("postgres://u:1?host=s3cret@h&s3cret=1/db", "%3F"),
        ("postgres://u@h/db?sslmod=s3cret", "the parameter \"sslmod\", which is not supported; use host, "),
        ("postgres://u@h/db?sslpassword=s3cret", "has a sslpassword, which is not supported"),
        (
            "postgres://u@h/db?channel_binding=require",
            "a channel_binding that asks for what is not supported: leave it out, or write disable or prefer",
        ),
        ("postgres://u@h/db?client_encoding=latin1", "a client_encoding that"),
        ("postgres://u@h/db?keepalives_idle=30", "has a keepalives_idle, which is not supported"),
        ("postgres://u@h/db?password=s3cret%00", "NUL character in password"),
        ("postgres://u:%ff@h/db", "UTF-8"),
        ("postgres://u@h/db?sslmode=verify_full", "sslmode that is not disable, allow"),
        ("postgres://u@h/db?target_session_attrs=prefer-standby", "not one of any, read-write, "),
        ("postgres://u@h/db?connect_timeout=soon", "not a number of seconds"),
        ("postgres://u@a,b,c/db?port=1,2", "not one port or 3"),
        ("postgres://u@a,b/db?hostaddr=10.0.0.1", "not a list of 2 addresses"),
    ] {
        let error = url.parse::<ConnectOptions>().expect_err(url);
        let shown = format!("{error} {error:?}");
        assert!(matches!(error, Error::Invalid { .. }) && !error.is_passing(), "{url}: {error:?}");
        assert!(error.to_string().starts_with("the URL ") && error.to_string().contains(problem), "{url}: {error}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[test]
fn a_parameter_that_asks_for_nothing_more_is_accepted_wherever_it_stands() {
    for harmless in [
        "channel_binding=prefer",
        "channel_binding=disable",
        "client_encoding=utf8",
        "client_encoding=UTF8",
        "client_encoding=auto",
        "fallback_application_name=psql",
        "gssencmode=disable",
        "gssencmode=prefer",
        "keepalives=0",
        "krbsrvname=postgres",
        "load_balance_hosts=disable",
        "max_protocol_version=latest",
        "require_auth=",
        "ssl_min_protocol_version=TLSv1.2",
        "sslcertmode=allow",
        "sslcompression=0",
        "sslnegotiation=postgres",
        "sslsni=1",
        "connect_timeout=-1",
    ] {
        let url = format!("postgres://u@h/db?{harmless}&port=7");
        assert_eq!(url.parse::<ConnectOptions>().expect(harmless).to_string(), "database \"db\" at h:7");
        let (mut coderdb, _directory) =
            with_service(&format!("[production]\n{harmless}\nhost=127.0.0.1\nport=1\nuser=u\n"));
        fails(&mut coderdb, 4, &["127.0.0.1:1"]);
    }
}

#[tokio::test]
async fn without_a_user_it_is_that_of_the_operating_system_and_empty_variables_are_absent() {
    let database = support::empty_database().await;
    let id = std::process::Command::new("id").arg("-un").output().expect("a name").stdout;
    let user = String::from_utf8(id).expect("a name").trim_end().to_owned();
    let role = format!("DO $$ BEGIN CREATE ROLE {user:?} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$");
    sqlx::raw_sql(sqlx::AssertSqlSafe(role)).execute(&mut database.connect().await).await.expect("a role");
    let url = format!("postgres:///{}?host={}", database.name(), socket());
    let mut conn = url.parse::<ConnectOptions>().expect("a URL").connect().await.expect("a connection");
    let found: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut conn).await.expect("a name");
    assert_eq!(found, user);
    let mut coderdb = support::coderdb();
    coderdb.env("DATABASE_URL", &url).args(["migrate", "status"]);
    for variable in [
        "PGAPPNAME",
        "PGCHANNELBINDING",
        "PGCONNECT_TIMEOUT",
        "PGDATABASE",
        "PGGSSENCMODE",
        "PGHOST",
        "PGHOSTADDR",
        "PGOPTIONS",
        "PGPASSFILE",
        "PGPASSWORD",
        "PGPASSWORD_FILE",
        "PGPORT",
        "PGREQUIREAUTH",
        "PGREQUIREPEER",
        "PGREQUIRESSL",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGSSLCERT",
        "PGSSLCRL",
        "PGSSLKEY",
        "PGSSLMINPROTOCOLVERSION",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "PGTARGETSESSIONATTRS",
        "PGUSER",
    ] {
        coderdb.env(variable, "");
    }
    let ran = run(&mut coderdb);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Not the file of that name in whatever directory it runs in.
    let (mut coderdb, directory) = with_service("[other]\n");
    fs::write(directory.path().join("pg_service.conf"), "[production]\nhost=/nowhere\n").expect("the file");
    coderdb.current_dir(&directory).env("PGSYSCONFDIR", "");
    fails(&mut coderdb, 2, &["names the service \"production\", which is not in "]);
}

#[test]
fn options_show_no_password() {
    let options: ConnectOptions = "postgres://u:s3cret@a,b/db".parse().expect("a URL");
    let shown = format!("{options:?} {options:#?} {options}");
    assert!(shown.contains("database \\\"db\\\" at a:5432") && !shown.contains("s3cret"), "{shown}");
}

/// The program with a service file, and with nothing else that says where the database is.
fn with_service(text: &str) -> (assert_cmd::Command, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("services.conf");
    fs::write(&file, text).expect("the service file");
    let mut coderdb = support::coderdb();
    coderdb.env("PGSERVICEFILE", file).env("PGSERVICE", "production").args(["migrate", "status"]);
    (coderdb, directory)
}

#[tokio::test]
async fn a_service_file_says_what_the_url_leaves_out_and_variables_what_both_do() {
    let database = support::empty_database().await;
    let host = socket().replace("%2F", "/");
    let service =
        format!("# comment\n[other]\nhost=/nowhere\n\n[production]\n host = {host}\ndbname={}\n", database.name());
    let (mut coderdb, _directory) = with_service(&service);
    assert_eq!(run(coderdb.env("PGUSER", "postgres").env("PGDATABASE", "nowhere")).code, 0);
    fails(coderdb.env("DATABASE_URL", "postgres:///elsewhere"), 2, &["elsewhere", "does not exist"]);
    fails(
        coderdb.env("DATABASE_URL", "postgres:///?service=absent"),
        2,
        &["DATABASE_URL names the service \"absent\", which is not in ", "services.conf"],
    );
    for (line, problem) in [
        ("hots=x", "line 2 of "),
        ("hots=x", "the parameter \"hots\", which is not supported"),
        ("port=x", "has a port that is not a port"),
        ("service=other", "a service inside of a service"),
        ("s3cret", "is not keyword=value"),
    ] {
        let (mut coderdb, _directory) = with_service(&format!("[production]\n{line}\n"));
        fails(&mut coderdb, 2, &[problem]);
        assert!(!run(&mut coderdb).stderr.contains("s3cret"));
    }
}

#[tokio::test]
async fn protection_that_there_is_not_is_refused_and_not_passed_over() {
    let database = support::empty_database().await;
    for (variable, value, code) in [
        ("PGCHANNELBINDING", "require", 2),
        ("PGREQUIREPEER", "postgres", 2),
        ("PGREQUIRESSL", "1", 2),
        ("PGSSLCRL", "/etc/crl.pem", 2),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3", 2),
        ("PGCHANNELBINDING", "prefer", 0),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.2", 0),
    ] {
        let ran = run(database.coderdb().env(variable, value).args(["migrate", "status"]));
        assert_eq!(ran.code, code, "{variable}={value}: {}", ran.stderr);
        assert_eq!(ran.stderr.contains(&format!("{variable} asks for a protection")), code == 2, "{}", ran.stderr);
    }
}

#[test]
fn of_several_hosts_those_without_a_port_have_the_usual_one() {
    let mut coderdb = support::coderdb();
    coderdb.env("PGPORT", "1").env("PGCONNECT_TIMEOUT", "5").args(["migrate", "status"]);
    for (hosts, port) in [("h.invalid,h.invalid", 5432), ("h.invalid", 1)] {
        let ran = run(coderdb.env("DATABASE_URL", format!("postgres://u@{hosts}/db")));
        assert!(ran.stderr.contains(&format!("h.invalid:{port}")), "{}", ran.stderr);
    }
}

#[test]
fn a_service_file_that_cannot_be_read_is_not_taken_for_one_without_the_service() {
    let (mut coderdb, directory) = with_service("");
    fs::write(directory.path().join("services.conf"), b"[production]\nuser=\xe4\n").expect("the service file");
    fails(&mut coderdb, 2, &["services.conf cannot be read: ", "UTF-8"]);
}

#[tokio::test]
async fn a_password_file_is_read_and_ignored_when_others_may_read_it() {
    let database = support::empty_database().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pgpass");
    // Under libpq's name for a socket that is not in the usual place.
    let host = socket().replace("%2F", "/");
    let lines = format!("localhost:*:*:reader:wrong\ns3cret malformed line\n{host}:*:*:reader:pass\\:word\r\n");
    fs::write(&file, [b"# \xe4\n", lines.as_bytes()].concat()).expect("the file");
    let mut conn = database.connect().await;
    support::role_with_password(&mut conn, "reader", "pass:word").await;
    let url = database.url_as("reader", "");
    let mut coderdb = support::coderdb();
    coderdb.env("DATABASE_URL", url).env("PGPASSFILE", &file).args(["migrate", "status"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the mode");
    assert_eq!(run(&mut coderdb).code, 0);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("the mode");
    fails(&mut coderdb, 2, &["refused the connection", "password"]);
    assert!(!run(&mut coderdb).stderr.contains("s3cret"));
}

#[tokio::test]
async fn secrets_are_read_from_the_files_that_variables_name() {
    let database = support::empty_database().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        fs::write(&file, text).expect("the file");
        file
    };
    let mut conn = database.connect().await;
    support::role_with_password(&mut conn, "mounted", "s3cret pass").await;
    let url = database.url_as("mounted", "");
    let command = || {
        let mut coderdb = support::coderdb();
        coderdb.args(["migrate", "status"]);
        coderdb
    };
    let whole = file("url", &format!("{}\n", database.url_as("mounted", "s3cret%20pass")));
    assert_eq!(run(command().env("DATABASE_URL_FILE", &whole)).code, 0);
    let password = file("password", "s3cret pass\r\n");
    assert_eq!(run(command().env("DATABASE_URL", &url).env("PGPASSWORD_FILE", &password)).code, 0);
    let wrong = file("wrong", "s3cret");
    fails(command().env("DATABASE_URL", &url).env("PGPASSWORD_FILE", &wrong), 2, &["refused the connection"]);
    let both = "DATABASE_URL_FILE is set, and so is DATABASE_URL";
    fails(command().env("DATABASE_URL", &url).env("DATABASE_URL_FILE", &whole), 2, &[both]);
    let empty = file("empty", "\n");
    let is_empty = format!("_FILE names {}, which is empty", empty.display());
    fails(command().env("DATABASE_URL_FILE", &empty), 2, &["DATABASE_URL", &is_empty]);
    fails(command().env("DATABASE_URL", &url).env("PGPASSWORD_FILE", &empty), 2, &["PGPASSWORD", &is_empty]);
    fails(command().env("DATABASE_URL_FILE", ""), 2, &["DATABASE_URL_FILE is set and empty"]);
    fails(command().env("DATABASE_URL", ""), 2, &["DATABASE_URL is set and empty"]);
    assert_eq!(
        run(command().env("DATABASE_URL", &url).env("PGPASSWORD_FILE", &password).env("DATABASE_URL_FILE", "")).code,
        0
    );
    let nowhere = "PGPASSWORD_FILE names /nowhere, which cannot be read";
    fails(command().env("DATABASE_URL", &url).env("PGPASSWORD_FILE", "/nowhere"), 2, &[nowhere]);
}
