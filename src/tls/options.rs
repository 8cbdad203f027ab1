//! Versions, cipher suites and key exchange groups.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SignatureScheme, SupportedCipherSuite};

/// TLS 1.2 with ECDHE and AEAD only, ECDSA before RSA and AES-128 before AES-256, then the
/// three suites of TLS 1.3: the order of Ghostunnel 1.11.1, in the client's hello and for
/// the server's choice alike.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// The post-quantum hybrid first; rustls adds a key share for plain X25519 beside it.
const KEY_EXCHANGE_GROUPS: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519MLKEM768,
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
];

/// What a peer may sign a handshake with, in the order of Ghostunnel 1.11.1: peers with several
/// keys choose by it. PKCS#1 is for TLS 1.2 only.
pub(super) const SIGNATURE_SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
];

/// The one cryptography provider of the process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: CIPHER_SUITES.to_vec(),
            kx_groups: KEY_EXCHANGE_GROUPS.to_vec(),
            ..rustls::crypto::aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}
