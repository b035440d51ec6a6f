//! [`Tables`] that stop at a chosen call and let something else happen first: two packets on two
//! CPUs, one instruction sequence at a time.

use std::cell::{Cell, RefCell};

use release_common::abi::{
    Backend, BackendRef, Be16, Be32, Embryo, Endpoint4, Flow, FlowKey4, FrontendRef, Service, Split,
};
use release_common::pipeline::{Counter, Insert, InsertError, Route, Tables};
use release_common::placement::FlowHash;
use release_common::shared::Shared;

use super::ModelTables;

/// Another CPU's work.
type Meanwhile<'a> = Box<dyn FnOnce(&ModelTables) + 'a>;

/// Tables whose `at`-th call is preceded by `meanwhile`.
pub struct Hooked<'a> {
    inner: &'a ModelTables,
    left: Cell<usize>,
    meanwhile: RefCell<Option<Meanwhile<'a>>>,
}

impl<'a> Hooked<'a> {
    /// Runs `meanwhile` before call number `at`, counted from 0.
    pub fn new(
        inner: &'a ModelTables,
        at: usize,
        meanwhile: impl FnOnce(&ModelTables) + 'a,
    ) -> Self {
        Self { inner, left: Cell::new(at), meanwhile: RefCell::new(Some(Box::new(meanwhile))) }
    }

    /// Whether that call was reached.
    pub fn fired(&self) -> bool {
        self.meanwhile.borrow().is_none()
    }

    fn tables(&self) -> &ModelTables {
        match self.left.get() {
            0 => {
                if let Some(meanwhile) = self.meanwhile.take() {
                    meanwhile(self.inner);
                }
            }
            left => self.left.set(left - 1),
        }
        self.inner
    }
}

impl Tables for Hooked<'_> {
    fn now(&self) -> u64 {
        self.tables().now()
    }
    fn tag(&self) -> u32 {
        self.tables().tag()
    }
    fn is_frontend_port(&self, port: Be16) -> bool {
        self.tables().is_frontend_port(port)
    }
    fn is_backend_port(&self, port: Be16) -> bool {
        self.tables().is_backend_port(port)
    }
    fn frontend(&self, at: &Endpoint4) -> Option<FrontendRef> {
        self.tables().frontend(at)
    }
    fn backend_at(&self, at: &Endpoint4) -> Option<BackendRef> {
        self.tables().backend_at(at)
    }
    fn service(&self, id: u32) -> Option<&Service> {
        self.tables().service(id)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.tables().backend(id)
    }
    fn split(&self, service: u32) -> Option<&Split> {
        self.tables().split(service)
    }
    fn instance(&self, ring: u32, hash: FlowHash) -> Option<u32> {
        self.tables().instance(ring, hash)
    }
    fn table_full(&self) -> bool {
        self.tables().table_full()
    }
    fn flow(&self, key: &FlowKey4) -> Option<Shared<'_, Flow>> {
        self.tables().flow(key)
    }
    fn insert_flow(&self, key: &FlowKey4, flow: &Flow, how: Insert) -> Result<(), InsertError> {
        self.tables().insert_flow(key, flow, how)
    }
    fn embryo(&self, key: &FlowKey4) -> Option<Shared<'_, Embryo>> {
        self.tables().embryo(key)
    }
    fn insert_embryo(&self, key: &FlowKey4, embryo: &Embryo) -> Result<(), InsertError> {
        self.tables().insert_embryo(key, embryo)
    }
    fn remove_embryo(&self, key: &FlowKey4) {
        self.tables().remove_embryo(key);
    }
    fn count(&self, backend: u32, counter: Counter) {
        self.tables().count(backend, counter);
    }
    fn traffic(&self, backend: u32, bytes: u16, now: u64) {
        self.tables().traffic(backend, bytes, now);
    }
    fn live_flows(&self, service: u32, change: i64) {
        self.tables().live_flows(service, change);
    }
    fn entry_added(&self) {
        self.tables().entry_added();
    }
    fn event(&self, kind: u32, key: &FlowKey4, backend: u32, generation: u32) {
        self.tables().event(kind, key, backend, generation);
    }
    fn route(&self, source: Be32, destination: Be32, tos: u8, len: u16) -> Route {
        self.tables().route(source, destination, tos, len)
    }
}
