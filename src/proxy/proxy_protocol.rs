//! The PROXY protocol header, version 2, that tells a target who has connected.
//!
//! Pure: addresses and facts in, bytes out. The format is HAProxy's
//! (<https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>); which of its fields are sent,
//! and in which order, follows Ghostunnel 1.11.1.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use crate::net::{Label, UnixName};
use crate::tls::Facts;

/// What a header tells a target (`--proxy-protocol-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderDetail {
    /// The addresses of both ends of the accepted connection.
    Addresses,
    /// Also what the TLS handshake agreed on.
    Tls,
    /// Also the peer's certificate.
    TlsFull,
}

/// Why there is no header for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// A single value.
    #[error("field {kind:#04x} of {length} bytes is longer than the 65535 that it may have")]
    FieldTooLong { kind: u8, length: usize },
    /// All of it.
    #[error("header of {0} bytes is longer than the 65535 that it may have")]
    TooLong(usize),
}

/// A connection that was accepted over TLS, as far as a target may be told of it.
pub(super) struct Introduced<'a> {
    pub(super) source: &'a Label,
    /// Where it was accepted.
    pub(super) destination: &'a Label,
    pub(super) facts: &'a Facts,
    pub(super) certificate: Option<Certificate<'a>>,
}

/// What the peer showed and the verifier admitted.
#[derive(Clone, Copy)]
pub(super) struct Certificate<'a> {
    pub(super) der: &'a [u8],
    /// May be empty.
    pub(super) common_name: &'a str,
}

/// The header that introduces a connection to a target.
pub(super) fn header(detail: HeaderDetail, connection: &Introduced<'_>) -> Result<Vec<u8>, HeaderError> {
    let (family, mut rest) = addresses(connection.source, connection.destination);
    match detail {
        HeaderDetail::Addresses => {}
        HeaderDetail::Tls => push_tls(&mut rest, connection.facts, None)?,
        HeaderDetail::TlsFull => push_tls(&mut rest, connection.facts, connection.certificate)?,
    }
    let length = u16::try_from(rest.len()).map_err(|_| HeaderError::TooLong(rest.len()))?;
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_2_PROXY, family]);
    header.extend(length.to_be_bytes());
    header.append(&mut rest);
    Ok(header)
}

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
pub(super) const VERSION_2_PROXY: u8 = 0x21;

pub(super) const UNSPECIFIED: u8 = 0x00;
pub(super) const TCP_OVER_IPV4: u8 = 0x11;
pub(super) const TCP_OVER_IPV6: u8 = 0x21;
pub(super) const UNIX_STREAM: u8 = 0x31;

/// The size of a path in the address of a UNIX socket, on every system.
pub(super) const UNIX_PATH: usize = 108;

fn addresses(source: &Label, destination: &Label) -> (u8, Vec<u8>) {
    let ports = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
    match (source, destination) {
        (Label::Tcp(SocketAddr::V4(from)), Label::Tcp(SocketAddr::V4(to))) => {
            let ips = [from.ip().octets(), to.ip().octets()].concat();
            (TCP_OVER_IPV4, [ips, ports(from.port(), to.port())].concat())
        }
        (Label::Tcp(SocketAddr::V6(from)), Label::Tcp(SocketAddr::V6(to))) => {
            let ips = [from.ip().octets(), to.ip().octets()].concat();
            (TCP_OVER_IPV6, [ips, ports(from.port(), to.port())].concat())
        }
        (Label::Unix(from), Label::Unix(to)) => {
            let paths = [unix_path(from.as_deref()), unix_path(to.as_deref())];
            (UNIX_STREAM, paths.concat())
        }
        // Two ends of one socket are of one family; a receiver takes this for "not known".
        (Label::Tcp(_) | Label::Unix(_), _) => (UNSPECIFIED, Vec::new()),
    }
}

/// `/path`, `@abstract`, or `@` for a socket without a name, as in the log.
fn unix_path(name: Option<&UnixName>) -> [u8; UNIX_PATH] {
    let bytes = match name {
        Some(UnixName::Path(path)) => path.as_os_str().as_bytes().to_vec(),
        Some(UnixName::Abstract(name)) => [b"@", name.as_slice()].concat(),
        Some(UnixName::Unnamed) | None => b"@".to_vec(),
    };
    let mut field = [0; UNIX_PATH];
    field
        .iter_mut()
        .zip(bytes)
        .for_each(|(place, byte)| *place = byte);
    field
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
/// Not in HAProxy's list up to version 2.6; receivers skip what they don't know.
const SSL_CLIENT_CERTIFICATE: u8 = 0x28;

const CLIENT_USES_TLS: u8 = 0x01;
/// On this connection, and in this session: a resumed one counts as both, as in Ghostunnel 1.11.1.
const CLIENT_SHOWED_CERTIFICATE: u8 = 0x02 | 0x04;
/// Zero stands for a certificate that was verified; no other peer gets here.
const VERIFIED: [u8; 4] = [0; 4];

fn push_tls(
    out: &mut Vec<u8>,
    facts: &Facts,
    certificate: Option<Certificate<'_>>,
) -> Result<(), HeaderError> {
    if let Some(protocol) = &facts.application_protocol {
        push_field(out, ALPN, protocol)?;
    }
    if let Some(name) = &facts.server_name {
        push_field(out, AUTHORITY, name.as_bytes())?;
    }
    let flags = match certificate {
        None => CLIENT_USES_TLS,
        Some(_) => CLIENT_USES_TLS | CLIENT_SHOWED_CERTIFICATE,
    };
    let mut ssl = vec![flags];
    ssl.extend(VERIFIED);
    push_field(&mut ssl, SSL_VERSION, facts.version.as_bytes())?;
    if let Some(Certificate { der, common_name }) = certificate {
        if !common_name.is_empty() {
            push_field(&mut ssl, SSL_COMMON_NAME, common_name.as_bytes())?;
        }
        push_field(&mut ssl, SSL_CLIENT_CERTIFICATE, der)?;
    }
    push_field(out, SSL, &ssl)
}

fn push_field(out: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), HeaderError> {
    let length = u16::try_from(value.len()).map_err(|_| HeaderError::FieldTooLong {
        kind,
        length: value.len(),
    })?;
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tcp(text: &str) -> Label {
        Label::Tcp(text.parse().expect("address"))
    }

    fn unix(name: UnixName) -> Label {
        Label::Unix(Some(Arc::new(name)))
    }

    fn facts(version: &'static str, server_name: Option<&str>, protocol: Option<&[u8]>) -> Facts {
        Facts {
            version,
            server_name: server_name.map(str::to_owned),
            application_protocol: protocol.map(<[u8]>::to_vec),
        }
    }

    fn made(
        detail: HeaderDetail,
        source: &Label,
        destination: &Label,
        facts: &Facts,
        certificate: Option<Certificate<'_>>,
    ) -> Result<Vec<u8>, HeaderError> {
        header(
            detail,
            &Introduced {
                source,
                destination,
                facts,
                certificate,
            },
        )
    }

    /// Of a connection over IPv4: the part behind the addresses, and what the header says is its
    /// length.
    fn fields(detail: HeaderDetail, facts: &Facts, certificate: Option<Certificate<'_>>) -> Vec<u8> {
        let header = made(detail, &tcp("1.2.3.4:5"), &tcp("6.7.8.9:10"), facts, certificate).expect("fits");
        let length = u16::from_be_bytes([header[14], header[15]]);
        assert_eq!(usize::from(length), header.len() - 16);
        header[28..].to_vec()
    }

    const PREFIX: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21";

    #[test]
    fn addresses_are_written_by_family() {
        let facts = facts("TLS 1.3", Some("unused"), None);
        let path = |text: &str| unix(UnixName::Path(text.into()));
        let padded = |text: &[u8]| [text, &vec![0; 108 - text.len()]].concat();
        let longest = format!("/{}", "x".repeat(106));
        let full_abstract = vec![b'a'; 107];
        for (source, destination, expected) in [
            (
                tcp("192.0.2.1:258"),
                tcp("10.0.0.1:443"),
                b"\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x01\xbb".to_vec(),
            ),
            (
                tcp("[2001:db8::1]:65535"),
                tcp("[::1%3]:1"),
                [
                    b"\x21\x00\x24\x20\x01\x0d\xb8".as_slice(),
                    &[0; 11],
                    &[1],
                    &[0; 15],
                    &[1],
                    b"\xff\xff\x00\x01",
                ]
                .concat(),
            ),
            (
                Label::Unix(None),
                path("/run/x.sock"),
                [b"\x31\x00\xd8".to_vec(), padded(b"@"), padded(b"/run/x.sock")].concat(),
            ),
            (
                unix(UnixName::Abstract(full_abstract.clone())),
                path(&longest),
                [
                    b"\x31\x00\xd8@".to_vec(),
                    full_abstract,
                    padded(longest.as_bytes()),
                ]
                .concat(),
            ),
            (tcp("1.2.3.4:5"), Label::Unix(None), b"\x00\x00\x00".to_vec()),
            (tcp("1.2.3.4:5"), tcp("[::1]:5"), b"\x00\x00\x00".to_vec()),
        ] {
            let header = made(HeaderDetail::Addresses, &source, &destination, &facts, None);
            assert_eq!(
                header.expect("fits"),
                [PREFIX, &expected].concat(),
                "{source} -> {destination}"
            );
        }
    }

    #[test]
    fn what_the_handshake_agreed_on_follows_the_addresses() {
        let certificate = Certificate {
            der: b"DER",
            common_name: "cn",
        };
        let nameless = Certificate {
            der: b"DER",
            common_name: "",
        };
        let bare = facts("TLS 1.2", None, None);
        let named = facts("TLS 1.3", Some("LocalHost"), Some(b"h2"));
        for (detail, facts, certificate, expected) in [
            (HeaderDetail::Addresses, &named, Some(certificate), b"".as_slice()),
            (
                HeaderDetail::Tls,
                &bare,
                Some(certificate),
                b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLS 1.2",
            ),
            (
                HeaderDetail::Tls,
                &named,
                None,
                b"\x01\x00\x02h2\x02\x00\x09LocalHost\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLS 1.3",
            ),
            (
                HeaderDetail::TlsFull,
                &bare,
                None,
                b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLS 1.2",
            ),
            (
                HeaderDetail::TlsFull,
                &bare,
                Some(certificate),
                b"\x20\x00\x1a\x07\0\0\0\0\x21\x00\x07TLS 1.2\x22\x00\x02cn\x28\x00\x03DER",
            ),
            (
                HeaderDetail::TlsFull,
                &bare,
                Some(nameless),
                b"\x20\x00\x15\x07\0\0\0\0\x21\x00\x07TLS 1.2\x28\x00\x03DER",
            ),
        ] {
            assert_eq!(fields(detail, facts, certificate), expected, "{detail:?}");
        }
    }

    #[test]
    fn the_length_of_a_unix_header_counts_what_follows_the_paths() {
        let facts = facts("TLS 1.3", Some("a"), None);
        let (source, destination) = (Label::Unix(None), Label::Unix(None));
        let header = made(HeaderDetail::Tls, &source, &destination, &facts, None).expect("fits");
        assert_eq!(header.len(), 16 + 216 + 4 + 18);
        assert_eq!(&header[13..16], [0x31, 0x00, 0xee]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let bare = facts("TLS 1.3", None, None);
        let full = |length: usize| {
            let der = vec![0; length];
            let certificate = Certificate {
                der: &der,
                common_name: "",
            };
            let (source, destination) = (Label::Unix(None), Label::Unix(None));
            made(
                HeaderDetail::TlsFull,
                &source,
                &destination,
                &bare,
                Some(certificate),
            )
        };
        // 5 bytes, 10 of version and 3 in front of the certificate; 216 of paths and 3 of header.
        assert_eq!(full(65535 - 18 - 219).map(|header| header.len()), Ok(65535 + 16));
        assert_eq!(full(65535 - 18 - 218), Err(HeaderError::TooLong(65536)));
        assert_eq!(
            full(65535 - 17),
            Err(HeaderError::FieldTooLong {
                kind: 0x20,
                length: 65536
            })
        );
        assert_eq!(
            full(65536),
            Err(HeaderError::FieldTooLong {
                kind: 0x28,
                length: 65536
            })
        );
        assert_eq!(
            HeaderError::FieldTooLong {
                kind: 2,
                length: 65536
            }
            .to_string(),
            "field 0x02 of 65536 bytes is longer than the 65535 that it may have"
        );
    }
}
