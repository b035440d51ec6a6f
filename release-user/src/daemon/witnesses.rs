//! Asking for instances' sockets: this host's kernel, or agents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::core::lock;
use super::idle::Subject;
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Mode, Sockets as Place};
use crate::control::state::{InstanceState, ServiceState};
use crate::net::namespace::Namespace;
use crate::sockets::agent::client::{AgentClient, AgentError};
use crate::sockets::agent::tls;
use crate::sockets::{AskError, Question, Summary, Target, ask, namespace_of};
use crate::verdict::sockets::{Answer, Proof, Sockets};

/// Whoever can be asked, and what they said before.
#[derive(Default)]
pub struct Witnesses {
    agents: Mutex<Option<Arc<AgentClient>>>,
    /// What each place has shown of what it was asked about.
    proofs: Mutex<HashMap<(Place, Question), Proof>>,
}

/// What is asked for a verdict.
pub struct Inquiry {
    questions: Vec<Asked>,
    not_asked: Vec<String>,
}

/// A question and where it goes.
struct Asked {
    place: Place,
    question: Question,
    /// Nobody has said that the sockets are there: it is no fault if they are not.
    by_default: bool,
}

/// Reads the certificates that a configuration names.
///
/// # Errors
/// Usage, with the file that is not as it should be.
pub fn agents(config: &Config) -> Result<Option<Arc<AgentClient>>, ApiError> {
    let Some(files) = config.daemon().agent() else { return Ok(None) };
    tls::client(files).map(|tls| Some(Arc::new(AgentClient::new(tls)))).map_err(|error| {
        ApiError::new(ErrorCode::Usage, format!("daemon.agent: {error}"))
            .hint("docs/agent.md shows how to make certificates")
    })
}

impl Inquiry {
    /// Whom to ask for a target's sockets; `None` if that is nobody.
    pub fn of(subject: &Subject) -> Option<Self> {
        let mut places: BTreeMap<Place, (bool, BTreeSet<SocketAddr>)> = BTreeMap::new();
        let mut not_asked = Vec::new();
        let all = || subject.instances.iter().chain(&subject.namesakes);
        let addresses: BTreeSet<SocketAddr> = all().map(|instance| instance.addr).collect();
        for addr in addresses {
            let namesakes = || all().filter(|instance| instance.addr == addr);
            let given = namesakes().filter_map(asked).collect::<BTreeSet<_>>();
            for place in &given {
                places.entry((*place).clone()).or_default().1.insert(addr);
            }
            if !given.is_empty() {
                continue;
            }
            // In mode `local` sockets are on this host, unless in a namespace that was not named.
            let silent = namesakes().all(|instance| instance.sockets.is_none());
            if silent && subject.service.settings.mode == Mode::Local {
                let entry = places.entry(Place::Host).or_insert((true, BTreeSet::new()));
                entry.1.insert(addr);
            } else {
                not_asked.extend(namesakes().map(|instance| instance.id.clone()).take(1));
            }
        }
        if places.is_empty() {
            return None;
        }
        let questions = places.into_iter().flat_map(|(place, (by_default, addresses))| {
            let one = move |addr| Asked {
                place: place.clone(),
                question: question(&subject.service, addr),
                by_default,
            };
            addresses.into_iter().map(one)
        });
        Some(Self { questions: questions.collect(), not_asked })
    }

    /// Nothing found yet.
    pub fn begin(&self) -> Sockets {
        Sockets::new(self.not_asked.clone())
    }
}

fn asked(instance: &InstanceState) -> Option<&Place> {
    instance.sockets.as_ref().filter(|place| **place != Place::None)
}

/// Where an instance's connections end: at its address, and, if packets keep the frontend as their
/// destination, there.
fn question(service: &ServiceState, addr: SocketAddr) -> Question {
    let mut targets: BTreeSet<Target> =
        service.protocols().map(|protocol| Target { address: addr, protocol }).collect();
    if !service.settings.mode.rewrites() {
        targets.extend(
            service.all_frontends().map(|frontend| Target {
                address: frontend.socket(),
                protocol: frontend.protocol(),
            }),
        );
    }
    Question { own: vec![addr.ip()], targets: targets.into_iter().collect() }
}

/// A place in words.
fn name(place: &Place) -> String {
    match place {
        Place::Agent(address) => format!("agent {address}"),
        place => namespace_of(place).unwrap_or_default().to_string(),
    }
}

impl Witnesses {
    /// With these certificates from now on.
    pub fn set_agents(&self, agents: Option<Arc<AgentClient>>) {
        *lock(&self.agents) = agents;
    }

    /// One look at everything: all are asked at once.
    pub async fn look(&self, inquiry: &Inquiry) -> Vec<(String, Answer)> {
        let asked = inquiry.questions.iter().map(|asked| self.answer(asked));
        futures_util::future::join_all(asked).await
    }

    async fn answer(&self, asked: &Asked) -> (String, Answer) {
        let Asked { place, question, by_default } = asked;
        let began = Instant::now();
        let found = match place {
            Place::Agent(address) => self.ask_agent(address.socket(), question).await,
            place => here(namespace_of(place).unwrap_or_default(), question.clone()).await,
        };
        let answer = match found {
            Err(Failed::NotHere(address)) if *by_default => Answer::Elsewhere(address.to_string()),
            Err(error) => Answer::Unknown(format!("{}: {error}", name(place))),
            Ok(summary) => {
                let mut proofs = lock(&self.proofs);
                let known = proofs.entry((place.clone(), question.clone())).or_default();
                *known = Proof::of(&summary).max(*known);
                Answer::Known { summary, proof: *known, age: began.elapsed() }
            }
        };
        (name(place), answer)
    }

    async fn ask_agent(&self, at: SocketAddr, question: &Question) -> Result<Summary, Failed> {
        let agents = lock(&self.agents).clone().ok_or(Failed::NoCertificates)?;
        Ok(agents.ask(at, question).await?.summary)
    }
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0} is no address there")]
    NotHere(IpAddr),
    #[error(transparent)]
    Kernel(AskError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("no certificates to ask with")]
    NoCertificates,
    #[error("the question failed half-way")]
    HalfWay,
}

/// Asks this host's kernel, on a thread that may wait.
async fn here(namespace: Namespace, question: Question) -> Result<Summary, Failed> {
    let asked = tokio::task::spawn_blocking(move || ask(&namespace, &question)).await;
    asked.map_err(|_| Failed::HalfWay)?.map_err(|error| match error {
        AskError::NotHere(address) => Failed::NotHere(address),
        error => Failed::Kernel(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::reconcile::reconcile;
    use crate::control::state::State;

    /// Whom is asked about v1, what, and who is not asked for.
    fn inquiry(service: &str, instances: &str) -> Option<(Vec<String>, Vec<String>)> {
        let (state, _) = reconcile(&State::default(), &config(service, instances), 1).unwrap();
        shown(&state)
    }

    fn config(service: &str, instances: &str) -> Config {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n\
             frontends = [\"192.0.2.10:80/tcp\"]\n{service}\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [{instances}]\n\
             [[service.version]]\nname = \"v2\"\ninstances = [\"10.0.0.9:80\"]\n"
        );
        Config::from_str(&text, "t").unwrap()
    }

    fn shown(state: &State) -> Option<(Vec<String>, Vec<String>)> {
        let subject = Subject::find(&state.services[0], "v1").unwrap();
        let Inquiry { questions, not_asked } = Inquiry::of(&subject)?;
        let line = |asked: &Asked| {
            let Question { own, targets } = &asked.question;
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            format!("{}: {}: {}", name(&asked.place), own[0], targets.join(" "))
        };
        Some((questions.iter().map(line).collect(), not_asked))
    }

    const TWO: &str = r#"{ id = "a", addr = "10.0.0.1:80", sockets = { netns = "web" } },
                         { id = "b", addr = "10.0.0.2:80" }"#;

    #[test]
    fn nobody_is_asked_unless_that_was_said() {
        assert_eq!(inquiry("", r#""10.0.0.1:80""#), None);
        assert_eq!(inquiry("mode = \"local\"\nsockets = \"none\"", r#""10.0.0.1:80""#), None);
        let (asked, not_asked) = inquiry("", TWO).unwrap();
        assert_eq!(asked, ["netns web: 10.0.0.1: 10.0.0.1:80/tcp"]);
        assert_eq!(not_asked, ["b"]);
    }

    #[test]
    fn mode_local_asks_this_host() {
        let (asked, not_asked) = inquiry("mode = \"local\"", TWO).unwrap();
        let expected =
            ["this host: 10.0.0.2: 10.0.0.2:80/tcp", "netns web: 10.0.0.1: 10.0.0.1:80/tcp"];
        assert_eq!(asked, expected);
        assert!(not_asked.is_empty());
    }

    /// Where packets keep the frontend as their destination, connections end there.
    #[test]
    fn one_way_modes_ask_for_frontends_too() {
        let (asked, _) = inquiry("mode = \"dsr\"", TWO).unwrap();
        assert_eq!(asked, ["netns web: 10.0.0.1: 10.0.0.1:80/tcp 192.0.2.10:80/tcp"]);
    }

    /// An instance that was taken out of the configuration is asked for where it was.
    #[test]
    fn orphans_are_asked_for() {
        let (state, _) = reconcile(&State::default(), &config("", TWO), 1).unwrap();
        let rest = r#"{ id = "b", addr = "10.0.0.2:80", sockets = "host" }"#;
        let (state, _) = reconcile(&state, &config("", rest), 1).unwrap();
        let (asked, not_asked) = shown(&state).unwrap();
        let expected =
            ["this host: 10.0.0.2: 10.0.0.2:80/tcp", "netns web: 10.0.0.1: 10.0.0.1:80/tcp"];
        assert_eq!(asked, expected);
        assert!(not_asked.is_empty());
    }

    #[test]
    fn what_was_seen_once_stays_proven() {
        let witnesses = Witnesses::default();
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let target = Target { address, protocol: crate::config::Protocol::Tcp };
        let question = Question { own: vec![address.ip()], targets: vec![target] };
        let ask = |own: &str, by_default| {
            let question = Question { own: vec![own.parse().unwrap()], ..question.clone() };
            let asked = Asked { place: Place::Host, question, by_default };
            let inquiry = Inquiry { questions: vec![asked], not_asked: Vec::new() };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(witnesses.look(&inquiry)).remove(0).1
        };
        let proof = || match ask("127.0.0.1", false) {
            Answer::Known { proof, .. } => proof,
            other => panic!("{other:?}"),
        };
        assert_eq!(proof(), Proof::Listener);
        drop(server);
        assert_eq!(proof(), Proof::Listener);
        // Not here: a fault if somebody has said so, else nobody's.
        let elsewhere = ask("203.0.113.7", true);
        assert_eq!(elsewhere, Answer::Elsewhere("203.0.113.7".to_owned()));
        let unknown = ask("203.0.113.7", false);
        let why = "this host: 203.0.113.7 is no address there";
        assert_eq!(unknown, Answer::Unknown(why.to_owned()));
    }
}
