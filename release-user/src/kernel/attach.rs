//! Attaching to interfaces by pinned links, which outlive the daemon.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};

use super::link::take_off;
use super::load::{Loaded, XDP, pin_error, program_error, xdp};
use super::{KernelError, chain};

/// Folder of pinned links.
pub const LINKS: &str = "links";

/// How the program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack, after the frame became a socket buffer.
    Generic,
}

impl XdpMode {
    /// As shown to people and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn aya(self) -> AyaMode {
        match self {
            Self::Native => AyaMode::Driver,
            Self::Generic => AyaMode::Skb,
        }
    }
}

/// What attaching did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The program of an earlier run was replaced without a gap.
    Replaced,
    /// The program is new on the interface.
    New(XdpMode),
}

/// Why attaching failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's XDP program is there.
    #[error("another XDP program is attached to it")]
    Occupied,
    /// Anything else.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The pinned links of a data plane.
pub struct Links {
    pub(super) folder: PathBuf,
}

impl Links {
    /// Links pinned under `bpffs`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(bpffs: &Path) -> Result<Self, KernelError> {
        let folder = bpffs.join(LINKS);
        fs::create_dir_all(&folder).map_err(|error| pin_error(&folder, &error))?;
        Ok(Self { folder })
    }

    /// Interfaces (by index) that have a pinned link.
    pub fn list(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<u32> =
            entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        found.sort_unstable();
        found
    }

    fn path(&self, ifindex: u32) -> PathBuf {
        self.folder.join(ifindex.to_string())
    }

    /// Attaches the program to an interface: by replacing the program of a link that is pinned, or
    /// by a new link in the first of `modes` that the interface takes.
    ///
    /// # Errors
    /// [`AttachError::Occupied`] if another program is there.
    pub fn attach(
        &self,
        loaded: &mut Loaded,
        ifindex: u32,
        modes: &[XdpMode],
    ) -> Result<Attachment, AttachError> {
        let program = xdp(&mut loaded.ebpf, XDP)?;
        let path = self.path(ifindex);
        if let Ok(pinned) = PinnedLink::from_pin(&path) {
            let link: XdpLink =
                FdLink::from(pinned).try_into().map_err(|e| program_error(XDP, &e))?;
            match program.attach_to_link(link) {
                // The pin keeps the link; our descriptor is not needed.
                Ok(id) => {
                    drop(program.take_link(id).map_err(|e| program_error(XDP, &e))?);
                    return Ok(Attachment::Replaced);
                }
                // The interface of this link is gone, the index was given to another.
                Err(error) if errno(&error) == Some(libc::ENOLINK) => {
                    log::debug!("link of interface {ifindex}: {}", chain(&error));
                }
                // The program that runs there goes on.
                Err(error) => return Err(program_error(XDP, &error).into()),
            }
            fs::remove_file(&path).map_err(|error| pin_error(&path, &error))?;
        }
        let mut last = None;
        for &mode in modes {
            match program.attach_to_if_index(ifindex, mode.aya()) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(|e| program_error(XDP, &e))?;
                    let link: FdLink = link.try_into().map_err(|e| program_error(XDP, &e))?;
                    link.pin(&path).map_err(|error| pin_error(&path, &error))?;
                    return Ok(Attachment::New(mode));
                }
                Err(error) => {
                    if occupied(&error) {
                        return Err(AttachError::Occupied);
                    }
                    last = Some(error);
                }
            }
        }
        Err(match last {
            Some(error) => program_error(XDP, &error).into(),
            None => KernelError::Program {
                name: XDP.to_owned(),
                why: "no mode to attach in".to_owned(),
            }
            .into(),
        })
    }

    /// Takes the programs off an interface.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn detach(&self, ifindex: u32) -> Result<(), KernelError> {
        self.detach_egress(ifindex)?;
        take_off(&self.path(ifindex))
    }
}

/// EBUSY: another program; EEXIST: a program attached by netlink in another mode.
fn occupied(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc::EBUSY | libc::EEXIST))
}

pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
