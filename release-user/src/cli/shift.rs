//! `shift`: other shares of new flows.

use super::format::{count, duration};
use super::values::{VersionWeight, by_version};
use super::{Context, DONE, Ended};
use crate::api::types::{ApiError, ErrorCode, InForce, ShiftRequest};
use std::time::Duration;

pub(super) async fn shift(
    context: &mut Context,
    service: String,
    weights: &[VersionWeight],
    allow_empty: bool,
) -> Ended {
    let weights = by_version(weights).map_err(|twice| {
        ApiError::new(ErrorCode::Usage, format!("version {twice}: named twice"))
            .hint("one weight a version")
    })?;
    let request = ShiftRequest { service, weights, allow_empty };
    let in_force = context.client.shift(&request).await?;
    context.out.value(&in_force, |in_force, _| in_force_text(in_force))?;
    Ok(DONE)
}

/// Which generation is in force, with its weights.
pub(super) fn in_force_text(in_force: &InForce) -> String {
    let InForce { service, generation, weights, changed, took_ms } = in_force;
    let weights: Vec<String> =
        weights.iter().map(|(version, weight)| format!("{version}={weight}")).collect();
    let how = if *changed {
        let took = Duration::try_from_secs_f64(took_ms / 1000.0).unwrap_or_default();
        if *took_ms < 10.0 {
            format!("after {took_ms:.1} ms")
        } else {
            format!("after {}", duration(took))
        }
    } else {
        "nothing had to change".to_owned()
    };
    format!("{service}: generation {generation} in force: {} ({how})\n", weights.join(" "))
}

/// `12 active, 1 half-closed, 3 embryonic`, without what is zero.
pub(super) fn counts_text(active: u64, half_closed: u64, embryonic: u64) -> String {
    let parts = [(active, "active"), (half_closed, "half-closed"), (embryonic, "embryonic")];
    let some: Vec<String> = parts
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| count(number, what, what))
        .collect();
    if some.is_empty() { "no live flows".to_owned() } else { some.join(", ") }
}
