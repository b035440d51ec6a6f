//! Charts that share a time axis, as SVG within the page.

use std::fmt::{Display, Write as _};

use super::markup::{Html, classed, element, tag};
use super::states::{Course, bands};

/// A curve in pieces: where nothing was measured it is interrupted. Seconds and values.
pub type Curve = Vec<Vec<(f64, f64)>>;

// Lengths in user units.
/// Width of all charts.
pub const WIDTH: f64 = 960.0;
/// Where the time axis begins.
pub const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const HEIGHT: f64 = 130.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;
/// Distances between two marks of the time axis, in seconds.
const TIMES: [f64; 23] = [
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    30.0,
    MINUTE,
    2.0 * MINUTE,
    5.0 * MINUTE,
    10.0 * MINUTE,
    20.0 * MINUTE,
    30.0 * MINUTE,
    HOUR,
    2.0 * HOUR,
    4.0 * HOUR,
    6.0 * HOUR,
    12.0 * HOUR,
    DAY,
    2.0 * DAY,
    7.0 * DAY,
];

/// Where a chart draws.
pub struct Area {
    /// Its upper end.
    pub top: f64,
    /// Its height.
    pub height: f64,
    /// Seconds that the time axis covers.
    pub length: f64,
}

impl Area {
    /// Where a second is.
    pub fn x(&self, second: f64) -> f64 {
        LEFT + (second / self.length).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// A coloured time.
    pub fn stripe(&self, from: f64, to: f64, class: &str, title: &str) -> Html {
        // What lasted no time can be seen all the same.
        let width = (self.x(to) - self.x(from)).max(1.0);
        let numbers = [self.x(from), self.top, width, self.height].map(number);
        let [x, y, width, height] = &numbers;
        let attributes: [(&str, &dyn Display); 5] =
            [("class", &class), ("x", x), ("y", y), ("width", width), ("height", height)];
        element("rect", &attributes, tag("title", title))
    }

    /// The time axis with its labels.
    pub fn time_axis(&self) -> Html {
        let bottom = self.bottom();
        let mut axis = line((LEFT, bottom), (WIDTH - RIGHT, bottom), "axis");
        let wanted = self.length / 8.0;
        let step = TIMES.into_iter().find(|step| *step >= wanted);
        let step = step.unwrap_or_else(|| (wanted / DAY).ceil() * DAY);
        let mut mark = 0.0;
        while mark <= self.length {
            let x = self.x(mark);
            axis.push(line((x, bottom), (x, bottom + 4.0), "axis"));
            axis.push(text(x, bottom + 17.0, "middle", "small", &mark_in_words(mark, step)));
            mark += step;
        }
        axis
    }
}

/// A mark of the time axis, as exact as the marks are close to each other.
fn mark_in_words(second: f64, step: f64) -> String {
    let round = |value: f64| (value * 10.0).round() / 10.0;
    match step {
        _ if second < 0.05 => "0".to_owned(),
        step if step >= DAY => format!("{} d", round(second / DAY)),
        step if step >= HOUR => format!("{} h", round(second / HOUR)),
        step if step >= MINUTE => format!("{} min", round(second / MINUTE)),
        _ => format!("{} s", round(second)),
    }
}

/// What a chart has of a version.
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// `old` or `new`, then how it is drawn.
    pub class: String,
    /// Its values.
    pub curve: Curve,
}

/// What a chart's values are.
#[derive(Clone, Copy)]
pub enum Scale {
    /// From 0 to at least this.
    Linear(f64),
    /// Microseconds, ten times as much for each line.
    Latency,
}

/// A chart.
pub struct Chart<'a> {
    /// Its heading.
    pub title: &'a str,
    /// What is to be known to read it.
    pub note: &'a str,
    /// Its values.
    pub scale: Scale,
    /// Its curves.
    pub series: Vec<Series>,
}

impl Chart<'_> {
    /// With heading and legend.
    pub fn draw(&self, course: &Course) -> Html {
        let area = Area { top: 8.0, height: HEIGHT, length: course.length };
        let values = self.series.iter().flat_map(|series| series.curve.iter().flatten());
        let values: Vec<f64> = values.map(|(_, value)| *value).collect();
        let marks = self.scale.marks(&values);
        let mut content = bands(course, &area);
        for mark in &marks {
            let y = self.scale.y(*mark, &marks, &area);
            content.push(line((LEFT, y), (WIDTH - RIGHT, y), "grid"));
            content.push(text(LEFT - 6.0, y + 4.0, "end", "small", &self.scale.in_words(*mark)));
        }
        content.push(area.time_axis());
        for series in &self.series {
            for piece in &series.curve {
                let place = |(second, value): &(f64, f64)| {
                    (area.x(*second), self.scale.y(*value, &marks, &area))
                };
                content.push(polyline(series, &piece.iter().map(place).collect::<Vec<_>>()));
            }
        }
        if values.is_empty() {
            let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
            content.push(text(middle, area.top + 70.0, "middle", "small", "nothing was measured"));
        }
        let view = format!("0 0 {WIDTH} {}", area.bottom() + 24.0);
        let attributes: [(&str, &dyn Display); 3] =
            [("viewBox", &view), ("role", &"img"), ("aria-label", &self.title)];
        let caption = [
            Html::from(self.title),
            " ".into(),
            classed("span", "note", self.note),
            classed("div", "legend", self.series.iter().map(legend).collect::<Html>()),
        ];
        tag("figure", [tag("figcaption", caption), element("svg", &attributes, content)])
    }
}

impl Scale {
    /// The lines of the grid, from the lowest to the highest.
    fn marks(self, values: &[f64]) -> Vec<f64> {
        let highest = values.iter().copied().fold(0.0, f64::max);
        match self {
            Self::Linear(least) => {
                let step = round_step(highest.max(least) / 4.0);
                let count = (highest.max(least) / step - 1e-9).ceil().max(1.0);
                (0..=count as u32).map(|index| f64::from(index) * step).collect()
            }
            Self::Latency => {
                let positive = values.iter().copied().filter(|value| *value > 0.0);
                let lowest = positive.fold(f64::INFINITY, f64::min).min(highest.max(1.0)).max(1.0);
                let from = lowest.log10().floor() as i32;
                let to = (highest.max(1.0).log10().ceil() as i32).max(from + 1);
                (from..=to).map(|power| 10_f64.powi(power)).collect()
            }
        }
    }

    fn y(self, value: f64, marks: &[f64], area: &Area) -> f64 {
        let (low, high) =
            (marks.first().copied().unwrap_or(0.0), marks.last().copied().unwrap_or(1.0));
        let part = match self {
            Self::Linear(_) => (value - low) / (high - low),
            Self::Latency => (value.max(low) / low).log10() / (high / low).log10(),
        };
        area.bottom() - part.clamp(0.0, 1.0) * area.height
    }

    fn in_words(self, mark: f64) -> String {
        match self {
            Self::Latency if mark >= 1e6 => format!("{} s", mark / 1e6),
            Self::Latency if mark >= 1e3 => format!("{} ms", mark / 1e3),
            Self::Latency => format!("{mark} µs"),
            Self::Linear(_) if mark >= 1e6 => format!("{} M", (mark / 1e5).round() / 10.0),
            Self::Linear(_) if mark >= 1e4 => format!("{} k", (mark / 1e2).round() / 10.0),
            Self::Linear(_) => format!("{}", (mark * 1e6).round() / 1e6),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `rough`.
fn round_step(rough: f64) -> f64 {
    let magnitude = 10_f64.powf(rough.log10().floor());
    let fits = [1.0, 2.0, 5.0].into_iter().map(|factor| factor * magnitude);
    fits.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * magnitude)
}

fn legend(series: &Series) -> Html {
    let sample = polyline(series, &[(2.0, 5.0), (28.0, 5.0)]);
    let picture = element("svg", &[("viewBox", &"0 0 30 10"), ("aria-hidden", &"true")], sample);
    tag("span", [picture, Html::from(&series.label)])
}

/// Where the curve neither rises nor falls its ends are enough. A single point becomes a dot.
fn polyline(series: &Series, points: &[(f64, f64)]) -> Html {
    let places: Vec<[String; 2]> = points.iter().map(|(x, y)| [number(*x), number(*y)]).collect();
    let mut text = String::new();
    for (index, [x, y]) in places.iter().enumerate() {
        let flat = index > 0
            && places[index - 1][1] == *y
            && places.get(index + 1).is_some_and(|next| next[1] == *y);
        if !flat {
            let _ = write!(text, "{}{x},{y}", if text.is_empty() { "" } else { " " });
        }
    }
    if let [[x, y]] = &places[..] {
        let _ = write!(text, " {x},{y}");
    }
    let class = format!("curve {}", series.class);
    element("polyline", &[("class", &class), ("points", &text)], tag("title", &series.label))
}

/// Text at a place; `anchor` as in SVG.
pub fn text(x: f64, y: f64, anchor: &str, class: &str, content: &str) -> Html {
    let attributes: [(&str, &dyn Display); 4] =
        [("x", &number(x)), ("y", &number(y)), ("text-anchor", &anchor), ("class", &class)];
    element("text", &attributes, content)
}

fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Html {
    let [x1, y1, x2, y2] = &[from.0, from.1, to.0, to.1].map(number);
    let attributes: [(&str, &dyn Display); 5] =
        [("class", &class), ("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)];
    element("line", &attributes, ())
}

fn number(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_reach_the_highest_value() {
        assert_eq!(Scale::Linear(1.0).marks(&[]), [0.0, 0.5, 1.0]);
        assert_eq!(Scale::Linear(100.0).marks(&[40.0]), [0.0, 50.0, 100.0]);
        for highest in [0.3, 1.0, 7.0, 42.0, 199.0, 5000.0, 1e9] {
            let marks = Scale::Linear(0.1).marks(&[highest]);
            assert!(*marks.last().unwrap() >= highest && marks.len() <= 6, "{marks:?}");
        }
        assert_eq!(Scale::Latency.marks(&[300.0, 40_000.0]), [1e2, 1e3, 1e4, 1e5]);
        assert_eq!(Scale::Latency.marks(&[]), [1.0, 10.0]);
        assert_eq!(Scale::Latency.marks(&[1000.0]), [1e3, 1e4]);
    }

    #[test]
    fn time_is_marked_whatever_its_length() {
        for length in [1.0, 9.0, 100.0, 5000.0, 90_000.0, 1e7] {
            let area = Area { top: 0.0, height: 1.0, length };
            let axis = area.time_axis().into_string();
            let marks = axis.matches("<text").count();
            assert!((4..=12).contains(&marks), "{length}: {marks}");
        }
        assert_eq!(mark_in_words(90.0, 30.0), "90 s");
        assert_eq!(mark_in_words(7200.0, 6.0 * HOUR), "2 h");
    }

    #[test]
    fn flat_curves_have_no_more_points_than_they_need() {
        let series = Series { label: String::new(), class: String::new(), curve: Vec::new() };
        let points: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), f64::from(x / 5))).collect();
        let drawn = polyline(&series, &points).into_string();
        assert!(drawn.contains("points=\"0,0 4,0 5,1 8,1\""), "{drawn}");
        let dot = polyline(&series, &[(1.0, 2.0)]).into_string();
        assert!(dot.contains("points=\"1,2 1,2\""), "{dot}");
    }
}
