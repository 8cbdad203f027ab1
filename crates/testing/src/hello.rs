//! A reader of ClientHello messages: what a program offers before anybody has answered.

use std::collections::BTreeMap;

/// A TLS ClientHello (RFC 8446, section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The cipher suites, most wanted first.
    pub cipher_suites: Vec<u16>,
    /// The session the client would like to go on with; 32 random bytes for show in TLS 1.3.
    pub session_id: Vec<u8>,
    extensions: BTreeMap<u16, Vec<u8>>,
}

impl ClientHello {
    const SERVER_NAME: u16 = 0;
    const SUPPORTED_GROUPS: u16 = 10;
    const SIGNATURE_ALGORITHMS: u16 = 13;
    const SUPPORTED_VERSIONS: u16 = 43;
    const KEY_SHARE: u16 = 51;

    /// Reads the hello at the start of a connection's bytes. `None` while it is not complete.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        const HANDSHAKE: u8 = 22;
        const CLIENT_HELLO: u8 = 1;
        let mut records = Reader(bytes);
        let mut message = Vec::new();
        while message.len() < 4 || message.len() < 4 + number(&message[1..4]) {
            assert_eq!(records.number(1)?, usize::from(HANDSHAKE), "a handshake record");
            records.take(2)?;
            message.extend_from_slice(records.vector(2)?);
        }
        assert_eq!(message[0], CLIENT_HELLO, "a ClientHello");
        Some(Self::parse(Reader(&message[4..])).expect("a well-formed ClientHello"))
    }

    fn parse(mut body: Reader<'_>) -> Option<Self> {
        body.take(2 + 32)?;
        let session_id = body.vector(1)?.to_vec();
        let cipher_suites = pairs(body.vector(2)?);
        body.vector(1)?;
        let mut list = Reader(body.vector(2)?);
        let mut extensions = BTreeMap::new();
        while !list.0.is_empty() {
            let kind = u16::try_from(list.number(2)?).expect("two bytes");
            extensions.insert(kind, list.vector(2)?.to_vec());
        }
        Some(Self {
            cipher_suites,
            session_id,
            extensions,
        })
    }

    /// The content of an extension, if there.
    pub fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.get(&kind).map(Vec::as_slice)
    }

    /// The name of the server that is wanted, in the client's spelling.
    pub fn server_name(&self) -> Option<String> {
        let mut list = Reader(Reader(self.extension(Self::SERVER_NAME)?).vector(2)?);
        assert_eq!(list.number(1)?, 0, "a host name (RFC 6066, section 3)");
        Some(String::from_utf8_lossy(list.vector(2)?).into_owned())
    }

    /// The key exchange groups, most wanted first.
    pub fn groups(&self) -> Vec<u16> {
        self.list(Self::SUPPORTED_GROUPS, 2)
    }

    /// The groups for which a key share is sent along.
    pub fn key_shares(&self) -> Vec<u16> {
        let Some(content) = self.extension(Self::KEY_SHARE) else {
            return Vec::new();
        };
        let mut list = Reader(Reader(content).vector(2).expect("a list"));
        let mut groups = Vec::new();
        while !list.0.is_empty() {
            groups.extend(pairs(list.take(2).expect("a group")));
            list.vector(2).expect("its share");
        }
        groups
    }

    /// The signature schemes, most wanted first.
    pub fn signature_schemes(&self) -> Vec<u16> {
        self.list(Self::SIGNATURE_ALGORITHMS, 2)
    }

    /// The versions of TLS, most wanted first.
    pub fn versions(&self) -> Vec<u16> {
        self.list(Self::SUPPORTED_VERSIONS, 1)
    }

    fn list(&self, kind: u16, length: usize) -> Vec<u16> {
        self.extension(kind)
            .map(|content| pairs(Reader(content).vector(length).expect("a list")))
            .unwrap_or_default()
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, length: usize) -> Option<usize> {
        self.take(length).map(number)
    }

    /// Bytes behind a length of so many bytes.
    fn vector(&mut self, length: usize) -> Option<&'a [u8]> {
        let count = self.number(length)?;
        self.take(count)
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))
}

fn pairs(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Behaviour, Pki, Plain, TlsClient, eventually_some};

    #[test]
    fn hello_of_a_client_is_read() {
        let (pki, backend) = (Pki::new(), Backend::tcp(Behaviour::Sink));
        let socket = Plain::connect(backend.address()).expect("it listens");
        std::thread::scope(|scope| {
            let client = TlsClient::trusting(&pki.authority).server_name("one.test");
            scope.spawn(move || client.handshake(socket));
            let connection = backend.connection(0);
            let hello = eventually_some("there is a hello", || ClientHello::read(&connection.received()));
            assert_eq!(hello.server_name().as_deref(), Some("one.test"));
            assert_eq!(hello.versions(), [0x0304, 0x0303]);
            assert!(hello.cipher_suites.contains(&0x1301), "{hello:x?}");
            assert!(hello.groups().contains(&0x001d), "{hello:x?}");
            assert!(!hello.key_shares().is_empty(), "{hello:x?}");
            assert!(hello.signature_schemes().contains(&0x0403), "{hello:x?}");
            assert!(hello.extension(16).is_none(), "no ALPN was asked for");
            drop(backend);
        });
    }

    #[test]
    fn half_a_hello_is_waited_for() {
        assert_eq!(ClientHello::read(&[]), None);
        assert_eq!(ClientHello::read(&[22, 3, 1, 0, 4, 1, 0, 1, 0]), None);
    }
}
