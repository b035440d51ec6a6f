//! Telling people of alarms: those that `events` shows are posted to a webhook and handed to a
//! program, each raised once and cleared once, in turn.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::core::Daemon;
use super::release::token;
use crate::api::types::{EventLine, SCHEMA};
use crate::config::Alarms;
use crate::net::http::post_json;
use crate::release::hook::{self, Outcome};
use crate::release::plan::Webhook;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Pauses between attempts: from the first, doubled each time, up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Attempts, together about ten minutes; later ones wait behind it.
const ATTEMPTS: u32 = 24;

impl Daemon {
    /// Tells of alarms as they are raised and cleared, until told to stop.
    pub async fn tell_alarms(self: Arc<Self>) {
        let (known, mut live) = self.events.subscribe();
        let mut told = 0;
        for event in known {
            told = event.seq;
            self.tell_alarm(&event).await;
        }
        loop {
            match live.recv().await {
                // One event can be both among the known and in the channel.
                Ok(event) if event.seq > told => self.tell_alarm(&event).await,
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => log::warn!("alarms: {missed} events missed"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn tell_alarm(&self, event: &EventLine) {
        if !matches!(event.kind.as_str(), "alarm" | "alarm-cleared") {
            return;
        }
        let config = Arc::clone(&self.core.lock().await.config);
        let Some(alarms) = config.daemon().alarms() else { return };
        if let Some(argv) = alarms.argv() {
            run(argv, event).await;
        }
        if let Some(webhook) = alarms.webhook() {
            self.post(alarms, webhook, event).await;
        }
    }

    /// Posts it until it is accepted, or until the configuration says something else.
    async fn post(&self, alarms: &Alarms, webhook: &Webhook, event: &EventLine) {
        let document = document(event);
        let mut pause = PAUSES.0;
        for attempt in 1..=ATTEMPTS {
            let token = webhook.token.as_deref().map(token).transpose();
            let said = match &token {
                Ok(token) => post_json(&webhook.url, token.as_deref(), &document, ANSWER)
                    .await
                    .map_err(|error| error.to_string()),
                Err(why) => Err(why.clone()),
            };
            let why = match said {
                Ok(status) if status.is_success() => return,
                Ok(status) => format!("says {status}"),
                Err(why) => why,
            };
            if attempt == 1 {
                let text = format!("alarm webhook {}: {why}", webhook.url);
                self.events.publish("warning", None, None, text);
            }
            if self.core.lock().await.config.daemon().alarms() != Some(alarms) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        let text = format!("alarm webhook {}: given up: {}", webhook.url, event.message);
        self.events.publish("warning", None, None, text);
    }
}

fn document(event: &EventLine) -> serde_json::Value {
    let raised = event.kind == "alarm";
    json!({
        "schema": SCHEMA,
        "state": if raised { "raised" } else { "cleared" },
        "at": event.at,
        "service": event.service,
        "target": event.target,
        "message": event.message,
    })
}

async fn run(argv: &[String], event: &EventLine) {
    let input = document(event);
    let state = input["state"].as_str().unwrap_or_default().to_owned();
    let variables = [
        ("RELEASE_ALARM", state.as_str()),
        ("RELEASE_SERVICE", event.service.as_deref().unwrap_or_default()),
        ("RELEASE_MESSAGE", event.message.as_str()),
    ];
    let ran = hook::run_program(argv, LIMIT, &variables, input).await;
    if let Outcome::Failed(why) = ran.outcome {
        log::warn!("alarm program {}: {why}", argv.join(" "));
    }
}
