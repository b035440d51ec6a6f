//! A [`Scene`] in the real maps.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use bytemuck::Zeroable as _;
use release_common::abi::{Addr6, Address, Backend, Be32, PortBits, QuicKey, Split};
use release_user::kernel::{At, Maps, RuleAt};

use crate::model::Scene;
use crate::model::scene::RING_SLOTS;

/// What one scene has put into the maps.
#[derive(Debug, Default)]
pub struct Installed {
    frontends: BTreeSet<At>,
    backend_ids: BTreeSet<At>,
    rules: BTreeSet<RuleAt>,
    quic_ids: Vec<QuicKey>,
    backends: BTreeSet<u32>,
    /// What is in force already: replacing it takes a grace period.
    rings: HashMap<u32, Vec<u32>>,
    splits: HashMap<u32, Split>,
    ports: Option<[Box<PortBits>; 2]>,
}

impl Installed {
    /// Puts a scene in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn install(&mut self, maps: &mut Maps, scene: &Scene, generation: u32) -> Result<()> {
        for (id, backend) in scene.backends() {
            maps.set_backend(id, backend)?;
            self.backends.insert(id);
        }
        maps.set_service(scene.service, scene.service_value())?;
        for version in &scene.versions {
            let slots: Vec<u32> =
                scene.ring(version)[1..].iter().flat_map(|block| block.slots).collect();
            let size = if version.instances.is_empty() { 0 } else { RING_SLOTS };
            let slots = &slots[..size];
            if self.rings.get(&version.ring).is_none_or(|ring| ring != slots) {
                maps.set_ring(version.ring, slots, 0)?;
                self.rings.insert(version.ring, slots.to_vec());
            }
        }
        self.split(maps, scene.service, scene.split(&scene.weights(), generation))?;
        self.addresses::<Be32>(maps, scene)?;
        self.addresses::<Addr6>(maps, scene)?;
        for (key, backend) in scene.quic_ids() {
            maps.set_quic_id(key, backend)?;
            self.quic_ids.push(key);
        }
        for rule in &scene.rules {
            let net = ipnet::IpNet::new(rule.source, rule.bits as u8)?;
            let at = RuleAt { service: scene.service, net };
            maps.set_rule(at, Some(rule.ring))?;
            self.rules.insert(at);
        }
        let ports = scene.ports();
        if self.ports.as_ref() != Some(&ports) {
            for which in [PortBits::FRONTENDS, PortBits::BACKENDS] {
                maps.set_ports(which, *ports[which as usize])?;
            }
            self.ports = Some(ports);
        }
        Ok(())
    }

    fn addresses<A: Address>(&mut self, maps: &mut Maps, scene: &Scene) -> Result<()> {
        for (at, value) in scene.frontend_entries::<A>() {
            maps.set_frontend(At::of(at), Some(value))?;
            self.frontends.insert(At::of(at));
        }
        for (at, value) in scene.backend_ids::<A>() {
            maps.set_backend_id(At::of(at), Some(value))?;
            self.backend_ids.insert(At::of(at));
        }
        Ok(())
    }

    /// Takes out again what it has put in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&mut self, maps: &mut Maps) -> Result<()> {
        let frontends = std::mem::take(&mut self.frontends);
        frontends.into_iter().try_for_each(|at| maps.set_frontend(at, None))?;
        let backend_ids = std::mem::take(&mut self.backend_ids);
        backend_ids.into_iter().try_for_each(|at| maps.set_backend_id(at, None))?;
        let rules = std::mem::take(&mut self.rules);
        rules.into_iter().try_for_each(|at| maps.set_rule(at, None))?;
        let quic_ids = std::mem::take(&mut self.quic_ids);
        quic_ids.into_iter().try_for_each(|key| maps.remove_quic_id(key))?;
        let backends = std::mem::take(&mut self.backends);
        let free = |id| maps.set_backend(id, Backend::zeroed());
        Ok(backends.into_iter().try_for_each(free)?)
    }

    /// Puts a split in force.
    ///
    /// # Errors
    /// The kernel's.
    pub fn split(&mut self, maps: &mut Maps, service: u32, split: Split) -> Result<()> {
        if self.splits.insert(service, split) != Some(split) {
            maps.swap_splits(&[(service, split)])?;
        }
        Ok(())
    }

    /// Takes a frontend out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_frontend(&mut self, maps: &mut Maps, at: At) -> Result<()> {
        if self.frontends.remove(&at) {
            maps.set_frontend(at, None)?;
        }
        Ok(())
    }
}
