//! `status`: services, versions and instances with their flows.

use super::format::{Paint, Side, Table, millis, percent, share};
use super::output::{error_text, to_stderr};
use super::release::doing_text;
use super::values::Output;
use super::{Context, DONE, Ended};
use crate::api::client::ClientError;
use crate::api::types::{
    DataPlaneStatus, FlowCounts, InstanceStatus, RefusedCounts, ServiceStatus, Status,
    VersionStatus,
};
use std::fmt::Write as _;
use std::time::Duration;

/// Pause between two looks of a watch.
const EVERY: Duration = Duration::from_secs(1);

pub(super) async fn status(context: &mut Context, service: Option<&str>) -> Ended {
    let status = context.client.status(service).await?;
    context.out.value(&status, |status, colours| {
        let text = status_text(status, colours);
        if service.is_some() { text + &measured_text(status, colours) } else { text }
    })?;
    Ok(DONE)
}

/// Shows it each second until Ctrl-C; on a terminal in place.
pub(super) async fn watch(context: &mut Context, service: Option<&str>) -> Ended {
    tokio::select! {
        ended = look_on(context, service) => ended,
        _ = tokio::signal::ctrl_c() => Ok(DONE),
    }
}

async fn look_on(context: &mut Context, service: Option<&str>) -> Ended {
    // What is wrong from the start is an error; later on, the daemon may be restarted.
    let mut shown = Ok(context.client.status(service).await?);
    let in_place = context.out.terminal && context.out.format == Output::Text;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        match &shown {
            Ok(status) if in_place => {
                let text = status_text(status, context.out.colours);
                context.out.text(&redrawn(&text))?;
            }
            Ok(status) => {
                context.out.value(status, |status, colours| status_text(status, colours) + "\n")?
            }
            Err(error) if in_place => {
                context.out.text(&redrawn(&error_text(error, Output::Text)))?;
            }
            Err(error) => to_stderr(&error_text(error, context.out.format)),
        }
        if context.out.is_closed() {
            return Ok(DONE);
        }
        ticks.tick().await;
        shown = match context.client.status(service).await {
            Ok(status) => Ok(status),
            Err(ClientError::NotRunning(error) | ClientError::NoAnswer(error)) => Err(error),
            Err(ClientError::Answer(error)) => return Err(error),
        };
    }
}

/// Home, each line with the rest of it erased, then the rest of the screen: no flicker.
fn redrawn(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn status_text(status: &Status, colours: bool) -> String {
    let mut text = data_plane_text(&status.data_plane, colours);
    for service in &status.services {
        text.push('\n');
        text += &service_text(service, colours);
    }
    if status.services.is_empty() {
        text += "\nno services\n";
    }
    text
}

fn data_plane_text(data_plane: &DataPlaneStatus, colours: bool) -> String {
    let DataPlaneStatus {
        interfaces,
        flow_entries,
        flow_capacity,
        embryos,
        alarm,
        evidence_epoch,
        warnings,
    } = data_plane;
    let names: Vec<String> = interfaces
        .iter()
        .map(|interface| format!("{} {}", interface.name, interface.mode))
        .collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut text = format!("interfaces: {names}\n");
    let _ = writeln!(
        text,
        "flow table: {flow_entries} of {flow_capacity} ({}), {embryos} embryonic, \
         evidence epoch {evidence_epoch}",
        share(*flow_entries, *flow_capacity)
    );
    if let Some(alarm) = alarm {
        let _ = writeln!(text, "{}", Paint::Red.on(&format!("ALARM: {alarm}"), colours));
    }
    text + &warnings_text(warnings, colours)
}

fn service_text(service: &ServiceStatus, colours: bool) -> String {
    let ServiceStatus {
        name,
        generation,
        mode,
        conversation,
        frontends,
        refused,
        sessions,
        drift,
        warnings,
        release,
        versions,
    } = service;
    // What is usual is not said.
    let kept = if conversation == "flow" { String::new() } else { format!("  by {conversation}") };
    let mut text = format!(
        "{}  generation {generation}  {mode}{kept}  {}\n",
        Paint::Bold.on(name, colours),
        frontends.join(", ")
    );
    text += &warnings_text(warnings, colours);
    if let Some(release) = release {
        let line = doing_text(release);
        let line = line.strip_prefix(&format!("{name}: ")).unwrap_or(&line);
        text += &(Paint::of_state(&release.state).on(line, colours) + "\n");
    }
    if *drift != 0 {
        let what = format!("warning: the gauge of live flows is off by {drift} from the table");
        text += &(Paint::Red.on(&what, colours) + "\n");
    }
    text += &refused_text(refused);
    if let Some(sessions) = sessions {
        let held: u64 = versions.iter().map(|version| version.sessions_held).sum();
        let _ = writeln!(text, "sessions: {sessions} ({held} held)");
    }
    for instance in versions.iter().flat_map(|version| &version.instances) {
        if let Some(why) = &instance.why_down {
            text += &(Paint::Red.on(&format!("down: {}: {why}", instance.id), colours) + "\n");
        }
    }
    let mut table = Table::new(&[
        ("VERSION / INSTANCE", Side::Left),
        ("STATE", Side::Left),
        ("WEIGHT", Side::Right),
        ("ACTUAL", Side::Right),
        ("NEW/S", Side::Right),
        ("EMBRYONIC", Side::Right),
        ("ACTIVE", Side::Right),
        ("HALF-CLOSED", Side::Right),
        ("CLOSING", Side::Right),
        ("LAST PACKET", Side::Right),
    ]);
    for version in versions {
        version_row(&mut table, version);
        for instance in &version.instances {
            instance_row(&mut table, instance);
        }
    }
    text += &table.render(colours);
    text
}

/// What was measured of each version.
fn measured_text(status: &Status, colours: bool) -> String {
    let mut table = Table::new(&[
        ("MEASURED", Side::Left),
        ("CONNECT P50", Side::Right),
        ("P99", Side::Right),
        ("FIRST BYTE P50", Side::Right),
        ("P99", Side::Right),
        ("SYN FAILURES", Side::Right),
        ("RESETS", Side::Right),
        ("BY CLIENT", Side::Right),
        ("SENT AGAIN", Side::Right),
    ]);
    for version in status.services.iter().flat_map(|service| &service.versions) {
        let measured = &version.measured;
        table.row(
            Paint::Plain,
            vec![
                version.name.clone(),
                micros(measured.connect_p50_us),
                micros(measured.connect_p99_us),
                micros(measured.first_byte_p50_us),
                micros(measured.first_byte_p99_us),
                measured.syn_failures.to_string(),
                measured.resets_by_server.to_string(),
                measured.resets_by_client.to_string(),
                share(measured.retransmits, measured.segments),
            ],
        );
    }
    format!("\n{}", table.render(colours))
}

/// A time of a histogram; a dash where nothing was measured.
fn micros(time: Option<u64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time @ 0..1000) => format!("{time} us"),
        Some(time @ 1000..10_000) => format!("{}.{} ms", time / 1000, time / 100 % 10),
        Some(time) => millis(time / 1000),
    }
}

fn warnings_text(warnings: &[String], colours: bool) -> String {
    let line = |text: &String| Paint::Yellow.on(&format!("warning: {text}"), colours) + "\n";
    warnings.iter().map(line).collect()
}

/// What was refused and why; nothing if nothing was.
fn refused_text(refused: &RefusedCounts) -> String {
    let RefusedCounts { empty, full, max_flows, rate, ports } = refused;
    let causes = [
        (empty, "no instance"),
        (full, "table full"),
        (max_flows, "max_flows"),
        (rate, "new_flows_per_second"),
        (ports, "no port"),
    ];
    let said: Vec<String> = causes
        .iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, cause)| format!("{count} {cause}"))
        .collect();
    if said.is_empty() { String::new() } else { format!("refused: {}\n", said.join(", ")) }
}

fn version_row(table: &mut Table, version: &VersionStatus) {
    let mut cells = vec![
        version.name.clone(),
        version.state.clone(),
        version.weight.to_string(),
        percent(version.weight_actual),
        format!("{:.1}", version.new_flows_per_second),
    ];
    cells.extend(counts(&version.flows));
    cells.push(String::new());
    table.row(Paint::of_state(&version.state), cells);
}

fn instance_row(table: &mut Table, instance: &InstanceStatus) {
    let InstanceStatus { id, addr, state, healthy, orphaned, flows, last_packet_age_ms, .. } =
        instance;
    let name = if id == addr { format!("  {id}") } else { format!("  {id} ({addr})") };
    let mut state = state.clone();
    if *healthy == Some(false) && state != "down" {
        state += ", unhealthy";
    }
    if *orphaned {
        state += ", orphaned";
    }
    let paint = Paint::of_state(&instance.state);
    let mut cells = vec![name, state, String::new(), String::new(), String::new()];
    cells.extend(counts(flows));
    cells.push(last_packet_age_ms.map_or("never".to_owned(), millis));
    table.row(paint, cells);
}

fn counts(flows: &FlowCounts) -> [String; 4] {
    [flows.embryonic, flows.active, flows.half_closed, flows.closing]
        .map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::{measured_text, redrawn, status_text};
    use crate::api::fake::status;
    use crate::api::types::{MeasuredStatus, RefusedCounts};

    #[test]
    fn table_lines_up() {
        assert_eq!(
            status_text(&status(), false),
            "\
interfaces: eth0 native, eth1 generic
flow table: 40524 of 1048576 (3.9 %), 4 embryonic, evidence epoch 1

web  generation 7  nat  192.0.2.10:80/tcp, 192.0.2.10:443/tcp
VERSION / INSTANCE        STATE     WEIGHT   ACTUAL   NEW/S  EMBRYONIC  ACTIVE  HALF-CLOSED  CLOSING  LAST PACKET
v1                        draining       0    0.0 %     0.0          0      12            1        3
  10.0.0.11:8080          draining                                   0      12            1        3       412 ms
v2                        active       100  100.0 %  1234.6          4   40198           20      311
  10.0.0.21:8080          active                                     0   20000            0        0       412 ms
  web-b (10.0.0.22:8080)  active                                     0   20198            0        0       412 ms
"
        );
    }

    #[test]
    fn what_was_measured_fits_in_100_columns() {
        let mut status = status();
        status.services[0].versions[1].measured = MeasuredStatus {
            connect_p50_us: Some(320),
            connect_p99_us: Some(1280),
            first_byte_p50_us: Some(61_440),
            first_byte_p99_us: Some(2_097_152),
            syn_failures: 3,
            resets_by_server: 2,
            resets_by_client: 11,
            retransmits: 4,
            segments: 1000,
        };
        assert_eq!(
            measured_text(&status, false),
            "
MEASURED  CONNECT P50     P99  FIRST BYTE P50    P99  SYN FAILURES  RESETS  BY CLIENT  SENT AGAIN
v1                  -       -               -      -             0       0          0       0.0 %
v2             320 us  1.2 ms           61 ms  2.0 s             3       2         11       0.4 %
"
        );
    }

    #[test]
    fn table_lines_up_with_ipv6() {
        let mut status = status();
        let service = &mut status.services[0];
        (service.mode, service.conversation) = ("gue".into(), "client".into());
        service.frontends = vec!["[2001:db8::10]:80/udp".into()];
        service.versions.remove(0);
        let instances = &mut service.versions[0].instances;
        (instances[0].id, instances[0].addr) = ("[fd00::21]:8080".into(), "[fd00::21]:8080".into());
        instances[1].addr = "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".into();
        let text = status_text(&status, false);
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(lines[0], "web  generation 7  gue  by client  [2001:db8::10]:80/udp");
        assert!(
            lines[4]
                .starts_with("  web-b ([2001:db8:1234:5678:9abc:def0:1234:5678]:65535)  active")
        );
        let state = lines[1].find("STATE").unwrap();
        assert!(lines[2..].iter().all(|line| line[state..].starts_with("active")), "{text}");
    }

    #[test]
    fn alarms_and_states_have_colours() {
        let mut status = status();
        status.data_plane.alarm = Some("flow table 85 % full".into());
        let text = status_text(&status, true);
        assert!(text.contains("\n\x1b[31mALARM: flow table 85 % full\x1b[0m\n"), "{text}");
        assert!(text.contains("\n\x1b[33mv1"), "{text}");
        status.services.clear();
        assert!(status_text(&status, false).ends_with("\n\nno services\n"));
    }

    #[test]
    fn warnings_refusals_and_sessions_are_said() {
        let mut status = status();
        status.data_plane.warnings = vec!["eth0 merges".into()];
        let service = &mut status.services[0];
        service.warnings = vec!["192.0.2.10 is elsewhere".into()];
        service.refused = RefusedCounts { max_flows: 3, ports: 1, ..RefusedCounts::default() };
        service.sessions = Some(7);
        service.versions[0].sessions_held = 2;
        let instances = &mut service.versions[1].instances;
        (instances[0].state, instances[0].healthy) = ("down".into(), Some(false));
        instances[0].why_down = Some("HTTP status 503".into());
        instances[1].healthy = Some(false);
        let text = status_text(&status, false);
        assert!(text.contains("\nwarning: eth0 merges\n\n"), "{text}");
        let said = "\nwarning: 192.0.2.10 is elsewhere\nrefused: 3 max_flows, 1 no port\n\
                    sessions: 7 (2 held)\ndown: 10.0.0.21:8080: HTTP status 503\n";
        assert!(text.contains(said), "{text}");
        let row = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap();
        assert!(row("  10.0.0.21:8080").contains("  down  "), "{text}");
        assert!(row("  web-b").contains("  active, unhealthy  "), "{text}");
    }

    #[test]
    fn redrawn_lines_are_erased() {
        assert_eq!(redrawn("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
