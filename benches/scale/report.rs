//! What was measured, as tables that docs/performance.md takes as they are, and which goals it meets.

use std::env;

use coderdb::demo::{Regime, Scale};
use serde_json::{Value, json};

use super::server::quantile;

/// Who is compared, as far as both schemas can do it.
pub const SIDES: [&str; 3] = ["plain SQL", "plain SQL, best index", "coderdb"];
pub const PLAIN: &str = SIDES[0];
pub const LAYER: &str = SIDES[2];

/// One thing that several sides did in turn.
pub struct Row {
    pub name: String,
    pub note: String,
    /// How many things one call is about, where that matters.
    pub things: f64,
    /// What the values are: less is better, unless they are so many per second.
    pub unit: &'static str,
    /// The values of each side, one per round.
    pub sides: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    pub fn new(name: impl Into<String>, unit: &'static str, sides: &[&'static str]) -> Self {
        let sides = sides.iter().map(|side| (*side, Vec::new())).collect();
        Self { name: name.into(), note: String::new(), things: 1.0, unit, sides }
    }

    /// Of one round, in the order of the sides.
    pub fn push(&mut self, values: impl IntoIterator<Item = f64>) {
        self.sides.iter_mut().zip(values).for_each(|((_, all), value)| all.push(value));
    }

    fn values(&self, side: &str) -> &[f64] {
        self.sides.iter().find(|(name, _)| *name == side).map_or(&[], |(_, values)| values)
    }

    pub fn median(&self, side: &str) -> f64 {
        quantile(self.values(side), 500)
    }

    /// Per round.
    pub fn quotient(&self, side: &str, of: &str) -> Vec<f64> {
        self.values(side).iter().zip(self.values(of)).map(|(side, of)| side / of).collect()
    }

    /// How many times as fast as another side one side is, per round.
    pub fn times_as_fast(&self, side: &str, other: &str) -> Vec<f64> {
        if self.unit.ends_with("/s") { self.quotient(side, other) } else { self.quotient(other, side) }
    }

    pub fn json(&self) -> Value {
        let sides: Value = self.sides.iter().map(|(side, values)| ((*side).to_owned(), json!(values))).collect();
        json!({ "name": self.name, "note": self.note, "unit": self.unit, "sides": sides })
    }
}

/// Which ratios a table has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ratios {
    /// How many times as fast as each other side the last one is.
    TimesAsFast,
    /// How many times what the first side has each later one has.
    TimesTheFirst,
}

/// The answer to one question.
pub struct Table {
    pub title: String,
    pub ratios: Ratios,
    pub rows: Vec<Row>,
    pub below: String,
}

impl Table {
    pub fn new(title: impl Into<String>, ratios: Ratios, rows: Vec<Row>) -> Self {
        Self { title: title.into(), ratios, rows, below: String::new() }
    }

    pub fn print(&self) {
        let refs: Vec<_> = self.rows.iter().collect();
        print(&self.title, "", self.ratios, &refs, &self.below);
    }

    pub fn json(&self) -> Value {
        json!({ "title": self.title, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>() })
    }
}

fn print(title: &str, notes: &str, ratios: Ratios, rows: &[&Row], below: &str) {
    let Some(widest) = rows.iter().max_by_key(|row| row.sides.len()) else { return };
    let sides: Vec<_> = widest.sides.iter().map(|(side, _)| *side).collect();
    let is_one_unit = rows.iter().all(|row| row.unit == widest.unit);
    let (compared, with): (Vec<_>, _) = match ratios {
        Ratios::TimesAsFast => (
            sides[..sides.len() - 1].iter().filter(|side| **side != super::reads::FLOOR).collect(),
            sides[sides.len() - 1],
        ),
        Ratios::TimesTheFirst => (sides[1..].iter().collect(), sides[0]),
    };
    let mut header = vec![String::new()];
    header.extend((!notes.is_empty()).then(|| notes.to_owned()));
    header.extend(
        sides.iter().map(|side| if is_one_unit { format!("{side}, {}", widest.unit) } else { (*side).to_owned() }),
    );
    header.extend(compared.iter().map(|side| match ratios {
        Ratios::TimesAsFast => format!("times as fast as {side}"),
        Ratios::TimesTheFirst => format!("{side} ÷ {with}"),
    }));
    let mut lines = vec![header];
    for row in rows {
        let mut cells = vec![if is_one_unit { row.name.clone() } else { format!("{}, {}", row.name, row.unit) }];
        cells.extend((!notes.is_empty()).then(|| row.note.clone()));
        cells.extend(sides.iter().map(|side| shown(row.median(side))));
        cells.extend(compared.iter().map(|side| {
            with_spread(&match ratios {
                Ratios::TimesAsFast => row.times_as_fast(with, side),
                Ratios::TimesTheFirst => row.quotient(side, with),
            })
        }));
        lines.push(cells);
    }
    print_lines(title, &lines, below);
}

/// The first line is the header.
fn print_lines(title: &str, lines: &[Vec<String>], below: &str) {
    let arguments: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!("## {title}\n\n`cargo bench --bench scale -- {}`\n", arguments.join(" "));
    for (n, cells) in lines.iter().enumerate() {
        println!("| {} |", cells.join(" | "));
        if n == 0 {
            println!("|{}", " --- |".repeat(cells.len()));
        }
    }
    println!("{}", if below.is_empty() { String::new() } else { format!("\n{below}\n") });
}

/// Three digits or more, whatever the size; nothing of what was not measured.
pub fn shown(value: f64) -> String {
    let decimals = match value {
        _ if value.is_nan() => return String::new(),
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ if value >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    text.split_once('.').map_or_else(|| grouped(&text), |(whole, rest)| format!("{}.{rest}", grouped(whole)))
}

fn grouped(whole: &str) -> String {
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub fn waiting(jobs: u64) -> String {
    format!("{} waiting", grouped(&jobs.to_string()))
}

pub fn label(scale: Scale) -> String {
    format!("{} jobs, {}", grouped(&scale.jobs.to_string()), waiting(scale.pending()))
}

fn with_spread(values: &[f64]) -> String {
    if values.is_empty() {
        return String::new();
    }
    format!("{} ({}–{})", shown(quantile(values, 500)), shown(quantile(values, 0)), shown(quantile(values, 1_000)))
}

/// What was wanted of a number, and what it is.
pub struct Goal {
    what: String,
    wanted: String,
    measured: f64,
    is_met: bool,
}

impl Goal {
    fn at_least(what: impl Into<String>, wanted: f64, unit: &str, measured: f64) -> Self {
        Self { what: what.into(), wanted: format!("≥ {wanted}{unit}"), measured, is_met: measured >= wanted }
    }

    fn at_most(what: impl Into<String>, wanted: f64, unit: &str, measured: f64) -> Self {
        Self { what: what.into(), wanted: format!("≤ {wanted}{unit}"), measured, is_met: measured <= wanted }
    }

    pub fn json(&self) -> Value {
        json!({ "what": self.what, "wanted": self.wanted, "measured": self.measured, "met": self.is_met })
    }
}

pub struct Report {
    pub reads: Vec<(Scale, Vec<Row>)>,
    /// Everything else, at the greatest size.
    pub tables: Vec<Table>,
}

impl Report {
    /// Of the greatest size in a storm.
    pub fn read(&self, name: &str) -> Option<&Row> {
        let (_, rows) = self.reads.last().filter(|(scale, _)| scale.regime == Regime::Storm)?;
        rows.iter().find(|row| row.name == name)
    }

    pub fn row(&self, name: &str) -> Option<&Row> {
        self.tables.iter().flat_map(|table| &table.rows).find(|row| row.name == name)
    }

    pub fn print_reads(&self) {
        if let Some((scale, rows)) = self.reads.last() {
            let of = |group: fn(&str) -> bool| rows.iter().filter(|row| group(&row.name)).collect::<Vec<_>>();
            let indexes: Vec<_> =
                super::reads::INDEXES.iter().enumerate().map(|(n, index)| format!("{}. `{index}`", n + 1)).collect();
            let below = format!("The best indexes:\n\n{}", indexes.join("\n"));
            let print_reads = |title, notes, rows: Vec<&Row>, below| {
                print(&format!("{title}, {}", label(*scale)), notes, Ratios::TimesAsFast, &rows, below);
            };
            print_reads("Listings", "access path; best index", of(|name| name.starts_with("list")), &below);
            print_reads(
                "Positions in the queue",
                "best index",
                of(|name| name.starts_with("by ids") || name.starts_with("get")),
                "",
            );
            print_reads("Quota", "best index", of(|name| name.starts_with("quota")), "");
            self.print_sizes();
        }
    }

    pub fn print_goals(&self) {
        let mut lines = vec![["goal", "wanted", "measured", "met"].map(str::to_owned).to_vec()];
        for goal in self.goals() {
            let met = match goal.is_met {
                _ if goal.measured.is_nan() => "not measured",
                true => "yes",
                false => "**no**",
            };
            lines.push(vec![goal.what, goal.wanted, shown(goal.measured), met.to_owned()]);
        }
        print_lines("Goals", &lines, "");
    }

    fn print_sizes(&self) {
        let mut header = vec![format!("{LAYER}, ms; in brackets, times as fast as {PLAIN}")];
        header.extend(self.reads.iter().map(|(scale, _)| label(*scale)));
        let mut lines = vec![header];
        let names = self.reads.last().map_or(&[][..], |(_, rows)| rows).iter().map(|row| &row.name);
        for name in names {
            let mut cells = vec![name.clone()];
            cells.extend(self.reads.iter().map(|(_, rows)| {
                let Some(row) = rows.iter().find(|row| row.name == *name) else { return String::new() };
                let faster = quantile(&row.times_as_fast(LAYER, PLAIN), 500);
                let faster = if faster.is_nan() { String::new() } else { format!(" ({})", shown(faster)) };
                shown(row.median(LAYER)) + &faster
            }));
            lines.push(cells);
        }
        print_lines("Sizes and queues", &lines, "");
    }

    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        self.read_goals(&mut goals);
        self.claim_goals(&mut goals);
        self.other_goals(&mut goals);
        goals
    }

    fn of(&self, name: &str, side: &str) -> f64 {
        self.row(name).map_or(f64::NAN, |row| row.median(side))
    }

    fn read_goals(&self, goals: &mut Vec<Goal>) {
        let read = |name: &str, side: &str| self.read(name).map_or(f64::NAN, |row| row.median(side));
        for (name, vacuumed, rewritten) in
            [("list", 8.0, 45.0), ("by ids, 1 pending", 10.0, 20.0), ("by ids, 50 pending", 20.0, 50.0)]
        {
            goals.push(Goal::at_most(name, vacuumed, " ms", read(name, LAYER)));
            let [_, just_rewritten, many_sets] = super::states::SIDES;
            goals.push(Goal::at_most(
                format!("{name}, {just_rewritten}"),
                rewritten,
                " ms",
                self.of(name, just_rewritten),
            ));
            goals.push(Goal::at_most(format!("{name}, {many_sets}"), vacuumed, " ms", self.of(name, many_sets)));
        }
        let rows = || self.reads.last().into_iter().flat_map(|(_, rows)| rows);
        let lists = rows().filter(|row| row.name.starts_with("list"));
        let lists = lists.map(|row| (row.name.as_str(), row.median(LAYER)));
        let (name, time) = lists.max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(("none", f64::NAN));
        goals.push(Goal::at_most(format!("any listing, worst: {name}"), 100.0, " ms", time));
        let [first, later @ ..] = super::states::PAGES;
        let page = |page| self.row("50 jobs").map_or(f64::NAN, |row| quantile(&row.quotient(page, first), 500));
        goals.push(Goal::at_most("any page ÷ page one", 1.2, "", later.map(page).into_iter().fold(f64::NAN, f64::max)));
        // What each workspace may cost, in milliseconds.
        let each = 0.005;
        let [ordinary, floor] = [LAYER, super::reads::FLOOR].map(|side| read("quota, ordinary owner", side));
        let things = |name| self.read(name).map_or(f64::NAN, |row| row.things);
        let look_ups = (ordinary - each * things("quota, ordinary owner")) / floor;
        goals.push(Goal::at_most(
            "quota, ordinary owner, but 5 µs per workspace, ÷ one row by primary key",
            2.0,
            "",
            look_ups,
        ));
        for name in ["quota, heavy owner", "quota, prebuilds"] {
            let more = things(name) - things("quota, ordinary owner");
            let time = (read(name, LAYER) - ordinary) * 1e3 / more;
            goals.push(Goal::at_most(format!("{name}, per workspace more"), 5.0, " µs", time));
        }
    }

    fn claim_goals(&self, goals: &mut Vec<Goal>) {
        goals.push(Goal::at_least("claims, 1 client", 2_000.0, "/s", self.of("in a row, 1 client", LAYER)));
        goals.push(Goal::at_least("claims, 8 clients", 3_500.0, "/s", self.of("in a row, 8 clients", LAYER)));
        let claims = self.tables.iter().find(|table| table.title.starts_with(super::claims::TITLE));
        let rows = || claims.into_iter().flat_map(|table| &table.rows);
        let waiting = || rows().filter(|row| row.name.ends_with("waiting")).map(|row| row.median(LAYER));
        let (least, most) = (waiting().fold(f64::NAN, f64::min), waiting().fold(f64::NAN, f64::max));
        goals.push(Goal::at_most("claims, fastest ÷ slowest length of the queue, rate", 1.2, "", most / least));
        for row in rows().filter(|row| !row.name.ends_with("waiting")) {
            goals.push(Goal::at_least(format!("claims, {}", row.name), 2_000.0, "/s", row.median(LAYER)));
        }
        let slowest = rows().map(|row| quantile(&row.times_as_fast(LAYER, PLAIN), 500)).fold(f64::NAN, f64::min);
        goals.push(Goal::at_least("claims, least ÷ plain SQL, rate", 1.0, "", slowest));
        goals.push(Goal::at_least("claims of the library ÷ pgbench, rate", 0.9, "", self.faster("a claim")));
    }

    /// How many times as fast as the first side the last one is.
    fn faster(&self, name: &str) -> f64 {
        self.row(name).map_or(f64::NAN, |row| quantile(&row.times_as_fast(LAYER, row.sides[0].0), 500))
    }

    fn other_goals(&self, goals: &mut Vec<Goal>) {
        let life = |name: &str| {
            let [plain, core, _] = super::writes::SCHEMAS;
            self.row(name).map_or(f64::NAN, |row| quantile(&row.quotient(core, plain), 500))
        };
        let core = "indexes of listing, positions, claims and reaper";
        goals.push(Goal::at_most(
            format!("WAL of a life, {core} ÷ plain schema"),
            1.3,
            "",
            life(super::writes::LIFE_WAL),
        ));
        goals.push(Goal::at_most(
            format!("processor time of a life, {core} ÷ plain schema"),
            1.15,
            "",
            life(super::writes::LIFE_PROCESSOR),
        ));
        goals.push(Goal::at_most(
            "snapshot of the queue, on the server",
            40.0,
            " ms",
            self.of("snapshot of the queue, on the server", LAYER),
        ));
        goals.push(Goal::at_most(
            "a position out of a snapshot",
            1.0,
            " µs",
            self.of("a position out of a snapshot", LAYER),
        ));
        goals.push(Goal::at_least(
            "log append, 200 lines ÷ single inserts",
            8.0,
            "",
            self.faster("log append, 200 lines"),
        ));
        goals.push(Goal::at_least(
            "quota commits of one owner ÷ SERIALIZABLE with retries, rate",
            4.0,
            "",
            self.faster(super::writes::COMMITS),
        ));
        for call in ["quota::usage", "organizations::get"] {
            let time = 1.0 / self.faster(&format!("{call} over the pool"));
            goals.push(Goal::at_most(format!("{call} over the pool ÷ pgbench, time"), 1.25, "", time));
        }
    }
}
