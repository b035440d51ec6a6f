//! `cargo xtask vm`: the tests that other kernels decide, on those kernels.
//!
//! ```text
//! packages → QEMU, busybox      programs and tools → initramfs ─┐
//!          → kernel, modules ───────────────────────────────────┴→ guest → console → verdict
//! ```

mod binaries;
mod console;
mod cpio;
mod initramfs;
mod kernels;
mod modules;
mod plan;
mod qemu;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use initramfs::Userland;
use kernels::Series;
use qemu::{Guest, Qemu};

use crate::{apt, setup, workspace};

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A series of kernels, such as 6.12 [default: all from 6.1 on that the package sources offer]
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<Series>,
    /// Seconds that one kernel may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Make a fault on purpose instead of running the tests: the command must fail
    #[arg(long, value_enum)]
    fault: Option<plan::Fault>,
}

const MACHINE: &str = "the virtual machine";
/// What it is made of.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "seabios", "busybox-static"];

/// Boots each kernel and runs the tests on it; all of them, before a failure is told.
///
/// # Errors
/// If something is missing, or a kernel didn't run all the tests well.
pub fn run(args: &Args) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the virtual machine runs this machine's own binaries, and is made for x86_64 only");
    }
    setup::ensure(&setup::BUILD)?;
    let cache = workspace::target_dir()?.join("vm-cache");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another `cargo xtask vm`");
        lock.lock()?;
    }

    let tools = tools(&cache)?;
    let releases = kernels(&cache, &args.kernel)?;
    say("building the tests");
    let programs = binaries::build(plan::TESTS)?;
    let busybox = tools.join("bin/busybox");
    let userland = Userland::collect(&programs, &busybox, &cache.join("scratch"))?;
    let steps = plan::Steps::new(plan::TESTS, args.fault);
    let matrix = Matrix {
        qemu: Qemu::new(tools)?,
        cache,
        busybox,
        userland,
        steps,
        deadline: Duration::from_secs(args.timeout),
    };

    let mut failed = Vec::new();
    for release in &releases {
        let begun = Instant::now();
        match matrix.boot(release) {
            Ok(()) => {
                say(&format!("{release}: all passed, {:.1} s", begun.elapsed().as_secs_f32()))
            }
            Err(error) => {
                matrix.print_console(release);
                say(&format!("{release}: {error:#}"));
                failed.push(release.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "failed on Linux {} (consoles above and in {})",
            failed.join(", "),
            matrix.cache.display()
        );
    }
    Ok(())
}

/// What all kernels have in common.
struct Matrix {
    qemu: Qemu,
    cache: PathBuf,
    busybox: PathBuf,
    userland: Userland,
    steps: plan::Steps,
    deadline: Duration,
}

impl Matrix {
    /// Runs all steps on one kernel.
    fn boot(&self, release: &str) -> Result<()> {
        // Of an earlier run: not to be shown as this one's.
        let _ = fs::remove_file(self.log(release));
        let root = kernel_folder(&self.cache, release);
        let folder = root.join("lib/modules").join(release);
        let selection = modules::select(&folder, plan::MODULES, &self.busybox)?;
        for (what, names) in [("built in", &selection.built_in), ("lacks", &selection.absent)] {
            if !names.is_empty() {
                say(&format!("{release}: {what}: {}", names.join(", ")));
            }
        }
        let initramfs = self.cache.join("initramfs");
        let archive = self.userland.archive(&selection.modules, &self.steps.script);
        fs::write(&initramfs, &archive)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        say(&format!(
            "{release}: booting, {} modules, {} MB",
            selection.modules.len(),
            archive.len() >> 20
        ));
        self.qemu.run(&Guest {
            release,
            kernel: &root.join("boot").join(format!("vmlinuz-{release}")),
            initramfs: &initramfs,
            log: &self.log(release),
            deadline: self.deadline,
            steps: &self.steps.names,
        })
    }

    fn log(&self, release: &str) -> PathBuf {
        self.cache.join(format!("console-{release}.log"))
    }

    fn print_console(&self, release: &str) {
        eprintln!("---- console of {release}");
        eprintln!("{}", fs::read_to_string(self.log(release)).unwrap_or_default().trim_end());
        eprintln!("----");
    }
}

/// QEMU and busybox, unpacked.
fn tools(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("tools");
    if !folder.exists() {
        apt::with_lists(MACHINE, || {
            let packages = apt::closure(&PACKAGES)?;
            say(&format!("fetching {}: unpacked, not installed", packages.join(" ")));
            apt::unpack(&packages, &folder)
        })?;
    }
    Ok(folder)
}

/// The kernels to boot, unpacked.
fn kernels(cache: &Path, wanted: &[Series]) -> Result<Vec<String>> {
    apt::with_lists(MACHINE, || {
        let offered = kernels::offered(&apt::search(kernels::PATTERN)?);
        let releases = kernels::choose(&offered, wanted)?;
        for release in &releases {
            let folder = kernel_folder(cache, release);
            if !folder.exists() {
                let package = format!("linux-image-{release}");
                say(&format!("fetching {package}"));
                apt::unpack(&[package], &folder)?;
            }
        }
        if wanted.is_empty() && !offered.contains_key(&kernels::OLDEST) {
            say(&format!("Linux {} is not offered, and not tested", kernels::OLDEST));
        }
        Ok(releases)
    })
}

fn kernel_folder(cache: &Path, release: &str) -> PathBuf {
    cache.join(format!("linux-{release}"))
}

/// Tells the user what is being done, on standard error.
fn say(line: &str) {
    eprintln!("vm: {line}");
}
