//! Loading the programs onto pinned maps, which are made if they are not there.

use std::fmt;
use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use aya::maps::{MapData, ProgramArray};
use aya::programs::{Program, ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use release_common::abi::stages;

use super::{KernelError, KernelLog, Maps, SPECS, chain, is_pinned, map_error};

/// The object that `build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/release"));

/// Name of the program on interfaces.
pub(super) const XDP: &str = "release_xdp";
/// Name of the program for what the host sends.
pub(super) const TC: &str = "release_tc";
/// Name of the program that says what would become of a packet.
pub(super) const EXPLAIN: &str = "release_explain";
/// Names of the programs that user space has remove entries: IPv4's and IPv6's.
pub(super) const REAP: [&str; 2] = ["release_reap", "release_reap6"];
/// Folder of pinned programs.
pub const PROGRAMS: &str = "programs";
/// Programs that are pinned: the others are held by the maps of stages.
pub(super) const MARK: [&str; 2] = ["release_mark", "release_mark6"];
const PINNED: [&str; 6] = [XDP, EXPLAIN, REAP[0], REAP[1], MARK[0], MARK[1]];

/// Sizes of the tables whose capacity the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Flows, in each address family.
    pub flows: u32,
    /// Embryos, in each address family.
    pub embryos: u32,
    /// Client sessions.
    pub sessions: u32,
    /// Translated sources, in each address family.
    pub snat: u32,
    /// Fragmented packets in transit, in each address family.
    pub fragments: u32,
}

impl Capacities {
    /// For tests and tools: these flows and embryos, little of everything else.
    pub const fn small(flows: u32, embryos: u32) -> Self {
        Self { flows, embryos, sessions: 1024, snat: 1024, fragments: 256 }
    }
}

/// What loading a program took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The program.
    pub name: String,
    /// Instructions that the verifier went through (0 before Linux 5.16).
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited: u32,
    /// How long the kernel took.
    pub time: Duration,
}

/// One line: `verifier: xdp4  12345 instructions   6789 bytes of code   12.3 ms`.
impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, instructions, jited, time } = self;
        let ms = time.as_secs_f64() * 1000.0;
        write!(
            f,
            "verifier: {name:<16} {instructions:>7} instructions {jited:>6} bytes of code {ms:>7.1} ms"
        )
    }
}

/// Programs just loaded.
pub struct Loaded {
    /// Owns the file descriptors; attaching goes through it.
    pub(super) ebpf: Ebpf,
    /// Whether the maps were made just now; if not, those of an earlier run were adopted.
    pub created: bool,
    /// Records of the kernel programs' log.
    pub log: Option<KernelLog>,
    /// What loading each program took.
    pub verified: Vec<Verified>,
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
pub fn load(bpffs: &Path, capacities: Capacities, log_level: u8) -> Result<Loaded, KernelError> {
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
    for family in ["4", "6"] {
        loader
            .map_max_entries(sized("FLOWS", family), capacities.flows)
            .map_max_entries(sized("EMBRYOS", family), capacities.embryos)
            .map_max_entries(sized("SNAT", family), capacities.snat)
            .map_max_entries(sized("FRAGMENTS", family), capacities.fragments);
    }
    let mut ebpf = loader
        .map_max_entries("SESSIONS", capacities.sessions)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(OBJECT)
        .map_err(|error| program_error("release", &error))?;
    let verified = verify(&mut ebpf)?;
    link_stages(&mut ebpf, bpffs)?;
    for name in PINNED {
        let program = xdp(&mut ebpf, name)?;
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
    Ok(Loaded { ebpf, created, log, verified })
}

/// Name of a table that the configuration sizes.
fn sized(table: &str, family: &str) -> &'static str {
    let wanted = [table, family].concat();
    SPECS.iter().map(|spec| spec.name).find(|name| *name == wanted).unwrap_or_default()
}

/// Loads every program of the object.
fn verify(ebpf: &mut Ebpf) -> Result<Vec<Verified>, KernelError> {
    // A program keeps the verifier busy for up to a second, and one CPU verifies one at a time.
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let queue = Mutex::new(ebpf.programs_mut());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut verified = Vec::new();
        while let Some((name, program)) = next() {
            verified.push(verify_one(name, program)?);
        }
        Ok(verified)
    };
    let all: Result<Vec<Vec<Verified>>, KernelError> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |thread: ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut verified = all?.concat();
    verified.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(verified)
}

/// Loads a program.
fn verify_one(name: &str, program: &mut Program) -> Result<Verified, KernelError> {
    let begin = Instant::now();
    let info: Result<ProgramInfo, ProgramError> = match program {
        Program::Xdp(program) => program.load().and_then(|()| program.info()),
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let time = begin.elapsed();
    let info = info.map_err(|error| program_error(name, &error))?;
    Ok(Verified {
        name: name.to_owned(),
        instructions: info.verified_instruction_count().unwrap_or(0),
        jited: info.size_jitted(),
        time,
    })
}

/// Puts the stages' programs in their places. Each load has maps of its own for them, pinned under
/// the id of its entry point: a packet never goes on in a program of another build, and the kernel
/// empties such a map when nobody holds it any more.
fn link_stages(ebpf: &mut Ebpf, bpffs: &Path) -> Result<(), KernelError> {
    let id = xdp(ebpf, XDP)?.info().map_err(|error| program_error(XDP, &error))?.id();
    let mut places = Vec::new();
    for (run, prefix) in (0..).zip(stages::RUNS) {
        for (family, version) in [4, 6].into_iter().enumerate() {
            for (stage, name) in (1..).zip(stages::NAMES) {
                let place = stages::place(run, family, stage);
                places.push(("PROGRAMS", place, format!("{prefix}{version}_{name}")));
                if run == 0 && stages::TC.contains(&name) {
                    places.push(("TC_PROGRAMS", place, format!("tc{version}_{name}")));
                }
            }
        }
    }
    for map in ["PROGRAMS", "TC_PROGRAMS"] {
        let taken = ebpf.take_map(map).ok_or_else(|| absent(map))?;
        let mut array: ProgramArray<MapData> = taken.try_into().map_err(map_error(map))?;
        for (_, place, name) in places.iter().filter(|(of, _, _)| *of == map) {
            let fd = program_fd(ebpf, name)?;
            array.set(*place, &fd, 0).map_err(map_error(map))?;
        }
        let path = bpffs.join(PROGRAMS).join(format!("{map}_{id}"));
        array.pin(&path).map_err(|error| pin_error(&path, &error))?;
    }
    Ok(())
}

fn program_fd(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd, KernelError> {
    let fd = match xdp(ebpf, name) {
        Ok(program) => program.fd().and_then(|fd| Ok(fd.try_clone()?)),
        Err(_) => classifier(ebpf, name)?.fd().and_then(|fd| Ok(fd.try_clone()?)),
    };
    fd.map_err(|error| program_error(name, &error))
}

/// Lets go of the stages of earlier loads. For when no interface runs their entry points any more,
/// and a packet that was under way has arrived.
///
/// # Errors
/// If a pin cannot be removed.
pub fn retire_stages(bpffs: &Path, keep: u32) -> Result<(), KernelError> {
    let folder = bpffs.join(PROGRAMS);
    let entries = fs::read_dir(&folder).map_err(|error| pin_error(&folder, &error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.split_once("PROGRAMS_")?.1.parse::<u32>().ok());
        if id.is_some_and(|id| id != keep) {
            fs::remove_file(entry.path()).map_err(|error| pin_error(&entry.path(), &error))?;
        }
    }
    Ok(())
}

impl Loaded {
    /// Kernel's id of the packet program, by which it is known among those of others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn program_id(&self) -> Result<u32, KernelError> {
        self.id_of(XDP)
    }

    /// The same of the program for what this host sends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn egress_id(&self) -> Result<u32, KernelError> {
        self.id_of(TC)
    }

    fn id_of(&self, name: &str) -> Result<u32, KernelError> {
        let program = self.ebpf.program(name).ok_or_else(|| absent(name))?;
        Ok(program.info().map_err(|error| program_error(name, &error))?.id())
    }
}

pub(super) fn absent(name: &str) -> KernelError {
    KernelError::Program { name: name.to_owned(), why: "is not in the object".to_owned() }
}

/// One of the programs.
pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error: ProgramError| program_error(name, &error))
}

/// One of the TC programs.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    ebpf.program_mut(name)
        .ok_or_else(|| absent(name))?
        .try_into()
        .map_err(|error: ProgramError| program_error(name, &error))
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
