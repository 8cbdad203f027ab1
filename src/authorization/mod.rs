//! Who may connect: access rules over the identity in a verified certificate.
//!
//! Judges an identity that `tls` has taken from a validated chain and answers with a
//! [`Decision`]. Does not look at chains, names of servers or connections.

mod acl;
mod uri_pattern;

use std::fmt;
use std::net::IpAddr;

use ghostunnel_pki::Identity;

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
