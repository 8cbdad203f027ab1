//! From whom PROXY protocol headers are believed (`--proxy-protocol-accept`).
//!
//! Whoever may send one may claim to be anybody, so there is no default.

use std::fmt;
use std::net::IpAddr;

use crate::net::Label;

/// The peers that announce on whose behalf they connect. All others are turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcers {
    ranges: Vec<Range>,
    unix: bool,
}

/// Why a word names no peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncersError {
    /// It is of no known kind; carries the word.
    #[error("{0:?} is neither an IP address, nor a range such as 10.0.0.0/8, nor the word unix")]
    Malformed(String),
    /// A range whose address is not its first one.
    #[error("{typed} has bits set behind its prefix: give {meant}")]
    NotFirst {
        /// The word.
        typed: String,
        /// The range that it lies in.
        meant: String,
    },
}

/// The word for all peers on UNIX sockets: who may connect is up to the socket's file there.
const UNIX: &str = "unix";

impl Announcers {
    /// Understands the words of the command line: `IP`, `IP/PREFIX`, `unix`.
    pub fn parse(words: &[String]) -> Result<Self, AnnouncersError> {
        let mut announcers = Self {
            ranges: Vec::new(),
            unix: false,
        };
        for word in words {
            if word == UNIX {
                announcers.unix = true;
            } else {
                announcers.ranges.push(Range::parse(word)?);
            }
        }
        Ok(announcers)
    }

    /// Whether this peer is one of them.
    pub fn contain(&self, peer: &Label) -> bool {
        match peer {
            Label::Tcp(address) => self.ranges.iter().any(|range| range.contains(address.ip())),
            Label::Unix(_) => self.unix,
        }
    }

    /// Whether any peer on TCP is.
    pub fn include_tcp(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether peers on UNIX sockets are.
    pub fn include_unix(&self) -> bool {
        self.unix
    }

    /// The ranges that hold every address of their family.
    pub fn unlimited(&self) -> impl Iterator<Item = String> + '_ {
        let all = self.ranges.iter().filter(|range| range.prefix == 0);
        all.map(ToString::to_string)
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    /// How many bits.
    prefix: u32,
}

impl Range {
    fn parse(word: &str) -> Result<Self, AnnouncersError> {
        let malformed = || AnnouncersError::Malformed(word.to_owned());
        let (ip, prefix) = match word.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (word, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| malformed())?;
        let prefix = match prefix {
            None => bits(ip),
            Some(text) => {
                let prefix: u32 = text.parse().map_err(|_| malformed())?;
                if prefix > bits(ip) || prefix.to_string() != text {
                    return Err(malformed());
                }
                prefix
            }
        };
        let first = masked(ip, prefix);
        if first != ip {
            return Err(AnnouncersError::NotFirst {
                typed: word.to_owned(),
                meant: format!("{first}/{prefix}"),
            });
        }
        Ok(Self { first, prefix }.canonical())
    }

    /// Peers are named by their IPv4 address where they have one, so ranges must be, too.
    fn canonical(self) -> Self {
        const MAPPED: u32 = 96;
        match (self.first.to_canonical(), self.prefix.checked_sub(MAPPED)) {
            (first @ IpAddr::V4(_), Some(prefix)) if self.first.is_ipv6() => Self { first, prefix },
            _ => self,
        }
    }

    fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && masked(ip, self.prefix) == self.first
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn bits(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with only its first bits.
fn masked(ip: IpAddr, prefix: u32) -> IpAddr {
    let behind = bits(ip).saturating_sub(prefix);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(behind).unwrap_or_default();
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(behind).unwrap_or_default();
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcers(words: &[&str]) -> Result<Announcers, AnnouncersError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Announcers::parse(&words)
    }

    #[test]
    fn only_named_peers_are_believed() {
        for (words, peer, believed) in [
            (&["10.0.0.1"][..], "10.0.0.1:1", true),
            (&["10.0.0.1"], "10.0.0.2:1", false),
            (&["10.0.0.1"], "[::a00:1]:1", false),
            (&["10.0.0.0/8"], "10.255.255.255:1", true),
            (&["10.0.0.0/8"], "11.0.0.0:1", false),
            (&["10.0.0.0/31"], "10.0.0.1:1", true),
            (&["10.0.0.0/31"], "10.0.0.2:1", false),
            (&["0.0.0.0/0"], "203.0.113.9:1", true),
            (&["0.0.0.0/0"], "[2001:db8::1]:1", false),
            (&["::/0"], "203.0.113.9:1", false),
            (&["2001:db8::/32"], "[2001:db8:ffff::1]:1", true),
            (&["2001:db8::/32"], "[2001:db9::]:1", false),
            (&["192.0.2.1", "::1"], "[::1]:1", true),
            (&["::ffff:10.0.0.0/104"], "10.1.2.3:1", true),
            (&["::ffff:10.0.0.1"], "10.0.0.1:1", true),
            (&["unix"], "10.0.0.1:1", false),
            (&[], "10.0.0.1:1", false),
        ] {
            let announcers = announcers(words).expect("well-formed");
            let peer = Label::Tcp(peer.parse().expect("an address"));
            assert_eq!(announcers.contain(&peer), believed, "{words:?} {peer}");
        }
        let unix = Label::Unix(None);
        assert!(announcers(&["unix"]).expect("known").contain(&unix));
        assert!(!announcers(&["0.0.0.0/0", "::/0"]).expect("ranges").contain(&unix));
    }

    #[test]
    fn what_names_nobody_for_certain_is_refused() {
        for word in [
            "",
            " ",
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "/8",
            "10.0.0.1:80",
            "10.0.0/8",
            "fe80::1%eth0",
            "UNIX",
            "unix:",
            "10.0.0.0/8,11.0.0.0/8",
        ] {
            let expected = AnnouncersError::Malformed(word.to_owned());
            assert_eq!(announcers(&["::1", word]), Err(expected));
        }
        let error = announcers(&["10.1.2.3/8"]).expect_err("not the first address");
        assert_eq!(
            error.to_string(),
            "10.1.2.3/8 has bits set behind its prefix: give 10.0.0.0/8"
        );
    }

    #[test]
    fn ranges_without_limit_are_told() {
        let announcers = announcers(&["0.0.0.0/0", "::/0", "10.0.0.0/8", "unix"]).expect("well-formed");
        let unlimited: Vec<String> = announcers.unlimited().collect();
        assert_eq!(unlimited, ["0.0.0.0/0", "::/0"]);
    }
}
