//! The programs on maps of their own, and everything that cases ask of them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use bytemuck::Zeroable;
use release_common::abi::{
    ABI_VERSION, Addr6, Address, Backend, Be32, Meta, PortBits, QuicKey, Split, backend_state,
};
use release_tests::cases::Way;
use release_tests::model::Scene;
use release_tests::model::scene::{FIRST_GENERATION, RING_SLOTS};
use release_tests::model::tables::HZ;
use release_user::kernel::{At, Capacities, Loaded, Maps, Programs, RuleAt, load};

use super::state::{State, Tables};
use super::way::Surroundings;

/// Jiffies for which next hops may be cached.
const LEASE: u32 = 5000;

/// What one scene has put into the maps.
#[derive(Default)]
struct Configured {
    frontends: BTreeSet<At>,
    backend_ids: BTreeSet<At>,
    rules: BTreeSet<RuleAt>,
    quic_ids: Vec<QuicKey>,
    backends: BTreeSet<u32>,
}

/// The programs and their maps; the calling thread is in the namespace, and stays on one CPU.
pub struct Kernel<'a> {
    pub way: &'a mut Surroundings,
    pub maps: Maps,
    pub tables: Tables,
    pub(super) programs: Programs,
    pub(super) loaded: Loaded,
    pub bpffs: PathBuf,
    configured: Configured,
    pub(super) service: u32,
    /// Ids of instances are below this.
    pub(super) ids: u32,
    generation: u32,
    /// What is in force already: replacing it takes a grace period.
    rings: HashMap<u32, Vec<u32>>,
    splits: HashMap<u32, Split>,
    ports: Option<[Box<PortBits>; 2]>,
    /// The case is about time: what really passes between its steps is taken back. Jiffies and time
    /// when that was done last.
    pub(super) clock: Option<(u64, Instant)>,
    pub(super) state: Option<Rc<State>>,
    /// What the explaining program said or did wrong.
    pub differences: Vec<String>,
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.bpffs);
    }
}

impl<'a> Kernel<'a> {
    pub fn new(way: &'a mut Surroundings, name: &str) -> Result<Self> {
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/{name}-{}", std::process::id()));
        // Small tables: all of each is read after every step.
        let few =
            Capacities { sessions: 64, snat: 64, fragments: 64, ..Capacities::small(64, 256) };
        let loaded = load(&bpffs, few, 0)?;
        let mut maps = Maps::open(&bpffs)?;
        maps.add_device(way.device)?;
        Ok(Self {
            way,
            maps,
            tables: Tables::open(&bpffs)?,
            programs: Programs::open(&bpffs)?,
            loaded,
            bpffs,
            configured: Configured::default(),
            service: 0,
            ids: 0,
            generation: 0,
            rings: HashMap::new(),
            splits: HashMap::new(),
            ports: None,
            clock: None,
            state: None,
            differences: Vec::new(),
        })
    }

    /// Empties the tables and loads a scene. `timed`: its case is about time.
    pub fn begin(&mut self, scene: &Scene, timed: bool) -> Result<()> {
        self.state = None;
        self.differences.clear();
        self.way(Way::Known)?;
        self.unconfigure()?;
        self.service = scene.service;
        self.generation = FIRST_GENERATION;
        let ids: BTreeSet<u32> = scene.instances().map(|instance| instance.id).collect();
        self.ids = ids.last().map_or(0, |last| last + 1);
        self.tables.clear(scene.service, ids)?;
        let jiffies = self.programs.jiffies()?;
        self.maps.set_meta(Meta {
            abi: ABI_VERSION,
            hz: HZ,
            flow_capacity: 64,
            flow_limit: scene.flow_limit,
            // Nothing that another case has cached.
            routing_epoch: self.maps.meta()?.routing_epoch + 1,
            routing_lease: (jiffies as u32).wrapping_add(LEASE),
            ..Meta::default()
        })?;
        self.configure(scene)?;
        self.clock = timed.then_some((jiffies, Instant::now()));
        Ok(())
    }

    fn configure(&mut self, scene: &Scene) -> Result<()> {
        for (id, backend) in scene.backends() {
            self.maps.set_backend(id, backend)?;
            self.configured.backends.insert(id);
        }
        self.maps.set_service(scene.service, scene.service_value())?;
        for version in &scene.versions {
            let slots: Vec<u32> =
                scene.ring(version)[1..].iter().flat_map(|block| block.slots).collect();
            let size = if version.instances.is_empty() { 0 } else { RING_SLOTS };
            let slots = &slots[..size];
            if self.rings.get(&version.ring).is_none_or(|ring| ring != slots) {
                self.maps.set_ring(version.ring, slots, 0)?;
                self.rings.insert(version.ring, slots.to_vec());
            }
        }
        self.split(scene.split(&scene.weights(), self.generation))?;
        self.addresses::<Be32>(scene)?;
        self.addresses::<Addr6>(scene)?;
        for (key, backend) in scene.quic_ids() {
            self.maps.set_quic_id(key, backend)?;
            self.configured.quic_ids.push(key);
        }
        for rule in &scene.rules {
            let net = ipnet::IpNet::new(rule.source, rule.bits as u8)?;
            let at = RuleAt { service: scene.service, net };
            self.maps.set_rule(at, Some(rule.ring))?;
            self.configured.rules.insert(at);
        }
        let ports = scene.ports();
        if self.ports.as_ref() != Some(&ports) {
            for which in [PortBits::FRONTENDS, PortBits::BACKENDS] {
                self.maps.set_ports(which, *ports[which as usize])?;
            }
            self.ports = Some(ports);
        }
        Ok(())
    }

    fn addresses<A: Address>(&mut self, scene: &Scene) -> Result<()> {
        for (at, value) in scene.frontend_entries::<A>() {
            self.maps.set_frontend(At::of(at), Some(value))?;
            self.configured.frontends.insert(At::of(at));
        }
        for (at, value) in scene.backend_ids::<A>() {
            self.maps.set_backend_id(At::of(at), Some(value))?;
            self.configured.backend_ids.insert(At::of(at));
        }
        Ok(())
    }

    /// Takes out what the last scene has put in.
    fn unconfigure(&mut self) -> Result<()> {
        let was = std::mem::take(&mut self.configured);
        was.frontends.into_iter().try_for_each(|at| self.maps.set_frontend(at, None))?;
        was.backend_ids.into_iter().try_for_each(|at| self.maps.set_backend_id(at, None))?;
        was.rules.into_iter().try_for_each(|at| self.maps.set_rule(at, None))?;
        was.quic_ids.into_iter().try_for_each(|key| self.maps.remove_quic_id(key))?;
        let free = |id| self.maps.set_backend(id, Backend::zeroed());
        Ok(was.backends.into_iter().try_for_each(free)?)
    }

    fn split(&mut self, split: Split) -> Result<()> {
        if self.splits.insert(self.service, split) != Some(split) {
            self.maps.swap_split(self.service, split)?;
        }
        Ok(())
    }

    /// Puts new weights in force.
    pub fn shift(&mut self, scene: &Scene, weights: &[u32]) -> Result<()> {
        self.generation += 1;
        self.split(scene.split(weights, self.generation))
    }

    /// Takes a frontend away.
    pub fn remove_frontend(&mut self, at: At) -> Result<()> {
        if self.configured.frontends.remove(&at) {
            self.maps.set_frontend(at, None)?;
        }
        Ok(())
    }

    /// Makes an instance take no new flows.
    pub fn close(&mut self, backend: u32) -> Result<()> {
        let entry = self.maps.backend(backend)?;
        Ok(self.maps.set_backend(backend, Backend { state: backend_state::CLOSED, ..entry })?)
    }

    /// Makes the way of packets another.
    pub fn way(&mut self, way: Way) -> Result<()> {
        self.way.set(way)?;
        // Only then is what goes out by the interface it came in by told from what goes elsewhere.
        match way {
            Way::Same => self.maps.remove_device(self.way.device)?,
            _ => self.maps.add_device(self.way.device)?,
        }
        let meta = self.maps.meta()?;
        Ok(self.maps.set_meta(Meta { routing_epoch: meta.routing_epoch + 1, ..meta })?)
    }
}
