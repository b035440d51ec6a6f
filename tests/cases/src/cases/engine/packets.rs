//! Packets of connections: made, sent, judged.

use std::net::SocketAddr;

use release_common::abi::mode;
use release_common::reason::Reason;

use super::super::runner::Run;
use super::super::script::{Icmp, Packet, Sender, Verdict, Want};
use super::Play;
use super::compare::{bytes, outcome, untouched};
use super::sent::Change;
use crate::frames::{Error, IcmpError, Segment, flags, ip_at, padded, verify};
use crate::model::scene::TCP;

/// Something sent, in the form it has once the packet path has changed it.
pub(super) struct Form<'a> {
    pub connection: usize,
    /// Both ends as they are.
    pub ends: (SocketAddr, SocketAddr),
    /// Whether all of a packet's path can be told from it: ports and all.
    pub whole: bool,
    /// What an ICMP error about it quotes.
    pub quote: Vec<u8>,
    /// Its VLAN tag.
    pub vlan: Option<u16>,
    pub build: &'a dyn Fn(&Change) -> Vec<u8>,
}

impl Play<'_> {
    fn ends(&self, packet: &Packet) -> Result<(SocketAddr, SocketAddr), String> {
        let client = self.scene.client_socket(packet.connection);
        let receiver = self.sources.get(&packet.connection).copied().unwrap_or(client);
        Ok(match packet.sender {
            Sender::Client => (client, self.scene.frontend(packet.connection).socket),
            Sender::Server => (self.pin(packet.connection)?.socket, receiver),
            Sender::Instance(id) => {
                let instance = self.scene.instances().find(|instance| instance.id == id);
                (instance.ok_or("no such instance")?.socket, receiver)
            }
        })
    }

    /// The packet between these ends, in the scene's shape.
    fn segment(&self, packet: &Packet, (source, destination): (SocketAddr, SocketAddr)) -> Segment {
        let shape = self.scene.shape.clone();
        let plain = Segment {
            vlan: shape.vlan,
            label: shape.label,
            ip_options: shape.ip_options,
            extensions: shape.extensions,
            window: packet.window,
            options: packet.options.clone(),
            ttl: packet.ttl,
            tos: packet.tos,
            dont_fragment: packet.dont_fragment,
            protocol: packet.protocol,
            unchecked: packet.unchecked && source.is_ipv4(),
            ..Segment::tcp(source, destination, packet.flags)
        };
        let data = packet.data.min(plain.room());
        let segment = plain.numbers(packet.seq, packet.ack).data(data);
        match &packet.bytes {
            Some(bytes) => Segment { payload: bytes.clone(), ..segment },
            None => segment,
        }
    }

    /// Whether a packet is one that the host sends.
    fn leaves_the_host(&self, packet: &Packet) -> bool {
        self.scene.settings.mode == mode::LOCAL && packet.sender != Sender::Client
    }

    fn send(&mut self, packet: &Packet, frame: &[u8]) -> Option<Run> {
        if self.leaves_the_host(packet) {
            self.runner.egress(frame)
        } else {
            Some(self.runner.run(frame))
        }
    }

    pub(super) fn packet(&mut self, packet: &Packet) -> Result<bool, String> {
        let ends = self.ends(packet)?;
        let segment = self.segment(packet, ends);
        let shape = |segment: &Segment| {
            if packet.padded { padded(segment.build()) } else { segment.build() }
        };
        let frame = shape(&segment);
        let before = self.traffic();
        let Some(run) = self.send(packet, &frame) else { return Ok(false) };
        match packet.want {
            Want::Reset(reason) if segment.protocol == TCP => {
                outcome(&run, Verdict::Bounce, reason)?;
                bytes(&run.frame, &refusal_of(&segment).build())?;
            }
            want => {
                let reset = matches!(want, Want::ResetInstance(_));
                let segment = if reset {
                    Segment { flags: flags::RST | flags::ACK, ..segment }
                } else {
                    segment
                };
                let build = |change: &Change| shape(&change.segment(&segment));
                let connection = packet.connection;
                let quote = frame[ip_at(&frame)..][..segment.ip_header() + 8].to_vec();
                let vlan = segment.vlan;
                let form = Form { connection, ends, whole: true, quote, vlan, build: &build };
                self.judge(&run, &frame, &form, want, before)?;
            }
        }
        Ok(true)
    }

    pub(super) fn fragments(
        &mut self,
        packet: &Packet,
        cuts: &[usize],
        arrivals: &[(usize, Want)],
    ) -> Result<bool, String> {
        let ends = self.ends(packet)?;
        let segment = self.segment(packet, ends);
        for &(index, want) in arrivals {
            let frame = segment.fragments(cuts).swap_remove(index);
            let before = self.traffic();
            let Some(run) = self.send(packet, &frame) else { return Ok(false) };
            let build =
                |change: &Change| change.segment(&segment).fragments(cuts).swap_remove(index);
            let connection = packet.connection;
            let header = segment.ip_header() + if ends.0.is_ipv4() { 0 } else { 8 };
            let quote = frame[ip_at(&frame)..].iter().copied().take(header + 8).collect();
            let vlan = segment.vlan;
            let form = Form { connection, ends, whole: false, quote, vlan, build: &build };
            self.judge(&run, &frame, &form, want, before)
                .map_err(|why| format!("fragment {index}: {why}"))?;
        }
        Ok(true)
    }

    pub(super) fn icmp(&mut self, icmp: &Icmp) -> Result<bool, String> {
        let packet = &icmp.about;
        let client = self.scene.client_socket(packet.connection);
        let frontend = self.scene.frontend(packet.connection).socket;
        let from_client = packet.sender == Sender::Client;
        // The quoted packet as it was on the far side of the packet path.
        let quoted_ends = if from_client {
            let source = self.sources.get(&packet.connection).copied().unwrap_or(client);
            (source, self.pin(packet.connection)?.socket)
        } else {
            (frontend, client)
        };
        let quoted = Segment { vlan: None, ..self.segment(packet, quoted_ends) };
        let router = icmp.router.map_or(quoted_ends.1.ip(), |ip| self.scene.family.ip(ip));
        let receiver = if icmp.astray { router } else { quoted_ends.0.ip() };
        let error = |source, destination, quoted: &Segment| {
            let all = quoted.packet();
            let quote = all[..all.len().min(quoted.ip_header() + icmp.quoted)].to_vec();
            IcmpError {
                vlan: self.scene.shape.vlan,
                ttl: icmp.ttl,
                ..IcmpError::new(source, destination, icmp.error, quote)
            }
        };
        let original = error(router, receiver, &quoted);
        let frame = original.build();
        let snat = self.scene.settings.mode == mode::SNAT;
        let build = |change: &Change| {
            let Some((source, destination)) = change.ends else {
                return change.error(original.clone()).build();
            };
            // What is quoted went the other way.
            let quoted = Segment { source: destination, destination: source, ..quoted.clone() };
            let from = if from_client || snat { source.ip() } else { router };
            change.error(error(from, destination.ip(), &quoted)).build()
        };
        // The client's packets find the instance, the instance's the client.
        let ends = if from_client {
            (self.pin(packet.connection)?.socket, client)
        } else {
            (self.sources.get(&packet.connection).copied().unwrap_or(client), frontend)
        };
        let before = self.traffic();
        let leaves = self.scene.settings.mode == mode::LOCAL && from_client;
        let run = if leaves { self.runner.egress(&frame) } else { Some(self.runner.run(&frame)) };
        let Some(run) = run else { return Ok(false) };
        let (connection, vlan, quote) = (packet.connection, None, Vec::new());
        let form = Form { connection, ends, whole: false, quote, vlan, build: &build };
        self.judge(&run, &frame, &form, icmp.want, before)?;
        Ok(true)
    }

    /// Judges what became of something that was not answered.
    fn judge(
        &mut self,
        run: &Run,
        frame: &[u8],
        form: &Form<'_>,
        want: Want,
        before: Vec<(u32, u64)>,
    ) -> Result<(), String> {
        match want {
            Want::Untouched(reason) => untouched(run, frame, reason),
            Want::Dropped(reason) => outcome(run, Verdict::Drop, reason),
            Want::To(version, reason) => {
                let instance = self.reached(run, version, &before)?;
                if self.pins.insert(form.connection, instance) != Some(instance) {
                    self.sources.remove(&form.connection);
                    self.tunnels.remove(&form.connection);
                }
                self.reached_instance(run, form, instance, Some(reason))
            }
            Want::Pinned(reason) | Want::ResetInstance(reason) => {
                let instance = self.pin(form.connection)?;
                self.reached_instance(run, form, instance, Some(reason))
            }
            Want::PinnedByKernel => {
                let instance = self.pin(form.connection)?;
                self.reached_instance(run, form, instance, None)
            }
            Want::Replied => self.reached_client(run, form, Some(Reason::Replied)),
            Want::RepliedAs(reason) => self.reached_client(run, form, Some(reason)),
            Want::RepliedByKernel => self.reached_client(run, form, None),
            Want::Reset(reason) => answered(run, form, reason, Error::PortUnreachable),
            Want::TimeExceeded => answered(run, form, Reason::TtlExceeded, Error::TimeExceeded),
            Want::TooBig(mtu) => answered(run, form, Reason::TooBig, Error::TooBig(mtu)),
        }
    }
}

/// Answered with an ICMP error to the sender, from the address it was sent to.
fn answered(run: &Run, form: &Form<'_>, reason: Reason, error: Error) -> Result<(), String> {
    outcome(run, Verdict::Bounce, reason)?;
    verify(&run.frame)?;
    let (source, destination) = (form.ends.1.ip(), form.ends.0.ip());
    let plain = IcmpError::new(source, destination, error, form.quote.clone());
    let want = IcmpError { dmac: plain.smac, smac: plain.dmac, vlan: form.vlan, ..plain };
    bytes(&run.frame, &want.build())
}

/// The RST that refuses a SYN (RFC 9293 §3.10.7.1).
fn refusal_of(syn: &Segment) -> Segment {
    let reset = Segment::tcp(syn.destination, syn.source, flags::RST | flags::ACK);
    let macs = (syn.smac, syn.dmac);
    let reset =
        Segment { window: 0, ident: 0, dmac: macs.0, smac: macs.1, vlan: syn.vlan, ..reset };
    reset.numbers(0, syn.end())
}
