//! Pins of public keys: `ALGORITHM:DIGEST`, as `--allow-spki-pin` and `--verify-spki-pin` take
//! them.

/// A digest that the public key of a peer must have. Built only by [`SpkiPin::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpkiPin {
    algorithm: PinAlgorithm,
    digest: Vec<u8>,
}

/// What a pin's digest was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Why a text is no pin. Displays behind the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpkiPinError {
    /// There is no colon.
    #[error("expected format <algo>:<base64-digest>")]
    NoColon,
    /// A digest that is not among those supported.
    #[error("unsupported hash algorithm {0:?} (supported: sha256, sha384, sha512)")]
    UnknownAlgorithm(String),
    /// The digest is not base64 with padding (RFC 4648, section 4).
    #[error("base64 decode failed: illegal base64 data at input byte {0}")]
    Base64(usize),
    /// The digest has another length than its algorithm makes.
    #[error("expected {expected} bytes for {algorithm}, got {got}")]
    Length {
        /// The name of the algorithm.
        algorithm: &'static str,
        /// The length of its digests.
        expected: usize,
        /// The length of this one.
        got: usize,
    },
}

impl SpkiPin {
    /// Parses a pin. The algorithm's name may be in any case.
    pub fn parse(text: &str) -> Result<Self, SpkiPinError> {
        let (name, digest) = text.split_once(':').ok_or(SpkiPinError::NoColon)?;
        let algorithm = PinAlgorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| SpkiPinError::UnknownAlgorithm(name.to_owned()))?;
        let digest = decode_base64(digest.as_bytes()).map_err(SpkiPinError::Base64)?;
        if digest.len() != algorithm.length() {
            return Err(SpkiPinError::Length {
                algorithm: algorithm.name(),
                expected: algorithm.length(),
                got: digest.len(),
            });
        }
        Ok(Self { algorithm, digest })
    }

    /// What the digest was made with.
    pub fn algorithm(&self) -> PinAlgorithm {
        self.algorithm
    }

    /// The digest, as long as its algorithm makes it.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

impl PinAlgorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name that pins begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes in a digest.
    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Base64 with padding; line ends are skipped. The error is the place of the first byte that
/// does not fit; for what is incomplete, the place where its last group begins.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::new();
    let mut letters = text
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, letter)| !matches!(letter, b'\r' | b'\n'));
    loop {
        let (mut group, mut length) = (0_u32, 0_usize);
        while length < 4 {
            let Some((place, letter)) = letters.next() else {
                return match length {
                    0 => Ok(bytes),
                    _ => Err(text.len().saturating_sub(length)),
                };
            };
            if letter == b'=' {
                end_of_padding(length, place, text.len(), &mut letters)?;
                let bits = if length == 2 { group << 12 } else { group << 6 };
                bytes.extend(bits.to_be_bytes().iter().skip(1).take(length.saturating_sub(1)));
                return Ok(bytes);
            }
            group = group << 6 | value(letter).ok_or(place)?;
            length = length.saturating_add(1);
        }
        bytes.extend(group.to_be_bytes().iter().skip(1));
    }
}

/// What follows the first `=`, which is at `place`, behind `length` letters of its group.
fn end_of_padding(
    length: usize,
    place: usize,
    end: usize,
    rest: &mut impl Iterator<Item = (usize, u8)>,
) -> Result<(), usize> {
    match length {
        2 => match rest.next() {
            Some((_, b'=')) => {}
            Some((second, _)) => return Err(second.saturating_sub(1)),
            None => return Err(end),
        },
        3 => {}
        _ => return Err(place),
    }
    rest.next().map_or(Ok(()), |(behind, _)| Err(behind))
}

fn value(letter: u8) -> Option<u32> {
    let (first, offset) = match letter {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => return Some(62),
        b'/' => return Some(63),
        _ => return None,
    };
    Some(u32::from(letter.abs_diff(first)).saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn pins_are_an_algorithm_and_a_digest() {
        let long = |count| "A".repeat(count);
        for (text, algorithm, length) in [
            (format!("sha256:{ZEROS}"), PinAlgorithm::Sha256, 32),
            (format!("SHA256:{ZEROS}"), PinAlgorithm::Sha256, 32),
            (format!("sha384:{}", long(64)), PinAlgorithm::Sha384, 48),
            (format!("Sha512:{}==", long(86)), PinAlgorithm::Sha512, 64),
        ] {
            let pin = SpkiPin::parse(&text).expect("a pin");
            assert_eq!(
                (pin.algorithm(), pin.digest()),
                (algorithm, &vec![0; length][..]),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_pin_is_refused_with_its_reason() {
        let base64 = |place| format!("base64 decode failed: illegal base64 data at input byte {place}");
        let unknown =
            |name| format!("unsupported hash algorithm \"{name}\" (supported: sha256, sha384, sha512)");
        for (text, reason) in [
            ("", "expected format <algo>:<base64-digest>".to_owned()),
            ("abc", "expected format <algo>:<base64-digest>".to_owned()),
            (":", unknown("")),
            ("sha1:AAAA", unknown("sha1")),
            (" sha256:AAAA", unknown(" sha256")),
            ("sha256:@@", base64(0)),
            ("sha256:AAA", base64(0)),
            ("sha256:AAAAA", base64(4)),
            ("sha256:AA A", base64(2)),
            ("sha256:AA=", base64(3)),
            ("sha256:AA=A", base64(2)),
            ("sha256:A===", base64(1)),
            ("sha256:====", base64(0)),
            ("sha256:AAA=A", base64(4)),
            ("sha256:AA-_", base64(2)),
            ("sha256:AAAA", "expected 32 bytes for sha256, got 3".to_owned()),
            ("sha256:", "expected 32 bytes for sha256, got 0".to_owned()),
            ("SHA512:AA==", "expected 64 bytes for sha512, got 1".to_owned()),
        ] {
            let error = SpkiPin::parse(text).expect_err(text);
            assert_eq!(error.to_string(), reason, "{text}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9v\r\nYmFy", "foobar"),
            ("Pz8/Pj4+", "???>>>"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()), Ok(expected.into()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(sha(256|384|512):)?[A-Za-z0-9+/=\r\n @]{0,90}") {
            let _ = SpkiPin::parse(&text);
        }
    }
}
