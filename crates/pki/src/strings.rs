//! The string types of names: decoding, and the one way they are encoded again.

use crate::der::{self, tag};

/// The text of an attribute value, or `None` for another type or a character that its
/// type does not have.
pub(crate) fn decode(string: u8, bytes: &[u8]) -> Option<String> {
    let allowed = match string {
        tag::UTF8_STRING => return String::from_utf8(bytes.to_vec()).ok(),
        tag::BMP_STRING => return decode_bmp(bytes),
        // T.61 is read as Latin-1, as everybody does.
        tag::T61_STRING => return Some(bytes.iter().copied().map(char::from).collect()),
        tag::PRINTABLE_STRING => bytes
            .iter()
            .all(|&byte| is_printable(byte) || matches!(byte, b'*' | b'&')),
        tag::IA5_STRING => bytes.is_ascii(),
        tag::NUMERIC_STRING => bytes.iter().all(|&byte| byte.is_ascii_digit() || byte == b' '),
        _ => false,
    };
    if allowed { ascii(bytes) } else { None }
}

/// Text that has to be ASCII.
pub(crate) fn ascii(bytes: &[u8]) -> Option<String> {
    if bytes.is_ascii() {
        String::from_utf8(bytes.to_vec()).ok()
    } else {
        None
    }
}

/// UCS-2, big endian, with an optional terminator. Surrogates and noncharacters are
/// not part of it.
fn decode_bmp(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let units = units.strip_suffix(&[[0, 0]]).unwrap_or(units);
    units
        .iter()
        .map(|&unit| match u16::from_be_bytes(unit) {
            0xfdd0..=0xfdef | 0xfffe | 0xffff => None,
            unit => char::from_u32(unit.into()),
        })
        .collect()
}

/// Text as a PrintableString if it can be one, else as a UTF8String.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let string = if text.bytes().all(is_printable) {
        tag::PRINTABLE_STRING
    } else {
        tag::UTF8_STRING
    };
    der::encode(string, text.as_bytes())
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_encoded_with_long_lengths() {
        let text = "ä".repeat(100);
        assert_eq!(encode(&text).get(..3), Some(&[tag::UTF8_STRING, 0x81, 200][..]));
        let text = "a".repeat(300);
        assert_eq!(
            encode(&text).get(..4),
            Some(&[tag::PRINTABLE_STRING, 0x82, 1, 44][..])
        );
    }
}
