//! The configuration: TOML text → validated types that cannot be wrong.
//!
//! It says what exists (interfaces, services, versions, instances); the weights in it are initial
//! ones, state owns them afterwards. A load goes through four steps: `load` finds the files,
//! `raw` reads each into drafts that remember where every value stood, `validate` checks what
//! spans several places, and the result is a [`Config`]. All errors of a load are collected.

mod address;
mod alarms;
mod error;
mod evidence;
mod fit;
mod forwarding;
mod load;
mod numbers;
mod policy;
mod prefix;
mod raw;
mod reader;
mod registration;
mod service;
mod settings;
mod suggest;
mod text;
mod types;
mod validate;

pub use address::{Endpoint, Family, Frontend, Protocol};
pub use alarms::Alarms;
pub use error::{ConfigError, ConfigErrors, Invalid};
pub use evidence::{Credentials, Sockets};
pub use forwarding::{PortRange, Quic, ServerId, Snat, Tunnel};
pub use load::DEFAULT_DIR;
pub use numbers::{
    EmbryoCapacity, FlowCapacity, FragmentCapacity, IdleTimeout, InstanceWeight, SessionCapacity,
    SessionTimeout, SnatCapacity, UdpTimeout, UnrepliedTimeout, Weight,
};
pub use policy::{Drain, KeepaliveOnly, Limits, Probes, Session, Timeouts};
pub use prefix::Prefix;
pub use registration::Registrants;
pub use service::{Instance, Service, Version};
pub use settings::{
    Conversation, Daemon, LogLevel, Mode, OnDown, OnDrain, OnKeepalive, WhenEmpty, WhenFull,
    XdpMode,
};
pub use types::{InstanceId, InterfaceName, Name};

use crate::release::plan::Plan;
use serde::Serialize;
use std::path::Path;

/// Most versions that a service can have.
pub const MAX_VERSIONS: usize = 16;
/// Most versions in a configuration, over all services: each has rings in the kernel.
pub const MAX_VERSIONS_IN_ALL: usize = 16_384;
/// Most frontends of one address family that a service can have, those for tests included.
pub const MAX_FRONTENDS: usize = 8;
/// Most source addresses of one family that a service in mode `snat` can have.
pub const MAX_SNAT_ADDRESSES: usize = 8;
/// Most test sources in a configuration, over all services.
pub const MAX_TEST_SOURCES: usize = 16_384;
/// Most services in a configuration.
pub const MAX_SERVICES: usize = 4096;
/// Most instances in a configuration, over all services.
pub const MAX_INSTANCES: usize = 4096;

/// Most plans in a configuration.
pub const MAX_PLANS: usize = 1024;
/// Most steps in a plan.
pub const MAX_STEPS: usize = 128;
/// Most test sources in a step of a plan.
pub const MAX_STEP_SOURCES: usize = 64;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    daemon: Daemon,
    services: Vec<Service>,
    plans: Vec<Plan>,
    #[serde(skip)]
    warnings: Vec<ConfigError>,
}

impl Config {
    /// Reads and validates a configuration: the file `path`; or all `*.toml` of the folder `path`
    /// in order of their names; or, without a path, `/etc/release/release.toml` followed by
    /// `/etc/release/conf.d/*.toml`. Hidden files are skipped.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first: files that cannot be read, syntax, unknown
    /// keys, values out of range, clashes between services.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        load::load(path, Path::new(DEFAULT_DIR))
    }

    /// Validates one text as a whole configuration; `name` stands for the file in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_str(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        load::from_sources(vec![(name.to_owned(), text.as_bytes().to_vec())], Vec::new())
    }

    /// What `[daemon]` says.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The services, in the order of the files and within them.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name().as_str() == name)
    }

    /// How releases can be done, in the order of the files and within them. Each is possible in
    /// itself, and for the services whose default it is; for another, ask [`Service::misfits`].
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// The plan of that name.
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name == name)
    }

    /// What is allowed but probably not meant, each with its place.
    pub fn warnings(&self) -> &[ConfigError] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests;
