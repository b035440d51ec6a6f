//! Running a hook: one program or systemd unit, once.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use super::phase::Point;
use super::plan::{Action, Hook};

/// How long a hook may go on after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How long its output is read after its end: a process that it left behind may hold it open.
const DRAIN: Duration = Duration::from_secs(1);
/// How much of the end of its output is kept.
const KEPT: usize = 16 * 1024;
/// Exit code: not yet, ask again (`EX_TEMPFAIL` of sysexits.h).
const NOT_YET: i32 = 75;
/// Variables of the daemon's own that hooks get.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// What a hook is run for.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where in the release.
    pub point: Point,
    /// The service, the version and, if it is run for each, the instance: for placeholders.
    pub service: String,
    /// See there.
    pub version: String,
    /// See there.
    pub instance: Option<String>,
    /// `RELEASE_*` variables, names with that prefix.
    pub variables: Vec<(String, String)>,
    /// What it reads from stdin.
    pub input: serde_json::Value,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it is for.
    Done,
    /// It asks to be run again later.
    NotYet,
    /// It did not, for this reason.
    Failed(String),
}

/// A hook that was run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// The end of what it wrote, both streams as they came.
    pub output: String,
}

/// Runs a hook to its end, or until its timeout: SIGTERM to its process group, SIGKILL after a
/// grace period. Dropped meanwhile, it kills the group. `started` gets the process id as soon as
/// there is one.
pub async fn run(hook: &Hook, call: &Call, started: impl FnOnce(u32)) -> Ran {
    let begun = Instant::now();
    let (result, output) = match command(hook, call).and_then(|mut command| command.spawn()) {
        Ok(child) => {
            started(child.id().unwrap_or_default());
            follow(child, hook.timeout, &call.input).await
        }
        Err(error) => (Err(format!("cannot be run: {error}")), Vec::new()),
    };
    let outcome = match result {
        Ok(status) if status.success() => Outcome::Done,
        Ok(status) if status.code() == Some(NOT_YET) => Outcome::NotYet,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(why) => Outcome::Failed(why),
    };
    let output = String::from_utf8_lossy(&output).into_owned();
    Ran { outcome, took: begun.elapsed(), output }
}

/// Runs a program that is no hook of a release, as one.
pub async fn run_program(
    argv: &[String],
    timeout: Duration,
    variables: &[(&str, &str)],
    input: serde_json::Value,
) -> Ran {
    let action = Action::Exec(argv.to_vec());
    let hook = Hook { action, timeout, idempotent: true, secrets: Vec::new() };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let call = Call {
        // These name units alone.
        point: Point::Event,
        service: String::new(),
        version: String::new(),
        instance: None,
        variables: variables.iter().map(owned).collect(),
        input,
    };
    run(&hook, &call, |_| ()).await
}

/// The command, with nothing of the daemon's environment but what it names.
fn command(hook: &Hook, call: &Call) -> io::Result<Command> {
    let argv = match &hook.action {
        Action::Exec(argv) => argv.clone(),
        Action::Unit(unit) => {
            let verb = match call.point {
                Point::Start => "start",
                Point::Stop => "stop",
                _ => "restart",
            };
            let unit = fill_in(unit, call);
            ["systemctl", "--no-ask-password", verb, &unit].map(str::to_owned).to_vec()
        }
    };
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(call.variables.iter().cloned());
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    for (name, path) in &hook.secrets {
        let secret = std::fs::read_to_string(path).map_err(|error| {
            io::Error::new(error.kind(), format!("secret {}: {error}", path.display()))
        })?;
        command.env(name, secret.trim_end_matches('\n'));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: what it starts is ended with it.
    command.process_group(0);
    Ok(command)
}

/// Kills a process group, unless it was ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself meanwhile.
        if let Some(group) = self.0 {
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Feeds a process, reads it, and waits for its end.
async fn follow(
    mut child: Child,
    limit: Duration,
    input: &serde_json::Value,
) -> (Result<ExitStatus, String>, Vec<u8>) {
    let group = Group::of(&child);
    let mut output = Vec::new();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ended = {
        let talk = async { tokio::join!(feed(stdin, input), read(stdout, stderr, &mut output)) };
        tokio::pin!(talk);
        let end = end(&mut child, &group, limit);
        tokio::pin!(end);
        let mut talking = true;
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                _ = &mut talk, if talking => talking = false,
            }
        };
        // What it left behind is ended with it.
        group.signal(Signal::SIGKILL);
        if talking {
            let _ = timeout(DRAIN, talk).await;
        }
        ended
    };
    (ended, output)
}

async fn end(child: &mut Child, group: &Group, limit: Duration) -> Result<ExitStatus, String> {
    let failed = |error: io::Error| error.to_string();
    if let Ok(status) = timeout(limit, child.wait()).await {
        return status.map_err(failed);
    }
    let after = humantime::format_duration(limit);
    group.signal(Signal::SIGTERM);
    if timeout(GRACE, child.wait()).await.is_ok() {
        return Err(format!("terminated after {after}"));
    }
    group.signal(Signal::SIGKILL);
    child.wait().await.map_err(failed)?;
    Err(format!("killed: did not end after {after}, nor when it was terminated"))
}

/// Who does not read it does not need it.
async fn feed(stdin: Option<ChildStdin>, input: &serde_json::Value) {
    let Some(mut stdin) = stdin else { return };
    let text = input.to_string();
    let _ = stdin.write_all(text.as_bytes()).await;
    let _ = stdin.write_all(b"\n").await;
}

/// Reads both streams to their ends and keeps the last of it.
async fn read(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    kept: &mut Vec<u8>,
) {
    let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else { return };
    let (mut first, mut second) = ([0; 4096], [0; 4096]);
    let (mut open, mut also_open) = (true, true);
    while open || also_open {
        let (bytes, still): (&[u8], &mut bool) = tokio::select! {
            count = stdout.read(&mut first), if open => {
                (&first[..count.unwrap_or(0)], &mut open)
            }
            count = stderr.read(&mut second), if also_open => {
                (&second[..count.unwrap_or(0)], &mut also_open)
            }
        };
        *still = !bytes.is_empty();
        kept.extend_from_slice(bytes);
        let more = kept.len().saturating_sub(KEPT);
        kept.drain(..more);
    }
}

/// Fills the placeholders of a unit's name in.
fn fill_in(unit: &str, call: &Call) -> String {
    let instance = call.instance.as_deref().unwrap_or_default();
    let values = [instance, &call.version, &call.service];
    Action::PLACEHOLDERS.iter().zip(values).fold(unit.to_owned(), |unit, (name, value)| {
        unit.replace(&format!("{{{name}}}"), &escape(value))
    })
}

/// As `systemd-escape` does (systemd.unit(5), "String escaping for inclusion in unit names").
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if at == 0 => escaped.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("\\x{other:02x}")),
        }
    }
    escaped
}

/// Waits until a process that an earlier run of the daemon had started is gone. Returns at once if
/// it is, or if another one has its id: `born` is when it was started, in ticks since boot, as
/// [`birth`] said then.
pub async fn outlive(process: u32, born: u64) {
    while birth(process) == Some(born) {
        sleep(Duration::from_millis(100)).await;
    }
}

/// When a process was started, in ticks since boot (proc_pid_stat(5), field 22).
#[must_use]
pub fn birth(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A process that has ended and was not waited for is none.
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn shell(script: &str, timeout: Duration) -> Hook {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Hook { action: Action::Exec(argv), timeout, idempotent: false, secrets: Vec::new() }
    }

    fn call() -> Call {
        Call {
            point: Point::Stop,
            service: "web".to_owned(),
            version: "v1".to_owned(),
            instance: Some("10.0.0.1:80".to_owned()),
            variables: vec![("RELEASE_ID".to_owned(), "7".to_owned())],
            input: serde_json::json!({ "receipt": 3 }),
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    async fn ran(script: &str) -> Ran {
        run(&shell(script, LONG), &call(), |_| ()).await
    }

    #[tokio::test]
    async fn it_is_told_by_stdin_and_variables() {
        let ran = ran("cat; echo \"$RELEASE_ID ${CARGO_MANIFEST_DIR-none}\" >&2").await;
        assert_eq!(ran.outcome, Outcome::Done);
        assert!(ran.output.contains("{\"receipt\":3}\n"), "{}", ran.output);
        assert!(ran.output.contains("7 none\n"), "{}", ran.output);
    }

    #[tokio::test]
    async fn exit_codes_decide() {
        assert_eq!(ran("exit 75").await.outcome, Outcome::NotYet);
        let failed = ran("echo no disk; exit 3").await;
        assert_eq!(failed.outcome, Outcome::Failed("exit status: 3".to_owned()));
        assert_eq!(failed.output, "no disk\n");
        let missing =
            Hook { action: Action::Exec(vec!["/nowhere/hook".to_owned()]), ..shell("", LONG) };
        let Outcome::Failed(why) = run(&missing, &call(), |_| ()).await.outcome else { panic!() };
        assert!(why.starts_with("cannot be run: No such file"), "{why}");
    }

    #[tokio::test]
    async fn megabytes_do_no_harm() {
        let ran = ran("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end").await;
        assert_eq!((ran.outcome, ran.output.len()), (Outcome::Done, KEPT));
        assert!(ran.output.ends_with("x\nthe end\n"));
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_with_all_it_started() {
        let limit = Duration::from_millis(300);
        let hangs = shell("sleep 1000 & echo $!; wait", limit);
        let mut id = 0;
        let ran = run(&hangs, &call(), |process| id = process).await;
        assert_eq!(ran.outcome, Outcome::Failed("terminated after 300ms".to_owned()));
        assert!(ran.took >= limit && ran.took < GRACE, "{:?}", ran.took);
        let child: u32 = ran.output.trim().parse().unwrap();
        for process in [id, child] {
            let gone = timeout(GRACE, async {
                while birth(process).is_some() {
                    sleep(Duration::from_millis(10)).await;
                }
            });
            gone.await.unwrap();
        }
    }

    /// A daemon that it starts and leaves behind holds its output open.
    #[tokio::test]
    async fn what_it_leaves_behind_is_not_waited_for() {
        let ran = ran("sleep 1000 & echo done").await;
        assert_eq!((ran.outcome, ran.output.as_str()), (Outcome::Done, "done\n"));
        assert!(ran.took < LONG / 2, "{:?}", ran.took);
    }

    #[tokio::test]
    async fn secrets_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "s3cret\n").unwrap();
        let with = |path: PathBuf| Hook {
            secrets: vec![("DB_PASSWORD".to_owned(), path)],
            ..shell("printf %s \"$DB_PASSWORD\"", LONG)
        };
        assert_eq!(run(&with(path), &call(), |_| ()).await.output, "s3cret");
        let missing = run(&with(folder.path().join("none")), &call(), |_| ()).await;
        assert!(matches!(missing.outcome, Outcome::Failed(why) if why.contains("secret /")));
    }

    #[test]
    fn units_are_named_as_systemd_does() {
        let unit = fill_in("web-{version}@{instance}.service", &call());
        assert_eq!(unit, "web-v1@10.0.0.1:80.service");
        assert_eq!(escape("/run/a b"), "-run-a\\x20b");
        assert_eq!(escape(".hidden-x"), "\\x2ehidden\\x2dx");
    }

    #[tokio::test]
    async fn a_process_is_known_by_its_birth() {
        let mut child = Command::new("/bin/sleep").arg("0.3").spawn().unwrap();
        let id = child.id().unwrap();
        let born = birth(id).unwrap();
        timeout(LONG, outlive(id, born + 1)).await.unwrap();
        let (waited, ()) = tokio::join!(child.wait(), outlive(id, born));
        assert!(waited.unwrap().success());
    }
}
