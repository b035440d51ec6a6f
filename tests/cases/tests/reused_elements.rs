//! A packet finds an element of a table, and before it acts on it the element is another flow's:
//! preallocated elements are given out again as soon as they are deleted. Whatever the packet was
//! about to do, the other flow does not feel it.

use std::cell::Cell;
use std::net::SocketAddr;

use release_cases::frames::{Segment, destination, flags};
use release_cases::model::tables::HZ;
use release_cases::model::world::{C, S, World, interleave};
use release_cases::model::{Family, ModelTables, Scene};
use release_common::abi::{Session, SessionWord, conversation};
use release_common::pipeline::{Counter, Tables};

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const RST: u8 = flags::RST;
/// The other connection.
const OTHER: usize = 2;
/// Its client's initial sequence number.
const OTHER_C: u32 = 10;

type Prepare<'a> = &'a dyn Fn(&mut World);
type Packet<'a> = &'a dyn Fn(&World) -> Vec<u8>;

/// The embryo goes, and the other connection's takes its element, on the last version.
fn taken(world: &World, tables: &ModelTables, first: &[u8], to: &Cell<Option<SocketAddr>>) {
    tables.reap_embryo(&world.key(0));
    tables.shift(&[0, 0, 1]);
    to.set(Some(destination(&tables.run(first).1)));
    tables.shift(&[1, 0, 0]);
}

/// The other connection's handshake goes on as if nothing had been.
fn completes(world: &World, to: Option<SocketAddr>) {
    let Some(to) = to else { panic!("the other connection's SYN went nowhere") };
    assert_ne!(world.interrupted.get().map(|run| run.1), Some(to));
    let client = world.tables.scene().client_socket(OTHER);
    world.run(&Segment::tcp(to, client, SYN | ACK).numbers(S, OTHER_C + 1).build());
    let (_, out) = world.tables.run(&world.sends(OTHER, ACK, OTHER_C + 1, S + 1));
    assert_eq!(destination(&out), to);
    assert_eq!(world.tables.tally().live, 1 + u64::from(world.phase(0).is_some()));
}

/// A TCP packet finds an embryo, and the element becomes that of another client's SYN.
fn tcp(prepare: Prepare<'_>, packet: Packet<'_>) {
    for family in [Family::V4, Family::V6] {
        let to = Cell::new(None);
        let meanwhile = |world: &World, tables: &ModelTables| {
            taken(world, tables, &world.sends(OTHER, SYN, OTHER_C, 0), &to);
        };
        let scene = Scene::new(&[1, 0, 0], 2).told_in(family);
        interleave(&scene, prepare, packet, meanwhile, |world| {
            completes(world, to.get());
        });
    }
}

fn asked(world: &mut World) {
    world.pin(&world.client_sends(SYN, C, 0));
}

#[test]
fn under_a_syn_repeated() {
    tcp(&asked, &|world| world.client_sends(SYN, C, 0));
}

#[test]
fn under_another_attempt() {
    tcp(&asked, &|world| world.client_sends(SYN, C + 5_000, 0));
    tcp(&World::half_open, &|world| world.client_sends(SYN, C + 5_000, 0));
}

#[test]
fn under_the_clients_reset() {
    tcp(&asked, &|world| world.client_sends(RST, C + 1, 0));
    tcp(&World::half_open, &|world| world.client_sends(RST, C + 1, 0));
}

#[test]
fn under_the_last_acknowledgement() {
    tcp(&World::half_open, &|world| world.client_sends(ACK, C + 1, S + 1));
}

#[test]
fn under_the_instances_answer() {
    tcp(&asked, &|world| world.server_sends(SYN | ACK, S, C + 1));
    tcp(&asked, &|world| world.server_sends(RST | ACK, 0, C + 1));
    tcp(&World::half_open, &|world| world.server_sends(ACK, S + 1, C + 1));
}

#[test]
fn under_a_trial() {
    let tried = |world: &mut World| world.pin(&world.client_sends(ACK, C + 1, S + 1));
    let refused = |world: &mut World| {
        world.pin(&world.client_sends(ACK, C + 1, S + 1));
        world.run(&world.server_sends(RST, S + 1, 0));
    };
    let again = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    for prepare in [&tried as Prepare<'_>, &refused] {
        tcp(prepare, &again);
        tcp(prepare, &|world| world.client_sends(SYN, C + 5_000, 0));
        tcp(prepare, &|world| world.server_sends(RST, S + 1, 0));
        tcp(prepare, &|world| world.server_sends(ACK, S + 1, C + 1));
    }
}

/// A datagram finds an embryo, and the element becomes that of another client's datagram.
fn udp(scene: &Scene, packet: Packet<'_>) {
    for family in [Family::V4, Family::V6] {
        let to = Cell::new(None);
        let asked = |world: &mut World| {
            let first = world.asks(0, &[0xc3; 40]);
            world.pin(&first);
            world.tables.clock.set(world.tables.clock.get() + u64::from(HZ));
        };
        let meanwhile = |world: &World, tables: &ModelTables| {
            taken(world, tables, &world.asks(OTHER, &[0xc3; 40]), &to);
        };
        interleave(&scene.clone().told_in(family), asked, packet, meanwhile, |world| {
            assert_ne!(world.interrupted.get().map(|run| run.1), to.get());
            let opened = world.sum(Counter::Opened);
            let (_, out) = world.tables.run(&world.asks(OTHER, &[0xc3; 40]));
            assert_eq!(Some(destination(&out)), to.get());
            world.run(&world.answers(OTHER, destination(&out)));
            assert_eq!(world.sum(Counter::Opened), opened + 1);
        });
    }
}

#[test]
fn under_a_datagram() {
    let scene = Scene::new(&[1, 0, 0], 2).udp();
    udp(&scene, &|world| world.asks(0, b"second"));
    udp(&scene, &|world| world.answers(0, world.server));
}

#[test]
fn under_a_datagram_that_names_its_instance() {
    let scene = Scene::new(&[1, 0, 0], 2)
        .udp()
        .conversation(conversation::QUIC)
        .set(|service| service.quic_id_len = 4);
    udp(&scene, &|world| {
        let mut bytes = vec![0x43, 12, 2, 1, 0xab, 0xcd];
        bytes.extend([0x99; 30]);
        world.asks(0, &bytes)
    });
}

/// A flow that was taken for closed lives, while its session ends and another client's takes the
/// element.
#[test]
fn under_a_flow_that_reopens() {
    let scene = Scene::new(&[1, 0, 0], 2)
        .conversation(conversation::CLIENT)
        .set(|service| service.session_timeout = 1000);
    let reset = |world: &mut World| {
        world.open();
        world.run(&world.client_sends(RST, C + 1, 0));
        world.tables.clock.set(world.tables.clock.get() + 1001);
    };
    let alive = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    let stranger = |tables: &ModelTables| tables.session_key([203, 0, 113, 99].into());
    interleave(
        &scene,
        reset,
        alive,
        |world, tables| {
            if tables.end_session(world.client().ip(), 1000) {
                let state = SessionWord::first(77).changed(-1).0;
                let session = Session { state, ..Session::default() };
                tables.insert_session(&stranger(tables), &session).unwrap();
            }
        },
        |world| {
            let session = world.tables.sessions.copy(&stranger(&world.tables));
            assert!(session.is_none_or(|session| SessionWord(session.state).live() == 0));
        },
    );
}
