//! From facts to a verdict. Pure: every way to `busy` and `unknown` is tested without a kernel.

use std::time::Duration;

use super::sockets::Sockets;
use super::walk::{Tally, Totals};
use crate::api::types::{Evidence, IdleCounts, Verdict};
use crate::sockets::Summary;

/// Everything the verdict rests on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether the kernel's split and rings leave no way to the target for new flows.
    pub closed: bool,
    /// Generation that closed it.
    pub closed_at: u32,
    /// Generation in force.
    pub generation: u32,
    /// Counters at each sample, the last one taken together with the walk.
    pub samples: Vec<Totals>,
    /// Counters after the walk.
    pub after: Totals,
    /// Entries that name the target.
    pub tally: Tally,
    /// Entries of the flow table in all.
    pub entries: u64,
    /// Time since its last packet; `None` if there never was one.
    pub quiet: Option<Duration>,
    /// Time it must be quiet.
    pub settle: Duration,
    /// Age of the oldest live flow.
    pub oldest: Option<Duration>,
    /// Instances of which nothing is known before the tables were made anew.
    pub lost_past: Vec<String>,
    /// By how much the gauge of its service is off from the flow table.
    pub drift: i64,
    /// Interfaces without the program.
    pub detached: Vec<String>,
    /// Whether only the clients' half of its flows passes here.
    pub one_way: bool,
    /// Whether all its flows are TCP.
    pub tcp_only: bool,
    /// When datagram flows are over; `None` if it has none.
    pub datagrams: Option<Datagrams>,
    /// What its sockets say; `None` if nobody is asked.
    pub sockets: Option<Sockets>,
}

/// Silence after which a UDP flow is over: datagrams have no other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// That the instance has answered.
    pub answered: Duration,
    /// That it has not.
    pub unanswered: Duration,
}

/// The item of flows that ended by a timer which proves nothing: TCP alone has those.
const EXPIRED: &str = "expired-unproven";

impl Facts {
    /// Whether the sockets answer doubts about connections that the tables do not know, those of TCP
    /// alone with `tcp`. What is not known of them is a doubt of its own.
    fn answered(&self, tcp: bool) -> Option<Result<(), String>> {
        let told = |sockets: &&Sockets| sockets.asked() && sockets.unknown().is_none();
        let sockets = self.sockets.as_ref().filter(told)?;
        Some(sockets.answer_doubts(self.tcp_only || tcp, self.quiet))
    }

    /// Whether flows that the table has live are over. Only where closes do not pass here: else the
    /// table knows.
    fn flows_are_over(&self) -> bool {
        let sockets = self.sockets.as_ref().filter(|_| self.one_way);
        sockets.is_some_and(|sockets| sockets.end_flows(self.tcp_only, self.quiet))
    }
}

/// A verdict with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not `idle`.
    pub reasons: Vec<String>,
    /// All items looked at.
    pub evidence: Vec<Evidence>,
    /// Counts.
    pub counts: IdleCounts,
}

/// How an item speaks if it does not speak for `idle`.
enum Against {
    Busy,
    Unknown,
    /// Another item gives the reason.
    Said,
}

struct Collector {
    evidence: Vec<Evidence>,
    busy: Vec<String>,
    unknown: Vec<String>,
}

impl Collector {
    /// An item that raises a doubt about connections that the tables do not know, unless the
    /// sockets answer it.
    fn doubt(&mut self, name: &str, facts: &Facts, ok: bool, detail: String, reason: String) {
        if ok {
            return self.item(name, true, detail, Against::Said, reason);
        }
        // Datagrams do not expire, they time out.
        match facts.answered(name == EXPIRED) {
            Some(Ok(())) => {
                let detail = format!("{detail}; answered by the sockets");
                self.item(name, true, detail, Against::Said, reason);
            }
            Some(Err(why)) => {
                let reason = format!("{reason} (the sockets do not answer it: {why})");
                self.item(name, false, detail, Against::Unknown, reason);
            }
            None => self.item(name, false, detail, Against::Unknown, reason),
        }
    }

    fn item(&mut self, name: &str, ok: bool, detail: String, against: Against, reason: String) {
        self.evidence.push(Evidence { name: name.to_owned(), ok, detail });
        if !ok {
            match against {
                Against::Busy => self.busy.push(reason),
                Against::Unknown => self.unknown.push(reason),
                Against::Said => {}
            }
        }
    }
}

/// "1 flow", "2 flows".
fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Decides. `busy` as soon as one live flow or handshake is seen, whatever else is in doubt;
/// otherwise anything missing or doubtful makes `unknown`.
pub fn judge(facts: &Facts) -> Judgement {
    let mut out = Collector { evidence: Vec::new(), busy: Vec::new(), unknown: Vec::new() };
    let flows = facts.tally.flows;
    let evicted = facts.after.evicted(flows.embryonic);
    placement(facts, &mut out);
    out.item(
        "embryos",
        flows.embryonic == 0,
        plural(flows.embryonic, "handshake"),
        Against::Busy,
        format!("{} in progress", plural(flows.embryonic, "handshake")),
    );
    let over = flows.active > 0 && facts.flows_are_over();
    let note = if over { "; over, by the sockets" } else { "" };
    out.item(
        "flow-table",
        flows.active == 0 || over,
        format!("{} of {} table entries{note}", flows.active, facts.entries),
        Against::Busy,
        plural(flows.active, "active flow"),
    );
    out.item(
        "sessions",
        facts.tally.sessions == 0,
        plural(facts.tally.sessions, "held session"),
        Against::Busy,
        format!("{} still lead new flows to it", plural(facts.tally.sessions, "held session")),
    );
    sockets(facts, &mut out);
    accounting(facts, evicted, &mut out);
    out.doubt(
        "both-directions",
        facts,
        !facts.one_way,
        if facts.one_way { "the instance answers clients directly" } else { "seen here" }
            .to_owned(),
        "only the clients' half of its flows passes here: ask the instance's host".to_owned(),
    );
    let quiet = facts.quiet.is_none_or(|quiet| quiet >= facts.settle);
    let since = facts.quiet.map_or("no packet ever".to_owned(), |quiet| {
        format!(
            "last packet {} ms ago, settle is {} ms",
            quiet.as_millis(),
            facts.settle.as_millis()
        )
    });
    // Retransmits after a close, or traffic that belongs to nothing we know: wait.
    out.item("quiet", quiet, since.clone(), Against::Unknown, format!("not settled: {since}"));
    let lost = facts.lost_past.join(", ");
    out.doubt(
        "known-since-start",
        facts,
        facts.lost_past.is_empty(),
        if lost.is_empty() { "tables cover its whole service".to_owned() } else { lost.clone() },
        format!("the flow table was made anew while in service: {lost}"),
    );
    let detached = facts.detached.join(", ");
    out.item(
        "attached",
        facts.detached.is_empty(),
        if detached.is_empty() { "on every interface".to_owned() } else { detached.clone() },
        Against::Unknown,
        format!("the program is not attached to {detached}"),
    );
    let verdict = if !out.busy.is_empty() {
        Verdict::Busy
    } else if !out.unknown.is_empty() {
        Verdict::Unknown
    } else {
        Verdict::Idle
    };
    let mut reasons = out.busy;
    reasons.extend(out.unknown);
    let counters = &facts.after.counters;
    Judgement {
        verdict,
        reasons,
        evidence: out.evidence,
        counts: IdleCounts {
            embryonic: flows.embryonic,
            active: flows.active,
            half_closed: flows.half_closed,
            closing: flows.closing,
            expired_unproven: counters.expired,
            timed_out: counters.timed_out,
            untracked: counters.untracked,
            evicted,
            forced: counters.forced,
            destroyed: 0,
        },
    }
}

/// Is there, and was there, any way for new flows since it was closed?
fn placement(facts: &Facts, out: &mut Collector) {
    let newest = facts.tally.newest_generation;
    out.item(
        "closed-to-new-flows",
        facts.closed,
        if facts.closed {
            format!("since generation {}", facts.closed_at)
        } else {
            format!("generation {} places new flows on it", facts.generation)
        },
        Against::Busy,
        "takes new flows (shift its weight away or drain it)".to_owned(),
    );
    let later = facts.closed && newest >= facts.closed_at;
    out.item(
        "no-new-flows",
        facts.closed && !later,
        match (facts.closed, later) {
            (false, _) => "not closed".to_owned(),
            (true, true) => format!("an entry of generation {newest} names it"),
            (true, false) => format!("none placed since generation {}", facts.closed_at),
        },
        if facts.closed { Against::Unknown } else { Against::Said },
        format!("an entry of generation {newest} names it, closed at {}", facts.closed_at),
    );
    let grown = facts.samples.windows(2).any(|pair| {
        let count = |totals: &Totals| totals.counters.opened + totals.counters.adopted;
        count(&pair[0]) != count(&pair[1])
    });
    out.item(
        "opened-frozen",
        !grown,
        format!("over {} samples", facts.samples.len()),
        Against::Busy,
        "flows were opened while it was watched".to_owned(),
    );
}

/// What does the instance itself hold?
fn sockets(facts: &Facts, out: &mut Collector) {
    let Some(sockets) = facts.sockets.as_ref().filter(|sockets| sockets.asked()) else {
        return out.item("sockets", true, "not asked".to_owned(), Against::Said, String::new());
    };
    let flows = facts.tally.flows;
    let (table, remaining) = (flows.active + flows.embryonic, sockets.remaining());
    let mut detail = sockets.in_words();
    let mut reason = sockets.worst().map(Summary::in_words).unwrap_or_default();
    if remaining == 0 && table > 0 {
        detail = format!("{detail}; the flow table shows {}", plural(table, "flow"));
    } else if remaining > 0 && table == 0 {
        // Somebody lost a close, or came another way.
        reason = format!("{reason} (the flow table shows none)");
    }
    let unknown = sockets.unknown();
    if remaining > 0 {
        if let Some(why) = &unknown {
            out.unknown.push(format!("sockets: {why}"));
        }
        out.item("sockets", false, detail, Against::Busy, reason);
    } else {
        let ok = unknown.is_none();
        let reason = format!("sockets: {}", unknown.unwrap_or_default());
        out.item("sockets", ok, detail, Against::Unknown, reason);
    }
}

/// Does everything that was counted add up?
fn accounting(facts: &Facts, evicted: u64, out: &mut Collector) {
    let active = facts.tally.flows.active as i64;
    let (before, after) =
        (facts.samples.last().map_or(facts.after.live(), Totals::live), facts.after.live());
    // While it is busy the two are never taken at the same moment; where nothing is live any more
    // they must agree, whatever else moves.
    let drift = after - active;
    let moving = before != after && active > 0;
    out.item(
        "conservation",
        drift == 0 || moving,
        format!("counters say {after} live, the table {active}"),
        Against::Unknown,
        format!("counters and table differ by {drift}"),
    );
    let off = facts.drift;
    out.item(
        "gauge",
        off == 0,
        if off == 0 { "agrees with the table".to_owned() } else { format!("off by {off}") },
        Against::Unknown,
        format!("the service's gauge is off by {off} from the flow table"),
    );
    let counters = &facts.after.counters;
    if let Some(detail) = datagrams(facts) {
        out.item("datagrams", true, detail, Against::Said, String::new());
    }
    out.doubt(
        EXPIRED,
        facts,
        counters.expired == 0,
        plural(counters.expired, "flow"),
        format!("{} ended by a timer, which proves no close", plural(counters.expired, "flow")),
    );
    out.doubt(
        "untracked",
        facts,
        counters.untracked == 0,
        plural(counters.untracked, "flow"),
        format!("{} forwarded without an entry", plural(counters.untracked, "flow")),
    );
    out.doubt(
        "embryos-evicted",
        facts,
        evicted == 0,
        evicted.to_string(),
        format!("{evicted} of its handshakes were evicted from their table"),
    );
}

/// How its datagram flows ended.
fn datagrams(facts: &Facts) -> Option<String> {
    let Datagrams { answered, unanswered } = facts.datagrams?;
    let flows = plural(facts.after.counters.timed_out, "flow");
    let (answered, unanswered) = (answered.as_secs_f64(), unanswered.as_secs_f64());
    Some(if facts.one_way {
        format!("{flows} ended by the timeout of {answered} s; the instance may still send")
    } else {
        format!(
            "{flows} ended by the timeout of {answered} s ({unanswered} s unanswered), which is \
             the definition for datagrams"
        )
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
