//! Trust anchors: a CA bundle, or the system's trust store.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use ghostunnel_pki::{Certificate, TrustAnchors};

use super::files::{ReadError, Reading};
use super::{Trust, Warning};

/// Where Linux distributions keep all anchors in one file; the first that can be read is used.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where they keep them one by one; all are read.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The largest file of the system's trust store that is read, per file. Distributions ship
/// less than 1 MiB.
const SYSTEM_FILE_LIMIT: u64 = 50 * 1024 * 1024;

/// The trust anchors could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file or directory of the system's trust store could not be read.
    #[error("{0}")]
    Read(ReadError),
    /// The bundle could not be read.
    #[error("{0}; --cacert must name a readable PEM file with the authorities to trust")]
    ReadBundle(ReadError),
    /// The bundle was read, but there is no certificate in it.
    #[error(
        "unable to read certificates from CA bundle; there is no block labelled CERTIFICATE without \
         headers that parses in {}; --cacert must name a readable PEM file with the authorities to trust",
        .path.display()
    )]
    NoCertificates {
        /// The bundle.
        path: PathBuf,
    },
}

impl TrustError {
    /// Whether something is there but out of bounds.
    pub(super) fn is_permission_denied(&self) -> bool {
        match self {
            Self::Read(error) | Self::ReadBundle(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::NoCertificates { .. } => false,
        }
    }
}

/// Reads the anchors. Nothing is remembered from earlier times: a reload sees what the
/// system's trust store holds by then.
pub(super) fn load(
    trust: &Trust,
    reading: &mut Reading,
    warnings: &mut Vec<Warning>,
) -> Result<TrustAnchors, TrustError> {
    match trust {
        Trust::Bundle(path) => load_bundle(path, reading, warnings),
        Trust::System => SystemStore::from_environment().load(warnings),
    }
}

fn load_bundle(
    path: &Path,
    reading: &mut Reading,
    warnings: &mut Vec<Warning>,
) -> Result<TrustAnchors, TrustError> {
    // Read whole: a bundle cut off at some limit would lack anchors without a word.
    let text = reading.read(path, u64::MAX).map_err(TrustError::ReadBundle)?;
    let mut anchors = Anchors::default();
    anchors.add(&text);
    if anchors.parsed.is_empty() {
        return Err(TrustError::NoCertificates {
            path: path.to_owned(),
        });
    }
    if anchors.unparsable > 0 {
        warnings.push(Warning::UnparsableAnchors {
            path: path.to_owned(),
            count: anchors.unparsable,
        });
    }
    Ok(TrustAnchors::new(anchors.parsed))
}

/// Certificates collected from any number of files, each once.
#[derive(Default)]
struct Anchors {
    parsed: Vec<Certificate>,
    seen: HashSet<Vec<u8>>,
    unparsable: usize,
}

impl Anchors {
    fn add(&mut self, text: &[u8]) {
        for der in ghostunnel_keystore::trust_anchors(text) {
            if !self.seen.insert(der.to_vec()) {
                continue;
            }
            match Certificate::parse(&der) {
                Ok(certificate) => self.parsed.push(certificate),
                Err(_) => self.unparsable += 1,
            }
        }
    }
}

/// The places that make up the system's trust store.
#[derive(Debug)]
struct SystemStore {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl SystemStore {
    /// The usual places, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    fn from_environment() -> Self {
        Self::new(env::var_os("SSL_CERT_FILE"), env::var_os("SSL_CERT_DIR"))
    }

    /// Empty variables count as unset.
    fn new(file: Option<OsString>, directories: Option<OsString>) -> Self {
        let is_set = |value: &OsString| !value.is_empty();
        Self {
            files: match file.filter(is_set) {
                Some(file) => vec![file.into()],
                None => SYSTEM_FILES.map(PathBuf::from).to_vec(),
            },
            directories: match directories.filter(is_set) {
                Some(list) => env::split_paths(&list).collect(),
                None => SYSTEM_DIRECTORIES.map(PathBuf::from).to_vec(),
            },
        }
    }

    /// Reads what can be read. Only a store of which nothing could be read, although
    /// something is there, is an error.
    fn load(&self, warnings: &mut Vec<Warning>) -> Result<TrustAnchors, TrustError> {
        let mut anchors = Anchors::default();
        let mut failure = None;
        for file in &self.files {
            match Reading::default().read(file, SYSTEM_FILE_LIMIT) {
                Ok(text) => {
                    anchors.add(&text);
                    break;
                }
                Err(error) => keep_first(&mut failure, error),
            }
        }
        for directory in &self.directories {
            if let Err(error) = add_directory(directory, &mut anchors) {
                keep_first(&mut failure, error);
            }
        }
        if anchors.parsed.is_empty() {
            if let Some(error) = failure {
                return Err(TrustError::Read(error));
            }
            warnings.push(Warning::NoSystemAnchors);
        }
        Ok(TrustAnchors::new(anchors.parsed))
    }
}

/// A place that does not exist is no failure: each distribution has its own.
fn keep_first(failure: &mut Option<ReadError>, error: ReadError) {
    if error.kind() != io::ErrorKind::NotFound {
        failure.get_or_insert(error);
    }
}

/// Adds whatever the directory's files hold, in the order of their names. What is no readable
/// file is passed over.
fn add_directory(directory: &Path, anchors: &mut Anchors) -> Result<(), ReadError> {
    let listed = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = listed.map_err(|error| ReadError::Open {
        path: directory.to_owned(),
        error,
    })?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort_unstable();
    for path in paths {
        // Opening a pipe would wait for its writer.
        if leads_to_sibling(&path) || !path.is_file() {
            continue;
        }
        if let Ok(text) = Reading::default().read(&path, SYSTEM_FILE_LIMIT) {
            anchors.add(&text);
        }
    }
    Ok(())
}

/// Whether this is a symbolic link to a file of the same directory. OpenSSL wants one named
/// by a hash beside every certificate; the certificate itself is read anyway.
fn leads_to_sibling(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| !target.as_os_str().as_bytes().contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    fn certificate() -> String {
        let parameters = CertificateParams::new(vec!["anchor.test".to_owned()]).expect("a DNS name");
        parameters
            .self_signed(&KeyPair::generate().expect("key"))
            .expect("certificate")
            .pem()
    }

    fn directory() -> TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    /// How many anchors a store has, and whether that came with the warning about none.
    fn load(store: &SystemStore) -> Result<(usize, bool), String> {
        let mut warnings = Vec::new();
        let anchors = store.load(&mut warnings).map_err(|error| error.to_string())?;
        Ok((
            anchors.certificates().len(),
            warnings == [Warning::NoSystemAnchors],
        ))
    }

    #[test]
    fn variables_replace_the_usual_places() {
        let usual = SystemStore::new(None, None);
        assert_eq!(usual.files.len(), SYSTEM_FILES.len());
        assert_eq!(usual.directories, SYSTEM_DIRECTORIES.map(PathBuf::from));
        let empty = SystemStore::new(Some("".into()), Some("".into()));
        assert_eq!(
            (&empty.files, &empty.directories),
            (&usual.files, &usual.directories)
        );
        let named = SystemStore::new(Some("/a.pem".into()), Some("/b:/c".into()));
        assert_eq!(named.files, [PathBuf::from("/a.pem")]);
        assert_eq!(named.directories, [PathBuf::from("/b"), PathBuf::from("/c")]);
    }

    #[test]
    fn first_readable_file_and_all_directories_count() {
        let root = directory();
        let path = |name: &str| root.path().join(name);
        for name in ["second.pem", "third.pem"] {
            fs::write(path(name), certificate()).expect("write");
        }
        for name in ["one", "two"] {
            fs::create_dir(path(name)).expect("create");
            fs::write(path(name).join("anchor"), certificate()).expect("write");
        }
        let store = SystemStore {
            files: vec![path("first.pem"), path("second.pem"), path("third.pem")],
            directories: vec![path("missing"), path("one"), path("two")],
        };
        assert_eq!(load(&store), Ok((3, false)));
    }

    #[test]
    fn each_anchor_counts_once_however_often_it_is_found() {
        let root = directory();
        let anchor = certificate();
        fs::write(root.path().join("bundle.crt"), anchor.clone() + &anchor).expect("write");
        fs::write(root.path().join("anchor.pem"), &anchor).expect("write");
        symlink("anchor.pem", root.path().join("0123abcd.0")).expect("link");
        let store = SystemStore {
            files: vec![root.path().join("bundle.crt")],
            directories: vec![root.path().to_owned()],
        };
        assert_eq!(load(&store), Ok((1, false)));
    }

    #[test]
    fn links_into_other_directories_are_followed() {
        let (root, elsewhere) = (directory(), directory());
        fs::write(elsewhere.path().join("anchor.crt"), certificate()).expect("write");
        symlink(
            elsewhere.path().join("anchor.crt"),
            root.path().join("anchor.pem"),
        )
        .expect("link");
        symlink("nowhere/at/all", root.path().join("dangling.pem")).expect("link");
        fs::create_dir(root.path().join("subdirectory")).expect("create");
        fs::write(root.path().join("README"), "no certificate").expect("write");
        let store = SystemStore {
            files: Vec::new(),
            directories: vec![root.path().to_owned()],
        };
        assert_eq!(load(&store), Ok((1, false)));
    }

    #[test]
    fn store_that_does_not_exist_is_empty_with_a_warning() {
        let root = directory();
        let missing = root.path().join("missing");
        let store = SystemStore {
            files: vec![missing.clone()],
            directories: vec![missing, PathBuf::new()],
        };
        assert_eq!(load(&store), Ok((0, true)));
    }

    #[test]
    fn store_that_cannot_be_read_is_an_error_unless_something_else_is_found() {
        let root = directory();
        let path = root.path().display();
        // A directory opens, but does not read; a file does not list.
        let file = root.path().join("file");
        fs::write(&file, "no certificate").expect("write");
        let mut store = SystemStore {
            files: vec![root.path().to_owned()],
            directories: vec![file.clone()],
        };
        assert_eq!(load(&store), Err(format!("read {path}: is a directory")));
        store.files.clear();
        assert_eq!(load(&store), Err(format!("open {path}/file: not a directory")));
        fs::write(root.path().join("anchor.pem"), certificate()).expect("write");
        store.directories.push(root.path().to_owned());
        assert_eq!(load(&store), Ok((1, false)));
    }

    #[test]
    fn reload_sees_what_was_installed_meanwhile() {
        let root = directory();
        let store = SystemStore {
            files: Vec::new(),
            directories: vec![root.path().to_owned()],
        };
        assert_eq!(load(&store), Ok((0, true)));
        fs::write(root.path().join("anchor.pem"), certificate()).expect("write");
        assert_eq!(load(&store), Ok((1, false)));
    }
}
