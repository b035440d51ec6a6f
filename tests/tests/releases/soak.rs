//! One release after the other, back and forth, under a load that never ends.

use std::time::Duration;

use release_tests::load::{Group, Load, LoadPlan};
use release_tests::scenario::DEADLINE;
use release_tests::topology::{FRONTEND, SERVICE, Topology, TopologySpec};

use crate::harness::{plain, up};

/// Releases in a row, unless `RELEASE_SOAK` says how many (`cargo xtask soak`).
const RELEASES: usize = 4;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn releases_in_a_row_cost_no_connection() {
    let count = std::env::var("RELEASE_SOAK").map_or(RELEASES, |text| text.parse().unwrap());
    let topology = Topology::new(&TopologySpec { clients: 4, ..TopologySpec::default() }).unwrap();
    let plan = plain("steps = [{ weight = 50, hold = \"300ms\" }]\n");
    let _daemon = up(&topology, &plan);
    let lb = &topology.lb;
    let _servers = topology.start_servers().unwrap();
    let pause = Duration::from_millis(50);
    let life = Some(Duration::from_millis(1500));
    let load = LoadPlan {
        target: FRONTEND,
        sources: topology.client_addresses(),
        groups: vec![
            Group::Short { per_second: 100, limit: None, path: "/".into() },
            Group::KeepAlive { connections: 10, pause, life },
            Group::Stream { connections: 2, length: Duration::from_secs(2) },
        ],
        threads: 1,
    };
    let load = Load::start(&topology.client, load).unwrap();
    assert!(load.wait(DEADLINE, |now| now.connections_to("v1") > 20));
    let versions = ["v1", "v2"];
    for number in 0..count {
        let (from, to) = (versions[number % 2], versions[(number + 1) % 2]);
        // What the release before this one retired.
        lb.releasectl_ok(&["undrain", SERVICE, to]).unwrap();
        let start = ["release", "start", SERVICE, "--from", from, "--to", to, "--plan", "plain"];
        let ended = lb.releasectl(&[&start[..], &["--wait"]].concat()).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{number}: {ended:?}");
        // The receipt said that nobody loses anything.
        let now = load.snapshot();
        assert_eq!((now.active(from), now.errors, now.moved), (0, 0, 0), "{number}: {now:?}");
        if (number + 1) % 10 == 0 {
            println!("{} releases, {} connections", number + 1, now.connections);
        }
    }
    let report = load.finish().unwrap();
    assert!(report.is_clean(), "{:?} {:?}", report.first_errors, report.first_moved);
    // Conserved: what clients opened is what was counted.
    let status = lb.releasectl_json(&["instance", "list"]).unwrap();
    let opened: u64 = status
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| instance["counters"]["opened"].as_u64().unwrap())
        .sum();
    assert_eq!(opened, report.totals.connections);
    println!("{count} releases, {opened} connections, 0 errors, 0 moved");
}
