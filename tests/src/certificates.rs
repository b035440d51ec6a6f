//! A certificate authority of a test's own, and what it has signed, as files.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// A CA. Its files go with it.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, of a name that no other has.
    ///
    /// # Errors
    /// Its file cannot be written.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("release-ca-").tempdir()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.path().join("ca.pem"), issuer.pem())?;
        Ok(Self { folder, issuer })
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for a name or an IP address, and its key; each time a new one, in the same
    /// files.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn sign(&self, name: &str) -> Result<[PathBuf; 2]> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = ["pem", "key"].map(|kind| self.folder.path().join(format!("{name}.{kind}")));
        fs::write(&files[0], certificate.pem())?;
        fs::write(&files[1], key.serialize_pem())?;
        Ok(files)
    }
}
