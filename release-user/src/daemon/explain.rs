//! Where a packet would go, and why: the packet path's own programs are run on a made packet, in
//! the variant that changes nothing.

use std::net::SocketAddr;

use release_common::abi::{Explained, FrontendRef, SessionWord, conversation};
use release_common::pipeline::Action;
use release_common::reason::Reason;
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord};

use super::core::Daemon;
use super::made::first_packet;
use crate::api::types::{ApiError, ErrorCode, ExplainQuery, Explanation};
use crate::config::Protocol;
use crate::control::state::State;
use crate::kernel::Tuple;

impl Daemon {
    /// Explains where the first packet of a connection, or any packet of an existing one, would go.
    ///
    /// # Errors
    /// Usage for addresses that cannot be read, or the kernel's.
    pub async fn explain_packet(&self, query: &ExplainQuery) -> Result<Explanation, ApiError> {
        let proto = match Protocol::parse(&query.proto.to_lowercase()) {
            Ok(protocol) => protocol.number(),
            Err(error) => {
                let text = format!("protocol {}: {error}", query.proto);
                return Err(ApiError::new(ErrorCode::Usage, text));
            }
        };
        let (client, frontend) = (address("SRC", &query.src)?, address("DST", &query.dst)?);
        let tuple = Tuple { client, frontend, proto };
        let Some(frame) = first_packet(&tuple) else {
            let text = format!("SRC {client}: is of another address family than DST {frontend}");
            return Err(ApiError::new(ErrorCode::Usage, text).hint("no packet has both"));
        };
        // One at a time: the programs answer in a map.
        let core = self.core.lock().await;
        let ingress = core.attached().first().copied();
        let run = tokio::task::block_in_place(|| self.programs.explain(&frame, ingress));
        run.map_err(|error| ApiError::new(ErrorCode::Internal, format!("explain: {error}")))?;
        let said = self.reader.explained()?;
        let state = core.state.clone();
        drop(core);
        self.put_in_words(&state, &tuple, said)
    }

    fn put_in_words(
        &self,
        state: &State,
        tuple: &Tuple,
        said: Explained,
    ) -> Result<Explanation, ApiError> {
        let reason = Reason::ALL.get(said.reason as usize).copied();
        let reason = reason.unwrap_or(Reason::BrokenReference);
        let mut out = Explanation {
            decision: String::new(),
            service: None,
            version: None,
            instance: None,
            generation: None,
            reason: reason.name().to_owned(),
            because: Vec::new(),
        };
        let frontends = self.reader.frontends()?;
        let service = frontends.iter().find(|(at, _)| *at == tuple.at());
        if let Some((_, at)) = service {
            let service = state.services.iter().find(|service| service.id == at.service);
            out.service = service.map(|service| service.name.clone());
            out.generation = self.reader.split(at.service)?.map(|split| split.generation);
            let name = out.service.as_deref().unwrap_or("?");
            out.because.push(format!("{} is a frontend of service {name}", tuple.frontend));
        }
        let entry = self.entry(tuple, &mut out)?;
        name_instance(state, said.backend, &mut out);
        if entry.is_none()
            && let Some((_, at)) = service
        {
            self.chosen_by(state, tuple, *at, said.backend, &mut out)?;
        }
        let passes = said.action == Action::Pass as u32;
        out.decision = match entry {
            Some(kind) if said.backend != 0 => kind,
            _ if said.backend != 0 => "placement",
            _ if passes && out.service.is_none() => "not-ours",
            _ => "refused",
        }
        .to_owned();
        if out.decision == "not-ours" {
            out.because.push(format!("{} is no service's frontend", tuple.frontend));
        }
        let what = match said.action {
            action if action == Action::Pass as u32 => "passed on to this host's stack".to_owned(),
            action if action == Action::Drop as u32 => "dropped".to_owned(),
            action if action == Action::Send as u32 => {
                format!("sent out of interface {}", said.ifindex)
            }
            _ => "sent out of the interface it came in by".to_owned(),
        };
        out.because.push(format!("{what}: {} ({})", reason.meaning().trim(), reason.name()));
        Ok(out)
    }

    /// Who chose the version or the instance of a new flow, if it was not the split: test frontend,
    /// then test rule, then session, as in the packet path.
    fn chosen_by(
        &self,
        state: &State,
        tuple: &Tuple,
        at: FrontendRef,
        backend: u32,
        out: &mut Explanation,
    ) -> Result<(), ApiError> {
        let client = tuple.client.ip();
        if at.ring != 0 {
            let version = version_of(state, at.ring);
            let whose = version.map_or("a drained version".to_owned(), |v| format!("version {v}"));
            out.because.push(format!("{} is a test frontend of {whose}", tuple.frontend));
            return Ok(());
        }
        let rules = self.reader.rules()?.into_iter();
        let holds =
            rules.filter(|(rule, _)| rule.service == at.service && rule.net.contains(&client));
        if let Some((rule, ring)) = holds.max_by_key(|(rule, _)| rule.net.prefix_len()) {
            let version = version_of(state, ring).unwrap_or("?");
            let source = rule.net;
            out.because
                .push(format!("{client} is in {source}, a test source of version {version}"));
            return Ok(());
        }
        let service = self.reader.service(at.service)?;
        if service.conversation != conversation::CLIENT || backend == 0 {
            return Ok(());
        }
        let now = self.jiffies()? as u32;
        let mut generation = None;
        self.reader.walk_sessions(|session_at, session| {
            let lives = SessionWord(session.state).live() > 0
                || now.wrapping_sub(session.last_seen) < service.session_timeout;
            let ours = session_at.service == at.service && session_at.client == client;
            if ours && lives && session.backend == backend {
                generation = Some(session.generation);
            }
        })?;
        if let Some(generation) = generation {
            out.generation = Some(generation);
            out.because.push(format!(
                "{client} has a session there, begun in generation {generation}: it stays"
            ));
        }
        Ok(())
    }

    /// What there is under the packet's 5-tuple already.
    fn entry(
        &self,
        tuple: &Tuple,
        out: &mut Explanation,
    ) -> Result<Option<&'static str>, ApiError> {
        let (mut flow, mut embryo) = (None, None);
        self.reader.walk_embryos(|at, value| {
            if at == tuple {
                embryo = Some(*value);
            }
        })?;
        self.reader.walk_flows(|at, value| {
            if at == tuple {
                flow = Some(*value);
            }
        })?;
        if let Some(flow) = flow {
            if FlowWord(flow.state).is_live() {
                out.generation = Some(flow.generation);
                out.because.push(format!(
                    "a live flow placed by generation {} has this 5-tuple: it stays",
                    flow.generation
                ));
                return Ok(Some("flow"));
            }
            out.because.push(
                "a closed flow lingers under this 5-tuple: a SYN begins a new one".to_owned(),
            );
        }
        if let Some(embryo) = embryo
            && EmbryoWord(embryo.state).phase() != EmbryoPhase::Ended
        {
            out.generation = Some(embryo.generation);
            out.because.push(format!(
                "a handshake placed by generation {} is in progress: its packets stay",
                embryo.generation
            ));
            return Ok(Some("embryo"));
        }
        Ok(None)
    }
}

/// Name of the version that has a ring.
fn version_of(state: &State, ring: u32) -> Option<&str> {
    let mut versions = state.services.iter().flat_map(|service| &service.versions);
    versions.find(|version| version.rings().any(|own| own == ring)).map(|v| v.name.as_str())
}

fn name_instance(state: &State, backend: u32, out: &mut Explanation) {
    if let Some((service, version, instance)) =
        state.instances().find(|(_, _, instance)| instance.backend == backend)
    {
        out.service = Some(service.name.clone());
        out.version = Some(version.name.clone());
        out.instance = Some(instance.id.clone());
    }
}

fn address(what: &str, text: &str) -> Result<SocketAddr, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(ErrorCode::Usage, format!("{what} {text}: is not an address and port"))
            .hint("e.g. 198.51.100.7:40000 or [2001:db8::7]:40000")
    })
}
