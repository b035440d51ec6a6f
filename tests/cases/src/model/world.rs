//! Two packets "at once": one is interrupted before its `k`-th look at the tables, and the other
//! goes through the whole packet path meanwhile.

use std::cell::Cell;
use std::net::SocketAddr;

use release_common::abi::{Counters, Embryo, Flow, Service};
use release_common::pipeline::{Action, Counter, FamilyTables, Outcome, Tables, snat_key};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::tables::{FamilyModel, Model, run_on};
use super::{Hooked, Key, ModelTables, Scene};
use crate::frames::{Segment, destination, ends, flags};

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;
const FIN: u8 = flags::FIN | flags::ACK;
/// The client's initial sequence number.
pub const C: u32 = 1000;
/// The server's initial sequence number.
pub const S: u32 = 9000;
/// More calls than any packet makes.
pub const MANY: usize = 250;

/// One client, and the tables it goes through.
pub struct World {
    /// The tables.
    pub tables: ModelTables,
    /// The instance that the client's packets went to.
    pub server: SocketAddr,
    /// What became of the packet that was interrupted, and where it went.
    pub interrupted: Cell<Option<(Action, SocketAddr)>>,
}

impl World {
    /// The scene loaded, nothing sent yet.
    pub fn new(scene: &Scene) -> Self {
        let server = scene.versions[0].instances[0].socket;
        Self { tables: ModelTables::new(scene, 8, 8), server, interrupted: Cell::new(None) }
    }

    /// The client.
    pub fn client(&self) -> SocketAddr {
        self.tables.scene().client_socket(0)
    }

    /// A frontend.
    pub fn frontend(&self, index: usize) -> SocketAddr {
        self.tables.scene().frontends[index].socket
    }

    /// The client's key at a frontend.
    pub fn key(&self, frontend: usize) -> Key {
        let at = self.tables.scene().frontends[frontend];
        Key { client: self.client(), frontend: at.socket, protocol: at.protocol }
    }

    /// A packet of the client to a frontend.
    pub fn to_frontend(&self, index: usize, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        Segment::tcp(self.client(), self.frontend(index), flags).numbers(seq, ack).build()
    }

    /// A datagram of a connection's client to its frontend.
    pub fn asks(&self, connection: usize, data: &[u8]) -> Vec<u8> {
        let scene = self.tables.scene();
        let (client, frontend) = (scene.client_socket(connection), scene.frontend(connection));
        Segment { payload: data.to_vec(), ..Segment::udp(client, frontend.socket) }.build()
    }

    /// A datagram of an instance to a connection's client.
    pub fn answers(&self, connection: usize, instance: SocketAddr) -> Vec<u8> {
        let client = self.tables.scene().client_socket(connection);
        Segment::udp(instance, client).data(12).build()
    }

    /// A TCP packet of a connection's client to its frontend.
    pub fn sends(&self, connection: usize, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let scene = self.tables.scene();
        let (client, frontend) = (scene.client_socket(connection), scene.frontend(connection));
        Segment::tcp(client, frontend.socket, flags).numbers(seq, ack).build()
    }

    /// SYN and SYN-ACK of a connection went through. Returns the instance.
    pub fn half_open_on(&self, connection: usize) -> SocketAddr {
        let (_, out) = self.tables.run(&self.sends(connection, SYN, C, 0));
        let (stands, instance) = ends(&out).unwrap_or_else(|| panic!("no IP packet: {out:02x?}"));
        let answer = Segment::tcp(instance, stands, SYN | ACK).numbers(S, C + 1).build();
        self.run(&answer);
        instance
    }

    /// The handshake of a connection went through.
    pub fn open_on(&self, connection: usize) -> SocketAddr {
        let instance = self.half_open_on(connection);
        self.run(&self.sends(connection, ACK, C + 1, S + 1));
        instance
    }

    /// A packet of the client to the first frontend.
    pub fn client_sends(&self, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        self.to_frontend(0, flags, seq, ack)
    }

    /// A packet of the instance to the client.
    pub fn server_sends(&self, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        Segment::tcp(self.server, self.client(), flags).numbers(seq, ack).build()
    }

    /// Sends a client's frame and remembers the instance it went to.
    pub fn pin(&mut self, frame: &[u8]) {
        let (outcome, out) = self.tables.run(frame);
        assert_eq!(outcome.action, Action::Send, "{outcome:?}");
        self.server = destination(&out);
    }

    /// Sends a frame through.
    pub fn run(&self, frame: &[u8]) -> Outcome {
        self.tables.run(frame).0
    }

    /// The interrupted packet, if it was sent, went to the pinned instance.
    pub fn interrupted_stayed(&self) {
        if let Some((Action::Send, to)) = self.interrupted.get() {
            assert_eq!(to, self.server);
        }
    }

    /// A handshake about to complete, while new flows go elsewhere already.
    pub fn half_open_and_shifted(&mut self) {
        self.half_open();
        self.tables.shift(&[0, 1]);
    }

    /// SYN and SYN-ACK went through.
    pub fn half_open(&mut self) {
        self.pin(&self.client_sends(SYN, C, 0));
        self.run(&self.server_sends(SYN | ACK, S, C + 1));
    }

    /// The handshake went through.
    pub fn open(&mut self) {
        self.half_open();
        self.run(&self.client_sends(ACK, C + 1, S + 1));
        assert_eq!(self.sum(Counter::Opened), 1);
    }

    /// Both ends closed.
    pub fn close(&mut self) {
        self.run(&self.client_sends(FIN, C + 1, S + 1));
        self.run(&self.server_sends(FIN, S + 1, C + 2));
        self.run(&self.client_sends(ACK, C + 2, S + 2));
        assert_eq!(self.phase(0), Some(Phase::ClosedFin));
    }

    /// A counter, summed over instances.
    pub fn sum(&self, counter: Counter) -> u64 {
        let instances = self.tables.scene().instances();
        instances
            .map(|instance| {
                let fields: [u64; Counters::FIELDS] =
                    bytemuck::cast(self.tables.counters(instance.id));
                fields[counter as usize]
            })
            .sum()
    }

    /// Phase of the flow at a frontend.
    pub fn phase(&self, frontend: usize) -> Option<Phase> {
        Some(FlowWord(self.tables.flow_at(&self.key(frontend))?.state).phase())
    }

    /// All flows.
    pub fn flows(&self) -> Vec<Flow> {
        let four = self.tables.four.flows.all().into_iter().map(|(_, flow)| flow);
        four.chain(self.tables.six.flows.all().into_iter().map(|(_, flow)| flow)).collect()
    }

    /// All embryos.
    pub fn embryos(&self) -> Vec<Embryo> {
        let four = self.tables.four.embryos.all().into_iter().map(|(_, embryo)| embryo);
        four.chain(self.tables.six.embryos.all().into_iter().map(|(_, embryo)| embryo)).collect()
    }

    /// What holds whatever happened in whatever order.
    pub fn check(&self) {
        let tally = self.tables.tally();
        let users = self.tables.scene().instances().map(|i| self.tables.user_counters(i.id));
        let (mut expired, mut purged, mut embryos_expired) = (0, 0, 0);
        for user in users {
            expired += user.expired + user.timed_out;
            purged += user.purged;
            embryos_expired += user.embryos_expired;
        }
        let begun = self.sum(Counter::Opened) + self.sum(Counter::Adopted);
        let closed = [Counter::ClosedFin, Counter::ClosedRst, Counter::Superseded]
            .into_iter()
            .map(|counter| self.sum(counter))
            .sum::<u64>();
        assert_eq!(begun + self.sum(Counter::Reopened), tally.live + closed + expired);
        assert_eq!(tally.gauge, tally.live as i64);
        assert_eq!(tally.entries, (tally.live + tally.closed) as i64);
        let created = self.sum(Counter::Placed) + self.sum(Counter::Trials);
        let ended = self.sum(Counter::EmbryosEnded) + embryos_expired + tally.evicted;
        assert_eq!(created, begun + ended + tally.embryos, "{tally:?} {purged}");
        assert_eq!(tally.in_sessions, tally.sessions, "flows counted in sessions");
        self.sources_are_claimed();
        let max = u64::from(self.tables.scene().settings.max_flows);
        assert!(max == 0 || tally.live <= max, "{} flows of {max}", tally.live);
        for flow in self.flows() {
            assert_ne!(FlowWord(flow.state).phase(), Phase::Dead, "a dead entry stays");
        }
        for embryo in self.embryos() {
            let phase = EmbryoWord(embryo.state).phase();
            assert_ne!(phase, EmbryoPhase::Ended, "an ended embryo stays");
        }
    }

    /// Mode `snat`: whoever uses a source port has claimed it.
    fn sources_are_claimed(&self) {
        let service = self.tables.scene().service_value();
        claimed(&self.tables, &self.tables.four, &service);
        claimed(&self.tables, &self.tables.six, &service);
    }
}

fn claimed<A: Model>(tables: &ModelTables, model: &FamilyModel<A>, service: &Service) {
    let flows = model.flows.all().into_iter().map(|(key, flow)| (key, flow.snat, flow.backend));
    let embryos = model.embryos.all().into_iter().map(|(key, e)| (key, e.snat, e.backend));
    for (key, snat, backend) in flows.chain(embryos).filter(|(_, snat, _)| snat.port.get() != 0) {
        let source = service.snat_address::<A>(usize::from(snat.index));
        let at = source
            .zip(tables.backend(backend))
            .map(|(source, instance)| snat_key(source, snat.port, instance, key.proto));
        let owner = at.and_then(|at| tables.snat_owner(&at));
        assert_eq!(owner.map(|owner| (owner.key, owner.backend)), Some((key, backend)));
    }
}

/// For every `k`: prepares a world, runs `first` with `second` before its `k`-th call, and checks.
pub fn interleave(
    scene: &Scene,
    prepare: impl Fn(&mut World),
    first: impl Fn(&World) -> Vec<u8>,
    second: impl Fn(&World, &ModelTables),
    after: impl Fn(&World),
) {
    for k in 0..MANY {
        let mut world = World::new(scene);
        prepare(&mut world);
        let fired = {
            let hooked = Hooked::new(&world.tables, k, |tables| second(&world, tables));
            let (outcome, out) = run_on(&hooked, &first(&world));
            world.interrupted.set(Some((outcome.action, destination(&out))));
            hooked.fired()
        };
        println!("call {k}");
        world.check();
        if !fired {
            second(&world, &world.tables);
            world.check();
        }
        after(&world);
        world.check();
        if !fired {
            assert!(k > 3, "the packet made only {k} calls");
            return;
        }
    }
    panic!("a packet makes more than {MANY} calls");
}

/// Both orders of a pair of frames.
pub fn pair(
    scene: &Scene,
    prepare: impl Fn(&mut World),
    a: impl Fn(&World) -> Vec<u8>,
    b: impl Fn(&World) -> Vec<u8>,
    after: impl Fn(&World),
) {
    interleave(scene, &prepare, &a, |world, tables| drop(tables.run(&b(world))), &after);
    interleave(scene, &prepare, &b, |world, tables| drop(tables.run(&a(world))), &after);
}
