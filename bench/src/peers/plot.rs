//! The plots, as SVG files.

use std::path::Path;

use clap::ValueEnum;
use plotters::coord::Shift;
use plotters::element::ErrorBar;
use plotters::prelude::*;

use super::Failure;
use super::axis::{Axis, Mark};
use super::contestant::Contestant;
use super::score::{Score, Summary};
use super::work::Work;
use crate::tally::Tally;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Width and height of a plot.
const SIZE: (u32, u32) = (1_000, 540);
/// Room for the legend, at the right of the chart.
const LEGEND_WIDTH: u32 = 220;
/// Lines of more points show the spread as a band, not as a bar at each.
const MARKED_POINTS: usize = 12;
/// Width of the bars from the lowest round to the highest, in pixels.
const BAR_WIDTH: u32 = 7;
/// How far lines of few points stand beside each other, as a share of the chart's width.
const ASIDE: f64 = 0.006;
/// Lower values are drawn here: a logarithm needs one.
const LOWEST: f64 = 0.01;
const FONT: &str = "sans-serif";
/// Quantiles that have a mark on the axis of the latency.
const QUANTILES: [(f64, &str); 6] = [
    (0.0, "fastest"),
    (0.5, "50%"),
    (0.9, "90%"),
    (0.99, "99%"),
    (0.999, "99.9%"),
    (0.9999, "99.99%"),
];

/// A line of a plot.
struct Line {
    contestant: Contestant,
    points: Vec<Point>,
}

/// What the rounds gave at one place.
struct Point {
    x: f64,
    rounds: Summary,
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
    for work in Work::value_variants().iter().filter(|work| score.connections(**work).len() > 1) {
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
    let connections = score.connections(work);
    let point = |contestant, number: usize| {
        Some(Point {
            x: number as f64,
            rounds: score.summary(work, number, contestant, |run| run.rate.max(1.0))?,
        })
    };
    let line = |contestant| Line {
        contestant,
        points: connections.iter().filter_map(|number| point(contestant, *number)).collect(),
    };
    let counted = match work {
        Work::Soldout => "answers a second",
        Work::Lines5 => "orders of 5 lines a second",
        _ => "reservations a second",
    };
    let title = format!("{}: {counted}, by number of connections", work.name());
    let marks =
        connections.iter().map(|number| Mark::new(*number as f64, number.to_string())).collect();
    let frame = Frame { title: &title, x: "connections", y: counted, marks, logarithmic: true };
    draw(file, score.contestants(work).into_iter().map(line).collect(), &frame)
}

fn latency(score: &Score, file: &Path) -> Result<(), Failure> {
    let Some(open_loop) = &score.open_loop else { return Ok(()) };
    let lines = open_loop.tallies.iter().map(|(contestant, rounds)| {
        // As many points as the number of answers in a round bears.
        let fewest = rounds.iter().map(Tally::total).min().unwrap_or(0);
        let last = (fewest as f64).max(10.0).log10().min(4.0);
        let xs = (0..=100).map(|step| 10_f64.powf(last * f64::from(step) / 100.0));
        let point =
            |x| Some(Point { x, rounds: open_loop.latency_ms(*contestant, 1.0 - 1.0 / x)? });
        Line { contestant: *contestant, points: xs.filter_map(point).collect() }
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
    let point = |(sales, rates): &(u64, Vec<f64>)| {
        Some(Point { x: *sales as f64, rounds: Summary::of(rates)? })
    };
    let points: Vec<_> = score.old_snapshot.iter().filter_map(point).collect();
    let marks = score
        .old_snapshot
        .iter()
        .map(|(sales, _)| Mark::new(*sales as f64, sales.to_string()))
        .collect();
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
    let last = |line: &Line| line.points.last().map_or(0.0, |point| point.rounds.median);
    lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (chart, legend) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    draw_legend(&legend, &lines)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::marked(frame.marks.clone(), points().map(|point| point.x), frame.logarithmic);
    let ends = points().flat_map(|point| [point.rounds.lowest, point.rounds.highest]);
    let y = Axis::of(
        ends.map(|y| if frame.logarithmic { y.max(LOWEST) } else { y }),
        frame.logarithmic,
    );
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
    let place = |x_of: f64, y_of: f64| (x.place(x_of), y.place(y_of.max(LOWEST)));
    for (number, line) in lines.iter().enumerate() {
        let style = style(line.contestant);
        let few = line.points.len() <= MARKED_POINTS;
        // Side by side, so that one does not hide another.
        let aside = if few {
            x.width() * ASIDE * (number as f64 - (lines.len() - 1) as f64 / 2.0)
        } else {
            0.0
        };
        let at =
            |point: &Point, value: f64| (place(point.x, value).0 + aside, place(point.x, value).1);
        let middles = line.points.iter().map(|point| at(point, point.rounds.median));
        if few {
            chart.draw_series(line.points.iter().map(|point| {
                let [lowest, middle, highest] =
                    [point.rounds.lowest, point.rounds.median, point.rounds.highest]
                        .map(|value| at(point, value));
                ErrorBar::new_vertical(
                    middle.0,
                    lowest.1,
                    middle.1,
                    highest.1,
                    style.color.filled(),
                    BAR_WIDTH,
                )
            }))?;
        } else {
            let lowest = line.points.iter().map(|point| at(point, point.rounds.lowest));
            let highest = line.points.iter().rev().map(|point| at(point, point.rounds.highest));
            let band = lowest.chain(highest).collect::<Vec<_>>();
            chart.draw_series([Polygon::new(band, style.color.mix(0.2).filled())])?;
        }
        chart.draw_series(LineSeries::new(middles, style))?;
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

/// One look in all plots: the forms of pg_stock thick, in blue and violet, Redis red, the others
/// thinner.
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
