//! Enough of SPDX licence expressions to tell whether a set of licences satisfies one.

use anyhow::{Result, bail};

/// Whether holding to the `allowed` licences satisfies `expression`. `A/B` is the old way to
/// write `A OR B`; `A WITH B` counts as a licence of its own.
///
/// # Errors
/// If the expression is not well formed.
pub fn satisfied(expression: &str, allowed: &[&str]) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().peekable(), allowed };
    let result = parser.either();
    match (result, parser.words.next()) {
        (Some(satisfied), None) => Ok(satisfied),
        _ => bail!("licence expression {expression:?} is not well formed"),
    }
}

struct Parser<'a, W: Iterator<Item = &'a str>> {
    words: std::iter::Peekable<W>,
    allowed: &'a [&'a str],
}

impl<'a, W: Iterator<Item = &'a str>> Parser<'a, W> {
    fn either(&mut self) -> Option<bool> {
        let mut satisfied = self.both()?;
        while self.words.next_if_eq(&"OR").is_some() {
            satisfied |= self.both()?;
        }
        Some(satisfied)
    }

    fn both(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        let word = self.words.next().filter(|word| !["OR", "AND", "WITH", ")"].contains(word))?;
        if word == "(" {
            let satisfied = self.either()?;
            return self.words.next_if_eq(&")").map(|_| satisfied);
        }
        let mut licence = word.to_owned();
        if self.words.next_if_eq(&"WITH").is_some() {
            licence = format!("{licence} WITH {}", self.words.next()?);
        }
        Some(self.allowed.contains(&licence.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [&str; 3] = ["MIT", "Apache-2.0", "Unicode-3.0"];

    #[test]
    fn and_binds_tighter_than_or() {
        let cases = [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
            ("GPL-3.0-only AND MIT OR MIT", true),
            ("GPL-3.0-only OR MIT AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ];
        for (expression, expected) in cases {
            assert_eq!(satisfied(expression, &ALLOWED).unwrap(), expected, "{expression}");
        }
        assert!(satisfied("MIT WITH x", &["MIT WITH x"]).unwrap());
    }

    #[test]
    fn malformed_expressions_are_errors() {
        for expression in ["", "MIT MIT", "(MIT", "MIT)", "MIT OR", "AND", "MIT WITH", "()"] {
            assert!(satisfied(expression, &ALLOWED).is_err(), "{expression:?}");
        }
    }
}
