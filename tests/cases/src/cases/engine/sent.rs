//! What a packet looks like on its way out, by mode.

use std::net::{IpAddr, SocketAddr};

use release_common::abi::mode;
use release_common::reason::Reason;

use super::super::runner::Run;
use super::super::script::Verdict;
use super::Play;
use super::compare::{bytes, outcome, same};
use super::packets::Form;
use crate::frames::{IcmpError, Ipv4, Segment, destination, ends, ip_at, verify};
use crate::model::Family;
use crate::model::scene::Instance;
use crate::packets::{GUE_PORT, protocol};

/// What the packet path changes of something that it sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// Source and destination.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Whether it is routed: the TTL is one lower.
    pub routed: bool,
    /// MACs, destination first.
    pub macs: Option<([u8; 6], [u8; 6])>,
}

impl Change {
    /// A segment, changed.
    pub fn segment(&self, segment: &Segment) -> Segment {
        let (source, destination) = self.ends.unwrap_or((segment.source, segment.destination));
        let (dmac, smac) = self.macs.unwrap_or((segment.dmac, segment.smac));
        let ttl = segment.ttl - u8::from(self.routed);
        Segment { source, destination, dmac, smac, ttl, ..segment.clone() }
    }

    /// An error whose ends were changed already.
    pub fn error(&self, error: IcmpError) -> IcmpError {
        let (dmac, smac) = self.macs.unwrap_or((error.dmac, error.smac));
        IcmpError { dmac, smac, ttl: error.ttl - u8::from(self.routed), ..error }
    }
}

impl Play<'_> {
    /// Packets of each instance so far: in mode `dsr` the frame does not tell where it went.
    pub(super) fn traffic(&mut self) -> Vec<(u32, u64)> {
        if self.scene.settings.mode != mode::DSR {
            return Vec::new();
        }
        let ids: Vec<u32> = self.scene.instances().map(|instance| instance.id).collect();
        ids.into_iter().map(|id| (id, self.runner.counters(id).packets)).collect()
    }

    /// The instance of a version that a packet was sent to.
    pub(super) fn reached(
        &mut self,
        run: &Run,
        version: usize,
        before: &[(u32, u64)],
    ) -> Result<Instance, String> {
        let to = destination(&run.frame);
        let after = self.traffic();
        let counted = |id: u32| {
            let packets = |list: &[(u32, u64)]| list.iter().find(|(at, _)| *at == id).copied();
            packets(before) != packets(&after)
        };
        let scene = self.scene;
        let found =
            scene.versions[version].instances.iter().find(|instance| match scene.settings.mode {
                mode::DSR => counted(instance.id),
                mode::IPIP | mode::GUE => instance.socket.ip() == to.ip(),
                _ => instance.socket == to,
            });
        found.copied().ok_or_else(|| format!("sent to {to}, {run:?}"))
    }

    /// Sent to an instance; without a reason: left to the kernel to send.
    pub(super) fn reached_instance(
        &mut self,
        run: &Run,
        form: &Form<'_>,
        instance: Instance,
        reason: Option<Reason>,
    ) -> Result<(), String> {
        let mode = self.scene.settings.mode;
        let source = if mode == mode::SNAT { self.stand_in(run, form)? } else { form.ends.0 };
        let translated = Some((source, instance.socket));
        let mut change = Change { ends: translated, ..Change::default() };
        match (mode, reason) {
            (mode::LOCAL, Some(reason)) => outcome(run, Verdict::Pass, reason)?,
            (_, None) => outcome(run, Verdict::Pass, Reason::HandedToKernel)?,
            (_, Some(reason)) => {
                change.macs = Some(self.leaves(run, instance.socket.ip(), reason)?);
                change.routed = mode::routed(mode);
            }
        }
        if mode::one_way(mode) {
            change.ends = None;
        }
        let mut want = (form.build)(&change);
        if self.scene.tunnels() {
            want = self.wrapped(run, form, instance, &want)?;
        }
        verify(&run.frame)?;
        bytes(&run.frame, &want)
    }

    /// Sent to the client of a connection, as if from its frontend.
    pub(super) fn reached_client(
        &mut self,
        run: &Run,
        form: &Form<'_>,
        reason: Option<Reason>,
    ) -> Result<(), String> {
        let client = self.scene.client_socket(form.connection);
        let translated = Some((self.scene.frontend(form.connection).socket, client));
        let mut change = Change { ends: translated, ..Change::default() };
        match (self.scene.settings.mode, reason) {
            (mode::LOCAL, Some(reason)) => outcome(run, Verdict::Pass, reason)?,
            (_, None) => outcome(run, Verdict::Pass, Reason::HandedToKernel)?,
            (_, Some(reason)) => {
                change.macs = Some(self.leaves(run, client.ip(), reason)?);
                change.routed = true;
            }
        }
        verify(&run.frame)?;
        bytes(&run.frame, &(form.build)(&change))
    }

    /// Sent out by us on the way to an address. Returns the MACs of that way.
    fn leaves(
        &mut self,
        run: &Run,
        to: IpAddr,
        reason: Reason,
    ) -> Result<([u8; 6], [u8; 6]), String> {
        if let Some((verdict, dmac, smac)) = self.runner.way(to) {
            outcome(run, verdict, reason)?;
            return Ok((dmac, smac));
        }
        if !matches!(run.verdict, Verdict::Bounce | Verdict::Send(_)) {
            return Err(format!("not sent: {:?} {:?}", run.verdict, run.reason));
        }
        same("reason", &run.reason, &reason)?;
        let mac = |at: usize| -> [u8; 6] { std::array::from_fn(|i| run.frame[at + i]) };
        Ok((mac(0), mac(6)))
    }

    /// Mode `snat`: what stands for the client: any of the service's sources at first, then always
    /// the same.
    fn stand_in(&mut self, run: &Run, form: &Form<'_>) -> Result<SocketAddr, String> {
        if let Some(source) = self.sources.get(&form.connection) {
            return Ok(*source);
        }
        let source = ends(&run.frame).ok_or("no IP packet")?.0;
        let settings = &self.scene.settings;
        let addresses: Vec<IpAddr> = match self.scene.family {
            Family::V4 => (settings.snat4.iter().take(settings.snat_count4.into()))
                .map(|at| release_common::abi::Address::ip(*at))
                .collect(),
            Family::V6 => (settings.snat6.iter().take(settings.snat_count6.into()))
                .map(|at| release_common::abi::Address::ip(*at))
                .collect(),
        };
        let offset = source.port().wrapping_sub(settings.snat_port);
        if !addresses.contains(&source.ip()) || offset >= settings.snat_ports {
            return Err(format!("{source} is no source of the service"));
        }
        if form.whole {
            self.sources.insert(form.connection, source);
        }
        Ok(source)
    }

    /// Tunnel modes: the frame whose IP packet travels in another. The outer source and source port
    /// may be any of the service's at first, then they are always the same.
    fn wrapped(
        &mut self,
        run: &Run,
        form: &Form<'_>,
        instance: Instance,
        frame: &[u8],
    ) -> Result<Vec<u8>, String> {
        let at = ip_at(frame);
        let (link, inner) = frame.split_at(at);
        let gue = self.scene.settings.mode == mode::GUE;
        let (source, _) = ends(&run.frame).ok_or("no IP packet")?;
        let port = if gue { source.port() } else { 0 };
        let (base, bits) = self.scene.tunnel_sources[Family::of(instance.socket.ip()).index()];
        let low = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        if source.ip().is_ipv4() != base.is_ipv4()
            || (low(source.ip()) ^ low(base)) >> bits != 0
            || gue && port < 49152
        {
            return Err(format!("outer source {source}, base {base}/{bits}"));
        }
        if form.whole {
            let first = *self.tunnels.entry(form.connection).or_insert((source.ip(), port));
            same("outer source", &(source.ip(), port), &first)?;
        }
        // Without padding behind it.
        let tos = if inner[0] >> 4 == 4 { inner[1] } else { inner[0] << 4 | inner[1] >> 4 };
        let length = u16::from_be_bytes(if inner[0] >> 4 == 4 {
            [inner[2], inner[3]]
        } else {
            [inner[4], inner[5]]
        });
        let length = usize::from(length) + if inner[0] >> 4 == 4 { 0 } else { 40 };
        let mut payload = inner[..length].to_vec();
        if gue {
            let udp = (8 + length) as u16;
            let header = [port, GUE_PORT, udp, 0].map(u16::to_be_bytes).concat();
            payload = [header, payload].concat();
        }
        let number = match (gue, inner[0] >> 4) {
            (true, _) => protocol::UDP,
            (_, 4) => protocol::IPV4,
            _ => protocol::IPV6,
        };
        let (packet, ethertype): (_, [u8; 2]) = match (source.ip(), instance.socket.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4::new(source, destination, number);
                (Ipv4 { fragment: 0x4000, tos, ..header }.build(&payload), [8, 0])
            }
            (source, destination) => {
                let mut packet = crate::packets::ip(source, destination, number, &payload);
                (packet[0], packet[1]) = (0x60 | tos >> 4, tos << 4);
                (packet, [0x86, 0xdd])
            }
        };
        Ok([&link[..at - 2], &ethertype, &packet, &inner[length..]].concat())
    }
}
