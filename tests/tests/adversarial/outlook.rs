//! What a drain says of its end, while connections end one after the other.

use std::thread;
use std::time::{Duration, Instant};

use release_tests::scenario::Pair;
use serde_json::Value;

use crate::harness::{Scene, Stage};

const CONNECTIONS: usize = 24;
/// Of those, so many stay.
const STAY: usize = 3;
/// Time between two ends.
const PACE: Duration = Duration::from_millis(500);
/// Time without an end after which nobody believes in one any more, as `verdict/occupation.rs` has
/// it.
const STALLED: Duration = Duration::from_secs(60);

fn outlook(scene: &Scene<'_>) -> Value {
    let said = scene.verdict();
    assert_eq!(said.verdict, "busy", "{said:?}");
    said.report["outlook"].clone()
}

pub fn play(stage: &Stage<'_>) {
    stage.play("connections that end at a steady rate, and some that stay", |scene| {
        let listener = scene.listen();
        let mut pairs: Vec<Pair> = (0..CONNECTIONS).map(|_| scene.pair(&listener)).collect();
        assert_eq!(scene.verdict().report["outlook"], Value::Null, "not drained");
        scene.drain();
        assert_eq!(outlook(scene)["outlook"], "unknown");
        let begun = Instant::now();
        let mut seen = Vec::new();
        while pairs.len() > STAY {
            drop(pairs.pop());
            thread::sleep(PACE);
            seen.push((begun.elapsed(), outlook(scene)));
        }
        let ended = Instant::now();
        check(&seen);
        // The rest has no intention to go.
        let mut last = outlook(scene);
        while last["outlook"] != "not-converging" {
            assert!(ended.elapsed() < STALLED + 10 * PACE, "{last}");
            assert_eq!(last["outlook"], "converging", "{last}");
            thread::sleep(PACE);
            last = outlook(scene);
        }
        let stalled = ended.elapsed();
        assert!(stalled > STALLED - 3 * PACE, "given up after {stalled:?}");
        assert_eq!(last["for_s"].as_u64().unwrap().abs_diff(60), 0, "{last}");
        drop(pairs);
        scene.is_idle_soon();
    });
}

/// Once three have ended there is an estimate, with a range that is worth something: it never says
/// that the end is there while most connections are, and it becomes narrower.
fn check(seen: &[(Duration, Value)]) {
    let ranges: Vec<(f64, f64)> = seen
        .iter()
        .filter(|(_, outlook)| outlook["outlook"] == "converging")
        .map(|(_, outlook)| {
            (outlook["from_s"].as_f64().unwrap(), outlook["to_s"].as_f64().unwrap())
        })
        .collect();
    assert!(seen.len() - ranges.len() <= 4, "{seen:?}");
    assert!(ranges.iter().all(|(from, to)| from < to), "{ranges:?}");
    let width = |(from, to): &(f64, f64)| to / from.max(1.0);
    assert!(width(&ranges[ranges.len() - 1]) < width(&ranges[0]), "{ranges:?}");
    // The range of the middle holds what flows that end independently at that rate need: 1/r times
    // the harmonic number of those that are left.
    let middle = seen.len() / 2;
    let (elapsed, left) = (seen[middle].0.as_secs_f64(), CONNECTIONS - middle - 1);
    let mean =
        (0..=middle).map(|ended| (CONNECTIONS - ended) as f64).sum::<f64>() / (middle + 1) as f64;
    let rate = (middle + 1) as f64 / (mean * elapsed);
    let expected = (1..=left).map(|n| 1.0 / n as f64).sum::<f64>() / rate;
    let outlook = &seen[middle].1;
    let (from, to) = (outlook["from_s"].as_f64().unwrap(), outlook["to_s"].as_f64().unwrap());
    assert!((from..to).contains(&expected), "{expected} s in {outlook}");
}
