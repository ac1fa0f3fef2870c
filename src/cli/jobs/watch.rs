//! `coderdb provisioner jobs watch`: the queue, the running jobs and the daemons, refreshed until the user quits.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use indicatif::HumanDuration;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize as _},
    text::Line,
    widgets::{Row, Table},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use super::super::{
    connect::connect,
    error::{CliError, USAGE},
    filter::{self, Filter},
    output::rfc_3339,
    queue::{SAMPLES, WINDOW, brief},
    resolve::OPERATOR,
    signals::Signals,
    table::{Medium, one_line, truncate},
};
use crate::{
    authz::{ReadDaemons, ReadJobs},
    model::{
        DaemonCounts, DaemonDetails, DaemonFilter, DaemonStatus, ExpectedWait, JobDetails, JobFilter, JobStatus,
        Organization, PageRequest, TagQueue, Tags, TagsCount,
    },
    pool::{self, Pool},
    search::Query,
    store::{
        daemons, jobs,
        queue::{self, History},
    },
    watch::{self, Watcher},
};

/// Not more often than this, however much changes.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest interval between two refreshes: a daemon that goes silent announces nothing.
const AT_LEAST: Duration = Duration::from_secs(5);
/// More running jobs than a screen has lines.
const RUNNING: u32 = 100;

/// A longer queue is not simulated while the screen waits.
const MOST_SIMULATED: i64 = 5_000;
/// How often the history is read that expected waits are computed from.
const HISTORY_POLL: Duration = Duration::from_mins(1);

/// Watch the queue by tags, the running jobs and the daemons, until q or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb provisioner jobs watch\n  coderdb provisioner jobs watch --initiator \
                        prebuilds\n  coderdb provisioner jobs watch --tag env=aws --org coder")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    filter: Filter,
}

/// What is on the screen.
struct Seen {
    queue: Vec<TagQueue>,
    /// The expected wait of the last job of each queue.
    waits: Vec<Option<ExpectedWait>>,
    running: Vec<JobDetails>,
    daemons: Vec<DaemonDetails>,
    at: OffsetDateTime,
}

/// The terminal as a screen, given back as it was however this ends; `ratatui::init` sees to panics.
struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(
            CliError::new(USAGE, "there is no terminal to watch on").next("use `coderdb provisioner jobs list`")
        );
    }
    let query = args.filter.query()?;
    let mut database = connect().await?;
    let (organization, filter) = filter::resolve(&mut database, &query).await?;
    let pool = Pool::new(database.options().clone(), pool::Settings::default());
    let watcher = Watcher::start(&pool, watch::Settings::default());
    let read = ReadJobs::check(&OPERATOR, organization.id)?;
    let mut changes = watcher.changes(&read).await;
    let mut history = None;
    let mut seen = look(&pool, &watcher, &organization, &query, &filter, &mut history).await?;
    let mut signals = Signals::new()?;
    let mut screen = Screen(ratatui::try_init()?);
    let mut events = EventStream::new();
    let (mut trouble, mut is_stale, mut looked) = (None, false, Instant::now());
    let code = 'watch: loop {
        screen.0.draw(|frame| draw(frame, &organization, &seen, trouble.as_deref()))?;
        tokio::select! {
            code = asked_to_end(&mut events, &mut signals) => match code {
                Some(code) => break code,
                None => continue,
            },
            _ = changes.next(), if !is_stale => {
                is_stale = true;
                continue;
            }
            () = sleep_until(looked + if is_stale { PAUSE } else { AT_LEAST }) => {}
        }
        // All that is said by now is in the next look.
        while let Some(Some(_)) = changes.next().now_or_never() {}
        let look = look(&pool, &watcher, &organization, &query, &filter, &mut history);
        tokio::pin!(look);
        // The user can quit also while the database does not answer.
        let now = loop {
            tokio::select! {
                now = &mut look => break now,
                code = asked_to_end(&mut events, &mut signals) => if let Some(code) = code { break 'watch code },
            }
        };
        match now {
            Ok(now) => (seen, trouble) = (now, None),
            // What was seen last stays, until the database is there again.
            Err(error) => trouble = Some(error.message().to_owned()),
        }
        (is_stale, looked) = (false, Instant::now());
    };
    drop(screen);
    database.close().await;
    Ok(code)
}

/// Waits for the next key, signal or change of the terminal; the exit code, if that is to end it.
async fn asked_to_end(events: &mut EventStream, signals: &mut Signals) -> Option<ExitCode> {
    tokio::select! {
        signal = signals.next() => Some(signal.into()),
        event = events.next() => match event {
            Some(Ok(event)) => is_quit(&event).then_some(ExitCode::SUCCESS),
            // The terminal is gone.
            None | Some(Err(_)) => Some(ExitCode::SUCCESS),
        },
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// The names in the query are those of the filter; its ages count back from now.
async fn look(
    pool: &Pool,
    watcher: &Watcher,
    organization: &Organization,
    query: &Query,
    filter: &JobFilter,
    history: &mut Option<(Instant, History)>,
) -> Result<Seen, CliError> {
    let read = ReadJobs::check(&OPERATOR, organization.id)?;
    let view = watcher.queue(&read).await?;
    let waiting = view.by_tags();
    let mut conn = pool.get().await?;
    let is_long = waiting.iter().map(|queue| queue.jobs).sum::<i64>() > MOST_SIMULATED;
    if !is_long && history.as_ref().is_none_or(|(read, _)| read.elapsed() > HISTORY_POLL) {
        *history = Some((Instant::now(), queue::history(&mut conn, &read, view.at(), WINDOW, SAMPLES).await?));
    }
    let last: Vec<_> = waiting.iter().filter_map(|queue| view.last(queue)).collect();
    let expected = match history {
        Some((_, history)) if !is_long => view.expected_waits(&last, history),
        _ => HashMap::new(),
    };
    let at = OffsetDateTime::now_utc();
    let (created_after, created_before) = query.created(at);
    let of = |wanted: &[JobStatus]| {
        let is_wanted = |status: &&JobStatus| filter.status.is_empty() || filter.status.contains(status);
        let status: Vec<_> = wanted.iter().filter(is_wanted).copied().collect();
        (!status.is_empty()).then(|| JobFilter { status, created_after, created_before, ..filter.clone() })
    };
    let all = JobFilter { status: vec![JobStatus::Pending], ..JobFilter::default() };
    let queue = match of(&[JobStatus::Pending]) {
        Some(pending) if pending == all => waiting,
        Some(pending) => {
            let counted = jobs::count_by_tags(&mut conn, &read, &pending).await?;
            counted.into_iter().map(|counted| with_daemons(organization, counted, &waiting)).collect()
        }
        None => Vec::new(),
    };
    let running = match of(&[JobStatus::Running, JobStatus::Canceling]) {
        Some(running) => jobs::list(&mut conn, &read, &running, PageRequest::first(RUNNING)).await?.rows,
        None => Vec::new(),
    };
    let permit = ReadDaemons::check(&OPERATOR, organization.id)?;
    let tagged = DaemonFilter {
        tags: filter.untagged.then(Tags::untagged),
        has_tags: filter.has_tags.clone(),
        ..DaemonFilter::default()
    };
    let daemons = daemons::list(&mut conn, &permit, &tagged, at, jobs::STALE_INTERVAL).await?;
    let waits = queue.iter().map(|queue| expected.get(&view.last(queue)?).copied()).collect();
    Ok(Seen { queue, waits, running, daemons, at })
}

/// The jobs that pass the filter, with the daemons of all that wait with the same tags.
fn with_daemons(organization: &Organization, counted: TagsCount, waiting: &[TagQueue]) -> TagQueue {
    let TagsCount { tags, provisioner, jobs, prebuilds, oldest } = counted;
    let same = |queue: &&TagQueue| queue.tags == tags && queue.provisioner == provisioner;
    let daemons = waiting.iter().find(same).map_or(DaemonCounts::default(), |queue| queue.daemons);
    TagQueue { organization_id: organization.id, tags, provisioner, jobs, prebuilds, oldest, daemons }
}

/// How long ago, in two or three characters.
fn ago(now: OffsetDateTime, then: OffsetDateTime) -> String {
    // A clock may be ahead of another one.
    format!("{:#}", HumanDuration((now - then).try_into().unwrap_or_default()))
}

/// The tags that tell one set from another, which are not those that nearly all have.
fn short(tags: &Tags) -> String {
    let usual = Tags::untagged();
    if *tags == usual {
        return "untagged".to_owned();
    }
    let rest = tags.0.iter().filter(|(key, value)| usual.0.get(*key) != Some(*value));
    let rest: Tags = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    one_line(&if rest.0.is_empty() { tags.to_string() } else { rest.to_string() })
}

fn draw(frame: &mut Frame, organization: &Organization, seen: &Seen, trouble: Option<&str>) {
    let thirds =
        [Constraint::Length(1), Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(1)];
    let [top, queue, running, daemons, bottom] = Layout::vertical(thirds).areas(frame.area());
    let pending: i64 = seen.queue.iter().map(|tags| tags.jobs).sum();
    let more = if seen.running.len() >= RUNNING as usize { "+" } else { "" };
    let online = seen.daemons.iter().filter(|daemon| daemon.status != DaemonStatus::Offline).count();
    let at = rfc_3339(seen.at.truncate_to_second());
    let title = format!(
        "{}: {pending} pending, {}{more} running, {online} of {} daemons online, {at}",
        one_line(&organization.name),
        seen.running.len(),
        seen.daemons.len()
    );
    let width = usize::from(top.width);
    frame.render_widget(Line::from(truncate(&title, width)).bold(), top);
    section(
        frame,
        queue,
        ["QUEUE", "PROVISIONER", "WAITING", "PREBUILDS", "OLDEST", "DAEMONS", "LAST IN"],
        [
            Constraint::Fill(1),
            Constraint::Length(11),
            Constraint::Length(7),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
        ],
        seen.queue.iter().zip(&seen.waits).map(|(tags, wait)| {
            let able = match (tags.daemons.online(), tags.daemons.offline) {
                (0, 0) => "none".to_owned(),
                (0, _) => "offline".to_owned(),
                (able, _) => able.to_string(),
            };
            [
                short(&tags.tags),
                tags.provisioner.to_string(),
                tags.jobs.to_string(),
                tags.prebuilds.to_string(),
                ago(seen.at, tags.oldest),
                able,
                wait.map(|wait| brief(wait.p50)).unwrap_or_default(),
            ]
        }),
    );
    section(
        frame,
        running,
        ["RUNNING", "TYPE", "STATUS", "WORKER", "FOR"],
        [
            Constraint::Fill(2),
            Constraint::Length(24),
            Constraint::Length(9),
            Constraint::Fill(1),
            Constraint::Length(4),
        ],
        seen.running.iter().map(|details| {
            let JobDetails { job, workspace_name, template_name, .. } = details;
            let id = job.id.to_string();
            let what = [workspace_name, template_name].into_iter().find(|name| !name.is_empty()).unwrap_or(&id);
            let since = job.started_at.unwrap_or(job.created_at);
            [
                one_line(what),
                job.job_type.to_string(),
                job.status.to_string(),
                one_line(&details.worker_name),
                ago(seen.at, since),
            ]
        }),
    );
    section(
        frame,
        daemons,
        ["DAEMON", "STATUS", "JOB OF", "TAGS", "SEEN"],
        [Constraint::Fill(1), Constraint::Length(7), Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(4)],
        seen.daemons.iter().map(|details| {
            let job = details.current_job.as_ref().map_or("", |job| job.template_name.as_str());
            [
                one_line(&details.daemon.name),
                details.status.to_string(),
                one_line(job),
                short(&details.daemon.tags),
                details.daemon.last_seen_at.map_or_else(|| "-".to_owned(), |at| ago(seen.at, at)),
            ]
        }),
    );
    let said = match trouble {
        Some(trouble) => Line::from(truncate(&one_line(&format!("trying again: {trouble}")), width)).red(),
        None => Line::from("q quits").dim(),
    };
    frame.render_widget(said, bottom);
    if !Medium::stdout().colored {
        let area = frame.area();
        frame.buffer_mut().set_style(area, Style::reset());
    }
}

/// Between two columns.
const GAP: u16 = 2;

/// A line of headings and as many rows as there is room for; the last line says how many there are more.
fn section<const N: usize>(
    frame: &mut Frame,
    area: Rect,
    headings: [&str; N],
    widths: [Constraint; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    let columns: [Rect; N] = Layout::horizontal(widths).spacing(GAP).areas(area);
    let fitting = |(text, column): (String, Rect)| truncate(&text, usize::from(column.width));
    let room = usize::from(area.height.saturating_sub(1));
    let total = rows.len();
    let shown = if total > room { room.saturating_sub(1) } else { total };
    let mut rows: Vec<_> = rows.take(shown).map(|row| Row::new(row.into_iter().zip(columns).map(fitting))).collect();
    if total > shown {
        rows.push(Row::new([format!("and {} more", total - shown)]));
    }
    let table = Table::new(rows, widths).header(Row::new(headings).style(Style::new().bold())).column_spacing(GAP);
    frame.render_widget(table, area);
}
