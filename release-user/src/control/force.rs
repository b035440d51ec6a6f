//! Which connections can be ended on the operator's order, and where. Pure.

use super::commands::Target;
use super::state::{InstanceState, ServiceState};
use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Mode, Protocol};
use crate::net::namespace::Namespace;
use crate::sockets::namespace_of;

/// Where an instance's sockets are, if that is on this host: there the kernel can end them.
pub fn place(mode: Mode, instance: &InstanceState) -> Option<Namespace> {
    match &instance.sockets {
        Some(place) => namespace_of(place),
        None => (mode == Mode::Local).then_some(Namespace::Own),
    }
}

/// Whether the connections of a target can be ended. Where both directions pass here, RSTs with the
/// right numbers do it. Where they do not, only the instances' own kernels can, if that is this one.
///
/// # Errors
/// Usage, with what is in the way.
pub fn possible(service: &ServiceState, target: &Target) -> Result<(), ApiError> {
    let (version, id) = match target {
        Target::Version(version) => (version, None),
        Target::Instance(version, id) => (version, Some(id)),
    };
    let name = id.unwrap_or(version);
    if service.protocols().all(|protocol| protocol != Protocol::Tcp) {
        let why = format!("target {name}: has no connections to end: datagrams have none");
        return Err(ApiError::new(ErrorCode::Usage, why)
            .hint("UDP flows end by their timeout; leave --on-deadline force out"));
    }
    let mode = service.settings.mode;
    if !mode.is_one_way() {
        return Ok(());
    }
    let instances = service.version(version).map_or(&[][..], |version| &version.instances);
    let elsewhere: Vec<&str> = instances
        .iter()
        .filter(|instance| id.is_none_or(|id| *id == instance.id))
        .filter(|instance| place(mode, instance).is_none())
        .map(|instance| instance.id.as_str())
        .collect();
    if elsewhere.is_empty() {
        return Ok(());
    }
    let why = format!(
        "target {name}: connections cannot be ended: in mode {mode} only the clients' half passes \
         here, and nothing says that the sockets of {} are on this host",
        elsewhere.join(", ")
    );
    Err(ApiError::new(ErrorCode::Usage, why).hint(
        "if they are, name their namespace by `sockets`; if not, use --on-deadline hold and stop \
         the instances when it suits",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::reconcile::reconcile;
    use crate::control::state::State;

    fn service(lines: &str, protocol: &str) -> ServiceState {
        let text = format!(
            "schema = 1\n[daemon]\ninterfaces = [\"eth0\"]\n\
             agent = {{ ca = \"/c\", certificate = \"/d\", key = \"/k\" }}\n\
             [[service]]\nname = \"web\"\nfrontends = [\"192.0.2.10:80/{protocol}\"]\n{lines}\n\
             [[service.version]]\nname = \"v1\"\nweight = 1\ninstances = [\n\
             {{ id = \"a\", addr = \"10.0.0.1:80\", sockets = {{ netns = \"web\" }} }},\n\
             {{ id = \"b\", addr = \"10.0.0.2:80\", sockets = {{ agent = \"10.0.0.2:7443\" }} }},\n\
             {{ id = \"c\", addr = \"10.0.0.3:80\" }}]\n"
        );
        let config = Config::from_str(&text, "t").unwrap();
        reconcile(&State::default(), &config, 1).unwrap().0.services.remove(0)
    }

    fn said(service: &ServiceState, target: &str) -> String {
        let target = Target::find(service, target).unwrap();
        possible(service, &target).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn resets_need_both_directions_or_sockets_here() {
        let nat = service("", "tcp");
        assert_eq!(said(&nat, "v1"), "");
        let dsr = service("mode = \"dsr\"", "tcp");
        assert!(said(&dsr, "v1").contains("the sockets of b, c are on this host"));
        assert_eq!(said(&dsr, "a"), "");
        assert!(said(&dsr, "b").starts_with("target b: connections cannot be ended: in mode dsr"));
        assert!(said(&service("", "udp"), "v1").contains("datagrams"));
    }

    #[test]
    fn sockets_are_here_where_somebody_says_so() {
        let places = |mode| -> Vec<Option<Namespace>> {
            let service = service("", "tcp");
            service.versions[0].instances.iter().map(|instance| place(mode, instance)).collect()
        };
        let named = Some(Namespace::Named("web".to_owned()));
        assert_eq!(places(Mode::Nat), [named.clone(), None, None]);
        assert_eq!(places(Mode::Local), [named, None, Some(Namespace::Own)]);
    }
}
