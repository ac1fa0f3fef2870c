//! `coderdb serve` and `coderdb openapi`: the router of [`crate::http`] behind a listener.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::State, http::Request, response::IntoResponse, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{interval, sleep, timeout},
};
use tower::ServiceExt as _;

use super::{
    connect::{Database, connect},
    error::{CliError, FAILED, USAGE},
    migrate,
    output::{note, print, print_json},
    resolve::OPERATOR,
    signals::Signals,
    values::length,
};
use crate::{
    authz::{Actor, ManageTokens, ReadQueue, ReadUsers, System},
    demo::{self, DemoOptions, Outcome},
    http::{self, Api},
    licenses::LicenseKeys,
    migrate::MigrateOptions,
    pool::{self, Pool},
    store::{api_keys, jobs::STALE_INTERVAL, queue, users},
    watch::{self, Watcher},
};

/// Serve the HTTP API
///
/// Without a configured database, the private server is brought to the schema of this version and gets the demo, and a
/// token for its owner is printed. `/docs` is a page for the API, `/openapi.json` its document; `/healthz`, `/readyz`
/// and `/metrics` are for the operators of the service.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb serve\n  coderdb serve --listen 0.0.0.0:3080 --metrics-listen \
                        127.0.0.1:9090\n\nOn SIGTERM it accepts nothing more, ends the streams of logs, \
                        answers what is under way, and exits with 0.")]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3080", env = "CODERDB_LISTEN")]
    listen: SocketAddr,
    /// Where to answer /metrics; where --listen says, if that is loopback, and nowhere else
    #[arg(long, value_name = "ADDRESS", env = "CODERDB_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// How many connections to the database there are at most
    #[arg(long, value_name = "COUNT", default_value = "20")]
    pool_size: NonZeroUsize,
    /// How many clients may be connected at once, more wait; as many as there may be open files, if absent
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<NonZeroUsize>,
    /// How many requests a token may send per minute to each route; 0 for any number
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    rate_limit: u32,
    /// The public keys that verify licenses: a file with a JWK set, or the JWK set itself
    #[arg(long, value_name = "KEYS", default_value = "", hide_default_value = true, env = "CODERDB_LICENSE_KEYS")]
    license_keys: String,
    /// How long what is under way may take when the service ends
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = length)]
    shutdown_timeout: Duration,
}

/// Print the OpenAPI document of the HTTP API
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coderdb openapi > openapi.json")]
pub(super) struct Openapi {}

pub(super) fn openapi(_: &Openapi) -> Result<ExitCode, CliError> {
    print_json(&http::document())?;
    Ok(ExitCode::SUCCESS)
}

/// A client must send the head of its request within this time.
const HEAD: Duration = Duration::from_secs(30);
/// From one attempt to accept a connection to the next, where the system has no room for one.
const RETRY: Duration = Duration::from_millis(50);
/// So many files are open beside the connections of clients.
const OTHER_FILES: u64 = 128;

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    let license_keys =
        LicenseKeys::from_setting(&args.license_keys).map_err(|error| CliError::new(USAGE, error.to_string()))?;
    let mut database = connect().await?;
    let shown = if database.is_private() { Some(prepare(&mut database).await?) } else { None };
    let settings = pool::Settings { max_size: args.pool_size.get(), ..pool::Settings::default() };
    let pool = Pool::new(database.options().clone(), settings);
    let watcher = Watcher::start(&pool, watch::Settings::default());
    let settings = http::Settings {
        requests_per_minute: NonZeroU32::new(args.rate_limit),
        license_keys,
        ..http::Settings::default()
    };
    let api = Api::new(pool.clone(), watcher, settings);

    let metrics = Metrics::start(&pool)?;
    let mut router = http::router(&api).merge(http::probes(&api)).merge(http::fallback(&api));
    let mut servers = Vec::new();
    match args.metrics_listen {
        Some(address) => {
            let listener = listen(address).await?;
            note(&format!("metrics on http://{}/metrics", listener.local_addr()?));
            servers.push((listener, metrics.router()));
        }
        None if args.listen.ip().is_loopback() => router = router.merge(metrics.router()),
        None => {}
    }
    let listener = listen(args.listen).await?;
    let address = listener.local_addr()?;
    servers.push((listener, router));
    note(&format!("listening on http://{address}"));
    if let Some((token, at)) = shown {
        let pool = pool.clone();
        tokio::spawn(async move {
            // Where it cannot go on, everything else does.
            if let Ok(mut conn) = pool.get().await {
                let _ = demo::live(&mut conn, at).await;
            }
        });
        print(&format!(
            "curl -H 'Coder-Session-Token: {token}' \\\n  'http://{address}/api/v2/organizations/{}/provisionerjobs?status=pending'\n",
            demo::ORGANIZATION
        ))?;
    }

    let room = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024).saturating_sub(OTHER_FILES).max(16);
    let room =
        usize::try_from(room).unwrap_or(usize::MAX).min(args.max_connections.map_or(usize::MAX, NonZeroUsize::get));
    let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
    let ending = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (listener, router) in servers {
        tasks.spawn(accept(listener, router, room.clone(), ending.clone()));
    }
    let signal = signals.next().await;
    note(&format!("ending on {signal:?}: what is under way is answered within {:?}", args.shutdown_timeout));
    ending.cancel();
    let ended = async {
        tokio::join!(api.close_streams(), async { while tasks.join_next().await.is_some() {} });
    };
    let is_in_time = tokio::select! {
        ended = timeout(args.shutdown_timeout, ended) => ended.is_ok(),
        // A second signal ends it at once.
        _ = signals.next() => false,
    };
    if !is_in_time {
        note("what was still under way was given up");
    }
    pool.close();
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        CliError::new(USAGE, format!("cannot listen on {address}: {error}"))
            .next("choose another address with --listen")
    })
}

/// Brings the private server to the schema, and to something to show. Returns a token for the owner of the demo, and
/// the moment that the demo calls now.
async fn prepare(database: &mut Database) -> Result<(String, OffsetDateTime), CliError> {
    migrate::up(database, MigrateOptions::default()).await?;
    let options = DemoOptions { allow_existing: true, scale: None, at: OffsetDateTime::now_utc() };
    let (Outcome::Loaded { at, .. } | Outcome::AlreadyLoaded { at, .. }) =
        demo::load(database, &options, |_| {}).await?;
    let owner = users::by_username(database, &ReadUsers::check(&OPERATOR)?, "alice").await?;
    let now = OffsetDateTime::now_utc();
    let permit = ManageTokens::check(&OPERATOR)?;
    // Each start makes a token of its own, because none is stored; those of earlier starts expire.
    let name = format!("serve {}", uuid::Uuid::new_v4());
    let token = api_keys::create(database, &permit, owner.id, &name, now, now + time::Duration::DAY).await?;
    Ok((token.expose(), at))
}

/// Accepts connections until the service ends, then waits for those that are open.
async fn accept(
    listener: TcpListener,
    router: Router,
    room: Arc<Semaphore>,
    ending: tokio_util::sync::CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD).max_concurrent_streams(100);
    let open = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = async { (room.clone().acquire_owned().await, listener.accept().await) } => accepted,
            () = ending.cancelled() => break,
        };
        let (Ok(permit), Ok((stream, _))) = accepted else {
            sleep(RETRY).await;
            continue;
        };
        // Small answers must not wait for each other.
        let _ = stream.set_nodelay(true);
        let router = router.clone().map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router));
        let connection = open.watch(connection.into_owned());
        tokio::spawn(async move {
            // An error here means that the client closed the connection; there is nothing to report.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// What `/metrics` shows.
#[derive(Clone)]
struct Metrics {
    handle: PrometheusHandle,
    pool: Pool,
}

/// What is waited for longer is not worth telling apart.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];
/// So many sets of tags are shown, those with the most jobs.
const TAG_SETS: usize = 100;

impl Metrics {
    fn start(pool: &Pool) -> Result<Self, CliError> {
        let failed = |error: metrics_exporter_prometheus::BuildError| CliError::new(FAILED, error.to_string());
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .map_err(failed)?
            // A set of tags for which nothing waits any more disappears.
            .idle_timeout(MetricKindMask::GAUGE, Some(Duration::from_mins(2)))
            .install_recorder()
            .map_err(failed)?;
        let upkeep = handle.clone();
        tokio::spawn(async move {
            let mut turn = interval(Duration::from_secs(5));
            loop {
                turn.tick().await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self { handle, pool: pool.clone() })
    }

    fn router(&self) -> Router {
        Router::new().route("/metrics", get(Self::show)).with_state(self.clone())
    }

    async fn show(State(metrics): State<Self>) -> impl IntoResponse {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating point number")]
        let gauge = |name: &'static str, value: usize| metrics::gauge!(name).set(value as f64);
        let pool = metrics.pool.metrics();
        gauge("coderdb_pool_connections_max", pool.max_size);
        gauge("coderdb_pool_connections", pool.size);
        gauge("coderdb_pool_connections_in_use", pool.in_use);
        gauge("coderdb_pool_waiting", pool.waiting);
        metrics::counter!("coderdb_pool_taken_total").absolute(pool.taken);
        metrics::counter!("coderdb_pool_timeouts_total").absolute(pool.timed_out);
        metrics::counter!("coderdb_pool_opened_total").absolute(pool.opened);
        // Without an answer of the database there is no queue to show, and everything else all the same.
        metrics::gauge!("coderdb_database_up").set(f64::from(u8::from(metrics.queue().await.is_some())));
        ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.handle.render())
    }

    /// What waits, by tags: one statement.
    async fn queue(&self) -> Option<()> {
        let permit = ReadQueue::check(&Actor::system(System::Watcher)).ok()?;
        let mut conn = self.pool.get().await.ok()?;
        let snapshot = queue::snapshot(&mut conn, &permit, OffsetDateTime::now_utc(), STALE_INTERVAL).await.ok()?;
        let mut sets = snapshot.everywhere().by_tags();
        sets.sort_by_key(|set| std::cmp::Reverse(set.jobs));
        let now = OffsetDateTime::now_utc();
        for set in sets.into_iter().take(TAG_SETS) {
            let labels = [
                ("organization_id", set.organization_id.to_string()),
                ("provisioner", set.provisioner.to_string()),
                ("tags", set.tags.to_string()),
            ];
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a floating point number")]
            let gauge = |name: &'static str, value: i64| metrics::gauge!(name, &labels).set(value as f64);
            gauge("coderdb_queue_jobs", set.jobs);
            gauge("coderdb_queue_prebuild_jobs", set.prebuilds);
            gauge("coderdb_queue_daemons_idle", set.daemons.idle);
            gauge("coderdb_queue_daemons_busy", set.daemons.busy);
            metrics::gauge!("coderdb_queue_oldest_seconds", &labels).set((now - set.oldest).as_seconds_f64());
        }
        Some(())
    }
}
