//! Looking into the pinned maps: works with the daemon dead.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use release_common::abi::{
    Endpoint4, FlowKey4, GAUGE_ENTRIES, MAX_BACKENDS, MAX_RINGS, MAX_SERVICES, PortBits,
    backend_state,
};
use release_common::tcp::word::{EmbryoWord, FlowWord};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::types::{ApiError, ErrorCode};
use crate::kernel::{Maps, SPECS};
use crate::verdict::walk::{Totals, Walk};

/// One map.
#[derive(Clone, Debug, Serialize)]
pub struct MapLine {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Key size in bytes.
    pub key_size: u32,
    /// Value size in bytes.
    pub value_size: u32,
    /// Most entries.
    pub capacity: u32,
    /// Entries now, for hash tables.
    pub entries: Option<u64>,
    /// What it holds.
    pub about: String,
}

/// One finding of `maps check`.
#[derive(Clone, Debug, Serialize)]
pub struct CheckLine {
    /// What was checked.
    pub name: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// The values.
    pub detail: String,
}

/// Lists the maps.
///
/// # Errors
/// If nothing is pinned, or the kernel's.
pub fn list(bpffs: &Path) -> Result<Vec<MapLine>, ApiError> {
    let maps = Maps::open(bpffs)?;
    let walk = Walk::take(&maps)?;
    SPECS
        .iter()
        .map(|spec| {
            let info = maps.info(spec.name)?;
            let entries = match spec.name {
                "FLOWS4" => Some(walk.entries),
                "EMBRYOS4" => Some(walk.embryos),
                "FRONTENDS" => Some(maps.frontends()?.len() as u64),
                "BACKEND_IDS" => Some(maps.backend_ids()?.len() as u64),
                "DEVICES" => Some(maps.devices().len() as u64),
                _ => None,
            };
            Ok(MapLine {
                name: spec.name.to_owned(),
                kind: info.kind,
                key_size: info.key_size,
                value_size: info.value_size,
                capacity: info.capacity,
                entries,
                about: spec.about.to_owned(),
            })
        })
        .collect()
}

/// The contents of a map; of arrays only what is in use.
///
/// # Errors
/// Usage for an unknown map, or the kernel's.
pub fn dump(bpffs: &Path, map: &str) -> Result<Vec<Value>, ApiError> {
    let maps = Maps::open(bpffs)?;
    let mut out = Vec::new();
    match map.to_uppercase().as_str() {
        "META" => {
            let meta = maps.meta()?;
            out.push(json!({"abi": meta.abi, "hz": meta.hz, "flow_capacity": meta.flow_capacity,
                "flow_limit": meta.flow_limit, "routing_epoch": meta.routing_epoch,
                "routing_lease": meta.routing_lease, "evidence_epoch": meta.evidence_epoch,
                "boot_id": crate::daemon::boot_id_text(&meta.boot_id), "epoch_at": meta.epoch_at}));
        }
        "PORTS" => {
            for (which, name) in
                [(PortBits::FRONTENDS, "frontends"), (PortBits::BACKENDS, "instances")]
            {
                let bits = maps.ports(which)?;
                let ports: Vec<u16> = (0..=u16::MAX).filter(|port| bits.contains(*port)).collect();
                out.push(json!({"of": name, "ports": ports}));
            }
        }
        "FRONTENDS" => {
            for (at, value) in maps.frontends()? {
                out.push(json!({"frontend": endpoint(at), "service": value.service}));
            }
        }
        "BACKEND_IDS" => {
            for (at, value) in maps.backend_ids()? {
                out.push(json!({"addr": endpoint(at), "backend": value.backend,
                    "service": value.service}));
            }
        }
        "SERVICES" => {
            for id in 0..MAX_SERVICES {
                let service = maps.service(id)?;
                if service.frontend_count > 0 {
                    let frontends: Vec<String> = service.frontends
                        [..service.frontend_count.min(8) as usize]
                        .iter()
                        .map(|f| endpoint(*f))
                        .collect();
                    out.push(json!({"service": id, "frontends": frontends,
                        "when_empty": service.when_empty, "when_full": service.when_full}));
                }
            }
        }
        "SPLITS" => {
            for id in 0..MAX_SERVICES {
                if let Some(split) = maps.split(id)? {
                    let mut low = 0;
                    let parts: Vec<Value> = split.entries[..split.count.min(16) as usize]
                        .iter()
                        .map(|entry| {
                            let share = entry.bound.saturating_sub(low) as f64 / 4_294_967_296.0;
                            low = low.max(entry.bound);
                            json!({"ring": entry.ring, "bound": entry.bound, "share": share})
                        })
                        .collect();
                    out.push(
                        json!({"service": id, "generation": split.generation, "parts": parts}),
                    );
                }
            }
        }
        "RINGS" => {
            for id in 0..MAX_RINGS {
                if let Some(head) = maps.ring_head(id)? {
                    let mut load = BTreeMap::new();
                    for slot in maps.ring(id)? {
                        *load.entry(slot.to_string()).or_insert(0u32) += 1;
                    }
                    out.push(json!({"ring": id, "slots": head.size,
                        "fingerprint": format!("{:016x}", head.fingerprint), "slots_by_backend": load}));
                }
            }
        }
        "BACKENDS" => {
            for id in 1..MAX_BACKENDS {
                let backend = maps.backend(id)?;
                if backend.state != backend_state::FREE {
                    out.push(json!({"backend": id, "addr": endpoint(backend.endpoint()),
                        "service": backend.service, "ring": backend.ring}));
                }
            }
        }
        "COUNTERS" | "USER_COUNTERS" => {
            for id in used_backends(&maps)? {
                let totals = Totals::read(&maps, &[id])?;
                let mut line = serde_json::to_value(totals.counters).unwrap_or_default();
                line["backend"] = json!(id);
                line["trials"] = json!(totals.trials);
                line["embryos_ended"] = json!(totals.embryos_ended);
                line["embryos_expired"] = json!(totals.embryos_expired);
                out.push(line);
            }
        }
        "GAUGES" => {
            for id in 0..=GAUGE_ENTRIES {
                let value = maps.gauge(id)?;
                if value != 0 {
                    let of = if id == GAUGE_ENTRIES {
                        "table entries".to_owned()
                    } else {
                        format!("service {id}")
                    };
                    out.push(json!({"of": of, "value": value}));
                }
            }
        }
        "REASONS" => {
            for (reason, count) in maps.reasons()? {
                out.push(
                    json!({"reason": reason.name(), "number": reason as u32, "packets": count,
                    "meaning": reason.meaning().trim()}),
                );
            }
        }
        "FLOWS4" => maps.walk_flows(|key, flow| {
            let word = FlowWord(flow.state);
            out.push(json!({"client": client(key), "frontend": frontend(key),
                "phase": format!("{:?}", word.phase()), "half_closed": word.half_closed(),
                "dying": word.dying(), "tag": word.tag(), "backend": flow.backend,
                "generation": flow.generation, "opened_at": flow.opened_at,
                "last_packet": flow.last_packet, "last_data": flow.last_data,
                "client_next": flow.client.next, "client_ack": flow.client.ack,
                "server_next": flow.server.next, "server_ack": flow.server.ack}));
        })?,
        "EMBRYOS4" => maps.walk_embryos(|key, embryo| {
            let word = EmbryoWord(embryo.state);
            out.push(json!({"client": client(key), "frontend": frontend(key),
                "phase": format!("{:?}", word.phase()), "backend": embryo.backend,
                "generation": embryo.generation, "created": embryo.created}));
        })?,
        "DEVICES" => out.extend(maps.devices().into_iter().map(|index| json!({"ifindex": index}))),
        other => {
            let names: Vec<&str> = SPECS.iter().map(|spec| spec.name).collect();
            let code = ErrorCode::Usage;
            let known = names.contains(&other);
            let why = if known { "has no readable dump (use bpftool)" } else { "no such map" };
            return Err(ApiError::new(code, format!("map {map}: {why}"))
                .hint(format!("one of {}", names.join(", "))));
        }
    }
    Ok(out)
}

/// How often [`conservation`] looks at an instance whose flows come and go.
const LOOKS: u32 = 10;

/// Checks that the maps agree with each other.
///
/// # Errors
/// If nothing is pinned, or the kernel's.
pub fn check(bpffs: &Path) -> Result<Vec<CheckLine>, ApiError> {
    let maps = Maps::open(bpffs)?;
    let mut out = vec![CheckLine {
        name: "shapes".to_owned(),
        ok: true,
        detail: format!("{} maps as this version makes them", SPECS.len()),
    }];
    let used = used_backends(&maps)?;
    for (at, value) in maps.frontends()? {
        let generation = maps.split(value.service)?.map(|split| split.generation);
        out.push(CheckLine {
            name: format!("frontend {}", endpoint(at)),
            ok: generation.is_some(),
            detail: generation.map_or("has no split".to_owned(), |g| {
                format!("service {}, generation {g}", value.service)
            }),
        });
    }
    out.extend(conservation(&maps, &used)?);
    let walk = Walk::take(&maps)?;
    let strangers: Vec<u32> =
        walk.by_backend.keys().copied().filter(|id| !used.contains(id)).collect();
    out.push(CheckLine {
        name: "references".to_owned(),
        ok: strangers.is_empty(),
        detail: if strangers.is_empty() {
            format!("{} entries name instances in use", walk.entries + walk.embryos)
        } else {
            format!("entries name instances that do not exist: {strangers:?}")
        },
    });
    Ok(out)
}

/// Compares counters and table of each instance. Flows that open or close while we look make the
/// two incomparable, so it looks again where the counters differ before and after the walk, and
/// where they are equal but contradict the table: a program may be between the two for an instant.
fn conservation(maps: &Maps, backends: &[u32]) -> Result<Vec<CheckLine>, ApiError> {
    let mut lines = BTreeMap::new();
    for _ in 0..LOOKS {
        let open: Vec<u32> = backends
            .iter()
            .copied()
            .filter(|id| !lines.get(id).is_some_and(|(certain, _)| *certain))
            .collect();
        if open.is_empty() {
            break;
        }
        let read =
            || open.iter().map(|&id| Totals::read(maps, &[id])).collect::<Result<Vec<_>, _>>();
        let before = read()?;
        let walk = Walk::take(maps)?;
        for ((&id, before), after) in open.iter().zip(before).zip(read()?) {
            let active = walk.tally(&[id]).flows.active;
            let steady = before.steps() == after.steps();
            let agree = before.live() == active as i64;
            let note = if steady { "" } else { ", changing while we looked" };
            let line = CheckLine {
                name: format!("conservation of instance {id}"),
                ok: agree || !steady,
                detail: format!("counters say {} live, the table {active}{note}", before.live()),
            };
            lines.insert(id, (steady && agree, line));
        }
    }
    Ok(lines.into_values().map(|(_, line)| line).collect())
}

fn used_backends(maps: &Maps) -> Result<Vec<u32>, ApiError> {
    let mut used = Vec::new();
    for id in 1..MAX_BACKENDS {
        if maps.backend(id)?.state != backend_state::FREE {
            used.push(id);
        }
    }
    Ok(used)
}

fn endpoint(at: Endpoint4) -> String {
    SocketAddrV4::from(at).to_string()
}

fn client(key: &FlowKey4) -> String {
    format!("{}:{}", Ipv4Addr::from(key.client), key.client_port.get())
}

fn frontend(key: &FlowKey4) -> String {
    format!("{}:{}", Ipv4Addr::from(key.frontend), key.frontend_port.get())
}
