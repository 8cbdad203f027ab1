//! Name constraints (RFC 5280, section 4.2.1.10): parsing and checking.
//!
//! Constraints on DNS names, mail addresses, IP addresses and URIs are understood; any
//! other kind makes a critical extension unhandled. A name that no constraint of its kind
//! speaks of is allowed. Common names are not looked at.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use super::PathError;
use crate::certificate::Certificate;
use crate::der::{Reader, tag};
use crate::error::ParseError;
use crate::extensions::{AlternativeNames, ip_address};
use crate::quote::Quoted;
use crate::strings;
use crate::uri::{Uri, is_domain};

/// Steps of comparison that one chain may cost. Domains are looked up label by label, so
/// that thousands of names under thousands of constraints stay far below.
const COMPARISONS: usize = 250_000;

/// The extension of one authority.
#[derive(Debug, Default)]
pub(crate) struct NameConstraints {
    permitted: Subtrees,
    excluded: Subtrees,
}

#[derive(Debug, Default)]
struct Subtrees {
    dns: Domains,
    uri: Domains,
    mail_domains: Domains,
    mailboxes: Vec<Mailbox>,
    networks: Vec<Network>,
}

impl NameConstraints {
    /// Parses the extension; `false` beside it if it holds a kind that is not understood.
    pub(crate) fn parse(value: &[u8]) -> Result<(Self, bool), ParseError> {
        let invalid = ParseError::Invalid("NameConstraints extension");
        let mut outer = Reader::new(value);
        let mut fields = outer
            .nested(tag::SEQUENCE)
            .filter(|_| outer.is_empty())
            .ok_or_else(|| invalid.clone())?;
        let mut constraints = Self::default();
        let (mut understood, mut is_empty) = (true, true);
        for (number, subtrees) in [(0, &mut constraints.permitted), (1, &mut constraints.excluded)] {
            let list = fields
                .optional(tag::constructed(number))
                .ok_or_else(|| invalid.clone())?;
            if let Some(list) = list {
                is_empty &= list.contents.is_empty();
                understood &= subtrees.read(list.reader())?;
            }
        }
        if is_empty || !fields.is_empty() {
            return Err(invalid);
        }
        Ok((constraints, understood))
    }
}

impl Subtrees {
    /// Reads GeneralSubtrees. Minimum and maximum have no meaning in RFC 5280.
    fn read(&mut self, mut list: Reader<'_>) -> Result<bool, ParseError> {
        const EMAIL: u8 = tag::context(1);
        const DNS: u8 = tag::context(2);
        const URI: u8 = tag::context(6);
        const IP: u8 = tag::context(7);
        let mut understood = true;
        while !list.is_empty() {
            let base = list
                .nested(tag::SEQUENCE)
                .and_then(|mut subtree| subtree.any())
                .ok_or(ParseError::Invalid("NameConstraints extension"))?;
            let text = || strings::ascii(base.contents).ok_or(ParseError::Invalid("constraint value"));
            match base.tag {
                DNS => self.dns.insert(&text()?)?,
                EMAIL => self.insert_email(&text()?)?,
                URI => self.insert_uri(&text()?)?,
                IP => self.networks.push(Network::parse(base.contents)?),
                _ => understood = false,
            }
        }
        Ok(understood)
    }

    fn insert_email(&mut self, text: &str) -> Result<(), ParseError> {
        if !text.contains('@') {
            return self.mail_domains.insert(text);
        }
        let mailbox = Mailbox::parse(text).ok_or(ParseError::Invalid("rfc822Name constraint"))?;
        self.mailboxes.push(mailbox);
        Ok(())
    }

    fn insert_uri(&mut self, text: &str) -> Result<(), ParseError> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(ParseError::Invalid("URI constraint"));
        }
        self.uri.insert(text)
    }
}

/// A set of domain constraints, looked up by suffix.
#[derive(Debug, Default)]
struct Domains {
    /// The empty constraint, which means everything.
    everything: bool,
    /// `example.com`: the domain and all below, in lower case.
    trees: HashSet<String>,
    /// `.example.com`, without the dot: only what is below.
    below: HashSet<String>,
    /// One of `trees` by its parent: a wildcard for the parent's names would reach into it.
    children: HashMap<String, String>,
    /// Length of the longest entry: longer suffixes need no look-up.
    longest: usize,
}

impl Domains {
    fn insert(&mut self, constraint: &str) -> Result<(), ParseError> {
        let domain = constraint.strip_prefix('.').unwrap_or(constraint);
        if !is_domain(domain) || constraint == "." {
            return Err(ParseError::Invalid("domain in name constraint"));
        }
        let domain = domain.to_ascii_lowercase();
        self.longest = self.longest.max(domain.len());
        if constraint.is_empty() {
            self.everything = true;
        } else if constraint.starts_with('.') {
            self.below.insert(domain);
        } else {
            if let Some((_, parent)) = domain.split_once('.') {
                self.children.insert(parent.to_owned(), domain.clone());
            }
            self.trees.insert(domain);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.trees.is_empty() && self.below.is_empty()
    }

    /// The constraint that covers `domain`, if any. Only the empty one covers an empty domain.
    fn covering(&self, domain: &str, budget: &mut Budget) -> Result<Option<String>, PathError> {
        if self.is_empty() {
            return Ok(None);
        }
        budget.spend(1)?;
        if self.everything {
            return Ok(Some(String::new()));
        }
        let domain = domain.to_ascii_lowercase();
        if self.trees.contains(&domain) {
            return Ok(Some(domain));
        }
        for (dot, _) in domain.match_indices('.') {
            budget.spend(1)?;
            let with_dot = domain.get(dot..).unwrap_or("");
            let suffix = with_dot.strip_prefix('.').unwrap_or("");
            if suffix.len() > self.longest {
                continue;
            }
            if self.trees.contains(suffix) {
                return Ok(Some(suffix.to_owned()));
            }
            if self.below.contains(suffix) {
                return Ok(Some(with_dot.to_owned()));
            }
        }
        Ok(None)
    }

    /// Of a wildcard, a constraint that covers some of the names it stands for.
    fn reached_by_wildcard(&self, domain: &str) -> Option<String> {
        let parent = domain.strip_prefix("*.")?.to_ascii_lowercase();
        self.children.get(&parent).cloned()
    }
}

/// A mail address (RFC 5321, section 4.1.2), with quotes and backslashes resolved.
#[derive(Debug, PartialEq, Eq)]
struct Mailbox {
    local: Vec<u8>,
    domain: String,
}

impl Mailbox {
    fn parse(text: &str) -> Option<Self> {
        let (local, rest) = match text.strip_prefix('"') {
            Some(quoted) => quoted_local_part(quoted)?,
            None => dotted_local_part(text)?,
        };
        let domain = rest.strip_prefix('@')?;
        is_domain(domain).then(|| Self {
            local,
            domain: domain.to_ascii_lowercase(),
        })
    }
}

/// What is inside the quotes, and what follows the closing one.
fn quoted_local_part(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut local = Vec::new();
    let mut bytes = text.bytes().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((local, text.get(index.checked_add(1)?..)?)),
            b'\\' => {
                let (_, escaped) = bytes.next()?;
                if !matches!(escaped, 1..=9 | 11 | 12 | 14..=127) {
                    return None;
                }
                local.push(escaped);
            }
            // A blank is not in the grammar but in examples of RFC 3696.
            1..=8 | 11 | 12 | 14..=127 => local.push(byte),
            _ => return None,
        }
    }
    None
}

/// Atoms with single dots between them, and what follows.
fn dotted_local_part(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut local = Vec::new();
    let mut end = text.len();
    let mut bytes = text.bytes().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\\' => local.push(bytes.next()?.1),
            _ if byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte) => local.push(byte),
            _ => {
                end = index;
                break;
            }
        }
    }
    let dots_separate = !local.split(|&byte| byte == b'.').any(<[u8]>::is_empty);
    dots_separate.then_some((local, text.get(end..)?))
}

/// An address range: base and mask, as bytes.
#[derive(Debug)]
struct Network {
    base: Vec<u8>,
    mask: Vec<u8>,
}

impl Network {
    fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() != 8 && bytes.len() != 32 {
            return Err(ParseError::Invalid("length of IP constraint"));
        }
        let (base, mask) = bytes.split_at(bytes.len() / 2);
        let zeros = mask.iter().skip_while(|&&byte| byte == 0xff);
        let contiguous = zeros.enumerate().all(|(index, &byte)| {
            byte == 0 || (index == 0 && byte.leading_ones().saturating_add(byte.trailing_zeros()) == 8)
        });
        if !contiguous {
            return Err(ParseError::Invalid("mask of IP constraint"));
        }
        Ok(Self {
            base: base.to_vec(),
            mask: mask.to_vec(),
        })
    }

    fn contains(&self, address: &[u8]) -> bool {
        address.len() == self.base.len()
            && self
                .base
                .iter()
                .zip(&self.mask)
                .zip(address)
                .all(|((base, mask), byte)| base & mask == byte & mask)
    }
}

/// `10.0.0.0/8`
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ones: u32 = self.mask.iter().map(|byte| byte.count_ones()).sum();
        let base = ip_address(&self.base).ok_or(fmt::Error)?;
        write!(f, "{base}/{ones}")
    }
}

struct Budget(usize);

impl Budget {
    fn spend(&mut self, steps: usize) -> Result<(), PathError> {
        self.0 = self.0.checked_sub(steps).ok_or(PathError::TooManyConstraints)?;
        Ok(())
    }
}

/// Checks the names of every certificate against the constraints of all above it.
pub(super) fn check(chain: &[Certificate]) -> Result<(), PathError> {
    let mut budget = Budget(COMPARISONS);
    for (index, authority) in chain.iter().enumerate().skip(1) {
        let Some(constraints) = &authority.extensions().name_constraints else {
            continue;
        };
        let below = chain.iter().take(index);
        for names in below.filter_map(Certificate::alternative_names) {
            constraints.check(names, &mut budget)?;
        }
    }
    Ok(())
}

impl NameConstraints {
    fn check(&self, names: &AlternativeNames, budget: &mut Budget) -> Result<(), PathError> {
        for name in &names.email {
            self.check_email(name, budget)?;
        }
        for name in &names.dns {
            self.check_dns(name, budget)?;
        }
        for uri in &names.uri {
            self.check_uri(uri, budget)?;
        }
        for address in &names.ip {
            self.check_ip(*address, budget)?;
        }
        Ok(())
    }

    fn check_email(&self, name: &str, budget: &mut Budget) -> Result<(), PathError> {
        let unparsable = || PathError::UnparsableName {
            kind: "rfc822Name",
            name: name.to_owned(),
        };
        let mailbox = Mailbox::parse(name).ok_or_else(unparsable)?;
        let mut covering = |subtrees: &Subtrees| {
            budget.spend(subtrees.mailboxes.len())?;
            if subtrees.mailboxes.contains(&mailbox) {
                return Ok(Some(name.to_owned()));
            }
            subtrees.mail_domains.covering(&mailbox.domain, budget)
        };
        let unconstrained = self.permitted.mail_domains.is_empty() && self.permitted.mailboxes.is_empty();
        let excluded = covering(&self.excluded)?;
        let permitted = unconstrained || covering(&self.permitted)?.is_some();
        verdict("email address", name, excluded, permitted)
    }

    fn check_dns(&self, name: &str, budget: &mut Budget) -> Result<(), PathError> {
        if !is_domain(name) {
            return Err(PathError::UnparsableName {
                kind: "dnsName",
                name: name.to_owned(),
            });
        }
        let excluded = self.excluded.dns.covering(name, budget)?;
        let excluded = excluded.or_else(|| self.excluded.dns.reached_by_wildcard(name));
        let permitted = self.permitted.dns.is_empty() || self.permitted.dns.covering(name, budget)?.is_some();
        verdict("DNS name", name, excluded, permitted)
    }

    /// A URI without a host name cannot be compared and is refused (RFC 5280), but only
    /// where there is a URI constraint to compare it with.
    fn check_uri(&self, uri: &Uri, budget: &mut Budget) -> Result<(), PathError> {
        if self.excluded.uri.is_empty() && self.permitted.uri.is_empty() {
            return Ok(());
        }
        let incomparable = |what: &str| {
            let uri = Quoted(&uri.text);
            PathError::NameConstraint(format!(
                "URI with {what} ({uri}) cannot be matched against constraints"
            ))
        };
        if uri.host.is_empty() {
            return Err(incomparable("empty host"));
        }
        let host = match uri.host.split_once(':') {
            _ if uri.host.starts_with('[') => return Err(incomparable("IP")),
            Some((host, _port)) => host,
            None => uri.host.as_str(),
        };
        if host.parse::<IpAddr>().is_ok() {
            return Err(incomparable("IP"));
        }
        let excluded = self.excluded.uri.covering(host, budget)?;
        let permitted = self.permitted.uri.is_empty() || self.permitted.uri.covering(host, budget)?.is_some();
        verdict("URI", &uri.text, excluded, permitted)
    }

    fn check_ip(&self, address: IpAddr, budget: &mut Budget) -> Result<(), PathError> {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut covering = |networks: &[Network]| {
            budget.spend(networks.len())?;
            let network = networks.iter().find(|network| network.contains(&bytes));
            Ok::<_, PathError>(network.map(Network::to_string))
        };
        let excluded = covering(&self.excluded.networks)?;
        let permitted = self.permitted.networks.is_empty() || covering(&self.permitted.networks)?.is_some();
        verdict(
            "IP address",
            &address.to_canonical().to_string(),
            excluded,
            permitted,
        )
    }
}

/// Excluded names are refused even if they are permitted as well.
fn verdict(kind: &str, name: &str, excluded: Option<String>, permitted: bool) -> Result<(), PathError> {
    let name = Quoted(name);
    if let Some(constraint) = excluded {
        let constraint = Quoted(&constraint);
        return Err(PathError::NameConstraint(format!(
            "{kind} {name} is excluded by constraint {constraint}"
        )));
    }
    if !permitted {
        return Err(PathError::NameConstraint(format!(
            "{kind} {name} is not permitted by any constraint"
        )));
    }
    Ok(())
}
