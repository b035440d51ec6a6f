//! The places of one daemon: several can run on one machine, each with its own.

use std::path::PathBuf;

/// Where state is if nobody says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/release";
/// Where the API socket is if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/release/release.sock";
/// Where maps and programs are pinned if nobody says otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/release";

/// The places of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Configuration: a file or a folder; `None` for the default ones, see
    /// [`Config::load`](crate::config::Config::load).
    pub config: Option<PathBuf>,
    /// Folder of the store.
    pub state_dir: PathBuf,
    /// API socket.
    pub socket: PathBuf,
    /// Folder of the pins.
    pub bpffs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            config: None,
            state_dir: DEFAULT_STATE_DIR.into(),
            socket: DEFAULT_SOCKET.into(),
            bpffs: DEFAULT_BPFFS.into(),
        }
    }
}
