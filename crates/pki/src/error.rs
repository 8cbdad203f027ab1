//! Why bytes are not a certificate.

use crate::quote::Quoted;
use crate::uri::UriError;

/// Why a certificate was refused before anybody asked whom it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not strict DER, or not the structure of RFC 5280, section 4.1.
    #[error("x509: malformed {0}")]
    Malformed(&'static str),
    /// Well-formed DER with a value that is not allowed.
    #[error("x509: invalid {0}")]
    Invalid(&'static str),
    /// Bytes behind the certificate.
    #[error("x509: trailing data")]
    TrailingData,
    /// A serial number below zero.
    #[error("x509: negative serial number")]
    NegativeSerial,
    /// The algorithm in the signed part is not the one beside the signature.
    #[error("x509: inner and outer signature algorithm identifiers don't match")]
    AlgorithmMismatch,
    /// An extension that occurs twice.
    #[error("x509: certificate contains duplicate extension with OID {}", Quoted(.0))]
    DuplicateExtension(String),
    /// An extension that must not be critical (RFC 5280, sections 4.2.1.1, 4.2.1.2, 4.2.2.1).
    #[error("x509: {0} incorrectly marked critical")]
    Critical(&'static str),
    /// A public key whose value its algorithm does not allow.
    #[error("x509: {0}")]
    PublicKey(&'static str),
    /// An alternative name that is a URI, but not one that could be parsed.
    #[error("x509: cannot parse URI {}: {reason}", Quoted(.uri))]
    Uri {
        /// The URI as in the certificate.
        uri: String,
        /// What is wrong with it.
        reason: UriError,
    },
}
