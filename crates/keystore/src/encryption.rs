//! Encryption with a password, as PKCS#5 and PKCS#12 have it (RFC 8018; RFC 7292, appendices
//! B and C), for reading only.
//!
//! Who made a file says how much work its password costs, so the work is counted: see
//! [`Budget`].

mod cipher;
mod derivation;
pub(crate) mod oid;
mod password;

use zeroize::Zeroizing;

use crate::asn1::{NULL, Octets, Reader, SEQUENCE, dotted};

use cipher::{BLOCK, Cipher, OldCipher};

pub(crate) use cipher::decrypt_triple_des;
pub(crate) use derivation::{Hash, Pbkdf2, Purpose, derive_pkcs12};
pub(crate) use password::{Password, utf16};

/// The rounds of hashing that one file may cost, all its keys and checksums together. OpenSSL
/// asks for 2,048 a key, Java for 10,000, NSS for 600,000; this many take seconds.
pub(crate) const ROUNDS: u64 = 10_000_000;

/// How much work a file may still cost.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Budget {
    pub(crate) fn new(rounds: u64) -> Self {
        Self(rounds)
    }

    /// Takes the work of `rounds` rounds out, before it is done.
    pub(crate) fn spend(&mut self, rounds: u64) -> Result<(), EncryptionError> {
        self.0 = self.0.checked_sub(rounds).ok_or(EncryptionError::TooManyRounds)?;
        Ok(())
    }
}

/// Why something encrypted could not be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    /// The parameters of the encryption are not what they should be.
    #[error("malformed encryption parameters")]
    Malformed,
    /// The algorithm is not one of those known here.
    #[error("algorithm {name} is not supported")]
    Unsupported {
        /// Its name, or its object identifier.
        name: String,
    },
    /// The file asks for more rounds of hashing than anybody should wait for.
    #[error("the file asks for more iterations of hashing than the {ROUNDS} that are allowed")]
    TooManyRounds,
    /// The result is no plaintext: the password is another one, or the file is corrupt.
    #[error("decryption failed with the given password")]
    WrongPassword,
}

impl EncryptionError {
    fn unsupported(oid: &[u8]) -> Self {
        let name =
            oid::known_name(oid).map_or_else(|| dotted(oid), |name| format!("{name} ({})", dotted(oid)));
        Self::Unsupported { name }
    }
}

/// How something is encrypted with a password.
pub(crate) enum Scheme<'a> {
    /// PBES1 as PKCS#12 has it (RFC 7292, appendix C).
    Pkcs12 {
        cipher: OldCipher,
        salt: Octets<'a>,
        iterations: u64,
    },
    /// PBES2 with PBKDF2 (RFC 8018, section 6.2).
    Pbes2 {
        derivation: Pbkdf2<'a>,
        cipher: Cipher,
        iv: Octets<'a>,
    },
}

impl<'a> Scheme<'a> {
    /// Reads an AlgorithmIdentifier.
    pub(crate) fn parse(algorithm: Reader<'a>) -> Result<Self, EncryptionError> {
        let (oid, mut rest) = algorithm_identifier(algorithm)?;
        let cipher = match oid {
            oid::PBES2 => return Self::parse_pbes2(rest),
            oid::PBE_SHA1_3DES => OldCipher::TripleDes,
            oid::PBE_SHA1_2DES => OldCipher::TripleDesTwoKeys,
            oid::PBE_SHA1_RC2_128 => OldCipher::Rc2Bits128,
            oid::PBE_SHA1_RC2_40 => OldCipher::Rc2Bits40,
            other => return Err(EncryptionError::unsupported(other)),
        };
        let mut parameters = rest.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
        Ok(Self::Pkcs12 {
            cipher,
            salt: parameters.octets().ok_or(EncryptionError::Malformed)?,
            iterations: parameters.unsigned().ok_or(EncryptionError::Malformed)?,
        })
    }

    fn parse_pbes2(mut rest: Reader<'a>) -> Result<Self, EncryptionError> {
        let mut parameters = rest.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
        let derivation = parameters.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
        let encryption = parameters.nested(SEQUENCE).ok_or(EncryptionError::Malformed)?;
        let derivation = Pbkdf2::parse(derivation)?;
        let (oid, mut rest) = algorithm_identifier(encryption)?;
        let cipher = match oid {
            oid::AES_128_CBC => Cipher::Aes128,
            oid::AES_192_CBC => Cipher::Aes192,
            oid::AES_256_CBC => Cipher::Aes256,
            oid::DES_EDE3_CBC => Cipher::TripleDes,
            other => return Err(EncryptionError::unsupported(other)),
        };
        let iv = rest.octets().ok_or(EncryptionError::Malformed)?;
        Ok(Self::Pbes2 {
            derivation,
            cipher,
            iv,
        })
    }

    /// Decrypts and takes the padding off.
    pub(crate) fn decrypt(
        &self,
        ciphertext: &[u8],
        password: &Password<'_>,
        budget: &mut Budget,
    ) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        match self {
            Self::Pkcs12 {
                cipher,
                salt,
                iterations,
            } => {
                let mut derive = |purpose, length| {
                    derive_pkcs12(Hash::Sha1, purpose, password, salt, *iterations, length, budget)
                };
                let key = derive(Purpose::Key, cipher.key_length())?;
                let iv = derive(Purpose::Iv, BLOCK)?;
                cipher.decrypt(&key, &iv, ciphertext)
            }
            Self::Pbes2 {
                derivation,
                cipher,
                iv,
            } => {
                let length = cipher.key_length();
                // Where the file repeats the length, it must be that of the cipher.
                let said = derivation.length.map_or(Ok(length), usize::try_from);
                if said != Ok(length) {
                    return Err(EncryptionError::Malformed);
                }
                let key = derivation.derive(password.text().as_bytes(), length, budget)?;
                cipher.decrypt(&key, iv, ciphertext)
            }
        }
    }
}

/// An EncryptedPrivateKeyInfo (RFC 5958, section 3): its algorithm and its ciphertext.
pub(crate) fn encrypted_private_key(der: &[u8]) -> Option<(Reader<'_>, Octets<'_>)> {
    let mut info = Reader::new(der).nested(SEQUENCE)?;
    let algorithm = info.nested(SEQUENCE)?;
    Some((algorithm, info.octets()?))
}

/// Decrypts an EncryptedPrivateKeyInfo.
pub(crate) fn decrypt_private_key(
    der: &[u8],
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    let (algorithm, ciphertext) = encrypted_private_key(der).ok_or(EncryptionError::Malformed)?;
    let plaintext = Scheme::parse(algorithm)?.decrypt(&ciphertext, password, budget)?;
    // One wrong password in 256 leaves what looks like padding.
    let is_structure = Reader::new(&plaintext).element(SEQUENCE).is_some();
    is_structure
        .then_some(plaintext)
        .ok_or(EncryptionError::WrongPassword)
}

/// The object identifier of an algorithm, and where its parameters may follow. Absent ones
/// may be written as NULL.
pub(crate) fn algorithm_identifier(
    mut algorithm: Reader<'_>,
) -> Result<(&[u8], Reader<'_>), EncryptionError> {
    let oid = algorithm.oid().ok_or(EncryptionError::Malformed)?;
    if algorithm.peeks(NULL) {
        let _ = algorithm.any();
    }
    Ok((oid, algorithm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_refused_before_it_is_done() {
        let password = Password::terminated("x").expect("ASCII");
        let derive = |iterations| {
            let mut budget = Budget::new(ROUNDS);
            derive_pkcs12(
                Hash::Sha1,
                Purpose::Key,
                &password,
                b"salt",
                iterations,
                24,
                &mut budget,
            )
        };
        // A key of 24 bytes takes two blocks of SHA-1.
        for iterations in [ROUNDS / 2 + 1, u64::MAX] {
            assert_eq!(derive(iterations).err(), Some(EncryptionError::TooManyRounds));
        }
        let mut budget = Budget::new(ROUNDS);
        assert_eq!(budget.spend(ROUNDS), Ok(()));
        assert_eq!(budget.spend(1), Err(EncryptionError::TooManyRounds));
    }

    #[test]
    fn algorithms_that_are_not_supported_are_named() {
        for (oid, expected) in [
            (
                oid::PBE_SHA1_RC4_40,
                "algorithm 40-bit RC4 (1.2.840.113549.1.12.1.2) is not supported",
            ),
            (
                oid::SCRYPT,
                "algorithm scrypt (1.3.6.1.4.1.11591.4.11) is not supported",
            ),
            (&[0x2a, 3], "algorithm 1.2.3 is not supported"),
        ] {
            assert_eq!(EncryptionError::unsupported(oid).to_string(), expected);
        }
    }
}
