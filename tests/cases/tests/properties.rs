//! What holds for any packets, and for any conversation.

use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use release_cases::frames::{Error, IcmpError, Segment, destination, flags, verify};
use release_cases::model::conversation::{Conversation, Event};
use release_cases::model::scene::{Rule, UDP};
use release_cases::model::tables::egress_on;
use release_cases::model::{Family, Key, ModelTables, Scene};
use release_common::abi::{Addr6, Be32, Counters, conversation, mode, service_flag};
use release_common::pipeline::{Action, Counter};
use release_common::reason::Reason;
use release_common::tcp::word::{FlowWord, Phase};

fn sums(tables: &ModelTables) -> [u64; Counters::FIELDS] {
    let mut sums = [0; Counters::FIELDS];
    for instance in tables.scene().instances() {
        let fields: [u64; Counters::FIELDS] = bytemuck::cast(tables.counters(instance.id));
        sums.iter_mut().zip(fields).for_each(|(sum, count)| *sum += count);
    }
    sums
}

fn conserved(tables: &ModelTables) {
    let (sums, tally) = (sums(tables), tables.tally());
    let count = |counter: Counter| sums[counter as usize];
    let begun = count(Counter::Opened) + count(Counter::Adopted);
    let closed = count(Counter::ClosedFin) + count(Counter::ClosedRst) + count(Counter::Superseded);
    assert_eq!(begun + count(Counter::Reopened), tally.live + closed);
    assert_eq!(tally.gauge, tally.live as i64);
    assert_eq!(tally.entries, (tally.live + tally.closed) as i64);
    assert_eq!(tally.sessions, tally.in_sessions);
    let created = count(Counter::Placed) + count(Counter::Trials);
    let ended = count(Counter::EmbryosEnded) + tally.evicted;
    assert_eq!(created, begun + ended + tally.embryos);
    let max = u64::from(tables.scene().settings.max_flows);
    let limited = max != 0 && count(Counter::Adopted) + count(Counter::Reopened) == 0;
    assert!(!limited || tally.live <= max, "{} live flows of {max}", tally.live);
}

/// The host that plays this part in a scene.
fn host(scene: &Scene, last: u8, port: u16) -> SocketAddr {
    (scene.family.ip(Ipv4Addr::new(192, 0, 2, last)), port).into()
}

/// Any mode, conversation and family that go together.
fn scene() -> impl Strategy<Value = Scene> {
    let modes =
        vec![mode::NAT, mode::NAT, mode::SNAT, mode::DSR, mode::IPIP, mode::GUE, mode::LOCAL];
    let talks =
        vec![conversation::FLOW, conversation::CLIENT, conversation::DATAGRAM, conversation::QUIC];
    let families = prop::sample::select(vec![Family::V4, Family::V6]);
    (
        prop::sample::select(modes),
        prop::sample::select(talks),
        families.clone(),
        families,
        any::<(bool, bool, bool)>(),
    )
        .prop_map(|(mode, talk, family, reached, (one, few, ruled))| {
            let mut scene =
                Scene::new(&[1, 1], if one { 1 } else { 3 }).mode(mode).conversation(talk);
            if matches!(talk, conversation::DATAGRAM | conversation::QUIC) {
                scene = scene.udp();
            } else if few {
                scene.frontends[1].protocol = UDP;
            }
            if ruled {
                let source = Ipv4Addr::new(192, 0, 2, 1).into();
                scene.rules.push(Rule { source, bits: 32, ring: 2 });
                scene.settings.flags |= service_flag::RULES;
            }
            let tunnels = scene.tunnels();
            scene = scene.told_in(family).set(|service| {
                (service.quic_id_len, service.session_timeout) = (4, 50);
                service.max_flows = if few { 2 } else { 0 };
                (service.snat_port, service.snat_ports) = (50_000, if one { 2 } else { 9 });
                (service.snat_count4, service.snat_count6) = (2, 2);
                for last in 0..2 {
                    let address = Ipv4Addr::new(10, 255, 0, last);
                    service.snat4[usize::from(last)] = Be32::from(address);
                    if let std::net::IpAddr::V6(ip) = Family::V6.ip(address) {
                        service.snat6[usize::from(last)] = Addr6::from(ip);
                    }
                }
            });
            if tunnels && reached == Family::V6 { scene.reached_by(Family::V6) } else { scene }
        })
}

/// Sockets that mean something in a scene.
fn sockets(scene: &Scene) -> Vec<SocketAddr> {
    let mut known: Vec<_> = scene.frontends.iter().map(|frontend| frontend.socket).collect();
    let ours = |socket: &SocketAddr| socket.is_ipv4() == (scene.family == Family::V4);
    known.extend(scene.instances().map(|instance| instance.socket).filter(ours));
    known.extend([40_000, 80, 8080].map(|port| host(scene, 1, port)));
    for (last, port) in [(0, 50_000), (0, 50_001), (1, 50_000), (1, 50_001)] {
        known.push((scene.family.ip(Ipv4Addr::new(10, 255, 0, last)), port).into());
    }
    known
}

/// A packet, as numbers that a scene gives a meaning.
#[derive(Clone, Debug)]
struct Any {
    ends: (prop::sample::Index, prop::sample::Index),
    flags: u8,
    numbers: (u32, u32),
    window: u16,
    data: Vec<u8>,
    ttl: u8,
    options: Vec<u8>,
    kind: u8,
    fragment: u8,
}

prop_compose! {
    /// Any packet between any of the sockets that mean something, with few numbers.
    fn any_packet()(
        ends: (prop::sample::Index, prop::sample::Index),
        flags in any::<u8>(), numbers in (0..4_u32, 0..4_u32),
        window in any::<u16>(),
        data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            Just(vec![0x40, 9, 1, 1, 0xab, 0xcd, 0, 0, 0, 0, 0, 0]),
            Just(vec![0x40, 9, 2, 1, 0xab, 0xcd, 0, 0, 0, 0, 0, 0]),
            Just(vec![7; 40]),
        ],
        ttl in prop::sample::select(vec![0, 1, 2, 64]),
        options in prop::sample::select(vec![
            vec![], vec![3, 3, 7, 0], vec![1; 40], vec![2, 0, 0, 0], vec![0; 8],
            vec![255; 12], vec![1, 1, 1, 3], [[1; 4]; 9].concat(),
        ]),
        kind in 0..12_u8, fragment in 0..12_u8,
    ) -> Any {
        Any { ends, flags, numbers, window, data, ttl, options, kind, fragment }
    }
}

impl Any {
    fn segment(&self, scene: &Scene) -> Segment {
        let known = sockets(scene);
        let (source, destination) = (*self.ends.0.get(&known), *self.ends.1.get(&known));
        let segment = Segment {
            window: self.window,
            ttl: self.ttl,
            options: self.options.clone(),
            protocol: if self.kind & 1 == 0 { 6 } else { 17 },
            payload: self.data.clone(),
            ..Segment::tcp(source, destination, self.flags)
        };
        segment.numbers(self.numbers.0, self.numbers.1)
    }

    fn frame(&self, scene: &Scene) -> Vec<u8> {
        let segment = self.segment(scene);
        if self.kind == 11 {
            let (source, destination) = (segment.destination.ip(), segment.source.ip());
            let error = [Error::TimeExceeded, Error::TooBig(1300)][usize::from(self.fragment & 1)];
            let quote = segment.packet();
            let quote = quote[..quote.len().min(28 + usize::from(self.fragment) * 8)].to_vec();
            return IcmpError {
                ttl: self.ttl,
                ..IcmpError::new(source, destination, error, quote)
            }
            .build();
        }
        match (self.fragment, segment.transport().len() > 24) {
            (0, true) => segment.fragments(&[24]).swap_remove(0),
            (1, true) => segment.fragments(&[24]).swap_remove(1),
            _ => segment.build(),
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<bool>(), 1..1460_u16).prop_map(|(end, len)| Event::Send(end, len)),
        1 => any::<bool>().prop_map(Event::Close),
        2 => any::<bool>().prop_map(Event::Retransmit),
        12 => (0..4_u8, any::<u8>()).prop_map(|(link, which)| Event::Arrive(link, which)),
        2 => (0..4_u8, any::<u8>()).prop_map(|(link, which)| Event::Lose(link, which)),
        2 => (0..4_u8, any::<u8>()).prop_map(|(link, which)| Event::Repeat(link, which)),
        1 => (0..3_u8, 0..3_u8).prop_map(|(a, b)| Event::Shift(a, b)),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::V4, Family::V6])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any bytes: no panic, and what is passed is as it was, unless it was translated for the
    /// host (which needs an entry, or mode `local`).
    #[test]
    fn arbitrary_bytes(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        ip in 0..3_u8,
        scene in scene(),
    ) {
        if ip > 0 && frame.len() > 24 {
            if ip == 1 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[20..22].copy_from_slice(&[0x40, 0]);
                frame[23] = [6, 17, 1][usize::from(frame[0]) % 3];
            } else {
                frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                frame[18] = 0;
                frame[20] = [6, 17, 58, 0, 60, 43, 44][usize::from(frame[0]) % 7];
            }
        }
        let tables = ModelTables::new(&scene, 8, 8);
        let (outcome, out) = tables.run(&frame);
        if outcome.action == Action::Pass {
            prop_assert_eq!(&out, &frame);
        }
        conserved(&tables);
        let (outcome, out) = egress_on(&tables, &frame);
        prop_assert_eq!(outcome.action, Action::Pass);
        prop_assert_eq!(out, frame);
    }

    /// Any packets between sockets that mean something, in any mode: no panic, conservation after
    /// each, correct checksums on whatever leaves.
    #[test]
    fn arbitrary_packets(
        scene in scene(),
        packets in prop::collection::vec((any_packet(), 0..24_u8), 1..80),
    ) {
        let tables = ModelTables::new(&scene, 3, 3);
        for (packet, also) in packets {
            match also {
                0 => tables.shift(&[1, 0]),
                1 => tables.shift(&[0, 1]),
                2 => tables.shift(&[0, 0]),
                3 => tables.clock.set(tables.clock.get() + 60),
                4 => drop(tables.end_session(host(&scene, 1, 0).ip(), 50)),
                5 => drop(tables.free_ports(100)),
                _ => {}
            }
            let frame = packet.frame(&scene);
            prop_assert_eq!(verify(&frame), Ok(()));
            let leaves = scene.settings.mode == mode::LOCAL && also % 2 == 0;
            let (outcome, out) = if leaves { egress_on(&tables, &frame) } else { tables.run(&frame) };
            if outcome.action != Action::Drop {
                prop_assert_eq!(verify(&out), Ok(()), "{:?}", outcome);
            }
            prop_assert_ne!(outcome.reason, Reason::BrokenReference);
            conserved(&tables);
        }
    }

    /// A cut of a valid packet is passed as it was.
    #[test]
    fn cut_packets(packet in any_packet(), scene in scene(), cut in any::<prop::sample::Index>()) {
        let frame = packet.segment(&scene).build();
        let frame = &frame[..cut.index(frame.len())];
        let tables = ModelTables::new(&scene, 8, 8);
        let (outcome, out) = tables.run(frame);
        prop_assert_eq!(outcome.action, Action::Pass);
        prop_assert_eq!(&out, frame);
    }

    /// I1, I3: whatever the network and the weights do, a connection stays with its instance,
    /// every segment fits, and it closes once.
    #[test]
    fn conversations(
        numbers: (u32, u32),
        shifts in any::<[[u8; 2]; 2]>(),
        events in prop::collection::vec(event(), 0..150),
        family in family(),
    ) {
        let tables = ModelTables::new(&Scene::new(&[1, 1], 3).told_in(family), 8, 8);
        let shifts = shifts.map(|weights| weights.map(|weight| u32::from(weight % 3)));
        let wrong = |why: String| TestCaseError::fail(why);
        let mut talk = Conversation::open(&tables, 50_000, numbers, shifts).map_err(wrong)?;
        conserved(&tables);
        for event in events {
            talk.event(event).map_err(wrong)?;
            conserved(&tables);
        }
        talk.finish().map_err(wrong)?;
        conserved(&tables);
        let frontend = tables.scene().frontends[0];
        let client = host(tables.scene(), 7, 50_000);
        let key = Key { client, frontend: frontend.socket, protocol: frontend.protocol };
        let phase = tables.flow_at(&key).map(|flow| FlowWord(flow.state).phase());
        prop_assert_eq!(phase, Some(Phase::ClosedFin));
        let mut want = [0; Counters::FIELDS];
        want[Counter::Placed as usize] = 1;
        want[Counter::Opened as usize] = 1;
        want[Counter::ClosedFin as usize] = 1;
        prop_assert_eq!(&sums(&tables)[..16], &want[..16]);
    }

    /// I2: after a shift no SYN is placed on a version without weight.
    #[test]
    fn no_syn_on_a_version_without_weight(
        shifts in prop::collection::vec((0..4_u32, 0..4_u32, 0..4_u32), 1..20),
        port in 1024..60_000_u16,
        family in family(),
    ) {
        let tables = ModelTables::new(&Scene::new(&[1, 1, 1], 2).told_in(family), 8, 512);
        for (round, (a, b, c)) in (0_u8..).zip(shifts) {
            let weights = [a, b, c];
            tables.shift(&weights);
            for step in 0..8 {
                let client = host(tables.scene(), round, port.wrapping_add(step * 7));
                let frontend = tables.scene().frontends[0].socket;
                let syn = Segment::tcp(client, frontend, flags::SYN).build();
                let (outcome, out) = tables.run(&syn);
                if a + b + c == 0 {
                    prop_assert_eq!(outcome.action, Action::Bounce);
                    continue;
                }
                let to = destination(&out);
                let placed = tables.scene().instances().find(|i| i.socket == to);
                let version = placed.and_then(|i| tables.scene().version_of(i.id));
                prop_assert!(version.is_some_and(|version| weights[version] > 0));
            }
        }
    }
}
