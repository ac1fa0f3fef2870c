//! Tables of what was measured, and which goals it meets.

use coderdb::demo::{Regime, Scale};
use comfy_table::{Table, presets};

use super::{
    Reads,
    reads::{Times, median},
    writes::Pair,
};

pub struct Report {
    pub reads: Vec<Reads>,
    /// At the greatest size, in both regimes.
    pub writes: Vec<(Scale, Vec<Pair>)>,
}

/// What was wanted of a number, and what it is.
pub struct Goal {
    pub what: String,
    pub wanted: String,
    pub measured: f64,
    pub is_met: bool,
}

/// What is compared with plain SQL, and what grows with the data.
const LISTS: &str = "list";
const LIMIT_OF_A_STORM: f64 = 1.2;

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MAX, f64::min)
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Three digits or more, whatever the size.
pub fn shown(value: f64) -> String {
    let decimals = match value {
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ if value >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

fn with_spread(values: &[f64]) -> String {
    format!("{} ({}–{})", shown(median(values)), shown(least(values)), shown(greatest(values)))
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

impl Report {
    fn of(&self, jobs: u64, regime: Regime, name: &str) -> Option<&Times> {
        let reads = self.reads.iter().find(|reads| reads.scale == Scale { jobs, regime })?;
        reads.times.iter().find(|(of, _)| *of == name).map(|(_, times)| times)
    }

    fn sizes(&self) -> Option<(u64, u64)> {
        Some((self.reads.first()?.scale.jobs, self.reads.last()?.scale.jobs))
    }

    /// Of the greatest size.
    pub fn largest(&self, regime: Regime, name: &str) -> Option<&Times> {
        self.of(self.sizes()?.1, regime, name)
    }

    fn names(&self) -> Vec<&'static str> {
        self.reads.first().map_or_else(Vec::new, |reads| reads.times.iter().map(|(name, _)| *name).collect())
    }

    pub fn pair(&self, regime: Regime, name: &str) -> Option<&Pair> {
        let (_, pairs) = self.writes.iter().find(|(scale, _)| scale.regime == regime)?;
        pairs.iter().find(|pair| pair.name == name)
    }

    pub fn print(&self) {
        for reads in &self.reads {
            let mut table = table([
                "reads",
                "plain SQL, ms",
                "coderdb, ms",
                "times as fast",
                "÷ 50 newest",
                "÷ primary key",
                "÷ SELECT 1",
            ]);
            for (name, times) in &reads.times {
                let is_compared = !times.plain.is_empty();
                table.add_row([
                    (*name).to_owned(),
                    if is_compared { shown(median(&times.plain)) } else { String::new() },
                    shown(median(&times.layer)),
                    if is_compared { with_spread(&times.ratios()) } else { String::new() },
                    shown(median(&times.floors(&times.newest))),
                    shown(median(&times.floors(&times.primary_key))),
                    shown(median(&times.floors(&times.select_one))),
                ]);
            }
            let floor = |floor: fn(&Times) -> &Vec<f64>| {
                let all: Vec<f64> = reads.times.iter().flat_map(|(_, times)| floor(times).clone()).collect();
                shown(median(&all))
            };
            println!(
                "### {}\n\n{table}\n\nFloors: {} ms for the 50 newest jobs by index, {} ms for one by primary key, {} ms for `SELECT 1`.\n",
                reads.scale,
                floor(|times| &times.newest),
                floor(|times| &times.primary_key),
                floor(|times| &times.select_one)
            );
        }
        if let Some((small, large)) = self.sizes() {
            let mut table = table(["growth, coderdb", "calm", "storm", "storm ÷ calm"]);
            for name in self.names() {
                let ratio = |one: Option<&Times>, other: Option<&Times>| {
                    one.zip(other)
                        .map_or_else(String::new, |(one, other)| shown(median(&one.layer) / median(&other.layer)))
                };
                let growth = |regime| ratio(self.of(large, regime, name), self.of(small, regime, name));
                let storm = ratio(self.of(large, Regime::Storm, name), self.of(large, Regime::Calm, name));
                table.add_row([name.to_owned(), growth(Regime::Calm), growth(Regime::Storm), storm]);
            }
            println!("### From {small} to {large} jobs\n\n{table}\n");
        }
        for (scale, pairs) in &self.writes {
            let mut table = table(["writes", "of", "first", "second", "unit", "times as fast"]);
            for pair in pairs {
                let [(first, firsts), (second, seconds)] = &pair.ways;
                table.add_row([
                    pair.name.clone(),
                    format!("{first}, {second}"),
                    shown(median(firsts)),
                    shown(median(seconds)),
                    pair.unit.to_owned(),
                    with_spread(&pair.speedups()),
                ]);
            }
            println!("### Writes, {scale}\n\n{table}\n");
        }
    }

    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        if self.sizes().is_some() {
            self.read_goals(&mut goals);
        }
        if !self.writes.is_empty() {
            self.write_goals(&mut goals);
        }
        goals
    }

    fn read_goals(&self, goals: &mut Vec<Goal>) {
        let (small, large) = self.sizes().expect("there are reads");
        let names = self.names();
        let lists = || names.iter().copied().filter(|name| name.starts_with(LISTS));
        let both = [Regime::Calm, Regime::Storm];
        let layer = |jobs, regime, name| self.of(jobs, regime, name).map_or(f64::NAN, |times| median(&times.layer));
        let ratio = |jobs, regime, name| self.of(jobs, regime, name).map_or(f64::NAN, |times| median(&times.ratios()));

        for regime in both {
            let name = if regime == Regime::Calm { "calm" } else { "storm" };
            goals.push(at_least(format!("list, {name}, ÷ plain SQL"), 4_000.0, ratio(large, regime, "list")));
        }
        let floors = worst(lists().flat_map(|name| {
            both.map(|regime| {
                let times = self.of(large, regime, name);
                (name, times.map_or(f64::NAN, |times| median(&times.floors(&times.newest))))
            })
        }));
        goals.push(at_most(format!("list, worst filter ({}), ÷ 50 newest", floors.0), 8.0, floors.1));
        let slower = worst(self.reads.iter().flat_map(|reads| {
            let compared = reads.times.iter().filter(|(_, times)| !times.plain.is_empty());
            compared.map(|(name, times)| (*name, 1.0 / median(&times.ratios())))
        }));
        goals.push(at_most(format!("any read at any size, worst ({}), × plain SQL", slower.0), 1.0, slower.1));
        let storm =
            worst(lists().map(|name| (name, layer(large, Regime::Storm, name) / layer(large, Regime::Calm, name))));
        goals.push(at_most(format!("list, storm ÷ calm, worst filter ({})", storm.0), LIMIT_OF_A_STORM, storm.1));
        for (name, wanted) in [("by ids, 1 pending", 4_000.0), ("by ids, 50 pending", 500.0)] {
            goals.push(at_least(format!("{name}, storm, ÷ plain SQL"), wanted, ratio(large, Regime::Storm, name)));
        }
        let quotas = || names.iter().copied().filter(|name| name.starts_with("quota"));
        let floors = worst(quotas().flat_map(|name| {
            both.map(|regime| {
                let times = self.of(large, regime, name);
                (name, times.map_or(f64::NAN, |times| median(&times.floors(&times.primary_key))))
            })
        }));
        goals.push(at_most(format!("quota, worst ({}), ÷ primary key", floors.0), 2.0, floors.1));
        let pages =
            worst(
                names.iter().copied().filter(|name| name.starts_with("page")).flat_map(|name| {
                    both.map(|regime| (name, layer(large, regime, name) / layer(large, regime, "list")))
                }),
            );
        goals.push(at_most(format!("any page ÷ page one, worst ({})", pages.0), 1.2, pages.1));
        if small < large {
            let growth =
                worst(names.iter().copied().flat_map(|name| {
                    both.map(|regime| (name, layer(large, regime, name) / layer(small, regime, name)))
                }));
            goals.push(at_most(format!("growth of any read, worst ({})", growth.0), 1.3, growth.1));
        }
    }

    fn write_goals(&self, goals: &mut Vec<Goal>) {
        let speedup = |name: &str| self.pair(Regime::Storm, name).map_or(f64::NAN, |pair| median(&pair.speedups()));
        let second = |regime, name: &str| self.pair(regime, name).map_or(f64::NAN, |pair| median(&pair.ways[1].1));
        let one = "acquire, 1 client";
        goals.push(at_least(format!("{one}, storm, ÷ plain SQL"), 80.0, speedup(one)));
        goals.push(at_least("acquire ÷ pgbench, rate".into(), 0.9, speedup("acquire, identical statement")));
        let flat = second(Regime::Calm, one) / second(Regime::Storm, one);
        goals.push(at_most("acquire, calm ÷ storm, rate".into(), LIMIT_OF_A_STORM, flat));
        let last = second(Regime::Storm, "acquire, tags of the last job only") * second(Regime::Storm, one) / 1e3;
        goals.push(at_most("acquire, last job only ÷ any job, time".into(), LIMIT_OF_A_STORM, last));
        goals.push(at_least(
            "acquire, while nothing can be cleaned up ÷ otherwise, rate".into(),
            0.9,
            speedup("acquire, while nothing can be cleaned up"),
        ));
        for life in ["insert and complete a job", "insert and complete a job, commits not awaited"] {
            goals.push(at_most(format!("{life} ÷ plain schema, time"), 1.3, 1.0 / speedup(life)));
        }
        for lines in ["log append, 200 lines", "log append, 200 lines, single inserts in one transaction"] {
            goals.push(at_least(format!("{lines} ÷ single inserts"), 8.0, speedup(lines)));
        }
        let commits = "quota commits of one owner, 64 clients";
        goals.push(at_least(format!("{commits}, ÷ SERIALIZABLE with retries"), 4.0, speedup(commits)));
        for call in ["quota::usage", "organizations::get"] {
            let pair = format!("{call} over the pool, identical statement");
            goals.push(at_most(format!("{call} over the pool ÷ pgbench, time"), 1.25, 1.0 / speedup(&pair)));
        }
    }
}

fn worst<'a>(values: impl Iterator<Item = (&'a str, f64)>) -> (&'a str, f64) {
    values.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("none", f64::NAN))
}

fn at_least(what: String, wanted: f64, measured: f64) -> Goal {
    Goal { what, wanted: format!("≥ {}", goal(wanted)), measured, is_met: measured >= wanted }
}

fn at_most(what: String, wanted: f64, measured: f64) -> Goal {
    Goal { what, wanted: format!("≤ {}", goal(wanted)), measured, is_met: measured <= wanted }
}

fn goal(wanted: f64) -> String {
    if wanted >= 100.0 { shown(wanted) } else { wanted.to_string() }
}

pub fn print_goals(goals: &[Goal]) {
    let mut table = table(["goal", "wanted", "measured", "met"]);
    for goal in goals {
        let met = if goal.is_met { "yes" } else { "**no**" };
        table.add_row([goal.what.clone(), goal.wanted.clone(), shown(goal.measured), met.to_owned()]);
    }
    println!("### Goals\n\n{table}");
}
