//! From paths to texts to a configuration.

use super::error::{ConfigError, ConfigErrors, Invalid, Place};
use super::reader::Source;
use super::validate::{Outcome, validate};
use super::{Config, raw};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the configuration is if nobody says otherwise.
pub const DEFAULT_DIR: &str = "/etc/release";

/// [`Config::load`] with the default folder as an argument, for tests.
pub(super) fn load(path: Option<&Path>, default: &Path) -> Result<Config, ConfigErrors> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    match files(path, default) {
        Err(error) => errors.push(error),
        Ok(files) => {
            for file in files {
                match fs::read(&file) {
                    Ok(bytes) => sources.push((file.display().to_string(), bytes)),
                    Err(error) => errors.push(unreadable(&file, &error)),
                }
            }
        }
    }
    from_sources(sources, errors)
}

/// Validates texts, in the order given, as one configuration. `errors` are those that kept other
/// texts from being read.
pub(super) fn from_sources(
    sources: Vec<(String, Vec<u8>)>,
    mut errors: Vec<ConfigError>,
) -> Result<Config, ConfigErrors> {
    let mut complete = errors.is_empty();
    let mut drafts = Vec::new();
    for (name, bytes) in &sources {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let source = Source::new(name, text);
                let draft = raw::read(&source, text);
                // Where a [daemon] may have been overlooked, it is not called missing.
                complete &= draft.as_ref().is_some_and(|draft| !draft.daemon_refused);
                drafts.extend(draft);
                errors.extend(source.into_errors());
            }
            Err(error) => {
                complete = false;
                errors.push(not_utf8(name, bytes, error.valid_up_to()));
            }
        }
    }
    let Outcome { daemon, services, plans, errors: clashes, mut warnings } = validate(drafts);
    errors.extend(clashes);
    let whole = |key: &str, invalid| {
        let file = sources.first().map_or("configuration", |(name, _)| name).to_owned();
        ConfigError::new(Place { file, line: Some(1), key: key.to_owned() }, invalid)
    };
    if daemon.is_none() && complete {
        let missing = Invalid::new("missing").hint(r#"[daemon] with interfaces = ["eth0"]"#);
        errors.push(whole("daemon", missing));
    }
    if services.is_empty() {
        warnings.push(whole("service", Invalid::new("no service is configured")));
    }
    let order = |found: &ConfigError| {
        (sources.iter().position(|(name, _)| name == found.file()), found.line())
    };
    errors.sort_by_key(order);
    warnings.sort_by_key(order);
    match daemon {
        Some(daemon) if errors.is_empty() => Ok(Config { daemon, services, plans, warnings }),
        _ => Err(ConfigErrors::new(errors)),
    }
}

/// The files that make up the configuration, in order.
fn files(path: Option<&Path>, default: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    match path {
        Some(folder) if folder.is_dir() => {
            let files = toml_files(folder)?;
            if files.is_empty() {
                let empty = Invalid::new("there is no *.toml in this folder");
                return Err(ConfigError::new(file_place(folder), empty));
            }
            Ok(files)
        }
        Some(file) => Ok(vec![file.to_owned()]),
        None => {
            let main = default.join("release.toml");
            let parts = default.join("conf.d");
            let mut files = if parts.is_dir() { toml_files(&parts)? } else { Vec::new() };
            // With nothing at all, the attempt to read the main file says what is missing.
            if main.exists() || files.is_empty() {
                files.insert(0, main);
            }
            Ok(files)
        }
    }
}

/// All `*.toml` in a folder by name, without the hidden ones (editors leave such).
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut files: Vec<PathBuf> = entries
        .map_err(|error| unreadable(folder, &error))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn file_place(path: &Path) -> Place {
    Place { file: path.display().to_string(), line: None, key: String::new() }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::new(file_place(path), Invalid::new(format!("cannot be read: {error}")))
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> ConfigError {
    let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
    let place = Place { file: name.to_owned(), line: Some(line), key: String::new() };
    ConfigError::new(place, Invalid::new("not UTF-8"))
}
