//! Chains, and what a reload keeps. Tokens are in `tests/blackbox/pkcs11.rs`.

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;

use super::*;

fn certificate(key: &KeyPair) -> String {
    let parameters = CertificateParams::new(vec!["server.test".to_owned()]).expect("a DNS name");
    parameters.self_signed(key).expect("certificate").pem()
}

/// A file with this text, and settings that name it.
fn settings(text: &str) -> (TempDir, Pkcs11) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let certificate = directory.path().join("chain.p12");
    std::fs::write(&certificate, text).expect("write");
    let settings = Pkcs11 {
        certificate,
        certificate_role: Role::Certificate,
        module: "/nonexistent/module.so".into(),
        token_label: String::new(),
        pin: String::new().into(),
    };
    (directory, settings)
}

fn read(text: &str) -> Result<Chain, String> {
    let (directory, settings) = settings(text);
    let chain = Chain::read(&settings, &mut Reading::default());
    chain.map_err(|error| {
        let path = directory.path().display().to_string();
        error.to_string().replace(&path, "")
    })
}

#[test]
fn chains_are_pem_whatever_the_file_is_called_and_other_blocks_are_passed_over() {
    let (leaf, issuer) = (
        KeyPair::generate().expect("key"),
        KeyPair::generate().expect("key"),
    );
    let text = leaf.serialize_pem() + &certificate(&leaf) + "noise\n" + &certificate(&issuer);
    let chain = read(&text).expect("a chain");
    assert_eq!(chain.certificates.len(), 2);
    assert_eq!(chain.leaf.der(), chain.certificates[0].as_ref());
}

#[test]
fn files_without_certificates_or_with_broken_ones_are_refused() {
    let key = KeyPair::generate().expect("key");
    const NONE: &str =
        "failed to load certificate from \"/chain.p12\": no certificates found in file '/chain.p12'";
    for text in ["", "noise", &key.serialize_pem()] {
        let error = read(text).err().expect("no certificate");
        assert!(error.starts_with(NONE), "{error}");
    }
    let broken = certificate(&key) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = read(&broken).err().expect("a broken certificate");
    assert!(
        error.starts_with("failed to load certificate from \"/chain.p12\": "),
        "{error}"
    );
}

#[test]
fn reload_keeps_the_key_of_the_same_public_key_and_refuses_another() {
    let (key, other) = (
        KeyPair::generate().expect("key"),
        KeyPair::generate().expect("key"),
    );
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signing_key = any_supported_type(&der).expect("a key");
    let chain = read(&certificate(&key)).expect("a chain");
    let in_force = OwnIdentity::remote(chain.certificates, Arc::clone(&signing_key)).expect("a pair");

    // The module does not exist, so nothing can have been asked of it.
    let (_directory, same) = settings(&certificate(&key));
    let chain = Chain::read(&same, &mut Reading::default()).expect("a chain");
    let (renewed, _) = identity(&same, chain, Some(&in_force)).expect("the same key");
    assert!(Arc::ptr_eq(renewed.signing_key(), &signing_key));
    assert!(renewed.is_remote());

    let (_directory, changed) = settings(&certificate(&other));
    let chain = Chain::read(&changed, &mut Reading::default()).expect("a chain");
    let error = identity(&changed, chain, Some(&in_force)).expect_err("another key");
    assert!(
        error.to_string().starts_with(&format!(
            "pkcs11: refusing to reload certificate {:?}: its public key does not match the cached HSM private key",
            changed.certificate
        )),
        "{error}"
    );
}
