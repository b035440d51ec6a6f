//! Where alarms go besides the daemon's log and `events`.

use crate::release::plan::Webhook;
use serde::Serialize;

/// Who is told of alarms: at least one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Alarms {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<Webhook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) argv: Option<Vec<String>>,
}

impl Alarms {
    /// An address that each is posted to until it says 2xx.
    pub fn webhook(&self) -> Option<&Webhook> {
        self.webhook.as_ref()
    }

    /// A program that is run for each, and its arguments.
    pub fn argv(&self) -> Option<&[String]> {
        self.argv.as_deref()
    }
}
