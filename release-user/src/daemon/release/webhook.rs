//! Asking webhooks for approval.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::hands::Hands;
use crate::net::http::post_json;
use crate::release::machine::Release;
use crate::release::plan::Webhook;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long after a refusal, or no answer, it is asked again.
const AGAIN: Duration = Duration::from_secs(2);

impl Hands {
    /// Asks until the answer is 2xx. What it says is told once, as long as it says the same.
    pub(super) async fn approve(&self, release: &Release, webhook: &Webhook) {
        let mut told = None;
        loop {
            let said = match self.ask(release, webhook).await {
                Ok(status) if status.is_success() => return,
                Ok(status) => format!("says {status}"),
                Err(why) => why,
            };
            let text = format!("{}: {said}", webhook.url);
            self.daemon.releases.note(self.id, |running| running.reasons = vec![text.clone()]);
            if told.as_ref() != Some(&text) {
                self.note(release, "approval", text.clone(), serde_json::Value::Null);
                told = Some(text);
            }
            sleep(AGAIN).await;
        }
    }

    async fn ask(&self, release: &Release, webhook: &Webhook) -> Result<hyper::StatusCode, String> {
        let token = webhook.token.as_deref().map(token).transpose()?;
        let line = self.daemon.release_line(release).map_err(|error| error.message)?;
        let document = serde_json::to_value(line).map_err(|error| error.to_string())?;
        let asked = post_json(&webhook.url, token.as_deref(), &document, LIMIT).await;
        asked.map_err(|error| error.to_string())
    }
}

/// Reads a secret.
///
/// # Errors
/// The file's.
pub fn token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("token {}: {error}", path.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}
