//! Signature algorithms of certificates.

use crate::der::{Reader, tag};
use crate::error::ParseError;

/// How a certificate was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    RsaPkcs1(Hash),
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
    /// Known and broken: MD5 or SHA-1, under the name that the log shows.
    Insecure(&'static str),
    /// Anything else. A certificate may have it; nothing is ever proved by it.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];

/// Parses the contents of an AlgorithmIdentifier beside a signature.
pub(crate) fn signature(contents: &[u8]) -> Result<SignatureAlgorithm, ParseError> {
    use SignatureAlgorithm::{Ecdsa, Ed25519, Insecure, RsaPkcs1, Unknown};
    let (oid, parameters) = identifier(contents)?;
    Ok(match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11] => RsaPkcs1(Hash::Sha256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => RsaPkcs1(Hash::Sha384),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] => RsaPkcs1(Hash::Sha512),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => Ecdsa(Hash::Sha256),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => Ecdsa(Hash::Sha384),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => Ecdsa(Hash::Sha512),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4] => Insecure("MD5-RSA"),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5] | [0x2b, 0x0e, 3, 2, 0x1d] => Insecure("SHA1-RSA"),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => Insecure("ECDSA-SHA1"),
        RSA_PSS => pss(parameters).map_or(Unknown, SignatureAlgorithm::RsaPss),
        // RFC 8410, section 3: no parameters.
        ED25519 if parameters.is_empty() => Ed25519,
        _ => Unknown,
    })
}

/// Splits an AlgorithmIdentifier into object identifier and encoded parameters.
pub(crate) fn identifier(contents: &[u8]) -> Result<(&[u8], &[u8]), ParseError> {
    let mut reader = Reader::new(contents);
    let oid = reader.oid().ok_or(ParseError::Malformed("OID"))?;
    if reader.is_empty() {
        return Ok((oid.0, &[]));
    }
    let parameters = reader.any().ok_or(ParseError::Malformed("parameters"))?;
    match contents.get(parameters.span) {
        Some(parameters) if reader.is_empty() => Ok((oid.0, parameters)),
        _ => Err(ParseError::Malformed("parameters")),
    }
}

/// RSASSA-PSS parameters (RFC 4055, section 3.1): one hash for message and mask, a salt as
/// long as the hash, the usual trailer. Everything else is unknown.
fn pss(parameters: &[u8]) -> Option<Hash> {
    let mut reader = Reader::new(parameters);
    let mut fields = reader.nested(tag::SEQUENCE)?;
    let message_hash = hash(fields.nested(tag::constructed(0))?.contents(tag::SEQUENCE)?)?;
    let mask = fields.nested(tag::constructed(1))?.contents(tag::SEQUENCE)?;
    let (mask, mask_hash) = identifier(mask).ok()?;
    let mask_hash = hash(Reader::new(mask_hash).contents(tag::SEQUENCE)?)?;
    let salt = fields
        .nested(tag::constructed(2))?
        .small_integer_tagged(tag::INTEGER)?;
    let trailer = match fields.optional(tag::constructed(3))? {
        Some(trailer) => trailer.reader().small_integer_tagged(tag::INTEGER)?,
        None => 1,
    };
    let length = match message_hash {
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    };
    let usual = mask == MGF1 && mask_hash == message_hash && salt == length && trailer == 1;
    (usual && fields.is_empty() && reader.is_empty()).then_some(message_hash)
}

fn hash(contents: &[u8]) -> Option<Hash> {
    match identifier(contents).ok()? {
        (oid, [] | [0x05, 0x00]) => match oid {
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1] => Some(Hash::Sha256),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2] => Some(Hash::Sha384),
            [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3] => Some(Hash::Sha512),
            _ => None,
        },
        _ => None,
    }
}
