//! QEMU, by pure software emulation: runs where virtualisation isn't to be had, and the same
//! everywhere.

use std::{
    env,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    console::{Console, Event},
    say,
};
use crate::{command, libraries};

/// The folder of the libraries of Debian's x86_64 packages.
const TRIPLE: &str = "x86_64-linux-gnu";

/// QEMU in the folder that its packages were unpacked into.
#[derive(Debug)]
pub struct Qemu {
    root: PathBuf,
}

/// One guest.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Release of its kernel.
    pub release: &'a str,
    /// The kernel.
    pub kernel: &'a Path,
    /// Its first file system.
    pub initramfs: &'a Path,
    /// Where its console is written.
    pub log: &'a Path,
    /// How long it may take.
    pub deadline: Duration,
    /// What it must do.
    pub steps: &'a [String],
}

/// Ends QEMU with whatever ends this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// Checks that all its libraries are there.
    ///
    /// # Errors
    /// If one is missing.
    pub fn new(root: PathBuf) -> Result<Self> {
        let qemu = Self { root };
        libraries::of(&qemu.program(), &qemu.libraries())?;
        Ok(qemu)
    }

    /// Runs a guest to its end.
    ///
    /// # Errors
    /// If it doesn't do all its steps, with the reason.
    pub fn run(&self, guest: &Guest<'_>) -> Result<()> {
        let token = format!("@{}-{}", std::process::id(), clock());
        let mut console = Console::new(&token, guest.release, guest.steps);
        let mut qemu = self.command(guest, &token)?;
        let mut log = File::create(guest.log)
            .with_context(|| format!("cannot write {}", guest.log.display()))?;
        let spawned = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned =
            spawned.spawn().with_context(|| format!("cannot run {}", command::show(&qemu)))?;
        let mut running = Running(spawned);

        let (lines, received) = mpsc::channel();
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let errors = lines.clone();
        thread::spawn(move || stdout.map(|stdout| forward(stdout, &lines)));
        thread::spawn(move || stderr.map(|stderr| forward(stderr, &errors)));
        let until = Instant::now() + guest.deadline;
        let mut begun = Instant::now();
        loop {
            match received.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    show(guest.release, console.line(&line), &mut begun);
                }
                // Both ends of its output are closed: it has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let place = console.running().unwrap_or("no test");
                    bail!("still running after {:?}, in {place}", guest.deadline);
                }
            }
        }
        console.verdict().map_err(anyhow::Error::msg)
    }

    fn command(&self, guest: &Guest<'_>, token: &str) -> Result<Command> {
        let mut qemu = Command::new(self.program());
        qemu.env("LD_LIBRARY_PATH", env::join_paths(self.libraries())?);
        for data in ["qemu", "seabios"] {
            qemu.arg("-L").arg(self.root.join("usr/share").join(data));
        }
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,-erms,-fsrm",
            "-smp",
            "2",
            "-m",
            "1G",
        ]);
        qemu.args(["-nographic", "-no-reboot", "-nic", "none"]);
        qemu.arg("-kernel").arg(guest.kernel).arg("-initrd").arg(guest.initramfs);
        // A panic reboots at once, and a reboot ends QEMU. The kernel makes a variable of init's
        // environment out of each parameter it doesn't know.
        let parameters = format!("console=ttyS0 quiet oops=panic panic=-1 vm_token={token}");
        qemu.arg("-append").arg(parameters);
        Ok(qemu)
    }

    fn program(&self) -> PathBuf {
        self.root.join("usr/bin/qemu-system-x86_64")
    }

    fn libraries(&self) -> [PathBuf; 2] {
        ["usr/lib", "lib"].map(|folder| self.root.join(folder).join(TRIPLE))
    }
}

/// Sends lines, whatever bytes they are of, without control characters: the serial line ends its
/// lines with a carriage return, and the firmware would clear the terminal of whoever reads this.
fn forward(from: impl std::io::Read, to: &mpsc::Sender<String>) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line =
            String::from_utf8_lossy(&line).replace(|c: char| c.is_control() && c != '\t', "");
        if to.send(line).is_err() {
            return;
        }
    }
}

/// Tells whoever waits how far it is.
fn show(release: &str, event: Event, begun: &mut Instant) {
    let seconds = begun.elapsed().as_secs_f32();
    match event {
        Event::Linux(_) => say(&format!("{release}: booted in {seconds:.1} s")),
        Event::Passed(name) => say(&format!("{release}: {name} passed in {seconds:.1} s")),
        Event::Failed(failure) => say(&format!("{release}: {failure}")),
        Event::Verifier(what) => say(&format!("{release}: verifier: {what}")),
        Event::Begin(_) => *begun = Instant::now(),
        Event::Other => {}
    }
}

/// Nanoseconds, for a token that no earlier run had.
fn clock() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos())
}
