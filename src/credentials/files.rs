//! Certificate, key and keystore files, read through `ghostunnel_keystore`.
//!
//! Reading happens on the calling thread and blocks it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ghostunnel_keystore::{Block, DetectError, Entry, Format, KeystoreError, Pkcs12Error, blocks};
use zeroize::Zeroizing;

use super::{KeyPairError, LoadError, Password, Secret};

/// How much of a certificate, key or keystore file is read. What lies beyond is ignored, as
/// in Ghostunnel 1.11.1; no real file comes near.
pub(super) const KEYSTORE_LIMIT: u64 = 50 * 1024 * 1024;

/// The longest password file in bytes. Longer ones are some other file.
const PASSWORD_LIMIT: u64 = 4096;

/// A file could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be opened.
    #[error("open {}: {}", .path.display(), reason(.error))]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// It was opened, but its bytes could not be had.
    #[error("read {}: {}", .path.display(), reason(.error))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
}

/// What is wrong with a certificate, key or keystore file taken by itself.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It could not be opened.
    #[error("{0}")]
    Open(ReadError),
    /// It could not be read. The format was known from the file's name, or is always PEM.
    #[error("failed to parse '{}': error reading PEM data: {}", .0.path().display(), .0)]
    Read(ReadError),
    /// It could not be read, so its format is not known.
    #[error("failed to detect format for '{}': unable to read file: {}", .0.path().display(), .0)]
    ReadFirstBytes(ReadError),
    /// Neither name nor contents tell its format.
    #[error("failed to detect format for '{}': {error}", .path.display())]
    Detect {
        /// The file.
        path: PathBuf,
        /// Why.
        error: DetectError,
    },
    /// It is not readable in its format.
    #[error("failed to parse '{}': {error}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        error: KeystoreError,
    },
    /// It holds no PEM block, or nothing at all.
    #[error("error reading file '{}', no certificates found", .path.display())]
    NoBlocks {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with the file of a password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordProblem {
    /// It could not be read.
    #[error("{0}")]
    Read(ReadError),
    /// It is longer than any password.
    #[error("longer than {PASSWORD_LIMIT} bytes")]
    TooLong,
    /// It holds bytes that are no text.
    #[error("not UTF-8 text")]
    NotText,
}

impl PasswordProblem {
    /// Whether the file is there but out of bounds.
    pub(super) fn is_permission_denied(&self) -> bool {
        match self {
            Self::Read(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::TooLong | Self::NotText => false,
        }
    }
}

/// Which flag named a file, for those who have to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `--cert`
    Certificate,
    /// `--key`
    Key,
    /// `--keystore`
    Keystore,
}

impl Role {
    /// What to change, as the end of a message about this problem.
    pub(super) fn remedy(self, problem: &FileProblem) -> &'static str {
        match (self, problem) {
            // It says already what to do.
            (
                _,
                FileProblem::Detect {
                    error: DetectError::Unknown,
                    ..
                },
            ) => "",
            (_, FileProblem::Parse { error, .. }) if error.is_wrong_password() => {
                "; --storepass or --storepass-file must give the password of this file"
            }
            (
                _,
                FileProblem::Parse {
                    error: KeystoreError::Pkcs12(Pkcs12Error::NoMac),
                    ..
                },
            ) => {
                "; without it nobody can tell whether the file was altered: if there is no password, give none, \
                 or make the file anew"
            }
            (Self::Certificate, _) => "; --cert must name a readable PEM file with the certificate chain",
            (Self::Key, _) => "; --key must name a readable PEM file with the private key",
            (Self::Keystore, _) => {
                "; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and \
                 private key"
            }
        }
    }
}

/// The password, or an empty one. The line end that editors leave behind is no part of it.
pub(super) fn read_password(password: &Password, reading: &mut Reading) -> Result<Secret, LoadError> {
    match password {
        Password::None => Ok(Secret::from(String::new())),
        Password::Given(secret) => Ok(secret.clone()),
        Password::File(path) => {
            read_password_file(path, reading).map_err(|problem| LoadError::PasswordFile {
                path: path.clone(),
                problem,
            })
        }
    }
}

fn read_password_file(path: &Path, reading: &mut Reading) -> Result<Secret, PasswordProblem> {
    let mut bytes = reading
        .read(path, PASSWORD_LIMIT.saturating_add(1))
        .map_err(PasswordProblem::Read)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > PASSWORD_LIMIT) {
        return Err(PasswordProblem::TooLong);
    }
    let line_end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| bytes.ends_with(end));
    let length = bytes.len().saturating_sub(line_end.map_or(0, <[u8]>::len));
    bytes.truncate(length);
    let text = std::str::from_utf8(&bytes).map_err(|_| PasswordProblem::NotText)?;
    Ok(Secret::from(text.to_owned()))
}

/// The contents of `--cert` and `--key`. Both are PEM, whatever their names say.
pub(super) fn read_pair(cert: &Path, key: &Path, reading: &mut Reading) -> Result<Entry, LoadError> {
    let mut all = Vec::new();
    for (path, role) in [(cert, Role::Certificate), (key, Role::Key)] {
        let found = read_pem(path, reading);
        all.extend(found.map_err(|problem| LoadError::certificate(path, role, problem))?);
    }
    Entry::from_blocks(all).map_err(|error| LoadError::key_pair(KeyPairError::Entry(error), &[cert, key]))
}

/// The contents of `--keystore`, in whichever format it has. An empty password is none.
pub(super) fn read_keystore(path: &Path, password: &str, reading: &mut Reading) -> Result<Entry, LoadError> {
    let (format, found) = keystore_blocks(path, password, reading)
        .map_err(|problem| LoadError::certificate(path, Role::Keystore, problem))?;
    ghostunnel_keystore::entry(format, found)
        .map_err(|error| LoadError::key_pair(KeyPairError::Entry(error), &[path]))
}

fn read_pem(path: &Path, reading: &mut Reading) -> Result<Vec<Block>, FileProblem> {
    let text = reading.read(path, KEYSTORE_LIMIT).map_err(|error| match error {
        ReadError::Open { .. } => FileProblem::Open(error),
        ReadError::Read { .. } => FileProblem::Read(error),
    })?;
    at_least_one(path, blocks(&text))
}

fn keystore_blocks(
    path: &Path,
    password: &str,
    reading: &mut Reading,
) -> Result<(Format, Vec<Block>), FileProblem> {
    let named = path.to_str().and_then(Format::from_file_name);
    let bytes = reading.read(path, KEYSTORE_LIMIT).map_err(|error| match error {
        ReadError::Open { .. } => FileProblem::Open(error),
        ReadError::Read { .. } if named.is_some() => FileProblem::Read(error),
        ReadError::Read { .. } => FileProblem::ReadFirstBytes(error),
    })?;
    let detected = named.map_or_else(|| Format::from_first_bytes(&bytes), Ok);
    let format = detected.map_err(|error| FileProblem::Detect {
        path: path.to_owned(),
        error,
    })?;
    let found = ghostunnel_keystore::read(format, &bytes, password).map_err(|error| FileProblem::Parse {
        path: path.to_owned(),
        error,
    })?;
    Ok((format, at_least_one(path, found)?))
}

fn at_least_one(path: &Path, found: Vec<Block>) -> Result<Vec<Block>, FileProblem> {
    if found.is_empty() {
        return Err(FileProblem::NoBlocks {
            path: path.to_owned(),
        });
    }
    Ok(found)
}

/// What was read for one set of credentials, to notice when files are exchanged meanwhile.
#[derive(Debug, Default)]
pub(super) struct Reading {
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

/// What changes when a file is replaced or written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl Reading {
    /// Reads a file up to `limit` bytes.
    ///
    /// The buffer is wiped on drop and leaves nothing behind while it grows, since the file
    /// may hold a key.
    pub(super) fn read(&mut self, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let mut file = File::open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                self.seen.push((path.to_owned(), None));
            }
            ReadError::Open {
                path: path.to_owned(),
                error,
            }
        })?;
        self.read_open(path, &mut file, limit)
            .map_err(|error| ReadError::Read {
                path: path.to_owned(),
                error,
            })
    }

    fn read_open(&mut self, path: &Path, file: &mut File, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let metadata = file.metadata()?;
        // A pipe is empty once read, and a second look would wait for its writer.
        if metadata.is_file() {
            self.seen.push((path.to_owned(), Some(Stamp::of(&metadata))));
        }
        // A sparse file may claim any length, so no more than a keystore's is believed.
        let expected = metadata.len().min(limit).min(KEYSTORE_LIMIT);
        let expected = usize::try_from(expected).unwrap_or_default();
        read_wiped(&mut file.take(limit), expected)
    }

    /// Whether every file is still the one that was read.
    pub(super) fn is_current(&self) -> bool {
        self.seen.iter().all(|(path, stamp)| {
            let now = fs::metadata(path).ok();
            now.as_ref().map(Stamp::of) == *stamp
        })
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// Reads to the end. `expected` is how much there probably is.
///
/// `Vec` would leave its old bytes in freed memory whenever it moves to a larger place.
fn read_wiped(source: &mut impl Read, expected: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    /// Room for a pipe's worth, and never none.
    const SPARE: usize = 4096;
    let mut buffer = Zeroizing::new(vec![0; expected.saturating_add(SPARE)]);
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            let mut larger = Zeroizing::new(vec![0; filled.saturating_mul(2)]);
            larger[..filled].copy_from_slice(&buffer);
            buffer = larger;
        }
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// The system's answer as operators' tools know it: `permission denied`, neither capital
/// letter nor number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match error.raw_os_error() {
        Some(number) => text
            .strip_suffix(&format!(" (os error {number})"))
            .unwrap_or(&text),
        None => &text,
    };
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

impl ReadError {
    /// The file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open { path, .. } | Self::Read { path, .. } => path,
        }
    }

    /// What the system answered.
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Open { error, .. } | Self::Read { error, .. } => error.kind(),
        }
    }
}

impl FileProblem {
    /// Whether the file is there but out of bounds.
    pub(super) fn is_permission_denied(&self) -> bool {
        match self {
            Self::Open(error) | Self::Read(error) | Self::ReadFirstBytes(error) => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Detect { .. } | Self::Parse { .. } | Self::NoBlocks { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_answers_read_as_operators_know_them() {
        use rustix::io::Errno;
        for (number, expected) in [
            (Errno::NOENT, "no such file or directory"),
            (Errno::ACCESS, "permission denied"),
            (Errno::ISDIR, "is a directory"),
            (Errno::NOTDIR, "not a directory"),
            (Errno::MFILE, "too many open files"),
            (Errno::LOOP, "too many levels of symbolic links"),
        ] {
            assert_eq!(
                reason(&io::Error::from_raw_os_error(number.raw_os_error())),
                expected
            );
        }
        assert_eq!(reason(&io::Error::other("Made up")), "made up");
    }

    /// Yields its bytes in pieces of odd size, and an interruption before each.
    struct Trickle<'a> {
        rest: &'a [u8],
        is_interrupted: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let end = buffer.len().min(977);
            self.rest.read(&mut buffer[..end])
        }
    }

    #[test]
    fn whole_sources_are_read_whatever_size_was_expected() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        for length in [0, 1, 4095, 4096, 4097, 100_000] {
            for expected in [0, length, 200_000] {
                let mut source = Trickle {
                    rest: &bytes[..length],
                    is_interrupted: false,
                };
                let read = read_wiped(&mut source, expected).expect("no failure");
                assert_eq!(*read, bytes[..length], "{length} bytes, {expected} expected");
            }
        }
    }

    #[test]
    fn what_lies_beyond_the_limit_is_not_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        fs::write(&path, "0123456789").expect("write");
        assert_eq!(*Reading::default().read(&path, 4).expect("read"), b"0123");
    }

    #[test]
    fn rewritten_file_is_noticed_and_a_pipe_is_left_alone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        fs::write(&path, "before").expect("write");
        let mut reading = Reading::default();
        reading.read(&path, u64::MAX).expect("read");
        reading.read(Path::new("/dev/null"), u64::MAX).expect("read");
        assert!(reading.is_current());
        fs::write(&path, "and after").expect("write");
        assert!(!reading.is_current());
    }
}
