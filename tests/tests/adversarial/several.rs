//! More than one frontend, service, version or instance; and configurations that change meanwhile.

use std::net::{SocketAddr, TcpListener, TcpStream};

use release_tests::netns::{Receiving, VethEnd, veth};
use release_tests::scenario::{DEADLINE, Pair, eventually, without};
use release_tests::topology::{Balancer, CLIENT_SIDE, FRONTEND, SERVICE, Topology, TopologySpec};

use crate::harness::{SETTLE, SOON, Scene, Stage, accept, config, stays};

/// An address besides the frontend's.
const OTHER: &str = "10.1.0.101";

fn other() -> SocketAddr {
    SocketAddr::new(OTHER.parse().unwrap(), FRONTEND.port())
}

fn reload(lb: &Balancer, config: &str) {
    lb.write_config(config).unwrap();
    lb.releasectl_ok(&["reload"]).unwrap();
}

/// Connects to whatever frontend, and says something both ways.
fn pair_at(scene: &Scene<'_>, at: SocketAddr, listener: &TcpListener) -> Pair {
    let client = scene.topology.client.connect(at, DEADLINE).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut pair = Pair { client, server: accept(listener) };
    pair.talk().unwrap();
    pair
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn configurations_that_change() {
    let versions = vec![("v1".into(), 2), ("v2".into(), 1), ("spare".into(), 2)];
    let topology = Topology::new(&TopologySpec { versions, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    lb.namespace.ip(&format!("addr add {OTHER}/32 dev {CLIENT_SIDE}")).unwrap();
    // v1 has one instance at first, v2 the third backend; the others are for later.
    let all = config(&topology);
    let whole = &all[..all.find("\n[[service.version]]\nname = \"spare\"").unwrap()];
    let base = without(whole, "id = \"v1-2\"");
    lb.write_config(&base).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let stage = Stage::new(&topology);
    let frontend = "frontends = [\"10.1.0.100:80/tcp\"]";
    assert!(base.contains(frontend));

    stage.play("two frontends, of which one goes", |scene| {
        let both = format!("frontends = [\"10.1.0.100:80/tcp\", \"{OTHER}:80/tcp\"]");
        reload(lb, &base.replace(frontend, &both));
        let listener = scene.listen();
        let first = scene.pair(&listener);
        let mut second = pair_at(scene, other(), &listener);
        scene.drain();
        scene.is("busy", "2 active flows");
        drop(first);
        scene.is("busy", "1 active flow");
        // No new ones there, and nobody may forget the old one.
        reload(lb, &base);
        scene.is("busy", "1 active flow");
        second.talk().unwrap();
        drop(second);
        scene.is_idle_soon();
    });
    stage.play("two services, of which one drains", |scene| {
        let second = format!(
            "{base}\n[[service]]\nname = \"other\"\nfrontends = [\"{OTHER}:80/tcp\"]\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\n\
             instances = [{{ id = \"v1-1\", addr = \"{}\" }}]\n",
            topology.backends[3].address
        );
        reload(lb, &second);
        let (listener, elsewhere) = (scene.listen(), topology.backends[3].listen().unwrap());
        let ours = scene.pair(&listener);
        let mut theirs = pair_at(scene, other(), &elsewhere);
        scene.drain();
        scene.is("busy", "1 active flow");
        drop(ours);
        // The other one's connections are its own business.
        scene.is_idle_soon();
        theirs.talk().unwrap();
        drop(theirs);
        reload(lb, &base);
    });
    stage.play_about("v1-2", "an instance that is no longer configured", |scene| {
        scene.open();
        reload(lb, whole);
        let (client, server) = on_second(scene);
        scene.somebody_is_there();
        reload(lb, &base);
        scene.is("busy", "1 active flow");
        let mut pair = Pair { client, server };
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
    stage.play_about("v1-2", "an instance drained alone", |scene| {
        scene.open();
        reload(lb, whole);
        let (client, server) = on_second(scene);
        scene.somebody_is_there();
        lb.releasectl_ok(&["drain", SERVICE, "v1-2", "--no-wait"]).unwrap();
        scene.is("busy", "1 active flow");
        stays(lb, "v1", "busy", "takes new flows");
        drop((client, server));
        scene.is_idle_soon();
        stays(lb, "v1", "busy", "takes new flows");
        lb.releasectl_ok(&["undrain", SERVICE, "v1-2"]).unwrap();
    });
    // Flows of v1-2 linger: it is kept for a while.
    reload(lb, &base);
    stage.play("an instance that moves to the other version", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.shift();
        // The same socket under v2 now, which serves: who stops v1's stops v2's.
        let line = |index: usize| {
            let backend = &topology.backends[index];
            format!("    {{ id = \"{}\", addr = \"{}\" }},\n", backend.id, backend.address)
        };
        let (old, new) = (line(0), line(2));
        assert!(base.contains(&old) && base.contains(&new), "{base}");
        let spare =
            format!("    {{ id = \"spare\", addr = \"{}\" }},\n", topology.backends[4].address);
        let swapped = base.replace(&old, &spare).replace(&new, &format!("{new}{old}"));
        reload(lb, &swapped);
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        stays(lb, "v1", "busy", "takes new flows");
        lb.releasectl_ok(&["shift", SERVICE, "v1=100", "v2=0"]).unwrap();
        stays(lb, "v1", "busy", "takes new flows");
        // Under its new name it is closed now, and nobody is there.
        stays_idle(scene, "v2");
        reload(lb, &base);
        scene.shift();
        scene.is_idle_soon();
    });
    stage.play("a version that is no longer configured", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.shift();
        let cut = base.find("\n[[service.version]]\nname = \"v1\"").unwrap();
        let next = base.find("\n[[service.version]]\nname = \"v2\"").unwrap();
        reload(
            lb,
            &format!("{}{}", &base[..cut], base[next..].replace("weight = 0", "weight = 1")),
        );
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
        reload(lb, &base);
    });
    stage.play("a service that is no longer configured", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.shift();
        reload(lb, base.split("[[service]]").next().unwrap());
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        // Its own `settle` has gone with it.
        scene.is_idle_within(SOON + SETTLE);
        reload(lb, &base);
    });
    stage.end("configurations that change");
}

fn stays_idle(scene: &Scene<'_>, target: &str) {
    eventually(DEADLINE, "idle", || scene.lb.verdict(target).unwrap().verdict == "idle");
}

/// An instance is taken out of the configuration and put back: what was not known of its socket
/// before is not known now, even if it was given up by force meanwhile.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_instance_that_comes_back_after_its_flow_expired() {
    let versions = vec![("v1".into(), 2), ("v2".into(), 1)];
    let topology = Topology::new(&TopologySpec { versions, ..TopologySpec::small() }).unwrap();
    let lb = &topology.lb;
    let mode = "mode = \"nat\"\n";
    let short = format!("{mode}idle_timeout = \"1s\"\nprobes = {{ enabled = false }}\n");
    let with = config(&topology).replace(mode, &short);
    let without = without(&with, "id = \"v1-2\"");
    lb.write_config(&with).unwrap();
    let _daemon = lb.start_daemon().unwrap();
    let stage = Stage::new(&topology);
    stage.play_about("v1-2", "an instance that comes back", |scene| {
        let (client, server) = on_second(scene);
        scene.somebody_is_there();
        lb.releasectl_ok(&["drain", SERVICE, "v1-2", "--no-wait"]).unwrap();
        scene.becomes("unknown", "ended by a timer");
        reload(lb, &without);
        scene.is("unknown", "ended by a timer");
        reload(lb, &with);
        scene.is("unknown", "ended by a timer");
        reload(lb, &without);
        let forced = lb.releasectl(&["retire", SERVICE, "v1-2", "--force"]).unwrap();
        assert_eq!(forced.status.code(), Some(5), "{forced:?}");
        eventually(5 * DEADLINE, "gone", || lb.instance_status("v1-2").is_err());
        reload(lb, &with);
        lb.releasectl_ok(&["drain", SERVICE, "v1-2", "--no-wait"]).unwrap();
        // The connection is still there.
        scene.is("unknown", "v1-2 (given up by force)");
        drop((client, server));
    });
    stage.end("an instance that comes back");
}

/// A connection to v1-2, while v1-1 serves as well.
fn on_second(scene: &Scene<'_>) -> (TcpStream, TcpStream) {
    let _first = scene.listen();
    let second = scene.topology.backends[1].listen().unwrap();
    second.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        let client = scene.connect();
        if let Ok((server, _)) = second.accept() {
            server.set_nonblocking(false).unwrap();
            server.set_read_timeout(Some(DEADLINE)).unwrap();
            return (client, server);
        }
    }
    panic!("nothing is placed on v1-2");
}

/// One socket can be in two services in mode `snat`: who stops it for the one stops it for the other.
/// The last scenario of its stage.
pub fn in_two_services(stage: &Stage<'_>) {
    let lb = &stage.topology.lb;
    lb.namespace.ip(&format!("addr add {OTHER}/32 dev {CLIENT_SIDE}")).unwrap();
    let config = config(stage.topology);
    let start = config.find("[[service]]").unwrap();
    let again =
        config[start..].replace("name = \"web\"", "name = \"other\"").replace("10.1.0.100", OTHER);
    reload(lb, &format!("{config}\n{again}"));
    stage.play("a socket that another service uses too", |scene| {
        let listener = scene.listen();
        let ours = scene.pair(&listener);
        let mut theirs = pair_at(scene, other(), &listener);
        scene.drain();
        scene.is("busy", "1 active flow");
        drop(ours);
        // The process is the same: whoever stops v1's instance ends this connection.
        scene.is("busy", "");
        theirs.talk().unwrap();
        drop(theirs);
        // And it takes new ones.
        scene.is("busy", "takes new flows");
        lb.releasectl_ok(&["shift", "other", "v1=0", "v2=1"]).unwrap();
        scene.is_idle_soon();
    });
}

/// The interface towards the instance vanishes and returns.
pub fn an_interface(stage: &Stage<'_>) {
    let lb = &stage.topology.lb;
    stage.play("an interface that vanishes and returns", |scene| {
        let listener = scene.listen();
        let mut pair = scene.pair(&listener);
        scene.drain();
        let (backend, device) = (scene.backend(), scene.backend().balancer_side.as_str());
        lb.namespace.ip(&format!("link del {device}")).unwrap();
        eventually(DEADLINE, "absent", || lb.attachment(device).unwrap() == "absent");
        scene.is("busy", "1 active flow");
        let end = |namespace, device, address, receiving| VethEnd {
            namespace,
            device,
            address,
            receiving,
        };
        veth(
            end(&backend.namespace, "eth0", "10.2.1.2/24", Receiving::FromXdp),
            end(&lb.namespace, device, "10.2.1.1/24", Receiving::IntoXdp),
        )
        .unwrap();
        backend.namespace.ip("route add default via 10.2.1.1").unwrap();
        eventually(DEADLINE, "native", || lb.attachment(device).unwrap() == "native");
        scene.is("busy", "1 active flow");
        pair.talk().unwrap();
        drop(pair);
        scene.is_idle_soon();
    });
}
