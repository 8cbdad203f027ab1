//! From the blocks of one or more files to a chain and its key.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::encryption::{Budget, EncryptionError, Password, ROUNDS, decrypt_private_key};
use crate::pem::Block;

/// A certificate chain and the private key that goes with its leaf, as found: nobody has
/// looked into the certificates yet, nor whether the key matches.
///
/// The key's bytes are wiped on drop.
pub struct Entry {
    chain: Vec<CertificateDer<'static>>,
    key: Block,
    is_leaf_first: bool,
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
    /// The key is encrypted in the old way, with a header. That is a single round of MD5.
    #[error(
        "tls: failed to parse private key; it is encrypted in the old way (Proc-Type: 4,ENCRYPTED): convert it, \
         for example with openssl pkcs8 -topk8"
    )]
    OldEncryption,
    /// The key is encrypted, and no password was given.
    #[error(
        "tls: failed to parse private key; it is encrypted: give its password with --storepass or \
         --storepass-file"
    )]
    PasswordMissing,
    /// The key is encrypted with another password.
    #[error("tls: failed to parse private key; it is encrypted, and not with the password of --storepass")]
    WrongPassword,
    /// The key is encrypted in a way that can't be undone here.
    #[error("tls: failed to parse private key; it is encrypted, but {0}")]
    Encryption(#[source] EncryptionError),
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
            is_leaf_first: true,
        })
    }

    /// The same for formats that do not promise that the leaf comes first.
    pub fn in_any_order(blocks: Vec<Block>) -> Result<Self, EntryError> {
        Ok(Self {
            is_leaf_first: false,
            ..Self::from_blocks(blocks)?
        })
    }

    /// Puts the first certificate that `is_leaf` likes in front, if any order will do and the
    /// one in front is not liked.
    pub fn find_leaf(&mut self, is_leaf: impl Fn(&CertificateDer<'static>) -> bool) {
        if self.is_leaf_first {
            return;
        }
        if let Some(position) = self.chain.iter().position(is_leaf) {
            let leaf = self.chain.remove(position);
            self.chain.insert(0, leaf);
        }
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
    /// which, not the label: tools have mixed these up for as long as they exist. An empty
    /// password counts as none.
    ///
    /// Apart from [`Entry::from_blocks`], because a leaf that does not parse is reported
    /// before a key that does not.
    pub fn private_key(&self, password: &str) -> Result<Zeroizing<PrivateKeyDer<'static>>, EntryError> {
        let decrypted;
        let contents = if self.key.is_encrypted_pkcs8() {
            decrypted = decrypt(self.key.contents(), password)?;
            &decrypted
        } else if self.key.is_encrypted() {
            return Err(EntryError::OldEncryption);
        } else {
            self.key.contents()
        };
        // Dropping a `PrivateKeyDer` does not wipe it, and converting a vector that turns out
        // to be no key drops the vector: so look first, then copy into a wiped place.
        let key = PrivateKeyDer::try_from(contents).map_err(|_| EntryError::UnknownKeyEncoding)?;
        Ok(Zeroizing::new(key.clone_key()))
    }
}

fn decrypt(contents: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, EntryError> {
    if password.is_empty() {
        return Err(EntryError::PasswordMissing);
    }
    let password = Password::text_only(password);
    decrypt_private_key(contents, &password, &mut Budget::new(ROUNDS)).map_err(|error| match error {
        EncryptionError::WrongPassword => EntryError::WrongPassword,
        error => EntryError::Encryption(error),
    })
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
        let read = entry.private_key("").expect("PKCS#8");
        assert!(matches!(*read, PrivateKeyDer::Pkcs8(_)));
        assert_eq!(read.secret_der(), key.serialize_der());
    }

    #[test]
    fn unreadable_keys_keep_the_phrase_that_tools_look_for() {
        let header = pem(&["CERTIFICATE", "RSA PRIVATE KEY"]).replace(
            "RSA PRIVATE KEY-----\nBBBB",
            "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nBBBB",
        );
        let old = Entry::from_blocks(blocks(header.as_bytes())).expect("both there");
        let encrypted = entry(&["CERTIFICATE", "ENCRYPTED PRIVATE KEY"]).expect("both there");
        let noise = entry(&["CERTIFICATE", "PRIVATE KEY"]).expect("both there");
        for (entry, password, expected) in [
            (&old, "secret", EntryError::OldEncryption),
            (&encrypted, "", EntryError::PasswordMissing),
            (
                &encrypted,
                "secret",
                EntryError::Encryption(EncryptionError::Malformed),
            ),
            (&noise, "", EntryError::UnknownKeyEncoding),
        ] {
            let error = entry.private_key(password).expect_err("no key");
            assert_eq!(error, expected);
            assert!(
                error.to_string().starts_with("tls: failed to parse private key"),
                "{error}"
            );
        }
    }

    #[test]
    fn leaf_is_looked_for_where_any_order_will_do() {
        let found = || blocks(pem(&["CERTIFICATE", "CERTIFICATE", "PRIVATE KEY", "CERTIFICATE"]).as_bytes());
        let after = |mut entry: Entry, leaf: u8| {
            entry.find_leaf(|certificate| certificate.first() == Some(&leaf));
            entry
                .chain()
                .iter()
                .map(|certificate| certificate[0])
                .collect::<Vec<_>>()
        };
        let ordered = || Entry::from_blocks(found()).expect("both there");
        let unordered = || Entry::in_any_order(found()).expect("both there");
        assert_eq!(after(ordered(), 12), [0, 4, 12]);
        assert_eq!(after(unordered(), 12), [12, 0, 4]);
        assert_eq!(after(unordered(), 99), [0, 4, 12]);
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
                let _ = entry.private_key("");
            }
        }
    }
}
