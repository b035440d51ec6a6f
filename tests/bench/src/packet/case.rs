//! One thing to measure, and whether what was measured is that.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use release_common::reason::Reason;
use release_tests::driver::{Driven, Driver, Packets, RENEWED};
use release_tests::frames::{destination, ends};

use super::check;
use super::rig::Rig;

/// Packets of a program in a turn. What disturbs it comes and goes within milliseconds: a turn is less.
pub const TIMES: u32 = 4_000;

/// `XDP_PASS` (include/uapi/linux/bpf.h).
pub const PASS: u32 = 2;
/// `XDP_TX`.
pub const TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const REDIRECT: u32 = 4;

/// One thing to measure.
pub struct Case {
    /// Of its row.
    pub id: &'static str,
    /// Of its row.
    pub what: &'static str,
    /// What comes in.
    pub packets: Packets,
    /// What the program returns for each packet.
    pub action: u32,
    /// What each packet is counted as.
    pub reason: Reason,
    /// Where it goes.
    pub to: To,
    /// The number of the flow before the next packet's.
    pub flow: u32,
    /// The sequence number before the next packet's, if they advance.
    pub seq: Option<u32>,
    /// Most of `lookup`'s that it may take.
    pub target: Option<f64>,
}

/// Where a packet goes, or where the client sees it come from.
#[derive(Clone, Copy)]
pub enum To {
    /// It stays as it is.
    Nowhere,
    /// There.
    End(SocketAddr),
    /// To one of the scene's instances.
    AnyInstance,
    /// To an address of this /16; whose, is not counted.
    Among(Ipv4Addr),
}

impl Case {
    /// Packets of a live flow from its client.
    pub fn new(id: &'static str, what: &'static str, packets: &Packets) -> Self {
        Self {
            id,
            what,
            packets: packets.clone(),
            action: REDIRECT,
            reason: Reason::Forwarded,
            to: To::Nowhere,
            target: None,
            flow: 0,
            seq: first_seq(packets),
        }
    }

    /// That goes there.
    pub fn to(self, end: SocketAddr) -> Self {
        Self { to: To::End(end), ..self }
    }

    /// That goes to one of the scene's instances.
    pub fn any(self) -> Self {
        Self { to: To::AnyInstance, ..self }
    }

    /// With this target.
    pub fn at_most(self, bound: f64) -> Self {
        Self { target: Some(bound), ..self }
    }

    /// What is to be taken off its time: `None`: what it takes to make the reference's packet.
    pub fn own_floor(&self) -> Option<&Packets> {
        self.packets.forgets.then_some(&self.packets)
    }

    /// Runs it once, and looks at what came of it.
    ///
    /// # Errors
    /// Something else than it should be.
    pub fn run(&mut self, rig: &mut Rig, driver: &mut Driver) -> Result<Driven> {
        driver.go_on_from(self.flow, self.seq.unwrap_or_default());
        rig.renew()?;
        let before = rig.counted()?;
        let driven = driver.run(&self.packets, TIMES)?;
        self.flow = driven.flow;
        let mut frame = self.packets.of(driven.flow);
        if let Some(seq) = &mut self.seq {
            *seq = driven.seq;
            frame[38..42].copy_from_slice(&driven.seq.to_be_bytes());
        }
        ensure!(driven.action == self.action, "action {} of {}", driven.action, self.action);
        let after = rig.counted()?;
        let times = u64::from(TIMES);
        let counted = after.since(&before);
        let wanted = BTreeMap::from([(format!("{:?}", self.reason), times)]);
        ensure!(counted == wanted, "{counted:?}, not {wanted:?}");
        let end = match self.to {
            To::Nowhere => {
                ensure!(frame == driven.frame, "the frame was changed");
                return Ok(driven);
            }
            To::End(end) => end,
            To::AnyInstance => {
                let to = destination(&driven.frame);
                ensure!(rig.scene.instances().any(|instance| instance.socket == to), "{to}");
                to
            }
            To::Among(net) => {
                let to = destination(&driven.frame);
                let among =
                    matches!(to.ip(), IpAddr::V4(ip) if ip.octets()[..2] == net.octets()[..2]);
                ensure!(among, "{to}");
                to
            }
        };
        let counted = after.packets - before.packets;
        ensure!(matches!(self.to, To::Among(_)) || counted == times, "{counted} packets counted");
        let (source, destination) = ends(&frame).context("no ends")?;
        let between = if self.packets.reply { (end, destination) } else { (source, end) };
        check::sent_on(&frame, &driven.frame, between)?;
        Ok(driven)
    }
}

/// The number before the first packet's, if they advance.
fn first_seq(packets: &Packets) -> Option<u32> {
    let bytes = packets.frame[38..42].try_into().ok()?;
    (packets.seq_step != 0).then(|| u32::from_be_bytes(bytes).wrapping_sub(packets.seq_step))
}

/// As long as what each run gets anew.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(RENEWED), 0);
    frame
}
