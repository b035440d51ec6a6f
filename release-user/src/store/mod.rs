//! Where the daemon keeps what must survive it. A trait, so that a store shared by several hosts
//! can take the place of the local one.

mod sqlite;

pub use sqlite::SqliteStore;

use crate::api::types::Receipt;
use crate::control::state::ServiceState;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[error("state {path}: {why}", path = path.display())]
pub struct StoreError {
    /// The file.
    pub path: std::path::PathBuf,
    /// The cause.
    pub why: String,
}

/// A service's state is one document, replaced whole: a crash leaves the old one or the new one.
pub trait Store: Send {
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
    /// A setting of the daemon's own, e.g. what it found before it changed the host.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Writes or (`None`) forgets a setting.
    fn set_note(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError>;
}
