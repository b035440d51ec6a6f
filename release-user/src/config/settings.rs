//! `[daemon]`, and the choices that a service makes from a fixed list.

use super::alarms::Alarms;
use super::error::Invalid;
use super::evidence::Credentials;
use super::numbers::{
    EmbryoCapacity, FlowCapacity, FragmentCapacity, SessionCapacity, SnatCapacity,
};
use super::suggest::did_you_mean;
use super::types::InterfaceName;
use serde::{Deserialize, Serialize};

/// What `[daemon]` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    pub(super) interfaces: Vec<InterfaceName>,
    pub(super) xdp_mode: XdpMode,
    pub(super) flow_capacity: FlowCapacity,
    pub(super) embryo_capacity: EmbryoCapacity,
    pub(super) session_capacity: SessionCapacity,
    pub(super) snat_capacity: SnatCapacity,
    pub(super) fragment_capacity: FragmentCapacity,
    pub(super) log: LogLevel,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<Credentials>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alarms: Option<Alarms>,
}

impl Daemon {
    /// Where the programs attach: at least one name, none twice.
    pub fn interfaces(&self) -> &[InterfaceName] {
        &self.interfaces
    }

    /// How the programs attach.
    pub fn xdp_mode(&self) -> XdpMode {
        self.xdp_mode
    }

    /// Entries of the flow table.
    pub fn flow_capacity(&self) -> FlowCapacity {
        self.flow_capacity
    }

    /// Entries of the embryo table.
    pub fn embryo_capacity(&self) -> EmbryoCapacity {
        self.embryo_capacity
    }

    /// Client sessions that can be remembered.
    pub fn session_capacity(&self) -> SessionCapacity {
        self.session_capacity
    }

    /// Source ports that services in mode `snat` can have in use at once, all together.
    pub fn snat_capacity(&self) -> SnatCapacity {
        self.snat_capacity
    }

    /// Fragmented datagrams in transit that can be kept together.
    pub fn fragment_capacity(&self) -> FragmentCapacity {
        self.fragment_capacity
    }

    /// What the daemon shows to agents on instances' hosts, and demands of them.
    pub fn agent(&self) -> Option<&Credentials> {
        self.agent.as_ref()
    }

    /// Who is told of alarms.
    pub fn alarms(&self) -> Option<&Alarms> {
        self.alarms.as_ref()
    }

    /// What the kernel programs log.
    pub fn log(&self) -> LogLevel {
        self.log
    }
}

/// A choice from a fixed list of words.
pub(super) trait Choice: Copy + Sized + 'static {
    /// The words and what they stand for.
    const WORDS: &'static [(&'static str, Self)];

    /// The choice of that name.
    fn parse(word: &str) -> Result<Self, Invalid> {
        if let Some((_, choice)) = Self::WORDS.iter().find(|(name, _)| *name == word) {
            return Ok(*choice);
        }
        let names: Vec<&str> = Self::WORDS.iter().map(|(name, _)| *name).collect();
        let all = || format!("supported: `{}`", names.join("`, `"));
        let hint = did_you_mean(word, &names).unwrap_or_else(all);
        Err(Invalid::new(format!("unknown value {word:?}")).hint(hint))
    }
}

/// Declares an enumeration, its words and its default.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize,
            Deserialize,
        )]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$item_doc])* $item,)+ }

        impl $name {
            /// The word that stands for it in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $word,)+ }
            }
        }

        impl Choice for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$item),)+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// How programs attach to an interface.
    XdpMode {
        /// In the driver where it can, else generic.
        #[default]
        Auto = "auto",
        /// In the driver, or not at all.
        Native = "native",
        /// After the kernel has built its packet buffer: slower, works on every interface.
        Generic = "generic",
    }
}
choice! {
    /// Least severe message that the kernel programs log.
    LogLevel {
        /// Nothing.
        #[default]
        Off = "off",
        /// What should never happen.
        Error = "error",
        /// What deserves a look.
        Warn = "warn",
        /// Steps of normal operation.
        Info = "info",
        /// Details of a decision.
        Debug = "debug",
        /// Every packet.
        Trace = "trace",
    }
}
choice! {
    /// How packets reach an instance.
    Mode {
        /// The destination is rewritten; replies return through this host.
        #[default]
        Nat = "nat",
        /// Both ends are rewritten: the source becomes one of this host's addresses, so that
        /// replies return here whatever the instance's routes are.
        Snat = "snat",
        /// Only the MAC addresses are rewritten: the instance, in the same link, has the
        /// frontend's address and answers the client itself.
        Dsr = "dsr",
        /// The packet travels inside another IP packet (RFC 2003, RFC 2473, RFC 4213); the
        /// instance unpacks it and answers the client itself.
        Ipip = "ipip",
        /// The packet travels inside a UDP datagram (GUE variant 1); likewise.
        Gue = "gue",
        /// The instance is on this host: the destination is rewritten and the host's own stack
        /// takes over.
        Local = "local",
    }
}

impl Mode {
    /// Whether the destination is rewritten: an instance's port may then differ from the
    /// frontend's, and its address must be of the frontend's family.
    pub const fn rewrites(self) -> bool {
        matches!(self, Self::Nat | Self::Snat | Self::Local)
    }

    /// Whether the instances' replies do not pass here.
    pub const fn is_one_way(self) -> bool {
        matches!(self, Self::Dsr | Self::Ipip | Self::Gue)
    }

    /// Whether packets travel inside others: an instance can then be of another family than the
    /// frontend.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether an instance is told from others by the address it answers from: it can then belong
    /// to one service only.
    pub const fn owns_instances(self) -> bool {
        matches!(self, Self::Nat | Self::Local)
    }
}

choice! {
    /// What stays together on one instance.
    Conversation {
        /// One flow.
        #[default]
        Flow = "flow",
        /// All flows of one client address.
        Client = "client",
        /// Nothing: each datagram is placed by itself, and no state is kept.
        Datagram = "datagram",
        /// One QUIC connection, even if the client's address changes: the instance is named in the
        /// connection id (QUIC-LB).
        Quic = "quic",
    }
}

impl Conversation {
    /// Whether flows are tracked.
    pub const fn tracks_flows(self) -> bool {
        !matches!(self, Self::Datagram)
    }

    /// Whether it is a matter of datagrams, so that frontends must be UDP.
    pub const fn needs_udp(self) -> bool {
        matches!(self, Self::Datagram | Self::Quic)
    }
}

choice! {
    /// What becomes of a connection without data while its instance drains.
    OnKeepalive {
        /// It is counted apart.
        #[default]
        Count = "count",
        /// It is ended.
        Reset = "reset",
    }
}

choice! {
    /// What becomes of a drained instance's client sessions.
    OnDrain {
        /// They stay until they end.
        #[default]
        Hold = "hold",
        /// A client's next flow is placed anew.
        Move = "move",
    }
}
choice! {
    /// What becomes of the flows of an instance that is down.
    OnDown {
        /// They stay where they are.
        #[default]
        Keep = "keep",
        /// They are ended.
        Reset = "reset",
    }
}
choice! {
    /// What a new flow gets when no instance serves.
    WhenEmpty {
        /// A RST, or port unreachable.
        #[default]
        Reject = "reject",
        /// Nothing.
        Drop = "drop",
        /// It goes on to this host's own network stack.
        Pass = "pass",
    }
}
choice! {
    /// What a new flow gets when the flow table is full or a limit is reached.
    WhenFull {
        /// A RST, or port unreachable.
        #[default]
        Reject = "reject",
        /// Nothing.
        Drop = "drop",
    }
}
