//! The lists: common names, organizational units, DNS names, IP addresses, URIs.

use ghostunnel_pki::Identity;

use super::{Reason, Rules};

impl Rules {
    /// The first rule that matches, in the order common name, organizational unit, DNS
    /// name, IP address, URI.
    pub(super) fn matching_rule(&self, identity: &Identity) -> Option<Reason> {
        let common_name = || {
            let names = identity.common_name().into_iter();
            first_listed(names, &self.common_names).map(Reason::CommonName)
        };
        let organizational_unit = || {
            let units = identity.organizational_units().iter().map(String::as_str);
            first_listed(units, &self.organizational_units).map(Reason::OrganizationalUnit)
        };
        let dns_name = || {
            let names = identity.dns_names().iter().map(String::as_str);
            first_listed(names, &self.dns_names).map(Reason::DnsName)
        };
        common_name()
            .or_else(organizational_unit)
            .or_else(dns_name)
            .or_else(|| self.matching_ip_address(identity))
            .or_else(|| self.matching_uri(identity))
    }

    /// Numeric equality; IPv4 equals its IPv4-mapped IPv6 form.
    fn matching_ip_address(&self, identity: &Identity) -> Option<Reason> {
        identity
            .ip_addresses()
            .iter()
            .find(|address| {
                self.ip_addresses
                    .iter()
                    .any(|rule| rule.to_canonical() == address.to_canonical())
            })
            .map(|address| Reason::IpAddress(*address))
    }

    fn matching_uri(&self, identity: &Identity) -> Option<Reason> {
        identity.uris().iter().find_map(|uri| {
            let pattern = self.uris.iter().find(|pattern| pattern.matches(uri))?;
            Some(Reason::Uri {
                uri: uri.clone(),
                pattern: pattern.text().to_owned(),
            })
        })
    }
}

/// The first claim that is on the list, byte by byte: no wildcards, no letter case.
///
/// An empty entry matches nothing. Ghostunnel 1.11.1 let `--allow-cn=` admit everybody
/// without a common name, which is never what an empty variable in a script means.
fn first_listed<'a>(claims: impl Iterator<Item = &'a str>, list: &[String]) -> Option<String> {
    let mut claims = claims.filter(|claim| !claim.is_empty());
    claims
        .find(|claim| list.iter().any(|entry| entry == claim))
        .map(str::to_owned)
}
