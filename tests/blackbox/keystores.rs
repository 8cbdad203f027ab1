//! Keystores of all formats and their passwords: at start, on reload, and never in a log.
//!
//! `tests/fixtures/keystores/README.md` says where the files come from. Which file is read and
//! which refused, with its text, is tested beside the code; here the program runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, Exit, Pki, Plain, Process, ReservedPort,
    Signal, TlsClient, TlsServer, eventually, eventually_some,
};
use serde_json::Value;

use crate::operator::{Client, Peer, SetWhenDropped, get, text};
use crate::support::ghostunnel;

const PASSWORD: &str = "open-sesame";

/// One file or more of each format and each program.
const READABLE: [(&str, &str); 15] = [
    ("pem-key-first.pem", ""),
    ("pem-pkcs1.pem", ""),
    ("pem-encrypted-aes256.pem", PASSWORD),
    ("pem-encrypted-pbe-des3.pem", PASSWORD),
    ("openssl-3.p12", PASSWORD),
    ("openssl-1.1.p12", PASSWORD),
    ("openssl-empty-password.p12", ""),
    ("openssl-rsa.pfx", PASSWORD),
    ("openssl-without-extension", PASSWORD),
    ("made-issuer-first.p12", PASSWORD),
    ("nss.p12", PASSWORD),
    ("keytool.p12", PASSWORD),
    ("keytool-trusted.p12", PASSWORD),
    ("keytool-trusted.jceks", PASSWORD),
    ("keytool.jks", PASSWORD),
];

/// Files that are no good in ways of their own, and what is said about each.
const BROKEN: [(&str, &str, &str); 9] = [
    (
        "openssl-3.p12",
        "wrong",
        "unable to read keystore: pkcs12: decryption password incorrect",
    ),
    (
        "openssl-half.p12",
        PASSWORD,
        "unable to read keystore: pkcs12: error reading P12 data: asn1: ",
    ),
    (
        "openssl-no-key.p12",
        PASSWORD,
        "unable to read keystore: pkcs12: private key missing",
    ),
    (
        "openssl-no-certificate.p12",
        PASSWORD,
        "unable to read keystore: pkcs12: certificate missing",
    ),
    (
        "keytool.jks",
        "wrong",
        "integrity protection violation: keystore was tampered with or password was incorrect",
    ),
    (
        "keytool-altered.jks",
        PASSWORD,
        "integrity protection violation: keystore was tampered with or password was ",
    ),
    (
        "keytool-half.jceks",
        PASSWORD,
        "unable to parse keystore: invalid JCEKS data: failed to read entry 0",
    ),
    (
        "pem-no-key.pem",
        PASSWORD,
        "failed to find PEM block with type ending in \"PRIVATE KEY\"",
    ),
    (
        "pem-encrypted-aes256.pem",
        "wrong",
        "tls: failed to parse private key; it is encrypted, and not with ",
    ),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keystores")
        .join(name)
}

fn ca_file() -> PathBuf {
    fixture("ca.pem")
}

/// A server tunnel for clients of `pki`; whose certificate it has is for the caller to add.
fn server(pki: &Pki, listen: &ReservedPort, status: &ReservedPort, target: &Address) -> Command {
    let mut command = ghostunnel();
    command
        .args(["server", "--allow-all"])
        .flag("--listen", listen.address().to_string())
        .flag("--target", target.to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--status", format!("http://{}", status.address()));
    command
}

/// A client of `pki` that accepts no certificate but one of the fixtures' authority.
fn client(pki: &Pki) -> Client {
    Client::Tls(Box::new(
        TlsClient::trusting_file(&ca_file()).identity(&pki.client),
    ))
}

/// The last certificate that a client of the tunnel is shown first.
fn shown(client: &Client, listen: &ReservedPort) -> Vec<u8> {
    match client.connect(&listen.address().into()).expect("admitted") {
        Peer::Tls(peer) => peer.facts().peer_certificates[0].to_vec(),
        Peer::Plain(_) => unreachable!("it speaks TLS"),
    }
}

#[track_caller]
fn visit(client: &Client, listen: &ReservedPort) {
    let mut peer = client.connect(&listen.address().into()).expect("admitted");
    peer.echo(b"hello").expect("answered");
    peer.close().expect("closed in good order");
}

#[test]
fn server_tunnels_serve_with_keystores_of_every_format() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    for (name, password) in READABLE {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = server(&pki, &listen, &status, backend.address())
            .flag("--keystore", fixture(name))
            .flag("--storepass", password)
            .start();
        process.wait_listening(status.port());
        visit(&client(&pki), &listen);
        assert_eq!(process.count_lines(PASSWORD), 0, "{name}");
    }
}

#[test]
fn client_tunnels_show_certificates_from_keystores_of_every_format() {
    let pki = Pki::new();
    let backend = Backend::tls(
        TlsServer::new(&pki.server, &ClientCertificates::required_by_file(&ca_file())),
        Behaviour::Echo,
    );
    for (name, password) in READABLE {
        let listen = ReservedPort::new();
        let process = ghostunnel()
            .arg("client")
            .flag("--listen", listen.address().to_string())
            .flag("--target", format!("localhost:{}", backend.port()))
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", fixture(name))
            .flag("--storepass", password)
            .start();
        process.wait_listening(listen.port());
        let mut peer = Plain::connect(&listen.address().into())
            .map(Peer::Plain)
            .expect("open");
        peer.echo(b"hello")
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", process.stdout()));
    }
}

/// How a tunnel can be given the password.
#[test]
fn passwords_come_by_flag_variable_file_or_credential() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    fs::create_dir(pki.path("credentials")).expect("created");
    let file = pki.write("credentials/pass", "open-sesame\n");
    let keystore = fixture("openssl-3.p12");
    type Adapt<'a> = &'a dyn Fn(&mut Command);
    let ways: [(&str, Adapt<'_>); 5] = [
        ("flag", &|command| _ = command.flag("--storepass", PASSWORD)),
        ("variable", &|command| _ = command.env("KEYSTORE_PASS", PASSWORD)),
        ("file", &|command| _ = command.flag("--storepass-file", &file)),
        ("variable with a file", &|command| {
            _ = command
                .directory(pki.dir())
                .env("KEYSTORE_PASS_FILE", "credentials/pass");
        }),
        ("credential", &|command| {
            command
                .flag("--storepass-file", "credential:pass")
                .env("CREDENTIALS_DIRECTORY", pki.path("credentials"));
        }),
    ];
    for (way, adapt) in ways {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let mut command = server(&pki, &listen, &status, backend.address());
        command.flag("--keystore", &keystore);
        adapt(&mut command);
        let process = command.start();
        process.wait_listening(status.port());
        visit(&client(&pki), &listen);
        // What was read at start can be read again, also inside the sandbox.
        assert_eq!(reload(&process, &status)["last_reload_ok"], true, "{way}");
        assert_eq!(process.count_lines(PASSWORD), 0, "{way}");
    }
}

#[test]
fn password_flags_that_make_no_sense_stop_the_start() {
    for (words, expected) in [
        (
            &["--storepass=x", "--storepass-file=y"][..],
            "error: --storepass and --storepass-file are mutually exclusive",
        ),
        (
            &["--storepass-file=credential:x"],
            "error: --storepass-file=credential: needs $CREDENTIALS_DIRECTORY",
        ),
    ] {
        let output = ghostunnel()
            .args([
                "server",
                "--allow-all",
                "--listen=127.0.0.1:0",
                "--target=127.0.0.1:1",
            ])
            .flag("--keystore", fixture("openssl-3.p12"))
            .args(words)
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        assert!(output.stderr.starts_with(expected), "{output:?}");
    }
}

#[test]
fn broken_keystores_stop_the_start_and_say_why() {
    let pki = Pki::new();
    let listen = ReservedPort::new();
    for (name, password, expected) in BROKEN {
        let output = ghostunnel()
            .args(["server", "--allow-all", "--target=127.0.0.1:1"])
            .flag("--listen", listen.address().to_string())
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", fixture(name))
            .flag("--storepass", password)
            .run();
        assert_eq!(output.exit, Exit::Code(1), "{name}");
        assert!(output.stderr.starts_with("error: "), "{name}: {output:?}");
        assert!(output.stderr.contains(expected), "{name}: {output:?}");
        assert!(output.stderr.contains(name), "the file is named: {output:?}");
        assert!(
            output.stdout.contains(expected),
            "the log says it too: {output:?}"
        );
        assert!(!format!("{output:?}").contains(PASSWORD), "{output:?}");
    }
}

/// Asks for a reload and waits for its end.
fn reload(process: &Process, status: &ReservedPort) -> Value {
    let report = || get(status, "/_status").json();
    let before = text(&report(), "last_reload");
    process.signal(Signal::HUP);
    eventually_some("last_reload has changed", || {
        let report = report();
        (text(&report, "last_reload") != before).then_some(report)
    })
}

/// Puts a fixture in the place of a file in one step.
fn put(path: &Path, name: &str) {
    let fresh = path.with_extension("fresh");
    fs::copy(fixture(name), &fresh).expect("a copy");
    fs::rename(&fresh, path).expect("renamed");
}

#[test]
fn broken_keystores_change_nothing_on_reload_under_traffic() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    // Without an extension, so that the format may change with the contents.
    let keystore = pki.path("keystore");
    let password = pki.write("password", PASSWORD);
    put(&keystore, "openssl-3.p12");
    let process = server(&pki, &listen, &status, backend.address())
        .flag("--keystore", &keystore)
        .flag("--storepass-file", &password)
        .start();
    process.wait_listening(status.port());
    let client = client(&pki);
    let old = shown(&client, &listen);
    let (is_over, visits) = (AtomicBool::new(false), AtomicUsize::new(0));
    let visits_grow = || {
        let before = visits.load(Ordering::SeqCst);
        eventually("there is traffic", || visits.load(Ordering::SeqCst) > before + 1);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                visit(&client, &listen);
                visits.fetch_add(1, Ordering::SeqCst);
            }
        });
        let _stop = SetWhenDropped(&is_over);
        for (name, given, expected) in BROKEN {
            put(&keystore, name);
            pki.write("password", given);
            let mark = process.mark();
            let report = reload(&process, &status);
            assert_eq!(report["last_reload_ok"], false, "{name}");
            process.wait_for_line_after(mark, "error reloading TLS configuration: ");
            process.wait_for_line_after(mark, expected);
            visits_grow();
            assert_eq!(shown(&client, &listen), old, "{name}");
        }
        pki.write("password", PASSWORD);
        put(&keystore, "keytool.jks");
        assert_eq!(reload(&process, &status)["last_reload_ok"], true);
        assert_eq!(
            shown(&client, &listen),
            old,
            "another file with the same certificate"
        );
        put(&keystore, "openssl-rsa.pfx");
        assert_eq!(reload(&process, &status)["last_reload_ok"], true);
        assert_ne!(shown(&client, &listen), old, "a new certificate is shown");
        visits_grow();
    });
    assert_eq!(process.count_lines(PASSWORD), 0);
}

/// Right or wrong, by flag or by file, at start or on reload: a password is in no line and in
/// no answer.
#[test]
fn passwords_are_in_no_log_and_no_answer() {
    const WRONG: &str = "tell-nobody";
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let file = pki.write("password", PASSWORD);
    for name in ["openssl-3.p12", "keytool.jceks", "pem-encrypted-aes256.pem"] {
        for (flag, value) in [
            ("--storepass", PASSWORD),
            ("--storepass-file", file.to_str().expect("ASCII")),
        ] {
            let (listen, status) = (ReservedPort::new(), ReservedPort::new());
            let keystore = pki.path(name);
            put(&keystore, name);
            let process = server(&pki, &listen, &status, backend.address())
                .args(["--log-level=debug", "--enable-shutdown"])
                .flag("--keystore", &keystore)
                .flag(flag, value)
                .start();
            process.wait_listening(status.port());
            visit(&client(&pki), &listen);
            fs::write(&keystore, "noise").expect("written");
            assert_eq!(reload(&process, &status)["last_reload_ok"], false);
            let answers = ["/_status", "/_metrics", "/_metrics/json", "/_metrics/prometheus"]
                .map(|path| get(&status, path).text().to_owned());
            process.signal(Signal::TERM);
            let output = process.wait_output();
            for shown in [&output.stdout, &output.stderr].into_iter().chain(&answers) {
                assert!(!shown.contains(PASSWORD), "{name} {flag}: {shown}");
            }
        }
        let listen = ReservedPort::new();
        let output = server(&pki, &listen, &ReservedPort::new(), backend.address())
            .arg("--log-level=debug")
            .flag("--keystore", fixture(name))
            .flag("--storepass", WRONG)
            .run();
        assert_eq!(output.exit, Exit::Code(1), "{name}");
        assert!(
            !format!("{}{}", output.stdout, output.stderr).contains(WRONG),
            "{output:?}"
        );
    }
}

/// Bundles are PEM only, as before.
#[test]
fn keystores_are_refused_as_trust_bundles() {
    let pki = Pki::new();
    for name in ["openssl-3.p12", "keytool-trusted-only.jks", "der-certificate.der"] {
        let output = ghostunnel()
            .args([
                "server",
                "--allow-all",
                "--listen=127.0.0.1:0",
                "--target=127.0.0.1:1",
            ])
            .flag("--keystore", &pki.server_files.keystore)
            .flag("--storepass", PASSWORD)
            .flag("--cacert", fixture(name))
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        let expected = "loading trust store: unable to read certificates from CA bundle";
        assert!(output.stderr.contains(expected), "{name}: {output:?}");
    }
}
