//! The guest's whole file system: busybox, the programs with their libraries, kernel modules.
//!
//! The programs are the ordinary ones, linked to this machine's libraries, and these come along. A
//! second, static build of the workspace would cost minutes and test other binaries than those
//! that are shipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{binaries, cpio::Archive, modules::Module, plan};
use crate::libraries;

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Folders of the dynamic linker; the kernel is told of no other.
const LIBRARIES: &str = "/lib";

/// Names under which busybox is found in `PATH`, for tests that run such programs.
const APPLETS: [&str; 6] = ["sh", "cat", "sleep", "sysctl", "true", "false"];

/// What is the same for every kernel.
#[derive(Debug)]
pub struct Userland {
    /// Paths in the guest and contents.
    files: BTreeMap<String, Vec<u8>>,
}

impl Userland {
    /// Collects `programs` (for `/tests`), the tools, and the libraries of both.
    ///
    /// # Errors
    /// If one is missing or can't be read.
    pub fn collect(
        programs: &BTreeMap<String, PathBuf>,
        busybox: &Path,
        scratch: &Path,
    ) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut needed = BTreeSet::new();
        for (name, path) in programs {
            needed.extend(libraries::of(path, &[])?);
            files.insert(format!("/tests/{name}"), binaries::stripped(path, scratch)?);
        }
        for name in plan::TOOLS {
            let path = binaries::tool(name)?;
            needed.extend(libraries::of(&path, &[])?);
            files.insert(format!("/sbin/{name}"), read(&path)?);
        }
        for library in needed {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Programs name the dynamic linker by its full path, libraries by their name alone.
            let place = if name.starts_with("ld-linux") {
                library.to_string_lossy().into_owned()
            } else {
                format!("{LIBRARIES}/{name}")
            };
            files.insert(place, read(&library)?);
        }
        files.insert("/bin/busybox".to_owned(), read(busybox)?);
        files.insert("/init".to_owned(), INIT.as_bytes().to_vec());
        Ok(Self { files })
    }

    /// The archive for one kernel.
    #[must_use]
    pub fn archive(&self, modules: &[Module], steps: &str) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.console();
        for folder in ["/proc", "/sys", "/tmp", "/run"] {
            archive.folder(folder);
        }
        for (path, content) in &self.files {
            archive.file(path, content);
        }
        for applet in APPLETS {
            archive.link(&format!("/bin/{applet}"), "busybox");
        }
        let mut order = String::new();
        for module in modules {
            let path = format!("/modules/{}.ko", module.name);
            archive.file(&path, &module.content);
            order += &format!("{path}\n");
        }
        archive.file("/modules/order", order.as_bytes());
        archive.file("/steps", steps.as_bytes());
        archive.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
