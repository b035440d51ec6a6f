//! `idle`: can this be stopped without loss?

use super::args::Target;
use super::format::{Paint, Side, Table, count, millis, seconds};
use super::output::to_stderr;
use super::values::Output;
use super::wait::{Waited, until_idle};
use super::{Context, DONE, Ended, INTERRUPTED};
use crate::api::types::{
    ApiError, Because, ErrorCode, Evidence, ForcedFlow, IdleReport, Receipt, ReceiptQuery,
    TargetQuery, Verdict,
};
use crate::sockets::State;
use crate::verdict::occupation::{Occupation, Outlook};
use crate::verdict::receipt::hash;
use std::fmt::Write as _;
use std::time::Duration;

impl Target {
    fn query(self) -> (TargetQuery, bool) {
        (TargetQuery { service: self.service, target: self.target }, self.explain)
    }
}

pub(super) async fn check(context: &mut Context, target: Target) -> Ended {
    let (query, explain) = target.query();
    let report = context.client.idle(&query).await?;
    context.out.value(&report, |report, colours| report_text(report, explain, colours))?;
    Ok(code(report.verdict).map_or(DONE, ErrorCode::exit_code))
}

pub(super) async fn wait(
    context: &mut Context,
    target: Target,
    timeout: Option<Duration>,
) -> Ended {
    let (query, explain) = target.query();
    let text = |report: &IdleReport, colours| report_text(report, explain, colours);
    match until_idle(context, &query, timeout, "waiting").await? {
        Waited::Idle(report) => {
            context.out.value(&report, text)?;
            Ok(DONE)
        }
        Waited::TimeUp(report) => {
            // For people, the error below says the reasons already.
            if explain || context.out.format != Output::Text {
                context.out.value(&report, text)?;
            }
            let after = humantime::format_duration(timeout.unwrap_or_default());
            let error = not_idle(&report, &format!("{} after {after}", report.verdict));
            Err(ApiError { code: ErrorCode::Timeout, ..error })
        }
        Waited::Interrupted => {
            to_stderr("\nno longer waiting\n");
            Ok(INTERRUPTED)
        }
    }
}

pub(super) async fn receipt(context: &mut Context, target: Target) -> Ended {
    let (query, explain) = target.query();
    let receipt = context.client.receipt(&query).await?;
    context.out.value(&receipt, |receipt, colours| receipt_text(receipt, explain, colours))?;
    Ok(DONE)
}

pub(super) async fn receipts(context: &mut Context, query: ReceiptQuery) -> Ended {
    let receipts = context.client.receipts(&query).await?;
    let Some(id) = query.id else {
        context.out.list(&receipts, receipts_text)?;
        return Ok(DONE);
    };
    let Some(receipt) = receipts.first() else {
        let what = format!("receipt {id}: none of service {}", query.service);
        let hint = format!("releasectl idle receipts {}", query.service);
        return Err(ApiError::new(ErrorCode::Usage, what).hint(hint));
    };
    context.out.value(receipt, |receipt, colours| receipt_text(receipt, true, colours))?;
    if is_intact(receipt) {
        return Ok(DONE);
    }
    Err(ApiError::new(ErrorCode::Unknown, format!("receipt {id}: altered: its hash is another")))
}

fn is_intact(receipt: &Receipt) -> bool {
    hash(receipt).is_ok_and(|hash| hash == receipt.hash)
}

fn receipts_text(receipts: &[Receipt], colours: bool) -> String {
    let mut table = Table::new(&[
        ("ID", Side::Right),
        ("AT", Side::Left),
        ("TARGET", Side::Left),
        ("GENERATION", Side::Right),
        ("FORCED", Side::Right),
        ("EPOCH", Side::Right),
        ("INTACT", Side::Left),
    ]);
    for receipt in receipts {
        let Receipt { id, at, report, evidence_epoch, .. } = receipt;
        let (word, paint) =
            if is_intact(receipt) { ("yes", Paint::Plain) } else { ("no", Paint::Red) };
        let cells = [
            id.to_string(),
            at.clone(),
            report.target.clone(),
            report.generation.to_string(),
            report.counts.ended().to_string(),
            evidence_epoch.to_string(),
            word.to_owned(),
        ];
        table.row(paint, cells.into());
    }
    table.render(colours)
}

/// The error that a verdict stands for; none for `idle`.
fn code(verdict: Verdict) -> Option<ErrorCode> {
    match verdict {
        Verdict::Idle => None,
        Verdict::Busy => Some(ErrorCode::Busy),
        Verdict::Unknown => Some(ErrorCode::Unknown),
    }
}

/// `web v1: what: the reasons`, with the verdict's code.
pub(super) fn not_idle(report: &IdleReport, what: &str) -> ApiError {
    let IdleReport { service, target, verdict, reasons, .. } = report;
    let reasons = if reasons.is_empty() { verdict.to_string() } else { reasons.join("; ") };
    let message = format!("{service} {target}: {what}: {reasons}");
    ApiError::new(code(*verdict).unwrap_or(ErrorCode::Internal), message)
}

/// The verdict with its reasons; with `explain`, all evidence.
pub(super) fn report_text(report: &IdleReport, explain: bool, colours: bool) -> String {
    let paint = match report.verdict {
        Verdict::Idle => Paint::Green,
        Verdict::Busy => Paint::Yellow,
        Verdict::Unknown => Paint::Red,
    };
    let mut text = format!(
        "{} {}: {} (generation {})\n",
        report.service,
        report.target,
        paint.on(&report.verdict.to_string(), colours),
        report.generation
    );
    for reason in &report.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    if let Some(busy) = &report.busy_with {
        let _ = writeln!(text, "  {}", busy_text(busy));
    }
    if let Some(outlook) = report.outlook {
        let _ = writeln!(text, "  {}", outlook_text(outlook, report));
    }
    if let Some(age) = report.oldest_flow_s {
        let _ = writeln!(text, "  oldest flow {}", seconds(age));
    }
    if let Some(age) = report.last_packet_age_ms {
        let _ = writeln!(text, "  last packet {} ago", millis(age));
    }
    if explain {
        text.push('\n');
        text += &evidence_text(&report.evidence, colours);
        text.push('\n');
        text += &counts_text(report);
        text += &sockets_text(report, colours);
    }
    text
}

/// "3 with data lately, 8 keep-alive only; of these 1 half-closed".
fn busy_text(busy: &Occupation) -> String {
    let mut text = format!("{} with data lately, {} without", busy.with_data, busy.keepalive_only);
    let more = [(busy.half_closed, "half-closed"), (busy.client_unreachable, "client unreachable")];
    let more: Vec<String> = more
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !more.is_empty() {
        let _ = write!(text, "; of these {}", more.join(", "));
    }
    text
}

fn outlook_text(outlook: Outlook, report: &IdleReport) -> String {
    match outlook {
        Outlook::Unknown => "too early to say when the last will be gone".to_owned(),
        Outlook::Converging { from_s, to_s } => {
            format!("the last will be gone in {} to {}", seconds(from_s), seconds(to_s))
        }
        Outlook::NotConverging { for_s } => {
            let older = report.oldest_flow_s.map_or_else(String::new, |age| {
                format!(", the oldest has lasted {}", seconds(age))
            });
            format!("not converging: none has ended for {}{older}", seconds(for_s))
        }
    }
}

fn evidence_text(evidence: &[Evidence], colours: bool) -> String {
    let mut table =
        Table::new(&[("EVIDENCE", Side::Left), ("IDLE", Side::Left), ("DETAIL", Side::Left)]);
    for Evidence { name, ok, detail } in evidence {
        let (word, paint) = if *ok { ("yes", Paint::Plain) } else { ("no", Paint::Yellow) };
        table.row(paint, vec![name.clone(), word.to_owned(), detail.clone()]);
    }
    table.render(colours)
}

/// The sockets that remain, as far as they are named.
fn sockets_text(report: &IdleReport, colours: bool) -> String {
    let peers = report.sockets.as_ref().map_or(&[][..], |sockets| &sockets.peers);
    if peers.is_empty() {
        return String::new();
    }
    let left = ["SOCKET", "CLIENT", "STATE"].map(|name| (name, Side::Left));
    let right = ["UNREAD", "UNSENT", "INODE"].map(|name| (name, Side::Right));
    let mut table = Table::new(&[left, right].concat());
    for peer in peers {
        let state = peer.state.map_or("-", State::as_str).to_owned();
        let local = format!("{}/{}", peer.local, peer.protocol);
        let numbers = [peer.unread, peer.unsent, peer.inode].map(|number| number.to_string());
        let words = [local, peer.remote.to_string(), state];
        table.row(Paint::Plain, words.into_iter().chain(numbers).collect());
    }
    format!("\n{}", table.render(colours))
}

fn counts_text(report: &IdleReport) -> String {
    let counts = &report.counts;
    format!(
        "embryonic {}, active {}, half-closed {}, closing {}, expired unproven {}, \
         untracked {}, evicted {}\n",
        counts.embryonic,
        counts.active,
        counts.half_closed,
        counts.closing,
        counts.expired_unproven,
        counts.untracked,
        counts.evicted
    )
}

fn receipt_text(receipt: &Receipt, explain: bool, colours: bool) -> String {
    let mut text = format!("receipt {} of {}\n", receipt.id, receipt.at);
    text += &report_text(&receipt.report, explain, colours);
    if let Some(item) = receipt.report.evidence.iter().find(|item| item.name == "datagrams")
        && !explain
    {
        let _ = writeln!(text, "  datagrams: {}", item.detail);
    }
    let _ =
        writeln!(text, "  evidence epoch {}, boot {}\n", receipt.evidence_epoch, receipt.boot_id);
    let right = ["OPENED", "ADOPTED", "FIN", "RST", "EXPIRED", "TIMED OUT", "FORCED", "UNTRACKED"];
    let mut columns = vec![("INSTANCE", Side::Left)];
    columns.extend(right.map(|name| (name, Side::Right)));
    let mut table = Table::new(&columns);
    for (id, c) in &receipt.counters {
        let closed = [c.closed_fin, c.closed_rst, c.expired, c.timed_out, c.forced];
        let numbers = [&[c.opened, c.adopted], &closed[..], &[c.untracked]].concat();
        let cells = std::iter::once(id.clone()).chain(numbers.iter().map(ToString::to_string));
        table.row(Paint::Plain, cells.collect());
    }
    text += &table.render(colours);
    text += &forced_text(receipt, explain, colours);
    let _ = writeln!(text, "\nhash {}", receipt.hash);
    text
}

/// What was ended on order; with `explain`, each connection.
fn forced_text(receipt: &Receipt, explain: bool, colours: bool) -> String {
    let Receipt { forced, forced_not_listed, .. } = receipt;
    let all = forced.len() as u64 + forced_not_listed;
    if all == 0 {
        return String::new();
    }
    let mut text = format!("\n{} ended on order", count(all, "connection was", "connections were"));
    if *forced_not_listed > 0 {
        let _ = write!(text, ", {forced_not_listed} of them not listed");
    }
    if !explain {
        return text + " (--explain lists them)\n";
    }
    let columns = ["AT", "CLIENT", "FRONTEND", "INSTANCE", "HOW"].map(|name| (name, Side::Left));
    let more = [("LAST DATA", Side::Right), ("CLIENT END", Side::Left)];
    let mut table = Table::new(&[&columns[..], &more].concat());
    for flow in forced {
        let cells = [
            flow.at.clone(),
            flow.client.clone(),
            format!("{}/{}", flow.frontend, flow.protocol),
            flow.instance.clone(),
            how(flow),
            format!("{} before", millis(flow.last_data_age_ms)),
            flow.client_end.clone(),
        ];
        table.row(Paint::Plain, cells.into());
    }
    text + "\n" + &table.render(colours)
}

fn how(flow: &ForcedFlow) -> String {
    match flow.because {
        Because::Drain => flow.how.as_str().to_owned(),
        Because::Down => format!("{}, instance down", flow.how.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::{forced_text, not_idle, report_text};
    use crate::api::fake::{forced, report};
    use crate::api::types::{ErrorCode, Receipt, Verdict};

    #[test]
    fn report_with_evidence() {
        assert_eq!(
            report_text(&report(Verdict::Busy), true, false),
            "\
web v1: busy (generation 7)
  12 active flows
  3 with data lately, 9 without; of these 1 half-closed, 2 client unreachable
  the last will be gone in 40 s to 3 m 20 s
  oldest flow 4 m 2 s
  last packet 412 ms ago

EVIDENCE      IDLE  DETAIL
no-new-flows  yes   none placed since generation 6
flow-table    no    12 of 40210 entries

embryonic 0, active 12, half-closed 1, closing 3, expired unproven 0, untracked 0, evicted 0
"
        );
        let idle = report_text(&report(Verdict::Idle), false, true);
        assert_eq!(idle, "web v1: \x1b[32midle\x1b[0m (generation 7)\n  last packet 412 ms ago\n");
    }

    #[test]
    fn forced_connections_are_listed() {
        let receipt = Receipt {
            schema: 1,
            id: 3,
            at: String::new(),
            boot_id: String::new(),
            evidence_epoch: 1,
            counters: Default::default(),
            forced: vec![forced("198.51.100.7:40000"), forced("198.51.100.12:40001")],
            forced_not_listed: 3,
            report: report(Verdict::Idle),
            hash: String::new(),
        };
        let brief = "\n5 connections were ended on order, 3 of them not listed \
                     (--explain lists them)\n";
        assert_eq!(forced_text(&receipt, false, false), brief);
        let text = forced_text(&receipt, true, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "5 connections were ended on order, 3 of them not listed");
        let head = "AT                        CLIENT               FRONTEND           \
                    INSTANCE        HOW         LAST DATA  CLIENT END";
        assert_eq!(lines[2], head);
        let line = "2026-01-01T00:00:00.250Z  198.51.100.12:40001  192.0.2.10:80/tcp  \
                    10.0.0.11:8080  reset  4 m 2 s before  unreachable";
        assert_eq!(lines[4], line);
        let none = Receipt { forced: Vec::new(), forced_not_listed: 0, ..receipt };
        assert_eq!(forced_text(&none, true, false), "");
    }

    #[test]
    fn error_of_a_verdict() {
        let error = not_idle(&report(Verdict::Unknown), "held");
        assert_eq!(error.code, ErrorCode::Unknown);
        assert_eq!(error.message, "web v1: held: 3 flows expired; 1 flow untracked");
    }
}
