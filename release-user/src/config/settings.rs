//! `[daemon]`, and the choices that a service makes from a fixed list.

use super::error::Invalid;
use super::suggest::did_you_mean;
use super::types::{EmbryoCapacity, FlowCapacity, InterfaceName};
use serde::Serialize;

/// What `[daemon]` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    pub(super) interfaces: Vec<InterfaceName>,
    pub(super) xdp_mode: XdpMode,
    pub(super) flow_capacity: FlowCapacity,
    pub(super) embryo_capacity: EmbryoCapacity,
    pub(super) log: LogLevel,
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

    /// What the kernel programs log.
    pub fn log(&self) -> LogLevel {
        self.log
    }
}

/// A choice from a fixed list of words.
pub(super) trait Choice: Copy + Sized + 'static {
    /// What this version can do.
    const SUPPORTED: &'static [(&'static str, Self)];
    /// Words that are known, and refused until their capability is there.
    const LATER: &'static [&'static str] = &[];

    /// The choice of that name.
    fn parse(word: &str) -> Result<Self, Invalid> {
        if let Some((_, choice)) = Self::SUPPORTED.iter().find(|(name, _)| *name == word) {
            return Ok(*choice);
        }
        let names: Vec<&str> = Self::SUPPORTED.iter().map(|(name, _)| *name).collect();
        let supported = format!("supported: `{}`", names.join("`, `"));
        if Self::LATER.contains(&word) {
            let what = format!("{word:?} is not supported by this version");
            return Err(Invalid::new(what).hint(supported));
        }
        let hint = did_you_mean(word, &names).unwrap_or(supported);
        Err(Invalid::new(format!("unknown value {word:?}")).hint(hint))
    }
}

/// Declares an enumeration, its words and its default.
macro_rules! choice {
    (
        $(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal,)+ }
        later [$($later:literal),*]
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$item_doc])* $item,)+ }

        impl $name {
            /// The word that stands for it in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $word,)+ }
            }
        }

        impl Choice for $name {
            const SUPPORTED: &'static [(&'static str, Self)] = &[$(($word, Self::$item),)+];
            const LATER: &'static [&'static str] = &[$($later),*];
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
    later []
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
    later []
}
choice! {
    /// How packets reach an instance.
    Mode {
        /// The destination is rewritten; replies return through this host.
        #[default]
        Nat = "nat",
    }
    later ["snat", "dsr", "ipip", "gue", "local"]
}
choice! {
    /// What stays together on one instance.
    Conversation {
        /// One flow.
        #[default]
        Flow = "flow",
    }
    later ["client", "datagram"]
}
choice! {
    /// What a new flow gets when no instance serves.
    WhenEmpty {
        /// A RST.
        #[default]
        Reject = "reject",
        /// Nothing.
        Drop = "drop",
        /// It goes on to this host's own network stack.
        Pass = "pass",
    }
    later []
}
choice! {
    /// What a new flow gets when the flow table is full.
    WhenFull {
        /// A RST.
        #[default]
        Reject = "reject",
        /// Nothing.
        Drop = "drop",
    }
    later []
}
