//! A throw-away certificate authority, and a stranger from another one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::leftovers::Leftovers;

/// PEM files in a private directory, one of the [`Leftovers`].
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Makes the directory and everything in it. With `trust_strangers` the CA bundle also
    /// holds the stranger's CA, which no sane bundle would.
    pub(super) fn mint(trust_strangers: bool, leftovers: &Leftovers) -> anyhow::Result<Self> {
        leftovers.add(|kept| {
            let files = Self {
                folder: private_folder()?,
            };
            kept.folder = Some(files.folder.clone());
            files.fill(trust_strangers)?;
            Ok(files)
        })
    }

    fn fill(&self, trust_strangers: bool) -> anyhow::Result<()> {
        let ours = authority("ghostunnel demo CA")?;
        let other = authority("somebody else's CA")?;
        let mut bundle = ours.pem();
        if trust_strangers {
            bundle.push_str(&other.pem());
        }
        self.write("cacert.pem", &bundle)?;
        self.write("other-cacert.pem", &other.pem())?;
        let names = ["localhost", "127.0.0.1", "::1"];
        self.issue("server", &ours, &names, ExtendedKeyUsagePurpose::ServerAuth)?;
        self.issue("client", &ours, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        self.issue("stranger", &other, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The directory, for people.
    pub(super) fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// One of the files: `cacert.pem`, `other-cacert.pem`, and `-cert.pem` and `-key.pem` for
    /// `server`, `client` and `stranger`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn issue(
        &self,
        name: &str,
        issuer: &CertifiedIssuer<'_, KeyPair>,
        alternative_names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(
            alternative_names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, issuer)?;
        self.write(&format!("{name}-cert.pem"), &certificate.pem())?;
        self.write(&format!("{name}-key.pem"), &key.serialize_pem())
    }

    fn write(&self, name: &str, pem: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        file.write_all(pem.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Creating fails when the name is taken, so nobody can slip a directory under it.
fn private_folder() -> anyhow::Result<PathBuf> {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let folder = std::env::temp_dir().join(format!("ghostunnel-demo-{}-{nanos}", std::process::id()));
    create_private(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn create_private(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)
}
