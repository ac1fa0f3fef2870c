//! What the layer's calls cost, beside plain SQL that gives the same answers on a schema without this project's indexes
//! and triggers, and beside floors. docs/performance.md has the results.
//!
//!     cargo bench --bench scale                      # 10,000 and 100,000 jobs, less than two minutes
//!     cargo bench --bench scale -- 10k 100k 1m       # all of it, a quarter of an hour
//!     cargo bench --bench scale -- 1m reads          # or `writes`: one half
//!
//! Makes the databases with the demo, one per schema, size and regime, on a server with durable commits in
//! `target/bench-server`, and keeps them; `rm -r` removes them. Then, for each size and regime: the rows of both sides are
//! compared over parameters out of the data, and both take turns with the floors, ten times, none dropped; a turn is one
//! call, or as many as fit into 15 ms. Writes go to copies, at the greatest size. Prints tables of medians with the least
//! and the greatest ratio of a pair, and the goals; writes `target/scale.json` and the plot of it, `target/scale.svg`.

mod plain;
mod plot;
mod reads;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod writes;

use std::{env, fs, time::Instant};

use coderdb::demo::{Regime, Scale};
use serde_json::json;

use reads::{Reader, Times};
use report::Report;
use support::{Schema, Server, load, results};
use writes::{Pair, Writer, pooled};

/// How many turns each side has.
const PAIRS: usize = 10;

/// The reads of one database.
struct Reads {
    scale: Scale,
    times: Vec<(&'static str, Times)>,
}

/// What is asked for on the command line.
struct Arguments {
    jobs: Vec<u64>,
    reads: bool,
    writes: bool,
}

impl Arguments {
    fn read() -> Self {
        let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
        let number = |word: &String| {
            let word = word.to_lowercase().replace('m', "000k").replace('k', "000");
            word.parse().ok()
        };
        let mut jobs: Vec<u64> = words.iter().filter_map(number).collect();
        let unknown: Vec<_> = words
            .iter()
            .filter(|word| number(word).is_none() && !["reads", "writes"].contains(&word.as_str()))
            .collect();
        assert!(unknown.is_empty(), "sizes such as 100k or 1m, `reads`, `writes`; not {unknown:?}");
        jobs.sort_unstable();
        if jobs.is_empty() {
            jobs = vec![10_000, 100_000];
        }
        let only =
            |half: &str, other: &str| words.iter().all(|word| word != other) || words.iter().any(|word| word == half);
        Self { jobs, reads: only("reads", "writes"), writes: only("writes", "reads") }
    }
}

async fn reads(server: &Server, scale: Scale) -> Reads {
    let plain = server.database(Schema::Plain, scale).await;
    let layer = server.database(Schema::Whole, scale).await;
    let mut reader = Reader::new(server, &plain, &layer).await;
    let mut times = Vec::new();
    for work in reader.works().await {
        reader.compare(&work).await;
        times.push((work.name, reader.time(&work).await));
    }
    Reads { scale, times }
}

async fn writes(server: &Server, scale: Scale) -> Vec<Pair> {
    let plain = server.database(Schema::Plain, scale).await;
    let layer = server.database(Schema::Whole, scale).await;
    let writer = Writer::new(server, &plain, &layer).await;
    let mut pairs = vec![writer.acquire(1).await];
    if scale.regime == Regime::Storm {
        pairs.push(writer.acquire(4).await);
        pairs.push(writer.acquire(16).await);
        pairs.extend(writer.acquire_rare().await);
        pairs.push(writer.acquire_and_pgbench().await);
        pairs.push(writer.acquire_pinned().await);
        pairs.extend(writer.lives().await);
        pairs.extend(writer.logs().await);
        pairs.push(writer.quota_commits().await);
        pairs.extend(pooled(server, &layer).await);
    }
    writer.end().await;
    pairs
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let (began, before) = (Instant::now(), load());
    // Nothing begins by itself in the middle of a turn: loading and copying clean up after themselves.
    let server = Server::start(&["autovacuum=off"]).await;
    let mut report = Report { reads: Vec::new(), writes: Vec::new() };
    for jobs in &arguments.jobs {
        for regime in [Regime::Calm, Regime::Storm] {
            let scale = Scale { jobs: *jobs, regime };
            if arguments.reads {
                report.reads.push(reads(&server, scale).await);
            }
            if arguments.writes && Some(jobs) == arguments.jobs.last() {
                report.writes.push((scale, writes(&server, scale).await));
            }
            eprintln!("{scale}: done after {:.0} s, load average {}", began.elapsed().as_secs_f64(), load());
        }
    }
    let machine = server.description().await;
    let goals = report.goals();
    let whole = json!({
        "machine": machine,
        "pairs": PAIRS,
        "load_average": [before, load()],
        "reads": report.reads.iter().map(|reads| json!({
            "jobs": reads.scale.jobs,
            "regime": reads.scale.regime,
            "milliseconds": reads.times.iter().map(|(name, times)| (*name, times.json())).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "writes": report.writes.iter().map(|(scale, pairs)| json!({
            "jobs": scale.jobs,
            "regime": scale.regime,
            "pairs": pairs.iter().map(Pair::json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "goals": goals.iter().map(|goal| json!({
            "what": goal.what, "wanted": goal.wanted, "measured": goal.measured, "met": goal.is_met,
        })).collect::<Vec<_>>(),
    });
    fs::write(results("scale.json"), format!("{whole:#}\n")).expect("the results");
    if let Some(svg) = plot::plot(&report) {
        fs::write(results("scale.svg"), svg).expect("the plot");
    }
    report.print();
    report::print_goals(&goals);
    println!(
        "\nPostgreSQL {}, {} cores, {} GB, {}; {PAIRS} pairs; load average {before} before and {} after; {:.0} s\n\n{}",
        server.version,
        machine["cores"],
        machine["memory_gb"],
        machine["processor"].as_str().unwrap_or_default(),
        load(),
        began.elapsed().as_secs_f64(),
        machine["settings"].as_array().map_or_else(String::new, |settings| {
            settings.iter().filter_map(|setting| setting.as_str()).collect::<Vec<_>>().join(", ")
        }),
    );
}
