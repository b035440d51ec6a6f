//! Reading TOML without losing where things stood.
//!
//! serde's `deny_unknown_fields` stops at the first error and forgets which key it was about.
//! Here a table is read field by field, every error is reported with its place, and what nobody
//! asked for when the table is finished is an unknown key. Forgetting to finish a table fails in
//! debug builds.

use super::error::{ConfigError, Invalid, Place};
use super::numbers::parse_duration;
use super::suggest::did_you_mean;
use super::types::Name;
use std::cell::{Cell, RefCell};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A value and where it stood.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub place: Place,
    pub value: T,
}

/// One file being read: turns offsets into lines and collects errors.
pub(super) struct Source<'a> {
    file: &'a str,
    /// Offset at which each line starts.
    lines: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let after_breaks =
            text.match_indices('\n').map(|(at, _)| at + 1).filter(|at| *at < text.len());
        let lines = std::iter::once(0).chain(after_breaks).collect();
        Self { file, lines, errors: RefCell::default() }
    }

    pub(super) fn place(&self, offset: usize, key: String) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        Place { file: self.file.to_owned(), line: Some(line), key }
    }

    pub(super) fn report(&self, place: Place, invalid: Invalid) {
        self.errors.borrow_mut().push(ConfigError::new(place, invalid));
    }

    /// Errors so far.
    pub(super) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

/// A value in a file.
pub(super) struct Node<'a> {
    source: &'a Source<'a>,
    pub place: Place,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    pub(super) fn string(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.mistyped("a string"))
    }

    pub(super) fn integer(&self) -> Result<i64, Invalid> {
        let integer = self.value.as_integer().ok_or_else(|| self.mistyped("an integer"))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| Invalid::new(format!("{integer} is out of range")))
    }

    pub(super) fn boolean(&self) -> Result<bool, Invalid> {
        self.value.as_bool().ok_or_else(|| self.mistyped("true or false"))
    }

    /// An integer or a float; it may be infinite or no number.
    pub(super) fn number(&self) -> Result<f64, Invalid> {
        match self.value {
            DeValue::Integer(_) => Ok(self.integer()? as f64),
            DeValue::Float(float) => {
                float.as_str().parse().map_err(|_| Invalid::new(format!("{float} is out of range")))
            }
            _ => Err(self.mistyped("a number")),
        }
    }

    /// A duration, as text.
    pub(super) fn duration(&self) -> Result<Duration, Invalid> {
        let text = self.value.as_str().ok_or_else(|| self.mistyped("a duration in quotes"))?;
        parse_duration(text)
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub(super) fn table(&self) -> Result<Fields<'a>, Invalid> {
        match self.value {
            DeValue::Table(table) => Ok(Fields::new(self.source, self.place.clone(), table)),
            _ => Err(self.mistyped("a table")),
        }
    }

    /// The elements of an array. An element that is a table with a legal name is called by it.
    pub(super) fn elements(&self) -> Result<Vec<Self>, Invalid> {
        let DeValue::Array(array) = self.value else {
            return Err(self.mistyped("an array"));
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
            let key = match name_of(value.get_ref()) {
                Some(name) => format!("{}[{name}]", self.place.key),
                None => format!("{}[{index}]", self.place.key),
            };
            let place = self.source.place(value.span().start, key);
            Self { source: self.source, place, value: value.get_ref() }
        };
        Ok(array.iter().enumerate().map(element).collect())
    }

    /// Reads each element; those that are not acceptable are reported and left out.
    pub(super) fn list<T>(
        &self,
        read: impl Fn(&Self) -> Result<T, Invalid>,
    ) -> Result<Vec<At<T>>, Invalid> {
        Ok(self.elements()?.into_iter().filter_map(|element| element.read(&read)).collect())
    }

    /// Reads the node; if it is not acceptable, that is reported.
    fn read<T>(self, read: impl FnOnce(&Self) -> Result<T, Invalid>) -> Option<At<T>> {
        match read(&self) {
            Ok(value) => Some(At { place: self.place, value }),
            Err(invalid) => {
                self.source.report(self.place, invalid);
                None
            }
        }
    }

    fn mistyped(&self, expected: &str) -> Invalid {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        Invalid::new(format!("expected {expected}, found {found}"))
    }
}

/// The fields of a table. What has not been asked for when it is finished is unknown.
pub(super) struct Fields<'a> {
    pub source: &'a Source<'a>,
    pub place: Place,
    table: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    /// Errors of the file when this table was begun.
    before: usize,
    finished: Cell<bool>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(source: &'a Source<'a>, place: Place, table: &'a DeTable<'a>) -> Self {
        let before = source.count();
        Self { source, place, table, asked: Vec::new(), before, finished: Cell::new(false) }
    }

    /// Reads a field: `None` if it is not there or not acceptable; the latter is reported.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
    ) -> Option<At<T>> {
        self.asked.push(key);
        self.table.get_key_value(key).and_then(|(key, value)| self.node(key, value).read(read))
    }

    /// Reads a field that has a default, which also stands in for a value that was refused.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
    ) -> T {
        self.optional(key, read).map_or(default, |at| at.value)
    }

    /// Reads a field that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
    ) -> Option<At<T>> {
        if !self.table.contains_key(key) {
            let place = Place { key: self.path(key), ..self.place.clone() };
            self.source.report(place, Invalid::new("missing").hint(example));
        }
        self.optional(key, read)
    }

    /// Reads all fields, whatever their names.
    pub(super) fn every<T>(
        self,
        read: impl Fn(&Node<'a>) -> Result<T, Invalid>,
    ) -> impl Iterator<Item = (String, At<T>)> {
        self.finished.set(true);
        self.table.iter().filter_map(move |(key, value)| {
            Some((key.get_ref().to_string(), self.node(key, value).read(&read)?))
        })
    }

    /// Reports fields that nobody asked for. Returns whether the whole table was without error.
    pub(super) fn finish(self) -> bool {
        self.finished.set(true);
        for (key, value) in self.table {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                let unknown = Invalid::new("unknown key");
                let unknown = match did_you_mean(key.get_ref(), &self.asked) {
                    Some(hint) => unknown.hint(hint),
                    None if self.asked.is_empty() => unknown.hint("nothing stands here"),
                    None => unknown.hint(format!("known: {}", self.asked.join(", "))),
                };
                self.source.report(self.node(key, value).place, unknown);
            }
        }
        self.source.count() == self.before
    }

    fn node(&self, key: &Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        let place = self.source.place(key.span().start, self.path(key.get_ref()));
        Node { source: self.source, place, value: value.get_ref() }
    }

    fn path(&self, key: &str) -> String {
        let bare = Name::new(key).is_ok() && !key.contains('.');
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        if self.place.key.is_empty() { key } else { format!("{}.{key}", self.place.key) }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        debug_assert!(self.finished.get(), "a table was read without looking for unknown keys");
    }
}

fn name_of<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    let DeValue::Table(table) = value else { return None };
    let name = table.get("name")?.get_ref().as_str()?;
    Name::new(name).is_ok().then_some(name)
}
