//! An axis of a plot, with marks at round numbers; a logarithmic one is drawn as a linear one of
//! logarithms.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// How many marks an axis of steps has at least.
const STEPS: f64 = 4.0;
/// Where a decade has marks.
const IN_A_DECADE: [f64; 3] = [1.0, 2.0, 5.0];

/// A mark, and what stands beside it.
#[derive(Clone, PartialEq)]
pub struct Mark {
    at: f64,
    text: String,
}

impl Mark {
    /// A mark at a value.
    pub fn new(at: f64, text: impl Into<String>) -> Mark {
        Mark { at, text: text.into() }
    }

    /// A mark that tells its value.
    fn number(at: f64) -> Mark {
        Mark::new(at, at.to_string())
    }
}

/// An axis.
#[derive(Clone)]
pub struct Axis {
    range: Range<f64>,
    marks: Vec<Mark>,
    logarithmic: bool,
}

impl Axis {
    /// An axis with these marks on which the values have room.
    pub fn marked(marks: Vec<Mark>, values: impl Iterator<Item = f64>, logarithmic: bool) -> Axis {
        let mut axis = Axis { range: 0.0..1.0, marks, logarithmic };
        let (low, high) = bounds(values);
        let (low, high) = (axis.place(low), axis.place(high));
        let margin = ((high - low) * 0.05).max(0.01);
        axis.range = low - margin..high + margin;
        axis.marks
            .retain(|mark| (low - margin..=high + margin).contains(&place(mark.at, logarithmic)));
        axis
    }

    /// An axis with round marks, the first below and the last above the values.
    pub fn of(values: impl Iterator<Item = f64>, logarithmic: bool) -> Axis {
        let (low, high) = bounds(values);
        let marks = if logarithmic { decades(low, high) } else { steps(high) };
        let ends = [marks.first(), marks.last()]
            .map(|mark| mark.map_or(0.0, |mark| place(mark.at, logarithmic)));
        Axis { range: ends[0]..ends[1], marks, logarithmic }
    }

    /// From its one end to the other, as it is drawn.
    pub fn width(&self) -> f64 {
        self.range.end - self.range.start
    }

    /// Where a value is drawn.
    pub fn place(&self, value: f64) -> f64 {
        place(value, self.logarithmic)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|mark| self.place(mark.at)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let near = |mark: &&Mark| (self.place(mark.at) - value).abs() < 1e-9;
        self.marks.iter().find(near).map_or(String::new(), |mark| mark.text.clone())
    }
}

fn place(value: f64, logarithmic: bool) -> f64 {
    if logarithmic { value.log10() } else { value }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// 1, 2 and 5 times the powers of ten, from below the lowest to above the highest.
fn decades(low: f64, high: f64) -> Vec<Mark> {
    let exponents = low.log10().floor() as i32..=high.log10().floor() as i32 + 1;
    let all: Vec<f64> = exponents
        .flat_map(|exponent| IN_A_DECADE.map(|times| times * 10_f64.powi(exponent)))
        .collect();
    let first = all.iter().rposition(|mark| *mark <= low).unwrap_or(0);
    let last = all.iter().position(|mark| *mark >= high && *mark > low).unwrap_or(all.len() - 1);
    all[first..=last].iter().map(|mark| Mark::number((mark * 1e6).round() / 1e6)).collect()
}

/// Equal steps from nothing to above the highest.
fn steps(high: f64) -> Vec<Mark> {
    let rough = high.max(1.0) / STEPS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = IN_A_DECADE
        .map(|times| times * power)
        .into_iter()
        .rfind(|step| *step <= rough)
        .unwrap_or(power);
    (0..=(high / step).ceil() as u32).map(|number| Mark::number(f64::from(number) * step)).collect()
}
