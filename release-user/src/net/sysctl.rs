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

/// Sets what forwarding needs and notes in `found` what was there, unless noted already.
///
/// # Errors
/// If a setting cannot be read or written; names its path.
pub fn prepare(interfaces: &[String], found: &mut Found) -> io::Result<()> {
    set("ipv4/ip_forward", "1", found)?;
    // The stricter of `all` and the interface's own value counts.
    set("ipv4/conf/all/rp_filter", "0", found)?;
    for interface in interfaces {
        for (name, value) in PER_INTERFACE {
            // A dot in an interface's name is an ordinary character in the path.
            set(&format!("ipv4/conf/{interface}/{name}"), value, found)?;
        }
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

fn set(name: &str, value: &str, found: &mut Found) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path(name)));
    let now = fs::read_to_string(path(name)).map_err(named)?;
    if now.trim() != value {
        fs::write(path(name), value).map_err(named)?;
        found.entry(name.to_owned()).or_insert_with(|| now.trim().to_owned());
    }
    Ok(())
}
