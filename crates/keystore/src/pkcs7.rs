//! PKCS#7, today the Cryptographic Message Syntax (RFC 5652): the certificates of a SignedData,
//! as "certificates only" files and Windows' exports have them. Signatures are of no interest.

use crate::asn1::{CONTEXT_0, Reader, SEQUENCE, SET};
use crate::encryption::oid;
use crate::pem::Block;

/// The certificates of a file, in its order.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Block>, &'static str> {
    let mut file = Reader::new(bytes);
    let mut content = file.nested(SEQUENCE).ok_or("malformed data")?;
    match content.oid().ok_or("malformed data")? {
        oid::SIGNED_DATA => {}
        _ => return Err("not signed data"),
    }
    if !file.is_empty() {
        return Err("data behind its end");
    }
    let certificates = signed_data(content).ok_or("malformed signed data")?;
    if certificates.is_empty() {
        return Err("no certificates");
    }
    Ok(certificates)
}

/// RFC 5652, section 5.1.
fn signed_data(mut content: Reader<'_>) -> Option<Vec<Block>> {
    let mut data = content.nested(CONTEXT_0)?.nested(SEQUENCE)?;
    data.unsigned()?;
    data.nested(SET)?;
    data.nested(SEQUENCE)?;
    let mut found = Vec::new();
    if let Some(mut certificates) = data.nested(CONTEXT_0) {
        while !certificates.is_empty() {
            let certificate = certificates.any()?;
            // Other choices than X.509 have other tags.
            if certificate.tag == SEQUENCE {
                found.push(Block::certificate(certificate.whole));
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
        let contents = contents.concat();
        let length = u8::try_from(contents.len()).expect("short");
        [&[tag, length][..], &contents].concat()
    }

    /// A SignedData of which nothing but the certificates matters.
    fn file(kind: &[u8], certificates: &[&[u8]]) -> Vec<u8> {
        let signed = element(
            SEQUENCE,
            &[
                &[2, 1, 1],
                &[SET, 0],
                &[SEQUENCE, 0],
                &element(CONTEXT_0, certificates),
            ],
        );
        element(SEQUENCE, &[&element(6, &[kind]), &element(CONTEXT_0, &[&signed])])
    }

    #[test]
    fn certificates_are_taken_and_other_choices_passed_over() {
        let found = read(&file(
            oid::SIGNED_DATA,
            &[&[0x30, 1, 1], &[0xa1, 1, 2], &[0x30, 1, 3]],
        ));
        let found = found.expect("certificates");
        let contents: Vec<&[u8]> = found.iter().map(Block::contents).collect();
        assert_eq!(contents, [[0x30, 1, 1], [0x30, 1, 3]]);
    }

    #[test]
    fn reasons_of_refusals_differ() {
        let good = file(oid::SIGNED_DATA, &[&[0x30, 0]]);
        for (bytes, expected) in [
            (file(oid::SIGNED_DATA, &[]), "no certificates"),
            (file(oid::DATA, &[&[0x30, 0]]), "not signed data"),
            (good[..good.len() - 1].to_vec(), "malformed data"),
            ([&good[..], &[0]].concat(), "data behind its end"),
            (file(oid::SIGNED_DATA, &[&[0x30]]), "malformed signed data"),
        ] {
            assert_eq!(read(&bytes).err(), Some(expected));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
