//! What proves that nobody used what was stopped.

use serde_json::Value;

use super::markup::{Html, classed, details, row, table, tag};
use super::{Report, note, part, words};
use crate::api::types::{ForcedFlow, Receipt, Verdict};
use crate::verdict::receipt::hash;

/// Connections ended by force that the page lists of a receipt.
const MOST_LISTED: usize = 200;

/// The receipts.
pub fn section(report: &Report) -> Html {
    let line = &report.release.line;
    if report.receipts.is_empty() {
        let text = if line.over {
            "The release ended without a receipt: it stopped nothing."
        } else {
            "There is no receipt yet."
        };
        return part("Receipts", note(text));
    }
    let mut content = vec![note(
        "A receipt is written when every item of evidence says that nobody uses a version or an \
         instance any more. Nothing is stopped without.",
    )];
    let its = |receipt: &Receipt| line.receipts.contains(&receipt.id);
    content.extend(report.receipts.iter().map(|receipt| one(receipt, its(receipt), &line.service)));
    part("Receipts", content)
}

fn one(receipt: &Receipt, stands_on_it: bool, service: &str) -> Html {
    let report = &receipt.report;
    let class = match report.verdict {
        Verdict::Idle => "mark good",
        Verdict::Busy | Verdict::Unknown => "mark bad",
    };
    let intact = hash(receipt).is_ok_and(|hash| hash == receipt.hash);
    let (hash_class, intact) =
        if intact { ("good", "intact") } else { ("bad", "not that of its content") };
    let mut heading = format!("Receipt {}: {}/{}", receipt.id, report.service, report.target);
    if !stands_on_it {
        heading += " (written on the way)";
    }
    let facts = facts(vec![
        ("verdict", classed("span", class, report.verdict.to_string())),
        ("written at", receipt.at.as_str().into()),
        (
            "hash",
            [
                classed("span", "mono", &receipt.hash),
                ", ".into(),
                classed("span", hash_class, intact),
            ]
            .into(),
        ),
        ("generation in force", report.generation.to_string().into()),
        ("evidence epoch", receipt.evidence_epoch.to_string().into()),
        ("kernel boot", classed("span", "mono", &receipt.boot_id)),
        ("connections ended on order", words::count(report.counts.ended()).into()),
    ]);
    let evidence = report.evidence.iter().map(|item| {
        let (class, word) = if item.ok { ("mark good", "ok") } else { ("mark bad", "not ok") };
        row(vec![Html::from(&item.name), classed("span", class, word), Html::from(&item.detail)])
    });
    let evidence = table(&["evidence", "", "what was looked at"], evidence.collect());
    let counters = details("Counters", counters(receipt));
    tag("article", [tag("h3", heading), facts, evidence, counters, forced(receipt, service)])
}

/// A list of facts.
pub fn facts(facts: Vec<(&str, Html)>) -> Html {
    let lines = facts.into_iter().flat_map(|(name, value)| [tag("dt", name), tag("dd", value)]);
    tag("dl", lines.collect::<Html>())
}

/// A line for each counter that is not 0 everywhere, a column for each instance.
fn counters(receipt: &Receipt) -> Html {
    let columns: Vec<(&String, Value)> = receipt
        .counters
        .iter()
        .map(|(id, counters)| (id, serde_json::to_value(counters).unwrap_or_default()))
        .collect();
    let mut header = vec!["counter"];
    header.extend(columns.iter().map(|(id, _)| id.as_str()));
    let names = columns.first().and_then(|(_, first)| first.as_object());
    let names = names.into_iter().flatten().map(|(name, _)| name);
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64).unwrap_or(0);
    let named = names.filter(|name| columns.iter().any(|(_, of)| number(of, name) > 0));
    let rows = named.map(|name| {
        let mut cells = vec![Html::from(name)];
        cells.extend(columns.iter().map(|(_, of)| words::count(number(of, name)).into()));
        row(cells)
    });
    table(&header, rows.collect())
}

/// Connections that were ended on order.
fn forced(receipt: &Receipt, service: &str) -> Html {
    if receipt.forced.is_empty() {
        return note("No connection was ended by force.");
    }
    let line = |flow: &ForcedFlow| {
        row(vec![
            classed("span", "mono", &flow.at),
            Html::from(&flow.client),
            Html::from(&flow.frontend),
            Html::from(&flow.instance),
            flow.how.as_str().into(),
            words::span(std::time::Duration::from_millis(flow.last_data_age_ms)).into(),
            Html::from(&flow.client_end),
        ])
    };
    let listed = receipt.forced.iter().take(MOST_LISTED).map(line);
    let columns = ["when", "client", "frontend", "instance", "how", "without data for", "client"];
    let mut list = table(&columns, listed.collect());
    let all = receipt.forced.len() as u64 + receipt.forced_not_listed;
    if let Some(more) = all.checked_sub(MOST_LISTED as u64).filter(|more| *more > 0) {
        let command = format!("releasectl idle receipts {service} --id {}", receipt.id);
        list.push(note([
            Html::from(format!("and {} more: ", words::count(more))),
            tag("code", command),
        ]));
    }
    let heading = format!("{} ended by force", words::counted(all, "connection"));
    details(heading, list)
}
