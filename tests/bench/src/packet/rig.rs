//! The programs on maps of their own, with a service in them and a way out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use bytemuck::bytes_of;
use release_common::abi::{ABI_VERSION, Backend, Be32, Flow, FlowKey, Meta};
use release_common::reason::Reason;
use release_common::tcp::word::FlowWord;
use release_tests::driver::{Driver, Packets};
use release_tests::installed::Installed;
use release_tests::model::Scene;
use release_tests::raw_map::Raw;
use release_tests::topology::PinDirectory;
use release_tests::way::Surroundings;
use release_user::kernel::{Capacities, Clock, Loaded, Maps, Programs, Verified, load};

/// Seconds for which next hops may be cached: as the daemon has it.
const LEASE: u32 = 3;
/// Flows put into the table in one call.
const CHUNK: u32 = 65_536;

/// The programs, and what they need. The calling thread is in the namespace.
pub struct Rig {
    /// Alive for as long as it is needed.
    _way: Surroundings,
    bpffs: PinDirectory,
    loaded: Loaded,
    programs: Programs,
    maps: Maps,
    installed: Installed,
    capacities: Capacities,
    clock: Clock,
    generation: u32,
    /// The service.
    pub scene: Scene,
}

impl Rig {
    /// Loads the programs.
    pub fn new(capacities: Capacities, scene: Scene) -> Result<Self> {
        let way = Surroundings::new()?;
        way.netns.handle().join()?;
        let bpffs = PinDirectory::new()?;
        let loaded = load(bpffs.path(), capacities, 0)?;
        let mut maps = Maps::open(bpffs.path())?;
        maps.add_device(way.device)?;
        let mut rig = Self {
            programs: Programs::open(bpffs.path())?,
            clock: Clock::of_kernel()?,
            _way: way,
            bpffs,
            loaded,
            maps,
            installed: Installed::default(),
            capacities,
            generation: 1,
            scene: scene.clone(),
        };
        rig.install(scene)?;
        Ok(rig)
    }

    /// Replaces the service.
    pub fn install(&mut self, scene: Scene) -> Result<()> {
        self.installed.clear(&mut self.maps)?;
        self.generation += 1;
        self.installed.install(&mut self.maps, &scene, self.generation)?;
        self.scene = scene;
        self.renew()
    }

    /// Renews the lease of the cached next hops, as the daemon does.
    pub fn renew(&mut self) -> Result<()> {
        let jiffies = self.programs.jiffies()?;
        let lease = self.clock.hz * LEASE;
        Ok(self.maps.set_meta(Meta {
            abi: ABI_VERSION,
            hz: self.clock.hz,
            flow_capacity: self.capacities.flows,
            flow_limit: self.capacities.flows,
            routing_epoch: 1,
            routing_lease: (jiffies as u32).wrapping_add(lease),
            ..Meta::default()
        })?)
    }

    /// What loading each program took.
    pub fn verified(&self) -> Vec<Verified> {
        self.loaded.verified.clone()
    }

    /// Adds an instance beside the scene's, and its service as the scene's is.
    pub fn add_instance(&mut self, id: u32, socket: SocketAddr, service: u32) -> Result<()> {
        self.maps.set_service(service, self.scene.service_value())?;
        let ring = self.scene.versions[0].ring;
        Ok(self.maps.set_backend(id, Backend::accepting(socket, service, ring))?)
    }

    /// Where its maps are pinned.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Has a driver drive the packet program.
    pub fn drive(&self, driver: &mut Driver) -> Result<()> {
        driver.measure_pinned(&self.bpffs.path().join("programs/release_xdp"))
    }

    /// One packet, as it comes from the wire; what it came to and the frame afterwards.
    pub fn packet(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.renew()?;
        let run = self.programs.run_packet(frame, None)?;
        Ok((run.action, run.frame))
    }

    /// Empties a table.
    pub fn clear(&self, table: &'static str) -> Result<()> {
        Raw::open(self.bpffs.path(), table)?.clear()
    }

    /// The entry of the flow whose client sends this frame.
    pub fn flow(&self, frame: &[u8]) -> Result<Flow> {
        let key = key_of(frame);
        let mut found = None;
        let wanted = release_user::kernel::Tuple::of(&key);
        self.maps.walk_flows(|tuple, flow| {
            if *tuple == wanted {
                found = Some(*flow);
            }
        })?;
        found.context("the flow is not in the table")
    }

    /// Makes flows of all those of a client's packets, each as `flow` is but for its instance.
    pub fn fill(&self, packets: &Packets, flow: Flow, backend: impl Fn(u32) -> u32) -> Result<()> {
        let table = Raw::open(self.bpffs.path(), "FLOWS4")?;
        table.clear()?;
        let count = 1_u32 << packets.flows;
        for begin in (0..count).step_by(CHUNK as usize) {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for number in begin..count.min(begin + CHUNK) {
                let key = key_of(&packets.of(number));
                keys.extend_from_slice(bytes_of(&key));
                // Incarnations have different tags.
                let state = flow.state ^ FlowWord::live(number, 0, 0).0;
                let flow = Flow { state, backend: backend(number), ..flow };
                values.extend_from_slice(bytes_of(&flow));
            }
            table.fill(&keys, &values)?;
        }
        Ok(())
    }

    /// Packets counted by reason, and packets of all instances.
    pub fn counted(&self) -> Result<Counted> {
        let mut packets = 0;
        for instance in self.scene.instances() {
            packets += self.maps.counters(instance.id)?.packets;
        }
        Ok(Counted { reasons: self.maps.reasons()?, packets })
    }
}

/// What was counted so far.
pub struct Counted {
    reasons: Vec<(Reason, u64)>,
    /// Packets of all instances.
    pub packets: u64,
}

impl Counted {
    /// Packets by reason, without those that were counted before.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let old = |reason| before.reasons.iter().find(|(this, _)| *this == reason);
        let grown = self.reasons.iter().map(|(reason, count)| {
            (format!("{reason:?}"), count - old(*reason).map_or(0, |(_, count)| *count))
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

/// The key of the flow that a client's frame belongs to.
fn key_of(frame: &[u8]) -> FlowKey<Be32> {
    let word =
        |at: usize| u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
    FlowKey {
        client: Be32(word(26)),
        frontend: Be32(word(30)),
        client_port: release_common::abi::Be16(half(34)),
        frontend_port: release_common::abi::Be16(half(36)),
        proto: frame[23],
        pad: 0,
        pad_end: 0,
    }
}
