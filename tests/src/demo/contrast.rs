//! The usual way: the kernel's NAT by nftables, weight to zero, sleep, kill.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;
use tokio::time::sleep;

use super::screen::Screen;
use super::{Events, NEW, OLD, load_is_up, load_plan};
use crate::load::{Load, Report};
use crate::process::Process;
use crate::topology::{FRONTEND, Topology};

/// How long the old version is watched before.
const BEFORE: Duration = Duration::from_millis(2500);
/// "Three seconds will do."
const SLEEP: Duration = Duration::from_secs(3);
/// How long the load goes on without the old version's servers.
const AFTERWARDS: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);

/// What the contrast showed.
#[derive(Debug)]
pub struct Contrasted {
    pub report: Report,
    pub events: Events,
    /// Connections to the old version that were open when it was killed.
    pub cut: u64,
}

/// Moves the same load by nftables. The table goes with the balancer's namespace.
///
/// # Errors
/// `nft` is missing or refuses the rules.
pub async fn run(topology: &Topology, screen: &Screen) -> Result<Contrasted> {
    let old_servers = topology.start_servers_of(OLD)?;
    screen.step(&format!("nftables: DNAT to {OLD}, in the same namespaces"));
    apply(topology, OLD, "add")?;
    let load = Load::start(&topology.client, load_plan())?;
    let mut events = Events::of(&load);
    load_is_up(&load).await?;
    screen.step("the same load");
    let cut = tokio::select! {
        done = steps(topology, screen, &load, &mut events, old_servers) => done?,
        never = screen.watch(None, &load) => match never {},
    };
    Ok(Contrasted { report: load.finish()?, events, cut })
}

async fn steps(
    topology: &Topology,
    screen: &Screen,
    load: &Load,
    events: &mut Events,
    old_servers: Vec<Process>,
) -> Result<u64> {
    sleep(BEFORE).await;
    screen.step(&format!("weight of {OLD} to zero: new connections go to {NEW}"));
    apply(topology, NEW, "flush")?;
    events.mark("weight 0");
    sleep(SLEEP).await;
    let cut = load.snapshot().active(OLD);
    screen.step(&format!("slept {SLEEP:?}; stop the processes of {OLD}"));
    events.mark(&format!("stop {OLD}"));
    for server in old_servers {
        server.terminate(DEADLINE)?;
    }
    sleep(AFTERWARDS).await;
    Ok(cut)
}

/// Sends new connections to one version's instances in turn. In one transaction.
fn apply(topology: &Topology, version: &str, verb: &str) -> Result<()> {
    let mut file = NamedTempFile::new()?;
    file.write_all(rules(topology, version, verb).as_bytes())?;
    let path = file.path().to_str().context("temporary path is no text")?;
    topology
        .lb
        .namespace
        .run("nft", &format!("-f {path}"))
        .context("the contrast needs nftables (apt-get install nftables)")?;
    Ok(())
}

fn rules(topology: &Topology, version: &str, verb: &str) -> String {
    let instances: Vec<String> = topology
        .backends_of(version)
        .enumerate()
        .map(|(index, backend)| format!("{index} : {}", backend.address.ip()))
        .collect();
    let port = topology.backends.first().map_or(0, |backend| backend.address.port());
    let before = match verb {
        "add" => {
            "add table ip usual_way\n\
             add chain ip usual_way in { type nat hook prerouting priority dstnat; }"
        }
        _ => "flush chain ip usual_way in",
    };
    format!(
        "{before}\nadd rule ip usual_way in ip daddr {} tcp dport {} dnat to \
         numgen inc mod {} map {{ {} }} : {port}\n",
        FRONTEND.ip(),
        FRONTEND.port(),
        instances.len(),
        instances.join(", ")
    )
}
