//! Which Rust compiler and which linker build the kernel programs.
//!
//! The one place of this rule. `xtask` uses it as a module; `release-ebpf/compile.rs`, which
//! build scripts use, includes the same file by `#[path]`, so that set-up and build can never
//! disagree about what is good enough. Hence: std only, and nothing here prints or installs.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Name under which set-up links Debian's compiler into rustup.
pub const LINKED: &str = "release-bpf";

/// The target that the kernel programs are compiled for: BPF in the host's byte order.
pub const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Value of `RUSTC_BOOTSTRAP` for a compiler that is not a nightly: the crates that may use
/// unstable features (BPF inline assembly, mostly). `release` is the binary of `release-ebpf`,
/// `wire` that of `tests/ebpf`. Naming crates, rather than `1`, also keeps aya-build from asking for `-Z build-std`.
pub const BOOTSTRAP: &str = "aya_ebpf,release,release_ebpf,release_common,wire";

/// Oldest bpf-linker that is good enough, as (major, minor).
const LINKER_VERSION: (u32, u32) = (0, 13);

/// How much of an executable is searched for its shared libraries' names: linkers place them near
/// the start, and a statically linked bpf-linker has more than 100 MB.
const NAMES_WITHIN: u64 = 4 << 20;

/// Where the compiler's `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// rustup's `nightly` with `rust-src`: `core` is compiled along (`-Z build-std`).
    Nightly,
    /// A toolchain linked as [`LINKED`] that ships `core` precompiled.
    Linked,
}

/// A compiler that can build for [`TARGET`].
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where its `core` comes from.
    pub kind: Kind,
    /// Its installation folder, as rustc tells it.
    pub sysroot: PathBuf,
    /// Major version of the LLVM it writes bitcode with.
    pub llvm: u32,
}

impl Toolchain {
    /// Its name, as `rustup run` wants it.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Nightly => "nightly",
            Kind::Linked => LINKED,
        }
    }

    /// The installed toolchain of this kind, if it can really compile for BPF. A nightly without
    /// `rust-src` can't.
    fn probe(kind: Kind) -> Option<Self> {
        let name = match kind {
            Kind::Nightly => "nightly",
            Kind::Linked => LINKED,
        };
        let sysroot = PathBuf::from(rustc(name, &["--print", "sysroot"])?.trim());
        let able = match kind {
            Kind::Nightly => sysroot.join("lib/rustlib/src/rust/library/core").is_dir(),
            Kind::Linked => has_precompiled_core(&sysroot),
        };
        if !able {
            return None;
        }
        let llvm = llvm_of_rustc(&rustc(name, &["--version", "--verbose"])?)?;
        Some(Self { kind, sysroot, llvm })
    }
}

/// All installed compilers that can build for BPF, the preferred one first.
pub fn candidates() -> Vec<Toolchain> {
    [Kind::Nightly, Kind::Linked].into_iter().filter_map(Toolchain::probe).collect()
}

/// Whether the toolchain in `sysroot` ships `core` for [`TARGET`].
pub fn has_precompiled_core(sysroot: &Path) -> bool {
    let Ok(entries) = fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// An installed bpf-linker.
#[derive(Clone, Debug)]
pub struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// Major and minor version; `None` if it doesn't run.
    pub version: Option<(u32, u32)>,
    /// Major version of the LLVM it is linked to; `None` if it carries its own.
    pub llvm: Option<u32>,
}

impl Linker {
    /// The bpf-linker that rustc will run, fit or not.
    pub fn find() -> Option<Self> {
        let path = find_in_path("bpf-linker", &[])?;
        let version = stdout(Command::new(&path).arg("--version")).and_then(|out| version_in(&out));
        let llvm = llvm_of_executable(&path);
        Some(Self { path, version, llvm })
    }

    /// Whether it can link what `toolchain` compiles. LLVM reads the bitcode of its own and of
    /// older versions. One that carries its own LLVM is trusted: those published are built with
    /// the newest, and one that is too old fails the build with its own clear message.
    pub fn fits(&self, toolchain: &Toolchain) -> bool {
        self.version.is_some_and(|version| version >= LINKER_VERSION)
            && self.llvm.is_none_or(|llvm| llvm >= toolchain.llvm)
    }
}

/// The compiler and the linker to use: the preferred compiler that the installed linker fits.
///
/// # Errors
/// What is missing, as a noun phrase.
pub fn detect() -> Result<(Toolchain, Linker), String> {
    let candidates = candidates();
    let Some(first) = candidates.first() else {
        return Err(format!(
            "no Rust compiler for {TARGET} (neither a nightly with rust-src nor a toolchain {LINKED})"
        ));
    };
    let Some(linker) = Linker::find() else {
        return Err("no bpf-linker in PATH".to_owned());
    };
    let unfit = format!(
        "no fitting bpf-linker: {} has version {}, LLVM {}; needed: {}.{} or later, LLVM {} or later",
        linker.path.display(),
        linker.version.map_or("unknown".to_owned(), |(major, minor)| format!("{major}.{minor}")),
        linker.llvm.map_or("of its own".to_owned(), |llvm| llvm.to_string()),
        LINKER_VERSION.0,
        LINKER_VERSION.1,
        first.llvm,
    );
    let toolchain = candidates.into_iter().find(|candidate| linker.fits(candidate));
    toolchain.map(|toolchain| (toolchain, linker)).ok_or(unfit)
}

/// The first executable called `name` in `PATH`, then in `more`. Cargo's own folder counts as the
/// start of `PATH`: rustup puts it there for every program that it runs.
pub fn find_in_path(name: impl AsRef<OsStr>, more: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    if let Some(bin) = cargo_bin().filter(|bin| !folders.contains(bin)) {
        folders.insert(0, bin);
    }
    folders.extend(more.iter().map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name.as_ref())).find(|file| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// The folder where `cargo install` puts executables.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).map(|home| home.join("bin"))
}

/// Output of the rustc of a rustup toolchain; `None` if there is none such. Never lets rustup
/// download the toolchain instead.
fn rustc(toolchain: &str, args: &[&str]) -> Option<String> {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", toolchain, "rustc"]).args(args).env("RUSTUP_AUTO_INSTALL", "0");
    stdout(&mut rustup)
}

/// A command's output, if it succeeds.
fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// LLVM's major version in `rustc -vV`.
fn llvm_of_rustc(verbose: &str) -> Option<u32> {
    let version = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// "bpf-linker 0.13.0" → (0, 13)
fn version_in(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Major version of the shared libLLVM that an executable asks for.
fn llvm_of_executable(path: &Path) -> Option<u32> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(NAMES_WITHIN).read_to_end(&mut start).ok()?;
    llvm_in_names(&start)
}

/// Finds `libLLVM.so.NN…` (since LLVM 19) or `libLLVM-NN.so` among names that end with a zero.
fn llvm_in_names(bytes: &[u8]) -> Option<u32> {
    let lib = b"libLLVM";
    bytes.windows(lib.len()).enumerate().filter(|(_, window)| window == lib).find_map(|(at, _)| {
        let rest = bytes.get(at + lib.len()..)?;
        let rest = rest.strip_prefix(b".so.").or_else(|| rest.strip_prefix(b"-"))?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(llvm: u32) -> Toolchain {
        Toolchain { kind: Kind::Nightly, sysroot: PathBuf::new(), llvm }
    }

    fn linker(version: Option<(u32, u32)>, llvm: Option<u32>) -> Linker {
        Linker { path: PathBuf::new(), version, llvm }
    }

    #[test]
    fn reads_versions() {
        assert_eq!(llvm_of_rustc("rustc 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of_rustc("rustc 1.96.0\n"), None);
        assert_eq!(version_in("bpf-linker 0.13.0\n"), Some((0, 13)));
        assert_eq!(version_in("bpf-linker\n"), None);
    }

    #[test]
    fn reads_the_shared_library() {
        assert_eq!(llvm_in_names(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(llvm_in_names(b"\0libLLVM-17.so\0"), Some(17));
        assert_eq!(llvm_in_names(b"unable to find library -lLLVM\0libLLVM\0"), None);
        assert_eq!(llvm_in_names(b"libLLVM.so."), None);
        assert_eq!(llvm_in_names(b""), None);
    }

    #[test]
    fn a_linker_must_run_be_new_enough_and_read_the_bitcode() {
        assert!(linker(Some((0, 13)), Some(22)).fits(&toolchain(22)));
        assert!(linker(Some((1, 0)), Some(23)).fits(&toolchain(22)));
        assert!(linker(Some((0, 13)), None).fits(&toolchain(22)));
        assert!(!linker(Some((0, 13)), Some(21)).fits(&toolchain(22)));
        assert!(!linker(Some((0, 12)), Some(22)).fits(&toolchain(22)));
        assert!(!linker(None, Some(22)).fits(&toolchain(22)), "a linker that doesn't run");
    }
}
