//! Attaching to what an interface sends: by pinned tcx links (Linux 6.6), or by filters of the
//! `clsact` queueing discipline, which cannot be pinned and stay until they are removed.

use std::fs;
use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use aya::util::KernelVersion;

use super::attach::{Links, errno};
use super::link::take_off;
use super::load::{Loaded, TC, classifier, pin_error, program_error};
use super::{KernelError, chain};

/// Priority of our filter, and its two handles: a new one is there before the old one goes.
const PRIORITY: u16 = 49_000;
const HANDLES: [u32; 2] = [1, 2];

impl Links {
    fn egress_path(&self, ifindex: u32) -> PathBuf {
        self.folder.join(format!("egress-{ifindex}"))
    }

    /// Attaches the program for what the host sends to an interface, in place of that of an
    /// earlier run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach_egress(
        &self,
        loaded: &mut Loaded,
        ifindex: u32,
        name: &str,
    ) -> Result<(), KernelError> {
        if !has_tcx() {
            return attach_filter(loaded, name);
        }
        let program = classifier(&mut loaded.ebpf, TC)?;
        let failed = |error: ProgramError| program_error(TC, &error);
        let path = self.egress_path(ifindex);
        if let Ok(pinned) = PinnedLink::from_pin(&path) {
            let link: SchedClassifierLink =
                FdLink::from(pinned).try_into().map_err(|e| program_error(TC, &e))?;
            match program.attach_to_link(link) {
                // The pin keeps the link; our descriptor is not needed.
                Ok(id) => return program.take_link(id).map(drop).map_err(failed),
                // The interface of this link is gone, the index was given to another.
                Err(error) if errno(&error) == Some(libc::ENOLINK) => {
                    log::debug!("egress link of interface {ifindex}: {}", chain(&error));
                }
                Err(error) => return Err(failed(error)),
            }
            fs::remove_file(&path).map_err(|error| pin_error(&path, &error))?;
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id =
            program.attach_with_options(name, TcAttachType::Egress, options).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        let link: FdLink = link.try_into().map_err(|e| program_error(TC, &e))?;
        link.pin(&path).map_err(|error| pin_error(&path, &error))?;
        Ok(())
    }

    /// Takes the program for what the host sends off an interface.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn detach_egress(&self, ifindex: u32) -> Result<(), KernelError> {
        if !has_tcx() {
            // An interface that is gone took its filters along.
            if let Ok(name) = nix::net::if_::if_indextoname(ifindex)
                && let Ok(name) = name.to_str()
            {
                HANDLES.iter().for_each(|&handle| remove_filter(name, handle));
            }
            return Ok(());
        }
        take_off(&self.egress_path(ifindex))
    }
}

/// Whether a program (by its id) is on what an interface sends. Always so where that cannot be asked
/// for: before Linux 6.6.
pub fn sends_through(name: &str, program: u32) -> bool {
    let queried = || SchedClassifier::query_tcx(name, TcAttachType::Egress);
    !has_tcx()
        || queried().is_ok_and(|(_, programs)| programs.iter().any(|found| found.id() == program))
}

/// Whether this kernel has tcx links (Linux 6.6).
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Attaches by netlink: the new filter first, then the old one goes.
fn attach_filter(loaded: &mut Loaded, name: &str) -> Result<(), KernelError> {
    let program = classifier(&mut loaded.ebpf, TC)?;
    match qdisc_add_clsact(name) {
        Err(TcError::AlreadyAttached) | Ok(()) => {}
        Err(error) => return Err(program_error(TC, &error)),
    }
    let mut last = None;
    for (new, old) in [(HANDLES[0], HANDLES[1]), (HANDLES[1], HANDLES[0])] {
        let options = NlOptions { priority: PRIORITY, handle: new.into(), ..NlOptions::default() };
        let options = TcAttachOptions::Netlink(options);
        match program.attach_with_options(name, TcAttachType::Egress, options) {
            Ok(id) => {
                let link = program.take_link(id).map_err(|error| program_error(TC, &error))?;
                // Dropping it would detach the program.
                std::mem::forget(link);
                remove_filter(name, old);
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => program_error(TC, &error),
        None => KernelError::Program { name: TC.to_owned(), why: "no handle is free".to_owned() },
    })
}

/// Removes our filter with this handle, if it is there.
fn remove_filter(name: &str, handle: u32) {
    // Dropping the link detaches it.
    drop(SchedClassifierLink::attached(name, TcAttachType::Egress, PRIORITY, handle.into(), None));
}
