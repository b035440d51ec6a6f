//! The table of packet cases, through the host build of the packet path.

use release_tests::cases::{ModelRunner, Report, all};

#[test]
fn all_cases_hold_on_the_host() {
    let report = Report::of(&all(), ModelRunner::new);
    for (category, count) in &report.passed {
        println!("{category:>12} {count}");
    }
    println!("{:>12} {}", "all", report.passed.values().sum::<usize>());
    assert!(report.not_applicable.is_empty(), "skipped: {:?}", report.not_applicable);
    assert!(
        report.failed.is_empty(),
        "{} cases do not hold:\n{}",
        report.failed.len(),
        report.failed.join("\n")
    );
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = all().into_iter().map(|case| (case.category, case.name)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

mod properties {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use proptest::prelude::*;
    use release_common::abi::{Be16, Counters, FlowKey4};
    use release_common::pipeline::{Action, Counter};
    use release_common::tcp::word::{FlowWord, Phase};
    use release_tests::frames::{Tcp, destination, flags, verify};
    use release_tests::model::conversation::{Conversation, Event};
    use release_tests::model::{ModelTables, Scene};

    fn scene() -> Scene {
        Scene::new(&[1, 1], 3)
    }

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
        let closed =
            count(Counter::ClosedFin) + count(Counter::ClosedRst) + count(Counter::Superseded);
        assert_eq!(begun + count(Counter::Reopened), tally.live + closed);
        assert_eq!(tally.gauge, tally.live as i64);
        assert_eq!(tally.entries, (tally.live + tally.closed) as i64);
        let created = count(Counter::Placed) + count(Counter::Trials);
        let ended = count(Counter::EmbryosEnded) + tally.evicted;
        assert_eq!(created, begun + ended + tally.embryos);
    }

    fn socket() -> impl Strategy<Value = SocketAddrV4> {
        let mut known: Vec<_> = scene().frontends;
        known.extend(scene().instances().map(|instance| instance.socket));
        known.push(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 40_000));
        known.push(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80));
        known.push(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8080));
        prop::sample::select(known)
    }

    prop_compose! {
        /// Any segment between any of the sockets that mean something, with few numbers.
        fn segment()(
            ends in (socket(), socket()), flags in any::<u8>(), seq in 0..4_u32, ack in 0..4_u32,
            window in any::<u16>(), len in 0..4_usize, ttl in prop::sample::select(vec![0, 1, 2, 64]),
            options in prop::sample::select(vec![
                vec![], vec![3, 3, 7, 0], vec![1; 40], vec![2, 0, 0, 0], vec![0; 8],
                vec![255; 12], vec![1, 1, 1, 3], [[1; 4]; 9].concat(),
            ]),
        ) -> Vec<u8> {
            let segment = Tcp { window, ttl, options, ..Tcp::new(ends.0, ends.1, flags) };
            segment.numbers(seq, ack).data(len).build()
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

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 512,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Any bytes: no panic, and what is passed is as it was, unless it was translated for the
        /// kernel (which needs a flow, and there is none).
        #[test]
        fn arbitrary_bytes(mut frame in prop::collection::vec(any::<u8>(), 0..200), ip: bool) {
            if ip && frame.len() > 24 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[20..22].copy_from_slice(&[0x40, 0]);
                frame[23] = 6;
            }
            let tables = ModelTables::new(&scene(), 8, 8);
            let (outcome, out) = tables.run(&frame);
            if outcome.action == Action::Pass {
                prop_assert_eq!(out, frame);
            }
            conserved(&tables);
        }

        /// Any segments between sockets that mean something: no panic, conservation after each,
        /// correct checksums on whatever leaves.
        #[test]
        fn arbitrary_segments(frames in prop::collection::vec((segment(), 0..20_u8), 1..80)) {
            let tables = ModelTables::new(&scene(), 3, 3);
            for (frame, also) in frames {
                match also {
                    0 => tables.shift(&[1, 0]),
                    1 => tables.shift(&[0, 1]),
                    2 => tables.shift(&[0, 0]),
                    _ => {}
                }
                let (outcome, out) = tables.run(&frame);
                match outcome.action {
                    Action::Drop => {}
                    _ => prop_assert_eq!(verify(&out), Ok(())),
                }
                conserved(&tables);
            }
        }

        /// A cut of a valid segment is passed as it was.
        #[test]
        fn cut_segments(frame in segment(), cut in any::<prop::sample::Index>()) {
            let frame = &frame[..cut.index(frame.len())];
            let tables = ModelTables::new(&scene(), 8, 8);
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
        ) {
            let tables = ModelTables::new(&scene(), 8, 8);
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
            let key = FlowKey4::tcp(
                Ipv4Addr::new(192, 0, 2, 7).into(), Be16::new(50_000),
                (*scene().frontends[0].ip()).into(), Be16::new(80),
            );
            let phase = tables.flows.copy(&key).map(|flow| FlowWord(flow.state).phase());
            prop_assert_eq!(phase, Some(Phase::ClosedFin));
            let mut want = [0; Counters::FIELDS];
            want[Counter::Placed as usize] = 1;
            want[Counter::Opened as usize] = 1;
            want[Counter::ClosedFin as usize] = 1;
            prop_assert_eq!(&sums(&tables)[..12], &want[..12]);
        }

        /// I2: after a shift no SYN is placed on a version without weight.
        #[test]
        fn no_syn_on_a_version_without_weight(
            shifts in prop::collection::vec((0..4_u32, 0..4_u32, 0..4_u32), 1..20),
            port in 1024..60_000_u16,
        ) {
            let tables = ModelTables::new(&Scene::new(&[1, 1, 1], 2), 8, 512);
            for (round, (a, b, c)) in (0_u16..).zip(shifts) {
                let weights = [a, b, c];
                tables.shift(&weights);
                for step in 0..8 {
                    let client = SocketAddrV4::new(
                        Ipv4Addr::new(192, 0, 2, round as u8), port.wrapping_add(step * 7),
                    );
                    let syn = Tcp::new(client, tables.scene().frontends[0], flags::SYN).build();
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
}
