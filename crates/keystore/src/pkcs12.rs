//! PKCS#12, also called PFX (RFC 7292; RFC 9579 for PBMAC1), for reading only.
//!
//! Integrity and privacy must both rest on the password: files that are signed, or encrypted
//! for a public key, hold keys for other programs.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::asn1::{CONTEXT_0, INTEGER, Missing, Octets, Reader, SEQUENCE};
use crate::encryption::{
    Budget, EncryptionError, Hash, Password, Pbkdf2, Purpose, Scheme, algorithm_identifier,
    decrypt_private_key, derive_pkcs12, oid,
};
use crate::pem::Block;

/// The parts of a file, each of which may be encrypted by itself. Files have one or two.
const PARTS: usize = 64;

/// Why a PKCS#12 file yields no certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Error {
    /// Something else, or cut off.
    #[error("error reading P12 data: {reason}")]
    NotPkcs12 {
        /// In the terms of ASN.1.
        reason: &'static str,
    },
    /// The outer structure is right, something in it is not.
    #[error("error reading P12 data: malformed {part}")]
    Malformed {
        /// Where.
        part: &'static str,
    },
    /// Of another version than 3, which all programs write.
    #[error("unknown version, only 3 is supported")]
    Version,
    /// Protected by something else than a password.
    #[error("only files protected by a password are supported, not by a public key")]
    NotByPassword,
    /// There is no checksum, so nobody could tell whether the file was altered.
    #[error("no MAC in data")]
    NoMac,
    /// The password is another one, or the file was altered.
    #[error("decryption password incorrect")]
    WrongPassword,
    /// A character of the password does not fit the format.
    #[error("the password has a character beyond U+FFFF, which this format can't hold")]
    UnencodablePassword,
    /// The checksum uses an algorithm that is not supported, or too much work.
    #[error("cannot verify its MAC: {0}")]
    Mac(#[source] EncryptionError),
    /// Certificates can't be decrypted.
    #[error("cannot decrypt its certificates: {0}")]
    Certificates(#[source] EncryptionError),
    /// The key can't be decrypted.
    #[error("cannot decrypt its private key: {0}")]
    Key(#[source] EncryptionError),
    /// There is no certificate.
    #[error("certificate missing")]
    NoCertificate,
    /// There are certificates, but no key.
    #[error("private key missing")]
    NoKey,
    /// Nobody says which one to use.
    #[error("expected exactly one key bag")]
    SeveralKeys,
}

impl Pkcs12Error {
    /// Whether another password may help.
    pub(crate) fn is_wrong_password(&self) -> bool {
        matches!(
            self,
            Self::WrongPassword
                | Self::Certificates(EncryptionError::WrongPassword)
                | Self::Key(EncryptionError::WrongPassword)
        )
    }
}

/// Whether a file begins like PKCS#12: a structure whose first element is the number 3.
pub(crate) fn is_likely(bytes: &[u8]) -> bool {
    // A few bytes suffice, so the file may be longer than what is looked at.
    let after_header = match bytes {
        [SEQUENCE, length @ 0x81..=0x84, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        [SEQUENCE, _, rest @ ..] => Some(rest),
        _ => None,
    };
    after_header.is_some_and(|rest| rest.starts_with(&[INTEGER, 1, 3]))
}

/// The certificates and the one key of a file, in its order.
pub(crate) fn read(bytes: &[u8], password: &str, mut budget: Budget) -> Result<Vec<Block>, Pkcs12Error> {
    let file = Pfx::parse(bytes)?;
    let with_terminator = Password::terminated(password).ok_or(Pkcs12Error::UnencodablePassword)?;
    let first = file.open(&with_terminator, password.is_empty(), &mut budget);
    match first {
        // Programs do not agree on what an empty password is.
        Err(error) if password.is_empty() && error.is_wrong_password() => {
            file.open(&Password::absent(), true, &mut budget)
        }
        result => result,
    }
}

/// The outer structure (RFC 7292, section 4).
struct Pfx<'a> {
    /// The AuthenticatedSafe, which the checksum covers.
    safe: Octets<'a>,
    mac: Option<Reader<'a>>,
}

impl<'a> Pfx<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Pkcs12Error> {
        let mut pfx = outer(bytes)?;
        match pfx.unsigned() {
            Some(3) => {}
            Some(_) => return Err(Pkcs12Error::Version),
            None => {
                return Err(Pkcs12Error::NotPkcs12 {
                    reason: "asn1: structure error: tags don't match",
                });
            }
        }
        let malformed = Pkcs12Error::Malformed {
            part: "authenticated safe",
        };
        let mut content = pfx.nested(SEQUENCE).ok_or_else(|| malformed.clone())?;
        match content.oid() {
            Some(oid::DATA) => {}
            Some(oid::SIGNED_DATA) => return Err(Pkcs12Error::NotByPassword),
            _ => return Err(malformed),
        }
        let safe = content
            .nested(CONTEXT_0)
            .and_then(|mut explicit| explicit.octets());
        Ok(Self {
            safe: safe.ok_or(malformed)?,
            mac: pfx.nested(SEQUENCE),
        })
    }

    fn open(
        &self,
        password: &Password<'_>,
        is_empty: bool,
        budget: &mut Budget,
    ) -> Result<Vec<Block>, Pkcs12Error> {
        match self.mac {
            Some(mac) => {
                verify(mac, &self.safe, password, budget)?;
                self.contents(password, budget)
            }
            // What a wrong password leaves may look like anything.
            None if is_empty => self.contents(password, budget).map_err(|error| match error {
                Pkcs12Error::Certificates(EncryptionError::WrongPassword)
                | Pkcs12Error::Key(EncryptionError::WrongPassword)
                | Pkcs12Error::Malformed { part: BAG } => Pkcs12Error::WrongPassword,
                error => error,
            }),
            None => Err(Pkcs12Error::NoMac),
        }
    }

    fn contents(&self, password: &Password<'_>, budget: &mut Budget) -> Result<Vec<Block>, Pkcs12Error> {
        let mut found = Contents::default();
        let malformed = Pkcs12Error::Malformed {
            part: "authenticated safe",
        };
        let mut parts = Reader::new(&self.safe)
            .nested(SEQUENCE)
            .ok_or_else(|| malformed.clone())?;
        for _ in 0..PARTS {
            if parts.is_empty() {
                return found.into_blocks();
            }
            let part = parts.nested(SEQUENCE).ok_or_else(|| malformed.clone())?;
            found.add_part(part, password, budget)?;
        }
        Err(malformed)
    }
}

/// Descends into what should be the file's one element.
fn outer(bytes: &[u8]) -> Result<Reader<'_>, Pkcs12Error> {
    let wrong = |reason| Err(Pkcs12Error::NotPkcs12 { reason });
    let mut file = Reader::new(bytes);
    if !file.is_empty() && !file.peeks(SEQUENCE) {
        return wrong("asn1: structure error: tags don't match");
    }
    let element = match file.next() {
        Ok(element) => element,
        Err(Missing::End) => return wrong("asn1: syntax error: sequence truncated"),
        Err(Missing::Truncated) => return wrong("asn1: syntax error: data truncated"),
        Err(Missing::Malformed) => return wrong("asn1: structure error: malformed length or tag"),
    };
    if !file.is_empty() {
        return wrong("trailing data found");
    }
    Ok(element.reader())
}

/// Checks that whoever wrote the file knew the password.
fn verify(
    mut mac: Reader<'_>,
    covered: &[u8],
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<(), Pkcs12Error> {
    let malformed = || Pkcs12Error::Mac(EncryptionError::Malformed);
    let mut info = mac.nested(SEQUENCE).ok_or_else(malformed)?;
    let algorithm = info.nested(SEQUENCE).ok_or_else(malformed)?;
    let expected = info.octets().ok_or_else(malformed)?;
    let (algorithm, parameters) = algorithm_identifier(algorithm).map_err(Pkcs12Error::Mac)?;
    let (hash, key) = if algorithm == oid::PBMAC1 {
        pbmac1_key(parameters, password, budget)
    } else {
        let salt = mac.octets().ok_or_else(malformed)?;
        let iterations = if mac.is_empty() { Some(1) } else { mac.unsigned() };
        let iterations = iterations.ok_or_else(malformed)?;
        pkcs12_mac_key(algorithm, &salt, iterations, password, budget)
    }
    .map_err(Pkcs12Error::Mac)?;
    let key = hmac::Key::new(hmac_with(hash), &key);
    hmac::verify(&key, covered, &expected).map_err(|_| Pkcs12Error::WrongPassword)
}

/// The classic checksum: HMAC, with a key from PKCS#12's own derivation.
fn pkcs12_mac_key(
    digest: &[u8],
    salt: &[u8],
    iterations: u64,
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<(Hash, Zeroizing<Vec<u8>>), EncryptionError> {
    let hash = Hash::by_digest_oid(digest)?;
    let key = derive_pkcs12(
        hash,
        Purpose::Mac,
        password,
        salt,
        iterations,
        hash.length(),
        budget,
    )?;
    Ok((hash, key))
}

/// PBMAC1: HMAC, with a key from PBKDF2 (RFC 9579; RFC 8018, appendix A.5). The salt and the
/// iterations beside it have no meaning then.
fn pbmac1_key(
    mut parameters: Reader<'_>,
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<(Hash, Zeroizing<Vec<u8>>), EncryptionError> {
    /// No hash here has longer blocks, and HMAC hashes longer keys first.
    const LONGEST: u64 = 128;
    let mut parameters = parameters.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
    let derivation = parameters.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
    let scheme = parameters.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
    let derivation = Pbkdf2::parse(derivation)?;
    let hash = Hash::by_hmac_oid(algorithm_identifier(scheme)?.0)?;
    // The length must be there, and not so short that it could be guessed (RFC 9579, section 4).
    let length = derivation.length.filter(|length| (20..=LONGEST).contains(length));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.ok_or(EncryptionError::Malformed)?;
    Ok((
        hash,
        derivation.derive(password.text().as_bytes(), length, budget)?,
    ))
}

fn hmac_with(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    }
}

/// What holds a certificate or a key.
const BAG: &str = "bag";

/// What was found so far.
#[derive(Default)]
struct Contents {
    certificates: Vec<Block>,
    key: Option<Block>,
}

impl Contents {
    /// Adds a ContentInfo of the AuthenticatedSafe (RFC 7292, section 4.1).
    fn add_part(
        &mut self,
        mut part: Reader<'_>,
        password: &Password<'_>,
        budget: &mut Budget,
    ) -> Result<(), Pkcs12Error> {
        let malformed = || Pkcs12Error::Malformed { part: "content" };
        let kind = part.oid().ok_or_else(malformed)?;
        let mut explicit = part.nested(CONTEXT_0).ok_or_else(malformed)?;
        match kind {
            oid::DATA => {
                let safe = explicit.octets().ok_or_else(malformed)?;
                self.add_safe(&safe, password, budget)
            }
            oid::ENCRYPTED_DATA => {
                let (algorithm, ciphertext) = encrypted_data(explicit).ok_or_else(malformed)?;
                let safe = Scheme::parse(algorithm)
                    .and_then(|scheme| scheme.decrypt(&ciphertext, password, budget))
                    .map_err(Pkcs12Error::Certificates)?;
                self.add_safe(&safe, password, budget)
            }
            _ => Err(Pkcs12Error::NotByPassword),
        }
    }

    /// Adds the bags of a SafeContents (RFC 7292, section 4.2). Those with something else
    /// than keys and certificates are passed over.
    fn add_safe(
        &mut self,
        safe: &[u8],
        password: &Password<'_>,
        budget: &mut Budget,
    ) -> Result<(), Pkcs12Error> {
        let malformed = || Pkcs12Error::Malformed { part: BAG };
        let mut bags = Reader::new(safe).nested(SEQUENCE).ok_or_else(malformed)?;
        while !bags.is_empty() {
            let mut bag = bags.nested(SEQUENCE).ok_or_else(malformed)?;
            let kind = bag.oid().ok_or_else(malformed)?;
            let mut value = bag.nested(CONTEXT_0).ok_or_else(malformed)?;
            match kind {
                oid::CERTIFICATE_BAG => {
                    if let Some(der) = certificate(value).ok_or_else(malformed)? {
                        self.certificates.push(Block::certificate(&der));
                    }
                }
                oid::KEY_BAG => {
                    let key = value.element(SEQUENCE).ok_or_else(malformed)?;
                    self.set_key(Block::private_key(Zeroizing::new(key.whole.to_vec())))?;
                }
                oid::SHROUDED_KEY_BAG => {
                    let key = value.element(SEQUENCE).ok_or_else(malformed)?;
                    let key = decrypt_private_key(key.whole, password, budget).map_err(Pkcs12Error::Key)?;
                    self.set_key(Block::private_key(key))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set_key(&mut self, key: Block) -> Result<(), Pkcs12Error> {
        match self.key.replace(key) {
            None => Ok(()),
            Some(_) => Err(Pkcs12Error::SeveralKeys),
        }
    }

    fn into_blocks(self) -> Result<Vec<Block>, Pkcs12Error> {
        if self.certificates.is_empty() {
            return Err(Pkcs12Error::NoCertificate);
        }
        let mut blocks = self.certificates;
        blocks.push(self.key.ok_or(Pkcs12Error::NoKey)?);
        Ok(blocks)
    }
}

/// The algorithm and the ciphertext of an EncryptedData (RFC 5652, section 8).
fn encrypted_data(mut explicit: Reader<'_>) -> Option<(Reader<'_>, Octets<'_>)> {
    /// `[0]` in place of the tag of an OCTET STRING.
    const CONTENT: u8 = 0x80;
    let mut data = explicit.nested(SEQUENCE)?;
    data.unsigned()?;
    let mut info = data.nested(SEQUENCE)?;
    info.oid()?;
    let algorithm = info.nested(SEQUENCE)?;
    let content = info.any()?;
    matches!(content.tag, CONTENT | CONTEXT_0).then_some(())?;
    Some((algorithm, content.octets()?))
}

/// The certificate of a CertBag (RFC 7292, section 4.2.3). `Some(None)`: of another kind than
/// X.509.
fn certificate(mut value: Reader<'_>) -> Option<Option<Octets<'_>>> {
    let mut bag = value.nested(SEQUENCE)?;
    if bag.oid()? != oid::X509_CERTIFICATE {
        return Some(None);
    }
    bag.nested(CONTEXT_0)?.octets().map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_pkcs12_is_said_in_the_terms_of_asn1() {
        for (bytes, expected) in [
            (
                &b""[..],
                "error reading P12 data: asn1: syntax error: sequence truncated",
            ),
            (
                b"-----BEGIN",
                "error reading P12 data: asn1: structure error: tags don't match",
            ),
            (
                &[0x30, 0x82, 0x10, 0, 2, 1, 3],
                "error reading P12 data: asn1: syntax error: data truncated",
            ),
            (
                &[0x30, 3, 0x30, 1, 3],
                "error reading P12 data: asn1: structure error: tags don't match",
            ),
            (&[0x30, 3, 2, 1, 2], "unknown version, only 3 is supported"),
            (
                &[0x30, 3, 2, 1, 3],
                "error reading P12 data: malformed authenticated safe",
            ),
            (
                &[0x30, 3, 2, 1, 3, 0],
                "error reading P12 data: trailing data found",
            ),
        ] {
            let error = read(bytes, "secret", Budget::new(0)).expect_err("no PKCS#12");
            assert_eq!(error.to_string(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn beginning_of_a_file_tells_pkcs12_from_certificates() {
        for (bytes, expected) in [
            (&[0x30, 0x82, 3, 0x10, 2, 1, 3, 0x30][..], true),
            (&[0x30, 0x80, 2, 1, 3, 0x30], true),
            (&[0x30, 0x81, 0xff, 2, 1, 3], true),
            (&[0x30, 5, 2, 1, 3, 0x30], true),
            (&[0x30, 0x82, 3, 0x10, 0x30, 0x82, 2, 0], false),
            (&[0x30, 0x82, 3, 0x10], false),
            (&[0x30, 0x84], false),
            (b"-----", false),
            (b"", false),
        ] {
            assert_eq!(is_likely(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes, "", Budget::new(1000));
            let _ = is_likely(&bytes);
        }
    }
}
