//! The grammar of searches: what is written reads as the same, and what is wrong is named.

use coderdb::{
    model::{Cursor, JobErrorCode, JobFilter, JobId, JobStatus, JobType, NameOrId, PageRequest, Transition, UserRef},
    search::{Age, Comparison, Condition, Created, Point, Problem, Query, ResolveError, Term, When},
    sqlx,
    store::{self, Error},
};
use fastrand::Rng;
use time::{
    Duration, OffsetDateTime,
    macros::{date, datetime},
};
use uuid::Uuid;

use crate::support::{
    self,
    rows::NOW,
    states::{Seed, all_seeds, seeds},
};

fn parsed(text: &str) -> Query {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn problem(text: &str) -> (usize, Problem) {
    let error = text.parse::<Query>().unwrap_err();
    (error.position, error.problem)
}

// Reading and writing -------------------------------------------------------------------------------------------------

/// What queries are made of, right and wrong.
const PIECES: [&str; 54] = [
    "status",
    "initiator",
    "organization",
    "template",
    "workspace",
    "transition",
    "type",
    "tag",
    "id",
    "created",
    "error_code",
    ":",
    ":",
    ":",
    ":",
    "-",
    ",",
    "\"",
    "\"",
    "\\",
    " ",
    " ",
    "\t",
    "=",
    "..",
    ">",
    ">=",
    "<",
    "<=",
    "pending",
    "running",
    "Failed",
    "start",
    "workspace_build",
    "INSUFFICIENT_QUOTA",
    "me",
    "alice",
    "a b",
    "1h",
    "90m",
    "2d3h",
    "1w",
    "0s",
    "9999999999999999999d",
    "2026-05-07",
    "2026-05-07T09:00:00Z",
    "2026-05-07T09:00:00.5+02:00",
    "c0de0000-0009-4000-8000-000000000001",
    "env=aws",
    "日本",
    "\u{1f468}\u{200d}\u{1f469}",
    "\0",
    "\u{85}",
    "x/y",
];

#[test]
fn what_is_read_is_written_and_read_again_as_the_same() {
    let mut readable = 0;
    for seed in seeds(100_000) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let mut text = String::new();
        for n in 0..rng.usize(0..12) {
            // Mostly a key, a colon, a value and a space, so that enough of it can be read.
            let expected = [0..11, 11..15, 29..54, 20..23][n % 4].clone();
            let pieces = if rng.u8(..8) == 0 { 0..PIECES.len() } else { expected };
            text += PIECES[rng.usize(pieces)];
        }
        let Ok(query) = text.parse::<Query>() else { continue };
        readable += usize::from(!query.terms().is_empty());
        let written = query.to_string();
        assert_eq!(written.parse().as_ref(), Ok(&query), "{text:?} is written as {written:?}");
        assert_eq!(parsed(&written).to_string(), written);
    }
    assert!(readable > 1_000 || !all_seeds(), "only {readable} texts could be read");
}

#[test]
fn whatever_can_be_asked_can_be_written_and_read() {
    for seed in seeds(50_000) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let mut query = Query::default();
        for _ in 0..rng.usize(0..8) {
            let condition = condition(&mut rng);
            let negatable = !matches!(condition, Condition::Created(_) | Condition::Organization(_));
            // A repeated one is refused, and changes nothing.
            let _ = query.push(Term { negated: negatable && rng.bool(), condition });
        }
        let written = query.to_string();
        assert_eq!(written.parse(), Ok(query), "{written:?}");
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    for seed in seeds(50_000) {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let text: String =
            (0..rng.usize(..24)).map(|_| if rng.bool() { rng.char(..) } else { rng.char(' '..'~') }).collect();
        if let Err(error) = text.parse::<Query>() {
            assert!((1..=text.chars().count() + 1).contains(&error.position), "{text:?}: {error}");
        }
    }
}

fn condition(rng: &mut Rng) -> Condition {
    let name = |rng: &mut Rng| -> String {
        let letters = ['a', 'b', '"', '\\', ',', ' ', ':', '-', '=', '/', '日', '\n'];
        (0..rng.usize(1..6)).map(|_| letters[rng.usize(..letters.len())]).collect()
    };
    let id = |rng: &mut Rng| Uuid::from_u128(rng.u128(..));
    match rng.u8(..11) {
        0 => Condition::Status(some(rng, JobStatus::ALL)),
        1 => Condition::Initiator(match rng.u8(..3) {
            0 => UserRef::Me,
            1 => UserRef::Id(id(rng).into()),
            _ => UserRef::Username(name(rng)),
        }),
        2 => Condition::Organization(if rng.bool() { NameOrId::Id(id(rng).into()) } else { NameOrId::Name(name(rng)) }),
        3 => Condition::Template(if rng.bool() { NameOrId::Id(id(rng).into()) } else { NameOrId::Name(name(rng)) }),
        4 => Condition::Workspace(if rng.bool() { NameOrId::Id(id(rng).into()) } else { NameOrId::Name(name(rng)) }),
        5 => Condition::Transition(some(rng, Transition::ALL)[0]),
        6 => Condition::Type(some(rng, JobType::ALL)),
        7 if rng.u8(..4) == 0 => Condition::Untagged,
        7 => Condition::Tag(name(rng), if rng.bool() { name(rng) } else { String::new() }),
        8 => Condition::Id((0..rng.usize(1..4)).map(|_| JobId(id(rng))).collect()),
        9 => Condition::Created(created(rng)),
        _ => {
            Condition::ErrorCode(some(rng, &[JobErrorCode::InsufficientQuota, JobErrorCode::MissingTemplateParameter]))
        }
    }
}

fn some<T: Clone>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    let amount = rng.usize(1..=all.len());
    rng.choose_multiple(all.iter().cloned(), amount)
}

fn age(rng: &mut Rng) -> Age {
    Age::seconds([rng.u64(..=36_500 * 86_400), rng.u64(..100_000), 0, 86_400][rng.usize(..4)]).unwrap()
}

fn when(rng: &mut Rng) -> When {
    let moment = datetime!(1970-01-01 0:00 UTC) + Duration::microseconds(rng.i64(0..250_000_000_000_000_000));
    if rng.bool() { When::Moment(moment) } else { When::Day(moment.date()) }
}

fn created(rng: &mut Rng) -> Created {
    use Comparison as C;
    let comparison = [C::Greater, C::GreaterOrEqual, C::Less, C::LessOrEqual][rng.usize(..4)];
    let (least, most) = (age(rng), age(rng));
    match rng.u8(..5) {
        0 => Created::At(when(rng)),
        1 => Created::Compared(comparison, Point::Age(least)),
        2 => Created::Compared(comparison, Point::When(when(rng))),
        3 => Created::BetweenAges(least.min(most), least.max(most)),
        _ => {
            let from = when(rng);
            let later = match from {
                When::Moment(moment) => When::Moment(moment + Duration::microseconds(rng.i64(0..1_000_000))),
                When::Day(day) => When::Day(day + Duration::days(rng.i64(0..9))),
            };
            Created::Between(from, later)
        }
    }
}

#[test]
fn a_query_is_written_in_one_way() {
    for (text, written) in [
        ("", ""),
        ("  status:pending\t initiator:prebuilds ", "status:pending initiator:prebuilds"),
        ("STATUS:Pending,RUNNING", "status:pending,running"),
        ("-status:failed -type:workspace_build", "-status:failed -type:workspace_build"),
        ("error_code:insufficient_quota", "error_code:INSUFFICIENT_QUOTA"),
        ("template:\"docker\"", "template:docker"),
        ("workspace:\"a b\"", "workspace:\"a b\""),
        ("tag:env=\"on prem\"", "tag:\"env=on prem\""),
        ("tag:note=\"a \\\"b\\\" \\\\\"", "tag:\"note=a \\\"b\\\" \\\\\""),
        ("tag:\"list=a,b\"", "tag:\"list=a,b\""),
        ("tag:owner=", "tag:owner="),
        ("tag:path=C:\\x", "tag:path=C:\\x"),
        ("initiator:me", "initiator:me"),
        ("created:>90m", "created:>1h30m"),
        ("created:<=1w", "created:<=7d"),
        ("created:>00h0s", "created:>0s"),
        ("created:1h..2h", "created:1h..2h"),
        ("created:>2026-05-07T11:00:00+02:00", "created:>2026-05-07T09:00:00Z"),
        ("created:2026-05-01..2026-05-07", "created:2026-05-01..2026-05-07"),
        ("tag:a=1 tag:b=2 -tag:a=2 created:>1h created:<1d", "tag:a=1 tag:b=2 -tag:a=2 created:>1h created:<1d"),
    ] {
        assert_eq!(parsed(text).to_string(), written, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_was_probably_meant() {
    for (text, said) in [
        ("stauts:pending", "character 1: \"stauts\" is no key; did you mean status?"),
        ("-inititator:x", "character 2: \"inititator\" is no key; did you mean initiator?"),
        (
            "colour:red",
            "character 1: \"colour\" is no key; expected one of status, initiator, organization, template, workspace, \
             transition, type, tag, id, created, error_code",
        ),
        ("status:pending,runing", "character 16: \"runing\" is no value of status; did you mean running?"),
        ("日:x status:lost", "character 1: \"日\" is no key; expected one of status"),
        ("template:日 status:canceld", "character 19: \"canceld\" is no value of status; did you mean canceled?"),
        ("transition:pause", "character 12: \"pause\" is no value of transition; expected one of start, stop, delete"),
        ("pending", "character 1: \"pending\" has no key; did you mean status:pending?"),
        ("-stop", "character 1: \"stop\" has no key; did you mean -transition:stop?"),
        ("alice", "character 1: \"alice\" has no key; expected key:value"),
        ("status: pending", "character 8: status has no value; write status:VALUE, without spaces"),
        ("status:pending,", "character 16: status has no value"),
        ("template:\"\"", "character 10: template has no value"),
        (
            "initiator:alice,bob",
            "character 17: initiator takes one value; search once for each, and quote a comma that belongs to a name",
        ),
        (
            "transition:delete,stop",
            "character 19: transition takes one value; for two of the three, exclude the third, as in type:workspace_build \
             -transition:start",
        ),
        (
            "created:>1h,<1d",
            "character 13: created takes one value; give a term for each end, as in created:>1h created:<1d",
        ),
        (
            "tag:a=b,c=d",
            "character 9: tag takes one value; give a term for each tag, and quote a comma that belongs to one",
        ),
        ("status:pending status:running", "character 16: status is asked for twice; name alternatives behind one key"),
        ("type:workspace_build type:workspace_build", "character 22: type is asked for twice; name alternatives"),
        ("tag:a=1 tag:a=2", "character 9: tag is asked for twice; search once for each"),
        ("initiator:a -initiator:c initiator:b", "character 26: initiator is asked for twice; search once for each"),
        ("template:\"a b", "character 10: the quotation mark has no second one"),
        ("template:\"a\\", "character 10: the quotation mark has no second one"),
        ("tag:env", "character 5: \"env\" is no value of tag; expected KEY=VALUE"),
        ("id:1", "character 4: \"1\" is no value of id; expected the id of a job"),
        ("-created:>1h", "character 1: created cannot be negated; turn the comparison around"),
        ("-organization:x", "character 1: organization cannot be negated"),
        ("created:2h..1h", "character 9: the range \"2h..1h\" is empty; write the smaller end first"),
        ("created:2026-05-07..2026-05-06", "character 9: the range"),
    ] {
        let error = text.parse::<Query>().unwrap_err().to_string();
        assert!(error.starts_with(said), "{text}: {error}");
    }
    for value in [
        "1h",
        ">",
        ">1",
        ">h",
        ">1y",
        ">-1h",
        ">36501d",
        "2026-5-7",
        ">1h..2h",
        "1h..2026-05-07",
        "9999-01-01",
        ">2026-05-07T09:00:00",
        "2026-02-30",
        ">2026-05-07T09:00:00.1234567Z",
        "yesterday",
        ">99999999999999999999d",
    ] {
        let (position, problem) = problem(&format!("created:{value}"));
        assert!(matches!(problem, Problem::Unreadable { key: "created", .. }), "{value}: {problem}");
        assert_eq!(position, 9, "{value}");
    }
}

// What a query means ---------------------------------------------------------------------------------------------------

#[test]
fn ages_and_times_select_what_they_say_to_the_microsecond() {
    let now = datetime!(2026-05-07 09:00:00.000001234 UTC);
    let passes = |text: &str, at: OffsetDateTime| {
        let Condition::Created(created) = parsed(text).terms()[0].condition.clone() else { panic!("{text}") };
        let (after, before) = created.bounds(now);
        after.is_none_or(|after| at > after) && before.is_none_or(|before| at < before)
    };
    let tick = Duration::MICROSECOND;
    let hour = datetime!(2026-05-07 08:00:00.000001 UTC);
    let two = hour - Duration::HOUR;
    let day = date!(2026 - 05 - 06).midnight().assume_utc();
    let next = day + Duration::DAY;
    let noon = datetime!(2026-05-06 12:00 UTC);
    // Whether a microsecond before, at, and after the edge pass.
    for (text, edge, expected) in [
        ("created:>1h", hour, [true, false, false]),
        ("created:>=1h", hour, [true, true, false]),
        ("created:<1h", hour, [false, false, true]),
        ("created:<=1h", hour, [false, true, true]),
        ("created:1h..2h", hour, [true, true, false]),
        ("created:1h..2h", two, [false, true, true]),
        ("created:>2026-05-06", next, [false, true, true]),
        ("created:>=2026-05-06", day, [false, true, true]),
        ("created:<2026-05-06", day, [true, false, false]),
        ("created:<=2026-05-06", next, [true, false, false]),
        ("created:2026-05-06", day, [false, true, true]),
        ("created:2026-05-06", next, [true, false, false]),
        ("created:2026-05-05..2026-05-06", next, [true, false, false]),
        ("created:>2026-05-06T12:00:00Z", noon, [false, false, true]),
        ("created:>=2026-05-06T12:00:00Z", noon, [false, true, true]),
        ("created:<2026-05-06T12:00:00Z", noon, [true, false, false]),
        ("created:<=2026-05-06T12:00:00Z", noon, [true, true, false]),
        ("created:2026-05-06T12:00:00Z", noon, [false, true, false]),
        ("created:2026-05-06..2026-05-06T12:00:00Z", noon, [true, true, false]),
    ] {
        assert_eq!([edge - tick, edge, edge + tick].map(|at| passes(text, at)), expected, "{text}");
    }
}

#[test]
fn ages_count_back_from_each_look_and_the_narrowest_bounds_hold() {
    let query = parsed("created:>1h created:<1d created:<2d status:pending created:>2026-05-01");
    for now in [NOW, NOW + Duration::MINUTE] {
        assert_eq!(query.created(now), (Some(now - Duration::DAY), Some(now - Duration::HOUR)));
    }
    assert_eq!(parsed("status:pending").created(NOW), (None, None));
}

#[tokio::test]
async fn names_become_ids_and_every_term_a_condition() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    assert_eq!(support::run(database.coderdb().arg("demo")).code, 0);
    let id = |sql: &'static str| sqlx::query_scalar::<_, Uuid>(sql);
    let alice = id("SELECT id FROM users WHERE username = 'alice'").fetch_one(&mut conn).await.unwrap();
    let kubernetes = id("SELECT id FROM templates WHERE name = 'kubernetes'").fetch_one(&mut conn).await.unwrap();
    let api = "SELECT w.id, u.username FROM workspaces w JOIN users u ON u.id = w.owner_id WHERE w.name = 'api'";
    let (api, owner): (Uuid, String) = sqlx::query_as(api).fetch_one(&mut conn).await.unwrap();
    let job = Uuid::from_u128(7);
    let text = format!(
        "organization:coder status:failed,canceled initiator:me template:Kubernetes workspace:{owner}/api transition:start \
         type:workspace_build tag:env=aws tag:gpu=true id:{job} created:>1h created:<1d created:<2d \
         error_code:INSUFFICIENT_QUOTA -status:pending -initiator:prebuilds -template:kubernetes -workspace:{api} \
         -transition:stop -type:template_version_import -tag:env=x -tag:env=y -id:{job} \
         -error_code:MISSING_TEMPLATE_PARAMETER"
    );
    let me = "alice".parse().unwrap();
    let resolved = parsed(&text).resolve(&mut conn, &support::operator(), Some(&me), NOW).await;
    let (organization, filter) = resolved.unwrap();
    assert_eq!(organization.name, "coder");
    let exclude = filter.exclude.clone();
    let expected = JobFilter {
        status: vec![JobStatus::Failed, JobStatus::Canceled],
        ids: vec![job.into()],
        tags: None,
        has_tags: [("env", "aws"), ("gpu", "true")].map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        untagged: false,
        initiator: Some(alice.into()),
        transition: Some(Transition::Start),
        template: Some(kubernetes.into()),
        workspace: Some(api.into()),
        types: vec![JobType::WorkspaceBuild],
        error_codes: vec![JobErrorCode::InsufficientQuota],
        created_after: Some(NOW - Duration::DAY),
        created_before: Some(NOW - Duration::HOUR),
        exclude: filter.exclude.clone(),
    };
    assert_eq!(filter, expected);
    assert_eq!(exclude.status, [JobStatus::Pending]);
    assert_eq!(exclude.initiators, [coderdb::model::UserId::PREBUILDS]);
    assert_eq!(exclude.templates, [kubernetes.into()]);
    assert_eq!(exclude.workspaces, [api.into()]);
    assert_eq!(exclude.transitions, [Transition::Stop]);
    assert_eq!(exclude.types, [JobType::TemplateVersionImport]);
    assert_eq!(exclude.tags, [("env".to_owned(), "x".to_owned()), ("env".to_owned(), "y".to_owned())]);
    assert_eq!(exclude.ids, [JobId(job)]);
    assert_eq!(exclude.error_codes, [JobErrorCode::MissingTemplateParameter]);
}

#[tokio::test]
async fn a_name_that_means_nothing_is_said_to_be_so() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    assert_eq!(support::run(database.coderdb().arg("demo")).code, 0);
    for (text, entity, key) in [
        ("initiator:nobody", "initiator", "nobody"),
        ("-initiator:me", "initiator", "me"),
        ("template:nothing", "template", "nothing"),
        ("workspace:alice/nothing", "workspace", "alice/nothing"),
        ("organization:nowhere", "organization", "nowhere"),
    ] {
        let outcome = parsed(text).resolve(&mut conn, &support::operator(), None, NOW).await;
        let Err(ResolveError::Store(Error::NotFound { entity: found, key: named })) = outcome else {
            panic!("{text}: {outcome:?}");
        };
        assert_eq!((found.as_str(), named.as_str()), (entity, key), "{text}");
    }
}

#[tokio::test]
async fn a_query_and_its_negation_share_the_jobs_between_them() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    assert_eq!(support::run(database.coderdb().arg("demo")).code, 0);
    let mut ids = async |text: &str| {
        let (organization, filter) =
            parsed(text).resolve(&mut conn, &support::operator(), None, NOW).await.expect("what the demo has");
        let permit = support::read_jobs(organization.id);
        let mut found = Vec::new();
        let mut page = PageRequest::first(7);
        loop {
            let listed = store::jobs::list(&mut conn, &permit, &filter, page).await.unwrap();
            found.extend(listed.rows.iter().map(|row| row.job.id));
            let Some(next): Option<Cursor> = listed.next else { break };
            page = PageRequest::after(next, 7);
        }
        found.sort();
        found
    };
    let all = ids("").await;
    for term in [
        "status:pending,failed",
        "initiator:prebuilds",
        "template:kubernetes",
        "workspace:api",
        "transition:start",
        "type:template_version_import,template_version_dry_run",
        "tag:env=aws",
        "error_code:INSUFFICIENT_QUOTA",
        "id:c0de0000-0009-4000-8000-000000000001",
    ] {
        let (with, without) = (ids(term).await, ids(&format!("-{term}")).await);
        assert!(!with.is_empty() && !without.is_empty(), "{term}: {} and {}", with.len(), without.len());
        let mut both = [with, without].concat();
        both.sort();
        assert_eq!(both, all, "{term}");
    }
}

/// A conjunction is the intersection of its terms, for every pair of terms of the grammar; so adding one never adds a row.
#[tokio::test]
async fn search_for_several_terms_finds_what_each_of_them_finds() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let _ = coderdb::demo::load(&mut conn, &coderdb::demo::DemoOptions::default(), |_| {}).await.expect("the demo");
    let terms = [
        "status:pending,failed",
        "status:pending",
        "initiator:prebuilds",
        "initiator:dave",
        "organization:coder",
        "template:docker",
        "template:kubernetes",
        "workspace:dave/api",
        "transition:start",
        "transition:stop",
        "type:workspace_build",
        "type:template_version_import,template_version_dry_run",
        "tag:owner=",
        "tag:scope=organization",
        "tag:env=on-prem",
        "tag:none",
        "id:c0de0000-0009-4000-8000-000000000001,c0de0000-0009-4000-8000-000000000031",
        "created:<2026-05-01",
        "created:>2026-04-10T00:00:00Z",
        "error_code:INSUFFICIENT_QUOTA",
    ];
    let terms: Vec<String> = terms
        .iter()
        .flat_map(|term| [(*term).to_owned(), format!("-{term}")])
        .filter(|term| {
            // These have no negation.
            !term.starts_with("-organization") && !term.starts_with("-created")
        })
        .collect();
    let mut found = async |text: &str| -> std::collections::BTreeSet<JobId> {
        let query = parsed(text);
        let now = datetime!(2026-05-07 09:00 UTC);
        let (organization, filter) = query
            .resolve(&mut conn, &support::operator(), None, now)
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let permit = support::read_jobs(organization.id);
        let page = store::jobs::ids(&mut conn, &permit, &filter, PageRequest::default()).await.expect("the ids");
        page.rows.into_iter().collect()
    };
    let mut alone = Vec::new();
    for term in &terms {
        alone.push(found(term).await);
    }
    let mut pairs = 0;
    for (a, one) in terms.iter().zip(&alone) {
        for (b, other) in terms.iter().zip(&alone) {
            let both = format!("{a} {b}");
            // Some keys may stand once.
            if both.parse::<Query>().is_err() {
                continue;
            }
            pairs += 1;
            assert_eq!(found(&both).await, one & other, "{both}");
        }
    }
    assert!(pairs > 1_000, "{pairs}");
    let three = found("tag:owner= tag:scope=organization status:pending").await;
    assert_eq!(three, &found("tag:owner= tag:scope=organization").await & &found("status:pending").await);
}

#[tokio::test]
async fn daemons_are_found_by_each_of_several_tags() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let _ = coderdb::demo::load(&mut conn, &coderdb::demo::DemoOptions::default(), |_| {}).await.expect("the demo");
    let organization =
        store::organizations::default(&mut conn, &support::read_organizations()).await.expect("an organization").id;
    let permit = coderdb::authz::ReadDaemons::check(&support::operator(), organization).expect("an operator");
    let mut found = async |tags: &[(&str, &str)]| {
        let has_tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let filter = coderdb::model::DaemonFilter { has_tags, ..coderdb::model::DaemonFilter::default() };
        let daemons = store::daemons::list(&mut conn, &permit, &filter, NOW, store::jobs::STALE_INTERVAL).await;
        daemons.expect("the daemons").len()
    };
    let all = found(&[]).await;
    assert!(all > 3);
    assert_eq!(found(&[("owner", "")]).await, all);
    assert_eq!(found(&[("owner", ""), ("scope", "organization")]).await, all, "not only the untagged ones");
    assert_eq!(found(&[("owner", ""), ("nothing", "")]).await, 0);
}
