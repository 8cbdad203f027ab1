//! Public key pins: a peer is known by the digest of its key, and by nothing else.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};

/// The digest of a public key, as typed: `sha256:BASE64`.
///
/// What is digested is the SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) exactly as the
/// certificate encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpkiPin {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl SpkiPin {
    /// Reads `ALGO:DIGEST`: `sha256`, `sha384` or `sha512` in any case, and standard base64 with
    /// its padding.
    pub fn parse(text: &str) -> Result<Self, SpkiPinError> {
        let error = |problem| SpkiPinError {
            pin: text.to_owned(),
            problem,
        };
        let (name, digest) = text.split_once(':').ok_or_else(|| error(Problem::Format))?;
        let name = name.to_ascii_lowercase();
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|known| known.name() == name) else {
            return Err(error(Problem::Algorithm(name)));
        };
        let digest = decode_base64(digest.as_bytes()).map_err(|at| error(Problem::Base64(at)))?;
        if digest.len() != algorithm.length() {
            return Err(error(Problem::Length {
                algorithm,
                length: digest.len(),
            }));
        }
        Ok(Self { algorithm, digest })
    }

    /// The pin with SHA-256 of this SubjectPublicKeyInfo.
    pub fn of(spki: &[u8]) -> Self {
        let algorithm = Algorithm::Sha256;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

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

    fn length(self) -> usize {
        self.function().output_len()
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.function(), bytes).as_ref().to_vec()
    }
}

/// A text that is no pin. The words are those of Ghostunnel 1.11.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pin {pin:?}: {problem}")]
pub struct SpkiPinError {
    pin: String,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("expected format <algo>:<base64-digest>")]
    Format,
    #[error("unsupported hash algorithm {0:?} (supported: sha256, sha384, sha512)")]
    Algorithm(String),
    #[error("base64 decode failed: illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("expected {} bytes for {}, got {length}", algorithm.length(), algorithm.name())]
    Length { algorithm: Algorithm, length: usize },
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 (RFC 4648, section 4) with padding; line ends do not count. The error is the
/// place that Ghostunnel 1.11.1 named: of the first character that can't be, or, where the text
/// ends too early, of the group that it leaves incomplete.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut characters = text
        .iter()
        .enumerate()
        .filter(|(_, character)| !matches!(character, b'\r' | b'\n'));
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        let mut group = 0u32;
        let mut count = 0usize;
        while count < 4 {
            let Some((at, character)) = characters.next() else {
                // Lines may end inside of a group, but the original counts its characters only.
                return if count == 0 {
                    Ok(bytes)
                } else {
                    Err(text.len().saturating_sub(count))
                };
            };
            match ALPHABET.iter().position(|known| known == character) {
                Some(value) => group |= u32::try_from(value).unwrap_or_default() << (18 - 6 * count),
                None if *character == b'=' && count >= 2 => {
                    if count == 2 {
                        match characters.next() {
                            Some((_, b'=')) => {}
                            Some((after, _)) => return Err(after.saturating_sub(1)),
                            None => return Err(text.len()),
                        }
                    }
                    if let Some((after, _)) = characters.next() {
                        return Err(after);
                    }
                    let [_, first, second, _] = group.to_be_bytes();
                    bytes.extend([first, second].into_iter().take(count.saturating_sub(1)));
                    return Ok(bytes);
                }
                None => return Err(at),
            }
            count = count.saturating_add(1);
        }
        bytes.extend(group.to_be_bytes().into_iter().skip(1));
    }
}

fn encode_base64(bytes: &[u8]) -> String {
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
            let shouted = text.replacen("sha", "SHA", 1);
            assert_eq!(SpkiPin::parse(&shouted), Ok(pin), "{shouted}");
        }
        assert_eq!(SpkiPin::of(b"").to_string(), EMPTY[0]);
    }

    #[test]
    fn line_ends_in_a_pin_do_not_count() {
        let text = EMPTY[0].replace("mW+5", "mW\r\n+5") + "\n";
        assert_eq!(SpkiPin::parse(&text), Ok(SpkiPin::of(b"")));
    }

    #[test]
    fn what_is_no_pin_is_told_in_the_words_of_the_original() {
        let long = format!("sha512:{}", &EMPTY[0]["sha256:".len()..]);
        for (pin, problem) in [
            ("abc", "expected format <algo>:<base64-digest>"),
            ("", "expected format <algo>:<base64-digest>"),
            (
                "sha1:AAAA",
                "unsupported hash algorithm \"sha1\" (supported: sha256, sha384, sha512)",
            ),
            (
                ":",
                "unsupported hash algorithm \"\" (supported: sha256, sha384, sha512)",
            ),
            ("sha256:", "expected 32 bytes for sha256, got 0"),
            ("sha256:AAAA", "expected 32 bytes for sha256, got 3"),
            (&long, "expected 64 bytes for sha512, got 32"),
            (
                "sha256:@@",
                "base64 decode failed: illegal base64 data at input byte 0",
            ),
            (
                "sha256:AAA@",
                "base64 decode failed: illegal base64 data at input byte 3",
            ),
            (
                "sha256:AAAAA",
                "base64 decode failed: illegal base64 data at input byte 4",
            ),
            (
                "sha256:AAA",
                "base64 decode failed: illegal base64 data at input byte 0",
            ),
            (
                "sha256: AAAA",
                "base64 decode failed: illegal base64 data at input byte 0",
            ),
            (
                "sha256:AA=",
                "base64 decode failed: illegal base64 data at input byte 3",
            ),
            (
                "sha256:A===",
                "base64 decode failed: illegal base64 data at input byte 1",
            ),
            (
                "sha256:AA=A",
                "base64 decode failed: illegal base64 data at input byte 2",
            ),
            (
                "sha256:AAA=A",
                "base64 decode failed: illegal base64 data at input byte 4",
            ),
            (
                "sha256:AA-_",
                "base64 decode failed: illegal base64 data at input byte 2",
            ),
            (
                "sha256:AA:AA",
                "base64 decode failed: illegal base64 data at input byte 2",
            ),
        ] {
            let error = SpkiPin::parse(pin).expect_err(pin);
            assert_eq!(error.to_string(), format!("invalid pin {pin:?}: {problem}"));
        }
    }

    proptest! {
        #[test]
        fn base64_gives_back_what_it_was_made_of(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode_base64(encode_base64(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_is_a_pin_or_an_error(text in ".*", base64 in "[A-D=\r\n]{0,12}") {
            let _ = SpkiPin::parse(&text);
            let _ = SpkiPin::parse(&format!("sha256:{base64}"));
        }
    }
}
