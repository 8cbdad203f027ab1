//! Settings: exactly one source of identity, and one of trust, as enums.

use std::path::{Path, PathBuf};

use super::workload_api;
use super::{Role, Secret};

/// Where a tunnel's credentials come from.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The tunnel's own certificate and key.
    pub identity: Identity,
    /// Whom it trusts. Without a say for tunnels whose identity comes from the Workload API,
    /// which brings its own bundles.
    pub trust: Trust,
}

impl Selection {
    /// The line that operators know their certificate source by.
    pub fn start_line(&self) -> &'static str {
        match self.identity {
            Identity::Pair { .. } => "using cert/key files on disk as certificate source",
            Identity::Keystore { .. } => "using keystore file on disk as certificate source",
            Identity::WorkloadApi(_) => "using SPIFFE Workload API as certificate source",
            Identity::Pkcs11(_) => "using PKCS#11 module as certificate source",
            Identity::None => "no cert source configured -- running without certificate",
        }
    }
}

/// The tunnel's own certificate and key.
#[derive(Debug, Clone)]
pub enum Identity {
    /// `--cert` and `--key`: PEM files.
    Pair {
        /// The certificate chain, leaf first.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
        /// For a key that is encrypted.
        password: Password,
    },
    /// `--keystore`: one file with chain and key.
    Keystore {
        /// The file.
        path: PathBuf,
        /// For the file, or for an encrypted key in a PEM file.
        password: Password,
    },
    /// `--use-workload-api`: an agent pushes certificate, key and trust bundles.
    WorkloadApi(workload_api::Settings),
    /// `--pkcs11-module`: a certificate file, and its key in a token.
    Pkcs11(Pkcs11),
    /// `--disable-authentication` in client mode: no certificate is presented.
    None,
}

/// A certificate file, and its key in a PKCS#11 token.
#[derive(Debug, Clone)]
pub struct Pkcs11 {
    /// The certificate chain, leaf first; always PEM.
    pub certificate: PathBuf,
    /// Which flag named it: `--cert` or `--keystore`.
    pub certificate_role: Role,
    /// `--pkcs11-module`: the shared library.
    pub module: PathBuf,
    /// `--pkcs11-token-label`; empty stands for the empty label.
    pub token_label: String,
    /// `--pkcs11-pin`; shown to the token also when it is empty.
    pub pin: Secret,
}

/// The password of keystores and keys.
#[derive(Debug, Clone, Default)]
pub enum Password {
    /// None was given, which is the same as an empty one.
    #[default]
    None,
    /// `--storepass`.
    Given(Secret),
    /// `--storepass-file`: read again whenever the keystore is.
    File(PathBuf),
}

/// Trust anchors.
#[derive(Debug, Clone)]
pub enum Trust {
    /// `--cacert`: a PEM bundle.
    Bundle(PathBuf),
    /// The system's trust store.
    System,
}

impl Trust {
    /// The bundle; empty for the system's trust store, as in messages of Ghostunnel 1.11.1.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Bundle(path) => path,
            Self::System => Path::new(""),
        }
    }
}
