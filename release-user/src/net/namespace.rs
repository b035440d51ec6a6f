//! Network namespaces of this host, and work inside them.

use std::fmt;
use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// Where namespaces have names.
const NAMED: &str = "/run/netns";

/// A network namespace of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// The one that this process is in.
    #[default]
    Own,
    /// The one of that name in `/run/netns`.
    Named(String),
    /// That of the process whose number stands in this file.
    PidFile(PathBuf),
}

/// The PID namespace of this process, by its inode: process numbers mean something in it alone.
pub fn pid_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

/// Why nothing could be done in a namespace.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NamespaceError(String);

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("this host"),
            Self::Named(name) => write!(f, "netns {name}"),
            Self::PidFile(path) => write!(f, "netns of {}", path.display()),
        }
    }
}

impl Namespace {
    /// Runs a closure inside: on the calling thread if that is there already, else on one of its
    /// own. Returns when it has ended.
    ///
    /// # Errors
    /// The namespace is gone, or this process may not enter it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let Some(file) = self.open()? else { return Ok(work()) };
        let inside = || setns(&file, CloneFlags::CLONE_NEWNET).map(|()| work());
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        // A panic in it goes on here.
        let result = result.unwrap_or_else(|panic| resume_unwind(panic));
        result.map_err(|error| NamespaceError(format!("cannot be entered: {error}")))
    }

    /// The file that stands for it; none for the own one.
    fn open(&self) -> Result<Option<File>, NamespaceError> {
        let failed = |path: &Path, why: &dyn fmt::Display| {
            NamespaceError(format!("{}: {why}", path.display()))
        };
        let path = match self {
            Self::Own => return Ok(None),
            Self::Named(name) => Path::new(NAMED).join(name),
            Self::PidFile(path) => {
                let text = fs::read_to_string(path).map_err(|error| failed(path, &error))?;
                let text = text.trim();
                let pid: u32 = text
                    .parse()
                    .map_err(|_| failed(path, &format!("{text:?} is no process number")))?;
                PathBuf::from(format!("/proc/{pid}/ns/net"))
            }
        };
        File::open(&path).map(Some).map_err(|error| failed(&path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let gone = Namespace::Named("release-no-such".to_owned());
        let error = gone.run(|| ()).unwrap_err().to_string();
        assert!(error.starts_with("/run/netns/release-no-such: "), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let namespace = Namespace::PidFile(file.clone());
        assert!(namespace.run(|| ()).unwrap_err().to_string().contains("No such file"));
        fs::write(&file, "web\n").unwrap();
        assert!(namespace.run(|| ()).unwrap_err().to_string().contains("\"web\" is no process"));
        assert_eq!(Namespace::Own.run(|| 7).unwrap(), 7);
    }
}
