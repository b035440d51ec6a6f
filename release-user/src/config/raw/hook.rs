//! `hooks` of a plan: programs and units.

use super::super::error::Invalid;
use super::super::evidence::absolute;
use super::super::reader::{At, Node};
use super::super::suggest::did_you_mean;
use super::plan::span;
use crate::release::plan::{Action, Hook};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The hooks written, each by its key.
pub(in super::super) type DraftHooks = BTreeMap<&'static str, At<Hook>>;

/// In the order in which they are run, more or less.
const KEYS: [&str; 11] = [
    "start",
    "pre_drain",
    "upgrade",
    "probe",
    "test",
    "pre_step",
    "promote",
    "stop",
    "post_release",
    "abort",
    "event",
];
/// Those that start, restart or stop something.
const OF_UNITS: [&str; 3] = ["start", "upgrade", "stop"];

const TIMEOUT: Duration = Duration::from_secs(60);
/// As systemd has it.
const LONGEST_UNIT: usize = 255;

pub(super) fn read(node: &Node<'_>) -> Result<DraftHooks, Invalid> {
    let mut fields = node.table()?;
    let hooks = KEYS
        .iter()
        .filter_map(|key| Some((*key, fields.optional(key, |node| read_hook(node, key))?)))
        .collect();
    fields.finish();
    Ok(hooks)
}

fn read_hook(node: &Node<'_>, key: &str) -> Result<Hook, Invalid> {
    let mut fields = node.table()?;
    let argv = fields.optional("argv", read_argv);
    let unit = fields.optional("unit", |node| {
        let unit = unit(node.string()?)?;
        if !OF_UNITS.contains(&key) {
            let hint = format!("a unit is for {}; others have `argv`", quoted(&OF_UNITS));
            return Err(Invalid::new(format!("hook `{key}` is no unit's")).hint(hint));
        }
        Ok(unit)
    });
    let timeout = fields.or("timeout", TIMEOUT, span);
    let idempotent = fields.or("idempotent", false, Node::boolean);
    let secrets = fields.optional("secrets", read_secrets);
    let clean = fields.finish();
    let action = match (argv, unit) {
        (Some(_), Some(unit)) => {
            return Err(Invalid::new(format!("a second action, {}", unit.place.key))
                .hint("keep `argv` or `unit`"));
        }
        (Some(argv), None) => Action::Exec(argv.value),
        (None, Some(_)) if secrets.is_some() => {
            return Err(Invalid::new("secrets for a unit")
                .hint("its variables are its own matter: LoadCredential= in its file"));
        }
        (None, Some(unit)) => Action::Unit(unit.value),
        // What was refused is reported already.
        (None, None) if !clean => Action::Exec(Vec::new()),
        (None, None) => {
            return Err(Invalid::new("nothing to run")
                .hint(r#"argv = ["/PATH", …] or unit = "NAME.service""#));
        }
    };
    let secrets = secrets.map(|at| at.value).unwrap_or_default();
    Ok(Hook { action, timeout, idempotent, secrets })
}

/// A program by its absolute path, and its arguments.
pub(super) fn read_argv(node: &Node<'_>) -> Result<Vec<String>, Invalid> {
    let argv = node.list(|word| {
        let word = word.string()?;
        if word.contains('\0') {
            return Err(Invalid::new("a zero byte").hint("no program can be given one"));
        }
        Ok(word.to_owned())
    })?;
    let all = node.elements()?.len();
    if all == 0 {
        return Err(Invalid::new("empty").hint("the program, and its arguments"));
    }
    if let Some(program) = argv.first().filter(|_| argv.len() == all) {
        absolute(&program.value).map_err(|invalid| invalid.hint("no shell looks for it"))?;
    }
    Ok(argv.into_iter().map(|word| word.value).collect())
}

fn read_secrets(node: &Node<'_>) -> Result<Vec<(String, PathBuf)>, Invalid> {
    let files = node.table()?.every(|path| absolute(path.string()?));
    files.map(|(key, path)| variable(&key).map(|()| (key, path.value))).collect()
}

/// The name of a variable that is not one of ours.
fn variable(name: &str) -> Result<(), Invalid> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        return Err(Invalid::new(format!("{name:?} is not the name of a variable"))
            .hint("letters, digits and `_`, no digit first"));
    }
    if name.starts_with("RELEASE_") {
        return Err(Invalid::new(format!("{name:?}: such names are taken"))
            .hint("variables RELEASE_… say what the release is about"));
    }
    Ok(())
}

/// Name of a service unit, with placeholders.
fn unit(text: &str) -> Result<String, Invalid> {
    let not = || Invalid::new(format!("{text:?} is not a service unit"));
    let example = r#"such as "web@{instance}.service""#;
    let Some(mut rest) = text.strip_suffix(".service") else { return Err(not().hint(example)) };
    if rest.ends_with('@') {
        return Err(not().hint("it is a template: say of what, such as \"web@{instance}.service\""));
    }
    let legal = |part: &str| {
        part.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '\\' | '@' | '-'))
    };
    if rest.is_empty() || rest.starts_with('-') || text.len() > LONGEST_UNIT {
        return Err(not().hint(example));
    }
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or_else(|| not().hint("`{` without `}`"))?;
        if !Action::PLACEHOLDERS.contains(&name) {
            let all = || format!("known: {}", quoted(&Action::PLACEHOLDERS));
            return Err(Invalid::new(format!("unknown placeholder {{{name}}}"))
                .hint(did_you_mean(name, &Action::PLACEHOLDERS).unwrap_or_else(all)));
        }
        if !legal(before) {
            return Err(not().hint(example));
        }
        rest = behind;
    }
    if legal(rest) { Ok(text.to_owned()) } else { Err(not().hint(example)) }
}

fn quoted(words: &[&str]) -> String {
    format!("`{}`", words.join("`, `"))
}
