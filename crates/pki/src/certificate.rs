//! One certificate: strict parsing (RFC 5280, section 4) into a view that owns its bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::algorithm::{self, SignatureAlgorithm};
use crate::der::{Element, Reader, tag};
use crate::error::ParseError;
use crate::extensions::{AlternativeNames, Extensions};
use crate::name::Name;
use crate::public_key::PublicKey;
use crate::time::Time;

/// A parsed certificate. Cheap to clone; equal when the encodings are.
#[derive(Clone)]
pub struct Certificate(Arc<Fields>);

struct Fields {
    der: Box<[u8]>,
    tbs: Range<usize>,
    spki: Range<usize>,
    signature: Box<[u8]>,
    signature_algorithm: SignatureAlgorithm,
    version: u8,
    serial: Box<[u8]>,
    issuer: Name,
    subject: Name,
    not_before: Time,
    not_after: Time,
    public_key: PublicKey,
    extensions: Extensions,
}

impl Certificate {
    /// Parses `der`, one certificate with nothing behind it.
    ///
    /// Refuses whatever is not strict DER, versions above 3, negative serial numbers,
    /// extensions that occur twice, are malformed or belong to an older version than
    /// the certificate's, strings with characters their type does not have, and URIs
    /// that cannot be parsed. Says nothing about trust.
    pub fn parse(der: &[u8]) -> Result<Self, ParseError> {
        let mut input = Reader::new(der);
        let certificate = input
            .element(tag::SEQUENCE)
            .ok_or(ParseError::Malformed("certificate"))?;
        if !input.is_empty() {
            return Err(ParseError::TrailingData);
        }
        let mut outer = certificate.reader();
        let tbs = outer
            .element(tag::SEQUENCE)
            .ok_or(ParseError::Malformed("tbs certificate"))?;
        let outer_algorithm = outer
            .contents(tag::SEQUENCE)
            .ok_or(ParseError::Malformed("algorithm identifier"))?;
        let signature = outer
            .whole_bit_string()
            .ok_or(ParseError::Malformed("signature"))?;
        if !outer.is_empty() {
            return Err(ParseError::TrailingData);
        }
        parse_tbs(der, &tbs, outer_algorithm, signature).map(|fields| Self(Arc::new(fields)))
    }

    /// The certificate as encoded.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Whom the certificate is about.
    pub fn subject(&self) -> &Name {
        &self.0.subject
    }

    /// Who signed it, by its own account.
    pub fn issuer(&self) -> &Name {
        &self.0.issuer
    }

    /// DER of the SubjectPublicKeyInfo, exactly as encoded.
    pub fn subject_public_key_info(&self) -> &[u8] {
        self.part(&self.0.spki)
    }

    /// First and last second at which the certificate is valid.
    pub fn validity(&self) -> (Time, Time) {
        (self.0.not_before, self.0.not_after)
    }

    /// The version, 1 to 3.
    pub fn version(&self) -> u8 {
        self.0.version
    }

    /// The serial number as encoded: big endian, not negative, of any length.
    pub fn serial(&self) -> &[u8] {
        &self.0.serial
    }

    /// Whether there is a SubjectAltName extension, even one without any kind of name
    /// that is understood here.
    pub fn has_alternative_names(&self) -> bool {
        self.0.extensions.alternative_names.is_some()
    }

    /// DNS names among the alternative names, as encoded.
    pub fn dns_names(&self) -> &[String] {
        self.alternative_names().map_or(&[], |names| &names.dns)
    }

    /// Mail addresses among the alternative names, as encoded.
    pub fn email_addresses(&self) -> &[String] {
        self.alternative_names().map_or(&[], |names| &names.email)
    }

    /// IP addresses among the alternative names, as encoded: an IPv4-mapped IPv6 address stays one.
    pub fn ip_addresses(&self) -> &[IpAddr] {
        self.alternative_names().map_or(&[], |names| &names.ip)
    }

    /// URIs among the alternative names, parsed and written again: scheme in lower case,
    /// escapes added where a character needs one.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.alternative_names()
            .into_iter()
            .flat_map(|names| &names.uri)
            .map(|uri| uri.text.as_str())
    }

    pub(crate) fn alternative_names(&self) -> Option<&AlternativeNames> {
        self.0.extensions.alternative_names.as_ref()
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// The bytes that the signature covers.
    pub(crate) fn tbs(&self) -> &[u8] {
        self.part(&self.0.tbs)
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.0.signature
    }

    pub(crate) fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.0.signature_algorithm
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.0
            .der
            .get(range.clone())
            .expect("ranges were found while reading these very bytes")
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.der.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &format_args!("{}", self.0.subject))
            .field("issuer", &format_args!("{}", self.0.issuer))
            .finish_non_exhaustive()
    }
}

fn parse_tbs(
    der: &[u8],
    tbs: &Element<'_>,
    outer_algorithm: &[u8],
    signature: &[u8],
) -> Result<Fields, ParseError> {
    let mut reader = tbs.reader();
    let version = parse_version(&mut reader)?;
    let serial = reader.integer().ok_or(ParseError::Malformed("serial number"))?;
    if serial.first().is_some_and(|first| first & 0x80 != 0) {
        return Err(ParseError::NegativeSerial);
    }
    let algorithm = reader
        .contents(tag::SEQUENCE)
        .ok_or(ParseError::Malformed("signature algorithm identifier"))?;
    if algorithm != outer_algorithm {
        return Err(ParseError::AlgorithmMismatch);
    }
    let issuer = parse_name(der, &mut reader, "issuer")?;
    let (not_before, not_after) = parse_validity(&mut reader)?;
    let subject = parse_name(der, &mut reader, "subject")?;
    let spki = reader
        .element(tag::SEQUENCE)
        .ok_or(ParseError::Malformed("spki"))?;
    let public_key = PublicKey::parse(&spki)?;
    let extensions = parse_rest(&mut reader, version)?;
    Ok(Fields {
        der: der.into(),
        tbs: tbs.span.clone(),
        spki: spki.span.clone(),
        signature: signature.into(),
        signature_algorithm: algorithm::signature(algorithm)?,
        version,
        serial: serial.into(),
        issuer,
        subject,
        not_before,
        not_after,
        public_key,
        extensions,
    })
}

fn parse_version(reader: &mut Reader<'_>) -> Result<u8, ParseError> {
    let malformed = ParseError::Malformed("version");
    let Some(explicit) = reader
        .optional(tag::constructed(0))
        .ok_or_else(|| malformed.clone())?
    else {
        return Ok(1);
    };
    let mut explicit = explicit.reader();
    match explicit.small_integer_tagged(tag::INTEGER) {
        Some(..0) | None => Err(malformed),
        Some(_) if !explicit.is_empty() => Err(malformed),
        Some(0) => Ok(1),
        Some(1) => Ok(2),
        Some(2) => Ok(3),
        Some(_) => Err(ParseError::Invalid("version")),
    }
}

fn parse_name(der: &[u8], reader: &mut Reader<'_>, which: &'static str) -> Result<Name, ParseError> {
    let element = reader
        .element(tag::SEQUENCE)
        .ok_or(ParseError::Malformed(which))?;
    Name::parse(der.get(element.span).ok_or(ParseError::Malformed(which))?)
}

fn parse_validity(reader: &mut Reader<'_>) -> Result<(Time, Time), ParseError> {
    let malformed = ParseError::Malformed("validity");
    let mut validity = reader.nested(tag::SEQUENCE).ok_or_else(|| malformed.clone())?;
    match (Time::read(&mut validity), Time::read(&mut validity)) {
        (Some(not_before), Some(not_after)) if validity.is_empty() => Ok((not_before, not_after)),
        _ => Err(malformed),
    }
}

/// Unique identifiers, which nobody uses, and extensions, which only version 3 has.
fn parse_rest(reader: &mut Reader<'_>, version: u8) -> Result<Extensions, ParseError> {
    if version > 1 {
        reader
            .optional(tag::context(1))
            .ok_or(ParseError::Malformed("issuerUniqueID"))?;
        reader
            .optional(tag::context(2))
            .ok_or(ParseError::Malformed("subjectUniqueID"))?;
    }
    let malformed = ParseError::Malformed("extensions");
    let extensions = match version {
        3 => reader
            .optional(tag::constructed(3))
            .ok_or_else(|| malformed.clone())?,
        _ => None,
    };
    if !reader.is_empty() {
        return Err(malformed);
    }
    let Some(extensions) = extensions else {
        return Ok(Extensions::default());
    };
    let mut explicit = extensions.reader();
    let list = explicit.nested(tag::SEQUENCE).ok_or_else(|| malformed.clone())?;
    if explicit.is_empty() {
        Extensions::parse(list)
    } else {
        Err(malformed)
    }
}
