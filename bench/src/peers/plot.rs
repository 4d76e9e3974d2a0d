//! The plots, as SVG files.

use std::path::Path;

use clap::ValueEnum;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Failure;
use super::axis::{Axis, Mark};
use super::contestant::Contestant;
use super::score::Score;
use super::work::Work;
use crate::tally::Tally;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Width and height of a plot.
const SIZE: (u32, u32) = (1_000, 540);
/// Room for the legend, at the right of the chart.
const LEGEND_WIDTH: u32 = 220;
/// Lines of more points are drawn without a dot at each.
const MARKED_POINTS: usize = 12;
const FONT: &str = "sans-serif";
/// Quantiles that have a mark on the axis of the latency.
const QUANTILES: [(f64, &str); 6] =
    [(0.0, "fastest"), (0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")];

/// A line of a plot.
struct Line {
    contestant: Contestant,
    points: Vec<(f64, f64)>,
}

/// What stands around the lines.
struct Frame<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// Marks on the x axis.
    marks: Vec<Mark>,
    /// Both axes grow by factors; otherwise both by steps, from nothing on.
    logarithmic: bool,
}

/// Writes all plots of what was measured into a folder.
///
/// # Errors
/// If a file cannot be written.
pub fn write(score: &Score, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for work in Work::value_variants().iter().filter(|work| score.several_connections(**work)) {
        throughput(score, *work, &folder.join(format!("{}.svg", work.name())))?;
    }
    if score.open_loop.is_some() {
        latency(score, &folder.join("open-loop.svg"))?;
    }
    if score.old_snapshot.len() > 1 {
        old_snapshot(score, &folder.join("old-snapshot.svg"))?;
    }
    Ok(())
}

fn throughput(score: &Score, work: Work, file: &Path) -> Result<(), Failure> {
    let mut lines: Vec<Line> = Vec::new();
    let mut marks = Vec::new();
    for (connections, contestant, _) in score.of(work) {
        let Some(rate) = score.rate(work, connections, contestant) else { continue };
        let point = (connections as f64, rate.max(1.0));
        match lines.iter_mut().find(|line| line.contestant == contestant) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { contestant, points: vec![point] }),
        }
        let mark = Mark::new(connections as f64, connections.to_string());
        if !marks.contains(&mark) {
            marks.push(mark);
        }
    }
    let counted = match work {
        Work::Soldout => "answers a second",
        Work::Lines5 => "orders of 5 lines a second",
        _ => "reservations a second",
    };
    let title = format!("{}: {counted}, by number of connections", work.name());
    draw(file, lines, &Frame { title: &title, x: "connections", y: counted, marks, logarithmic: true })
}

fn latency(score: &Score, file: &Path) -> Result<(), Failure> {
    let Some(open_loop) = &score.open_loop else { return Ok(()) };
    let lines = open_loop.tallies.iter().map(|(contestant, rounds)| {
        let mut all = Tally::new();
        rounds.iter().for_each(|tally| all.add(tally));
        // As many points as the number of answers bears.
        let last = (all.total() as f64).max(10.0).log10();
        let depths = (0..=100).map(|step| last.min(4.0) * f64::from(step) / 100.0);
        let points = depths.map(|depth| 10_f64.powf(depth)).map(|x| (x, all.latency_ms(1.0 - 1.0 / x).max(0.01)));
        Line { contestant: *contestant, points: points.collect() }
    });
    let marks = QUANTILES.map(|(quantile, name)| Mark::new(1.0 / (1.0 - quantile), name));
    let title = format!("open loop: latency at {:.0} orders a second for one SKU", open_loop.rate);
    let frame = Frame {
        title: &title,
        x: "share of the orders that took no longer",
        y: "ms",
        marks: marks.into(),
        logarithmic: true,
    };
    draw(file, lines.collect(), &frame)
}

fn old_snapshot(score: &Score, file: &Path) -> Result<(), Failure> {
    let points: Vec<_> = score.old_snapshot.iter().map(|(sales, rate)| (*sales as f64, *rate)).collect();
    let marks = points.iter().map(|(sales, _)| Mark::new(*sales, sales.to_string())).collect();
    let frame = Frame {
        title: "one SKU beside an old snapshot",
        x: "sales before",
        y: "reservations a second",
        marks,
        logarithmic: false,
    };
    draw(file, vec![Line { contestant: Contestant::PgStock, points }], &frame)
}

/// Draws the lines, and beside them the legend, from the highest last point to the lowest.
fn draw(file: &Path, mut lines: Vec<Line>, frame: &Frame<'_>) -> Result<(), Failure> {
    let last = |line: &Line| line.points.last().map_or(0.0, |(_, y)| *y);
    lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (chart, legend) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    draw_legend(&legend, &lines)?;
    let xs = lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
    let ys = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y));
    let x = Axis::marked(frame.marks.clone(), xs, frame.logarithmic);
    let y = Axis::of(ys, frame.logarithmic);
    let mut chart = ChartBuilder::on(&chart)
        .caption(frame.title, (FONT, 24))
        .margin(12)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .x_desc(frame.x)
        .y_desc(frame.y)
        .label_style((FONT, 17))
        .axis_desc_style((FONT, 18))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for line in &lines {
        let style = style(line.contestant);
        let points = || line.points.iter().map(|point| (x.place(point.0), y.place(point.1)));
        chart.draw_series(LineSeries::new(points(), style))?;
        if line.points.len() <= MARKED_POINTS {
            chart.draw_series(points().map(|point| Circle::new(point, 4, style.color.filled())))?;
        }
    }
    root.present()?;
    Ok(())
}

fn draw_legend(area: &Area<'_>, lines: &[Line]) -> Result<(), Failure> {
    for (number, line) in lines.iter().enumerate() {
        let y = 60 + 26 * number as i32;
        let style = style(line.contestant);
        area.draw(&PathElement::new([(4, y), (30, y)], style))?;
        area.draw(&Circle::new((17, y), 4, style.color.filled()))?;
        area.draw(&Text::new(line.contestant.name(), (38, y - 8), (FONT, 18)))?;
    }
    Ok(())
}

/// One look in all plots: the forms of pg_stock thick, in blue and violet, Redis red, the others thinner.
fn style(contestant: Contestant) -> ShapeStyle {
    let (colour, width) = match contestant {
        Contestant::Update => (RGBColor(150, 150, 150), 2),
        Contestant::Select => (RGBColor(40, 40, 40), 2),
        Contestant::Transaction => (RGBColor(120, 72, 30), 2),
        Contestant::Function => (RGBColor(230, 120, 0), 2),
        Contestant::FunctionNotify => (RGBColor(200, 170, 0), 2),
        Contestant::RedisAlways => (RGBColor(165, 15, 21), 2),
        Contestant::RedisEverysec => (RGBColor(251, 106, 74), 2),
        Contestant::PgStock => (RGBColor(0, 90, 180), 4),
        Contestant::PgStockRaise => (RGBColor(86, 180, 233), 3),
        Contestant::PgStockOff => (RGBColor(0, 158, 115), 3),
        Contestant::PgStockSql => (RGBColor(0, 190, 190), 2),
        Contestant::OrderStatement => (RGBColor(0, 60, 110), 2),
        Contestant::OrderBlock => (RGBColor(90, 90, 160), 2),
        Contestant::OrderBlockOff => (RGBColor(140, 140, 190), 2),
        Contestant::OrderBlockTransaction => (RGBColor(60, 60, 130), 2),
        Contestant::Batch10 => (RGBColor(190, 170, 220), 3),
        Contestant::Batch100 => (RGBColor(140, 100, 200), 3),
        Contestant::Batch1000 => (RGBColor(70, 0, 130), 3),
    };
    colour.stroke_width(width)
}
