//! The dependency audit, as far as it needs no network: where packages come from, their licences,
//! versions of the same thing side by side, packages that are not wanted, and whether
//! `docs/dependencies.md` gives a reason for each direct dependency.
//!
//! A check of our own over `cargo metadata` rather than cargo-deny: that takes minutes to compile,
//! and what it has beyond this is a database of advisories, a git repository to be fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{command, spdx, workspace};

/// The page that gives each direct dependency's reason.
const PAGE: &str = "docs/dependencies.md";

/// Licences that a binary under MIT OR Apache-2.0 may contain.
const LICENCES: [&str; 7] =
    ["0BSD", "Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

/// Packages that must not come in, not even through others, and why.
const BANNED: [(&str, &str); 8] = [
    ("ansi_term", "unmaintained"),
    ("atty", "unmaintained, unaligned read; std has IsTerminal"),
    ("failure", "unmaintained, unsound"),
    ("native-tls", "TLS through a C library"),
    ("openssl-sys", "TLS through a C library"),
    ("proc-macro-error", "unmaintained"),
    ("serde_yaml", "unmaintained"),
    ("users", "unmaintained, unsound"),
];

/// Direct dependencies that come in a second version through others, and why that is borne.
const TWICE: [(&str, &str); 2] =
    [("nix", "rtnetlink 0.20 uses 0.30"), ("thiserror", "rtnetlink 0.20 uses 1")];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the workspace's own packages.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    dependencies: BTreeMap<String, toml::Value>,
}

/// Checks `Cargo.lock` and what it names.
///
/// # Errors
/// One error that lists all findings.
pub fn run() -> Result<()> {
    let mut cargo = command::cargo("metadata");
    let json = command::quietly(cargo.args(["--locked", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
    let read = |file: &str| {
        let path = workspace::root().join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let manifest: Manifest = toml::from_str(&read("Cargo.toml")?).context("Cargo.toml")?;

    let mut findings = Vec::new();
    check_packages(&metadata.packages, &mut findings)?;
    check_versions(&metadata.packages, &mut findings);
    check_page(&manifest, &metadata.packages, &read(PAGE)?, &mut findings);
    if !findings.is_empty() {
        bail!("dependencies:\n  {}", findings.join("\n  "));
    }
    Ok(())
}

/// Origin, licence, and the list of unwanted packages.
fn check_packages(packages: &[Package], findings: &mut Vec<String>) -> Result<()> {
    for Package { name, version, license, source, .. } in packages {
        if source.as_ref().is_some_and(|source| !source.ends_with("/crates.io-index")) {
            findings.push(format!("{name} {version} does not come from crates.io"));
        }
        let license = license.as_deref().unwrap_or_default();
        if license.is_empty() {
            findings.push(format!("{name} {version} names no licence"));
        } else if !spdx::satisfied(license, &LICENCES).with_context(|| name.clone())? {
            findings.push(format!("{name} {version} is under {license}, which is not allowed"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| banned == name) {
            findings.push(format!("{name} {version} is not wanted: {why}"));
        }
    }
    Ok(())
}

/// A direct dependency in two versions means that types of the two don't fit each other. What
/// only others use may differ.
fn check_versions(packages: &[Package], findings: &mut Vec<String>) {
    let direct = direct_dependencies(packages);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|package| direct.contains(package.name.as_str())) {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    for (name, versions) in versions {
        let borne = TWICE.iter().any(|(twice, _)| *twice == name);
        let list = versions.iter().copied().collect::<Vec<_>>().join(" and ");
        if versions.len() > 1 && !borne {
            findings.push(format!("{name} comes as {list} (align, or give the reason in TWICE)"));
        } else if versions.len() == 1 && borne {
            findings.push(format!("{name} comes as {list} only: drop it from TWICE"));
        }
    }
}

/// Every dependency is declared once for the workspace, is used, and has its line on the page.
fn check_page(manifest: &Manifest, packages: &[Package], page: &str, findings: &mut Vec<String>) {
    let direct = direct_dependencies(packages);
    let reasons = reasons(page);
    let own: BTreeSet<&str> = packages
        .iter()
        .filter(|package| package.source.is_none())
        .map(|package| package.name.as_str())
        .collect();
    let declared: BTreeSet<&str> =
        manifest.workspace.dependencies.keys().map(String::as_str).collect();
    for name in direct.difference(&declared) {
        findings.push(format!("{name} is not declared in [workspace.dependencies]"));
    }
    for name in declared.iter().filter(|name| !own.contains(*name)) {
        if !direct.contains(name) {
            findings.push(format!("{name} is declared in [workspace.dependencies], but not used"));
        } else if reasons.get(name).is_none_or(|reason| reason.is_empty()) {
            findings.push(format!("{name} has no reason in {PAGE}"));
        }
    }
    for name in reasons.keys().filter(|name| !declared.contains(*name)) {
        findings.push(format!("{name} has a reason in {PAGE}, but is no dependency"));
    }
}

/// What the workspace's own packages depend on, its own packages left out.
fn direct_dependencies(packages: &[Package]) -> BTreeSet<&str> {
    let own = packages.iter().filter(|package| package.source.is_none());
    let all = own.flat_map(|package| &package.dependencies);
    all.filter(|dependency| dependency.source.is_some())
        .map(|dependency| dependency.name.as_str())
        .collect()
}

/// Names and reasons on the page: lines of the shape "| `name` | reason |".
fn reasons(page: &str) -> BTreeMap<&str, &str> {
    let row = |line| {
        let (name, rest) = str::strip_prefix(line, "| `")?.split_once("` |")?;
        Some((name, rest.trim_end().trim_end_matches('|').trim()))
    };
    page.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "registry+https://example.com/crates.io-index";

    fn package(name: &str, version: &str, license: &str, source: Option<&str>) -> Package {
        let (license, source) = (Some(license.to_owned()), source.map(str::to_owned));
        let (name, version) = (name.to_owned(), version.to_owned());
        Package { name, version, license, source, dependencies: Vec::new() }
    }

    fn own(dependencies: &[&str]) -> Package {
        let dependency =
            |name: &&str| Dependency { name: (*name).to_owned(), source: Some(INDEX.to_owned()) };
        let dependencies = dependencies.iter().map(dependency).collect();
        Package { dependencies, ..package("own", "0.1.0", "MIT OR Apache-2.0", None) }
    }

    #[test]
    fn origin_licence_and_unwanted_packages() {
        let packages = [
            own(&[]),
            package("good", "1.0.0", "MIT/Apache-2.0", Some(INDEX)),
            package("elsewhere", "1.0.0", "MIT", Some("git+https://example.com/elsewhere")),
            package("copyleft", "1.0.0", "GPL-3.0-only", Some(INDEX)),
            package("bare", "1.0.0", "", Some(INDEX)),
            package("openssl-sys", "0.9.0", "MIT", Some(INDEX)),
        ];
        let mut findings = Vec::new();
        check_packages(&packages, &mut findings).unwrap();
        let expected = ["elsewhere", "copyleft", "bare", "openssl-sys"];
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, name) in findings.iter().zip(expected) {
            assert!(finding.starts_with(name), "{finding}");
        }
    }

    #[test]
    fn two_versions_of_a_direct_dependency() {
        let twice =
            |name| [package(name, "1.0.0", "MIT", None), package(name, "2.0.0", "MIT", None)];
        let mut packages = vec![own(&["direct"])];
        packages.extend(twice("direct").into_iter().chain(twice("other")));
        let mut findings = Vec::new();
        check_versions(&packages, &mut findings);
        assert_eq!(
            findings,
            ["direct comes as 1.0.0 and 2.0.0 (align, or give the reason in TWICE)"]
        );
    }

    #[test]
    fn the_page_is_complete_and_has_nothing_too_many() {
        let manifest = "[workspace.dependencies]\nserde = '1'\nlog = '0'\nidle = '1'\nown = '0.1'";
        let manifest: Manifest = toml::from_str(manifest).unwrap();
        let page =
            "| crate | for |\n|---|---|\n| `serde` | JSON |\n| `gone` | once |\n| `log` | |\n";
        let mut findings = Vec::new();
        check_page(&manifest, &[own(&["serde", "log", "hidden"])], page, &mut findings);
        assert_eq!(
            findings,
            [
                "hidden is not declared in [workspace.dependencies]",
                "idle is declared in [workspace.dependencies], but not used",
                "log has no reason in docs/dependencies.md",
                "gone has a reason in docs/dependencies.md, but is no dependency",
            ]
        );
    }
}
