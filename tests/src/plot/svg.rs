//! What every plot is drawn with. All lengths are SVG user units (pixels).

use std::fmt::Write as _;

/// Colours of curves, in their order.
pub const COLOURS: [&str; 8] =
    ["#1f6fb4", "#e07b12", "#2c8a4b", "#8450a8", "#b3261e", "#5f6b76", "#11909b", "#a06a2c"];
/// From the beginning of an entry of a legend to its name.
pub const KEY: f64 = 28.0;
const WIDTH_PER_CHARACTER: f64 = 6.4;

/// A document of one picture. Nothing in it can fail: it is a string.
#[derive(Debug)]
pub struct Svg(String);

impl Svg {
    /// An empty picture with a white ground, so that it can be read on dark pages, too.
    #[must_use]
    pub fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"DejaVu Sans, Helvetica, Arial, \
             sans-serif\" font-size=\"12\" fill=\"#222\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        ))
    }

    /// Heading and the line below it.
    pub fn heading(&mut self, x: f64, title: &str, subtitle: &str) {
        self.text((x, 32.0), "start", "font-size=\"18\" font-weight=\"bold\"", title);
        if !subtitle.is_empty() {
            self.text((x, 52.0), "start", "fill=\"#555\"", subtitle);
        }
    }

    /// A straight line; `style` are attributes.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>"
        );
    }

    /// Text with its `anchor` (`start`, `middle`, `end`) at a place; `style` are attributes.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: &str, style: &str, content: &str) {
        let content = escaped(content);
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{content}</text>"
        );
    }

    /// Text that reads upwards, around a place.
    pub fn upwards(&mut self, at: (f64, f64), content: &str) {
        let turned = format!("transform=\"rotate(-90 {:.1} {:.1})\"", at.0, at.1);
        self.text(at, "middle", &turned, content);
    }

    /// A curve.
    pub fn polyline(&mut self, colour: &str, points: impl Iterator<Item = (f64, f64)>) {
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.0,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-linejoin=\"round\" points=\"{}\"/>",
            points.join(" ")
        );
    }

    /// A dot on a curve.
    pub fn dot(&mut self, colour: &str, (x, y): (f64, f64)) {
        let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }

    /// An entry of a legend: a piece of curve and its name, from a place on.
    pub fn key(&mut self, (x, y): (f64, f64), colour: &str, name: &str) {
        let style = format!("stroke=\"{colour}\" stroke-width=\"3\"");
        self.line((x, y - 4.0), (x + 22.0, y - 4.0), &style);
        self.text((x + KEY, y), "start", "", name);
    }

    /// The document.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// About how wide a text is.
#[must_use]
pub fn width_of(text: &str) -> f64 {
    let characters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    f64::from(characters) * WIDTH_PER_CHARACTER
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
