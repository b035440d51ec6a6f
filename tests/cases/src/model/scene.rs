//! What user space tells the packet path, as plain data: loaded into the model, or into the real
//! maps.

use std::net::{Ipv4Addr, SocketAddrV4};

use release_common::abi::{
    Backend, BackendRef, Endpoint4, FrontendRef, PortBits, RING_BLOCK, RingBlock, Service, Split,
    SplitEntry, refusal,
};

/// Slots of every ring here: few, and no multiple of a block.
pub const RING_SLOTS: usize = 61;

/// One instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Id in `BACKENDS`.
    pub id: u32,
    /// Its socket.
    pub socket: SocketAddrV4,
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

/// A service with its versions.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Index in `SERVICES`.
    pub service: u32,
    /// Its frontends.
    pub frontends: Vec<SocketAddrV4>,
    /// One of [`refusal`].
    pub when_empty: u8,
    /// One of [`refusal`].
    pub when_full: u8,
    /// Its versions.
    pub versions: Vec<Version>,
    /// Instances that serve no version any more, but still have flows.
    pub retired: Vec<Instance>,
    /// Flow table entries at which new flows are refused.
    pub flow_limit: u32,
}

/// Generation of the split that a scene begins with; each shift adds one.
pub const FIRST_GENERATION: u32 = 7;

impl Scene {
    /// Two frontends, and as many versions as there are weights with `instances` each: version `v`
    /// has ring `v + 1` and the addresses `10.0.v+1.1`, `10.0.v+1.2`…, port 8080. Refusals are
    /// answered with RST.
    pub fn new(weights: &[u32], instances: u8) -> Self {
        let mut versions = Vec::new();
        for (version, &weight) in (1_u8..).zip(weights) {
            let instance = |number: u8| Instance {
                id: u32::from(version) * 10 + u32::from(number),
                socket: SocketAddrV4::new(Ipv4Addr::new(10, 0, version, number), 8080),
            };
            let instances = (1..=instances).map(instance).collect();
            versions.push(Version { ring: u32::from(version), weight, instances });
        }
        Self {
            service: 3,
            frontends: vec![
                SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 80),
                SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 80),
            ],
            when_empty: refusal::REJECT,
            when_full: refusal::REJECT,
            versions,
            retired: Vec::new(),
            flow_limit: 1000,
        }
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

    /// Element of `SERVICES`.
    pub fn service_value(&self) -> Service {
        let mut value = Service {
            frontend_count: self.frontends.len() as u32,
            when_empty: self.when_empty,
            when_full: self.when_full,
            ..Service::default()
        };
        for (slot, &frontend) in value.frontends.iter_mut().zip(&self.frontends) {
            *slot = frontend.into();
        }
        value
    }

    /// The split for these weights.
    pub fn split(&self, weights: &[u32], generation: u32) -> Split {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let mut split = Split { count: self.versions.len() as u32, ..Split::empty(generation) };
        for (index, version) in self.versions.iter().enumerate() {
            split.occupied |= u32::from(!version.instances.is_empty()) << index;
        }
        let mut sum = 0;
        for ((entry, version), &weight) in split.entries.iter_mut().zip(&self.versions).zip(weights)
        {
            sum += u64::from(weight);
            let bound = (sum << 32).checked_div(total).unwrap_or(0);
            *entry = SplitEntry { bound, ring: version.ring, pad: 0 };
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
            let backend = Backend::used(instance.socket, self.service, ring);
            (instance.id, backend)
        };
        self.instances().map(value).collect()
    }

    /// Entries of `BACKEND_IDS`, in the order to write them.
    pub fn backend_ids(&self) -> Vec<(Endpoint4, BackendRef)> {
        let value = |instance: Instance| {
            (instance.socket.into(), BackendRef { backend: instance.id, service: self.service })
        };
        self.instances().map(value).collect()
    }

    /// Entries of `FRONTENDS`.
    pub fn frontend_entries(&self) -> Vec<(Endpoint4, FrontendRef)> {
        let value = FrontendRef { service: self.service, flags: 0 };
        self.frontends.iter().map(|&frontend| (frontend.into(), value)).collect()
    }

    /// Elements of `PORTS`: frontends', instances'.
    pub fn ports(&self) -> [Box<PortBits>; 2] {
        let mut bits = [(); 2].map(|()| Box::new(PortBits { words: [0; 1024] }));
        self.frontends.iter().for_each(|frontend| bits[0].insert(frontend.port()));
        self.instances().for_each(|instance| bits[1].insert(instance.socket.port()));
        bits
    }
}
