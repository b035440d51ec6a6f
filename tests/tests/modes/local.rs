//! Instances on the balancer's own host: its sockets, its containers, and clients over `lo`.

use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Mode::{Container, Host};
use release_tests::topology::Protocol::{self, Tcp, Udp};
use release_tests::topology::TopologySpec;

use crate::release::{release, spec};

/// Clients on the host itself.
fn loopback(family: Family, protocol: Protocol) -> TopologySpec {
    TopologySpec { loopback: true, ..spec(Host, family, protocol) }
}

release! {
    host_ipv4_tcp: spec(Host, V4, Tcp);
    host_ipv4_udp: spec(Host, V4, Udp);
    host_ipv6_tcp: spec(Host, V6, Tcp);
    host_ipv6_udp: spec(Host, V6, Udp);

    container_ipv4_tcp: spec(Container, V4, Tcp);
    container_ipv4_udp: spec(Container, V4, Udp);
    container_ipv6_tcp: spec(Container, V6, Tcp);
    container_ipv6_udp: spec(Container, V6, Udp);

    loopback_ipv4_tcp: loopback(V4, Tcp);
    loopback_ipv4_udp: loopback(V4, Udp);
    loopback_ipv6_tcp: loopback(V6, Tcp);
    loopback_ipv6_udp: loopback(V6, Udp);
}
