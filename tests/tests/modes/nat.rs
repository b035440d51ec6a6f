//! Modes whose replies return through the balancer.

use release_tests::topology::Family::{V4, V6};
use release_tests::topology::Mode::{Nat, Snat};
use release_tests::topology::Protocol::{Tcp, Udp};

use crate::release::{release, spec};

release! {
    nat_ipv4_tcp: spec(Nat, V4, Tcp);
    nat_ipv4_udp: spec(Nat, V4, Udp);
    nat_ipv6_tcp: spec(Nat, V6, Tcp);
    nat_ipv6_udp: spec(Nat, V6, Udp);

    snat_ipv4_tcp: spec(Snat, V4, Tcp);
    snat_ipv4_udp: spec(Snat, V4, Udp);
    snat_ipv6_tcp: spec(Snat, V6, Tcp);
    snat_ipv6_udp: spec(Snat, V6, Udp);
}
