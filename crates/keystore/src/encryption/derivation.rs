//! Keys from passwords: PKCS#12's own way, and PBKDF2.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, pbkdf2};
use zeroize::Zeroizing;

use super::{Budget, EncryptionError, Password, algorithm_identifier, oid};
use crate::asn1::{INTEGER, Octets, Reader, SEQUENCE};

/// A hash that is used by name: in checksums, to derive keys, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By the object identifier of the hash itself (RFC 8017, appendix B.1).
    pub(crate) fn by_digest_oid(oid: &[u8]) -> Result<Self, EncryptionError> {
        match oid {
            oid::SHA1 => Ok(Self::Sha1),
            oid::SHA256 => Ok(Self::Sha256),
            oid::SHA384 => Ok(Self::Sha384),
            oid::SHA512 => Ok(Self::Sha512),
            other => Err(EncryptionError::unsupported(other)),
        }
    }

    /// By the object identifier of HMAC with it (RFC 8018, appendix B.1).
    pub(crate) fn by_hmac_oid(oid: &[u8]) -> Result<Self, EncryptionError> {
        match oid {
            oid::HMAC_SHA1 => Ok(Self::Sha1),
            oid::HMAC_SHA256 => Ok(Self::Sha256),
            oid::HMAC_SHA384 => Ok(Self::Sha384),
            oid::HMAC_SHA512 => Ok(Self::Sha512),
            other => Err(EncryptionError::unsupported(other)),
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// The length of its output.
    pub(crate) fn length(self) -> usize {
        self.digest().output_len()
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha384 => pbkdf2::PBKDF2_HMAC_SHA384,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// What PKCS#12 derives from a password. The numbers are those of RFC 7292, appendix B.3.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// PKCS#12's own key derivation (RFC 7292, appendix B.2).
pub(crate) fn derive_pkcs12(
    hash: Hash,
    purpose: Purpose,
    password: &Password<'_>,
    salt: &[u8],
    iterations: u64,
    length: usize,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    let blocks = length.div_ceil(hash.length());
    budget.spend(iterations.saturating_mul(u64::try_from(blocks).unwrap_or(u64::MAX)))?;
    let width = hash.digest().block_len();
    let diversifier = vec![purpose as u8; width];
    let filled = |bytes: &[u8]| bytes.len().div_ceil(width).saturating_mul(width);
    let (salt_length, password_length) = (filled(salt), filled(&password.bmp));
    let mut input = Zeroizing::new(Vec::with_capacity(salt_length.saturating_add(password_length)));
    input.extend(salt.iter().cycle().take(salt_length));
    input.extend(password.bmp.iter().cycle().take(password_length));

    let mut derived = Zeroizing::new(Vec::with_capacity(blocks.saturating_mul(hash.length())));
    while derived.len() < length {
        let mut context = digest::Context::new(hash.digest());
        context.update(&diversifier);
        context.update(&input);
        let mut block = context.finish();
        for _ in 1..iterations {
            block = digest::digest(hash.digest(), block.as_ref());
        }
        derived.extend_from_slice(block.as_ref());
        for chunk in input.chunks_mut(width) {
            add_with_one(chunk, block.as_ref());
        }
    }
    derived.truncate(length);
    Ok(derived)
}

/// Adds `addend`, repeated to the same length, and one to a number; what overflows is lost.
fn add_with_one(number: &mut [u8], addend: &[u8]) {
    let mut carry = 1_u16;
    // From the lowest digit on, which is the last.
    for (position, digit) in number.iter_mut().enumerate().rev() {
        let other = position
            .checked_rem(addend.len())
            .and_then(|position| addend.get(position));
        let sum = u16::from(*digit) + other.map_or(0, |other| u16::from(*other)) + carry;
        let [high, low] = sum.to_be_bytes();
        (*digit, carry) = (low, u16::from(high));
    }
}

/// The parameters of PBKDF2 (RFC 8018, appendix A.2).
pub(crate) struct Pbkdf2<'a> {
    salt: Octets<'a>,
    iterations: u64,
    /// The length of the derived key, if the file says it.
    pub(crate) length: Option<u64>,
    hash: Hash,
}

impl<'a> Pbkdf2<'a> {
    /// Reads an AlgorithmIdentifier that should be PBKDF2.
    pub(crate) fn parse(algorithm: Reader<'a>) -> Result<Self, EncryptionError> {
        let (oid, mut rest) = algorithm_identifier(algorithm)?;
        if oid != oid::PBKDF2 {
            return Err(EncryptionError::unsupported(oid));
        }
        let mut parameters = rest.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
        let salt = parameters.octets().ok_or(EncryptionError::Malformed)?;
        let iterations = parameters.unsigned().ok_or(EncryptionError::Malformed)?;
        let length = if parameters.peeks(INTEGER) {
            Some(parameters.unsigned().ok_or(EncryptionError::Malformed)?)
        } else {
            None
        };
        let hash = match parameters.nested(SEQUENCE) {
            Some(prf) => Hash::by_hmac_oid(algorithm_identifier(prf)?.0)?,
            // The default.
            None => Hash::Sha1,
        };
        Ok(Self {
            salt,
            iterations,
            length,
            hash,
        })
    }

    /// Derives a key of this length.
    pub(crate) fn derive(
        &self,
        password: &[u8],
        length: usize,
        budget: &mut Budget,
    ) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        let blocks = u64::try_from(length.div_ceil(self.hash.length())).unwrap_or(u64::MAX);
        budget.spend(self.iterations.saturating_mul(blocks))?;
        let iterations = u32::try_from(self.iterations).ok().and_then(NonZeroU32::new);
        let iterations = iterations.ok_or(EncryptionError::Malformed)?;
        let mut key = Zeroizing::new(vec![0; length]);
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &self.salt, password, &mut key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).expect("digits"))
            .collect()
    }

    /// Vectors that Peter Gutmann published and other implementations test with.
    #[test]
    fn pkcs12_keys_are_derived_as_elsewhere() {
        for (text, salt, iterations, purpose, expected) in [
            (
                "smeg",
                "0A58CF64530D823F",
                1,
                Purpose::Key,
                "8AAAE6297B6CB04642AB5B077851284EB7128F1A2A7FBCA3",
            ),
            ("smeg", "0A58CF64530D823F", 1, Purpose::Iv, "79993DFE048D3B76"),
            (
                "smeg",
                "3D83C0E4546AC140",
                1,
                Purpose::Mac,
                "8D967D88F6CAA9D714800AB3D48051D63F73A312",
            ),
            (
                "queeg",
                "05DEC959ACFF72F7",
                1000,
                Purpose::Key,
                "ED2034E36328830FF09DF1E1A07DD357185DAC0D4F9EB3D4",
            ),
            ("queeg", "05DEC959ACFF72F7", 1000, Purpose::Iv, "11DEDAD7758D4860"),
            (
                "queeg",
                "263216FCC2FAB31C",
                1000,
                Purpose::Mac,
                "5EC4C7A80DF652294C3925B6489A7AB857C83476",
            ),
        ] {
            let password = Password::terminated(text).expect("ASCII");
            let expected = bytes(expected);
            let derived = derive_pkcs12(
                Hash::Sha1,
                purpose,
                &password,
                &bytes(salt),
                iterations,
                expected.len(),
                &mut Budget::new(10_000),
            );
            assert_eq!(*derived.expect("little work"), expected, "{text} {purpose:?}");
        }
    }
}
