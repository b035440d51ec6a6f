//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::command;

/// Chooses the crates of the host: everything but the kernel programs, which compile for BPF only.
pub const HOST: [&str; 5] =
    ["--workspace", "--exclude", "release-ebpf", "--exclude", "release-tests-ebpf"];

/// Chooses the crates that are compiled for BPF.
pub const BPF: [&str; 6] =
    ["-p", "release-ebpf", "-p", "release-common", "-p", "release-tests-ebpf"];

/// The workspace's root folder.
pub fn root() -> PathBuf {
    // Asked at run time, as `cargo run` tells it: the folder may have been moved since compiling.
    let xtask = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let xtask = xtask.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// What cargo builds into.
///
/// # Errors
/// If cargo doesn't say.
pub fn target_dir() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut cargo = command::cargo("metadata");
    let json = command::quietly(cargo.args(["--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
    Ok(metadata.target_directory)
}

/// Path of one of the workspace's programs in the release or the dev profile.
///
/// # Errors
/// If cargo doesn't say where it builds.
pub fn binary(name: &str, release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    Ok(target_dir()?.join(profile).join(name))
}
