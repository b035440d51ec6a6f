//! A pin directory of our own below /sys/fs/bpf.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

const ROOT: &str = "/sys/fs/bpf";
const ABOVE: &str = "/sys/fs";

/// A unique directory on bpffs, removed with all its pins when dropped.
#[derive(Debug)]
pub struct PinDirectory(PathBuf);

impl PinDirectory {
    /// Makes the directory; mounts bpffs first if nobody has.
    ///
    /// # Errors
    /// No root, or a kernel without bpffs.
    pub fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        mount_once()?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(ROOT).join(format!("release-test-{}-{number}", process::id()));
        if path.exists() {
            // A killed run with our pid left it; programs that are still attached stay so.
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A second mount on top would hide the pins of others, so look and mount under a lock.
fn mount_once() -> Result<()> {
    // The folder above: it is there, and locking it leaves no file behind.
    let above = File::open(ABOVE).with_context(|| format!("no {ABOVE}"))?;
    let _locked = Flock::lock(above, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow!("cannot lock {ABOVE}: {error}"))?;
    if statfs(ROOT).with_context(|| format!("no {ROOT}"))?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), ROOT, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs on {ROOT} (this needs root)"))
}
