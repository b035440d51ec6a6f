//! Running programs from user space (BPF_PROG_TEST_RUN).

use std::path::Path;
use std::time::Duration;

use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya_obj::programs::xdp::XdpAttachType;
use bytemuck::{Pod, Zeroable};
use release_common::abi::{
    Addr6, Address, Be32, Flow, FlowKey, Reap, SessionKey, SnatKey, SnatOwner,
    opened_at as opened_at_units, reap_op, reap_result,
};
use release_common::pipeline::SNAT_KEPT_SECONDS;
use release_common::tcp::word::Marks;

use super::family::{FamilyMaps, SessionAt, Tuple, session_key};
use super::load::{EXPLAIN, Loaded, MARK, PROGRAMS, REAP, TC, XDP, absent, program_error};
use super::{KernelError, Maps};

/// The pinned programs.
pub struct Programs {
    xdp: Xdp,
    explain: Xdp,
    reap: [Xdp; 2],
    mark: [Xdp; 2],
}

/// Result of running a program on a frame.
#[derive(Clone, Debug)]
pub struct XdpRun {
    /// `xdp_action`, or for a TC program its `TC_ACT_…`.
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
        let reap = [open(REAP[0])?, open(REAP[1])?];
        let mark = [open(MARK[0])?, open(MARK[1])?];
        Ok(Self { xdp: open(XDP)?, explain: open(EXPLAIN)?, reap, mark })
    }

    /// Runs the packet program once on a frame, as if it had come in by that interface; the loopback
    /// interface if not given. What it sends goes nowhere.
    ///
    /// # Errors
    /// The kernel's, e.g. for a frame shorter than 14 bytes.
    pub fn run_packet(&self, frame: &[u8], ingress: Option<u32>) -> Result<XdpRun, KernelError> {
        run(&self.xdp, XDP, frame, ingress)
    }

    /// Runs the explaining program on a frame: the frame comes back as the packet path would send
    /// it, no map changes, and [`Maps::explained`] says the rest. One at a time. `ingress`: the
    /// interface it would come in by, on which routes may depend; loopback if not given.
    ///
    /// # Errors
    /// The kernel's, e.g. for a frame shorter than 14 bytes.
    pub fn explain(&self, frame: &[u8], ingress: Option<u32>) -> Result<XdpRun, KernelError> {
        // An interface without receive queues of its own cannot be named.
        match ingress {
            Some(_) => run(&self.explain, EXPLAIN, frame, ingress)
                .or_else(|_| run(&self.explain, EXPLAIN, frame, None)),
            None => run(&self.explain, EXPLAIN, frame, None),
        }
    }

    /// Jiffies now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn jiffies(&self) -> Result<u64, KernelError> {
        let mut packet = vec![0u8; 64];
        let head = Reap { op: reap_op::CLOCK, ..Reap::zeroed() };
        packet[..size_of::<Reap>()].copy_from_slice(bytemuck::bytes_of(&head));
        let out = carry_out(&self.reap[0], REAP[0], &packet)?;
        let at = size_of::<Reap>();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&out[at..at + 8]);
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Runs one of [`reap_op`] over flows or embryos; returns those it was done to. `limit` (live
    /// flows, embryos) and `linger` (closed flows) are in jiffies.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reap(
        &self,
        op: u32,
        tuples: &[Tuple],
        limit: u32,
        linger: u32,
    ) -> Result<Vec<Tuple>, KernelError> {
        order_both(&self.reap, REAP, Reap { op, limit, linger, ..Reap::zeroed() }, tuples)
    }

    /// Puts marks on live flows, in place of those that they have; returns those that have them
    /// now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mark(&self, tuples: &[Tuple], marks: Marks) -> Result<Vec<Tuple>, KernelError> {
        order_both(&self.mark, MARK, Reap { limit: marks.0, ..Reap::zeroed() }, tuples)
    }

    /// Removes sessions that have no live flow and were silent for `limit` jiffies. Returns how
    /// many went.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reap_sessions(&self, sessions: &[SessionAt], limit: u32) -> Result<usize, KernelError> {
        let keys: Vec<SessionKey> = sessions.iter().map(session_key).collect();
        let head = Reap { op: reap_op::SESSIONS, limit, linger: limit, ..Reap::zeroed() };
        Ok(order(&self.reap[0], REAP[0], head, &keys)?.len())
    }

    /// Gives back translated sources whose flow is gone. Returns how many there were.
    ///
    /// # Errors
    /// The kernel's.
    pub fn free_ports(&self, maps: &Maps, clock: Clock, now: u64) -> Result<usize, KernelError> {
        let limit = clock.jiffies(Duration::from_secs(u64::from(SNAT_KEPT_SECONDS)));
        let v4 = self.free_ports_of::<Be32>(0, &maps.v4, limit, now)?;
        Ok(v4 + self.free_ports_of::<Addr6>(1, &maps.v6, limit, now)?)
    }

    fn free_ports_of<A: Address>(
        &self,
        family: usize,
        maps: &FamilyMaps<A>,
        limit: u32,
        now: u64,
    ) -> Result<usize, KernelError>
    where
        release_common::abi::Endpoint<A>: Pod,
        release_common::abi::RuleKey<A>: Pod,
        FlowKey<A>: Pod,
        SnatKey<A>: Pod,
        SnatOwner<A>: Pod,
    {
        let mut old = Vec::new();
        maps.walk_snat(|key, owner| {
            if (now as u32).wrapping_sub(owner.claimed) >= limit {
                old.push(*key);
            }
        })?;
        let head = Reap { op: reap_op::SNAT, limit, linger: limit, ..Reap::zeroed() };
        Ok(order(&self.reap[family], REAP[family], head, &old)?.len())
    }
}

/// Has the programs of both families do something to flows or embryos; returns those it was done to.
fn order_both(
    programs: &[Xdp; 2],
    names: [&str; 2],
    head: Reap,
    tuples: &[Tuple],
) -> Result<Vec<Tuple>, KernelError> {
    let v4: Vec<FlowKey<Be32>> = tuples.iter().filter_map(Tuple::key).collect();
    let v6: Vec<FlowKey<Addr6>> = tuples.iter().filter_map(Tuple::key).collect();
    let done4 = order(&programs[0], names[0], head, &v4)?;
    let done6 = order(&programs[1], names[1], head, &v6)?;
    Ok(done4.iter().map(Tuple::of).chain(done6.iter().map(Tuple::of)).collect())
}

/// Has a program do something to keys; returns those it was done to.
fn order<K: Pod>(program: &Xdp, name: &str, head: Reap, keys: &[K]) -> Result<Vec<K>, KernelError> {
    let mut done = Vec::new();
    for part in keys.chunks(Reap::BYTES / size_of::<K>()) {
        let head = Reap { count: part.len() as u32, ..head };
        let mut packet = bytemuck::bytes_of(&head).to_vec();
        packet.extend_from_slice(bytemuck::cast_slice(part));
        packet.resize(packet.len().max(64), 0);
        let out = carry_out(program, name, &packet)?;
        for (index, key) in part.iter().enumerate() {
            let last = size_of::<Reap>() + (index + 1) * size_of::<K>() - 1;
            if out.get(last) == Some(&reap_result::DONE) {
                done.push(*key);
            }
        }
    }
    Ok(done)
}

fn carry_out(program: &Xdp, name: &str, packet: &[u8]) -> Result<Vec<u8>, KernelError> {
    let result = run(program, name, packet, None)?;
    // XDP_ABORTED is 0.
    if result.action == 0 {
        return Err(KernelError::Program {
            name: name.to_owned(),
            why: "refused its order".to_owned(),
        });
    }
    Ok(result.frame)
}

impl Loaded {
    /// Runs the program for what the host sends once on a frame.
    ///
    /// # Errors
    /// The kernel's, e.g. for a frame shorter than 14 bytes.
    pub fn run_egress(&self, frame: &[u8]) -> Result<XdpRun, KernelError> {
        let program = self.ebpf.program(TC).ok_or_else(|| absent(TC))?;
        let program: &SchedClassifier =
            program.try_into().map_err(|error: ProgramError| program_error(TC, &error))?;
        test_run(program, TC, frame, None)
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h): what a frame's context says.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs a program once on a frame, as if it had come in by that interface (Linux 5.15), or by the
/// loopback interface.
fn run(
    program: &Xdp,
    name: &str,
    frame: &[u8],
    ingress: Option<u32>,
) -> Result<XdpRun, KernelError> {
    let context = ingress.map(|ingress_ifindex| Context {
        data_end: frame.len() as u32,
        ingress_ifindex,
        ..Context::zeroed()
    });
    test_run(program, name, frame, context.as_ref().map(bytemuck::bytes_of))
}

fn test_run<P>(
    program: &P,
    name: &str,
    frame: &[u8],
    context: Option<&[u8]>,
) -> Result<XdpRun, KernelError>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: context,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).map_err(|error| program_error(name, &error))?;
    out.truncate(result.data_size_out as usize);
    Ok(XdpRun { action: result.return_value, frame: out })
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

    /// Age of a stamp in the unit of [`Flow::opened_at`].
    pub fn age_of_opening(&self, opened_at: u32, now: u64) -> Duration {
        let units = opened_at_units(now).wrapping_sub(opened_at);
        let units = if units > u32::MAX / 2 { 0 } else { units };
        let jiffies = u64::from(units) << Flow::OPENED_SHIFT;
        Duration::from_secs_f64(jiffies as f64 / f64::from(self.hz))
    }

    /// Age of a 64-bit stamp.
    pub fn age64(&self, then: u64, now: u64) -> Duration {
        Duration::from_secs_f64(now.saturating_sub(then) as f64 / f64::from(self.hz))
    }
}
