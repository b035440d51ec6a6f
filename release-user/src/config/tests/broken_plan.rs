//! Broken plans, and plans that are not there.

use super::broken_hooks::HOOKS;
use super::{Config, SMALL};

/// What it shows; what stands behind the plan's name, from line 15; the messages that must follow,
/// without the file.
pub(super) type Case = (&'static str, &'static str, &'static [&'static str]);

/// Behind `strategy = "side-by-side"`, from line 16.
const SIDE: &[Case] = &[
    (
        "unknown keys",
        "step = []\nready = { treshold = 1 }\nanalysis = { flows = 1 }\ndrain = { dead = \"1s\" }",
        &[
            "16: plan[gray].step: unknown key (did you mean `steps`?)",
            "17: plan[gray].ready.treshold: unknown key (did you mean `threshold`?)",
            "18: plan[gray].analysis.flows: unknown key (known: min_flows, every, max_syn_failures, max_resets, max_retransmits, max_latency, max_latency_ratio)",
            "19: plan[gray].drain.dead: unknown key (known: deadline, on_deadline, force_rate)",
        ],
    ),
    (
        "name twice",
        "[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"",
        &["17: plan[gray].name: a plan `gray` is there already: plan[gray].name at f.toml:14"],
    ),
    (
        "thresholds",
        "ready.threshold = \"101%\"\n[[plan]]\nname = \"b\"\nstrategy = \"in-place\"\nready.threshold = \"0%\"\n\
         [[plan]]\nname = \"c\"\nstrategy = \"side-by-side\"\nready.threshold = \"80\"\n\
         [[plan]]\nname = \"d\"\nstrategy = \"side-by-side\"\nready.threshold = 0\n\
         [[plan]]\nname = \"e\"\nstrategy = \"side-by-side\"\nready.threshold = 0.8",
        &[
            "16: plan[gray].ready.threshold: \"101%\" is not a percentage (\"1%\" to \"100%\"; or a number of instances, without quotes)",
            "20: plan[b].ready.threshold: \"0%\" is not a percentage (\"1%\" to \"100%\"; or a number of instances, without quotes)",
            "24: plan[c].ready.threshold: \"80\" is not a percentage (\"1%\" to \"100%\"; or a number of instances, without quotes)",
            "28: plan[d].ready.threshold: 0 is out of range (1 to 4096)",
            "32: plan[e].ready.threshold: expected an integer, found a float",
        ],
    ),
    (
        "times of zero, and without end",
        "ready.timeout = \"0s\"\ndrain.deadline = \"0s\"\nrollback_window = \"31d\"\nsteps = [\n\
         { weight = 10, hold = \"0s\" },\n{ test = { sources = [\"10.0.0.0/8\"], for = \"0s\" } },\n\
         { approve = { webhook = \"http://a\", timeout = \"0s\" } }]",
        &[
            "16: plan[gray].ready.timeout: 0s is out of range (1ms to 30days)",
            "17: plan[gray].drain.deadline: 0s is out of range (1ms to 30days)",
            "18: plan[gray].rollback_window: 1month 13h 26m 24s is out of range (0s to 30days)",
            "20: plan[gray].steps[0].hold: 0s is out of range (1ms to 30days)",
            "21: plan[gray].steps[1].test.for: 0s is out of range (1ms to 30days)",
            "22: plan[gray].steps[2].approve.timeout: 0s is out of range (1ms to 30days)",
        ],
    ),
    (
        "force without a deadline",
        "drain = { force_rate = 5, on_deadline = \"force\" }",
        &["16: plan[gray].drain.on_deadline: `force` without a deadline (deadline = \"30m\")"],
    ),
    (
        "what is said of the drain",
        "drain = { on_deadline = \"forced\", force_rate = 0 }",
        &[
            "16: plan[gray].drain.on_deadline: unknown value \"forced\" (did you mean `force`?)",
            "16: plan[gray].drain.force_rate: 0 is out of range (1 to 100000)",
        ],
    ),
    (
        "force, its deadline refused",
        "drain = { deadline = 30, on_deadline = \"force\" }",
        &["16: plan[gray].drain.deadline: expected a duration in quotes, found an integer"],
    ),
    (
        "percentages",
        "steps = [{ weight = 1 }]\n[plan.analysis]\nmax_syn_failures = \"101%\"\nmax_resets = \"-1%\"\n\
         max_retransmits = 0.01\nmax_latency_ratio = 0.5\nmax_latency = \"0ms\"\nmin_flows = -1\nevery = \"0s\"",
        &[
            "18: plan[gray].analysis.max_syn_failures: \"101%\" is not a percentage (\"0%\" to \"100%\", such as \"0.5%\")",
            "19: plan[gray].analysis.max_resets: \"-1%\" is not a percentage (\"0%\" to \"100%\", such as \"0.5%\")",
            "20: plan[gray].analysis.max_retransmits: expected a string, found a float (a percentage in quotes: \"1%\")",
            "21: plan[gray].analysis.max_latency_ratio: 0.5 is out of range (1 to 1000)",
            "22: plan[gray].analysis.max_latency: 0s is out of range (1us to 1h)",
            "23: plan[gray].analysis.min_flows: -1 is negative (0 to 4294967295)",
            "24: plan[gray].analysis.every: 0s is out of range (100ms to 1h)",
        ],
    ),
    (
        "no numbers",
        "steps = [{ weight = 1 }]\nanalysis = { max_latency_ratio = nan, max_resets = \"inf%\", max_syn_failures = \"%\" }",
        &[
            "17: plan[gray].analysis.max_latency_ratio: NaN is out of range (1 to 1000)",
            "17: plan[gray].analysis.max_resets: \"inf%\" is not a percentage (\"0%\" to \"100%\", such as \"0.5%\")",
            "17: plan[gray].analysis.max_syn_failures: \"%\" is not a percentage (\"0%\" to \"100%\", such as \"0.5%\")",
        ],
    ),
    (
        "nothing to analyse",
        "steps = [{ pause = {} }]\nanalysis = { max_resets = \"1%\" }",
        &[
            "17: plan[gray].analysis: there is no weight step (it judges what the new version does while a weight is held)",
        ],
    ),
    (
        "rarer than once a hold",
        "steps = [{ weight = 1, hold = \"1m\" }, { weight = 2, hold = \"5s\" }]\nanalysis.every = \"10s\"",
        &[
            "17: plan[gray].analysis.every: longer than a hold, 5s (it would not be judged meanwhile)",
        ],
    ),
    (
        "weights do not rise",
        "steps = [{ weight = 10 },\n{ weight = 10 },\n{ pause = {} },\n{ weight = 9 }]",
        &[
            "17: plan[gray].steps[1].weight: 10 is not more than 10: plan[gray].steps[0].weight at f.toml:16 (weights rise from step to step; the last one, 100, is `promote`)",
            "19: plan[gray].steps[3].weight: 9 is not more than 10: plan[gray].steps[1].weight at f.toml:17 (weights rise from step to step; the last one, 100, is `promote`)",
        ],
    ),
    (
        "weights out of range",
        "steps = [{ weight = 0 }, { weight = 100 }, { weight = \"10%\" }]",
        &[
            "16: plan[gray].steps[0].weight: 0 is out of range (1 to 99)",
            "16: plan[gray].steps[1].weight: 100 is out of range (1 to 99)",
            "16: plan[gray].steps[2].weight: expected an integer, found a string",
        ],
    ),
    (
        "two kinds, and none",
        "steps = [\n{ pause = {}, weight = 10 },\n{ test = { sources = [\"10.0.0.0/8\"] }, approve = { webhook = \"http://a\" } },\n\
         {},\n{ hold = \"1m\" },\n{ pause = {}, hold = \"1m\" },\n\"pause\"]",
        &[
            "17: plan[gray].steps[0]: a second kind of step, plan[gray].steps[0].pause (one thing after the other: make two steps of it)",
            "18: plan[gray].steps[1]: a second kind of step, plan[gray].steps[1].approve (one thing after the other: make two steps of it)",
            "19: plan[gray].steps[2]: nothing to do (`test`, `warmup`, `weight`, `pause` or `approve`)",
            "20: plan[gray].steps[3].hold: there is no weight to hold (only with `weight`)",
            "21: plan[gray].steps[4].hold: there is no weight to hold (only with `weight`)",
            "22: plan[gray].steps[5]: expected a table, found a string",
        ],
    ),
    (
        "unknown kinds",
        "steps = [{ wieght = 10 },\n{ pause = { for = \"1m\" } },\n{ pause = true }]",
        &[
            "16: plan[gray].steps[0].wieght: unknown key (did you mean `weight`?)",
            "17: plan[gray].steps[1].pause.for: unknown key (nothing stands here)",
            "18: plan[gray].steps[2].pause: expected a table, found a boolean",
        ],
    ),
    (
        "tests",
        "steps = [{ test = {} },\n{ test = { sources = [] } },\n{ test = { sources = [\"10.0.0.1/8\"] } },\n\
         { test = { sources = [\"10.0.0.0/8\", \"10.0.0.0/8\"] } }]",
        &[
            "16: plan[gray].steps[0].test.sources: missing (sources = [\"198.51.100.0/24\"])",
            "17: plan[gray].steps[1].test.sources: empty (1 to 64)",
            "18: plan[gray].steps[2].test.sources[0]: \"10.0.0.1/8\" has bits behind its length (the prefix is \"10.0.0.0/8\")",
            "19: plan[gray].steps[3].test.sources: 10.0.0.0/8 stands twice",
        ],
    ),
    (
        "tests and warm-up too late",
        "steps = [{ weight = 10 },\n{ test = { sources = [\"10.0.0.0/8\"] } },\n{ warmup = {} }]",
        &[
            "17: plan[gray].steps[1].test: behind a weight: plan[gray].steps[0].weight at f.toml:16 (by then the new version serves everybody)",
            "18: plan[gray].steps[2].warmup: behind a weight: plan[gray].steps[0].weight at f.toml:16 (by then the new version serves everybody)",
        ],
    ),
    (
        "warm-up",
        "steps = [{ warmup = { requests = 0, concurrency = 1025, path = \"index\" } }, { warmup = { path = \"/a b\" } }]",
        &[
            "16: plan[gray].steps[0].warmup.requests: 0 is out of range (1 to 1000000)",
            "16: plan[gray].steps[0].warmup.concurrency: 1025 is out of range (1 to 1024)",
            "16: plan[gray].steps[0].warmup.path: \"index\" is not a path of HTTP (such as \"/\")",
            "16: plan[gray].steps[1].warmup.path: \"/a b\" is not a path of HTTP (such as \"/\")",
        ],
    ),
    (
        "approvals",
        "steps = [\n{ approve = {} },\n{ approve = { webhook = \"https://a/\" } },\n{ approve = { webhook = \"10.0.0.9/ok\" } },\n\
         { approve = { webhook = \"http://me:pw@a/\" } },\n{ approve = { webhook = \"http:///ok\" } },\n\
         { approve = { webhook = \"http://a:0/\" } },\n{ approve = { webhook = \"http://a/#b\" } },\n\
         { approve = { webhook = \"ftp://a/\" } },\n{ approve = { webhook = \"/ok\" } },\n\
         { approve = { webhook = \"http://a\", token_file = \"token\" } }]",
        &[
            "17: plan[gray].steps[0].approve.webhook: missing (webhook = \"http://10.0.0.9/ok\")",
            "18: plan[gray].steps[1].approve.webhook: \"https://a/\" is not an http:// address (TLS is not spoken here; name a proxy that does)",
            "19: plan[gray].steps[2].approve.webhook: \"10.0.0.9/ok\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "20: plan[gray].steps[3].approve.webhook: a password in the address (`token_file` has its place)",
            "21: plan[gray].steps[4].approve.webhook: \"http:///ok\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "22: plan[gray].steps[5].approve.webhook: \"http://a:0/\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "23: plan[gray].steps[6].approve.webhook: \"http://a/#b\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "24: plan[gray].steps[7].approve.webhook: \"ftp://a/\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "25: plan[gray].steps[8].approve.webhook: \"/ok\" is not an http:// address (such as \"http://10.0.0.9/ok\")",
            "26: plan[gray].steps[9].approve.token_file: \"token\" is not an absolute path",
        ],
    ),
    (
        "keys of the other strategy",
        "batch = 1\nmin_serving = 0\n[[plan]]\nname = \"b\"\nstrategy = \"side-by-side\"\nbatch = 1\nmin_serving = 1",
        &[
            "17: plan[gray].min_serving: 0 is out of range (1 to 4096)",
            "21: plan[b].batch: strategy `side-by-side` takes all instances of a version at once (only `in-place`)",
            "22: plan[b].min_serving: strategy `side-by-side` takes all instances of a version at once (only `in-place`)",
        ],
    ),
];

/// Behind the name, from line 15.
const WHOLE: &[Case] = &[
    ("no strategy", "", &["13: plan[gray].strategy: missing (strategy = \"side-by-side\")"]),
    (
        "strategy",
        "strategy = \"inplace\"",
        &["15: plan[gray].strategy: unknown value \"inplace\" (did you mean `in-place`?)"],
    ),
    (
        "no name",
        "strategy = \"in-place\"\n[[plan]]\nstrategy = \"in-place\"",
        &["16: plan[1].name: missing (name = \"gray\")"],
    ),
    (
        "steps in place",
        "strategy = \"in-place\"\nsteps = [{ weight = 10 }, { pause = {} }]\nanalysis = {}\nready.threshold = 1\nrollback_window = \"1m\"",
        &[
            "16: plan[gray].steps[0].weight: strategy `in-place` has no steps (there is one version: instances are drained, upgraded, probed and admitted)",
            "17: plan[gray].analysis: strategy `in-place` has no analysis (there is no second version to judge)",
            "18: plan[gray].ready.threshold: strategy `in-place` has no threshold (every upgraded instance must be live before the next batch)",
            "19: plan[gray].rollback_window: strategy `in-place` has no rollback window (no old version is kept to go back to)",
        ],
    ),
];

/// What is wrong with a configuration.
pub(super) fn messages(text: &str) -> Vec<String> {
    match Config::from_str(text, "f.toml") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Exactly these messages, and in the order of lines.
pub(super) fn same(what: &str, text: &str, expected: &[&str]) {
    let mut expected: Vec<String> = expected.iter().map(|rest| format!("f.toml:{rest}")).collect();
    let mut found = messages(text);
    assert!(found.iter().map(|error| line(error)).is_sorted(), "{what}: {found:#?}");
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "{what}");
}

fn line(message: &str) -> usize {
    message.split(':').nth(1).unwrap().parse().unwrap()
}

#[test]
fn plans() {
    let head = format!("{SMALL}[[plan]]\nname = \"gray\"\n");
    for (what, text, expected) in WHOLE {
        same(what, &format!("{head}{text}\n"), expected);
    }
    for (what, text, expected) in SIDE {
        same(what, &format!("{head}strategy = \"side-by-side\"\n{text}\n"), expected);
    }
    for (strategy, cases) in HOOKS {
        for (what, text, expected) in *cases {
            let text = format!("{head}strategy = \"{strategy}\"\n[plan.hooks]\n{text}\n");
            same(what, &text, expected);
        }
    }
}

#[test]
fn not_as_it_is_written() {
    let one = format!("{SMALL}[plan]\nname = \"gray\"\n");
    same("one plan", &one, &["13: plan: a single table (write [[plan]])"]);
    let many =
        |name: &str, text: &str, count| format!("{name} = [{}]\n", vec![text; count].join(","));
    let head = format!("{SMALL}[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\n");
    assert_eq!(messages(&format!("{head}{}", many("steps", "{ pause = {} }", 128))), [""; 0]);
    let steps = format!("{head}{}", many("steps", "{ pause = {} }", 129));
    same("steps", &steps, &["16: plan[gray].steps: 129 of them (0 to 128)"]);
    let plans = |count: usize| -> String {
        let plan = |n| format!("[[plan]]\nname = \"p{n}\"\nstrategy = \"side-by-side\"\n");
        (0..count).fold(SMALL.to_owned(), |text, n| text + &plan(n))
    };
    assert_eq!(messages(&plans(1024)), [""; 0]);
    same("plans", &plans(1025), &["3085: plan[p1024]: 1025 plans in all (at most 1024)"]);
}

#[test]
fn plans_that_are_not_there() {
    let text =
        |plan: &str| SMALL.replace("name = \"web\"", &format!("name = \"web\"\nplan = {plan}"));
    let with = |plan: &str| {
        format!("{}[[plan]]\nname = \"gray\"\nstrategy = \"side-by-side\"\n", text(plan))
    };
    same(
        "none",
        &text("\"gray\""),
        &["6: service[web].plan: there is no plan `gray` (add a [[plan]])"],
    );
    let mistyped = "6: service[web].plan: there is no plan `grey` (did you mean `gray`?)";
    same("mistyped", &with("\"grey\""), &[mistyped]);
    let other = "6: service[web].plan: there is no plan `rolling` (there is gray)";
    same("other", &with("\"rolling\""), &[other]);
    same("no name", &with("1"), &["6: service[web].plan: expected a string, found an integer"]);
    // A plan that is broken is there, all the same.
    let broken = with("\"gray\"").replace("side-by-side", "side");
    assert_eq!(messages(&broken).len(), 1);
}
