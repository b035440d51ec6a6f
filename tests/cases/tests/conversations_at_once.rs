//! What one CPU does while another is in the middle of a packet: UDP, QUIC, sessions, translated
//! sources, limits. See `interleavings.rs` for TCP alone.

use std::net::SocketAddr;

use release_cases::frames::{Segment, flags};
use release_cases::model::world::{C, S, World, interleave, pair};
use release_cases::model::{Family, ModelTables, Scene};
use release_common::abi::{SessionWord, conversation, service_flag};
use release_common::pipeline::{Action, Counter};
use release_common::tcp::word::Phase;

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
const RST: u8 = flags::RST;
/// Jiffies that a session outlives its flows.
const TIMEOUT: u32 = 1000;

/// A scene in both families.
fn both(scene: &Scene, test: impl Fn(&Scene)) {
    test(scene);
    test(&scene.clone().told_in(Family::V6));
}

/// Lets so much time pass that another datagram of a client makes a flow.
fn a_second(world: &World) {
    world.tables.clock.set(world.tables.clock.get() + u64::from(release_cases::model::tables::HZ));
}

fn udp() -> Scene {
    Scene::new(&[1, 0], 2).udp()
}

mod udp_flows {
    use super::*;

    fn asked_and_shifted(world: &mut World) {
        let first = world.asks(0, b"first");
        world.pin(&first);
        world.tables.shift(&[0, 1]);
        a_second(world);
    }

    fn again(world: &World) -> Vec<u8> {
        world.asks(0, b"second")
    }

    fn reply(world: &World) -> Vec<u8> {
        world.answers(0, world.server)
    }

    fn opened_once(world: &World) {
        world.interrupted_stayed();
        assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
        assert_eq!(world.sum(Counter::Placed), 1);
        assert!(world.embryos().is_empty());
    }

    #[test]
    fn two_second_datagrams_open_once() {
        both(&udp(), |scene| pair(scene, asked_and_shifted, again, again, opened_once));
    }

    /// Neither is ever left to the host: the client would answer the reply with an ICMP error.
    #[test]
    fn second_datagram_and_reply_open_once() {
        both(&udp(), |scene| {
            pair(scene, asked_and_shifted, again, reply, |world| {
                assert_ne!(world.interrupted.get().map(|run| run.0), Some(Action::Pass));
                assert_eq!((world.sum(Counter::Opened), world.phase(0)), (1, Some(Phase::Live)));
                assert!(world.embryos().is_empty());
            });
        });
    }

    #[test]
    fn two_first_datagrams_are_placed_once() {
        let first = |world: &World| world.asks(0, b"first");
        both(&udp(), |scene| {
            pair(scene, |_| {}, first, first, |world| assert_eq!(world.sum(Counter::Placed), 1));
        });
    }

    #[test]
    fn promotion_and_expiry_of_the_embryo() {
        let expire = |world: &World, tables: &ModelTables| {
            tables.reap_embryo(&world.key(0));
        };
        both(&udp(), |scene| {
            interleave(scene, asked_and_shifted, again, expire, |world| {
                assert!(world.sum(Counter::Opened) <= 1);
            });
        });
    }

    #[test]
    fn expiry_and_a_datagram() {
        let silent = |world: &mut World| {
            asked_and_shifted(world);
            world.run(&reply(world));
            world.tables.clock.set(world.tables.clock.get() + 1_000_000);
            assert!(world.tables.claim(&world.key(0), 1000));
        };
        let reap = |world: &World, tables: &ModelTables| {
            tables.reap(&world.key(0));
        };
        both(&udp(), |scene| {
            for packet in [&again as &dyn Fn(&World) -> Vec<u8>, &reply] {
                interleave(scene, silent, packet, reap, |_| {});
            }
        });
    }
}

mod quic {
    use super::*;

    fn scene() -> Scene {
        udp().conversation(conversation::QUIC).set(|service| service.quic_id_len = 4)
    }

    /// A packet whose connection id names an instance.
    fn named(world: &World, version: u8, instance: u8) -> Vec<u8> {
        let mut bytes = vec![0x43, 12, version, instance, 0xab, 0xcd];
        bytes.extend([0x99; 30]);
        world.asks(0, &bytes)
    }

    fn to_new(world: &World) -> Vec<u8> {
        named(world, 2, 1)
    }

    fn new_instance(world: &World) -> SocketAddr {
        world.tables.scene().versions[1].instances[0].socket
    }

    /// A connection of the first version has the address.
    fn connected(world: &mut World) {
        let first = world.asks(0, &[0xc3; 1200]);
        world.pin(&first);
        let reply = world.answers(0, world.server);
        world.run(&reply);
        assert_eq!(world.sum(Counter::Opened), 1);
    }

    /// Its packets have told of another.
    fn moving(world: &mut World) {
        connected(world);
        let moved = to_new(world);
        world.pin(&moved);
        a_second(world);
    }

    fn moved(world: &World) {
        a_second(world);
        world.run(&to_new(world));
        world.run(&to_new(world));
        let backends: Vec<u32> = world.flows().iter().map(|flow| flow.backend).collect();
        assert_eq!(backends, [21]);
        assert!(world.embryos().is_empty());
        assert_eq!((world.sum(Counter::Superseded), world.sum(Counter::Opened)), (1, 2));
    }

    #[test]
    fn migration_and_the_old_instances_reply() {
        let late =
            |world: &World| world.answers(0, world.tables.scene().versions[0].instances[0].socket);
        let one = {
            let mut scene = scene();
            scene.versions[0].instances.truncate(1);
            scene
        };
        both(&one, |scene| {
            pair(scene, connected, to_new, late, |world| {
                assert_ne!(world.interrupted.get().map(|run| run.0), Some(Action::Pass));
                moved(world);
            });
            pair(scene, moving, to_new, late, moved);
        });
    }

    #[test]
    fn migration_and_the_new_instances_reply() {
        let early = |world: &World| world.answers(0, new_instance(world));
        both(&scene(), |scene| {
            pair(scene, moving, to_new, early, |world| {
                assert_ne!(world.interrupted.get().map(|run| run.0), Some(Action::Pass));
                moved(world);
            });
        });
    }

    #[test]
    fn two_migrations_at_once_are_one() {
        both(&scene(), |scene| {
            pair(scene, connected, to_new, to_new, moved);
            pair(scene, moving, to_new, to_new, moved);
        });
    }

    #[test]
    fn migration_and_the_old_connections_packet() {
        let old = |world: &World| world.asks(0, &[0x43, 0xe0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        both(&scene(), |scene| {
            pair(scene, connected, to_new, old, |_| {});
            pair(scene, moving, to_new, old, |_| {});
        });
    }
}

mod sessions {
    use super::*;

    fn scene() -> Scene {
        Scene::new(&[1, 0], 4).conversation(conversation::CLIENT).set(|service| {
            (service.session_timeout, service.flags) = (TIMEOUT, service_flag::HOLD_SESSIONS);
        })
    }

    fn later(world: &World) {
        world.tables.clock.set(world.tables.clock.get() + u64::from(TIMEOUT) + 1);
    }

    fn end(world: &World, tables: &ModelTables) {
        tables.end_session(world.client().ip(), TIMEOUT);
    }

    fn live(world: &World) -> Option<u32> {
        Some(SessionWord(world.tables.session_of(world.client().ip())?.state).live())
    }

    fn ack(connection: usize) -> impl Fn(&World) -> Vec<u8> {
        move |world| world.sends(connection, ACK, C + 1, S + 1)
    }

    /// Connection 2 is open.
    fn one(world: &mut World) {
        world.server = world.open_on(2);
        assert_eq!(live(world), Some(1));
    }

    fn closed(world: &mut World) {
        one(world);
        let client = world.tables.scene().client_socket(2);
        let server =
            |flags, seq, ack| Segment::tcp(world.server, client, flags).numbers(seq, ack).build();
        world.run(&world.sends(2, FIN, C + 1, S + 1));
        world.run(&server(FIN, S + 1, C + 2));
        world.run(&world.sends(2, ACK, C + 2, S + 2));
        assert_eq!(live(world), Some(0));
    }

    #[test]
    fn two_flows_that_begin_a_session_are_in_one() {
        let two = |world: &mut World| {
            world.half_open_on(2);
            world.half_open_on(3);
        };
        both(&scene(), |scene| {
            pair(scene, two, ack(2), ack(3), |world| assert_eq!(live(world), Some(2)));
        });
    }

    #[test]
    fn a_flow_joins_while_the_last_one_closes() {
        let nearly = |world: &mut World| {
            world.server = world.half_open_on(3);
            one(world);
            let client = world.tables.scene().client_socket(2);
            world.run(&world.sends(2, FIN, C + 1, S + 1));
            let fin = Segment::tcp(world.server, client, FIN).numbers(S + 1, C + 2).build();
            world.run(&fin);
        };
        let last = |world: &World| world.sends(2, ACK, C + 2, S + 2);
        both(&scene(), |scene| {
            pair(scene, nearly, last, ack(3), |world| assert_eq!(live(world), Some(1)));
        });
    }

    /// The session that a flow is about to join ends: the flow is in it or in none, never counted in
    /// one that is gone.
    #[test]
    fn a_flow_joins_while_the_session_ends() {
        let over = |world: &mut World| {
            closed(world);
            world.half_open_on(3);
            later(world);
        };
        both(&scene(), |scene| {
            interleave(scene, over, ack(3), end, |world| {
                assert!(matches!(live(world), None | Some(1)));
                world.open_on(4);
                assert!(matches!(live(world), Some(1 | 2)));
            });
        });
    }

    #[test]
    fn a_syn_is_placed_while_the_session_ends() {
        let over = |world: &mut World| {
            closed(world);
            later(world);
        };
        let syn = |world: &World| world.sends(3, SYN, C, 0);
        both(&scene(), |scene| interleave(scene, over, syn, end, |_| {}));
    }

    #[test]
    fn a_silent_flow_goes_while_another_joins() {
        let silent = |world: &mut World| {
            one(world);
            world.half_open_on(0);
            later(world);
            let key = release_cases::model::Key {
                client: world.tables.scene().client_socket(2),
                ..world.key(0)
            };
            assert!(world.tables.claim(&key, TIMEOUT));
        };
        let reap = |world: &World, tables: &ModelTables| {
            let client = world.tables.scene().client_socket(2);
            tables.reap(&release_cases::model::Key { client, ..world.key(0) });
        };
        both(&scene(), |scene| {
            interleave(scene, silent, ack(0), reap, |world| assert_eq!(live(world), Some(1)));
        });
    }

    /// A flow that was taken for closed turns out to live, while its session ends or after.
    #[test]
    fn a_flow_reopens_while_the_session_ends() {
        let reset = |world: &mut World| {
            one(world);
            world.run(&world.sends(2, RST, C + 1, 0));
            assert_eq!(live(world), Some(0));
            later(world);
        };
        let alive = |world: &World| {
            let client = world.tables.scene().client_socket(2);
            Segment::tcp(world.server, client, ACK).numbers(S + 1, C + 1).build()
        };
        both(&scene(), |scene| {
            interleave(scene, reset, alive, end, |world| {
                world.open_on(3);
                world.check();
                world.run(&world.sends(2, RST, C + 1, 0));
                assert!(matches!(live(world), Some(1)), "{:?}", live(world));
            });
        });
    }
}

mod sources {
    use super::*;

    /// One address, this many ports, one instance.
    fn scene(ports: u16) -> Scene {
        Scene::new(&[1, 0], 1).snat(ports).set(|service| {
            (service.snat_count4, service.snat_count6) = (1, 1);
        })
    }

    fn syn(connection: usize) -> impl Fn(&World) -> Vec<u8> {
        move |world| world.sends(connection, SYN, C, 0)
    }

    /// `check` compares each flow's source with who has claimed it.
    #[test]
    fn two_clients_never_have_one_port() {
        both(&scene(1), |scene| {
            pair(
                scene,
                |_| {},
                syn(2),
                syn(3),
                |world| {
                    assert_eq!(world.embryos().len(), 1);
                },
            );
        });
        both(&scene(2), |scene| {
            pair(
                scene,
                |_| {},
                syn(2),
                syn(3),
                |world| {
                    assert_eq!(world.embryos().len(), 2);
                },
            );
        });
    }

    #[test]
    fn two_syns_of_one_client_have_one_port() {
        both(&scene(50), |scene| {
            pair(
                scene,
                |_| {},
                syn(2),
                syn(2),
                |world| {
                    assert_eq!(world.embryos().len(), 1);
                    assert_eq!(world.sum(Counter::Placed), 1);
                },
            );
        });
    }

    /// A port may be taken back 10 seconds after it was claimed; a client's own is taken again only
    /// while it is younger than that by far.
    #[test]
    fn a_port_is_not_taken_back_from_under_a_syn() {
        let refused = |age: u64| {
            move |world: &mut World| {
                let (_, out) = world.tables.run(&world.sends(2, SYN, C, 0));
                let (stands, instance) = release_cases::frames::ends(&out).unwrap();
                let reset = Segment::tcp(instance, stands, RST | ACK).numbers(0, C + 1).build();
                world.run(&reset);
                assert!(world.embryos().is_empty());
                world.tables.clock.set(world.tables.clock.get() + age);
            }
        };
        let collect = |_: &World, tables: &ModelTables| {
            tables.free_ports(10_000);
        };
        both(&scene(1), |scene| {
            for age in [0, 4999, 5000, 9999, 10_000, 20_000] {
                interleave(scene, refused(age), syn(2), collect, |_| {});
            }
        });
    }

    /// The closed flow, whose port goes on, is on its way out.
    #[test]
    fn a_port_is_not_taken_back_from_under_a_tuple_that_comes_back() {
        let closed = |world: &mut World| {
            world.open_on(2);
            world.run(&world.sends(2, RST, C + 1, 0));
            world.tables.clock.set(world.tables.clock.get() + 20_000);
        };
        let key = |world: &World| {
            let client = world.tables.scene().client_socket(2);
            release_cases::model::Key { client, ..world.key(0) }
        };
        let collect = |tables: &ModelTables| assert_eq!(tables.free_ports(10_000), 0);
        both(&scene(1), |scene| {
            let claim = |world: &World, tables: &ModelTables| {
                assert!(tables.claim(&key(world), 10_000));
                collect(tables);
            };
            interleave(scene, closed, syn(2), claim, |world| {
                // A grace period later.
                assert!(world.tables.reap(&key(world)));
                if !world.embryos().is_empty() {
                    collect(&world.tables);
                }
            });
            // Marked before the packet came, it may go at any time.
            let marked = |world: &mut World| {
                closed(world);
                assert!(world.tables.claim(&key(world), 10_000));
            };
            let reap = |world: &World, tables: &ModelTables| {
                tables.reap(&key(world));
                tables.free_ports(10_000);
            };
            interleave(scene, marked, syn(2), reap, |_| {});
        });
    }

    #[test]
    fn a_port_is_not_taken_back_while_its_embryo_becomes_a_flow() {
        let old = |world: &mut World| {
            world.half_open_on(2);
            world.tables.clock.set(world.tables.clock.get() + 20_000);
        };
        let ack = |world: &World| world.sends(2, ACK, C + 1, S + 1);
        let collect = |_: &World, tables: &ModelTables| {
            assert_eq!(tables.free_ports(10_000), 0);
        };
        both(&scene(9), |scene| {
            interleave(scene, old, ack, collect, |world| {
                assert_eq!(world.sum(Counter::Opened), 1);
            });
        });
    }
}

mod limits {
    use super::*;

    fn one() -> Scene {
        Scene::new(&[1, 0], 2).set(|service| service.max_flows = 1)
    }

    fn two_half_open(world: &mut World) {
        world.half_open_on(2);
        world.half_open_on(3);
    }

    fn ack(connection: usize) -> impl Fn(&World) -> Vec<u8> {
        move |world| world.sends(connection, ACK, C + 1, S + 1)
    }

    /// `check` looks after every step.
    #[test]
    fn never_more_flows_than_allowed() {
        both(&one(), |scene| {
            pair(scene, two_half_open, ack(2), ack(3), |world| {
                assert_eq!((world.sum(Counter::Opened), world.flows().len()), (1, 1));
                assert!(world.embryos().is_empty());
            });
        });
    }

    #[test]
    fn a_connection_over_its_old_one_and_another() {
        let restarting = |world: &mut World| {
            world.half_open_on(3);
            world.server = world.open_on(2);
            world.run(&world.sends(2, SYN, C + 50_000, 0));
            let client = world.tables.scene().client_socket(2);
            let answer =
                Segment::tcp(world.server, client, SYN | ACK).numbers(S + 9, C + 50_001).build();
            world.run(&answer);
        };
        let again = |world: &World| world.sends(2, ACK, C + 50_001, S + 10);
        both(&one(), |scene| {
            pair(scene, restarting, again, ack(3), |world| {
                assert_eq!((world.sum(Counter::Opened), world.sum(Counter::Superseded)), (2, 1));
                assert_eq!(world.flows().len(), 1);
            });
        });
    }

    #[test]
    fn never_more_udp_flows_than_allowed() {
        let asked = |world: &mut World| {
            world.run(&world.asks(2, b"first"));
            world.run(&world.asks(3, b"first"));
            a_second(world);
        };
        let again = |connection| move |world: &World| world.asks(connection, b"second");
        let reply = |connection| {
            move |world: &World| {
                let key = release_cases::model::Key {
                    client: world.tables.scene().client_socket(connection),
                    ..world.key(0)
                };
                let embryo = world.tables.embryo_at(&key).map(|embryo| embryo.backend);
                let instances: Vec<_> = world.tables.scene().instances().collect();
                let is = |at: &&release_cases::model::scene::Instance| Some(at.id) == embryo;
                world.answers(connection, instances.iter().find(is).unwrap_or(&instances[0]).socket)
            }
        };
        both(&one().udp(), |scene| {
            pair(scene, asked, again(2), again(3), |world| assert_eq!(world.flows().len(), 1));
            pair(scene, asked, again(2), reply(3), |world| assert_eq!(world.flows().len(), 1));
            pair(scene, asked, reply(2), reply(3), |world| assert_eq!(world.flows().len(), 1));
        });
    }
}
