use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard};

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::machine::Judgement;
use super::super::machine::tests::a_release;
use super::super::plan::{Action, OnDeadline};
use super::*;
use crate::store::SqliteStore;

/// A world in which everything succeeds, and hooks are real processes that write their names down.
struct Fake {
    folder: TempDir,
    store: Mutex<SqliteStore>,
    /// Wants that were performed.
    done: Mutex<Vec<String>>,
    /// Wants of these names never end.
    stuck: Vec<&'static str>,
    /// So many times a proof holds no more.
    voids: AtomicU32,
}

struct Guard<'a>(MutexGuard<'a, SqliteStore>);

impl std::ops::Deref for Guard<'_> {
    type Target = dyn Journal + Send;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Mutex::new(SqliteStore::open(folder.path()).unwrap());
        Self { folder, store, done: Mutex::default(), stuck: Vec::new(), voids: AtomicU32::new(0) }
    }

    /// A hook that writes `word` and its instance to the log, after `before`.
    fn hook(&self, word: &str, before: &str, idempotent: bool) -> Option<Hook> {
        let log = self.folder.path().join("log");
        let script = format!("{before}; echo {word} $RELEASE_INSTANCE >> {}", log.display());
        let argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let timeout = Duration::from_secs(20);
        Some(Hook { action: Action::Exec(argv), timeout, idempotent, secrets: Vec::new() })
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn begin(&self, release: Release) -> Release {
        let entry = Entry {
            at: self.now(),
            state: "pending".to_owned(),
            kind: "state".to_owned(),
            text: String::new(),
            data: serde_json::Value::Null,
        };
        self.journal().begin_release(release, &entry).unwrap()
    }
}

impl World for Fake {
    fn journal(&self) -> impl DerefMut<Target = dyn Journal + Send> {
        Guard(self.store.lock().unwrap())
    }

    fn now(&self) -> String {
        "2026-01-01T00:00:00Z".to_owned()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(1000)
    }

    async fn stopped(&self) {
        std::future::pending().await
    }

    async fn instances(&self, release: &Release, part: Part) -> Vec<String> {
        match part {
            Part::Batch(batch) => release.batch(batch).to_vec(),
            _ => vec!["a".to_owned(), "b".to_owned()],
        }
    }

    async fn call(
        &self,
        release: &Release,
        point: Point,
        instance: Option<&str>,
        by: Option<&Proof>,
    ) -> Call {
        let instance = instance.map(str::to_owned);
        Call {
            point,
            service: release.service.clone(),
            version: release.to.clone(),
            variables: instance
                .iter()
                .map(|i| ("RELEASE_INSTANCE".to_owned(), i.clone()))
                .collect(),
            instance,
            input: serde_json::json!({ "receipts": by.map(Proof::receipts) }),
        }
    }

    async fn holds(&self, _: &Release, _: &Proof) -> bool {
        self.voids.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err()
    }

    async fn perform(&self, _: &Release, want: &Want) -> Event {
        let name = format!("{want:?}");
        if self.stuck.iter().any(|stuck| name.starts_with(stuck)) {
            std::future::pending::<()>().await;
        }
        self.done.lock().unwrap().push(name);
        match want {
            Want::Idle(_) => Event::Idle { receipts: vec![7], forced: false },
            Want::Judge => Event::Judged(Judgement::Pass),
            _ => Event::Done,
        }
    }

    fn tell(&self, _: &Release, _: &Entry) {}
}

const LONG: Duration = Duration::from_secs(30);

async fn to_the_end(world: &Fake, release: Release) -> Release {
    let (_orders, mut receiver) = mpsc::channel(1);
    timeout(LONG, carry_out(world, release, &mut receiver)).await.unwrap().unwrap()
}

fn with_hooks(world: &Fake, idempotent: bool) -> Release {
    let mut release = a_release("web");
    release.plan.hooks.start = world.hook("start", "true", idempotent);
    release.plan.hooks.stop = world.hook("stop", "true", idempotent);
    release.plan.hooks.post_release = world.hook("post", "true", idempotent);
    release
}

#[tokio::test]
async fn a_release_is_carried_out() {
    let world = Fake::new();
    let release = world.begin(with_hooks(&world, false));
    let over = to_the_end(&world, release).await;
    assert_eq!(over.state(), "succeeded");
    assert_eq!(world.log(), ["start a", "start b", "stop a", "stop b", "post"]);
    let done = world.done.lock().unwrap().join(", ");
    let wanted = ["Ready(4)", "Shift(100)", "Drain(Old)", "Idle(Old)", "Window(60s)", "Retire"];
    let found: Vec<usize> = wanted.iter().map(|want| done.find(want).unwrap()).collect();
    assert!(found.is_sorted(), "{done}");
    let stored = world.journal().release(over.id).unwrap();
    assert_eq!(stored, Some(over));
}

/// A hook that runs is not ended by an order that cannot be.
#[tokio::test]
async fn a_refused_order_disturbs_nothing() {
    let world = Fake::new();
    let mut release = with_hooks(&world, false);
    release.plan.hooks.stop = world.hook("stop", "sleep 0.3", false);
    let stopping = at(&world, world.begin(release), "stopping").await;
    let (orders, mut receiver) = mpsc::channel(1);
    let ask = async {
        while world.journal().hook_runs(stopping.id).unwrap().len() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        let (answer, answered) = oneshot::channel::<Result<Release, Refused>>();
        orders.send((Command::Pause, answer)).await.unwrap();
        answered.await.unwrap().unwrap_err();
    };
    let (over, ()) = tokio::join!(carry_out(&world, stopping.clone(), &mut receiver), ask);
    assert_eq!(over.unwrap().state(), "succeeded");
    assert_eq!(world.journal().hook_runs(stopping.id).unwrap().len(), 5, "each once");
}

/// The daemon is killed while a hook runs; the hook goes on.
#[tokio::test]
async fn a_hook_in_the_dark_is_not_repeated_silently() {
    for idempotent in [false, true] {
        let world = Fake::new();
        let mut release = with_hooks(&world, idempotent);
        release.plan.hooks.stop = world.hook("stop", "sleep 0.5", idempotent);
        let release = world.begin(release);
        let stopping = at(&world, release, "stopping").await;
        let place = stopping.phase.place();
        // As the killed one left it: begun, with a process that still runs.
        let mut child = std::process::Command::new("/bin/sleep").arg("0.5").spawn().unwrap();
        let born = hook::birth(child.id()).unwrap();
        let run = HookRun {
            id: 0,
            release: stopping.id,
            point: Point::Stop,
            place,
            round: 0,
            instance: Some("a".to_owned()),
            began_at: world.now(),
            process: Some((child.id(), born)),
            ended_at: None,
            outcome: None,
            output: String::new(),
        };
        world.journal().begin_hook(&run).unwrap();
        let reaper = std::thread::spawn(move || child.wait());
        let (orders, mut receiver) = mpsc::channel(1);
        let work = carry_out(&world, stopping, &mut receiver);
        tokio::pin!(work);
        if !idempotent {
            timeout(Duration::from_secs(2), &mut work).await.unwrap_err();
            let paused = world.journal().release(run.release).unwrap().unwrap();
            let Phase::Paused { why, .. } = &paused.phase else { panic!("{paused:?}") };
            assert!(why.contains("nobody knows whether it was done"), "{why}");
            assert!(!world.log().iter().any(|line| line.starts_with("stop")));
            let (answer, _) = oneshot::channel();
            orders.send((Command::Resume, answer)).await.unwrap();
        }
        let over = timeout(LONG, work).await.unwrap().unwrap();
        assert_eq!(over.state(), "succeeded");
        assert_eq!(world.log()[2..], ["stop a", "stop b", "post"]);
        reaper.join().unwrap().unwrap();
    }
}

/// Carries it out until it is stored in that state.
async fn at(world: &Fake, release: Release, state: &str) -> Release {
    let mut release = release;
    while release.state() != state {
        let (_orders, mut receiver) = mpsc::channel(1);
        let moved = timeout(LONG, move_on(world, &release, &mut receiver)).await.unwrap();
        release = moved.unwrap().unwrap();
    }
    release
}

#[tokio::test]
async fn orders_are_heard_at_any_time_and_answered() {
    let world = Fake { stuck: vec!["Idle(Old)"], ..Fake::new() };
    let release = world.begin(with_hooks(&world, false));
    let id = release.id;
    let (orders, mut receiver) = mpsc::channel(1);
    let ask = async {
        let say = async |command| {
            let (answer, answered) = oneshot::channel::<Result<Release, Refused>>();
            orders.send((command, answer)).await.unwrap();
            answered.await.unwrap()
        };
        while world.journal().release(id).unwrap().unwrap().wanted() != Some(Want::Idle(Part::Old))
        {
            sleep(Duration::from_millis(10)).await;
        }
        let refused = say(Command::Abort("too late".to_owned())).await.unwrap_err();
        assert!(refused.to_string().contains("rollback goes back"), "{refused}");
        assert_eq!(say(Command::Reverse).await.unwrap().state(), "reversed");
    };
    let (over, ()) = tokio::join!(carry_out(&world, release, &mut receiver), ask);
    assert_eq!(over.unwrap().state(), "reversed");
    assert!(!world.log().iter().any(|line| line.starts_with("stop")));
}

#[tokio::test]
async fn limits_go_on_over_a_restart() {
    let world = Fake { stuck: vec!["Idle(Old)"], ..Fake::new() };
    let mut release = with_hooks(&world, false);
    release.plan.drain.deadline = Some(Duration::from_secs(60));
    release.plan.drain.on_deadline = OnDeadline::Hold;
    let release = world.begin(release);
    let mut draining = at(&world, release, "draining").await;
    draining = draining.after(&Event::Done).unwrap();
    // It began a minute before the daemon was started again.
    draining.since_boot_ms = 940_000;
    let held = at(&world, draining, "held").await;
    assert_eq!(held.phase, Phase::Held(Part::Old));
}

/// Something was opened after the receipt: it is drained again before anything is stopped.
#[tokio::test]
async fn a_proof_that_holds_no_more_stops_nothing() {
    let world = Fake { voids: AtomicU32::new(2), ..Fake::new() };
    let over = to_the_end(&world, world.begin(with_hooks(&world, false))).await;
    assert_eq!(over.state(), "succeeded");
    let drained = world.done.lock().unwrap().iter().filter(|d| d.starts_with("Idle(")).count();
    assert_eq!(drained, 3);
    assert_eq!(world.log().iter().filter(|line| line.starts_with("stop")).count(), 2);
}

/// Whatever hook fails: before the promotion it is given up, later somebody has to look.
#[tokio::test]
async fn failures_stop_it() {
    let world = Fake::new();
    let mut release = with_hooks(&world, false);
    release.plan.hooks.start = world.hook("start", "exit 3", false);
    let over = to_the_end(&world, world.begin(release)).await;
    assert_eq!(over.state(), "rolled-back");
    let world = Fake::new();
    let mut release = with_hooks(&world, false);
    release.plan.hooks.post_release = world.hook("post", "echo no disk; exit 3", false);
    let release = world.begin(release);
    let paused = at(&world, release, "paused").await;
    let Phase::Paused { why, then, .. } = paused.phase else { panic!() };
    assert!(
        why.ends_with("exit status: 3: no disk") && matches!(*then, Phase::PostRelease(_)),
        "{why}"
    );
}
