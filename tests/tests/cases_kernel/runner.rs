//! One case on the kernel.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::Result;
use bytemuck::bytes_of;
use release_common::abi::{
    Addr6, Be32, Counters, Embryo, Flow, Meta, ServiceCounters, Session, SessionKey, SessionWord,
};
use release_common::pipeline::Timed;
use release_tests::cases::{Run, Runner, Setting, Verdict};
use release_tests::model::{Key, Scene, Tally};
use release_user::kernel::At;

use super::kernel::Kernel;
use super::state::{EMBRYOS, FLOWS, SESSIONS};
use release_tests::way;

/// A case's view of the kernel.
pub struct KernelRunner<'k, 'a> {
    pub kernel: &'k RefCell<Kernel<'a>>,
    pub scene: Rc<Scene>,
}

impl KernelRunner<'_, '_> {
    fn with<T>(&self, work: impl FnOnce(&mut Kernel<'_>) -> Result<T>) -> T {
        // The engine has no way to report a broken rig: the test ends here.
        work(&mut self.kernel.borrow_mut()).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn entry<T: bytemuck::AnyBitPattern>(&self, table: usize, key: &Key) -> Option<T> {
        let four = key.of::<Be32>();
        let six = key.of::<Addr6>();
        self.with(|kernel| {
            let state = kernel.state()?;
            let value = four.and_then(|key| state.value(table, bytes_of(&key)));
            Ok(value.or_else(|| state.value(table + 1, bytes_of(&six?))))
        })
    }
}

impl Runner for KernelRunner<'_, '_> {
    /// The kernel takes no test frame without an Ethernet header.
    fn takes(&self, frame: &[u8]) -> bool {
        frame.len() >= 14
    }

    fn run(&mut self, frame: &[u8]) -> Run {
        self.with(|kernel| kernel.ingress(frame))
    }

    fn egress(&mut self, frame: &[u8]) -> Option<Run> {
        Some(self.with(|kernel| kernel.egress(frame)))
    }

    fn advance(&mut self, jiffies: u64) -> bool {
        self.with(|kernel| kernel.advance(jiffies));
        true
    }

    fn shift(&mut self, weights: &[u32]) {
        self.with(|kernel| kernel.shift(&self.scene, weights));
    }

    fn set(&mut self, setting: Setting) -> bool {
        self.with(|kernel| match setting {
            Setting::TableFull => {
                let meta = kernel.maps.meta()?;
                Ok(kernel.maps.set_meta(Meta { flow_limit: 0, ..meta })?)
            }
            Setting::FrontendGone(index) => {
                let frontend = self.scene.frontends[index];
                let at = At { socket: frontend.socket, proto: frontend.protocol };
                kernel.remove_frontend(at)
            }
            // The engine knows the instance, see `close`.
            Setting::Closed(_) => unreachable!(),
            Setting::Way(way) => kernel.way(way),
        });
        true
    }

    fn close(&mut self, backend: u32) -> bool {
        self.with(|kernel| kernel.close(backend));
        true
    }

    fn flow(&mut self, key: &Key) -> Option<Flow> {
        self.entry(FLOWS, key)
    }

    fn embryo(&mut self, key: &Key) -> Option<Embryo> {
        self.entry(EMBRYOS, key)
    }

    fn counters(&mut self, backend: u32) -> Counters {
        self.with(|kernel| Ok(kernel.state()?.counters(backend)))
    }

    fn timed(&mut self, backend: u32, what: Timed) -> u64 {
        let latency = self.with(|kernel| Ok(kernel.state()?.latency(backend)));
        match what {
            Timed::Connect => latency.connect.iter().sum(),
            Timed::FirstByte => latency.first_byte.iter().sum(),
        }
    }

    fn refusals(&mut self) -> ServiceCounters {
        self.with(|kernel| Ok(kernel.state()?.refusals()))
    }

    fn session(&mut self, client: IpAddr) -> Option<u32> {
        let key = match client {
            IpAddr::V4(ip) => SessionKey::new(Be32::from(ip), self.scene.service),
            IpAddr::V6(ip) => SessionKey::new(Addr6::from(ip), self.scene.service),
        };
        let session: Option<Session> =
            self.with(|kernel| Ok(kernel.state()?.value(SESSIONS, bytes_of(&key))));
        Some(SessionWord(session?.state).live())
    }

    fn tally(&mut self) -> Tally {
        self.with(|kernel| Ok(kernel.state()?.tally()))
    }

    fn way(&mut self, _destination: IpAddr) -> Option<(Verdict, [u8; 6], [u8; 6])> {
        let (dmac, smac) = way::MACS;
        Some((self.kernel.borrow().way.verdict(), dmac, smac))
    }
}
