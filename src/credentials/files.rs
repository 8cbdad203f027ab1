//! Certificate, key and keystore files, read through `ghostunnel_keystore`.
//!
//! Reading happens on the calling thread and blocks it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ghostunnel_keystore::{Block, DetectError, Entry, Format, blocks};
use zeroize::Zeroizing;

use super::{KeyPairError, LoadError};

/// How much of a certificate, key or keystore file is read. What lies beyond is ignored, as
/// in Ghostunnel 1.11.1; no real file comes near.
const KEYSTORE_LIMIT: u64 = 50 * 1024 * 1024;

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
    /// Its format is known, but not readable here.
    #[error(
        "{format} keystores are not supported yet by this build; convert it to PEM with: {}",
        conversion(*.format, .path)
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// It holds no PEM block.
    #[error("error reading file '{}', no certificates found", .path.display())]
    NoBlocks {
        /// The file.
        path: PathBuf,
    },
}

impl FileProblem {
    /// Whether the text says already what to do about it.
    fn names_its_remedy(&self) -> bool {
        match self {
            Self::Unsupported { .. }
            | Self::Detect {
                error: DetectError::Unknown,
                ..
            } => true,
            Self::Open(_)
            | Self::Read(_)
            | Self::ReadFirstBytes(_)
            | Self::Detect { .. }
            | Self::NoBlocks { .. } => false,
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
        match self {
            _ if problem.names_its_remedy() => "",
            Self::Certificate => "; --cert must name a readable PEM file with the certificate chain",
            Self::Key => "; --key must name a readable PEM file with the private key",
            Self::Keystore => {
                "; --keystore must name a readable PEM file with certificate chain and private key"
            }
        }
    }
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

/// The contents of `--keystore`, in whichever format it has.
pub(super) fn read_keystore(path: &Path, reading: &mut Reading) -> Result<Entry, LoadError> {
    let found = keystore_blocks(path, reading)
        .map_err(|problem| LoadError::certificate(path, Role::Keystore, problem))?;
    Entry::from_blocks(found).map_err(|error| LoadError::key_pair(KeyPairError::Entry(error), &[path]))
}

fn read_pem(path: &Path, reading: &mut Reading) -> Result<Vec<Block>, FileProblem> {
    let text = reading.read(path, KEYSTORE_LIMIT).map_err(|error| match error {
        ReadError::Open { .. } => FileProblem::Open(error),
        ReadError::Read { .. } => FileProblem::Read(error),
    })?;
    pem_blocks(path, &text)
}

fn keystore_blocks(path: &Path, reading: &mut Reading) -> Result<Vec<Block>, FileProblem> {
    let named = path.to_str().and_then(Format::from_file_name);
    let bytes = reading.read(path, KEYSTORE_LIMIT).map_err(|error| match error {
        ReadError::Open { .. } => FileProblem::Open(error),
        ReadError::Read { .. } if named.is_some() => FileProblem::Read(error),
        ReadError::Read { .. } => FileProblem::ReadFirstBytes(error),
    })?;
    let detected = named.map_or_else(|| Format::from_first_bytes(&bytes), Ok);
    match detected.map_err(|error| FileProblem::Detect {
        path: path.to_owned(),
        error,
    })? {
        Format::Pem => pem_blocks(path, &bytes),
        format @ (Format::Pkcs12 | Format::Jceks | Format::Der) => Err(FileProblem::Unsupported {
            path: path.to_owned(),
            format,
        }),
    }
}

fn pem_blocks(path: &Path, text: &[u8]) -> Result<Vec<Block>, FileProblem> {
    let found = blocks(text);
    if found.is_empty() {
        return Err(FileProblem::NoBlocks {
            path: path.to_owned(),
        });
    }
    Ok(found)
}

/// A command that makes a PEM file of one in this format.
fn conversion(format: Format, path: &Path) -> String {
    let path = path.display();
    match format {
        // Nobody asks: PEM is read as it is.
        Format::Pem => String::new(),
        Format::Pkcs12 => format!("openssl pkcs12 -in {path} -out {path}.pem -nodes"),
        Format::Jceks => format!(
            "keytool -importkeystore -srckeystore {path} -destkeystore {path}.p12 -deststoretype PKCS12 && \
             openssl pkcs12 -in {path}.p12 -out {path}.pem -nodes"
        ),
        Format::Der => {
            // What bytes alone called DER may be a short PKCS#12 file.
            format!(
                "openssl x509 -inform DER -in {path} -out {path}.pem, and append the private key; or, if it is \
                 PKCS#12, with: openssl pkcs12 -in {path} -out {path}.pem -nodes"
            )
        }
    }
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
            Self::Detect { .. } | Self::Unsupported { .. } | Self::NoBlocks { .. } => false,
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
