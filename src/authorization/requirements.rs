//! Requirements (`--require-*`): what a peer must have beside being admitted, all of it.

use std::net::IpAddr;

use ghostunnel_pki::Identity;

use super::UriPattern;
use super::describe::Quoted;

/// What everybody must have. Each entry is compared as the rule of the same kind that admits
/// peers, and each must match.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    /// Subject common names.
    pub common_names: Vec<String>,
    /// Subject organizational units.
    pub organizational_units: Vec<String>,
    /// DNS alternative names.
    pub dns_names: Vec<String>,
    /// IP alternative names.
    pub ip_addresses: Vec<IpAddr>,
    /// URI alternative names.
    pub uris: Vec<UriPattern>,
}

impl Requirements {
    /// The first requirement that this peer does not meet, in words.
    pub(super) fn unmet(&self, identity: &Identity) -> Option<String> {
        let name = |rule: &&String| rule.is_empty() || identity.common_name() != Some(rule.as_str());
        let unit = |rule: &&String| rule.is_empty() || !identity.organizational_units().contains(rule);
        let dns_name = |rule: &&String| rule.is_empty() || !identity.dns_names().contains(rule);
        let address = |rule: &&IpAddr| !identity.ip_addresses().contains(&rule.to_canonical());
        let uri = |rule: &&UriPattern| !identity.uris().iter().any(|uri| rule.matches(uri));
        let told = |kind: &str, rule: &String| format!("require {kind} {}", Quoted(rule));

        let common_names = self.common_names.iter().find(name).map(|rule| told("cn", rule));
        common_names
            .or_else(|| Some(told("ou", self.organizational_units.iter().find(unit)?)))
            .or_else(|| Some(told("dns", self.dns_names.iter().find(dns_name)?)))
            .or_else(|| Some(format!("require ip {}", self.ip_addresses.iter().find(address)?)))
            .or_else(|| {
                let pattern = self.uris.iter().find(uri)?;
                Some(format!("require uri {}", Quoted(pattern.text())))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{client, list};
    use super::*;

    #[test]
    fn every_requirement_must_be_met() {
        let ip = |address: &str| vec![address.parse().expect("an address")];
        let uri = |text: &str| vec![UriPattern::parse(text).expect("a pattern")];
        let none = Requirements::default;
        for (required, unmet) in [
            (none(), None),
            (
                Requirements {
                    common_names: list(&["client"]),
                    organizational_units: list(&["one"]),
                    dns_names: list(&["client.example", "*.wild.example"]),
                    ip_addresses: ip("::ffff:127.0.0.1"),
                    uris: uri("spiffe://td/*"),
                },
                None,
            ),
            (
                Requirements {
                    common_names: list(&["client", "other"]),
                    ..none()
                },
                Some("require cn \"other\""),
            ),
            (
                Requirements {
                    common_names: list(&["CLIENT"]),
                    ..none()
                },
                Some("require cn \"CLIENT\""),
            ),
            (
                Requirements {
                    organizational_units: list(&["one", ""]),
                    ..none()
                },
                Some("require ou \"\""),
            ),
            (
                Requirements {
                    dns_names: list(&["client.example", "a.wild.example"]),
                    ..none()
                },
                Some("require dns \"a.wild.example\""),
            ),
            (
                Requirements {
                    ip_addresses: ip("::1"),
                    ..none()
                },
                Some("require ip ::1"),
            ),
            (
                Requirements {
                    uris: uri("spiffe://other/**"),
                    ..none()
                },
                Some("require uri \"spiffe://other/**\""),
            ),
        ] {
            assert_eq!(required.unmet(&client()).as_deref(), unmet, "{required:?}");
        }
    }
}
