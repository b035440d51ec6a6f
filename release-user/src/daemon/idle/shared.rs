//! Sockets that several services use, which only modes allow that tell replies apart otherwise: who
//! stops an instance for one of them stops it for all.

use std::collections::BTreeSet;

use super::Subject;
use crate::api::types::{Evidence, IdleReport, TargetQuery, Verdict};
use crate::control::state::State;

/// The instances of other services that are a target's sockets.
pub fn elsewhere(state: &State, subject: &Subject) -> Vec<TargetQuery> {
    let ours = &subject.service;
    let shares = |addr| subject.instances.iter().any(|instance| instance.addr == addr);
    let mut found = BTreeSet::new();
    for service in state.services.iter().filter(|service| service.name != ours.name) {
        // Of another protocol it is another socket.
        let spoken = |protocol| ours.protocols().any(|our| our == protocol);
        if service.protocols().any(spoken) {
            let instances = service.instances().filter(|(_, instance)| shares(instance.addr));
            found.extend(instances.map(|(_, i)| (service.name.clone(), i.id.clone())));
        }
    }
    found.into_iter().map(|(service, target)| TargetQuery { service, target }).collect()
}

/// Adds the verdict on one of those to a target's: the worse one counts.
pub fn add(report: &mut IdleReport, other: &TargetQuery, theirs: &IdleReport) {
    let TargetQuery { service, target } = other;
    report.evidence.push(Evidence {
        name: "other-services".to_owned(),
        ok: theirs.verdict == Verdict::Idle,
        detail: format!("its socket is {service}/{target} too, which is {}", theirs.verdict),
    });
    let reasons = theirs.reasons.iter().map(|reason| format!("service {service}: {reason}"));
    report.reasons.extend(reasons);
    report.verdict = match (report.verdict, theirs.verdict) {
        (Verdict::Busy, _) | (_, Verdict::Busy) => Verdict::Busy,
        (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
        (Verdict::Idle, Verdict::Idle) => Verdict::Idle,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::report;
    use crate::config::Config;
    use crate::control::reconcile::reconcile;

    /// Two services with these frontends; v1 has one socket in both, v2 one of its own.
    fn state(first: &str, second: &str) -> State {
        let service = |name: &str, frontend: &str, own: &str| {
            format!(
                "[[service]]\nname = \"{name}\"\nmode = \"snat\"\n\
                 snat = {{ addresses = [\"10.9.0.1\"] }}\nfrontends = [\"{frontend}\"]\n\
                 version = [{{ name = \"v1\", weight = 1, instances = [\"10.0.0.1:80\"] }},\n\
                 {{ name = \"v2\", instances = [\"{own}\"] }}]\n"
            )
        };
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n{}{}",
            service("web", first, "10.0.0.2:80"),
            service("other", second, "10.0.0.3:80"),
        );
        let config = Config::from_str(&text, "t").unwrap();
        reconcile(&State::default(), &config, 1).unwrap().0
    }

    fn of(state: &State, target: &str) -> Vec<String> {
        let subject = Subject::find(&state.services[0], target).unwrap();
        let found = elsewhere(state, &subject).into_iter();
        found.map(|TargetQuery { service, target }| format!("{service}/{target}")).collect()
    }

    #[test]
    fn a_socket_is_found_in_other_services() {
        let both = state("192.0.2.10:80/tcp", "192.0.2.11:80/tcp");
        assert_eq!(of(&both, "v1"), ["other/10.0.0.1:80"]);
        assert_eq!(of(&both, "10.0.0.1:80"), ["other/10.0.0.1:80"]);
        assert!(of(&both, "v2").is_empty());
        assert!(of(&state("192.0.2.10:80/tcp", "192.0.2.11:80/udp"), "v1").is_empty());
    }

    #[test]
    fn the_worse_verdict_counts() {
        let other = TargetQuery { service: "other".to_owned(), target: "a".to_owned() };
        let (idle, unknown, busy) = (Verdict::Idle, Verdict::Unknown, Verdict::Busy);
        for (ours, theirs, both) in [
            (idle, idle, idle),
            (idle, unknown, unknown),
            (idle, busy, busy),
            (unknown, busy, busy),
            (busy, unknown, busy),
            (unknown, idle, unknown),
        ] {
            let mut sum = report(ours);
            add(&mut sum, &other, &report(theirs));
            assert_eq!(sum.verdict, both, "{ours} and {theirs}");
            let named = sum.reasons.iter().any(|reason| reason.starts_with("service other: "));
            assert_eq!(named, theirs != idle);
        }
    }
}
