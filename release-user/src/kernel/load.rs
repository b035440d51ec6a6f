//! Loading the programs onto pinned maps, which are made if they are not there.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;

use super::{KernelError, KernelLog, Maps, SPECS, chain, is_pinned};

/// The object that `build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/release"));

/// Name of the program on interfaces.
pub(super) const XDP: &str = "release_xdp";
/// Name of the program that user space runs.
pub(super) const REAP: &str = "release_reap";
/// Folder of pinned programs.
pub const PROGRAMS: &str = "programs";

/// Programs just loaded.
pub struct Loaded {
    /// Owns the file descriptors; attaching goes through it.
    pub(super) ebpf: Ebpf,
    /// Whether the maps were made just now; if not, those of an earlier run were adopted.
    pub created: bool,
    /// Records of the kernel programs' log.
    pub log: Option<KernelLog>,
}

/// Removes the maps of a first start that was cut short before anything used them: some may be
/// missing, and none says for which configuration it was made.
///
/// # Errors
/// If a pin cannot be removed.
pub fn discard_unfinished(bpffs: &Path) -> Result<(), KernelError> {
    if is_pinned(bpffs) {
        return Ok(());
    }
    for spec in SPECS {
        let path = bpffs.join(spec.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(pin_error(&path, &error));
            }
            Ok(()) => log::warn!("{}: left by a start that was cut short, removed", path.display()),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Loads the programs onto the maps pinned under `bpffs`, and pins programs there too.
///
/// `log_level` is the kernel programs' (0 off to 5 trace).
///
/// # Errors
/// [`KernelError::Incompatible`] if what is pinned does not fit; nothing is changed then.
pub fn load(
    bpffs: &Path,
    flow_capacity: u32,
    embryo_capacity: u32,
    log_level: u8,
) -> Result<Loaded, KernelError> {
    let created = match Maps::open(bpffs) {
        Ok(_) => false,
        Err(KernelError::Absent { .. }) => true,
        Err(other) => return Err(other),
    };
    fs::create_dir_all(bpffs.join(PROGRAMS)).map_err(|error| pin_error(bpffs, &error))?;
    let pins: Vec<(&str, PathBuf)> =
        SPECS.iter().map(|spec| (spec.name, bpffs.join(spec.name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &pins {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader
        .map_max_entries("FLOWS4", flow_capacity)
        .map_max_entries("EMBRYOS4", embryo_capacity)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(OBJECT)
        .map_err(|error| program_error("release", &error))?;
    for name in [XDP, REAP] {
        let program = xdp(&mut ebpf, name)?;
        program.load().map_err(|error| program_error(name, &error))?;
        // Aside, then in place: a reader finds the old program or the new one.
        let (aside, place) =
            (bpffs.join(PROGRAMS).join(format!("{name}_new")), bpffs.join(PROGRAMS).join(name));
        let _ = fs::remove_file(&aside);
        program.pin(&aside).map_err(|error| pin_error(&aside, &error))?;
        fs::rename(&aside, &place).map_err(|error| pin_error(&place, &error))?;
    }
    let log = if log_level == 0 {
        None
    } else {
        let logger = EbpfLogger::init(&mut ebpf).map_err(|error| program_error("log", &error))?;
        Some(KernelLog(logger))
    };
    Ok(Loaded { ebpf, created, log })
}

impl Loaded {
    /// Kernel's id of the packet program, by which it is known among those of others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn program_id(&self) -> Result<u32, KernelError> {
        let program = self.ebpf.program(XDP).ok_or_else(|| absent(XDP))?;
        Ok(program.info().map_err(|error| program_error(XDP, &error))?.id())
    }
}

fn absent(name: &str) -> KernelError {
    KernelError::Program { name: name.to_owned(), why: "is not in the object".to_owned() }
}

/// One of the programs.
pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error: aya::programs::ProgramError| program_error(name, &error))
}

/// Name of a loaded program, ours or not.
pub fn program_name(id: u32) -> Option<String> {
    aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(ToOwned::to_owned))
}

pub(super) fn program_error(name: &str, error: &dyn std::error::Error) -> KernelError {
    let why = chain(error);
    // The verifier's log is long; its end says why.
    let tail = why.len().saturating_sub(4000);
    let tail = (tail..why.len()).find(|&at| why.is_char_boundary(at)).unwrap_or(0);
    KernelError::Program { name: name.to_owned(), why: why[tail..].to_owned() }
}

pub(super) fn pin_error(path: &Path, error: &dyn std::error::Error) -> KernelError {
    KernelError::Pin { path: path.to_owned(), why: chain(error) }
}
