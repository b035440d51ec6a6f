//! Where the daemon keeps what must survive it. A trait, so that a store shared by several hosts
//! can take the place of the local one.

mod journal;
mod sqlite;

pub use sqlite::SqliteStore;

use crate::api::types::{ForcedFlow, Receipt};
use crate::control::state::ServiceState;
use crate::release::journal::Journal;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[error("state {path}: {why}", path = path.display())]
pub struct StoreError {
    /// The file.
    pub path: std::path::PathBuf,
    /// The cause.
    pub why: String,
}

/// A connection that was ended on the operator's order, and what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Index of its instance in the maps.
    pub backend: u32,
    /// Of the table's entry: the next connection of the same ends has another.
    pub tag: u32,
    /// What is told of it.
    pub flow: ForcedFlow,
}

/// A service's state is one document, replaced whole: a crash leaves the old one or the new one.
pub trait Store: Journal + Send {
    /// All services, in the order of their ids.
    ///
    /// # Errors
    /// As for all methods: the medium's, or a document this version cannot read.
    fn load(&self) -> Result<Vec<ServiceState>, StoreError>;
    /// Writes one service, durably, before anything is done with it.
    #[allow(missing_docs, reason = "see `load`")]
    fn save(&mut self, service: &ServiceState) -> Result<(), StoreError>;
    /// Forgets a service.
    fn remove(&mut self, service: &str) -> Result<(), StoreError>;
    /// Writes a receipt and gives it its number.
    fn add_receipt(&mut self, receipt: Receipt) -> Result<Receipt, StoreError>;
    /// Receipts of a service, newest first.
    fn receipts(&self, service: &str) -> Result<Vec<Receipt>, StoreError>;
    /// Writes connections down that were ended on order, those alone that are not there yet; of
    /// those that the tables count, no more than [`MOST_FORCED`](crate::api::types::MOST_FORCED) of
    /// an instance. Says of each whether it is new. What was written in other evidence epochs is
    /// forgotten.
    fn add_forced(&mut self, epoch: u32, forced: &[Forced]) -> Result<Vec<bool>, StoreError>;
    /// Those of some instances, the oldest first.
    fn forced(&self, epoch: u32, backends: &[u32]) -> Result<Vec<ForcedFlow>, StoreError>;
    /// How many of those have their socket destroyed.
    fn destroyed(&self, epoch: u32, backends: &[u32]) -> Result<u64, StoreError>;
    /// Forgets some: they were not ended after all.
    fn remove_forced(&mut self, epoch: u32, forced: &[Forced]) -> Result<(), StoreError>;
    /// Forgets those of instances that are no more: their ids will be others'.
    fn forget_forced(&mut self, backends: &[u32]) -> Result<(), StoreError>;
    /// A setting of the daemon's own, e.g. what it found before it changed the host.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Writes or (`None`) forgets a setting.
    fn set_note(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError>;
}
