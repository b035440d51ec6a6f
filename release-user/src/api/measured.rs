//! What was measured of a version, as `status` tells it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::release::analysis::{Histogram, Measured};

/// Since the data plane began; flows of test sources and test frontends are left out. A percentile
/// is the upper end of its bucket, at most a quarter too long; none where nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredStatus {
    /// From SYN to SYN-ACK, the median in microseconds.
    pub connect_p50_us: Option<u64>,
    /// The same, 99 of 100.
    pub connect_p99_us: Option<u64>,
    /// From the first byte of a connection's first request to that of the answer, the median in
    /// microseconds.
    pub first_byte_p50_us: Option<u64>,
    /// The same, 99 of 100.
    pub first_byte_p99_us: Option<u64>,
    /// SYNs that it refused or did not answer.
    pub syn_failures: u64,
    /// Connections that it reset.
    pub resets_by_server: u64,
    /// Connections that their clients reset.
    pub resets_by_client: u64,
    /// Of the segments: sent again.
    pub retransmits: u64,
    /// Segments with data, both ways.
    pub segments: u64,
}

impl From<&Measured> for MeasuredStatus {
    fn from(measured: &Measured) -> Self {
        let of = |histogram: &Histogram, percent| histogram.percentile(percent).map(micros);
        Self {
            connect_p50_us: of(&measured.connect, 50),
            connect_p99_us: of(&measured.connect, 99),
            first_byte_p50_us: of(&measured.first_byte, 50),
            first_byte_p99_us: of(&measured.first_byte, 99),
            syn_failures: measured.syn_failures,
            resets_by_server: measured.resets,
            resets_by_client: measured.client_resets,
            retransmits: measured.retransmits,
            segments: measured.segments,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}
