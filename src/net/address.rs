//! Address grammar: `HOST:PORT`, `unix:PATH`, `unix:@ABSTRACT`, and for listeners `systemd:NAME`.
//!
//! Prefixes are compared case-sensitively on the raw text, first match wins. Parsing
//! checks the shape only; hosts are looked up when an address is used. A port is
//! turned into a number here, because a service name costs a file read that neither a
//! worker nor a confined process should have to make; a port that has none is
//! reported at first use.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::forward_proxy::ForwardProxy;
use super::resolve;

/// Whether an address may leave the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only `localhost:`, `127.0.0.1:`, `[::1]:` and `unix:` forms are allowed, and a
    /// `localhost` must resolve to loopback, at start and at each use. Where an inherited
    /// socket listens is for the service manager to say.
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
    number: Result<u16, AddressError>,
}

/// The name of a UNIX stream socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnixName {
    /// A path in the file system.
    Path(PathBuf),
    /// `unix:@NAME`, an abstract name (without the leading `@`).
    Abstract(Vec<u8>),
    /// `unix:`. A listener gets an abstract name from the kernel; a target can never be
    /// reached.
    Unnamed,
}

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `HOST:PORT`.
    Tcp(HostPort),
    /// `unix:NAME`.
    Unix(UnixName),
}

/// Where a listener comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenKind {
    /// It is opened at an address.
    Address(Kind),
    /// `systemd:NAME`: it was opened by the service manager and is inherited under this name.
    Inherited(String),
}

/// Where a tunnel or the status port listens. Built only by [`ListenAddr::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    text: String,
    reach: Reach,
    kind: ListenKind,
}

/// Where connections go. Built only by [`TargetAddr::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetAddr {
    text: String,
    reach: Reach,
    kind: Kind,
    proxy: Option<Arc<ForwardProxy>>,
}

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The address may leave the machine and nobody asked for that.
    #[error("address {0}: not local: must be unix:PATH, localhost:PORT, 127.0.0.1:PORT or [::1]:PORT")]
    NotLocal(String),
    /// `systemd:` or `launchd:` where it cannot be used; carries the word.
    #[error("network {0:?} is not supported")]
    UnsupportedNetwork(&'static str),
    /// No `:PORT` at the end.
    #[error("{}missing port in address", Of(.0))]
    MissingPort(String),
    /// An IPv6 literal without brackets, or something like it.
    #[error("{}too many colons in address", Of(.0))]
    TooManyColons(String),
    /// `[` without `]`.
    #[error("{}missing ']' in address", Of(.0))]
    MissingBracket(String),
    /// A bracket where none belongs.
    #[error("{}unexpected {bracket:?} in address", Of(.address))]
    UnexpectedBracket {
        /// The whole address.
        address: String,
        /// The bracket.
        bracket: char,
    },
    /// A decimal port outside 0–65535; carries the port.
    #[error("address {0}: invalid port")]
    InvalidPort(String),
    /// A port that is no number and no service the system knows; carries the port.
    #[error("lookup tcp/{0}: unknown port")]
    UnknownPort(String),
}

impl AddressError {
    /// What to change, as an end of the message; empty where the message says it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::MissingPort(_) => " (give HOST:PORT or unix:PATH)",
            Self::TooManyColons(_) | Self::MissingBracket(_) | Self::UnexpectedBracket { .. } => {
                " (give HOST:PORT, with brackets around an IPv6 address: [::1]:PORT)"
            }
            Self::InvalidPort(_) => " (a port is a number from 0 to 65535)",
            Self::UnknownPort(_) => " (a port is a number, or a service that /etc/services names)",
            Self::NotLocal(_) | Self::UnsupportedNetwork(_) => "",
        }
    }
}

impl ListenAddr {
    /// Parses a listen address.
    ///
    /// With [`Reach::LocalOnly`] the text must start with one of the safe prefixes. `launchd:`
    /// is one of them, but refused: it exists on another system.
    pub fn parse(text: &str, reach: Reach) -> Result<Self, AddressError> {
        if reach == Reach::LocalOnly && activation(text).is_none() {
            require_local(text)?;
        }
        let kind = match text.strip_prefix("systemd:") {
            Some(name) => ListenKind::Inherited(name.to_owned()),
            None => ListenKind::Address(Kind::parse(text)?),
        };
        Ok(Self {
            text: text.to_owned(),
            reach,
            kind,
        })
    }

    /// The address as typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the listener comes from.
    pub fn kind(&self) -> &ListenKind {
        &self.kind
    }

    /// Whether it may leave the machine.
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

impl TargetAddr {
    /// Parses a target address.
    ///
    /// With [`Reach::LocalOnly`] the text must start with one of the safe prefixes.
    /// Activation sockets cannot be dialled and are refused with either reach.
    pub fn parse(text: &str, reach: Reach) -> Result<Self, AddressError> {
        if reach == Reach::LocalOnly && activation(text).is_none() {
            require_local(text)?;
        }
        Ok(Self {
            text: text.to_owned(),
            reach,
            kind: Kind::parse(text)?,
            proxy: None,
        })
    }

    /// Parses `HOST:PORT` and nothing else: here `unix:80` is port 80 of a host.
    pub fn tcp(text: &str) -> Result<Self, AddressError> {
        Ok(Self {
            text: text.to_owned(),
            reach: Reach::Anywhere,
            kind: Kind::Tcp(HostPort::parse(text)?),
            proxy: None,
        })
    }

    /// The same target, reached through a forward proxy, which connects to TCP addresses only.
    pub fn through(self, proxy: ForwardProxy) -> Result<Self, AddressError> {
        match self.kind {
            Kind::Unix(_) => Err(AddressError::UnsupportedNetwork("unix")),
            Kind::Tcp(_) => Ok(Self {
                proxy: Some(Arc::new(proxy)),
                ..self
            }),
        }
    }

    /// The forward proxy it is reached through.
    pub fn proxy(&self) -> Option<&ForwardProxy> {
        self.proxy.as_deref()
    }

    /// The address as typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Host part of a `HOST:PORT` target; `None` for UNIX sockets.
    pub fn host(&self) -> Option<&str> {
        match &self.kind {
            Kind::Tcp(address) => Some(&address.host),
            Kind::Unix(_) => None,
        }
    }

    /// What the address leads to.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether it may leave the machine.
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(word) = activation(text) {
            return Err(AddressError::UnsupportedNetwork(word));
        }
        match text.strip_prefix("unix:") {
            Some(name) => Ok(Self::Unix(UnixName::parse(name))),
            None => HostPort::parse(text).map(Self::Tcp),
        }
    }
}

impl HostPort {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split(text)?;
        Ok(Self::new(host, port))
    }

    /// A host without brackets and a port, both taken apart already.
    pub(super) fn new(host: &str, port: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: port.to_owned(),
            number: resolve::port_number(port),
        }
    }

    /// The port as a number; 0 when it was left empty.
    pub fn port_number(&self) -> Result<u16, AddressError> {
        self.number.clone()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl UnixName {
    fn parse(name: &str) -> Self {
        match name.strip_prefix('@') {
            _ if name.is_empty() => Self::Unnamed,
            Some(name) => Self::Abstract(name.as_bytes().to_vec()),
            None => Self::Path(PathBuf::from(name)),
        }
    }

    /// The name the kernel reports for a socket.
    pub(super) fn of_socket(address: &socket2::SockAddr) -> Self {
        if let Some(path) = address.as_pathname().filter(|path| !path.as_os_str().is_empty()) {
            Self::Path(path.to_owned())
        } else if let Some(name) = address.as_abstract_namespace() {
            Self::Abstract(name.to_vec())
        } else {
            Self::Unnamed
        }
    }

    /// The form that system calls take; fails for names that do not fit.
    pub(super) fn to_socket_address(&self) -> std::io::Result<socket2::SockAddr> {
        match self {
            Self::Path(path) => socket2::SockAddr::unix(path),
            Self::Abstract(name) => {
                let name = [b"\0", name.as_slice()].concat();
                socket2::SockAddr::unix(Path::new(OsStr::from_bytes(&name)))
            }
            Self::Unnamed => socket2::SockAddr::unix(Path::new("")),
        }
    }
}

/// `/path`, `@abstract`, or `@` for a socket without a name.
///
/// The other end chooses its own name, so control characters are escaped: one
/// connection can't write two lines into the log.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write_escaped(f, path.as_os_str().as_bytes()),
            Self::Abstract(name) => {
                f.write_str("@")?;
                write_escaped(f, name)
            }
            Self::Unnamed => f.write_str("@"),
        }
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                write!(f, "{c}")?
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// `address S: `, or nothing for an empty address.
struct Of<'a>(&'a str);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "address {}: ", self.0)
        }
    }
}

fn activation(text: &str) -> Option<&'static str> {
    ["launchd", "systemd"]
        .into_iter()
        .find(|word| text.strip_prefix(word).is_some_and(|rest| rest.starts_with(':')))
}

/// The safe prefixes, textual on purpose: `LOCALHOST:80` and `127.0.0.2:80` are not
/// among them.
fn require_local(text: &str) -> Result<(), AddressError> {
    let local = ["unix:", "localhost:", "127.0.0.1:", "[::1]:"];
    match local.iter().any(|prefix| text.starts_with(prefix)) {
        true => Ok(()),
        false => Err(AddressError::NotLocal(text.to_owned())),
    }
}

/// Splits `HOST:PORT` at the last colon; hosts that hold colons need brackets.
fn split(text: &str) -> Result<(&str, &str), AddressError> {
    let error = |variant: fn(String) -> AddressError| Err(variant(text.to_owned()));
    let Some((before, port)) = text.rsplit_once(':') else {
        return error(AddressError::MissingPort);
    };
    let (host, rest) = match text.strip_prefix('[') {
        None if before.contains(':') => return error(AddressError::TooManyColons),
        None => (before, before),
        Some(inner) => match inner.split_once(']') {
            None => return error(AddressError::MissingBracket),
            Some((host, rest)) if rest.len() == port.len() + 1 => (host, rest),
            Some((_, rest)) if rest.starts_with(':') => return error(AddressError::TooManyColons),
            Some(_) => return error(AddressError::MissingPort),
        },
    };
    let unexpected = |bracket| {
        Err(AddressError::UnexpectedBracket {
            address: text.to_owned(),
            bracket,
        })
    };
    if host.contains('[') || rest.contains('[') || port.contains('[') {
        return unexpected('[');
    }
    if rest.contains(']') || port.contains(']') {
        return unexpected(']');
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        TargetAddr::parse(text, Reach::Anywhere)
            .expect_err(text)
            .to_string()
    }

    #[test]
    fn hosts_and_ports_are_split_at_the_last_colon() {
        for (text, host, port, number) in [
            ("example.com:443", "example.com", "443", 443),
            (":8443", "", "8443", 8443),
            ("localhost:", "localhost", "", 0),
            ("[::1]:80", "::1", "80", 80),
            ("[fe80::1%eth0]:443", "fe80::1%eth0", "443", 443),
            ("[]:1", "", "1", 1),
            ("localhost:+80", "localhost", "+80", 80),
            ("localhost:0080", "localhost", "0080", 80),
            ("localhost:http", "localhost", "http", 80),
        ] {
            let address = TargetAddr::parse(text, Reach::Anywhere).expect(text);
            assert_eq!(address.text(), text);
            assert_eq!(address.host(), Some(host));
            let Kind::Tcp(address) = address.kind() else {
                panic!("{text} is not tcp")
            };
            assert_eq!(
                (address.host.as_str(), address.port.as_str()),
                (host, port),
                "{text}"
            );
            assert_eq!(address.port_number(), Ok(number), "{text}");
        }
    }

    #[test]
    fn malformed_addresses_are_refused_with_the_known_phrases() {
        for (text, message) in [
            ("", "missing port in address"),
            ("foo", "address foo: missing port in address"),
            ("[::1]", "address [::1]: missing port in address"),
            ("[::1]x:1", "address [::1]x:1: missing port in address"),
            ("::1:80", "address ::1:80: too many colons in address"),
            ("a:b:1", "address a:b:1: too many colons in address"),
            ("[::1]:1:2", "address [::1]:1:2: too many colons in address"),
            ("[::1:80", "address [::1:80: missing ']' in address"),
            ("a[b:80", "address a[b:80: unexpected '[' in address"),
            ("[a[b]:80", "address [a[b]:80: unexpected '[' in address"),
            ("a]b:80", "address a]b:80: unexpected ']' in address"),
            ("a:8]0", "address a:8]0: unexpected ']' in address"),
            ("a:8[0", "address a:8[0: unexpected '[' in address"),
        ] {
            assert_eq!(error(text), message);
        }
    }

    #[test]
    fn a_port_without_a_number_is_reported_when_it_is_used() {
        for (text, message) in [
            ("h:99999", "address 99999: invalid port"),
            ("h:-1", "address -1: invalid port"),
            (
                "h:99999999999999999999999",
                "address 99999999999999999999999: invalid port",
            ),
            ("h:no-such-service", "lookup tcp/no-such-service: unknown port"),
            ("h:99/", "lookup tcp/99/: unknown port"),
        ] {
            let address = TargetAddr::parse(text, Reach::Anywhere).expect(text);
            let Kind::Tcp(address) = address.kind() else {
                panic!("{text} is not tcp")
            };
            assert_eq!(address.port_number().expect_err(text).to_string(), message);
        }
    }

    #[test]
    fn unix_names_are_taken_verbatim() {
        let kind = |text: &str| {
            ListenAddr::parse(text, Reach::LocalOnly)
                .expect(text)
                .kind()
                .clone()
        };
        let unix = |name| ListenKind::Address(Kind::Unix(name));
        assert_eq!(kind("unix:rel.sock"), unix(UnixName::Path("rel.sock".into())));
        assert_eq!(kind("unix:///a/b"), unix(UnixName::Path("///a/b".into())));
        assert_eq!(kind("unix:@name"), unix(UnixName::Abstract(b"name".to_vec())));
        assert_eq!(kind("unix:@"), unix(UnixName::Abstract(Vec::new())));
        assert_eq!(kind("unix:"), unix(UnixName::Unnamed));
    }

    #[test]
    fn only_safe_prefixes_are_local() {
        for text in ["unix:/x", "unix:@x", "localhost:80", "127.0.0.1:80", "[::1]:80"] {
            assert!(ListenAddr::parse(text, Reach::LocalOnly).is_ok(), "{text}");
            assert!(TargetAddr::parse(text, Reach::LocalOnly).is_ok(), "{text}");
        }
        for text in [
            "127.0.0.2:80",
            "LOCALHOST:80",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "localhost.:80",
            "x",
        ] {
            let refused = Err(AddressError::NotLocal(text.to_owned()));
            assert_eq!(
                ListenAddr::parse(text, Reach::LocalOnly),
                refused.clone().map(|()| unreachable!())
            );
            assert_eq!(
                TargetAddr::parse(text, Reach::LocalOnly),
                refused.map(|()| unreachable!())
            );
        }
    }

    #[test]
    fn a_tcp_target_has_no_other_forms() {
        for text in ["unix:80", "systemd:80", "[::1]:80"] {
            let target = TargetAddr::tcp(text).expect(text);
            assert!(matches!(target.kind(), Kind::Tcp(_)), "{text}");
        }
        assert!(TargetAddr::tcp("unix:/run/x.sock:1").is_err());
    }

    #[test]
    fn inherited_sockets_are_listeners_with_either_reach_and_never_targets() {
        for reach in [Reach::LocalOnly, Reach::Anywhere] {
            for (text, word) in [("systemd:x", "systemd"), ("launchd:", "launchd")] {
                let refused = AddressError::UnsupportedNetwork(word);
                assert_eq!(TargetAddr::parse(text, reach), Err(refused));
            }
            for (text, name) in [("systemd:x", "x"), ("systemd:", ""), ("systemd:a:b", "a:b")] {
                let address = ListenAddr::parse(text, reach).expect(text);
                assert_eq!(address.kind(), &ListenKind::Inherited(name.to_owned()));
                assert_eq!(address.text(), text);
            }
            assert_eq!(
                ListenAddr::parse("launchd:x", reach),
                Err(AddressError::UnsupportedNetwork("launchd"))
            );
        }
        assert_eq!(error("Systemd"), "address Systemd: missing port in address");
    }

    #[test]
    fn foreign_unix_names_are_printed_on_one_line() {
        assert_eq!(UnixName::Path("/run/a b".into()).to_string(), "/run/a b");
        assert_eq!(
            UnixName::Abstract(b"x\n\xffy".to_vec()).to_string(),
            "@x\\n\\xffy"
        );
        assert_eq!(UnixName::Unnamed.to_string(), "@");
    }

    proptest! {
        #[test]
        fn a_well_formed_address_survives_split_and_display(host in "[a-z0-9.%-]{0,12}|([0-9a-f]{1,4}:){2,7}[0-9a-f]{1,4}", port in 0u16..) {
            let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let address = HostPort::parse(&text).expect("well formed");
            prop_assert_eq!(&address.host, &host);
            prop_assert_eq!(address.port_number(), Ok(port));
            prop_assert_eq!(address.to_string(), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]:a1%é-]{0,12}") {
            if let Ok((host, port)) = split(&text) {
                prop_assert!(!host.contains(['[', ']']));
                prop_assert!(!port.contains(['[', ']', ':']));
            }
        }
    }
}
