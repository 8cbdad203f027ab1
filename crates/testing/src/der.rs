//! Just enough DER and PEM to change one field of a certificate and to write it down.

use std::fmt::Write;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const BIT_STRING: u8 = 0x03;
/// The first field of a certificate, absent in version 1.
pub(crate) const VERSION: u8 = 0xa0;
/// The last field of a certificate, absent in version 1.
pub(crate) const EXTENSIONS: u8 = 0xa3;

/// One encoded element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).expect("a usize has at most 8 bytes"));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The encoded elements inside an element.
pub(crate) fn children(outer: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &outer[header_and_length(outer).0..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (header, length) = header_and_length(rest);
        let (one, others) = rest.split_at(header + length);
        found.push(one.to_vec());
        rest = others;
    }
    found
}

fn header_and_length(encoded: &[u8]) -> (usize, usize) {
    let first = usize::from(encoded[1]);
    if first < 0x80 {
        return (2, first);
    }
    let bytes = &encoded[2..2 + (first & 0x7f)];
    (
        2 + bytes.len(),
        bytes
            .iter()
            .fold(0, |length, byte| (length << 8) | usize::from(*byte)),
    )
}

/// An object identifier element, from dotted decimal.
pub(crate) fn object_identifier(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u32> = dotted
        .split('.')
        .map(|arc| arc.parse().expect("a decimal arc"))
        .collect();
    let [first, second, others @ ..] = arcs.as_slice() else {
        panic!("{dotted} is too short for an OID")
    };
    let mut content = base_128(first * 40 + second);
    others.iter().for_each(|arc| content.extend(base_128(*arc)));
    element(OBJECT_IDENTIFIER, &content)
}

fn base_128(mut value: u32) -> Vec<u8> {
    let mut bytes = vec![value.to_be_bytes()[3] & 0x7f];
    while value >= 0x80 {
        value >>= 7;
        bytes.push(value.to_be_bytes()[3] | 0x80);
    }
    bytes.reverse();
    bytes
}

/// A PEM block (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    writeln!(out, "-----END {label}-----").expect("a String takes everything");
    out
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let padded = [
            0,
            group[0],
            *group.get(1).unwrap_or(&0),
            *group.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes(padded);
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position)) as usize & 0x3f;
            out.push(if position > group.len() {
                '='
            } else {
                char::from(ALPHABET[index])
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_and_read_back() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let inner = element(0x04, &vec![7; length]);
            let outer = element(SEQUENCE, &[inner.clone(), inner.clone()].concat());
            assert_eq!(children(&outer), [inner.clone(), inner], "length {length}");
        }
    }

    #[test]
    fn object_identifiers_are_encoded() {
        assert_eq!(object_identifier("2.5.4.3"), [6, 3, 0x55, 4, 3]);
        assert_eq!(
            object_identifier("1.2.840.113549"),
            [6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d]
        );
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
