//! Small SVG plots: a release over time, and curves over axes of any scale.

mod axis;
mod chart;
mod release;
mod svg;

pub use axis::{Axis, Scale};
pub use chart::{Chart, Curve};
pub use release::{Plot, Series};
