//! Releases in the local store.

use rusqlite::{Connection, Error, ErrorCode, OptionalExtension as _, params};

use super::{SqliteStore, StoreError};
use crate::release::journal::{BeginError, Entry, HookRun, Journal};
use crate::release::machine::Release;
use crate::release::sample::{self, Sample};

/// The tables of it. A service has one release that is not over.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS release (
        id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, over INTEGER NOT NULL,
        document TEXT NOT NULL) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS one_release ON release (service) WHERE over = 0;
    CREATE TABLE IF NOT EXISTS release_entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT, release INTEGER NOT NULL REFERENCES release (id),
        document TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS entries_of ON release_entry (release);
    CREATE TABLE IF NOT EXISTS hook_run (
        id INTEGER PRIMARY KEY AUTOINCREMENT, release INTEGER NOT NULL REFERENCES release (id),
        document TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS hooks_of ON hook_run (release);
    CREATE TABLE IF NOT EXISTS release_sample (
        id INTEGER PRIMARY KEY AUTOINCREMENT, release INTEGER NOT NULL REFERENCES release (id),
        document TEXT NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS samples_of ON release_sample (release);";

fn add_entry(db: &Connection, release: u64, entry: &Entry) -> Result<(), Error> {
    let document = serde_json::to_string(entry).map_err(to_sql)?;
    let query = "INSERT INTO release_entry (release, document) VALUES (?1, ?2)";
    db.execute(query, params![release, document]).map(drop)
}

fn put_release(db: &Connection, release: &Release) -> Result<(), Error> {
    let document = serde_json::to_string(release).map_err(to_sql)?;
    let query = "UPDATE release SET over = ?2, document = ?3 WHERE id = ?1";
    db.execute(query, params![release.id, release.phase.is_over(), document]).map(drop)
}

fn to_sql(error: serde_json::Error) -> Error {
    Error::ToSqlConversionFailure(Box::new(error))
}

impl SqliteStore {
    /// The release of a service that is not over.
    fn under_way(&self, service: &str) -> Result<Option<u64>, StoreError> {
        let query = "SELECT id FROM release WHERE service = ?1 AND over = 0";
        let found = self.db.query_row(query, params![service], |row| row.get(0)).optional();
        found.map_err(|error| self.failed(&error))
    }
}

impl Journal for SqliteStore {
    fn begin_release(
        &mut self,
        mut release: Release,
        entry: &Entry,
    ) -> Result<Release, BeginError> {
        let begun = (|| {
            let transaction = self.db.transaction()?;
            let query = "INSERT INTO release (service, over, document) VALUES (?1, 0, '')";
            transaction.execute(query, params![release.service])?;
            release.id = transaction.last_insert_rowid() as u64;
            put_release(&transaction, &release)?;
            add_entry(&transaction, release.id, entry)?;
            transaction.commit()
        })();
        match begun {
            Ok(()) => Ok(release),
            Err(Error::SqliteFailure(why, _)) if why.code == ErrorCode::ConstraintViolation => {
                let other = self.under_way(&release.service)?;
                Err(BeginError::UnderWay(other.unwrap_or_default()))
            }
            Err(error) => Err(self.failed(&error).into()),
        }
    }

    fn save_release(&mut self, release: &Release, entry: Option<&Entry>) -> Result<(), StoreError> {
        self.in_transaction(|transaction| {
            put_release(transaction, release)?;
            Ok(entry.map_or(Ok(()), |entry| add_entry(transaction, release.id, entry))?)
        })
    }

    fn note_entry(&mut self, release: u64, entry: &Entry) -> Result<(), StoreError> {
        add_entry(&self.db, release, entry).map_err(|error| self.failed(&error))
    }

    fn release(&self, id: u64) -> Result<Option<Release>, StoreError> {
        let query = "SELECT document FROM release WHERE id = ?1";
        Ok(self.documents(query, params![id])?.pop())
    }

    fn releases(&self, service: Option<&str>, over: bool) -> Result<Vec<Release>, StoreError> {
        let query = "SELECT document FROM release
                     WHERE (?1 IS NULL OR service = ?1) AND (?2 OR over = 0) ORDER BY id DESC";
        self.documents(query, params![service, over])
    }

    fn timeline(&self, release: u64, skip: usize) -> Result<Vec<Entry>, StoreError> {
        let query = "SELECT document FROM release_entry WHERE release = ?1 ORDER BY id
                     LIMIT -1 OFFSET ?2";
        self.documents(query, params![release, skip as u64])
    }

    fn span(&self, release: u64) -> Result<Option<(String, String)>, StoreError> {
        let one = |order: &str| {
            let query = format!(
                "SELECT document FROM release_entry WHERE release = ?1 ORDER BY id {order} LIMIT 1"
            );
            self.documents::<Entry>(&query, params![release])
        };
        let (first, last) = (one("ASC")?.pop(), one("DESC")?.pop());
        Ok(first.zip(last).map(|(first, last)| (first.at, last.at)))
    }

    fn last_entry(&self, release: u64, kind: &str) -> Result<Option<Entry>, StoreError> {
        let query = "SELECT document FROM release_entry
                     WHERE release = ?1 AND json_extract(document, '$.kind') = ?2
                     ORDER BY id DESC LIMIT 1";
        Ok(self.documents(query, params![release, kind])?.pop())
    }

    fn begin_hook(&mut self, run: &HookRun) -> Result<u64, StoreError> {
        self.in_transaction(|transaction| {
            let query = "INSERT INTO hook_run (release, document) VALUES (?1, '')";
            transaction.execute(query, params![run.release])?;
            let id = transaction.last_insert_rowid() as u64;
            put_hook(transaction, &HookRun { id, ..run.clone() })?;
            Ok(id)
        })
    }

    fn save_hook(&mut self, run: &HookRun) -> Result<(), StoreError> {
        put_hook(&self.db, run).map_err(|error| self.failed(&error))
    }

    fn hook_runs(&self, release: u64) -> Result<Vec<HookRun>, StoreError> {
        let query = "SELECT document FROM hook_run WHERE release = ?1 ORDER BY id";
        self.documents(query, params![release])
    }

    fn add_sample(&mut self, release: u64, sample: &Sample) -> Result<(), StoreError> {
        put_sample(&self.db, release, sample).map_err(|error| self.failed(&error))?;
        let query = "SELECT count(*) FROM release_sample WHERE release = ?1";
        let count = self.db.query_row(query, params![release], |row| row.get::<_, usize>(0));
        if count.map_err(|error| self.failed(&error))? <= sample::MOST {
            return Ok(());
        }
        let kept = sample::thin(self.samples(release)?);
        self.in_transaction(|transaction| {
            let query = "DELETE FROM release_sample WHERE release = ?1";
            transaction.execute(query, params![release])?;
            kept.iter().try_for_each(|sample| Ok(put_sample(transaction, release, sample)?))
        })
    }

    fn samples(&self, release: u64) -> Result<Vec<Sample>, StoreError> {
        let query = "SELECT document FROM release_sample WHERE release = ?1 ORDER BY id";
        self.documents(query, params![release])
    }
}

fn put_sample(db: &Connection, release: u64, sample: &Sample) -> Result<(), Error> {
    let document = serde_json::to_string(sample).map_err(to_sql)?;
    let mut insert =
        db.prepare_cached("INSERT INTO release_sample (release, document) VALUES (?1, ?2)")?;
    insert.execute(params![release, document]).map(drop)
}

fn put_hook(db: &Connection, run: &HookRun) -> Result<(), Error> {
    let document = serde_json::to_string(run).map_err(to_sql)?;
    let query = "UPDATE hook_run SET document = ?2 WHERE id = ?1";
    db.execute(query, params![run.id, document]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::hook::Outcome;
    use crate::release::machine::{Event, tests::a_release};
    use crate::release::phase::{Phase, Point};
    use crate::release::sample::tests::a_sample;

    fn entry(text: &str) -> Entry {
        Entry {
            at: "2026-01-01T00:00:00Z".to_owned(),
            state: "pending".to_owned(),
            kind: "state".to_owned(),
            text: text.to_owned(),
            data: serde_json::json!({ "number": 1 }),
        }
    }

    #[test]
    fn a_service_has_one_release_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let first = store.begin_release(a_release("web"), &entry("began")).unwrap();
        assert!(store.begin_release(a_release("other"), &entry("began")).is_ok());
        let second = store.begin_release(a_release("web"), &entry("began"));
        assert!(matches!(second, Err(BeginError::UnderWay(id)) if id == first.id));
        let over = Release { phase: Phase::Reversed, ..first.clone() };
        store.save_release(&over, Some(&entry("reversed"))).unwrap();
        let third = store.begin_release(a_release("web"), &entry("began")).unwrap();
        assert!(third.id > first.id);
        let ids: Vec<u64> =
            store.releases(Some("web"), true).unwrap().iter().map(|r| r.id).collect();
        assert_eq!(ids, [third.id, first.id]);
        assert_eq!(store.releases(None, true).unwrap().len(), 3);
        let under_way = store.releases(Some("web"), false).unwrap();
        assert_eq!(under_way.iter().map(|r| r.id).collect::<Vec<_>>(), [third.id]);
        assert_eq!(store.releases(None, false).unwrap().len(), 2);
    }

    #[test]
    fn the_next_process_finds_it_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let begun = store.begin_release(a_release("web"), &entry("began")).unwrap();
        let staging = begun.after(&Event::Done).unwrap();
        store.save_release(&staging, Some(&entry("staging"))).unwrap();
        store.note_entry(begun.id, &entry("more")).unwrap();
        let mut run = HookRun {
            id: 0,
            release: begun.id,
            point: Point::Start,
            place: "staging".to_owned(),
            round: 0,
            instance: Some("a".to_owned()),
            began_at: "now".to_owned(),
            process: None,
            ended_at: None,
            outcome: None,
            output: String::new(),
        };
        run.id = store.begin_hook(&run).unwrap();
        (run.process, run.outcome) = (Some((7, 8)), Some(Outcome::Done));
        store.save_hook(&run).unwrap();
        drop(store);
        let store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(store.release(begun.id).unwrap(), Some(staging));
        assert_eq!(store.release(99).unwrap(), None);
        let texts = store.timeline(begun.id, 0).unwrap().into_iter().map(|entry| entry.text);
        assert_eq!(texts.collect::<Vec<_>>(), ["began", "staging", "more"]);
        assert_eq!(store.hook_runs(begun.id).unwrap(), [run]);
    }

    #[test]
    fn no_more_samples_are_kept_than_a_report_draws() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        // The medium need not keep up here.
        store.db.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let ids = ["web", "other"]
            .map(|service| store.begin_release(a_release(service), &entry("began")).unwrap().id);
        let one = a_sample(0, [1, 2], [3, 4]);
        store.add_sample(ids[1], &one).unwrap();
        let most = sample::MOST as u64;
        let add = |store: &mut SqliteStore, number: u64| {
            store.add_sample(ids[0], &a_sample(number * 2, [number, 0], [0, 0])).unwrap();
        };
        (0..most).for_each(|number| add(&mut store, number));
        assert_eq!(store.samples(ids[0]).unwrap().len(), sample::MOST);
        add(&mut store, most);
        let opened = |store: &SqliteStore| -> Vec<u64> {
            let samples = store.samples(ids[0]).unwrap();
            samples.iter().map(|sample| sample.versions[0].opened).collect()
        };
        assert_eq!(opened(&store), (0..=most).step_by(2).collect::<Vec<_>>());
        add(&mut store, most + 2);
        drop(store);
        let store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(opened(&store), (0..=most + 2).step_by(2).collect::<Vec<_>>());
        assert_eq!(store.samples(ids[1]).unwrap(), [one]);
    }

    /// A store of before there were samples.
    #[test]
    fn an_older_store_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let begun = store.begin_release(a_release("web"), &entry("began")).unwrap();
        let old_run = r#"{"id":1,"release":1,"point":"start","place":"staging","round":0,
            "instance":null,"began_at":"then","process":null,"outcome":"done","output":""}"#;
        let older = format!(
            "DROP TABLE release_sample; PRAGMA user_version = 3;
             INSERT INTO hook_run (release, document) VALUES ({}, '{old_run}')",
            begun.id
        );
        store.db.execute_batch(&older).unwrap();
        drop(store);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(store.release(begun.id).unwrap(), Some(begun.clone()));
        assert_eq!(store.hook_runs(begun.id).unwrap()[0].ended_at, None);
        assert_eq!(store.samples(begun.id).unwrap(), []);
        let one = a_sample(0, [1, 2], [3, 4]);
        store.add_sample(begun.id, &one).unwrap();
        assert_eq!(store.samples(begun.id).unwrap(), [one]);
    }
}
