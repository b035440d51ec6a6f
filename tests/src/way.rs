//! A namespace with one way out, in both families, by a gateway whose MAC is known.

use std::path::PathBuf;

use crate::cases::{Verdict, Way};
use crate::netns::Netns;
use anyhow::{Context, Result};

/// MACs of the way, destination first.
pub const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8]);
/// Kinds of interfaces that take the largest IPv6 packet. Kernels have one or the other.
const KINDS: [&str; 2] = ["dummy", "ifb"];
/// The interface.
const MADE: &str = "\
link set way mtu 65575 arp on up
addr add 10.255.255.1/24 dev way
addr add fd00:ffff::1/64 dev way nodad
";
/// The way as it is at first.
const KNOWN: &str = "\
neigh replace 10.255.255.2 lladdr 02:00:00:00:00:09 dev way nud permanent
neigh replace fd00:ffff::2 lladdr 02:00:00:00:00:09 dev way nud permanent
route replace default via 10.255.255.2
route replace default via fd00:ffff::2
";
/// What makes it the kernel's to find.
const FORGOTTEN: &str = "\
neigh del 10.255.255.2 dev way
neigh del fd00:ffff::2 dev way
";

/// The namespace, and what its way is now.
#[derive(Debug)]
pub struct Surroundings {
    /// The namespace.
    pub netns: Netns,
    /// Index of the interface.
    pub device: u32,
    folder: tempfile::TempDir,
    now: Way,
}

impl Surroundings {
    /// Makes them.
    ///
    /// # Errors
    /// No namespace, or no such interface in it.
    pub fn new() -> Result<Self> {
        let netns = Netns::new("cases")?;
        for family in ["ipv4/conf", "ipv6/conf"] {
            for which in ["all", "default"] {
                netns.sysctl(&format!("{family}/{which}/forwarding"), "1")?;
            }
        }
        let folder = tempfile::tempdir()?;
        let mut this = Self { netns, device: 0, folder, now: Way::Known };
        let make =
            |kind| this.netns.ip(&format!("link add way address 02:00:00:00:00:08 type {kind}"));
        make(KINDS[0]).or_else(|_| make(KINDS[1]))?;
        this.batch(&format!("{MADE}{KNOWN}"))?;
        this.device = this.netns.enter(|| nix::net::if_::if_nametoindex("way"))??;
        Ok(this)
    }

    /// Several commands in one process.
    fn batch(&self, commands: &str) -> Result<()> {
        let path: PathBuf = self.folder.path().join("commands");
        std::fs::write(&path, commands).context("commands of ip")?;
        self.netns.ip(&format!("-batch {}", path.display())).map(drop)
    }

    /// Makes the way another.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn set(&mut self, way: Way) -> Result<()> {
        if self.now == way {
            return Ok(());
        }
        self.now = way;
        match way {
            // What is different is the interface that packets come in by.
            Way::Known | Way::Same => self.batch(KNOWN),
            Way::Kernel => self.batch(&format!("{KNOWN}{FORGOTTEN}")),
            // Of the route: an interface without room for 1280 bytes has no IPv6 at all.
            Way::Mtu(mtu) => self.batch(&format!(
                "{KNOWN}\
                 route replace default via 10.255.255.2 mtu lock {mtu}\n\
                 route replace default via fd00:ffff::2 mtu lock {mtu}\n"
            )),
        }
    }

    /// The interface that packets come in by; `None`: the loopback interface.
    #[must_use]
    pub fn ingress(&self) -> Option<u32> {
        (self.now == Way::Same).then_some(self.device)
    }

    /// What becomes of a packet that is sent on its way.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.now == Way::Same { Verdict::Bounce } else { Verdict::Send(None) }
    }
}
