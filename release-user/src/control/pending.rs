//! What the configuration can say and the data plane cannot do yet: refused as a whole, so that
//! nothing is ignored in silence.

use crate::api::types::{ApiError, ErrorCode};
use crate::config::{Config, Conversation, Family, Limits, Mode, Protocol, Service};

/// Refuses a configuration that asks for more than IPv4 TCP in mode `nat`.
///
/// # Errors
/// Usage, naming the first service and key.
pub fn refuse(config: &Config) -> Result<(), ApiError> {
    for service in config.services() {
        if let Some(what) = asked(service) {
            let name = service.name();
            let message = format!("service {name}: {what} is not supported by this data plane");
            return Err(ApiError::new(ErrorCode::Usage, message));
        }
    }
    Ok(())
}

fn asked(service: &Service) -> Option<String> {
    if service.mode() != Mode::Nat {
        return Some(format!("mode {}", service.mode()));
    }
    if service.conversation() != Conversation::Flow {
        return Some(format!("conversation {}", service.conversation()));
    }
    if service.has_protocol(Protocol::Udp) {
        return Some("udp".to_owned());
    }
    if service.has_family(Family::V6) {
        return Some("IPv6".to_owned());
    }
    if service.limits() != Limits::default() {
        return Some("limits".to_owned());
    }
    let tested = service.versions().iter().any(|version| service.is_tested(version.name()));
    tested.then(|| "test_sources or test_frontends".to_owned())
}
