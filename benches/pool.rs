//! What a pooled call costs, as a ratio to the same statement through libpq: pgbench with prepared statements.
//!
//!     cargo bench --bench pool
//!
//! One client against a private server. Each round runs every way in turn for a second; 10 rounds, none dropped. Prints
//! the medians in microseconds and the ratio to pgbench in the same round: its median, least and greatest.

use std::{
    env, fs,
    path::Path,
    process::{self, Command},
    str::FromStr,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};

use coderdb::{
    authz::{Actor, ReadOrganizations, ReadQuota, System},
    demo, migrate,
    model::{OrganizationId, UserId},
    pool::{Pool, Settings},
    postgres::Server,
    sqlx::{
        self, Connection, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
    store,
};

const ROUNDS: usize = 10;
const WAYS: [&str; 4] = ["pgbench", "connection", "pool", "sqlx's pool"];

/// A call of the library, and the statement that it sends.
#[derive(Clone, Copy)]
enum Call {
    Organization(OrganizationId),
    Usage(UserId, OrganizationId),
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Organization(_) => "organizations::get",
            Self::Usage(..) => "quota::usage",
        }
    }

    async fn run(self, conn: &mut PgConnection) {
        let actor = Actor::system(System::Operator);
        match self {
            Self::Organization(id) => {
                let permit = ReadOrganizations::check(&actor);
                store::organizations::get(conn, &permit, id).await.expect("the organization");
            }
            Self::Usage(user, organization) => {
                let permit = ReadQuota::check(&actor, user, organization).expect("an operator");
                store::quota::usage(conn, &permit).await.expect("the quota");
            }
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Organization(_) => include_str!("../queries/organizations/get.sql"),
            Self::Usage(..) => include_str!("../queries/quota/usage.sql"),
        }
    }

    fn arguments(self) -> Vec<String> {
        match self {
            Self::Organization(id) => vec![id.to_string()],
            Self::Usage(user, organization) => vec![user.to_string(), organization.to_string()],
        }
    }

    /// Microseconds per call in pgbench, whose parameters have names.
    fn pgbench(self, server: &Server, script: &Path) -> f64 {
        let mut sql = self.sql().lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        let psql = server.psql_command("bench").expect("client programs");
        let pgbench = Path::new(psql.get_program()).with_file_name("pgbench");
        let mut command = Command::new(pgbench);
        command.envs(psql.get_envs().filter_map(|(name, value)| Some((name, value?))));
        for (n, argument) in self.arguments().into_iter().enumerate().rev() {
            sql = sql.replace(&format!("${}", n + 1), &format!(":p{n}"));
            command.arg("-D").arg(format!("p{n}={argument}"));
        }
        fs::write(script, sql + ";\n").expect("the script");
        command.args(["-n", "-M", "prepared", "-T", "1", "-f"]).arg(script).arg(server.url("bench"));
        let output = command.output().expect("pgbench");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let average = text.split("latency average = ").nth(1).and_then(|rest| rest.split(' ').next());
        let milliseconds: f64 = average.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("{output:?}"));
        milliseconds * 1000.0
    }
}

/// Microseconds per call, over a second.
async fn time(mut call: impl AsyncFnMut()) -> f64 {
    let (began, mut calls) = (Instant::now(), 0.0);
    while began.elapsed() < Duration::from_secs(1) {
        call().await;
        calls += 1.0;
    }
    began.elapsed().as_secs_f64() * 1e6 / calls
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = Server::throw_away(|notice| eprintln!("{notice}")).expect("a server");
    let options = |database| PgConnectOptions::from_str(&server.url(database)).expect("a URL");
    let mut connection = PgConnection::connect_with(&options("postgres")).await.expect("a connection");
    sqlx::raw_sql("CREATE DATABASE bench").execute(&mut connection).await.expect("a database");
    let mut connection = PgConnection::connect_with(&options("bench")).await.expect("a connection");
    migrate::up(&mut connection, &migrate::MigrateOptions::default(), |_| {}).await.expect("the migrations");
    let _ = demo::load(&mut connection, &demo::DemoOptions::default(), |_| {}).await.expect("the demo");
    let member = "SELECT organization_id, user_id FROM organization_members ORDER BY user_id LIMIT 1";
    let (organization, user) = sqlx::query_as(member).fetch_one(&mut connection).await.expect("a member");
    let (organization, user) = (OrganizationId(organization), UserId(user));
    let pool = Pool::new(options("bench"), Settings::default());
    let theirs = PgPoolOptions::new().connect_with(options("bench")).await.expect("a pool");
    let script = env::temp_dir().join(format!("coderdb-bench-{}.sql", process::id()));

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["call", "way", "µs", "÷ pgbench", "least", "greatest"]);
    for call in [Call::Organization(organization), Call::Usage(user, organization)] {
        let mut times = WAYS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            let round = [
                call.pgbench(&server, &script),
                time(async || call.run(&mut connection).await).await,
                time(async || call.run(&mut pool.get().await.expect("a connection")).await).await,
                time(async || call.run(&mut theirs.acquire().await.expect("a connection")).await).await,
            ];
            for (times, time) in times.iter_mut().zip(round) {
                times.push(time);
            }
        }
        for (way, theirs) in WAYS.iter().zip(&times) {
            let ratios: Vec<f64> = theirs.iter().zip(&times[0]).map(|(one, floor)| one / floor).collect();
            let (least, greatest) =
                (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
            table.add_row([
                call.name().to_owned(),
                (*way).to_owned(),
                format!("{:.0}", median(theirs)),
                format!("{:.2}", median(&ratios)),
                format!("{least:.2}"),
                format!("{greatest:.2}"),
            ]);
        }
    }
    fs::remove_file(script).expect("the script is still there");
    println!("PostgreSQL {}, {ROUNDS} rounds of 1 s\n\n{table}", server.version());
}
