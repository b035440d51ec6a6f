//! Self-tests of the topology, the server and the guards, by routed access without a data plane.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use release_tests::http;
use release_tests::netns::Netns;
use release_tests::sockets;
use release_tests::topology::{BALANCER, FRONTEND, Topology, TopologySpec};

const DEADLINE: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs root: cargo xtask test"]
fn everyone_reaches_everyone() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    assert_eq!(topology.backends.len(), 4);
    let reaches = |from: &Netns, to: &Netns, address: Ipv4Addr| {
        let listener = to.listen((address, 0)).unwrap();
        from.connect(listener.local_addr().unwrap(), DEADLINE).unwrap();
        listener.accept().unwrap().1.ip()
    };
    let client = topology.client_addresses()[0];
    assert_eq!(reaches(&topology.client, &topology.lb.namespace, BALANCER), client);
    assert_eq!(reaches(&topology.client, &topology.lb.namespace, *FRONTEND.ip()), client);
    for backend in &topology.backends {
        let address = *backend.address.ip();
        assert_eq!(reaches(&topology.client, &backend.namespace, address), client);
        assert_eq!(reaches(&backend.namespace, &topology.client, client), address);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn offloads_are_off_where_packets_are_rewritten() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let features = |namespace: &Netns, device: &str| {
        let text = namespace.run("ethtool", &format!("-k {device}")).unwrap();
        move |name: &str| {
            let line = text.lines().find(|line| line.trim().starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap() == "on"
        }
    };
    for device in topology.lb.interfaces() {
        let on = features(&topology.lb.namespace, device);
        assert!(!on("tx-checksumming:") && !on("generic-receive-offload:"), "{device}");
    }
    for namespace in [&topology.client, &topology.backends[0].namespace] {
        let on = features(namespace, "eth0");
        assert!(!on("tx-checksumming:") && !on("tcp-segmentation-offload:"));
        assert!(on("generic-receive-offload:"));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn servers_say_who_they_are() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let servers = topology.start_servers().unwrap();
    assert_eq!(servers.len(), 4);
    for backend in &topology.backends {
        let to = SocketAddr::V4(backend.address);
        let first = http::get(&topology.client, to, "/", DEADLINE).unwrap();
        assert_eq!((first.status, first.connection), (200, 1));
        assert_eq!((&first.version, &first.instance), (&backend.version, &backend.id));

        // One connection keeps its number, whatever lies between its requests.
        let mut stream = topology.client.connect(to, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        for path in ["/", "/slow?ms=20", "/bytes?n=300000", "/healthz"] {
            let reply = http::request(&mut stream, path).unwrap();
            assert_eq!((reply.status, reply.connection), (200, 2), "{path}");
        }
        assert_eq!(http::request(&mut stream, "/nowhere").unwrap().status, 404);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stopped_server_cuts_its_connections() {
    let topology = Topology::new(&TopologySpec::default()).unwrap();
    let backend = &topology.backends[0];
    let server = backend.start_server().unwrap();
    let to = SocketAddr::V4(backend.address);
    let mut stream = topology.client.connect(to, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    http::request(&mut stream, "/").unwrap();
    server.terminate(DEADLINE).unwrap();
    http::request(&mut stream, "/").unwrap_err();
    assert!(topology.client.connect(to, DEADLINE).is_err());
    // The address is free again at once.
    let _server = backend.start_server().unwrap();
    assert_eq!(http::get(&topology.client, to, "/", DEADLINE).unwrap().version, "v1");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_client_address_is_usable() {
    let spec = TopologySpec { clients: 5, ..TopologySpec::default() };
    let topology = Topology::new(&spec).unwrap();
    let _server = topology.backends[0].start_server().unwrap();
    let addresses = topology.client_addresses();
    assert_eq!(addresses.len(), 5);
    for address in addresses {
        let (from, to) = (SocketAddrV4::new(address, 0), topology.backends[0].address);
        let mut stream = topology.client.connect_from(from, to, DEADLINE).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), address);
        assert_eq!(http::request(&mut stream, "/").unwrap().version, "v1");
        sockets::abort(stream).unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_is_left_behind() {
    let (names, pins, config, pid);
    let caught = {
        let topology = Topology::new(&TopologySpec::default()).unwrap();
        let server = topology.backends[0].start_server().unwrap();
        pid = server.pid();
        names = [topology.client.name().to_owned(), topology.lb.namespace.name().to_owned()];
        pins = topology.lb.bpffs().to_owned();
        topology.lb.write_config(&topology.config(&[("v1", 100)])).unwrap();
        config = topology.lb.config_path();
        assert!(pins.is_dir() && config.is_file());
        // Also when a panic unwinds, and with a server that outlives its guard's scope.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _keep = (topology, server);
            panic!("on purpose");
        }))
    };
    assert!(caught.is_err());
    for name in names {
        assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name}");
    }
    assert!(!pins.exists() && !config.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_ends_what_was_started_in_it() {
    let namespace = Netns::new("rt-self").unwrap();
    let process = namespace.spawn("sleep", namespace.command("sleep").arg("60")).unwrap();
    let inside = namespace.run("ip", "netns identify").unwrap_or_default();
    assert!(inside.is_empty() || inside.trim() == namespace.name());
    drop(namespace);
    assert!(!process.is_running());
}
