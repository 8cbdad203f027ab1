//! SPIFFE: identities in certificates (SPIFFE ID and X.509-SVID specifications), and which
//! anchors prove them.
//!
//! Pure rules over parsed certificates. Where bundles and identities come from is for the
//! caller to know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::UnixTime;

use crate::certificate::Certificate;
use crate::der::{Reader, tag};
use crate::error::ParseError;
use crate::path::{PathError, PathRequest, TrustAnchors, Usage, ValidatedPath, validate};
use crate::quote::Quoted;

const SCHEME: &str = "spiffe://";

/// The name of a trust domain: lower-case letters, digits, dots, dashes and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Parses a bare name, or a SPIFFE ID of which only the trust domain is of interest.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.contains(":/") {
            return SpiffeId::parse(text).map(|id| id.trust_domain);
        }
        Self::from_name(text)
    }

    fn from_name(name: &str) -> Result<Self, SpiffeIdError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        match name {
            "" => Err(SpiffeIdError::NoTrustDomain),
            _ if name.bytes().all(is_allowed) => Ok(Self(name.into())),
            _ => Err(SpiffeIdError::TrustDomainCharacter),
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID: a trust domain, and a path that may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeId {
    text: Box<str>,
    trust_domain: TrustDomain,
    has_path: bool,
}

impl SpiffeId {
    /// Parses an ID. Nothing is normalised: there is one way to write each.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() {
            return Err(SpiffeIdError::Empty);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (name, path) = match rest.split_once('/') {
            Some((name, path)) => (name, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::from_name(name)?;
        if let Some(path) = path {
            check_path(path)?;
        }
        Ok(Self {
            text: text.into(),
            trust_domain,
            has_path: path.is_some(),
        })
    }

    /// The ID as a URI.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything behind the slash that ends the trust domain.
fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_none() => return Err(SpiffeIdError::TrailingSlash),
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ => {}
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !segment.bytes().all(is_allowed) {
            return Err(SpiffeIdError::PathCharacter);
        }
    }
    Ok(())
}

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Nothing at all.
    #[error("cannot be empty")]
    Empty,
    /// It does not start with `spiffe://`.
    #[error("scheme is missing or invalid")]
    Scheme,
    /// Nothing between scheme and path.
    #[error("trust domain is missing")]
    NoTrustDomain,
    /// A character that a trust domain may not have.
    #[error(
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
    )]
    TrustDomainCharacter,
    /// Two slashes in a row.
    #[error("path cannot contain empty segments")]
    EmptySegment,
    /// A segment `.` or `..`.
    #[error("path cannot contain dot segments")]
    DotSegment,
    /// A character that a path may not have; an escape too.
    #[error("path segment characters are limited to letters, numbers, dots, dashes, and underscores")]
    PathCharacter,
    /// A slash at the end.
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
}

/// The authorities of each trust domain, its own and those it is federated with.
#[derive(Debug, Clone, Default)]
pub struct TrustBundles(BTreeMap<TrustDomain, Arc<TrustAnchors>>);

impl TrustBundles {
    /// Sets the authorities of a trust domain, in place of those it had.
    pub fn insert(&mut self, domain: TrustDomain, anchors: TrustAnchors) {
        self.0.insert(domain, Arc::new(anchors));
    }

    /// The authorities of a trust domain.
    pub fn of(&self, domain: &TrustDomain) -> Option<&Arc<TrustAnchors>> {
        self.0.get(domain)
    }

    /// The trust domains, in alphabetical order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.0.keys()
    }
}

/// Validates what a peer presents, its leaf first, by the authorities of the trust domain
/// that the leaf names. Extended key usages do not matter, nor does any name but the ID.
///
/// An ID without path is one of a trust domain, which access rules may refuse.
pub fn validate_svid(
    presented: &[Certificate],
    bundles: &TrustBundles,
    time: UnixTime,
) -> Result<(SpiffeId, ValidatedPath), SvidError> {
    let leaf = presented
        .first()
        .ok_or(SvidError::Path(PathError::NoCertificate))?;
    let id = id_of(leaf).map_err(SvidError::Id)?;
    require_end_entity(leaf)?;
    let anchors = bundles
        .of(id.trust_domain())
        .ok_or_else(|| SvidError::UnknownTrustDomain(id.trust_domain().clone()))?;
    let request = PathRequest {
        presented,
        anchors,
        time,
        usage: Usage::Any,
        server_name: None,
    };
    let path = validate(&request).map_err(SvidError::Path)?;
    Ok((id, path))
}

/// The one ID of a leaf.
fn id_of(leaf: &Certificate) -> Result<SpiffeId, LeafIdError> {
    let mut uris = leaf.uris();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(SpiffeId::parse(uri)?),
        (None, _) => Err(LeafIdError::NoUri),
        (Some(_), Some(_)) => Err(LeafIdError::SeveralUris),
    }
}

fn require_end_entity(leaf: &Certificate) -> Result<(), SvidError> {
    if is_authority(leaf) {
        return Err(SvidError::LeafIsAuthority);
    }
    match leaf.extensions().key_usage {
        Some(usage) if usage.certificate_sign => Err(SvidError::LeafSignsCertificates),
        Some(usage) if usage.crl_sign => Err(SvidError::LeafSignsRevocationLists),
        Some(_) | None => Ok(()),
    }
}

fn is_authority(certificate: &Certificate) -> bool {
    let constraints = certificate.extensions().basic_constraints;
    constraints.is_some_and(|constraints| constraints.is_ca)
}

/// Why a leaf has no ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafIdError {
    /// No alternative name is a URI.
    #[error("certificate contains no URI SAN")]
    NoUri,
    /// More than one is.
    #[error("certificate contains more than one URI SAN")]
    SeveralUris,
    /// The URI is not a SPIFFE ID.
    #[error("{0}")]
    Syntax(#[from] SpiffeIdError),
}

/// Why a peer's SVID was refused. Displayed as Ghostunnel 1.11.1 wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The leaf has no ID, or more than one.
    #[error("x509svid: could not get leaf SPIFFE ID: {0}")]
    Id(LeafIdError),
    /// The leaf is an authority.
    #[error("x509svid: leaf certificate with CA flag set to true")]
    LeafIsAuthority,
    /// The leaf may sign certificates.
    #[error("x509svid: leaf certificate with KeyCertSign key usage")]
    LeafSignsCertificates,
    /// The leaf may sign revocation lists.
    #[error("x509svid: leaf certificate with KeyCrlSign key usage")]
    LeafSignsRevocationLists,
    /// Nobody is known to vouch for this trust domain.
    #[error("x509svid: could not get X509 bundle: x509bundle: no X.509 bundle for trust domain {}", Quoted(.0.name()))]
    UnknownTrustDomain(TrustDomain),
    /// No chain leads to an authority of the trust domain.
    #[error("x509svid: could not verify leaf certificate: {0}")]
    Path(PathError),
}

/// Checks a chain, leaf first, that this process is to present: stricter than what is asked
/// of peers. Validity and trust are for the peer to judge.
pub fn check_own_svid(chain: &[Certificate]) -> Result<SpiffeId, OwnSvidError> {
    let (leaf, signers) = chain.split_first().ok_or(OwnSvidError::Empty)?;
    let id = id_of(leaf).map_err(OwnSvidError::Id)?;
    if !id.has_path {
        return Err(OwnSvidError::NoPath);
    }
    require_end_entity(leaf).map_err(OwnSvidError::Leaf)?;
    let usage = leaf.extensions().key_usage;
    if !usage.is_some_and(|usage| usage.digital_signature) {
        return Err(OwnSvidError::NoDigitalSignature);
    }
    for signer in signers {
        let usage = signer.extensions().key_usage;
        if !is_authority(signer) {
            return Err(OwnSvidError::SignerIsNoAuthority);
        }
        if !usage.is_some_and(|usage| usage.certificate_sign) {
            return Err(OwnSvidError::SignerMayNotSign);
        }
    }
    Ok(id)
}

/// Why an own SVID is not fit to be presented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnSvidError {
    /// No certificate.
    #[error("no certificates found")]
    Empty,
    /// The leaf has no ID, or more than one.
    #[error("cannot get leaf certificate SPIFFE ID: {0}")]
    Id(LeafIdError),
    /// The leaf's ID is that of a trust domain.
    #[error("leaf certificate SPIFFE ID has no path")]
    NoPath,
    /// The leaf is what a peer's may not be either.
    #[error("{0}")]
    Leaf(SvidError),
    /// The leaf may not sign handshakes.
    #[error("leaf certificate without digitalSignature key usage")]
    NoDigitalSignature,
    /// A certificate behind the leaf is not an authority.
    #[error("signing certificate without CA flag")]
    SignerIsNoAuthority,
    /// A certificate behind the leaf may not sign certificates.
    #[error("signing certificate without keyCertSign key usage")]
    SignerMayNotSign,
}

/// Splits and parses certificates that follow each other without anything between.
pub fn parse_concatenated(der: &[u8]) -> Result<Vec<Certificate>, ParseError> {
    let mut rest = Reader::new(der);
    let mut certificates = Vec::new();
    while !rest.is_empty() {
        let element = rest
            .element(tag::SEQUENCE)
            .ok_or(ParseError::Malformed("certificate"))?;
        let one = der
            .get(element.span)
            .ok_or(ParseError::Malformed("certificate"))?;
        certificates.push(Certificate::parse(one)?);
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_written_in_one_way_only() {
        const DOMAIN_CHARACTERS: &str = "trust domain characters are limited to lowercase letters, numbers, dots, \
                                         dashes, and underscores";
        const PATH_CHARACTERS: &str =
            "path segment characters are limited to letters, numbers, dots, dashes, and underscores";
        for (text, expected) in [
            ("spiffe://td.test", Ok("td.test")),
            ("spiffe://td.test/a", Ok("td.test")),
            ("spiffe://a-b_c.9/A.b/_/-/...", Ok("a-b_c.9")),
            ("", Err("cannot be empty")),
            ("http://td/a", Err("scheme is missing or invalid")),
            ("SPIFFE://td/a", Err("scheme is missing or invalid")),
            ("spiffe:/td/a", Err("scheme is missing or invalid")),
            ("spiffe://", Err("trust domain is missing")),
            ("spiffe:///a", Err("trust domain is missing")),
            ("spiffe://Td/a", Err(DOMAIN_CHARACTERS)),
            ("spiffe://td:8443/a", Err(DOMAIN_CHARACTERS)),
            ("spiffe://user@td/a", Err(DOMAIN_CHARACTERS)),
            ("spiffe://td?x", Err(DOMAIN_CHARACTERS)),
            ("spiffe://td/", Err("path cannot have a trailing slash")),
            ("spiffe://td/a/", Err("path cannot have a trailing slash")),
            ("spiffe://td//a", Err("path cannot contain empty segments")),
            ("spiffe://td/./a", Err("path cannot contain dot segments")),
            ("spiffe://td/a/..", Err("path cannot contain dot segments")),
            ("spiffe://td/a%20b", Err(PATH_CHARACTERS)),
            ("spiffe://td/a?x", Err(PATH_CHARACTERS)),
            ("spiffe://td/a#x", Err(PATH_CHARACTERS)),
        ] {
            let found = SpiffeId::parse(text);
            let found = found.as_ref().map(|id| id.trust_domain().name());
            assert_eq!(
                found.map_err(ToString::to_string),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn trust_domains_are_named_barely_or_by_any_id() {
        for (text, expected) in [
            ("td.test", Some("td.test")),
            ("spiffe://td.test", Some("td.test")),
            ("spiffe://td.test/path", Some("td.test")),
            ("", None),
            ("td/path", None),
            ("http://td", None),
            ("TD", None),
        ] {
            let found = TrustDomain::parse(text);
            assert_eq!(found.as_ref().ok().map(TrustDomain::name), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_an_id_is_kept_as_it_is(text in "(spiffe://)?[a-zA-Z.%/_?#-]{0,12}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.text(), &text);
                let domain = id.trust_domain().name();
                let rest = text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(domain));
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
                prop_assert_eq!(TrustDomain::parse(&text), Ok(id.trust_domain().clone()));
            }
        }

        #[test]
        fn any_bytes_are_split_without_panic(bytes: Vec<u8>) {
            let _ = parse_concatenated(&bytes);
        }
    }
}
