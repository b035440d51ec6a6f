//! Commands against a daemon of fixed answers, over a real socket.

use crate::api::client::Client;
use crate::api::fake::{Fake, event};
use crate::api::tests::Served;
use crate::api::types::{ApiError, ErrorCode, Verdict};
use crate::cli::args::Cli;
use crate::cli::output::{Out, error_text};
use crate::cli::values::Output;
use crate::cli::{Context, Ended};
use crate::paths::Paths;
use clap::Parser as _;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was printed, for the test to see.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that went away.
struct Closed(io::ErrorKind);

impl io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn run_into(socket: &Path, line: &str, sink: Box<dyn io::Write>) -> Ended {
    run_as(socket, line, |format| Out::to_sink(format, sink)).await
}

async fn run_as(socket: &Path, line: &str, out: impl FnOnce(Output) -> Out) -> Ended {
    let cli = Cli::try_parse_from(std::iter::once("releasectl").chain(line.split(' '))).unwrap();
    let mut context = Context {
        paths: Paths { socket: socket.to_owned(), ..Paths::default() },
        client: Client::new(socket, cli.global.api_timeout),
        out: out(cli.global.output),
    };
    context.carry_out(cli.command, 0).await
}

pub(super) async fn run(served: &Served, line: &str) -> (Ended, String) {
    let sink = Sink::default();
    let ended = run_into(&served.socket, line, Box::new(sink.clone())).await;
    let printed = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    (ended, printed)
}

/// As if somebody read it as it comes.
pub(super) async fn run_on_terminal(served: &Served, line: &str) -> (Ended, String) {
    let sink = Sink::default();
    let into = Box::new(sink.clone());
    let out = |format| {
        let mut out = Out::to_sink(format, into);
        out.terminal = true;
        out
    };
    let ended = run_as(&served.socket, line, out).await;
    let printed = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    (ended, printed)
}

/// Runs a command that must end with 0.
pub(super) async fn done(served: &Served, line: &str) -> String {
    let (ended, printed) = run(served, line).await;
    assert_eq!(ended.unwrap(), 0, "{line}");
    printed
}

pub(super) async fn fails(served: &Served, line: &str) -> (ApiError, String) {
    let (ended, printed) = run(served, line).await;
    (ended.unwrap_err(), printed)
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn every_command_prints() {
    let served = Served::new(Fake::new());
    for (line, expected) in [
        ("shift web v1=10 v2=90", "web: generation 8 in force: v1=10 v2=90 (after 3.2 ms)\n"),
        ("undrain web v1", "web: generation 8 in force: v1=0 v2=100 (nothing had to change)\n"),
        (
            "drain web v1",
            "web: generation 8 in force: v1=0 v2=100 (nothing had to change)\n\
             web v1: idle (generation 7)\n  last packet 412 ms ago\n",
        ),
        ("reload", "web: version v3 added\n"),
        ("detach", "detached: the data plane is down, the daemon ends\n"),
        (
            "explain tcp 198.51.100.7:40000 192.0.2.10:80",
            "placement: web v2 web-b (generation 7)\n  no flow, no embryo\n  hash 0x1234: v2\n",
        ),
        (
            "events",
            "2026-01-01T00:00:00Z  shift  web: event 1\n\
             2026-01-01T00:00:00Z  shift  web: event 2\n",
        ),
        (
            "flows",
            "\
CLIENT              FRONTEND           SERVICE  VERSION  INSTANCE        STATE        GEN      AGE  LAST PACKET  LAST DATA  CLIENT END  SERVER END
198.51.100.7:40000  192.0.2.10:80/tcp  web      v1       10.0.0.11:8080  half-closed    6  4 m 2 s       412 ms    1 m 1 s  alive
",
        ),
        (
            "instance list",
            "\
SERVICE  VERSION  INSTANCE  ADDRESS         STATE   SOURCE      LEASE  ACTIVE  PLACED  OPENED  ADOPTED  FIN  RST  EXPIRED  PACKETS  BYTES
web      v1       web-b     10.0.0.22:8080  active  configured             12     993     991        0    0    0        0        0      0
",
        ),
        (
            "idle receipts web",
            "\
ID  AT                    TARGET  GENERATION  FORCED  EPOCH  INTACT
 3  2026-01-01T00:00:00Z  v1               7       0      1  no
",
        ),
        (
            "idle receipt web v1",
            "\
receipt 3 of 2026-01-01T00:00:00Z
web v1: idle (generation 7)
  last packet 412 ms ago
  evidence epoch 1, boot b00t

INSTANCE        OPENED  ADOPTED  FIN  RST  EXPIRED  TIMED OUT  FORCED  UNTRACKED
10.0.0.11:8080     991        0    0    0        0          0       0          0

3 connections were ended on order, 2 of them not listed (--explain lists them)

hash 00ff
",
        ),
    ] {
        assert_eq!(done(&served, line).await, expected, "{line}");
    }
}

#[tokio::test]
async fn json_has_the_keys_of_the_contract() {
    let served = Served::new(Fake::new());
    let status = json(&done(&served, "status web -o json").await);
    let version = &status["services"][0]["versions"][0];
    assert_eq!(status["schema"], 1);
    assert_eq!(version["flows"]["half_closed"], 1);
    assert_eq!(version["instances"][0]["counters"]["opened"], 991);
    let idle = json(&done(&served, "idle check web v1 -o json").await);
    assert_eq!((&idle["verdict"], &idle["evidence"][0]["ok"]), (&"idle".into(), &true.into()));
    let flows = done(&served, "flows -o jsonl").await;
    assert_eq!(flows.lines().count(), 1);
    assert_eq!(json(&flows)["last_data_age_ms"], 61_000);
    assert!(json(&done(&served, "flows -o json").await).is_array());
    assert!(json(&done(&served, "events -o json").await).is_array());
    assert_eq!(json(&done(&served, "shift web v1=1 -o json").await)["generation"], 8);
    assert_eq!(json(&done(&served, "idle receipt web v1 -o json").await)["hash"], "00ff");

    let drained = json(&done(&served, "drain web v1 -o json").await);
    assert_eq!(drained["in_force"]["generation"], 8);
    assert_eq!(drained["idle"]["verdict"], "idle");
    let drained = json(&done(&served, "drain web v1 --no-wait -o json").await);
    assert_eq!(drained["in_force"]["generation"], 8);
    assert!(drained["idle"].is_null());
    let lines = done(&served, "drain web v1 -o jsonl").await;
    let lines: Vec<Value> = lines.lines().map(json).collect();
    assert_eq!((&lines[0]["generation"], &lines[1]["verdict"]), (&8.into(), &"idle".into()));
}

#[tokio::test]
async fn verdicts_have_exit_codes() {
    for (verdict, code) in [(Verdict::Idle, 0), (Verdict::Busy, 4), (Verdict::Unknown, 6)] {
        let served = Served::new(Fake::with_verdicts(&[verdict]));
        let (ended, printed) = run(&served, "idle check web v1").await;
        assert_eq!(ended.unwrap(), code);
        assert!(printed.starts_with(&format!("web v1: {verdict} (generation 7)\n")), "{printed}");
        let (ended, _) = run(&served, "idle receipt web v1").await;
        assert_eq!(ended.unwrap_or_else(|error| error.code.exit_code()), code);
        // The code counts even if nobody reads what is printed.
        let closed = Box::new(Closed(io::ErrorKind::BrokenPipe));
        let ended = run_into(&served.socket, "idle check web v1", closed).await;
        assert_eq!(ended.unwrap(), code);
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error() {
    let served = Served::new(Fake::new());
    let full = Box::new(Closed(io::ErrorKind::StorageFull));
    let error = run_into(&served.socket, "status", full).await.unwrap_err();
    assert!(error.message.starts_with("stdout: cannot be written to: "), "{error}");
}

#[tokio::test]
async fn waits_last_until_idle() {
    let verdicts = [Verdict::Busy, Verdict::Unknown, Verdict::Idle];
    for line in ["idle wait web v1 --timeout 1m", "idle wait web v1", "drain web v1"] {
        let served = Served::new(Fake::with_verdicts(&verdicts));
        assert!(done(&served, line).await.contains("web v1: idle"), "{line}");
        assert_eq!(served.fake.verdicts.lock().unwrap().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn a_wait_outlives_a_restart_of_the_daemon() {
    let served = Served::new(Fake::with_verdicts(&[Verdict::Busy, Verdict::Busy, Verdict::Busy]));
    let folder = tempfile::TempDir::new().unwrap();
    // The next daemon has another socket; a link leads to the one that is there.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&served.socket, &link).unwrap();
    let sink = Sink::default();
    let restart = async {
        while served.fake.verdicts.lock().unwrap().len() == 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served.stop().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let next = Served::new(Fake::new());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&next.socket, &link).unwrap();
        next
    };
    let (ended, _next) =
        tokio::join!(run_into(&link, "drain web v1", Box::new(sink.clone())), restart);
    assert_eq!(ended.unwrap(), 0);
}

#[tokio::test]
async fn waits_end_at_their_deadline() {
    let held = "held: the drain stays in force; releasectl idle wait web v1, \
                or back: releasectl undrain web v1";
    for (line, verdict, code, message, hint) in [
        (
            "drain web v1 --deadline 600ms",
            Verdict::Busy,
            4,
            "web v1: not idle at the deadline of 600ms: 12 active flows",
            Some(held),
        ),
        (
            "drain web v1 --deadline 0s",
            Verdict::Unknown,
            6,
            "web v1: not idle at the deadline of 0s: 3 flows expired; 1 flow untracked",
            Some(held),
        ),
        (
            "idle wait web v1 --timeout 10ms",
            Verdict::Busy,
            9,
            "web v1: busy after 10ms: 12 active flows",
            None,
        ),
        (
            "idle wait web v1 --timeout 10ms",
            Verdict::Unknown,
            9,
            "web v1: unknown after 10ms: 3 flows expired; 1 flow untracked",
            None,
        ),
    ] {
        let served = Served::new(Fake::with_verdicts(&[verdict]));
        let (error, _) = fails(&served, line).await;
        assert_eq!((error.code.exit_code(), &*error.message), (code, message), "{line}");
        assert_eq!(error.hint.as_deref(), hint, "{line}");
        let (error, printed) = fails(&served, &format!("{line} -o jsonl")).await;
        assert_eq!(error.code.exit_code(), code);
        let last = json(printed.lines().last().unwrap());
        assert_eq!(last["verdict"], verdict.to_string());
    }
}

#[tokio::test]
async fn the_deadline_is_told_to_the_daemon() {
    let served = Served::new(Fake::new());
    done(&served, "drain web v1 --deadline 1500ms --no-wait --allow-empty").await;
    let asked = served.fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        asked,
        "drain {\"service\":\"web\",\"target\":\"v1\",\"deadline_s\":1.5,\"allow_empty\":true}"
    );
}

#[tokio::test]
async fn the_daemons_errors_are_ours() {
    let served = Served::new(Fake::new());
    for line in
        ["status wbe", "shift wbe v1=1", "drain wbe v1", "idle wait wbe v1", "status wbe -w"]
    {
        let (error, printed) = fails(&served, line).await;
        assert_eq!((error.code.exit_code(), &*printed), (2, ""), "{line}");
        assert_eq!(
            error_text(&error, Output::Text),
            "error: service \"wbe\": unknown (services: web)\n"
        );
    }
    let (error, _) = fails(&served, "shift web v1=0").await;
    assert_eq!(error.code.exit_code(), 8);
    let (error, _) = fails(&served, "shift web v1=1 v1=2").await;
    assert_eq!((error.code, &*error.message), (ErrorCode::Usage, "version v1: named twice"));
}

#[tokio::test]
async fn a_slow_daemon_keeps_its_data_plane() {
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("s.sock");
    let _silent = crate::api::server::bind(&socket).unwrap();
    let sink = Sink::default();
    let ended = run_into(&socket, "detach --api-timeout 50ms", Box::new(sink)).await;
    assert!(ended.unwrap_err().message.contains("no answer within 50ms"));
}

#[tokio::test]
async fn followed_events_come_one_a_line() {
    let served = Served::new(Fake::new());
    let sink = Sink::default();
    let following = run_into(&served.socket, "events -f -o json", Box::new(sink.clone()));
    let lines = || String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let sender = served.fake.events.clone();
    let check = async {
        while sender.send(event(3)).is_err() || lines().lines().count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = following => panic!("{ended:?}"),
        checked = tokio::time::timeout(Duration::from_secs(20), check) => checked.unwrap(),
    }
    let seqs: Vec<u64> = lines().lines().map(|line| json(line)["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[tokio::test]
async fn a_watch_prints_blocks_and_ends_with_its_reader() {
    let served = Served::new(Fake::new());
    let closed = Box::new(Closed(io::ErrorKind::BrokenPipe));
    assert_eq!(run_into(&served.socket, "status -w", closed).await.unwrap(), 0);
    let sink = Sink::default();
    let watching = run_into(&served.socket, "status -w -o jsonl", Box::new(sink.clone()));
    let lines = || sink.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count();
    let check = async {
        while lines() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = watching => panic!("{ended:?}"),
        checked = tokio::time::timeout(Duration::from_secs(20), check) => checked.unwrap(),
    }
}

#[tokio::test]
async fn check_needs_no_daemon() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("release.toml");
    let good = "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
                frontends = [\"192.0.2.10:80/tcp\"]\n[[service.version]]\nname = \"v1\"\n\
                weight = 100\ninstances = [\"10.0.0.11:8080\"]\n";
    std::fs::write(&file, good).unwrap();
    let line = format!("check {}", file.display());
    let sink = Sink::default();
    let ended = run_into(Path::new("/nonexistent"), &line, Box::new(sink.clone())).await;
    assert_eq!(ended.unwrap(), 0);
    let printed = String::from_utf8(std::mem::take(&mut *sink.0.lock().unwrap())).unwrap();
    assert_eq!(printed, "configuration is valid: 1 service, 1 version, 1 instance\n");

    let plan = "[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\n";
    std::fs::write(&file, format!("{good}{plan}")).unwrap();
    let ended = run_into(Path::new("/nonexistent"), &line, Box::new(sink.clone())).await;
    assert_eq!(ended.unwrap(), 0);
    let printed = String::from_utf8(std::mem::take(&mut *sink.0.lock().unwrap())).unwrap();
    assert_eq!(printed, "configuration is valid: 1 service, 1 version, 1 instance, 1 plan\n");

    std::fs::write(&file, good.replace("weight", "wieght")).unwrap();
    let ended = run_into(Path::new("/nonexistent"), &line, Box::new(sink.clone())).await;
    assert_eq!(ended.unwrap(), 2);
    let line = format!("{line} -o json");
    let ended = run_into(Path::new("/nonexistent"), &line, Box::new(sink.clone())).await;
    assert_eq!(ended.unwrap_err().code, ErrorCode::Usage);
    let report = json(std::str::from_utf8(&sink.0.lock().unwrap()).unwrap());
    assert_eq!((&report["valid"], &report["errors"][0]["line"]), (&false.into(), &9.into()));
    let key = report["errors"][0]["key"].as_str().unwrap();
    assert!(key.ends_with("wieght"), "{key}");
}
