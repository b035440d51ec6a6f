//! The cases that have rows.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Result;
use release_common::abi::Flow;
use release_common::reason::Reason;
use release_tests::driver::Packets;
use release_tests::frames::{Segment, destination, flags, syn_options};
use release_tests::model::Scene;

use super::EMBRYOS;
use super::case::{Case, PASS, padded};
use super::connection::{Connection, DATA, SCALE};
use super::rounds::Rounds;
use crate::row::{Row, Section};

/// log2 of new flows whose entries stay in the caches.
const FEW: u32 = 10;

/// What Katran took on a machine of this kind, net of an empty program, in terms of `lookup`'s net: the
/// middle of what was measured.
mod katran {
    pub const MANY: f64 = 374.5 / 31.0;
    pub const SYN: f64 = 304.5 / 31.0;
    pub const SYN_CHURNING: f64 = 740.0 / 31.0;
    pub const NOT_OURS: f64 = 50.0 / 31.0;
    pub const UDP: f64 = 161.5 / 31.0;
}

/// The client of flow 0: the numbers of other flows are added to its address and port.
pub const CLIENT: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 0), 16384));

/// The client of other flows: what they leave in the table must not be the first ones' handshakes.
const CHURNING: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 144, 0, 0), 16384));

impl Rounds {
    /// One flow, and many.
    pub fn established(&mut self, one: &Connection, flow: Flow) -> Result<()> {
        let seq_step = DATA as u32;
        let data = Packets { seq_step, ..Packets::of_one(one.by_client(DATA)) };
        let acks = self.reference.clone();
        let reply = Packets { seq_step, reply: true, ..Packets::of_one(one.by_server(DATA)) };
        self.rows(&mut [
            Case::new("packet.established.data", "established, client to instance, data", &data)
                .to(one.instance)
                .at_most(1.8),
            Case::new("packet.established.ack", "established, client to instance, no data", &acks)
                .to(one.instance)
                .at_most(1.8),
            Case {
                reason: Reason::Replied,
                ..Case::new(
                    "packet.established.reply",
                    "established, instance to client, data",
                    &reply,
                )
            }
            .to(one.frontend)
            .at_most(2.8),
        ])?;
        for (flows, id, what, target) in [
            (
                18,
                "packet.established.262144",
                "established, 262,144 flows in random order",
                Some(0.6 * katran::MANY),
            ),
            (
                20,
                "packet.established.1048576",
                "established, 1,048,576 flows in random order",
                None,
            ),
        ] {
            let packets = Packets { flows, ..acks.clone() };
            self.rig.fill(&packets, flow, |_| flow.backend)?;
            let case = Case::new(id, what, &packets).to(one.instance);
            self.rows(&mut [Case { target, ..case }])?;
        }
        Ok(())
    }

    /// SYNs of new flows.
    pub fn handshakes(&mut self) -> Result<()> {
        self.rig.clear("FLOWS4")?;
        let frontend = self.rig.scene.frontends[0].socket;
        let new = |client, flows, forgets| {
            let syn = Segment {
                options: syn_options(Some(SCALE)),
                ..Segment::tcp(client, frontend, flags::SYN)
            };
            let frame = padded(syn.numbers(999, 0).build());
            Packets { flows, forgets, ..Packets::of_one(frame) }
        };
        // It is the writing that is measured here, not a large table's memory.
        let room = Case {
            reason: Reason::Placed,
            ..Case::new("packet.syn", "SYN, pin written", &new(CLIENT, FEW, true))
        };
        let packets = new(CHURNING, 26, false);
        self.rig.drive(&mut self.driver)?;
        let filled = self.driver.run(&packets, 2 * EMBRYOS)?;
        let churning = Case {
            reason: Reason::Placed,
            flow: filled.flow,
            ..Case::new("packet.syn.churning", "SYN, always new, table churning", &packets)
        };
        self.rows(&mut [
            room.any().at_most(0.7 * katran::SYN),
            churning.any().at_most(0.7 * katran::SYN_CHURNING),
        ])
    }

    /// What is not ours, and UDP.
    pub fn others(&mut self) -> Result<()> {
        let frontend = self.rig.scene.frontends[0].socket;
        let other = SocketAddr::new(frontend.ip(), 9);
        let ack = Segment::tcp(CLIENT, other, flags::ACK).data(DATA).build();
        let packets = Packets::of_one(ack);
        let not_ours = Case {
            action: PASS,
            reason: Reason::NotOurPort,
            ..Case::new("packet.not-ours", "not ours, left to the kernel", &packets)
        };
        self.rows(&mut [not_ours.at_most(0.7 * katran::NOT_OURS)])?;
        let mut scene = Scene::new(&[1], 4).udp();
        scene.frontends.truncate(1);
        self.rig.install(scene)?;
        let datagram = Segment::udp(CLIENT, frontend).data(22).build();
        let (_, out) = self.rig.packet(&datagram)?;
        let instance = destination(&out);
        self.rig.packet(&Segment::udp(instance, CLIENT).data(22).build())?;
        let packets = Packets::of_one(datagram);
        self.rig.flow(&packets.frame)?;
        let udp =
            Case::new("packet.udp", "UDP, established, client to instance", &packets).to(instance);
        self.rows(&mut [udp.at_most(0.6 * katran::UDP)])
    }

    /// What loading the programs took, and how large they are.
    pub fn programs(&mut self) {
        let verified = self.rig.verified();
        let path = ["release_xdp", "xdp4_tcp", "xdp4_place", "xdp4_reply", "xdp4_act"];
        let of = |name: &str| verified.iter().find(|program| program.name == name);
        let mut rows = Vec::new();
        for program in path.into_iter().filter_map(of) {
            let name = &program.name;
            for (id, what, unit, value) in [
                ("verified", "instructions verified", "instructions", program.instructions),
                ("jited", "machine code", "B", program.jited),
            ] {
                let (id, what) = (format!("packet.{name}.{id}"), format!("{name}: {what}"));
                rows.push(Row::new(Section::PacketPath, &id, &what, unit, &[f64::from(value)]));
            }
        }
        let all: u32 = verified.iter().map(|program| program.instructions).sum();
        let what = "all programs: instructions verified";
        let all = Row::new(
            Section::PacketPath,
            "packet.verified",
            what,
            "instructions",
            &[f64::from(all)],
        );
        rows.push(all);
        self.measured.rows.extend(rows);
    }
}
