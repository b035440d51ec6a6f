//! What the data plane is to do, as plain values: complete for every mode and conversation, and
//! free of map layouts.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::settings::Settings;
use crate::config::{Family, Frontend, Prefix, Protocol, ServerId};
use crate::fnv;
use crate::placement::{Member, Ring, RingSize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// By service id.
    pub services: BTreeMap<u32, ServicePlan>,
    /// Whose replies come from an address: instances of the modes in which the sender tells.
    pub owners: HashMap<(SocketAddr, Protocol), Owner>,
}

/// Whom an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The instance.
    pub backend: u32,
    /// The service.
    pub service: u32,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// Its id.
    pub id: u32,
    /// Number of the split.
    pub generation: u32,
    /// How its packets are treated: mode, conversation, limits, timeouts, sessions, sources,
    /// tunnel, QUIC.
    pub settings: Settings,
    /// Every frontend that may have flows.
    pub frontends: Vec<FrontendPlan>,
    /// Versions in configuration order, removed ones last. Their bounds divide the hash space.
    pub versions: Vec<VersionPlan>,
    /// By ring id.
    pub rings: BTreeMap<u32, RingPlan>,
    /// Clients that reach one version whatever the split says; no prefix twice.
    pub rules: Vec<RulePlan>,
}

/// A frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendPlan {
    /// Address and protocol.
    pub at: Frontend,
    /// Its place among the service's frontends of its family; it does not change.
    pub place: usize,
    /// What its new flows reach.
    pub reaches: Reaches,
}

/// What a frontend's new flows reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaches {
    /// What rules, sessions and split say.
    Split,
    /// A version, by number.
    Version(u32),
    /// Nobody, they get `when_empty`'s answer: its version is drained.
    Nobody,
    /// It is gone from the configuration: they are not ours. Flows of before go on.
    Gone,
}

/// A version.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionPlan {
    /// Its number, unique over all services.
    pub number: u32,
    /// Upper bound (exclusive) of its part of the hash space, which begins where that of the
    /// version before ends.
    pub bound: u64,
    /// Its rings.
    pub rings: RingIds,
    /// Those of its rings that have lost instances, with these: for mid-flow packets.
    pub former: RingIds,
    /// Its instances, those that only have flows of before included.
    pub instances: Vec<InstancePlan>,
}

/// Rings of a version, by the family of the client's packet. Where packets travel in tunnels both
/// are the same; `None`: there is none, as where the service has no frontend of this family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingIds {
    /// For IPv4 clients.
    pub v4: Option<u32>,
    /// For IPv6 clients.
    pub v6: Option<u32>,
}

impl RingIds {
    /// For clients of a family.
    pub const fn of(self, family: Family) -> Option<u32> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// An instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstancePlan {
    /// Its id.
    pub backend: u32,
    /// Its socket, which serves every protocol that a frontend of the service has.
    pub addr: SocketAddr,
    /// What stands for it in QUIC connection ids: no other instance of the service has it.
    pub server_id: Option<ServerId>,
    /// Whether a session under `move` may stay with it.
    pub accepting: bool,
    /// Whether it is unable to serve: no session may stay with it, held or not.
    pub down: bool,
}

/// Clients that reach one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulePlan {
    /// Their addresses; of several that hold one, the longest counts.
    pub prefix: Prefix,
    /// The version's number.
    pub version: u32,
    /// Its ring for this family.
    pub ring: u32,
}

/// A ring: built only where the kernel has another.
#[derive(Clone, Debug, PartialEq)]
pub struct RingPlan {
    /// Instances with their weights.
    pub members: Vec<Member>,
    /// Number of slots.
    pub size: RingSize,
}

impl RingPlan {
    /// Identifies the contents: equal rings have equal fingerprints. FNV-1a over the members.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = self.size.get().to_le_bytes().to_vec();
        for member in &self.members {
            bytes.extend(member.id.to_le_bytes());
            bytes.extend(member.addr.to_string().as_bytes());
            bytes.extend(member.weight.to_le_bytes());
        }
        fnv::hash([bytes.as_slice()])
    }

    /// Number of slots in the kernel: an empty ring has one that names nobody.
    pub fn slots(&self) -> u32 {
        if self.members.is_empty() { 1 } else { self.size.get() }
    }

    /// The slots.
    pub fn build(&self) -> Vec<u32> {
        Ring::build(&self.members, self.size).into_slots()
    }
}

impl ServicePlan {
    /// Whether a version has somebody in its ring for clients of a family.
    pub fn occupied(&self, version: &VersionPlan, family: Family) -> bool {
        let ring = version.rings.of(family).and_then(|ring| self.rings.get(&ring));
        ring.is_some_and(|ring| !ring.members.is_empty())
    }

    /// Protocols that its frontends have.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let spoken = |protocol: &Protocol| {
            self.frontends.iter().any(|frontend| frontend.at.protocol() == *protocol)
        };
        Protocol::ALL.into_iter().filter(spoken)
    }
}
