//! From the blocks of one or more files to a chain and its key.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::pem::Block;

/// A certificate chain and the private key that goes with its leaf, as found: nobody has
/// looked into the certificates yet, nor whether the key matches.
///
/// The key's bytes are wiped on drop.
pub struct Entry {
    chain: Vec<CertificateDer<'static>>,
    key: Block,
}

/// Why blocks do not make an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// There is a single block, and it is a key.
    #[error(
        "tls: failed to find certificate PEM data in certificate input, but did find a private key; \
         PEM inputs may have been switched"
    )]
    KeyWithoutCertificate,
    /// No block is a certificate.
    #[error(
        "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of \
         the following types: [{}]", .skipped.join(" ")
    )]
    NoCertificate {
        /// The labels of the blocks that are there.
        skipped: Vec<String>,
    },
    /// There is a single block, and it is a certificate.
    #[error(
        "tls: found a certificate rather than a key in the PEM for the private key; the private key must be \
         there too"
    )]
    CertificateWithoutKey,
    /// No block is a private key.
    #[error(
        "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping \
         PEM blocks of the following types: [{}]", .skipped.join(" ")
    )]
    NoKey {
        /// The labels of the blocks that are there.
        skipped: Vec<String>,
    },
    /// The key needs a passphrase.
    #[error(
        "tls: failed to parse private key; it is encrypted: write a copy without passphrase, \
         for example with openssl pkey"
    )]
    EncryptedKey,
    /// The key has none of the known encodings.
    #[error("tls: failed to parse private key")]
    UnknownKeyEncoding,
}

impl Entry {
    /// Takes all certificates, in order, as the chain, and the first private key as the key.
    ///
    /// Which block came from which file has no meaning: a key in the certificate file wins
    /// over the one in the key file, a certificate in the key file lengthens the chain.
    pub fn from_blocks(blocks: Vec<Block>) -> Result<Self, EntryError> {
        let labels = || blocks.iter().map(Block::label).collect();
        let is_single = blocks.len() == 1;
        let has_certificate = blocks.iter().any(Block::is_certificate);
        let first_key = blocks.iter().find(|block| block.is_private_key());
        let key = match (has_certificate, first_key) {
            (true, Some(key)) => key.clone(),
            (false, Some(_)) if is_single => return Err(EntryError::KeyWithoutCertificate),
            (false, _) => return Err(EntryError::NoCertificate { skipped: labels() }),
            (true, None) if is_single => return Err(EntryError::CertificateWithoutKey),
            (true, None) => return Err(EntryError::NoKey { skipped: labels() }),
        };
        let certificates = blocks.into_iter().filter(Block::is_certificate);
        Ok(Self {
            chain: certificates.map(Block::into_certificate).collect(),
            key,
        })
    }

    /// The certificates in the order in which they were found. There is at least one: the
    /// leaf comes first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The certificates, given away.
    pub fn into_chain(self) -> Vec<CertificateDer<'static>> {
        self.chain
    }

    /// The private key, in one of the encodings PKCS#1, PKCS#8 and SEC1. The contents tell
    /// which, not the label: tools have mixed these up for as long as they exist.
    ///
    /// Apart from [`Entry::from_blocks`], because a leaf that does not parse is reported
    /// before a key that does not.
    pub fn private_key(&self) -> Result<Zeroizing<PrivateKeyDer<'static>>, EntryError> {
        if self.key.is_encrypted() {
            return Err(EntryError::EncryptedKey);
        }
        // Dropping a `PrivateKeyDer` does not wipe it, and converting a vector that turns out
        // to be no key drops the vector: so look first, then copy into a wiped place.
        let key = PrivateKeyDer::try_from(self.key.contents()).map_err(|_| EntryError::UnknownKeyEncoding)?;
        Ok(Zeroizing::new(key.clone_key()))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pem::blocks;

    /// One block per label, each with contents of its own.
    fn pem(labels: &[&str]) -> String {
        let contents = ["AAAA", "BBBB", "CCCC", "DDDD"].iter().cycle();
        labels
            .iter()
            .zip(contents)
            .map(|(label, contents)| format!("-----BEGIN {label}-----\n{contents}\n-----END {label}-----\n"))
            .collect()
    }

    fn entry(labels: &[&str]) -> Result<Entry, EntryError> {
        Entry::from_blocks(blocks(pem(labels).as_bytes()))
    }

    #[test]
    fn what_is_missing_is_named_as_the_original_does() {
        const CERTIFICATE: &str = "CERTIFICATE";
        const KEY: &str = "RSA PRIVATE KEY";
        for (labels, expected) in [
            (
                &[KEY][..],
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; \
                 PEM inputs may have been switched",
            ),
            (
                &["X509 CERTIFICATE", "PRIVATE KEY"],
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks \
                 of the following types: [X509 CERTIFICATE PRIVATE KEY]",
            ),
            (
                &["PKCS7"],
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks \
                 of the following types: [PKCS7]",
            ),
            (
                &[],
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks \
                 of the following types: []",
            ),
            (
                &[CERTIFICATE],
                "tls: found a certificate rather than a key in the PEM for the private key; the private key must \
                 be there too",
            ),
            (
                &[CERTIFICATE, CERTIFICATE],
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping \
                 PEM blocks of the following types: [CERTIFICATE CERTIFICATE]",
            ),
            (
                &[CERTIFICATE, "EC PARAMETERS"],
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping \
                 PEM blocks of the following types: [CERTIFICATE EC PARAMETERS]",
            ),
        ] {
            let error = entry(labels).expect_err("something is missing");
            assert_eq!(error.to_string(), expected, "{labels:?}");
        }
    }

    #[test]
    fn chain_is_every_certificate_in_order_and_key_is_the_first() {
        let entry = entry(&[
            "EC PARAMETERS",
            "PRIVATE KEY",
            "CERTIFICATE",
            "CERTIFICATE",
            "EC PRIVATE KEY",
        ])
        .expect("certificates and keys");
        let [leaf, issuer] = entry.chain() else {
            panic!("two certificates")
        };
        assert_eq!(
            (leaf.as_ref(), issuer.as_ref()),
            (&[8, 32, 130][..], &[12, 48, 195][..])
        );
        assert_eq!(entry.key.contents(), [4, 16, 65]);
    }

    #[test]
    fn the_same_file_twice_sends_the_leaf_twice() {
        let combined = pem(&["CERTIFICATE", "PRIVATE KEY"]);
        let entry = Entry::from_blocks(blocks((combined.clone() + &combined).as_bytes())).expect("combined");
        let [first, second] = entry.chain() else {
            panic!("two certificates")
        };
        assert_eq!(first, second);
    }

    #[test]
    fn encodings_are_told_by_contents_not_label() {
        let key = rcgen::KeyPair::generate().expect("key");
        let mislabelled = key.serialize_pem().replace("PRIVATE KEY", "RSA PRIVATE KEY");
        let text = pem(&["CERTIFICATE"]) + &mislabelled;
        let entry = Entry::from_blocks(blocks(text.as_bytes())).expect("certificate and key");
        let read = entry.private_key().expect("PKCS#8");
        assert!(matches!(*read, PrivateKeyDer::Pkcs8(_)));
        assert_eq!(read.secret_der(), key.serialize_der());
    }

    #[test]
    fn unreadable_keys_keep_the_phrase_that_tools_look_for() {
        let encrypted = entry(&["CERTIFICATE", "ENCRYPTED PRIVATE KEY"]).expect("both there");
        let noise = entry(&["CERTIFICATE", "PRIVATE KEY"]).expect("both there");
        assert_eq!(encrypted.private_key(), Err(EntryError::EncryptedKey));
        assert_eq!(noise.private_key(), Err(EntryError::UnknownKeyEncoding));
        for error in [EntryError::EncryptedKey, EntryError::UnknownKeyEncoding] {
            assert!(
                error.to_string().starts_with("tls: failed to parse private key"),
                "{error}"
            );
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let entry = entry(&["CERTIFICATE", "PRIVATE KEY"]).expect("both there");
        assert_eq!(format!("{entry:?}"), "Entry { certificates: 1, .. }");
    }

    proptest! {
        #[test]
        fn no_contents_panic(contents: Vec<u8>, labels in prop::collection::vec("(EC )?(CERTIFICATE|PRIVATE KEY)", 0..5)) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let mut text = pem(&labels).into_bytes();
            text.extend(contents);
            if let Ok(entry) = Entry::from_blocks(blocks(&text)) {
                let _ = entry.private_key();
            }
        }
    }
}
