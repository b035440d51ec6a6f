//! Who may register instances, and which addresses an instance can have.

use super::Config;
use super::address::{Endpoint, Frontend};
use super::error::Invalid;
use super::service::Service;
use super::settings::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Versions of a service that instances may register for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registrants {
    /// None.
    #[default]
    Nobody,
    /// Any, also such as the configuration does not have.
    Open,
    /// These, which the configuration has.
    Versions(BTreeSet<String>),
}

impl Registrants {
    /// Whether instances may register for this version.
    pub fn admit(&self, version: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Open => true,
            Self::Versions(names) => names.contains(version),
        }
    }

    /// Whether nobody may register at all.
    pub const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

impl Service {
    /// Whether an instance at this address could be in the configuration of this service, as far as
    /// its mode and its frontends tell.
    ///
    /// # Errors
    /// It could not.
    pub fn admits(&self, addr: Endpoint) -> Result<(), Invalid> {
        let mode = self.mode();
        let wrong = loopback(addr, mode)
            .or_else(|| other_port(addr, *self.frontends().first()?, mode))
            .or_else(|| other_family(addr, self.all_frontends(), mode));
        wrong.map_or(Ok(()), Err)
    }
}

impl Config {
    /// Whether an instance at this address could be in the configuration of this service, as far
    /// as anything but other instances tells.
    ///
    /// # Errors
    /// It could not.
    pub fn admits(&self, service: &Service, addr: Endpoint) -> Result<(), Invalid> {
        service.admits(addr)?;
        for other in self.services() {
            let spoken = |at: &Frontend| service.has_protocol(at.protocol());
            if let Some(at) = other.all_frontends().find(|at| at.endpoint() == addr && spoken(at)) {
                return Err(Invalid::new(format!(
                    "{addr}: is a frontend of {}: {at}",
                    other.name()
                )));
            }
            let Some(snat) = other.snat() else { continue };
            let (ip, port) = (addr.socket().ip(), addr.socket().port());
            if snat.addresses(addr.family()).any(|source| source == ip)
                && snat.ports().contains(port)
            {
                let what = format!("{addr}: is a source of snat of {}", other.name());
                let hint = format!("its port must not be one of snat's, {}", snat.ports());
                return Err(Invalid::new(what).hint(hint));
            }
        }
        Ok(())
    }
}

/// A loopback address outside mode `local`.
pub(super) fn loopback(addr: Endpoint, mode: Mode) -> Option<Invalid> {
    (addr.is_loopback() && mode != Mode::Local).then(|| {
        Invalid::new(format!("{addr}: loopback address"))
            .hint("only instances of mode `local` are on this host")
    })
}

/// A port that would have to be rewritten, in modes that leave the packet alone.
pub(super) fn other_port(addr: Endpoint, first: Frontend, mode: Mode) -> Option<Invalid> {
    (!mode.rewrites() && addr.socket().port() != first.socket().port()).then(|| {
        Invalid::new(format!("{addr}: another port than frontend {first}"))
            .hint(format!("mode `{mode}` does not rewrite ports"))
    })
}

/// A family that no frontend has, in modes that keep it.
pub(super) fn other_family(
    addr: Endpoint,
    mut frontends: impl Iterator<Item = Frontend>,
    mode: Mode,
) -> Option<Invalid> {
    let family = addr.family();
    (!mode.is_tunnel() && !frontends.any(|frontend| frontend.family() == family))
        .then(|| Invalid::new(format!("{addr}: no frontend is {family}")).hint(keeps_family(mode)))
}

pub(super) fn keeps_family(mode: Mode) -> String {
    format!("mode `{mode}` keeps the address family; `ipip` and `gue` can change it")
}
