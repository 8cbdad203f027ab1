//! From a signature scheme of TLS to what a token computes, and back.

use aws_lc_rs::digest;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use rustls::SignatureScheme;

/// How a token makes the signatures of a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    padding: Padding,
    hash: Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Pkcs1,
    /// The salt is as long as the hash (RFC 8446, section 4.2.3).
    Pss,
    /// No padding, but two numbers side by side instead of DER.
    Ecdsa,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Method {
    /// `None` for schemes that no key of a token has.
    pub(super) fn of(scheme: SignatureScheme) -> Option<Self> {
        let (padding, hash) = match scheme {
            SignatureScheme::RSA_PKCS1_SHA256 => (Padding::Pkcs1, Hash::Sha256),
            SignatureScheme::RSA_PKCS1_SHA384 => (Padding::Pkcs1, Hash::Sha384),
            SignatureScheme::RSA_PKCS1_SHA512 => (Padding::Pkcs1, Hash::Sha512),
            SignatureScheme::RSA_PSS_SHA256 => (Padding::Pss, Hash::Sha256),
            SignatureScheme::RSA_PSS_SHA384 => (Padding::Pss, Hash::Sha384),
            SignatureScheme::RSA_PSS_SHA512 => (Padding::Pss, Hash::Sha512),
            SignatureScheme::ECDSA_NISTP256_SHA256 => (Padding::Ecdsa, Hash::Sha256),
            SignatureScheme::ECDSA_NISTP384_SHA384 => (Padding::Ecdsa, Hash::Sha384),
            SignatureScheme::ECDSA_NISTP521_SHA512 => (Padding::Ecdsa, Hash::Sha512),
            _ => return None,
        };
        Some(Self { padding, hash })
    }

    /// Signs [`Method::input`]: what every token has.
    pub(super) fn mechanism(self) -> Mechanism<'static> {
        match self.padding {
            Padding::Pkcs1 => Mechanism::RsaPkcs,
            Padding::Pss => Mechanism::RsaPkcsPss(self.hash.pss()),
            Padding::Ecdsa => Mechanism::Ecdsa,
        }
    }

    /// Signs the message itself, in parts. For keys that want the PIN for each signature: it
    /// is shown between two calls, which signing at one go does not have.
    pub(super) fn hashing_mechanism(self) -> Mechanism<'static> {
        let pss = self.hash.pss();
        match (self.padding, self.hash) {
            (Padding::Pkcs1, Hash::Sha256) => Mechanism::Sha256RsaPkcs,
            (Padding::Pkcs1, Hash::Sha384) => Mechanism::Sha384RsaPkcs,
            (Padding::Pkcs1, Hash::Sha512) => Mechanism::Sha512RsaPkcs,
            (Padding::Pss, Hash::Sha256) => Mechanism::Sha256RsaPkcsPss(pss),
            (Padding::Pss, Hash::Sha384) => Mechanism::Sha384RsaPkcsPss(pss),
            (Padding::Pss, Hash::Sha512) => Mechanism::Sha512RsaPkcsPss(pss),
            (Padding::Ecdsa, Hash::Sha256) => Mechanism::EcdsaSha256,
            (Padding::Ecdsa, Hash::Sha384) => Mechanism::EcdsaSha384,
            (Padding::Ecdsa, Hash::Sha512) => Mechanism::EcdsaSha512,
        }
    }

    /// Whether a token with these mechanisms can do it.
    pub(super) fn is_among(self, mechanisms: &[MechanismType], signs_messages: bool) -> bool {
        let wanted = if signs_messages {
            self.hashing_mechanism()
        } else {
            self.mechanism()
        };
        mechanisms.contains(&wanted.mechanism_type())
    }

    /// What the token is given of a message: its hash, for PKCS#1 in a DigestInfo.
    pub(super) fn input(self, message: &[u8]) -> Vec<u8> {
        let digest = digest::digest(self.hash.algorithm(), message);
        match self.padding {
            Padding::Pkcs1 => [self.hash.digest_info(), digest.as_ref()].concat(),
            Padding::Pss | Padding::Ecdsa => digest.as_ref().to_vec(),
        }
    }

    /// The signature as TLS has it. `None` if the token's bytes are none.
    pub(super) fn encode(self, raw: Vec<u8>) -> Option<Vec<u8>> {
        match self.padding {
            Padding::Pkcs1 | Padding::Pss => Some(raw).filter(|raw| !raw.is_empty()),
            Padding::Ecdsa => ecdsa_der(&raw),
        }
    }
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn pss(self) -> PkcsPssParams {
        let (hash_alg, mgf, length) = match self {
            Self::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32_u32),
            Self::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
            Self::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
        };
        PkcsPssParams {
            hash_alg,
            mgf,
            s_len: u64::from(length).into(),
        }
    }

    /// What stands before the hash in a DigestInfo (RFC 8017, section 9.2, note 1).
    fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha256 => &[
                0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
                0x05, 0x00, 0x04, 0x20,
            ],
            Self::Sha384 => &[
                0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
                0x05, 0x00, 0x04, 0x30,
            ],
            Self::Sha512 => &[
                0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
                0x05, 0x00, 0x04, 0x40,
            ],
        }
    }
}

/// An ECDSA-Sig-Value (RFC 3279, section 2.2.3) of two numbers of equal length.
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    if raw.is_empty() || !raw.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    let numbers = [integer(r)?, integer(s)?].concat();
    let length = u8::try_from(numbers.len()).ok()?;
    let mut der = vec![SEQUENCE];
    // Two numbers on P-521 take more than 127 bytes.
    if length >= 0x80 {
        der.push(0x81);
    }
    der.push(length);
    der.extend(numbers);
    Some(der)
}

/// A positive INTEGER: no more zeros in front than keep it positive. Zero is in no signature.
fn integer(number: &[u8]) -> Option<Vec<u8>> {
    const INTEGER: u8 = 0x02;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..)?;
    let sign: &[u8] = if *digits.first()? >= 0x80 { &[0] } else { &[] };
    let length = u8::try_from(digits.len().saturating_add(sign.len())).ok()?;
    (length < 0x80).then(|| [&[INTEGER, length], sign, digits].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_become_the_shortest_positive_integers() {
        for (raw, der) in [
            (&[1, 2][..], &[0x30, 6, 2, 1, 1, 2, 1, 2][..]),
            (&[0, 1, 0x80, 0], &[0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]),
            (&[0x7f, 0xff], &[0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0xff]),
        ] {
            assert_eq!(ecdsa_der(raw).as_deref(), Some(der), "{raw:?}");
        }
    }

    #[test]
    fn lengths_beyond_127_take_two_bytes() {
        let der = ecdsa_der(&[0x01; 132]).expect("a signature on P-521");
        assert_eq!(der[..3], [0x30, 0x81, 2 * (2 + 66)]);
        assert_eq!(der.len(), 3 + 2 * (2 + 66));
    }

    #[test]
    fn what_is_no_signature_is_not_encoded() {
        for raw in [&[][..], &[1], &[1, 2, 3], &[0, 1], &[1, 0], &[1; 300]] {
            assert_eq!(ecdsa_der(raw), None, "{raw:?}");
        }
        let rsa = Method::of(SignatureScheme::RSA_PSS_SHA256).expect("known");
        assert_eq!(rsa.encode(Vec::new()), None);
    }

    #[test]
    fn pkcs1_input_is_a_whole_digest_info() {
        for (scheme, length) in [
            (SignatureScheme::RSA_PKCS1_SHA256, 32),
            (SignatureScheme::RSA_PKCS1_SHA384, 48),
            (SignatureScheme::RSA_PKCS1_SHA512, 64),
        ] {
            let input = Method::of(scheme).expect("known").input(b"message");
            assert_eq!(input.len(), 19 + length, "{scheme:?}");
            assert_eq!(usize::from(input[1]), 17 + length, "{scheme:?}");
            assert_eq!(usize::from(input[18]), length, "{scheme:?}");
        }
    }

    #[test]
    fn schemes_that_no_token_key_has_are_unknown() {
        for scheme in [SignatureScheme::ED25519, SignatureScheme::RSA_PKCS1_SHA1] {
            assert_eq!(Method::of(scheme), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(raw: Vec<u8>) {
            let _ = ecdsa_der(&raw);
        }
    }
}
