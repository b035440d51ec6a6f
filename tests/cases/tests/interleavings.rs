//! Two packets of one flow "at once": while the first is under way, the second goes through the
//! whole packet path before the first's `k`-th look at the tables, for every `k`.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};

use release_cases::frames::{Segment, destination, flags};
use release_cases::model::tables::run_on;
use release_cases::model::world::{C, MANY, S, World, interleave, pair};
use release_cases::model::{Hooked, ModelTables, Scene};
use release_common::abi::{Be32, Embryo, FlowKey};
use release_common::pipeline::{Action, Counter, FamilyTables};
use release_common::tcp::word::{EmbryoWord, Phase};

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;

fn scene() -> Scene {
    Scene::new(&[1, 0], 2)
}

#[test]
fn ack_and_its_duplicate_open_once() {
    let ack = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    pair(&scene(), World::half_open_and_shifted, ack, ack, |world| {
        world.interrupted_stayed();
        assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
        assert!(world.embryos().is_empty());
    });
}

#[test]
fn ack_and_data_open_once() {
    let ack = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    let data = |world: &World| {
        let frontend = world.frontend(0);
        Segment::tcp(world.client(), frontend, ACK).numbers(C + 1, S + 1).data(10).build()
    };
    pair(&scene(), World::half_open_and_shifted, ack, data, |world| {
        world.interrupted_stayed();
        world.run(&data(world));
        assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
        world.run(&world.server_sends(ACK, S + 1, C + 11));
        assert_eq!(world.sum(Counter::Unverified), 0);
    });
}

/// A SYN that comes again while its handshake completes goes to the same instance.
#[test]
fn repeated_syn_and_the_ack() {
    let syn = |world: &World| world.client_sends(SYN, C, 0);
    let ack = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    pair(&scene(), World::half_open_and_shifted, syn, ack, |world| {
        world.interrupted_stayed();
        assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
    });
}

/// A server's packet is never left to the host untranslated while its handshake completes: the
/// client would answer it with a RST that kills the connection.
#[test]
fn servers_packet_and_the_ack() {
    let syn_ack = |world: &World| world.server_sends(SYN | ACK, S, C + 1);
    let data = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    let ack = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    for other in [&syn_ack as &dyn Fn(&World) -> Vec<u8>, &data] {
        pair(&scene(), World::half_open, other, ack, |world| {
            assert_ne!(world.interrupted.get().map(|run| run.0), Some(Action::Pass));
            assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
        });
    }
}

#[test]
fn both_last_acks_close_once() {
    let crossed = |world: &mut World| {
        world.open();
        world.run(&world.client_sends(FIN, C + 1, S + 1));
        world.run(&world.server_sends(FIN, S + 1, C + 1));
    };
    let client_ack = |world: &World| world.client_sends(ACK, C + 2, S + 2);
    let server_ack = |world: &World| world.server_sends(ACK, S + 2, C + 2);
    pair(&scene(), crossed, client_ack, server_ack, |world| {
        assert_eq!((world.sum(Counter::ClosedFin), world.phase(0)), (1, Some(Phase::ClosedFin)));
    });
}

#[test]
fn crossing_fins_close_once() {
    let client_fin = |world: &World| world.client_sends(FIN, C + 1, S + 1);
    let server_fin = |world: &World| world.server_sends(FIN, S + 1, C + 1);
    pair(&scene(), World::open, client_fin, server_fin, |world| {
        world.run(&world.client_sends(ACK, C + 2, S + 2));
        world.run(&world.server_sends(ACK, S + 2, C + 2));
        assert_eq!((world.sum(Counter::ClosedFin), world.phase(0)), (1, Some(Phase::ClosedFin)));
    });
}

#[test]
fn reset_and_last_ack_close_once() {
    let nearly = |world: &mut World| {
        world.open();
        world.run(&world.client_sends(FIN, C + 1, S + 1));
        world.run(&world.server_sends(FIN, S + 1, C + 2));
    };
    let ack = |world: &World| world.client_sends(ACK, C + 2, S + 2);
    let reset = |world: &World| world.server_sends(RST, S + 2, 0);
    pair(&scene(), nearly, ack, reset, |world| {
        let closes = world.sum(Counter::ClosedFin) + world.sum(Counter::ClosedRst);
        assert_eq!(closes, 1);
        assert_eq!(world.sum(Counter::Reopened), 0);
    });
}

#[test]
fn reset_and_fin_close_once() {
    let reset = |world: &World| world.client_sends(RST, C + 1, 0);
    let fin = |world: &World| world.client_sends(FIN, C + 1, S + 1);
    pair(&scene(), World::open, reset, fin, |world| {
        assert_eq!((world.sum(Counter::ClosedRst), world.phase(0)), (1, Some(Phase::ClosedRst)));
    });
}

#[test]
fn two_resets_close_once() {
    let client_sends = |world: &World| world.client_sends(RST, C + 1, 0);
    let server_sends = |world: &World| world.server_sends(RST, S + 1, 0);
    pair(&scene(), World::open, client_sends, server_sends, |world| {
        assert_eq!(world.sum(Counter::ClosedRst), 1);
    });
}

#[test]
fn two_syns_of_one_tuple_make_one_embryo() {
    let syn = |world: &World| world.client_sends(SYN, C, 0);
    pair(
        &scene(),
        |_| {},
        syn,
        syn,
        |world| {
            assert_eq!(world.sum(Counter::Placed), 1);
            assert_eq!(world.embryos().len(), 1);
        },
    );
}

/// Another CPU has placed a copy of the SYN, but is still to see whether the instance will do: an
/// embryo that is not final yet, or is about to go, sends nothing anywhere.
#[test]
fn a_syn_does_not_follow_an_embryo_that_is_not_final() {
    for k in 0..MANY {
        let world = World::new(&scene());
        let other = world.tables.scene().versions[1].instances[0];
        let hooked = Hooked::new(&world.tables, k, |tables| {
            let key: FlowKey<Be32> = world.key(0).of().unwrap();
            let state = EmbryoWord::syn(99, None).ended().0;
            let embryo = Embryo { state, backend: other.id, ..Embryo::default() };
            // Too late if this one's is there.
            let _ = tables.insert_embryo(&key, &embryo);
        });
        let (outcome, out) = run_on(&hooked, &world.client_sends(SYN, C, 0));
        if !hooked.fired() {
            assert!(k > 3);
            return;
        }
        if outcome.action == Action::Send {
            assert_ne!(destination(&out), other.socket, "call {k}");
        }
    }
    panic!("a packet makes more than {MANY} calls");
}

/// While one CPU places a SYN, the split changes and the client's SYN arrives again elsewhere.
#[test]
fn a_syn_and_its_repetition_across_a_shift_go_to_one_instance() {
    for k in 0..MANY {
        let world = World::new(&scene());
        let syn = world.client_sends(SYN, C, 0);
        let seen = Cell::new(None);
        let hooked = Hooked::new(&world.tables, k, |tables| {
            tables.shift(&[0, 1]);
            let (outcome, out) = tables.run(&syn);
            // Dropped while the first one's choice is not final: the client will try again.
            let to = (outcome.action == Action::Send).then(|| destination(&out));
            seen.set(Some(to));
        });
        let (outcome, out) = run_on(&hooked, &syn);
        let Some(second) = seen.get() else { return };
        assert_eq!(outcome.action, Action::Send, "call {k}");
        let first = destination(&out);
        assert_eq!(second.unwrap_or(first), first, "call {k}");
        assert_eq!(destination(&world.tables.run(&syn).1), first, "call {k}");
        world.check();
    }
}

#[test]
fn siblings_on_one_instance_never_both() {
    let one = Scene::new(&[1, 0], 1);
    let first = |world: &World| world.to_frontend(0, SYN, C, 0);
    let second = |world: &World| world.to_frontend(1, SYN, C, 0);
    pair(
        &one,
        |_| {},
        first,
        second,
        |world| {
            assert!(world.embryos().len() <= 1);
            // Whatever was dropped: the clients try again, and one of them gets through.
            world.run(&first(world));
            world.run(&second(world));
            assert_eq!(world.embryos().len(), 1);
        },
    );
}

#[test]
fn promotion_and_expiry_of_the_embryo() {
    let ack = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    let expire = |world: &World, tables: &ModelTables| {
        tables.reap_embryo(&world.key(0));
    };
    interleave(&scene(), World::half_open, ack, expire, |world| {
        assert!(world.sum(Counter::Opened) <= 1);
        assert_eq!(world.embryos().len() + world.flows().len() > 0, {
            world.sum(Counter::Opened) + world.sum(Counter::Trials) > 0
        });
    });
}

#[test]
fn promotion_and_promotion_over_a_closed_flow() {
    let again = |world: &mut World| {
        world.open();
        world.close();
        world.tables.shift(&[0, 1]);
        world.pin(&world.client_sends(SYN, C + 50_000, 0));
        world.run(&world.server_sends(SYN | ACK, S + 50_000, C + 50_001));
    };
    let ack = |world: &World| world.client_sends(ACK, C + 50_001, S + 50_001);
    let data = |world: &World| world.server_sends(ACK, S + 50_001, C + 50_001);
    pair(&scene(), again, ack, ack, |world| {
        world.interrupted_stayed();
        assert_eq!((world.sum(Counter::Opened), world.phase(0)), (2, Some(Phase::Live)));
    });
    interleave(
        &scene(),
        again,
        data,
        |world, tables| drop(tables.run(&ack(world))),
        |world| {
            assert_ne!(world.interrupted.get().map(|run| run.0), Some(Action::Pass));
            assert_eq!((world.sum(Counter::Opened), world.phase(0)), (2, Some(Phase::Live)));
        },
    );
}

#[test]
fn superseding_twice_at_once() {
    let restarted = |world: &mut World| {
        world.open();
        world.pin(&world.client_sends(SYN, C + 50_000, 0));
        world.run(&world.server_sends(SYN | ACK, S + 50_000, C + 50_001));
    };
    let ack = |world: &World| world.client_sends(ACK, C + 50_001, S + 50_001);
    pair(&scene(), restarted, ack, ack, |world| {
        assert_eq!((world.sum(Counter::Opened), world.sum(Counter::Superseded)), (2, 1));
    });
    let old = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    pair(&scene(), restarted, ack, old, |world| {
        assert_eq!((world.sum(Counter::Opened), world.sum(Counter::Superseded)), (2, 1));
    });
}

#[test]
fn syn_on_closed_and_late_fin() {
    let closed = |world: &mut World| {
        world.open();
        world.close();
    };
    let syn = |world: &World| world.client_sends(SYN, C + 50_000, 0);
    let client_fin = |world: &World| world.client_sends(FIN, C + 1, S + 1);
    let server_fin = |world: &World| world.server_sends(FIN, S + 1, C + 2);
    for late in [&client_fin as &dyn Fn(&World) -> Vec<u8>, &server_fin] {
        pair(&scene(), closed, syn, late, |world| {
            assert_eq!(world.phase(0), Some(Phase::ClosedFin));
            assert_eq!(world.sum(Counter::Placed), 2);
        });
    }
}

#[test]
fn refusal_of_a_trial_and_the_clients_repetition() {
    let tried = |world: &mut World| world.pin(&world.client_sends(ACK, C + 1, S + 1));
    let reset = |world: &World| world.server_sends(RST, S + 1, 0);
    let again = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    pair(&scene(), tried, reset, again, |world| {
        assert_eq!(world.sum(Counter::Adopted), 0);
        world.run(&again(world));
        assert_eq!(world.embryos().len(), 1);
    });
}

#[test]
fn two_answers_to_a_trial_adopt_once() {
    let tried = |world: &mut World| world.pin(&world.client_sends(ACK, C + 1, S + 1));
    let answer = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    let again = |world: &World| world.client_sends(ACK, C + 1, S + 1);
    for other in [&answer as &dyn Fn(&World) -> Vec<u8>, &again] {
        pair(&scene(), tried, answer, other, |world| {
            assert_eq!((world.sum(Counter::Adopted), world.phase(0)), (1, Some(Phase::Live)));
        });
    }
}

#[test]
fn expiry_and_a_packet() {
    let silent = |world: &mut World| {
        world.open();
        world.tables.clock.set(world.tables.clock.get() + 1_000_000);
        assert!(world.tables.claim(&world.key(0), 1000));
    };
    let data = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    let reap = |world: &World, tables: &ModelTables| {
        tables.reap(&world.key(0));
    };
    // Either the packet revives it, or it is expired, once.
    interleave(&scene(), silent, data, reap, |world| {
        let user = world.tables.scene().instances().map(|i| world.tables.user_counters(i.id));
        let expired: u64 = user.map(|counters| counters.expired).sum();
        assert_eq!(expired, u64::from(world.phase(0).is_none()));
    });
}

/// The instance proves that it has a connection, and before that is written down the client has
/// begun another on the same ports, which new weights send elsewhere.
#[test]
fn an_instances_word_and_the_clients_new_attempt() {
    let shifted = |world: &mut World| {
        world.half_open();
        world.tables.shift(&[0, 1]);
    };
    let tried = |world: &mut World| {
        world.pin(&world.client_sends(ACK, C + 1, S + 1));
        world.tables.shift(&[0, 1]);
    };
    let word = |world: &World| world.server_sends(ACK, S + 1, C + 1);
    let syn = |world: &World| world.client_sends(SYN, C + 50_000, 0);
    for prepare in [&shifted as &dyn Fn(&mut World), &tried] {
        pair(&scene(), prepare, word, syn, |world| {
            // Whichever was first: one of the two connections is there, on its own instance.
            let (flows, embryos) = (world.flows(), world.embryos());
            let old = world.tables.scene().instances().find(|i| i.socket == world.server);
            for flow in &flows {
                assert_eq!(Some(flow.backend), old.map(|instance| instance.id));
            }
            for embryo in &embryos {
                assert_eq!(embryo.client_seq, C + 50_000);
            }
            assert!(!flows.is_empty() || !embryos.is_empty());
        });
    }
}

/// The element of a purged flow is another flow's before the packet that found it acts on it.
#[test]
fn an_element_reused_under_a_packet_is_not_taken_for_the_old_flow() {
    let again = |world: &mut World| {
        world.open();
        world.close();
        world.pin(&world.client_sends(SYN, C + 50_000, 0));
        world.run(&world.server_sends(SYN | ACK, S + 50_000, C + 50_001));
        world.tables.clock.set(world.tables.clock.get() + 1_000_000);
        assert!(world.tables.claim(&world.key(0), 1000));
    };
    let other = |world: &World, tables: &ModelTables| {
        tables.reap(&world.key(0));
        let client = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 99), 50_000));
        let send = |flags, seq, ack| {
            Segment::tcp(client, world.frontend(0), flags).numbers(seq, ack).build()
        };
        let server = destination(&tables.run(&send(SYN, C, 0)).1);
        tables.run(&Segment::tcp(server, client, SYN | ACK).numbers(S, C + 1).build());
        tables.run(&send(ACK, C + 1, S + 1));
    };
    let ack = |world: &World| world.client_sends(ACK, C + 50_001, S + 50_001);
    interleave(&scene(), again, ack, other, |world| {
        assert_eq!(world.sum(Counter::Superseded), 0);
        world.run(&ack(world));
        assert_eq!(world.tables.tally().live, 2);
    });
}
