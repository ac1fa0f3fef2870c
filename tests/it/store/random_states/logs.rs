//! Random lines at the caps of logs.

use std::collections::BTreeMap;

use coderdb::{
    authz::{ActAsAgent, Actor, System},
    model::{AgentLogLine, Append, ByWorker, JobId, LogLevel, LogSource, NewJobLog, WorkspaceAgentId},
    store::{
        self,
        job_logs::{LIMIT, OVERFLOW_MESSAGE},
    },
};
use fastrand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::text;
use crate::support::{
    random_database::{self as rows, at, often, one, with},
    rows::{NOW, daemon, id},
    states::{Classes, STATES, Seed, compare},
};

const CAP: usize = LIMIT as usize;

/// So many bytes in several parts.
fn parts(rng: &mut Rng, bytes: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    for _ in 0..rng.usize(..6) {
        let part = rng.usize(..=rest);
        parts.push(part);
        rest -= part;
    }
    if rng.bool() {
        parts.push(rest);
    }
    parts
}

/// How much is left in a log, and how much is to be appended, near what fits besides the warning.
fn room(rng: &mut Rng, warning: usize) -> (usize, usize) {
    let room = match rng.u32(..300) {
        // One line fills the whole log, or would.
        0 => CAP,
        1..=60 => rng.usize(..=warning),
        _ => warning + rng.usize(..3000),
    };
    let more = one(rng, &[0, 0, 1, 1, 2, 50]);
    (room, (room.saturating_sub(warning) + more).saturating_sub(one(rng, &[0, 0, 1, 30])))
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// Job, id, time, source, level, stage and output.
type Line = (Uuid, i64, OffsetDateTime, String, String, String, String);

/// A job with so much in its log, and lines to append to it.
struct Batch {
    job: Uuid,
    worker: Option<u128>,
    logged: usize,
    overflowed: bool,
    lines: Vec<NewJobLog>,
}

impl Batch {
    fn new(rng: &mut Rng) -> Self {
        let (room, bytes) = room(rng, OVERFLOW_MESSAGE.len());
        let lines = parts(rng, bytes).into_iter().map(|bytes| NewJobLog {
            created_at: NOW + time::Duration::microseconds(rng.i64(0..1000)),
            source: one(rng, LogSource::ALL),
            level: one(rng, LogLevel::ALL),
            stage: text(rng, one(&mut Rng::with_seed(bytes as u64), &[0, 10, 300])),
            output: text(rng, bytes),
        });
        let lines = lines.collect();
        let worker = one(rng, &[Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(7), Some(8), None]);
        Self { job: rows::uuid(rng), worker, logged: CAP - room, overflowed: often(rng, 0.05), lines }
    }

    /// What is stored, the counter, the flag, and what is answered.
    fn model(&self) -> Capped {
        let unchanged = |answer| Capped { kept: vec![], logged: self.logged, overflowed: self.overflowed, answer };
        match self.worker {
            None => return unchanged("not running"),
            Some(7) => {}
            Some(_) => return unchanged("not yours"),
        }
        let lines: Vec<_> = self.lines.iter().map(|line| (line.output.as_str(), line.level)).collect();
        capped(self.logged, self.overflowed, &lines, OVERFLOW_MESSAGE)
    }
}

/// What becomes of lines: outputs and levels that are stored, the counter, the flag, and what is answered.
struct Capped {
    kept: Vec<(String, LogLevel)>,
    logged: usize,
    overflowed: bool,
    answer: &'static str,
}

/// The cap, line by line (domain: log cap; last line of agent logs).
fn capped(logged: usize, overflowed: bool, lines: &[(&str, LogLevel)], message: &str) -> Capped {
    // 1. What has overflowed takes nothing more.
    if overflowed {
        return Capped { kept: vec![], logged, overflowed, answer: "dropped" };
    }
    // 2. The lines in order, with what they come to so far.
    let (mut new, mut kept, mut overflowed) = (0, Vec::new(), false);
    for (output, level) in lines {
        if logged + new + message.len() + output.len() > CAP {
            // 3. The first line that does not fit becomes the last one.
            overflowed = true;
            new += message.len();
            kept.push((message.to_owned(), LogLevel::Warn));
            break;
        }
        new += output.len();
        kept.push((cut(output, 1024), *level));
    }
    // 4. Not even that fits: the flag alone is set.
    if logged + new > CAP {
        return Capped { kept: vec![], logged, overflowed: true, answer: "full" };
    }
    Capped { kept, logged: logged + new, overflowed, answer: if overflowed { "overflowed" } else { "stored" } }
}

/// The answer, given the id of the first line that was stored.
fn append(capped: &Capped, first: Option<i64>) -> Append {
    let logs_after = first.map(|first| first - 1);
    match capped.answer {
        "dropped" => Append::Dropped,
        "full" => Append::Full,
        "overflowed" => Append::Overflowed {
            logs_after: logs_after.expect("at least the warning"),
            lines: i64::try_from(capped.kept.len()).expect("a few"),
        },
        _ => Append::Stored { logs_after },
    }
}

/// What has to be among the logs for the cap to matter.
fn note_cap(classes: &Classes, before: usize, given: usize, capped: &Capped, message: &str) {
    let Capped { kept, logged, answer, .. } = capped;
    for (sentence, when) in [
        ("the lines were dropped", *answer == "dropped" && given > 0),
        ("not even the warning fitted", *answer == "full"),
        ("there were no lines", *answer == "stored" && given == 0),
        ("the last line left just room for the warning", *answer == "stored" && logged + message.len() == CAP),
        ("the warning filled the log", *answer == "overflowed" && *logged == CAP),
        ("the first line became the warning", *answer == "overflowed" && kept.len() == 1),
        ("lines after the warning were dropped", *answer == "overflowed" && kept.len() < given),
        ("several lines were stored before the warning", *answer == "overflowed" && kept.len() > 2),
        ("one line filled the whole log", before == 0 && *answer == "stored" && logged + message.len() == CAP),
        ("one byte too much for an empty log", before == 0 && *answer == "overflowed"),
        ("an output was cut off", kept.iter().any(|(output, _)| output.chars().count() == 1024)),
        ("a character had several bytes", kept.iter().any(|(output, _)| output.contains('\u{1f600}'))),
    ] {
        classes.note(sentence, when);
    }
}

#[test]
fn random_lines_at_the_cap_of_a_job_are_stored_as_the_model_says() {
    compare(STATES, 50, async |conn, seeds, classes| {
        let batches: Vec<Batch> = seeds.iter().map(|seed| Batch::new(&mut Rng::with_seed(*seed))).collect();
        let jobs: Vec<Value> = batches
            .iter()
            .map(|batch| {
                with(
                    rows::job(batch.job, id(1), id(1)),
                    json!({
                        "started_at": batch.worker.map(|_| at(NOW)), "worker_id": batch.worker.map(id),
                        "logs_length": batch.logged, "logs_overflowed": batch.overflowed,
                    }),
                )
            })
            .collect();
        rows::insert(conn, "provisioner_jobs", &jobs).await;
        let mut answers = Vec::new();
        for (seed, batch) in seeds.iter().zip(&batches) {
            let _seed = Seed(*seed);
            let answer = store::job_logs::append(conn, &daemon(1, 7), JobId(batch.job), &batch.lines).await;
            answers.push(answer.expect("the job"));
        }
        let counters: Vec<(Uuid, i32, bool)> =
            sqlx::query_as("SELECT id, logs_length, logs_overflowed FROM provisioner_jobs")
                .fetch_all(&mut *conn)
                .await
                .expect("jobs");
        let counters: BTreeMap<Uuid, (i32, bool)> =
            counters.into_iter().map(|(id, length, flag)| (id, (length, flag))).collect();
        let lines: Vec<Line> = sqlx::query_as(
            "SELECT job_id, id, created_at, source::text, level::text, stage, output FROM provisioner_job_logs ORDER BY id",
        )
        .fetch_all(&mut *conn)
        .await
        .expect("lines");
        for ((seed, batch), answer) in seeds.iter().zip(&batches).zip(answers) {
            let _seed = Seed(*seed);
            let capped = batch.model();
            let mine: Vec<&Line> = lines.iter().filter(|line| line.0 == batch.job).collect();
            let actual: Vec<NewJobLog> = mine
                .iter()
                .map(|(_, _, created_at, source, level, stage, output)| NewJobLog {
                    created_at: *created_at,
                    source: source.parse().expect("a source"),
                    level: level.parse().expect("a level"),
                    stage: stage.clone(),
                    output: output.clone(),
                })
                .collect();
            // It keeps its stage, source and time.
            let expected: Vec<NewJobLog> = batch
                .lines
                .iter()
                .zip(&capped.kept)
                .map(|(line, (output, level))| NewJobLog {
                    stage: cut(&line.stage, 128),
                    output: output.clone(),
                    level: *level,
                    ..line.clone()
                })
                .collect();
            assert!(actual == expected, "{actual:#?}\ninstead of {expected:#?}");
            assert_eq!(counters[&batch.job], (i32::try_from(capped.logged).expect("the cap"), capped.overflowed));
            let expected = match capped.answer {
                "not running" => ByWorker::NotRunningYet,
                "not yours" => ByWorker::OtherOwner,
                _ => ByWorker::Done(append(&capped, mine.first().map(|line| line.1))),
            };
            assert_eq!(answer, expected);
            classes.note("the job was another daemon's", capped.answer == "not yours");
            classes.note("the job was nobody's", capped.answer == "not running");
            note_cap(classes, batch.logged, batch.lines.len(), &capped, OVERFLOW_MESSAGE);
        }
    });
}

#[test]
fn random_lines_at_the_cap_of_an_agent_are_stored_as_the_model_says() {
    compare(STATES, 50, async |conn, seeds, classes| {
        let states: Vec<(Uuid, usize, bool, Vec<AgentLogLine>)> = seeds
            .iter()
            .map(|seed| {
                let rng = &mut Rng::with_seed(*seed);
                let (room, bytes) = room(rng, store::agents::OVERFLOW_MESSAGE.len());
                let lines = parts(rng, bytes)
                    .into_iter()
                    .map(|bytes| AgentLogLine { level: one(rng, LogLevel::ALL), output: text(rng, bytes) })
                    .collect();
                (rows::uuid(rng), CAP - room, often(rng, 0.1), lines)
            })
            .collect();
        sqlx::query(
            "INSERT INTO workspace_agents (
                id, created_at, updated_at, name, resource_id, auth_token, architecture, operating_system, logs_length,
                logs_overflowed
             )
             SELECT a.id, at_second(0), at_second(0), a.id::text, u(1), a.id, '', '', a.logged, a.overflowed
             FROM unnest($1::uuid[], $2::integer[], $3::boolean[]) AS a (id, logged, overflowed)",
        )
        .bind(states.iter().map(|state| state.0).collect::<Vec<_>>())
        .bind(states.iter().map(|state| i32::try_from(state.1).expect("the cap")).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.2).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await
        .expect("agents");
        let mut answers = Vec::new();
        for (seed, (agent, _, _, lines)) in seeds.iter().zip(&states) {
            let _seed = Seed(*seed);
            let permit =
                ActAsAgent::check(&Actor::system(System::WorkspaceAgent), WorkspaceAgentId(*agent)).expect("an agent");
            let answer = store::agents::append_logs(conn, &permit, lines, None, NOW).await;
            answers.push(answer.expect("the agent"));
        }
        let counters: Vec<(Uuid, i32, bool)> =
            sqlx::query_as("SELECT id, logs_length, logs_overflowed FROM workspace_agents")
                .fetch_all(&mut *conn)
                .await
                .expect("agents");
        let counters: BTreeMap<Uuid, (i32, bool)> =
            counters.into_iter().map(|(id, length, flag)| (id, (length, flag))).collect();
        let lines: Vec<(Uuid, i64, String, String)> =
            sqlx::query_as("SELECT agent_id, id, level::text, output FROM workspace_agent_logs ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .expect("lines");
        for ((seed, (agent, logged, overflowed, appended)), answer) in seeds.iter().zip(&states).zip(answers) {
            let _seed = Seed(*seed);
            let given: Vec<_> = appended.iter().map(|line| (line.output.as_str(), line.level)).collect();
            let capped = capped(*logged, *overflowed, &given, store::agents::OVERFLOW_MESSAGE);
            let mine: Vec<_> = lines.iter().filter(|line| line.0 == *agent).collect();
            let actual: Vec<_> =
                mine.iter().map(|line| (line.3.clone(), line.2.parse::<LogLevel>().expect("a level"))).collect();
            assert_eq!(actual, capped.kept);
            assert_eq!(counters[agent], (i32::try_from(capped.logged).expect("the cap"), capped.overflowed));
            assert_eq!(answer, append(&capped, mine.first().map(|line| line.1)));
            note_cap(classes, *logged, given.len(), &capped, store::agents::OVERFLOW_MESSAGE);
        }
    });
}
