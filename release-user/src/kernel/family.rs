//! Maps that exist once per address family, and access to both as one.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use bytemuck::Pod;
use ipnet::IpNet;
use release_common::abi::{
    Addr6, Address, BackendRef, Be32, Embryo, Endpoint, Flow, FlowKey, FrontendRef, RuleKey,
    Session, SessionKey, SnatKey, SnatOwner,
};

use super::maps::{io_error, pairs, pinned, typed};
use super::pod::Abi;
use super::{KernelError, Maps, batch, map_error};

/// A socket and the number of its protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct At {
    /// Address and port.
    pub socket: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
}

impl At {
    /// A key of a map.
    pub fn of<A: Address>(endpoint: Endpoint<A>) -> Self {
        Self { socket: endpoint.socket(), proto: endpoint.proto }
    }
}

/// The 5-tuple of a flow as the client sends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tuple {
    /// The client.
    pub client: SocketAddr,
    /// The frontend.
    pub frontend: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
}

impl Tuple {
    /// A key of a map.
    pub fn of<A: Address>(key: &FlowKey<A>) -> Self {
        Self { client: key.client().socket(), frontend: key.frontend().socket(), proto: key.proto }
    }

    /// The key in the maps of family `A`, if it is of that family.
    pub fn key<A: Address>(&self) -> Option<FlowKey<A>> {
        let client = Endpoint::of(self.client, self.proto)?;
        Some(FlowKey::between(client, Endpoint::of(self.frontend, self.proto)?))
    }

    /// The frontend's end.
    pub const fn at(&self) -> At {
        At { socket: self.frontend, proto: self.proto }
    }
}

/// Clients of one service that a test rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RuleAt {
    /// Index in `SERVICES`.
    pub service: u32,
    /// The clients.
    pub net: IpNet,
}

/// A session's client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionAt {
    /// Index in `SERVICES`.
    pub service: u32,
    /// The client's address.
    pub client: IpAddr,
}

/// The maps of one family.
pub(super) struct FamilyMaps<A: Address> {
    frontends: HashMap<MapData, Abi<Endpoint<A>>, Abi<FrontendRef>>,
    backend_ids: HashMap<MapData, Abi<Endpoint<A>>, Abi<BackendRef>>,
    rules: LpmTrie<MapData, Abi<RuleKey<A>>, u32>,
    flows: MapData,
    embryos: MapData,
    snat: MapData,
}

/// Names of a family's maps.
fn name<A: Address>(name: &str) -> String {
    format!("{name}{}", A::VERSION)
}

impl<A: Address> FamilyMaps<A>
where
    Endpoint<A>: Pod,
    FlowKey<A>: Pod,
    RuleKey<A>: Pod,
    SnatKey<A>: Pod,
    SnatOwner<A>: Pod,
{
    pub(super) fn open(bpffs: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            frontends: typed(bpffs, &name::<A>("FRONTENDS"), Map::HashMap)?,
            backend_ids: typed(bpffs, &name::<A>("BACKEND_IDS"), Map::HashMap)?,
            rules: typed(bpffs, &name::<A>("RULES"), Map::LpmTrie)?,
            flows: pinned(bpffs, &name::<A>("FLOWS"))?,
            embryos: pinned(bpffs, &name::<A>("EMBRYOS"))?,
            snat: pinned(bpffs, &name::<A>("SNAT"))?,
        })
    }

    fn frontends(&self, into: &mut Vec<(At, FrontendRef)>) -> Result<(), KernelError> {
        let found = pairs(&self.frontends, "FRONTENDS")?;
        into.extend(found.into_iter().map(|(at, value)| (At::of(at), value)));
        Ok(())
    }

    fn frontend(&self, at: At) -> Result<Option<FrontendRef>, KernelError> {
        let Some(key) = Endpoint::of(at.socket, at.proto) else { return Ok(None) };
        match self.frontends.get(&Abi(key), 0) {
            Ok(value) => Ok(Some(value.0)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("FRONTENDS")(error)),
        }
    }

    fn set_frontend(&mut self, at: At, value: Option<FrontendRef>) -> Result<(), KernelError> {
        let Some(key) = Endpoint::of(at.socket, at.proto) else { return Ok(()) };
        match value {
            Some(value) => self.frontends.insert(Abi(key), Abi(value), 0),
            None => self.frontends.remove(&Abi(key)),
        }
        .map_err(map_error("FRONTENDS"))
    }

    fn backend_ids(&self, into: &mut Vec<(At, BackendRef)>) -> Result<(), KernelError> {
        let found = pairs(&self.backend_ids, "BACKEND_IDS")?;
        into.extend(found.into_iter().map(|(at, value)| (At::of(at), value)));
        Ok(())
    }

    fn set_backend_id(&mut self, at: At, value: Option<BackendRef>) -> Result<(), KernelError> {
        let Some(key) = Endpoint::of(at.socket, at.proto) else { return Ok(()) };
        match value {
            Some(value) => self.backend_ids.insert(Abi(key), Abi(value), 0),
            None => self.backend_ids.remove(&Abi(key)),
        }
        .map_err(map_error("BACKEND_IDS"))
    }

    fn rules(&self, into: &mut Vec<(RuleAt, u32)>) -> Result<(), KernelError> {
        for pair in self.rules.iter() {
            let (key, ring) = pair.map_err(map_error("RULES"))?;
            let Abi(rule) = key.data();
            let bits = key.prefix_len().saturating_sub(SERVICE_BITS) as u8;
            if let Ok(net) = IpNet::new(rule.source.ip(), bits) {
                into.push((RuleAt { service: rule.service.get(), net }, ring));
            }
        }
        Ok(())
    }

    fn set_rule(&mut self, at: RuleAt, ring: Option<u32>) -> Result<(), KernelError> {
        let Some(source) = A::from_ip(at.net.addr()) else { return Ok(()) };
        let rule = RuleKey { service: Be32::new(at.service), source };
        let key = Key::new(SERVICE_BITS + u32::from(at.net.prefix_len()), Abi(rule));
        match ring {
            Some(ring) => self.rules.insert(&key, ring, 0),
            None => self.rules.remove(&key),
        }
        .map_err(map_error("RULES"))
    }

    fn walk_flows(&self, each: &mut impl FnMut(&Tuple, &Flow)) -> Result<(), KernelError> {
        let each = |key: &FlowKey<A>, flow: &Flow| each(&Tuple::of(key), flow);
        batch::walk(self.flows.fd().as_fd(), each).map_err(io_error("FLOWS"))
    }

    fn walk_embryos(&self, each: &mut impl FnMut(&Tuple, &Embryo)) -> Result<(), KernelError> {
        let each = |key: &FlowKey<A>, embryo: &Embryo| each(&Tuple::of(key), embryo);
        batch::walk(self.embryos.fd().as_fd(), each).map_err(io_error("EMBRYOS"))
    }

    /// Calls `each` for every translated source in use.
    pub(super) fn walk_snat(
        &self,
        each: impl FnMut(&SnatKey<A>, &SnatOwner<A>),
    ) -> Result<(), KernelError> {
        batch::walk(self.snat.fd().as_fd(), each).map_err(io_error("SNAT"))
    }
}

/// Bits of the service in the key of a rule.
const SERVICE_BITS: u32 = 32;

/// Both families' maps as one: what is of the other family is passed over.
impl Maps {
    /// All frontends.
    pub fn frontends(&self) -> Result<Vec<(At, FrontendRef)>, KernelError> {
        let mut found = Vec::new();
        self.v4.frontends(&mut found)?;
        self.v6.frontends(&mut found)?;
        Ok(found)
    }

    /// A frontend.
    pub fn frontend(&self, at: At) -> Result<Option<FrontendRef>, KernelError> {
        Ok(self.v4.frontend(at)?.or(self.v6.frontend(at)?))
    }

    /// Adds or replaces a frontend, or (`None`) removes it.
    pub fn set_frontend(&mut self, at: At, value: Option<FrontendRef>) -> Result<(), KernelError> {
        self.v4.set_frontend(at, value)?;
        self.v6.set_frontend(at, value)
    }

    /// All instance addresses.
    pub fn backend_ids(&self) -> Result<Vec<(At, BackendRef)>, KernelError> {
        let mut found = Vec::new();
        self.v4.backend_ids(&mut found)?;
        self.v6.backend_ids(&mut found)?;
        Ok(found)
    }

    /// Adds or replaces an instance address, or (`None`) removes it.
    pub fn set_backend_id(&mut self, at: At, value: Option<BackendRef>) -> Result<(), KernelError> {
        self.v4.set_backend_id(at, value)?;
        self.v6.set_backend_id(at, value)
    }

    /// All test rules, with the ring that they lead to.
    pub fn rules(&self) -> Result<Vec<(RuleAt, u32)>, KernelError> {
        let mut found = Vec::new();
        self.v4.rules(&mut found)?;
        self.v6.rules(&mut found)?;
        Ok(found)
    }

    /// Adds or replaces a test rule, or (`None`) removes it.
    pub fn set_rule(&mut self, at: RuleAt, ring: Option<u32>) -> Result<(), KernelError> {
        self.v4.set_rule(at, ring)?;
        self.v6.set_rule(at, ring)
    }

    /// Calls `each` for every flow.
    pub fn walk_flows(&self, mut each: impl FnMut(&Tuple, &Flow)) -> Result<(), KernelError> {
        self.v4.walk_flows(&mut each)?;
        self.v6.walk_flows(&mut each)
    }

    /// Calls `each` for every embryo.
    pub fn walk_embryos(&self, mut each: impl FnMut(&Tuple, &Embryo)) -> Result<(), KernelError> {
        self.v4.walk_embryos(&mut each)?;
        self.v6.walk_embryos(&mut each)
    }

    /// Calls `each` for every client session.
    pub fn walk_sessions(
        &self,
        mut each: impl FnMut(SessionAt, &Session),
    ) -> Result<(), KernelError> {
        let each = |key: &SessionKey, session: &Session| each(session_at(key), session);
        batch::walk(self.sessions.fd().as_fd(), each).map_err(io_error("SESSIONS"))
    }

    /// Number of translated sources in use.
    pub fn snat_in_use(&self) -> Result<usize, KernelError> {
        let mut count = 0;
        self.v4.walk_snat(|_, _| count += 1)?;
        self.v6.walk_snat(|_, _| count += 1)?;
        Ok(count)
    }
}

fn session_at(key: &SessionKey) -> SessionAt {
    let client =
        if key.version == 4 { Be32(key.client.0[0]).ip() } else { Addr6(key.client.0).ip() };
    SessionAt { service: key.service, client }
}

/// The key of a session.
pub(super) fn session_key(at: &SessionAt) -> SessionKey {
    match at.client {
        IpAddr::V4(client) => SessionKey::new(Be32::from(client), at.service),
        IpAddr::V6(client) => SessionKey::new(Addr6::from(client), at.service),
    }
}
