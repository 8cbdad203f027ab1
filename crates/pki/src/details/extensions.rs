//! The extensions one by one.

use std::net::IpAddr;

use super::{Details, numbers};
use crate::der::{Reader, tag};
use crate::extensions::ip_address;
use crate::strings;
use crate::uri::UriParts;

const EMAIL: u8 = tag::context(1);
const DNS: u8 = tag::context(2);
const URI: u8 = tag::context(6);
const IP: u8 = tag::context(7);

const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];
const CA_ISSUERS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 2];
const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];

/// One extension as encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The type, as arcs.
    pub oid: Vec<u64>,
    /// Whether who does not understand it must refuse the certificate.
    pub critical: bool,
    /// The value's DER.
    pub value: Vec<u8>,
    pub(super) encoded_oid: Vec<u8>,
}

/// One side of NameConstraints, by kind, each in encoding order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subtrees {
    /// DNS domains.
    pub dns: Vec<String>,
    /// Mailboxes and mail domains.
    pub email: Vec<String>,
    /// Hosts of URIs.
    pub uri: Vec<String>,
    /// Networks.
    pub ip: Vec<Network>,
}

/// A network: an address and a mask of the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// The mask's bytes.
    pub mask: Vec<u8>,
}

/// An authority's policy and the policy of its subject that equals it, as contents of object
/// identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyMapping {
    /// The authority's.
    pub issuer: Vec<u8>,
    /// Its subject's.
    pub subject: Vec<u8>,
}

/// All extensions of a TBSCertificate.
pub(super) fn list(tbs: &[u8]) -> Option<Vec<Extension>> {
    let mut fields = Reader::new(tbs).nested(tag::SEQUENCE)?;
    let mut found = Vec::new();
    while !fields.is_empty() {
        let field = fields.any()?;
        if field.tag != tag::constructed(3) {
            continue;
        }
        let mut entries = field.reader().nested(tag::SEQUENCE)?;
        while !entries.is_empty() {
            let mut entry = entries.nested(tag::SEQUENCE)?;
            let oid = entry.oid()?;
            found.push(Extension {
                oid: numbers::arcs(oid.0),
                encoded_oid: oid.0.to_vec(),
                critical: entry.peeks(tag::BOOLEAN) && entry.boolean()?,
                value: entry.contents(tag::OCTET_STRING)?.to_vec(),
            });
        }
    }
    Some(found)
}

impl Details {
    /// Takes in what an extension says, if its kind is known.
    pub(super) fn take(&mut self, extension: &Extension) -> Option<()> {
        let mut reader = Reader::new(&extension.value);
        let number = match *extension.encoded_oid {
            [0x55, 0x1d, number] => number,
            _ if extension.encoded_oid == AUTHORITY_INFO_ACCESS => return self.take_access(reader),
            _ => return Some(()),
        };
        match number {
            14 => self.subject_key_id = Some(reader.contents(tag::OCTET_STRING)?.to_vec()),
            15 => self.key_usage = key_usage(reader.bit_string()?.1),
            17 => self.take_alternative_names(reader)?,
            19 => {
                let mut fields = reader.nested(tag::SEQUENCE)?;
                let is_ca = fields.peeks(tag::BOOLEAN) && fields.boolean()?;
                let length = fields.small_integer_tagged(tag::INTEGER);
                self.basic_constraints = Some((is_ca, length.and_then(|n| u64::try_from(n).ok())));
            }
            30 => {
                self.name_constraints_critical = extension.critical;
                let mut fields = reader.nested(tag::SEQUENCE)?;
                for (number, subtrees) in [(0, &mut self.permitted), (1, &mut self.excluded)] {
                    if let Some(list) = fields.optional(tag::constructed(number))? {
                        subtrees.take(list.reader())?;
                    }
                }
            }
            31 => self.take_distribution_points(reader)?,
            32 => {
                let mut list = reader.nested(tag::SEQUENCE)?;
                while !list.is_empty() {
                    let policy = list.nested(tag::SEQUENCE)?.contents(tag::OID)?;
                    self.policies.push(policy.to_vec());
                }
            }
            33 => {
                let mut list = reader.nested(tag::SEQUENCE)?;
                while !list.is_empty() {
                    let mut pair = list.nested(tag::SEQUENCE)?;
                    self.policy_mappings.push(PolicyMapping {
                        issuer: pair.contents(tag::OID)?.to_vec(),
                        subject: pair.contents(tag::OID)?.to_vec(),
                    });
                }
            }
            35 => {
                let identifier = reader.nested(tag::SEQUENCE)?.optional(tag::context(0))?;
                self.authority_key_id = identifier.map(|identifier| identifier.contents.to_vec());
            }
            36 => {
                let mut fields = reader.nested(tag::SEQUENCE)?;
                let mut field = |number| {
                    let value = fields.small_integer_tagged(tag::context(number))?;
                    u64::try_from(value).ok()
                };
                self.require_explicit_policy = field(0);
                self.inhibit_policy_mapping = field(1);
            }
            37 => {
                let mut list = reader.nested(tag::SEQUENCE)?;
                while !list.is_empty() {
                    self.extended_key_usages.push(numbers::arcs(list.oid()?.0));
                }
            }
            54 => {
                let skip = reader.small_integer_tagged(tag::INTEGER)?;
                self.inhibit_any_policy = u64::try_from(skip).ok();
            }
            _ => {}
        }
        Some(())
    }

    fn take_alternative_names(&mut self, mut reader: Reader<'_>) -> Option<()> {
        let mut list = reader.nested(tag::SEQUENCE)?;
        while !list.is_empty() {
            let name = list.any()?;
            if name.tag == URI {
                let parts = UriParts::parse(&strings::ascii(name.contents)?).ok()?;
                self.uris.push(parts);
            }
        }
        Some(())
    }

    fn take_access(&mut self, mut reader: Reader<'_>) -> Option<()> {
        let mut list = reader.nested(tag::SEQUENCE)?;
        while !list.is_empty() {
            let mut description = list.nested(tag::SEQUENCE)?;
            let (method, location) = (description.oid()?, description.any()?);
            let urls = match method.0 {
                OCSP => &mut self.ocsp_servers,
                CA_ISSUERS => &mut self.issuing_certificate_urls,
                _ => continue,
            };
            if location.tag == URI {
                urls.push(String::from_utf8_lossy(location.contents).into_owned());
            }
        }
        Some(())
    }

    /// Only points that are full names count, and of these the leading URIs.
    fn take_distribution_points(&mut self, mut reader: Reader<'_>) -> Option<()> {
        let mut list = reader.nested(tag::SEQUENCE)?;
        while !list.is_empty() {
            let mut point = list.nested(tag::SEQUENCE)?;
            let Some(name) = point.optional(tag::constructed(0))? else {
                continue;
            };
            let Some(mut names) = name.reader().nested(tag::constructed(0)) else {
                continue;
            };
            while let Some(url) = names.contents(URI) {
                let url = String::from_utf8_lossy(url).into_owned();
                self.crl_distribution_points.push(url);
            }
        }
        Some(())
    }
}

/// The bits with the most significant one of the encoding lowest.
fn key_usage(bits: &[u8]) -> u16 {
    let bit = |index: usize| {
        let byte = bits.get(index / 8).copied().unwrap_or_default();
        u16::from(byte >> (7 - index % 8) & 1) << index
    };
    (0..9).map(bit).fold(0, |usage, bit| usage | bit)
}

impl Subtrees {
    fn take(&mut self, mut list: Reader<'_>) -> Option<()> {
        while !list.is_empty() {
            let base = list.nested(tag::SEQUENCE)?.any()?;
            match base.tag {
                DNS => self.dns.push(strings::ascii(base.contents)?),
                EMAIL => self.email.push(strings::ascii(base.contents)?),
                URI => self.uri.push(strings::ascii(base.contents)?),
                IP => {
                    let half = base.contents.len() / 2;
                    let (address, mask) = base.contents.split_at_checked(half)?;
                    self.ip.push(Network {
                        address: ip_address(address)?,
                        mask: mask.to_vec(),
                    });
                }
                _ => {}
            }
        }
        Some(())
    }
}
