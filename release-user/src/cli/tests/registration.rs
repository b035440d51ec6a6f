//! `instance` and `run` against a daemon of fixed answers.

use super::commands::{done, fails, json, run};
use crate::api::fake::Fake;
use crate::api::tests::Served;
use crate::api::types::{ErrorCode, Verdict};

#[tokio::test]
async fn what_is_asked_arrives() {
    let served = Served::new(Fake::new());
    let registered = done(
        &served,
        "instance register web v2 10.0.0.3:80 --id a --weight 2 --meta build=7 --meta x=a=b",
    );
    assert_eq!(
        registered.await,
        "web/v2/a: registered at 10.0.0.3:80, backend 5, active (generation 8)\n"
    );
    let renewed = done(&served, "instance register web v2 10.0.0.3:80 --lease 90s").await;
    assert!(renewed.starts_with("web/v2/10.0.0.3:80: renewed at "), "{renewed}");
    let gone = done(&served, "instance deregister web a").await;
    assert_eq!(gone, "web/v2/a: deregistered, kept until its connections end\n");
    let (ended, forced) = run(&served, "instance deregister web a --force").await;
    assert_eq!(ended.unwrap(), 5);
    assert_eq!(forced, "web/v2/a: deregistered by force\n  not proven: 12 active flows\n");
    for word in ["on", "off"] {
        done(&served, &format!("instance maint web a {word}")).await;
    }
    let asked = std::mem::take(&mut *served.fake.asked.lock().unwrap());
    let namespace = "\"watch_pid\":null,\"pid_namespace\":null}";
    let expected = [
        format!(
            "register {{\"service\":\"web\",\"version\":\"v2\",\"addr\":\"10.0.0.3:80\",\"id\":\"a\",\
             \"weight\":2,\"meta\":{{\"build\":\"7\",\"x\":\"a=b\"}},\"lease_s\":null,{namespace}"
        ),
        format!(
            "register {{\"service\":\"web\",\"version\":\"v2\",\"addr\":\"10.0.0.3:80\",\"id\":null,\
             \"weight\":1,\"meta\":{{}},\"lease_s\":90.0,{namespace}"
        ),
    ];
    assert_eq!(asked[..2], expected);
    let rest: Vec<&str> = asked[2..].iter().map(|asked| asked.split(' ').next().unwrap()).collect();
    assert_eq!(rest, ["deregister", "deregister", "maint", "maint"]);
    assert!(asked[4].contains("\"on\":true") && asked[5].contains("\"on\":false"));
    served.stop().await;
}

#[tokio::test]
async fn offline_is_over_with_a_receipt() {
    let served = Served::new(Fake::with_verdicts(&[Verdict::Busy, Verdict::Idle]));
    let printed = done(&served, "instance offline web a").await;
    assert_eq!(printed, "web/v2/a: offline (generation 8), it may stop: receipt 3\n");
    let printed = json(&done(&served, "instance offline web a -o json").await);
    assert_eq!((&printed["shutdown"], &printed["receipt"]), (&true.into(), &3.into()));
    assert_eq!(printed["idle"]["verdict"], "idle");
    // The daemon is asked once, whatever is waited for.
    let asked = served.fake.asked.lock().unwrap().len();
    assert_eq!(asked, 2);
    served.stop().await;
}

#[tokio::test]
async fn offline_holds_what_is_not_idle() {
    let served = Served::new(Fake::with_verdicts(&[Verdict::Busy]));
    let (error, printed) = fails(&served, "instance offline web a --no-wait").await;
    assert_eq!((error.code, &*printed), (ErrorCode::Busy, ""));
    assert_eq!(error.message, "web v1: held: 12 active flows");
    let (error, printed) = fails(&served, "instance offline web a --timeout 10ms -o json").await;
    assert_eq!((error.code, &json(&printed)["receipt"]), (ErrorCode::Timeout, &().into()));
    served.stop().await;
    let served = Served::new(Fake::with_verdicts(&[Verdict::Unknown]));
    let (error, _) = fails(&served, "instance offline web a --no-wait").await;
    assert_eq!(error.code, ErrorCode::Unknown);
    let (error, _) = fails(&served, "instance offline wbe a").await;
    assert_eq!(error.code, ErrorCode::Usage);
    served.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_by_itself_gives_its_code() {
    let served = Served::new(Fake::new());
    let line = "run --service web --version v2 --addr 10.0.0.3:80 --no-ready --";
    for (command, code) in [("true", 0), ("false", 1)] {
        let (ended, _) = run(&served, &format!("{line} {command}")).await;
        assert_eq!(ended.unwrap(), code, "{command}");
    }
    let (error, _) = fails(&served, &format!("{line} /nowhere/server")).await;
    assert_eq!(error.code, ErrorCode::Usage);
    // Refused, it is stopped.
    let line = line.replace("--service web", "--service wbe");
    let (error, _) = fails(&served, &format!("{line} sleep 1000")).await;
    assert!(error.message.contains("unknown"), "{error}");
    // Never ready.
    let line =
        "run --service web --version v2 --addr 127.0.0.1:1 --ready-timeout 50ms -- sleep 1000";
    let (error, _) = fails(&served, line).await;
    assert_eq!(error.code, ErrorCode::Timeout);
    served.stop().await;
}
