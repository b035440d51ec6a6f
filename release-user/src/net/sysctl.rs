//! Kernel settings that forwarding needs, put back when the data plane is taken down.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Values found before they were changed, by path below /proc/sys/net.
pub type Found = BTreeMap<String, String>;

/// What an interface needs. A reply handed to the kernel (its neighbour not resolved yet) carries a
/// frontend's address as its source; if that address is the host's own, the source check drops it
/// unless `accept_local` is on and `rp_filter` off.
const PER_INTERFACE: [(&str, &str); 2] = [("accept_local", "1"), ("rp_filter", "0")];

/// A setting that is not as it must be.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Path below /proc/sys/net.
    pub name: String,
    /// Value it must have.
    wanted: &'static str,
    /// Value it has.
    pub found: String,
}

/// What forwarding needs on these interfaces and is not set.
///
/// # Errors
/// If a setting cannot be read; names its path.
pub fn missing(interfaces: &[String]) -> io::Result<Vec<Setting>> {
    // The stricter of `all` and the interface's own value counts.
    let mut wanted =
        vec![("ipv4/ip_forward".to_owned(), "1"), ("ipv4/conf/all/rp_filter".to_owned(), "0")];
    for interface in interfaces {
        for (name, value) in PER_INTERFACE {
            // A dot in an interface's name is an ordinary character in the path.
            wanted.push((format!("ipv4/conf/{interface}/{name}"), value));
        }
    }
    let mut missing = Vec::new();
    for (name, wanted) in wanted {
        let found = fs::read_to_string(path(&name)).map_err(|error| named(&name, &error))?;
        let found = found.trim().to_owned();
        if found != wanted {
            missing.push(Setting { name, wanted, found });
        }
    }
    Ok(missing)
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
