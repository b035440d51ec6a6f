//! What the packet path measured.

use super::core::Daemon;
use crate::api::types::ApiError;
use crate::kernel::{KernelError, Maps};
use crate::release::analysis::{Histogram, Measured};

impl Daemon {
    /// What was measured of these instances since the data plane began, test traffic left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn measured(&self, backends: &[u32]) -> Result<Measured, ApiError> {
        Ok(measured(&self.reader, backends)?)
    }
}

/// What the packet path measured of some instances, summed, from the maps alone.
///
/// # Errors
/// The system call's.
pub fn measured(maps: &Maps, backends: &[u32]) -> Result<Measured, KernelError> {
    let mut all = Measured::default();
    for &backend in backends {
        // What is a part of something else is read first: no part is larger than its whole.
        let latency = maps.latency(backend)?;
        let user = maps.user_counters(backend)?;
        let kernel = maps.counters(backend)?;
        let begun = kernel.opened + kernel.adopted;
        all = all.plus(&Measured {
            syns: kernel.placed.saturating_sub(kernel.ruled),
            syn_failures: kernel.syns_refused + user.unanswered,
            opened: begun.saturating_sub(kernel.unmeasured),
            resets: kernel.server_resets,
            client_resets: kernel.client_resets,
            segments: kernel.segments,
            retransmits: kernel.retransmits,
            connect: Histogram(latency.connect.to_vec()),
            first_byte: Histogram(latency.first_byte.to_vec()),
        });
    }
    Ok(all)
}
