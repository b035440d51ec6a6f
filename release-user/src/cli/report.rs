//! `release report`: all that is known of a release, as a page or as data.

use std::path::{Path, PathBuf};

use super::output::json;
use super::values::Output;
use super::{Context, DONE, Ended};
use crate::api::types::{ApiError, ErrorCode, ReceiptQuery};
use crate::report::Report;

pub(super) async fn report(
    context: &mut Context,
    release: &str,
    html: bool,
    file: Option<PathBuf>,
) -> Ended {
    let usage = |text: &str| ApiError::new(ErrorCode::Usage, format!("release report: {text}"));
    let format = context.out.format;
    match (html, format) {
        (true, Output::Text) | (false, Output::Json | Output::Jsonl) => {}
        (true, _) => return Err(usage("a page is not JSON").hint("--html, or -o json")),
        (false, _) => {
            return Err(usage("as what?").hint("--html for a page, -o json for the data"));
        }
    }
    if html && file.is_none() && context.out.terminal {
        return Err(usage("a page is not for a terminal").hint("-O FILE, or > FILE"));
    }
    let show = context.client.release(release, 0).await?;
    let samples = context.client.release_samples(&show.line.id.to_string()).await?;
    let service = show.line.service.clone();
    let query = ReceiptQuery { service, target: None, id: None };
    let receipts = context.client.receipts(&query).await?;
    let report = Report::new(show, samples, receipts);
    let text = if html { report.to_html() } else { json(&report, format == Output::Json)? };
    match file {
        Some(file) => write(&file, &text)?,
        None => context.out.text(&text)?,
    }
    Ok(DONE)
}

fn write(file: &Path, text: &str) -> Result<(), ApiError> {
    std::fs::write(file, text).map_err(|error| {
        let text = format!("{}: cannot be written: {error}", file.display());
        ApiError::new(ErrorCode::Internal, text)
    })
}
