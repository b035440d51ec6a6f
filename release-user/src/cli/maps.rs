//! `maps`: what is pinned, read without the daemon.

use super::format::{Paint, Side, Table};
use super::{Context, DONE, Ended};
use crate::api::types::ErrorCode;
use crate::inspect::{self, CheckLine, MapLine};
use serde_json::Value;

pub(super) fn list(context: &mut Context) -> Ended {
    let maps = inspect::list(&context.paths.bpffs)?;
    context.out.list(&maps, list_text)?;
    Ok(DONE)
}

fn list_text(maps: &[MapLine], colours: bool) -> String {
    let mut table = Table::new(&[
        ("MAP", Side::Left),
        ("KIND", Side::Left),
        ("KEY", Side::Right),
        ("VALUE", Side::Right),
        ("CAPACITY", Side::Right),
        ("ENTRIES", Side::Right),
        ("ABOUT", Side::Left),
    ]);
    for map in maps {
        table.row(
            Paint::Plain,
            vec![
                map.name.clone(),
                map.kind.clone(),
                map.key_size.to_string(),
                map.value_size.to_string(),
                map.capacity.to_string(),
                map.entries.map_or("-".to_owned(), |entries| entries.to_string()),
                map.about.clone(),
            ],
        );
    }
    table.render(colours)
}

pub(super) fn dump(context: &mut Context, map: &str) -> Ended {
    let entries = inspect::dump(&context.paths.bpffs, map)?;
    context.out.list(&entries, |entries, _| entries.iter().map(entry_text).collect())?;
    Ok(DONE)
}

/// `key=value` pairs on one line.
fn entry_text(entry: &Value) -> String {
    let line = match entry {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{key}={}", value_text(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => value_text(other),
    };
    line + "\n"
}

/// Words stand without quotes.
fn value_text(value: &Value) -> String {
    let bare = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    match value {
        Value::String(word) if !word.is_empty() && word.chars().all(bare) => word.clone(),
        other => other.to_string(),
    }
}

pub(super) fn check(context: &mut Context) -> Ended {
    let lines = inspect::check(&context.paths.bpffs)?;
    context.out.list(&lines, check_text)?;
    let good = lines.iter().all(|line| line.ok);
    Ok(if good { DONE } else { ErrorCode::Unknown.exit_code() })
}

fn check_text(lines: &[CheckLine], colours: bool) -> String {
    let mut table = Table::new(&[("", Side::Left), ("MAP", Side::Left), ("DETAIL", Side::Left)]);
    for line in lines {
        let (word, paint) = if line.ok { ("ok", Paint::Plain) } else { ("BAD", Paint::Red) };
        table.row(paint, vec![word.to_owned(), line.name.clone(), line.detail.clone()]);
    }
    table.render(colours)
}

#[cfg(test)]
mod tests {
    use super::entry_text;
    use serde_json::json;

    #[test]
    fn entries_are_pairs() {
        let entry =
            json!({"id": 1, "addr": "10.0.0.1:80", "note": "two words", "n": [1, 2], "e": ""});
        assert_eq!(entry_text(&entry), "addr=10.0.0.1:80 e=\"\" id=1 n=[1,2] note=\"two words\"\n");
        assert_eq!(entry_text(&json!(7)), "7\n");
        assert_eq!(entry_text(&json!({"line": "a\nb"})), "line=\"a\\nb\"\n");
    }
}
