//! Where the agent is: `unix:///PATH` or `tcp://IP:PORT`.

use std::net::{IpAddr, Ipv6Addr};

use crate::net::{AddressError, Reach, TargetAddr};

/// The address of an agent. Built only by [`Endpoint::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    target: TargetAddr,
    is_exposed: bool,
}

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is none.
    #[error("workload endpoint socket address is not configured; give it with --use-workload-api-addr")]
    Missing,
    /// No scheme, or one that is not known.
    #[error(
        "workload endpoint socket URI must have a \"tcp\" or \"unix\" scheme; write unix:///PATH or tcp://IP:PORT"
    )]
    Scheme,
    /// An escape that is none, or that stands for what a path can't have.
    #[error("workload endpoint socket is not a valid URI: invalid URL escape")]
    Escape,
    /// `unix:` that goes wrong.
    #[error("workload endpoint unix socket URI must {0}; write unix:///PATH")]
    Unix(&'static str),
    /// `tcp:` that goes wrong.
    #[error("workload endpoint tcp socket URI {0}; write tcp://IP:PORT")]
    Tcp(&'static str),
    /// A port that is none.
    #[error("workload endpoint tcp socket URI is invalid: {0}")]
    Port(AddressError),
}

/// A URI in its parts, as far as they matter.
struct Parts<'a> {
    is_opaque: bool,
    has_user: bool,
    host: &'a str,
    path: &'a str,
    has_query: bool,
    has_fragment: bool,
}

impl<'a> Parts<'a> {
    /// Splits what follows `scheme:` (RFC 3986, section 3).
    fn split(rest: &'a str) -> Self {
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_opaque = !rest.is_empty() && !rest.starts_with('/');
        let (authority, path) = match rest.strip_prefix("//") {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Self {
            is_opaque,
            has_user: user.is_some(),
            host,
            path,
            has_query: !query.is_empty(),
            has_fragment: !fragment.is_empty(),
        }
    }
}

impl Endpoint {
    /// Parses an address. The scheme may be written in capitals; a path may have escapes.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.is_empty() {
            return Err(EndpointError::Missing);
        }
        let (scheme, rest) = text.split_once(':').ok_or(EndpointError::Scheme)?;
        let parts = Parts::split(rest);
        if scheme.eq_ignore_ascii_case("unix") {
            unix(&parts)
        } else if scheme.eq_ignore_ascii_case("tcp") {
            tcp(&parts)
        } else {
            Err(EndpointError::Scheme)
        }
    }

    /// What to connect to.
    pub fn target(&self) -> &TargetAddr {
        &self.target
    }

    /// Whether the private key comes over a network, where anybody may read it: the protocol
    /// has no encryption.
    pub fn is_exposed(&self) -> bool {
        self.is_exposed
    }
}

fn unix(parts: &Parts<'_>) -> Result<Endpoint, EndpointError> {
    let wrong = match parts {
        Parts { is_opaque: true, .. } => Some("not be opaque"),
        Parts { has_user: true, .. } => Some("not include user info"),
        Parts {
            host: "", path: "", ..
        } => Some("include a path"),
        Parts { has_query: true, .. } => Some("not include query values"),
        Parts {
            has_fragment: true, ..
        } => Some("not include a fragment"),
        // A path that lacks its third slash: nobody has ever been reached by it.
        Parts { host, .. } if !host.is_empty() => Some("not include a host"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(EndpointError::Unix(wrong));
    }
    let path = unescape(parts.path).ok_or(EndpointError::Escape)?;
    let target = TargetAddr::parse(&format!("unix:{path}"), Reach::Anywhere).map_err(EndpointError::Port)?;
    Ok(Endpoint {
        target,
        is_exposed: false,
    })
}

fn tcp(parts: &Parts<'_>) -> Result<Endpoint, EndpointError> {
    let wrong = match parts {
        Parts { is_opaque: true, .. } => Some("must not be opaque"),
        Parts { has_user: true, .. } => Some("must not include user info"),
        Parts { host: "", .. } => Some("must include a host"),
        Parts { path, .. } if !path.is_empty() => Some("must not include a path"),
        Parts { has_query: true, .. } => Some("must not include query values"),
        Parts {
            has_fragment: true, ..
        } => Some("must not include a fragment"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(EndpointError::Tcp(wrong));
    }
    let (host, port) = split_port(parts.host);
    let ip = host.ok_or(EndpointError::Tcp("host component must be an IP:port"))?;
    let port = port
        .filter(|port| !port.is_empty())
        .ok_or(EndpointError::Tcp("host component must include a port"))?;
    // No service names here: what is no number would be looked up.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !is_number {
        return Err(EndpointError::Port(AddressError::InvalidPort(port.to_owned())));
    }
    let written = match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    };
    let target = TargetAddr::tcp(&written).map_err(EndpointError::Port)?;
    Ok(Endpoint {
        target,
        is_exposed: !ip.to_canonical().is_loopback(),
    })
}

/// An address, if it is one, and the port behind it, if there is any.
fn split_port(host: &str) -> (Option<IpAddr>, Option<&str>) {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return (None, None);
        };
        let address: Option<Ipv6Addr> = address.parse().ok();
        return (address.map(IpAddr::V6), port.strip_prefix(':'));
    }
    match host.rsplit_once(':') {
        Some((address, port)) => (address.parse().ok(), Some(port)),
        None => (host.parse().ok(), None),
    }
}

/// A path without its escapes, if it is one that a file can have.
fn unescape(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut plain = Vec::with_capacity(path.len());
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(plain).ok().filter(|path| !path.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_agents_have_one_of_two_forms() {
        for (text, expected) in [
            ("unix:///run/agent.sock", "unix:/run/agent.sock"),
            ("unix:/run/agent.sock", "unix:/run/agent.sock"),
            ("UNIX:///run/agent.sock", "unix:/run/agent.sock"),
            ("unix:///run/a%20b/c", "unix:/run/a b/c"),
            ("unix:///run/a?#", "unix:/run/a"),
            ("tcp://127.0.0.1:8081", "127.0.0.1:8081"),
            ("tcp://[::1]:8081", "[::1]:8081"),
        ] {
            let found = Endpoint::parse(text).map(|endpoint| endpoint.target().text().to_owned());
            assert_eq!(found.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_addresses_are_refused_in_the_known_words() {
        const SCHEME: &str = "must have a \"tcp\" or \"unix\" scheme";
        for (text, expected) in [
            ("", "workload endpoint socket address is not configured"),
            ("/run/agent.sock", SCHEME),
            ("http://127.0.0.1:1", SCHEME),
            ("npipe:agent", SCHEME),
            (":", SCHEME),
            ("unix:agent.sock", "unix socket URI must not be opaque"),
            ("unix:@agent", "unix socket URI must not be opaque"),
            ("unix:///a?x=1", "unix socket URI must not include query values"),
            ("unix:///a#x", "unix socket URI must not include a fragment"),
            ("unix://u:p@/a", "unix socket URI must not include user info"),
            ("unix://", "unix socket URI must include a path"),
            ("unix:", "unix socket URI must include a path"),
            ("unix://run/agent.sock", "unix socket URI must not include a host"),
            ("unix:///a%2", "socket is not a valid URI: invalid URL escape"),
            ("unix:///a%zz", "socket is not a valid URI: invalid URL escape"),
            ("unix:///a%00", "socket is not a valid URI: invalid URL escape"),
            ("unix:///a%ff", "socket is not a valid URI: invalid URL escape"),
            ("tcp:127.0.0.1:1", "tcp socket URI must not be opaque"),
            ("tcp:///a", "tcp socket URI must include a host"),
            ("tcp://", "tcp socket URI must include a host"),
            ("tcp://u@127.0.0.1:1", "tcp socket URI must not include user info"),
            ("tcp://127.0.0.1:1/", "tcp socket URI must not include a path"),
            (
                "tcp://127.0.0.1:1?x",
                "tcp socket URI must not include query values",
            ),
            (
                "tcp://127.0.0.1:1#x",
                "tcp socket URI must not include a fragment",
            ),
            (
                "tcp://localhost:1",
                "tcp socket URI host component must be an IP:port",
            ),
            ("tcp://::1", "tcp socket URI host component must be an IP:port"),
            ("tcp://[::1", "tcp socket URI host component must be an IP:port"),
            (
                "tcp://127.0.0.1",
                "tcp socket URI host component must include a port",
            ),
            (
                "tcp://127.0.0.1:",
                "tcp socket URI host component must include a port",
            ),
            ("tcp://[::1]", "tcp socket URI host component must include a port"),
            (
                "tcp://127.0.0.1:http",
                "tcp socket URI is invalid: address http: invalid port",
            ),
            (
                "tcp://127.0.0.1:99999",
                "tcp socket URI is invalid: address 99999: invalid port",
            ),
        ] {
            let error = Endpoint::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn keys_that_cross_a_network_are_noticed() {
        for (text, expected) in [
            ("unix:///a", false),
            ("tcp://127.0.0.2:1", false),
            ("tcp://[::1]:1", false),
            ("tcp://[::ffff:127.0.0.1]:1", false),
            ("tcp://10.0.0.1:1", true),
            ("tcp://[2001:db8::1]:1", true),
        ] {
            assert_eq!(
                Endpoint::parse(text).expect(text).is_exposed(),
                expected,
                "{text}"
            );
        }
    }
}
