//! `check`: is the configuration valid?

use super::format::count;
use super::output::to_stderr;
use super::values::Output;
use super::{Context, DONE, Ended};
use crate::api::types::{ApiError, ErrorCode, SCHEMA};
use crate::config::{Config, ConfigError};
use serde::Serialize;
use std::path::Path;

/// What `-o json` prints.
#[derive(Serialize)]
struct Report {
    schema: u32,
    valid: bool,
    services: usize,
    versions: usize,
    instances: usize,
    plans: usize,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Report {
    fn valid(config: &Config) -> Self {
        let versions = || config.services().iter().flat_map(|service| service.versions());
        Self {
            schema: SCHEMA,
            valid: true,
            services: config.services().len(),
            versions: versions().count(),
            instances: versions().map(|version| version.instances().len()).sum(),
            plans: config.plans().len(),
            errors: Vec::new(),
            warnings: config.warnings().to_vec(),
        }
    }

    fn invalid(errors: Vec<ConfigError>) -> Self {
        let warnings = Vec::new();
        Self {
            schema: SCHEMA,
            valid: false,
            services: 0,
            versions: 0,
            instances: 0,
            plans: 0,
            errors,
            warnings,
        }
    }

    fn text(&self) -> String {
        let number = |number: usize, one, many| count(number as u64, one, many);
        let plans = match self.plans {
            0 => String::new(),
            plans => format!(", {}", number(plans, "plan", "plans")),
        };
        format!(
            "configuration is valid: {}, {}, {}{plans}\n",
            number(self.services, "service", "services"),
            number(self.versions, "version", "versions"),
            number(self.instances, "instance", "instances"),
        )
    }
}

/// Checks `path`, else what `--config` names, else the default places.
pub(super) fn check(context: &mut Context, path: Option<&Path>) -> Ended {
    let loaded = Config::load(path.or(context.paths.config.as_deref()));
    let report = match loaded {
        Ok(config) => Report::valid(&config),
        Err(errors) => Report::invalid(errors.into_vec()),
    };
    if context.out.format == Output::Text {
        for warning in &report.warnings {
            to_stderr(&format!("warning: {warning}\n"));
        }
        for error in &report.errors {
            to_stderr(&format!("error: {error}\n"));
        }
        if !report.valid {
            return Ok(ErrorCode::Usage.exit_code());
        }
    }
    context.out.value(&report, |report, _| report.text())?;
    if report.valid {
        return Ok(DONE);
    }
    let errors = count(report.errors.len() as u64, "error", "errors");
    Err(ApiError::new(ErrorCode::Usage, format!("configuration: {errors}"))
        .hint("they are listed on stdout"))
}
