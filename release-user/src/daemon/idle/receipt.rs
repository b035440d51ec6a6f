//! Writing verdicts down.

use super::Subject;
use crate::api::types::{ApiError, ErrorCode, IdleReport, Receipt, SCHEMA, TargetQuery, Verdict};
use crate::daemon::core::Daemon;
use crate::daemon::events;
use crate::verdict::walk::Totals;

impl Daemon {
    /// Writes a receipt, if the verdict allows it.
    ///
    /// # Errors
    /// Busy or unknown with the reasons, or as for the verdict.
    pub async fn write_receipt(&self, query: &TargetQuery) -> Result<Receipt, ApiError> {
        let (subject, report) = self.judge(query).await?;
        match not_idle("receipt", &report) {
            Some(error) => Err(error.hint("releasectl idle check --explain shows the evidence")),
            None => self.write_down(&subject, report).await,
        }
    }

    /// Writes an `idle` verdict down.
    ///
    /// # Errors
    /// The kernel's or the store's.
    pub async fn write_down(
        &self,
        subject: &Subject,
        report: IdleReport,
    ) -> Result<Receipt, ApiError> {
        let meta = self.reader.meta()?;
        let mut counters = std::collections::BTreeMap::new();
        for instance in &subject.instances {
            let totals = Totals::read(&self.reader, &[instance.backend])?;
            counters.insert(instance.id.clone(), totals.counters);
        }
        let counted = report.counts.ended();
        let (forced, forced_not_listed) = self.forced_of(&subject.backends(), counted).await?;
        let receipt = Receipt {
            schema: SCHEMA,
            id: 0,
            at: events::now(),
            boot_id: boot_id_text(&meta.boot_id),
            evidence_epoch: meta.evidence_epoch,
            counters,
            forced,
            forced_not_listed,
            report,
            hash: String::new(),
        };
        let receipt = self.core.lock().await.store.add_receipt(receipt)?;
        let IdleReport { service, target, .. } = &receipt.report;
        let text = format!("receipt {} for {service}/{target}", receipt.id);
        self.events.publish("receipt", Some(service), Some(target), text);
        Ok(receipt)
    }
}

/// Why `what` cannot be done to a target that is not idle.
pub fn not_idle(what: &str, report: &IdleReport) -> Option<ApiError> {
    let code = match report.verdict {
        Verdict::Idle => return None,
        Verdict::Busy => ErrorCode::Busy,
        Verdict::Unknown => ErrorCode::Unknown,
    };
    let reasons = report.reasons.join("; ");
    let text = format!("{what} {}: it is {}: {reasons}", report.target, report.verdict);
    Some(ApiError::new(code, text))
}

/// A boot id as the kernel writes it.
pub fn boot_id_text(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
