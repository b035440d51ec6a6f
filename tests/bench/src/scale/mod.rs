//! The same with everything large: services, instances, rings, flows, connections a second.

mod memory;
mod services;
mod traffic;

use anyhow::Result;

use crate::Scope;
use crate::row::{Measured, Row, Section};

/// How large.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Services, in the first configuration.
    services: u32,
    /// Instances of one service, in the second.
    instances: u32,
    /// Capacity of each flow table.
    flows: u32,
    /// Seconds of connections that open and close.
    seconds: u64,
}

impl Size {
    fn of(scope: Scope) -> Self {
        if scope.quick {
            Self { services: 256, instances: 1024, flows: 1 << 20, seconds: 3 }
        } else {
            Self { services: 4096, instances: 4096, flows: 1 << 22, seconds: 20 }
        }
    }
}

/// Measures.
///
/// # Errors
/// What cannot be measured, or was not what it should have been.
pub fn measure(scope: Scope) -> Result<Measured> {
    let size = Size::of(scope);
    let mut rows = services::measure(size, scope.rounds())?;
    rows.extend(traffic::measure(size, scope.rounds())?);
    Ok(Measured { rows, figures: Vec::new() })
}

fn row(id: &str, what: &str, unit: &str, values: &[f64]) -> Row {
    Row::new(Section::Scale, &format!("scale.{id}"), what, unit, values)
}
