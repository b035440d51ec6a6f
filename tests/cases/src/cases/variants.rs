//! The same cases in other clothes.

use super::script::{Case, Icmp, Step};
use crate::model::Family;
use crate::model::scene::Shape;

/// How frames look.
#[derive(Clone, Copy)]
pub struct Variant {
    name: &'static str,
    family: Family,
    tagged: bool,
    more: bool,
}

/// Plain frames of both families.
pub const BOTH: [Variant; 2] = [
    Variant { name: "IPv4", family: Family::V4, tagged: false, more: false },
    Variant { name: "IPv6", family: Family::V6, tagged: false, more: false },
];

/// Both families: plain, behind a VLAN tag, with IPv4 options or IPv6 extension headers.
pub const ALL: [Variant; 6] = [
    BOTH[0],
    BOTH[1],
    Variant { name: "IPv4 tagged", family: Family::V4, tagged: true, more: false },
    Variant { name: "IPv6 tagged", family: Family::V6, tagged: true, more: false },
    Variant { name: "IPv4 options", family: Family::V4, tagged: false, more: true },
    Variant { name: "IPv6 extensions", family: Family::V6, tagged: true, more: true },
];

/// Each case in each of the variants that it can be told in.
pub fn in_variants(cases: Vec<Case>, variants: &[Variant]) -> Vec<Case> {
    let mut all = Vec::new();
    for variant in variants {
        all.extend(cases.iter().filter(|case| variant.can_tell(case)).map(|case| variant.of(case)));
    }
    all
}

impl Variant {
    /// IPv6 packets are never fragmented on the way, and have UDP checksums.
    fn can_tell(self, case: &Case) -> bool {
        self.family == Family::V4
            || case.steps.iter().all(|step| match step {
                Step::Packet(packet) | Step::Icmp(Icmp { about: packet, .. }) => {
                    packet.dont_fragment && !packet.unchecked
                }
                Step::Frame(..) => false,
                _ => true,
            })
    }

    fn of(self, case: &Case) -> Case {
        let mut scene = case.scene.clone().told_in(self.family);
        scene.shape = Shape {
            vlan: self.tagged.then_some(12),
            label: if self.family == Family::V6 { 0xa_bcde } else { 0 },
            ..Shape::default()
        };
        if self.more {
            // Router alert and no-operations; hop-by-hop and destination options with padding.
            scene.shape.ip_options = vec![0x94, 4, 0, 0, 1, 1, 1, 0];
            scene.shape.extensions = vec![
                (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                (60, [&[0, 1, 1, 12][..], &[0; 12]].concat()),
            ];
        }
        Case { variant: self.name, scene, ..case.clone() }
    }
}
