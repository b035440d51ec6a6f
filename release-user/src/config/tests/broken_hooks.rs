//! Broken hooks, for the table test in `broken_plan`.

use super::broken_plan::Case;

/// By strategy. The hooks stand from line 17.
pub(super) const HOOKS: &[(&str, &[Case])] = &[("side-by-side", SIDE), ("in-place", IN_PLACE)];

const SIDE: &[Case] = &[
    (
        "unknown keys",
        "post_relase = { argv = [\"/a\"] }\nstart = { argv = [\"/a\"], timout = \"1s\" }",
        &[
            "17: plan[gray].hooks.post_relase: unknown key (did you mean `post_release`?)",
            "18: plan[gray].hooks.start.timout: unknown key (did you mean `timeout`?)",
        ],
    ),
    (
        "both and neither",
        "start = { argv = [\"/a\"], unit = \"a.service\" }\nstop = {}\nabort = \"/a\"",
        &[
            "17: plan[gray].hooks.start: a second action, plan[gray].hooks.start.unit (keep `argv` or `unit`)",
            "18: plan[gray].hooks.stop: nothing to run (argv = [\"/PATH\", …] or unit = \"NAME.service\")",
            "19: plan[gray].hooks.abort: expected a table, found a string",
        ],
    ),
    (
        "argv",
        "start = { argv = [] }\nstop = { argv = [\"stop.sh\", \"now\"] }\nabort = { argv = \"/a b\" }\n\
         event = { argv = [\"/a\", 1, \"\\u0000\"] }\npromote = { argv = [1, \"b\"] }\nprobe = { argv = [\"\"] }",
        &[
            "17: plan[gray].hooks.start.argv: empty (the program, and its arguments)",
            "18: plan[gray].hooks.stop.argv: \"stop.sh\" is not an absolute path (no shell looks for it)",
            "19: plan[gray].hooks.abort.argv: expected an array, found a string",
            "20: plan[gray].hooks.event.argv[1]: expected a string, found an integer",
            "20: plan[gray].hooks.event.argv[2]: a zero byte (no program can be given one)",
            "21: plan[gray].hooks.promote.argv[0]: expected a string, found an integer",
            "22: plan[gray].hooks.probe.argv: \"\" is not an absolute path (no shell looks for it)",
        ],
    ),
    (
        "timeouts and flags",
        "start = { argv = [\"/a\"], timeout = \"0s\" }\nstop = { argv = [\"/a\"], idempotent = 1 }",
        &[
            "17: plan[gray].hooks.start.timeout: 0s is out of range (1ms to 30days)",
            "18: plan[gray].hooks.stop.idempotent: expected true or false, found an integer",
        ],
    ),
    (
        "units",
        "start = { unit = \"web\" }\nstop = { unit = \"web@{id}.service\" }",
        &[
            "17: plan[gray].hooks.start.unit: \"web\" is not a service unit (such as \"web@{instance}.service\")",
            "18: plan[gray].hooks.stop.unit: unknown placeholder {id} (known: `instance`, `version`, `service`)",
        ],
    ),
    (
        "more units",
        "start = { unit = \"web@.service\" }\nstop = { unit = \"web@{instanc}.service\" }",
        &[
            "17: plan[gray].hooks.start.unit: \"web@.service\" is not a service unit (it is a template: say of what, such as \"web@{instance}.service\")",
            "18: plan[gray].hooks.stop.unit: unknown placeholder {instanc} (did you mean `instance`?)",
        ],
    ),
    (
        "units that are none",
        "start = { unit = \"{version.service\" }\nstop = { unit = \"a/b@{instance}.service\" }",
        &[
            "17: plan[gray].hooks.start.unit: \"{version.service\" is not a service unit (`{` without `}`)",
            "18: plan[gray].hooks.stop.unit: \"a/b@{instance}.service\" is not a service unit (such as \"web@{instance}.service\")",
        ],
    ),
    (
        "units that are none, either",
        "start = { unit = \".service\" }\nstop = { unit = \"{version}}.service\" }",
        &[
            "17: plan[gray].hooks.start.unit: \".service\" is not a service unit (such as \"web@{instance}.service\")",
            "18: plan[gray].hooks.stop.unit: \"{version}}.service\" is not a service unit (such as \"web@{instance}.service\")",
        ],
    ),
    (
        "a unit where nothing is started or stopped",
        "event = { unit = \"a.service\" }",
        &[
            "17: plan[gray].hooks.event.unit: hook `event` is no unit's (a unit is for `start`, `upgrade`, `stop`; others have `argv`)",
        ],
    ),
    (
        "secrets",
        "start = { argv = [\"/a\"], secrets = { PW = \"pw\" } }\nstop = { argv = [\"/a\"], secrets = { \"1W\" = \"/pw\" } }\n\
         abort = { argv = [\"/a\"], secrets = { RELEASE_ID = \"/pw\" } }\nevent = { argv = [\"/a\"], secrets = [\"/pw\"] }",
        &[
            "17: plan[gray].hooks.start.secrets.PW: \"pw\" is not an absolute path",
            "18: plan[gray].hooks.stop.secrets: \"1W\" is not the name of a variable (letters, digits and `_`, no digit first)",
            "19: plan[gray].hooks.abort.secrets: \"RELEASE_ID\": such names are taken (variables RELEASE_… say what the release is about)",
            "20: plan[gray].hooks.event.secrets: expected a table, found an array",
        ],
    ),
    (
        "secrets of a unit",
        "start = { unit = \"a.service\", secrets = { PW = \"/pw\" } }",
        &[
            "17: plan[gray].hooks.start: secrets for a unit (its variables are its own matter: LoadCredential= in its file)",
        ],
    ),
    (
        "never run beside the old version",
        "upgrade = { argv = [\"/a\"] }\ntest = { argv = [\"/a\"] }\npre_step = { argv = [\"/a\"] }",
        &[
            "17: plan[gray].hooks.upgrade: strategy `side-by-side` upgrades no instances (`start` brings up the new version's, `stop` stops the old one's)",
            "18: plan[gray].hooks.test: there is no test step",
            "19: plan[gray].hooks.pre_step: there is no step to run it before (a pause is none)",
        ],
    ),
];

const IN_PLACE: &[Case] = &[(
    "never run in place",
    "start = { argv = [\"/a\"] }\nstop = { argv = [\"/a\"] }\ntest = { argv = [\"/a\"] }\n\
     pre_step = { argv = [\"/a\"] }\npromote = { argv = [\"/a\"] }\npre_drain = { argv = [\"/a\"] }",
    &[
        "17: plan[gray].hooks.start: strategy `in-place` starts and stops no instances (`upgrade` does)",
        "18: plan[gray].hooks.stop: strategy `in-place` starts and stops no instances (`upgrade` does)",
        "19: plan[gray].hooks.test: strategy `in-place` has no steps",
        "20: plan[gray].hooks.pre_step: strategy `in-place` has no steps",
        "21: plan[gray].hooks.promote: strategy `in-place` has no version to promote",
    ],
)];
