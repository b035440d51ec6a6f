//! The figures at the end, and the files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::contrast::Contrasted;
use super::release::Released;
use super::screen::Screen;
use super::{NEW, OLD, plot};
use crate::load::Report;

/// Prints what the release showed and writes plot, receipt and figures.
///
/// # Errors
/// A file cannot be written.
pub fn release(screen: &Screen, released: &Released, out: &Path) -> Result<()> {
    let Released { report, events, facts } = released;
    let subtitle = in_words(report);
    let svg = plot(report, events, &format!("Release of {NEW} over {OLD}"), &subtitle).to_svg();
    let plot_path = write(out, "release.svg", &svg)?;
    write(out, "release.json", &serde_json::to_string_pretty(report)?)?;
    write(out, "receipt.json", &serde_json::to_string_pretty(&facts.receipt_json)?)?;

    screen.heading("Result of the release");
    let mut text = figures(report);
    let after = facts.close_to_idle.map_or_else(
        || "no close seen".to_owned(),
        |time| format!("{:.0} ms after the last close", time.as_secs_f64() * 1000.0),
    );
    let _ = writeln!(text, "  verdict on {OLD}      {}, {after}", facts.verdict.verdict);
    let _ = writeln!(text, "  plot               {}", plot_path.display());
    let _ = writeln!(text, "  receipt            {}", out.join("receipt.json").display());
    for line in facts.receipt.lines() {
        let _ = writeln!(text, "    {line}");
    }
    screen.print(text.trim_end());
    Ok(())
}

/// Prints what the usual way did to the clients and writes plot and figures.
///
/// # Errors
/// A file cannot be written.
pub fn contrast(screen: &Screen, contrasted: &Contrasted, out: &Path) -> Result<()> {
    let Contrasted { report, events, cut } = contrasted;
    let svg = plot(report, events, "The usual way: weight 0, sleep, kill", &in_words(report));
    let plot_path = write(out, "contrast.svg", &svg.to_svg())?;
    write(out, "contrast.json", &serde_json::to_string_pretty(report)?)?;

    screen.heading("Result of the usual way");
    let mut text = figures(report);
    let _ = writeln!(text, "  open when killed   {cut} connections to {OLD}");
    let _ = writeln!(text, "  plot               {}", plot_path.display());
    screen.print(text.trim_end());
    Ok(())
}

fn in_words(report: &Report) -> String {
    let totals = &report.totals;
    format!(
        "{} requests on {} connections, {} errors, {} moved",
        totals.requests, totals.connections, totals.errors, totals.moved
    )
}

fn figures(report: &Report) -> String {
    let totals = &report.totals;
    let mut text = format!(
        "  requests           {}\n  connections        {} ({} to {OLD}, {} to {NEW})\n  \
         errors             {} ({})\n  flows moved        {}\n",
        totals.requests,
        totals.connections,
        totals.connections_to(OLD),
        totals.connections_to(NEW),
        totals.errors,
        report.errors_in_words(),
        totals.moved,
    );
    for message in report.first_moved.iter().chain(&report.first_errors).take(4) {
        let _ = writeln!(text, "      {message}");
    }
    text
}

fn write(folder: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
