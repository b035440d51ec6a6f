//! `health`, `passive` and `on_down`: which services can have them.

use super::super::address::Protocol;
use super::super::error::Invalid;
use super::super::raw::DraftService;
use super::super::settings::OnDown;
use super::Found;
use super::options::{refuse, without_flows};
use crate::health::Check;
use crate::sockets::namespace_of;

pub(super) fn check(service: &DraftService, found: &mut Found) {
    let spoken = |protocol: Protocol| {
        service.all_frontends().any(|frontend| frontend.value.protocol() == protocol)
    };
    let tcp = spoken(Protocol::Tcp);
    if let Some(health) = &service.health
        && !matches!(health.value.check, Check::Exec(_))
        && health.value.port.is_none()
        && !tcp
    {
        let what = "no frontend is TCP: nothing says that an instance accepts connections";
        let hint = "`port`, where it does; or `exec`";
        found.error(&health.place, Invalid::new(what).hint(hint));
    }
    if !service.conversation().tracks_flows() {
        refuse(&service.passive, found, without_flows);
    } else if service.mode().is_one_way() {
        let what = format!("mode `{}`: the instances' replies do not pass here", service.mode());
        refuse(&service.passive, found, || Invalid::new(what).hint("`health` asks them"));
    } else if !tcp {
        refuse(&service.passive, found, || {
            Invalid::new("no frontend is TCP").hint("datagrams are neither refused nor reset")
        });
    }
    on_down(service, tcp, found);
}

fn on_down(service: &DraftService, tcp: bool, found: &mut Found) {
    let Some(on_down) = &service.on_down else { return };
    let mut error = |invalid| found.error(&on_down.place, invalid);
    if service.health.is_none() && service.passive.is_none() {
        let what = "nobody finds out that an instance is down";
        return error(Invalid::new(what).hint("`health`, `passive` or both"));
    }
    if on_down.value == OnDown::Keep {
        return;
    }
    if !tcp || !service.conversation().tracks_flows() {
        let what = "no connections to end";
        return error(Invalid::new(what).hint("UDP flows end by their timeout"));
    }
    let here = |sockets: Option<_>| {
        sockets.is_some_and(|at: &super::super::reader::At<_>| namespace_of(&at.value).is_some())
    };
    let all_here = service.versions.iter().all(|version| {
        let outer = version.value.sockets.as_ref().or(service.sockets.as_ref());
        let mut instances = version.value.instances.iter();
        instances.all(|instance| here(instance.value.sockets.as_ref().or(outer)))
    });
    if service.mode().is_one_way() && !all_here {
        let what = format!(
            "mode `{}`: only the clients' half passes here, and not all instances have their \
             sockets on this host",
            service.mode()
        );
        error(Invalid::new(what).hint("if they have, name their namespaces by `sockets`"));
    }
}
