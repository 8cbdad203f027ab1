//! Reloading certificates, keys and trust anchors while connections go on.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use ghostunnel_testing::{
    Address, Authority, Backend, Behaviour, ClientCertificates, End, Endpoint, Files, Issued, KeyKind, Pki,
    Plain, Process, Request, ReservedPort, Signal, TlsClient, TlsServer, eventually, read_to_end,
};

use crate::operator::{
    BOTH_MODES, Mode, SetWhenDropped, Tunnel, command, echo_backend, get, message, replace, text,
};

/// The files that a tunnel of this mode got as its own certificate and key.
fn own_files(mode: Mode, pki: &Pki) -> &Files {
    match mode {
        Mode::Server => &pki.server_files,
        Mode::Client => &pki.client_files,
    }
}

fn own_request(mode: Mode) -> Request {
    match mode {
        Mode::Server => Pki::server_request(),
        Mode::Client => Pki::client_request(),
    }
}

fn put(files: &Files, issued: &Issued) {
    replace(&files.key, &issued.key_pem());
    replace(&files.certificate, &issued.chain_pem());
}

/// The certificate that the far side of the tunnel's TLS sees now.
fn shown_certificate(tunnel: &Tunnel) -> Vec<u8> {
    match tunnel.mode {
        Mode::Server => {
            let client = TlsClient::trusting(&tunnel.pki.authority).identity(&tunnel.pki.client);
            let peer = client.connect(&tunnel.listen.address().into()).expect("admitted");
            peer.facts().peer_certificates[0].to_vec()
        }
        Mode::Client => {
            let index = tunnel.backend.accepted();
            tunnel.visit();
            // The visit and nobody else: no status request is under way.
            let facts = tunnel
                .backend
                .connection(index)
                .tls()
                .expect("the handshake is over");
            facts.peer_certificates[0].to_vec()
        }
    }
}

#[test]
fn new_certificate_is_used_by_the_next_handshake() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let old = shown_certificate(&tunnel);
        let fresh = tunnel.pki.authority.issue(&own_request(mode));
        put(own_files(mode, &tunnel.pki), &fresh);
        assert_eq!(
            shown_certificate(&tunnel),
            old,
            "{mode:?}: nobody asked for a reload yet"
        );
        assert_eq!(tunnel.reload()["last_reload_ok"], true);
        assert_eq!(shown_certificate(&tunnel), fresh.der(), "{mode:?}");
    }
}

#[test]
fn key_of_another_kind_is_used_by_the_next_handshake() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        for kind in [KeyKind::Rsa2048, KeyKind::P384, KeyKind::Ed25519, KeyKind::P256] {
            let fresh = tunnel.pki.authority.issue(&own_request(mode).key(kind));
            put(own_files(mode, &tunnel.pki), &fresh);
            assert_eq!(tunnel.reload()["last_reload_ok"], true, "{mode:?} {kind:?}");
            assert_eq!(shown_certificate(&tunnel), fresh.der(), "{mode:?} {kind:?}");
        }
    }
}

#[test]
fn keystore_is_read_again() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = crate::support::ghostunnel()
        .arg("server")
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--keystore", &pki.server_files.keystore)
        .flag("--status", format!("http://{}", status.address()))
        .arg("--allow-all")
        .start();
    process.wait_listening(status.port());
    let fresh = pki.authority.issue(&Pki::server_request());
    replace(
        &pki.server_files.keystore,
        &(fresh.chain_pem() + &fresh.key_pem()),
    );
    process.signal(Signal::HUP);
    process.wait_for_line("reloading configuration complete");
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let peer = client.connect(&listen.address().into()).expect("admitted");
    assert_eq!(&*peer.facts().peer_certificates[0], fresh.der());
}

#[test]
fn new_trust_anchors_admit_and_refuse_the_next_clients() {
    let tunnel = Tunnel::start(Mode::Server);
    let enter = |identity: &Issued| {
        let client = TlsClient::trusting(&tunnel.pki.authority).identity(identity);
        let mut peer = client.connect(&tunnel.listen.address().into()).expect("TLS 1.3");
        let answer = peer.write_all(b"x").and_then(|()| peer.read_exact(&mut [0]));
        answer.map_err(|error| End::from(&error))
    };
    let refused = End::Alert(ghostunnel_testing::AlertDescription::UnknownCA);
    assert_eq!(enter(&tunnel.pki.client), Ok(()));
    assert_eq!(enter(&tunnel.pki.stranger), Err(refused.clone()));
    replace(&tunnel.pki.ca_file, &tunnel.pki.other_authority.pem());
    tunnel.reload();
    assert_eq!(enter(&tunnel.pki.client), Err(refused));
    assert_eq!(enter(&tunnel.pki.stranger), Ok(()));
}

/// Without `--cacert`. Ghostunnel 1.11.1 read the system's trust store once.
#[test]
fn system_trust_store_is_read_again() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let store = pki.path("store");
    fs::create_dir(&store).expect("created");
    let file = store.join("bundle.crt");
    fs::write(&file, pki.authority.pem()).expect("written");
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = crate::support::ghostunnel()
        .args(["server", "--allow-all"])
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--keystore", &pki.server_files.keystore)
        .flag("--status", format!("http://{}", status.address()))
        .env("SSL_CERT_FILE", &file)
        .env("SSL_CERT_DIR", pki.path("missing"))
        .start();
    process.wait_listening(status.port());
    let is_admitted = |identity: &Issued| {
        let client = TlsClient::trusting(&pki.authority).identity(identity);
        let mut peer = client.connect(&listen.address().into()).expect("TLS 1.3");
        peer.write_all(b"x")
            .and_then(|()| peer.read_exact(&mut [0]))
            .is_ok()
    };
    assert_eq!(
        (is_admitted(&pki.client), is_admitted(&pki.stranger)),
        (true, false)
    );
    replace(&file, &pki.other_authority.pem());
    process.signal(Signal::HUP);
    process.wait_for_line("reloading configuration complete");
    assert_eq!(
        (is_admitted(&pki.client), is_admitted(&pki.stranger)),
        (false, true)
    );
}

#[test]
fn new_trust_anchors_decide_which_servers_a_client_tunnel_accepts() {
    let pki = Pki::new();
    let foreign = pki.other_authority.issue(&Pki::server_request());
    let backend = Backend::tls(
        TlsServer::new(&foreign, &ClientCertificates::Unasked),
        Behaviour::Echo,
    );
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(Mode::Client, &pki, &listen, backend.address())
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    assert_eq!(get(&status, "/_status").json()["backend_ok"], false);
    replace(&pki.ca_file, &pki.other_authority.pem());
    process.signal(Signal::HUP);
    process.wait_for_line("reloading configuration complete");
    assert_eq!(get(&status, "/_status").json()["backend_ok"], true);
    let mut peer = Plain::connect(&listen.address().into()).expect("listening");
    peer.end_writing();
    assert_eq!(read_to_end(&mut peer), (vec![], End::Closed));
    // Two checks and one connection; the first check ended in a refusal.
    assert_eq!(backend.accepted(), 3);
}

#[test]
fn client_tunnel_without_certificate_reloads_its_trust_anchors() {
    let pki = Pki::new();
    let backend = Backend::tls(
        TlsServer::new(&pki.server, &ClientCertificates::Unasked),
        Behaviour::Echo,
    );
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = crate::support::ghostunnel()
        .arg("client")
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--status", format!("http://{}", status.address()))
        .arg("--disable-authentication")
        .start();
    process.wait_listening(status.port());
    replace(&pki.ca_file, &pki.other_authority.pem());
    process.signal(Signal::HUP);
    process.wait_for_line("reloading configuration complete");
    assert_eq!(process.count_lines("loaded certificate"), 0);
    assert_eq!(get(&status, "/_status").json()["backend_ok"], false);
}

#[test]
fn status_port_shows_the_new_certificate() {
    for mode in BOTH_MODES {
        let pki = Pki::new();
        let backend = echo_backend(mode, &pki);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(mode, &pki, &listen, backend.address())
            .flag("--status", status.address().to_string())
            .start();
        process.wait_listening(status.port());
        let name = if mode == Mode::Server {
            "localhost"
        } else {
            "client.test"
        };
        let client = TlsClient::trusting(&pki.authority).server_name(name);
        let shown = || {
            let peer = client
                .connect(&status.address().into())
                .expect("a trusted certificate");
            peer.facts().peer_certificates[0].to_vec()
        };
        let fresh = pki.authority.issue(&own_request(mode).key(KeyKind::P384));
        assert_ne!(shown(), fresh.der());
        put(own_files(mode, &pki), &fresh);
        process.signal(Signal::USR1);
        process.wait_for_line("reloading configuration complete");
        // The line comes before the last step of a reload by a hair.
        eventually("the new certificate is shown", || shown() == fresh.der());
    }
}

#[test]
fn every_trigger_reloads_and_is_logged_in_its_own_way() {
    for (signal, announcement) in [
        (Signal::HUP, "received hangup, reloading TLS configuration"),
        (
            Signal::USR1,
            "received user defined signal 1, reloading TLS configuration",
        ),
    ] {
        let tunnel = Tunnel::start(Mode::Server);
        let mark = tunnel.process.mark();
        tunnel.process.signal(signal);
        tunnel
            .process
            .wait_for_line_after(mark, "reloading configuration complete");
        let lines = tunnel.process.lines();
        let messages: Vec<_> = lines[mark..].iter().map(|line| message(line.text())).collect();
        assert_eq!(
            messages,
            [
                announcement,
                "loaded certificate: CN=server",
                "reloading configuration complete"
            ]
        );
    }
}

#[test]
fn timed_reload_comes_again_and_again_without_an_announcement() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--timed-reload=50ms");
    });
    let fresh = tunnel.pki.authority.issue(&Pki::server_request());
    put(&tunnel.pki.server_files, &fresh);
    eventually("the new certificate is shown", || {
        shown_certificate(&tunnel) == fresh.der()
    });
    let first = tunnel.last_reload();
    eventually("another reload came", || tunnel.last_reload() != first);
    let lines = tunnel.process.stdout();
    let after_start = lines
        .lines()
        .map(message)
        .skip_while(|text| !text.starts_with("listening"));
    let mut others = after_start.skip(1).filter(|text| !text.contains(" pipe: "));
    let known = [
        "loaded certificate: CN=server",
        "reloading configuration complete",
    ];
    assert!(others.all(|text| known.contains(&text)), "{lines}");
    assert!(tunnel.process.count_lines(known[0]) >= 2);
}

#[test]
fn certificate_is_announced_on_reload_only() {
    for (mode, name) in [
        (Mode::Server, "CN=server"),
        (Mode::Client, "CN=client,OU=clients"),
    ] {
        let tunnel = Tunnel::start(mode);
        tunnel.process.wait_for_line("listening for connections on");
        assert_eq!(tunnel.process.count_lines("loaded certificate"), 0);
        tunnel.reload();
        let line = tunnel.process.wait_for_line("loaded certificate");
        assert_eq!(message(&line), format!("loaded certificate: {name}"));
    }
}

/// One way to spoil the files of a tunnel, and what the log then says of it.
type Damage = (&'static str, fn(&Tunnel), &'static str);

const DAMAGES: [Damage; 9] = [
    (
        "bad certificate",
        |tunnel| {
            replace(
                certificate(tunnel),
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
        },
        "parsing X509 key pair",
    ),
    (
        "half-written certificate",
        |tunnel| {
            let whole = fs::read_to_string(certificate(tunnel)).expect("readable");
            fs::write(certificate(tunnel), &whole[..whole.len() / 2]).expect("writable");
        },
        "certificate",
    ),
    (
        "half-written key",
        |tunnel| {
            let key = &own_files(tunnel.mode, &tunnel.pki).key;
            let whole = fs::read_to_string(key).expect("readable");
            fs::write(key, &whole[..whole.len() / 2]).expect("writable");
        },
        "reading certificate file",
    ),
    (
        "certificate of another key",
        |tunnel| {
            let other = tunnel.pki.authority.issue(&own_request(tunnel.mode));
            replace(certificate(tunnel), &other.chain_pem());
        },
        "private key does not match public key",
    ),
    (
        "missing certificate",
        |tunnel| fs::remove_file(certificate(tunnel)).expect("it was there"),
        "no such file or directory",
    ),
    (
        "missing key",
        |tunnel| fs::remove_file(&own_files(tunnel.mode, &tunnel.pki).key).expect("it was there"),
        "no such file or directory",
    ),
    (
        "missing bundle",
        |tunnel| fs::remove_file(&tunnel.pki.ca_file).expect("it was there"),
        "no such file or directory",
    ),
    (
        "empty bundle",
        |tunnel| fs::write(&tunnel.pki.ca_file, "").expect("writable"),
        "trust store",
    ),
    (
        "symbolic link out of what the sandbox allows",
        |tunnel| {
            let outside = Path::new("/var/lib/ghostunnel-no-such-directory/cert.pem");
            fs::remove_file(certificate(tunnel)).expect("it was there");
            symlink(outside, certificate(tunnel)).expect("linked");
        },
        "open ",
    ),
];

fn certificate(tunnel: &Tunnel) -> &PathBuf {
    &own_files(tunnel.mode, &tunnel.pki).certificate
}

#[test]
fn failed_reload_keeps_everything_old_and_says_so() {
    for mode in BOTH_MODES {
        for (name, damage, reason) in DAMAGES {
            let tunnel = Tunnel::start(mode);
            let old = shown_certificate(&tunnel);
            damage(&tunnel);
            let mark = tunnel.process.mark();
            let report = tunnel.reload();
            assert_eq!(report["last_reload_ok"], false, "{mode:?} {name}: {report}");
            assert!(
                text(&report, "last_reload_error").contains(reason),
                "{name}: {report}"
            );
            assert_eq!(
                (&report["ok"], &report["message"]),
                (&true.into(), &"listening".into())
            );

            tunnel
                .process
                .wait_for_line_after(mark, "reloading configuration complete");
            let lines = tunnel.process.lines();
            let messages: Vec<_> = lines[mark..]
                .iter()
                .map(|line| message(line.text()))
                .filter(|message| !message.contains(" pipe: "))
                .collect();
            assert_eq!(messages.len(), 3, "{mode:?} {name}: {messages:?}");
            assert!(
                messages[1].starts_with("error reloading TLS configuration: "),
                "{messages:?}"
            );
            assert!(messages[1].contains(reason), "{name}: {messages:?}");
            assert_eq!(messages[2], "reloading configuration complete");

            assert_eq!(shown_certificate(&tunnel), old, "{mode:?} {name}");
            tunnel.visit();
        }
    }
}

#[test]
fn bad_bundle_keeps_the_old_certificate_and_bad_certificate_the_old_bundle() {
    let tunnel = Tunnel::start(Mode::Server);
    let files = &tunnel.pki.server_files;
    let old = shown_certificate(&tunnel);
    let fresh = tunnel.pki.authority.issue(&Pki::server_request());
    put(files, &fresh);
    replace(&tunnel.pki.ca_file, "");
    assert_eq!(tunnel.reload()["last_reload_ok"], false);
    assert_eq!(shown_certificate(&tunnel), old);

    replace(&files.certificate, "");
    replace(&tunnel.pki.ca_file, &tunnel.pki.other_authority.pem());
    assert_eq!(tunnel.reload()["last_reload_ok"], false);
    tunnel.visit();

    replace(&files.certificate, &fresh.chain_pem());
    replace(&tunnel.pki.ca_file, &tunnel.pki.authority.pem());
    assert_eq!(tunnel.reload()["last_reload_ok"], true);
    assert_eq!(shown_certificate(&tunnel), fresh.der());
}

#[test]
fn recovery_from_a_failed_reload_needs_no_restart() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        fs::remove_file(certificate(&tunnel)).expect("it was there");
        let report = tunnel.reload();
        assert_eq!(report["last_reload_ok"], false);
        let fresh = tunnel.pki.authority.issue(&own_request(mode));
        put(own_files(mode, &tunnel.pki), &fresh);
        let report = tunnel.reload();
        assert_eq!(report["last_reload_ok"], true);
        assert!(report.get("last_reload_error").is_none(), "{report}");
        assert_eq!(shown_certificate(&tunnel), fresh.der());
    }
}

#[test]
fn last_reload_changes_with_every_reload() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut seen = vec![tunnel.last_reload()];
    assert_eq!(seen[0], "0001-01-01T00:00:00Z");
    let bundle = fs::read_to_string(&tunnel.pki.ca_file).expect("readable");
    for (bundle, is_ok) in [(bundle.as_str(), true), ("", false), ("", false), (&bundle, true)] {
        replace(&tunnel.pki.ca_file, bundle);
        let report = tunnel.reload();
        assert_eq!(report["last_reload_ok"], is_ok);
        let at = text(&report, "last_reload");
        assert!(!seen.contains(&at), "{at} again after {seen:?}");
        seen.push(at);
    }
}

/// Callers wait for `last_reload` to change and connect in the next moment with a certificate
/// that only the new bundle admits.
#[test]
fn load_changed_last_reload_means_that_the_new_trust_anchors_are_in_force() {
    const ROUNDS: usize = 50;
    let tunnel = Tunnel::start(Mode::Server);
    let (is_over, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    tunnel.visit();
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stop = SetWhenDropped(&is_over);
        for round in 0..ROUNDS {
            let newcomer = Authority::new(&format!("root {round}"));
            let identity = newcomer.issue(&Pki::client_request());
            replace(
                &tunnel.pki.ca_file,
                &(tunnel.pki.authority.pem() + &newcomer.pem()),
            );
            let client = TlsClient::trusting(&tunnel.pki.authority).identity(&identity);
            tunnel.reload();
            let mut peer = client.connect(&tunnel.listen.address().into()).expect("admitted");
            peer.write_all(b"x").expect("open");
            let answer = peer.read_exact(&mut [0]);
            assert!(answer.is_ok(), "round {round}: {answer:?}");
        }
    });
    assert!(visits.load(Ordering::SeqCst) > ROUNDS, "there was load");
}

#[test]
fn open_connections_are_untouched_by_reloads() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let mut peer = tunnel.connect().expect("admitted");
        peer.echo(b"before").expect("open");
        // Neither the certificate nor the anchors that admitted it are valid any more.
        replace(&tunnel.pki.ca_file, &tunnel.pki.other_authority.pem());
        put(
            own_files(mode, &tunnel.pki),
            &tunnel.pki.other_authority.issue(&own_request(mode)),
        );
        assert_eq!(tunnel.reload()["last_reload_ok"], true);
        peer.echo(b"after").expect("still open");
        peer.close().expect("in good order");
        assert_eq!(tunnel.process.count_lines("error during copy"), 0);
    }
}

/// A folder as container platforms mount secrets: `cert.pem` leads to `..data/cert.pem`, and
/// `..data` to a dated folder, which is exchanged in one step.
struct SymlinkFarm(PathBuf);

impl SymlinkFarm {
    fn new(dir: &Path, names: &[&str]) -> Self {
        fs::create_dir(dir).expect("created");
        for name in names {
            symlink(Path::new("..data").join(name), dir.join(name)).expect("linked");
        }
        Self(dir.to_owned())
    }

    fn publish(&self, version: &str, files: &[(&str, String)]) {
        let (link, fresh) = (self.0.join("..data"), self.0.join("..data_tmp"));
        let old = fs::read_link(&link).ok();
        fs::create_dir(self.0.join(version)).expect("created");
        for (name, text) in files {
            fs::write(self.0.join(version).join(name), text).expect("written");
        }
        symlink(version, &fresh).expect("linked");
        fs::rename(&fresh, &link).expect("exchanged");
        if let Some(old) = old {
            fs::remove_dir_all(self.0.join(old)).expect("removed");
        }
    }
}

#[test]
fn symlink_farm_is_rotated_inside_the_sandbox() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let farm = SymlinkFarm::new(&pki.path("secret"), &["cert.pem", "key.pem", "ca.pem"]);
    let publish = |version: &str, issued: &Issued| {
        farm.publish(
            version,
            &[
                ("cert.pem", issued.chain_pem()),
                ("key.pem", issued.key_pem()),
                ("ca.pem", pki.authority.pem()),
            ],
        );
    };
    publish("..2026_01_01", &pki.server);
    let process = crate::support::ghostunnel()
        .arg("server")
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", farm.0.join("ca.pem"))
        .flag("--cert", farm.0.join("cert.pem"))
        .flag("--key", farm.0.join("key.pem"))
        .flag("--status", format!("http://{}", status.address()))
        .arg("--allow-all")
        .start();
    process.wait_listening(status.port());
    assert!(process.count_lines("unable to set up landlock") == 0);
    for version in ["..2026_01_02", "..2026_01_03"] {
        let fresh = pki.authority.issue(&Pki::server_request());
        publish(version, &fresh);
        assert_eq!(
            shown_after_reload(&process, &pki, &listen.address().into()),
            fresh.der()
        );
    }
    assert_eq!(get(&status, "/_status").json()["last_reload_ok"], true);
}

fn shown_after_reload(process: &Process, pki: &Pki, address: &Address) -> Vec<u8> {
    let mark = process.mark();
    process.signal(Signal::HUP);
    process.wait_for_line_after(mark, "reloading configuration complete");
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let peer = client.connect(address).expect("admitted");
    peer.facts().peer_certificates[0].to_vec()
}

#[test]
fn many_reload_requests_at_once_end_in_the_last_state() {
    let tunnel = Tunnel::start(Mode::Server);
    for _ in 0..20 {
        let fresh = tunnel.pki.authority.issue(&Pki::server_request());
        put(&tunnel.pki.server_files, &fresh);
        for _ in 0..10 {
            tunnel.process.signal(Signal::HUP);
            tunnel.process.signal(Signal::USR1);
        }
        eventually("the last certificate is shown", || {
            shown_certificate(&tunnel) == fresh.der()
        });
    }
    let report = tunnel.status_report();
    assert_eq!(
        (&report["ok"], &report["message"]),
        (&true.into(), &"listening".into())
    );
}

#[test]
fn status_port_stays_secured_after_a_failed_reload() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(Mode::Server, &pki, &listen, backend.address())
        .flag("--status", status.address().to_string())
        .start();
    process.wait_listening(status.port());
    fs::remove_file(&pki.server_files.certificate).expect("it was there");
    process.signal(Signal::HUP);
    process.wait_for_line("error reloading TLS configuration");
    let address = status.address().into();
    let client = TlsClient::trusting(&pki.authority);
    let report = Endpoint::Https(&address, &client)
        .get("/_status")
        .expect("answered");
    assert_eq!(report.status, 200);
}
