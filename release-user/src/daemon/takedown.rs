//! Taking the data plane down, with the daemon or without.

use std::fs;
use std::path::Path;

use super::checks;
use super::core::Daemon;
use super::host::FOUND;
use crate::api::types::{ApiError, ErrorCode};
use crate::kernel::{LINKS, Links, PROGRAMS, SPECS};
use crate::net::sysctl::{self, Found};
use crate::paths::Paths;
use crate::store::{SqliteStore, Store};

impl Daemon {
    /// Takes programs and maps down and puts the host's settings back. The state stays: it says
    /// where traffic goes when the daemon is started again.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub async fn take_down(&self) -> Result<(), ApiError> {
        let mut core = self.core.lock().await;
        for ifindex in core.links.list() {
            core.links.detach(ifindex)?;
        }
        remove_pins(&self.paths.bpffs)?;
        core.restore_found()?;
        core.down = true;
        self.events.publish("detach", None, None, "the data plane was taken down".to_owned());
        Ok(())
    }
}

/// Takes the data plane down without a daemon. Returns what was taken down, in words.
///
/// # Errors
/// Conflict if a daemon holds the state folder after all, usage without root, or the pins'.
pub fn detach_offline(paths: &Paths) -> Result<Vec<String>, ApiError> {
    checks::host(&paths.bpffs)?;
    let mut done = Vec::new();
    if paths.bpffs.exists() {
        let _lock = checks::lock_pins(&paths.bpffs)?;
        let links = Links::open(&paths.bpffs)?;
        for ifindex in links.list() {
            links.detach(ifindex)?;
            done.push(format!("program taken off interface {ifindex}"));
        }
        remove_pins(&paths.bpffs)?;
        done.push(format!("pins removed from {}", paths.bpffs.display()));
    }
    if paths.state_dir.join("state.db").exists() {
        let _lock = checks::lock(&paths.state_dir)?;
        let mut store = SqliteStore::open(&paths.state_dir)?;
        if let Some(text) = store.note(FOUND)? {
            let found: Found = serde_json::from_str(&text).unwrap_or_default();
            sysctl::restore(&found);
            store.set_note(FOUND, None)?;
            done.push(format!("{} kernel settings put back", found.len()));
        }
    }
    Ok(done)
}

/// Removes what is ours and nothing else. META goes first: what a kill leaves behind is then taken
/// for a start that was cut short.
fn remove_pins(bpffs: &Path) -> Result<(), ApiError> {
    let gone = |path: &Path, result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ApiError::new(ErrorCode::Internal, format!("pin {}: {error}", path.display())))
        }
        _ => Ok(()),
    };
    for name in std::iter::once("META").chain(SPECS.iter().map(|spec| spec.name)) {
        let path = bpffs.join(name);
        gone(&path, fs::remove_file(&path))?;
    }
    for folder in [LINKS, PROGRAMS] {
        let path = bpffs.join(folder);
        gone(&path, fs::remove_dir_all(&path))?;
    }
    // Somebody else's pins beside ours keep the folder.
    let _ = fs::remove_dir(bpffs);
    Ok(())
}
