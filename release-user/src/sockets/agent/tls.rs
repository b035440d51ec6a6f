//! Certificates of both ends, read from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::Credentials;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct CredentialsError {
    path: PathBuf,
    why: String,
}

fn bad(path: &Path, why: impl ToString) -> CredentialsError {
    CredentialsError { path: path.to_owned(), why: why.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What an agent demands and shows: a client without a certificate that the CA has signed gets no
/// connection.
///
/// # Errors
/// A file cannot be read, or does not hold what it should; it is named.
pub fn server(files: &Credentials) -> Result<Arc<ServerConfig>, CredentialsError> {
    let roots = Arc::new(authorities(files.ca())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| bad(files.ca(), error))?;
    let (chain, key) = own(files)?;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad(files.certificate(), error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(|error| bad(files.key(), does_not_fit(&error, files)))
}

/// What the daemon demands and shows.
///
/// # Errors
/// As [`server`].
pub fn client(files: &Credentials) -> Result<Arc<ClientConfig>, CredentialsError> {
    let roots = authorities(files.ca())?;
    let (chain, key) = own(files)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad(files.certificate(), error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map(Arc::new)
        .map_err(|error| bad(files.key(), does_not_fit(&error, files)))
}

fn does_not_fit(error: &rustls::Error, files: &Credentials) -> String {
    format!("does not fit the certificate {}: {error}", files.certificate().display())
}

fn authorities(path: &Path) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| bad(path, error))?;
    }
    Ok(roots)
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(files: &Credentials) -> Result<Own, CredentialsError> {
    let key = PrivateKeyDer::from_pem_file(files.key())
        .map_err(|error| bad(files.key(), in_words(error, "private key")))?;
    Ok((certificates(files.certificate())?, key))
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| bad(path, in_words(error, "certificate")))?;
    if found.is_empty() {
        return Err(bad(path, in_words(pem::Error::NoItemsFound, "certificate")));
    }
    Ok(found)
}

fn in_words(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("holds no {what} in PEM"),
        error => format!("not PEM: {error}"),
    }
}
