//! What the layer's calls cost, beside plain SQL that gives the same answers on a schema without this project's indexes,
//! and on that schema with the one index that helps it most. docs/performance.md has the results.
//!
//!     cargo bench --bench scale                      # 10,000 and 100,000 jobs, less than four minutes
//!     cargo bench --bench scale -- 10k 100k 1m       # all of it, less than a quarter of an hour
//!     cargo bench --bench scale -- 1m reads          # or `writes`: one half
//!
//! Makes the databases with the demo, one per schema, size and regime, on a server with durable commits in
//! `target/bench-server`, and keeps them; `rm -r` removes them. Then, for each size and regime: the rows of all sides are
//! compared over parameters out of the data, and the sides take turns, ten times (three times those whose call takes more
//! than a second), none dropped; a turn is one call, or as many as fit into 15 ms. Writes, and states of the data that only changes lead to, are measured on copies at the
//! greatest size in a storm. Prints tables of medians, with the least and the greatest ratio of a round, and the goals;
//! writes `target/scale.json` and the plot of it, `target/scale.svg`.

mod claims;
mod plain;
mod plot;
mod reads;
mod report;
mod server;
mod snapshot;
mod states;
mod writes;

use std::{env, fs, time::Instant};

use coderdb::demo::{Regime, Scale};
use serde_json::json;

use report::{Goal, Report, Row, Table};
use server::{Server, load, results};

/// How many turns each side has.
const PAIRS: usize = 10;

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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::read();
    let (began, before) = (Instant::now(), load());
    // Nothing begins by itself in the middle of a turn: loading and copying clean up after themselves.
    let server = Server::start(&["autovacuum=off"]).await;
    let mut report = Report { reads: Vec::new(), tables: Vec::new() };
    let said =
        |what: &str| eprintln!("{what}: done after {:.0} s, load average {}", began.elapsed().as_secs_f64(), load());
    for jobs in arguments.jobs.iter().filter(|_| arguments.reads) {
        for regime in [Regime::Calm, Regime::Storm] {
            let scale = Scale { jobs: *jobs, regime };
            report.reads.push((scale, reads::measure(&server, scale).await));
            said(&scale.to_string());
        }
    }
    let largest = Scale { jobs: arguments.jobs[arguments.jobs.len() - 1], regime: Regime::Storm };
    let mut tables = Vec::new();
    let mut add = |measured: Vec<Table>| {
        measured.iter().for_each(Table::print);
        tables.extend(measured);
    };
    if arguments.reads {
        report.print_reads();
        add(vec![states::pages(&server, largest).await]);
        add(vec![states::measure(&server, largest).await]);
        add(vec![snapshot::measure(&server, largest).await]);
        said("other reads");
    }
    if arguments.writes {
        add(claims::measure(&server, largest).await);
        said("claims");
        add(writes::measure(&server, largest).await);
        said("writes");
    }
    report.tables = tables;
    let machine = server.description().await;
    let whole = json!({
        "machine": machine,
        "pairs": PAIRS,
        "load_average": [before, load()],
        "reads": report.reads.iter().map(|(scale, rows)| json!({
            "jobs": scale.jobs, "regime": scale.regime, "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "tables": report.tables.iter().map(Table::json).collect::<Vec<_>>(),
        "goals": report.goals().iter().map(Goal::json).collect::<Vec<_>>(),
    });
    fs::write(results("scale.json"), format!("{whole:#}\n")).expect("the results");
    if let Some(svg) = plot::plot(&report, largest) {
        fs::write(results("scale.svg"), svg).expect("the plot");
    }
    report.print_goals();
    println!(
        "PostgreSQL {}, {} cores, {} GB, {}; {PAIRS} rounds; load average {before} before and {} after; {:.0} s; {}",
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
