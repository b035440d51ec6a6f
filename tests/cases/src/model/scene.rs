//! What user space tells the packet path, as plain data: loaded into the model, or into the real
//! maps.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use release_common::abi::{
    Address, Backend, BackendRef, Endpoint, FrontendRef, PortBits, QuicKey, RING_BLOCK, RingBlock,
    Service, Split, SplitEntry, backend_state, mode, octets,
};

use super::family::Family;
use crate::frames::Extension;

/// Slots of every ring here: few, and no multiple of a block.
pub const RING_SLOTS: usize = 61;
/// Generation of the split that a scene begins with; each shift adds one.
pub const FIRST_GENERATION: u32 = 7;
/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Id in `BACKENDS`.
    pub id: u32,
    /// Its socket.
    pub socket: SocketAddr,
    /// Conversation `quic`: its server id.
    pub server_id: [u8; 8],
    /// Whether new flows may reach it by a session.
    pub closed: bool,
}

/// One version of the service.
#[derive(Clone, Debug)]
pub struct Version {
    /// Index in `RINGS`.
    pub ring: u32,
    /// Its weight at first.
    pub weight: u32,
    /// Its instances, on its ring in turn.
    pub instances: Vec<Instance>,
}

/// A frontend.
#[derive(Clone, Copy, Debug)]
pub struct Frontend {
    /// Its socket.
    pub socket: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
    /// A test frontend: the version's ring. 0: none.
    pub ring: u32,
}

/// A test rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Clients with the same first bits as this…
    pub source: IpAddr,
    /// …so many of them…
    pub bits: u32,
    /// …reach the version with this ring.
    pub ring: u32,
}

/// How the frames of a scene look, beside what its packets are about.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Id of the VLAN tag.
    pub vlan: Option<u16>,
    /// Options of IPv4 headers.
    pub ip_options: Vec<u8>,
    /// Extension headers of IPv6.
    pub extensions: Vec<Extension>,
    /// Flow label of IPv6.
    pub label: u32,
}

/// The client's side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Address, told in IPv4.
    pub host: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Index of its frontend.
    pub frontend: usize,
}

/// A service with its versions.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Index in `SERVICES`.
    pub service: u32,
    /// Family of clients and frontends.
    pub family: Family,
    /// Family of the instances, if it is not that of the frontends whatever these are told in.
    pub reached: Option<Family>,
    /// Looks of its frames.
    pub shape: Shape,
    /// Everything in its element of `SERVICES` but the frontends.
    pub settings: Service,
    /// Its frontends.
    pub frontends: Vec<Frontend>,
    /// Its versions.
    pub versions: Vec<Version>,
    /// Instances that serve no version any more, but still have flows.
    pub retired: Vec<Instance>,
    /// Flow table entries at which new flows are refused.
    pub flow_limit: u32,
    /// Test rules.
    pub rules: Vec<Rule>,
    /// Tunnel modes: outer source by family, and how many of its low bits vary.
    pub tunnel_sources: [(IpAddr, u8); 2],
    /// Another service's server id, and an instance of this one that it must not lead to.
    pub foreign_id: Option<([u8; 8], u32)>,
    /// Connections that are not as all others, see [`Scene::client`].
    pub clients: HashMap<usize, Client>,
}

impl Scene {
    /// Two TCP frontends, and as many versions as there are weights with `instances` each: version
    /// `v` has ring `v + 1` and the addresses `10.0.v+1.1`, `10.0.v+1.2`…, port 8080. Refusals are
    /// answered.
    pub fn new(weights: &[u32], instances: u8) -> Self {
        let mut versions = Vec::new();
        for (version, &weight) in (1_u8..).zip(weights) {
            let instance = |number: u8| {
                let id = u32::from(version) * 10 + u32::from(number);
                Instance {
                    id,
                    socket: (Ipv4Addr::new(10, 0, version, number), 8080).into(),
                    server_id: [version, number, 0xab, 0xcd, 0, 0, 0, 0],
                    closed: false,
                }
            };
            let instances = (1..=instances).map(instance).collect();
            versions.push(Version { ring: u32::from(version), weight, instances });
        }
        let frontend = |last| Frontend {
            socket: (Ipv4Addr::new(198, 51, 100, last), 80).into(),
            protocol: TCP,
            ring: 0,
        };
        Self {
            service: 3,
            family: Family::V4,
            reached: None,
            shape: Shape::default(),
            settings: Service::default(),
            frontends: vec![frontend(1), frontend(2)],
            versions,
            retired: Vec::new(),
            flow_limit: 1000,
            rules: Vec::new(),
            tunnel_sources: [
                (Family::V4.ip(Ipv4Addr::new(10, 254, 0, 0)), 0),
                (Family::V6.ip(Ipv4Addr::new(10, 254, 0, 0)), 0),
            ],
            foreign_id: None,
            clients: HashMap::new(),
        }
    }

    /// The same with UDP frontends.
    #[must_use]
    pub fn udp(mut self) -> Self {
        self.frontends.iter_mut().for_each(|frontend| frontend.protocol = UDP);
        self
    }

    /// The same in this mode. One-way modes keep ports: instances then have the frontends'.
    #[must_use]
    pub fn mode(mut self, value: u8) -> Self {
        self.settings.mode = value;
        if mode::one_way(value) {
            for instance in self.versions.iter_mut().flat_map(|version| &mut version.instances) {
                instance.socket.set_port(80);
            }
        }
        if matches!(value, mode::GUE) {
            self.settings.tunnel_port = crate::packets::GUE_PORT;
        }
        self
    }

    /// With this conversation.
    #[must_use]
    pub const fn conversation(mut self, value: u8) -> Self {
        self.settings.conversation = value;
        self
    }

    /// Mode `snat` with two addresses of each family, and this many ports from 61000 on.
    #[must_use]
    pub fn snat(self, ports: u16) -> Self {
        self.mode(mode::SNAT).set(|service| {
            (service.snat_port, service.snat_ports) = (61_000, ports);
            (service.snat_count4, service.snat_count6) = (2, 2);
            for (index, last) in (1..=2).enumerate() {
                let address = Ipv4Addr::new(10, 255, 0, last);
                service.snat4[index] = address.into();
                if let IpAddr::V6(address) = Family::V6.ip(address) {
                    service.snat6[index] = address.into();
                }
            }
        })
    }

    /// With this client for a connection: address, port, index of its frontend.
    #[must_use]
    pub fn with_client(
        mut self,
        connection: usize,
        host: Ipv4Addr,
        port: u16,
        frontend: usize,
    ) -> Self {
        self.clients.insert(connection, Client { host, port, frontend });
        self
    }

    /// With other settings.
    #[must_use]
    pub fn set(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The same told in this family: clients, frontends and instances.
    #[must_use]
    pub fn told_in(mut self, family: Family) -> Self {
        self.family = family;
        for frontend in &mut self.frontends {
            frontend.socket = family.socket(frontend.socket);
        }
        for rule in &mut self.rules {
            // See `Family::ip`: the first three octets are words of their own, the last begins the
            // one that follows.
            let bits = match rule.bits {
                bits if rule.source.is_ipv6() || family == Family::V4 => bits,
                bits @ 24..32 => 80 + bits - 24,
                bits => 32 + bits * 2,
            };
            (rule.source, rule.bits) = (family.retold(rule.source), bits);
        }
        let reached = self.reached.unwrap_or(family);
        self.instances_in(reached)
    }

    /// The same with instances of this family, whatever that of the frontends. Before
    /// [`Self::told_in`]: what is told in IPv6 stays so.
    #[must_use]
    pub fn reached_by(mut self, family: Family) -> Self {
        self.reached = Some(family);
        self.instances_in(family)
    }

    fn instances_in(mut self, family: Family) -> Self {
        let versions = self.versions.iter_mut().flat_map(|version| &mut version.instances);
        for instance in versions.chain(&mut self.retired) {
            instance.socket = family.socket(instance.socket);
        }
        self
    }

    /// All instances, the retired ones first: a later one of the same address is the current one.
    pub fn instances(&self) -> impl Iterator<Item = Instance> + '_ {
        self.retired.iter().chain(self.versions.iter().flat_map(|v| &v.instances)).copied()
    }

    /// Index of the version an instance serves.
    pub fn version_of(&self, id: u32) -> Option<usize> {
        self.versions.iter().position(|version| version.instances.iter().any(|i| i.id == id))
    }

    /// The weights at first.
    pub fn weights(&self) -> Vec<u32> {
        self.versions.iter().map(|version| version.weight).collect()
    }

    /// Connections 0 and 1 have the same client address and port and go to frontends 0 and 1; all
    /// others have client ports of their own and go to frontend 0, unless `clients` has others.
    pub fn client(&self, connection: usize) -> Client {
        self.clients.get(&connection).copied().unwrap_or_else(|| Client {
            host: Ipv4Addr::new(192, 0, 2, 10),
            port: 40_000 + connection.max(1) as u16,
            frontend: usize::from(connection == 1),
        })
    }

    /// The client's socket of a connection.
    pub fn client_socket(&self, connection: usize) -> SocketAddr {
        let client = self.client(connection);
        (self.family.ip(client.host), client.port).into()
    }

    /// The frontend of a connection.
    pub fn frontend(&self, connection: usize) -> Frontend {
        self.frontends[self.client(connection).frontend]
    }

    /// Whether packets to instances go through tunnels.
    pub const fn tunnels(&self) -> bool {
        matches!(self.settings.mode, mode::IPIP | mode::GUE)
    }

    /// Element of `SERVICES`.
    pub fn service_value(&self) -> Service {
        let mut value = self.settings;
        for frontend in &self.frontends {
            if let Some(at) = Endpoint::of(frontend.socket, frontend.protocol) {
                value.frontends4[usize::from(value.frontend_count4)] = at;
                value.frontend_count4 += 1;
            }
            if let Some(at) = Endpoint::of(frontend.socket, frontend.protocol) {
                value.frontends6[usize::from(value.frontend_count6)] = at;
                value.frontend_count6 += 1;
            }
        }
        value
    }

    /// The split for these weights. A ring is of the family of its instances' flows; in tunnel modes
    /// one ring is both.
    pub fn split(&self, weights: &[u32], generation: u32) -> Split {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let mut split = Split { count: self.versions.len() as u32, ..Split::empty(generation) };
        let families = if self.tunnels() { vec![0, 1] } else { vec![self.family.index()] };
        for (index, version) in self.versions.iter().enumerate() {
            for &family in &families {
                split.occupied[family] |= u32::from(!version.instances.is_empty()) << index;
            }
        }
        let mut sum = 0;
        for ((entry, version), &weight) in split.entries.iter_mut().zip(&self.versions).zip(weights)
        {
            sum += u64::from(weight);
            let bound = (sum << 32).checked_div(total).unwrap_or(0);
            *entry = SplitEntry { bound, rings: [0; 2] };
            families.iter().for_each(|&family| entry.rings[family] = version.ring);
        }
        split
    }

    /// Elements of the version's inner map of `RINGS`.
    pub fn ring(&self, version: &Version) -> Vec<RingBlock> {
        let size = if version.instances.is_empty() { 0 } else { RING_SLOTS };
        let mut blocks = vec![RingBlock::default(); 1 + size.div_ceil(RING_BLOCK)];
        blocks[0].slots[0] = size as u32;
        for (slot, instance) in (0..size).zip(version.instances.iter().cycle()) {
            blocks[1 + slot / RING_BLOCK].slots[slot % RING_BLOCK] = instance.id;
        }
        blocks
    }

    /// Elements of `BACKENDS`.
    pub fn backends(&self) -> Vec<(u32, Backend)> {
        let value = |instance: Instance| {
            let ring = self.version_of(instance.id).map_or(0, |at| self.versions[at].ring);
            let mut backend = Backend::accepting(instance.socket, self.service, ring);
            if instance.closed {
                backend.state = backend_state::CLOSED;
            }
            if self.tunnels() {
                let (source, bits) = self.tunnel_sources[Family::of(instance.socket.ip()).index()];
                (backend.tunnel_source, backend.tunnel_bits) = (octets(source).0, bits);
            }
            (instance.id, backend)
        };
        self.instances().map(value).collect()
    }

    /// Entries of `BACKEND_IDS4/6`, in the order to write them. Only where replies pass here and
    /// are told by the instance's address.
    pub fn backend_ids<A: Address>(&self) -> Vec<(Endpoint<A>, BackendRef)> {
        if !matches!(self.settings.mode, mode::NAT | mode::LOCAL) {
            return Vec::new();
        }
        let mut entries = Vec::new();
        for instance in self.instances() {
            let value = BackendRef { backend: instance.id, service: self.service };
            for protocol in [TCP, UDP] {
                if self.frontends.iter().any(|frontend| frontend.protocol == protocol)
                    && let Some(at) = Endpoint::of(instance.socket, protocol)
                {
                    entries.push((at, value));
                }
            }
        }
        entries
    }

    /// Entries of `FRONTENDS4/6`.
    pub fn frontend_entries<A: Address>(&self) -> Vec<(Endpoint<A>, FrontendRef)> {
        let entry = |frontend: &Frontend| {
            let value = FrontendRef { service: self.service, ring: frontend.ring };
            Some((Endpoint::of(frontend.socket, frontend.protocol)?, value))
        };
        self.frontends.iter().filter_map(entry).collect()
    }

    /// Entries of `QUIC_IDS`.
    pub fn quic_ids(&self) -> Vec<(QuicKey, u32)> {
        let family = self.family.index() as u32;
        let entry = |instance: Instance| {
            (QuicKey { service: self.service, family, id: instance.server_id }, instance.id)
        };
        let foreign = self
            .foreign_id
            .map(|(id, instance)| (QuicKey { service: self.service + 1, family, id }, instance));
        self.instances().map(entry).chain(foreign).collect()
    }

    /// Elements of `PORTS`: frontends', instances'.
    pub fn ports(&self) -> [Box<PortBits>; 2] {
        let mut bits = [(); 2].map(|()| Box::new(PortBits { words: [0; 1024] }));
        self.frontends.iter().for_each(|frontend| bits[0].insert(frontend.socket.port()));
        self.instances().for_each(|instance| bits[1].insert(instance.socket.port()));
        bits
    }
}
