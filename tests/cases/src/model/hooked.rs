//! [`Tables`] that stop at a chosen call and let something else happen first: two packets on two
//! CPUs, one instruction sequence at a time.

use std::cell::{Cell, RefCell};

use release_common::abi::{
    Backend, BackendRef, Be16, Embryo, Endpoint, Flow, FlowKey, FragmentKey, FragmentOf,
    FrontendRef, QuicKey, Service, Session, SessionKey, SnatKey, SnatOwner, Split,
};
use release_common::pipeline::{
    Counter, FamilyTables, Hop, Insert, InsertError, Refusal, Route, Tables, Timed, Traffic,
};
use release_common::placement::FlowHash;
use release_common::shared::Shared;

use super::ModelTables;
use super::family::Kept;
use super::tables::Model;

/// Another CPU's work.
type Meanwhile<'a> = Box<dyn FnOnce(&ModelTables) + 'a>;

/// Tables whose `at`-th call is preceded by `meanwhile`.
pub struct Hooked<'a> {
    inner: &'a ModelTables,
    left: Cell<usize>,
    /// This CPU's own.
    kept: Kept,
    meanwhile: RefCell<Option<Meanwhile<'a>>>,
}

impl<'a> Hooked<'a> {
    /// Runs `meanwhile` before call number `at`, counted from 0.
    pub fn new(
        inner: &'a ModelTables,
        at: usize,
        meanwhile: impl FnOnce(&ModelTables) + 'a,
    ) -> Self {
        Self {
            inner,
            left: Cell::new(at),
            kept: Kept::default(),
            meanwhile: RefCell::new(Some(Box::new(meanwhile))),
        }
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

/// Hands each call on.
macro_rules! hand_on {
    ($(fn $name:ident(&self $(, $argument:ident: $kind:ty)*) $(-> $result:ty)?;)+) => { $(
        fn $name(&self $(, $argument: $kind)*) $(-> $result)? {
            self.tables().$name($($argument),*)
        }
    )+ };
}

impl Tables for Hooked<'_> {
    hand_on! {
        fn now(&self) -> u64;
        fn nanoseconds(&self) -> u64;
        fn hz(&self) -> u32;
        fn tag(&self) -> u32;
        fn moment(&self) -> (u64, u32);
        fn is_frontend_port(&self, port: Be16) -> bool;
        fn attempts(&self) -> u32;
        fn set_attempts(&self, attempts: u32);
        fn is_backend_port(&self, port: Be16) -> bool;
        fn service(&self, id: u32) -> Option<&Service>;
        fn backend(&self, id: u32) -> Option<&Backend>;
        fn split(&self, service: u32) -> Option<&Split>;
        fn instance(&self, ring: u32, hash: FlowHash) -> Option<u32>;
        fn quic_server(&self, key: &QuicKey) -> Option<u32>;
        fn session(&self, key: &SessionKey) -> Option<Shared<'_, Session>>;
        fn insert_session(&self, key: &SessionKey, session: &Session) -> Result<(), InsertError>;
        fn count(&self, backend: u32, counter: Counter);
        fn count_both(&self, backend: u32, counter: Counter, beside: Counter, counts: bool);
        fn took(&self, backend: u32, what: Timed, nanoseconds: u64);
        fn count_refusal(&self, service: u32, refusal: Refusal);
        fn traffic(&self, backend: u32, packet: Traffic, now: u64);
        fn live_flows(&self, service: u32) -> u64;
        fn add_live_flows(&self, service: u32, change: i64) -> u64;
        fn within_rate(&self, service: u32, interval: u32, burst: u32) -> bool;
    }
}

impl<A: Model> FamilyTables<A> for Hooked<'_> {
    fn keep_key<'a>(&'a self, key: &'a FlowKey<A>) -> &'a FlowKey<A> {
        self.kept.keep(key)
    }
    fn kept_key(&self) -> Option<FlowKey<A>> {
        self.kept.key()
    }
    hand_on! {
        fn frontend(&self, at: &Endpoint<A>) -> Option<FrontendRef>;
        fn backend_at(&self, at: &Endpoint<A>) -> Option<BackendRef>;
        fn rule(&self, service: u32, client: A) -> Option<u32>;
        fn flow(&self, key: &FlowKey<A>) -> Option<Shared<'_, Flow>>;
        fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow, how: Insert) -> Result<(), InsertError>;
        fn embryo(&self, key: &FlowKey<A>) -> Option<Shared<'_, Embryo>>;
        fn insert_embryo(&self, key: &FlowKey<A>, embryo: &Embryo) -> Result<(), InsertError>;
        fn remove_embryo(&self, key: &FlowKey<A>);
        fn snat_owner(&self, key: &SnatKey<A>) -> Option<SnatOwner<A>>;
        fn claim_snat(&self, key: &SnatKey<A>, owner: &SnatOwner<A>) -> Result<(), InsertError>;
        fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentOf<A>>;
        fn note_fragment(&self, key: &FragmentKey<A>, of: &FragmentOf<A>);
        fn event(&self, kind: u32, key: &FlowKey<A>, backend: u32, generation: u32);
        fn known_hop(&self, destination: A, len: u32) -> Option<Hop>;
        fn route(&self, source: A, destination: A, tos: u8, len: u32) -> Route;
    }
    fn table_full(&self) -> bool {
        FamilyTables::<A>::table_full(self.tables())
    }
    fn entry_added(&self) {
        FamilyTables::<A>::entry_added(self.tables());
    }
}
