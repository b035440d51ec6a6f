//! The programs on maps of their own, and everything that cases ask of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use release_common::abi::{ABI_VERSION, Backend, Meta, backend_state};
use release_tests::cases::Way;
use release_tests::installed::Installed;
use release_tests::model::Scene;
use release_tests::model::scene::FIRST_GENERATION;
use release_tests::model::tables::HZ;
use release_tests::way::Surroundings;
use release_user::kernel::{At, Capacities, Loaded, Maps, Programs, load};

use super::state::{State, Tables};

/// Jiffies for which next hops may be cached.
const LEASE: u32 = 5000;

/// The programs and their maps; the calling thread is in the namespace, and stays on one CPU.
pub struct Kernel<'a> {
    pub way: &'a mut Surroundings,
    pub maps: Maps,
    pub tables: Tables,
    pub(super) programs: Programs,
    pub(super) loaded: Loaded,
    pub bpffs: PathBuf,
    installed: Installed,
    pub(super) service: u32,
    /// Ids of instances are below this.
    pub(super) ids: u32,
    generation: u32,
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
            installed: Installed::default(),
            service: 0,
            ids: 0,
            generation: 0,
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
        self.installed.clear(&mut self.maps)?;
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
        self.installed.install(&mut self.maps, scene, self.generation)?;
        self.clock = timed.then_some((jiffies, Instant::now()));
        Ok(())
    }

    /// Puts new weights in force.
    pub fn shift(&mut self, scene: &Scene, weights: &[u32]) -> Result<()> {
        self.generation += 1;
        let split = scene.split(weights, self.generation);
        self.installed.split(&mut self.maps, self.service, split)
    }

    /// Takes a frontend away.
    pub fn remove_frontend(&mut self, at: At) -> Result<()> {
        self.installed.remove_frontend(&mut self.maps, at)
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
