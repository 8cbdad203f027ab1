//! Path validation: from a leaf through whatever else the peer sent to a trust anchor.
//!
//! The verdicts are those of Ghostunnel 1.11.1, which differ from RFC 5280 where users
//! rely on it: leaves may be of version 1 or authorities themselves, a leaf that is an
//! anchor needs no issuer, and anchors are checked like any other certificate (validity,
//! constraints, usage) instead of being reduced to a name and a key.
//!
//! Known differences from its verdicts, each stricter and each about certificates that
//! hardly exist: bytes behind the last element of a structure are refused everywhere;
//! so are extensions in certificates of version 1 or 2, negative policy constraints, and
//! hosts with several colons in URIs. Keys on P-224, DSA keys and RSA keys beyond 8192
//! bits never prove a signature, RSA keys below 2048 bits only with PKCS#1 and SHA-256 or
//! SHA-512. A policy mapping that names anyPolicy always fails the chain. More than 250,000
//! steps of comparing names with constraints do too.
//!
//! `build` searches, `check` judges one certificate in its place, `constraints` and
//! `policy` judge whole chains, `signature` asks the cryptography library.

mod build;
mod check;
pub(crate) mod constraints;
mod policy;
mod signature;

use std::collections::{HashMap, HashSet};

use crate::certificate::Certificate;
use crate::hostname;
use crate::quote::Quoted;
use crate::time::Time;
use signature::SignatureError;

/// The certificates that an operator trusts.
#[derive(Debug, Clone, Default)]
pub struct TrustAnchors {
    certificates: Vec<Certificate>,
    members: HashSet<Certificate>,
    by_subject: HashMap<Box<[u8]>, Vec<usize>>,
}

impl TrustAnchors {
    /// Anchors in the given order; repeated ones count once.
    pub fn new(certificates: Vec<Certificate>) -> Self {
        let mut anchors = Self::default();
        for certificate in certificates {
            if anchors.members.insert(certificate.clone()) {
                let index = anchors.certificates.len();
                anchors
                    .by_subject
                    .entry(certificate.subject().der().into())
                    .or_default()
                    .push(index);
                anchors.certificates.push(certificate);
            }
        }
        anchors
    }

    /// The anchors, each once, in the order in which they were given.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The subject names as encoded, each once, for the `certificate_authorities` of a
    /// TLS CertificateRequest.
    pub fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        let mut seen = HashSet::new();
        self.certificates
            .iter()
            .map(|certificate| certificate.subject().der())
            .filter(move |subject| seen.insert(*subject))
    }

    /// Whether exactly this certificate is an anchor.
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.members.contains(certificate)
    }

    fn with_subject(&self, subject: &[u8]) -> impl Iterator<Item = &Certificate> {
        self.by_subject
            .get(subject)
            .into_iter()
            .flatten()
            .filter_map(|&index| self.certificates.get(index))
    }
}

/// What the chain must be good for (RFC 5280, section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer is a TLS client.
    ClientAuth,
    /// The peer is a TLS server.
    ServerAuth,
    /// Extended key usages do not matter.
    Any,
}

/// The question that [`validate`] answers.
#[derive(Debug, Clone, Copy)]
pub struct PathRequest<'a> {
    /// The leaf, then everything else the peer sent, in any order.
    pub presented: &'a [Certificate],
    /// Whom to trust.
    pub anchors: &'a TrustAnchors,
    /// The time at which all certificates of the path must be valid.
    pub time: rustls_pki_types::UnixTime,
    /// What the path must be good for.
    pub usage: Usage,
    /// The server name as typed: a host name or an IP literal. `None` asks for no
    /// particular name; an empty name matches nothing.
    pub server_name: Option<&'a str>,
}

/// A chain that holds, from the leaf to the anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedPath {
    chain: Vec<Certificate>,
}

impl ValidatedPath {
    /// The certificates, leaf first, anchor last. A leaf that is an anchor stands alone.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The peer's own certificate.
    pub fn leaf(&self) -> &Certificate {
        self.chain
            .first()
            .expect("a chain starts with the leaf it was built for")
    }
}

/// Finds a chain from the presented leaf to an anchor that holds in every respect.
///
/// The first failure in this order is reported: the leaf's own validity and critical
/// extensions; the server name; building a chain (signatures, authority, lifetimes,
/// path lengths, name constraints); usage and certificate policies over all chains.
///
/// At most 100 signatures are checked. Of several chains that hold, the first one found
/// is the answer.
pub fn validate(request: &PathRequest<'_>) -> Result<ValidatedPath, PathError> {
    validate_counting(request, &mut 0)
}

/// As [`validate`], for whoever wants to know what it costs: adds the number of signatures that
/// were checked to `verified`.
pub fn validate_counting(request: &PathRequest<'_>, verified: &mut u32) -> Result<ValidatedPath, PathError> {
    let (leaf, others) = request.presented.split_first().ok_or(PathError::NoCertificate)?;
    let now = Time::from(request.time);
    check::own(leaf, now)?;
    if let Some(name) = request.server_name {
        hostname::check(leaf, name).map_err(PathError::NameMismatch)?;
    }
    let candidates = if request.anchors.contains(leaf) {
        vec![vec![leaf.clone()]]
    } else {
        build::chains(leaf, others, request.anchors, now, verified)?
    };
    select(candidates, request.usage)
}

/// The first chain that is good for `usage` and whose policies are in order.
fn select(candidates: Vec<Vec<Certificate>>, usage: Usage) -> Result<ValidatedPath, PathError> {
    let (mut wrong_usage, mut wrong_policies) = (0usize, 0usize);
    for chain in candidates {
        if !check::allows_usage(&chain, usage) {
            wrong_usage = wrong_usage.saturating_add(1);
        } else if !policy::holds(&chain) {
            wrong_policies = wrong_policies.saturating_add(1);
        } else {
            return Ok(ValidatedPath { chain });
        }
    }
    Err(match wrong_policies {
        0 => PathError::IncompatibleUsage,
        _ => PathError::Policies {
            wrong_usage,
            wrong_policies,
        },
    })
}

/// Why no chain was accepted. Displayed as Ghostunnel 1.11.1 wrote it behind
/// `tls: failed to verify certificate: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing was presented.
    #[error("x509: no certificate to verify")]
    NoCertificate,
    /// No chain leads to an anchor.
    #[error("x509: certificate signed by unknown authority{}", hint.as_ref().map_or_else(String::new, Hint::to_string))]
    UnknownAuthority {
        /// The first candidate that had the right name but did not sign.
        hint: Option<Hint>,
    },
    /// The leaf or another certificate of the only chain has expired.
    #[error("x509: certificate has expired or is not yet valid: current time {now} is after {not_after}")]
    Expired {
        /// When it was checked.
        now: Time,
        /// The last second of its life.
        not_after: Time,
    },
    /// The leaf or another certificate of the only chain is not valid yet.
    #[error("x509: certificate has expired or is not yet valid: current time {now} is before {not_before}")]
    NotYetValid {
        /// When it was checked.
        now: Time,
        /// The first second of its life.
        not_before: Time,
    },
    /// No chain is good for the wanted usage.
    #[error("x509: certificate specifies an incompatible key usage")]
    IncompatibleUsage,
    /// The certificate belongs to another server. Holds the whole text.
    #[error("{0}")]
    NameMismatch(String),
    /// A critical extension that is not understood.
    #[error("x509: unhandled critical extension")]
    UnhandledCriticalExtension,
    /// An intermediate that is not an authority.
    #[error("x509: certificate is not authorized to sign other certificates")]
    NotAuthorizedToSign,
    /// More intermediates than an authority allows below it.
    #[error("x509: too many intermediates for path length constraint")]
    TooManyIntermediates,
    /// A name that an authority may not certify, or one that cannot be compared.
    #[error("x509: a root or intermediate certificate is not authorized to sign for this name: {0}")]
    NameConstraint(String),
    /// A name that cannot be parsed under an authority with name constraints.
    #[error("x509: cannot parse {kind} {}", Quoted(.name))]
    UnparsableName {
        /// `dnsName` or `rfc822Name`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// More names and constraints than anybody needs.
    #[error("x509: too many name constraint comparisons")]
    TooManyConstraints,
    /// The budget of signature checks is used up.
    #[error("x509: signature check attempts limit reached while verifying certificate chain")]
    SignatureLimit,
    /// Every chain fails on certificate policies, or on them or the usage.
    #[error("x509: no valid chains built: {}", rejected(*wrong_usage, *wrong_policies))]
    Policies {
        /// Chains that are not good for the wanted usage.
        wrong_usage: usize,
        /// Chains whose policies are not in order.
        wrong_policies: usize,
    },
}

/// A candidate authority and why it was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    reason: SignatureError,
    authority: Certificate,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            " (possibly because of {} while trying to verify candidate authority certificate {})",
            Quoted(&self.reason.to_string()),
            Quoted(&self.label())
        )
    }
}

impl Hint {
    /// Common name, else organization, else serial number.
    fn label(&self) -> String {
        let subject = self.authority.subject();
        subject
            .common_name()
            .filter(|name| !name.is_empty())
            .or_else(|| subject.organization())
            .map_or_else(
                || format!("serial:{}", decimal(self.authority.serial())),
                str::to_owned,
            )
    }
}

/// Serial numbers have at most 20 bytes (RFC 5280, section 4.1.2.2). Longer ones are
/// accepted but not converted, which takes time by the square of their length.
const SERIAL_SHOWN: usize = 64;

/// A big-endian number in decimal.
fn decimal(bytes: &[u8]) -> String {
    if bytes.len() > SERIAL_SHOWN {
        return format!("({} bytes)", bytes.len());
    }
    let mut digits = vec![0u8];
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 10).expect("a remainder of ten");
            carry /= 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).expect("a remainder of ten"));
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|&digit| char::from(b'0' + digit))
        .collect()
}

fn rejected(wrong_usage: usize, wrong_policies: usize) -> String {
    let usage = match wrong_usage {
        0 => String::new(),
        count => format!("{count} candidate chains with incompatible key usage, "),
    };
    format!("{usage}{wrong_policies} candidate chains with invalid policies")
}

/// What callers tell apart, to choose a TLS alert and to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathErrorKind {
    /// No chain leads to an anchor: `unknown_ca`.
    UnknownAuthority,
    /// Expired: `certificate_expired`.
    Expired,
    /// Not valid yet: `certificate_expired` too.
    NotYetValid,
    /// Not for this usage.
    IncompatibleUsage,
    /// Not for this server name.
    NameMismatch,
    /// A name that an authority of the chain must not vouch for, or that can't be compared.
    NameConstraint,
    /// Everything else.
    Other,
}

impl PathError {
    /// The group that this error belongs to.
    pub fn kind(&self) -> PathErrorKind {
        match self {
            Self::UnknownAuthority { .. } => PathErrorKind::UnknownAuthority,
            Self::Expired { .. } => PathErrorKind::Expired,
            Self::NotYetValid { .. } => PathErrorKind::NotYetValid,
            Self::IncompatibleUsage => PathErrorKind::IncompatibleUsage,
            Self::NameMismatch(_) => PathErrorKind::NameMismatch,
            Self::NameConstraint(_) | Self::UnparsableName { .. } | Self::TooManyConstraints => {
                PathErrorKind::NameConstraint
            }
            Self::NoCertificate
            | Self::UnhandledCriticalExtension
            | Self::NotAuthorizedToSign
            | Self::TooManyIntermediates
            | Self::SignatureLimit
            | Self::Policies { .. } => PathErrorKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_written_in_decimal() {
        for (bytes, expected) in [
            (&[][..], "0"),
            (&[0], "0"),
            (&[0xff], "255"),
            (&[1, 0, 0], "65536"),
            (&[0xff; 16], "340282366920938463463374607431768211455"),
            (&[0xff; 65], "(65 bytes)"),
        ] {
            assert_eq!(decimal(bytes), expected);
        }
    }
}
