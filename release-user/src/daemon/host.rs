//! Following the host: interfaces that vanish and return, routes and neighbours that change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::checks;
use super::core::{Core, Daemon};
use super::warnings::forwards_v6;
use crate::api::types::{ApiError, ErrorCode};
use crate::config::XdpMode as Wanted;
use crate::kernel::{AttachError, Attachment, XdpMode, retire_stages, sends_through};
use crate::net::netlink::{self, Change, Interface};
use crate::net::{ethtool, sysctl};

/// How often the lease on cached next hops is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// How long it lasts: with the daemon dead, the packet path asks the FIB again after this.
const LEASE: Duration = Duration::from_secs(3);
/// Longer than any packet takes from program to program.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// How often the host is looked at, and stale neighbours are checked.
const LOOK: Duration = Duration::from_secs(10);
/// Key of the kernel settings found, in the store.
pub const FOUND: &str = "sysctl";

impl Core {
    /// Attaches the program wherever it is wanted and missing. Returns what was done, in words.
    ///
    /// # Errors
    /// Conflict if somebody else's program is in the way, or the kernel's.
    pub fn attach_all(&mut self, replace: bool) -> Result<Vec<String>, ApiError> {
        let names: Vec<String> =
            self.config.daemon().interfaces().iter().map(|i| i.as_str().to_owned()).collect();
        let modes: &[XdpMode] = match self.config.daemon().xdp_mode() {
            Wanted::Auto => &[XdpMode::Native, XdpMode::Generic],
            Wanted::Native => &[XdpMode::Native],
            Wanted::Generic => &[XdpMode::Generic],
        };
        let (mut done, mut new, mut failed) = (Vec::new(), Vec::new(), None);
        let present = self.interfaces.clone();
        for interface in present.iter().filter(|i| names.contains(&i.name)) {
            if !replace && self.attached().contains(&interface.index) {
                continue;
            }
            match self.attach_one(interface, modes) {
                Ok((attachment, line)) => {
                    done.push(line);
                    if matches!(attachment, Attachment::New(_)) {
                        new.push(interface.index);
                    }
                }
                // The others are not to wait for this one.
                Err(error) => failed = Some(error),
            }
        }
        let result = match failed {
            Some(error) => Err(error),
            None => self.detach_unwanted(&names).and_then(|()| self.prepare_host(&names)),
        };
        if let Err(error) = result {
            // A start that fails leaves nothing behind that was not there.
            if replace {
                for index in new {
                    self.links.detach(index)?;
                    self.maps.remove_device(index)?;
                }
            }
            return Err(error);
        }
        Ok(done)
    }

    fn attach_one(
        &mut self,
        interface: &Interface,
        modes: &[XdpMode],
    ) -> Result<(Attachment, String), ApiError> {
        let name = &interface.name;
        let attachment = match self.links.attach(&mut self.loaded, interface.index, modes) {
            Ok(attachment) => attachment,
            Err(AttachError::Occupied) => {
                let program = interface.xdp.map_or(0, |(_, program)| program);
                return Err(checks::occupied(name, program));
            }
            Err(AttachError::Kernel(error)) => {
                let text = format!("interface {name}: {error}");
                return Err(ApiError::new(ErrorCode::Internal, text));
            }
        };
        self.maps.add_device(interface.index)?;
        self.links.attach_egress(&mut self.loaded, interface.index, name)?;
        let line = match attachment {
            Attachment::Replaced => format!("{name}: program replaced in place"),
            Attachment::New(mode) => {
                if mode == XdpMode::Generic
                    && let Err(error) = ethtool::disable_gro(name)
                {
                    log::warn!("{name}: receive offload stays on: {error}");
                }
                format!("{name}: attached, {}", mode.as_str())
            }
        };
        Ok((attachment, line))
    }

    /// Interfaces (by index) on which our programs run: the link is pinned, and the programs found
    /// there are ours.
    pub fn attached(&self) -> Vec<u32> {
        let ids = (self.loaded.program_id(), self.loaded.egress_id());
        let (Ok(ours), Ok(egress)) = ids else { return Vec::new() };
        let links = self.links.list();
        let runs = |i: &&Interface| {
            i.xdp.is_some_and(|(_, program)| program == ours) && sends_through(&i.name, egress)
        };
        let found = self.interfaces.iter().filter(runs).map(|interface| interface.index);
        found.filter(|index| links.contains(index)).collect()
    }

    /// Takes the program off interfaces that are gone or no longer configured.
    fn detach_unwanted(&mut self, names: &[String]) -> Result<(), ApiError> {
        let wanted: Vec<u32> = self
            .interfaces
            .iter()
            .filter(|interface| names.contains(&interface.name))
            .map(|interface| interface.index)
            .collect();
        for index in self.links.list() {
            if !wanted.contains(&index) {
                self.links.detach(index)?;
            }
        }
        for index in self.maps.devices() {
            if !wanted.contains(&index) {
                self.maps.remove_device(index)?;
            }
        }
        Ok(())
    }

    fn prepare_host(&mut self, names: &[String]) -> Result<(), ApiError> {
        let there: Vec<String> = names
            .iter()
            .filter(|name| self.interfaces.iter().any(|i| i.name == **name))
            .cloned()
            .collect();
        let failed = |error| ApiError::new(ErrorCode::Internal, format!("sysctl: {error}"));
        let v6 = forwards_v6(&self.state.services);
        let missing = sysctl::missing(&there, v6).map_err(failed)?;
        let known = self.found.len();
        for (name, found) in missing.iter().map(|setting| (&setting.name, &setting.found)) {
            self.found.entry(name.clone()).or_insert_with(|| found.clone());
        }
        // On disk before anything is changed: a kill in between loses nothing.
        if self.found.len() != known {
            let text = serde_json::to_string(&self.found).unwrap_or_default();
            self.store.set_note(FOUND, Some(&text))?;
        }
        sysctl::write(&missing).map_err(failed)
    }

    /// Reads back what was found before, when an earlier run changed it.
    ///
    /// # Errors
    /// The store's.
    pub fn load_found(&mut self) -> Result<(), ApiError> {
        if let Some(text) = self.store.note(FOUND)? {
            self.found = serde_json::from_str(&text).unwrap_or_default();
        }
        Ok(())
    }

    /// Forgets it after it was put back.
    ///
    /// # Errors
    /// The store's.
    pub fn restore_found(&mut self) -> Result<(), ApiError> {
        sysctl::restore(&self.found);
        self.found.clear();
        Ok(self.store.set_note(FOUND, None)?)
    }

    /// A new routing epoch: cached next hops are asked for anew.
    fn bump_routing(&mut self) -> Result<(), ApiError> {
        let mut meta = self.maps.meta()?;
        meta.routing_epoch = meta.routing_epoch.wrapping_add(1);
        Ok(self.maps.set_meta(meta)?)
    }

    fn renew_lease(&mut self, until: u32) -> Result<(), ApiError> {
        let mut meta = self.maps.meta()?;
        meta.routing_lease = until;
        Ok(self.maps.set_meta(meta)?)
    }
}

impl Daemon {
    /// Looks at the interfaces again and attaches what is missing. The kernel sends no message when
    /// a link is detached by hand, so this is also done every second and for every verdict.
    ///
    /// What cannot be attached is logged when that is new, and shown as `detached` from then on.
    ///
    /// # Errors
    /// Netlink's, or the maps'.
    pub async fn refresh_interfaces(&self) -> Result<(), ApiError> {
        let now = present().await?;
        let mut core = self.core.lock().await;
        if core.down {
            return Ok(());
        }
        let unchanged = core.interfaces == now;
        if unchanged && core.detached().is_empty() {
            return Ok(());
        }
        let (before, was) = (core.interface_status(), core.interfaces.clone());
        core.interfaces = now;
        let done = match core.attach_all(false) {
            Ok(done) => done,
            Err(_) if unchanged => return Ok(()),
            Err(error) => {
                log::error!("{error}");
                Vec::new()
            }
        };
        if !done.is_empty() {
            // The modes as they are now.
            drop(core);
            let present = netlink::interfaces().await.unwrap_or(was);
            self.core.lock().await.interfaces = present;
            core = self.core.lock().await;
        }
        for line in done {
            self.events.publish("interface", None, None, line);
        }
        for (old, new) in before.iter().zip(core.interface_status()) {
            if old.mode != new.mode && new.mode == "absent" {
                let text = format!("{}: interface is gone, waiting for it", new.name);
                self.events.publish("interface", None, Some(&new.name), text);
            }
        }
        core.bump_routing()
    }

    /// Cached next hops are asked for anew, and so is this host's address towards each tunnel.
    async fn routes_changed(&self) -> Result<(), ApiError> {
        let mut core = self.core.lock().await;
        core.bump_routing()?;
        let tunnels = core.state.services.iter().any(|s| s.settings.mode.is_tunnel());
        if tunnels && !core.down { core.apply_all() } else { Ok(()) }
    }

    /// Follows netlink and renews the lease, until told to stop.
    pub async fn follow_host(self: Arc<Self>) {
        let mut changes = match netlink::watch() {
            Ok(changes) => Some(changes),
            Err(error) => {
                log::error!("netlink: {error}: routes are looked up for every packet");
                None
            }
        };
        let mut renew = tokio::time::interval(RENEW);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                change = next_change(&mut changes) => match change {
                    Some(Change::Links) => self.refresh_interfaces().await,
                    Some(Change::Routing) => self.routes_changed().await,
                    // Nobody follows any more: the lease runs out, the rest goes on.
                    None => {
                        changes = None;
                        Ok(())
                    }
                },
                _ = renew.tick() => self.every_second_of_host(changes.is_some()).await,
                _ = look.tick() => self.look_at_host().await,
                () = self.look.notified() => self.look_at_host().await,
            };
            if let Err(error) = result {
                log::error!("{error}");
            }
        }
    }

    /// Next hops are cached by destination: with rules that route by anything else, not at all.
    async fn renew(&self, followed: bool) -> Result<(), ApiError> {
        if !followed || netlink::policy_routing().await.map_err(netlink_error)? {
            return Ok(());
        }
        let until = self.jiffies()?.wrapping_add(u64::from(self.clock.jiffies(LEASE)));
        self.core.lock().await.renew_lease(until as u32)
    }

    async fn every_second_of_host(&self, followed: bool) -> Result<(), ApiError> {
        self.renew(followed).await?;
        self.refresh_interfaces().await?;
        self.ask_for_lost().await
    }
}

impl Daemon {
    /// Lets go of the programs of earlier daemons, once no packet can be under way in them.
    pub async fn retire_stages(self: Arc<Self>) {
        tokio::time::sleep(UNDER_WAY).await;
        let core = self.core.lock().await;
        let done = core.loaded.program_id().and_then(|keep| retire_stages(&self.paths.bpffs, keep));
        if let Err(error) = done {
            log::warn!("programs of an earlier run stay: {error}");
        }
    }
}

/// The next change, or none ever if nothing is followed.
async fn next_change(changes: &mut Option<mpsc::Receiver<Change>>) -> Option<Change> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

/// The host's interfaces.
///
/// # Errors
/// Netlink's.
pub async fn present() -> Result<Vec<Interface>, ApiError> {
    netlink::interfaces().await.map_err(netlink_error)
}

fn netlink_error(error: std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("netlink: {error}"))
}
