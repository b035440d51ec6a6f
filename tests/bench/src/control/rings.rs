//! What rings are worth, computed: how even shares are, and how much moves when an instance leaves.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use release_user::placement::{Member, Ring, RingSize};

use crate::row::{Curve, Figure, Row, Section, Target};

/// Instances of a ring.
const COUNTS: [u32; 9] = [2, 3, 5, 10, 20, 50, 100, 200, 500];

fn members(count: u32) -> Vec<Member> {
    let member = |id: u32| Member {
        id,
        addr: SocketAddr::from((Ipv4Addr::from(0x0a40_0000 + id), 8080)),
        weight: 1,
    };
    (1..=count).map(member).collect()
}

/// Largest share by smallest.
fn imbalance(ring: &Ring) -> Result<f64> {
    let mut shares: HashMap<u32, u32> = HashMap::new();
    for slot in ring.slots() {
        *shares.entry(*slot).or_default() += 1;
    }
    let (most, least) = (shares.values().max(), shares.values().min());
    Ok(f64::from(*most.context("empty")?) / f64::from(*least.context("empty")?))
}

/// Slots that change when one member leaves, in times of those that must.
fn disruption(members: &[Member], leaving: usize) -> Result<f64> {
    let size = RingSize::DEFAULT;
    let before = Ring::build(members, size);
    let mut rest = members.to_vec();
    let gone = rest.remove(leaving).id;
    let after = Ring::build(&rest, size);
    ensure!(!after.slots().contains(&gone), "instance {gone} still has slots");
    let pairs = before.slots().iter().zip(after.slots());
    let changed = pairs.filter(|(before, after)| before != after).count();
    Ok(changed as f64 / (f64::from(size.get()) / members.len() as f64))
}

/// Rows and a figure.
///
/// # Errors
/// A ring is not one.
pub fn measure() -> Result<(Vec<Row>, Figure)> {
    let (mut balance, mut moved) = (Vec::new(), Vec::new());
    for count in COUNTS {
        let all = members(count);
        let ring = Ring::build(&all, RingSize::DEFAULT);
        let named: std::collections::HashSet<u32> = ring.slots().iter().copied().collect();
        ensure!(named.len() == count as usize, "{} of {count} instances named", named.len());
        balance.push((f64::from(count), imbalance(&ring)?));
        // First, middle and last: order must not matter.
        let leaving = [0, all.len() / 2, all.len() - 1];
        let times =
            leaving.map(|at| disruption(&all, at)).into_iter().collect::<Result<Vec<_>>>()?;
        moved.push((f64::from(count), times));
    }
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let mut rows = Vec::new();
    for (count, times) in &moved {
        let id = format!("control.ring.disruption.{count}");
        let what = format!("slots of 65537 that change when one of {count} instances leaves");
        rows.push(
            Row::new(Section::ControlPath, &id, &what, "× ideal", &[worst(times)])
                .target(Target::at_most(2.0)),
        );
    }
    for (count, ratio) in &balance {
        let id = format!("control.ring.balance.{count}");
        let what = format!("largest share by smallest, {count} instances, 65537 slots");
        rows.push(
            Row::new(Section::ControlPath, &id, &what, "×", &[*ratio])
                .target(Target::at_most(1.02)),
        );
    }
    let points = moved.iter().map(|(count, times)| (*count, worst(times))).collect();
    let figure = Figure {
        section: Section::ControlPath,
        id: "control.ring".to_owned(),
        title: "Rings of 65537 slots against the number of instances".to_owned(),
        x: "instances".to_owned(),
        x_log: true,
        y: "times the ideal".to_owned(),
        y_log: false,
        curves: vec![
            Curve { name: "slots that change when one leaves".to_owned(), points },
            Curve { name: "largest share by smallest".to_owned(), points: balance },
        ],
    };
    Ok((rows, figure))
}
