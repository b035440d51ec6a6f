//! Tables and lists inside `[[service]]`.

use super::super::MAX_SNAT_ADDRESSES;
use super::super::address::{Endpoint, host_address};
use super::super::error::Invalid;
use super::super::evidence::{Sockets, absolute};
use super::super::forwarding::{PortRange, Quic, ServerId};
use super::super::numbers::{duration_in, in_range};
use super::super::policy::{Drain, KeepaliveOnly, Limits, Probes};
use super::super::prefix::Prefix;
use super::super::reader::{At, Node};
use super::super::settings::OnDrain;
use super::super::types::Name;
use super::{choice, count};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Lists with the version that each is for.
pub(in super::super) type ByVersion<T> = Vec<(Name, At<Vec<At<T>>>)>;

/// `drain`, and what it says of sessions, which only some services have.
#[derive(Debug, Default)]
pub(in super::super) struct DraftDrain {
    pub drain: Drain,
    pub sessions: Option<At<OnDrain>>,
}

/// `snat`, its addresses legal one by one.
#[derive(Debug)]
pub(in super::super) struct DraftSnat {
    pub addresses: Vec<At<IpAddr>>,
    pub ports: PortRange,
}

/// `tunnel`, likewise.
#[derive(Debug, Default)]
pub(in super::super) struct DraftTunnel {
    pub sources: Vec<At<Prefix>>,
    pub port: Option<At<u16>>,
}

pub(super) fn read_drain(node: &Node<'_>) -> Result<DraftDrain, Invalid> {
    let mut fields = node.table()?;
    let default = Drain::default();
    let span = |node: &Node<'_>| duration_in(node.duration()?, Drain::SHORTEST, Drain::LONGEST);
    let drain = Drain {
        settle: fields.or("settle", default.settle, span),
        samples: fields.or("samples", default.samples, |node| {
            in_range(node.integer()?, 1, Drain::MAX_SAMPLES)
        }),
        every: fields.or("every", default.every, span),
    };
    let sessions = fields.optional("sessions", choice);
    fields.finish();
    if drain.every() * drain.samples().saturating_sub(1) > Drain::LONGEST_LOOK {
        return Err(Invalid::new("the samples take longer than 5 s")
            .hint("(samples - 1) x every is the time that each verdict takes"));
    }
    Ok(DraftDrain { drain, sessions })
}

pub(super) fn read_keepalive_only(node: &Node<'_>) -> Result<KeepaliveOnly, Invalid> {
    let mut fields = node.table()?;
    let default = KeepaliveOnly::default();
    let longest = Duration::from_secs(7 * 86_400);
    let keepalive_only = KeepaliveOnly {
        after: fields.or("after", default.after, |node| {
            duration_in(node.duration()?, Duration::from_secs(1), longest)
        }),
        action: fields.or("action", default.action, choice),
    };
    fields.finish();
    Ok(keepalive_only)
}

pub(super) fn read_probes(node: &Node<'_>) -> Result<Probes, Invalid> {
    let mut fields = node.table()?;
    let default = Probes::default();
    let span = |node: &Node<'_>| duration_in(node.duration()?, Drain::SHORTEST, Drain::LONGEST);
    let probes = Probes {
        enabled: fields.or("enabled", default.enabled, Node::boolean),
        after: fields.or("after", default.after, span),
        every: fields.or("every", default.every, span),
        tries: fields
            .or("tries", default.tries, |node| in_range(node.integer()?, 1, Probes::MAX_TRIES)),
    };
    fields.finish();
    Ok(probes)
}

pub(super) fn read_limits(node: &Node<'_>) -> Result<Limits, Invalid> {
    let mut fields = node.table()?;
    let limit = |node: &Node<'_>| {
        let number = in_range(node.integer()?, 1, u32::MAX)?;
        NonZeroU32::new(number).ok_or_else(|| Invalid::new("0 is out of range"))
    };
    let limits = Limits {
        max_flows: fields.optional("max_flows", limit).map(|at| at.value),
        new_flows_per_second: fields.optional("new_flows_per_second", limit).map(|at| at.value),
    };
    fields.finish();
    Ok(limits)
}

pub(super) fn read_snat(node: &Node<'_>) -> Result<DraftSnat, Invalid> {
    let mut fields = node.table()?;
    let snat = DraftSnat {
        addresses: fields
            .required("addresses", r#"addresses = ["10.0.0.5"]"#, |node| {
                count(node, 1, 2 * MAX_SNAT_ADDRESSES)?;
                node.list(|address| host_address(address.string()?))
            })
            .map(|at| at.value)
            .unwrap_or_default(),
        ports: fields.or("ports", PortRange::DEFAULT, |node| PortRange::parse(node.string()?)),
    };
    fields.finish();
    Ok(snat)
}

pub(super) fn read_tunnel(node: &Node<'_>) -> Result<DraftTunnel, Invalid> {
    let mut fields = node.table()?;
    let tunnel = DraftTunnel {
        sources: fields.or("sources", Vec::new(), |node| {
            node.list(|prefix| Prefix::parse_sources(prefix.string()?))
        }),
        port: fields
            .optional("port", |node| Ok(in_range(node.integer()?, 1, u16::MAX.into())? as u16)),
    };
    fields.finish();
    Ok(tunnel)
}

pub(super) fn read_quic(node: &Node<'_>) -> Result<Quic, Invalid> {
    let mut fields = node.table()?;
    let default = Quic::default();
    let longest = ServerId::MAX_LENGTH as u32;
    let quic = Quic {
        server_id_length: fields.or("server_id_length", default.server_id_length, |node| {
            Ok(in_range(node.integer()?, 1, longest)? as u8)
        }),
        config_id: fields.or("config_id", default.config_id, |node| match node.integer()? {
            7 => Err(Invalid::new("7 is reserved").hint(
                "it marks connection ids that name no instance \
                 (draft-ietf-quic-load-balancers); 0 to 6",
            )),
            number => Ok(in_range(number, 0, 6)? as u8),
        }),
    };
    fields.finish();
    Ok(quic)
}

/// Where sockets are asked for: a word, or a table with one key.
pub(super) fn read_sockets(node: &Node<'_>) -> Result<Sockets, Invalid> {
    if !node.is_table() {
        return Sockets::word(node.string()?);
    }
    let mut fields = node.table()?;
    let given = [
        fields.optional("netns", |node| Sockets::netns(node.string()?)),
        fields.optional("pid_file", |node| absolute(node.string()?).map(Sockets::PidFile)),
        fields.optional("agent", |node| Endpoint::parse(node.string()?).map(Sockets::Agent)),
    ];
    let clean = fields.finish();
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => Ok(one.value),
        (Some(_), Some(second)) => {
            Err(Invalid::new(format!("a second place, {}", second.place.key))
                .hint("sockets are in one place: keep one key"))
        }
        // What was refused is reported already.
        (None, _) if !clean => Ok(Sockets::None),
        (None, _) => Err(Invalid::new("empty").hint("`netns`, `pid_file` or `agent`")),
    }
}

/// Lists by version name. What one list holds, and whether there is such a version, is checked
/// together with the service.
pub(super) fn read_by_version<T>(
    node: &Node<'_>,
    read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
) -> Result<ByVersion<T>, Invalid> {
    let lists = node.table()?.every(|list| list.list(&read));
    lists.map(|(key, list)| Name::new(&key).map(|name| (name, list))).collect()
}
