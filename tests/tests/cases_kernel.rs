//! The table of packet cases, through the real program by BPF_PROG_TEST_RUN. Needs root.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Result, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use release_common::abi::{
    ABI_VERSION, Counters, Embryo, Flow, FlowKey4, FrontendRef, GAUGE_ENTRIES, Meta, PortBits,
};
use release_common::reason::Reason;
use release_common::tcp::word::{FlowWord, Phase};
use release_tests::cases::{Report, Run, Runner, Setting, Verdict, Way, all};
use release_tests::model::scene::{FIRST_GENERATION, RING_SLOTS};
use release_tests::model::{Scene, Tally};
use release_tests::netns::Netns;
use release_user::kernel::{Loaded, Maps, Programs, load};

/// The gateway that everything is routed to, behind an interface of the namespace's own.
const GATEWAY: &str = "10.255.0.2";
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const WAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 8];

type Raw<const N: usize> = HashMap<MapData, [u8; 16], [u8; N]>;

/// The programs on maps of their own; the calling thread is in the namespace.
struct Kernel<'a> {
    netns: &'a Netns,
    bpffs: PathBuf,
    _loaded: Loaded,
    maps: Maps,
    programs: Programs,
    flows: Raw<64>,
    embryos: Raw<24>,
    gauges: Array<MapData, u64>,
    generation: u32,
    /// A case has changed the way: put back before the next, and only then. It takes processes.
    way_changed: bool,
    /// Packets by reason, as read last.
    counted: Vec<(Reason, u64)>,
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.bpffs);
    }
}

/// A namespace with one way out, by a gateway whose MAC is known.
fn namespace() -> Result<Netns> {
    let netns = Netns::new("cases")?;
    netns.ip("link add way type veth peer name far")?;
    netns.ip("link set way address 02:00:00:00:00:08 up")?;
    netns.ip("link set far up")?;
    netns.ip("addr add 10.255.0.1/24 dev way")?;
    known_way(&netns)?;
    netns.sysctl("ipv4/ip_forward", "1")?;
    Ok(netns)
}

fn known_way(netns: &Netns) -> Result<()> {
    netns.ip("link set way mtu 65535")?;
    netns.ip(&format!("neigh replace {GATEWAY} lladdr 02:00:00:00:00:09 dev way nud permanent"))?;
    netns.ip(&format!("route replace default via {GATEWAY}"))?;
    Ok(())
}

impl<'a> Kernel<'a> {
    fn new(netns: &'a Netns) -> Result<Self> {
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/cases-{}", std::process::id()));
        let loaded = load(&bpffs, 1024, 1024, 0)?;
        let mut maps = Maps::open(&bpffs)?;
        maps.add_device(nix::net::if_::if_nametoindex("way")?)?;
        let pinned = |name: &str| MapData::from_pin(bpffs.join(name));
        Ok(Self {
            counted: maps.reasons()?,
            flows: Map::HashMap(pinned("FLOWS4")?).try_into()?,
            embryos: Map::LruHashMap(pinned("EMBRYOS4")?).try_into()?,
            gauges: Map::Array(pinned("GAUGES")?).try_into()?,
            programs: Programs::open(&bpffs)?,
            maps,
            _loaded: loaded,
            netns,
            bpffs,
            generation: FIRST_GENERATION,
            way_changed: false,
        })
    }

    /// Empties the tables and loads a scene.
    fn begin(&mut self, scene: &Scene) -> Result<()> {
        for key in self.flows.keys().collect::<Result<Vec<_>, _>>()? {
            self.flows.remove(&key)?;
        }
        for key in self.embryos.keys().collect::<Result<Vec<_>, _>>()? {
            self.embryos.remove(&key)?;
        }
        self.gauges.set(scene.service, 0, 0)?;
        self.gauges.set(GAUGE_ENTRIES, 0, 0)?;
        for (frontend, _) in self.maps.frontends()? {
            self.maps.remove_frontend(frontend)?;
        }
        for (at, _) in self.maps.backend_ids()? {
            self.maps.remove_backend_id(at)?;
        }
        if std::mem::take(&mut self.way_changed) {
            known_way(self.netns)?;
        }
        self.generation = FIRST_GENERATION;
        self.maps.set_meta(Meta {
            abi: ABI_VERSION,
            flow_capacity: 1024,
            flow_limit: scene.flow_limit,
            ..Meta::default()
        })?;
        let mut ports: [PortBits; 2] = bytemuck::Zeroable::zeroed();
        for (id, backend) in scene.backends() {
            self.maps.set_backend(id, backend)?;
            self.maps.reset_counters(id)?;
            ports[PortBits::BACKENDS as usize].insert(backend.port);
        }
        for (at, id) in scene.backend_ids() {
            self.maps.set_backend_id(at, id)?;
        }
        self.maps.set_service(scene.service, scene.service_value())?;
        for version in &scene.versions {
            let slots: Vec<u32> =
                scene.ring(version)[1..].iter().flat_map(|block| block.slots).collect();
            let size = if version.instances.is_empty() { 0 } else { RING_SLOTS };
            self.maps.set_ring(version.ring, &slots[..size], 0)?;
        }
        let split = scene.split(&scene.weights(), self.generation);
        self.maps.swap_split(scene.service, split)?;
        for &frontend in &scene.frontends {
            let value = FrontendRef { service: scene.service, flags: 0 };
            self.maps.set_frontend(frontend.into(), value)?;
            ports[PortBits::FRONTENDS as usize].insert(frontend.port());
        }
        for which in [PortBits::FRONTENDS, PortBits::BACKENDS] {
            self.maps.set_ports(which, ports[which as usize])?;
        }
        Ok(())
    }
}

/// One case on the kernel.
struct KernelRunner<'a> {
    kernel: Rc<RefCell<Kernel<'a>>>,
    scene: Scene,
}

impl KernelRunner<'_> {
    fn change<T>(&self, work: impl FnOnce(&mut Kernel<'_>) -> Result<T>) -> T {
        // The engine has no way to report a broken rig: the test ends here.
        work(&mut self.kernel.borrow_mut()).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Runner for KernelRunner<'_> {
    /// The kernel takes no test frame without an Ethernet header.
    fn takes(&self, frame: &[u8]) -> bool {
        frame.len() >= 14
    }

    fn run(&mut self, frame: &[u8]) -> Run {
        self.change(|kernel| {
            let run = kernel.programs.run_packet(frame)?;
            let now = kernel.maps.reasons()?;
            let changed = now.iter().zip(&kernel.counted).filter(|(now, before)| now != before);
            let counted: Vec<Reason> = changed.map(|((reason, _), _)| *reason).collect();
            kernel.counted = now;
            let [reason] = counted[..] else { bail!("reasons counted: {counted:?}") };
            let verdict = match run.action {
                1 => Verdict::Drop,
                2 => Verdict::Pass,
                3 => Verdict::Bounce,
                4 => Verdict::Send(None),
                other => bail!("XDP action {other}"),
            };
            Ok(Run { verdict, frame: run.frame, reason })
        })
    }

    /// The kernel's clock cannot be moved: every entry is made older instead.
    fn advance(&mut self, jiffies: u64) -> bool {
        self.change(|kernel| {
            let mut flows = Vec::new();
            kernel.maps.walk_flows(|key, flow| flows.push((*key, *flow)))?;
            for (key, mut flow) in flows {
                flow.opened_at = flow.opened_at.wrapping_sub(jiffies);
                flow.last_packet = flow.last_packet.wrapping_sub(jiffies as u32);
                flow.last_data = flow.last_data.wrapping_sub(jiffies as u32);
                let value: [u8; 64] = bytemuck::cast(flow);
                kernel.flows.insert(bytemuck::cast::<_, [u8; 16]>(key), value, 0)?;
            }
            let mut embryos = Vec::new();
            kernel.maps.walk_embryos(|key, embryo| embryos.push((*key, *embryo)))?;
            for (key, mut embryo) in embryos {
                embryo.created = embryo.created.wrapping_sub(jiffies as u32);
                let value: [u8; 24] = bytemuck::cast(embryo);
                kernel.embryos.insert(bytemuck::cast::<_, [u8; 16]>(key), value, 0)?;
            }
            Ok(true)
        })
    }

    fn shift(&mut self, weights: &[u32]) {
        self.change(|kernel| {
            kernel.generation += 1;
            let split = self.scene.split(weights, kernel.generation);
            Ok(kernel.maps.swap_split(self.scene.service, split)?)
        });
    }

    fn set(&mut self, setting: Setting) -> bool {
        self.change(|kernel| {
            kernel.way_changed |= matches!(setting, Setting::Way(_));
            match setting {
                Setting::TableFull => {
                    let meta = kernel.maps.meta()?;
                    kernel.maps.set_meta(Meta { flow_limit: 0, ..meta })?;
                }
                Setting::FrontendGone(index) => {
                    kernel.maps.remove_frontend(self.scene.frontends[index].into())?;
                }
                Setting::Way(Way::Known) => known_way(kernel.netns)?,
                // A test run comes in by the loopback interface, which no way leads out of.
                Setting::Way(Way::Same) => return Ok(false),
                Setting::Way(Way::Kernel) => {
                    kernel.netns.ip(&format!("neigh del {GATEWAY} dev way"))?;
                }
                Setting::Way(Way::Mtu(mtu)) => {
                    kernel.netns.ip(&format!("link set way mtu {mtu}"))?;
                }
            }
            Ok(true)
        })
    }

    fn flow(&mut self, key: &FlowKey4) -> Option<Flow> {
        self.change(|kernel| {
            let mut found = None;
            kernel.maps.walk_flows(|at, flow| {
                if at == key {
                    found = Some(*flow);
                }
            })?;
            Ok(found)
        })
    }

    fn embryo(&mut self, key: &FlowKey4) -> Option<Embryo> {
        self.change(|kernel| {
            let mut found = None;
            kernel.maps.walk_embryos(|at, embryo| {
                if at == key {
                    found = Some(*embryo);
                }
            })?;
            Ok(found)
        })
    }

    fn counters(&mut self, backend: u32) -> Counters {
        self.change(|kernel| Ok(kernel.maps.counters(backend)?))
    }

    fn tally(&mut self) -> Tally {
        self.change(|kernel| {
            let mut tally = Tally::default();
            kernel.maps.walk_flows(|_, flow| match FlowWord(flow.state).phase() {
                Phase::Live => tally.live += 1,
                Phase::ClosedFin | Phase::ClosedRst => tally.closed += 1,
                Phase::Dead => {}
            })?;
            kernel.maps.walk_embryos(|_, _| tally.embryos += 1)?;
            tally.gauge = kernel.maps.gauge(self.scene.service)?;
            tally.entries = kernel.maps.gauge(GAUGE_ENTRIES)?;
            Ok(tally)
        })
    }

    fn way(&mut self, _destination: Ipv4Addr) -> Option<(Verdict, [u8; 6], [u8; 6])> {
        Some((Verdict::Send(None), GATEWAY_MAC, WAY_MAC))
    }
}

/// A test run comes in by the loopback interface, which no way leads out of.
const CANNOT_RUN: &[&str] = &["out of the interface it came in by"];
/// Frames shorter than an Ethernet header, which the kernel takes for no test run: 14 lengths in
/// three cases.
const TOO_SHORT: usize = 14 * 3;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn all_cases_hold_in_the_kernel() {
    let netns = namespace().unwrap();
    let report = netns
        .enter(|| {
            let kernel = Rc::new(RefCell::new(Kernel::new(&netns).unwrap()));
            Report::of(&all(), |scene| {
                kernel.borrow_mut().begin(scene).unwrap();
                KernelRunner { kernel: Rc::clone(&kernel), scene: scene.clone() }
            })
        })
        .unwrap();
    for (category, count) in &report.passed {
        println!("{category:>12} {count}");
    }
    println!("{:>12} {}", "all", report.passed.values().sum::<usize>());
    println!("{:>12} {} frames, {:?}", "not run", report.frames_not_taken, CANNOT_RUN);
    assert_eq!(report.not_applicable, CANNOT_RUN);
    assert_eq!(report.frames_not_taken, TOO_SHORT);
    assert!(
        report.failed.is_empty(),
        "{} cases do not hold:\n{}",
        report.failed.len(),
        report.failed.join("\n")
    );
}
