//! Who may connect: access rules over the identity in a verified certificate.

mod uri_pattern;

use std::net::IpAddr;

pub use uri_pattern::{UriPattern, UriPatternError};

/// Access rules of one tunnel (`--allow-*` of a server, `--verify-*` of a client): any
/// single match admits (spec authorization.md section 3).
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
