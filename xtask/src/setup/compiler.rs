//! The compiler for the BPF target and the linker that fits it.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::install::{Installer, has_apt, say};
use crate::{
    command,
    toolchain::{self, Kind, LINKED, Linker, TARGET, Toolchain},
};

/// Debian's compiler with its precompiled `core` for the BPF target.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Where Debian's compiler is.
const DEBIAN_SYSROOT: &str = "/usr";

/// How to get rustup's compiler for BPF, where rustup reaches its server.
const NIGHTLY: &str = "rustup toolchain install nightly --component rust-src";

/// What bpf-linker's build links besides LLVM itself.
const LINKER_LIBRARIES: [&str; 3] = ["zlib1g-dev", "libzstd-dev", "libxml2-dev"];

/// Makes sure of a compiler and a linker that fits it. `None`: the installer's list says what is
/// left to the user.
pub fn ensure(installer: &mut Installer) -> Result<Option<Toolchain>> {
    if let Ok((toolchain, _)) = toolchain::detect() {
        return Ok(Some(toolchain));
    }
    if toolchain::find_in_path("rustup", &[]).is_none() {
        bail!(
            "rustup is not in PATH: it chooses the compiler of the kernel programs (get it from https://rustup.rs)"
        );
    }
    // A compiler whose LLVM this system doesn't offer can't be given a linker: take the next.
    let installed = toolchain::candidates().into_iter();
    let usable = installed.into_iter().find(|found| installer.knows(&llvm_package(found.llvm)));
    let toolchain = match usable {
        Some(toolchain) => toolchain,
        None => match ensure_debian_compiler(installer)? {
            Some(toolchain) => toolchain,
            None => return Ok(None),
        },
    };
    ensure_linker(installer, &toolchain)?;
    Ok(Some(toolchain))
}

/// Installs Debian's compiler if need be and links it into rustup.
fn ensure_debian_compiler(installer: &mut Installer) -> Result<Option<Toolchain>> {
    let sysroot = Path::new(DEBIAN_SYSROOT);
    let complete = || {
        toolchain::has_precompiled_core(sysroot)
            && ["rustc", "cargo"].iter().all(|name| sysroot.join("bin").join(name).is_file())
    };
    if !complete() && !has_apt() {
        installer.todo(format!("{NIGHTLY}   # compiles for {TARGET}"));
        return Ok(None);
    }
    if !complete() {
        let why = format!("Rust compiler with a precompiled core for {TARGET}");
        let installed = installer.packages(&DEBIAN_COMPILER, &why).map_err(|error| {
            anyhow!(
                "{error:#}\nIf Debian's own rustc or rustup package is in the way, remove it; or \
                 have rustup's compiler used: {NIGHTLY}"
            )
        })?;
        if !installed {
            installer.todo(format!("rustup toolchain link {LINKED} {DEBIAN_SYSROOT}"));
            installer.todo(format!("(or, instead of these two: {NIGHTLY})"));
            return Ok(None);
        }
    }
    say(&format!("linking {DEBIAN_SYSROOT} as rustup toolchain {LINKED}: compiles for {TARGET}"));
    let mut link = Command::new("rustup");
    command::quietly(link.args(["toolchain", "link", LINKED, DEBIAN_SYSROOT]))?;
    let toolchain = toolchain::candidates().into_iter().find(|found| found.kind == Kind::Linked);
    let toolchain = toolchain.with_context(|| {
        format!("{DEBIAN_SYSROOT} is linked as {LINKED}, but can't compile for {TARGET}")
    })?;
    Ok(Some(toolchain))
}

/// Builds a bpf-linker against the LLVM that the compiler uses, unless there is one that fits.
fn ensure_linker(installer: &mut Installer, toolchain: &Toolchain) -> Result<()> {
    let fits = || Linker::find().is_some_and(|linker| linker.fits(toolchain));
    if fits() {
        return Ok(());
    }
    let (llvm, polly) = (llvm_package(toolchain.llvm), format!("libpolly-{}-dev", toolchain.llvm));
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install.args(["install", "bpf-linker", "--version", "^0.13", "--locked", "--force"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{}", toolchain.llvm)]);
    install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{}", toolchain.llvm));

    let packages: Vec<&str> = [llvm.as_str(), polly.as_str()]
        .into_iter()
        .chain(LINKER_LIBRARIES)
        .filter(|package| !is_installed(package))
        .collect();
    let why = format!("bpf-linker is built against the LLVM of {}", toolchain.name());
    if !packages.is_empty() && !installer.packages(&packages, &why)? {
        installer.todo(format!(
            "{}   # LLVM_PREFIX: where LLVM {} is",
            command::show(&install),
            toolchain.llvm
        ));
        return Ok(());
    }
    if fits() {
        // It was there and lacked its library only.
        return Ok(());
    }
    say(&format!(
        "building bpf-linker with LLVM {}: links what {} compiles (about a minute)",
        toolchain.llvm,
        toolchain.name()
    ));
    command::quietly(&mut install).context("cannot build bpf-linker")?;
    match Linker::find() {
        Some(linker) if linker.fits(toolchain) => Ok(()),
        Some(linker) => bail!(
            "{} is in PATH before the bpf-linker just built in {}, and doesn't fit (remove it)",
            linker.path.display(),
            toolchain::cargo_bin().unwrap_or_default().display()
        ),
        None => bail!("cargo install put bpf-linker where PATH doesn't lead"),
    }
}

/// Makes sure of clippy for the compiler.
pub fn ensure_clippy(installer: &mut Installer, toolchain: &Toolchain) -> Result<()> {
    if toolchain.sysroot.join("bin/clippy-driver").is_file() {
        return Ok(());
    }
    match toolchain.kind {
        Kind::Linked => {
            let why = "clippy for the kernel programs, of the compiler that compiles them";
            installer.packages(&["rust-web-clippy"], why)?;
        }
        Kind::Nightly => {
            say("adding clippy to rustup's nightly: it checks the kernel programs");
            let mut rustup = Command::new("rustup");
            command::quietly(rustup.args([
                "component",
                "add",
                "clippy",
                "--toolchain",
                "nightly",
            ]))?;
        }
    }
    Ok(())
}

/// Debian's package of an LLVM version's headers.
fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// Whether dpkg has a package installed.
fn is_installed(package: &str) -> bool {
    let mut dpkg = Command::new("dpkg-query");
    let status =
        command::quietly(dpkg.args(["--show", "--showformat=${db:Status-Status}\n", package]));
    status.is_ok_and(|status| status.lines().any(|line| line == "installed"))
}
