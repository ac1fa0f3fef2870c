//! The most telling lines as a picture: bars on a logarithmic scale, readable on a light and on a dark page.

use coderdb::demo::Scale;
use svg::{
    Document,
    node::element::{Group, Line, Rectangle, Style, Text},
};

use super::report::{Report, SIDES, label, shown, waiting};

const READS: [(&str, &str); 8] = [
    ("list", "list, no filter"),
    ("list, failed", "list, failed jobs"),
    ("list, tags", "list, by tags"),
    ("list, workspace", "list, of one workspace"),
    ("by ids, 1 pending", "one job's position in the queue"),
    ("by ids, 50 pending", "50 jobs' positions in the queue"),
    ("quota, ordinary owner", "quota of an ordinary owner"),
    ("quota, heavy owner", "quota of a heavy owner"),
];
const CLASSES: [&str; 3] = ["plain", "indexed", "layer"];

const WIDTH: f64 = 800.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 78.0;
const ROW: f64 = 56.0;
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
.indexed { fill: #59636e }
.layer { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.card { fill: #0d1117; stroke: #3d444d }
.grid { stroke: #3d444d }
.plain { fill: #656c76 }
.indexed { fill: #9198a1 }
.layer { fill: #4493f8 }
}";

/// One line: what, and the milliseconds of each side.
type Bar = (&'static str, [f64; 3]);

fn x(milliseconds: f64) -> f64 {
    let share = (milliseconds / LEAST).log10().max(0.02) / f64::from(DECADES);
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn text(class: &str, x: f64, y: f64, content: impl Into<String>) -> Text {
    Text::new(content).set("class", class).set("x", x).set("y", y)
}

/// When everything was measured.
pub fn plot(report: &Report, scale: Scale) -> Option<String> {
    let mut bars: Vec<Bar> = Vec::new();
    for (name, label) in READS {
        let row = report.read(name)?;
        bars.push((label, SIDES.map(|side| row.median(side))));
    }
    let claims = report.row(&waiting(scale.pending()))?;
    bars.push(("claim a job", SIDES.map(|side| 1e3 / claims.median(side))));

    let bottom = (0..bars.len()).fold(TOP, |y, _| y + ROW);
    let title = format!("{}: milliseconds per call", label(scale));
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, bottom + 36.0))
        .set("role", "img")
        .set("aria-label", title.clone())
        .add(Style::new(STYLE))
        .add(rectangle("card", 0.5, 0.5, WIDTH - 1.0, bottom + 35.0).set("rx", 6))
        .add(text("title", 16.0, 28.0, title));
    let mut legend = Group::new();
    for ((class, label), x) in CLASSES.iter().zip(SIDES).zip([16.0, 104.0, 264.0]) {
        legend = legend.add(rectangle(class, x, 42.0, 12.0, 12.0)).add(text("", x + 18.0, 53.0, label));
    }
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
    for (label, sides) in bars {
        document = document.add(text("", LEFT - 12.0, y + 27.0, label).set("text-anchor", "end"));
        for (n, (class, value)) in (0_u8..).zip(CLASSES.iter().zip(sides)) {
            let y = y + f64::from(n) * 15.0;
            document = document.add(rectangle(class, LEFT, y, x(value) - LEFT, 14.0)).add(text(
                "",
                x(value) + 6.0,
                y + 12.0,
                shown(value),
            ));
        }
        y += ROW;
    }
    Some(format!("{document}\n"))
}

fn rectangle(class: &str, x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new().set("class", class).set("x", x).set("y", y).set("width", width).set("height", height)
}
