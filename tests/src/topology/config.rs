//! The configuration that fits a topology.

use std::fmt::Write as _;

use super::addresses::{frontend, snat};
use super::{Mode, SERVICE, Topology};

impl Topology {
    /// A configuration with the service `web` at the frontends that the spec asks for, in its mode,
    /// and these initial weights; versions not named get 0. Drains settle fast (0.5 s, 3 samples
    /// 100 ms apart).
    #[must_use]
    pub fn config(&self, weights: &[(&str, u32)]) -> String {
        let interfaces = list(self.lb.interfaces());
        let frontends: Vec<String> = self
            .spec
            .families
            .iter()
            .flat_map(|family| self.spec.protocols.iter().map(move |protocol| (family, protocol)))
            .map(|(family, protocol)| format!("{}/{protocol}", frontend(*family)))
            .collect();
        let mut text = format!(
            "schema = 1\n\n[daemon]\ninterfaces = {interfaces}\n{}\n[[service]]\n\
             name = {SERVICE:?}\nfrontends = {}\nmode = {:?}\n\
             drain = {{ settle = \"500ms\", samples = 3, every = \"100ms\" }}\n{}{}",
            lines(&self.spec.daemon),
            list(&frontends),
            self.spec.mode.name(),
            self.mode_lines(),
            lines(&self.spec.service),
        );
        for (name, _) in &self.spec.versions {
            let weight = weights.iter().find(|(version, _)| version == name).map_or(0, |w| w.1);
            let _ = write!(
                text,
                "\n[[service.version]]\nname = {name:?}\nweight = {weight}\ninstances = [\n{}]\n",
                self.instances(name)
            );
        }
        text
    }

    fn mode_lines(&self) -> String {
        let mut text = String::new();
        if let Some(conversation) = self.spec.conversation {
            let _ = writeln!(text, "conversation = {conversation:?}");
        }
        if self.spec.mode == Mode::Snat {
            let addresses: Vec<String> =
                self.spec.families.iter().map(|family| snat(*family).to_string()).collect();
            let ports = self.spec.snat_ports.map(|ports| format!(", ports = {ports:?}"));
            let (addresses, ports) = (list(&addresses), ports.unwrap_or_default());
            let _ = writeln!(text, "snat = {{ addresses = {addresses}{ports} }}");
        }
        text
    }

    /// A line for each instance of a version. A backend with addresses of two families is two
    /// instances, of which the second (`v1-1-6`) has another id than its server says.
    fn instances(&self, version: &str) -> String {
        let mut text = String::new();
        for backend in self.backends_of(version) {
            let mut suffix = "";
            for family in self.spec.instance_families() {
                let (id, address) = (&backend.id, backend.instance(family));
                let _ = writeln!(text, "    {{ id = \"{id}{suffix}\", addr = \"{address}\" }},");
                suffix = "-6";
            }
        }
        text
    }
}

/// A TOML array of strings.
fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(", "))
}

/// Text that ends with a newline, if there is any.
fn lines(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
