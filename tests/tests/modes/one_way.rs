//! Modes whose replies bypass the balancer: on the link, and in tunnels of both families.

use release_tests::topology::Family::{self, V4, V6};
use release_tests::topology::Mode::{self, Dsr, Gue, Ipip};
use release_tests::topology::Protocol::{self, Tcp, Udp};
use release_tests::topology::TopologySpec;

use crate::release::{release, spec};

/// A tunnel of family `outer`.
fn tunnel(mode: Mode, inner: Family, outer: Family, protocol: Protocol) -> TopologySpec {
    TopologySpec { outer, ..spec(mode, inner, protocol) }
}

release! {
    dsr_ipv4_tcp: spec(Dsr, V4, Tcp);
    dsr_ipv4_udp: spec(Dsr, V4, Udp);
    dsr_ipv6_tcp: spec(Dsr, V6, Tcp);
    dsr_ipv6_udp: spec(Dsr, V6, Udp);

    ipip_ipv4_in_ipv4_tcp: tunnel(Ipip, V4, V4, Tcp);
    ipip_ipv4_in_ipv4_udp: tunnel(Ipip, V4, V4, Udp);
    ipip_ipv6_in_ipv4_tcp: tunnel(Ipip, V6, V4, Tcp);
    ipip_ipv6_in_ipv4_udp: tunnel(Ipip, V6, V4, Udp);
    ipip_ipv4_in_ipv6_tcp: tunnel(Ipip, V4, V6, Tcp);
    ipip_ipv4_in_ipv6_udp: tunnel(Ipip, V4, V6, Udp);
    ipip_ipv6_in_ipv6_tcp: tunnel(Ipip, V6, V6, Tcp);
    ipip_ipv6_in_ipv6_udp: tunnel(Ipip, V6, V6, Udp);

    gue_ipv4_in_ipv4_tcp: tunnel(Gue, V4, V4, Tcp);
    gue_ipv4_in_ipv4_udp: tunnel(Gue, V4, V4, Udp);
    gue_ipv6_in_ipv4_tcp: tunnel(Gue, V6, V4, Tcp);
    gue_ipv6_in_ipv4_udp: tunnel(Gue, V6, V4, Udp);
    gue_ipv4_in_ipv6_tcp: tunnel(Gue, V4, V6, Tcp);
    gue_ipv4_in_ipv6_udp: tunnel(Gue, V4, V6, Udp);
    gue_ipv6_in_ipv6_tcp: tunnel(Gue, V6, V6, Tcp);
    gue_ipv6_in_ipv6_udp: tunnel(Gue, V6, V6, Udp);
}
