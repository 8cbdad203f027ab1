//! Address grammar (spec network.md section 1): `HOST:PORT`, `unix:PATH`, `unix:@ABSTRACT`.

use std::path::PathBuf;

/// Whether an address may leave the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only `localhost:`, `127.0.0.1:`, `[::1]:` and `unix:` forms are allowed, and a
    /// `localhost` must resolve to loopback, at start and at each use.
    LocalOnly,
    /// Any address (`--unsafe-listen`, `--unsafe-target`, or an end that speaks TLS).
    Anywhere,
}

/// `HOST:PORT`, split and checked for shape, not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host without brackets; may be empty; may carry an IPv6 zone (`fe80::1%eth0`).
    pub host: String,
    /// The port as typed: decimal, a service name, or empty (0).
    pub port: String,
}

/// The name of a UNIX stream socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixName {
    /// A path in the file system.
    Path(PathBuf),
    /// `unix:@NAME`, an abstract name (without the leading `@`).
    Abstract(Vec<u8>),
    /// `unix:`, listeners only: the kernel picks an abstract name.
    Unnamed,
}

/// Where a tunnel or the status port listens. Built only by [`ListenAddr::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    text: String,
}

/// Where connections go. Built only by [`TargetAddr::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetAddr {
    text: String,
}

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `HOST:PORT`-shaped.
    #[error("address {0}: missing port in address")]
    MissingPort(String),
}

impl ListenAddr {
    /// Parses a listen address.
    pub fn parse(text: &str, _reach: Reach) -> Result<Self, AddressError> {
        Ok(Self { text: text.to_owned() })
    }
    /// The address as typed.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TargetAddr {
    /// Parses a target address.
    pub fn parse(text: &str, _reach: Reach) -> Result<Self, AddressError> {
        Ok(Self { text: text.to_owned() })
    }
    /// The address as typed.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Host part of a `HOST:PORT` target; `None` for UNIX sockets.
    pub fn host(&self) -> Option<&str> {
        None
    }
}
