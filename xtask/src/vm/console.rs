//! The guest's serial console: the only witness. QEMU ends with status 0 on success, failure and
//! panic alike, so a run has passed only if every step said so, with a token that nobody else
//! knows, and so did the end.

/// What a line of the console means.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The kernel that runs.
    Linux(String),
    /// A step begins.
    Begin(String),
    /// A step is done.
    Passed(String),
    /// A step has failed.
    Failed(String),
    /// What the verifier had to do.
    Verifier(String),
    /// Anything else.
    Other,
}

/// What has been read so far.
#[derive(Debug)]
pub struct Console {
    token: String,
    kernel: String,
    /// Steps that have not passed.
    open: Vec<String>,
    running: Option<String>,
    /// Tests that passed within the running step.
    tests: u32,
    failed: Vec<String>,
    panic: Option<String>,
    booted: bool,
    ended: bool,
}

impl Console {
    /// A console on which a kernel of this release is expected to run these steps.
    pub fn new(token: &str, kernel: &str, steps: &[String]) -> Self {
        Self {
            token: token.to_owned(),
            kernel: kernel.to_owned(),
            open: steps.to_vec(),
            running: None,
            tests: 0,
            failed: Vec::new(),
            panic: None,
            booted: false,
            ended: false,
        }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &str) -> Event {
        let words = line.strip_prefix(self.token.as_str()).map(|rest| rest.trim().split(' '));
        let words: Vec<&str> = words.into_iter().flatten().collect();
        match words[..] {
            ["linux", release] => {
                self.booted = release == self.kernel;
                Event::Linux(release.to_owned())
            }
            ["begin", name] => {
                self.running = Some(name.to_owned());
                self.tests = 0;
                Event::Begin(name.to_owned())
            }
            ["exit", name, status] => self.exit(name, status),
            ["end"] => {
                self.ended = true;
                Event::Other
            }
            _ => self.text(line),
        }
    }

    /// The step that runs, if one does.
    pub fn running(&self) -> Option<&str> {
        self.running.as_deref()
    }

    /// Whether all is well, or what isn't.
    ///
    /// # Errors
    /// The first of: a panic, another kernel, failed steps, a stop half-way.
    pub fn verdict(&self) -> Result<(), String> {
        let place = match &self.running {
            Some(step) => format!("in {step}"),
            None if self.booted => "between the tests".to_owned(),
            None => "before the tests began".to_owned(),
        };
        if let Some(panic) = &self.panic {
            return Err(format!("the kernel panicked {place}: {panic}"));
        }
        if !self.failed.is_empty() {
            return Err(self.failed.join("; "));
        }
        if !self.ended {
            return Err(format!("the guest stopped {place}"));
        }
        if !self.booted {
            return Err(format!("this was not Linux {}", self.kernel));
        }
        match &self.open[..] {
            [] => Ok(()),
            open => Err(format!("never run: {}", open.join(", "))),
        }
    }

    fn exit(&mut self, name: &str, status: &str) -> Event {
        self.running = None;
        let failure = if status != "0" {
            format!("{name} failed with status {status}")
        } else if self.tests == 0 {
            format!("{name} ran no test (does its filter still match one?)")
        } else {
            self.open.retain(|open| open != name);
            return Event::Passed(name.to_owned());
        };
        self.failed.push(failure.clone());
        Event::Failed(failure)
    }

    fn text(&mut self, line: &str) -> Event {
        if let Some((_, rest)) = line.split_once("test result: ok. ") {
            let passed = rest.split(' ').next().and_then(|number| number.parse().ok());
            self.tests += passed.unwrap_or(0);
        }
        if self.panic.is_none() {
            let panic = line.split_once("Kernel panic - ");
            self.panic = panic.map(|(_, reason)| reason.to_owned());
        }
        match line.split_once("verifier: ") {
            Some((_, what)) => Event::Verifier(what.to_owned()),
            None => Event::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "@1 linux 6.1.0\n\n@1 begin one\nrunning 1 test\ntest a ... verifier: 7 instructions\n\
                        test result: ok. 1 passed; 0 failed\n\n@1 exit one 0\n@1 end";

    fn verdict(text: &str) -> Result<(), String> {
        let mut console = Console::new("@1", "6.1.0", &["one".to_owned()]);
        for line in text.lines() {
            console.line(line);
        }
        console.verdict()
    }

    #[track_caller]
    fn fails(text: &str, why: &str) {
        let error = verdict(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn every_step_and_the_end_must_say_so() {
        assert_eq!(verdict(GOOD), Ok(()));
        fails("", "stopped before the tests began");
        fails(&GOOD.replace("@1 end", ""), "stopped between the tests");
        fails(&GOOD.replace("@1 exit one 0\n@1 end", ""), "stopped in one");
        fails("@1 linux 6.1.0\n@1 end", "never run: one");
        fails(&GOOD.replace("exit one 0", "exit one 101"), "one failed with status 101");
        fails(&GOOD.replace("linux 6.1.0", "linux 6.2.0"), "not Linux 6.1.0");
    }

    #[test]
    fn no_test_is_no_success() {
        fails(&GOOD.replace("ok. 1 passed", "ok. 0 passed"), "one ran no test");
        fails(&GOOD.replace("test result", "result"), "one ran no test");
    }

    #[test]
    fn another_token_counts_for_nothing() {
        fails(&GOOD.replace("@1", "@2"), "stopped before the tests began");
        fails(&GOOD.replace("@1 end", "echo @1 end"), "stopped");
    }

    #[test]
    fn a_panic_is_named_with_its_place() {
        let panic = "[ 3.1] Kernel panic - not syncing: sysrq triggered crash";
        fails(&GOOD.replace("running 1 test", panic), "panicked");
        fails(
            &format!("@1 linux 6.1.0\n@1 begin one\n{panic}\n"),
            "in one: not syncing: sysrq triggered crash",
        );
        fails(panic, "before the tests began");
    }

    #[test]
    fn lines_for_the_person_who_waits() {
        let mut console = Console::new("@1", "6.1.0", &["one".to_owned()]);
        let events: Vec<Event> = GOOD.lines().map(|line| console.line(line)).collect();
        let seen: Vec<&Event> = events.iter().filter(|event| **event != Event::Other).collect();
        let expected = [
            Event::Linux("6.1.0".into()),
            Event::Begin("one".into()),
            Event::Verifier("7 instructions".into()),
            Event::Passed("one".into()),
        ];
        assert!(seen.into_iter().eq(&expected), "{events:?}");
    }
}
