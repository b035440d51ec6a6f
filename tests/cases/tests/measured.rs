//! What is measured, told once whichever packets come "at once" (see `interleavings.rs`), and how
//! long things took.

use release_cases::frames::{Segment, flags};
use release_cases::model::world::{C, S, World, interleave, pair};
use release_cases::model::{ModelTables, Scene};
use release_common::pipeline::{Counter, Timed};
use release_common::tcp::word::Phase;

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;
/// Nanoseconds of a jiffy of the model.
const JIFFY: u64 = 1_000_000;

fn scene() -> Scene {
    Scene::new(&[1, 0], 2)
}

fn syn(world: &World) -> Vec<u8> {
    world.client_sends(SYN, C, 0)
}

fn syn_ack(world: &World) -> Vec<u8> {
    world.server_sends(SYN | ACK, S, C + 1)
}

fn request(world: &World) -> Vec<u8> {
    Segment::tcp(world.client(), world.frontend(0), ACK).numbers(C + 1, S + 1).data(10).build()
}

fn answer(world: &World) -> Vec<u8> {
    Segment::tcp(world.server, world.client(), ACK).numbers(S + 1, C + 11).data(20).build()
}

fn begun(world: &mut World) {
    let syn = syn(world);
    world.pin(&syn);
}

fn asked(world: &mut World) {
    world.open();
    world.run(&request(world));
}

fn times(world: &World, what: Timed) -> Vec<u64> {
    let instances = world.tables.scene().instances();
    instances.flat_map(|instance| world.tables.times(instance.id, what)).collect()
}

fn segments(world: &World) -> u64 {
    let instances = world.tables.scene().instances();
    instances.map(|instance| world.tables.counters(instance.id).segments).sum()
}

fn unanswered(world: &World) -> u64 {
    let instances = world.tables.scene().instances();
    instances.map(|instance| world.tables.user_counters(instance.id).unanswered).sum()
}

fn wait(world: &World, jiffies: u64) {
    world.tables.clock.set(world.tables.clock.get() + jiffies);
}

/// The client has waited since its first SYN, whatever became of that.
#[test]
fn connecting_takes_from_the_first_syn() {
    let mut world = World::new(&scene());
    begun(&mut world);
    wait(&world, 1000);
    world.run(&syn(&world));
    wait(&world, 7);
    world.run(&syn_ack(&world));
    assert_eq!(times(&world, Timed::Connect), [1007 * JIFFY]);
}

#[test]
fn an_answer_takes_from_the_first_byte_of_the_request() {
    let mut world = World::new(&scene());
    world.open();
    wait(&world, 5000);
    world.run(&request(&world));
    wait(&world, 200);
    world.run(&request(&world));
    wait(&world, 30);
    world.run(&answer(&world));
    wait(&world, 9);
    world.run(&answer(&world));
    // To the unit that a flow has room for.
    let times = times(&world, Timed::FirstByte);
    assert!(times.len() == 1 && times[0].abs_diff(230 * JIFFY) < 4096, "{times:?}");
}

#[test]
fn copies_of_the_syn_ack_measure_once() {
    pair(&scene(), begun, syn_ack, syn_ack, |world| {
        assert_eq!(times(world, Timed::Connect).len(), 1);
    });
}

#[test]
fn copies_of_an_answer_measure_once() {
    pair(&scene(), asked, answer, answer, |world| {
        assert_eq!((times(world, Timed::FirstByte).len(), segments(world)), (1, 3));
    });
}

#[test]
fn copies_of_a_request_begin_one_measurement() {
    pair(&scene(), World::open, request, request, |world| {
        world.run(&answer(world));
        assert_eq!((times(world, Timed::FirstByte).len(), segments(world)), (1, 3));
    });
}

/// A server that speaks while the request is under way: whether that is an answer nobody can say,
/// but it is told once at most, and as what it took.
#[test]
fn a_request_and_data_of_the_server_cross() {
    let speaks = |world: &World| {
        Segment::tcp(world.server, world.client(), ACK).numbers(S + 1, C + 1).data(20).build()
    };
    pair(&scene(), World::open, request, speaks, |world| {
        wait(world, 50);
        world.run(&answer(world));
        let times = times(world, Timed::FirstByte);
        assert!(times.is_empty() || times == [0], "{times:?}");
        assert_eq!(segments(world), 3);
    });
}

/// What is noted of a request takes nothing from the end of the connection.
#[test]
fn a_request_and_the_servers_fin_cross() {
    let fin = |world: &World| world.server_sends(FIN, S + 1, C + 1);
    pair(&scene(), World::open, request, fin, |world| {
        world.run(&world.client_sends(FIN, C + 11, S + 2));
        world.run(&world.server_sends(ACK, S + 2, C + 12));
        assert_eq!(world.phase(0), Some(Phase::ClosedFin));
        assert_eq!(segments(world), 1);
    });
}

/// A SYN was answered, or it was not.
#[test]
fn the_syn_ack_and_the_reaper() {
    let reaps = |world: &World, tables: &ModelTables| {
        tables.reap_embryo(&world.key(0));
    };
    interleave(&scene(), begun, syn_ack, reaps, |world| {
        assert_eq!(times(world, Timed::Connect).len() as u64 + unanswered(world), 1);
    });
}

#[test]
fn the_refusal_and_the_reaper() {
    let refuses = |world: &World| world.server_sends(RST | ACK, 0, C + 1);
    let reaps = |world: &World, tables: &ModelTables| {
        tables.reap_embryo(&world.key(0));
    };
    interleave(&scene(), begun, refuses, reaps, |world| {
        assert_eq!(world.sum(Counter::SynsRefused) + unanswered(world), 1);
    });
}

/// A handshake that the client left is no failure of the instance.
#[test]
fn the_reaper_after_the_syn_ack() {
    let mut world = World::new(&scene());
    begun(&mut world);
    world.run(&syn_ack(&world));
    assert!(world.tables.reap_embryo(&world.key(0)));
    assert_eq!(unanswered(&world), 0);
}

#[test]
fn resets_of_both_sides_are_one() {
    let client = |world: &World| world.client_sends(RST, C + 1, 0);
    let server = |world: &World| world.server_sends(RST, S + 1, 0);
    pair(&scene(), World::open, client, server, |world| {
        assert_eq!(world.sum(Counter::ClientResets) + world.sum(Counter::ServerResets), 1);
    });
}
