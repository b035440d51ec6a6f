//! The local store: one SQLite file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Forced, Store, StoreError, journal};
use crate::api::types::{ForcedFlow, How, MOST_FORCED, Receipt};
use crate::control::state::ServiceState;

/// Raised when the tables change.
const SCHEMA: i64 = 4;

/// State in `state.db`.
pub struct SqliteStore {
    path: PathBuf,
    pub(super) db: Connection,
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
             CREATE TABLE IF NOT EXISTS forced (
                 epoch INTEGER NOT NULL, backend INTEGER NOT NULL, client TEXT NOT NULL,
                 frontend TEXT NOT NULL, tag INTEGER NOT NULL, how TEXT NOT NULL,
                 document TEXT NOT NULL,
                 PRIMARY KEY (epoch, backend, client, frontend, tag)) STRICT, WITHOUT ROWID;
             {}
             PRAGMA user_version = {SCHEMA};",
            journal::TABLES
        ))
        .map_err(|error| fail(error.to_string()))?;
        Ok(Self { path, db })
    }

    pub(super) fn failed(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError { path: self.path.clone(), why: error.to_string() }
    }

    pub(super) fn documents<T: serde::de::DeserializeOwned>(
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

    /// All of it, or nothing.
    pub(super) fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError {
            path: self.path.clone(),
            why: error.to_string(),
        };
        let transaction = self.db.transaction().map_err(|error| failed(&error))?;
        let result = work(&transaction).map_err(|error| failed(&error))?;
        transaction.commit().map_err(|error| failed(&error))?;
        Ok(result)
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
        self.in_transaction(|transaction| {
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
            Ok(receipt)
        })
    }

    fn receipts(&self, service: &str) -> Result<Vec<Receipt>, StoreError> {
        self.documents(
            "SELECT document FROM receipt WHERE service = ?1 ORDER BY id DESC",
            params![service],
        )
    }

    fn add_forced(&mut self, epoch: u32, forced: &[Forced]) -> Result<Vec<bool>, StoreError> {
        self.in_transaction(|transaction| {
            transaction.execute("DELETE FROM forced WHERE epoch <> ?1", params![epoch])?;
            let mut count = transaction.prepare_cached(
                "SELECT count(*) FROM forced WHERE epoch = ?1 AND backend = ?2 AND how = ?3",
            )?;
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO forced (epoch, backend, client, frontend, tag, how, document)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let mut counted = HashMap::new();
            let mut new = Vec::new();
            for Forced { backend, tag, flow } in forced {
                let how = flow.how.as_str();
                let there = match counted.entry(*backend) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let reset = params![epoch, backend, How::Reset.as_str()];
                        place.insert(count.query_row(reset, |row| row.get::<_, usize>(0))?)
                    }
                };
                let counts = flow.how == How::Reset;
                let document = serde_json::to_string(flow)?;
                let row = params![epoch, backend, flow.client, flow.frontend, tag, how, document];
                let is_new = !(counts && *there >= MOST_FORCED) && insert.execute(row)? == 1;
                *there += usize::from(is_new && counts);
                new.push(is_new);
            }
            Ok(new)
        })
    }

    fn forced(&self, epoch: u32, backends: &[u32]) -> Result<Vec<ForcedFlow>, StoreError> {
        let query = "SELECT document FROM forced WHERE epoch = ?1 AND backend = ?2";
        let mut found: Vec<ForcedFlow> = Vec::new();
        for backend in backends {
            found.extend(self.documents::<ForcedFlow>(query, params![epoch, backend])?);
        }
        found.sort_by(|a, b| (&a.at, &a.client).cmp(&(&b.at, &b.client)));
        Ok(found)
    }

    fn destroyed(&self, epoch: u32, backends: &[u32]) -> Result<u64, StoreError> {
        let query = "SELECT count(*) FROM forced WHERE epoch = ?1 AND backend = ?2 AND how = ?3";
        let count = |backend: &u32| {
            let arguments = params![epoch, backend, How::SocketDestroyed.as_str()];
            self.db.query_row(query, arguments, |row| row.get::<_, u64>(0))
        };
        backends.iter().map(count).sum::<Result<u64, _>>().map_err(|error| self.failed(&error))
    }

    fn remove_forced(&mut self, epoch: u32, forced: &[Forced]) -> Result<(), StoreError> {
        self.in_transaction(|transaction| {
            for Forced { backend, tag, flow } in forced {
                transaction.execute(
                    "DELETE FROM forced WHERE epoch = ?1 AND backend = ?2 AND client = ?3
                     AND frontend = ?4 AND tag = ?5",
                    params![epoch, backend, flow.client, flow.frontend, tag],
                )?;
            }
            Ok(())
        })
    }

    fn forget_forced(&mut self, backends: &[u32]) -> Result<(), StoreError> {
        backends.iter().try_for_each(|backend| {
            self.write("DELETE FROM forced WHERE backend = ?1", params![backend])
        })
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

    fn forced(backend: u32, tag: u32, client: &str, how: How) -> Forced {
        let flow = ForcedFlow { how, ..crate::api::fake::forced(client) };
        Forced { backend, tag, flow }
    }

    #[test]
    fn what_was_forced_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let (a, b) = (forced(7, 1, "a", How::Reset), forced(8, 1, "b", How::SocketDestroyed));
        assert_eq!(store.add_forced(3, &[a.clone(), b.clone()]).unwrap(), [true, true]);
        drop(store);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let again = forced(7, 2, "a", How::Reset);
        assert_eq!(store.add_forced(3, &[a.clone(), again]).unwrap(), [false, true]);
        let clients = |store: &SqliteStore, epoch, backends: &[u32]| {
            let found = store.forced(epoch, backends).unwrap();
            found.into_iter().map(|flow| flow.client).collect::<Vec<_>>()
        };
        assert_eq!(clients(&store, 3, &[8, 7]), ["a", "a", "b"]);
        assert_eq!(clients(&store, 3, &[8]), ["b"]);
        assert_eq!(store.destroyed(3, &[7, 8]).unwrap(), 1);
        store.remove_forced(3, std::slice::from_ref(&a)).unwrap();
        assert_eq!(clients(&store, 3, &[7, 8]), ["a", "b"]);
        store.forget_forced(&[7]).unwrap();
        assert_eq!(clients(&store, 3, &[7, 8]), ["b"]);
        // The tables were made anew.
        assert!(clients(&store, 4, &[7, 8]).is_empty());
        store.add_forced(4, &[a]).unwrap();
        assert!(clients(&store, 3, &[7, 8]).is_empty());
    }

    /// The tables count those that are not kept; they do not count destroyed sockets.
    #[test]
    fn of_an_instance_no_more_is_kept_than_a_receipt_lists() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let many = |how: How| -> Vec<Forced> {
            let tags = 0..MOST_FORCED as u32 + 5;
            tags.map(|tag| forced(7, tag, how.as_str(), how)).collect()
        };
        let new = |found: Vec<bool>| found.into_iter().filter(|new| *new).count();
        assert_eq!(new(store.add_forced(1, &many(How::Reset)).unwrap()), MOST_FORCED);
        assert_eq!(new(store.add_forced(1, &many(How::Reset)).unwrap()), 0);
        let destroyed = many(How::SocketDestroyed);
        assert_eq!(new(store.add_forced(1, &destroyed).unwrap()), MOST_FORCED + 5);
        assert_eq!(new(store.add_forced(1, &[forced(8, 0, "a", How::Reset)]).unwrap()), 1);
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
