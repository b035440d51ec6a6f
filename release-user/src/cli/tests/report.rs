//! Reports of releases.

use super::commands::{done, fails, json};
use crate::api::fake::Fake;
use crate::api::tests::Served;
use crate::api::types::ErrorCode;

#[tokio::test]
async fn a_report_is_a_page_or_data() {
    let served = Served::new(Fake::new());
    let page = done(&served, "release report web --html").await;
    assert!(page.starts_with("<!DOCTYPE html>\n<html") && page.ends_with("</html>\n"), "{page}");
    let asked = served.fake.asked.lock().unwrap().clone();
    // The newest of a service may be another one by then.
    let all = [r#"release {"release":"web","skip":0}"#, r#"samples {"release":"3","skip":0}"#];
    assert_eq!(asked[..2], all);

    let data = json(&done(&served, "release report web -o json").await);
    assert_eq!((&data["release"]["id"], &data["samples"][2]["epoch"]), (&3.into(), &1.into()));
    assert_eq!(data["receipts"].as_array().unwrap().len(), 1);
    served.stop().await;
}

#[tokio::test]
async fn a_report_goes_to_a_file() {
    let served = Served::new(Fake::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.html");
    let line = format!("release report 3 --html -O {}", file.display());
    assert_eq!(done(&served, &line).await, "");
    let page = done(&served, "release report 3 --html").await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), page);

    let (error, _) = fails(&served, "release report 3 --html -O /nowhere/r.html").await;
    assert!(error.message.starts_with("/nowhere/r.html: cannot be written"), "{error}");
    for (line, hint) in [
        ("release report 3", "--html for a page, -o json for the data"),
        ("release report 3 --html -o json", "--html, or -o json"),
    ] {
        let (error, printed) = fails(&served, line).await;
        assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::Usage, Some(hint)));
        assert_eq!(printed, "");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_page_is_not_for_a_terminal() {
    let served = Served::new(Fake::new());
    let (ended, printed) =
        super::commands::run_on_terminal(&served, "release report 3 --html").await;
    assert_eq!(ended.unwrap_err().hint.as_deref(), Some("-O FILE, or > FILE"));
    assert_eq!(printed, "");
    served.stop().await;
}
