//! Carrying a release out: what it wants is done, what comes of it is written down, and so on, until
//! it is over. Dropped at any moment, and begun again, it goes on where it was.

use std::ops::DerefMut;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::hook::{self, Call, Outcome};
use super::journal::{Entry, HookRun, Journal};
use super::machine::{Command, Event, Refused, Release};
use super::phase::{Part, Phase, Point, Proof, Want};
use super::plan::Hook;
use super::words::one_line;
use crate::store::StoreError;

/// How long after a hook that said "not yet" it is run again.
const NOT_YET: Duration = Duration::from_secs(5);
/// How much of what a hook said last is told as a reason.
const MOST_LETTERS: usize = 200;

/// What a release is carried out with.
pub trait World: Send + Sync {
    /// Where releases are written down.
    fn journal(&self) -> impl DerefMut<Target = dyn Journal + Send>;
    /// Now, RFC 3339.
    fn now(&self) -> String;
    /// Time since boot.
    fn since_boot(&self) -> Duration;
    /// Ends when nothing more is to be begun.
    fn stopped(&self) -> impl Future<Output = ()> + Send;
    /// Instances of a part.
    fn instances(&self, release: &Release, part: Part) -> impl Future<Output = Vec<String>> + Send;
    /// What a hook is told.
    fn call(
        &self,
        release: &Release,
        point: Point,
        instance: Option<&str>,
        by: Option<&Proof>,
    ) -> impl Future<Output = Call> + Send;
    /// Whether a proof says of its part as that is now.
    fn holds(&self, release: &Release, proof: &Proof) -> impl Future<Output = bool> + Send;
    /// Does what is wanted, or waits for it; anything but hooks. It may be dropped at any moment and
    /// asked again: what takes time counts from [`Release::since_boot_ms`].
    fn perform(&self, release: &Release, want: &Want) -> impl Future<Output = Event> + Send;
    /// Is told of everything that is written down.
    fn tell(&self, release: &Release, entry: &Entry);
}

/// What somebody says, and where the answer goes.
pub type Order = (Command, oneshot::Sender<Result<Release, Refused>>);

/// Carries a release out to its end, or until nothing more is to be begun. A hook that runs then is
/// waited for.
///
/// # Errors
/// If something cannot be written down: then nothing more is done.
pub async fn carry_out(
    world: &impl World,
    mut release: Release,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Release, StoreError> {
    while !release.phase.is_over() {
        match move_on(world, &release, orders).await? {
            Some(next) => release = next,
            None => break,
        }
    }
    Ok(release)
}

/// Does what is wanted until the release moves; `None`: it is left as it is. An order that cannot be
/// now disturbs nothing.
async fn move_on(
    world: &impl World,
    release: &Release,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Option<Release>, StoreError> {
    let runs = matches!(release.wanted(), Some(Want::Hook { .. }));
    let work = work(world, release);
    let limit = limit(world, release);
    let stopped = world.stopped();
    tokio::pin!(work, limit, stopped);
    let event = loop {
        tokio::select! {
            biased;
            Some((command, answer)) = orders.recv() => {
                let event = Event::Command(command);
                let moved = match release.after(&event) {
                    Ok(next) => Ok(arrive(world, release, next, &event)?),
                    Err(refused) => Err(refused),
                };
                // Who asked may have gone.
                let _ = answer.send(moved.clone());
                if let Ok(next) = moved {
                    return Ok(Some(next));
                }
            }
            event = &mut work => break event?,
            () = &mut stopped, if !runs => return Ok(None),
            () = &mut limit => break Event::TimeUp,
        }
    };
    match release.after(&event) {
        Ok(next) => arrive(world, release, next, &event).map(Some),
        Err(refused) => {
            // What is wanted cannot answer so: a fault of this program.
            log::error!("{event:?}: {refused}");
            sleep(NOT_YET).await;
            Ok(Some(release.clone()))
        }
    }
}

/// Writes down where it is now.
///
/// # Errors
/// If that cannot be: then it is not there.
pub fn arrive(
    world: &impl World,
    before: &Release,
    mut next: Release,
    event: &Event,
) -> Result<Release, StoreError> {
    if next.phase == before.phase && next.done == before.done {
        return Ok(next);
    }
    next.since_boot_ms = world.since_boot().as_millis() as u64;
    let text = in_words(before, &next, event);
    let kind = if before.is_at(&next) { "done" } else { "state" }.to_owned();
    let (at, state, data) = (world.now(), next.state().to_owned(), serde_json::Value::Null);
    let entry = text.map(|text| Entry { at, state, kind, text, data });
    world.journal().save_release(&next, entry.as_ref())?;
    if let Some(entry) = &entry {
        world.tell(&next, entry);
    }
    Ok(next)
}

/// What was done, or why the state is another one; `None`: nothing was to be done.
fn in_words(before: &Release, next: &Release, event: &Event) -> Option<String> {
    let done = before.wanted().and_then(|want| before.in_words(&want));
    let stays = before.is_at(next);
    let why = match (&next.phase, event) {
        (_, Event::Idle { receipts, .. }) => Some(format!("receipts {receipts:?}")),
        (_, Event::TimeUp) => Some(format!("not in time: {}", done.unwrap_or_default())),
        (_, Event::Void) => Some("its receipts hold no more".to_owned()),
        (_, Event::Failed(why) | Event::Unclear(why)) => Some(why.clone()),
        (Phase::Paused { why, .. } | Phase::Aborting { why, .. }, _) if !stays => Some(why.clone()),
        (_, Event::Command(command)) => Some(command.name().to_owned()),
        _ => done,
    };
    if stays {
        return why;
    }
    let colon = why.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{} → {}{colon}", before.state_in_words(), next.state_in_words()))
}

/// Does what is wanted now, or waits for it.
async fn work(world: &impl World, release: &Release) -> Result<Event, StoreError> {
    match release.wanted() {
        None if release.phase == Phase::Pending => Ok(Event::Done),
        None => std::future::pending().await,
        Some(Want::Hook { point: Point::Stop | Point::Upgrade, proof: Some(proof), .. })
            if !world.holds(release, &proof).await =>
        {
            Ok(Event::Void)
        }
        Some(Want::Hook { point, each, proof }) => {
            run_hooks(world, release, point, each, proof.as_ref()).await
        }
        Some(want) => Ok(world.perform(release, &want).await),
    }
}

/// Waits until what is wanted now takes too long.
async fn limit(world: &impl World, release: &Release) {
    let Some(limit) = release.limit() else { return std::future::pending().await };
    sleep(release.left(limit, world.since_boot())).await;
}

/// Runs a hook for each instance of a part, or once: those that have not been run here.
async fn run_hooks(
    world: &impl World,
    release: &Release,
    point: Point,
    each: Option<Part>,
    proof: Option<&Proof>,
) -> Result<Event, StoreError> {
    let Some(hook) = release.hook(point) else { return Ok(Event::Done) };
    let instances: Vec<Option<String>> = match each {
        Some(part) => world.instances(release, part).await.into_iter().map(Some).collect(),
        None => vec![None],
    };
    for instance in instances {
        let instance = instance.as_deref();
        let call = world.call(release, point, instance, proof).await;
        let of = instance.map(|instance| format!(" of {instance}")).unwrap_or_default();
        let what = |why| format!("hook {}{of}: {why}", point.name());
        match run_once(world, release, hook, &call).await? {
            Ran::Done => {}
            Ran::Failed(why) => return Ok(Event::Failed(what(why))),
            Ran::Unclear(why) => return Ok(Event::Unclear(what(why))),
        }
    }
    Ok(Event::Done)
}

/// What became of a hook at its place.
enum Ran {
    Done,
    Failed(String),
    Unclear(String),
}

/// Runs a hook, unless it was run at this place before.
async fn run_once(
    world: &impl World,
    release: &Release,
    hook: &Hook,
    call: &Call,
) -> Result<Ran, StoreError> {
    let place = release.phase.place();
    let here = |run: &HookRun| {
        run.place == place && run.point == call.point && run.instance == call.instance
    };
    let runs = world.journal().hook_runs(release.id)?;
    match runs.into_iter().rfind(here) {
        Some(HookRun { outcome: Some(Outcome::Done), .. }) => return Ok(Ran::Done),
        Some(run @ HookRun { outcome: None, .. }) => {
            if let Some((process, born)) = run.process {
                hook::outlive(process, born).await;
            }
            if !hook.idempotent && run.round == release.round {
                let began = run.began_at;
                let why = format!("begun at {began}, and nobody knows whether it was done");
                return Ok(Ran::Unclear(why));
            }
        }
        Some(_) | None => {}
    }
    loop {
        let mut run = HookRun {
            id: 0,
            release: release.id,
            point: call.point,
            place: place.clone(),
            round: release.round,
            instance: call.instance.clone(),
            began_at: world.now(),
            process: None,
            ended_at: None,
            outcome: None,
            output: String::new(),
        };
        run.id = world.journal().begin_hook(&run)?;
        let mut saved = Ok(());
        let ran = hook::run(hook, call, |process| {
            run.process = hook::birth(process).map(|born| (process, born));
            saved = world.journal().save_hook(&run);
        })
        .await;
        saved?;
        (run.outcome, run.output) = (Some(ran.outcome.clone()), ran.output);
        run.ended_at = Some(world.now());
        world.journal().save_hook(&run)?;
        match ran.outcome {
            Outcome::Done => return Ok(Ran::Done),
            Outcome::Failed(why) => return Ok(Ran::Failed(with_last_words(why, &run.output))),
            Outcome::NotYet => sleep(NOT_YET).await,
        }
    }
}

/// Why a hook failed, with the last line that it wrote: what its operator needs to know.
fn with_last_words(why: String, output: &str) -> String {
    let last = one_line(output).chars().filter(|letter| !letter.is_control());
    let last: String = last.take(MOST_LETTERS).collect();
    if last.is_empty() { why } else { format!("{why}: {last}") }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
