//! Client mode: which servers are trusted, what is told to the others, and that nothing of the
//! local peer's leaves for them.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, ClientHello, End, Exit, Issued, KeyKind, Pki, Plain,
    Process, Request, ReservedPort, TlsServer, Usage, Version, eventually_some, read_to_end, s_server,
};

use crate::support::{client, ghostunnel, phrase};

/// A client tunnel towards a target.
pub(crate) struct Dialling {
    pub(crate) process: Process,
    listen: ReservedPort,
}

impl Dialling {
    pub(crate) fn start(pki: &Pki, target: &impl Display, flags: &[&str]) -> Self {
        let listen = ReservedPort::new();
        let process = client(pki, &listen, target).args(flags).start();
        process.wait_listening(listen.port());
        Self { process, listen }
    }

    /// Without a certificate of its own.
    fn anonymous(pki: &Pki, target: &impl Display, flags: &[&str]) -> Self {
        let listen = ReservedPort::new();
        let mut command = ghostunnel();
        command
            .args(["client", "--disable-authentication"])
            .flag("--listen", listen.address().to_string())
            .flag("--target", target.to_string())
            .flag("--cacert", &pki.ca_file);
        let process = command.args(flags).start();
        process.wait_listening(listen.port());
        Self { process, listen }
    }

    fn connect(&self) -> Plain {
        Plain::connect(&self.listen.address().into()).expect("it listens")
    }

    /// Says hello and waits for the echo; the error is how the connection ended instead.
    pub(crate) fn greet(&self) -> Result<(), End> {
        let mut peer = self.connect();
        let mut answer = [0; 5];
        peer.write_all(b"hello")
            .and_then(|()| peer.read_exact(&mut answer))
            .map_err(|error| End::from(&error))?;
        assert_eq!(&answer, b"hello");
        Ok(())
    }

    /// Talks at once; the connection must end without an answer.
    fn assert_hung_up(&self) {
        let mut peer = self.connect();
        // Fails if the tunnel was quicker.
        let _ = peer.write_all(b"a secret");
        let (answer, end) = read_to_end(&mut peer);
        assert_eq!(answer, b"");
        assert!(matches!(end, End::Closed | End::Reset), "{end:?}");
    }
}

/// Checks that a server with this certificate is told bad_certificate in the handshake and gets
/// not one byte of the local peer, in both versions; and that the log says why.
fn assert_distrusts(pki: &Pki, identity: &Issued, flags: &[&str], reason: &str) {
    for version in Version::BOTH {
        let server = TlsServer::with_version(identity, &ClientCertificates::Unasked, version);
        let backend = Backend::tls(server, Behaviour::Sink);
        let tunnel = Dialling::start(pki, backend.address(), flags);
        assert_refusal(&tunnel, &backend, reason);
    }
}

pub(crate) fn assert_refusal(tunnel: &Dialling, backend: &Backend, reason: &str) {
    use ghostunnel_testing::AlertDescription::BadCertificate;
    tunnel.assert_hung_up();
    let line = tunnel.process.wait_for_line("error on dial: ");
    assert!(
        phrase(&line).ends_with(&format!("error on dial: {reason}")),
        "{line}"
    );
    let connection = backend.connection(0);
    assert_eq!(connection.wait_end(), End::Alert(BadCertificate));
    assert_eq!(connection.received_count(), 0, "bytes left for a refused server");
    assert_eq!(tunnel.process.count_lines("opening pipe"), 0);
}

/// A tunnel's hello towards a target that never answers. `target` gets the target's port.
pub(crate) fn hello(target: impl Fn(u16) -> String, flags: &[&str]) -> ClientHello {
    let (pki, backend) = (Pki::new(), Backend::tcp(Behaviour::Sink));
    let tunnel = Dialling::start(&pki, &target(backend.port()), flags);
    let _peer = tunnel.connect();
    let connection = backend.connection(0);
    eventually_some("the tunnel has sent its hello", || {
        ClientHello::read(&connection.received())
    })
}

const BY_ADDRESS: fn(u16) -> String = |port| format!("127.0.0.1:{port}");
const BY_NAME: fn(u16) -> String = |port| format!("localhost:{port}");

mod trust {
    use super::*;

    #[test]
    fn right_server_is_reached_in_both_versions() {
        let pki = Pki::new();
        for version in Version::BOTH {
            let clients = ClientCertificates::required(&pki.authority);
            let backend = Backend::tls(
                TlsServer::with_version(&pki.server, &clients, version),
                Behaviour::Echo,
            );
            let tunnel = Dialling::start(&pki, backend.address(), &[]);
            tunnel.greet().expect("trusted");
            let facts = backend.connection(0).tls().expect("complete");
            assert_eq!(facts.peer_certificates, pki.client.chain());
            assert!(!facts.is_resumed);
            tunnel.process.wait_for_line("[no tls] <-> tcp:127.0.0.1:");
            tunnel.process.wait_for_line("[CN=server]");
        }
    }

    #[test]
    fn newest_common_version_is_chosen() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Echo);
        Dialling::start(&pki, backend.address(), &[])
            .greet()
            .expect("trusted");
        let version = backend.connection(0).tls().expect("complete").version;
        assert_eq!(format!("{version:?}"), "TLSv1_3");
    }

    #[test]
    fn openssl_is_reached_in_both_versions() {
        let pki = Pki::new();
        for version in ["-tls1_2", "-tls1_3"] {
            let ca = pki.ca_file.to_str().expect("ASCII");
            let options = ["-Verify", "1", "-verify_return_error", "-CAfile", ca, version];
            let Some((server, address)) = s_server(&pki.server_files, &options) else {
                return;
            };
            let tunnel = Dialling::start(&pki, &address, &[]);
            let mut peer = tunnel.connect();
            peer.write_all(b"to the server\n").expect("open");
            server.wait_for_line("to the server");
            server.write_input(b"to the client\n");
            let mut answer = [0; 14];
            peer.read_exact(&mut answer).expect("open");
            assert_eq!(&answer, b"to the client\n");
        }
    }

    #[test]
    fn keys_of_every_kind_serve_on_both_sides() {
        for key in [
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
            KeyKind::Ed25519,
            KeyKind::Rsa2048,
        ] {
            let mut pki = Pki::new();
            let own = pki.authority.issue(&Pki::client_request().key(key));
            pki.client_files = own.write_to(pki.dir(), "own");
            let identity = pki.authority.issue(&Pki::server_request().key(key));
            for version in Version::BOTH {
                let clients = ClientCertificates::required(&pki.authority);
                let server = TlsServer::with_version(&identity, &clients, version);
                let backend = Backend::tls(server, Behaviour::Echo);
                let tunnel = Dialling::start(&pki, backend.address(), &[]);
                tunnel
                    .greet()
                    .unwrap_or_else(|end| panic!("{key:?} {version:?}: {end:?}"));
            }
        }
    }

    #[test]
    fn openssl_agrees_on_keys_of_every_kind() {
        for key in [
            KeyKind::P256,
            KeyKind::P384,
            KeyKind::P521,
            KeyKind::Ed25519,
            KeyKind::Rsa2048,
        ] {
            let mut pki = Pki::new();
            let own = pki.authority.issue(&Pki::client_request().key(key));
            pki.client_files = own.write_to(pki.dir(), "own");
            let identity = pki.authority.issue(&Pki::server_request().key(key));
            let files = identity.write_to(pki.dir(), "peer");
            let ca = pki.ca_file.to_str().expect("ASCII");
            for version in ["-tls1_2", "-tls1_3"] {
                let options = ["-Verify", "1", "-verify_return_error", "-CAfile", ca, version];
                let Some((server, address)) = s_server(&files, &options) else {
                    return;
                };
                let tunnel = Dialling::start(&pki, &address, &[]);
                tunnel.connect().write_all(b"hello\n").expect("open");
                server.wait_for_line("hello");
            }
        }
    }

    #[test]
    fn certificate_is_presented_unless_authentication_is_disabled() {
        let pki = Pki::new();
        for version in Version::BOTH {
            let clients = ClientCertificates::optional(&pki.authority);
            let server = TlsServer::with_version(&pki.server, &clients, version);
            let backend = Backend::tls(server, Behaviour::Echo);
            Dialling::start(&pki, backend.address(), &[])
                .greet()
                .expect("trusted");
            Dialling::anonymous(&pki, backend.address(), &[])
                .greet()
                .expect("trusted");
            let shown = [0, 1].map(|index| {
                backend
                    .connection(index)
                    .tls()
                    .expect("complete")
                    .peer_certificates
            });
            assert_eq!(shown, [pki.client.chain(), Vec::new()], "{version:?}");
        }
    }

    /// The names of authorities that a server sends are hints; the certificate goes out anyway.
    #[test]
    fn certificate_is_presented_whatever_authorities_the_server_names() {
        let pki = Pki::new();
        let other_ca = pki.other_ca_file.to_str().expect("ASCII");
        let options = ["-verify", "1", "-CAfile", other_ca, "-msg"];
        let Some((server, address)) = s_server(&pki.server_files, &options) else {
            return;
        };
        let tunnel = Dialling::start(&pki, &address, &[]);
        tunnel.connect().write_all(b"hello\n").expect("open");
        // It would follow a certificate only.
        server.wait_for_line("CertificateVerify");
        server.wait_for_line("hello");
        let verifications = server.stdout().matches("CertificateVerify").count();
        assert_eq!(verifications, 2, "{}", server.stdout());
    }

    #[test]
    fn server_behind_a_unix_socket_is_reached() {
        let pki = Pki::new();
        let path = pki.path("server.sock");
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls_unix(&path, server, Behaviour::Echo);
        let tunnel = Dialling::start(&pki, backend.address(), &["--override-server-name=localhost"]);
        tunnel.greet().expect("trusted");
        let facts = backend.connection(0).tls().expect("complete");
        assert_eq!(facts.server_name.as_deref(), Some("localhost"));
        assert_eq!(facts.peer_certificates, pki.client.chain());
    }

    #[test]
    fn server_behind_a_unix_socket_must_prove_its_name_too() {
        let pki = Pki::new();
        let path = pki.path("server.sock");
        let server = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls_unix(&path, server, Behaviour::Sink);
        let tunnel = Dialling::start(&pki, backend.address(), &["--override-server-name=other.test"]);
        let reason =
            "tls: failed to verify certificate: x509: certificate is valid for localhost, not other.test";
        assert_refusal(&tunnel, &backend, reason);
    }
}

mod distrust {
    use super::*;

    const FAILED: &str = "tls: failed to verify certificate: x509: ";

    #[test]
    fn server_of_an_unknown_authority() {
        let pki = Pki::new();
        let identity = pki.other_authority.issue(&Pki::server_request());
        let reason = format!("{FAILED}certificate signed by unknown authority");
        assert_distrusts(&pki, &identity, &[], &reason);
    }

    #[test]
    fn server_that_signed_its_own_certificate() {
        let pki = Pki::new();
        let reason = format!("{FAILED}certificate signed by unknown authority");
        assert_distrusts(&pki, &Pki::server_request().self_signed(), &[], &reason);
    }

    #[test]
    fn server_whose_certificate_is_out_of_date() {
        let pki = Pki::new();
        for request in [
            Pki::server_request().expired(),
            Pki::server_request().not_yet_valid(),
        ] {
            let server = TlsServer::new(&pki.authority.issue(&request), &ClientCertificates::Unasked);
            let backend = Backend::tls(server, Behaviour::Sink);
            let tunnel = Dialling::start(&pki, backend.address(), &[]);
            tunnel.assert_hung_up();
            tunnel.process.wait_for_line(&format!(
                "error on dial: {FAILED}certificate has expired or is not yet valid: current time "
            ));
            let connection = backend.connection(0);
            let alert = ghostunnel_testing::AlertDescription::BadCertificate;
            assert_eq!(
                (connection.wait_end(), connection.received_count()),
                (End::Alert(alert), 0)
            );
        }
    }

    #[test]
    fn server_with_a_certificate_for_something_else() {
        let pki = Pki::new();
        for usage in [Usage::Client, Usage::Unrelated] {
            let identity = pki.authority.issue(&Pki::server_request().usage(usage));
            let reason = format!("{FAILED}certificate specifies an incompatible key usage");
            assert_distrusts(&pki, &identity, &[], &reason);
        }
    }

    #[test]
    fn server_with_another_name() {
        let pki = Pki::new();
        let identity = pki
            .authority
            .issue(&Request::named("localhost").dns("one.test").dns("two.test"));
        let reason = format!("{FAILED}certificate is valid for one.test, two.test, not localhost");
        let backend = Backend::tls(
            TlsServer::new(&identity, &ClientCertificates::Unasked),
            Behaviour::Sink,
        );
        let tunnel = Dialling::start(&pki, &BY_NAME(backend.port()), &[]);
        assert_refusal(&tunnel, &backend, &reason);
    }

    /// The name is looked at before the issuer.
    #[test]
    fn server_with_another_name_and_authority() {
        let pki = Pki::new();
        let identity = pki.other_authority.issue(&Request::named("x").dns("one.test"));
        let reason = format!("{FAILED}certificate is valid for one.test, not two.test");
        assert_distrusts(&pki, &identity, &["--override-server-name=two.test"], &reason);
    }

    #[test]
    fn server_without_any_name() {
        let pki = Pki::new();
        let identity = pki.authority.issue(&Request::named("x"));
        let reason = format!("{FAILED}certificate is not valid for any names, but wanted to match one.test");
        assert_distrusts(&pki, &identity, &["--override-server-name=one.test"], &reason);
    }

    #[test]
    fn server_whose_common_name_alone_is_right() {
        let pki = Pki::new();
        let reason = format!("{FAILED}certificate relies on legacy Common Name field, use SANs instead");
        for request in [Request::named("one.test"), Request::named("one.test").version_1()] {
            let identity = pki.authority.issue(&request);
            assert_distrusts(&pki, &identity, &["--override-server-name=one.test"], &reason);
        }
    }

    #[test]
    fn server_whose_address_is_only_a_dns_name() {
        let pki = Pki::new();
        let identity = pki.authority.issue(&Request::named("127.0.0.1").dns("127.0.0.1"));
        let reason = format!(
            "{FAILED}cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        );
        assert_distrusts(&pki, &identity, &[], &reason);
    }

    #[test]
    fn server_with_another_address() {
        let pki = Pki::new();
        let identity = pki.authority.issue(
            &Request::named("x")
                .dns("localhost")
                .ip(Ipv4Addr::new(192, 0, 2, 1)),
        );
        let reason = format!("{FAILED}certificate is valid for 192.0.2.1, not 127.0.0.1");
        assert_distrusts(&pki, &identity, &[], &reason);
    }

    #[test]
    fn server_that_is_not_on_any_list() {
        let pki = Pki::new();
        let reason = "unauthorized: invalid principal, or principal not allowed";
        assert_distrusts(&pki, &pki.server, &["--verify-cn=somebody-else"], reason);
    }

    /// The names on the lists narrow who is trusted; they replace neither name nor path.
    #[test]
    fn list_does_not_replace_the_path() {
        let pki = Pki::new();
        let identity = pki.other_authority.issue(&Pki::server_request());
        let reason = format!("{FAILED}certificate signed by unknown authority");
        assert_distrusts(&pki, &identity, &["--verify-cn=server"], &reason);
    }

    #[test]
    fn certificate_without_its_key() {
        let pki = Pki::new();
        let impostor = pki.server.clone().with_key_of(&pki.stranger);
        for version in Version::BOTH {
            let server = TlsServer::with_version(&impostor, &ClientCertificates::Unasked, version);
            let backend = Backend::tls(server, Behaviour::Sink);
            let tunnel = Dialling::start(&pki, backend.address(), &[]);
            tunnel.assert_hung_up();
            tunnel
                .process
                .wait_for_line("error on dial: tls: invalid signature by the peer's certificate");
            let connection = backend.connection(0);
            assert!(matches!(connection.wait_end(), End::Alert(_)), "{version:?}");
            assert_eq!(connection.received_count(), 0);
        }
    }

    #[test]
    fn server_of_tls_1_1() {
        let pki = Pki::new();
        let options = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
        let Some((server, address)) = s_server(&pki.server_files, &options) else {
            return;
        };
        let tunnel = Dialling::start(&pki, &address, &[]);
        tunnel.assert_hung_up();
        tunnel
            .process
            .wait_for_line("error on dial: remote error: tls: protocol version not supported");
        assert!(!server.stdout().contains("secret"));
    }

    #[test]
    fn server_of_block_ciphers() {
        let pki = Pki::new();
        let options = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"];
        let Some((_server, address)) = s_server(&pki.server_files, &options) else {
            return;
        };
        let tunnel = Dialling::start(&pki, &address, &[]);
        tunnel.assert_hung_up();
        tunnel
            .process
            .wait_for_line("error on dial: remote error: tls: handshake failure");
    }

    #[test]
    fn server_that_does_not_speak_tls() {
        let (pki, backend) = (
            Pki::new(),
            Backend::tcp(Behaviour::SayAndClose(b"220 mail.test\r\n".to_vec())),
        );
        let tunnel = Dialling::start(&pki, backend.address(), &[]);
        tunnel.assert_hung_up();
        tunnel
            .process
            .wait_for_line("error on dial: tls: first record does not look like a TLS handshake");
    }

    #[test]
    fn server_cannot_forge_lines() {
        let pki = Pki::new();
        let evil = "evil\n[1] 2020/01/01 00:00:00.000000 forged\x1b[31m";
        let identity = pki.authority.issue(&Request::named(evil).dns(evil));
        let server = TlsServer::new(&identity, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Sink);
        let tunnel = Dialling::start(&pki, backend.address(), &["--override-server-name=one.test"]);
        tunnel.assert_hung_up();
        let line = tunnel.process.wait_for_line("error on dial: ");
        assert!(phrase(&line).ends_with(r"forged\x1b[31m, not one.test"), "{line}");
        for line in tunnel.process.lines() {
            assert!(!line.text().chars().any(char::is_control), "{line:?}");
            assert!(!line.text().starts_with("[1] 2020"), "{line:?}");
        }
    }

    #[test]
    fn server_that_refuses_our_certificate() {
        let pki = Pki::new();
        let strangers = ClientCertificates::required(&pki.other_authority);
        let reason = "remote error: tls: unknown certificate authority";
        for (version, moment) in [
            (Version::V12, "error on dial"),
            (Version::V13, "error during copy"),
        ] {
            let server = TlsServer::with_version(&pki.server, &strangers, version);
            let backend = Backend::tls(server, Behaviour::Sink);
            let tunnel = Dialling::start(&pki, backend.address(), &[]);
            tunnel.assert_hung_up();
            tunnel.process.wait_for_line(&format!("{moment}: {reason}"));
            assert_eq!(backend.connection(0).received_count(), 0);
        }
    }

    #[test]
    fn server_that_wants_a_certificate_we_do_not_have() {
        let pki = Pki::new();
        let clients = ClientCertificates::required(&pki.authority);
        let server = TlsServer::with_version(&pki.server, &clients, Version::V13);
        let backend = Backend::tls(server, Behaviour::Sink);
        let tunnel = Dialling::anonymous(&pki, backend.address(), &[]);
        tunnel.assert_hung_up();
        tunnel
            .process
            .wait_for_line("error during copy: remote error: tls: certificate required");
    }

    #[test]
    fn server_is_verified_without_own_certificate_too() {
        let pki = Pki::new();
        let identity = pki.other_authority.issue(&Pki::server_request());
        let server = TlsServer::new(&identity, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Sink);
        let tunnel = Dialling::anonymous(&pki, backend.address(), &[]);
        let reason = format!("{FAILED}certificate signed by unknown authority");
        assert_refusal(&tunnel, &backend, &reason);
    }
}

mod names {
    use super::*;

    /// Whether a server with the names in this request is accepted as `name`.
    fn is_accepted(pki: &Pki, name: &str, request: &Request) -> bool {
        let identity = pki.authority.issue(request);
        let server = TlsServer::new(&identity, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Echo);
        let flag = format!("--override-server-name={name}");
        let tunnel = Dialling::start(pki, backend.address(), &[&flag]);
        let is_accepted = tunnel.greet().is_ok();
        if !is_accepted {
            tunnel
                .process
                .wait_for_line("error on dial: tls: failed to verify certificate: x509: ");
        }
        is_accepted
    }

    #[test]
    fn names_are_compared_label_by_label() {
        let pki = Pki::new();
        let wildcard = Request::named("x").dns("*.wild.test");
        let exact = Request::named("x").dns("Some.Test");
        for (request, name, expected) in [
            (&wildcard, "a.wild.test", true),
            (&wildcard, "A.WILD.Test.", true),
            (&wildcard, "wild.test", false),
            (&wildcard, "a.b.wild.test", false),
            (&wildcard, "*.wild.test", true),
            (&exact, "some.test", true),
            (&exact, "SOME.TEST.", true),
            (&exact, "a.some.test", false),
            (&exact, "some.test.evil", false),
            (&exact, "foo_bar baz", false),
        ] {
            assert_eq!(
                is_accepted(&pki, name, request),
                expected,
                "{name} and {request:?}"
            );
        }
    }

    #[test]
    fn addresses_are_compared_as_numbers() {
        let pki = Pki::new();
        let v4 = Request::named("x").ip(Ipv4Addr::LOCALHOST);
        let mapped = Request::named("x").ip(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        let v6 = Request::named("x").ip(Ipv6Addr::LOCALHOST);
        for (request, name, expected) in [
            (&v4, "127.0.0.1", true),
            (&v4, "[127.0.0.1]", true),
            (&v4, "::ffff:127.0.0.1", true),
            (&v4, "127.0.0.2", false),
            (&v4, "localhost", false),
            (&mapped, "127.0.0.1", true),
            (&v6, "::1", true),
            (&v6, "[0:0:0:0:0:0:0:1]", true),
            (&v6, "127.0.0.1", false),
        ] {
            assert_eq!(
                is_accepted(&pki, name, request),
                expected,
                "{name} and {request:?}"
            );
        }
    }

    #[test]
    fn target_itself_is_the_name_without_override() {
        let pki = Pki::new();
        let identity = pki.authority.issue(&Request::named("x").dns("LOCALHOST"));
        let server = TlsServer::new(&identity, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Echo);
        Dialling::start(&pki, &BY_NAME(backend.port()), &[])
            .greet()
            .expect("the name is right");
        let facts = backend.connection(0).tls().expect("complete");
        assert_eq!(facts.server_name.as_deref(), Some("localhost"));
    }

    #[test]
    fn hello_names_the_server_unless_it_is_an_address() {
        let override_to = |name: &str| format!("--override-server-name={name}");
        for (target, name, expected) in [
            (BY_NAME, "", Some("localhost")),
            (BY_ADDRESS, "", None),
            (BY_ADDRESS, "one.test", Some("one.test")),
            (BY_NAME, "Mixed.Case.Test", Some("Mixed.Case.Test")),
            (BY_NAME, "dot.test.", Some("dot.test")),
            (BY_NAME, "dots.test..", Some("dots.test")),
            (BY_NAME, "192.0.2.1", None),
            (BY_NAME, "[192.0.2.1]", None),
            (BY_NAME, "2001:db8::1", None),
            (BY_NAME, "[2001:db8::1]", None),
            (BY_NAME, "[fe80::1%eth0]", None),
        ] {
            let hello = hello(target, &[&override_to(name)]);
            assert_eq!(hello.server_name().as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn target_with_capitals_is_named_as_typed() {
        let hello = hello(|port| format!("LocalHost:{port}"), &[]);
        assert_eq!(hello.server_name().as_deref(), Some("LocalHost"));
    }

    #[test]
    fn target_of_version_6_is_not_named() {
        let backend = Backend::tcp_at((Ipv6Addr::LOCALHOST, 0).into(), Behaviour::Sink);
        let tunnel = Dialling::start(&Pki::new(), backend.address(), &[]);
        let _peer = tunnel.connect();
        let connection = backend.connection(0);
        let hello = eventually_some("there is a hello", || ClientHello::read(&connection.received()));
        assert_eq!(hello.server_name(), None);
    }
}

mod hello {
    use super::*;

    #[test]
    fn suites_are_offered_in_the_order_of_the_original() {
        let hello = hello(BY_NAME, &[]);
        let aead_with_ephemeral_keys = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8];
        let tls_1_3 = [0x1301, 0x1302, 0x1303];
        // An extension in disguise: secure renegotiation (RFC 5746, section 3.3).
        const SIGNALLING: u16 = 0x00ff;
        let suites: Vec<u16> = hello
            .cipher_suites
            .iter()
            .copied()
            .filter(|suite| *suite != SIGNALLING)
            .collect();
        assert_eq!(
            suites,
            [&aead_with_ephemeral_keys[..], &tls_1_3].concat(),
            "{suites:x?}"
        );
    }

    #[test]
    fn only_tls_1_3_and_1_2_are_offered() {
        assert_eq!(hello(BY_NAME, &[]).versions(), [0x0304, 0x0303]);
    }

    #[test]
    fn hybrid_key_exchange_is_offered_first() {
        let hello = hello(BY_NAME, &[]);
        const X25519_MLKEM768: u16 = 0x11ec;
        const X25519: u16 = 0x001d;
        assert_eq!(hello.key_shares(), [X25519_MLKEM768, X25519]);
        let groups = hello.groups();
        assert_eq!(
            groups,
            [X25519_MLKEM768, X25519, 0x0017, 0x0018, 0x0019],
            "{groups:x?}"
        );
    }

    #[test]
    fn signature_schemes_are_offered_in_the_order_of_the_original() {
        let schemes = hello(BY_NAME, &[]).signature_schemes();
        let expected = [
            0x0804, 0x0403, 0x0807, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0503, 0x0603,
        ];
        assert_eq!(schemes, expected, "{schemes:x?}");
    }

    #[test]
    fn neither_protocols_nor_sessions_nor_early_data_are_offered() {
        let hello = hello(BY_NAME, &[]);
        for (name, kind) in [("ALPN", 16), ("pre_shared_key", 41), ("early_data", 42)] {
            assert_eq!(hello.extension(kind), None, "{name}");
        }
    }

    #[test]
    fn sessions_are_not_resumed() {
        let pki = Pki::new();
        for version in ["-tls1_2", "-tls1_3"] {
            let Some((server, address)) = s_server(&pki.server_files, &["-msg", version]) else {
                return;
            };
            let tunnel = Dialling::start(&pki, &address, &[]);
            for greeting in ["first", "second"] {
                // The server takes one connection after the other.
                let mut peer = tunnel.connect();
                peer.write_all(format!("{greeting}\n").as_bytes()).expect("open");
                server.wait_for_line(greeting);
            }
            // A resumed handshake has no certificate.
            let certificates = server
                .stdout()
                .lines()
                .filter(|line| line.starts_with(">>>") && line.ends_with(", Certificate"))
                .count();
            assert_eq!(certificates, 2, "{version}: {}", server.stdout());
        }
    }
}

mod start {
    use super::*;

    fn client_listening_on(listen: &str, more: &[&str]) -> ghostunnel_testing::Command {
        let mut command = ghostunnel();
        command
            .args(["client", "--target=localhost:1", "--disable-authentication"])
            .args(["--listen", listen])
            .args(more);
        command
    }

    #[test]
    fn listener_must_be_local() {
        let reason = "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless \
                      --unsafe-listen is set)";
        for listen in [
            ":1",
            "0.0.0.0:1",
            "[::]:1",
            "127.0.0.2:1",
            "LOCALHOST:1",
            "localhost.:1",
            "example.com:1",
            "127.0.0.1.example.com:1",
            "UNIX:/run/x",
        ] {
            let output = client_listening_on(listen, &[]).run();
            assert_eq!(output.exit, Exit::Code(1), "{listen}: {output:?}");
            assert_eq!(output.stderr, format!("error: {reason}\n"), "{listen}");
        }
    }

    /// A port that is taken would be the error if it had been tried.
    #[test]
    fn rule_is_checked_before_anything_is_bound() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let listen = taken.local_addr().expect("bound").to_string();
        let unsafe_listen = client_listening_on(&listen, &[]).run();
        assert!(
            unsafe_listen.stderr.starts_with("error: --listen must be "),
            "{unsafe_listen:?}"
        );
        let allowed = client_listening_on(&listen, &["--unsafe-listen"]).run();
        assert!(allowed.stderr.contains("address already in use"), "{allowed:?}");
    }

    #[test]
    fn local_listeners_are_opened() {
        for listen in [
            ReservedPort::new().address().to_string(),
            format!("localhost:{}", ReservedPort::new().port()),
            ReservedPort::on(Ipv6Addr::LOCALHOST).address().to_string(),
        ] {
            let process = client_listening_on(&listen, &[]).start();
            process.wait_for_line("listening for connections on ");
        }
        let pki = Pki::new();
        let path = pki.path("listen.sock");
        let process = client_listening_on(&format!("unix:{}", path.display()), &[]).start();
        process.wait_for_line("listening for connections on ");
        Plain::connect(&Address::from(path.as_path())).expect("it listens");
    }

    #[test]
    fn sockets_of_a_service_manager_are_local() {
        for listen in ["systemd:x", "launchd:x"] {
            let output = client_listening_on(listen, &[]).run();
            assert_eq!(output.exit, Exit::Code(1), "{listen}");
            assert!(!output.stderr.contains("--listen must be"), "{output:?}");
        }
    }

    #[test]
    fn unsafe_listener_is_opened_when_asked_for() {
        let (pki, reserved) = (Pki::new(), ReservedPort::on(Ipv4Addr::UNSPECIFIED));
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(server, Behaviour::Echo);
        let process = client(&pki, &reserved, backend.address())
            .arg("--unsafe-listen")
            .start();
        process.wait_listening(reserved.port());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port()));
        let mut peer = Plain::connect(&address.into()).expect("it listens everywhere");
        peer.write_all(b"hello").expect("open");
        backend.connection(0).wait_received(5);
    }

    #[test]
    fn target_that_can_only_be_listened_on_is_refused() {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        for word in ["systemd", "launchd"] {
            let output = client(&pki, &listen, &format!("{word}:x")).run();
            let reason =
                format!("invalid --target network \"{word}\": client mode requires a HOST:PORT TCP target");
            assert_eq!(output.exit, Exit::Code(1));
            assert_eq!(output.stderr, format!("error: {reason}\n"));
        }
    }

    #[test]
    fn target_may_be_anywhere() {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        for target in ["192.0.2.1:443", "127.0.0.2:443", "[2001:db8::1]:443"] {
            let process = client(&pki, &listen, &target).start();
            process.wait_for_line("listening for connections on ");
        }
    }

    /// Which server a socket path leads to can't be told from the path.
    #[test]
    fn target_without_a_host_needs_a_server_name() {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        for target in ["unix:/run/server.sock", ":443"] {
            let output = client(&pki, &listen, &target).run();
            assert_eq!(output.exit, Exit::Code(1), "{output:?}");
            assert!(output.stderr.contains("--override-server-name"), "{output:?}");
        }
    }
}
