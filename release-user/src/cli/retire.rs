//! `retire`: what is done with.

use super::{Context, DONE, Ended, FORCED};
use crate::api::types::{RetireRequest, Retired};

pub(super) async fn retire(context: &mut Context, request: RetireRequest) -> Ended {
    let retired = context.client.retire(&request).await?;
    context.out.value(&retired, |retired, _| text(retired))?;
    Ok(if retired.receipt.is_none() { FORCED } else { DONE })
}

/// One line; a forced one is followed by what was lost.
fn text(retired: &Retired) -> String {
    let Retired { service, target, receipt, lost, changed, at, .. } = retired;
    let since = if *changed { String::new() } else { format!(" since {at}") };
    match receipt {
        Some(receipt) => format!("{service}/{target}: retired{since}, receipt {receipt}\n"),
        None => {
            let lost: String = lost.iter().map(|lost| format!("  not proven: {lost}\n")).collect();
            format!("{service}/{target}: retired{since} by force\n{lost}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::SCHEMA;

    fn retired(receipt: Option<u64>, changed: bool) -> Retired {
        Retired {
            schema: SCHEMA,
            service: "web".to_owned(),
            target: "v1".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            receipt,
            lost: Vec::from_iter(receipt.is_none().then(|| "12 active flows".to_owned())),
            changed,
        }
    }

    #[test]
    fn says_by_what() {
        assert_eq!(text(&retired(Some(3), true)), "web/v1: retired, receipt 3\n");
        assert_eq!(
            text(&retired(None, false)),
            "web/v1: retired since 2026-01-01T00:00:00Z by force\n  not proven: 12 active flows\n"
        );
    }
}
