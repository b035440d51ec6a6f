//! What an established flow's packet costs by the number of flows, instances and services.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use release_common::abi::Flow;
use release_tests::driver::Packets;

use super::case::{Case, To};
use super::rounds::{Rounds, median};
use crate::row::{Curve, Figure, Section};

/// log2 of the flows of the curves that are about something else.
const FLOWS: u32 = 12;
/// Ids of the instances of a curve begin here: behind those of the scene.
const FIRST: u32 = 1000;
/// Ids of their services likewise.
const FIRST_SERVICE: u32 = 10;

impl Rounds {
    /// By the number of flows, beside `lookup` over as many entries.
    pub fn by_flows(&mut self, flow: Flow) -> Result<()> {
        let (mut ours, mut lookup) = (Vec::new(), Vec::new());
        let step = if self.scope.quick { 5 } else { 2 };
        for flows in (0..=20).step_by(step) {
            let packets = Packets { flows, ..self.reference.clone() };
            self.rig.fill(&packets, flow, |_| flow.backend)?;
            let case = Case::new("packet.flows", "many flows", &packets);
            let times = self.take(&mut [Case { to: To::AnyInstance, ..case }])?;
            let count = f64::from(1_u32 << flows);
            ours.push((count, median(&times.net(0))));
            lookup.push((count, median(&self.lookups(&packets)?)));
        }
        self.measured.figures.push(Figure {
            section: Section::PacketPath,
            id: "packet-flows".to_owned(),
            title: "An established flow's packet, by the number of flows in random order"
                .to_owned(),
            x: "flows".to_owned(),
            x_log: true,
            y: "ns, net".to_owned(),
            y_log: false,
            curves: vec![
                Curve { name: "releasectl".to_owned(), points: ours },
                Curve { name: "lookup".to_owned(), points: lookup },
            ],
        });
        Ok(())
    }

    /// By the number of instances that 4,096 flows are spread over, all of one service, or each of one
    /// of its own.
    pub fn by_instances(&mut self, flow: Flow) -> Result<()> {
        let (mut instances, mut services) = (Vec::new(), Vec::new());
        let step = if self.scope.quick { 4 } else { 2 };
        for bits in (0..=FLOWS).step_by(step) {
            for (each, points) in [(false, &mut instances), (true, &mut services)] {
                // Ids of services end where those of 4,096 do.
                let count =
                    if each { (1_u32 << bits).min(4096 - FIRST_SERVICE) } else { 1 << bits };
                points.push((f64::from(count), self.spread(flow, count, each)?));
            }
        }
        self.measured.figures.push(Figure {
            section: Section::PacketPath,
            id: "packet-instances".to_owned(),
            title: "An established flow's packet, 4,096 flows in random order".to_owned(),
            x: "instances, or services of one instance each".to_owned(),
            x_log: true,
            y: "ns, net".to_owned(),
            y_log: false,
            curves: vec![
                Curve { name: "instances of one service".to_owned(), points: instances },
                Curve { name: "services".to_owned(), points: services },
            ],
        });
        Ok(())
    }

    fn spread(&mut self, flow: Flow, count: u32, services: bool) -> Result<f64> {
        let socket = |number: u32| -> SocketAddr {
            let [_, _, high, low] = number.to_be_bytes();
            (Ipv4Addr::new(10, 77, high, low), 8080).into()
        };
        for number in 0..count {
            let service = if services { FIRST_SERVICE + number } else { self.rig.scene.service };
            self.rig.add_instance(FIRST + number, socket(number), service)?;
        }
        let packets = Packets { flows: FLOWS, ..self.reference.clone() };
        self.rig.fill(&packets, flow, |number| FIRST + number % count)?;
        let case = Case::new("packet.instances", "many instances", &packets);
        let to = To::Among(Ipv4Addr::new(10, 77, 0, 0));
        Ok(median(&self.take(&mut [Case { to, ..case }])?.net(0)))
    }
}
