//! A release: new connections per second and open connections of each version over time, with its
//! events as labelled vertical lines.

use super::axis;
use super::svg::{COLOURS, KEY, Svg, width_of};
use crate::load::{BUCKET, Report};

/// What to draw.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Heading.
    pub title: String,
    /// Line below the heading.
    pub subtitle: String,
    /// Time between two values of a series, in seconds.
    pub step: f64,
    /// One curve per version in each panel.
    pub series: Vec<Series>,
    /// Errors per second, drawn in the upper panel where there are any.
    pub errors: Vec<f64>,
    /// Vertical lines: seconds from the start, and a short label.
    pub events: Vec<(f64, String)>,
}

/// The curves of one version.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// New connections per second.
    pub new: Vec<f64>,
    /// Open connections.
    pub active: Vec<f64>,
}

// All lengths in SVG user units (pixels).
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const PANEL_HEIGHT: f64 = 190.0;
const PANELS: [f64; 2] = [150.0, 372.0];
const ERROR_COLOUR: &str = "#c62828";
/// Labels of events that are closer than this go to another row.
const LABEL_ROWS: usize = 3;

impl Plot {
    /// Takes the curves from a load's report. `versions` gives their order.
    #[must_use]
    pub fn of(report: &Report, versions: &[&str], title: &str, subtitle: &str) -> Self {
        let step = BUCKET.as_secs_f64();
        // The last element is incomplete: its rate would be wrong.
        let complete = &report.series[..report.series.len().saturating_sub(1)];
        let series = versions.iter().map(|version| Series {
            name: (*version).to_owned(),
            new: complete.iter().map(|b| count(b.new.get(*version)) / step).collect(),
            active: complete.iter().map(|b| count(b.active.get(*version))).collect(),
        });
        Self {
            title: title.to_owned(),
            subtitle: subtitle.to_owned(),
            step,
            series: series.collect(),
            errors: complete.iter().map(|b| count(Some(&b.errors)) / step).collect(),
            events: Vec::new(),
        }
    }

    /// The SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT);
        svg.heading(LEFT, &self.title, &self.subtitle);
        let mut legend: Vec<(&str, &str)> =
            self.coloured().map(|(series, colour)| (series.name.as_str(), colour)).collect();
        let mut upper = self.curves(|series| &series.new);
        if self.errors.iter().any(|rate| *rate > 0.0) {
            legend.push(("errors", ERROR_COLOUR));
            upper.push((ERROR_COLOUR, &self.errors));
        }
        let mut x = WIDTH - RIGHT;
        for (name, colour) in legend.into_iter().rev() {
            x -= width_of(name) + KEY;
            svg.key((x, 32.0), colour, name);
            x -= 20.0;
        }
        self.panel(&mut svg, PANELS[0], "new connections / s", &upper, false);
        let lower = self.curves(|series| &series.active);
        self.panel(&mut svg, PANELS[1], "open connections", &lower, true);
        self.event_lines(&mut svg);
        svg.finish()
    }

    fn coloured(&self) -> impl Iterator<Item = (&Series, &'static str)> {
        self.series.iter().zip(COLOURS.into_iter().cycle())
    }

    fn curves<'a>(&'a self, values: impl Fn(&'a Series) -> &'a Vec<f64>) -> Vec<Curve<'a>> {
        self.coloured().map(|(series, colour)| (colour, values(series).as_slice())).collect()
    }

    fn panel(&self, svg: &mut Svg, top: f64, label: &str, curves: &[(&str, &[f64])], times: bool) {
        let bottom = top + PANEL_HEIGHT;
        let highest = curves.iter().flat_map(|(_, v)| v.iter()).fold(0.0, |a: f64, b| a.max(*b));
        let ticks = axis::ticks(highest.max(1.0) * 1.05, 5);
        let full = ticks.last().copied().unwrap_or(1.0);
        let y = |value: f64| bottom - value / full * PANEL_HEIGHT;
        svg.text((LEFT, top - 8.0), "start", "font-weight=\"bold\"", label);
        for tick in &ticks {
            svg.line((LEFT, y(*tick)), (WIDTH - RIGHT, y(*tick)), "stroke=\"#e3e3e3\"");
            svg.text((LEFT - 8.0, y(*tick) + 4.0), "end", "", &tick.to_string());
        }
        for tick in axis::ticks(self.length(), 10).into_iter().filter(|t| *t <= self.length()) {
            let x = self.x(tick);
            svg.line((x, bottom), (x, bottom + 5.0), "stroke=\"#222\"");
            if times {
                svg.text((x, bottom + 19.0), "middle", "", &tick.to_string());
            }
        }
        svg.line((LEFT, bottom), (WIDTH - RIGHT, bottom), "stroke=\"#222\"");
        svg.line((LEFT, top), (LEFT, bottom), "stroke=\"#222\"");
        if times {
            let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
            svg.text((middle, bottom + 40.0), "middle", "", "time (s)");
        }
        for (colour, values) in curves {
            let points = self.times().zip(values.iter());
            svg.polyline(colour, points.map(|(time, value)| (self.x(time), y(*value))));
        }
    }

    fn event_lines(&self, svg: &mut Svg) {
        let mut row_ends = [f64::MIN; LABEL_ROWS];
        for (at, label) in &self.events {
            let x = self.x(*at);
            let (from, to) = (x + 4.0, x + 4.0 + width_of(label));
            // To the left of its line where the right edge would cut it.
            let (from, anchor, at_x) = if to > WIDTH - 4.0 {
                (x - 4.0 - width_of(label), "end", x - 4.0)
            } else {
                (from, "start", from)
            };
            let row = row_ends.iter().position(|end| *end < from).unwrap_or(LABEL_ROWS - 1);
            row_ends[row] = from + width_of(label) + 6.0;
            let y = [80.0, 98.0, 116.0][row];
            let style = "stroke=\"#777\" stroke-dasharray=\"4 3\"";
            svg.line((x, y - 10.0), (x, PANELS[1] + PANEL_HEIGHT), style);
            svg.text((at_x, y), anchor, "font-size=\"11\" fill=\"#333\"", label);
        }
    }

    /// Middles of the steps, in seconds.
    fn times(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0u32..).map(move |index| (f64::from(index) + 0.5) * step)
    }

    /// The whole time shown, in seconds.
    fn length(&self) -> f64 {
        let values = self.series.iter().map(|series| series.new.len()).max().unwrap_or(0);
        let covered = self.step * f64::from(u32::try_from(values).unwrap_or(u32::MAX));
        self.events.iter().fold(covered.max(1.0), |length, (at, _)| length.max(*at))
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + time / self.length() * (WIDTH - LEFT - RIGHT)
    }
}

/// A colour and its values.
type Curve<'a> = (&'a str, &'a [f64]);

fn count(value: Option<&u64>) -> f64 {
    f64::from(u32::try_from(value.copied().unwrap_or(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_drawn_and_escaped() {
        let plot = Plot {
            title: "a < b & c".into(),
            subtitle: "s".into(),
            step: 0.2,
            series: vec![
                Series { name: "v1".into(), new: vec![5.0, 0.0], active: vec![1.0, 2.0] },
                Series { name: "v2".into(), new: vec![0.0, 5.0], active: vec![0.0, 3.0] },
            ],
            errors: vec![0.0, 5.0],
            events: vec![(0.1, "shift 10 %".into()), (0.4, "stop v1".into())],
        };
        let svg = plot.to_svg();
        assert!(svg.contains("a &lt; b &amp; c"));
        assert_eq!(svg.matches("<polyline").count(), 5);
        assert_eq!(svg.matches("stroke-dasharray").count(), 2);
        assert!(svg.contains(">errors<") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn nothing_measured_is_still_a_document() {
        let plot = Plot {
            title: String::new(),
            subtitle: String::new(),
            step: 0.2,
            series: Vec::new(),
            errors: Vec::new(),
            events: Vec::new(),
        };
        assert!(!plot.to_svg().contains("NaN"));
    }
}
