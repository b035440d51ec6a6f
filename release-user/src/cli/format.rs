//! Numbers, times and tables as people read them.

use comfy_table::{CellAlignment, Table as Grid, presets};
use std::time::Duration;

/// `412 ms`, `1.3 s`, `42 s`, `4 m 2 s`, `4 h 2 m`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    let two = |big: u64, big_unit, small: u64, small_unit| {
        if small == 0 {
            format!("{big} {big_unit}")
        } else {
            format!("{big} {big_unit} {small} {small_unit}")
        }
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

pub(super) fn seconds(seconds: u64) -> String {
    // Whole seconds are all that is known.
    if seconds < 10 { format!("{seconds} s") } else { duration(Duration::from_secs(seconds)) }
}

pub(super) fn millis(millis: u64) -> String {
    duration(Duration::from_millis(millis))
}

/// `12 flows`, `1 flow`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Share of a whole in percent, `0.0 %` of nothing.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(super) fn share(part: u64, whole: u64) -> String {
    percent(if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Colour of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    #[default]
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Paint {
    /// The colour of a version's or instance's state.
    pub fn of_state(state: &str) -> Self {
        match state {
            "idle" | "succeeded" => Self::Green,
            "draining" | "maint" | "paused" => Self::Yellow,
            "down" | "offline" | "held" | "forcing" | "aborting" => Self::Red,
            _ => Self::Plain,
        }
    }

    /// The text in this colour, if colours are wanted.
    pub fn on(self, text: &str, wanted: bool) -> String {
        let code = match self {
            _ if !wanted => return text.to_owned(),
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Side of a column on which its values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Columns that line up, without borders; one line a row, whatever the terminal's width.
pub(super) struct Table {
    grid: Grid,
    paints: Vec<Paint>,
}

impl Table {
    /// With these columns.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING);
        grid.set_header(columns.iter().map(|(name, _)| *name));
        for (column, (_, side)) in grid.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match side {
                Side::Left => CellAlignment::Left,
                Side::Right => CellAlignment::Right,
            });
        }
        Self { grid, paints: vec![Paint::Dim] }
    }

    pub fn row(&mut self, paint: Paint, cells: Vec<String>) {
        self.grid.add_row(cells);
        self.paints.push(paint);
    }

    /// Lines, each ended; coloured if wanted.
    pub fn render(&self, colours: bool) -> String {
        let text = self.grid.to_string();
        let mut paints = self.paints.iter();
        text.lines()
            .map(|line| {
                let paint = paints.next().copied().unwrap_or_default();
                paint.on(line.trim_end(), colours) + "\n"
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Paint, Side, Table, duration, percent, seconds, share};
    use std::time::Duration;

    #[test]
    fn durations() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (1390, "1.3 s"),
            (9999, "9.9 s"),
            (10_500, "10 s"),
            (60_000, "1 m"),
            (242_000, "4 m 2 s"),
            (3_600_000, "1 h"),
            (14_520_000, "4 h 2 m"),
            (86_399_999, "23 h 59 m"),
            (86_400_000, "1 d"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        assert_eq!((&*seconds(0), &*seconds(9), &*seconds(242)), ("0 s", "9 s", "4 m 2 s"));
    }

    #[test]
    fn shares() {
        assert_eq!((&*share(0, 0), &*share(1, 3), &*percent(1.0)), ("0.0 %", "33.3 %", "100.0 %"));
    }

    #[test]
    fn tables_line_up_and_take_colours() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right), ("X", Side::Left)]);
        table.row(Paint::Plain, vec!["a".into(), "1000".into(), "ü".into()]);
        table.row(Paint::Red, vec!["longer".into(), "1".into(), String::new()]);
        assert_eq!(table.render(false), "NAME       N  X\na       1000  ü\nlonger     1\n");
        assert!(table.render(true).ends_with("\n\x1b[31mlonger     1\x1b[0m\n"));
    }
}
