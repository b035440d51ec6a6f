//! Traffic that is not a service's passes the programs as if they were not there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use release_tests::netns::Netns;
use release_tests::scenario::{DEADLINE, eventually};
use release_tests::sockets::echo;
use release_tests::topology::{BACKEND_PORT, BALANCER, CLIENT_SIDE, FRONTEND, Topology};
use release_tests::topology::{Balancer, TopologySpec};

/// Bytes in which every position is recognised.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31) ^ (at >> 8)) as u8).collect()
}

/// Pings with small, large and fragmented packets; the data must come back as it was.
fn pings(from: &Netns, to: SocketAddr) -> Result<()> {
    from.sysctl("ipv4/ping_group_range", "0 0")?;
    for length in [0, 56, 1400, 4000, 20_000] {
        let data = pattern(length);
        let reply = from.enter(|| echo(to, &data, Duration::from_secs(2)))?;
        ensure!(
            reply.with_context(|| format!("ping {to} with {length}"))? == data,
            "{to} {length}"
        );
    }
    Ok(())
}

/// Sends half a megabyte each way over a connection to a listener of our own.
fn tcp(from: &Netns, to: &Netns, address: SocketAddr) -> Result<SocketAddr> {
    let listener = to.listen(address)?;
    let mut client = from.connect(address, DEADLINE)?;
    let (server, peer) = listener.accept()?;
    exchange(&mut client, server).with_context(|| format!("over {address}"))?;
    Ok(peer)
}

fn exchange(client: &mut TcpStream, mut server: TcpStream) -> Result<()> {
    let data = pattern(500_000);
    let expected = data.clone();
    client.set_read_timeout(Some(DEADLINE))?;
    server.set_read_timeout(Some(DEADLINE))?;
    let echoing = thread::spawn(move || -> Result<()> {
        let mut got = vec![0; expected.len()];
        server.read_exact(&mut got)?;
        ensure!(got == expected, "the server received something else");
        Ok(server.write_all(&got)?)
    });
    client.write_all(&data)?;
    let mut got = vec![0; data.len()];
    client.read_exact(&mut got)?;
    ensure!(got == data, "the client received something else");
    echoing.join().map_err(|_| anyhow::anyhow!("a panic"))?
}

/// Datagrams there and back, small and fragmented.
fn udp(from: &Netns, to: &Netns, address: SocketAddrV4) -> Result<()> {
    let server = to.udp(address)?;
    let client = from.udp((Ipv4Addr::UNSPECIFIED, 0))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(DEADLINE))?;
    }
    client.connect(address)?;
    for length in [1, 1000, 9000] {
        let (data, mut buffer) = (pattern(length), vec![0; length + 1]);
        client.send(&data)?;
        let (got, peer) = server.recv_from(&mut buffer)?;
        ensure!(buffer[..got] == data, "{length} bytes to {address}");
        server.send_to(&data, peer)?;
        let got = client.recv(&mut buffer)?;
        ensure!(buffer[..got] == data, "{length} bytes from {address}");
    }
    Ok(())
}

/// No flow, no handshake, no counter of any instance.
fn nothing_was_tracked(lb: &Balancer) -> Result<()> {
    let flows = lb.releasectl_json(&["flows"])?;
    ensure!(flows.as_array().is_some_and(Vec::is_empty), "{flows}");
    for instance in lb.releasectl_json(&["instance", "list"])?.as_array().into_iter().flatten() {
        let counters = instance["counters"].as_object().context("no counters")?;
        ensure!(counters.values().all(|count| *count == 0), "{instance}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn other_traffic_is_untouched() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let (lb, client) = (&topology.lb, &topology.client);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let ours = topology.client_addresses()[0];
    let backend = &topology.backends[0];
    let there = *backend.address.ip();
    let zero = |ip: Ipv4Addr| SocketAddr::new(IpAddr::V4(ip), 0);

    // Echo: to the balancer, to the service's address, through to an instance, and back.
    for to in [BALANCER, *FRONTEND.ip(), Ipv4Addr::new(10, 2, 1, 1), there] {
        pings(client, zero(to)).unwrap();
    }
    pings(&backend.namespace, zero(ours)).unwrap();
    pings(&backend.namespace, zero(*topology.backends[1].address.ip())).unwrap();

    // TCP to the balancer itself: other ports of the service's address, the service's and the
    // instances' ports of its own.
    let host = &lb.namespace;
    for (ip, port) in [
        (*FRONTEND.ip(), 81),
        (*FRONTEND.ip(), BACKEND_PORT),
        (BALANCER, FRONTEND.port()),
        (BALANCER, BACKEND_PORT),
    ] {
        let peer = tcp(client, host, (ip, port).into()).unwrap();
        assert_eq!(peer.ip(), IpAddr::V4(ours));
    }
    // Through the balancer to an instance, not by way of the service: its own port, and another.
    for port in [BACKEND_PORT, FRONTEND.port()] {
        let peer = tcp(client, &backend.namespace, (there, port).into()).unwrap();
        assert_eq!(peer.ip(), IpAddr::V4(ours));
    }
    // From an instance outwards, and from the balancer to an instance.
    for port in [FRONTEND.port(), BACKEND_PORT] {
        let peer = tcp(&backend.namespace, client, (ours, port).into()).unwrap();
        assert_eq!(peer.ip(), IpAddr::V4(there));
    }
    tcp(host, &backend.namespace, (there, BACKEND_PORT).into()).unwrap();
    // From a source port that is an instance's.
    let listener = host.listen((BALANCER, 9000)).unwrap();
    let from = SocketAddrV4::new(ours, BACKEND_PORT);
    let to = SocketAddrV4::new(BALANCER, 9000);
    let mut stream = client.connect_from(from, to, DEADLINE).unwrap();
    exchange(&mut stream, listener.accept().unwrap().0).unwrap();

    // UDP, on the numbers of the service and of an instance too.
    udp(client, host, FRONTEND).unwrap();
    udp(client, &backend.namespace, backend.address).unwrap();
    udp(&backend.namespace, client, SocketAddrV4::new(ours, 5353)).unwrap();

    nothing_was_tracked(lb).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn direct_connections_live_beside_those_of_the_service() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let _servers = topology.start_servers().unwrap();
    // The same client port, first to the service and, while that lingers, to the instance itself.
    let held = topology.hold_from(40_000).unwrap();
    let backend = topology.backends.iter().find(|b| b.id == held.first.instance).unwrap();
    drop(held);
    eventually(DEADLINE, "closed", || {
        topology.lb.version_status("v1").unwrap()["flows"]["active"] == 0
    });
    let from = SocketAddrV4::new(topology.client_addresses()[0], 40_000);
    let mut stream = topology.client.connect_from(from, backend.address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for path in ["/", "/bytes?n=300000"] {
        let reply = release_tests::http::request(&mut stream, path).unwrap();
        assert_eq!(reply.instance, backend.id);
    }
    assert_eq!(topology.lb.counter(&backend.id, "opened").unwrap(), 1);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ipv6_passes() {
    let spec = TopologySpec { ipv6: true, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let (lb, client) = (&topology.lb, &topology.client);
    let _daemon = topology.up(&[("v1", 100)]).unwrap();
    let mut address = None;
    eventually(DEADLINE, "an address of the link", || {
        let text =
            lb.namespace.ip(&format!("-6 -o addr show dev {CLIENT_SIDE} scope link")).unwrap();
        let word = text.split_whitespace().find_map(|word| word.strip_suffix("/64"));
        address = word.and_then(|word| word.parse::<Ipv6Addr>().ok());
        address.is_some() && !text.contains("tentative")
    });
    let index = |namespace: &Netns, device: &str| {
        namespace.enter(|| nix::net::if_::if_nametoindex(device)).unwrap().unwrap()
    };
    eventually(DEADLINE, "one of the client's", || {
        let text = client.ip("-6 -o addr show dev eth0 scope link").unwrap();
        text.contains("fe80") && !text.contains("tentative")
    });
    let at = |port, scope| SocketAddrV6::new(address.unwrap(), port, 0, scope);
    let here = index(client, "eth0");
    pings(client, at(0, here).into()).unwrap();
    // TCP to the number of the service's port.
    let there = at(FRONTEND.port(), index(&lb.namespace, CLIENT_SIDE));
    let listener = lb.namespace.listen(there).unwrap();
    let to = at(FRONTEND.port(), here).into();
    let mut stream = client.connect(to, DEADLINE).unwrap();
    exchange(&mut stream, listener.accept().unwrap().0).unwrap();
    nothing_was_tracked(lb).unwrap();
}
