//! Figures of a report as plots.

use release_tests::plot::{Axis, Chart, Curve, Scale};

use crate::machine::Machine;
use crate::row::Figure;

/// The SVG document. A plot is often seen alone, so it says where it is from.
pub fn svg(figure: &Figure, machine: &Machine) -> String {
    let axis = |label: &str, logarithmic| Axis {
        label: label.to_owned(),
        scale: if logarithmic { Scale::Logarithmic } else { Scale::Linear },
    };
    let curves = figure.curves.iter();
    Chart {
        title: figure.title.clone(),
        subtitle: format!("{}, Linux {}, {}", machine.cpu, machine.kernel, machine.commit),
        x: axis(&figure.x, figure.x_log),
        y: axis(&figure.y, figure.y_log),
        curves: curves
            .map(|curve| Curve { name: curve.name.clone(), points: curve.points.clone() })
            .collect(),
    }
    .to_svg()
}
