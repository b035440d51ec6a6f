//! The harness over generated packets: well-formed, then cut and with a few bytes changed.

use proptest::collection::vec;
use proptest::prelude::*;
use release_harness::packet::{self, Header, icmp, right, tcp, udp};
use release_harness::{PREFIX, decode, rewrite};

/// Options of either kind of header: a multiple of 4 bytes, 40 at most. Half of them make sense.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![1]),
        Just(vec![2, 4, 5, 0xb4]),
        Just(vec![4, 2]),
        any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        any::<[u8; 2]>().prop_map(|data| vec![data[0], 4, data[1], 0]),
    ];
    let sensible = vec(option, 0..8).prop_map(|options| {
        let mut options = options.concat();
        options.resize(options.len().min(40).next_multiple_of(4), 0);
        options
    });
    let any = vec(any::<[u8; 4]>(), 0..=10).prop_map(|words| words.concat());
    prop_oneof![sensible, any]
}

/// Extension headers (RFC 8200 §4), sometimes more than are looked through.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = prop_oneof![Just(0), Just(43), Just(60)];
    let extension = (kind, 0..4_usize, any::<u8>()).prop_map(|(kind, len, fill)| {
        let mut data = vec![fill; 6 + 8 * len];
        // Segments left: at its destination, mostly.
        data[1] = u8::from(fill == 0);
        (kind, data)
    });
    vec(extension, 0..6)
}

fn header() -> impl Strategy<Value = Header> {
    let fragment = prop_oneof![
        3 => Just(None),
        1 => (prop_oneof![Just(0), 0..0x1fff_u16], any::<bool>()).prop_map(Some),
    ];
    let addresses = any::<([u8; 16], [u8; 16])>();
    let bytes = any::<(u8, u8)>();
    (any::<bool>(), addresses, bytes, options(), extensions(), fragment).prop_map(
        |(six, (source, destination), (tos, ttl), options, extensions, fragment)| Header {
            six,
            source,
            destination,
            tos,
            ttl,
            options,
            extensions,
            fragment,
        },
    )
}

/// A protocol number and what belongs behind it.
fn transport(six: bool) -> impl Strategy<Value = (u8, Vec<u8>)> {
    let ports = any::<(u16, u16)>();
    let data = || vec(any::<u8>(), 0..40);
    prop_oneof![
        (ports, any::<u8>(), options(), data())
            .prop_map(|(ports, flags, options, data)| (6, tcp(ports, flags, &options, &data))),
        (ports, any::<bool>(), data())
            .prop_map(|(ports, checked, data)| (17, udp(ports, checked, &data))),
        (any::<(u8, u8, u32)>(), data()).prop_map(move |((kind, code, word), data)| {
            (if six { 58 } else { 1 }, icmp(kind, code, word, &data))
        }),
    ]
}

fn whole() -> impl Strategy<Value = Vec<u8>> {
    header()
        .prop_flat_map(|header| (transport(header.six), Just(header)))
        .prop_map(|((protocol, payload), header)| header.packet(protocol, &payload))
}

/// An ICMP error that quotes a packet, or the beginning of one.
fn error() -> impl Strategy<Value = Vec<u8>> {
    let quoted = (header(), any::<bool>()).prop_flat_map(|(header, six)| {
        let header = Header { six, ..header };
        (transport(six), Just(header))
    });
    (header(), quoted, 0..5_u8, any::<(u8, u32)>(), 8..200_usize).prop_map(
        |(outer, ((protocol, payload), inner), kind, (code, word), len)| {
            let mut quote = right(&inner.packet(protocol, &payload));
            quote.truncate(len.max(20));
            let outer = Header { six: inner.six, fragment: None, ..outer };
            let (number, kind) = match (outer.six, kind) {
                (true, _) => (58, kind),
                (false, 1) => (1, 11),
                (false, 2) => (1, 12),
                (false, _) => (1, 3),
            };
            outer.packet(number, &icmp(kind, code, word, &quote))
        },
    )
}

/// A frame, and the frame with a piece cut off or added, and bytes changed.
fn frames() -> impl Strategy<Value = [Vec<u8>; 2]> {
    let tag = prop_oneof![2 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let len = prop_oneof![4 => Just(0), 1 => -60..60_isize];
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop_oneof![whole(), error()], tag, len, changes).prop_map(|(packet, tag, len, changes)| {
        let frame = packet::frame(tag, &packet);
        let mut changed = frame.clone();
        changed.resize(frame.len().saturating_add_signed(len), 0x77);
        for (at, byte) in changes {
            if !changed.is_empty() {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
        }
        [frame, changed]
    })
}

proptest! {
    // What fails goes to fuzz/findings.
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn decoder_agrees_with_the_reference(frames in frames()) {
        frames.iter().for_each(|frame| decode(frame));
    }

    #[test]
    fn rewriting_changes_what_it_is_for(frames in frames(), prefix in vec(any::<u8>(), PREFIX)) {
        for frame in frames {
            rewrite(&[&prefix, &frame[..]].concat());
        }
    }
}
