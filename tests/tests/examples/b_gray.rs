//! B: what has registered is tested, and then gets its share.

use release_tests::lab::Lab;
use release_tests::scenario::{DEADLINE, eventually};

use super::{clean, hold, load, release, typed};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_gray_release() {
    let lab = Lab::new("b").unwrap();
    let lb = &lab.topology.lb;
    // Mistakes (R13), before there is a daemon.
    let wrong = typed(&lab, 2, "releasectl check examples/b-gray/wrong.toml");
    for key in [
        "initial weights",
        "].plan: ",
        "].batch: ",
        "steps[1]",
        "analysis.min_flow",
        "drain.deadline",
    ] {
        assert!(wrong.contains(key), "{key}: {wrong}");
    }
    assert_eq!(
        wrong.lines().filter(|line| line.contains("error: examples/")).count(),
        6,
        "{wrong}"
    );

    let _daemon = lab.up().unwrap();
    let load = load(&lab);
    // Nobody has registered (R10).
    let line = "releasectl release start web --from v1 --to v2";
    let refused = typed(&lab, 8, line);
    assert!(refused.contains("v2: has no instance"), "{refused}");
    // The registry (R9).
    for number in [3, 4] {
        let said = typed(
            &lab,
            0,
            &format!("releasectl instance register web v2 10.2.{number}.2:8080 --id new-{number}"),
        );
        assert!(said.contains("registered at"), "{said}");
    }
    let list = typed(&lab, 0, "releasectl instance list");
    assert!(["old-1", "old-2", "new-3", "new-4"].iter().all(|id| list.contains(id)), "{list}");
    // One that was meant for another moment (R11).
    let refused = typed(&lab, 8, "releasectl release start web --from v2 --to v1");
    assert!(refused.contains("v2: does not serve"), "{refused}");
    typed(&lab, 0, line);

    // The test phase (R12): the tester reaches v2 for as long as it lasts, nobody else does.
    let tester = *lab.topology.client_addresses().last().unwrap();
    let testing = || {
        let now = release(&lab, "web");
        now["state"] == "testing"
            && now["doing"].as_str().is_some_and(|d| d.starts_with("test for"))
    };
    eventually(DEADLINE, "the test phase", testing);
    let mut reached = 0;
    while testing() {
        let by = hold(&lab, tester).first.version;
        let others = load.snapshot().connections_to("v2");
        if testing() {
            assert_eq!((by.as_str(), others), ("v2", 0));
            reached += 1;
        }
    }
    assert!(reached > 0);
    // The release phase, and the end.
    let list = typed(&lab, 0, "releasectl release list");
    assert!(list.contains("shifting 2/3"), "{list}");
    let ended = typed(&lab, 0, "releasectl release wait web");
    assert!(ended.contains("v1 → v2: succeeded, receipt "), "{ended}");
    assert!(load.wait(DEADLINE, |now| now.versions["v2"].instances.len() == 2));
    typed(&lab, 0, "releasectl status web");
    let receipts = typed(&lab, 0, "releasectl idle receipts web");
    assert!(receipts.contains("v1"), "{receipts}");
    assert_eq!(lb.version_status("v1").unwrap()["state"], "retired");
    clean(load);
}
