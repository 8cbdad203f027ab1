//! Where certificate, key and trust anchors come from, and how they are reloaded.
//!
//! A tunnel has one [`Store`]. It reads [`Credentials`] as a whole and publishes them as a
//! whole, so that whoever takes a snapshot never sees a new certificate beside old trust
//! anchors. How they are used is decided in `tls`; when they are read again, in `app`. A source
//! that pushes, `workload_api`, has the same: whole credentials, published by `app` as they come.

mod files;
mod identity;
mod pkcs11;
mod secret;
mod selection;
mod trust;
pub mod workload_api;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ghostunnel_pki::{Certificate, Time, TrustAnchors, TrustBundles};
use tokio::sync::watch;

pub use files::{FileProblem, PasswordProblem, ReadError, Role};
pub use identity::{KeyPairError, OwnIdentity};
pub use pkcs11::{ChainProblem, IS_BUILT as HAS_PKCS11, Pkcs11Error};
pub use secret::Secret;
pub use selection::{Identity, Password, Pkcs11, Selection, Trust};
pub use trust::TrustError;

use files::Reading;

/// How often files are read anew because somebody exchanged them meanwhile. One exchange
/// costs one more reading; where they change all the time, the last reading counts.
const READINGS: usize = 3;

/// A tunnel's whole credentials at one moment; never half old, half new.
pub struct Credentials {
    identity: Option<Arc<OwnIdentity>>,
    is_presented: bool,
    anchors: Arc<TrustAnchors>,
    bundles: Option<Arc<TrustBundles>>,
    warnings: Vec<Warning>,
    generation: u64,
}

impl Credentials {
    /// The tunnel's own certificate and key, if it has any.
    pub fn identity(&self) -> Option<&Arc<OwnIdentity>> {
        self.identity.as_ref()
    }

    /// What a client tunnel shows to servers that ask for a certificate.
    pub fn presented(&self) -> Option<&Arc<OwnIdentity>> {
        self.identity().filter(|_| self.is_presented)
    }

    /// Whom the tunnel trusts. May be empty, see [`Warning::NoSystemAnchors`]; is empty beside
    /// [`Credentials::bundles`].
    pub fn anchors(&self) -> &Arc<TrustAnchors> {
        &self.anchors
    }

    /// Whom the tunnel trusts, by trust domain. Where there are any, a peer is verified by its
    /// SPIFFE ID: neither [`Credentials::anchors`] nor host names have a say.
    pub fn bundles(&self) -> Option<&Arc<TrustBundles>> {
        self.bundles.as_ref()
    }

    /// What the operator should know although the credentials can be used.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Grows with every reading, from 1. Tells newer from older.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The same with another certificate and key.
    #[cfg(test)]
    pub(crate) fn with_identity(&self, identity: OwnIdentity) -> Self {
        Self {
            identity: Some(Arc::new(identity)),
            is_presented: true,
            bundles: None,
            anchors: Arc::clone(&self.anchors),
            warnings: Vec::new(),
            generation: self.generation,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown
            .field("identity", &self.identity)
            .field("generation", &self.generation);
        shown.finish_non_exhaustive()
    }
}

/// The credentials of one tunnel: where they come from, and those in force.
#[derive(Debug)]
pub struct Store {
    selection: Selection,
    last_generation: AtomicU64,
    current: watch::Sender<Arc<Credentials>>,
}

impl Store {
    /// Reads the credentials for the first time. Blocks on file reads.
    pub fn load(selection: &Selection) -> Result<Self, LoadError> {
        const FIRST: u64 = 1;
        let first = read(selection, FIRST, None)?;
        Ok(Self {
            selection: selection.clone(),
            last_generation: AtomicU64::new(FIRST),
            current: watch::Sender::new(Arc::new(first)),
        })
    }

    /// Holds what a source pushes, which has pushed once.
    pub fn pushed(selection: &Selection, first: Arc<Credentials>) -> Self {
        Self {
            selection: selection.clone(),
            last_generation: AtomicU64::new(first.generation),
            current: watch::Sender::new(first),
        }
    }

    /// Whether there is nothing to be read anew: the source pushes.
    pub fn is_pushed(&self) -> bool {
        matches!(self.selection.identity, Identity::WorkloadApi(_))
    }

    /// The credentials in force.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// Follows the credentials in force.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.subscribe()
    }

    /// Reads everything again and publishes nothing. Blocks on file reads. Where the source
    /// pushes, these are the credentials in force.
    pub fn prepare_reload(&self) -> Result<Arc<Credentials>, LoadError> {
        if self.is_pushed() {
            return Ok(self.current());
        }
        let generation = self.last_generation.fetch_add(1, Ordering::Relaxed) + 1;
        let in_force = self.current();
        read(&self.selection, generation, Some(&in_force))
            .map(Arc::new)
            .map_err(LoadError::on_reload)
    }

    /// Puts credentials into force, certificate and trust anchors in one step. Older ones
    /// never replace newer ones, in whatever order reloads end.
    pub fn publish(&self, fresh: Arc<Credentials>) {
        self.current.send_if_modified(|current| {
            let is_newer = fresh.generation > current.generation;
            if is_newer {
                *current = fresh;
            }
            is_newer
        });
    }

    /// The line that operators know their certificate source by.
    pub fn start_line(&self) -> &'static str {
        self.selection.start_line()
    }
}

/// Reads a whole set of credentials. From what is in force, only a key in a token is kept.
///
/// A token is asked once, however often files are read: it counts wrong PINs.
fn read(
    selection: &Selection,
    generation: u64,
    in_force: Option<&Credentials>,
) -> Result<Credentials, LoadError> {
    let mut files = steadily(|reading| read_once(selection, reading))?;
    let own = match files.own {
        Own::None => None,
        Own::Whole(identity, leaf) => Some((identity, leaf)),
        Own::OnToken(settings, chain) => {
            let in_force = in_force.and_then(Credentials::identity);
            let own = pkcs11::identity(settings, chain, in_force.map(Arc::as_ref));
            Some(own.map_err(LoadError::Pkcs11)?)
        }
    };
    if let Some((identity, leaf)) = &own {
        let warning = Warning::on_validity(identity, leaf, SystemTime::now());
        files.warnings.splice(0..0, warning);
    }
    Ok(Credentials {
        identity: own.map(|(identity, _)| Arc::new(identity)),
        is_presented: true,
        anchors: Arc::new(files.anchors),
        bundles: None,
        warnings: files.warnings,
        generation,
    })
}

/// Reads again when files were exchanged meanwhile. Certificate and key from before and after
/// do not match, and a CA bundle from after may not know the certificate from before; failures
/// may stem from that as well.
fn steadily<T>(mut read: impl FnMut(&mut Reading) -> T) -> T {
    for _ in 1..READINGS {
        let mut reading = Reading::default();
        let result = read(&mut reading);
        if reading.is_current() {
            return result;
        }
    }
    read(&mut Reading::default())
}

/// What files hold of a set of credentials.
struct FromFiles<'a> {
    own: Own<'a>,
    anchors: TrustAnchors,
    warnings: Vec<Warning>,
}

/// The tunnel's own certificate, as far as files have it.
enum Own<'a> {
    None,
    Whole(OwnIdentity, Certificate),
    /// Its key is in a token.
    OnToken(&'a Pkcs11, pkcs11::Chain),
}

fn read_once<'a>(selection: &'a Selection, reading: &mut Reading) -> Result<FromFiles<'a>, LoadError> {
    let whole = |entry, password: &Secret| {
        OwnIdentity::new(entry, password.expose())
            .map(|(identity, leaf)| Own::Whole(identity, leaf))
            .map_err(|error| LoadError::key_pair(error, &files_of(&selection.identity)))
    };
    let own = match &selection.identity {
        Identity::Pair { cert, key, password } => {
            let password = files::read_password(password, reading)?;
            whole(files::read_pair(cert, key, reading)?, &password)?
        }
        Identity::Keystore { path, password } => {
            let password = files::read_password(password, reading)?;
            let entry = files::read_keystore(path, password.expose(), reading)?;
            whole(entry, &password)?
        }
        Identity::Pkcs11(settings) => {
            let chain = pkcs11::Chain::read(settings, reading).map_err(LoadError::Pkcs11)?;
            Own::OnToken(settings, chain)
        }
        // Nothing to read: what an agent pushes goes past this function.
        Identity::WorkloadApi(_) | Identity::None => Own::None,
    };
    let mut warnings = Vec::new();
    let anchors = trust::load(&selection.trust, reading, &mut warnings).map_err(|error| match own {
        Own::Whole(..) => LoadError::TrustStore(error),
        Own::OnToken(..) => LoadError::TrustStoreNamed(selection.trust.path().to_owned(), error),
        Own::None => LoadError::TrustStoreAlone(error),
    })?;
    Ok(FromFiles {
        own,
        anchors,
        warnings,
    })
}

/// The credentials could not be loaded. The texts are those that operators' tools match.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A certificate, key or keystore file is no good by itself.
    #[error("reading certificate file {path:?}: {problem}{}", .role.remedy(.problem))]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// Which flag named it.
        role: Role,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The password could not be read from its file.
    #[error(
        "reading password file {path:?}: {problem}; --storepass-file must name a readable file with the password \
         of the keystore"
    )]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: PasswordProblem,
    },
    /// What the files hold does not make a certificate with its key.
    #[error("parsing X509 key pair: {error} (in {files})")]
    KeyPair {
        /// What is wrong.
        error: KeyPairError,
        /// Where certificate and key came from.
        files: String,
    },
    /// The trust anchors beside a certificate could not be loaded.
    #[error("loading trust store: {0}")]
    TrustStore(TrustError),
    /// The trust anchors beside a certificate with its key in a token could not be loaded.
    #[error("loading trust store {0:?}: {1}")]
    TrustStoreNamed(PathBuf, TrustError),
    /// The key is in a token: it, or the certificate, could not be loaded.
    #[error("{0}")]
    Pkcs11(Pkcs11Error),
    /// The trust anchors could not be loaded, and there is no certificate.
    #[error("{0}")]
    TrustStoreAlone(TrustError),
    /// A file that could be read at start cannot be read any more.
    #[error(
        "{0}; the sandbox lets the process read where the given paths led at start: if a link was moved \
         elsewhere since, restart"
    )]
    DeniedOnReload(Box<Self>),
}

impl LoadError {
    fn certificate(path: &Path, role: Role, problem: FileProblem) -> Self {
        Self::CertificateFile {
            path: path.to_owned(),
            role,
            problem,
        }
    }

    fn key_pair(error: KeyPairError, files: &[&Path]) -> Self {
        let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
        Self::KeyPair {
            error,
            files: files.join(" and "),
        }
    }

    /// The same, with a hint at what only a reload can run into.
    fn on_reload(self) -> Self {
        if self.is_permission_denied() {
            Self::DeniedOnReload(Box::new(self))
        } else {
            self
        }
    }

    fn is_permission_denied(&self) -> bool {
        match self {
            Self::CertificateFile { problem, .. } => problem.is_permission_denied(),
            Self::PasswordFile { problem, .. } => problem.is_permission_denied(),
            Self::TrustStore(error) | Self::TrustStoreNamed(_, error) | Self::TrustStoreAlone(error) => {
                error.is_permission_denied()
            }
            Self::Pkcs11(error) => error.is_permission_denied(),
            Self::KeyPair { .. } | Self::DeniedOnReload(_) => false,
        }
    }
}

/// The files of an identity, in the order in which they are read.
fn files_of(identity: &Identity) -> Vec<&Path> {
    match identity {
        Identity::Pair { cert, key, .. } => vec![cert, key],
        Identity::Keystore { path, .. } => vec![path],
        Identity::Pkcs11(settings) => vec![&settings.certificate],
        Identity::WorkloadApi(_) | Identity::None => Vec::new(),
    }
}

/// Something the operator should know although the credentials can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The system's trust store is empty.
    NoSystemAnchors,
    /// Some certificates of a CA bundle do not parse, so they are not trusted.
    UnparsableAnchors {
        /// The bundle.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The tunnel's own certificate has expired.
    Expired {
        /// Whose certificate.
        subject: String,
    },
    /// The tunnel's own certificate is not valid yet.
    NotYetValid {
        /// Whose certificate.
        subject: String,
    },
}

impl Warning {
    /// What is wrong with the own certificate's validity period, judged at `now`.
    fn on_validity(identity: &OwnIdentity, leaf: &Certificate, now: SystemTime) -> Option<Self> {
        let (not_before, not_after) = leaf.validity();
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        let now = Time::from_unix_seconds(now);
        let subject = || identity.subject().to_owned();
        if now > not_after {
            Some(Self::Expired { subject: subject() })
        } else if now < not_before {
            Some(Self::NotYetValid { subject: subject() })
        } else {
            None
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSystemAnchors => f.write_str(
                "no trusted certificates found on this system, so every peer will be refused; \
                 name a CA bundle with --cacert, or set SSL_CERT_FILE",
            ),
            Self::UnparsableAnchors { path, count } => write!(
                f,
                "skipped {count} certificate(s) of CA bundle {} that cannot be parsed",
                path.display()
            ),
            Self::Expired { subject } => {
                write!(f, "own certificate has expired, peers will refuse it: {subject}")
            }
            Self::NotYetValid { subject } => {
                write!(
                    f,
                    "own certificate is not valid yet, peers will refuse it: {subject}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
