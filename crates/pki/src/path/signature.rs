//! Did this key sign that certificate?

use aws_lc_rs::signature::{
    ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA512_ASN1,
    ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::algorithm::{Hash, SignatureAlgorithm};
use crate::certificate::Certificate;
use crate::public_key::{Curve, PublicKey};

/// RSA keys that are shorter prove nothing.
const SHORTEST_RSA_KEY: usize = 1024;

/// Why a certificate was not signed by a candidate authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    /// The candidate says that it is no authority, or may not sign certificates.
    #[error("x509: invalid signature: parent certificate cannot sign this kind of certificate")]
    NotAnAuthority,
    /// An algorithm or kind of key that is not known or not supported.
    #[error("x509: cannot verify signature: algorithm unimplemented")]
    Unimplemented,
    /// MD5 or SHA-1.
    #[error("x509: cannot verify signature: insecure algorithm {0}")]
    InsecureAlgorithm(&'static str),
    /// The algorithm belongs to another kind of key.
    #[error(
        "x509: signature algorithm specifies an {algorithm} public key, but have public key of type {key}"
    )]
    KeyMismatch {
        /// The kind of key that the algorithm needs.
        algorithm: &'static str,
        /// The kind of key that the authority has.
        key: &'static str,
    },
    /// An RSA key below 1024 bits.
    #[error(
        "crypto/rsa: {bits}-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)"
    )]
    ShortKey {
        /// Length of the modulus.
        bits: usize,
    },
    /// Another key signed, or something else was signed.
    #[error("{}", match *.0 {
        "RSA" => "crypto/rsa: verification error",
        "ECDSA" => "x509: ECDSA verification failure",
        _ => "x509: Ed25519 verification failure",
    })]
    Wrong(&'static str),
}

/// Checks the signature on `child` with the key of `parent`.
///
/// RSA keys have 1024 to 8192 bits. Below 2048 only PKCS#1 with SHA-256 or SHA-512 can be
/// checked, which is what the cryptography library has for such keys.
pub(super) fn verify(child: &Certificate, parent: &Certificate) -> Result<(), SignatureError> {
    let key = parent.public_key();
    match (child.signature_algorithm(), key) {
        (_, PublicKey::Other(_)) | (SignatureAlgorithm::Unknown, _) => Err(SignatureError::Unimplemented),
        (SignatureAlgorithm::Insecure(name), _) => Err(SignatureError::InsecureAlgorithm(name)),
        (SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_), &PublicKey::Rsa { bits, .. })
            if bits < SHORTEST_RSA_KEY =>
        {
            Err(SignatureError::ShortKey { bits })
        }
        (SignatureAlgorithm::RsaPkcs1(hash), PublicKey::Rsa { der, .. }) => {
            unparsed(child, key, pkcs1(hash), der)
        }
        (SignatureAlgorithm::RsaPss(hash), PublicKey::Rsa { der, .. }) => {
            unparsed(child, key, pss(hash), der)
        }
        (SignatureAlgorithm::Ecdsa(hash), PublicKey::Ecdsa(curve, parsed)) => {
            ecdsa(child, key, *curve, hash, parsed)
        }
        (SignatureAlgorithm::Ed25519, PublicKey::Ed25519(bytes)) => unparsed(child, key, &ED25519, bytes),
        (SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_), _) => Err(mismatch("RSA", key)),
        (SignatureAlgorithm::Ecdsa(_), _) => Err(mismatch("ECDSA", key)),
        (SignatureAlgorithm::Ed25519, _) => Err(mismatch("Ed25519", key)),
    }
}

fn mismatch(algorithm: &'static str, key: &PublicKey) -> SignatureError {
    SignatureError::KeyMismatch {
        algorithm,
        key: key.kind(),
    }
}

fn unparsed(
    child: &Certificate,
    key: &PublicKey,
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: &[u8],
) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(algorithm, bytes)
        .verify(child.tbs(), child.signature())
        .map_err(|_| SignatureError::Wrong(key.kind()))
}

/// The key was parsed for the hash that is usual for its curve; any other needs parsing again.
fn ecdsa(
    child: &Certificate,
    key: &PublicKey,
    curve: Curve,
    hash: Hash,
    parsed: &ParsedPublicKey,
) -> Result<(), SignatureError> {
    let algorithm: &'static dyn VerificationAlgorithm = match (curve, hash) {
        (Curve::P256, Hash::Sha256) | (Curve::P384, Hash::Sha384) | (Curve::P521, Hash::Sha512) => {
            return parsed
                .verify_sig(child.tbs(), child.signature())
                .map_err(|_| SignatureError::Wrong(key.kind()));
        }
        (Curve::P256, Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Hash::Sha512) => &ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Hash::Sha512) => &ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Hash::Sha256) => &ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Hash::Sha384) => &ECDSA_P521_SHA384_ASN1,
    };
    unparsed(child, key, algorithm, parsed.as_ref())
}

fn pkcs1(hash: Hash) -> &'static dyn VerificationAlgorithm {
    match hash {
        Hash::Sha256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    }
}

fn pss(hash: Hash) -> &'static dyn VerificationAlgorithm {
    match hash {
        Hash::Sha256 => &RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 => &RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 => &RSA_PSS_2048_8192_SHA512,
    }
}
