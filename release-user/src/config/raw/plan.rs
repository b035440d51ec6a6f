//! `[[plan]]`.

use super::super::error::Invalid;
use super::super::numbers::{duration_in, in_range};
use super::super::reader::{At, Node};
use super::super::settings::Choice;
use super::super::types::Name;
use super::super::{MAX_INSTANCES, MAX_STEPS};
use super::{DraftHooks, choice, count, hook, name, step};
use crate::release::plan::{Analysis, Drain, OnDeadline, Step, Strategy, Threshold};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
const LARGEST: u32 = MAX_INSTANCES as u32;
/// Connections that force ends a second, at most.
const MOST_FORCED: u32 = 100_000;
/// Flows that a judgement takes, where one is asked for.
const MIN_FLOWS: u64 = 100;

/// A plan whose values are legal one by one. What was refused is missing or has its default, and
/// then `clean` is false. Options are those that not every plan can have: what is there was written.
#[derive(Debug)]
pub(in super::super) struct DraftPlan {
    pub clean: bool,
    pub name: Option<At<Name>>,
    pub strategy: Option<At<Strategy>>,
    pub batch: Option<At<u32>>,
    pub min_serving: Option<At<u32>>,
    pub ready: DraftReady,
    /// Each at the key that says its kind.
    pub steps: Vec<At<Step>>,
    pub analysis: Option<At<DraftAnalysis>>,
    pub drain: Drain,
    pub hooks: DraftHooks,
    pub rollback_window: Option<At<Duration>>,
}

/// `ready`, likewise.
#[derive(Debug, Default)]
pub(in super::super) struct DraftReady {
    pub threshold: Option<At<Threshold>>,
    pub timeout: Option<At<Duration>>,
}

/// `analysis`, and how often it was said to happen.
#[derive(Debug)]
pub(in super::super) struct DraftAnalysis {
    pub analysis: Analysis,
    pub every: Option<At<Duration>>,
}

impl Choice for Strategy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("side-by-side", Self::SideBySide),
        ("in-place", Self::InPlace { batch: 1, min_serving: 1 }),
    ];
}

impl Choice for OnDeadline {
    const WORDS: &'static [(&'static str, Self)] = &[("hold", Self::Hold), ("force", Self::Force)];
}

pub(super) fn read(node: &Node<'_>) -> Result<DraftPlan, Invalid> {
    let mut fields = node.table()?;
    let plan = DraftPlan {
        name: fields.required("name", r#"name = "gray""#, name),
        strategy: fields.required("strategy", r#"strategy = "side-by-side""#, choice),
        batch: fields.optional("batch", instances),
        min_serving: fields.optional("min_serving", instances),
        ready: fields.or("ready", DraftReady::default(), read_ready),
        steps: fields.or("steps", Vec::new(), |node| {
            count(node, 0, MAX_STEPS)?;
            Ok(node.list(step::read)?.into_iter().map(|step| step.value).collect())
        }),
        analysis: fields.optional("analysis", read_analysis),
        drain: fields.or("drain", Drain::default(), read_drain),
        hooks: fields.or("hooks", DraftHooks::default(), hook::read),
        rollback_window: fields.optional("rollback_window", |node| {
            duration_in(node.duration()?, Duration::ZERO, LONGEST)
        }),
        clean: true,
    };
    Ok(DraftPlan { clean: fields.finish(), ..plan })
}

fn read_ready(node: &Node<'_>) -> Result<DraftReady, Invalid> {
    let mut fields = node.table()?;
    let ready = DraftReady {
        threshold: fields.optional("threshold", |node| {
            let Ok(text) = node.string() else { return instances(node).map(Threshold::Count) };
            let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
            match percent.filter(|percent| (1..=100).contains(percent)) {
                Some(percent) => Ok(Threshold::Percent(percent)),
                None => Err(Invalid::new(format!("{text:?} is not a percentage"))
                    .hint("\"1%\" to \"100%\"; or a number of instances, without quotes")),
            }
        }),
        timeout: fields.optional("timeout", span),
    };
    fields.finish();
    Ok(ready)
}

fn read_analysis(node: &Node<'_>) -> Result<DraftAnalysis, Invalid> {
    let mut fields = node.table()?;
    let min_flows = fields
        .or("min_flows", MIN_FLOWS, |node| in_range(node.integer()?, 0, u32::MAX).map(u64::from));
    let every = fields.optional("every", |node| {
        duration_in(node.duration()?, Duration::from_millis(100), Duration::from_secs(3600))
    });
    let mut part = |key| fields.optional(key, fraction).map(|at| at.value);
    let (max_syn_failures, max_resets) = (part("max_syn_failures"), part("max_resets"));
    let max_retransmits = part("max_retransmits");
    let max_latency = fields.optional("max_latency", |node| {
        duration_in(node.duration()?, Duration::from_micros(1), Duration::from_secs(3600))
    });
    let max_latency_ratio = fields.optional("max_latency_ratio", |node| {
        let ratio = node.number()?;
        if (1.0..=1000.0).contains(&ratio) {
            return Ok(ratio);
        }
        Err(Invalid::new(format!("{ratio} is out of range")).hint("1 to 1000"))
    });
    fields.finish();
    let analysis = Analysis {
        min_flows,
        every: every.as_ref().map_or(Analysis::default().every, |at| at.value),
        max_syn_failures,
        max_resets,
        max_latency: max_latency.map(|at| at.value),
        max_latency_ratio: max_latency_ratio.map(|at| at.value),
        max_retransmits,
    };
    Ok(DraftAnalysis { analysis, every })
}

fn read_drain(node: &Node<'_>) -> Result<Drain, Invalid> {
    let mut fields = node.table()?;
    let default = Drain::default();
    let deadline = fields.optional("deadline", span).map(|at| at.value);
    let on_deadline = fields.optional("on_deadline", choice);
    let force_rate = fields
        .or("force_rate", default.force_rate, |node| in_range(node.integer()?, 1, MOST_FORCED));
    let source = fields.source;
    let clean = fields.finish();
    if let Some(at) = on_deadline.as_ref().filter(|at| at.value == OnDeadline::Force)
        && deadline.is_none()
        && clean
    {
        let invalid = Invalid::new("`force` without a deadline").hint(r#"deadline = "30m""#);
        source.report(at.place.clone(), invalid);
    }
    let on_deadline = on_deadline.map_or(default.on_deadline, |at| at.value);
    Ok(Drain { deadline, on_deadline, force_rate })
}

/// A time that something takes.
pub(super) fn span(node: &Node<'_>) -> Result<Duration, Invalid> {
    duration_in(node.duration()?, SHORTEST, LONGEST)
}

fn instances(node: &Node<'_>) -> Result<u32, Invalid> {
    in_range(node.integer()?, 1, LARGEST)
}

/// A percentage, as a part of 1.
fn fraction(node: &Node<'_>) -> Result<f64, Invalid> {
    let text = node.string().map_err(|invalid| invalid.hint("a percentage in quotes: \"1%\""))?;
    let number = text.strip_suffix('%').map(str::trim).and_then(|number| {
        let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        number.parse::<f64>().ok().filter(|_| plain)
    });
    match number.filter(|number| (0.0..=100.0).contains(number)) {
        Some(number) => Ok(number / 100.0),
        None => Err(Invalid::new(format!("{text:?} is not a percentage"))
            .hint("\"0%\" to \"100%\", such as \"0.5%\"")),
    }
}
