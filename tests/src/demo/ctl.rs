//! Calls of `releasectl` and what the demo reads from its answers.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;
use tokio::time::timeout;

use crate::topology::Balancer;

/// No call of the demo takes longer; `idle wait` has its own 30 s.
const LIMIT: Duration = Duration::from_secs(35);

/// `releasectl` of one balancer.
#[derive(Debug, Clone, Copy)]
pub struct Ctl<'a>(pub &'a Balancer);

/// The part of `status -o json` that is shown.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub services: Vec<Service>,
}

/// A service in [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    pub versions: Vec<Version>,
}

/// A version in [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct Version {
    pub name: String,
    pub weight: u32,
    pub state: String,
    pub flows: Flows,
}

/// Flows of a version in [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct Flows {
    pub active: u64,
}

/// The part of an idle verdict that is shown.
#[derive(Debug, Clone, Deserialize)]
pub struct Verdict {
    pub verdict: String,
    #[serde(default)]
    pub reasons: Vec<String>,
}

impl Ctl<'_> {
    /// Runs `releasectl ARGUMENTS…`; killed when the future is dropped.
    ///
    /// # Errors
    /// It cannot be started or takes too long.
    pub async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let command = self.0.releasectl_command(arguments)?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        timeout(LIMIT, command.output())
            .await
            .with_context(|| format!("`releasectl {}` hangs", arguments.join(" ")))?
            .with_context(|| format!("cannot start `releasectl {}`", arguments.join(" ")))
    }

    /// Demands exit code 0 and returns the output.
    ///
    /// # Errors
    /// Any other exit code; the error carries what it said.
    pub async fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        if !output.status.success() {
            bail!(
                "`releasectl {}` ended with {}: {} {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                String::from_utf8_lossy(&output.stdout).trim(),
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Demands exit code 0 and parses the output of `-o json`.
    ///
    /// # Errors
    /// Any other exit code, or an answer that is not as the contract says.
    pub async fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.ok(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text)
            .with_context(|| format!("`releasectl {} -o json`: {text}", arguments.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_s_status_is_understood() {
        let text = r#"{"schema":1,"services":[{"name":"web","generation":7,"mode":"nat",
            "frontends":["192.0.2.10:80/tcp"],"versions":[{"name":"v1","weight":0,
            "weight_actual":0.0,"state":"draining","flows":{"embryonic":0,"active":12,
            "half_closed":1,"closing":3},"new_flows_per_second":0.0,"instances":[]}]}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        let version = &status.services[0].versions[0];
        assert_eq!((version.weight, version.flows.active), (0, 12));
        assert_eq!((version.name.as_str(), version.state.as_str()), ("v1", "draining"));
    }

    #[test]
    fn the_contract_s_verdict_is_understood() {
        let text = r#"{"schema":1,"service":"web","target":"v1","generation":7,
            "verdict":"busy","reasons":["12 active flows"],"evidence":[]}"#;
        let verdict: Verdict = serde_json::from_str(text).unwrap();
        assert_eq!((verdict.verdict.as_str(), verdict.reasons.len()), ("busy", 1));
    }
}
