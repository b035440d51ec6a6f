//! Services that cannot have the plan they name.

use super::broken_plan::{messages, same};
use super::service;

/// The service's frontends, its line 7 and its instances (line 11); the plan, in one line; the
/// message without the place, which is the service's key.
type Pair = (&'static str, [&'static str; 3], &'static str, &'static str);

const T: &str = r#"["192.0.2.10:80/tcp"]"#;
const U: &str = r#"["192.0.2.10:80/udp"]"#;
const I: &str = r#"["10.0.0.11:80"]"#;

const PAIRS: &[Pair] = &[
    (
        "too few instances",
        [T, "", r#"["10.0.0.11:80", "10.0.0.12:80"]"#],
        r#"strategy = "in-place", batch = 2"#,
        "plan gray: min_serving: 1 must serve while 2 are upgraded, and there are 2 instances in all (batch and min_serving are too many together)",
    ),
    (
        "a threshold beyond all",
        [T, "", I],
        r#"strategy = "side-by-side", ready = { threshold = 2 }"#,
        "plan gray: ready.threshold: no version has 2 instances, the largest has 1 (the release would never be ready)",
    ),
    (
        "testers of another family",
        [T, "", I],
        r#"strategy = "side-by-side", steps = [{ pause = {} }, { test = { sources = ["2001:db8::/32"] } }]"#,
        "plan gray: steps[1].test: all frontends are IPv4, and no source is (nobody would test)",
    ),
    (
        "warm-up of datagrams",
        [U, "", I],
        r#"strategy = "side-by-side", steps = [{ warmup = {} }]"#,
        "plan gray: steps[0].warmup: no frontend is TCP (warm-up is TCP connections)",
    ),
    (
        "analysis of datagrams",
        [U, "", I],
        r#"strategy = "side-by-side", steps = [{ weight = 1 }], analysis = { max_resets = "1%" }"#,
        "plan gray: analysis: no frontend is TCP (what is judged is TCP's handshakes, segments and resets)",
    ),
    (
        "analysis of one half",
        [T, r#"mode = "dsr""#, I],
        r#"strategy = "side-by-side", steps = [{ weight = 1 }], analysis = { max_latency = "1s" }"#,
        "plan gray: analysis: mode `dsr`: the instances' replies do not pass here (who does not see them cannot judge them)",
    ),
    (
        "flows where there are none",
        [U, r#"conversation = "datagram""#, I],
        r#"strategy = "side-by-side", steps = [{ weight = 1 }], analysis = {}"#,
        "plan gray: analysis.min_flows: conversation `datagram` has no flows (every judgement would lack some)",
    ),
    (
        "force of datagrams",
        [U, "", I],
        r#"strategy = "side-by-side", drain = { deadline = "1m", on_deadline = "force" }"#,
        "plan gray: drain.on_deadline: no frontend is TCP: there is nothing to force (datagrams have no connections, their flows end by their timeout)",
    ),
];

#[test]
fn plans_that_do_not_fit() {
    for (what, [frontends, options, instances], plan, message) in PAIRS {
        let service = service(frontends, &format!("plan = \"gray\"\n{options}"), instances);
        // Tables in one line, so that they can stand before all others.
        let text = service.replace(
            "schema = 1\n",
            &format!("schema = 1\nplan = [{{ name = \"gray\", {plan} }}]\n"),
        );
        same(what, &text, &[&format!("8: service[web].plan: {message}")]);
        // Which plan a release gets is said when it begins.
        assert_eq!(messages(&text.replace("plan = \"gray\"\n", "")), [""; 0], "{what}");
    }
}

/// In modes that see one half, force needs the sockets of the version that it is for.
#[test]
fn force_needs_sockets() {
    let plan = r#"{ name = "gray", strategy = "side-by-side", drain = { deadline = "1m", on_deadline = "force" } }"#;
    let text = |options: &str, v2: &str| {
        let options = format!("mode = \"dsr\"\nplan = \"gray\"\n{options}");
        let service = service(T, &options, I);
        service.replace("schema = 1\n", &format!("schema = 1\nplan = [{plan}]\n")) + v2
    };
    let v2 = r#"instances = ["10.0.0.21:80"]"#;
    let message = "9: service[web].plan: plan gray: drain.on_deadline: in mode `dsr` connections are ended by the instances' kernel, and no version has all its sockets on this host (if they are, name their namespace by `sockets`)";
    same("nowhere", &text("", v2), &[message]);
    assert_eq!(messages(&text("sockets = { netns = \"web\" }", v2)), [""; 0]);
    // v2 may be the old one, some day.
    let v2_here = format!("{v2}\nsockets = {{ netns = \"web\" }}");
    assert_eq!(messages(&text("", &v2_here)), [""; 0]);
}
