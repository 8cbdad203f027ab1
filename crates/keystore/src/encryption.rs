//! Encryption with a password, as PKCS#5 and PKCS#12 have it (RFC 8018; RFC 7292, appendices
//! B and C), for reading only.
//!
//! Who made a file says how much work its password costs, so the work is counted: see
//! [`Budget`].

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm as Aes, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use cbc::Decryptor;
use cbc::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit, array::Array};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;
use zeroize::Zeroizing;

use crate::asn1::{INTEGER, NULL, Octets, Reader, SEQUENCE, dotted};

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
        let name = known_name(oid).map_or_else(|| dotted(oid), |name| format!("{name} ({})", dotted(oid)));
        Self::Unsupported { name }
    }
}

/// A password in both encodings that are in use. It has no `Debug`, so that no log can hold it.
pub(crate) struct Password<'a> {
    text: &'a str,
    /// What PKCS#12's own key derivation takes: a BMPString that ends in a zero (RFC 7292,
    /// appendix B.1).
    bmp: Zeroizing<Vec<u8>>,
}

impl<'a> Password<'a> {
    /// `None`: a BMPString can't hold it.
    pub(crate) fn terminated(text: &'a str) -> Option<Self> {
        let bmp = utf16(text)?;
        let mut terminated = Zeroizing::new(Vec::with_capacity(bmp.len().saturating_add(2)));
        terminated.extend_from_slice(&bmp);
        terminated.extend_from_slice(&[0, 0]);
        Some(Self {
            text,
            bmp: terminated,
        })
    }

    /// No password at all, not even the zero at its end. Some programs mean this by an empty
    /// password.
    pub(crate) fn absent() -> Self {
        Self {
            text: "",
            bmp: Zeroizing::default(),
        }
    }

    /// As it was typed.
    pub(crate) fn text(&self) -> &str {
        self.text
    }

    /// The password where PKCS#12's key derivation is not used.
    pub(crate) fn text_only(text: &'a str) -> Self {
        Self {
            bmp: Self::terminated(text)
                .map(|password| password.bmp)
                .unwrap_or_default(),
            text,
        }
    }
}

/// UTF-16 with the higher byte first. `None` if there is a character beyond U+FFFF.
pub(crate) fn utf16(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    // A byte of UTF-8 never becomes more than two.
    let mut encoded = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(2)));
    for character in text.chars() {
        let unit = u16::try_from(u32::from(character)).ok()?;
        encoded.extend_from_slice(&unit.to_be_bytes());
    }
    Some(encoded)
}

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

/// Ciphers of PKCS#12's PBES1. All have blocks of eight bytes and are used in CBC mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OldCipher {
    TripleDes,
    TripleDesTwoKeys,
    Rc2Bits128,
    Rc2Bits40,
}

/// Ciphers of PBES2, in CBC mode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
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
                let key = derivation.derive(password.text.as_bytes(), length, budget)?;
                cipher.decrypt(&key, iv, ciphertext)
            }
        }
    }
}

impl OldCipher {
    fn key_length(self) -> usize {
        match self {
            Self::TripleDes => 24,
            Self::TripleDesTwoKeys | Self::Rc2Bits128 => 16,
            Self::Rc2Bits40 => 5,
        }
    }

    fn decrypt(self, key: &[u8], iv: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        match self {
            Self::TripleDes => decrypt_triple_des(key, iv, text),
            Self::TripleDesTwoKeys => {
                let cipher = TdesEde2::new_from_slice(key).map_err(|_| EncryptionError::Malformed)?;
                decrypt_cbc(cipher, iv, text)
            }
            Self::Rc2Bits128 => decrypt_cbc(Rc2::new_with_eff_key_len(key, 128), iv, text),
            Self::Rc2Bits40 => decrypt_cbc(Rc2::new_with_eff_key_len(key, 40), iv, text),
        }
    }
}

impl Cipher {
    fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    fn decrypt(self, key: &[u8], iv: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
        match self {
            Self::Aes128 => decrypt_aes(&AES_128, key, iv, text),
            Self::Aes192 => decrypt_aes(&AES_192, key, iv, text),
            Self::Aes256 => decrypt_aes(&AES_256, key, iv, text),
            Self::TripleDes => decrypt_triple_des(key, iv, text),
        }
    }
}

fn decrypt_aes(
    algorithm: &'static Aes,
    key: &[u8],
    iv: &[u8],
    text: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    const AES_BLOCK: usize = 16;
    let iv: [u8; AES_BLOCK] = iv.try_into().map_err(|_| EncryptionError::Malformed)?;
    if text.is_empty() || !text.len().is_multiple_of(AES_BLOCK) {
        return Err(EncryptionError::WrongPassword);
    }
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| EncryptionError::Malformed)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| EncryptionError::Malformed)?;
    let mut buffer = Zeroizing::new(text.to_vec());
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = key
        .decrypt(&mut buffer, context)
        .map_err(|_| EncryptionError::WrongPassword)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

pub(crate) fn decrypt_triple_des(
    key: &[u8],
    iv: &[u8],
    text: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EncryptionError> {
    let cipher = TdesEde3::new_from_slice(key).map_err(|_| EncryptionError::Malformed)?;
    decrypt_cbc(cipher, iv, text)
}

/// The block of the older ciphers.
const BLOCK: usize = 8;

fn decrypt_cbc<C>(cipher: C, iv: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, EncryptionError>
where
    Decryptor<C>: InnerIvInit<Inner = C> + BlockModeDecrypt,
    C: cbc::cipher::BlockCipherDecrypt,
{
    let mut decryptor = Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| EncryptionError::Malformed)?;
    if text.is_empty() || !text.len().is_multiple_of(BLOCK) {
        return Err(EncryptionError::WrongPassword);
    }
    let mut buffer = Zeroizing::new(text.to_vec());
    for chunk in buffer.chunks_exact_mut(BLOCK) {
        let block = <&mut Array<u8, _>>::try_from(chunk).map_err(|_| EncryptionError::Malformed)?;
        decryptor.decrypt_block(block);
    }
    let length = unpadded(&buffer).ok_or(EncryptionError::WrongPassword)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The length without padding (RFC 8018, section 6.1.1, step 4).
fn unpadded(text: &[u8]) -> Option<usize> {
    let padding = *text.last()?;
    let length = text.len().checked_sub(usize::from(padding))?;
    let is_padding = text.get(length..)?.iter().all(|byte| *byte == padding);
    (is_padding && (1..=BLOCK).contains(&usize::from(padding))).then_some(length)
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

/// What operators know algorithms by that are not supported.
fn known_name(oid: &[u8]) -> Option<&'static str> {
    Some(match oid {
        oid::PBE_SHA1_RC4_128 => "128-bit RC4",
        oid::PBE_SHA1_RC4_40 => "40-bit RC4",
        oid::PBE_MD5_DES => "PBE-MD5-DES",
        oid::SCRYPT => "scrypt",
        oid::MD5 => "MD5",
        _ => return None,
    })
}

/// Object identifiers, encoded.
pub(crate) mod oid {
    macro_rules! under {
        ($name:ident = $arc:tt . $($last:literal)+; $($rest:tt)*) => {
            pub(crate) const $name: &[u8] = under!(@arc $arc $($last)+);
            under!($($rest)*);
        };
        () => {};
        (@arc rsadsi $($last:literal)+) => { &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, $($last),+] };
        (@arc nist $($last:literal)+) => { &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, $($last),+] };
        (@arc root $($last:literal)+) => { &[$($last),+] };
    }

    under! {
        PBE_MD5_DES = rsadsi . 1 5 3;
        PBKDF2 = rsadsi . 1 5 12;
        PBES2 = rsadsi . 1 5 13;
        PBMAC1 = rsadsi . 1 5 14;
        DATA = rsadsi . 1 7 1;
        SIGNED_DATA = rsadsi . 1 7 2;
        ENCRYPTED_DATA = rsadsi . 1 7 6;
        X509_CERTIFICATE = rsadsi . 1 9 22 1;
        PBE_SHA1_RC4_128 = rsadsi . 1 12 1 1;
        PBE_SHA1_RC4_40 = rsadsi . 1 12 1 2;
        PBE_SHA1_3DES = rsadsi . 1 12 1 3;
        PBE_SHA1_2DES = rsadsi . 1 12 1 4;
        PBE_SHA1_RC2_128 = rsadsi . 1 12 1 5;
        PBE_SHA1_RC2_40 = rsadsi . 1 12 1 6;
        KEY_BAG = rsadsi . 1 12 10 1 1;
        SHROUDED_KEY_BAG = rsadsi . 1 12 10 1 2;
        CERTIFICATE_BAG = rsadsi . 1 12 10 1 3;
        MD5 = rsadsi . 2 5;
        HMAC_SHA1 = rsadsi . 2 7;
        HMAC_SHA256 = rsadsi . 2 9;
        HMAC_SHA384 = rsadsi . 2 10;
        HMAC_SHA512 = rsadsi . 2 11;
        DES_EDE3_CBC = rsadsi . 3 7;
        SHA1 = root . 0x2b 0x0e 3 2 0x1a;
        SCRYPT = root . 0x2b 6 1 4 1 0xda 0x47 4 11;
        AES_128_CBC = nist . 1 2;
        AES_192_CBC = nist . 1 22;
        AES_256_CBC = nist . 1 42;
        SHA256 = nist . 2 1;
        SHA384 = nist . 2 2;
        SHA512 = nist . 2 3;
        // Sun's, for the keys in JCEKS and JKS.
        SUN_JCE_KEY = root . 0x2b 6 1 4 1 42 2 19 1;
        SUN_JKS_KEY = root . 0x2b 6 1 4 1 42 2 17 1 1;
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
                &mut Budget::new(ROUNDS),
            );
            assert_eq!(*derived.expect("little work"), expected, "{text} {purpose:?}");
        }
    }

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
    fn padding_must_be_whole() {
        for (text, expected) in [
            (&[1, 2, 3, 4, 5, 6, 7, 1][..], Some(7)),
            (&[8; 8], Some(0)),
            (&[1, 2, 3, 4, 5, 3, 3, 3], Some(5)),
            (&[1, 2, 3, 4, 5, 2, 3, 3], None),
            (&[1, 2, 3, 4, 5, 6, 7, 0], None),
            (&[9; 16], None),
            (&[8; 4], None),
            (&[], None),
        ] {
            assert_eq!(unpadded(text), expected, "{text:?}");
        }
    }

    #[test]
    fn passwords_are_encoded_unless_they_do_not_fit() {
        assert_eq!(utf16("aß€").as_deref(), Some(&vec![0, 0x61, 0, 0xdf, 0x20, 0xac]));
        assert_eq!(utf16("\u{1f511}"), None);
        let terminated = Password::terminated("a").expect("fits");
        assert_eq!(*terminated.bmp, [0, 0x61, 0, 0]);
        assert!(Password::absent().bmp.is_empty());
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
