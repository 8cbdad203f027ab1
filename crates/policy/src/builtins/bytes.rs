//! Functions over bytes: encodings, digests.
//!
//! In Rego a string can hold any bytes, in the engine only text: what `base64.decode` makes of a
//! public key must still be itself when `crypto.sha256` gets it. So a byte that is not part of
//! valid UTF-8 becomes one of 256 private characters, and back. No other text contains these:
//! text from certificates is cleared of them ([`plain`]), and bytes that spell one are taken for
//! invalid.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};

/// The first of the 256 characters, in the last plane for private use.
const FIRST: u32 = 0x0010_fe00;

fn stand_in(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(character: char) -> Option<u8> {
    u32::from(character)
        .checked_sub(FIRST)
        .and_then(|byte| u8::try_from(byte).ok())
}

/// `text` with characters that stand for bytes replaced.
pub(crate) fn plain(text: &str) -> String {
    let clear = |character| byte_of(character).map_or(character, |_| char::REPLACEMENT_CHARACTER);
    text.chars().map(clear).collect()
}

/// Any bytes as text.
pub(crate) fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if byte_of(character).is_some() {
                let mut buffer = [0; 4];
                text.extend(character.encode_utf8(&mut buffer).bytes().map(stand_in));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    text
}

/// The bytes that a text is made of.
pub(crate) fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
        }
    }
    bytes
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0usize, |group, &byte| group << 8 | usize::from(byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = group >> (18 - 6 * index) & 0x3f;
            let shown = STANDARD.get(digit).filter(|_| index <= chunk.len());
            text.push(shown.copied().map_or('=', char::from));
        }
    }
    text
}

/// Bytes of Base64 with padding; line ends are skipped.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !b"\r\n".contains(byte)).collect();
    let (groups, []) = digits.as_chunks::<4>() else {
        return None;
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for (index, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|&&digit| digit == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 < groups.len()) {
            return None;
        }
        let mut value = 0u32;
        for (position, digit) in group.iter().enumerate() {
            let digit = if position + padding >= 4 {
                0
            } else {
                STANDARD.iter().position(|known| known == digit)?
            };
            value = value << 6 | u32::try_from(digit).ok()?;
        }
        bytes.extend_from_slice(value.to_be_bytes().get(1..4 - padding)?);
    }
    Some(bytes)
}

/// Base64 with the alphabet for URLs, padded or not.
pub(crate) fn from_base64_url(text: &str) -> Option<Vec<u8>> {
    if text.contains(['+', '/']) {
        return None;
    }
    let mut standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    from_base64(&standard)
}

/// Base64 with the alphabet for URLs.
pub(crate) fn to_base64_url(bytes: &[u8], padded: bool) -> String {
    let text = to_base64(bytes).replace('+', "-").replace('/', "_");
    if padded {
        text
    } else {
        text.trim_end_matches('=').to_owned()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

/// The digest of a text's bytes, in hexadecimal.
pub(crate) fn digest(algorithm: &'static digest::Algorithm, text: &str) -> String {
    to_hex(digest::digest(algorithm, &to_bytes(text)).as_ref())
}

/// The keyed digest of a text's bytes, in hexadecimal.
pub(crate) fn hmac(algorithm: hmac::Algorithm, text: &str, key: &str) -> String {
    let key = hmac::Key::new(algorithm, &to_bytes(key));
    to_hex(hmac::sign(&key, &to_bytes(text)).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodings_are_those_of_rfc_4648() {
        for (bytes, base64, hex) in [
            (&b""[..], "", ""),
            (b"f", "Zg==", "66"),
            (b"fo", "Zm8=", "666f"),
            (b"foo", "Zm9v", "666f6f"),
            (&[0xfb, 0xff, 0xfe, 0x00], "+//+AA==", "fbfffe00"),
        ] {
            assert_eq!((to_base64(bytes).as_str(), to_hex(bytes).as_str()), (base64, hex));
            assert_eq!(from_base64(base64).as_deref(), Some(bytes));
            assert_eq!(from_hex(hex).as_deref(), Some(bytes));
        }
        for wrong in ["Zg", "Zg=", "Z===", "====", "Zg==Zm9v", "Zm9v!", "Zm 9v", "Z-_="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
        for wrong in ["f", "0g", "0x"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(to_base64_url(&[0xfb, 0xff, 0xfe, 0], true), "-__-AA==");
        assert_eq!(to_base64_url(&[0xfb, 0xff, 0xfe, 0], false), "-__-AA");
    }

    #[test]
    fn digests_are_of_bytes_not_of_what_stands_for_them() {
        let key = [0x30, 0x82, 0xff, 0x00, 0xc3];
        let expected = to_hex(digest::digest(&digest::SHA256, &key).as_ref());
        assert_eq!(digest(&digest::SHA256, &from_bytes(&key)), expected);
        assert_eq!(
            digest(&digest::SHA256, "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hmac(hmac::HMAC_SHA256, "what do ya want for nothing?", "Jefe"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(to_bytes(&from_bytes(&bytes)), bytes.clone());
            prop_assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(from_base64_url(&to_base64_url(&bytes, false)), Some(bytes));
        }

        #[test]
        fn text_that_is_cleared_stands_for_itself(text in any::<String>()) {
            let text = plain(&text);
            prop_assert_eq!(to_bytes(&text), text.as_bytes());
            prop_assert_eq!(from_bytes(text.as_bytes()), text);
        }

        #[test]
        fn bytes_that_spell_a_stand_in_come_back_too(byte in any::<u8>()) {
            let spelled = stand_in(byte).to_string();
            prop_assert_eq!(to_bytes(&from_bytes(spelled.as_bytes())), spelled.as_bytes());
        }
    }
}
