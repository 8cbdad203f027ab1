//! Exclusions (`--deny-*`): whoever one of them names stays out, whatever admits it.
//!
//! Where an exclusion could be read narrowly or widely, it is wide: letter case of DNS names and
//! URIs does not count, and every common name of a subject does, not only the last. Only the
//! leaf is looked at.

use std::fmt;
use std::net::IpAddr;

use ghostunnel_pki::Identity;

use super::describe::Quoted;
use super::{SpkiPin, UriPattern};

/// Who stays out.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
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
    /// Public keys.
    pub pins: Vec<SpkiPin>,
    /// Serial numbers, whoever issued them.
    pub serials: Vec<SerialNumber>,
}

impl Exclusions {
    /// The first exclusion that names this peer, in words.
    pub(super) fn matching(&self, identity: &Identity) -> Option<String> {
        let leaf = identity.leaf();
        let names = identity.common_names();
        equal(names, &self.common_names, |name, rule| name == rule)
            .map(|rule| format!("deny cn {}", Quoted(rule)))
            .or_else(|| {
                let units = identity.organizational_units().iter().map(String::as_str);
                let rule = equal(units, &self.organizational_units, |unit, rule| unit == rule)?;
                Some(format!("deny ou {}", Quoted(rule)))
            })
            .or_else(|| {
                let names = identity.dns_names().iter().map(String::as_str);
                let rule = equal(names, &self.dns_names, is_same_dns_name)?;
                Some(format!("deny dns {}", Quoted(rule)))
            })
            .or_else(|| {
                let is_named = |rule: &&IpAddr| identity.ip_addresses().contains(&rule.to_canonical());
                let rule = self.ip_addresses.iter().find(is_named)?;
                Some(format!("deny ip {rule}"))
            })
            .or_else(|| {
                let is_covered = |rule: &&UriPattern| {
                    let mut uris = identity.uris().iter();
                    uris.any(|uri| rule.matches_in_any_case(uri))
                };
                let rule = self.uris.iter().find(is_covered)?;
                Some(format!("deny uri {}", Quoted(rule.text())))
            })
            .or_else(|| {
                let spki = leaf.subject_public_key_info();
                let rule = self.pins.iter().find(|pin| pin.matches(spki))?;
                Some(format!("deny spki-pin {rule}"))
            })
            .or_else(|| {
                let is_this = |rule: &&SerialNumber| rule.digits == significant(leaf.serial());
                let rule = self.serials.iter().find(is_this)?;
                Some(format!("deny serial {rule}"))
            })
    }
}

/// The first rule that is equal to one of the claims.
fn equal<'a>(
    claims: impl Iterator<Item = &'a str>,
    rules: &'a [String],
    is_equal: fn(&str, &str) -> bool,
) -> Option<&'a str> {
    let claims: Vec<_> = claims.collect();
    let is_claimed = |rule: &&String| claims.iter().any(|claim| is_equal(claim, rule));
    rules.iter().find(is_claimed).map(String::as_str)
}

fn is_same_dns_name(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    bare(one) == bare(other)
}

/// A certificate's serial number. Its authority makes sure that it is given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialNumber {
    /// Big-endian, without leading zeros.
    digits: Vec<u8>,
}

/// A text that is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid serial number {0:?}: give hexadecimal digits as openssl x509 -serial prints them")]
pub struct SerialNumberError(String);

impl SerialNumber {
    /// Reads hexadecimal digits, with or without `0x` in front and colons between.
    pub fn parse(text: &str) -> Result<Self, SerialNumberError> {
        let error = || SerialNumberError(text.to_owned());
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let digits = digits.unwrap_or(text).replace(':', "");
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        let even = format!(
            "{}{digits}",
            if digits.len().is_multiple_of(2) { "" } else { "0" }
        );
        let bytes = even.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        });
        let bytes: Vec<u8> = bytes.collect::<Option<_>>().ok_or_else(error)?;
        Ok(Self {
            digits: significant(&bytes).to_vec(),
        })
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("00");
        }
        self.digits.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::super::tests::{client, identity, list};
    use super::*;

    #[test]
    fn a_peer_is_excluded_by_whatever_it_has() {
        let ip = |address: &str| vec![address.parse().expect("an address")];
        let uri = |text: &str| vec![UriPattern::parse(text).expect("a pattern")];
        let none = Exclusions::default;
        let peer = client();
        let pin = SpkiPin::of(peer.leaf().subject_public_key_info());
        let serial = SerialNumber {
            digits: significant(peer.leaf().serial()).to_vec(),
        };
        let (by_pin, by_serial) = (format!("deny spki-pin {pin}"), format!("deny serial {serial}"));
        for (denied, expected) in [
            (none(), None),
            (
                Exclusions {
                    common_names: list(&["", "CLIENT", "other"]),
                    organizational_units: list(&["client", "ONE"]),
                    dns_names: list(&["example", "a.client.example", "a.wild.example"]),
                    ip_addresses: ip("127.0.0.2"),
                    uris: uri("spiffe://other/**"),
                    pins: vec![SpkiPin::of(b"another key")],
                    serials: vec![SerialNumber { digits: vec![1] }],
                },
                None,
            ),
            (
                Exclusions {
                    common_names: list(&["other", "client"]),
                    ..none()
                },
                Some("deny cn \"client\""),
            ),
            (
                Exclusions {
                    organizational_units: list(&["one"]),
                    ..none()
                },
                Some("deny ou \"one\""),
            ),
            (
                Exclusions {
                    dns_names: list(&["Client.Example."]),
                    ..none()
                },
                Some("deny dns \"Client.Example.\""),
            ),
            (
                Exclusions {
                    ip_addresses: ip("::ffff:127.0.0.1"),
                    ..none()
                },
                Some("deny ip ::ffff:127.0.0.1"),
            ),
            (
                Exclusions {
                    uris: uri("SPIFFE://TD/**"),
                    ..none()
                },
                Some("deny uri \"SPIFFE://TD/**\""),
            ),
            (
                Exclusions {
                    pins: vec![pin],
                    ..none()
                },
                Some(&*by_pin),
            ),
            (
                Exclusions {
                    serials: vec![serial],
                    ..none()
                },
                Some(&*by_serial),
            ),
        ] {
            assert_eq!(denied.matching(&peer).as_deref(), expected, "{denied:?}");
        }
    }

    /// An authority that is fooled into adding a name must not help whoever is excluded.
    #[test]
    fn every_common_name_counts() {
        let subject = [
            (DnType::CommonName, "evil"),
            (DnType::CustomDnType(vec![2, 5, 4, 3]), "good"),
        ];
        let peer = identity(&subject, Vec::new());
        assert_eq!(peer.common_names().collect::<Vec<_>>(), ["evil", "good"]);
        for name in ["evil", "good"] {
            let denied = Exclusions {
                common_names: list(&[name]),
                ..Exclusions::default()
            };
            assert!(denied.matching(&peer).is_some(), "{name}");
        }
    }

    #[test]
    fn serial_numbers_are_read_as_openssl_prints_them() {
        for (text, digits) in [
            ("8A01", &[0x8a, 1][..]),
            ("0x8a01", &[0x8a, 1]),
            ("00:8a:01", &[0x8a, 1]),
            ("a", &[10]),
            ("10", &[16]),
            ("00", &[]),
        ] {
            let serial = SerialNumber::parse(text).expect(text);
            assert_eq!(serial.digits, digits, "{text}");
            assert_eq!(SerialNumber::parse(&serial.to_string()), Ok(serial), "{text}");
        }
        for text in ["", "0x", ":", "xyz", "12 34", "-1", "ü"] {
            assert!(SerialNumber::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dns_names_are_the_same_in_any_case_and_with_a_dot_behind() {
        for (one, other, expected) in [
            ("a.test", "A.Test", true),
            ("a.test.", "a.test", true),
            ("a.test", "b.test", false),
            ("*.test", "a.test", false),
            ("a.test", "", false),
        ] {
            assert_eq!(is_same_dns_name(one, other), expected, "{one} {other}");
            assert_eq!(is_same_dns_name(other, one), expected, "{one} {other}");
        }
    }
}
