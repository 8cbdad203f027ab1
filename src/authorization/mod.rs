//! Who may connect: access rules over the identity in a verified certificate.
//!
//! Judges an identity that `tls` has taken from a validated chain and answers with a
//! [`Decision`]. Does not look at chains, names of servers or connections.

mod acl;
mod describe;
mod exclusions;
mod requirements;
mod spki_pin;
mod uri_pattern;

use std::fmt;
use std::net::IpAddr;

use ghostunnel_pki::Identity;

pub use describe::names;
pub use exclusions::{Exclusions, SerialNumber, SerialNumberError};
pub use requirements::Requirements;
pub use spki_pin::{SpkiPin, SpkiPinError};
pub use uri_pattern::{UriPattern, UriPatternError};

/// Access rules of one tunnel: a peer gets in if any of the rules that admit (`--allow-*` of a
/// server, `--verify-*` of a client) matches, all requirements are met, and no exclusion names it.
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
    /// Public keys. If there are any, they alone admit: see [`Self::replace_path`].
    pub pins: Vec<SpkiPin>,
    /// `--require-*`.
    pub required: Requirements,
    /// `--deny-*`.
    pub denied: Exclusions,
}

impl Rules {
    /// Whether a peer is known by its key alone, so that its chain proves nothing and must not
    /// be asked for: neither authorities nor dates, usages and the name of a server matter then.
    pub fn replace_path(&self) -> bool {
        !self.pins.is_empty()
    }

    /// Decides about a peer whose chain has been validated, unless rules
    /// [replace](Self::replace_path) that. Without any rule nobody is admitted; whether rules are
    /// needed at all is for the caller to know.
    pub fn authorize(&self, identity: &Identity) -> Decision {
        match self.decide(identity) {
            Ok(reason) => Decision::Admitted(Admission { reason }),
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    fn decide(&self, identity: &Identity) -> Result<Reason, Refusal> {
        if let Some(rule) = self.denied.matching(identity) {
            return Err(Refusal::Denied { rule });
        }
        let reason = self.admitting_rule(identity)?;
        match self.required.unmet(identity) {
            Some(rule) => Err(Refusal::Unmet { rule }),
            None => Ok(reason),
        }
    }

    fn admitting_rule(&self, identity: &Identity) -> Result<Reason, Refusal> {
        if self.replace_path() {
            let spki = identity.leaf().subject_public_key_info();
            let pin = self.pins.iter().find(|pin| pin.matches(spki));
            return pin
                .map(|pin| Reason::SpkiPin(pin.to_string()))
                .ok_or(Refusal::WrongPin);
        }
        if self.all {
            return Ok(Reason::Everybody);
        }
        self.matching_rule(identity).ok_or(Refusal::NoMatch)
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
    /// This public key is on the list.
    SpkiPin(String),
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
            Self::SpkiPin(pin) => write!(f, "public key {pin}"),
        }
    }
}

/// Why a peer is not admitted. The texts are those of Ghostunnel 1.11.1; they tell neither the
/// peer's name nor the rules, which are logged beside them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule admits the peer.
    #[error("unauthorized: invalid principal, or principal not allowed")]
    NoMatch,
    /// The peer's public key is not among those that are known.
    #[error("unauthorized: pin verification failed")]
    WrongPin,
    /// An exclusion names the peer.
    #[error("unauthorized: invalid principal, or principal not allowed")]
    Denied {
        /// The exclusion, for the log.
        rule: String,
    },
    /// The peer is admitted but for a requirement.
    #[error("unauthorized: invalid principal, or principal not allowed")]
    Unmet {
        /// The requirement, for the log.
        rule: String,
    },
}

impl Refusal {
    /// What the peer was compared with, for the log.
    pub fn compared_with(&self, rules: &Rules) -> String {
        match self {
            Self::NoMatch | Self::WrongPin => rules.description(),
            Self::Denied { rule } | Self::Unmet { rule } => rule.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ghostunnel_pki::Certificate;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    pub(super) fn identity(subject: &[(DnType, &str)], names: Vec<SanType>) -> Identity {
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

    /// A peer with a name of every kind.
    pub(super) fn client() -> Identity {
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

    pub(super) fn list(entries: &[&str]) -> Vec<String> {
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
    fn pins_know_a_peer_by_its_key_and_by_nothing_else() {
        let peer = client();
        let own = SpkiPin::of(peer.leaf().subject_public_key_info());
        let other = SpkiPin::of(b"another key");
        let rules = Rules {
            pins: vec![other.clone(), own.clone()],
            ..Rules::default()
        };
        assert!(rules.replace_path());
        let admitted = format!("public key {own}");
        assert_eq!(verdict(&rules, &peer).as_deref(), Some(&*admitted));

        // Whatever else would admit the peer, it is the key that counts.
        let rules = Rules {
            all: true,
            common_names: list(&["client"]),
            pins: vec![other.clone()],
            ..Rules::default()
        };
        assert_eq!(rules.authorize(&peer), Decision::Refused(Refusal::WrongPin));
        assert_eq!(
            Refusal::WrongPin.to_string(),
            "unauthorized: pin verification failed"
        );
        assert!(!Rules::default().replace_path());
    }

    #[test]
    fn exclusions_win_over_everything_and_requirements_narrow_the_rest() {
        let peer = client();
        let own = SpkiPin::of(peer.leaf().subject_public_key_info());
        let denied = || Exclusions {
            organizational_units: list(&["one"]),
            ..Exclusions::default()
        };
        let required = |unit| Requirements {
            organizational_units: list(&[unit]),
            ..Requirements::default()
        };
        let unmet = |rule: &str| {
            Decision::Refused(Refusal::Unmet {
                rule: rule.to_owned(),
            })
        };
        let everybody = || Rules {
            all: true,
            ..Rules::default()
        };
        let by_name = || Rules {
            common_names: list(&["client"]),
            ..Rules::default()
        };
        let by_key = || Rules {
            pins: vec![own.clone()],
            ..Rules::default()
        };
        for admitting in [everybody(), by_name(), by_key()] {
            let rules = |denied, required| Rules {
                denied,
                required,
                ..admitting.clone()
            };
            assert!(matches!(
                rules(Exclusions::default(), required("one")).authorize(&peer),
                Decision::Admitted(_)
            ));
            assert_eq!(
                rules(Exclusions::default(), required("two")).authorize(&peer),
                unmet("require ou \"two\"")
            );
            let excluded = Decision::Refused(Refusal::Denied {
                rule: "deny ou \"one\"".to_owned(),
            });
            assert_eq!(rules(denied(), required("one")).authorize(&peer), excluded);
            assert_eq!(rules(denied(), required("two")).authorize(&peer), excluded);
        }
        // A requirement that is met admits nobody by itself.
        let rules = Rules {
            required: required("one"),
            ..Rules::default()
        };
        assert_eq!(rules.authorize(&peer), Decision::Refused(Refusal::NoMatch));
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
