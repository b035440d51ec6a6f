//! The local store: one SQLite file.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};
use crate::api::types::Receipt;
use crate::control::state::ServiceState;

/// Raised when the tables change.
const SCHEMA: i64 = 1;

/// State in `state.db`.
pub struct SqliteStore {
    path: PathBuf,
    db: Connection,
}

impl SqliteStore {
    /// Opens or makes `folder/state.db`.
    ///
    /// # Errors
    /// If it cannot be opened, or is of a later version of this program.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("state.db");
        let fail = |why: String| StoreError { path: path.clone(), why };
        std::fs::create_dir_all(folder).map_err(|error| fail(error.to_string()))?;
        let db = Connection::open(&path).map_err(|error| fail(error.to_string()))?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| fail(error.to_string()))?;
        if version > SCHEMA {
            return Err(fail(format!("schema {version} is newer than this program's {SCHEMA}")));
        }
        // A journalled state must be on the medium before the kernel is told.
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS service (
                 name TEXT PRIMARY KEY, id INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS receipt (
                 id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL,
                 target TEXT NOT NULL, document TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS note (
                 key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
             PRAGMA user_version = {SCHEMA};"
        ))
        .map_err(|error| fail(error.to_string()))?;
        Ok(Self { path, db })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError { path: self.path.clone(), why: error.to_string() }
    }

    fn documents<T: serde::de::DeserializeOwned>(
        &self,
        query: &str,
        arguments: impl rusqlite::Params,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.db.prepare_cached(query).map_err(|error| self.failed(&error))?;
        let rows = statement
            .query_map(arguments, |row| row.get::<_, String>(0))
            .map_err(|error| self.failed(&error))?;
        rows.map(|row| {
            let text = row.map_err(|error| self.failed(&error))?;
            serde_json::from_str(&text).map_err(|error| self.failed(&error))
        })
        .collect()
    }

    fn write(&self, query: &str, arguments: impl rusqlite::Params) -> Result<(), StoreError> {
        self.db.execute(query, arguments).map(|_| ()).map_err(|error| self.failed(&error))
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Vec<ServiceState>, StoreError> {
        self.documents("SELECT document FROM service ORDER BY id", [])
    }

    fn save(&mut self, service: &ServiceState) -> Result<(), StoreError> {
        let document = serde_json::to_string(service).map_err(|error| self.failed(&error))?;
        self.write(
            "INSERT OR REPLACE INTO service (name, id, document) VALUES (?1, ?2, ?3)",
            params![service.name, service.id, document],
        )
    }

    fn remove(&mut self, service: &str) -> Result<(), StoreError> {
        self.write("DELETE FROM service WHERE name = ?1", params![service])
    }

    fn add_receipt(&mut self, mut receipt: Receipt) -> Result<Receipt, StoreError> {
        let transaction = self
            .db
            .transaction()
            .map_err(|error| StoreError { path: self.path.clone(), why: error.to_string() })?;
        let result = (|| -> Result<Receipt, Box<dyn std::error::Error>> {
            transaction.execute(
                "INSERT INTO receipt (service, target, document) VALUES (?1, ?2, '')",
                params![receipt.report.service, receipt.report.target],
            )?;
            receipt.id = u64::try_from(transaction.last_insert_rowid())?;
            receipt.hash = crate::verdict::receipt::hash(&receipt)?;
            transaction.execute(
                "UPDATE receipt SET document = ?1 WHERE id = ?2",
                params![serde_json::to_string(&receipt)?, receipt.id],
            )?;
            transaction.commit()?;
            Ok(receipt)
        })();
        result.map_err(|error| StoreError { path: self.path.clone(), why: error.to_string() })
    }

    fn receipts(&self, service: &str) -> Result<Vec<Receipt>, StoreError> {
        self.documents(
            "SELECT document FROM receipt WHERE service = ?1 ORDER BY id DESC",
            params![service],
        )
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.db
            .query_row("SELECT value FROM note WHERE key = ?1", params![key], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed(&error))
    }

    fn set_note(&mut self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.write(
                "INSERT OR REPLACE INTO note (key, value) VALUES (?1, ?2)",
                params![key, value],
            ),
            None => self.write("DELETE FROM note WHERE key = ?1", params![key]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Frontend;

    fn service(name: &str, id: u32) -> ServiceState {
        ServiceState {
            name: name.to_owned(),
            id,
            generation: 3,
            frontends: vec![Some(Frontend::parse("192.0.2.1:80/udp").unwrap()), None],
            frontends6: vec![Some(Frontend::parse("[2001:db8::1]:80/tcp").unwrap())],
            ..ServiceState::default()
        }
    }

    #[test]
    fn what_is_saved_is_loaded_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        store.save(&service("b", 1)).unwrap();
        store.save(&service("a", 0)).unwrap();
        store.save(&ServiceState { generation: 4, ..service("b", 1) }).unwrap();
        store.set_note("k", Some("v")).unwrap();
        drop(store);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded, [service("a", 0), ServiceState { generation: 4, ..service("b", 1) }]);
        assert_eq!(store.note("k").unwrap().as_deref(), Some("v"));
        store.remove("a").unwrap();
        store.set_note("k", None).unwrap();
        assert_eq!(store.load().unwrap().len(), 1);
        assert_eq!(store.note("k").unwrap(), None);
    }

    /// Documents of versions that knew IPv4 and TCP only.
    #[test]
    fn what_an_earlier_version_wrote_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let document = r#"{"name":"a","id":0,"generation":3,"frontends":["192.0.2.1:80",null],
            "removed":false,"versions":[]}"#;
        let query = "INSERT INTO service (name, id, document) VALUES ('a', 0, ?1)";
        store.write(query, params![document]).unwrap();
        let loaded = store.load().unwrap();
        let tcp = Frontend::parse("192.0.2.1:80/tcp").unwrap();
        assert_eq!(loaded[0].frontends, [Some(tcp), None]);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("state.db")).unwrap();
        db.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(db);
        let error = SqliteStore::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains("99"), "{error}");
    }
}
