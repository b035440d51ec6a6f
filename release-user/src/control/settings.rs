//! How a service's packets are treated, as last configured.

use serde::{Deserialize, Serialize};

use crate::config::{
    Conversation, KeepaliveOnly, Limits, Mode, OnDown, Probes, Quic, Registrants, Service, Session,
    Snat, Timeouts, Tunnel, WhenEmpty, WhenFull,
};

/// Everything about a service but where it listens and where its traffic goes.
///
/// It is kept with the state, so that the flows of a service that was taken out of the
/// configuration are carried to their end as they began. What a state of an earlier version does
/// not say has the default, which is what that version did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How packets reach an instance.
    pub mode: Mode,
    /// What stays together on one instance.
    pub conversation: Conversation,
    /// What a new flow gets when no instance serves.
    pub when_empty: WhenEmpty,
    /// What a new flow gets when the flow table is full or a limit is reached.
    pub when_full: WhenFull,
    /// How long silent flows are kept.
    pub timeouts: Timeouts,
    /// How silent connections are asked whether they are still there.
    pub probes: Probes,
    /// What becomes of connections without data while their instance drains.
    pub keepalive_only: KeepaliveOnly,
    /// What becomes of the flows of an instance that is down.
    pub on_down: OnDown,
    /// What the service takes at most.
    pub limits: Limits,
    /// How clients are remembered: conversation `client` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Sources that clients are hidden behind: mode `snat` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat: Option<Snat>,
    /// How packets are wrapped: modes `ipip` and `gue` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// How connection ids name instances: conversation `quic` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<Quic>,
    /// Who may register instances.
    #[serde(skip_serializing_if = "Registrants::is_nobody")]
    pub registration: Registrants,
}

impl Settings {
    /// What the configuration says.
    pub fn of(service: &Service) -> Self {
        Self {
            mode: service.mode(),
            conversation: service.conversation(),
            when_empty: service.when_empty(),
            when_full: service.when_full(),
            timeouts: service.timeouts(),
            probes: service.probes(),
            keepalive_only: service.keepalive_only(),
            on_down: service.on_down(),
            limits: service.limits(),
            session: service.session(),
            snat: service.snat().cloned(),
            tunnel: service.tunnel().cloned(),
            quic: service.quic(),
            registration: service.registration().clone(),
        }
    }

    /// Why flows that these settings began cannot go on under `next`.
    pub fn contradict(&self, next: &Self) -> Option<String> {
        if self.mode != next.mode {
            return Some(format!("mode is {} and would be {}", self.mode, next.mode));
        }
        if self.conversation.tracks_flows() != next.conversation.tracks_flows() {
            let (old, new) = (self.conversation, next.conversation);
            return Some(format!("conversation is {old} and would be {new}"));
        }
        None
    }
}
