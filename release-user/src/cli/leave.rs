//! Going offline: the daemon is asked, answers that the instance is out of new flows, and a receipt
//! says when it may end.

use super::Context;
use super::output::Progress;
use super::wait::{pause_after, progress_text};
use crate::api::client::{Client, ClientError};
use crate::api::types::{
    ErrorCode, IdleReport, Offline, OfflineRequest, Receipt, ReceiptQuery, TargetQuery, Verdict,
};
use std::cell::RefCell;
use std::time::Duration;
use tokio::time::sleep;

/// Pause before a daemon that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// An instance on its way out.
pub(super) struct Leaving {
    client: Client,
    request: OfflineRequest,
    /// The last verdict.
    last: RefCell<Option<IdleReport>>,
}

/// What allows it to end.
#[derive(Debug)]
pub(super) enum Leave {
    /// A receipt.
    Receipt(u64),
    /// The daemon does not know it (any more): no flow of it is left, or somebody forced it out.
    Forgotten,
}

impl Leaving {
    pub fn new(context: &Context, request: OfflineRequest) -> Self {
        Self { client: context.client.clone(), request, last: RefCell::default() }
    }

    /// The last verdict, if there was one.
    pub fn last(&self) -> Option<IdleReport> {
        self.last.borrow().clone()
    }

    fn target(&self) -> TargetQuery {
        TargetQuery { service: self.request.service.clone(), target: self.request.id.clone() }
    }

    /// Asks: from the answer on it gets no new flows.
    pub async fn ask(&self) -> Result<Offline, ClientError> {
        self.client.offline(&self.request).await
    }

    /// Whether it may end now; none: not yet.
    pub async fn look(&self, asked: &Offline) -> Result<Option<Leave>, ClientError> {
        if let Some(receipt) = asked.receipt {
            return Ok(Some(Leave::Receipt(receipt)));
        }
        match self.receipt().await {
            Err(ClientError::Answer(error)) if error.code == ErrorCode::Usage => {
                // It was forgotten between two looks, which leaves a receipt unless it was forced.
                let receipt = self.newest(asked.generation).await?;
                Ok(Some(receipt.map_or(Leave::Forgotten, |receipt| Leave::Receipt(receipt.id))))
            }
            other => other,
        }
    }

    async fn receipt(&self) -> Result<Option<Leave>, ClientError> {
        let report = self.client.idle(&self.target()).await?;
        let verdict = report.verdict;
        *self.last.borrow_mut() = Some(report);
        if verdict != Verdict::Idle {
            return Ok(None);
        }
        match self.client.receipt(&self.target()).await {
            Ok(receipt) => {
                let id = receipt.id;
                *self.last.borrow_mut() = Some(receipt.report);
                Ok(Some(Leave::Receipt(id)))
            }
            // Something stirred between the two.
            Err(ClientError::Answer(error))
                if matches!(error.code, ErrorCode::Busy | ErrorCode::Unknown) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn newest(&self, generation: u32) -> Result<Option<Receipt>, ClientError> {
        let TargetQuery { service, target } = self.target();
        let query = ReceiptQuery { service, target: Some(target), id: None };
        let receipts = self.client.receipts(&query).await?;
        Ok(receipts.into_iter().find(|receipt| receipt.report.generation >= generation))
    }

    /// Looks until it may end; what is waited for goes to stderr.
    async fn wait(&self, asked: &Offline, progress: &mut Progress) -> Result<Leave, ClientError> {
        loop {
            if let Some(leave) = self.look(asked).await? {
                return Ok(leave);
            }
            let last = self.last();
            if let Some(report) = &last {
                let text = progress_text("going offline", report);
                progress.show(&report.verdict.to_string(), &text);
            }
            sleep(last.as_ref().map_or(AGAIN, pause_after)).await;
        }
    }

    /// Asks, if it has not `asked`, and waits, whatever becomes of the daemon meanwhile: without
    /// its word nobody may end.
    pub async fn insist(&self, asked: Option<&Offline>) -> Leave {
        let mut progress = Progress::new();
        let mut first = asked.cloned();
        loop {
            let gone = async {
                let asked = match first.take() {
                    Some(asked) => asked,
                    None => self.ask().await?,
                };
                self.wait(&asked, &mut progress).await
            };
            match gone.await {
                Ok(leave) => return leave,
                Err(ClientError::Answer(error)) if error.code == ErrorCode::Usage => {
                    return Leave::Forgotten;
                }
                Err(error) => {
                    let text = format!("going offline: {error}; asked again until it answers");
                    progress.show(&text, &text);
                    sleep(AGAIN).await;
                }
            }
        }
    }
}
