//! Which signatures prove something. The chains in `fixtures` were made by `make.sh` there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ghostunnel_pki::{Certificate, PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// The empty string for a chain that holds, else the hint at what is wrong with its root.
fn verdict(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
        .with_extension("pem");
    let pem = fs::read(&path).expect("a fixture");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .map(|der| Certificate::parse(&der.expect("PEM")).expect("a certificate"))
        .collect();
    let [leaf, root] = chain.as_slice() else {
        panic!("{name} holds a leaf and its root")
    };
    let request = PathRequest {
        presented: std::slice::from_ref(leaf),
        anchors: &TrustAnchors::new(vec![root.clone()]),
        time: UnixTime::since_unix_epoch(Duration::from_secs(1_893_456_000)), // 2030-01-01
        usage: Usage::ClientAuth,
        server_name: None,
    };
    let Err(error) = validate(&request) else {
        return String::new();
    };
    let text = error.to_string();
    let hint = text
        .strip_prefix("x509: certificate signed by unknown authority (possibly because of \"")
        .and_then(|rest| {
            rest.strip_suffix("\" while trying to verify candidate authority certificate \"root\")")
        });
    hint.unwrap_or(&text).to_owned()
}

#[test]
fn only_sound_signatures_count() {
    let unimplemented = "x509: cannot verify signature: algorithm unimplemented";
    let mut sound: Vec<String> = ["rsa-2048-pkcs1", "rsa-2048-pss", "p256", "p384", "p521"]
        .into_iter()
        .flat_map(|kind| ["sha256", "sha384", "sha512"].map(|hash| format!("{kind}-{hash}")))
        .collect();
    sound.extend(["rsa-1024-pkcs1-sha256", "rsa-1024-pkcs1-sha512"].map(str::to_owned));
    for name in sound {
        assert_eq!(verdict(&name), "", "{name}");
    }
    for (name, expected) in [
        (
            "rsa-2048-pkcs1-sha1",
            "x509: cannot verify signature: insecure algorithm SHA1-RSA",
        ),
        (
            "p256-sha1",
            "x509: cannot verify signature: insecure algorithm ECDSA-SHA1",
        ),
        ("rsa-2048-pkcs1-sha224", unimplemented),
        ("rsa-2048-pss-sha256-salt-20", unimplemented),
        ("rsa-pss-key", unimplemented),
        ("p224-sha256", unimplemented),
        (
            "rsa-768-pkcs1-sha256",
            "crypto/rsa: 768-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)",
        ),
        // A gap: the cryptography library has no such combination.
        ("rsa-1024-pkcs1-sha384", "crypto/rsa: verification error"),
    ] {
        assert_eq!(verdict(name), expected, "{name}");
    }
}
