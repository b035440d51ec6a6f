//! What rings are worth, computed: how even shares are, and how much moves when an instance leaves.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use release_user::placement::{Member, Ring, RingSize};

use crate::row::{Curve, Figure, Row, Section, Target};

/// Instances of a ring of the default size.
const COUNTS: [u32; 9] = [2, 3, 5, 10, 20, 50, 100, 200, 500];

/// Instances of a ring that take the largest size.
const MANY: [u32; 2] = [200, 500];

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
fn disruption(members: &[Member], leaving: usize, size: RingSize) -> Result<f64> {
    let before = Ring::build(members, size);
    let mut rest = members.to_vec();
    let gone = rest.remove(leaving).id;
    let after = Ring::build(&rest, size);
    ensure!(!after.slots().contains(&gone), "instance {gone} still has slots");
    let pairs = before.slots().iter().zip(after.slots());
    let changed = pairs.filter(|(before, after)| before != after).count();
    Ok(changed as f64 / (f64::from(size.get()) / members.len() as f64))
}

/// The same, the worst of the first, the middle and the last: order must not matter.
fn worst_disruption(members: &[Member], size: RingSize) -> Result<f64> {
    let leaving = [0, members.len() / 2, members.len() - 1];
    let times = leaving.into_iter().map(|at| disruption(members, at, size));
    Ok(times.collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max))
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
        moved.push((f64::from(count), worst_disruption(&all, RingSize::DEFAULT)?));
    }
    let mut rows = Vec::new();
    let mut row = |id: &str, count: f64, size: RingSize, times: f64| {
        let id = format!("control.ring.{id}.{count}");
        let what = format!("slots of {size} that change when one of {count} instances leaves");
        rows.push(
            Row::new(Section::ControlPath, &id, &what, "× ideal", &[times])
                .target(Target::at_most(2.0)),
        );
    };
    for (count, times) in &moved {
        row("disruption", *count, RingSize::DEFAULT, *times);
    }
    for count in MANY {
        let times = worst_disruption(&members(count), RingSize::MAX)?;
        row("disruption.largest", f64::from(count), RingSize::MAX, times);
    }
    for (count, ratio) in &balance {
        let id = format!("control.ring.balance.{count}");
        let what = format!("largest share by smallest, {count} instances, 65537 slots");
        rows.push(
            Row::new(Section::ControlPath, &id, &what, "×", &[*ratio])
                .target(Target::at_most(1.02)),
        );
    }
    let figure = Figure {
        section: Section::ControlPath,
        id: "control.ring".to_owned(),
        title: "Rings of 65537 slots against the number of instances".to_owned(),
        x: "instances".to_owned(),
        x_log: true,
        y: "times the ideal".to_owned(),
        y_log: false,
        curves: vec![
            Curve { name: "slots that change when one leaves".to_owned(), points: moved },
            Curve { name: "largest share by smallest".to_owned(), points: balance },
        ],
    };
    Ok((rows, figure))
}
