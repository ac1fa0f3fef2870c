//! The table of arguments, and what is bad for each.

use std::{collections::BTreeMap, time::Duration};

use coderdb::model::Tags;
use fastrand::Rng;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, macros::datetime};

/// Operation, argument, kind; and what comes of its bad values where that is not what [`bad`] says of the kind.
pub(super) const ENTRIES: &str = "
agents::append_logs              lines.output               text  nul=ok
agents::append_logs              now                        time
agents::logs_after               after                      i64
builds::by_number                number                     i32   min=not_found minus=not_found max=not_found
api_keys::create                 name                       text  empty=invalid long=invalid wide=invalid
api_keys::create                 now                        time
api_keys::create                 expires_at                 time
api_keys::revoke                 id                         text  empty=not_found long=not_found wide=not_found
api_keys::session                now                        time
api_keys::touch                  id                         text
api_keys::touch                  now                        time
builds::create                   new.provisioner_state      bytes
builds::create                   new.deadline               time
builds::create                   new.max_deadline           time
builds::create                   new.tags                   tags
builds::create                   new.options                json
builds::create                   new.trace_metadata         json
builds::create                   now                        time
builds::update_deadline          deadline                   time
builds::update_deadline          max_deadline               time
builds::update_deadline          now                        time
builds::update_state             state                      bytes
builds::update_state             now                        time
changes::active                  digest                     text
changes::announce                texts                      text  wide=invalid
daemons::delete_old              now                        time
daemons::heartbeat               now                        time
daemons::list                    filter.tags                tags
daemons::list                    filter.has_tags            tags
daemons::list                    filter.limit               u32
daemons::list                    now                        time
daemons::list                    stale_interval             span
daemons::upsert                  new.created_at             time
daemons::upsert                  new.name                   text  empty=invalid long=invalid wide=invalid
daemons::upsert                  new.tags                   tags  long=invalid
daemons::upsert                  new.last_seen_at           time
daemons::upsert                  new.version                text
daemons::upsert                  new.api_version            text
files::insert                    file.mimetype              text  empty=invalid long=invalid wide=invalid
files::insert                    file.data                  bytes
files::insert                    now                        time
job_logs::after                  after                      i64
job_logs::append                 lines.created_at           time
job_logs::append                 lines.stage                text  nul=ok
job_logs::append                 lines.output               text  nul=ok
job_logs::prune                  limit                      u32
job_timings::insert              timings.started_at         time  last=invalid
job_timings::insert              timings.ended_at           time
job_timings::insert              timings.source             text  nul=ok
job_timings::insert              timings.action             text  nul=ok
job_timings::insert              timings.resource           text  nul=ok
jobs::acquire                    daemon.tags                tags
jobs::acquire                    now                        time
jobs::acquire_batch              daemon.tags                tags
jobs::acquire_batch              now                        time
jobs::acquire_batch              limit                      u32
jobs::by_ids_with_queue_position now                        time
jobs::by_ids_with_queue_position stale_interval             span
jobs::cancel                     now                        time
jobs::cancel_batch               now                        time
jobs::complete                   now                        time
jobs::complete                   provisioner_state          bytes
jobs::count_by_tags              filter.tags                tags
jobs::count_by_tags              filter.has_tags            tags
jobs::count_by_tags              filter.created_after       time
jobs::count_by_tags              filter.created_before      time
jobs::count_by_tags              filter.error_codes         text
jobs::count_by_tags              filter.exclude.tags        tags
jobs::count_by_tags              filter.exclude.error_codes text
jobs::created_after              after                      time
jobs::fail                       now                        time
jobs::fail                       failure.error              text  nul=ok
jobs::fail                       failure.provisioner_state  bytes
jobs::fail_insufficient_quota    now                        time
jobs::heartbeat                  now                        time
jobs::insert                     job.created_at             time
jobs::insert                     job.options                json
jobs::insert                     job.tags                   tags
jobs::insert                     job.trace_metadata         json
jobs::ids                        filter.tags                tags
jobs::ids                        filter.has_tags            tags
jobs::ids                        filter.created_after       time
jobs::ids                        filter.created_before      time
jobs::ids                        filter.error_codes         text
jobs::ids                        filter.exclude.tags        tags
jobs::ids                        filter.exclude.error_codes text
jobs::ids                        page.limit                 u32
jobs::ids                        page.after                 time  bc=ok
jobs::list                       filter.tags                tags
jobs::list                       filter.has_tags            tags
jobs::list                       filter.created_after       time
jobs::list                       filter.created_before      time
jobs::list                       filter.error_codes         text
jobs::list                       filter.exclude.tags        tags
jobs::list                       filter.exclude.error_codes text
jobs::list                       page.limit                 u32
jobs::list                       page.after                 time  bc=ok
jobs::prune                      after                      time
jobs::prune                      until                      time
jobs::prune                      before                     time
jobs::prune_candidates           after                      time
jobs::prune_candidates           limit                      u32
jobs::prune_candidates           before                     time
jobs::reap                       now                        time
jobs::reap_candidates            now                        time
jobs::reap_candidates            limit                      u32
licenses::delete                 id                         i32
licenses::get                    id                         i32   min=not_found minus=not_found max=not_found
licenses::insert                 new.uploaded_at            time
licenses::insert                 new.jwt                    text  empty=invalid long=invalid
licenses::insert                 new.expires_at             time
licenses::unexpired              now                        time
organizations::by_name           name                       text  empty=not_found long=not_found wide=not_found
organizations::resolve           organization               text  empty=not_found long=not_found wide=not_found
prebuilds::at_failure_limit      limit                      nonzero
prebuilds::backoff               now                        time
prebuilds::backoff               lookback                   span
prebuilds::cancel_stale_pending  now                        time
prebuilds::cancel_stale_pending  stale_interval             span
prebuilds::ensure_organization   now                        time
prebuilds::status                now                        time
prebuilds::status                lookback                   span
queue::history                   now                        time
queue::history                   window                     span
queue::history                   limit                      u32
queue::shares                    now                        time
queue::shares                    window                     span
queue::snapshot                  now                        time
queue::snapshot                  stale_interval             span
quota::check                     preset                     text  empty=not_found long=not_found wide=not_found
quota::commit                    cost                       i64   min=invalid minus=invalid max=invalid
quota::list                      page.after                 text
quota::list                      page.limit                 u32
runner::commit_quota             daily_costs                i32   min=invalid minus=invalid
runner::commit_quota             now                        time
templates::by_name               name                       text  empty=not_found long=not_found wide=not_found
templates::resolve               template                   text  empty=not_found long=not_found wide=not_found
users::by_username               username                   text  empty=not_found long=not_found wide=not_found
users::resolve                   user                       text  empty=not_found long=not_found wide=not_found
users::resolve                   me                         text  empty=not_found long=not_found wide=not_found
workspaces::by_name              name                       text
workspaces::create               new.name                   text  empty=invalid long=invalid wide=invalid
workspaces::create               new.autostart_schedule     text
workspaces::create               new.ttl                    span  max=invalid
workspaces::create               now                        time
";

/// A bad value. Of a kind with one Rust type only the values of that type are used.
#[derive(Debug, Clone)]
pub(super) enum Bad {
    Text(String),
    Time(OffsetDateTime),
    Span(Duration),
    Tags(Tags),
    Json(Value),
    Number(i64),
    Bytes(Vec<u8>),
}

impl Bad {
    pub(super) fn text(&self) -> String {
        let Self::Text(text) = self else { panic!("not a text: {self:?}") };
        text.clone()
    }

    pub(super) fn time(&self) -> OffsetDateTime {
        let Self::Time(time) = self else { panic!("not a time: {self:?}") };
        *time
    }

    pub(super) fn span(&self) -> Duration {
        let Self::Span(span) = self else { panic!("not a span: {self:?}") };
        *span
    }

    pub(super) fn tags(&self) -> Tags {
        let Self::Tags(tags) = self else { panic!("not tags: {self:?}") };
        tags.clone()
    }

    pub(super) fn json(&self) -> Value {
        let Self::Json(value) = self else { panic!("not JSON: {self:?}") };
        value.clone()
    }

    pub(super) fn options(&self) -> Map<String, Value> {
        Map::from_iter([("option".to_owned(), self.json())])
    }

    pub(super) fn number<T: TryFrom<i64>>(&self) -> T {
        let Self::Number(number) = self else { panic!("not a number: {self:?}") };
        T::try_from(*number).unwrap_or_else(|_| panic!("{number} is not of the kind"))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self::Bytes(bytes) = self else { panic!("not bytes: {self:?}") };
        bytes.clone()
    }
}

/// So many characters that no compression makes fewer.
pub(super) fn noise(length: usize) -> String {
    let mut rng = Rng::with_seed(7);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

/// Values by name, and what usually comes of them: `ok`, or the code of the error.
pub(super) fn bad(kind: &str) -> Vec<(&'static str, &'static str, Bad)> {
    let tags = |pairs: &[(&str, &str)]| Bad::Tags(pairs.iter().copied().collect());
    let long = noise(5_000);
    match kind {
        "text" => vec![
            ("empty", "ok", Bad::Text(String::new())),
            ("long", "ok", Bad::Text(long)),
            ("wide", "ok", Bad::Text("\u{1f600}".repeat(5_000))),
            ("nul", "invalid", Bad::Text("a\0b".to_owned())),
        ],
        "time" => vec![
            ("first", "invalid", Bad::Time(datetime!(-9999-01-01 0:00 UTC))),
            ("bc", "invalid", Bad::Time(datetime!(0000-01-01 0:00 UTC))),
            ("last", "ok", Bad::Time(datetime!(9999-12-31 23:59:59.999_999_999 UTC))),
            // Two moments of a day that the calendar here does not have in UTC.
            ("beyond", "invalid", Bad::Time(datetime!(9999-12-31 23:59:59).assume_offset(hours(-23)))),
            ("before", "invalid", Bad::Time(datetime!(-9999-01-01 0:00).assume_offset(hours(23)))),
        ],
        "span" => vec![("none", "ok", Bad::Span(Duration::ZERO)), ("max", "ok", Bad::Span(Duration::MAX))],
        "tags" => vec![
            ("nul-key", "invalid", tags(&[("a\0", "b")])),
            ("nul-value", "invalid", tags(&[("a", "\0")])),
            ("long", "ok", tags(&[("owner", &long)])),
            ("many", "ok", Bad::Tags((0..10_000).map(|n| (n.to_string(), "value")).collect())),
            ("empty", "ok", tags(&[("", "")])),
        ],
        "json" => vec![
            ("nul-key", "invalid", Bad::Json(json!({"a\0": 1}))),
            ("nul-value", "invalid", Bad::Json(json!([{"a": "\0"}]))),
            ("long", "ok", Bad::Json(json!(long))),
            ("null", "ok", Bad::Json(Value::Null)),
            ("deep", "invalid", Bad::Json((0..1_000).fold(Value::Null, |inner, _| json!([inner])))),
            ("huge", "ok", Bad::Json(json!([f64::MAX, u64::MAX, i64::MIN]))),
        ],
        "i32" => {
            vec![
                ("min", "ok", Bad::Number(i32::MIN.into())),
                ("minus", "ok", Bad::Number(-1)),
                ("max", "ok", Bad::Number(i32::MAX.into())),
            ]
        }
        "u32" => vec![("zero", "ok", Bad::Number(0)), ("max", "ok", Bad::Number(u32::MAX.into()))],
        "nonzero" => vec![("max", "ok", Bad::Number(u32::MAX.into()))],
        "i64" => {
            vec![
                ("min", "ok", Bad::Number(i64::MIN)),
                ("minus", "ok", Bad::Number(-1)),
                ("max", "ok", Bad::Number(i64::MAX)),
            ]
        }
        "bytes" => vec![("empty", "ok", Bad::Bytes(vec![])), ("big", "ok", Bad::Bytes(vec![0; 3_000_000]))],
        other => panic!("{other} is no kind"),
    }
}

pub(super) fn hours(hours: i8) -> UtcOffset {
    UtcOffset::from_hms(hours, 0, 0).expect("an offset")
}

pub(super) struct Entry {
    pub(super) operation: &'static str,
    pub(super) argument: &'static str,
    pub(super) kind: &'static str,
    pub(super) exceptions: BTreeMap<&'static str, &'static str>,
}

pub(super) fn entries() -> Vec<Entry> {
    let entry = |line: &'static str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("operation, argument, kind");
        let (operation, argument, kind) = (word(), word(), word());
        Entry {
            operation,
            argument,
            kind,
            exceptions: words.map(|word| word.split_once('=').expect("name=outcome")).collect(),
        }
    };
    ENTRIES.lines().filter(|line| !line.is_empty()).map(entry).collect()
}
