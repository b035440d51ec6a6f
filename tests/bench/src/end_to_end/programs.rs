//! Programs that are measured or measure, and their configurations of `tests/peers`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What this section needs, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("wrk", "wrk"),
    ("iperf3", "iperf3"),
];

/// nginx's module for TCP, where it is no part of the program.
const MODULE: &str = "lib/nginx/modules/ngx_stream_module.so";

/// Says all that is missing at once.
///
/// # Errors
/// Something is.
pub fn demand() -> Result<()> {
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    ensure!(missing.is_empty(), "end to end needs programs that are not there: {missing:?}");
    Ok(())
}

/// Line of nginx's configuration that loads its module for TCP; empty where there is no such
/// module: then it is built in, or nginx says what it misses (Debian package
/// libnginx-mod-stream).
pub fn stream_module() -> String {
    let program = find("nginx").and_then(|path| path.canonicalize().ok());
    let near = program.iter().flat_map(|path| path.ancestors().skip(2).take(1));
    let modules = near.map(|folder| folder.join(MODULE));
    let module = modules.chain([Path::new("/usr").join(MODULE)]).find(|module| module.is_file());
    module.map(|module| format!("load_module {};", module.display())).unwrap_or_default()
}

/// Writes a configuration whose placeholders `@NAME@` are filled in.
///
/// # Errors
/// It cannot be written, or a placeholder is left.
pub fn write(path: &Path, template: &str, values: &[(&str, String)]) -> Result<()> {
    let filled = values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    let left =
        filled.lines().find(|line| !line.trim_start().starts_with('#') && line.contains('@'));
    // nftables writes `@established` for a flowtable of that name.
    let left = left.filter(|line| line.matches('@').count() > 1);
    ensure!(left.is_none(), "{} is filled in by half: {left:?}", path.display());
    fs::write(path, filled).with_context(|| format!("cannot write {}", path.display()))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_filled_in_completely() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("configuration");
        let value = |name| (name, "x".to_owned());
        write(&path, "a @A@ b @established\n# @B@ @C@\n", &[value("A")]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a x b @established\n# @B@ @C@\n");
        assert!(write(&path, "a @A@ @B@\n", &[value("A")]).is_err());
    }
}
