//! Axes: what is where, and which values are written beside them.

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
}

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0 on, evenly.
    Linear,
    /// Each factor of ten as long as the next. What is not above 0 has no place.
    Logarithmic,
}

/// An axis that is fitted to its values.
#[derive(Debug)]
pub struct Range {
    scale: Scale,
    from: f64,
    to: f64,
    /// Values to write beside it.
    pub ticks: Vec<f64>,
}

impl Scale {
    /// The shortest round range that holds all values, or any one if there are none.
    #[must_use]
    pub fn fit(self, values: impl Iterator<Item = f64>) -> Range {
        let values: Vec<f64> = values.filter(|value| self.has(*value)).collect();
        let highest = values.iter().copied().fold(f64::MIN, f64::max);
        let lowest = values.iter().copied().fold(f64::MAX, f64::min);
        let ticks = match self {
            _ if values.is_empty() => vec![1.0, 2.0],
            Self::Linear if highest <= 0.0 => vec![0.0, 1.0],
            Self::Linear => ticks(highest, 6),
            Self::Logarithmic => decades(lowest, highest),
        };
        let from = ticks.first().copied().unwrap_or(1.0);
        let to = ticks.last().copied().unwrap_or(2.0);
        Range { scale: self, from, to, ticks }
    }

    fn has(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }
}

impl Range {
    /// Where a value is: 0 at the beginning, 1 at the end.
    #[must_use]
    pub fn place(&self, value: f64) -> Option<f64> {
        let on = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        };
        let place = (on(value) - on(self.from)) / (on(self.to) - on(self.from));
        self.scale.has(value).then_some(place)
    }
}

/// Round values from 0 to the first one that is not below `highest`, about `wanted` of them.
#[must_use]
pub fn ticks(highest: f64, wanted: u32) -> Vec<f64> {
    let rough = highest / f64::from(wanted.max(1));
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    let mut ticks = vec![0.0];
    for index in 1..=wanted * 2 {
        // Off by less than a millionth of a step, so that 0.30000000000000004 is 0.3.
        let value = (f64::from(index) * step / magnitude * 10.0).round() * magnitude / 10.0;
        ticks.push((value * 1e6).round() / 1e6);
        if value >= highest {
            break;
        }
    }
    ticks
}

/// Values for a logarithmic axis from not above `lowest` to not below `highest`: 1, 2 and 5 of each
/// power of ten, or over more than three of them the powers alone, between the two ends.
fn decades(lowest: f64, highest: f64) -> Vec<f64> {
    let round = |exponent: i32, factor: f64| {
        // Powers below one from their inverse: 10^-3 is 0.001, and not a neighbour of it.
        let power = 10f64.powi(exponent.abs());
        if exponent < 0 { factor / power } else { factor * power }
    };
    let mut all = (-12..=15).flat_map(|exponent| [1.0, 2.0, 5.0].map(|f| round(exponent, f)));
    let from = all.clone().rfind(|tick| *tick <= lowest).unwrap_or(lowest);
    let to = all.find(|tick| *tick >= highest && *tick > from).unwrap_or(highest);
    let factors: &[f64] = if to / from > 1000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let inner = (-12..=15).flat_map(|exponent| factors.iter().map(move |f| round(exponent, *f)));
    let inner = inner.filter(|tick| *tick > from && *tick < to);
    std::iter::once(from).chain(inner).chain(std::iter::once(to)).collect()
}

/// A tick as it is written: `0.5`, `2000`, `50k`, `4M`.
#[must_use]
pub fn written(tick: f64) -> String {
    match tick {
        1e9.. => format!("{}G", tick / 1e9),
        1e6.. => format!("{}M", tick / 1e6),
        1e4.. => format!("{}k", tick / 1e3),
        _ => tick.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_top() {
        assert_eq!(ticks(100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(1.05, 5).last(), Some(&1.5));
        assert_eq!(ticks(23.4, 10).last(), Some(&25.0));
        for highest in [0.3, 1.0, 7.0, 42.0, 199.0, 5000.0] {
            let ticks = ticks(highest, 5);
            assert!(*ticks.last().unwrap() >= highest && ticks.len() <= 8, "{ticks:?}");
        }
    }

    #[test]
    fn a_logarithmic_axis_is_no_longer_than_its_values() {
        assert_eq!(decades(3.0, 40.0), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(
            decades(1.0, 4_194_304.0),
            [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 5e6],
            "over many powers of ten, they alone"
        );
        assert_eq!(decades(0.001, 0.004), [0.001, 0.002, 0.005]);
        assert_eq!(decades(5.0, 5.0), [5.0, 10.0], "one value still makes an axis");
    }

    #[test]
    fn values_lie_between_the_ends() {
        let linear = Scale::Linear.fit([50.0, 100.0].into_iter());
        assert_eq!((linear.place(0.0), linear.place(50.0)), (Some(0.0), Some(0.5)));
        let logarithmic = Scale::Logarithmic.fit([1.0, 100.0].into_iter());
        assert_eq!(logarithmic.place(10.0), Some(0.5));
        assert_eq!(logarithmic.place(0.0), None);
        assert_eq!(linear.place(f64::NAN), None);
        for scale in [Scale::Linear, Scale::Logarithmic] {
            assert!(scale.fit([0.0].into_iter()).place(1.0).is_some_and(f64::is_finite));
            assert!(scale.fit(std::iter::empty()).place(1.0).is_some_and(f64::is_finite));
        }
    }

    #[test]
    fn large_ticks_are_short() {
        assert_eq!([0.5, 2e3, 5e4, 5e6].map(written), ["0.5", "2000", "50k", "5M"]);
    }
}
