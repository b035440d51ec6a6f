//! Curves over two axes.

use super::axis::{Axis, Range, written};
use super::svg::{COLOURS, KEY, Svg, width_of};

/// What to draw.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Heading.
    pub title: String,
    /// Line below the heading.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves, in the order of the legend.
    pub curves: Vec<Curve>,
}

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in order of `x`. Those without a place on an axis are left out.
    pub points: Vec<(f64, f64)>,
}

// All lengths in SVG user units (pixels).
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 400.0;
const MARGIN: f64 = 28.0;
/// Between two names of the legend, from line to line.
const LINE_HEIGHT: f64 = 20.0;
/// A curve with more points is smooth; dots would cover it.
const DOTTED: usize = 40;

impl Chart {
    /// The SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT);
        svg.heading(LEFT, &self.title, &self.subtitle);
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let x = self.x.scale.fit(points().map(|(x, _)| x));
        let y = self.y.scale.fit(points().map(|(_, y)| y));
        let right = self.right();
        self.axes(&mut svg, &x, &y, right);

        let coloured = self.curves.iter().zip(COLOURS.into_iter().cycle());
        let mut legend = TOP + 6.0;
        for (curve, colour) in coloured {
            let points: Vec<(f64, f64)> = curve
                .points
                .iter()
                .filter_map(|point| Some((x.place(point.0)?, y.place(point.1)?)))
                .map(|(x, y)| (LEFT + x * (right - LEFT), BOTTOM - y * (BOTTOM - TOP)))
                .collect();
            svg.polyline(colour, points.iter().copied());
            if points.len() <= DOTTED {
                points.into_iter().for_each(|point| svg.dot(colour, point));
            }
            svg.key((right + 24.0, legend), colour, &curve.name);
            legend += LINE_HEIGHT;
        }
        svg.finish()
    }

    /// Where the curves end and the legend begins.
    fn right(&self) -> f64 {
        let widest = self.curves.iter().map(|curve| width_of(&curve.name)).fold(0.0, f64::max);
        (WIDTH - MARGIN - widest - KEY - 24.0).max(WIDTH / 2.0)
    }

    fn axes(&self, svg: &mut Svg, x: &Range, y: &Range, right: f64) {
        let grid = "stroke=\"#e3e3e3\"";
        for tick in &y.ticks {
            let at = BOTTOM - y.place(*tick).unwrap_or(0.0) * (BOTTOM - TOP);
            svg.line((LEFT, at), (right, at), grid);
            svg.text((LEFT - 8.0, at + 4.0), "end", "", &written(*tick));
        }
        for tick in &x.ticks {
            let at = LEFT + x.place(*tick).unwrap_or(0.0) * (right - LEFT);
            svg.line((at, TOP), (at, BOTTOM), grid);
            svg.text((at, BOTTOM + 19.0), "middle", "", &written(*tick));
        }
        svg.line((LEFT, BOTTOM), (right, BOTTOM), "stroke=\"#222\"");
        svg.line((LEFT, TOP), (LEFT, BOTTOM), "stroke=\"#222\"");
        svg.text((f64::midpoint(LEFT, right), BOTTOM + 42.0), "middle", "", &self.x.label);
        svg.upwards((24.0, f64::midpoint(TOP, BOTTOM)), &self.y.label);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scale;
    use super::*;

    fn chart(scale: Scale, curves: Vec<Curve>) -> Chart {
        let axis = |label: &str| Axis { label: label.into(), scale };
        let (x, y) = (axis("flows"), axis("time & more (ns)"));
        Chart { title: "a < b".into(), subtitle: "s".into(), x, y, curves }
    }

    #[test]
    fn every_part_is_drawn_and_escaped() {
        let curve = |name: &str, points| Curve { name: name.into(), points };
        let one = curve("one", vec![(1.0, 10.0), (1000.0, 20.0)]);
        let many = (1..=100u32).map(|n| (f64::from(n), 100.0)).collect();
        let chart = chart(Scale::Logarithmic, vec![one, curve("two", many)]);
        let svg = chart.to_svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 2, "no dots on a curve of many points");
        for part in [">a &lt; b<", ">flows<", ">time &amp; more (ns)<", ">one<", ">two<", ">1000<"]
        {
            assert!(svg.contains(part), "{part} is missing");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_larger_value_is_further_up_and_to_the_right() {
        let points = vec![(0.0, 0.0), (10.0, 6.0)];
        let curve = Curve { name: String::new(), points };
        let svg = chart(Scale::Linear, vec![curve]).to_svg();
        let right = WIDTH - MARGIN - KEY - 24.0;
        assert!(
            svg.contains(&format!("points=\"{LEFT:.1},{BOTTOM:.1} {right:.1},{TOP:.1}\"")),
            "{svg}"
        );
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        let curve = Curve { name: "c".into(), points };
        let svg = chart(Scale::Logarithmic, vec![curve]).to_svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(!chart(Scale::Linear, Vec::new()).to_svg().contains("NaN"));
    }
}
