//! A certificate chain from a file, and its private key in a PKCS#11 token: an HSM, a smart
//! card, a software token.
//!
//! The key is found on the token by the leaf's public key and never leaves it. Signing takes as
//! long as the token takes, so a key from here is marked as remote, and handshakes that need it
//! run apart from the workers.
//!
//! A reload reads the certificate again and keeps the key: nothing is asked of the token, which
//! may be slow or stuck. A certificate of another key is refused, as in Ghostunnel 1.11.1.

#[cfg(not(feature = "pkcs11"))]
#[path = "absent.rs"]
mod token;
#[cfg(feature = "pkcs11")]
mod token;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostunnel_keystore::Block;
use ghostunnel_pki::{Certificate, ParseError};
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use tracing::info;

use super::files::{KEYSTORE_LIMIT, ReadError, Reading};
use super::identity::OwnIdentity;
use super::{Pkcs11, Role};

/// Whether this build has PKCS#11.
pub const IS_BUILT: bool = cfg!(feature = "pkcs11");

/// Certificate and token do not make an identity. The texts are those that operators' tools
/// match, followed by what to do.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs11Error {
    /// The certificate chain could not be loaded.
    #[error("failed to load certificate from {path:?}: {problem}{}", remedy(*.role))]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Which flag named it.
        role: Role,
        /// What is wrong with it.
        problem: ChainProblem,
    },
    /// There is no key on the token to go with the certificate.
    #[error("pkcs11: failed to load private key from module {module:?} (token {token:?}): {reason}{remedy}")]
    Key {
        /// The module.
        module: PathBuf,
        /// The label of the token.
        token: String,
        /// What went wrong.
        reason: String,
        /// What to change, as the end of the message.
        remedy: String,
    },
    /// The certificate that was read again belongs to another key.
    #[error(
        "pkcs11: refusing to reload certificate {path:?}: its public key does not match the cached HSM private \
         key; restart to use another key"
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// This build cannot load modules.
    #[error("this build has no PKCS#11 (cargo feature pkcs11)")]
    NotBuilt,
}

/// What is wrong with the file that holds the certificate chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainProblem {
    /// It could not be read.
    #[error("{0}")]
    Read(ReadError),
    /// There is no certificate in it.
    #[error("no certificates found in file '{}'", .0.display())]
    Empty(PathBuf),
    /// One of its certificates is none.
    #[error("{0}")]
    Parse(ParseError),
}

impl Pkcs11Error {
    /// Whether a file is there but out of bounds.
    pub(super) fn is_permission_denied(&self) -> bool {
        match self {
            Self::Certificate { problem, .. } => match problem {
                ChainProblem::Read(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
                ChainProblem::Empty(_) | ChainProblem::Parse(_) => false,
            },
            Self::Key { .. } | Self::OtherKey { .. } | Self::NotBuilt => false,
        }
    }
}

fn remedy(role: Role) -> &'static str {
    match role {
        Role::Certificate | Role::Key => "; --cert must name a readable PEM file with the certificate chain",
        Role::Keystore => "; --keystore must name a readable PEM file with the certificate chain",
    }
}

/// Finds the key for the chain: at first on the token, later among what is in force.
pub(super) fn identity(
    settings: &Pkcs11,
    chain: Chain,
    in_force: Option<&OwnIdentity>,
) -> Result<(OwnIdentity, Certificate), Pkcs11Error> {
    let path = &settings.certificate;
    let key = match in_force {
        Some(in_force) => cached_key(in_force, &chain.leaf, path)?,
        None => {
            info!(
                event = "pkcs11_loading",
                "pkcs11: loading private key for given certificate from module"
            );
            token::find_key(settings, chain.leaf.subject_public_key_info())?
        }
    };
    // The key was found by what is compared there, so this does not fail.
    let identity = OwnIdentity::remote(chain.certificates, key)
        .map_err(|_| Pkcs11Error::OtherKey { path: path.clone() })?;
    Ok((identity, chain.leaf))
}

fn cached_key(
    in_force: &OwnIdentity,
    leaf: &Certificate,
    path: &Path,
) -> Result<Arc<dyn SigningKey>, Pkcs11Error> {
    let key = in_force.signing_key();
    match key.public_key() {
        Some(spki) if spki.as_ref() == leaf.subject_public_key_info() => {
            info!(
                event = "pkcs11_reusing",
                "pkcs11: re-using previously cached private key handle from module"
            );
            Ok(Arc::clone(key))
        }
        _ => Err(Pkcs11Error::OtherKey {
            path: path.to_owned(),
        }),
    }
}

/// The certificates of a PEM file, leaf first.
pub(super) struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    leaf: Certificate,
}

impl Chain {
    /// Reads the chain.
    pub(super) fn read(settings: &Pkcs11, reading: &mut Reading) -> Result<Self, Pkcs11Error> {
        let path = &settings.certificate;
        Self::read_file(path, reading).map_err(|problem| Pkcs11Error::Certificate {
            path: path.clone(),
            role: settings.certificate_role,
            problem,
        })
    }

    /// Always PEM, whatever the name says; other blocks, as a key that has stayed behind, are
    /// passed over.
    fn read_file(path: &Path, reading: &mut Reading) -> Result<Self, ChainProblem> {
        let text = reading.read(path, KEYSTORE_LIMIT).map_err(ChainProblem::Read)?;
        let certificates: Vec<_> = ghostunnel_keystore::blocks(&text)
            .into_iter()
            .filter(Block::is_certificate)
            .map(Block::into_certificate)
            .collect();
        let parsed = certificates.iter().map(|der| Certificate::parse(der));
        let parsed: Vec<_> = parsed.collect::<Result<_, _>>().map_err(ChainProblem::Parse)?;
        match parsed.into_iter().next() {
            Some(leaf) => Ok(Self { certificates, leaf }),
            None => Err(ChainProblem::Empty(path.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
