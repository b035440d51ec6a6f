//! Frames through the programs, and time between them.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, bail};
use release_common::abi::{Addr6, Be32, Explained};
use release_common::packet::{Headers, Ip, SliceFrame, link, parse};
use release_common::pipeline::Action;
use release_common::reason::Reason;
use release_tests::cases::{Run, Verdict};
use release_tests::model::tables::HZ;
use release_user::kernel::XdpRun;

use super::kernel::Kernel;
use super::state::State;

/// Nanoseconds of one of the table's jiffies.
const NANOS: i64 = 1_000_000_000 / HZ as i64;

impl Kernel<'_> {
    /// Everything in the maps.
    pub fn state(&mut self) -> Result<Rc<State>> {
        if let Some(state) = &self.state {
            return Ok(Rc::clone(state));
        }
        let state = Rc::new(self.tables.read(self.service, self.ids)?);
        self.state = Some(Rc::clone(&state));
        Ok(state)
    }

    fn read_again(&mut self) -> Result<Rc<State>> {
        self.state = None;
        self.state()
    }

    /// Lets time pass: the kernel's clock cannot be moved, so everything is made older instead.
    pub fn advance(&mut self, jiffies: u64) -> Result<()> {
        let (state, jiffies) = (self.state()?, jiffies as i64);
        self.tables.rejuvenate(&state, self.service, -jiffies, -jiffies * NANOS)?;
        self.state = None;
        Ok(())
    }

    /// Takes back what time has passed since the last packet, as the table knows of none. A jiffy
    /// has just begun then: the packet at hand will be in it.
    fn stop_clock(&mut self) -> Result<()> {
        let Some((jiffies, time)) = self.clock else { return Ok(()) };
        let state = self.state()?;
        let begun = self.programs.jiffies()?;
        let mut now = begun;
        while now == begun {
            now = self.programs.jiffies()?;
        }
        let nanos = time.elapsed().as_nanos() as i64;
        self.tables.rejuvenate(&state, self.service, (now - jiffies) as i64, nanos)?;
        self.state = None;
        Ok(())
    }

    fn start_clock(&mut self) -> Result<()> {
        if self.clock.is_some() {
            self.clock = Some((self.programs.jiffies()?, Instant::now()));
        }
        Ok(())
    }

    /// What the explaining program says of a frame. It must change nothing.
    pub fn explain(&mut self, frame: &[u8]) -> Result<(Explained, XdpRun)> {
        let before = self.state()?;
        let run = self.programs.explain(frame, self.way.ingress())?;
        let after = self.read_again()?;
        let changed = after.differences(&before);
        if !changed.is_empty() {
            self.differences.push(format!("explaining changed {changed:?}"));
        }
        Ok((self.maps.explained()?, run))
    }

    /// Has a frame come in, once it has been explained.
    pub fn ingress(&mut self, frame: &[u8]) -> Result<Run> {
        self.stop_clock()?;
        let (says, explained) = self.explain(frame)?;
        let before = self.state()?;
        let run = self.programs.run_packet(frame, self.way.ingress())?;
        self.start_clock()?;
        let after = self.read_again()?;
        let counted = after.reasons_since(&before);
        let [reason] = counted[..] else { bail!("reasons counted: {counted:?}") };
        let (verdict, action) = match run.action {
            1 => (Verdict::Drop, Action::Drop),
            2 => (Verdict::Pass, Action::Pass),
            3 => (Verdict::Bounce, Action::Bounce),
            4 => (Verdict::Send(None), Action::Send),
            other => bail!("XDP action {other}"),
        };
        let ifindex = if action == Action::Send { self.way.device } else { 0 };
        let backend = match after.traffic_since(&before, self.ids)[..] {
            // ICMP does not count as traffic of the instance it goes to.
            [] if is_icmp(frame) => says.backend,
            [] => 0,
            [one] => one,
            ref more => bail!("traffic of several instances: {more:?}"),
        };
        let (action, number) = (action as u32, reason as u32);
        let is = Explained { action, reason: number, backend, ifindex };
        if says != is {
            self.differences.push(format!("explained as {says:?}, is {is:?}"));
        }
        if explained.frame != run.frame {
            let (a, b) = (&explained.frame, &run.frame);
            self.differences.push(format!("frame explained as {a:02x?}\n  is {b:02x?}"));
        }
        Ok(Run { verdict, frame: run.frame, reason })
    }

    /// Has the host send a frame. What is not ours is not counted: then the reason is what the
    /// explaining program says of the same frame, had it come in.
    pub fn egress(&mut self, frame: &[u8]) -> Result<Run> {
        self.stop_clock()?;
        let (says, _) = self.explain(frame)?;
        let before = self.state()?;
        let run = self.loaded.run_egress(frame)?;
        self.start_clock()?;
        let after = self.read_again()?;
        let verdict = match run.action as i32 {
            -1 => Verdict::Pass,
            2 => Verdict::Drop,
            other => bail!("TC action {other}"),
        };
        let reason = match after.reasons_since(&before)[..] {
            [reason] => reason,
            [] if says.action == Action::Pass as u32 && verdict == Verdict::Pass => {
                Reason::ALL[says.reason as usize]
            }
            ref counted => bail!("reasons counted: {counted:?}, explained as {says:?}"),
        };
        Ok(Run { verdict, frame: run.frame, reason })
    }
}

fn is_icmp(frame: &[u8]) -> bool {
    fn of<A: Ip>(packet: &SliceFrame<'_>) -> bool {
        let headers: Result<Headers<A>, _> =
            link(packet).and_then(|link| parse::<A, _>(packet, link));
        headers.is_ok_and(|headers| headers.ip.protocol == A::ICMP)
    }
    let mut copy = frame.to_vec();
    let end = copy.len();
    SliceFrame::new(&mut copy, 0, end)
        .is_some_and(|packet| of::<Be32>(&packet) || of::<Addr6>(&packet))
}
