//! Network namespaces that vanish when they are dropped.
//!
//! Programs are moved in by `setns` between fork and exec, not by `ip netns exec`: the latter
//! mounts a new /sys, which hides bpffs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::command;
use crate::process::{Process, SharedChild, end};
use crate::sockets::connect_from;

/// How long a socket that was closed may still be bound: a process that is being started by another
/// thread has all descriptors until it runs its program.
const HELD_BY_A_CHILD: Duration = Duration::from_secs(2);

/// A way into a namespace that threads and tasks may keep. It does not keep the namespace's name
/// alive: that goes with [`Netns`].
#[derive(Debug, Clone)]
pub struct NsHandle(Arc<File>);

impl NsHandle {
    /// Moves the calling thread into the namespace, for good. For threads made for that.
    ///
    /// # Errors
    /// The kernel refuses (no root).
    pub fn join(&self) -> Result<()> {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).context("setns into a network namespace")
    }

    /// A command whose process will run in the namespace, everything else (mounts above all) as
    /// here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespace = Arc::clone(&self.0);
        let mut command = Command::new(program);
        // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system
        // call on a descriptor that it owns; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        command
    }
}

/// A network namespace of our own. Dropping it ends the processes that were started through
/// [`Netns::spawn`] and deletes it, also while a panic unwinds.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: NsHandle,
    children: Mutex<Vec<SharedChild>>,
}

impl Netns {
    /// Makes a namespace named `<prefix>-<pid>-<counter>`, with `lo` up.
    ///
    /// # Errors
    /// No root, no `ip`.
    pub fn new(prefix: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{prefix}-{}-{number}", process::id());
            // Left behind by a killed run that had our pid: not ours to delete.
            if !path_of(&name).exists() {
                break name;
            }
        };
        command::run(Command::new("ip").args(["netns", "add", &name]))
            .context("cannot make a network namespace (this needs root)")?;
        let handle = File::open(path_of(&name)).with_context(|| format!("cannot open {name}"));
        let handle = match handle {
            Ok(file) => NsHandle(Arc::new(file)),
            Err(error) => {
                delete(&name);
                return Err(error);
            }
        };
        let namespace = Self { name, handle, children: Mutex::default() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name under /run/netns.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A way in that can be kept.
    #[must_use]
    pub fn handle(&self) -> NsHandle {
        self.handle.clone()
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.handle.command(program)
    }

    /// Runs a program inside to its end: `run("ping", "-c 1 10.1.0.1")`. Returns its output.
    ///
    /// # Errors
    /// It cannot be started or ends with a status other than 0.
    pub fn run(&self, program: &str, line: &str) -> Result<String> {
        command::run(self.command(program).args(line.split_whitespace()))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `ip` inside: `ip("addr add 10.1.0.2/24 dev eth0")`.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub fn ip(&self, line: &str) -> Result<String> {
        self.run("ip", line)
    }

    /// Sets a sysctl below /proc/sys/net: `sysctl("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    /// There is no such sysctl or it refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {} to {value}", path.display()))
    }

    /// Drops what matches an nftables rule, at hook `input` or `output`.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub fn block(&self, hook: &str, rule: &str) -> Result<()> {
        for line in [
            "add table inet away".to_owned(),
            format!("add chain inet away {hook} {{ type filter hook {hook} priority 0 ; }}"),
            format!("add rule inet away {hook} {rule} drop"),
        ] {
            self.run("nft", &line)?;
        }
        Ok(())
    }

    /// Lets everything pass that [`Netns::block`] dropped.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub fn unblock(&self) -> Result<()> {
        self.run("nft", "delete table inet away").map(drop)
    }

    /// Runs a closure on a thread of its own inside the namespace and returns its result; a panic
    /// in it goes on here. Sockets that it opens stay inside wherever they are used later.
    ///
    /// # Errors
    /// The thread cannot be moved.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let moved = || self.handle.join().map(|()| work());
        match thread::scope(|scope| scope.spawn(moved).join()) {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Listens on an address (port 0: any) inside.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn listen(&self, at: impl Into<SocketAddr>) -> Result<TcpListener> {
        self.bind(at.into(), TcpListener::bind)
    }

    /// Opens a UDP socket at an address (port 0: any) inside.
    ///
    /// # Errors
    /// As [`Netns::listen`].
    pub fn udp(&self, at: impl Into<SocketAddr>) -> Result<UdpSocket> {
        self.bind(at.into(), UdpSocket::bind)
    }

    fn bind<T: Send>(
        &self,
        at: SocketAddr,
        bind: impl Fn(SocketAddr) -> io::Result<T> + Sync,
    ) -> Result<T> {
        let until = Instant::now() + HELD_BY_A_CHILD;
        loop {
            match self.enter(|| bind(at))? {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(5));
                }
                bound => {
                    return bound.with_context(|| format!("cannot bind {at} in {}", self.name));
                }
            }
        }
    }

    /// Opens a TCP connection from inside.
    ///
    /// # Errors
    /// The connection is refused, or not there within `deadline`.
    pub fn connect(&self, to: SocketAddr, deadline: Duration) -> Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&to, deadline))?
            .with_context(|| format!("cannot connect to {to} from {}", self.name))
    }

    /// Opens a TCP connection from a given address (port 0: any) inside.
    ///
    /// # Errors
    /// As [`connect_from`].
    pub fn connect_from(
        &self,
        from: impl Into<SocketAddr>,
        to: impl Into<SocketAddr>,
        deadline: Duration,
    ) -> Result<TcpStream> {
        let (from, to) = (from.into(), to.into());
        self.enter(|| connect_from(from, to, deadline))?
            .with_context(|| format!("cannot connect from {from} to {to} in {}", self.name))
    }

    /// Starts a process inside; it ends with its guard or with the namespace, whatever is dropped
    /// first. Commands come from [`Netns::command`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: impl Into<String>, command: &mut Command) -> Result<Process> {
        let process = Process::spawn(name, command)?;
        self.adopt(&process);
        Ok(process)
    }

    /// As [`Netns::spawn`], but waits for the first line of output; see [`Process::spawn_ready`].
    ///
    /// # Errors
    /// It cannot be started or is not ready in time.
    pub fn spawn_ready(
        &self,
        name: impl Into<String>,
        command: &mut Command,
        deadline: Duration,
    ) -> Result<Process> {
        let (process, _) = Process::spawn_ready(name, command, deadline)?;
        self.adopt(&process);
        Ok(process)
    }

    fn adopt(&self, process: &Process) {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(process.share());
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for child in self.children.get_mut().unwrap_or_else(PoisonError::into_inner) {
            end(child);
        }
        delete(&self.name);
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn delete(name: &str) {
    if let Err(error) = command::run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("warning: {error:#}");
    }
}

/// Which offloads an end of a veth pair keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// Packets may be redirected to this end by XDP on its peer: that needs NAPI here, which GRO
    /// brings.
    FromXdp,
    /// XDP programs run here; generic ones run after GRO and could not redirect what it merged.
    IntoXdp,
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// The namespace it lives in.
    pub namespace: &'a Netns,
    /// Its name there.
    pub device: &'a str,
    /// Its address with prefix length, such as `10.1.0.2/24`.
    pub address: &'a str,
    /// What meets the packets that arrive.
    pub receiving: Receiving,
}

/// Makes a veth pair, addressed and up. Transmit offloads are off on both ends: veth would leave
/// checksums unfilled, and packets that XDP rewrites would arrive corrupt.
///
/// # Errors
/// `ip` or `ethtool` fail, for instance because a device of that name exists.
pub fn veth(a: VethEnd<'_>, b: VethEnd<'_>) -> Result<()> {
    if a.device.len() > 15 || b.device.len() > 15 {
        bail!("device names have at most 15 characters: {} {}", a.device, b.device);
    }
    command::words(
        "ip",
        &format!(
            "link add {} netns {} type veth peer name {} netns {}",
            a.device, a.namespace.name, b.device, b.namespace.name
        ),
    )?;
    for end in [a, b] {
        let VethEnd { namespace, device, address, receiving } = end;
        let gro = if receiving == Receiving::FromXdp { "on" } else { "off" };
        namespace.run("ethtool", &format!("-K {device} tx off tso off gso off gro {gro}"))?;
        namespace.ip(&format!("addr add {address} dev {device}"))?;
    }
    for end in [a, b] {
        end.namespace.ip(&format!("link set {} up", end.device))?;
    }
    Ok(())
}
