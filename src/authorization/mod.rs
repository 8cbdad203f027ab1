//! Who may connect: access rules over the identity in a verified certificate.
//!
//! Judges an identity that `tls` has taken from a validated chain and answers with a
//! [`Decision`]. Does not look at chains, names of servers or connections.

mod acl;
mod spki_pin;
mod uri_pattern;

use std::fmt;
use std::net::IpAddr;

use ghostunnel_pki::Identity;

pub use spki_pin::{PinAlgorithm, SpkiPin, SpkiPinError};
pub use uri_pattern::{UriPattern, UriPatternError};

/// Access rules of one tunnel (`--allow-*` of a server, `--verify-*` of a client): any
/// single match admits.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `--allow-all`: everybody whose chain verifies.
    pub all: bool,
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

impl Rules {
    /// Decides about a peer whose chain has been validated. Without any rule nobody is
    /// admitted; whether rules are needed at all is for the caller to know.
    pub fn authorize(&self, identity: &Identity) -> Decision {
        let reason = if self.all {
            Some(Reason::Everybody)
        } else {
            self.matching_rule(identity)
        };
        match reason {
            Some(reason) => Decision::Admitted(Admission { reason }),
            None => Decision::Refused(Refusal(())),
        }
    }
}

/// The answer to "may this peer connect?".
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Yes, with the proof.
    Admitted(Admission),
    /// No.
    Refused(Refusal),
}

/// Proof that access rules admitted a peer. Only this module can make one, and no backend
/// can be reached without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    reason: Reason,
}

impl Admission {
    /// For a server that was told not to ask who its peers are (`--disable-authentication`).
    pub fn unauthenticated() -> Self {
        Self {
            reason: Reason::Unauthenticated,
        }
    }

    /// For whoever can reach the plaintext side of a client tunnel.
    pub fn local_peer() -> Self {
        Self {
            reason: Reason::LocalPeer,
        }
    }

    /// Why the peer was admitted.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

/// Why a peer was admitted. Displayed for the log, with foreign text quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Every peer with a valid chain is admitted.
    Everybody,
    /// Peers are not authenticated.
    Unauthenticated,
    /// Peers are trusted because they are local.
    LocalPeer,
    /// This common name is on the list.
    CommonName(String),
    /// This organizational unit is on the list.
    OrganizationalUnit(String),
    /// This DNS name is on the list.
    DnsName(String),
    /// This address is on the list.
    IpAddress(IpAddr),
    /// This URI matches a pattern of the list.
    Uri {
        /// The peer's URI.
        uri: String,
        /// The pattern as typed.
        pattern: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("every verified peer is allowed"),
            Self::Unauthenticated => f.write_str("authentication is disabled"),
            Self::LocalPeer => f.write_str("local peer"),
            Self::CommonName(name) => write!(f, "common name {name:?}"),
            Self::OrganizationalUnit(unit) => write!(f, "organizational unit {unit:?}"),
            Self::DnsName(name) => write!(f, "DNS name {name:?}"),
            Self::IpAddress(address) => write!(f, "IP address {address}"),
            Self::Uri { uri, pattern } => write!(f, "URI {uri:?} by pattern {pattern:?}"),
        }
    }
}

/// A peer that no rule admits. The text does not tell the peer's name: that is logged
/// beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unauthorized: invalid principal, or principal not allowed")]
pub struct Refusal(());

#[cfg(test)]
mod tests {
    use ghostunnel_pki::Certificate;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn identity(subject: &[(DnType, &str)], names: Vec<SanType>) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Identity::of(&Certificate::parse(certificate.der()).expect("a well-formed certificate"))
    }

    fn client() -> Identity {
        let text = |text: &str| text.try_into().expect("ASCII");
        identity(
            &[
                (DnType::CommonName, "client"),
                (DnType::OrganizationalUnitName, "one"),
            ],
            vec![
                SanType::DnsName(text("client.example")),
                SanType::DnsName(text("*.wild.example")),
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::URI(text("SPIFFE://td/client")),
            ],
        )
    }

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    /// The reason as text, or nothing for a refusal.
    fn verdict(rules: &Rules, identity: &Identity) -> Option<String> {
        match rules.authorize(identity) {
            Decision::Admitted(admission) => Some(admission.reason().to_string()),
            Decision::Refused(refusal) => {
                assert_eq!(
                    refusal.to_string(),
                    "unauthorized: invalid principal, or principal not allowed"
                );
                None
            }
        }
    }

    #[test]
    fn any_single_match_admits_and_is_named() {
        let uri = |pattern| vec![UriPattern::parse(pattern).expect("a valid pattern")];
        let ip = |address: &str| vec![address.parse().expect("an address")];
        let rules = Rules::default;
        for (rules, expected) in [
            (
                Rules { all: true, ..rules() },
                Some("every verified peer is allowed"),
            ),
            (
                Rules {
                    common_names: list(&["x", "client"]),
                    ..rules()
                },
                Some("common name \"client\""),
            ),
            (
                Rules {
                    common_names: list(&["CLIENT", "clien", "client ", "*"]),
                    ..rules()
                },
                None,
            ),
            (
                Rules {
                    organizational_units: list(&["one"]),
                    ..rules()
                },
                Some("organizational unit \"one\""),
            ),
            (
                Rules {
                    organizational_units: list(&["ONE", "client"]),
                    ..rules()
                },
                None,
            ),
            (
                Rules {
                    dns_names: list(&["client.example"]),
                    ..rules()
                },
                Some("DNS name \"client.example\""),
            ),
            (
                Rules {
                    dns_names: list(&["*.wild.example"]),
                    ..rules()
                },
                Some("DNS name \"*.wild.example\""),
            ),
            (
                Rules {
                    dns_names: list(&["CLIENT.example", "a.wild.example", "client"]),
                    ..rules()
                },
                None,
            ),
            (
                Rules {
                    ip_addresses: ip("127.0.0.1"),
                    ..rules()
                },
                Some("IP address 127.0.0.1"),
            ),
            (
                Rules {
                    ip_addresses: ip("::ffff:127.0.0.1"),
                    ..rules()
                },
                Some("IP address 127.0.0.1"),
            ),
            (
                Rules {
                    ip_addresses: ip("::1"),
                    ..rules()
                },
                None,
            ),
            (
                Rules {
                    uris: uri("spiffe://td/*"),
                    ..rules()
                },
                Some("URI \"spiffe://td/client\" by pattern \"spiffe://td/*\""),
            ),
            (
                Rules {
                    uris: uri("SPIFFE://td/*"),
                    ..rules()
                },
                None,
            ),
            (
                Rules {
                    common_names: list(&["other"]),
                    uris: uri("**"),
                    ..rules()
                },
                Some("URI \"spiffe://td/client\" by pattern \"**\""),
            ),
            (
                Rules {
                    common_names: list(&["client"]),
                    uris: uri("**"),
                    ..rules()
                },
                Some("common name \"client\""),
            ),
            (rules(), None),
        ] {
            assert_eq!(verdict(&rules, &client()).as_deref(), expected, "{rules:?}");
        }
    }

    #[test]
    fn an_empty_entry_admits_nobody() {
        let empty = || list(&[""]);
        let rules = Rules {
            common_names: empty(),
            organizational_units: empty(),
            dns_names: empty(),
            ..Rules::default()
        };
        let nameless = identity(&[], Vec::new());
        let named_empty = identity(
            &[(DnType::CommonName, ""), (DnType::OrganizationalUnitName, "")],
            Vec::new(),
        );
        for identity in [nameless, named_empty, client()] {
            assert_eq!(verdict(&rules, &identity), None, "{}", identity.subject());
        }
    }

    #[test]
    fn foreign_text_is_quoted_in_reasons() {
        let odd = identity(&[(DnType::CommonName, "a\nb\"c")], Vec::new());
        let rules = Rules {
            common_names: list(&["a\nb\"c"]),
            ..Rules::default()
        };
        assert_eq!(
            verdict(&rules, &odd).as_deref(),
            Some("common name \"a\\nb\\\"c\"")
        );
    }

    #[test]
    fn admissions_without_a_certificate_say_so() {
        assert_eq!(
            Admission::unauthenticated().reason().to_string(),
            "authentication is disabled"
        );
        assert_eq!(Admission::local_peer().reason().to_string(), "local peer");
    }
}
