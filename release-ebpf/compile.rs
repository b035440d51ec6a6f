//! How a build script compiles a crate of kernel programs. `release-user/build.rs` and
//! `tests/build.rs` include this file by `#[path]`.

use std::{env, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

// The rule which compiler and linker will do exists once, and `cargo xtask setup` applies it.
#[path = "../xtask/src/toolchain.rs"]
#[expect(dead_code, reason = "set-up needs more of this file than the build")]
mod toolchain;

/// Compiles the binaries of the package `name` in `folder` into `OUT_DIR`. `sources`: what else
/// they are made of.
///
/// # Errors
/// What the compiler says. A missing compiler or linker is reported to cargo instead.
pub fn compile(name: &str, folder: &str, sources: &[&str]) -> Result<()> {
    let (found, linker) = match toolchain::detect() {
        Ok(found) => found,
        Err(missing) => {
            // Cargo's own way to fail with nothing but this line.
            println!(
                "cargo::error=cannot compile the kernel programs: {missing} (run `cargo xtask setup`)"
            );
            return Ok(());
        }
    };
    let rules = [
        "../release-ebpf/compile.rs",
        "../xtask/src/toolchain.rs",
        "../Cargo.lock",
        "../Cargo.toml",
    ];
    for path in rules.iter().chain(sources).chain([&folder]) {
        println!("cargo::rerun-if-changed={path}");
    }
    // An upgraded compiler or linker makes other programs of the same sources.
    let compiler = found.sysroot.join("bin/rustc");
    for program in [&*compiler, &*linker.path] as [&Path; 2] {
        println!("cargo::rerun-if-changed={}", program.display());
    }

    let toolchain = match found.kind {
        toolchain::Kind::Nightly => Toolchain::Nightly,
        toolchain::Kind::Linked => Toolchain::Custom(toolchain::LINKED),
    };
    // SAFETY: this is the process's only thread; aya-build starts one later.
    unsafe {
        // aya-build turns each line of the inner cargo into a warning: keep its progress out.
        env::set_var("CARGO_TERM_QUIET", "true");
        if found.kind == toolchain::Kind::Linked {
            env::set_var("RUSTC_BOOTSTRAP", toolchain::BOOTSTRAP);
        }
    }
    let package = Package { name, root_dir: folder, ..Package::default() };
    aya_build::build_ebpf([package], toolchain).context("cannot compile the kernel programs")
}
