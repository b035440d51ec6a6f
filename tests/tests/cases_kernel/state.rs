//! Everything in the maps that a program may change, read at once.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use release_common::abi::{Addr6, Be32};
use release_common::abi::{
    Counters, Embryo, Flow, FragmentOf, GAUGE_ENTRIES, Latency, ServiceCounters, Session,
    SessionWord, SnatOwner, opened_at,
};
use release_common::reason::Reason;
use release_common::tcp::word::{FlowWord, Phase};
use release_tests::model::Tally;

use release_tests::raw_map::{Entries, Raw};

/// The hash tables. Of each pair the first is IPv4's.
const TABLES: [&str; 9] = [
    "FLOWS4",
    "FLOWS6",
    "EMBRYOS4",
    "EMBRYOS6",
    "SNAT4",
    "SNAT6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "SESSIONS",
];
pub const FLOWS: usize = 0;
pub const EMBRYOS: usize = 2;
const SNAT: usize = 4;
const FRAGMENTS: usize = 6;
pub const SESSIONS: usize = 8;

/// The maps, open.
pub struct Tables {
    tables: Vec<Raw>,
    counters: Raw,
    latency: Raw,
    reasons: Raw,
    gauges: Raw,
    rates: Raw,
    refusals: Raw,
    events: Raw,
}

/// What they hold.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct State {
    tables: Vec<Entries>,
    counters: Vec<u8>,
    latency: Vec<u8>,
    reasons: Vec<u8>,
    /// Live flows of the service; entries of both flow tables.
    gauges: [u64; 3],
    rate: Vec<u8>,
    refusals: Vec<u8>,
    events: Vec<u8>,
}

impl Tables {
    pub fn open(bpffs: &Path) -> Result<Self> {
        let open = |name| Raw::open(bpffs, name);
        Ok(Self {
            tables: TABLES.into_iter().map(open).collect::<Result<_>>()?,
            counters: open("COUNTERS")?,
            latency: open("LATENCY")?,
            reasons: open("REASONS")?,
            gauges: open("GAUGES")?,
            rates: open("RATES")?,
            refusals: open("SERVICE_COUNTERS")?,
            events: open("EVENT_LIMIT")?,
        })
    }

    /// Reads everything of a service whose instances have ids below `ids`.
    pub fn read(&self, service: u32, ids: u32) -> Result<State> {
        let gauge = |index| Ok::<u64, anyhow::Error>(pod_read_unaligned(&self.gauges.at(index)?));
        Ok(State {
            tables: self.tables.iter().map(Raw::entries).collect::<Result<_>>()?,
            counters: self.counters.first(ids as usize)?,
            latency: self.latency.first(ids as usize)?,
            reasons: self.reasons.first(Reason::COUNT)?,
            gauges: [gauge(service)?, gauge(GAUGE_ENTRIES)?, gauge(GAUGE_ENTRIES + 1)?],
            rate: self.rates.at(service)?,
            refusals: self.refusals.at(service)?,
            events: self.events.first(1)?,
        })
    }

    /// Empties the tables, and what is counted for a service and its instances.
    pub fn clear(&self, service: u32, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        self.tables.iter().try_for_each(Raw::clear)?;
        ids.into_iter().try_for_each(|id| {
            self.latency.reset(id)?;
            self.counters.reset(id)
        })?;
        self.gauges.reset(service)?;
        self.gauges.reset(GAUGE_ENTRIES)?;
        self.gauges.reset(GAUGE_ENTRIES + 1)?;
        self.rates.reset(service)?;
        self.refusals.reset(service)
    }

    /// Makes everything in `state` so many jiffies and nanoseconds younger, or (if less than 0)
    /// older.
    pub fn rejuvenate(&self, state: &State, service: u32, jiffies: i64, nanos: i64) -> Result<()> {
        let rate: u64 = pod_read_unaligned(&state.rate);
        if rate != 0 {
            self.rates.set(service, rate.saturating_add_signed(nanos))?;
        }
        if jiffies == 0 {
            return Ok(());
        }
        for (index, (raw, entries)) in self.tables.iter().zip(&state.tables).enumerate() {
            if entries.is_empty() {
                continue;
            }
            let mut entries = entries.clone();
            entries.values_mut().for_each(|value| later(index, value, jiffies));
            raw.replace(&entries)?;
        }
        Ok(())
    }
}

/// Moves the times in a value of table `table`.
fn later(table: usize, value: &mut [u8], jiffies: i64) {
    let moved = |stamp: u32| stamp.wrapping_add(jiffies as u32);
    macro_rules! change {
        ($type:ty: $($field:ident),+) => {{
            let mut value_now: $type = pod_read_unaligned(value);
            $(value_now.$field = moved(value_now.$field);)+
            value.copy_from_slice(bytemuck::bytes_of(&value_now));
        }};
    }
    match table {
        FLOWS..EMBRYOS => {
            let mut flow: Flow = pod_read_unaligned(value);
            flow.last_packet = moved(flow.last_packet);
            flow.last_data = moved(flow.last_data);
            let units = opened_at(jiffies.unsigned_abs());
            flow.opened_at = if jiffies < 0 {
                flow.opened_at.wrapping_sub(units)
            } else {
                flow.opened_at.wrapping_add(units)
            };
            value.copy_from_slice(bytemuck::bytes_of(&flow));
        }
        EMBRYOS..SNAT => change!(Embryo: created),
        SNAT => change!(SnatOwner<Be32>: claimed),
        _ if table == SNAT + 1 => change!(SnatOwner<Addr6>: claimed),
        FRAGMENTS => change!(FragmentOf<Be32>: created),
        _ if table == FRAGMENTS + 1 => change!(FragmentOf<Addr6>: created),
        _ => change!(Session: last_seen),
    }
}

impl State {
    /// The value under a key of one of the two tables that begin at `table`.
    pub fn value<T: AnyBitPattern>(&self, table: usize, key: &[u8]) -> Option<T> {
        self.tables[table].get(key).map(|value| pod_read_unaligned(value))
    }

    fn values<T: AnyBitPattern>(&self, table: usize) -> impl Iterator<Item = T> + '_ {
        self.tables[table].values().map(|value| pod_read_unaligned(value))
    }

    /// What a walk over all entries finds. Evictions are not told, but there is room for all.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            gauge: self.gauges[0] as i64,
            entries: (self.gauges[1] + self.gauges[2]) as i64,
            ..Tally::default()
        };
        for flow in self.values::<Flow>(FLOWS).chain(self.values(FLOWS + 1)) {
            let word = FlowWord(flow.state);
            match word.phase() {
                Phase::Live => tally.live += 1,
                Phase::ClosedFin | Phase::ClosedRst => tally.closed += 1,
                Phase::Dead => {}
            }
            tally.in_sessions += u64::from(word.is_live() && word.in_session());
        }
        tally.embryos = (self.tables[EMBRYOS].len() + self.tables[EMBRYOS + 1].len()) as u64;
        let live = |session: Session| u64::from(SessionWord(session.state).live());
        tally.sessions = self.values(SESSIONS).map(live).sum();
        tally
    }

    /// An instance's counters, summed over CPUs.
    pub fn counters(&self, id: u32) -> Counters {
        let cpus = cpus();
        let size = size_of::<Counters>() * cpus;
        let mut all = [0_u64; Counters::FIELDS];
        let mut last = 0;
        for one in self.counters[id as usize * size..][..size].chunks(size / cpus) {
            let one: Counters = pod_read_unaligned(one);
            last = last.max(one.last_packet);
            let one: [u64; Counters::FIELDS] = bytemuck::cast(one);
            all.iter_mut().zip(one).for_each(|(sum, count)| *sum += count);
        }
        Counters { last_packet: last, ..bytemuck::cast(all) }
    }

    /// How long an instance took.
    pub fn latency(&self, id: u32) -> Latency {
        let size = size_of::<Latency>();
        pod_read_unaligned(&self.latency[id as usize * size..][..size])
    }

    /// New flows that the service refused, summed over CPUs.
    pub fn refusals(&self) -> ServiceCounters {
        let mut all = [0_u64; ServiceCounters::FIELDS];
        for one in self.refusals.chunks(size_of::<ServiceCounters>()) {
            let one: [u64; ServiceCounters::FIELDS] = pod_read_unaligned(one);
            all.iter_mut().zip(one).for_each(|(sum, count)| *sum += count);
        }
        bytemuck::cast(all)
    }

    /// The reasons counted since `before`.
    pub fn reasons_since(&self, before: &Self) -> Vec<Reason> {
        let size = 8 * cpus();
        let pairs = self.reasons.chunks(size).zip(before.reasons.chunks(size));
        let counted = Reason::ALL.iter().zip(pairs).filter(|(_, (now, then))| now != then);
        counted.map(|(reason, _)| *reason).collect()
    }

    /// Instances whose packets were counted since `before`.
    pub fn traffic_since(&self, before: &Self, ids: u32) -> Vec<u32> {
        let packets = |state: &Self, id| state.counters(id).packets;
        (0..ids).filter(|&id| packets(self, id) != packets(before, id)).collect()
    }

    /// The maps that are not as in `other`.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let tables = self.tables.iter().zip(&other.tables).zip(TABLES);
        let tables = tables.filter(|((a, b), _)| a != b).map(|(_, name)| name);
        let arrays = [
            ("COUNTERS", self.counters == other.counters),
            ("LATENCY", self.latency == other.latency),
            ("REASONS", self.reasons == other.reasons),
            ("GAUGES", self.gauges == other.gauges),
            ("RATES", self.rate == other.rate),
            ("SERVICE_COUNTERS", self.refusals == other.refusals),
            ("EVENT_LIMIT", self.events == other.events),
        ];
        tables.chain(arrays.into_iter().filter(|(_, same)| !same).map(|(name, _)| name)).collect()
    }
}

fn cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| aya::util::nr_cpus().unwrap())
}
