//! Numbers of any size, written in decimal.

/// The decimal digits of a big-endian number that is not negative.
pub fn decimal(bytes: &[u8]) -> String {
    /// Digits that one limb holds; the square of its range still fits 128 bits.
    const DIGITS: usize = 18;
    const BASE: u128 = 10u128.pow(18);
    // Least significant limb first.
    let mut limbs: Vec<u64> = Vec::new();
    for chunk in bytes.rchunks(8).rev() {
        let mut carry = chunk
            .iter()
            .fold(0u128, |value, &byte| value << 8 | u128::from(byte));
        let shift = 8 * chunk.len();
        for limb in &mut limbs {
            carry += u128::from(*limb) << shift;
            *limb = u64::try_from(carry % BASE).expect("a remainder below 10^18");
            carry /= BASE;
        }
        while carry > 0 {
            limbs.push(u64::try_from(carry % BASE).expect("a remainder below 10^18"));
            carry /= BASE;
        }
    }
    let mut digits = limbs.pop().unwrap_or_default().to_string();
    for limb in limbs.iter().rev() {
        digits.push_str(&format!("{limb:0DIGITS$}"));
    }
    digits
}

/// The arcs of an object identifier whose arcs fit 64 bits; empty otherwise.
pub(super) fn arcs(oid: &[u8]) -> Vec<u64> {
    let mut arcs = Vec::new();
    for group in groups(oid) {
        let Some(value) = group.iter().try_fold(0u64, |value, byte| {
            Some(value.checked_mul(128)? | u64::from(byte & 0x7f))
        }) else {
            return Vec::new();
        };
        if arcs.is_empty() {
            let first = (value / 40).min(2);
            arcs.extend([first, value - 40 * first]);
        } else {
            arcs.push(value);
        }
    }
    arcs
}

/// The dotted form of an object identifier with arcs of any size.
pub fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    for (index, group) in groups(oid).enumerate() {
        let bytes = eight_bit_digits(group);
        if index == 0 {
            let (first, second) = match bytes.as_slice() {
                &[small] if small < 80 => (small / 40, vec![small % 40]),
                _ => (2, minus_eighty(bytes)),
            };
            text = format!("{first}.{}", decimal(&second));
        } else {
            text.push('.');
            text.push_str(&decimal(&bytes));
        }
    }
    text
}

/// The bytes of each arc, of which all but the last have the top bit set.
fn groups(oid: &[u8]) -> impl Iterator<Item = &[u8]> {
    oid.split_inclusive(|byte| byte & 0x80 == 0)
}

/// Digits of seven bits as a big-endian number without leading zeros, of at least one byte.
fn eight_bit_digits(group: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let (mut pending, mut bits) = (0u16, 0u32);
    for digit in group.iter().rev() {
        pending |= u16::from(digit & 0x7f) << bits;
        bits += 7;
        if bits >= 8 {
            bytes.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            bits -= 8;
        }
    }
    bytes.push(pending.to_le_bytes()[0]);
    while bytes.len() > 1 && bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes.reverse();
    bytes
}

/// A number of at least eighty, less eighty.
fn minus_eighty(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut borrow = 80;
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(borrow);
        *byte = less;
        borrow = u8::from(borrowed);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for (bytes, expected) in [
            (&[][..], "0"),
            (&[0, 0], "0"),
            (&[0, 1, 0], "256"),
            (&[0xff; 8], "18446744073709551615"),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0], "18446744073709551616"),
            (&[0xff; 16], "340282366920938463463374607431768211455"),
            (
                &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                "340282366920938463463374607431768211456",
            ),
            (&[0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0, 0], "1000000000000000000"),
        ] {
            assert_eq!(decimal(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn object_identifiers_are_split_and_dotted() {
        for (oid, expected, list) in [
            (&[0x55, 4, 3][..], "2.5.4.3", &[2, 5, 4, 3][..]),
            (&[0x2a, 0x86, 0x48], "1.2.840", &[1, 2, 840]),
            (&[0x88, 0x37], "2.999", &[2, 999]),
            (&[0x27], "0.39", &[0, 39]),
            (&[0x50], "2.0", &[2, 0]),
            (
                &[
                    0x69, 0x84, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
                ],
                "2.25.4722366482869645213696",
                &[],
            ),
        ] {
            assert_eq!(dotted(oid), expected);
            assert_eq!(arcs(oid), list, "{expected}");
        }
    }
}
