//! Server mode: who is let in over TLS, who is turned away with which alert, and what may be
//! listened on and dialled.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ghostunnel_testing::{
    Address, AlertDescription, Attribute, Authority, Backend, Behaviour, End, Endpoint, Exit, Issued,
    KeyKind, Output, Pki, Plain, Process, Request, ReservedPort, TlsClient, TlsPeer, Usage, Version, curl,
    listening_ports, oid, openssl, read_to_end, s_client,
};

use crate::support::{ghostunnel, server};

/// A server tunnel in front of a backend.
pub(crate) struct Served {
    pub(crate) process: Process,
    pub(crate) backend: Backend,
    pub(crate) pki: Pki,
    /// Whom a client of the tunnel must trust; not always whom the tunnel trusts.
    server_ca: PathBuf,
    listen: ReservedPort,
}

impl Served {
    /// In front of a backend that echoes.
    pub(crate) fn start(pki: Pki, flags: &[&str]) -> Self {
        Self::before(Backend::tcp(Behaviour::Echo), pki, flags)
    }

    fn before(backend: Backend, pki: Pki, flags: &[&str]) -> Self {
        let listen = ReservedPort::new();
        let process = server(&pki, &listen, backend.address()).args(flags).start();
        process.wait_listening(listen.port());
        let server_ca = pki.write("server-ca.pem", &pki.authority.pem());
        Self {
            process,
            backend,
            pki,
            server_ca,
            listen,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.listen.address().into()
    }

    /// A client that trusts the tunnel, without a certificate.
    pub(crate) fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pki.authority)
    }

    /// Connects as this client and waits for an echo; the error is how the connection ended
    /// instead.
    pub(crate) fn greet(&self, client: &TlsClient) -> Result<TlsPeer, End> {
        let mut peer = client.connect(&self.address())?;
        let mut answer = [0; 5];
        peer.write_all(b"hello")
            .and_then(|()| peer.read_exact(&mut answer))
            .map_err(|error| End::from(&error))?;
        assert_eq!(&answer, b"hello");
        Ok(peer)
    }

    /// Whether this client is admitted; one that is not must be refused for not being on any
    /// list, before the backend hears of it.
    pub(crate) fn admits(&self, identity: &Issued) -> bool {
        let (mark, accepted) = (self.process.mark(), self.backend.accepted());
        match self.greet(&self.client().identity(identity)) {
            Ok(_) => true,
            Err(end) => {
                assert_eq!(end, End::Alert(AlertDescription::BadCertificate));
                self.process
                    .wait_for_line_after(mark, "unauthorized: invalid principal, or principal not allowed");
                assert_eq!(
                    self.backend.accepted(),
                    accepted,
                    "the backend heard of a refused client"
                );
                false
            }
        }
    }

    /// Checks that this client is turned away in both versions with the alert for each, and
    /// that the log says why; by our own client and by OpenSSL.
    pub(crate) fn assert_refuses(
        &self,
        identity: Option<&Issued>,
        alerts: [AlertDescription; 2],
        reason: &str,
    ) {
        let files = identity.map(|identity| identity.write_to(self.pki.dir(), "refused"));
        for (version, alert) in Version::BOTH.into_iter().zip(alerts) {
            let mark = self.process.mark();
            let client = self.client().version(version);
            let client = match identity {
                None => client,
                Some(identity) => client.identity(identity),
            };
            assert_eq!(self.greet(&client).err(), Some(End::Alert(alert)), "{version:?}");
            self.assert_handshake_error(mark, reason);

            let mark = self.process.mark();
            let (address, version) = (self.address(), option(version));
            if let Some(client) = s_client(&address, &self.server_ca, files.as_ref(), &[version]) {
                client.wait_for_line(&format!("SSL alert number {}", u8::from(alert)));
                self.assert_handshake_error(mark, reason);
            }
        }
        assert_eq!(
            self.backend.accepted(),
            0,
            "the backend heard of a refused client"
        );
    }

    fn assert_handshake_error(&self, mark: usize, reason: &str) {
        let line = self
            .process
            .wait_for_line_after(mark, "error on TLS handshake from 127.0.0.1:");
        assert!(line.contains(&format!(": {reason}")), "{line}");
    }

    /// What OpenSSL says after a handshake with these options; its input is at its end.
    pub(crate) fn handshake_report(&self, options: &[&str]) -> Option<Output> {
        let mut command = openssl(&["s_client", "-connect", &self.address().to_string()])?;
        command
            .arg("-cert")
            .arg(&self.pki.client_files.certificate)
            .arg("-key")
            .arg(&self.pki.client_files.key)
            .args(options);
        Some(command.run())
    }

    /// The suite that is chosen from what these options offer; `None` if none is.
    pub(crate) fn chosen_suite(&self, options: &[&str]) -> Option<Option<String>> {
        let output = self.handshake_report(options)?;
        let line = output
            .stdout
            .lines()
            .find_map(|line| line.split_once("Cipher is "));
        let suite = line.unwrap_or_else(|| panic!("no suite in {output:?}")).1;
        if suite == "(NONE)" {
            assert!(output.stderr.contains("SSL alert number 40"), "{output:?}");
            return Some(None);
        }
        Some(Some(suite.to_owned()))
    }

    /// The handshake messages up to the first echoed byte, as OpenSSL lists them.
    fn messages(&self, version: Version) -> Option<String> {
        let files = Some(&self.pki.client_files);
        let client = s_client(
            &self.address(),
            &self.server_ca,
            files,
            &["-msg", option(version)],
        )?;
        client.write_input(b"hello\n");
        client.wait_for_line("hello");
        Some(client.stdout())
    }
}

fn option(version: Version) -> &'static str {
    match version {
        Version::V12 => "-tls1_2",
        Version::V13 => "-tls1_3",
    }
}

const BAD_CERTIFICATE: [AlertDescription; 2] = [AlertDescription::BadCertificate; 2];
const EXPIRED: [AlertDescription; 2] = [AlertDescription::CertificateExpired; 2];
const UNKNOWN_CA: [AlertDescription; 2] = [AlertDescription::UnknownCA; 2];

mod admission {
    use super::*;

    #[test]
    fn right_certificate_is_admitted_in_both_versions() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        for version in Version::BOTH {
            let client = served.client().identity(&served.pki.client).version(version);
            served.greet(&client).expect("admitted");
        }
        served.process.wait_for_line("[CN=client,OU=clients] <->");
    }

    #[test]
    fn newest_common_version_is_chosen() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let Some(report) = served.handshake_report(&[]) else {
            return;
        };
        assert!(report.stdout.contains("New, TLSv1.3, "), "{report:?}");
        let Some(report) = served.handshake_report(&["-max_protocol", "TLSv1.2"]) else {
            return;
        };
        assert!(report.stdout.contains("New, TLSv1.2, "), "{report:?}");
    }

    #[test]
    fn openssl_is_admitted_in_both_versions() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        for version in Version::BOTH {
            let identity = Some(&served.pki.client_files);
            let options = ["-verify_ip", "127.0.0.1", option(version)];
            let client = s_client(&served.address(), &served.server_ca, identity, &options);
            let Some(client) = client else { return };
            client.write_input(b"through the tunnel\n");
            client.wait_for_line("through the tunnel");
        }
    }

    /// curl offers ALPN, which the tunnel has no opinion about.
    #[test]
    fn curl_is_admitted_with_the_right_certificate_only() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        let backend = Backend::tcp(Behaviour::AnswerAndHalfClose(answer));
        let served = Served::before(backend, Pki::new(), &["--allow-cn=client"]);
        let Some(mut curl) = curl(&[&format!("https://{}/", served.address())]) else {
            return;
        };
        curl.arg("--cacert").arg(&served.server_ca);
        assert_ne!(curl.run().exit, Exit::Code(0));
        assert_eq!(served.backend.accepted(), 0);

        let files = &served.pki.client_files;
        curl.arg("--cert")
            .arg(&files.certificate)
            .arg("--key")
            .arg(&files.key);
        let output = curl.run();
        assert_eq!(
            (output.exit, output.stdout.as_str()),
            (Exit::Code(0), "ok\n"),
            "{output:?}"
        );
    }

    #[test]
    fn certificate_is_served_whatever_name_is_asked_for() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        for names in [&["-servername", "other.test"][..], &["-noservername"]] {
            let Some(report) = served.handshake_report(names) else {
                return;
            };
            assert!(
                report.stdout.contains("subject=CN = server") || report.stdout.contains("subject=CN=server"),
                "{report:?}"
            );
        }
    }

    #[test]
    fn protocol_names_are_not_negotiated() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let Some(report) = served.handshake_report(&["-alpn", "h2,http/1.1"]) else {
            return;
        };
        assert!(report.stdout.contains("No ALPN negotiated"), "{report:?}");
        assert!(report.stdout.contains("New, TLSv1.3, "), "{report:?}");
    }

    /// A peer that has the certificate but not the key is nobody.
    #[test]
    fn certificate_without_its_key_is_refused() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let thief = served.pki.client.clone().with_key_of(&served.pki.stranger);
        for version in Version::BOTH {
            let mark = served.process.mark();
            let end = served
                .greet(&served.client().identity(&thief).version(version))
                .err();
            assert_eq!(
                end,
                Some(End::Alert(AlertDescription::DecryptError)),
                "{version:?}"
            );
            served.assert_handshake_error(mark, "tls: invalid signature by the peer's certificate");
        }
        assert_eq!(served.backend.accepted(), 0);
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
            let own = pki.authority.issue(&Pki::server_request().key(key));
            pki.server_files = own.write_to(pki.dir(), "own");
            let served = Served::start(pki, &["--allow-cn=client"]);
            let identity = served.pki.authority.issue(&Pki::client_request().key(key));
            for version in Version::BOTH {
                let client = served.client().identity(&identity).version(version);
                served
                    .greet(&client)
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
            let own = pki.authority.issue(&Pki::server_request().key(key));
            pki.server_files = own.write_to(pki.dir(), "own");
            let served = Served::start(pki, &["--allow-cn=client"]);
            let identity = served.pki.authority.issue(&Pki::client_request().key(key));
            let files = identity.write_to(served.pki.dir(), "peer");
            for version in Version::BOTH {
                let options = [option(version)];
                let client = s_client(&served.address(), &served.server_ca, Some(&files), &options);
                let Some(client) = client else { return };
                client.write_input(b"hello\n");
                client.wait_for_line("hello");
            }
        }
    }

    /// Many private authorities issue such certificates without anybody noticing.
    #[test]
    fn own_certificate_may_be_of_version_1() {
        let mut pki = Pki::new();
        let own = pki.authority.issue(&Request::named("server").version_1());
        pki.server_files = own.write_to(pki.dir(), "own");
        let served = Served::start(pki, &["--allow-cn=client"]);
        for version in Version::BOTH {
            let Some(messages) = served.messages(version) else {
                return;
            };
            assert!(messages.contains("Finished"), "{messages}");
        }
    }

    #[test]
    fn expired_own_certificate_is_served() {
        let mut pki = Pki::new();
        let own = pki.authority.issue(&Pki::server_request().expired());
        pki.server_files = own.write_to(pki.dir(), "own");
        let served = Served::start(pki, &["--allow-cn=client"]);
        let Some(report) = served.handshake_report(&[]) else {
            return;
        };
        assert!(report.stdout.contains("certificate has expired"), "{report:?}");
    }
}

mod refusal {
    use super::*;

    #[test]
    fn client_without_certificate() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let alerts = [
            AlertDescription::HandshakeFailure,
            AlertDescription::CertificateRequired,
        ];
        served.assert_refuses(None, alerts, "tls: client didn't provide a certificate");
    }

    #[test]
    fn client_of_an_unknown_authority() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        served.assert_refuses(Some(&served.pki.stranger), UNKNOWN_CA, reason);
    }

    #[test]
    fn client_that_signed_its_own_certificate() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        served.assert_refuses(Some(&Pki::client_request().self_signed()), UNKNOWN_CA, reason);
    }

    /// The name of the authority is right; only the signature tells.
    #[test]
    fn client_of_an_impostor_of_the_authority() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let identity = Authority::new("test root").issue(&Pki::client_request());
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        served.assert_refuses(Some(&identity), UNKNOWN_CA, reason);
    }

    #[test]
    fn client_whose_certificate_has_expired() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let identity = served.pki.authority.issue(&Pki::client_request().expired());
        let reason = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ";
        served.assert_refuses(Some(&identity), EXPIRED, reason);
        assert!(served.process.stdout().contains(" is after "));
    }

    #[test]
    fn client_whose_certificate_is_not_valid_yet() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let identity = served.pki.authority.issue(&Pki::client_request().not_yet_valid());
        let reason = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time ";
        served.assert_refuses(Some(&identity), EXPIRED, reason);
        assert!(served.process.stdout().contains(" is before "));
    }

    #[test]
    fn client_whose_authority_has_expired() {
        let mut pki = Pki::new();
        let old = Authority::root(&Request::named("old root").expired());
        pki.ca_file = pki.write("anchors.pem", &(old.pem() + &pki.authority.pem()));
        let served = Served::start(pki, &["--allow-all"]);
        let reason = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: ";
        served.assert_refuses(Some(&old.issue(&Pki::client_request())), EXPIRED, reason);
    }

    #[test]
    fn client_with_a_certificate_for_something_else() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        for usage in [Usage::Server, Usage::Unrelated] {
            let identity = served.pki.authority.issue(&Pki::client_request().usage(usage));
            let reason =
                "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage";
            served.assert_refuses(Some(&identity), BAD_CERTIFICATE, reason);
        }
    }

    #[test]
    fn client_that_is_not_on_any_list() {
        let served = Served::start(Pki::new(), &["--allow-cn=somebody-else"]);
        let reason = "unauthorized: invalid principal, or principal not allowed";
        served.assert_refuses(Some(&served.pki.client), BAD_CERTIFICATE, reason);
    }

    #[test]
    fn client_whose_certificate_cannot_be_parsed() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let identity = served
            .pki
            .authority
            .issue(&Request::named("client").uri("spiffe://test/%zz"));
        let reason = "tls: failed to parse client certificate: x509: cannot parse URI \"spiffe://test/%zz\"";
        // In TLS 1.3 the library has sealed its alert before it can be exchanged.
        let alerts = [AlertDescription::DecodeError, AlertDescription::BadCertificate];
        served.assert_refuses(Some(&identity), alerts, reason);
    }

    #[test]
    fn unknown_critical_extension() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let request = Pki::client_request().extension(&[1, 2, 3, 4], true, vec![5, 0]);
        let identity = served.pki.authority.issue(&request);
        let reason = "tls: failed to verify certificate: x509: unhandled critical extension";
        served.assert_refuses(Some(&identity), BAD_CERTIFICATE, reason);
    }

    #[test]
    fn tls_1_1() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        for (version, offered) in [("-tls1_1", "[302 301]"), ("-tls1", "[301]")] {
            let mark = served.process.mark();
            let Some(report) = served.handshake_report(&[version, "-cipher", "DEFAULT@SECLEVEL=0"]) else {
                return;
            };
            assert!(report.stderr.contains("SSL alert number 70"), "{report:?}");
            let reason = format!("tls: client offered only unsupported versions: {offered}");
            served.assert_handshake_error(mark, &reason);
        }
        assert_eq!(served.backend.accepted(), 0);
    }

    #[test]
    fn suites_with_block_ciphers() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let suites = "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:AES128-SHA";
        let suite = served.chosen_suite(&["-tls1_2", "-cipher", suites]);
        let Some(suite) = suite else { return };
        assert_eq!(suite, None);
        let reason =
            "tls: no cipher suite supported by both client and server; client offered: [c023 c027 2f ff]";
        served.assert_handshake_error(0, reason);
        assert_eq!(served.backend.accepted(), 0);
    }

    #[test]
    fn unknown_key_exchange_groups() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        for version in Version::BOTH {
            let mark = served.process.mark();
            let Some(report) = served.handshake_report(&[option(version), "-groups", "X448"]) else {
                return;
            };
            assert!(report.stderr.contains("SSL alert number 40"), "{report:?}");
            served.assert_handshake_error(mark, "tls: no key exchanges supported by both client and server");
        }
    }

    #[test]
    fn plain_http_gets_no_alert() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let mut peer = Plain::connect(&served.address()).expect("it listens");
        peer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("open");
        assert_eq!(read_to_end(&mut peer), (Vec::new(), End::Closed));
        served.assert_handshake_error(0, "tls: first record does not look like a TLS handshake");
        assert_eq!(served.backend.accepted(), 0);
    }

    /// What was offered is told from the hello, however many packets it came in.
    #[test]
    fn reason_does_not_depend_on_packets() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let mut peer = Plain::connect(&served.address()).expect("it listens");
        for byte in hello_of_tls_1_1() {
            peer.write_all(&[byte]).expect("open");
        }
        let (answer, _) = read_to_end(&mut peer);
        assert_eq!(answer[5..], [2, 70], "protocol_version");
        served.assert_handshake_error(0, "tls: client offered only unsupported versions: [302 301]");
    }

    /// RFC 4346, section 7.4.1.2, in one record.
    fn hello_of_tls_1_1() -> Vec<u8> {
        let mut body = vec![3, 2];
        body.extend([7; 32]);
        body.extend([0]); // no session
        body.extend([0, 2, 0xc0, 0x09]); // one suite
        body.extend([1, 0]); // no compression
        let length = u8::try_from(body.len()).expect("short");
        let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
        record.extend(body);
        record
    }

    #[test]
    fn silence_at_the_start_is_no_refusal_of_others() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let silent: Vec<_> = (0..8)
            .map(|_| Plain::connect(&served.address()).expect("it listens"))
            .collect();
        assert!(served.admits(&served.pki.client));
        drop(silent);
    }
}

mod suites {
    use super::*;

    const ALL: &str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";

    /// All suites that the server accepts, in its order: OpenSSL offers everything it knows,
    /// AES-256 first, and each time leaves out what has been chosen before.
    fn accepted_suites(key: KeyKind) -> Option<Vec<String>> {
        let mut pki = Pki::new();
        let own = pki.authority.issue(&Pki::server_request().key(key));
        pki.server_files = own.write_to(pki.dir(), "own");
        let served = Served::start(pki, &["--allow-cn=client"]);
        let mut accepted = Vec::new();
        let mut offer = ALL.to_owned();
        while let Some(suite) = served.chosen_suite(&["-tls1_2", "-cipher", &offer])? {
            offer.push_str(":!");
            offer.push_str(&suite);
            accepted.push(suite);
        }
        Some(accepted)
    }

    #[test]
    fn tls_1_2_has_ephemeral_keys_and_authenticated_encryption_only() {
        for (key, name) in [(KeyKind::P256, "ECDSA"), (KeyKind::Rsa2048, "RSA")] {
            let Some(accepted) = accepted_suites(key) else {
                return;
            };
            let expected = ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"];
            assert_eq!(accepted, expected.map(|suite| format!("ECDHE-{name}-{suite}")));
        }
    }

    #[test]
    fn tls_1_3_has_three_suites_in_the_order_of_the_server() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let expected = [
            "TLS_AES_128_GCM_SHA256",
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
        ];
        let all_but_first = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
        let offers = [
            "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256",
            all_but_first,
            "TLS_CHACHA20_POLY1305_SHA256",
        ];
        for (offer, expected) in offers.into_iter().zip(expected) {
            let Some(suite) = served.chosen_suite(&["-tls1_3", "-ciphersuites", offer]) else {
                return;
            };
            assert_eq!(suite.as_deref(), Some(expected), "{offer}");
        }
        let other = served.chosen_suite(&["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"]);
        assert_eq!(other, Some(None));
    }

    #[test]
    fn common_key_exchange_groups_are_accepted() {
        // In TLS 1.2 the groups decide about ECDSA certificates too.
        let mut pki = Pki::new();
        let own = pki.authority.issue(&Pki::server_request().key(KeyKind::Rsa2048));
        pki.server_files = own.write_to(pki.dir(), "own");
        let served = Served::start(pki, &["--allow-cn=client"]);
        for group in ["X25519", "P-256", "P-384", "P-521"] {
            for version in Version::BOTH {
                let Some(suite) = served.chosen_suite(&[option(version), "-groups", group]) else {
                    return;
                };
                assert!(suite.is_some(), "{group} {version:?}");
            }
        }
    }

    #[test]
    fn signatures_are_never_made_with_sha_1() {
        let served = Served::start(Pki::new(), &["--allow-cn=client"]);
        let offer = [
            "-tls1_2",
            "-cipher",
            "DEFAULT@SECLEVEL=0",
            "-sigalgs",
            "ECDSA+SHA1:RSA+SHA1",
        ];
        let Some(report) = served.handshake_report(&offer) else {
            return;
        };
        assert!(report.stderr.contains("SSL alert number"), "{report:?}");
        assert!(report.stdout.contains("Cipher is (NONE)"), "{report:?}");
    }
}

mod authentication {
    use super::*;

    #[test]
    fn certificate_is_requested_unless_authentication_is_disabled() {
        let requesting = Served::start(Pki::new(), &["--allow-all"]);
        let indifferent = Served::start(Pki::new(), &["--disable-authentication"]);
        for version in Version::BOTH {
            let Some(messages) = requesting.messages(version) else {
                return;
            };
            assert!(messages.contains("CertificateRequest"), "{version:?}: {messages}");
            let Some(messages) = indifferent.messages(version) else {
                return;
            };
            assert!(messages.contains("Finished"), "{version:?}: {messages}");
            assert!(
                !messages.contains("CertificateRequest"),
                "{version:?}: {messages}"
            );
        }
    }

    #[test]
    fn names_of_the_authorities_are_advertised() {
        let mut pki = Pki::new();
        let second = Authority::new("second root");
        pki.ca_file = pki.write("anchors.pem", &(pki.authority.pem() + &second.pem()));
        let served = Served::start(pki, &["--allow-cn=client"]);
        let Some(report) = served.handshake_report(&[]) else {
            return;
        };
        let report = report.stdout.replace(' ', "");
        let names = report
            .split_once("AcceptableclientcertificateCAnames")
            .expect("a list")
            .1;
        assert!(names.starts_with("\nCN=testroot\nCN=secondroot\n"), "{names}");
    }

    #[test]
    fn anybody_is_served_without_authentication() {
        let served = Served::start(Pki::new(), &["--disable-authentication"]);
        for version in Version::BOTH {
            served.greet(&served.client().version(version)).expect("served");
        }
        served
            .greet(&served.client().identity(&served.pki.stranger))
            .expect("not asked for a certificate");
        served.process.wait_for_line("[no cert] <->");
    }
}

mod start {
    use super::*;

    /// Checks that a server with these flags does not start, and says why.
    fn assert_no_start(target: &str, flags: &[&str], reason: &str) {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        let output = server(&pki, &listen, &target).args(flags).run();
        assert_eq!(output.exit, Exit::Code(1), "{flags:?}: {output:?}");
        assert_eq!(output.stderr, format!("error: {reason}\n"), "{flags:?}");
        assert!(
            output.stdout.trim_end().ends_with(&format!(" error: {reason}")),
            "{output:?}"
        );
    }

    #[test]
    fn without_any_access_rule_is_refused() {
        let reason = "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
                      --disable-authentication) is required";
        assert_no_start("localhost:1", &[], reason);
    }

    #[test]
    fn access_rules_and_disabled_authentication_exclude_each_other() {
        let reason = "--disable-authentication is mutually exclusive with other access control flags";
        for rule in [
            "--allow-all",
            "--allow-cn=a",
            "--allow-ou=a",
            "--allow-dns=a",
            "--allow-ip=127.0.0.1",
            "--allow-uri=a",
            "--allow-cn=",
        ] {
            assert_no_start("localhost:1", &["--disable-authentication", rule], reason);
        }
    }

    #[test]
    fn everybody_and_somebody_exclude_each_other() {
        let reason = "--allow-all is mutually exclusive with other access control flags";
        for rule in [
            "--allow-cn=a",
            "--allow-ou=a",
            "--allow-dns=a",
            "--allow-ip=::1",
            "--allow-uri=a",
        ] {
            assert_no_start("localhost:1", &["--allow-all", rule], reason);
        }
    }

    #[test]
    fn target_must_be_local() {
        let reason = "--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)";
        for target in [
            "example.com:80",
            "192.0.2.1:80",
            "127.0.0.2:80",
            "LOCALHOST:80",
            "localhost.:80",
            "localhost.example.com:80",
            "127.0.0.1.example.com:80",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "UNIX:/run/x",
        ] {
            assert_no_start(target, &["--allow-all"], reason);
        }
    }

    #[test]
    fn unsafe_target_is_dialled_when_asked_for() {
        let backend = Backend::tcp_at(SocketAddr::from(([127, 0, 0, 2], 0)), Behaviour::Echo);
        let served = Served::before(backend, Pki::new(), &["--allow-all", "--unsafe-target"]);
        assert!(served.admits(&served.pki.client));
    }

    #[test]
    fn local_targets_are_dialled() {
        let pki = Pki::new();
        let path = pki.path("backend.sock");
        let served = Served::before(Backend::unix(&path, Behaviour::Echo), pki, &["--allow-all"]);
        assert!(served.admits(&served.pki.client));
    }

    #[test]
    fn target_that_can_only_be_listened_on_is_refused() {
        for (target, word) in [("systemd:x", "systemd"), ("launchd:x", "launchd")] {
            let reason = format!(
                "invalid --target network \"{word}\": only tcp and unix targets are supported (systemd:/launchd: \
                 cannot be dialed)"
            );
            assert_no_start(target, &["--allow-all"], &reason);
            assert_no_start(target, &["--allow-all", "--unsafe-target"], &reason);
        }
    }

    /// An address that cannot be bound would be the error if it had been tried.
    #[test]
    fn rules_are_checked_before_anything_is_bound() {
        let pki = Pki::new();
        let start = |target: &str, rule: &str| {
            let files = &pki.server_files;
            let mut command = ghostunnel();
            command
                .args(["server", "--listen=192.0.2.1:1", "--target", target, rule])
                .flag("--cacert", &pki.ca_file)
                .flag("--keystore", &files.keystore);
            command.run().stderr
        };
        let unbindable = start("localhost:1", "--allow-all");
        assert!(
            unbindable.contains("cannot assign requested address"),
            "{unbindable}"
        );
        let unsafe_target = start("192.0.2.1:1", "--allow-all");
        assert!(
            unsafe_target.starts_with("error: --target must be "),
            "{unsafe_target}"
        );
        let no_rule = start("localhost:1", "--skip-resolve");
        assert!(
            no_rule.starts_with("error: at least one access control flag "),
            "{no_rule}"
        );
    }

    #[test]
    fn any_address_may_be_listened_on() {
        let (pki, backend) = (Pki::new(), Backend::tcp(Behaviour::Echo));
        let reserved = ReservedPort::on(Ipv4Addr::UNSPECIFIED);
        let files = &pki.server_files;
        let mut command = ghostunnel();
        command
            .args(["server", "--allow-all"])
            .flag("--listen", format!(":{}", reserved.port()))
            .flag("--target", backend.address().to_string())
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", &files.keystore);
        let process = command.start();
        process.wait_listening(reserved.port());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, reserved.port()));
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        let mut peer = client.connect(&address.into()).expect("it listens everywhere");
        peer.write_all(b"hello").expect("open");
        backend.connection(0).wait_received(5);
    }
}

mod status_port {
    use super::*;

    #[test]
    fn nothing_but_the_tunnel_listens_unless_asked_for() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        assert!(served.admits(&served.pki.client));
        assert_eq!(listening_ports(served.process.id()), [served.listen.port()]);
    }

    #[test]
    fn certificate_is_not_asked_for() {
        let status = ReservedPort::new();
        let flag = format!("--status={}", status.address());
        let served = Served::start(Pki::new(), &["--allow-cn=nobody", &flag]);
        served.process.wait_listening(status.port());
        let (address, client) = (status.address().into(), served.client());
        let response = Endpoint::Https(&address, &client)
            .get("/_status")
            .expect("an answer");
        assert_eq!(response.status, 200, "{response:?}");
        // The check of the target, which the backend may notice later than we have the answer.
        served.backend.wait_accepted(1);
        assert!(!served.admits(&served.pki.client), "the status port is no way in");
    }

    #[test]
    fn address_is_the_one_that_was_given() {
        let status = ReservedPort::on(Ipv4Addr::UNSPECIFIED);
        let flag = format!("--status=http://{}", status.address());
        let served = Served::start(Pki::new(), &["--allow-all", &flag]);
        served.process.wait_listening(status.port());
        let mut expected = [served.listen.port(), status.port()];
        expected.sort_unstable();
        assert_eq!(listening_ports(served.process.id()), expected);
    }
}

mod log {
    use super::*;

    /// What a peer chooses must not look like a line of its own, nor move a terminal's cursor.
    const EVIL: &str = "evil\n[1] 2020/01/01 00:00:00.000000 forged\r\x1b[31m\0\u{202e}";

    fn assert_clean(process: &Process) {
        for line in process.lines() {
            assert!(!line.text().chars().any(char::is_control), "{line:?}");
            assert!(!line.text().contains('\u{202e}'), "{line:?}");
            assert!(!line.text().starts_with("[1] 2020"), "{line:?}");
        }
    }

    #[test]
    fn admitted_peer_cannot_forge_lines() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let request = Request::named(EVIL).organizational_unit("unit\nforged");
        let request = request.attribute(Attribute::text(oid::ORGANIZATION, "\x07bell"));
        assert!(served.admits(&served.pki.authority.issue(&request)));
        served.process.wait_for_line("closed pipe:");
        for moment in ["opening pipe: ", "closed pipe: "] {
            let line = served.process.wait_for_line(moment);
            assert!(
                line.contains(r"CN=evil\n[1] 2020/01/01 00:00:00.000000 forged\r\x1b[31m"),
                "{line}"
            );
            assert!(line.contains(r"OU=unit\nforged"), "{line}");
            assert_eq!(served.process.count_lines(moment), 1);
        }
        assert_clean(&served.process);
    }

    /// The issuer's name appears in the reason when somebody else has signed in its name.
    #[test]
    fn refused_peer_cannot_forge_lines() {
        let mut pki = Pki::new();
        pki.ca_file = pki.write("anchors.pem", &Authority::new(EVIL).pem());
        let served = Served::start(pki, &["--allow-all"]);
        let impostor = Authority::new(EVIL).issue(&Pki::client_request());
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of ";
        served.assert_refuses(Some(&impostor), UNKNOWN_CA, reason);

        let unparsable = served
            .pki
            .authority
            .issue(&Request::named(EVIL).uri("a\nb\x1b://%zz"));
        let reason = "tls: failed to parse client certificate: ";
        // By version, in the order of the two.
        let alerts = [AlertDescription::DecodeError, AlertDescription::BadCertificate];
        served.assert_refuses(Some(&unparsable), alerts, reason);
        assert_clean(&served.process);
    }
}
