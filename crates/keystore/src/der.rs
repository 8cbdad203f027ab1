//! Bare DER: certificates one after the other, or a PKCS#7 file with certificates. Neither
//! can hold a key.

use crate::asn1::{Reader, SEQUENCE};
use crate::pem::Block;
use crate::pkcs7;

/// A file is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse DER data as X.509 ({x509}) or PKCS7 ({pkcs7})")]
pub struct DerError {
    x509: &'static str,
    pkcs7: &'static str,
}

/// The certificates of a file, in its order. Whether they parse is for the caller to see.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Block>, DerError> {
    let x509 = match certificates(bytes) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    pkcs7::read(bytes).map_err(|pkcs7| DerError { x509, pkcs7 })
}

fn certificates(bytes: &[u8]) -> Result<Vec<Block>, &'static str> {
    let mut rest = Reader::new(bytes);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let element = rest.element(SEQUENCE).ok_or("malformed certificate")?;
        // A certificate is three elements, and begins with the one that is signed.
        let mut parts = element.reader();
        let is_certificate = parts.nested(SEQUENCE).is_some() && parts.nested(SEQUENCE).is_some();
        if !is_certificate {
            return Err("malformed certificate");
        }
        found.push(Block::certificate(element.whole));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shape of a certificate.
    const SHAPE: [u8; 9] = [0x30, 7, 0x30, 0, 0x30, 0, 0x03, 1, 0];

    #[test]
    fn certificates_stand_one_after_the_other() {
        for count in 0..3 {
            let found = read(&SHAPE.repeat(count)).expect("certificates");
            assert_eq!(found.len(), count);
            assert!(
                found
                    .iter()
                    .all(|block| block.is_certificate() && block.contents() == SHAPE)
            );
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_both_reasons() {
        for bytes in [
            &b"noise"[..],
            &[0x30, 3, 2, 1, 3],
            &SHAPE[..8],
            &[&SHAPE[..], &SHAPE[..4]].concat(),
        ] {
            let error = read(bytes).expect_err("neither");
            assert_eq!(
                error.to_string(),
                "unable to parse DER data as X.509 (malformed certificate) or PKCS7 (malformed data)",
                "{bytes:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
