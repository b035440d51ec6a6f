//! Counters, gauges and reasons.

use bytemuck::Zeroable;
use release_common::abi::{Counters, GAUGE_ENTRIES, Latency, ServiceCounters, UserCounters};
use release_common::reason::Reason;

use super::maps::{element, io_error};
use super::pod::Abi;
use super::{KernelError, Maps, map_error};

impl Maps {
    /// Counters of an instance, added up over the CPUs.
    ///
    /// What closes is summed before what opens, so that a race over-estimates activity.
    pub fn counters(&self, backend: u32) -> Result<Counters, KernelError> {
        let read = || self.counters.get(&backend, 0).map_err(map_error("COUNTERS"));
        let (early, late) = (read()?, read()?);
        let sum = |values: &aya::maps::PerCpuValues<Abi<Counters>>| {
            let mut total = Counters::zeroed();
            for value in values.iter() {
                let last = total.last_packet.max(value.0.last_packet);
                let words: &mut [u64; Counters::FIELDS] = bytemuck::cast_mut(&mut total);
                let other: &[u64; Counters::FIELDS] = bytemuck::cast_ref(&value.0);
                for (word, add) in words.iter_mut().zip(other) {
                    *word = word.wrapping_add(*add);
                }
                total.last_packet = last;
            }
            total
        };
        let (early, late) = (sum(&early), sum(&late));
        Ok(Counters {
            closed_fin: early.closed_fin,
            closed_rst: early.closed_rst,
            superseded: early.superseded,
            embryos_ended: early.embryos_ended,
            ..late
        })
    }

    /// Sets an instance's counters to zero: before its id is given to another.
    pub fn reset_counters(&mut self, backend: u32) -> Result<(), KernelError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| KernelError::Map {
            name: "COUNTERS".to_owned(),
            why: error.to_string(),
        })?;
        let zero = aya::maps::PerCpuValues::try_from(vec![Abi(Counters::zeroed()); cpus])
            .map_err(io_error("COUNTERS"))?;
        self.counters.set(backend, zero, 0).map_err(map_error("COUNTERS"))?;
        self.user_counters
            .set(backend, Abi(UserCounters::zeroed()), 0)
            .map_err(map_error("USER_COUNTERS"))?;
        self.latency.set(backend, Abi(Latency::zeroed()), 0).map_err(map_error("LATENCY"))
    }

    /// How long an instance took.
    pub fn latency(&self, backend: u32) -> Result<Latency, KernelError> {
        element!(self.latency, "LATENCY", backend)
    }

    /// What programs run from user space counted for an instance.
    pub fn user_counters(&self, backend: u32) -> Result<UserCounters, KernelError> {
        element!(self.user_counters, "USER_COUNTERS", backend)
    }

    /// New flows that a service refused, added up over the CPUs.
    pub fn service_counters(&self, service: u32) -> Result<ServiceCounters, KernelError> {
        let values =
            self.service_counters.get(&service, 0).map_err(map_error("SERVICE_COUNTERS"))?;
        let mut total = ServiceCounters::zeroed();
        for value in values.iter() {
            let words: &mut [u64; ServiceCounters::FIELDS] = bytemuck::cast_mut(&mut total);
            let other: &[u64; ServiceCounters::FIELDS] = bytemuck::cast_ref(&value.0);
            for (word, add) in words.iter_mut().zip(other) {
                *word = word.wrapping_add(*add);
            }
        }
        Ok(total)
    }

    /// A gauge; negative values are a race or a bug and shown as they are.
    pub fn gauge(&self, index: u32) -> Result<i64, KernelError> {
        element!(self.gauges, "GAUGES", index).map(|gauge| gauge.value as i64)
    }

    /// Entries of the fuller of the two flow tables.
    pub fn fullest_table(&self) -> Result<i64, KernelError> {
        Ok(self.gauge(GAUGE_ENTRIES)?.max(self.gauge(GAUGE_ENTRIES + 1)?))
    }

    /// Packets by reason.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        Reason::ALL
            .iter()
            .map(|&reason| {
                let values = self.reasons.get(&(reason as u32), 0).map_err(map_error("REASONS"))?;
                Ok((reason, values.iter().sum()))
            })
            .collect()
    }
}
