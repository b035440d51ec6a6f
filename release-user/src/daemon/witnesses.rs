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
use crate::sockets::{AskError, Question, Summary, Target, ask};
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
        Place::Netns(name) => Namespace::Named(name.clone()).to_string(),
        Place::PidFile(path) => Namespace::PidFile(path.clone()).to_string(),
        Place::Host | Place::None => Namespace::Own.to_string(),
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
            Place::Netns(name) => here(Namespace::Named(name.clone()), question.clone()).await,
            Place::PidFile(path) => here(Namespace::PidFile(path.clone()), question.clone()).await,
            Place::Host | Place::None => here(Namespace::Own, question.clone()).await,
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
