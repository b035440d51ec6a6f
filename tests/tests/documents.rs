//! What documents say is there, is there.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What stands between backquotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Each of the 38 requirements names files that exist, and test functions that are in them.
#[test]
fn every_requirement_has_its_test() {
    let text = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| R")).collect();
    assert_eq!(rows.len(), 38);
    let mut tests = 0;
    for (index, row) in rows.iter().enumerate() {
        assert!(row.starts_with(&format!("| R{} |", index + 1)), "{row}");
        let shown = row.rsplit('|').nth(1).unwrap();
        let mut file = None;
        for word in quoted(shown) {
            let is_path = word.ends_with(".rs") || word.ends_with('/');
            if is_path && !word.contains('*') {
                let here = [root().join("tests/tests").join(word), root().join(word)];
                let found = here.into_iter().find(|path| path.exists());
                file = Some(found.unwrap_or_else(|| panic!("{word}: {row}")));
            } else if word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            {
                let file = file.as_ref().filter(|file| file.is_file());
                let code = file.map(|file| fs::read_to_string(file).unwrap());
                let code = code.unwrap_or_default();
                assert!(code.contains(&format!("fn {word}()")), "{word} is not in {file:?}: {row}");
                tests += 1;
            }
        }
        assert!(file.is_some(), "{row}");
    }
    assert!(tests > 30, "{tests}");
}
