//! Running programs from user space (BPF_PROG_TEST_RUN).

use std::path::Path;
use std::time::Duration;

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::xdp::XdpAttachType;
use bytemuck::Zeroable;
use release_common::abi::{FlowKey4, Reap, reap_op, reap_result};

use super::KernelError;
use super::load::{PROGRAMS, REAP, XDP, program_error};

/// The pinned programs.
pub struct Programs {
    xdp: Xdp,
    reap: Xdp,
}

/// Instructions the verifier went through for the packet program.
///
/// # Errors
/// If the program is not pinned, or the kernel does not tell (before Linux 5.16).
pub fn verified_instructions(bpffs: &Path) -> Result<u32, KernelError> {
    let info = aya::programs::ProgramInfo::from_pin(bpffs.join(PROGRAMS).join(XDP))
        .map_err(|error| program_error(XDP, &error))?;
    info.verified_instruction_count().ok_or_else(|| KernelError::Program {
        name: XDP.to_owned(),
        why: "the kernel does not count".to_owned(),
    })
}

/// Result of running the packet program on a frame.
#[derive(Clone, Debug)]
pub struct XdpRun {
    /// `xdp_action`.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Programs {
    /// Opens the pinned programs.
    ///
    /// # Errors
    /// If they are not there.
    pub fn open(bpffs: &Path) -> Result<Self, KernelError> {
        let open = |name: &str| {
            Xdp::from_pin(bpffs.join(PROGRAMS).join(name), XdpAttachType::Interface)
                .map_err(|error| program_error(name, &error))
        };
        Ok(Self { xdp: open(XDP)?, reap: open(REAP)? })
    }

    /// Runs the packet program once on a frame, as if it had come in by the loopback interface.
    ///
    /// # Errors
    /// The kernel's, e.g. for a frame shorter than 14 bytes.
    pub fn run_packet(&self, frame: &[u8]) -> Result<XdpRun, KernelError> {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = self.xdp.test_run(options).map_err(|error| program_error(XDP, &error))?;
        out.truncate(result.data_size_out as usize);
        Ok(XdpRun { action: result.return_value, frame: out })
    }

    /// Jiffies now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn jiffies(&self) -> Result<u64, KernelError> {
        let mut packet = vec![0u8; 64];
        let head = Reap { op: reap_op::CLOCK, ..Reap::zeroed() };
        packet[..size_of::<Reap>()].copy_from_slice(bytemuck::bytes_of(&head));
        let out = self.run_reaper(&packet)?;
        let at = size_of::<Reap>();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&out[at..at + 8]);
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Runs one of [`reap_op`] over keys; returns those it was done to. `limit` (live flows,
    /// embryos) and `linger` (closed flows) are in jiffies.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reap(
        &self,
        op: u32,
        keys: &[FlowKey4],
        limit: u32,
        linger: u32,
    ) -> Result<Vec<FlowKey4>, KernelError> {
        let mut done = Vec::new();
        for part in keys.chunks(Reap::BATCH) {
            let head = Reap { op, count: part.len() as u32, limit, linger };
            let mut packet = bytemuck::bytes_of(&head).to_vec();
            packet.extend_from_slice(bytemuck::cast_slice(part));
            packet.resize(packet.len().max(64), 0);
            let out = self.run_reaper(&packet)?;
            for (index, key) in part.iter().enumerate() {
                let last = size_of::<Reap>() + (index + 1) * size_of::<FlowKey4>() - 1;
                if out.get(last) == Some(&reap_result::DONE) {
                    done.push(*key);
                }
            }
        }
        Ok(done)
    }

    fn run_reaper(&self, packet: &[u8]) -> Result<Vec<u8>, KernelError> {
        let mut out = vec![0; packet.len()];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = self.reap.test_run(options).map_err(|error| program_error(REAP, &error))?;
        // XDP_ABORTED is 0.
        if result.return_value == 0 {
            return Err(KernelError::Program {
                name: REAP.to_owned(),
                why: "refused its order".to_owned(),
            });
        }
        Ok(out)
    }
}

/// The kernel's clock as the packet path stamps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Jiffies a second.
    pub hz: u32,
}

impl Clock {
    /// The rate that this kernel was built with: its coarse clocks advance once a jiffy.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of_kernel() -> Result<Self, KernelError> {
        let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).map_err(
            |error| KernelError::Program { name: "clock".to_owned(), why: error.to_string() },
        )?;
        let tick = Duration::from(tick).as_secs_f64();
        Ok(Self { hz: (1.0 / tick).round() as u32 })
    }

    /// Jiffies of a duration, rounded up.
    pub fn jiffies(&self, duration: Duration) -> u32 {
        let jiffies = (duration.as_secs_f64() * f64::from(self.hz)).ceil();
        // Ages are compared modulo 2^32: half of that is the most that means anything, and the
        // reaper needs time to look. At 1000 Hz this is 12 days.
        jiffies.min(f64::from(1 << 30)) as u32
    }

    /// Age of a 32-bit stamp.
    pub fn age(&self, then: u32, now: u64) -> Duration {
        let age = (now as u32).wrapping_sub(then);
        // A stamp taken after `now` was read is young, not old.
        let age = if age > u32::MAX / 2 { 0 } else { age };
        Duration::from_secs_f64(f64::from(age) / f64::from(self.hz))
    }

    /// Age of a 64-bit stamp.
    pub fn age64(&self, then: u64, now: u64) -> Duration {
        Duration::from_secs_f64(now.saturating_sub(then) as f64 / f64::from(self.hz))
    }
}
