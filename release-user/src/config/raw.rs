//! One file → drafts: every field is checked by itself and remembers where it stood.

use super::error::Invalid;
use super::reader::{At, Fields, Node, Source};
use super::service::Drain;
use super::settings::{Choice, Conversation, Daemon, LogLevel, Mode, WhenEmpty, WhenFull, XdpMode};
use super::types::{
    EmbryoCapacity, Endpoint, FlowCapacity, Frontend, IdleTimeout, InstanceWeight, InterfaceName,
    Name, Weight, duration_in, in_range,
};
use super::{MAX_FRONTENDS, MAX_VERSIONS};
use crate::placement::RingSize;
use std::collections::BTreeMap;
use toml::de::DeTable;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub daemon: Option<At<Daemon>>,
    /// There is a `daemon`, but it is no table.
    pub daemon_refused: bool,
    pub services: Vec<At<DraftService>>,
}

/// A service whose values are legal one by one. What was refused is missing or has its default,
/// and then `clean` is false.
#[derive(Debug)]
pub(super) struct DraftService {
    pub clean: bool,
    pub name: Option<At<Name>>,
    pub frontends: Vec<At<Frontend>>,
    pub mode: Mode,
    pub conversation: Conversation,
    pub idle_timeout: IdleTimeout,
    pub when_empty: WhenEmpty,
    pub when_full: WhenFull,
    pub drain: Drain,
    pub ring_size: RingSize,
    pub versions: Vec<At<DraftVersion>>,
}

/// A version, likewise.
#[derive(Debug)]
pub(super) struct DraftVersion {
    pub name: Option<At<Name>>,
    pub weight: Weight,
    pub meta: BTreeMap<String, String>,
    pub instances: Vec<At<DraftInstance>>,
}

/// An instance, likewise.
#[derive(Debug)]
pub(super) struct DraftInstance {
    pub id: Option<At<Name>>,
    pub addr: Option<Endpoint>,
    pub weight: InstanceWeight,
}

/// Reads a text. `None` if it is not TOML at all; what is wrong is reported to `source`.
pub(super) fn read(source: &Source<'_>, text: &str) -> Option<Draft> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(read_file(source, root.get_ref()));
    }
    let mut line = None;
    for error in errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        let place = source.place(offset, String::new());
        // The parser may stumble several times over one mistake.
        if place.line != line {
            line = place.line;
            source.report(place, Invalid::new(format!("not TOML: {}", error.message())));
        }
    }
    None
}

fn read_file<'a>(source: &'a Source<'a>, root: &'a DeTable<'a>) -> Draft {
    let mut file = Fields::new(source, source.place(0, String::new()), root);
    file.required("schema", "schema = 1", |node| match node.integer()? {
        1 => Ok(()),
        other => Err(Invalid::new(format!("schema {other} is not supported by this version"))
            .hint("supported: 1")),
    });
    let daemon = file.optional("daemon", read_daemon);
    let services = file.or("service", Vec::new(), |node| {
        if node.is_table() {
            return Err(Invalid::new("a single table").hint("write [[service]]"));
        }
        node.list(read_service)
    });
    file.finish();
    let daemon_refused = daemon.is_none() && root.contains_key("daemon");
    Draft { daemon, daemon_refused, services }
}

fn read_daemon(node: &Node<'_>) -> Result<Daemon, Invalid> {
    let mut fields = node.table()?;
    let interfaces = fields.required("interfaces", r#"interfaces = ["eth0"]"#, |node| {
        let names = node.list(|name| InterfaceName::new(name.string()?))?;
        if node.elements()?.is_empty() {
            return Err(Invalid::new("empty").hint("name at least one interface"));
        }
        let names: Vec<_> = names.into_iter().map(|name| name.value).collect();
        if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
            return Err(Invalid::new(format!("`{}` stands twice", names[twice])));
        }
        Ok(names)
    });
    let daemon = Daemon {
        interfaces: interfaces.map(|at| at.value).unwrap_or_default(),
        xdp_mode: fields.or("xdp_mode", XdpMode::default(), choice),
        flow_capacity: fields
            .or("flow_capacity", FlowCapacity::DEFAULT, |node| FlowCapacity::new(node.integer()?)),
        embryo_capacity: fields.or("embryo_capacity", EmbryoCapacity::DEFAULT, |node| {
            EmbryoCapacity::new(node.integer()?)
        }),
        log: fields.or("log", LogLevel::default(), choice),
    };
    fields.finish();
    Ok(daemon)
}

fn read_service(node: &Node<'_>) -> Result<DraftService, Invalid> {
    let mut fields = node.table()?;
    let service = DraftService {
        name: fields.required("name", r#"name = "web""#, name),
        frontends: fields
            .required("frontends", r#"frontends = ["192.0.2.10:80/tcp"]"#, |node| {
                count(node, 1, MAX_FRONTENDS)?;
                node.list(|frontend| Frontend::parse(frontend.string()?))
            })
            .map(|at| at.value)
            .unwrap_or_default(),
        mode: fields.or("mode", Mode::default(), choice),
        conversation: fields.or("conversation", Conversation::default(), choice),
        idle_timeout: fields
            .or("idle_timeout", IdleTimeout::DEFAULT, |node| IdleTimeout::new(node.duration()?)),
        when_empty: fields.or("when_empty", WhenEmpty::default(), choice),
        when_full: fields.or("when_full", WhenFull::default(), choice),
        drain: fields.or("drain", Drain::default(), read_drain),
        ring_size: fields.or("ring_size", RingSize::DEFAULT, ring_size),
        versions: fields
            .required("version", "add a [[service.version]]", |node| {
                if node.is_table() {
                    return Err(Invalid::new("a single table").hint("write [[service.version]]"));
                }
                count(node, 1, MAX_VERSIONS)?;
                node.list(read_version)
            })
            .map(|at| at.value)
            .unwrap_or_default(),
        clean: true,
    };
    Ok(DraftService { clean: fields.finish(), ..service })
}

fn read_drain(node: &Node<'_>) -> Result<Drain, Invalid> {
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
    fields.finish();
    if drain.every() * drain.samples().saturating_sub(1) > Drain::LONGEST_LOOK {
        return Err(Invalid::new("the samples take longer than 5 s")
            .hint("(samples - 1) x every is the time that each verdict takes"));
    }
    Ok(drain)
}

fn read_version(node: &Node<'_>) -> Result<DraftVersion, Invalid> {
    let mut fields = node.table()?;
    let version = DraftVersion {
        name: fields.required("name", r#"name = "v1""#, name),
        weight: fields.or("weight", Weight::DEFAULT, |node| Weight::new(node.integer()?)),
        meta: fields.or("meta", BTreeMap::new(), |node| {
            Ok(node.table()?.every(|value| value.string().map(str::to_owned)).collect())
        }),
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
        return Ok(DraftInstance { id: None, addr: Some(addr), weight: InstanceWeight::DEFAULT });
    }
    let mut fields = node.table()?;
    let instance = DraftInstance {
        id: fields.optional("id", name),
        addr: fields
            .required("addr", r#"addr = "10.0.0.11:8080""#, |node| Endpoint::parse(node.string()?))
            .map(|at| at.value),
        weight: fields
            .or("weight", InstanceWeight::DEFAULT, |node| InstanceWeight::new(node.integer()?)),
    };
    fields.finish();
    Ok(instance)
}

fn choice<C: Choice>(node: &Node<'_>) -> Result<C, Invalid> {
    C::parse(node.string()?)
}

fn name(node: &Node<'_>) -> Result<Name, Invalid> {
    Name::new(node.string()?)
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

fn count(node: &Node<'_>, min: usize, max: usize) -> Result<(), Invalid> {
    match node.elements()?.len() {
        n if n < min => Err(Invalid::new("empty").hint(format!("{min} to {max}"))),
        n if n > max => Err(Invalid::new(format!("{n} of them")).hint(format!("{min} to {max}"))),
        _ => Ok(()),
    }
}
