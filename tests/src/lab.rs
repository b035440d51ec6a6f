//! The examples of `examples/` as they are: each on hosts of its own, which are network namespaces.
//!
//! ```text
//! client 10.1.0.2 … 10.1.0.9 ── balancer 10.1.0.100 ── hosts 10.2.1.2, 10.2.2.2, …
//! ```
//! A configuration is taken as it stands but for one thing: `/etc/release/` is a folder of the lab,
//! which has the example's hooks. What hooks need of the world around them (`ssh`, and what runs on
//! a host) stands in `examples/lab`, first in the `PATH`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::command::{self, sibling_binary};
use crate::process::Process;
use crate::topology::{Daemon, Topology, TopologySpec};
use crate::webhook::{Posted, Webhook};

/// Folders of the examples, and on how many hosts each has instances.
const EXAMPLES: [(&str, u8); 5] =
    [("a-smooth", 3), ("b-gray", 4), ("c-cloud", 7), ("d-offline", 3), ("e-gateway", 4)];
/// Addresses of the client: 10.1.0.2 and so on.
const CLIENTS: u8 = 8;
/// Where the examples' webhooks are, on the balancer: `/alarms`, and `/approve`, which says no until
/// there is a file `approved` in the lab's folder.
const WEBHOOK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);

/// An example, set up. Dropping it takes everything down.
#[derive(Debug)]
pub struct Lab {
    webhook: Webhook,
    /// The namespaces.
    pub topology: Topology,
    /// Servers end when nobody has this open any more, whatever ended us.
    _alive: File,
    folder: TempDir,
    readme: String,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// What it said, on both streams.
    pub said: String,
}

impl Lab {
    /// Sets the example up that has this letter, and runs what runs before its release.
    ///
    /// # Errors
    /// There is none, a part of it fails, or no root.
    pub fn new(letter: &str) -> Result<Self> {
        let example = EXAMPLES.iter().find(|(name, _)| name.starts_with(&format!("{letter}-")));
        let Some((name, hosts)) = example else {
            let all = EXAMPLES.map(|(name, _)| &name[..1]).join(", ");
            bail!("no example {letter}; there are {all}");
        };
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
        let source = examples.join(name);
        let versions = vec![("host".to_owned(), *hosts)];
        let spec = TopologySpec { versions, clients: CLIENTS, ..TopologySpec::default() };
        let topology = Topology::new(&spec)?;
        let folder = tempfile::Builder::new().prefix("release-lab-").tempdir()?;
        let alive = furnish(folder.path(), &examples, &source, &topology)?;
        let approved = folder.path().join("approved");
        let webhook = Webhook::start(&topology.lb.namespace, WEBHOOK, move |posted| {
            if posted.path == "/approve" && !approved.exists() { 403 } else { 204 }
        })?;
        let readme = fs::read_to_string(source.join("README.md"))?;
        let lab = Self { webhook, topology, _alive: alive, folder, readme };
        let config = fs::read_to_string(source.join("release.toml"))?;
        let etc = format!("{}/etc/", lab.folder.path().display());
        lab.topology.lb.write_config(&config.replace("/etc/release/", &etc))?;
        let before = lab.runs(&source.join("before").display().to_string())?;
        ensure!(before.code == 0, "{name}/before: {}", before.said);
        Ok(lab)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// As [`crate::topology::Balancer::start_daemon`].
    pub fn up(&self) -> Result<Daemon<'_>> {
        self.topology.lb.start_daemon_under(|command| {
            command.env("PATH", self.path());
        })
    }

    /// Does on the balancer what the example's README says: a whole line of it.
    ///
    /// # Errors
    /// The README does not have it, or there is no shell.
    pub fn types(&self, line: &str) -> Result<Ended> {
        self.said_by_readme(line)?;
        self.runs(line)
    }

    /// As [`Lab::types`], what goes on in the background: a line that ends with ` &`.
    ///
    /// # Errors
    /// As there.
    pub fn starts(&self, line: &str) -> Result<Process> {
        self.said_by_readme(&format!("{line} &"))?;
        // The shell gives way to it, so that signals reach it.
        let mut command = self.on_balancer("sh");
        command.args(["-c", &format!("exec {line}")]);
        let log = File::create(self.path_of("background"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.topology.lb.namespace.spawn(line, &mut command)
    }

    /// A program on the balancer, in the lab's folder: it finds everything that commands of the
    /// README need.
    #[must_use]
    pub fn on_balancer(&self, program: &str) -> Command {
        let mut command = self.topology.lb.namespace.command(program);
        command.envs(self.environment()).current_dir(self.folder.path());
        command
    }

    /// What was posted to a path of the webhook.
    #[must_use]
    pub fn posted(&self, path: &str) -> Vec<serde_json::Value> {
        let to = |posted: Posted| (posted.path == path).then_some(posted.body);
        self.webhook.posted().into_iter().filter_map(to).collect()
    }

    /// A file of the lab as it is now; empty if it is not there.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path_of(name)).unwrap_or_default()
    }

    fn environment(&self) -> BTreeMap<&'static str, OsString> {
        let lb = &self.topology.lb;
        BTreeMap::from([
            ("PATH", self.path()),
            ("RELEASE_CONFIG", lb.config_path().into()),
            ("RELEASE_STATE_DIR", lb.state_dir().into()),
            ("RELEASE_SOCKET", lb.socket_path().into()),
            ("RELEASE_BPFFS", lb.bpffs().into()),
        ])
    }

    fn path(&self) -> OsString {
        let mut path = OsString::from(self.path_of("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/bin".into()));
        path
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said_by_readme(&self, line: &str) -> Result<()> {
        let says = self.readme.lines().any(|said| said == line);
        ensure!(says, "the README does not say: {line}");
        Ok(())
    }

    fn runs(&self, line: &str) -> Result<Ended> {
        let output = command::output(self.on_balancer("sh").args(["-c", line]))?;
        let [said, error] = [output.stdout, output.stderr].map(String::from_utf8);
        let code = output.status.code().context("ended by a signal")?;
        Ok(Ended { code, said: said? + &error? })
    }
}

/// What commands and hooks find in the lab's folder.
fn furnish(folder: &Path, examples: &Path, source: &Path, topology: &Topology) -> Result<File> {
    for name in ["bin", "etc", "run"] {
        fs::create_dir(folder.join(name))?;
    }
    for entry in fs::read_dir(examples.join("lab"))? {
        let entry = entry?;
        symlink(entry.path(), folder.join("bin").join(entry.file_name()))?;
    }
    for (name, variable) in
        [("releasectl", "RELEASECTL_BIN"), ("release-server", "RELEASE_SERVER_BIN")]
    {
        symlink(sibling_binary(name, variable)?, folder.join("bin").join(name))?;
    }
    symlink(examples, folder.join("examples"))?;
    symlink(source.join("hooks"), folder.join("etc/hooks"))?;
    fs::write(folder.join("etc/token"), "token-of-the-lab\n")?;
    fs::write(folder.join("etc/database.password"), "password-of-the-lab\n")?;
    let hosts = topology.backends.iter().map(|host| (*host.address.ip(), host.namespace.name()));
    let clients = topology.client_addresses().into_iter();
    let clients = clients.map(|address| (address, topology.client.name()));
    let lines = hosts.chain(clients).map(|(address, name)| format!("{address} {name}\n"));
    fs::write(folder.join("hosts"), lines.collect::<String>())?;
    let alive = folder.join("alive");
    nix::unistd::mkfifo(&alive, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Both ends, so that nobody waits for the other one.
    Ok(File::options().read(true).write(true).open(alive)?)
}
