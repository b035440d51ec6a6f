//! Typed access to the pinned maps.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use bytemuck::{Pod, Zeroable};
use release_common::abi::{
    Addr6, Backend, Be32, Counters, Explained, Gauge, Latency, Meta, PortBits, QuicKey, RING_BLOCK,
    RingBlock, Service, ServiceCounters, Split, UserCounters,
};

use super::family::FamilyMaps;
use super::pod::Abi;
use super::{EventRing, KernelError, batch, grace, map_error, spec};

/// BPF_F_INNER_MAP (Linux 5.10): the inner map's size may differ from the template's.
const INNER_MAP: u32 = 1 << 12;
/// Inner maps replaced by one system call: each takes a descriptor meanwhile.
const AT_ONCE: usize = 64;
/// Such calls that may be waiting in the kernel at a time.
const UNDER_WAY: usize = 8;

/// What the kernel says of a pinned map.
#[derive(Clone, Debug)]
pub struct PinnedMap {
    /// Its type.
    pub kind: String,
    /// Key size in bytes.
    pub key_size: u32,
    /// Value size in bytes.
    pub value_size: u32,
    /// Most entries.
    pub capacity: u32,
}

/// Head of a ring as it is in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingHead {
    /// Number of slots.
    pub size: u32,
    /// Fingerprint of the members the ring was built from.
    pub fingerprint: u64,
}

/// The pinned maps of a data plane.
pub struct Maps {
    bpffs: PathBuf,
    meta: Array<MapData, Abi<Meta>>,
    ports: Array<MapData, Abi<PortBits>>,
    pub(super) v4: FamilyMaps<Be32>,
    pub(super) v6: FamilyMaps<Addr6>,
    services: Array<MapData, Abi<Service>>,
    splits: ArrayOfMaps<MapData, Array<MapData, Abi<Split>>>,
    rings: ArrayOfMaps<MapData, Array<MapData, Abi<RingBlock>>>,
    /// The same two, for writing many elements at once.
    maps_of_maps: [MapData; 2],
    /// Replacements that are in place, and whose system calls have not returned yet.
    under_way: VecDeque<JoinHandle<()>>,
    backends: Array<MapData, Abi<Backend>>,
    quic_ids: HashMap<MapData, Abi<QuicKey>, u32>,
    pub(super) sessions: MapData,
    explained: Array<MapData, Abi<Explained>>,
    pub(super) counters: PerCpuArray<MapData, Abi<Counters>>,
    pub(super) user_counters: Array<MapData, Abi<UserCounters>>,
    pub(super) latency: Array<MapData, Abi<Latency>>,
    pub(super) service_counters: PerCpuArray<MapData, Abi<ServiceCounters>>,
    pub(super) gauges: Array<MapData, Abi<Gauge>>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
    devices: DevMapHash<MapData>,
}

/// Reads an element that the kernel has for sure.
macro_rules! element {
    ($self:ident . $map:ident, $name:literal, $index:expr) => {
        $self.$map.get(&$index, 0).map(|value| value.0).map_err(map_error($name))
    };
}
pub(super) use element;

impl Maps {
    /// Opens what is pinned under `bpffs`.
    ///
    /// # Errors
    /// [`KernelError::Absent`] if nothing is, [`KernelError::Incompatible`] if it is of another
    /// shape or ABI version.
    pub fn open(bpffs: &Path) -> Result<Self, KernelError> {
        if !bpffs.join("META").exists() {
            return Err(KernelError::Absent { path: bpffs.to_owned() });
        }
        check_shapes(bpffs)?;
        let maps = Self {
            bpffs: bpffs.to_owned(),
            meta: typed(bpffs, "META", Map::Array)?,
            ports: typed(bpffs, "PORTS", Map::Array)?,
            v4: FamilyMaps::open(bpffs)?,
            v6: FamilyMaps::open(bpffs)?,
            services: typed(bpffs, "SERVICES", Map::Array)?,
            splits: typed(bpffs, "SPLITS", Map::ArrayOfMaps)?,
            rings: typed(bpffs, "RINGS", Map::ArrayOfMaps)?,
            maps_of_maps: [pinned(bpffs, "SPLITS")?, pinned(bpffs, "RINGS")?],
            under_way: VecDeque::new(),
            backends: typed(bpffs, "BACKENDS", Map::Array)?,
            quic_ids: typed(bpffs, "QUIC_IDS", Map::HashMap)?,
            sessions: pinned(bpffs, "SESSIONS")?,
            explained: typed(bpffs, "EXPLAINED", Map::Array)?,
            counters: typed(bpffs, "COUNTERS", Map::PerCpuArray)?,
            user_counters: typed(bpffs, "USER_COUNTERS", Map::Array)?,
            latency: typed(bpffs, "LATENCY", Map::Array)?,
            service_counters: typed(bpffs, "SERVICE_COUNTERS", Map::PerCpuArray)?,
            gauges: typed(bpffs, "GAUGES", Map::Array)?,
            reasons: typed(bpffs, "REASONS", Map::PerCpuArray)?,
            devices: typed(bpffs, "DEVICES", Map::DevMapHash)?,
        };
        Ok(maps)
    }

    /// The ring buffer of events. One reader at a time.
    ///
    /// # Errors
    /// If the pin cannot be opened.
    pub fn events(&self) -> Result<EventRing, KernelError> {
        typed::<RingBuf<MapData>>(&self.bpffs, "EVENTS", Map::RingBuf).map(EventRing)
    }

    /// Ids of the maps that are pinned now, by name; those without a pin are missing.
    ///
    /// # Errors
    /// If a pin cannot be opened.
    pub fn ids(&self) -> Result<BTreeMap<String, u32>, KernelError> {
        let pinned = spec::SPECS.iter().filter(|spec| self.bpffs.join(spec.name).exists());
        pinned
            .map(|spec| {
                let info = MapInfo::from_pin(self.bpffs.join(spec.name));
                Ok((spec.name.to_owned(), info.map_err(map_error(spec.name))?.id()))
            })
            .collect()
    }

    /// What the kernel says of a pinned map.
    ///
    /// # Errors
    /// If the pin cannot be opened.
    pub fn info(&self, name: &str) -> Result<PinnedMap, KernelError> {
        let info = MapInfo::from_pin(self.bpffs.join(name)).map_err(map_error(name))?;
        Ok(PinnedMap {
            kind: info.map_type().map(|kind| format!("{kind:?}")).unwrap_or_default(),
            key_size: info.key_size(),
            value_size: info.value_size(),
            capacity: info.max_entries(),
        })
    }

    /// The whole in one element.
    ///
    /// # Errors
    /// The system call's, as for all methods below.
    pub fn meta(&self) -> Result<Meta, KernelError> {
        element!(self.meta, "META", 0)
    }

    /// Replaces it.
    #[allow(missing_docs, reason = "see `meta`")]
    pub fn set_meta(&mut self, meta: Meta) -> Result<(), KernelError> {
        self.meta.set(0, Abi(meta), 0).map_err(map_error("META"))
    }

    /// A bitmap of ports ([`PortBits::FRONTENDS`] or [`PortBits::BACKENDS`]).
    pub fn ports(&self, which: u32) -> Result<PortBits, KernelError> {
        element!(self.ports, "PORTS", which)
    }

    /// Replaces a bitmap of ports.
    pub fn set_ports(&mut self, which: u32, bits: PortBits) -> Result<(), KernelError> {
        self.ports.set(which, Abi(bits), 0).map_err(map_error("PORTS"))
    }

    /// A service.
    pub fn service(&self, id: u32) -> Result<Service, KernelError> {
        element!(self.services, "SERVICES", id)
    }

    /// Replaces a service.
    pub fn set_service(&mut self, id: u32, value: Service) -> Result<(), KernelError> {
        self.services.set(id, Abi(value), 0).map_err(map_error("SERVICES"))
    }

    /// The split in force; `None` before the first.
    pub fn split(&self, service: u32) -> Result<Option<Split>, KernelError> {
        match self.splits.get(&service, 0) {
            Ok(inner) => inner.get(&0, 0).map(|v| Some(v.0)).map_err(map_error("SPLITS")),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("SPLITS")(error)),
        }
    }

    /// Head of a ring; `None` if there is no ring.
    pub fn ring_head(&self, ring: u32) -> Result<Option<RingHead>, KernelError> {
        match self.rings.get(&ring, 0) {
            Ok(inner) => {
                let head = inner.get(&0, 0).map_err(map_error("RINGS"))?.0.slots;
                let fingerprint = u64::from(head[1]) | u64::from(head[2]) << 32;
                Ok(Some(RingHead { size: head[0], fingerprint }))
            }
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(map_error("RINGS")(error)),
        }
    }

    /// All slots of a ring.
    pub fn ring(&self, ring: u32) -> Result<Vec<u32>, KernelError> {
        let Some(head) = self.ring_head(ring)? else { return Ok(Vec::new()) };
        let inner = self.rings.get(&ring, 0).map_err(map_error("RINGS"))?;
        let mut slots = Vec::with_capacity(head.size as usize);
        for block in 1..inner.len() {
            slots.extend(inner.get(&block, 0).map_err(map_error("RINGS"))?.0.slots);
        }
        slots.truncate(head.size as usize);
        Ok(slots)
    }

    /// Puts splits in force. When this returns, no CPU still places a packet by the ones before. No
    /// kernel is relied on to wait: of many replaced at once Linux 6.18 does not.
    pub fn swap_splits(&mut self, splits: &[(u32, Split)]) -> Result<(), KernelError> {
        if splits.is_empty() {
            return Ok(());
        }
        for some in splits.chunks(AT_ONCE) {
            let inner = some.iter().map(|(_, split)| inner("SPLITS", &[*split], 0));
            let inner = inner.collect::<Result<Vec<_>, _>>()?;
            let services: Vec<u32> = some.iter().map(|(service, _)| *service).collect();
            self.replace("SPLITS", 0, services, inner)?;
        }
        grace::packets_done();
        Ok(())
    }

    /// Replaces a ring, as [`Maps::set_rings`] does several. An empty one refuses new flows.
    pub fn set_ring(
        &mut self,
        ring: u32,
        slots: &[u32],
        fingerprint: u64,
    ) -> Result<(), KernelError> {
        self.set_rings(&[(ring, slots.to_vec(), fingerprint)])
    }

    /// Replaces rings: each with its slots and its fingerprint. Programs may go on with those of before
    /// until the next [`Maps::swap_splits`] has returned.
    pub fn set_rings(&mut self, rings: &[(u32, Vec<u32>, u64)]) -> Result<(), KernelError> {
        for some in rings.chunks(AT_ONCE) {
            let inner = some
                .iter()
                .map(|(_, slots, mark)| inner("RINGS", &ring_blocks(slots, *mark), INNER_MAP));
            let inner = inner.collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<u32> = some.iter().map(|(ring, _, _)| *ring).collect();
            self.replace("RINGS", 1, ids, inner)?;
        }
        Ok(())
    }

    /// Replaces inner maps of one of [`Self::maps_of_maps`], and returns when they are in place. Programs
    /// may go on with those of before for a while. The system call waits for a grace period, or does
    /// not (`maybe_wait_bpf_programs`): that is left to a thread of its own, since what is to be
    /// waited for is known better here ([`grace::packets_done`]).
    fn replace(
        &mut self,
        name: &'static str,
        which: usize,
        places: Vec<u32>,
        inner: Vec<MapData>,
    ) -> Result<(), KernelError> {
        let (Some(&place), Some(last)) = (places.last(), inner.last()) else { return Ok(()) };
        let id = last.info().map_err(map_error(name))?.id();
        while self.under_way.len() >= UNDER_WAY {
            self.under_way.pop_front().map(JoinHandle::join);
        }
        let outer = self.maps_of_maps[which].fd().as_fd();
        let own = outer.try_clone_to_owned().map_err(io_error(name))?;
        let (done, returned) = mpsc::channel();
        let call = move || {
            let fds: Vec<u32> =
                inner.iter().map(|map| map.fd().as_fd().as_raw_fd() as u32).collect();
            // Nobody listens if it was seen to be done before.
            let _ = done.send(batch::update(own.as_fd(), &places, &fds));
        };
        let thread = thread::Builder::new().name("replace".to_owned()).spawn(call);
        self.under_way.push_back(thread.map_err(io_error(name))?);
        // They are replaced in order, so when the last one is there, all are.
        while batch::inner_id(outer, place).map_err(io_error(name))? != Some(id) {
            match returned.try_recv() {
                Ok(result) => return result.map_err(io_error(name)),
                Err(mpsc::TryRecvError::Empty) => thread::yield_now(),
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(io_error(name)(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
        Ok(())
    }

    /// An instance.
    pub fn backend(&self, id: u32) -> Result<Backend, KernelError> {
        element!(self.backends, "BACKENDS", id)
    }

    /// Replaces an instance.
    pub fn set_backend(&mut self, id: u32, value: Backend) -> Result<(), KernelError> {
        self.backends.set(id, Abi(value), 0).map_err(map_error("BACKENDS"))
    }

    /// Instances by QUIC server id.
    pub fn quic_ids(&self) -> Result<Vec<(QuicKey, u32)>, KernelError> {
        let pairs = self.quic_ids.iter();
        pairs.map(|pair| pair.map(|(k, v)| (k.0, v)).map_err(map_error("QUIC_IDS"))).collect()
    }

    /// Adds or replaces a QUIC server id.
    pub fn set_quic_id(&mut self, key: QuicKey, backend: u32) -> Result<(), KernelError> {
        self.quic_ids.insert(Abi(key), backend, 0).map_err(map_error("QUIC_IDS"))
    }

    /// Removes a QUIC server id.
    pub fn remove_quic_id(&mut self, key: QuicKey) -> Result<(), KernelError> {
        self.quic_ids.remove(&Abi(key)).map_err(map_error("QUIC_IDS"))
    }

    /// The last answer of the explaining programs.
    pub fn explained(&self) -> Result<Explained, KernelError> {
        element!(self.explained, "EXPLAINED", 0)
    }

    /// Lets packets be redirected to an interface.
    pub fn add_device(&mut self, ifindex: u32) -> Result<(), KernelError> {
        self.devices.insert(ifindex, ifindex, None, 0).map_err(|error| KernelError::Map {
            name: "DEVICES".to_owned(),
            why: super::chain(&error),
        })
    }

    /// Takes an interface out.
    pub fn remove_device(&mut self, ifindex: u32) -> Result<(), KernelError> {
        match self.devices.remove(ifindex) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            // The kernel removes an entry itself when its device goes.
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            Err(error) => Err(map_error("DEVICES")(error)),
        }
    }

    /// Interfaces that packets may be redirected to.
    pub fn devices(&self) -> Vec<u32> {
        self.devices.keys().flatten().collect()
    }
}

/// A ring as the kernel has it.
fn ring_blocks(slots: &[u32], fingerprint: u64) -> Vec<RingBlock> {
    let mut blocks = vec![RingBlock::zeroed(); 1 + slots.len().div_ceil(RING_BLOCK).max(1)];
    // An empty ring has one slot that names nobody.
    blocks[0].slots[0] = slots.len().max(1) as u32;
    blocks[0].slots[1] = fingerprint as u32;
    blocks[0].slots[2] = (fingerprint >> 32) as u32;
    for (block, part) in blocks[1..].iter_mut().zip(slots.chunks(RING_BLOCK)) {
        block.slots[..part.len()].copy_from_slice(part);
    }
    blocks
}

/// An array with these elements, to be put into a map of maps.
fn inner<V: Pod>(name: &'static str, values: &[V], flags: u32) -> Result<MapData, KernelError> {
    const ARRAY: u32 = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    let (key, value, count) = (size_of::<u32>(), size_of::<V>(), values.len() as u32);
    let shape = aya_obj::Map::new_from_params(ARRAY, key as u32, value as u32, count, flags);
    let map = MapData::create(shape, "inner", None).map_err(map_error(name))?;
    let keys: Vec<u32> = (0..count).collect();
    batch::update(map.fd().as_fd(), &keys, values).map_err(io_error(name))?;
    Ok(map)
}

pub(super) fn io_error(name: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |error| KernelError::Map { name: name.to_owned(), why: error.to_string() }
}

pub(super) fn pinned(bpffs: &Path, name: &str) -> Result<MapData, KernelError> {
    MapData::from_pin(bpffs.join(name)).map_err(map_error(name))
}

pub(super) fn typed<T>(bpffs: &Path, name: &str, kind: fn(MapData) -> Map) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    kind(pinned(bpffs, name)?).try_into().map_err(map_error(name))
}

pub(super) fn pairs<K: Pod + Eq, V: Pod>(
    map: &HashMap<MapData, Abi<K>, Abi<V>>,
    name: &'static str,
) -> Result<Vec<(K, V)>, KernelError> {
    // These maps have one writer, the caller's own process: nothing changes meanwhile.
    map.iter()
        .map(|pair| pair.map(|(key, value)| (key.0, value.0)).map_err(map_error(name)))
        .collect()
}

/// Whether a whole data plane is pinned under `bpffs`. The ABI version is written when all maps are
/// there, and before any program is attached: without it, a first start was cut short.
pub fn is_pinned(bpffs: &Path) -> bool {
    if !bpffs.join("META").exists() {
        return false;
    }
    // What cannot be read was made by another version: it is there.
    typed::<Array<MapData, Abi<Meta>>>(bpffs, "META", Map::Array)
        .and_then(|meta| meta.get(&0, 0).map_err(map_error("META")))
        .map_or(true, |meta| meta.0.abi != 0)
}

/// Compares what is pinned with what this program expects.
fn check_shapes(bpffs: &Path) -> Result<(), KernelError> {
    for spec in spec::SPECS {
        let path = bpffs.join(spec.name);
        let incompatible = |why: String| KernelError::Incompatible { path: path.clone(), why };
        if !path.exists() {
            return Err(incompatible("is missing".to_owned()));
        }
        let info = MapInfo::from_pin(&path).map_err(map_error(spec.name))?;
        let found = (info.key_size() as usize, info.value_size() as usize);
        if found != (spec.key, spec.value) {
            return Err(incompatible(format!(
                "key and value of {} and {} bytes, this version needs {} and {}",
                found.0, found.1, spec.key, spec.value
            )));
        }
        if let Some(capacity) = spec.capacity
            && info.max_entries() != capacity
        {
            return Err(incompatible(format!(
                "capacity {}, this version needs {capacity}",
                info.max_entries()
            )));
        }
    }
    let meta: Array<MapData, Abi<Meta>> = typed(bpffs, "META", Map::Array)?;
    let abi = meta.get(&0, 0).map_err(map_error("META"))?.0.abi;
    if abi != release_common::abi::ABI_VERSION && abi != 0 {
        return Err(KernelError::Incompatible {
            path: bpffs.join("META"),
            why: format!(
                "ABI version {abi}, this version needs {}",
                release_common::abi::ABI_VERSION
            ),
        });
    }
    Ok(())
}
