//! The tunnel's own certificate chain and signing key, known to belong together.

use std::fmt;
use std::sync::Arc;

use ghostunnel_keystore::{Entry, EntryError};
use ghostunnel_pki::{Certificate, ParseError, Time};
use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The tunnel's own certificate chain and signing key. The key is known to be the leaf's.
pub struct OwnIdentity {
    certified: Arc<CertifiedKey>,
    subject: String,
    serial: String,
    not_after: Time,
    is_remote: bool,
}

/// Why a chain and a key do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// A certificate or a key is missing, or the key is encoded in an unknown way.
    #[error("{0}")]
    Entry(EntryError),
    /// The leaf is not a certificate.
    #[error("{0}")]
    Leaf(ParseError),
    /// The key is well encoded, but not one to sign with here.
    #[error(
        "tls: failed to parse private key; it must be RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, \
         or Ed25519"
    )]
    UnsupportedKey,
    /// The leaf's public key is of a kind that cannot sign in TLS.
    #[error("tls: unknown public key algorithm")]
    UnknownPublicKey,
    /// Certificate and key are of different kinds.
    #[error(
        "tls: private key type does not match public key type; the key must be that of the first certificate"
    )]
    OtherKeyType,
    /// Certificate and key are of one kind, but not a pair.
    #[error("tls: private key does not match public key; the key must be that of the first certificate")]
    OtherKey,
}

impl OwnIdentity {
    /// The checks and their order are those of Ghostunnel 1.11.1: leaf, key, kind, value.
    /// Validity, usages and the rest of the chain are not judged: that is up to the peer.
    ///
    /// Where the format has no order, the leaf is the certificate that goes with the key. An
    /// empty password is none.
    pub(super) fn new(mut entry: Entry, password: &str) -> Result<(Self, Certificate), KeyPairError> {
        let key = entry.private_key(password).map_err(KeyPairError::Entry);
        let key = key.and_then(|key| any_supported_type(&key).map_err(|_| KeyPairError::UnsupportedKey));
        if let Ok(key) = &key {
            entry.find_leaf(|certificate| {
                let leaf = Certificate::parse(certificate);
                leaf.is_ok_and(|leaf| require_match(leaf.subject_public_key_info(), &**key).is_ok())
            });
        }
        let leaf = entry
            .chain()
            .first()
            .expect("an entry has at least one certificate");
        let leaf = Certificate::parse(leaf).map_err(KeyPairError::Leaf)?;
        let key = key?;
        Ok((Self::of(&leaf, entry.into_chain(), key)?, leaf))
    }

    /// From a chain, leaf first, and a key as they are sent and stored.
    pub(super) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<(Self, Certificate), KeyPairError> {
        let leaf = chain.first().map_or(&[][..], |leaf| leaf);
        let leaf = Certificate::parse(leaf).map_err(KeyPairError::Leaf)?;
        let key = any_supported_type(key).map_err(|_| KeyPairError::UnsupportedKey)?;
        Ok((Self::of(&leaf, chain, key)?, leaf))
    }

    /// With a key that is elsewhere (an HSM), so that a signature may take long or never come:
    /// the handshakes that need one are kept off the workers. The chain begins with the leaf.
    pub fn remote(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, KeyPairError> {
        let leaf = chain.first().map_or(&[][..], |leaf| leaf);
        let leaf = Certificate::parse(leaf).map_err(KeyPairError::Leaf)?;
        let local = Self::of(&leaf, chain, key)?;
        Ok(Self {
            is_remote: true,
            ..local
        })
    }

    fn of(
        leaf: &Certificate,
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, KeyPairError> {
        require_match(leaf.subject_public_key_info(), &*key)?;
        Ok(Self {
            // `CertifiedKey::from_der` refuses X.509 v1, which `openssl x509 -req` makes.
            certified: Arc::new(CertifiedKey::new(chain, key)),
            subject: leaf.subject().to_string(),
            serial: hexadecimal(leaf.serial()),
            not_after: leaf.validity().1,
            is_remote: false,
        })
    }
}

impl OwnIdentity {
    /// The certificates as they are sent, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Signs for the leaf.
    pub fn signing_key(&self) -> &Arc<dyn SigningKey> {
        &self.certified.key
    }

    /// The leaf's subject, as shown to operators.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The leaf's serial number in hexadecimal, as OpenSSL shows it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The last second at which the leaf is valid.
    pub fn not_after(&self) -> Time {
        self.not_after
    }

    /// Whether the key is elsewhere, so that whoever waits for a signature may wait long.
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Chain and key in the form that rustls takes.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnIdentity")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// A number that is encoded big endian, perhaps with a zero in front that keeps it positive.
fn hexadecimal(bytes: &[u8]) -> String {
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether the key is the private half of the leaf's public key. Kind before value.
fn require_match(leaf_spki: &[u8], key: &dyn SigningKey) -> Result<(), KeyPairError> {
    let leaf_kind = public_key_kind(leaf_spki).ok_or(KeyPairError::UnknownPublicKey)?;
    if leaf_kind != key.algorithm() {
        return Err(KeyPairError::OtherKeyType);
    }
    // Both are DER, in which a key has one encoding only.
    match key.public_key() {
        Some(spki) if spki.as_ref() == leaf_spki => Ok(()),
        _ => Err(KeyPairError::OtherKey),
    }
}

/// Which signatures go with a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), by its
/// algorithm. `None`: none that TLS has here.
fn public_key_kind(spki: &[u8]) -> Option<SignatureAlgorithm> {
    // The OBJECT IDENTIFIERs, with tag and length: rsaEncryption, id-ecPublicKey (RFC 3279,
    // sections 2.3.1 and 2.3.5) and id-Ed25519 (RFC 8410, section 3).
    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
    let algorithm = sequence_contents(sequence_contents(spki)?)?;
    let kinds = [
        (RSA, SignatureAlgorithm::RSA),
        (EC, SignatureAlgorithm::ECDSA),
        (ED25519, SignatureAlgorithm::ED25519),
    ];
    kinds
        .into_iter()
        .find(|(identifier, _)| algorithm.starts_with(identifier))
        .map(|(_, kind)| kind)
}

/// What follows the tag and length of a SEQUENCE, up to the end of the input. The length is
/// of no interest: the leaf has been parsed.
fn sequence_contents(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    let [SEQUENCE, length, rest @ ..] = der else {
        return None;
    };
    match length.checked_sub(0x80) {
        None => Some(rest),
        Some(length_of_length) => rest.get(usize::from(length_of_length)..),
    }
}

#[cfg(test)]
mod tests {
    use ghostunnel_keystore::blocks;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm as Algorithm};

    use super::*;

    fn key(algorithm: &'static Algorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).expect("key")
    }

    fn certificate(key: &KeyPair) -> String {
        let parameters = CertificateParams::new(vec!["server.test".to_owned()]).expect("a DNS name");
        parameters.self_signed(key).expect("certificate").pem()
    }

    fn identity(text: &str) -> Result<OwnIdentity, KeyPairError> {
        let entry = Entry::from_blocks(blocks(text.as_bytes())).expect("certificate and key");
        OwnIdentity::new(entry, "").map(|(identity, _)| identity)
    }

    #[test]
    fn every_kind_of_key_that_can_sign_is_taken() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_RSA_SHA256, SignatureAlgorithm::RSA),
            (&rcgen::PKCS_ECDSA_P256_SHA256, SignatureAlgorithm::ECDSA),
            (&rcgen::PKCS_ECDSA_P384_SHA384, SignatureAlgorithm::ECDSA),
            (&rcgen::PKCS_ECDSA_P521_SHA512, SignatureAlgorithm::ECDSA),
            (&rcgen::PKCS_ED25519, SignatureAlgorithm::ED25519),
        ] {
            let key = key(algorithm);
            let identity = identity(&(certificate(&key) + &key.serialize_pem())).expect("a pair");
            assert_eq!(identity.signing_key().algorithm(), expected, "{algorithm:?}");
            assert!(identity.certified_key().keys_match().is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn older_encodings_of_keys_are_taken() {
        for (algorithm, label) in [
            (&rcgen::PKCS_RSA_SHA256, "RSA PRIVATE KEY"),
            (&rcgen::PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY"),
        ] {
            let key = key(algorithm);
            let base64 = encode_base64(inner_key(&key.serialize_der()));
            let text = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
            identity(&(certificate(&key) + &text)).expect(label);
        }
    }

    /// PKCS#1 and SEC1 structures are what PKCS#8 wraps (RFC 5958, section 2): the last
    /// SEQUENCE that reaches to the end.
    fn inner_key(pkcs8: &[u8]) -> &[u8] {
        let reaches_end = |der: &[u8]| match *der {
            [0x30, length @ ..=0x7f, ref rest @ ..] => usize::from(length) == rest.len(),
            [0x30, 0x81, length, ref rest @ ..] => usize::from(length) == rest.len(),
            [0x30, 0x82, high, low, ref rest @ ..] => {
                usize::from(u16::from_be_bytes([high, low])) == rest.len()
            }
            _ => false,
        };
        (1..pkcs8.len())
            .map(|start| &pkcs8[start..])
            .find(|der| reaches_end(der))
            .expect("a key inside")
    }

    fn encode_base64(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
            .collect();
        let character = |bits: &[u8]| {
            let sextet = bits.iter().fold(0, |sextet, bit| sextet << 1 | usize::from(*bit));
            char::from(ALPHABET[sextet << (6 - bits.len())])
        };
        let padding = (3 - bytes.len() % 3) % 3;
        bits.chunks(6)
            .map(character)
            .chain(std::iter::repeat_n('=', padding))
            .collect()
    }

    #[test]
    fn serial_numbers_look_as_openssl_shows_them() {
        for (bytes, text) in [
            (&[0x0a, 0x1b][..], "0A1B"),
            (&[0, 0x80], "80"),
            (&[0], "00"),
            (&[], ""),
        ] {
            assert_eq!(hexadecimal(bytes), text);
        }
    }

    #[test]
    fn kind_is_judged_before_value() {
        let other_rsa = key(&rcgen::PKCS_RSA_SHA256);
        let [rsa, p256, p384] = [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ]
        .map(key);
        for (leaf, key, expected) in [
            (
                &rsa,
                &p256,
                "tls: private key type does not match public key type",
            ),
            (
                &p256,
                &rsa,
                "tls: private key type does not match public key type",
            ),
            // One kind, two curves.
            (&p256, &p384, "tls: private key does not match public key"),
            (&rsa, &other_rsa, "tls: private key does not match public key"),
        ] {
            let error = identity(&(certificate(leaf) + &key.serialize_pem())).expect_err("no pair");
            assert!(error.to_string().starts_with(&format!("{expected}; ")), "{error}");
        }
    }

    #[test]
    fn public_keys_that_cannot_sign_have_no_kind() {
        // X25519 (RFC 8410, section 3), and what is no public key at all.
        for spki in [
            &[0x30, 7, 0x30, 5, 0x06, 3, 0x2b, 0x65, 0x6e][..],
            &[0x30, 0x82],
            &[0x30],
            &[],
        ] {
            assert_eq!(public_key_kind(spki), None, "{spki:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let key = key(&rcgen::PKCS_ED25519);
        let identity = identity(&(certificate(&key) + &key.serialize_pem())).expect("a pair");
        assert!(format!("{identity:?}").ends_with(", .. }"), "{identity:?}");
    }
}
