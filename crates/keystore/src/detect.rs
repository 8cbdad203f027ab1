//! Which format a keystore file has: by the extension of its name, else by its first bytes.

use std::fmt;

use crate::pkcs12;

/// The formats of keystore files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PEM blocks, certificates and key in one file.
    Pem,
    /// PKCS#12, also called PFX (RFC 7292).
    Pkcs12,
    /// Java keystores, JCEKS and JKS.
    Jceks,
    /// Bare DER: certificates, or PKCS#7.
    Der,
}

/// The format cannot be told from the file's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// Fewer than four bytes.
    #[error("unable to read file: EOF")]
    TooShort,
    /// Four bytes that no format begins with.
    #[error("unable to guess file format; name the file by its format, for example .pem or .p12")]
    Unknown,
}

impl Format {
    /// The format that the extension stands for, whatever the contents. `None`: the first
    /// bytes decide.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let last = name.rsplit(std::path::is_separator).next()?;
        let (_, extension) = last.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "pem" | "crt" | "p7b" | "p7c" => Some(Self::Pem),
            "p12" | "pfx" => Some(Self::Pkcs12),
            "jceks" | "jks" => Some(Self::Jceks),
            "der" => Some(Self::Der),
            _ => None,
        }
    }

    /// The format of a file that begins with these bytes. A guess where DER and PKCS#12 are
    /// concerned: both are a SEQUENCE, told apart by its length, as Ghostunnel 1.11.1 does. But
    /// what begins as PKCS#12 must is taken for it, whatever its length.
    pub fn from_first_bytes(bytes: &[u8]) -> Result<Self, DetectError> {
        match bytes {
            bytes if pkcs12::is_likely(bytes) => Ok(Self::Pkcs12),
            [0xce, 0xce, 0xce, 0xce, ..] | [0xfe, 0xed, 0xfe, 0xed, ..] => Ok(Self::Jceks),
            // `CONN` begins "CONNECTED", the first line of what `openssl s_client` prints.
            [b'-', b'-', b'-', b'-', ..] | [b'C', b'O', b'N', b'N', ..] => Ok(Self::Pem),
            [0x30, 0x82, 0x03, _, ..] => Ok(Self::Der),
            [0x30, 0x82, _, _, ..] => Ok(Self::Pkcs12),
            [_, _, _, _, ..] => Err(DetectError::Unknown),
            _ => Err(DetectError::TooShort),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "PEM",
            Self::Pkcs12 => "PKCS#12",
            Self::Jceks => "JCEKS",
            Self::Der => "DER",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_decides() {
        for (name, expected) in [
            ("server.pem", Some(Format::Pem)),
            ("server.CRT", Some(Format::Pem)),
            ("server.p7b", Some(Format::Pem)),
            ("server.p7c", Some(Format::Pem)),
            ("server.p12", Some(Format::Pkcs12)),
            ("server.PfX", Some(Format::Pkcs12)),
            ("server.jceks", Some(Format::Jceks)),
            ("server.jks", Some(Format::Jceks)),
            ("server.der", Some(Format::Der)),
            ("server.p12.pem", Some(Format::Pem)),
            ("/etc/a.p12/.pem", Some(Format::Pem)),
            ("/etc/a.p12/server", None),
            ("server.pem.bak", None),
            ("server.key", None),
            ("server.", None),
            ("server", None),
            ("", None),
        ] {
            assert_eq!(Format::from_file_name(name), expected, "{name}");
        }
    }

    #[test]
    fn first_bytes_decide_otherwise() {
        for (bytes, expected) in [
            (&[0xce, 0xce, 0xce, 0xce][..], Ok(Format::Jceks)),
            (&[0xfe, 0xed, 0xfe, 0xed, 0], Ok(Format::Jceks)),
            (b"-----BEGIN", Ok(Format::Pem)),
            (b"CONNECTED", Ok(Format::Pem)),
            (&[0x30, 0x82, 0x03, 0xff], Ok(Format::Der)),
            (&[0x30, 0x82, 0x04, 0x00], Ok(Format::Pkcs12)),
            (&[0x30, 0x82, 0x03, 0xff, 2, 1, 3, 0x30], Ok(Format::Pkcs12)),
            (&[0x30, 0x80, 2, 1, 3, 0x30], Ok(Format::Pkcs12)),
            (b"Bag Attributes", Err(DetectError::Unknown)),
            (&[0x30, 0x81, 0x03, 0xff], Err(DetectError::Unknown)),
            (b"", Err(DetectError::TooShort)),
            (b"---", Err(DetectError::TooShort)),
        ] {
            assert_eq!(Format::from_first_bytes(bytes), expected, "{bytes:?}");
        }
    }
}
