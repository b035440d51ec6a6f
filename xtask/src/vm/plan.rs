//! What runs inside the guests: the one place to add to.

use std::{fmt, iter};

/// One run of one test program.
#[derive(Clone, Copy, Debug)]
pub struct GuestTest {
    /// The test program: `tests/<program>.rs` of release-tests.
    pub program: &'static str,
    /// Which of its tests: a libtest filter, empty for all. One that matches nothing is a failure.
    pub filter: &'static str,
    /// Variables of its environment, `NAME=VALUE`.
    pub environment: &'static [&'static str],
}

/// The tests, in their order. They take about five times as long as on the machine itself, and most
/// of that is the verifier: a new row should be a test that another kernel can really decide, a
/// short one, and one that loads the programs no more often than it must.
pub const TESTS: &[GuestTest] = &[
    // Every program loads, and its verifier's work is printed; then the case table through
    // BPF_PROG_TEST_RUN: some of each category and family. VLAN tags, options and extension headers
    // are no kernel's business.
    GuestTest { program: "cases_kernel", filter: "plain", environment: &["RELEASE_TEST_CASES=8"] },
    // Daemon, XDP on veth and programs on what the host sends, between real sockets: every mode,
    // tunnels into the kernel's own devices.
    GuestTest { program: "kernel_modes", filter: "", environment: &[] },
    // What the kernel tells of sockets in other namespaces, and whether it ends one.
    GuestTest { program: "sockets", filter: "sockets_of_another_namespace", environment: &[] },
    GuestTest { program: "sockets", filter: "one_socket_is_ended", environment: &[] },
];

/// Programs of this machine that those tests run. Put there with the libraries they need.
pub const TOOLS: &[&str] = &["ip", "ethtool"];

/// Kernel modules loaded before the tests, each with those it depends on. One that a kernel has
/// built in, or lacks, is named and left out.
pub const MODULES: &[&str] = &[
    // Links and hooks.
    "veth",
    "dummy",
    "8021q",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    // The kernel's own tunnels: the other end of every encapsulation.
    "ipip",
    "ip6_tunnel",
    "sit",
    "fou",
    "fou6",
    // Sockets' states.
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

impl fmt::Display for GuestTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.filter {
            "" => f.write_str(self.program),
            filter => write!(f, "{}::{filter}", self.program),
        }
    }
}

/// A fault made on purpose, instead of the tests: an alarm that nobody has heard is none.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Fault {
    /// A test fails
    Failure,
    /// A test program ends well without having run a test
    Nothing,
    /// The guest makes no progress
    Hang,
    /// The kernel panics
    Panic,
}

impl Fault {
    /// What the guest's shell runs.
    const fn command(self) -> &'static str {
        match self {
            Self::Failure => "false",
            Self::Nothing => "true",
            Self::Hang => "sleep 100000",
            Self::Panic => "sh -c 'echo c >/proc/sysrq-trigger'",
        }
    }
}

/// The steps of a run: names, and the shell lines that run them.
#[derive(Debug)]
pub struct Steps {
    /// Names, in their order.
    pub names: Vec<String>,
    /// Shell lines, one a step; `step` is defined by the guest's init.
    pub script: String,
}

impl Steps {
    /// All tests, or a fault.
    pub fn new(tests: &[GuestTest], fault: Option<Fault>) -> Self {
        let mut steps = Self { names: Vec::new(), script: String::new() };
        if let Some(fault) = fault {
            steps.add("fault", fault.command());
            return steps;
        }
        for test in tests {
            // Shown as it runs, and one at a time: the emulated CPUs have no time to spare.
            let options = "--include-ignored --nocapture --test-threads=1";
            let GuestTest { program, filter, environment, .. } = test;
            let program = format!("/tests/{program}");
            let words = iter::once("env").chain(environment.iter().copied());
            let words = words.chain([program.as_str(), options, filter]);
            steps.add(&test.to_string(), &words.collect::<Vec<_>>().join(" "));
        }
        steps
    }

    fn add(&mut self, name: &str, command: &str) {
        self.names.push(name.to_owned());
        self.script += &format!("step {name} {}\n", command.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_shell_line() {
        let tests = [
            GuestTest { program: "kernel", filter: "", environment: &[] },
            GuestTest { program: "pins", filter: "a_thousand", environment: &["A=1", "B=2"] },
        ];
        let steps = Steps::new(&tests, None);
        assert_eq!(steps.names, ["kernel", "pins::a_thousand"]);
        assert_eq!(
            steps.script,
            "step kernel env /tests/kernel --include-ignored --nocapture --test-threads=1\n\
             step pins::a_thousand env A=1 B=2 /tests/pins --include-ignored --nocapture --test-threads=1 a_thousand\n"
        );
        assert_eq!(Steps::new(&tests, Some(Fault::Failure)).script, "step fault false\n");
    }

    #[test]
    fn names_are_single_words_and_unique() {
        let mut names = Steps::new(TESTS, None).names;
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
