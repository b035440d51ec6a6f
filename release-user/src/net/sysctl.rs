//! Kernel settings that forwarding needs, put back when the data plane is taken down.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Values found before they were changed, by path below /proc/sys/net.
pub type Found = BTreeMap<String, String>;

/// What an interface needs. A reply handed to the kernel (its neighbour not resolved yet) carries a
/// frontend's address as its source; if that address is the host's own, the source check drops it
/// unless `accept_local` is on and `rp_filter` off. Where the interface itself does not forward, the
/// FIB has no answer for what comes in by it.
const PER_INTERFACE: [(&str, &str); 3] =
    [("accept_local", "1"), ("rp_filter", "0"), ("forwarding", "1")];

/// A setting that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Path below /proc/sys/net.
    pub name: String,
    /// Value it must have.
    pub wanted: &'static str,
    /// Value it has.
    pub found: String,
}

/// What forwarding needs on these interfaces and is not set, in the order in which to set it; `v6`:
/// of IPv6, too. IPv6 has neither `rp_filter` nor `accept_local`.
///
/// # Errors
/// If a setting cannot be read; names its path.
pub fn missing(interfaces: &[String], v6: bool) -> io::Result<Vec<Setting>> {
    // The stricter of `all` and the interface's own value counts.
    let mut wanted =
        vec![("ipv4/ip_forward".to_owned(), "1"), ("ipv4/conf/all/rp_filter".to_owned(), "0")];
    for interface in interfaces {
        for (name, value) in PER_INTERFACE {
            // A dot in an interface's name is an ordinary character in the path.
            wanted.push((format!("ipv4/conf/{interface}/{name}"), value));
        }
    }
    if v6 {
        wanted.extend(advertisements()?);
        wanted.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
        for interface in interfaces {
            wanted.push((format!("ipv6/conf/{interface}/forwarding"), "1"));
        }
    }
    let mut missing = Vec::new();
    for (name, wanted) in wanted {
        let found = read(&name)?;
        if found != wanted {
            missing.push(Setting { name, wanted, found });
        }
    }
    Ok(missing)
}

/// A router listens to no other router: forwarding takes away the routes that an interface learned
/// from router advertisements, unless it is told first to listen all the same (`accept_ra` 2). Said
/// of every interface that listens now, so that a host keeps its way out.
fn advertisements() -> io::Result<Vec<(String, &'static str)>> {
    const FOLDER: &str = "ipv6/conf";
    let mut listening = Vec::new();
    for entry in fs::read_dir(path(FOLDER)).map_err(|error| named(FOLDER, &error))?.flatten() {
        let Ok(interface) = entry.file_name().into_string() else { continue };
        if matches!(interface.as_str(), "all" | "default" | "lo") {
            continue;
        }
        let own = |name: &str| format!("{FOLDER}/{interface}/{name}");
        // An interface may go meanwhile.
        let is = |name: &str, value: &str| read(&own(name)).is_ok_and(|found| found == value);
        if is("forwarding", "0") && is("accept_ra", "1") {
            listening.push((own("accept_ra"), "2"));
        }
    }
    Ok(listening)
}

/// A setting, by its path below /proc/sys/net.
///
/// # Errors
/// If it cannot be read; names its path.
pub fn read(name: &str) -> io::Result<String> {
    let text = fs::read_to_string(path(name)).map_err(|error| named(name, &error))?;
    Ok(text.trim().to_owned())
}

/// Ports that the kernel gives to this host's own connections: a range, and what is left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPorts {
    /// First and last of the range.
    pub range: (u16, u16),
    /// Firsts and lasts of what is left out.
    pub reserved: Vec<(u16, u16)>,
}

impl OwnPorts {
    /// What the host says, for both families.
    ///
    /// # Errors
    /// If it cannot be read; names the path.
    pub fn of_host() -> io::Result<Self> {
        let range = read("ipv4/ip_local_port_range")?;
        let reserved = read("ipv4/ip_local_reserved_ports").unwrap_or_default();
        Ok(Self::parse(&range, &reserved))
    }

    fn parse(range: &str, reserved: &str) -> Self {
        let mut ends = range.split_whitespace().map(|text| text.parse().unwrap_or(0));
        let range = (ends.next().unwrap_or(0), ends.next().unwrap_or(0));
        let part = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Self { range, reserved: reserved.split(',').filter_map(part).collect() }
    }

    /// Whether the kernel may give one of the ports from `first` to `last` away.
    pub fn meet(&self, first: u16, last: u16) -> bool {
        let reserved =
            |port: u16| self.reserved.iter().any(|(from, to)| (*from..=*to).contains(&port));
        (first.max(self.range.0)..=last.min(self.range.1)).any(|port| !reserved(port))
    }
}

/// Sets them.
///
/// # Errors
/// If one cannot be written; names its path.
pub fn write(settings: &[Setting]) -> io::Result<()> {
    for setting in settings {
        fs::write(path(&setting.name), setting.wanted)
            .map_err(|error| named(&setting.name, &error))?;
    }
    Ok(())
}

/// Puts everything back. Interfaces that are gone have taken their settings with them.
pub fn restore(found: &Found) {
    for (name, value) in found {
        let _ = fs::write(path(name), value);
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path(name)))
}

#[cfg(test)]
mod tests {
    use super::OwnPorts;

    #[test]
    fn own_ports_leave_out_what_is_reserved() {
        let ports = OwnPorts::parse("32768\t60999", "8080,60000-60999");
        assert!(ports.meet(50_000, 50_000));
        assert!(ports.meet(59_999, 65_535));
        assert!(!ports.meet(60_000, 65_535));
        assert!(!ports.meet(61_000, 65_535));
        assert!(!ports.meet(1024, 32_767));
        assert!(ports.meet(1024, 32_768));
        assert!(OwnPorts::parse("32768 60999", "").meet(60_999, 65_535));
    }
}
