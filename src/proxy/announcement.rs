//! The PROXY protocol header, version 1 or 2, by which a load balancer tells whom it passes on.
//!
//! Pure: bytes in, addresses out. It is read before anything else of a connection, and only from
//! [`super::Announcers`]. The format is HAProxy's
//! (<https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>). Its fields beyond the addresses
//! are walked over, not believed; a checksum among them is verified.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::crc32c;
use super::proxy_protocol::{
    SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, UNIX_PATH, UNIX_STREAM, UNSPECIFIED, VERSION_2_PROXY,
};
use crate::net::{Label, UnixName};

/// The longest header of version 2, as HAProxy would take it: what fits one of its buffers.
pub const LONGEST: usize = 16 * 1024;

/// The longest header of version 1, line end included.
const LONGEST_LINE: usize = 107;

/// The shortest header of version 1: `PROXY UNKNOWN` and the line end.
const SHORTEST_LINE: usize = 15;

/// What stands in front of the addresses of version 2.
const FIXED_PART: usize = 16;

/// What a header tells of the connection that it is in front of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// The sender speaks for itself, or does not know for whom: its own addresses stand.
    None,
    /// It passes on somebody else.
    Client {
        /// Who connected.
        source: Label,
        /// Where.
        destination: Label,
    },
}

/// How far the header has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// At least so many more bytes belong to it.
    Needs(usize),
    /// It is complete and has this length; what follows is not part of it.
    Done(Announcement, usize),
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// They don't begin like one.
    #[error("no PROXY protocol header comes first (is the sender told to send one?)")]
    Missing,
    /// A first line that does not end.
    #[error("PROXY protocol header of version 1 is longer than {LONGEST_LINE} bytes")]
    LineTooLong,
    /// A first line with other parts than it should have.
    #[error("malformed PROXY protocol header of version 1")]
    BadLine,
    /// A version that does not exist.
    #[error("PROXY protocol header of unknown version {0}")]
    UnknownVersion(u8),
    /// A command that does not exist.
    #[error("PROXY protocol header with unknown command {0}")]
    UnknownCommand(u8),
    /// A family or transport that does not exist, or cannot be a connection.
    #[error("PROXY protocol header with family {0:#04x}, which is no stream connection")]
    UnknownFamily(u8),
    /// More than is reasonable.
    #[error("PROXY protocol header of {0} bytes is longer than {LONGEST}")]
    TooLong(usize),
    /// Less than the addresses of its family take.
    #[error("PROXY protocol header is too short for its addresses")]
    TooShort,
    /// A field that reaches beyond the end.
    #[error("malformed fields in PROXY protocol header")]
    BadField,
    /// A checksum of other bytes.
    #[error("checksum of PROXY protocol header does not match")]
    BadChecksum,
}

/// Judges the bytes that have come so far. Whoever reads what is needed and no more never reads
/// beyond the header.
pub fn read_on(bytes: &[u8]) -> Result<Progress, AnnouncementError> {
    const LINE_PREFIX: &[u8] = b"PROXY ";
    if begins_like(bytes, &SIGNATURE) {
        // While both are possible, no more than the shorter one needs.
        let wanted = if bytes.is_empty() {
            SHORTEST_LINE
        } else {
            FIXED_PART
        };
        return match wanted.checked_sub(bytes.len()) {
            Some(missing) if missing > 0 => Ok(Progress::Needs(missing)),
            _ => version_2(bytes),
        };
    }
    if begins_like(bytes, LINE_PREFIX) {
        return match SHORTEST_LINE.checked_sub(bytes.len()) {
            Some(missing) if missing > 0 => Ok(Progress::Needs(missing)),
            _ => version_1(bytes),
        };
    }
    Err(AnnouncementError::Missing)
}

/// Whether the one is a prefix of the other.
fn begins_like(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

fn version_1(bytes: &[u8]) -> Result<Progress, AnnouncementError> {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        let at_least = if window.ends_with(b"\r") { 1 } else { 2 };
        return match LONGEST_LINE.checked_sub(bytes.len()) {
            Some(room) if room >= at_least => Ok(Progress::Needs(at_least)),
            _ => Err(AnnouncementError::LineTooLong),
        };
    };
    let line = window.get(..end).unwrap_or_default();
    let announcement = line_announcement(line).ok_or(AnnouncementError::BadLine)?;
    Ok(Progress::Done(announcement, end.saturating_add(2)))
}

/// Parts are divided by single blanks, and numbers are written in one way only.
fn line_announcement(line: &[u8]) -> Option<Announcement> {
    let line = str::from_utf8(line).ok()?;
    let mut parts = line.split(' ').skip(1);
    let family = parts.next()?;
    if family == "UNKNOWN" {
        // What may follow is to be ignored.
        return Some(Announcement::None);
    }
    let mut ip = || parse_ip(family, parts.next()?);
    let (source, destination) = (ip()?, ip()?);
    let mut port = || parse_port(parts.next()?);
    let (source_port, destination_port) = (port()?, port()?);
    if parts.next().is_some() {
        return None;
    }
    Some(Announcement::Client {
        source: Label::tcp(SocketAddr::new(source, source_port)),
        destination: Label::tcp(SocketAddr::new(destination, destination_port)),
    })
}

fn parse_ip(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    // No sign, no zeros in front.
    (port.to_string() == text).then_some(port)
}

fn version_2(bytes: &[u8]) -> Result<Progress, AnnouncementError> {
    let Some((&[version_and_command, family, high, low], after)) =
        bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Err(AnnouncementError::Missing);
    };
    let (version, command) = (version_and_command >> 4, version_and_command & 0x0f);
    if version != VERSION_2_PROXY >> 4 {
        return Err(AnnouncementError::UnknownVersion(version));
    }
    let is_for_client = match command {
        0 => false,
        1 => true,
        other => return Err(AnnouncementError::UnknownCommand(other)),
    };
    let addresses = address_length(family)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = FIXED_PART.saturating_add(length);
    if whole > LONGEST {
        return Err(AnnouncementError::TooLong(whole));
    }
    let (Some(rest), Some(header)) = (after.get(..length), bytes.get(..whole)) else {
        return Ok(Progress::Needs(length.saturating_sub(after.len())));
    };
    // What the sender says of itself, or of nobody, is not looked at.
    if !is_for_client || family == UNSPECIFIED {
        return Ok(Progress::Done(Announcement::None, whole));
    }
    let (block, fields) = rest
        .split_at_checked(addresses)
        .ok_or(AnnouncementError::TooShort)?;
    check_fields(header, fields)?;
    let announcement = client(family, block).ok_or(AnnouncementError::TooShort)?;
    Ok(Progress::Done(announcement, whole))
}

fn address_length(family: u8) -> Result<usize, AnnouncementError> {
    match family {
        UNSPECIFIED => Ok(0),
        TCP_OVER_IPV4 => Ok(12),
        TCP_OVER_IPV6 => Ok(36),
        UNIX_STREAM => Ok(2 * UNIX_PATH),
        other => Err(AnnouncementError::UnknownFamily(other)),
    }
}

fn client(family: u8, block: &[u8]) -> Option<Announcement> {
    let (source, destination) = match family {
        TCP_OVER_IPV4 => tcp::<4>(block)?,
        TCP_OVER_IPV6 => tcp::<16>(block)?,
        _ => {
            let (source, destination) = block.split_at_checked(UNIX_PATH)?;
            (unix(source), unix(destination))
        }
    };
    Some(Announcement::Client { source, destination })
}

/// Both IP addresses, then both ports.
fn tcp<const LENGTH: usize>(block: &[u8]) -> Option<(Label, Label)>
where
    IpAddr: From<[u8; LENGTH]>,
{
    let (source, block) = block.split_first_chunk::<LENGTH>()?;
    let (destination, block) = block.split_first_chunk::<LENGTH>()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, _) = block.split_first_chunk()?;
    let label = |ip: [u8; LENGTH], port: [u8; 2]| {
        Label::tcp(SocketAddr::new(IpAddr::from(ip), u16::from_be_bytes(port)))
    };
    Some((
        label(*source, *source_port),
        label(*destination, *destination_port),
    ))
}

/// A path as the system holds it, padded with zeros; abstract names begin with a zero there, and
/// with `@` where this program has written them.
fn unix(field: &[u8]) -> Label {
    let end = field.iter().rposition(|byte| *byte != 0);
    let name = end.and_then(|last| field.get(..=last)).unwrap_or_default();
    let name = match name.split_first() {
        None | Some((b'@', [])) => return Label::Unix(None),
        Some((0 | b'@', rest)) => UnixName::Abstract(rest.to_vec()),
        Some(_) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            UnixName::Path(OsStr::from_bytes(path).into())
        }
    };
    Label::Unix(Some(Arc::new(name)))
}

/// Walks over the fields behind the addresses, which must fill the header exactly.
fn check_fields(header: &[u8], fields: &[u8]) -> Result<(), AnnouncementError> {
    const CHECKSUM: u8 = 0x03;
    let mut rest = fields;
    let mut is_summed = false;
    while !rest.is_empty() {
        let Some((&[kind, high, low], after)) = rest.split_first_chunk() else {
            return Err(AnnouncementError::BadField);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = after
            .split_at_checked(length)
            .ok_or(AnnouncementError::BadField)?;
        if kind == CHECKSUM {
            // With two of them, what is each one's value while the other is computed?
            if is_summed {
                return Err(AnnouncementError::BadField);
            }
            is_summed = true;
            let sum: [u8; 4] = value.try_into().map_err(|_| AnnouncementError::BadField)?;
            let start = header.len().saturating_sub(after.len()).saturating_sub(4);
            let before = header.get(..start).unwrap_or_default();
            if crc32c::of(&[before, &[0; 4], after]) != u32::from_be_bytes(sum) {
                return Err(AnnouncementError::BadChecksum);
            }
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
