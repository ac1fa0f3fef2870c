//! Encrypted connections: whom they trust, as whom they come, and that everything goes through them as it is.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use coderdb::{
    connect::{ConnectOptions, Error},
    pool::{self, Pool},
    sqlx::{self, Connection, PgConnection},
    watch::{Settings, Watcher},
};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};

use crate::support::{
    self, fails,
    pgbouncer::PgBouncer,
    run,
    streaming::{Node, Streaming},
    tls::{addresses, certificates, file},
};

const LONG: Duration = Duration::from_secs(30);

/// Self-signed, of version 1, which no library here makes: `openssl x509 -req -signkey`. For nobody but these tests.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBJDCBywIUB3yR5E5J2dC7GyO3LHze1GafzGgwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJdmVyc2lvbi0xMCAXDTI2MTEzMDIwMTcyOVoYDzIxMjYxMTA2MjAxNzI5
WjAUMRIwEAYDVQQDDAl2ZXJzaW9uLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAR/Yw9T3sVDbnrrwi0HcHnu+gEIfDO6mroOGGppYQQyAD4QWeBf6uwg807TCZAc
7FHPx0/kY3d+z+wQC3HjuSFdMAoGCCqGSM49BAMCA0gAMEUCIQDeICuF6InF2e3h
SAwoqhXjAyLldbsC+COuXtz/cC5rpQIgYRKTkMLsg1SOKAoIeLnP57BPl98pp5b/
edej7eTfGxg=
-----END CERTIFICATE-----
";

const KEY_OF_VERSION_1: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWDGPBVEhwFxUlU0q
MwM03cnf6nApgL/oIO+5yVogPv6hRANCAAR/Yw9T3sVDbnrrwi0HcHnu+gEIfDO6
mroOGGppYQQyAD4QWeBf6uwg807TCZAc7FHPx0/kY3d+z+wQC3HjuSFd
-----END PRIVATE KEY-----
";

/// A server at these addresses, with these rules in front of the one that takes everybody who is encrypted.
async fn serve(addresses: &[String; 2], certificate: &str, key: &str, rules: &str) -> Node {
    let mut server = Streaming::start(0, "").await.primary;
    server.serve_tls(&addresses.each_ref().map(String::as_str), certificate, key);
    server.prepend("pg_hba.conf", rules);
    server.end("INT");
    server.restart().await;
    server
}

async fn connect(host: &str, tls: &str) -> Result<PgConnection, Error> {
    format!("postgres://postgres@{host}/postgres?{tls}").parse::<ConnectOptions>()?.connect().await
}

async fn is_encrypted(conn: &mut PgConnection) -> bool {
    let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    sqlx::query_scalar(ask).fetch_one(conn).await.expect("an answer")
}

async fn connects(host: &str, tls: &str) {
    let mut conn = connect(host, tls).await.unwrap_or_else(|error| panic!("{host} {tls}: {error:?}"));
    assert!(is_encrypted(&mut conn).await, "{host} {tls}");
}

/// Neither now nor a little later, and the program says why.
async fn refuses(host: &str, tls: &str, says: &str) {
    let error = connect(host, tls).await.expect_err(tls);
    assert!(!error.is_passing(), "{host} {tls}: {error:?}");
    fails(&mut program(host, tls), 2, &[says]);
}

fn program(host: &str, tls: &str) -> assert_cmd::Command {
    let mut coderdb = support::coderdb();
    coderdb.env("DATABASE_URL", format!("postgres://postgres@{host}/postgres?{tls}")).args(["migrate", "status"]);
    coderdb
}

#[tokio::test]
async fn verify_full_takes_no_server_that_cannot_prove_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let [here, there] = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &here);
    let (stranger, ..) = certificates(directory.path(), &there);
    let _server = serve(&[here.clone(), there.clone()], &certificate, &key, "").await;
    for (host, tls) in [
        (&here, format!("sslmode=verify-full&sslrootcert={trusted}")),
        (&there, format!("sslmode=verify-ca&sslrootcert={trusted}")),
        (&there, format!("sslmode=require&sslrootcert={trusted}")),
        (&there, "sslmode=require".to_owned()),
        (&there, "sslmode=prefer".to_owned()),
        (&there, "sslmode=allow".to_owned()),
        (&there, String::new()),
    ] {
        connects(host, &tls).await;
    }
    for (host, tls, says) in [
        (&there, format!("sslmode=verify-full&sslrootcert={trusted}"), "not valid for name"),
        (&here, format!("sslmode=verify-full&sslrootcert={stranger}"), "cannot trust"),
        (&here, format!("sslmode=verify-ca&sslrootcert={stranger}"), "cannot trust"),
        (&here, format!("sslmode=require&sslrootcert={stranger}"), "cannot trust"),
        (&here, "sslmode=verify-full".to_owned(), "certificate"),
        (&here, "sslmode=disable".to_owned(), "no encryption"),
    ] {
        refuses(host, &tls, says).await;
    }
    // The name is that of the host, wherever its address is said to be.
    connects(&here, &format!("sslmode=verify-full&sslrootcert={trusted}&hostaddr={there}")).await;
    refuses("db.example", &format!("sslmode=verify-full&sslrootcert={trusted}&hostaddr={here}"), "not valid for name")
        .await;
    // Of several hosts, the one that can prove its name is taken.
    connects(&format!("{there},{here}"), &format!("sslmode=verify-full&sslrootcert={trusted}")).await;
}

#[tokio::test]
async fn a_root_that_is_given_replaces_those_of_the_system_and_system_means_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let [here, there] = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &here);
    let (stranger, ..) = certificates(directory.path(), &there);
    let _server = serve(&[here.clone(), there.clone()], &certificate, &key, "").await;
    // Where the authorities of the system are, for the program.
    let with_system = |host: &str, tls: &str| {
        let mut coderdb = program(host, tls);
        coderdb.env("SSL_CERT_FILE", &trusted);
        coderdb
    };
    for tls in
        ["sslmode=verify-full", "sslmode=verify-ca", "sslrootcert=system", "sslmode=verify-full&sslrootcert=system"]
    {
        let ran = run(&mut with_system(&here, tls));
        assert_eq!(ran.code, 0, "{tls}: {}", ran.stderr);
    }
    fails(&mut with_system(&there, "sslrootcert=system"), 2, &["not valid for name"]);
    fails(&mut with_system(&here, &format!("sslmode=verify-full&sslrootcert={stranger}")), 2, &["cannot trust"]);
    for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let tls = format!("sslmode={mode}&sslrootcert=system");
        fails(&mut with_system(&here, &tls), 2, &["sslrootcert=system, and sslmode is weaker than verify-full"]);
    }
    let nowhere = &mut program(&here, "sslmode=verify-full");
    fails(
        nowhere.env("SSL_CERT_FILE", "/nowhere").env("SSL_CERT_DIR", "/nowhere"),
        2,
        &["name a file with sslrootcert"],
    );
}

#[tokio::test]
async fn what_verifies_nothing_takes_a_certificate_of_version_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let _server = serve(&addresses, VERSION_1, KEY_OF_VERSION_1, "").await;
    let [here, _] = addresses;
    for mode in ["allow", "prefer", "require"] {
        connects(&here, &format!("sslmode={mode}")).await;
    }
    let pinned = file(directory.path(), "server.crt", VERSION_1);
    refuses(&here, &format!("sslmode=verify-ca&sslrootcert={pinned}"), "UnsupportedCertVersion").await;
}

/// A certificate that signs itself, for this address or with it as its name only, and its key.
fn self_signed(is_ca: IsCa, names: &[String], common_name: &str) -> (String, String) {
    let mut params = CertificateParams::new(names).expect("addresses");
    params.is_ca = is_ca;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "tests");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_certificate_that_signs_itself_is_trusted_where_it_is_given_as_root() {
    let directory = tempfile::tempdir().expect("a directory");
    for (is_ca, has_names) in [
        (IsCa::NoCa, true),
        (IsCa::Ca(BasicConstraints::Unconstrained), true),
        // As the documentation of PostgreSQL makes it.
        (IsCa::Ca(BasicConstraints::Unconstrained), false),
        (IsCa::NoCa, false),
    ] {
        let [here, there] = addresses();
        let names = if has_names { vec![here.clone()] } else { Vec::new() };
        let (certificate, key) = self_signed(is_ca, &names, &here);
        let _server = serve(&[here.clone(), there.clone()], &certificate, &key, "").await;
        let pinned = file(directory.path(), "pinned.crt", &certificate);
        // Of the same names, with another key.
        let stranger = file(directory.path(), "stranger.crt", &self_signed(is_ca, &names, &here).0);
        let both = file(directory.path(), "both.crt", &format!("{VERSION_1}{certificate}"));
        for (host, mode, roots) in
            [(&here, "verify-full", &pinned), (&here, "verify-full", &both), (&there, "verify-ca", &pinned)]
        {
            connects(host, &format!("sslmode={mode}&sslrootcert={roots}")).await;
        }
        refuses(&there, &format!("sslmode=verify-full&sslrootcert={pinned}"), "not valid for name").await;
        for mode in ["verify-full", "verify-ca"] {
            refuses(&here, &format!("sslmode={mode}&sslrootcert={stranger}"), "cannot trust").await;
        }
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_is_told_why_it_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let addresses = addresses();
    let [here, _] = &addresses;
    let (_, certificate, key) = certificates(directory, here);
    // The server trusts the one of version 1, and one that an authority has signed.
    let (authority, of_client, key_of_client) = certificates(directory, "postgres.example");
    let mut server = Streaming::start(0, "").await.primary;
    server.place("clients.crt", &(fs::read_to_string(authority).expect("the file") + VERSION_1));
    server.serve_tls(&addresses.each_ref().map(String::as_str), &certificate, &key);
    server.prepend("postgresql.auto.conf", "ssl_ca_file = 'clients.crt'\n");
    server.prepend("pg_hba.conf", "hostssl all all all trust clientcert=verify-ca\n");
    server.end("INT");
    server.restart().await;
    let pair = |name: &str, certificate: &str, key: &str| {
        let (certificate, key) =
            (file(directory, &format!("{name}.crt"), certificate), file(directory, &format!("{name}.key"), key));
        format!("sslcert={certificate}&sslkey={key}")
    };
    let good = pair("client", &of_client, &key_of_client);
    connects(here, &format!("sslmode=require&{good}")).await;
    connects(here, &format!("sslmode=require&{}", pair("old", VERSION_1, KEY_OF_VERSION_1))).await;
    let (stranger, key_of_stranger) = self_signed(IsCa::NoCa, &[], "stranger");
    for (tls, says) in [
        (String::new(), "valid client certificate"),
        (pair("stranger", &stranger, &key_of_stranger), "fatal alert"),
        (pair("mixed", &of_client, &key_of_stranger), "fatal alert"),
        (pair("no-key", &of_client, &of_client), "sslkey "),
        (pair("no-certificate", &key_of_client, &key_of_client), "it holds no certificate"),
        (good.split('&').next().expect("one of two").to_owned(), "has a sslcert that needs sslkey, too"),
        (good.split('&').nth(1).expect("one of two").to_owned(), "has a sslkey that needs sslcert, too"),
    ] {
        refuses(here, &format!("sslmode=require&{tls}"), says).await;
    }
}

#[tokio::test]
async fn a_file_that_is_missing_is_named_wherever_it_would_be_used() {
    for keyword in ["sslrootcert", "sslcert", "sslkey"] {
        for mode in ["allow", "prefer", "require", "verify-ca", "verify-full"] {
            let tls = format!("sslmode={mode}&{keyword}=/nowhere/file");
            let says = format!("DATABASE_URL has a {keyword} that names /nowhere/file, which cannot be read: ");
            fails(&mut program("127.0.0.1:1", &tls), 2, &[&says]);
        }
        let mut plain = program("127.0.0.1:1", &format!("sslmode=disable&{keyword}=/nowhere/file"));
        assert_eq!(run(&mut plain).code, 4, "it is not used");
    }
    let mut variable = program("127.0.0.1:1", "");
    fails(
        variable.env("PGSSLROOTCERT", "/nowhere/file"),
        2,
        &["PGSSLROOTCERT names /nowhere/file, which cannot be read: "],
    );
}

#[tokio::test]
async fn prefer_and_allow_find_the_way_that_the_server_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let [here, _] = &addresses;
    let (_, certificate, key) = certificates(directory.path(), here);
    let rules = "hostssl all plain all reject\nhostnossl all plain all trust\n";
    let mut server = serve(&addresses, &certificate, &key, rules).await;
    server.run(&["CREATE ROLE plain LOGIN"]).await;
    let connect_as = async |user: &str, mode: &str| {
        let options: ConnectOptions =
            format!("postgres://{user}@{here}/postgres?sslmode={mode}").parse().expect("a URL");
        options.connect().await
    };
    for (user, mode, encrypted) in [
        ("postgres", "allow", Some(true)),
        ("postgres", "prefer", Some(true)),
        ("plain", "prefer", Some(false)),
        ("plain", "allow", Some(false)),
        ("plain", "require", None),
        ("postgres", "disable", None),
        ("nobody", "prefer", None),
    ] {
        let connected = connect_as(user, mode).await;
        assert_eq!(connected.is_ok(), encrypted.is_some(), "{user} {mode}");
        if let Ok(mut conn) = connected {
            assert_eq!(Some(is_encrypted(&mut conn).await), encrypted, "{user} {mode}");
        }
    }
    server.run(&["ALTER SYSTEM SET ssl = off"]).await;
    server.end("INT");
    server.restart().await;
    assert!(!is_encrypted(&mut connect_as("plain", "prefer").await.expect("a connection")).await);
    refuses(here, "sslmode=require", "the server does not encrypt").await;
}

#[tokio::test]
async fn everything_goes_through_as_it_is_in_both_directions() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &addresses[0]);
    let server = serve(&addresses, &certificate, &key, "").await;
    let tls = format!("sslmode=verify-full&sslrootcert={trusted}");
    let mut conn = connect(&addresses[0], &tls).await.expect("a connection");
    for length in [0, 1, 16_383, 16_384, 16_385, 65_536, 20_000_000] {
        let text = "x".repeat(length);
        let query = sqlx::query_as::<_, (String, i32)>("SELECT $1 || $2, length($1)");
        let (both, found) = query.bind(&text).bind("y").fetch_one(&mut conn).await.expect("the texts");
        assert_eq!((both.len(), usize::try_from(found)), (length + 1, Ok(length)));
    }
    sqlx::raw_sql("CREATE TABLE t (i int, s text)").execute(&mut conn).await.expect("a table");
    let mut lines = String::new();
    for n in 0..50_000 {
        writeln!(lines, "{n}\ta text that is a little longer than the number").expect("a line");
    }
    let mut copy = conn.copy_in_raw("COPY t FROM STDIN").await.expect("a copy");
    copy.send(lines.as_bytes()).await.expect("the lines");
    assert_eq!(copy.finish().await.expect("the end"), 50_000);
    let mut length = 0;
    let mut copy = conn.copy_out_raw("COPY t TO STDOUT").await.expect("a copy");
    while let Some(chunk) = std::future::poll_fn(|context| copy.as_mut().poll_next(context)).await {
        length += chunk.expect("a chunk").len();
    }
    drop(copy);
    assert_eq!(length, lines.len());
    let error = sqlx::query("SELECT 1 / $1").bind(0).execute(&mut conn).await.expect_err("no number");
    assert!(error.to_string().contains("division by zero"), "{error}");

    // What the server says before it hangs up arrives, too.
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.expect("a pid");
    server.run(&[&format!("SELECT pg_terminate_backend({pid}, 10000)")]).await;
    let error = sqlx::query("SELECT 1").execute(&mut conn).await.expect_err("it was ended");
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("57P01"), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_ends_leaves_no_task_behind_and_the_server_none_that_was_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let [here, _] = &addresses;
    let (trusted, certificate, key) = certificates(directory.path(), here);
    let server = serve(&addresses, &certificate, &key, "").await;
    let tls = format!("sslmode=verify-full&sslrootcert={trusted}");
    let connect = async || connect(here, &tls).await.expect("a connection");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let none_is_left = async || {
        let began = Instant::now();
        while tasks() > 0 {
            assert!(began.elapsed() < LONG, "{} tasks", tasks());
            tokio::task::yield_now().await;
        }
    };
    let before = tasks();
    assert_eq!(before, 0);
    let mut connections = Vec::new();
    for _ in 0..9 {
        connections.push(connect().await);
    }
    assert_eq!(tasks(), 9);
    // Closed; dropped; dropped in the middle of a transaction.
    for (n, mut conn) in connections.into_iter().enumerate() {
        match n % 3 {
            0 => conn.close().await.expect("a clean end"),
            1 => {}
            _ => drop(conn.begin().await.expect("a transaction")),
        }
    }
    none_is_left().await;
    // A program is gone only after its last word. It needs no place for a file.
    for _ in 0..10 {
        let mut command = program(here, &tls);
        assert_eq!(run(command.env("TMPDIR", "/nowhere")).code, 0);
    }
    assert!(!server.log().contains("could not receive data"), "{}", server.log());
    // In the middle of an answer, which nobody reads.
    let mut conn = connect().await;
    let rows = sqlx::query("SELECT repeat('x', $1) FROM generate_series(1, 1000)").bind(10_000);
    assert!(tokio::time::timeout(Duration::ZERO, rows.fetch_all(&mut conn)).await.is_err());
    drop(conn);
    none_is_left().await;
    // Refused, and given up on its way.
    connect_as_nobody(here, &tls).await;
    none_is_left().await;
}

async fn connect_as_nobody(host: &str, tls: &str) {
    let options: ConnectOptions = format!("postgres://nobody@{host}/postgres?{tls}").parse().expect("a URL");
    options.connect().await.expect_err("no such user");
}

#[tokio::test]
async fn a_pool_and_its_listening_connection_are_encrypted_and_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let addresses = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &addresses[0]);
    let server = serve(&addresses, &certificate, &key, "").await;
    let url = format!("postgres://postgres@{}/postgres?sslmode=verify-full&sslrootcert={trusted}", addresses[0]);
    let pool = Pool::new(url.parse::<ConnectOptions>().expect("a URL"), pool::Settings::default());
    let _watcher = Watcher::start(
        &pool,
        Settings { poll: Duration::from_hours(1), poll_organizations: Duration::from_hours(1), ..Settings::default() },
    );
    let listens =
        "SELECT count(*) = 1 FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE query LIKE 'LISTEN%' AND ssl";
    server.until(listens).await;
    let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    server.run(&[end]).await;
    server.until(listens).await;
    assert!(is_encrypted(&mut pool.get().await.expect("a connection")).await);
}

#[tokio::test]
async fn through_a_transaction_pooler_it_is_encrypted_with_whom_the_certificate_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let [here, there] = addresses();
    let (trusted, certificate, key) = certificates(directory.path(), &here);
    let _pgbouncer = PgBouncer::start_with_tls(&format!("{here},{there}"), &certificate, &key);
    let database = support::empty_database().await;
    let connect = async |host: &str, tls: &str| {
        let url = format!("postgres://postgres@{host}/{}?{tls}", database.name());
        url.parse::<ConnectOptions>().expect("a URL").pooler(coderdb::connect::Pooler::Transaction).connect().await
    };
    let verify = format!("sslmode=verify-full&sslrootcert={trusted}");
    for tls in [&*verify, "sslmode=require", "sslmode=prefer"] {
        let mut conn = connect(&here, tls).await.expect("a connection");
        let sum = sqlx::query_scalar::<_, i32>("SELECT $1 + $2").bind(1).bind(2);
        assert_eq!(sum.fetch_one(&mut conn).await.expect("a sum"), 3);
    }
    for (host, tls, says) in [
        (&there, &*verify, "NotValidForName"),
        (&here, "sslmode=verify-full", "UnknownIssuer"),
        (&here, "sslmode=disable", "SSL required"),
    ] {
        let error = connect(host, tls).await.expect_err(tls);
        assert!(format!("{error:?}").contains(says), "{tls}: {error:?}");
    }
}
