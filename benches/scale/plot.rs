//! The most telling lines as a picture: bars on a logarithmic scale, readable on a light and on a dark page.

use coderdb::demo::Regime;
use svg::{
    Document,
    node::element::{Group, Line, Rectangle, Style, Text},
};

use super::{
    reads::median,
    report::{Report, shown},
};

const READS: [(&str, &str); 7] = [
    ("list", "list, no filter"),
    ("list, failed", "list, failed jobs"),
    ("list, tags", "list, by tags"),
    ("list, template", "list, of one template"),
    ("by ids, 1 pending", "one job's place in the queue"),
    ("by ids, 50 pending", "50 jobs' places in the queue"),
    ("quota, heavy owner", "quota of a heavy owner"),
];

const WIDTH: f64 = 800.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 78.0;
const ROW: f64 = 42.0;
/// The scale goes from 10 microseconds to so many powers of ten above it.
const LEAST: f64 = 0.01;
const DECADES: i32 = 6;

const STYLE: &str = "
text { font: 13px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.small { font-size: 11px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.plain { fill: #9198a1 }
.layer { fill: #0969da }
.floor { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.card { fill: #0d1117; stroke: #3d444d }
.grid { stroke: #3d444d }
.plain { fill: #656c76 }
.layer { fill: #4493f8 }
.floor { stroke: #f0f6fc }
}";

/// One line: what, plain SQL, the layer, and the floor, in milliseconds.
type Bar = (&'static str, [f64; 3]);

fn x(milliseconds: f64) -> f64 {
    let share = (milliseconds / LEAST).log10().max(0.02) / f64::from(DECADES);
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn text(class: &str, x: f64, y: f64, content: impl Into<String>) -> Text {
    Text::new(content).set("class", class).set("x", x).set("y", y)
}

/// Of a storm at the greatest size, when everything was measured.
pub fn plot(report: &Report) -> Option<String> {
    let mut bars: Vec<Bar> = Vec::new();
    for (name, label) in READS {
        let times = report.largest(Regime::Storm, name)?;
        let floor = if name.starts_with("list") { &times.newest } else { &times.primary_key };
        bars.push((label, [median(&times.plain), median(&times.layer), median(floor)]));
    }
    let one = report.pair(Regime::Storm, "acquire, 1 client")?;
    let pgbench = report.pair(Regime::Storm, "acquire, identical statement")?;
    let [plain, layer] = [0, 1].map(|way| 1e3 / median(&one.ways[way].1));
    bars.push(("claim a job", [plain, layer, median(&pgbench.ways[0].1)]));

    let scale = report.reads.last()?.scale;
    let counts = [scale.jobs, scale.pending()].map(|count| u32::try_from(count).map_or(f64::NAN, f64::from));
    let bottom = (0..bars.len()).fold(TOP, |y, _| y + ROW);
    let title = format!("{} jobs, {} of them waiting: milliseconds per call", shown(counts[0]), shown(counts[1]));
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, bottom + 36.0))
        .set("role", "img")
        .set("aria-label", title.clone())
        .add(Style::new(STYLE))
        .add(rectangle("card", 0.5, 0.5, WIDTH - 1.0, bottom + 35.0).set("rx", 6))
        .add(text("title", 16.0, 28.0, title));
    let mut legend = Group::new();
    for (class, x, label) in [("plain", 16.0, "plain SQL"), ("layer", 104.0, "coderdb")] {
        legend = legend.add(rectangle(class, x, 42.0, 12.0, 12.0)).add(text("", x + 18.0, 53.0, label));
    }
    legend = legend
        .add(Line::new().set("class", "floor").set("x1", 196.0).set("x2", 196.0).set("y1", 41.0).set("y2", 55.0))
        .add(text(
            "",
            206.0,
            53.0,
            "floor: 50 newest rows, one row by primary key, or pgbench with the same statement",
        ));
    document = document.add(legend);
    for decade in 0..=DECADES {
        let at = LEAST * 10_f64.powi(decade);
        let label = if at < 1.0 { at.to_string() } else { shown(at).replace(".00", "").replace(".0", "") };
        document = document
            .add(
                Line::new()
                    .set("class", "grid")
                    .set("x1", x(at))
                    .set("x2", x(at))
                    .set("y1", TOP - 8.0)
                    .set("y2", bottom),
            )
            .add(text("small", x(at), bottom + 18.0, label).set("text-anchor", "middle"));
    }
    let mut y = TOP;
    for (label, [plain, layer, floor]) in bars {
        document = document
            .add(text("", LEFT - 12.0, y + 20.0, label).set("text-anchor", "end"))
            .add(rectangle("plain", LEFT, y, x(plain) - LEFT, 14.0))
            .add(text("", x(plain) + 6.0, y + 12.0, shown(plain)))
            .add(rectangle("layer", LEFT, y + 15.0, x(layer) - LEFT, 14.0))
            .add(text("", x(layer).max(x(floor)) + 8.0, y + 27.0, shown(layer)))
            .add(
                Line::new()
                    .set("class", "floor")
                    .set("x1", x(floor))
                    .set("x2", x(floor))
                    .set("y1", y + 13.0)
                    .set("y2", y + 31.0),
            );
        y += ROW;
    }
    Some(format!("{document}\n"))
}

fn rectangle(class: &str, x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new().set("class", class).set("x", x).set("y", y).set("width", width).set("height", height)
}
