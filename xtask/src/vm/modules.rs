//! Kernel modules: where they are, what they depend on, in which order to load them.
//!
//! Packages of Debian's kernels carry no `modules.dep` (`depmod` writes it at the installation),
//! so the dependencies are read where `depmod` reads most of them: in the modules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// A module to load, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// What was found of the modules asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// To load, in this order.
    pub modules: Vec<Module>,
    /// Asked for, and part of the kernel.
    pub built_in: Vec<String>,
    /// Asked for, and nowhere.
    pub absent: Vec<String>,
}

/// Collects the modules in `folder` (`/lib/modules/<release>`) with those they depend on.
/// `busybox` unpacks compressed ones.
///
/// # Errors
/// If the folder can't be read, or a module depends on one that is not there.
pub fn select(folder: &Path, names: &[&str], busybox: &Path) -> Result<Selection> {
    let built_in = folder.join("modules.builtin");
    let built_in = fs::read_to_string(&built_in)
        .with_context(|| format!("cannot read {}", built_in.display()))?;
    let mut files = BTreeMap::new();
    find(&folder.join("kernel"), &mut files)?;
    resolve(names, &built_in_names(&built_in), |name| {
        files.get(name).map(|file| read(file, busybox)).transpose()
    })
}

/// The order of loading: depth first, each module once.
fn resolve(
    names: &[&str],
    built_in: &BTreeSet<String>,
    read: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Selection> {
    let mut selection = Selection::default();
    for name in names {
        let name = normal(name);
        if built_in.contains(&name) {
            selection.built_in.push(name);
        } else if !load(&name, built_in, &read, &mut selection.modules, 0)? {
            selection.absent.push(name);
        }
    }
    Ok(selection)
}

/// Appends a module behind those it depends on. Returns whether there is one of this name.
fn load(
    name: &str,
    built_in: &BTreeSet<String>,
    read: &impl Fn(&str) -> Result<Option<Vec<u8>>>,
    loaded: &mut Vec<Module>,
    depth: u32,
) -> Result<bool> {
    const DEEPEST: u32 = 20;
    if built_in.contains(name) || loaded.iter().any(|module| module.name == name) {
        return Ok(true);
    }
    if depth > DEEPEST {
        bail!("kernel modules depend on each other in a circle: {name}");
    }
    let Some(content) = read(name)? else { return Ok(false) };
    for needed in depends(&content) {
        if !load(&needed, built_in, read, loaded, depth + 1)? {
            bail!("kernel module {name} needs {needed}, which is not in the package");
        }
    }
    loaded.push(Module { name: name.to_owned(), content });
    Ok(true)
}

/// Names in `modules.builtin`: one path a line.
fn built_in_names(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| module_name(Path::new(line))).collect()
}

/// `kernel/net/ipv4/ip_tunnel.ko.xz` → `ip_tunnel`
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    (rest.is_empty() || rest.starts_with('.')).then(|| normal(name))
}

/// Files write `-` where the kernel says `_`, now and then.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module depends on: the string `depends=a,b` of its section `.modinfo`, which consists of
/// strings that end with a zero.
fn depends(content: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = content.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = content.get(at + key.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// A module's ELF file.
fn read(path: &Path, busybox: &Path) -> Result<Vec<u8>> {
    let applet = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => {
            return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        }
        Some("xz") => "unxz",
        Some("gz") => "gunzip",
        _ => bail!("{}: packed in a way that busybox can't unpack", path.display()),
    };
    let mut unpack = Command::new(busybox);
    unpack.args([applet, "-c"]).arg(path).stdin(Stdio::null());
    let output =
        unpack.output().with_context(|| format!("cannot run {}", command::show(&unpack)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", command::show(&unpack), output.status, said.trim_end());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(depends: &str) -> Vec<u8> {
        format!("\x7fELF…\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn reads_dependencies() {
        assert_eq!(depends(&elf("ip6_tunnel,udp-tunnel")), ["ip6_tunnel", "udp_tunnel"]);
        assert!(depends(&elf("")).is_empty());
        assert!(depends(b"no such string").is_empty());
    }

    #[test]
    fn a_file_name_is_a_module_packed_or_not() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(name("kernel/net/veth.ko"), Some("veth".into()));
        assert_eq!(name("kernel/net/nf-x.ko.xz"), Some("nf_x".into()));
        assert_eq!(name("kernel/net/veth.konig"), None);
        assert_eq!(name("modules.order"), None);
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let modules = BTreeMap::from([
            ("fou6", "ip6_tunnel,fou"),
            ("fou", "udp_tunnel"),
            ("ip6_tunnel", "tunnel6,ipv6"),
            ("tunnel6", ""),
            ("udp_tunnel", ""),
        ]);
        let built_in = built_in_names("kernel/net/ipv6/ipv6.ko\nkernel/drivers/net/dummy.ko\n");
        let read = |name: &str| Ok(modules.get(name).map(|needed| elf(needed)));
        let wanted = ["fou6", "fou", "dummy", "veth"];
        let selection = resolve(&wanted, &built_in, read).unwrap();
        let order = ["tunnel6", "ip6_tunnel", "udp_tunnel", "fou", "fou6"];
        assert_eq!(names(&selection.modules), order);
        assert_eq!(selection.built_in, ["dummy"]);
        assert_eq!(selection.absent, ["veth"]);
    }

    #[test]
    fn a_dependency_that_is_nowhere_is_an_error() {
        let read = |name: &str| Ok((name == "fou").then(|| elf("udp_tunnel")));
        let error = resolve(&["fou"], &BTreeSet::new(), read).unwrap_err();
        assert!(error.to_string().contains("fou needs udp_tunnel"), "{error}");
        let circle = |_: &str| Ok(Some(elf("other")));
        let error = resolve(&["one"], &BTreeSet::new(), |name| match name {
            "one" => circle(name),
            _ => Ok(Some(elf("one"))),
        });
        assert!(error.unwrap_err().to_string().contains("circle"));
    }
}
