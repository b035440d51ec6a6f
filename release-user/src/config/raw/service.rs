//! `[[service]]`, its versions and their instances.

use super::super::address::{Endpoint, Frontend};
use super::super::error::Invalid;
use super::super::evidence::Sockets;
use super::super::forwarding::{Quic, ServerId};
use super::super::numbers::{
    IdleTimeout, InstanceWeight, SessionTimeout, UdpTimeout, UnrepliedTimeout, Weight,
};
use super::super::policy::{KeepaliveOnly, Limits, Probes};
use super::super::prefix::Prefix;
use super::super::reader::{At, Fields, Node};
use super::super::settings::{Conversation, Mode, OnDown, WhenEmpty, WhenFull};
use super::super::types::Name;
use super::super::{MAX_FRONTENDS, MAX_VERSIONS};
use super::options::{self, ByVersion, DraftDrain, DraftSnat, DraftTunnel};
use super::{choice, count, health, name, number, tables};
use crate::health::{Passive, Plan};
use crate::placement::RingSize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A service whose values are legal one by one. What was refused is missing or has its default,
/// and then `clean` is false. Options are those that not every service can have: what is there
/// was written.
#[derive(Debug)]
pub(in super::super) struct DraftService {
    pub clean: bool,
    pub name: Option<At<Name>>,
    pub frontends: Vec<At<Frontend>>,
    pub test_frontends: ByVersion<Frontend>,
    pub test_sources: ByVersion<Prefix>,
    pub mode: Option<At<Mode>>,
    pub conversation: Option<At<Conversation>>,
    pub idle_timeout: Option<At<IdleTimeout>>,
    pub udp_timeout: Option<At<UdpTimeout>>,
    pub unreplied_timeout: Option<At<UnrepliedTimeout>>,
    pub session_timeout: Option<At<SessionTimeout>>,
    pub limits: Option<At<Limits>>,
    pub when_empty: WhenEmpty,
    pub when_full: WhenFull,
    pub drain: DraftDrain,
    pub probes: Option<At<Probes>>,
    pub keepalive_only: Option<At<KeepaliveOnly>>,
    pub health: Option<At<Plan>>,
    pub passive: Option<At<Passive>>,
    pub on_down: Option<At<OnDown>>,
    pub snat: Option<At<DraftSnat>>,
    pub tunnel: Option<At<DraftTunnel>>,
    pub quic: Option<At<Quic>>,
    pub sockets: Option<At<Sockets>>,
    pub ring_size: RingSize,
    pub plan: Option<At<Name>>,
    pub registration: Option<At<DraftRegistration>>,
    pub versions: Vec<At<DraftVersion>>,
}

impl DraftService {
    /// The mode written, or the default.
    pub fn mode(&self) -> Mode {
        self.mode.as_ref().map(|at| at.value).unwrap_or_default()
    }

    /// The conversation written, or the default.
    pub fn conversation(&self) -> Conversation {
        self.conversation.as_ref().map(|at| at.value).unwrap_or_default()
    }

    /// Every frontend, those for tests included.
    pub fn all_frontends(&self) -> impl Iterator<Item = &At<Frontend>> {
        self.frontends.iter().chain(self.test_frontends.iter().flat_map(|(_, list)| &list.value))
    }

    /// Every place where sockets are asked for.
    pub fn sockets(&self) -> impl Iterator<Item = &At<Sockets>> {
        let versions = self.versions.iter().filter_map(|version| version.value.sockets.as_ref());
        let instances = self.instances().filter_map(|instance| instance.value.sockets.as_ref());
        self.sockets.iter().chain(versions).chain(instances)
    }

    /// Whether instances may register for a version.
    pub fn may_register(&self, version: &DraftVersion) -> bool {
        match self.registration.as_ref().map(|at| &at.value) {
            None => false,
            Some(DraftRegistration::Open) => true,
            Some(DraftRegistration::Versions(names)) => {
                let name = version.name.as_ref().map(|name| &name.value);
                names.iter().any(|known| Some(&known.value) == name)
            }
        }
    }

    /// All instances.
    pub fn instances(&self) -> impl Iterator<Item = &At<DraftInstance>> {
        self.versions.iter().flat_map(|version| &version.value.instances)
    }
}

/// Who may register.
#[derive(Debug)]
pub(in super::super) enum DraftRegistration {
    Open,
    Versions(Vec<At<Name>>),
}

/// A version, likewise.
#[derive(Debug)]
pub(in super::super) struct DraftVersion {
    pub name: Option<At<Name>>,
    pub weight: Weight,
    pub meta: BTreeMap<String, String>,
    pub sockets: Option<At<Sockets>>,
    pub instances: Vec<At<DraftInstance>>,
}

/// An instance, likewise.
#[derive(Debug)]
pub(in super::super) struct DraftInstance {
    pub id: Option<At<Name>>,
    pub addr: Option<At<Endpoint>>,
    pub weight: InstanceWeight,
    pub server_id: Option<At<ServerId>>,
    pub sockets: Option<At<Sockets>>,
}

pub(super) fn read(node: &Node<'_>) -> Result<DraftService, Invalid> {
    let mut fields = node.table()?;
    let service = DraftService {
        name: fields.required("name", r#"name = "web""#, name),
        frontends: fields
            .required("frontends", r#"frontends = ["192.0.2.10:80/tcp"]"#, |node| {
                count(node, 1, 2 * MAX_FRONTENDS)?;
                node.list(frontend)
            })
            .map(|at| at.value)
            .unwrap_or_default(),
        test_frontends: fields
            .or("test_frontends", Vec::new(), |node| options::read_by_version(node, frontend)),
        test_sources: fields.or("test_sources", Vec::new(), |node| {
            options::read_by_version(node, |prefix| Prefix::parse(prefix.string()?))
        }),
        mode: fields.optional("mode", choice),
        conversation: fields.optional("conversation", choice),
        idle_timeout: timeout(&mut fields, "idle_timeout", IdleTimeout::new),
        udp_timeout: timeout(&mut fields, "udp_timeout", UdpTimeout::new),
        unreplied_timeout: timeout(&mut fields, "unreplied_timeout", UnrepliedTimeout::new),
        session_timeout: timeout(&mut fields, "session_timeout", SessionTimeout::new),
        limits: fields.optional("limits", options::read_limits),
        when_empty: fields.or("when_empty", WhenEmpty::default(), choice),
        when_full: fields.or("when_full", WhenFull::default(), choice),
        drain: fields.or("drain", DraftDrain::default(), options::read_drain),
        probes: fields.optional("probes", options::read_probes),
        keepalive_only: fields.optional("keepalive_only", options::read_keepalive_only),
        health: fields.optional("health", health::read),
        passive: fields.optional("passive", health::read_passive),
        on_down: fields.optional("on_down", choice),
        snat: fields.optional("snat", options::read_snat),
        tunnel: fields.optional("tunnel", options::read_tunnel),
        quic: fields.optional("quic", options::read_quic),
        sockets: fields.optional("sockets", options::read_sockets),
        ring_size: fields.or("ring_size", RingSize::DEFAULT, ring_size),
        plan: fields.optional("plan", name),
        registration: fields.optional("registration", read_registration),
        versions: fields
            .required("version", "add a [[service.version]]", |node| {
                tables(node, "[[service.version]]")?;
                count(node, 1, MAX_VERSIONS)?;
                node.list(read_version)
            })
            .map(|at| at.value)
            .unwrap_or_default(),
        clean: true,
    };
    Ok(DraftService { clean: fields.finish(), ..service })
}

fn read_version(node: &Node<'_>) -> Result<DraftVersion, Invalid> {
    let mut fields = node.table()?;
    let version = DraftVersion {
        name: fields.required("name", r#"name = "v1""#, name),
        weight: number(&mut fields, "weight", Weight::new),
        meta: fields.or("meta", BTreeMap::new(), |node| {
            let all = node.table()?.every(|value| value.string().map(str::to_owned));
            Ok(all.map(|(key, text)| (key, text.value)).collect())
        }),
        sockets: fields.optional("sockets", options::read_sockets),
        instances: fields.or("instances", Vec::new(), |node| node.list(read_instance)),
    };
    fields.finish();
    Ok(version)
}

fn read_instance(node: &Node<'_>) -> Result<DraftInstance, Invalid> {
    if !node.is_table() {
        let addr = Endpoint::parse(node.string().map_err(|_| {
            Invalid::new("neither an address nor a table")
                .hint(r#"such as "10.0.0.11:8080" or { id = "a", addr = "10.0.0.11:8080" }"#)
        })?)?;
        return Ok(DraftInstance {
            id: None,
            addr: Some(At { place: node.place.clone(), value: addr }),
            weight: InstanceWeight::DEFAULT,
            server_id: None,
            sockets: None,
        });
    }
    let mut fields = node.table()?;
    let instance = DraftInstance {
        id: fields.optional("id", name),
        addr: fields
            .required("addr", r#"addr = "10.0.0.11:8080""#, |node| Endpoint::parse(node.string()?)),
        weight: number(&mut fields, "weight", InstanceWeight::new),
        server_id: fields.optional("server_id", |node| ServerId::parse(node.string()?)),
        sockets: fields.optional("sockets", options::read_sockets),
    };
    fields.finish();
    Ok(instance)
}

fn read_registration(node: &Node<'_>) -> Result<DraftRegistration, Invalid> {
    match node.string() {
        Ok("open") => return Ok(DraftRegistration::Open),
        Ok(other) => {
            return Err(Invalid::new(format!("unknown value {other:?}"))
                .hint(r#"`"open"`, or an array of versions"#));
        }
        Err(_) => count(node, 1, MAX_VERSIONS)?,
    }
    node.list(name).map(DraftRegistration::Versions)
}

fn frontend(node: &Node<'_>) -> Result<Frontend, Invalid> {
    Frontend::parse(node.string()?)
}

fn timeout<T>(
    fields: &mut Fields<'_>,
    key: &'static str,
    check: impl FnOnce(Duration) -> Result<T, Invalid>,
) -> Option<At<T>> {
    fields.optional(key, |node| check(node.duration()?))
}

fn ring_size(node: &Node<'_>) -> Result<RingSize, Invalid> {
    let number = node.integer()?;
    let clamped = u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    RingSize::new(clamped).map_err(|error| {
        let range = format!("{} to {}", RingSize::MIN, RingSize::MAX);
        Invalid::new(format!("{number} is not a prime from {range}"))
            .hint(format!("the nearest is {}", error.nearest()))
    })
}
