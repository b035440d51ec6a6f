//! Where control is measured: a balancer with two real backends, and services beside theirs whose
//! instances nobody is.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use release_common::abi::{Split, SplitEntry};
use release_tests::conversations::CLIENTS;
use release_tests::netns::Netns;
use release_tests::packet_socket::mac;
use release_tests::topology::{CLIENT_SIDE, FRONTEND, Topology, TopologySpec};
use release_user::kernel::Maps;

/// Addresses of instances that nobody is: behind the first backend, so that the host has a way to
/// all of them.
const INSTANCES: &str = "10.64.0.0/10";

/// Client, balancer and two backends, with ways to made-up clients and instances.
///
/// # Errors
/// As [`Topology::new`].
pub fn topology(daemon: &str) -> Result<Topology> {
    let spec = TopologySpec { daemon: daemon.to_owned(), ..TopologySpec::small() };
    let topology = Topology::new(&spec)?;
    let (client, first) = (&topology.client, &topology.backends[0]);
    let neighbour = topology.client_addresses()[0];
    lead(&topology, CLIENTS, neighbour, (client, CLIENT_SIDE))?;
    lead(&topology, INSTANCES, *first.address.ip(), (&first.namespace, &first.balancer_side))?;
    Ok(topology)
}

/// Routes a network to a neighbour, which needs not be asked for its address first.
fn lead(
    topology: &Topology,
    network: &str,
    address: Ipv4Addr,
    (neighbour, device): (&Netns, &str),
) -> Result<()> {
    let (lb, hardware) = (&topology.lb.namespace, hex(mac(neighbour, "eth0")?));
    lb.ip(&format!("neigh replace {address} lladdr {hardware} dev {device} nud permanent"))?;
    lb.ip(&format!("route add {network} via {address}"))?;
    Ok(())
}

fn hex(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Address of made-up instance `number`.
pub fn instance(number: u32) -> String {
    let [a, b, c, d] = (u32::from_be_bytes([10, 64, 0, 0]) + 1 + number).to_be_bytes();
    format!("{a}.{b}.{c}.{d}:8080")
}

/// A service whose instances nobody is.
pub struct MadeUp {
    /// Its name.
    pub name: String,
    /// Port of its frontend, which has the address of all.
    pub port: u16,
    /// Slots of its rings.
    pub ring: u32,
    /// First of its instances, and how many each of its versions `v1` and `v2` has.
    pub instances: (u32, [u32; 2]),
}

impl MadeUp {
    /// Its part of the configuration. `v1` has all the weight; others may register for it.
    pub fn config(&self) -> String {
        let Self { name, port, ring, instances: (first, counts) } = self;
        let mut text = format!(
            "\n[[service]]\nname = \"{name}\"\nfrontends = [\"{}:{port}/tcp\"]\nmode = \"nat\"\n\
             ring_size = {ring}\nregistration = [\"v1\"]\n",
            FRONTEND.ip()
        );
        let mut next = *first;
        for (version, count) in (1..).zip(counts).filter(|(_, count)| **count > 0) {
            let list = (next..next + count).map(|number| format!("{:?}, ", instance(number)));
            let list: String = list.collect();
            let weight = if version == 1 { 100 } else { 0 };
            let _ = write!(
                text,
                "\n[[service.version]]\nname = \"v{version}\"\nweight = {weight}\n\
                 instances = [{list}]\n"
            );
            next += count;
        }
        text
    }
}

/// Number of the service that has a frontend on this port.
///
/// # Errors
/// There is none.
pub fn service_at(maps: &Maps, port: u16) -> Result<u32> {
    let mut all = maps.frontends()?.into_iter();
    let found = all.find(|(at, _)| at.socket.port() == port);
    Ok(found.with_context(|| format!("no service at port {port}"))?.1.service)
}

/// The split that a service has in the kernel.
///
/// # Errors
/// It has none.
pub fn split(maps: &Maps, service: u32) -> Result<Split> {
    maps.split(service)?.with_context(|| format!("service {service} has no split"))
}

/// Demands that a service's new connections go to one of its two versions, by this generation.
///
/// # Errors
/// They do not.
pub fn demand_in_force(maps: &Maps, service: u32, generation: u32, first: bool) -> Result<()> {
    let split = split(maps, service)?;
    let bound = if first { SplitEntry::END } else { 0 };
    ensure!(
        split.generation == generation && split.entries[0].bound == bound,
        "generation {generation} is not in force: {split:?}"
    );
    Ok(())
}
