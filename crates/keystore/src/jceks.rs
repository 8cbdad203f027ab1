//! Java keystores: JCEKS and JKS. The formats are Sun's, known from its sources only.
//!
//! A file is a list of entries and a hash over them and the password. Keys are encrypted
//! one by one, here with the same password.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use crate::asn1::{Octets, Reader, SEQUENCE, dotted};
use crate::encryption::{
    Budget, EncryptionError, algorithm_identifier, decrypt_triple_des, encrypted_private_key, oid, utf16,
};
use crate::pem::Block;

const JCEKS: [u8; 4] = [0xce; 4];
const JKS: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// What the password is hashed with besides the file, so that it is no plain hash.
const WHITENER: &[u8] = b"Mighty Aphrodite";

/// The longest key or certificate.
const LONGEST: u32 = 20 * 1024 * 1024;

/// Why a Java keystore yields nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JceksError {
    /// There must be a password: the file's integrity rests on it.
    #[error(
        "encoding integrity password: password is unsupported by JCEKS format: empty passwords are not \
         interoperable"
    )]
    EmptyPassword,
    /// A character does not fit into UTF-16's basic plane.
    #[error(
        "encoding integrity password: password is unsupported by JCEKS format: password contains unsupported \
         codepoints"
    )]
    UnencodablePassword,
    /// The first four bytes are those of something else.
    #[error("invalid JCEKS data: unexpected magic: {found} != (cececece || feedfeed)")]
    Magic {
        /// In hexadecimal digits.
        found: String,
    },
    /// Of another version than 2.
    #[error("invalid JCEKS data: unexpected version: {found} != 2")]
    Version {
        /// The number.
        found: u32,
    },
    /// The file ends early, or what it says of itself cannot be.
    #[error("invalid JCEKS data: {0}")]
    Invalid(Place),
    /// A secret key is among the entries. It is a Java object, which is not read here.
    #[error("unsupported JCEKS data: file contains a secret key entry")]
    SecretKey,
    /// An entry is of a kind that nobody knows.
    #[error("unsupported JCEKS data: unknown entry tag {tag}")]
    UnknownEntry {
        /// The number of its kind.
        tag: u32,
    },
    /// The password is another one, or the file was altered.
    #[error("integrity protection violation: keystore was tampered with or password was incorrect")]
    Integrity,
    /// The file's password is right, but the key of this name can't be had with it.
    #[error("unable to recover private key '{alias}': {error}")]
    Key {
        /// The key's name in the file.
        alias: String,
        /// Why.
        error: JavaKeyError,
    },
}

/// Where reading had to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the magic number; whether any byte was there.
    Magic {
        /// None was.
        is_empty: bool,
    },
    /// In the version.
    Version,
    /// In the number of entries.
    Count,
    /// At the tag of an entry.
    Tag(u32),
    /// In an entry.
    Entry(u32),
    /// In the hash at the end, or behind it.
    Checksum,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { is_empty: true } => f.write_str("reading magic: EOF"),
            Self::Magic { is_empty: false } => f.write_str("reading magic: unexpected EOF"),
            Self::Version => f.write_str("reading version: EOF"),
            Self::Count => f.write_str("failed to read entry count"),
            Self::Tag(number) => write!(f, "failed to read entry {number} tag"),
            Self::Entry(number) => write!(f, "failed to read entry {number}"),
            Self::Checksum => f.write_str("failed to read integrity checksum"),
        }
    }
}

/// Why a key can't be decrypted although the file's password is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JavaKeyError {
    /// The password can't be the key's: those are plain ASCII.
    #[error("the password has characters other than printable ASCII")]
    UnencodablePassword,
    /// Encrypted in a way that is not known here.
    #[error("unsupported JCEKS data: private-key protection ({0}) is not supported")]
    UnknownProtection(String),
    /// Decryption failed.
    #[error("{0}")]
    Encryption(EncryptionError),
}

impl JceksError {
    /// Whether another password may help.
    pub(crate) fn is_wrong_password(&self) -> bool {
        matches!(
            self,
            Self::EmptyPassword
                | Self::Integrity
                | Self::Key {
                    error: JavaKeyError::Encryption(EncryptionError::WrongPassword),
                    ..
                }
        )
    }
}

/// What a file holds, in the order in which it is used.
///
/// If there are keys, that is the one whose name comes first, and its chain: trusted
/// certificates beside it are not shown to peers. Otherwise it is the trusted certificates.
pub(crate) fn read(bytes: &[u8], password: &str, mut budget: Budget) -> Result<Vec<Block>, JceksError> {
    if password.is_empty() {
        return Err(JceksError::EmptyPassword);
    }
    let encoded = utf16(password).ok_or(JceksError::UnencodablePassword)?;
    let mut file = Cursor { rest: bytes };
    let Entries {
        mut keys,
        mut trusted,
    } = Entries::read(&mut file)?;
    check_integrity(bytes, file.rest, &encoded)?;
    keys.sort_by(|one, other| one.alias.cmp(other.alias));
    trusted.sort_by(|one, other| one.0.cmp(other.0));
    let Some(first) = keys.first() else {
        return Ok(trusted.iter().map(|(_, der)| Block::certificate(der)).collect());
    };
    let key = first
        .recover(password, &encoded, &mut budget)
        .map_err(|error| JceksError::Key {
            alias: String::from_utf8_lossy(first.alias).escape_debug().to_string(),
            error,
        })?;
    let mut blocks = vec![Block::private_key(key)];
    blocks.extend(first.chain.iter().map(|der| Block::certificate(der)));
    Ok(blocks)
}

/// The hash at the end of the file covers everything before it.
fn check_integrity(bytes: &[u8], checksum: &[u8], password: &[u8]) -> Result<(), JceksError> {
    let hash = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    if checksum.len() != hash.output_len() {
        return Err(JceksError::Invalid(Place::Checksum));
    }
    let covered = bytes
        .get(..bytes.len().saturating_sub(checksum.len()))
        .unwrap_or_default();
    let mut context = digest::Context::new(hash);
    context.update(password);
    context.update(WHITENER);
    context.update(covered);
    verify_slices_are_equal(context.finish().as_ref(), checksum).map_err(|_| JceksError::Integrity)
}

/// Numbers are big endian.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A name, in Java's own UTF-8.
    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_be_bytes)?;
        self.take(length.into())
    }

    /// A key or certificate.
    fn item(&mut self) -> Option<&'a [u8]> {
        let length = self.number().filter(|length| *length <= LONGEST)?;
        self.take(usize::try_from(length).ok()?)
    }

    fn certificate(&mut self) -> Option<&'a [u8]> {
        (self.name()? == b"X.509").then(|| self.item())?
    }
}

/// All entries, not yet known to be genuine.
#[derive(Default)]
struct Entries<'a> {
    keys: Vec<KeyEntry<'a>>,
    /// Names and certificates.
    trusted: Vec<(&'a [u8], &'a [u8])>,
}

struct KeyEntry<'a> {
    alias: &'a [u8],
    encrypted: &'a [u8],
    chain: Vec<&'a [u8]>,
}

impl<'a> Entries<'a> {
    fn read(file: &mut Cursor<'a>) -> Result<Self, JceksError> {
        let is_empty = file.rest.is_empty();
        let magic: [u8; 4] = file
            .array()
            .ok_or(JceksError::Invalid(Place::Magic { is_empty }))?;
        if magic != JCEKS && magic != JKS {
            let found = magic.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(JceksError::Magic { found });
        }
        match file.number().ok_or(JceksError::Invalid(Place::Version))? {
            2 => {}
            found => return Err(JceksError::Version { found }),
        }
        let count = file.number().ok_or(JceksError::Invalid(Place::Count))?;
        let mut entries = Self::default();
        for number in 0..count {
            let tag = file.number().ok_or(JceksError::Invalid(Place::Tag(number)))?;
            entries
                .read_entry(tag, file)
                .unwrap_or(Err(JceksError::Invalid(Place::Entry(number))))?;
        }
        Ok(entries)
    }

    /// `None`: it is cut off.
    fn read_entry(&mut self, tag: u32, file: &mut Cursor<'a>) -> Option<Result<(), JceksError>> {
        const PRIVATE_KEY: u32 = 1;
        const TRUSTED_CERTIFICATE: u32 = 2;
        const SECRET_KEY: u32 = 3;
        match tag {
            PRIVATE_KEY => {
                let alias = header(file)?;
                let encrypted = file.item()?;
                let count = file.number()?;
                let chain = (0..count).map(|_| file.certificate()).collect::<Option<_>>()?;
                self.keys.push(KeyEntry {
                    alias,
                    encrypted,
                    chain,
                });
            }
            TRUSTED_CERTIFICATE => {
                let alias = header(file)?;
                self.trusted.push((alias, file.certificate()?));
            }
            SECRET_KEY => return Some(Err(JceksError::SecretKey)),
            tag => return Some(Err(JceksError::UnknownEntry { tag })),
        }
        Some(Ok(()))
    }
}

/// The name of an entry. The time at which it was made is passed over.
fn header<'a>(file: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let alias = file.name()?;
    file.take(size_of::<i64>())?;
    Some(alias)
}

impl KeyEntry<'_> {
    /// The key as PKCS#8.
    fn recover(
        &self,
        password: &str,
        encoded: &[u8],
        budget: &mut Budget,
    ) -> Result<Zeroizing<Vec<u8>>, JavaKeyError> {
        let wrong = || JavaKeyError::Encryption(EncryptionError::WrongPassword);
        let malformed = || JavaKeyError::Encryption(EncryptionError::Malformed);
        let (algorithm, ciphertext) = encrypted_private_key(self.encrypted).ok_or_else(malformed)?;
        let (protection, parameters) = algorithm_identifier(algorithm).map_err(JavaKeyError::Encryption)?;
        let key = match protection {
            oid::SUN_JCE_KEY => recover_jce(parameters, &ciphertext, password, budget)?,
            oid::SUN_JKS_KEY => recover_jks(&ciphertext, encoded).ok_or_else(wrong)?,
            other => return Err(JavaKeyError::UnknownProtection(dotted(other))),
        };
        let is_structure = Reader::new(&key).element(SEQUENCE).is_some();
        is_structure.then_some(key).ok_or_else(wrong)
    }
}

/// The protection of keys in JCEKS: triple DES, by a key derived with MD5.
fn recover_jce(
    mut parameters: Reader<'_>,
    ciphertext: &Octets<'_>,
    password: &str,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, JavaKeyError> {
    if !password.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Err(JavaKeyError::UnencodablePassword);
    }
    let malformed = || JavaKeyError::Encryption(EncryptionError::Malformed);
    let mut parameters = parameters.nested(SEQUENCE).ok_or_else(malformed)?;
    let salt = parameters.octets().ok_or_else(malformed)?;
    let salt: [u8; 8] = (*salt).try_into().map_err(|_| malformed())?;
    let iterations = parameters
        .unsigned()
        .filter(|count| *count > 0)
        .ok_or_else(malformed)?;

    budget.spend(iterations).map_err(JavaKeyError::Encryption)?;
    let derived = derive_jce(password.as_bytes(), salt, iterations);
    let (key, iv) = derived.split_at(24);
    decrypt_triple_des(key, iv, ciphertext).map_err(JavaKeyError::Encryption)
}

/// Key and initialization vector. Both halves of the salt are hashed by themselves; the first
/// is reversed if they are equal, as the results would be.
fn derive_jce(password: &[u8], salt: [u8; 8], iterations: u64) -> Zeroizing<[u8; 32]> {
    let [a, b, c, d, second @ ..] = salt;
    let mut first = [a, b, c, d];
    if first == second {
        first.reverse();
    }
    let mut derived = Zeroizing::new([0; 32]);
    for (salt, half) in [first, second].into_iter().zip(derived.chunks_exact_mut(16)) {
        let mut state = Zeroizing::new(salt.to_vec());
        for _ in 0..iterations {
            let mut hash = Md5::new();
            hash.update(&state);
            hash.update(password);
            state = Zeroizing::new(hash.finalize().to_vec());
        }
        half.copy_from_slice(&state);
    }
    derived
}

/// The protection of keys in JKS: a stream of hashes, and one more to tell whether the
/// password was right. `None`: it was not.
fn recover_jks(ciphertext: &[u8], password: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const HASH: usize = digest::SHA1_OUTPUT_LEN;
    let (salt, rest) = ciphertext.split_at_checked(HASH)?;
    let (text, check) = rest.split_at_checked(rest.len().checked_sub(HASH)?)?;
    let hash = |data: &[u8]| {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(password);
        context.update(data);
        context.finish()
    };
    let mut key = Zeroizing::new(text.to_vec());
    let mut stream = hash(salt);
    for chunk in key.chunks_mut(HASH) {
        for (byte, mask) in chunk.iter_mut().zip(stream.as_ref()) {
            *byte ^= mask;
        }
        stream = hash(stream.as_ref());
    }
    verify_slices_are_equal(hash(&key).as_ref(), check).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use crate::encryption::ROUNDS;

    const PASSWORD: &str = "changeit";

    fn read(bytes: &[u8], password: &str) -> Result<Vec<Block>, JceksError> {
        super::read(bytes, password, Budget::new(ROUNDS))
    }

    /// A file with these entries, and a right checksum.
    fn file(magic: [u8; 4], count: u32, entries: &[u8]) -> Vec<u8> {
        let mut bytes = [&magic[..], &2_u32.to_be_bytes(), &count.to_be_bytes(), entries].concat();
        let password = utf16(PASSWORD).expect("ASCII");
        let hashed = [&password[..], WHITENER, &bytes].concat();
        bytes.extend(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
        bytes
    }

    fn named(tag: u32, alias: &str) -> Vec<u8> {
        let length = u16::try_from(alias.len()).expect("short").to_be_bytes();
        [&tag.to_be_bytes()[..], &length, alias.as_bytes(), &[0; 8]].concat()
    }

    fn item(contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(contents.len()).expect("short").to_be_bytes();
        [&length[..], contents].concat()
    }

    fn trusted(alias: &str, certificate: &[u8]) -> Vec<u8> {
        [&named(2, alias)[..], &[0, 5], b"X.509", &item(certificate)].concat()
    }

    fn failure(bytes: &[u8], password: &str) -> String {
        read(bytes, password).expect_err("something is wrong").to_string()
    }

    #[test]
    fn checks_have_an_order_and_a_text_each() {
        let good = file(JCEKS, 1, &trusted("a", b"certificate"));
        assert_eq!(read(&good, PASSWORD).expect("good").len(), 1);
        let magic = [&[0x30, 0x82, 4, 0x0c][..], &good[4..]].concat();
        let version = [&good[..4], &[0, 0, 0, 1], &good[8..]].concat();
        let mut altered = good.clone();
        altered[20] ^= 1;
        let huge = [&named(1, "a")[..], &(LONGEST + 1).to_be_bytes()].concat();
        for (bytes, password, expected) in [
            (
                &b"whatever"[..],
                "",
                "encoding integrity password: password is unsupported by JCEKS format: empty passwords are not \
                 interoperable",
            ),
            (
                b"whatever",
                "\u{1f511}",
                "encoding integrity password: password is unsupported by JCEKS format: password contains unsupported \
                 codepoints",
            ),
            (b"", PASSWORD, "invalid JCEKS data: reading magic: EOF"),
            (
                &good[..3],
                PASSWORD,
                "invalid JCEKS data: reading magic: unexpected EOF",
            ),
            (
                &magic,
                PASSWORD,
                "invalid JCEKS data: unexpected magic: 3082040c != (cececece || feedfeed)",
            ),
            (&good[..4], PASSWORD, "invalid JCEKS data: reading version: EOF"),
            (
                &version,
                PASSWORD,
                "invalid JCEKS data: unexpected version: 1 != 2",
            ),
            (
                &good[..8],
                PASSWORD,
                "invalid JCEKS data: failed to read entry count",
            ),
            (
                &good[..12],
                PASSWORD,
                "invalid JCEKS data: failed to read entry 0 tag",
            ),
            (
                &good[..20],
                PASSWORD,
                "invalid JCEKS data: failed to read entry 0",
            ),
            (
                &good[..good.len() - 1],
                PASSWORD,
                "invalid JCEKS data: failed to read integrity checksum",
            ),
            (
                &file(JKS, 1, &named(3, "a")),
                PASSWORD,
                "unsupported JCEKS data: file contains a secret key entry",
            ),
            (
                &file(JKS, 1, &named(4, "a")),
                PASSWORD,
                "unsupported JCEKS data: unknown entry tag 4",
            ),
            (
                &file(JKS, 1, &huge),
                PASSWORD,
                "invalid JCEKS data: failed to read entry 0",
            ),
            (
                &altered,
                PASSWORD,
                "integrity protection violation: keystore was tampered with or password was incorrect",
            ),
            (
                &good,
                "other",
                "integrity protection violation: keystore was tampered with or password was incorrect",
            ),
        ] {
            assert_eq!(failure(bytes, password), expected);
        }
    }

    #[test]
    fn trusted_certificates_alone_are_handed_on_by_name() {
        let entries = [trusted("b", b"second"), trusted("a", b"first")].concat();
        let found = read(&file(JKS, 2, &entries), PASSWORD).expect("good");
        let contents: Vec<&[u8]> = found.iter().map(Block::contents).collect();
        assert_eq!(contents, [&b"first"[..], b"second"]);
    }

    #[test]
    fn claimed_counts_cost_nothing() {
        // What stands in place of the first entry is the checksum.
        let failure_of_none = failure(&file(JCEKS, u32::MAX, &[]), PASSWORD);
        assert!(
            failure_of_none.starts_with("unsupported JCEKS data: unknown entry tag"),
            "{failure_of_none}"
        );
        let chain = [&named(1, "a")[..], &item(b"key"), &u32::MAX.to_be_bytes()].concat();
        assert_eq!(
            failure(&file(JCEKS, 1, &chain), PASSWORD),
            "invalid JCEKS data: failed to read entry 0"
        );
    }

    #[test]
    fn keys_that_ask_for_too_much_work_are_refused() {
        // SEQUENCE { SEQUENCE { protection, SEQUENCE { salt, iterations } }, ciphertext }
        let with = |iterations: [u8; 4]| {
            let parameters = [&[0x30, 16, 4, 8][..], &[7; 8], &[2, 4], &iterations].concat();
            let oid = [&[6, 9][..], oid::SUN_JCE_KEY].concat();
            let algorithm = [&[0x30, 29][..], &oid, &parameters].concat();
            let key = [&[0x30, 41][..], &algorithm, &[4, 8], &[0; 8]].concat();
            let entry = [&named(1, "a\n")[..], &item(&key), &0_u32.to_be_bytes()].concat();
            failure(&file(JCEKS, 1, &entry), PASSWORD)
        };
        assert_eq!(
            with(10_000_001_u32.to_be_bytes()),
            "unable to recover private key 'a\\n': the file asks for more iterations of hashing than the 10000000 that are allowed"
        );
        assert_eq!(
            with([0, 0, 0, 2]),
            "unable to recover private key 'a\\n': decryption failed with the given password"
        );
        assert_eq!(
            with([0, 0, 0, 0]),
            "unable to recover private key 'a\\n': malformed encryption parameters"
        );
    }

    #[test]
    fn equal_halves_of_a_salt_are_told_apart() {
        let derived = derive_jce(b"x", [1, 2, 3, 4, 1, 2, 3, 4], 3);
        let (first, second) = derived.split_at(16);
        assert_ne!(first, second);
        assert_eq!(
            second,
            derive_jce(b"x", [9, 9, 9, 9, 1, 2, 3, 4], 3).split_at(16).1
        );
        assert_eq!(
            first,
            derive_jce(b"x", [4, 3, 2, 1, 9, 9, 9, 9], 3).split_at(16).0
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, PASSWORD);
            let _ = read(&file(JCEKS, 1, &bytes), PASSWORD);
        }
    }
}
