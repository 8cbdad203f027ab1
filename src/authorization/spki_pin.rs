//! Pins of public keys: `ALGORITHM:DIGEST`, as `--allow-spki-pin` and `--verify-spki-pin` take
//! them.
//!
//! What is digested is the SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) exactly as the
//! certificate encodes it.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};

/// A digest that the public key of a peer must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpkiPin {
    algorithm: PinAlgorithm,
    digest: Vec<u8>,
}

/// What a pin's digest was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PinAlgorithm {
    Sha256,
    Sha384,
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

    /// The pin with SHA-256 of this SubjectPublicKeyInfo.
    pub fn of(spki: &[u8]) -> Self {
        let algorithm = PinAlgorithm::Sha256;
        Self {
            algorithm,
            digest: algorithm.digest(spki),
        }
    }

    /// Whether this is a pin of this SubjectPublicKeyInfo. Takes the same time for every digest.
    pub fn matches(&self, spki: &[u8]) -> bool {
        verify_slices_are_equal(&self.algorithm.digest(spki), &self.digest).is_ok()
    }
}

/// As it can be typed.
impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), encode_base64(&self.digest))
    }
}

impl PinAlgorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name that pins begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn function(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        }
    }

    /// Bytes in a digest.
    fn length(self) -> usize {
        self.function().output_len()
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.function(), bytes).as_ref().to_vec()
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

fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .zip([16u32, 8, 0])
            .fold(0u32, |bits, (byte, shift)| bits | u32::from(*byte) << shift);
        for (place, shift) in [18u32, 12, 6, 0].into_iter().enumerate() {
            let value = usize::try_from(bits >> shift & 63).unwrap_or_default();
            let letter = ALPHABET.get(value).map_or('=', |letter| char::from(*letter));
            text.push(if place <= group.len() { letter } else { '=' });
        }
    }
    text
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
                (pin.algorithm, pin.digest),
                (algorithm, vec![0; length]),
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

    /// Digests of the empty text.
    const EMPTY: [&str; 3] = [
        "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "sha384:OLBgp1GsljhM2TJ+sbHjaiH9txEUvgdDTAzHv2P24donTt6/529l+9Ua0vFImLlb",
        "sha512:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
    ];

    #[test]
    fn pins_are_digests_of_exactly_these_bytes() {
        for text in EMPTY {
            let pin = SpkiPin::parse(text).expect("a pin");
            assert!(pin.matches(b""), "{text}");
            assert!(!pin.matches(b"\0"), "{text}");
            assert_eq!(pin.to_string(), text);
        }
        assert_eq!(SpkiPin::of(b"").to_string(), EMPTY[0]);
    }

    proptest! {
        #[test]
        fn base64_gives_back_what_it_was_made_of(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode_base64(encode_base64(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in "(sha(256|384|512):)?[A-Za-z0-9+/=\r\n @]{0,90}") {
            let _ = SpkiPin::parse(&text);
        }
    }
}
