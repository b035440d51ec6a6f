//! Where an instance's sockets can be asked for.

use super::address::Endpoint;
use super::error::Invalid;
use super::types::Name;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Whom to ask for an instance's sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sockets {
    /// Nobody.
    None,
    /// This host's kernel, in the daemon's own network namespace.
    Host,
    /// This host's kernel, in a namespace of `/run/netns`.
    Netns(String),
    /// This host's kernel, in the namespace of the process whose number stands in this file.
    PidFile(PathBuf),
    /// `releasectl agent` on the instance's host.
    Agent(Endpoint),
}

impl Sockets {
    /// What a single word stands for.
    pub(super) fn word(word: &str) -> Result<Self, Invalid> {
        match word {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(Invalid::new(format!("unknown value {other:?}")).hint(
                "`host`, `none`, { netns = \"NAME\" }, { pid_file = \"/PATH\" } or \
                 { agent = \"IP:PORT\" }",
            )),
        }
    }

    /// A namespace of that name.
    pub(super) fn netns(name: &str) -> Result<Self, Invalid> {
        let name = Name::new(name)?;
        // A path, not a name.
        if name.as_str().bytes().all(|byte| byte == b'.') {
            return Err(Invalid::new(format!("{:?} is not a name", name.as_str()))
                .hint("one of `ip netns list`"));
        }
        Ok(Self::Netns(name.as_str().to_owned()))
    }
}

/// A path that means the same wherever the daemon was started.
pub(super) fn absolute(text: &str) -> Result<PathBuf, Invalid> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Invalid::new(format!("{text:?} is not an absolute path")));
    }
    Ok(path.to_owned())
}

/// Files of one end of a connection between daemon and agent, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Credentials {
    /// Files that need not come from a configuration.
    pub fn new(ca: PathBuf, certificate: PathBuf, key: PathBuf) -> Self {
        Self { ca, certificate, key }
    }

    /// Certificates that the other end's one must be signed by.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The own certificate, and those between it and the other end's `ca`.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The own private key.
    pub fn key(&self) -> &Path {
        &self.key
    }
}
