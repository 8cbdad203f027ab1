//! Public keys: which kind, and whether the value is one at all.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, EcdsaVerificationAlgorithm,
    ParsedPublicKey,
};

use crate::algorithm;
use crate::der::{Element, Reader, tag};
use crate::error::ParseError;

/// The key in a certificate.
#[derive(Debug)]
pub(crate) enum PublicKey {
    Rsa {
        /// RSAPublicKey of RFC 8017, appendix A.1.1.
        der: Box<[u8]>,
        bits: usize,
    },
    Ecdsa(Curve, ParsedPublicKey),
    Ed25519(Box<[u8]>),
    /// A kind that can own a certificate but whose signatures are never checked.
    Other(&'static str),
}

/// A curve, with the hash that is usual for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const X25519: &[u8] = &[0x2b, 0x65, 0x6e];

impl PublicKey {
    /// Parses a SubjectPublicKeyInfo.
    pub(crate) fn parse(spki: &Element<'_>) -> Result<Self, ParseError> {
        let mut reader = spki.reader();
        let algorithm = reader
            .contents(tag::SEQUENCE)
            .ok_or(ParseError::Malformed("public key algorithm identifier"))?;
        let (oid, parameters) = algorithm::identifier(algorithm)?;
        let key = reader
            .whole_bit_string()
            .ok_or(ParseError::Malformed("subjectPublicKey"))?;
        if !reader.is_empty() {
            return Err(ParseError::Malformed("spki"));
        }
        match oid {
            RSA => parse_rsa(parameters, key),
            EC => parse_ec(parameters, key),
            ED25519 => match (parameters, key.len()) {
                ([], 32) => Ok(Self::Ed25519(key.into())),
                ([], _) => Err(ParseError::PublicKey("wrong Ed25519 public key size")),
                _ => Err(ParseError::PublicKey(
                    "Ed25519 key encoded with illegal parameters",
                )),
            },
            X25519 => match (parameters, key.len()) {
                ([], 32) => Ok(Self::Other("X25519")),
                ([], _) => Err(ParseError::PublicKey("wrong X25519 public key size")),
                _ => Err(ParseError::PublicKey(
                    "X25519 key encoded with illegal parameters",
                )),
            },
            _ => Ok(Self::Other("unknown")),
        }
    }

    /// The name of the kind, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::Ecdsa(..) => "ECDSA",
            Self::Ed25519(_) => "Ed25519",
            Self::Other(kind) => kind,
        }
    }
}

/// Parameters must be NULL (RFC 3279, section 2.3.1); modulus and exponent positive.
fn parse_rsa(parameters: &[u8], key: &[u8]) -> Result<PublicKey, ParseError> {
    if parameters != [0x05, 0x00] {
        return Err(ParseError::PublicKey("RSA key missing NULL parameters"));
    }
    let mut outer = Reader::new(key);
    let mut numbers = outer
        .nested(tag::SEQUENCE)
        .filter(|_| outer.is_empty())
        .ok_or(ParseError::PublicKey("invalid RSA public key"))?;
    let modulus = numbers
        .integer()
        .ok_or(ParseError::PublicKey("invalid RSA modulus"))?;
    let exponent = numbers
        .small_integer_tagged(tag::INTEGER)
        .ok_or(ParseError::PublicKey("invalid RSA public exponent"))?;
    if !numbers.is_empty() {
        return Err(ParseError::PublicKey("invalid RSA public key"));
    }
    let (sign, magnitude) = match *modulus {
        [0, ref magnitude @ ..] => (0, magnitude),
        [first, ..] => (first & 0x80, modulus),
        [] => (0, modulus),
    };
    let Some(first) = magnitude.first().filter(|_| sign == 0) else {
        return Err(ParseError::PublicKey("RSA modulus is not a positive number"));
    };
    if exponent <= 0 {
        return Err(ParseError::PublicKey(
            "RSA public exponent is not a positive number",
        ));
    }
    let unused = usize::try_from(first.leading_zeros()).unwrap_or(0);
    let bits = magnitude.len().saturating_mul(8).saturating_sub(unused);
    Ok(PublicKey::Rsa {
        der: key.into(),
        bits,
    })
}

/// A named curve and an uncompressed point on it (RFC 5480).
fn parse_ec(parameters: &[u8], key: &[u8]) -> Result<PublicKey, ParseError> {
    let mut reader = Reader::new(parameters);
    let oid = reader
        .oid()
        .filter(|_| reader.is_empty())
        .ok_or(ParseError::PublicKey("invalid ECDSA parameters"))?;
    let no_point = ParseError::PublicKey("failed to unmarshal elliptic curve point");
    if key.first() != Some(&0x04) {
        return Err(no_point);
    }
    let curve = match oid.0 {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Curve::P256,
        [0x2b, 0x81, 0x04, 0, 0x22] => Curve::P384,
        [0x2b, 0x81, 0x04, 0, 0x23] => Curve::P521,
        // P-224: the cryptography library does not sign or verify with it.
        [0x2b, 0x81, 0x04, 0, 0x21] if key.len() == 57 => return Ok(PublicKey::Other("P-224")),
        [0x2b, 0x81, 0x04, 0, 0x21] => return Err(no_point),
        _ => return Err(ParseError::PublicKey("unsupported elliptic curve")),
    };
    let parsed = ParsedPublicKey::new(curve.usual(), key).map_err(|_| no_point)?;
    Ok(PublicKey::Ecdsa(curve, parsed))
}

impl Curve {
    fn usual(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
        }
    }
}
