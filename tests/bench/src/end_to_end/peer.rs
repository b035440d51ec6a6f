//! Who is compared.

use release_tests::topology::Mode;

/// A way from the client to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The kernel routes, nobody balances: the limit.
    Direct,
    /// `releasectl`, in a mode.
    Ours(Mode),
    /// DNAT to the next server in turn.
    Nftables,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx's stream.
    Nginx,
}

impl Peer {
    /// All of them, those that make up the targets first.
    pub const ALL: [Self; 11] = [
        Self::Direct,
        Self::Ours(Mode::Nat),
        Self::Nftables,
        Self::Haproxy,
        Self::Nginx,
        Self::Ours(Mode::Snat),
        Self::Ours(Mode::Dsr),
        Self::Ours(Mode::Ipip),
        Self::Ours(Mode::Gue),
        Self::Ours(Mode::Host),
        Self::Ours(Mode::Container),
    ];

    /// Its name in rows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Ours(Mode::Host) => "local",
            Self::Ours(Mode::Container) => "local-container",
            Self::Ours(mode) => mode.name(),
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Who it is, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct: routed, no balancer",
            Self::Ours(Mode::Nat) => "releasectl, nat",
            Self::Ours(Mode::Snat) => "releasectl, snat",
            Self::Ours(Mode::Dsr) => "releasectl, dsr (replies bypass it)",
            Self::Ours(Mode::Ipip) => "releasectl, ipip (ends in an XDP program)",
            Self::Ours(Mode::Gue) => "releasectl, gue (ends in an XDP program)",
            Self::Ours(Mode::Host) => "releasectl, local (servers on its host)",
            Self::Ours(Mode::Container) => "releasectl, local (containers on its host)",
            Self::Nftables => "nftables, DNAT by numgen",
            Self::Haproxy => "HAProxy, TCP mode",
            Self::Nginx => "nginx, stream",
        }
    }

    /// What its topology is wired for.
    pub fn mode(self) -> Mode {
        if let Self::Ours(mode) = self { mode } else { Mode::Nat }
    }

    /// Whether it is one of ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_))
    }
}
