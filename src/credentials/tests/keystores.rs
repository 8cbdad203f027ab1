//! Keystores by other programs, each read or refused as it should be. `README.md` beside them
//! says how they were made.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::*;

const PASSWORD: &str = "open-sesame";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keystores")
}

fn selection(name: &str, password: Password) -> Selection {
    Selection {
        identity: Identity::Keystore {
            path: folder().join(name),
            password,
        },
        trust: Trust::Bundle(folder().join("ca.pem")),
    }
}

fn given(password: &str) -> Password {
    Password::Given(Secret::from(password.to_owned()))
}

/// The leaf's subject and the length of the chain, or the error without the folder's name.
fn load(name: &str, password: &str) -> Result<(String, usize), String> {
    match Store::load(&selection(name, given(password))) {
        Ok(store) => {
            let current = store.current();
            let identity = current.identity().expect("an identity");
            Ok((identity.subject().to_owned(), identity.chain().len()))
        }
        Err(error) => Err(error.to_string().replace(&format!("{}/", folder().display()), "")),
    }
}

/// Every file, the password it is opened with, and what comes of it: the number of
/// certificates that are sent, or the error. `@` is the file's name.
const FILES: &[(&str, &str, Result<usize, &str>)] = &[
    // PEM.
    ("pem-chain-then-key.pem", "", Ok(2)),
    ("pem-chain-then-key.pem", "not asked for", Ok(2)),
    ("pem-key-first.pem", "", Ok(2)),
    ("pem-crlf.pem", "", Ok(2)),
    ("pem-words-between.pem", "", Ok(2)),
    ("pem-sec1.pem", "", Ok(2)),
    ("pem-sec1-parameters.pem", "", Ok(2)),
    ("pem-pkcs1.pem", "", Ok(2)),
    ("pem-without-extension", "", Ok(2)),
    ("pem-words-without-extension", "", Err(UNKNOWN)),
    ("pem-issuer-first.pem", "", Err(OTHER_KEY)),
    ("pem-other-key.pem", "", Err(OTHER_KEY)),
    (
        "pem-no-key.pem",
        "",
        Err(
            "parsing X509 key pair: tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input \
             after skipping PEM blocks of the following types: [CERTIFICATE CERTIFICATE] (in @)",
        ),
    ),
    (
        "pem-no-certificate.pem",
        "",
        Err(
            "parsing X509 key pair: tls: failed to find certificate PEM data in certificate input, but did find a \
             private key; PEM inputs may have been switched (in @)",
        ),
    ),
    ("pem-half.pem", "", Err(NO_KEY)),
    (
        "pem-pkcs7.p7b",
        "",
        Err(
            "parsing X509 key pair: tls: failed to find \"CERTIFICATE\" PEM block in certificate input after \
             skipping PEM blocks of the following types: [PKCS7] (in @)",
        ),
    ),
    ("pem-encrypted-aes128.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-aes192.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-aes256.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-sha1.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-sha384.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-sha512.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-des3.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-pbe-des3.pem", PASSWORD, Ok(2)),
    ("pem-encrypted-iterations.pem", PASSWORD, Ok(2)),
    (
        "pem-encrypted-aes256.pem",
        "",
        Err(
            "parsing X509 key pair: tls: failed to parse private key; it is encrypted: give its password with \
             --storepass or --storepass-file (in @)",
        ),
    ),
    ("pem-encrypted-aes256.pem", "wrong", Err(WRONG_FOR_KEY)),
    ("pem-encrypted-pbe-des3.pem", "wrong", Err(WRONG_FOR_KEY)),
    (
        "pem-encrypted-scrypt.pem",
        PASSWORD,
        Err(
            "parsing X509 key pair: tls: failed to parse private key; it is encrypted, but algorithm scrypt \
             (1.3.6.1.4.1.11591.4.11) is not supported (in @)",
        ),
    ),
    (
        "pem-encrypted-md5.pem",
        PASSWORD,
        Err(
            "parsing X509 key pair: tls: failed to parse private key; it is encrypted, but algorithm PBE-MD5-DES \
             (1.2.840.113549.1.5.3) is not supported (in @)",
        ),
    ),
    (
        "pem-encrypted-old-way.pem",
        PASSWORD,
        Err(
            "parsing X509 key pair: tls: failed to parse private key; it is encrypted in the old way (Proc-Type: \
             4,ENCRYPTED): convert it, for example with openssl pkcs8 -topk8 (in @)",
        ),
    ),
    // PKCS#12.
    ("openssl-3.p12", PASSWORD, Ok(2)),
    ("openssl-1.1.p12", PASSWORD, Ok(2)),
    ("openssl-1.1-descert.p12", PASSWORD, Ok(2)),
    ("openssl-rc2-128.p12", PASSWORD, Ok(2)),
    ("openssl-rc2-40-key.p12", PASSWORD, Ok(2)),
    ("openssl-2des.p12", PASSWORD, Ok(2)),
    ("openssl-aes128.p12", PASSWORD, Ok(2)),
    ("openssl-aes192-sha384.p12", PASSWORD, Ok(2)),
    ("openssl-sha512.p12", PASSWORD, Ok(2)),
    ("openssl-mac-sha1.p12", PASSWORD, Ok(2)),
    ("openssl-no-encryption.p12", PASSWORD, Ok(2)),
    ("openssl-no-iterations.p12", PASSWORD, Ok(2)),
    ("openssl-empty-password.p12", "", Ok(2)),
    ("openssl-empty-password-legacy.p12", "", Ok(1)),
    ("openssl-nothing-protected.p12", "", Ok(1)),
    ("openssl-rsa.pfx", PASSWORD, Ok(2)),
    ("openssl-umlauts.p12", "pässwörd", Ok(1)),
    ("openssl-umlauts-legacy.p12", "pässwörd", Ok(1)),
    ("openssl-without-extension", PASSWORD, Ok(2)),
    ("openssl-3.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("openssl-3.p12", "", Err(WRONG_FOR_PKCS12)),
    ("openssl-3.p12", "open-sesame ", Err(WRONG_FOR_PKCS12)),
    ("openssl-1.1.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("openssl-no-encryption.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("openssl-empty-password.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    (
        "openssl-3.p12",
        "\u{1f511}",
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: the password has a \
             character beyond U+FFFF, which this format can't hold; --keystore must name a readable PEM, PKCS#12, \
             JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    ("openssl-no-mac.p12", PASSWORD, Err(NO_MAC)),
    ("openssl-no-mac.p12", "", Err(WRONG_FOR_PKCS12)),
    ("openssl-nothing-protected.p12", PASSWORD, Err(NO_MAC)),
    (
        "openssl-mac-md5.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: cannot verify its \
             MAC: algorithm MD5 (1.2.840.113549.2.5) is not supported; --keystore must name a readable PEM, PKCS#12, \
             JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    (
        "openssl-rc4.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: cannot decrypt its \
             certificates: algorithm 128-bit RC4 (1.2.840.113549.1.12.1.1) is not supported; --keystore must name a \
             readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    ("openssl-no-key.p12", PASSWORD, Err(NO_KEY_IN_PKCS12)),
    (
        "openssl-no-certificate.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: certificate \
             missing; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and \
             private key",
        ),
    ),
    ("openssl-half.p12", PASSWORD, Err(TRUNCATED)),
    ("openssl-named.pem", PASSWORD, Err(NOTHING)),
    ("pem-named.p12", PASSWORD, Err(NOT_ASN1)),
    ("certtool-aes-128.p12", PASSWORD, Ok(2)),
    ("certtool-aes-256.p12", PASSWORD, Ok(2)),
    ("certtool-3des-pkcs12.p12", PASSWORD, Ok(2)),
    ("certtool-rc2-40.p12", PASSWORD, Ok(2)),
    ("certtool-aes-256.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("nss.p12", PASSWORD, Ok(2)),
    ("nss-legacy.p12", PASSWORD, Ok(2)),
    ("nss.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("python.p12", PASSWORD, Ok(2)),
    ("made-pbmac1-sha1.p12", PASSWORD, Ok(2)),
    ("made-pbmac1-sha256.p12", PASSWORD, Ok(2)),
    ("made-pbmac1-sha512.p12", PASSWORD, Ok(2)),
    ("made-pbmac1-sha256.p12", "wrong", Err(WRONG_FOR_PKCS12)),
    ("made-issuer-first.p12", PASSWORD, Ok(2)),
    ("made-short", "", Ok(1)),
    (
        "made-costly.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: cannot verify its \
             MAC: the file asks for more iterations of hashing than the 10000000 that are allowed; --keystore must \
             name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    ("keytool.p12", PASSWORD, Ok(2)),
    ("keytool-legacy.p12", PASSWORD, Ok(2)),
    ("keytool-trusted.p12", PASSWORD, Ok(3)),
    ("keytool-trusted-only.p12", PASSWORD, Err(NO_KEY_IN_PKCS12)),
    (
        "keytool-two-keys.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: expected exactly \
             one key bag; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and \
             private key",
        ),
    ),
    // Java's own formats.
    ("keytool.jceks", PASSWORD, Ok(2)),
    ("made-equal-salts.jceks", PASSWORD, Ok(1)),
    ("keytool.jks", PASSWORD, Ok(2)),
    ("keytool-without-extension", PASSWORD, Ok(2)),
    ("keytool-trusted.jceks", PASSWORD, Ok(2)),
    ("keytool-trusted.jks", PASSWORD, Ok(2)),
    ("keytool-two-keys.jks", PASSWORD, Ok(1)),
    ("keytool.jceks", "wrong", Err(TAMPERED)),
    ("keytool.jks", "wrong", Err(TAMPERED)),
    ("keytool-altered.jks", PASSWORD, Err(TAMPERED)),
    (
        "keytool.jks",
        "",
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: encoding integrity \
             password: password is unsupported by JCEKS format: empty passwords are not interoperable; --storepass \
             or --storepass-file must give the password of this file",
        ),
    ),
    (
        "keytool-other-key-password.jks",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: unable to recover private \
             key 'server': decryption failed with the given password; --storepass or --storepass-file must give the \
             password of this file",
        ),
    ),
    ("keytool-trusted-only.jks", PASSWORD, Err(NO_KEY)),
    (
        "keytool-secret.jceks",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: unsupported JCEKS data: \
             file contains a secret key entry; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with \
             certificate chain and private key",
        ),
    ),
    (
        "keytool-half.jceks",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: invalid JCEKS data: failed \
             to read entry 0; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain \
             and private key",
        ),
    ),
    // What never holds a key.
    ("der-certificate.der", "", Err(NO_KEY)),
    (
        "der-two-certificates.der",
        "",
        Err(
            "parsing X509 key pair: tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input \
             after skipping PEM blocks of the following types: [CERTIFICATE CERTIFICATE] (in @)",
        ),
    ),
    (
        "der-pkcs7.der",
        "",
        Err(
            "parsing X509 key pair: tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input \
             after skipping PEM blocks of the following types: [CERTIFICATE CERTIFICATE] (in @)",
        ),
    ),
    ("der-key.der", "", Err(NOT_DER)),
    // What is nothing at all.
    ("noise", PASSWORD, Err(UNKNOWN)),
    ("noise.pem", PASSWORD, Err(NOTHING)),
    ("noise.p12", PASSWORD, Err(NOT_ASN1)),
    (
        "noise.jks",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: invalid JCEKS data: \
             unexpected magic: 6e6f6973 != (cececece || feedfeed); --keystore must name a readable PEM, PKCS#12, \
             JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    ("noise.der", PASSWORD, Err(NOT_DER)),
    (
        "empty",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to detect format for '@': unable to read file: EOF; --keystore \
             must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and private key",
        ),
    ),
    ("empty.pem", PASSWORD, Err(NOTHING)),
    (
        "empty.p12",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: error reading P12 \
             data: asn1: syntax error: sequence truncated; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS \
             file with certificate chain and private key",
        ),
    ),
    (
        "empty.jks",
        PASSWORD,
        Err(
            "reading certificate file \"@\": failed to parse '@': unable to parse keystore: invalid JCEKS data: reading \
             magic: EOF; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and \
             private key",
        ),
    ),
    ("empty.der", PASSWORD, Err(NOTHING)),
];

const UNKNOWN: &str = "reading certificate file \"@\": failed to detect format for '@': unable to guess file format; \
                       name the file by its format, for example .pem or .p12";
const OTHER_KEY: &str = "parsing X509 key pair: tls: private key does not match public key; the key must be that of \
                         the first certificate (in @)";
const NO_KEY: &str = "parsing X509 key pair: tls: found a certificate rather than a key in the PEM for the private key; \
                      the private key must be there too (in @)";
const WRONG_FOR_KEY: &str = "parsing X509 key pair: tls: failed to parse private key; it is encrypted, and not with \
                             the password of --storepass (in @)";
const WRONG_FOR_PKCS12: &str = "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: \
                                decryption password incorrect; --storepass or --storepass-file must give the \
                                password of this file";
const NO_MAC: &str = "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: no MAC in \
                      data; without it nobody can tell whether the file was altered: if there is no password, give \
                      none, or make the file anew";
const NO_KEY_IN_PKCS12: &str = "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: \
                                private key missing; --keystore must name a readable PEM, PKCS#12, JCEKS or JKS \
                                file with certificate chain and private key";
const TRUNCATED: &str = "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: error \
                         reading P12 data: asn1: syntax error: data truncated; --keystore must name a readable PEM, \
                         PKCS#12, JCEKS or JKS file with certificate chain and private key";
const NOT_ASN1: &str = "reading certificate file \"@\": failed to parse '@': unable to read keystore: pkcs12: error \
                        reading P12 data: asn1: structure error: tags don't match; --keystore must name a readable \
                        PEM, PKCS#12, JCEKS or JKS file with certificate chain and private key";
const NOTHING: &str = "reading certificate file \"@\": error reading file '@', no certificates found; --keystore must \
                       name a readable PEM, PKCS#12, JCEKS or JKS file with certificate chain and private key";
const TAMPERED: &str = "reading certificate file \"@\": failed to parse '@': unable to parse keystore: integrity \
                        protection violation: keystore was tampered with or password was incorrect; --storepass or \
                        --storepass-file must give the password of this file";
const NOT_DER: &str = "reading certificate file \"@\": failed to parse '@': unable to parse DER data as X.509 \
                       (malformed certificate) or PKCS7 (malformed data); --keystore must name a readable PEM, \
                       PKCS#12, JCEKS or JKS file with certificate chain and private key";

#[test]
fn keystores_of_all_programs_are_read_or_refused_with_their_reason() {
    let mut failures = Vec::new();
    for (name, password, expected) in FILES {
        let expected = match expected {
            Ok(length) => {
                let subject = match *name {
                    "openssl-rsa.pfx" | "pem-pkcs1.pem" => "CN=server-rsa",
                    // The first by name.
                    "keytool-two-keys.jks" => "CN=another",
                    _ => "CN=server",
                };
                Ok((subject.to_owned(), *length))
            }
            Err(text) => Err(text.replace('@', name)),
        };
        let found = load(name, password);
        if found != expected {
            failures.push(format!("{name} with {password:?}:\n  {found:?}\n  {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_file_of_the_folder_is_tried() {
    let tried: BTreeSet<&str> = FILES.iter().map(|(name, ..)| *name).collect();
    let others = ["README.md", "make", "ca.pem", "password"];
    for entry in fs::read_dir(folder()).expect("the folder") {
        let name = entry.expect("readable").file_name();
        let name = name.to_str().expect("ASCII");
        assert!(tried.contains(name) || others.contains(&name), "{name}");
    }
    assert!(tried.len() > 80, "{}", tried.len());
}

#[test]
fn costly_file_is_refused_before_it_costs_anything() {
    let start = Instant::now();
    load("made-costly.p12", PASSWORD).expect_err("two thousand million rounds");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn password_comes_from_a_file_and_goes_with_it() {
    let files = Files::new();
    let file = |name: &str| Password::File(files.path(name));
    for contents in ["open-sesame", "open-sesame\n", "open-sesame\r\n"] {
        files.write("password", contents);
        let store = Store::load(&selection("openssl-3.p12", file("password")));
        assert_eq!(
            subject(&store.expect("the password")),
            "CN=server",
            "{contents:?}"
        );
    }
    for (name, contents, expected) in [
        ("blank", &b" open-sesame"[..], WRONG_FOR_PKCS12.replace('@', "openssl-3.p12")),
        ("twice", b"open-sesame\n\n", WRONG_FOR_PKCS12.replace('@', "openssl-3.p12")),
        (
            "long",
            &[b'x'; 4097],
            "reading password file \"long\": longer than 4096 bytes; --storepass-file must name a readable file \
             with the password of the keystore"
                .to_owned(),
        ),
        (
            "binary",
            &[0xff, 0xfe],
            "reading password file \"binary\": not UTF-8 text; --storepass-file must name a readable file with the \
             password of the keystore"
                .to_owned(),
        ),
    ] {
        files.write(name, contents);
        let failure = files.failure(&selection("openssl-3.p12", file(name)));
        assert_eq!(failure.replace(&format!("{}/", folder().display()), ""), expected);
    }
    assert_eq!(
        files.failure(&selection("openssl-3.p12", file("missing"))),
        "reading password file \"missing\": open missing: no such file or directory; --storepass-file must name a \
         readable file with the password of the keystore"
    );
}

#[test]
fn password_is_read_again_with_the_keystore() {
    let files = Files::new();
    files.write("password", "open-sesame\n");
    let keystore = files.path("store.p12");
    fs::copy(folder().join("openssl-3.p12"), &keystore).expect("a copy");
    let selection = Selection {
        identity: Identity::Keystore {
            path: keystore.clone(),
            password: Password::File(files.path("password")),
        },
        trust: Trust::Bundle(folder().join("ca.pem")),
    };
    let store = Store::load(&selection).expect("good files");
    fs::copy(folder().join("openssl-umlauts.p12"), &keystore).expect("a copy");
    store.prepare_reload().expect_err("the old password");
    files.write("password", "pässwörd");
    store.prepare_reload().expect("both are new");
}

#[test]
fn encrypted_key_of_a_pair_is_read_with_the_password() {
    let pair = |password| Selection {
        identity: Identity::Pair {
            cert: folder().join("pem-no-key.pem"),
            key: folder().join("pem-encrypted-aes256.pem"),
            password,
        },
        trust: Trust::Bundle(folder().join("ca.pem")),
    };
    let store = Store::load(&pair(Password::File(folder().join("password")))).expect("the password");
    assert_eq!(subject(&store), "CN=server");
    for password in [Password::None, given("wrong")] {
        let failure = Store::load(&pair(password)).expect_err("no password").to_string();
        let expected = "parsing X509 key pair: tls: failed to parse private key; it is encrypted";
        assert!(failure.starts_with(expected), "{failure}");
    }
}

/// Bundles of trust anchors are PEM, as for Ghostunnel 1.11.1.
#[test]
fn keystores_are_no_trust_bundles() {
    for name in [
        "openssl-3.p12",
        "keytool-trusted-only.jks",
        "der-certificate.der",
        "pem-pkcs7.p7b",
    ] {
        let selection = Selection {
            identity: Identity::None,
            trust: Trust::Bundle(folder().join(name)),
        };
        let failure = Store::load(&selection)
            .expect_err("no PEM certificates")
            .to_string();
        let expected = "unable to read certificates from CA bundle";
        assert!(failure.starts_with(expected), "{name}: {failure}");
    }
}

#[test]
fn no_error_and_no_debug_output_shows_the_password() {
    let secret = "tell-nobody";
    for (name, ..) in FILES {
        let selection = selection(name, given(secret));
        if let Err(error) = Store::load(&selection) {
            assert!(
                !format!("{error} {error:?} {selection:?}").contains(secret),
                "{name}"
            );
        }
    }
}
