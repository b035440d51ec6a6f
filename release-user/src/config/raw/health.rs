//! `health` and `passive`.

use super::super::error::Invalid;
use super::super::numbers::{duration_in, in_range};
use super::super::reader::Node;
use super::hook::read_argv;
use crate::health::{Check, Passive, Plan, Share};
use hyper::http::uri::PathAndQuery;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);
/// Windows of traffic: handshakes are remembered for little longer.
const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
const MOST_CHECKS: u32 = 100;
const MOST_FLOWS: u32 = 1_000_000;

fn span(node: &Node<'_>) -> Result<Duration, Invalid> {
    duration_in(node.duration()?, SHORTEST, LONGEST)
}

pub(super) fn read(node: &Node<'_>) -> Result<Plan, Invalid> {
    let mut fields = node.table()?;
    let given = [
        fields.optional("http", |node| read_path(node).map(Check::Http)),
        fields.optional("tcp", |node| match node.boolean()? {
            true => Ok(Check::Tcp),
            false => Err(Invalid::new("false").hint("without checks, leave `health` out")),
        }),
        fields.optional("exec", |node| read_argv(node).map(Check::Exec)),
    ];
    let port = fields.optional("port", |node| Ok(in_range(node.integer()?, 1, 65_535)? as u16));
    let interval = fields.or("interval", Plan::INTERVAL, span);
    let timeout = fields.optional("timeout", span);
    let count = |node: &Node<'_>| in_range(node.integer()?, 1, MOST_CHECKS);
    let (fall, rise) = (fields.or("fall", Plan::FALL, count), fields.or("rise", Plan::RISE, count));
    let clean = fields.finish();
    if let Some(timeout) = timeout.as_ref().filter(|timeout| timeout.value > interval && clean) {
        let show = humantime::format_duration;
        let what = format!("timeout {} is longer than interval", show(timeout.value));
        return Err(Invalid::new(what).hint(format!("at most {}", show(interval))));
    }
    let timeout = timeout.map_or(Plan::TIMEOUT.min(interval), |at| at.value);
    let mut given = given.into_iter().flatten();
    let check = match (given.next(), given.next()) {
        (Some(one), None) => one.value,
        (Some(_), Some(second)) => {
            return Err(Invalid::new(format!("a second check, {}", second.place.key))
                .hint("keep `http`, `tcp` or `exec`"));
        }
        // What was refused is reported already.
        (None, _) if !clean => Check::Tcp,
        (None, _) => {
            return Err(Invalid::new("nothing to ask")
                .hint(r#"http = "/PATH", tcp = true or exec = ["/PATH", …]"#));
        }
    };
    Ok(Plan { check, port: port.map(|at| at.value), interval, timeout, fall, rise })
}

fn read_path(node: &Node<'_>) -> Result<String, Invalid> {
    let path = node.string()?;
    if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
        return Err(Invalid::new(format!("{path:?} is not a path"))
            .hint(r#"such as "/healthz": `/` first, no spaces"#));
    }
    Ok(path.to_owned())
}

pub(super) fn read_passive(node: &Node<'_>) -> Result<Passive, Invalid> {
    let mut fields = node.table()?;
    let passive = Passive {
        syn_failures: fields.optional("syn_failures", read_share).map(|at| at.value),
        resets: fields.optional("resets", read_share).map(|at| at.value),
        min: fields.or("min", Passive::MIN, |node| in_range(node.integer()?, 1, MOST_FLOWS)),
        every: fields.or("every", Passive::EVERY, |node| {
            duration_in(node.duration()?, WINDOWS[0], WINDOWS[1])
        }),
        back_after: fields.or("back_after", Passive::BACK_AFTER, span),
    };
    if fields.finish() && passive.syn_failures.is_none() && passive.resets.is_none() {
        return Err(Invalid::new("nothing to judge by").hint("`syn_failures`, `resets` or both"));
    }
    Ok(passive)
}

fn read_share(node: &Node<'_>) -> Result<Share, Invalid> {
    let number = node.number()?;
    Share::new(number).ok_or_else(|| {
        Invalid::new(format!("{number} is out of range")).hint("more than 0, up to 1")
    })
}
