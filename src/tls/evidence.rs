//! What the log tells about a refused peer beside the reason: who its certificate says it is,
//! and what that was compared with.

use std::fmt;

use ghostunnel_pki::{Certificate, Identity};

use crate::authorization::{SpkiPin, names};

/// How many characters of a subject are shown.
const LONGEST_SUBJECT: usize = 256;

/// How many bytes of a serial number are shown; proper ones have at most 20 (RFC 5280, section
/// 4.1.2.2).
const LONGEST_SERIAL: usize = 32;

/// The claims of a refused peer's certificate. Nothing of it needs to be true: the certificate
/// may be forged, or a copy of somebody else's.
///
/// Displayed as ` subject="…" serial=…`, one word for each field that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The subject, as the log writes names.
    pub subject: String,
    /// The serial number in hexadecimal digits.
    pub serial: String,
    /// The public key, as it would be pinned.
    pub pin: String,
    /// DNS names, if there are any; quoted, with commas between.
    pub dns_names: Option<String>,
    /// IP addresses, likewise.
    pub ip_addresses: Option<String>,
    /// URIs, likewise.
    pub uris: Option<String>,
    /// The access rules that the peer was compared with, if it came to that.
    pub rules: Option<String>,
}

impl Evidence {
    pub(super) fn of(leaf: &Certificate) -> Self {
        let identity = Identity::of(leaf);
        let dns_names = names(identity.dns_names().iter().map(String::as_str));
        let addresses: Vec<_> = identity.ip_addresses().iter().map(ToString::to_string).collect();
        let ip_addresses = names(addresses.iter().map(String::as_str));
        let uris = names(identity.uris().iter().map(String::as_str));
        let given = |names: String| Some(names).filter(|names| !names.is_empty());
        Self {
            subject: beginning(identity.subject(), LONGEST_SUBJECT),
            serial: hex(leaf.serial()),
            pin: SpkiPin::of(leaf.subject_public_key_info()).to_string(),
            dns_names: given(dns_names),
            ip_addresses: given(ip_addresses),
            uris: given(uris),
            rules: None,
        }
    }

    pub(super) fn compared_with(self, rules: String) -> Self {
        Self {
            rules: Some(rules),
            ..self
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subject,
            serial,
            pin,
            dns_names,
            ip_addresses,
            uris,
            rules,
        } = self;
        write!(f, " subject={subject:?} serial={serial} spki={pin}")?;
        for (name, value) in [
            ("dns", dns_names),
            ("ip", ip_addresses),
            ("uri", uris),
            ("rules", rules),
        ] {
            if let Some(value) = value {
                write!(f, " {name}=[{value}]")?;
            }
        }
        Ok(())
    }
}

fn beginning(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// As OpenSSL prints serial numbers, without leading zeros.
fn hex(serial: &[u8]) -> String {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    let digits = serial.get(zeros..).unwrap_or_default();
    if digits.is_empty() {
        return "00".to_owned();
    }
    let mut text: String = digits
        .iter()
        .take(LONGEST_SERIAL)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    if digits.len() > LONGEST_SERIAL {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_written_as_openssl_does() {
        for (bytes, expected) in [
            (&[][..], "00"),
            (&[0], "00"),
            (&[0, 0x8a, 1], "8A01"),
            (&[0xff; 20], &"FF".repeat(20)),
            (&[1; 33], &format!("{}...", "01".repeat(32))),
        ] {
            assert_eq!(hex(bytes), expected);
        }
    }

    #[test]
    fn a_subject_of_any_length_is_cut_between_characters() {
        assert_eq!(beginning("CN=a".to_owned(), 256), "CN=a");
        let cut = beginning("ü".repeat(300), 256);
        assert_eq!(cut, "ü".repeat(256) + "...");
    }
}
