//! Whatever the bytes are: a configuration, or errors with lines; never a panic.

use super::super::load::from_sources;
use super::plans::PLANS;
use super::{FULL, MODES, SMALL};
use proptest::prelude::*;

/// Byte mutations: (where, how, byte).
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\"'[]{}=.,#\n\\ 019ax".to_vec())];
    prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, byte), 1..=8)
}

fn mutate(text: &str, mutations: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (index, how, byte) in mutations {
        if bytes.is_empty() {
            break;
        }
        let at = index.index(bytes.len());
        match how {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            3 => drop(bytes.drain(at..(at + usize::from(*byte)).min(bytes.len()))),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn loads_or_says_where(bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    if let Err(errors) = from_sources(vec![("f.toml".to_owned(), bytes)], Vec::new()) {
        prop_assert!(errors.iter().count() > 0);
        for error in &errors {
            let line = error.line().unwrap_or(0);
            prop_assert!((1..=lines).contains(&line), "{}: {} lines", error, lines);
            let start = format!("f.toml:{line}: ");
            prop_assert!(error.to_string().starts_with(&start));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutated_files(
        text in prop::sample::select(vec![FULL, MODES, PLANS, SMALL]),
        mutations in mutations(),
    ) {
        loads_or_says_where(mutate(text, &mutations))?;
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        loads_or_says_where(bytes)?;
    }

    /// Lines exchanged: legal TOML more often than not, of the wrong shape.
    #[test]
    fn shuffled_lines(
        lines in prop::sample::select(vec![FULL, MODES, PLANS])
            .prop_flat_map(|text| Just(text.lines().collect::<Vec<_>>()).prop_shuffle()),
    ) {
        loads_or_says_where(lines.join("\n").into_bytes())?;
    }
}
