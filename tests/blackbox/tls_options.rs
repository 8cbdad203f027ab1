//! `--cipher-suites` and `--max-tls-version`: what a tunnel speaks when it is told to.

use ghostunnel_testing::{Exit, Output, Pki, ReservedPort, Version, openssl};

use crate::client::hello;
use crate::server::Served;
use crate::support::{ghostunnel, server};

const AES: &str = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";
const CHACHA: &str = "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305";

#[test]
fn groups_limit_a_server_in_tls_1_2_only() {
    for (groups, other, named) in [("CHACHA", AES, CHACHA), (" AES ", CHACHA, AES)] {
        let flag = format!("--cipher-suites={groups}");
        let served = Served::start(Pki::new(), &["--allow-all", &flag]);
        served
            .process
            .wait_for_line("warning: --cipher-suites is deprecated: ");
        let suite = |options: &[&str]| served.chosen_suite(options);
        let Some(refused) = suite(&["-tls1_2", "-cipher", other]) else {
            return;
        };
        assert_eq!(refused, None, "{groups}");
        let accepted = suite(&["-tls1_2", "-cipher", named]).flatten().expect("a suite");
        assert!(named.contains(&accepted), "{groups}: {accepted}");
        for suites in ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
            let accepted = suite(&["-tls1_3", "-ciphersuites", suites]).flatten();
            assert_eq!(accepted.as_deref(), Some(suites), "{groups}");
        }
    }
}

#[test]
fn a_newest_version_holds_for_listener_and_status_port() {
    let status = ReservedPort::new();
    let flags = [
        "--allow-all",
        "--max-tls-version=tls1.2",
        &format!("--status=https://{}", status.address()),
    ];
    let served = Served::start(Pki::new(), &flags);
    let facts = served
        .greet(&served.client().identity(&served.pki.client))
        .expect("a client of both versions")
        .facts();
    assert_eq!(u16::from(facts.version), 0x0303);
    let newer = served.client().identity(&served.pki.client).version(Version::V13);
    served.greet(&newer).expect_err("TLS 1.3 only");

    let to_status = |version: &str| -> Option<Output> {
        let address = status.address().to_string();
        Some(openssl(&["s_client", "-connect", &address, version])?.run())
    };
    let Some(older) = to_status("-tls1_2") else { return };
    assert!(
        older.stdout.contains("Protocol: TLSv1.2") || older.stdout.contains("Protocol  : TLSv1.2"),
        "{older:?}"
    );
    let newer = to_status("-tls1_3").expect("OpenSSL is there");
    assert!(newer.stderr.contains("SSL alert number 70"), "{newer:?}");
}

#[test]
fn a_client_offers_what_it_is_told_to() {
    let by_name = |port: u16| format!("localhost:{port}");
    let suites = |flags: &[&str]| {
        let mut suites = hello(by_name, flags).cipher_suites;
        // An extension in disguise (RFC 5746, section 3.3).
        suites.retain(|suite| *suite != 0x00ff);
        suites
    };
    assert_eq!(
        suites(&["--cipher-suites=CHACHA"]),
        [0xcca9, 0xcca8, 0x1301, 0x1302, 0x1303]
    );
    let older = ["--max-tls-version=TLS1.2", "--cipher-suites=CHACHA,AES"];
    assert_eq!(suites(&older), [0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8]);
    let hello = hello(by_name, &older);
    assert!(!hello.versions().contains(&0x0304), "{:x?}", hello.versions());
    // The hybrid group is of TLS 1.3.
    assert_eq!(hello.groups().first(), Some(&0x001d), "{:x?}", hello.groups());
}

fn start(flags: &[&str]) -> Output {
    let mut command = ghostunnel();
    command
        .args([
            "server",
            "--listen=localhost:0",
            "--target=localhost:1",
            "--keystore=/nonexistent",
        ])
        .arg("--allow-all")
        .args(flags);
    command.run()
}

#[test]
fn a_version_that_does_not_exist_stops_the_start() {
    for version in ["TLS1.1", "1.3", "TLSv1.2"] {
        let output = start(&[&format!("--max-tls-version={version}")]);
        assert_eq!(output.exit, Exit::Code(1));
        let text = format!("error: invalid max TLS version: unsupported TLS version: {version}\n");
        assert_eq!(output.stderr, text);
    }
    let output = start(&["--max-tls-version="]);
    assert!(output.stderr.contains("/nonexistent"), "{output:?}");
}

#[test]
fn the_unsafe_suite_is_left_out_or_refused() {
    let alone = start(&["--allow-unsafe-cipher-suites", "--cipher-suites=UNSAFE-AZURE"]);
    assert_eq!(alone.exit, Exit::Code(1));
    assert!(
        alone
            .stderr
            .starts_with("error: cipher suite 'UNSAFE-AZURE' is not supported: "),
        "{alone:?}"
    );
    let locked = start(&["--cipher-suites=AES,UNSAFE-AZURE"]);
    assert_eq!(
        locked.stderr,
        "error: invalid cipher suite 'UNSAFE-AZURE' selected\n"
    );

    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let process = server(&pki, &listen, &"localhost:1")
        .args(["--allow-all", "--allow-unsafe-cipher-suites"])
        .arg("--cipher-suites=AES,CHACHA,UNSAFE-AZURE")
        .start();
    process.wait_for_line(
        "warning: --cipher-suites: UNSAFE-AZURE is left out, as suites with CBC are not supported",
    );
    process.wait_listening(listen.port());
}
