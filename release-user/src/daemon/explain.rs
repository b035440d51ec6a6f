//! Where a packet would go, and why: the same tables, the same functions, nothing changed.

use std::net::SocketAddrV4;

use release_common::abi::{Be16, FlowKey4, Split};
use release_common::placement::{FlowHash, version_of};
use release_common::tcp::word::{EmbryoPhase, EmbryoWord, FlowWord, Phase};

use super::core::Daemon;
use crate::api::types::{ApiError, ErrorCode, ExplainQuery, Explanation};
use crate::control::state::State;

impl Daemon {
    /// Explains where a SYN of this connection, or any packet of an existing one, would go.
    ///
    /// # Errors
    /// Usage for addresses that cannot be read, or the kernel's.
    pub async fn explain_packet(&self, query: &ExplainQuery) -> Result<Explanation, ApiError> {
        if !query.proto.eq_ignore_ascii_case("tcp") {
            return Err(ApiError::new(
                ErrorCode::Usage,
                format!("protocol {}: only tcp is handled", query.proto),
            ));
        }
        let (src, dst) = (address("SRC", &query.src)?, address("DST", &query.dst)?);
        let key = FlowKey4::tcp(
            (*src.ip()).into(),
            Be16::new(src.port()),
            (*dst.ip()).into(),
            Be16::new(dst.port()),
        );
        let state = self.state().await;
        let mut out = Explanation {
            decision: String::new(),
            service: None,
            version: None,
            instance: None,
            generation: None,
            because: Vec::new(),
        };
        if self.by_entry(&state, &key, &mut out)? {
            return Ok(out);
        }
        self.by_placement(&state, &key, dst, &mut out)?;
        Ok(out)
    }

    /// An existing flow or handshake decides. Returns whether there is one.
    fn by_entry(
        &self,
        state: &State,
        key: &FlowKey4,
        out: &mut Explanation,
    ) -> Result<bool, ApiError> {
        let (mut flow, mut embryo) = (None, None);
        self.reader.walk_embryos(|at, value| {
            if at == key {
                embryo = Some(*value);
            }
        })?;
        self.reader.walk_flows(|at, value| {
            if at == key {
                flow = Some(*value);
            }
        })?;
        if let Some(flow) = flow {
            match FlowWord(flow.state).phase() {
                Phase::Live => {
                    out.because.push(format!(
                        "a live flow placed by generation {} has this 4-tuple: it stays",
                        flow.generation
                    ));
                    name_instance(state, flow.backend, out);
                    out.decision = "flow".to_owned();
                    out.generation = Some(flow.generation);
                    return Ok(true);
                }
                _ => out.because.push(
                    "a closed flow lingers under this 4-tuple: a SYN begins a new one".to_owned(),
                ),
            }
        }
        if let Some(embryo) = embryo
            && EmbryoWord(embryo.state).phase() != EmbryoPhase::Ended
        {
            out.because.push(format!(
                "a handshake placed by generation {} is in progress: its packets stay",
                embryo.generation
            ));
            name_instance(state, embryo.backend, out);
            out.decision = "embryo".to_owned();
            out.generation = Some(embryo.generation);
            return Ok(true);
        }
        Ok(false)
    }

    /// The split and the rings in the kernel decide.
    fn by_placement(
        &self,
        state: &State,
        key: &FlowKey4,
        dst: SocketAddrV4,
        out: &mut Explanation,
    ) -> Result<(), ApiError> {
        let frontends = self.reader.frontends()?;
        let Some((_, frontend)) = frontends.iter().find(|(at, _)| *at == dst.into()) else {
            out.decision = "not-ours".to_owned();
            out.because.push(format!("{dst} is no service's frontend: left to the host"));
            return Ok(());
        };
        let service = state.services.iter().find(|service| service.id == frontend.service);
        out.service = service.map(|service| service.name.clone());
        out.because.push(format!(
            "{dst} is a frontend of service {}",
            out.service.as_deref().unwrap_or("?")
        ));
        let hash = FlowHash::of(key);
        let split = self.reader.split(frontend.service)?.unwrap_or(Split::empty(0));
        out.generation = Some(split.generation);
        let Some(index) = version_of(&split, hash) else {
            out.decision = "refused".to_owned();
            out.because.push("no version has weight: when_empty decides".to_owned());
            return Ok(());
        };
        let ring = split.entries[index as usize].ring;
        let version = service.and_then(|s| s.versions.iter().find(|v| v.ring == ring));
        out.version = version.map(|version| version.name.clone());
        out.because.push(format!(
            "hash {:#010x} falls on version {} in the split of generation {}",
            hash.for_split(),
            out.version.as_deref().unwrap_or("?"),
            split.generation
        ));
        let slots = self.reader.ring(ring)?;
        let slot = hash.slot(slots.len() as u32);
        match slots.get(slot as usize) {
            Some(&backend) if backend != 0 => {
                name_instance(state, backend, out);
                out.decision = "placement".to_owned();
                out.because.push(format!(
                    "slot {slot} of the version's ring of {} is instance {}",
                    slots.len(),
                    out.instance.as_deref().unwrap_or("?")
                ));
            }
            _ => {
                out.decision = "refused".to_owned();
                out.because.push("the version has no serving instance".to_owned());
            }
        }
        Ok(())
    }
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

fn address(what: &str, text: &str) -> Result<SocketAddrV4, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(ErrorCode::Usage, format!("{what} {text}: is not an IPv4 address and port"))
            .hint("e.g. 198.51.100.7:40000")
    })
}
