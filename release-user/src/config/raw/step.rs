//! `steps` of a plan.

use super::super::MAX_STEP_SOURCES;
use super::super::error::Invalid;
use super::super::evidence::absolute;
use super::super::numbers::in_range;
use super::super::prefix::Prefix;
use super::super::reader::{At, Node};
use super::count;
use super::plan::span;
use crate::release::plan::{Step, Webhook};
use std::time::Duration;

const WEBHOOK: &str = r#"webhook = "http://10.0.0.9/ok""#;
const TEST: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(300);
const APPROVAL: Duration = Duration::from_secs(3600);
const REQUESTS: u32 = 100;
const MOST_REQUESTS: u32 = 1_000_000;
const CONCURRENCY: u32 = 8;
const MOST_CONCURRENCY: u32 = 1024;

/// A step, at the key that says its kind.
pub(super) fn read(node: &Node<'_>) -> Result<At<Step>, Invalid> {
    let mut fields = node.table()?;
    let test = fields.optional("test", read_test);
    let warmup = fields.optional("warmup", read_warmup);
    let weight = fields.optional("weight", |node| in_range(node.integer()?, 1, 99));
    let hold = fields.optional("hold", span);
    let pause = fields.optional("pause", |node| {
        node.table()?.finish();
        Ok(Step::Pause)
    });
    let approve = fields.optional("approve", read_approve);
    let source = fields.source;
    let clean = fields.finish();
    if let (true, None, Some(hold)) = (clean, &weight, &hold) {
        let invalid = Invalid::new("there is no weight to hold").hint("only with `weight`");
        source.report(hold.place.clone(), invalid);
        return Ok(At { place: node.place.clone(), value: Step::Pause });
    }
    let weight = weight.map(|At { place, value: percent }| At {
        place,
        value: Step::Weight { percent, hold: hold.map_or(HOLD, |at| at.value) },
    });
    let mut kinds = [test, warmup, weight, pause, approve].into_iter().flatten();
    match (kinds.next(), kinds.next()) {
        (Some(step), None) => Ok(step),
        (Some(_), Some(second)) => {
            Err(Invalid::new(format!("a second kind of step, {}", second.place.key))
                .hint("one thing after the other: make two steps of it"))
        }
        // What was refused is reported already.
        (None, _) if !clean => Ok(At { place: node.place.clone(), value: Step::Pause }),
        (None, _) => {
            Err(Invalid::new("nothing to do")
                .hint("`test`, `warmup`, `weight`, `pause` or `approve`"))
        }
    }
}

fn read_test(node: &Node<'_>) -> Result<Step, Invalid> {
    let mut fields = node.table()?;
    let sources = fields.required("sources", r#"sources = ["198.51.100.0/24"]"#, |node| {
        count(node, 1, MAX_STEP_SOURCES)?;
        let sources = node.list(|prefix| Prefix::parse(prefix.string()?))?;
        let sources: Vec<_> = sources.into_iter().map(|source| source.value).collect();
        if let Some(twice) = (1..sources.len()).find(|at| sources[..*at].contains(&sources[*at])) {
            return Err(Invalid::new(format!("{} stands twice", sources[twice])));
        }
        Ok(sources)
    });
    let duration = fields.or("for", TEST, span);
    fields.finish();
    Ok(Step::Test { sources: sources.map(|at| at.value).unwrap_or_default(), duration })
}

fn read_warmup(node: &Node<'_>) -> Result<Step, Invalid> {
    let mut fields = node.table()?;
    let up_to = |most| move |node: &Node<'_>| in_range(node.integer()?, 1, most);
    let warmup = Step::Warmup {
        requests: fields.or("requests", REQUESTS, up_to(MOST_REQUESTS)),
        path: fields.optional("path", |node| path(node.string()?)).map(|at| at.value),
        concurrency: fields.or("concurrency", CONCURRENCY, up_to(MOST_CONCURRENCY)),
    };
    fields.finish();
    Ok(warmup)
}

fn read_approve(node: &Node<'_>) -> Result<Step, Invalid> {
    let mut fields = node.table()?;
    let url = fields.required("webhook", WEBHOOK, |node| http(node.string()?));
    let token = fields.optional("token_file", |node| absolute(node.string()?));
    let timeout = fields.or("timeout", APPROVAL, span);
    fields.finish();
    let url = url.map(|at| at.value).unwrap_or_default();
    Ok(Step::Approve { webhook: Webhook { url, token: token.map(|at| at.value) }, timeout })
}

/// What stands in the first line of a request.
fn path(text: &str) -> Result<String, Invalid> {
    if text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(format!("{text:?} is not a path of HTTP")).hint("such as \"/\""))
}

/// An address that is asked without TLS, and holds no secret.
pub(super) fn http(text: &str) -> Result<String, Invalid> {
    let not = || Invalid::new(format!("{text:?} is not an http:// address"));
    let example = r#"such as "http://10.0.0.9/ok""#;
    let uri: hyper::Uri = text.parse().map_err(|_| not().hint(example))?;
    let Some(authority) = uri.authority().filter(|_| !text.contains('#')) else {
        return Err(not().hint(example));
    };
    if uri.scheme_str() == Some("https") {
        return Err(not().hint("TLS is not spoken here; name a proxy that does"));
    }
    if authority.as_str().contains('@') {
        return Err(Invalid::new("a password in the address").hint("`token_file` has its place"));
    }
    let port_fits = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        _ => uri.port_u16().is_some_and(|port| port != 0),
    };
    if uri.scheme_str() != Some("http") || authority.host().is_empty() || !port_fits {
        return Err(not().hint(example));
    }
    Ok(text.to_owned())
}
