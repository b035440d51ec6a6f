//! The kernel's own tunnel devices on a backend host, made by the very commands that
//! `docs/modes.md` gives its readers.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::{FRONTEND, FRONTEND6};
use crate::netns::Netns;

static MODES: &str = include_str!("../../../docs/modes.md");

/// Addresses in the documentation: the host's own, and the frontends'.
const OWN: [&str; 2] = ["10.0.0.11", "fd00::11"];
const FRONTENDS: [&str; 2] = ["192.0.2.10", "2001:db8::10"];

/// Runs what the documentation says on ends of `ipip` and `gue`, on a host with these addresses
/// that checks reverse paths strictly.
///
/// # Errors
/// A command fails: the kernel has no such devices, or the documentation is wrong.
pub(super) fn make(host: &Netns, own: [IpAddr; 2]) -> Result<()> {
    for conf in ["all", "default", "eth0"] {
        host.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "1")?;
    }
    let frontends = [IpAddr::V4(*FRONTEND.ip()), IpAddr::V6(*FRONTEND6.ip())];
    let written = OWN.into_iter().chain(FRONTENDS);
    let meant: Vec<(&str, String)> =
        written.zip(own.into_iter().chain(frontends).map(|address| address.to_string())).collect();
    for section in ["ipip", "gue"] {
        for line in commands(section)? {
            let line = meant.iter().fold(line, |line, (doc, here)| line.replace(doc, here));
            let (program, arguments) = line.split_once(' ').context("a command of one word")?;
            host.run(program, arguments).context("a command of docs/modes.md")?;
        }
    }
    Ok(())
}

/// The commands of a mode's section, without those that load modules.
fn commands(mode: &str) -> Result<Vec<String>> {
    let section = MODES.split_once(&format!("\n## `{mode}`\n")).context("no such section")?.1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let block = section.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.context("a section without commands")?;
    let commands: Vec<String> = block
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(|line| line.split("&&"))
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.is_empty() && !command.starts_with("modprobe "))
        .collect();
    ensure!(!commands.is_empty(), "no commands for {mode}");
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_commands() {
        let ipip = commands("ipip").unwrap();
        assert_eq!(ipip[0], "ip link add rel4 type ipip local 10.0.0.11");
        assert_eq!(ipip[1], "ip link set rel4 up");
        for kind in ["ipip", "sit", "ip6tnl"] {
            assert!(ipip.iter().any(|line| line.contains(&format!("type {kind}"))), "{ipip:?}");
        }
        for address in OWN.into_iter().chain(FRONTENDS) {
            assert!(ipip.iter().any(|line| line.contains(address)), "{address}");
        }
        assert_eq!(
            commands("gue").unwrap(),
            ["ip fou add port 6080 gue", "ip -6 fou add port 6080 gue"]
        );
        assert!(commands("no such").is_err());
    }
}
