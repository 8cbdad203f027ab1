//! Public key pins: a peer is known by its key, and nothing else of its certificate matters.

use std::io::Read as _;

use ghostunnel_testing::{
    AlertDescription, Authority, Backend, Behaviour, ClientCertificates, Exit, Issued, KeyKind, Pki, Request,
    ReservedPort, TlsServer, Usage, Version, openssl,
};

use crate::client::{Dialling, assert_refusal};
use crate::server::Served;
use crate::support::{client, ghostunnel, server};

const REFUSAL: &str = "unauthorized: pin verification failed";
const BAD_CERTIFICATE: [AlertDescription; 2] = [AlertDescription::BadCertificate; 2];

/// The pin of this identity's key by OpenSSL, which shares no code with the program.
pub(crate) fn pin(identity: &Issued, algorithm: &str) -> Option<String> {
    let dir = ghostunnel_testing::private_dir();
    let files = identity.write_to(dir.path(), "pinned");
    let spki = dir.path().join("spki.der");
    let digest = dir.path().join("digest");
    let public = openssl(&["pkey", "-pubout", "-outform", "DER", "-in"])?
        .arg(&files.key)
        .arg("-out")
        .arg(&spki)
        .run();
    assert_eq!(public.exit, Exit::Code(0), "{public:?}");
    let made = openssl(&["dgst", &format!("-{algorithm}"), "-binary", "-out"])?
        .arg(&digest)
        .arg(&spki)
        .run();
    assert_eq!(made.exit, Exit::Code(0), "{made:?}");
    let base64 = openssl(&["base64", "-A", "-in"])?.arg(&digest).run();
    Some(format!("{algorithm}:{}", base64.stdout.trim()))
}

/// Certificates that no authority would have to do with: for one key each.
fn unlikely_peers() -> Vec<(&'static str, Issued)> {
    let peer = || Request::named("peer");
    let nobody = Authority::new("nobody knows");
    vec![
        ("self-signed", peer().self_signed()),
        ("of an unknown authority", nobody.issue(&peer())),
        ("expired", peer().expired().self_signed()),
        ("not valid yet", peer().not_yet_valid().self_signed()),
        (
            "for something else",
            nobody.issue(&peer().usage(Usage::Unrelated)),
        ),
        ("an authority", peer().authority().self_signed()),
        ("of another name", peer().dns("somewhere.else").self_signed()),
        ("nameless", Request::unnamed().self_signed()),
        (
            "with a critical extension nobody knows",
            peer().extension(&[1, 2, 3, 4], true, vec![5, 0]).self_signed(),
        ),
        ("RSA", peer().key(KeyKind::Rsa2048).self_signed()),
        ("Ed25519", peer().key(KeyKind::Ed25519).self_signed()),
    ]
}

#[test]
fn the_key_is_enough_whatever_the_certificate_says() {
    for (what, identity) in unlikely_peers() {
        let Some(pin) = pin(&identity, "sha256") else {
            return;
        };
        let served = Served::start(Pki::new(), &[&format!("--allow-spki-pin={pin}")]);
        for version in Version::BOTH {
            let client = served.client().identity(&identity).version(version);
            let peer = served.greet(&client);
            peer.unwrap_or_else(|end| panic!("client {what} in {version:?}: {end:?}"));
        }
        let pki = Pki::new();
        for version in Version::BOTH {
            let server = TlsServer::with_version(&identity, &ClientCertificates::Unasked, version);
            let backend = Backend::tls(server, Behaviour::Echo);
            let tunnel = Dialling::start(&pki, backend.address(), &[&format!("--verify-spki-pin={pin}")]);
            tunnel
                .greet()
                .unwrap_or_else(|end| panic!("server {what} in {version:?}: {end:?}"));
        }
    }
}

#[test]
fn every_digest_is_taken_and_one_of_several_pins_is_enough() {
    let (pki, identity) = (Pki::new(), Request::named("peer").self_signed());
    let Some(other) = pin(&pki.stranger, "sha256") else {
        return;
    };
    for algorithm in ["sha256", "sha384", "sha512"] {
        let pin = pin(&identity, algorithm).expect("OpenSSL is there");
        let pin = pin.replacen("sha", "Sha", 1);
        let flags = [
            format!("--allow-spki-pin={other}"),
            format!("--allow-spki-pin={pin}"),
        ];
        let served = Served::start(Pki::new(), &[&flags[0], &flags[1]]);
        let client = served.client().identity(&identity);
        served
            .greet(&client)
            .unwrap_or_else(|end| panic!("{pin}: {end:?}"));
    }
}

#[test]
fn no_chain_helps_a_peer_with_another_key() {
    let pki = Pki::new();
    let Some(pin) = pin(&Request::named("client").self_signed(), "sha256") else {
        return;
    };
    let served = Served::start(pki, &[&format!("--allow-spki-pin={pin}")]);
    served.assert_refuses(Some(&served.pki.client), BAD_CERTIFICATE, REFUSAL);

    let pki = Pki::new();
    for version in Version::BOTH {
        let server = TlsServer::with_version(&pki.server, &ClientCertificates::Unasked, version);
        let backend = Backend::tls(server, Behaviour::Sink);
        let tunnel = Dialling::start(&pki, backend.address(), &[&format!("--verify-spki-pin={pin}")]);
        assert_refusal(&tunnel, &backend, REFUSAL);
    }
}

/// Only the leaf counts, and behind it any certificate can be sent.
#[test]
fn the_pinned_key_of_an_issuer_is_no_help() {
    let (pki, root) = (Pki::new(), Authority::new("root"));
    let middle = root.issue(&Request::named("middle").authority());
    let Some(pin) = pin(&middle, "sha256") else { return };
    let identity = pki.stranger.clone().followed_by(&[middle.der()]);
    let served = Served::start(pki, &[&format!("--allow-spki-pin={pin}")]);
    served.assert_refuses(Some(&identity), BAD_CERTIFICATE, REFUSAL);
}

#[test]
fn the_certificate_without_its_key_is_no_help() {
    let (pki, pinned) = (Pki::new(), Request::named("peer").self_signed());
    let Some(pin) = pin(&pinned, "sha256") else { return };
    let impostor = pinned.with_key_of(&pki.client);
    let served = Served::start(pki, &[&format!("--allow-spki-pin={pin}")]);
    for version in Version::BOTH {
        let mark = served.process.mark();
        let client = served.client().identity(&impostor).version(version);
        assert!(served.greet(&client).is_err(), "{version:?}");
        let line = served.process.wait_for_line_after(mark, "error on TLS handshake");
        assert!(line.contains("[reason=bad-signature "), "{line}");
    }
    assert_eq!(served.backend.accepted(), 0);
}

#[test]
fn a_certificate_is_still_required() {
    let pki = Pki::new();
    let Some(pin) = pin(&pki.client, "sha256") else {
        return;
    };
    let served = Served::start(pki, &[&format!("--allow-spki-pin={pin}")]);
    let alerts = [
        AlertDescription::HandshakeFailure,
        AlertDescription::CertificateRequired,
    ];
    served.assert_refuses(None, alerts, "tls: client didn't provide a certificate");
}

/// A client that picks its certificate by the authorities it is told would send none.
#[test]
fn clients_are_told_no_authorities() {
    let pki = Pki::new();
    let Some(pin) = pin(&pki.client, "sha256") else {
        return;
    };
    for (flag, expected) in [
        (format!("--allow-spki-pin={pin}"), false),
        ("--allow-all".to_owned(), true),
    ] {
        let served = Served::start(Pki::new(), &[&flag]);
        let report = served.handshake_report(&[]).expect("OpenSSL is there").stdout;
        assert_eq!(
            report.contains("Acceptable client certificate CA names"),
            expected,
            "{report}"
        );
    }
}

#[test]
fn the_bundle_must_still_be_readable() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let Some(pin) = pin(&pki.client, "sha256") else {
        return;
    };
    let bundle = pki.write("bundle.pem", "no certificate");
    let output = ghostunnel()
        .arg("server")
        .flag("--listen", listen.address().to_string())
        .arg("--target=localhost:1")
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key)
        .flag("--cacert", bundle)
        .flag("--allow-spki-pin", pin)
        .run();
    assert_eq!(output.exit, Exit::Code(1), "{output:?}");
}

#[test]
fn the_name_is_sent_but_not_checked() {
    let (pki, identity) = (Pki::new(), Request::named("peer").self_signed());
    let Some(pin) = pin(&identity, "sha256") else {
        return;
    };
    let backend = Backend::tls(
        TlsServer::new(&identity, &ClientCertificates::Unasked),
        Behaviour::Echo,
    );
    let flags = [
        format!("--verify-spki-pin={pin}"),
        "--override-server-name=Some.Name".to_owned(),
    ];
    let tunnel = Dialling::start(&pki, backend.address(), &[&flags[0], &flags[1]]);
    tunnel.greet().expect("known by its key");
    let facts = backend.connection(0).tls().expect("complete");
    assert_eq!(facts.server_name.as_deref(), Some("some.name"));
}

#[test]
fn a_server_known_by_its_key_needs_no_name_and_a_client_no_certificate() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let identity = Request::named("peer").self_signed();
    let Some(pin) = pin(&identity, "sha256") else {
        return;
    };
    let server = TlsServer::new(&identity, &ClientCertificates::Unasked);
    let backend = Backend::tls(server, Behaviour::Echo);
    let process = ghostunnel()
        .args(["client", "--disable-authentication"])
        .flag("--listen", listen.address().to_string())
        .flag("--target", format!(":{}", backend.port()))
        .flag("--cacert", &pki.ca_file)
        .flag("--verify-spki-pin", pin)
        .start();
    process.wait_listening(listen.port());
    let mut peer = ghostunnel_testing::Plain::connect(&listen.address().into()).expect("listening");
    let mut answer = [0; 5];
    std::io::Write::write_all(&mut peer, b"hello").expect("taken");
    peer.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"hello");
    process.wait_for_line("[CN=peer]");
}

#[test]
fn pins_stand_alone_and_must_be_pins() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let good = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (flags, reason) in [
        (
            vec![format!("--allow-spki-pin={good}"), "--allow-cn=x".to_owned()],
            "--allow-spki-pin is mutually exclusive with other access control flags",
        ),
        (
            vec!["--allow-spki-pin=sha256:AAAA".to_owned()],
            "--allow-spki-pin: invalid pin \"sha256:AAAA\": expected 32 bytes for sha256, got 3",
        ),
        (
            vec![String::from("--allow-spki-pin=")],
            "--allow-spki-pin: invalid pin \"\": expected format <algo>:<base64-digest>",
        ),
    ] {
        let output = server(&pki, &listen, &"localhost:1").args(&flags).run();
        assert_eq!(output.exit, Exit::Code(1));
        assert_eq!(output.stderr, format!("error: {reason}\n"));
    }
    let flags = [format!("--verify-spki-pin={good}"), "--verify-ou=x".to_owned()];
    let output = client(&pki, &listen, &"localhost:1").args(flags).run();
    assert_eq!(
        output.stderr,
        "error: --verify-spki-pin is mutually exclusive with other verification flags\n"
    );
}
