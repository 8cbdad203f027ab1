//! What a peer claims to be, as its certificate states it.

use std::net::IpAddr;

use crate::certificate::Certificate;

/// The claims in a leaf certificate that access rules look at.
///
/// Holding one says nothing about trust: the chain has to be validated as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    leaf: Certificate,
    ip_addresses: Vec<IpAddr>,
    uris: Vec<String>,
}

impl Identity {
    /// The claims of `leaf`.
    pub fn of(leaf: &Certificate) -> Self {
        Self {
            leaf: leaf.clone(),
            ip_addresses: leaf.ip_addresses().iter().map(IpAddr::to_canonical).collect(),
            uris: leaf.uris().map(str::to_owned).collect(),
        }
    }

    /// The certificate that states all this.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The subject's last common name.
    pub fn common_name(&self) -> Option<&str> {
        self.leaf.subject().common_name()
    }

    /// All common names of the subject. Only an exclusion looks at those before the last.
    pub fn common_names(&self) -> impl Iterator<Item = &str> {
        self.leaf.subject().common_names()
    }

    /// All organizational units of the subject.
    pub fn organizational_units(&self) -> &[String] {
        self.leaf.subject().organizational_units()
    }

    /// DNS alternative names, as encoded.
    pub fn dns_names(&self) -> &[String] {
        self.leaf.dns_names()
    }

    /// IP alternative names; IPv4-mapped IPv6 addresses have become IPv4.
    pub fn ip_addresses(&self) -> &[IpAddr] {
        &self.ip_addresses
    }

    /// URI alternative names, parsed and written again: scheme in lower case, escapes
    /// added where a character needs one.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The subject as the log shows it.
    pub fn subject(&self) -> String {
        self.leaf.subject().to_string()
    }
}
