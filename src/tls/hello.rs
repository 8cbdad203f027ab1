//! What a ClientHello tells, read before rustls sees it: rustls chooses by an order of its own,
//! and does not show all that it has read.
//!
//! Read with care but without trust. rustls reads the same bytes afterwards and does the parsing
//! that counts: what is misread here can lead to another choice among good ones, and to nothing
//! worse. What this reader can't read is left to rustls to refuse.

use std::borrow::Cow;

/// Where a hello ends at the latest for this reader. What is longer, or in more pieces, gets the
/// usual configuration.
const LONGEST: usize = 16 * 1024;

/// The parts of a ClientHello (RFC 8446, section 4.1.2) that matter here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// The newest version of clients that don't know `supported_versions`.
    pub(super) legacy_version: u16,
    pub(super) suites: Vec<u16>,
    pub(super) versions: Vec<u16>,
    /// Key exchange groups, most wanted first.
    pub(super) groups: Vec<u16>,
    /// Groups for which a key share came along.
    pub(super) shares: Vec<u16>,
    /// The host name that is asked for, in the client's spelling.
    pub(super) server_name: Option<String>,
}

/// What the bytes of a client are so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Not the whole hello. There is no use in looking again before there are so many bytes.
    Incomplete {
        at_least: usize,
    },
    Whole(Hello),
    Unreadable,
}

impl Hello {
    /// Reads the hello at the start of a client's records.
    pub(super) fn read(records: &[u8]) -> Reading {
        match message(records) {
            Message::Whole(message) => parse(&message).map_or(Reading::Unreadable, Reading::Whole),
            Message::Incomplete { at_least } if at_least <= LONGEST => Reading::Incomplete { at_least },
            Message::Incomplete { .. } | Message::Other => Reading::Unreadable,
        }
    }

    pub(super) fn offers(&self, version: u16) -> bool {
        if self.versions.is_empty() {
            self.legacy_version >= version && version <= TLS_1_2
        } else {
            self.versions.contains(&version)
        }
    }

    /// Whether this is a client of TLS 1.1 or older. rustls looks for the extensions of newer
    /// versions first, and misses those.
    pub(super) fn is_too_old(&self) -> bool {
        (1..TLS_1_2).contains(&self.legacy_version)
    }
}

pub(super) const TLS_1_2: u16 = 0x0303;
pub(super) const TLS_1_3: u16 = 0x0304;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

enum Message<'a> {
    Incomplete { at_least: usize },
    Whole(Cow<'a, [u8]>),
    Other,
}

/// The body of the first handshake message, put together where it is split over records.
fn message(mut records: &[u8]) -> Message<'_> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let all = records.len();
    let mut message = Cow::Borrowed(&[][..]);
    loop {
        let used = all - records.len();
        if records.first().is_some_and(|kind| *kind != HANDSHAKE) {
            return Message::Other;
        }
        let Some(header) = records.split_off(..RECORD_HEADER) else {
            let at_least = used + RECORD_HEADER;
            return Message::Incomplete { at_least };
        };
        let length = header.get(3..).map_or(0, be_number);
        let Some(payload) = records.split_off(..length) else {
            let at_least = used + RECORD_HEADER + length;
            return Message::Incomplete { at_least };
        };
        if message.is_empty() {
            message = Cow::Borrowed(payload);
        } else {
            message.to_mut().extend_from_slice(payload);
        }
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::Other;
        }
        let length = message.get(1..MESSAGE_HEADER).map(be_number);
        let Some(end) = length.map(|length| MESSAGE_HEADER + length) else {
            continue;
        };
        if end > LONGEST {
            return Message::Other;
        }
        if message.len() >= end {
            return match message {
                Cow::Borrowed(whole) => {
                    Message::Whole(whole.get(MESSAGE_HEADER..end).unwrap_or_default().into())
                }
                Cow::Owned(mut whole) => {
                    whole.truncate(end);
                    whole.drain(..MESSAGE_HEADER);
                    Message::Whole(whole.into())
                }
            };
        }
    }
}

fn parse(mut body: &[u8]) -> Option<Hello> {
    const RANDOM: usize = 32;
    let mut hello = Hello {
        legacy_version: u16::try_from(be_number(body.split_off(..2)?)).ok()?,
        ..Hello::default()
    };
    body.split_off(..RANDOM)?;
    let _session_id = take_block(&mut body, 1)?;
    hello.suites = pairs(take_block(&mut body, 2)?);
    let _compression = take_block(&mut body, 1)?;
    if body.is_empty() {
        // As clients before TLS 1.2 may leave it.
        return Some(hello);
    }
    let mut extensions = take_block(&mut body, 2)?;
    while !extensions.is_empty() {
        let kind = be_number(extensions.split_off(..2)?);
        hello.take_extension(kind, take_block(&mut extensions, 2)?)?;
    }
    Some(hello)
}

impl Hello {
    fn take_extension(&mut self, kind: usize, mut content: &[u8]) -> Option<()> {
        const SERVER_NAME: usize = 0;
        const SUPPORTED_GROUPS: usize = 10;
        const SUPPORTED_VERSIONS: usize = 43;
        const KEY_SHARE: usize = 51;
        match kind {
            SERVER_NAME => self.server_name = host_name(content),
            SUPPORTED_GROUPS => self.groups = pairs(take_block(&mut content, 2)?),
            SUPPORTED_VERSIONS => self.versions = pairs(take_block(&mut content, 1)?),
            KEY_SHARE => {
                let mut shares = take_block(&mut content, 2)?;
                self.shares.clear();
                while !shares.is_empty() {
                    self.shares.extend(pairs(shares.split_off(..2)?));
                    let _share = take_block(&mut shares, 2)?;
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// The first name of the server name extension (RFC 6066, section 3), if it is a host name.
fn host_name(mut content: &[u8]) -> Option<String> {
    const HOST_NAME: &[u8] = &[0];
    let mut names = take_block(&mut content, 2)?;
    let _kind = names.split_off(..1).filter(|kind| *kind == HOST_NAME)?;
    String::from_utf8(take_block(&mut names, 2)?.to_vec()).ok()
}

fn pairs(bytes: &[u8]) -> Vec<u16> {
    let (pairs, _odd) = bytes.as_chunks();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}

/// Takes a vector with a length of this many bytes off the front (RFC 8446, section 3.4).
fn take_block<'a>(input: &mut &'a [u8], length_size: usize) -> Option<&'a [u8]> {
    let length = be_number(input.split_off(..length_size)?);
    input.split_off(..length)
}

/// A big-endian number of at most four bytes.
fn be_number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

#[cfg(test)]
mod tests;
