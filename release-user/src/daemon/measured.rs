//! What the packet path measured.

use super::core::Daemon;
use crate::api::types::ApiError;
use crate::release::analysis::Measured;

impl Daemon {
    /// Sums of some instances, since the data plane began.
    ///
    /// # Errors
    /// The kernel's.
    pub fn measured(&self, backends: &[u32]) -> Result<Measured, ApiError> {
        let mut sum = Measured::default();
        for backend in backends {
            let counters = self.reader.counters(*backend)?;
            sum.syns += counters.placed;
            sum.opened += counters.opened;
        }
        Ok(sum)
    }
}
