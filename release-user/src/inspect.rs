//! Looking into the pinned maps: works with the daemon dead.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use release_common::abi::{
    Addr6, Address, Backend, Be32, GAUGE_ENTRIES, IPPROTO_UDP, MAX_BACKENDS, MAX_RINGS,
    MAX_SERVICES, PortBits, backend_state,
};
use release_common::tcp::word::{EmbryoWord, FlowWord};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::types::{ApiError, ErrorCode, MeasuredStatus};
use crate::daemon::measured;
use crate::kernel::{At, Maps, SPECS};
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
    let walk = Walk::take(&maps, 0)?;
    SPECS
        .iter()
        .map(|spec| {
            let info = maps.info(spec.name)?;
            let entries = match spec.name {
                "FLOWS4" => Some(walk.entries - walk.entries6),
                "FLOWS6" => Some(walk.entries6),
                "EMBRYOS4" => Some(walk.embryos - walk.embryos6),
                "EMBRYOS6" => Some(walk.embryos6),
                "QUIC_IDS" => Some(maps.quic_ids()?.len() as u64),
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
                "boot_id": crate::daemon::boot_id_text(&meta.boot_id), "tables_made_at": meta.tables_made_at}));
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
        "FRONTENDS4" | "FRONTENDS6" => {
            for (at, value) in maps.frontends()? {
                if at.socket.is_ipv6() != map.ends_with('6') {
                    continue;
                }
                out.push(json!({"frontend": at_text(at), "service": value.service,
                    "test_ring": value.ring}));
            }
        }
        "BACKEND_IDS4" | "BACKEND_IDS6" => {
            for (at, value) in maps.backend_ids()? {
                if at.socket.is_ipv6() != map.ends_with('6') {
                    continue;
                }
                out.push(json!({"addr": at_text(at), "backend": value.backend,
                    "service": value.service}));
            }
        }
        "SERVICES" => {
            for id in 0..MAX_SERVICES {
                let service = maps.service(id)?;
                let v4 = (0..8).filter_map(|i| service.frontend::<Be32>(i)).map(At::of);
                let v6 = (0..8).filter_map(|i| service.frontend::<Addr6>(i)).map(At::of);
                let frontends: Vec<String> =
                    v4.chain(v6).filter(|at| at.socket.port() != 0).map(at_text).collect();
                if !frontends.is_empty() {
                    out.push(json!({"service": id, "frontends": frontends, "mode": service.mode,
                        "conversation": service.conversation, "max_flows": service.max_flows,
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
                            json!({"rings": entry.rings, "bound": entry.bound, "share": share})
                        })
                        .collect();
                    let behind = split.entries.iter().skip(parts.len()).map(|entry| entry.rings);
                    let former: Vec<_> = behind.filter(|rings| *rings != [0, 0]).collect();
                    out.push(json!({"service": id, "generation": split.generation,
                        "parts": parts, "former": former}));
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
                    out.push(json!({"backend": id, "addr": socket(&backend).to_string(), "accepting": backend.state == backend_state::ACCEPTING,
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
        "LATENCY" => {
            for id in used_backends(&maps)? {
                let measured = measured(&maps, &[id])?;
                let mut line = json!(MeasuredStatus::from(&measured));
                line["backend"] = json!(id);
                line["syns"] = json!(measured.syns);
                line["opened"] = json!(measured.opened);
                line["connects"] = json!(measured.connect.count());
                line["first_bytes"] = json!(measured.first_byte.count());
                out.push(line);
            }
        }
        "GAUGES" => {
            for id in 0..=GAUGE_ENTRIES + 1 {
                let value = maps.gauge(id)?;
                if value != 0 {
                    let of = if id >= GAUGE_ENTRIES {
                        format!("entries of FLOWS{}", if id == GAUGE_ENTRIES { 4 } else { 6 })
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
        "FLOWS4" | "FLOWS6" => maps.walk_flows(|key, flow| {
            if key.client.is_ipv6() != map.ends_with('6') {
                return;
            }
            let word = FlowWord(flow.state);
            out.push(json!({"client": key.client.to_string(), "frontend": key.frontend.to_string(),
                "proto": key.proto, "replied": word.replied(), "in_session": word.in_session(),
                "phase": format!("{:?}", word.phase()), "half_closed": word.half_closed(),
                "dying": word.dying(), "tag": word.tag(), "backend": flow.backend,
                "generation": flow.generation, "opened_at": flow.opened_at,
                "last_packet": flow.last_packet, "last_data": flow.last_data,
                "client_next": flow.client.next, "client_ack": flow.client.ack,
                "server_next": flow.server.next, "server_ack": flow.server.ack}));
        })?,
        "EMBRYOS4" | "EMBRYOS6" => maps.walk_embryos(|key, embryo| {
            if key.client.is_ipv6() != map.ends_with('6') {
                return;
            }
            let word = EmbryoWord(embryo.state);
            out.push(json!({"client": key.client.to_string(), "frontend": key.frontend.to_string(),
                "proto": key.proto, "phase": format!("{:?}", word.phase()), "backend": embryo.backend,
                "generation": embryo.generation, "created": embryo.created}));
        })?,
        "SESSIONS" => maps.walk_sessions(|at, session| {
            let word = release_common::abi::SessionWord(session.state);
            out.push(json!({"service": at.service, "client": at.client.to_string(),
                "backend": session.backend, "generation": session.generation,
                "live": word.live(), "last_seen": session.last_seen}));
        })?,
        "RULES4" | "RULES6" => {
            for (at, ring) in maps.rules()? {
                if at.net.addr().is_ipv6() == map.ends_with('6') {
                    out.push(json!({"service": at.service, "source": at.net.to_string(),
                        "ring": ring}));
                }
            }
        }
        "QUIC_IDS" => {
            for (key, backend) in maps.quic_ids()? {
                let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
                out.push(json!({"service": key.service, "id": id, "backend": backend}));
            }
        }
        "SERVICE_COUNTERS" => {
            for id in 0..MAX_SERVICES {
                let refused = maps.service_counters(id)?;
                if refused != Default::default() {
                    out.push(json!({"service": id, "empty": refused.empty,
                        "full": refused.full, "max_flows": refused.max_flows,
                        "rate": refused.rate, "ports": refused.ports}));
                }
            }
        }
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
            name: format!("frontend {}", at_text(at)),
            ok: generation.is_some(),
            detail: generation.map_or("has no split".to_owned(), |g| {
                format!("service {}, generation {g}", value.service)
            }),
        });
    }
    out.extend(conservation(&maps, &used)?);
    let walk = Walk::take(&maps, 0)?;
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
        let walk = Walk::take(maps, 0)?;
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

fn at_text(at: At) -> String {
    let protocol = if at.proto == IPPROTO_UDP { "udp" } else { "tcp" };
    format!("{}/{protocol}", at.socket)
}

fn socket(backend: &Backend) -> SocketAddr {
    let ip: IpAddr = if backend.version == 4 {
        backend.address::<Be32>().ip()
    } else {
        backend.address::<Addr6>().ip()
    };
    SocketAddr::new(ip, backend.port)
}
