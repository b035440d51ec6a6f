//! The table of packet cases, through the host build of the packet path.

use release_tests::cases::{ModelRunner, Report, all};

#[test]
fn all_cases_hold_on_the_host() {
    let report = Report::of(&all(), ModelRunner::new);
    for (category, count) in &report.passed {
        println!("{category:>12} {count}");
    }
    println!("{:>12} {}", "all", report.passed.values().sum::<usize>());
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
    let mut names: Vec<_> = all().into_iter().map(|case| (case.category, case.name)).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
