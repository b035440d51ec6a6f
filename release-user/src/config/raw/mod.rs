//! One file → drafts: every field is checked by itself and remembers where it stood.

mod health;
mod hook;
mod options;
mod plan;
mod service;
mod step;

pub(super) use hook::DraftHooks;
pub(super) use options::{ByVersion, DraftSnat, DraftTunnel};
pub(super) use plan::DraftPlan;
pub(super) use service::{DraftInstance, DraftRegistration, DraftService, DraftVersion};

use super::alarms::Alarms;
use super::error::Invalid;
use super::evidence::{Credentials, absolute};
use super::numbers::{
    EmbryoCapacity, FlowCapacity, FragmentCapacity, SessionCapacity, SnatCapacity,
};
use super::reader::{At, Fields, Node, Source};
use super::settings::{Choice, Daemon, LogLevel, XdpMode};
use super::types::{InterfaceName, Name};
use crate::release::plan::Webhook;
use toml::de::DeTable;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub daemon: Option<At<Daemon>>,
    /// There is a `daemon`, but it is no table.
    pub daemon_refused: bool,
    pub services: Vec<At<DraftService>>,
    pub plans: Vec<At<DraftPlan>>,
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
        tables(node, "[[service]]")?;
        node.list(service::read)
    });
    let plans = file.or("plan", Vec::new(), |node| {
        tables(node, "[[plan]]")?;
        node.list(plan::read)
    });
    file.finish();
    let daemon_refused = daemon.is_none() && root.contains_key("daemon");
    Draft { daemon, daemon_refused, services, plans }
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
        flow_capacity: number(&mut fields, "flow_capacity", FlowCapacity::new),
        embryo_capacity: number(&mut fields, "embryo_capacity", EmbryoCapacity::new),
        session_capacity: number(&mut fields, "session_capacity", SessionCapacity::new),
        snat_capacity: number(&mut fields, "snat_capacity", SnatCapacity::new),
        fragment_capacity: number(&mut fields, "fragment_capacity", FragmentCapacity::new),
        log: fields.or("log", LogLevel::default(), choice),
        agent: fields.optional("agent", read_credentials).map(|at| at.value),
        alarms: fields.optional("alarms", read_alarms).map(|at| at.value),
    };
    fields.finish();
    Ok(daemon)
}

fn read_credentials(node: &Node<'_>) -> Result<Credentials, Invalid> {
    let mut fields = node.table()?;
    let mut file = |key, example| {
        let path = fields.required(key, example, |node| absolute(node.string()?));
        path.map(|at| at.value).unwrap_or_default()
    };
    let credentials = Credentials {
        ca: file("ca", r#"ca = "/etc/release/agent/ca.pem""#),
        certificate: file("certificate", r#"certificate = "/etc/release/agent/daemon.pem""#),
        key: file("key", r#"key = "/etc/release/agent/daemon.key""#),
    };
    fields.finish();
    Ok(credentials)
}

fn read_alarms(node: &Node<'_>) -> Result<Alarms, Invalid> {
    let mut fields = node.table()?;
    let url = fields.optional("webhook", |node| step::http(node.string()?));
    let token = fields.optional("token_file", |node| absolute(node.string()?));
    let argv = fields.optional("argv", hook::read_argv).map(|at| at.value);
    if !fields.finish() {
        return Ok(Alarms::default());
    }
    if token.is_some() && url.is_none() {
        return Err(Invalid::new("`token_file` without `webhook`").hint("who is to get it?"));
    }
    if url.is_none() && argv.is_none() {
        return Err(Invalid::new("empty").hint("`webhook`, `argv` or both"));
    }
    let token = token.map(|at| at.value);
    Ok(Alarms { webhook: url.map(|at| Webhook { url: at.value, token }), argv })
}

/// Several tables, not one.
fn tables(node: &Node<'_>, header: &str) -> Result<(), Invalid> {
    if node.is_table() {
        return Err(Invalid::new("a single table").hint(format!("write {header}")));
    }
    Ok(())
}

/// A bounded number that has a default.
fn number<T: Default>(
    fields: &mut Fields<'_>,
    key: &'static str,
    check: impl FnOnce(i64) -> Result<T, Invalid>,
) -> T {
    fields.or(key, T::default(), |node| check(node.integer()?))
}

fn choice<C: Choice>(node: &Node<'_>) -> Result<C, Invalid> {
    C::parse(node.string()?)
}

fn name(node: &Node<'_>) -> Result<Name, Invalid> {
    Name::new(node.string()?)
}

fn count(node: &Node<'_>, min: usize, max: usize) -> Result<(), Invalid> {
    match node.elements()?.len() {
        n if n < min => Err(Invalid::new("empty").hint(format!("{min} to {max}"))),
        n if n > max => Err(Invalid::new(format!("{n} of them")).hint(format!("{min} to {max}"))),
        _ => Ok(()),
    }
}
