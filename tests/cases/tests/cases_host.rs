//! The table of packet cases, through the host build of the packet path.

use release_cases::cases::{ModelRunner, Report, all, say};

#[test]
fn all_cases_hold_on_the_host() {
    let report = Report::of(&all(), ModelRunner::new);
    say(format_args!("cases, on the host:\n{}", report.table()));
    assert!(report.not_applicable.is_empty(), "skipped: {:?}", report.not_applicable);
    assert!(
        report.failed.is_empty(),
        "{} cases do not hold:\n{}",
        report.failed.len(),
        report.failed.join("\n")
    );
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> =
        all().into_iter().map(|case| (case.category, case.variant, case.name)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
