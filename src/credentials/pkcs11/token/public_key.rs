//! The leaf's public key in the terms in which a token is asked for it.

use aws_lc_rs::signature as verify;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::SubjectPublicKeyInfoDer;

use super::failure::Failure;

/// A public key to sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    spki: SubjectPublicKeyInfoDer<'static>,
    /// The subjectPublicKey: an RSAPublicKey or a point.
    value: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ecdsa(Curve),
}

/// The curves that TLS signs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

/// The OBJECT IDENTIFIERs of RFC 3279, section 2.3, RFC 5480, section 2.1.1.1, and RFC 8410,
/// section 3, with tag and length.
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x22];
const P521: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0, 0x23];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    pub(super) fn of(spki: &[u8]) -> Result<Self, Failure> {
        const OTHER: Failure = Failure::Unsupported("unknown");
        let (spki_contents, _) = element(SEQUENCE, spki).ok_or(OTHER)?;
        let (algorithm, rest) = element(SEQUENCE, spki_contents).ok_or(OTHER)?;
        let (key, _) = element(BIT_STRING, rest).ok_or(OTHER)?;
        // The first byte counts unused bits, of which a key has none.
        let Some((0, value)) = key.split_first() else {
            return Err(OTHER);
        };
        let kind = if algorithm.starts_with(RSA) {
            rsa(value)?
        } else if let Some(curve) = algorithm.strip_prefix(EC) {
            Kind::Ecdsa(match curve {
                P256 => Curve::P256,
                P384 => Curve::P384,
                P521 => Curve::P521,
                _ => return Err(Failure::Unsupported("*ecdsa.PublicKey on another curve")),
            })
        } else if algorithm.starts_with(ED25519) {
            return Err(Failure::Unsupported("ed25519.PublicKey"));
        } else {
            return Err(OTHER);
        };
        Ok(Self {
            spki: spki.to_vec().into(),
            value: value.to_vec(),
            kind,
        })
    }

    /// As it is in the certificate.
    pub(super) fn spki(&self) -> SubjectPublicKeyInfoDer<'_> {
        SubjectPublicKeyInfoDer::from(self.spki.as_ref())
    }

    /// Which signatures go with it.
    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            Kind::Rsa { .. } => SignatureAlgorithm::RSA,
            Kind::Ecdsa(_) => SignatureAlgorithm::ECDSA,
        }
    }

    /// The schemes this key can sign with, the best first.
    pub(super) fn schemes(&self) -> &'static [SignatureScheme] {
        match self.kind {
            Kind::Rsa { .. } => &[
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PKCS1_SHA512,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA256,
            ],
            Kind::Ecdsa(Curve::P256) => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Kind::Ecdsa(Curve::P384) => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Kind::Ecdsa(Curve::P521) => &[SignatureScheme::ECDSA_NISTP521_SHA512],
        }
    }

    /// What to ask a token for to find this public key; the second way for tokens that have
    /// the point without its OCTET STRING.
    pub(super) fn templates(&self) -> Vec<Vec<Attribute>> {
        match &self.kind {
            Kind::Rsa { modulus, exponent } => vec![vec![
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::KeyType(KeyType::RSA),
                Attribute::Modulus(modulus.clone()),
                Attribute::PublicExponent(exponent.clone()),
            ]],
            Kind::Ecdsa(curve) => [octet_string(&self.value), self.value.clone()]
                .into_iter()
                .map(|point| {
                    vec![
                        Attribute::Class(ObjectClass::PUBLIC_KEY),
                        Attribute::KeyType(KeyType::EC),
                        Attribute::EcParams(curve.identifier().to_vec()),
                        Attribute::EcPoint(point),
                    ]
                })
                .collect(),
        }
    }

    /// What to ask for where the public key is not on the token. An RSA private key shows its
    /// modulus; nothing an EC private key shows tells which it is.
    pub(super) fn private_template(&self) -> Option<Vec<Attribute>> {
        match &self.kind {
            Kind::Rsa { modulus, .. } => Some(vec![
                Attribute::Class(ObjectClass::PRIVATE_KEY),
                Attribute::KeyType(KeyType::RSA),
                Attribute::Modulus(modulus.clone()),
            ]),
            Kind::Ecdsa(_) => None,
        }
    }

    /// Whether this key's private half made the signature.
    pub(super) fn verifies(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn verify::VerificationAlgorithm = match scheme {
            SignatureScheme::RSA_PSS_SHA512 => &verify::RSA_PSS_2048_8192_SHA512,
            SignatureScheme::RSA_PSS_SHA384 => &verify::RSA_PSS_2048_8192_SHA384,
            SignatureScheme::RSA_PSS_SHA256 => &verify::RSA_PSS_2048_8192_SHA256,
            SignatureScheme::RSA_PKCS1_SHA512 => &verify::RSA_PKCS1_2048_8192_SHA512,
            SignatureScheme::RSA_PKCS1_SHA384 => &verify::RSA_PKCS1_2048_8192_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256 => &verify::RSA_PKCS1_2048_8192_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256 => &verify::ECDSA_P256_SHA256_ASN1,
            SignatureScheme::ECDSA_NISTP384_SHA384 => &verify::ECDSA_P384_SHA384_ASN1,
            SignatureScheme::ECDSA_NISTP521_SHA512 => &verify::ECDSA_P521_SHA512_ASN1,
            _ => return false,
        };
        verify::UnparsedPublicKey::new(algorithm, &self.value)
            .verify(message, signature)
            .is_ok()
    }
}

impl Curve {
    /// What CKA_EC_PARAMS holds for a named curve.
    fn identifier(self) -> &'static [u8] {
        match self {
            Self::P256 => P256,
            Self::P384 => P384,
            Self::P521 => P521,
        }
    }
}

/// An RSAPublicKey (RFC 8017, appendix A.1.1). Numbers go to the token without the zero that
/// keeps them positive in DER.
fn rsa(key: &[u8]) -> Result<Kind, Failure> {
    const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
    const BAD: Failure = Failure::Unsupported("*rsa.PublicKey");
    let (numbers, _) = element(SEQUENCE, key).ok_or(BAD)?;
    let (modulus, rest) = element(INTEGER, numbers).ok_or(BAD)?;
    let (exponent, _) = element(INTEGER, rest).ok_or(BAD)?;
    let [modulus, exponent] = [modulus, exponent].map(without_zeros);
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = modulus.len().saturating_mul(8).saturating_sub(unused as usize);
    if !BITS.contains(&bits) {
        return Err(Failure::Unsupported(
            "*rsa.PublicKey with less than 2048 or more than 8192 bits",
        ));
    }
    Ok(Kind::Rsa {
        modulus: modulus.to_vec(),
        exponent: exponent.to_vec(),
    })
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The contents of a DER element of this kind at the beginning, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first.checked_sub(0x80) {
        None => (usize::from(first), rest),
        Some(count) => {
            let (digits, rest) = rest.split_at_checked(usize::from(count))?;
            // Longer than four bytes no certificate is.
            let is_sane = (1..=4).contains(&digits.len());
            let length = digits
                .iter()
                .fold(0, |length, digit| length << 8 | usize::from(*digit));
            (is_sane.then_some(length)?, rest)
        }
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

/// Wraps a point: CKA_EC_POINT is DER.
fn octet_string(contents: &[u8]) -> Vec<u8> {
    let mut der = vec![OCTET_STRING];
    match u8::try_from(contents.len()) {
        Ok(short @ 0..0x80) => der.push(short),
        Ok(byte) => der.extend([0x81, byte]),
        // No curve has points of that length.
        Err(_) => return contents.to_vec(),
    }
    der.extend(contents);
    der
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    fn spki(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        KeyPair::generate_for(algorithm)
            .expect("key")
            .subject_public_key_info()
    }

    #[test]
    fn keys_are_asked_for_by_their_numbers() {
        let rsa = PublicKey::of(&spki(&rcgen::PKCS_RSA_SHA256)).expect("RSA");
        let Kind::Rsa { modulus, exponent } = &rsa.kind else {
            panic!("{rsa:?}")
        };
        assert_eq!((modulus.len(), exponent.as_slice()), (256, &[1, 0, 1][..]));
        for (algorithm, curve, point) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Curve::P256, 65),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Curve::P384, 97),
            (&rcgen::PKCS_ECDSA_P521_SHA512, Curve::P521, 133),
        ] {
            let key = PublicKey::of(&spki(algorithm)).expect("ECDSA");
            assert_eq!((&key.kind, key.value.len()), (&Kind::Ecdsa(curve), point));
            let Some(Attribute::EcPoint(wrapped)) = key.templates()[0].last().cloned() else {
                panic!("a point")
            };
            let (inner, rest) = element(OCTET_STRING, &wrapped).expect("DER");
            assert_eq!((inner, rest), (&key.value[..], &[][..]));
        }
    }

    #[test]
    fn kinds_that_no_token_is_asked_for_are_named() {
        let error = PublicKey::of(&spki(&rcgen::PKCS_ED25519)).expect_err("Ed25519");
        assert_eq!(
            error.to_string(),
            "pkcs11key: looking up public key: unsupported public key of type ed25519.PublicKey"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, key in prop::sample::select(vec![RSA, EC, ED25519])) {
            let _ = PublicKey::of(&bytes);
            let mut der = vec![SEQUENCE, 0x7f, SEQUENCE, 20];
            der.extend(key);
            der.extend(bytes);
            let _ = PublicKey::of(&der);
        }
    }
}
