//! Lists: `flows` and `instance list`.

use super::args::Flows;
use super::format::{Paint, Side, Table, millis, seconds};
use super::{Context, DONE, Ended};
use crate::api::types::{FlowLine, FlowQuery, InstanceLine, InstanceStatus};

pub(super) async fn flows(context: &mut Context, args: Flows) -> Ended {
    let Flows { service, version, instance, state, oldest } = args;
    let oldest = oldest.and_then(|count| usize::try_from(count).ok());
    let query = FlowQuery { service, version, instance, state, oldest };
    let flows = context.client.flows(&query).await?;
    context.out.list(&flows, flows_text)?;
    Ok(DONE)
}

fn flows_text(flows: &[FlowLine], colours: bool) -> String {
    let mut table = Table::new(&[
        ("CLIENT", Side::Left),
        ("FRONTEND", Side::Left),
        ("SERVICE", Side::Left),
        ("VERSION", Side::Left),
        ("INSTANCE", Side::Left),
        ("STATE", Side::Left),
        ("GEN", Side::Right),
        ("AGE", Side::Right),
        ("LAST PACKET", Side::Right),
        ("LAST DATA", Side::Right),
        ("CLIENT END", Side::Left),
        ("SERVER END", Side::Left),
    ]);
    for flow in flows {
        let paint = if flow.state == "closed" { Paint::Dim } else { Paint::Plain };
        table.row(
            paint,
            vec![
                flow.client.clone(),
                format!("{}/{}", flow.frontend, flow.protocol),
                flow.service.clone(),
                flow.version.clone(),
                flow.instance.clone(),
                flow.state.clone(),
                flow.generation.to_string(),
                age(flow.age_s),
                millis(flow.last_packet_age_ms),
                millis(flow.last_data_age_ms),
                end(&flow.client_end),
                end(&flow.server_end),
            ],
        );
    }
    table.render(colours)
}

/// What probes found; nothing if none was sent.
fn end(liveness: &str) -> String {
    if liveness == "unknown" { String::new() } else { liveness.to_owned() }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole seconds are shown; the cast saturates"
)]
fn age(age_s: f64) -> String {
    seconds(age_s as u64)
}

pub(super) async fn instances(context: &mut Context) -> Ended {
    let instances = context.client.instances().await?;
    context.out.list(&instances, instances_text)?;
    Ok(DONE)
}

fn instances_text(instances: &[InstanceLine], colours: bool) -> String {
    let numbers =
        ["ACTIVE", "PLACED", "OPENED", "ADOPTED", "FIN", "RST", "EXPIRED", "PACKETS", "BYTES"];
    let words = ["SERVICE", "VERSION", "INSTANCE", "ADDRESS", "STATE", "SOURCE"];
    let mut columns: Vec<(&str, Side)> = words.map(|name| (name, Side::Left)).into();
    columns.push(("LEASE", Side::Right));
    columns.extend(numbers.map(|name| (name, Side::Right)));
    let mut table = Table::new(&columns);
    for InstanceLine { service, version, instance } in instances {
        let InstanceStatus { id, addr, state, source, registration, .. } = instance;
        let left = registration.as_ref().and_then(|registration| registration.lease_left_s);
        let lease = left.map(age).unwrap_or_default();
        let words = [service, version, id, addr, state, source, &lease];
        let c = &instance.counters;
        let numbers = [
            instance.flows.active,
            c.placed,
            c.opened,
            c.adopted,
            c.closed_fin,
            c.closed_rst,
            c.expired,
            c.packets,
            c.bytes,
        ];
        let cells = words.into_iter().cloned().chain(numbers.map(|number| number.to_string()));
        table.row(Paint::of_state(&instance.state), cells.collect());
    }
    table.render(colours)
}

#[cfg(test)]
mod tests {
    use super::flows_text;
    use crate::api::types::FlowLine;

    fn line(client: &str, frontend: &str, protocol: &str) -> FlowLine {
        FlowLine {
            client: client.into(),
            frontend: frontend.into(),
            protocol: protocol.into(),
            service: "web".into(),
            version: "v1".into(),
            instance: "a".into(),
            state: "established".into(),
            generation: 1,
            age_s: 1.0,
            last_packet_age_ms: 1,
            last_data_age_ms: 1,
            client_end: "alive".into(),
            server_end: "unknown".into(),
        }
    }

    #[test]
    fn families_line_up() {
        let lines = [
            line("198.51.100.7:40000", "192.0.2.10:80", "tcp"),
            line("[2001:db8:1234:5678:9abc:def0:1234:5678]:40000", "[2001:db8::10]:443", "udp"),
        ];
        assert_eq!(
            flows_text(&lines, false),
            "\
CLIENT                                          FRONTEND                SERVICE  VERSION  INSTANCE  STATE        GEN  AGE  LAST PACKET  LAST DATA  CLIENT END  SERVER END
198.51.100.7:40000                              192.0.2.10:80/tcp       web      v1       a         established    1  1 s         1 ms       1 ms  alive
[2001:db8:1234:5678:9abc:def0:1234:5678]:40000  [2001:db8::10]:443/udp  web      v1       a         established    1  1 s         1 ms       1 ms  alive
"
        );
    }
}
