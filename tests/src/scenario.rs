//! What many end-to-end tests say: a data plane that runs, a connection that is held, a verdict,
//! a refusal; and waiting for something without sleeping for a fixed time.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{self, Reply};
use crate::topology::{Backend, Balancer, Daemon, FRONTEND, Family, SERVICE, Topology, frontend};

/// Long enough for anything that works, on a machine that is busy with something else, too.
pub const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Polls until the condition holds; returns how long that took.
///
/// # Panics
/// It does not hold within `deadline`; the message says `what` was waited for.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
    start.elapsed()
}

/// The lines of a configuration in which `what` does not stand.
#[must_use]
pub fn without(config: &str, what: &str) -> String {
    config.lines().filter(|line| !line.contains(what)).map(|line| format!("{line}\n")).collect()
}

/// A verdict as `idle check` gives it.
#[derive(Debug, Clone)]
pub struct Said {
    /// `idle`, `busy` or `unknown`.
    pub verdict: String,
    /// All reasons, joined by `; `.
    pub reasons: String,
    /// The whole report.
    pub report: Value,
}

impl Said {
    /// Whether it is that verdict, for a reason that contains `why`.
    #[must_use]
    pub fn is(&self, verdict: &str, why: &str) -> bool {
        self.verdict == verdict && self.reasons.contains(why)
    }
}

/// A command that ended with another code than 0.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Exit code.
    pub code: i32,
    /// What it wrote to stderr.
    pub error: String,
}

impl Refused {
    /// Whether it ended with that code and an error that contains all of `parts`.
    #[must_use]
    pub fn says(&self, code: i32, parts: &[&str]) -> bool {
        self.code == code
            && self.error.contains("error: ")
            && parts.iter().all(|part| self.error.contains(part))
    }
}

impl Balancer {
    /// `idle check` of a target of the service.
    ///
    /// # Errors
    /// The command fails, or its exit code is not the verdict's (0, 4, 6).
    pub fn verdict(&self, target: &str) -> Result<Said> {
        let output = self.releasectl(&["idle", "check", SERVICE, target, "-o", "json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).with_context(|| {
            format!("idle check: {text}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let verdict = report["verdict"].as_str().unwrap_or_default().to_owned();
        let code = match verdict.as_str() {
            "idle" => 0,
            "busy" => 4,
            "unknown" => 6,
            other => anyhow::bail!("verdict {other:?}"),
        };
        ensure!(output.status.code() == Some(code), "{verdict} with {}", output.status);
        let reasons = report["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        ensure!(reasons.is_empty() == (code == 0), "{verdict} for the reasons {reasons:?}");
        Ok(Said { verdict, reasons, report })
    }

    /// Waits for a verdict on a target, for a reason that contains `why`.
    ///
    /// # Panics
    /// It is not said in time, or there is none.
    #[expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]
    pub fn becomes(&self, target: &str, verdict: &str, why: &str) -> Said {
        let mut told = String::new();
        let mut found = None;
        eventually(2 * DEADLINE, &format!("{verdict} ({why})"), || {
            let said = self.verdict(target).expect("a verdict");
            if said.reasons != told {
                told.clone_from(&said.reasons);
                eprintln!("{} {told}", said.verdict);
            }
            found = said.is(verdict, why).then_some(said);
            found.is_some()
        });
        found.expect("it was said")
    }

    /// Runs `releasectl`, which must fail.
    ///
    /// # Errors
    /// It succeeds, or is ended by a signal.
    pub fn refused(&self, arguments: &[&str]) -> Result<Refused> {
        let output = self.releasectl(arguments)?;
        let code = output.status.code().context("ended by a signal")?;
        ensure!(code != 0, "`releasectl {}` succeeded", arguments.join(" "));
        Ok(Refused { code, error: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    /// `status -o json` of the service.
    ///
    /// # Errors
    /// The command fails.
    pub fn service_status(&self) -> Result<Value> {
        Ok(self.releasectl_json(&["status", SERVICE])?["services"][0].take())
    }

    /// The whole status without what changes by itself: ages and rates.
    ///
    /// # Errors
    /// The command fails.
    pub fn frozen(&self) -> Result<Value> {
        fn strip(value: &mut Value) {
            match value {
                Value::Object(fields) => {
                    for key in ["last_packet_age_ms", "new_flows_per_second", "weight_actual"] {
                        fields.remove(key);
                    }
                    fields.values_mut().for_each(strip);
                }
                Value::Array(items) => items.iter_mut().for_each(strip),
                _ => {}
            }
        }
        let mut status = self.releasectl_json(&["status"])?;
        strip(&mut status);
        Ok(status)
    }

    /// One version in the status.
    ///
    /// # Errors
    /// The command fails, or there is no such version.
    pub fn version_status(&self, version: &str) -> Result<Value> {
        let mut status = self.service_status()?;
        named(&mut status["versions"], "name", version)
    }

    /// One instance in the status.
    ///
    /// # Errors
    /// The command fails, or there is no such instance.
    pub fn instance_status(&self, instance: &str) -> Result<Value> {
        let mut list = self.releasectl_json(&["instance", "list"])?;
        named(&mut list, "id", instance)
    }

    /// Counter of an instance.
    ///
    /// # Errors
    /// As [`Balancer::instance_status`].
    pub fn counter(&self, instance: &str, counter: &str) -> Result<u64> {
        let status = self.instance_status(instance)?;
        status["counters"][counter].as_u64().with_context(|| format!("no counter {counter}"))
    }

    /// How the program is attached to an interface: `native`, `generic`, `detached`, `absent`.
    ///
    /// # Errors
    /// The command fails.
    pub fn attachment(&self, interface: &str) -> Result<String> {
        let mut status = self.releasectl_json(&["status"])?;
        let found = named(&mut status["data_plane"]["interfaces"], "name", interface)?;
        Ok(found["mode"].as_str().unwrap_or_default().to_owned())
    }
}

fn named(list: &mut Value, key: &str, name: &str) -> Result<Value> {
    let items = list.as_array_mut().into_iter().flatten();
    let found = items.map(Value::take).find(|item| item[key] == name);
    found.with_context(|| format!("no {name} in the answer"))
}

/// A connection that is held open, and who answered first.
#[derive(Debug)]
pub struct Held {
    /// The client's end.
    pub stream: TcpStream,
    /// The first answer.
    pub first: Reply,
}

impl Held {
    /// One more request, which the same connection of the same instance must answer.
    ///
    /// # Errors
    /// The connection is broken, or another server answers.
    pub fn ask(&mut self, path: &str) -> Result<Reply> {
        let reply = http::request(&mut self.stream, path)?;
        ensure!(
            (&reply.instance, reply.connection) == (&self.first.instance, self.first.connection),
            "moved from {:?} to {reply:?}",
            self.first
        );
        Ok(reply)
    }
}

/// Both ends of a connection through the balancer, each in the hands of the test.
#[derive(Debug)]
pub struct Pair {
    /// The client's end.
    pub client: TcpStream,
    /// The server's end.
    pub server: TcpStream,
}

impl Pair {
    /// Sends a line each way.
    ///
    /// # Errors
    /// The connection is broken, or delivers something else.
    pub fn talk(&mut self) -> Result<()> {
        send(&mut self.client, &mut self.server, b"question")?;
        send(&mut self.server, &mut self.client, b"answer")
    }
}

/// Writes to one end and demands the same at the other.
///
/// # Errors
/// The connection is broken, or delivers something else.
pub fn send(from: &mut TcpStream, to: &mut TcpStream, data: &[u8]) -> Result<()> {
    from.write_all(data).context("cannot send")?;
    let mut got = vec![0; data.len()];
    to.read_exact(&mut got).context("cannot receive")?;
    ensure!(got == data, "received something else");
    Ok(())
}

impl Backend {
    /// Listens in place of its HTTP server.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn listen(&self) -> Result<TcpListener> {
        self.namespace.listen(self.address)
    }

    /// As [`Backend::listen`], wherever its server has its address of a family.
    ///
    /// # Errors
    /// The address cannot be bound, or there is none.
    pub fn listen_over(&self, family: Family) -> Result<TcpListener> {
        let of_family = |at: &&SocketAddr| at.is_ipv4() == (family == Family::V4);
        self.namespace.listen(*self.serves().iter().find(of_family).context("no such address")?)
    }
}

impl Topology {
    /// Writes [`Topology::config`] with these weights and starts the daemon.
    ///
    /// # Errors
    /// As [`Balancer::start_daemon`].
    pub fn up(&self, weights: &[(&str, u32)]) -> Result<Daemon<'_>> {
        self.lb.write_config(&self.config(weights))?;
        self.lb.start_daemon()
    }

    /// Opens a connection to the frontend, makes a request and keeps it.
    ///
    /// # Errors
    /// No connection or no answer.
    pub fn hold(&self) -> Result<Held> {
        let stream = self.client.connect(SocketAddr::V4(FRONTEND), DEADLINE)?;
        Self::begin(stream)
    }

    /// As [`Topology::hold`], from a given port of the first client address.
    ///
    /// # Errors
    /// As [`Topology::hold`].
    pub fn hold_from(&self, port: u16) -> Result<Held> {
        let from = SocketAddrV4::new(self.client_addresses()[0], port);
        Self::begin(self.client.connect_from(from, FRONTEND, DEADLINE)?)
    }

    fn begin(mut stream: TcpStream) -> Result<Held> {
        stream.set_read_timeout(Some(DEADLINE))?;
        let first = http::request(&mut stream, "/")?;
        Ok(Held { stream, first })
    }

    /// Opens a connection through the balancer to the only listener that it can reach.
    ///
    /// # Errors
    /// No connection.
    pub fn pair(&self, listener: &TcpListener) -> Result<Pair> {
        self.pair_over(listener, Family::V4)
    }

    /// As [`Topology::pair`], to the frontend of a family.
    ///
    /// # Errors
    /// No connection.
    pub fn pair_over(&self, listener: &TcpListener, family: Family) -> Result<Pair> {
        let client = self.client.connect(frontend(family), DEADLINE)?;
        client.set_read_timeout(Some(DEADLINE))?;
        let (server, _) = listener.accept()?;
        server.set_read_timeout(Some(DEADLINE))?;
        let mut pair = Pair { client, server };
        pair.talk()?;
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eventually_gives_up() {
        let waited = std::panic::catch_unwind(|| {
            eventually(Duration::from_millis(10), "the impossible", || false);
        });
        let message = waited.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("the impossible"), "{message}");
    }
}
