//! Compiles the kernel programs (`release-ebpf`) into `OUT_DIR/release`, so that plain
//! `cargo build` yields a complete binary.

use std::env;

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

// The rule which compiler and linker will do exists once, and `cargo xtask setup` applies it.
#[path = "../xtask/src/toolchain.rs"]
#[expect(dead_code, reason = "set-up needs more of this file than the build")]
mod toolchain;

fn main() -> Result<()> {
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
    for path in
        ["../release-ebpf", "../release-common", "../Cargo.lock", "../xtask/src/toolchain.rs"]
    {
        println!("cargo::rerun-if-changed={path}");
    }
    // An upgraded compiler or linker makes other programs of the same sources.
    println!("cargo::rerun-if-changed={}", found.sysroot.join("bin/rustc").display());
    println!("cargo::rerun-if-changed={}", linker.path.display());

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
    let package =
        Package { name: "release-ebpf", root_dir: "../release-ebpf", ..Package::default() };
    aya_build::build_ebpf([package], toolchain).context("cannot compile the kernel programs")
}
