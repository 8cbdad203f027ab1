//! Extensions of a certificate (RFC 5280, section 4.2).

use std::collections::HashSet;
use std::net::IpAddr;

use crate::der::{Oid, Reader, tag};
use crate::error::ParseError;
use crate::path::constraints::NameConstraints;
use crate::strings;
use crate::uri::Uri;

/// What the extensions say, as far as they are understood here.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    /// A critical extension that is not understood: no path may lead through it.
    pub(crate) unhandled_critical: bool,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) alternative_names: Option<AlternativeNames>,
    pub(crate) name_constraints: Option<NameConstraints>,
    /// Empty when there is no such extension, and when it lists nothing.
    pub(crate) extended_key_usage: Vec<ExtendedKeyUsage>,
    /// Empty when absent.
    pub(crate) subject_key_id: Box<[u8]>,
    /// Empty when absent.
    pub(crate) authority_key_id: Box<[u8]>,
    pub(crate) policies: Policies,
}

/// The bits of KeyUsage that matter here. Of these only `certificate_sign` restricts paths;
/// the others are for SVIDs. The rest do not restrict TLS as Ghostunnel 1.11.1 spoke it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyUsage {
    pub(crate) digital_signature: bool,
    pub(crate) certificate_sign: bool,
    pub(crate) crl_sign: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BasicConstraints {
    pub(crate) is_ca: bool,
    pub(crate) path_length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtendedKeyUsage {
    Any,
    ServerAuth,
    ClientAuth,
    Other,
}

/// The alternative names of the four kinds that are understood.
#[derive(Debug, Default)]
pub(crate) struct AlternativeNames {
    /// The extension's value: two certificates of one authority are told apart by it.
    pub(crate) encoded: Box<[u8]>,
    pub(crate) dns: Vec<String>,
    pub(crate) email: Vec<String>,
    pub(crate) ip: Vec<IpAddr>,
    pub(crate) uri: Vec<Uri>,
}

/// Everything that certificate policies need (RFC 5280, sections 4.2.1.4, .5, .11, .14).
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// Contents of the object identifiers; empty without the extension.
    pub(crate) asserted: Vec<Box<[u8]>>,
    pub(crate) mappings: Vec<PolicyMapping>,
    pub(crate) require_explicit: Option<u64>,
    pub(crate) inhibit_mapping: Option<u64>,
    pub(crate) inhibit_any: Option<u64>,
}

/// An authority's policy and the policy of its subject that equals it.
#[derive(Debug)]
pub(crate) struct PolicyMapping {
    pub(crate) issuer: Box<[u8]>,
    pub(crate) subject: Box<[u8]>,
}

const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];

impl Extensions {
    /// Parses the elements of the list of extensions.
    pub(crate) fn parse(mut list: Reader<'_>) -> Result<Self, ParseError> {
        let mut extensions = Self::default();
        let mut seen = HashSet::new();
        while !list.is_empty() {
            let mut extension = list
                .nested(tag::SEQUENCE)
                .ok_or(ParseError::Malformed("extension"))?;
            let oid = extension
                .oid()
                .ok_or(ParseError::Malformed("extension OID field"))?;
            let critical = extension.peeks(tag::BOOLEAN)
                && extension
                    .boolean()
                    .ok_or(ParseError::Malformed("extension critical field"))?;
            let value = extension
                .contents(tag::OCTET_STRING)
                .filter(|_| extension.is_empty())
                .ok_or(ParseError::Malformed("extension value field"))?;
            if !seen.insert(oid.0) {
                return Err(ParseError::DuplicateExtension(oid.to_string()));
            }
            let understood = extensions.take(oid, critical, value)?;
            extensions.unhandled_critical |= critical && !understood;
        }
        Ok(extensions)
    }

    /// Takes in one extension; `false` if it is not, or not wholly, understood.
    fn take(&mut self, oid: Oid<'_>, critical: bool, value: &[u8]) -> Result<bool, ParseError> {
        let number = match *oid.0 {
            [0x55, 0x1d, number] => number,
            _ if oid.0 == AUTHORITY_INFO_ACCESS => {
                return authority_info_access(critical, value).map(|()| true);
            }
            _ => return Ok(false),
        };
        match number {
            14 => self.subject_key_id = subject_key_identifier(critical, value)?,
            15 => self.key_usage = key_usage(value).ok_or(ParseError::Invalid("key usage"))?,
            17 => {
                let names = AlternativeNames::parse(value)?;
                let understood = !names.is_empty();
                self.alternative_names = Some(names);
                return Ok(understood);
            }
            19 => {
                let constraints = basic_constraints(value).ok_or(ParseError::Invalid("basic constraints"))?;
                self.basic_constraints = Some(constraints);
            }
            30 => {
                let (constraints, understood) = NameConstraints::parse(value)?;
                self.name_constraints = Some(constraints);
                return Ok(understood);
            }
            31 => crl_distribution_points(value).ok_or(ParseError::Invalid("CRL distribution points"))?,
            32 => {
                let policies =
                    certificate_policies(value).ok_or(ParseError::Invalid("certificate policies"))?;
                self.policies.asserted = policies;
            }
            33 => {
                let mappings =
                    policy_mappings(value).ok_or(ParseError::Invalid("policy mappings extension"))?;
                self.policies.mappings = mappings;
            }
            35 => self.authority_key_id = authority_key_identifier(critical, value)?,
            36 => {
                let (require_explicit, inhibit_mapping) =
                    policy_constraints(value).ok_or(ParseError::Invalid("policy constraints extension"))?;
                self.policies.require_explicit = require_explicit;
                self.policies.inhibit_mapping = inhibit_mapping;
            }
            37 => {
                let usages = extended_key_usage(value).ok_or(ParseError::Invalid("extended key usages"))?;
                self.extended_key_usage = usages;
            }
            54 => {
                let skip =
                    inhibit_any_policy(value).ok_or(ParseError::Invalid("inhibit any policy extension"))?;
                self.policies.inhibit_any = Some(skip);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn subject_key_identifier(critical: bool, value: &[u8]) -> Result<Box<[u8]>, ParseError> {
    if critical {
        return Err(ParseError::Critical("subject key identifier"));
    }
    let mut reader = Reader::new(value);
    reader
        .contents(tag::OCTET_STRING)
        .filter(|_| reader.is_empty())
        .map(Into::into)
        .ok_or(ParseError::Invalid("subject key identifier"))
}

/// Only the key identifier is of interest; issuer and serial number are left alone.
fn authority_key_identifier(critical: bool, value: &[u8]) -> Result<Box<[u8]>, ParseError> {
    if critical {
        return Err(ParseError::Critical("authority key identifier"));
    }
    let invalid = ParseError::Invalid("authority key identifier");
    let mut outer = Reader::new(value);
    let mut fields = outer
        .nested(tag::SEQUENCE)
        .filter(|_| outer.is_empty())
        .ok_or_else(|| invalid.clone())?;
    let identifier = fields.optional(tag::context(0)).ok_or(invalid)?;
    Ok(identifier.map_or_else(Box::default, |identifier| identifier.contents.into()))
}

fn authority_info_access(critical: bool, value: &[u8]) -> Result<(), ParseError> {
    if critical {
        return Err(ParseError::Critical("authority info access"));
    }
    let mut outer = Reader::new(value);
    let well_formed = outer.nested(tag::SEQUENCE).is_some_and(|mut descriptions| {
        while !descriptions.is_empty() {
            let description = descriptions.nested(tag::SEQUENCE);
            if description.is_none_or(|mut fields| fields.oid().is_none() || fields.any().is_none()) {
                return false;
            }
        }
        outer.is_empty()
    });
    if well_formed {
        Ok(())
    } else {
        Err(ParseError::Invalid("authority info access"))
    }
}

/// Bits are counted from the most significant: digitalSignature is 0, keyCertSign 5, cRLSign 6.
/// An extension in which none of the nine bits is set restricts nothing: RFC 5280 forbids it, Ghostunnel 1.11.1
/// took it for absent.
fn key_usage(value: &[u8]) -> Option<Option<KeyUsage>> {
    let mut reader = Reader::new(value);
    let (_, bits) = reader.bit_string()?;
    let (first, second) = (
        bits.first().copied().unwrap_or(0),
        bits.get(1).copied().unwrap_or(0),
    );
    let usage = KeyUsage {
        digital_signature: first & 0b1000_0000 != 0,
        certificate_sign: first & 0b0000_0100 != 0,
        crl_sign: first & 0b0000_0010 != 0,
    };
    let is_set = first != 0 || second & 0b1000_0000 != 0;
    reader.is_empty().then_some(is_set.then_some(usage))
}

fn basic_constraints(value: &[u8]) -> Option<BasicConstraints> {
    let mut outer = Reader::new(value);
    let mut fields = outer.nested(tag::SEQUENCE)?;
    let is_ca = fields.peeks(tag::BOOLEAN) && fields.boolean()?;
    let path_length = if fields.peeks(tag::INTEGER) {
        Some(non_negative(&mut fields, tag::INTEGER)?)
    } else {
        None
    };
    (fields.is_empty() && outer.is_empty()).then_some(BasicConstraints { is_ca, path_length })
}

fn non_negative(reader: &mut Reader<'_>, tag: u8) -> Option<u64> {
    u64::try_from(reader.small_integer_tagged(tag)?).ok()
}

fn extended_key_usage(value: &[u8]) -> Option<Vec<ExtendedKeyUsage>> {
    let mut outer = Reader::new(value);
    let mut list = outer.nested(tag::SEQUENCE)?;
    let mut usages = Vec::new();
    while !list.is_empty() {
        usages.push(match list.oid()?.0 {
            [0x55, 0x1d, 0x25, 0] => ExtendedKeyUsage::Any,
            [0x2b, 6, 1, 5, 5, 7, 3, 1] => ExtendedKeyUsage::ServerAuth,
            [0x2b, 6, 1, 5, 5, 7, 3, 2] => ExtendedKeyUsage::ClientAuth,
            _ => ExtendedKeyUsage::Other,
        });
    }
    outer.is_empty().then_some(usages)
}

/// Nobody fetches revocation lists here; the extension only has to be well formed.
fn crl_distribution_points(value: &[u8]) -> Option<()> {
    let mut outer = Reader::new(value);
    let mut list = outer.nested(tag::SEQUENCE)?;
    while !list.is_empty() {
        let mut point = list.nested(tag::SEQUENCE)?;
        if let Some(name) = point.optional(tag::constructed(0))? {
            name.reader().any()?;
        }
    }
    outer.is_empty().then_some(())
}

fn certificate_policies(value: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut outer = Reader::new(value);
    let mut list = outer.nested(tag::SEQUENCE)?;
    let mut seen = HashSet::new();
    let mut policies = Vec::new();
    while !list.is_empty() {
        let policy = policy(&mut list.nested(tag::SEQUENCE)?)?;
        if !seen.insert(policy) {
            return None;
        }
        policies.push(policy.into());
    }
    outer.is_empty().then_some(policies)
}

/// The contents of a policy's object identifier, with arcs of any size.
fn policy<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let bytes = reader.contents(tag::OID)?;
    let minimal = bytes
        .iter()
        .zip([&0u8].into_iter().chain(bytes))
        .all(|(&byte, &before)| byte != 0x80 || before & 0x80 != 0);
    let complete = bytes.last().is_some_and(|last| last & 0x80 == 0);
    (minimal && complete).then_some(bytes)
}

fn policy_mappings(value: &[u8]) -> Option<Vec<PolicyMapping>> {
    let mut outer = Reader::new(value);
    let mut list = outer.nested(tag::SEQUENCE)?;
    let mut mappings = Vec::new();
    while !list.is_empty() {
        let mut pair = list.nested(tag::SEQUENCE)?;
        let (issuer, subject) = (policy(&mut pair)?, policy(&mut pair)?);
        if !pair.is_empty() {
            return None;
        }
        mappings.push(PolicyMapping {
            issuer: issuer.into(),
            subject: subject.into(),
        });
    }
    outer.is_empty().then_some(mappings)
}

fn policy_constraints(value: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let mut outer = Reader::new(value);
    let mut fields = outer.nested(tag::SEQUENCE)?;
    let mut field = |number| {
        let tag = tag::context(number);
        if fields.peeks(tag) {
            non_negative(&mut fields, tag).map(Some)
        } else {
            Some(None)
        }
    };
    let constraints = (field(0)?, field(1)?);
    (fields.is_empty() && outer.is_empty()).then_some(constraints)
}

fn inhibit_any_policy(value: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(value);
    let skip = non_negative(&mut reader, tag::INTEGER)?;
    reader.is_empty().then_some(skip)
}

impl AlternativeNames {
    fn parse(value: &[u8]) -> Result<Self, ParseError> {
        const EMAIL: u8 = tag::context(1);
        const DNS: u8 = tag::context(2);
        const URI: u8 = tag::context(6);
        const IP: u8 = tag::context(7);
        let malformed = ParseError::Invalid("subject alternative names");
        let mut outer = Reader::new(value);
        let mut list = outer
            .nested(tag::SEQUENCE)
            .filter(|_| outer.is_empty())
            .ok_or_else(|| malformed.clone())?;
        let mut names = Self {
            encoded: value.into(),
            ..Self::default()
        };
        while !list.is_empty() {
            let name = list.any().ok_or_else(|| malformed.clone())?;
            let text = |kind| strings::ascii(name.contents).ok_or(ParseError::Malformed(kind));
            match name.tag {
                EMAIL => names.email.push(text("SAN rfc822Name")?),
                DNS => names.dns.push(text("SAN dNSName")?),
                URI => names.uri.push(parse_uri(text("SAN uniformResourceIdentifier")?)?),
                IP => names.ip.push(parse_ip(name.contents)?),
                _ => {}
            }
        }
        Ok(names)
    }

    fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.email.is_empty() && self.ip.is_empty() && self.uri.is_empty()
    }
}

fn parse_uri(uri: String) -> Result<Uri, ParseError> {
    Uri::parse(&uri).map_err(|reason| ParseError::Uri { uri, reason })
}

fn parse_ip(bytes: &[u8]) -> Result<IpAddr, ParseError> {
    ip_address(bytes).ok_or(ParseError::Invalid("length of IP address SAN"))
}

/// An address of 4 or 16 bytes.
pub(crate) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
