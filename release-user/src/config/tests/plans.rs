//! Plans, read back.

use super::{SMALL, load};
use crate::config::{Config, Prefix};
use crate::release::plan::{
    Action, Analysis, Drain, Hook, Hooks, OnDeadline, Plan, Ready, Step, Strategy, Threshold,
    Webhook,
};
use std::time::Duration;

/// Every key of plans.
pub(super) const PLANS: &str = r#"schema = 1
[daemon]
interfaces = ["eth0"]
[[service]]
name = "web"
frontends = ["192.0.2.10:80/tcp"]
plan = "gray"
version = [{ name = "v1", weight = 1, instances = ["10.0.0.1:80", "10.0.0.2:80"] }]
[[service]]
name = "api"
frontends = ["192.0.2.11:80/tcp"]
plan = "rolling"
version = [{ name = "v1", weight = 1, instances = ["10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"] }]
[[plan]]
name = "gray"
strategy = "side-by-side"
ready = { threshold = "80%", timeout = "5m" }
steps = [
  { test = { sources = ["198.51.100.0/24", "2001:db8:1::/48"], for = "90s" } },
  { warmup = { requests = 500, path = "/warm?up=1", concurrency = 16 } },
  { weight = 10, hold = "10m" },
  { pause = {} },
  { approve = { webhook = "http://10.0.0.9:8080/ok", token_file = "/etc/release/token", timeout = "2h" } },
  { weight = 50, hold = "1m" },
]
analysis = { min_flows = 50, every = "5s", max_syn_failures = "1%", max_resets = "0.5%", max_latency = "200ms", max_latency_ratio = 2.5, max_retransmits = "5%" }
drain = { deadline = "30m", on_deadline = "force", force_rate = 7 }
rollback_window = "15m"
[plan.hooks]
start = { argv = ["/usr/local/bin/start", "--fast", ""], timeout = "30s" }
pre_drain = { argv = ["/h/pre-drain"] }
probe = { argv = ["/h/probe"] }
test = { argv = ["/h/test"] }
pre_step = { argv = ["/h/pre-step"] }
promote = { argv = ["/h/promote"] }
stop = { unit = "web-{service}-{version}@{instance}.service", timeout = "90s" }
post_release = { argv = ["/h/migrate"], secrets = { DB_PASSWORD = "/etc/release/db.pw", _2 = "/s" }, idempotent = true }
abort = { argv = ["/h/abort"] }
event = { argv = ["/h/event"] }
[[plan]]
name = "rolling"
strategy = "in-place"
batch = 1
min_serving = 2
ready = { timeout = "30s" }
[plan.hooks.upgrade]
unit = "web.service"
"#;

const fn minutes(number: u64) -> Duration {
    Duration::from_secs(60 * number)
}

fn run(program: &str) -> Option<Hook> {
    let action = Action::Exec(vec![program.to_owned()]);
    Some(Hook { action, timeout: minutes(1), idempotent: false, secrets: Vec::new() })
}

fn gray() -> Plan {
    let prefix = |text| Prefix::parse(text).unwrap();
    let argv = ["/usr/local/bin/start", "--fast", ""].map(str::to_owned).to_vec();
    let unit = "web-{service}-{version}@{instance}.service".to_owned();
    let secret = |name: &str, path: &str| (name.to_owned(), path.into());
    Plan {
        name: "gray".to_owned(),
        strategy: Strategy::SideBySide,
        ready: Ready { threshold: Threshold::Percent(80), timeout: minutes(5) },
        steps: vec![
            Step::Test {
                sources: vec![prefix("198.51.100.0/24"), prefix("2001:db8:1::/48")],
                duration: Duration::from_secs(90),
            },
            Step::Warmup { requests: 500, path: Some("/warm?up=1".to_owned()), concurrency: 16 },
            Step::Weight { percent: 10, hold: minutes(10) },
            Step::Pause,
            Step::Approve {
                webhook: Webhook {
                    url: "http://10.0.0.9:8080/ok".to_owned(),
                    token: Some("/etc/release/token".into()),
                },
                timeout: minutes(120),
            },
            Step::Weight { percent: 50, hold: minutes(1) },
        ],
        analysis: Analysis {
            min_flows: 50,
            every: Duration::from_secs(5),
            max_syn_failures: Some(0.01),
            max_resets: Some(0.005),
            max_latency: Some(Duration::from_millis(200)),
            max_latency_ratio: Some(2.5),
            max_retransmits: Some(0.05),
        },
        drain: Drain { deadline: Some(minutes(30)), on_deadline: OnDeadline::Force, force_rate: 7 },
        hooks: Hooks {
            start: Some(Hook {
                action: Action::Exec(argv),
                timeout: Duration::from_secs(30),
                idempotent: false,
                secrets: Vec::new(),
            }),
            pre_drain: run("/h/pre-drain"),
            upgrade: None,
            probe: run("/h/probe"),
            test: run("/h/test"),
            pre_step: run("/h/pre-step"),
            promote: run("/h/promote"),
            stop: Some(Hook {
                action: Action::Unit(unit),
                timeout: Duration::from_secs(90),
                idempotent: false,
                secrets: Vec::new(),
            }),
            post_release: Some(Hook {
                idempotent: true,
                secrets: vec![secret("DB_PASSWORD", "/etc/release/db.pw"), secret("_2", "/s")],
                ..run("/h/migrate").unwrap()
            }),
            abort: run("/h/abort"),
            event: run("/h/event"),
        },
        rollback_window: minutes(15),
    }
}

#[test]
fn everything_given() {
    let config = load(PLANS);
    assert_eq!(config.warnings(), []);
    let [first, rolling] = config.plans() else { panic!("{:?}", config.plans()) };
    assert_eq!(*first, gray());
    assert_eq!(config.plan("gray"), Some(first));
    assert_eq!(config.plan("grey"), None);
    assert_eq!(rolling.strategy, Strategy::InPlace { batch: 1, min_serving: 2 });
    assert_eq!(rolling.ready.timeout, Duration::from_secs(30));
    let action = &rolling.hooks.upgrade.as_ref().unwrap().action;
    assert_eq!(*action, Action::Unit("web.service".to_owned()));
    let default = |service| config.service(service).unwrap().plan().map(ToString::to_string);
    assert_eq!(default("web").as_deref(), Some("gray"));
    assert_eq!(default("api").as_deref(), Some("rolling"));
    assert_eq!(load(SMALL).service("web").unwrap().plan(), None);
    assert_eq!(load(SMALL).plans(), []);
}

/// A release keeps its plan as JSON.
#[test]
fn kept_as_it_is() {
    for plan in load(PLANS).plans() {
        let json = serde_json::to_string(plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), *plan);
    }
}

fn plan(lines: &str) -> Plan {
    let config = load(&format!("{SMALL}[[plan]]\nname = \"gray\"\n{lines}\n"));
    assert_eq!(config.warnings(), []);
    config.plan("gray").unwrap().clone()
}

#[test]
fn defaults() {
    let all = Plan {
        name: "gray".to_owned(),
        strategy: Strategy::SideBySide,
        ready: Ready { threshold: Threshold::Percent(100), timeout: minutes(5) },
        steps: Vec::new(),
        analysis: Analysis::default(),
        drain: Drain { deadline: None, on_deadline: OnDeadline::Hold, force_rate: 100 },
        hooks: Hooks::default(),
        rollback_window: minutes(10),
    };
    assert_eq!(plan("strategy = \"side-by-side\""), all);
    let empty = "strategy = \"side-by-side\"\nready = {}\nsteps = []\ndrain = {}\nhooks = {}";
    assert_eq!(plan(empty), all);
    let hook = "hooks = { upgrade = { argv = [\"/u\"] } }";
    let in_place = Plan {
        strategy: Strategy::InPlace { batch: 1, min_serving: 1 },
        hooks: Hooks { upgrade: run("/u"), ..Hooks::default() },
        rollback_window: Duration::ZERO,
        ..all
    };
    assert_eq!(plan(&format!("strategy = \"in-place\"\n{hook}")), in_place);
    let short = "strategy = \"side-by-side\"\nanalysis = {}\nsteps = [{ test = { sources = [\"::/0\"] } },\
                 { warmup = {} }, { weight = 1 }, { approve = { webhook = \"http://a\" } }]";
    let short = plan(short);
    assert_eq!(short.analysis, Analysis { min_flows: 100, ..Analysis::default() });
    assert_eq!(short.analysis.every, Duration::from_secs(10));
    let webhook = Webhook { url: "http://a".to_owned(), token: None };
    assert_eq!(
        short.steps,
        [
            Step::Test { sources: vec![Prefix::parse("::/0").unwrap()], duration: minutes(1) },
            Step::Warmup { requests: 100, path: None, concurrency: 8 },
            Step::Weight { percent: 1, hold: minutes(5) },
            Step::Approve { webhook, timeout: minutes(60) },
        ]
    );
}

#[test]
fn limits_are_included() {
    let side = |line: &str| plan(&format!("strategy = \"side-by-side\"\n{line}"));
    let steps = |steps: &str| side(&format!("steps = [{steps}]")).steps;
    let threshold = |text: &str| side(&format!("ready.threshold = {text}")).ready.threshold;
    assert_eq!(threshold("\"1%\""), Threshold::Percent(1));
    assert_eq!(threshold("4096"), Threshold::Count(4096));
    assert_eq!(side("rollback_window = \"0s\"").rollback_window, Duration::ZERO);
    let all = (1..=99).map(|n| format!("{{ weight = {n}, hold = \"1ms\" }}")).collect::<Vec<_>>();
    assert_eq!(steps(&all.join(",")).len(), 99);
    for url in ["http://[fd00::1]:1/", "http://gate.example:65535/a?b=c", "http://10.0.0.9"] {
        steps(&format!("{{ approve = {{ webhook = \"{url}\" }} }}"));
    }
    let judged = side(
        "steps = [{ weight = 1, hold = \"100ms\" }]\nanalysis = { every = \"100ms\", \
         max_resets = \"0%\", max_retransmits = \"100%\", max_latency_ratio = 1, min_flows = 0 }",
    );
    assert_eq!(
        (judged.analysis.max_resets, judged.analysis.max_retransmits),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(judged.analysis.max_latency_ratio, Some(1.0));
}

#[test]
fn in_place_without_a_hook_for_it() {
    let text = format!("{SMALL}[[plan]]\nname = \"gray\"\nstrategy = \"in-place\"\n");
    let config = load(&text);
    let warnings: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f.toml:13: plan[gray].hooks.upgrade: missing (instances are drained and admitted again as they are)"
        ]
    );
}

/// Plans are for all files, whatever their order.
#[test]
fn files_share_plans() {
    let plan = "schema = 1\n[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\n";
    let small = SMALL.replace("name = \"web\"", "name = \"web\"\nplan = \"gray\"");
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("a.toml"), small).unwrap();
    std::fs::write(folder.path().join("b.toml"), plan).unwrap();
    let config = Config::load(Some(folder.path())).unwrap();
    let web = config.service("web").unwrap();
    assert!(config.plan(web.plan().unwrap().as_str()).is_some());
    std::fs::write(folder.path().join("c.toml"), plan).unwrap();
    let errors = Config::load(Some(folder.path())).unwrap_err().to_string();
    let errors = errors.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        errors,
        "c.toml:3: plan[gray].name: a plan `gray` is there already: plan[gray].name at b.toml:3"
    );
}

/// What no configuration says of a service, `release start` has to ask.
#[test]
fn misfits() {
    let config = load(PLANS);
    let (web, api) = (config.service("web").unwrap(), config.service("api").unwrap());
    let (gray, rolling) = (config.plan("gray").unwrap(), config.plan("rolling").unwrap());
    assert_eq!((web.misfits(gray), api.misfits(rolling), api.misfits(gray)), Default::default());
    let found: Vec<_> = web.misfits(rolling).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "plan rolling: min_serving: 2 must serve while 1 are upgraded, and there are 2 instances in all (batch and min_serving are too many together)"
        ]
    );
}
