//! `explain`: where would this packet go, and why?

use super::{Context, DONE, Ended};
use crate::api::types::{ApiError, ErrorCode, ExplainQuery, Explanation};
use crate::config::Protocol;
use std::fmt::Write as _;
use std::net::SocketAddr;

pub(super) async fn explain(
    context: &mut Context,
    proto: Protocol,
    src: SocketAddr,
    dst: SocketAddr,
) -> Ended {
    if src.is_ipv4() != dst.is_ipv4() {
        let what = format!("SRC {src}: is of another address family than DST {dst}");
        return Err(ApiError::new(ErrorCode::Usage, what).hint("no packet has both"));
    }
    let query = ExplainQuery {
        proto: proto.as_str().to_owned(),
        src: src.to_string(),
        dst: dst.to_string(),
    };
    let explanation = context.client.explain(&query).await?;
    context.out.value(&explanation, |explanation, _| text(explanation))?;
    Ok(DONE)
}

fn text(explanation: &Explanation) -> String {
    let Explanation { decision, service, version, instance, generation, because, .. } = explanation;
    let mut text = decision.clone();
    let place: Vec<&str> =
        [service, version, instance].into_iter().flatten().map(|s| &**s).collect();
    if !place.is_empty() {
        let _ = write!(text, ": {}", place.join(" "));
    }
    if let Some(generation) = generation {
        let _ = write!(text, " (generation {generation})");
    }
    text.push('\n');
    for reason in because {
        let _ = writeln!(text, "  {reason}");
    }
    text
}
