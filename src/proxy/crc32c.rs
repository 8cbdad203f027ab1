//! CRC-32C (Castagnoli), as RFC 3720, section 12.1 defines it: the checksum in a PROXY protocol
//! header.

/// The sum of these pieces, one behind the other.
pub(super) fn of(pieces: &[&[u8]]) -> u32 {
    let bytes = pieces.iter().flat_map(|piece| piece.iter());
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg())
        })
    })
}

/// Reflected: the lowest bit comes first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_rfc() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (pieces, sum) in [
            (&[&b"123456789"[..]][..], 0xe306_9283),
            (&[b"1234", b"", b"56789"], 0xe306_9283),
            (&[&[0; 32]], 0x8a91_36aa),
            (&[&[0xff; 32]], 0x62a8_ab43),
            (&[&ascending], 0x46dd_794e),
            (&[&descending], 0x113f_db5c),
            (&[], 0),
        ] {
            assert_eq!(of(pieces), sum, "{pieces:?}");
        }
    }
}
