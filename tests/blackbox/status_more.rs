//! What the status port has beyond 1.11.1: further keys, an open port during the drain, shared
//! checks, and no silent plain HTTP.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use ghostunnel_testing::{
    Address, Endpoint, Exit, Pki, Request, ReservedPort, Signal, eventually, is_listening,
};
use serde_json::{Value, json};

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, get, replace};
use crate::support::client;

#[test]
fn the_certificate_in_force_is_described() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let (files, word) = match mode {
            Mode::Server => (&tunnel.pki.server_files, "server"),
            Mode::Client => (&tunnel.pki.client_files, "client"),
        };
        let certificate = tunnel.status_report()["certificate"].clone();
        let subject = certificate["subject"].as_str().expect("a string");
        assert!(subject.starts_with(&format!("CN={word}")), "{subject}");
        let fresh = tunnel
            .pki
            .authority
            .issue(&Request::named("fresh").dns("localhost").serial(&[0x0a, 0x1b]));
        replace(&files.key, &fresh.key_pem());
        replace(&files.certificate, &fresh.chain_pem());
        let certificate = tunnel.reload()["certificate"].clone();
        assert_eq!(
            (&certificate["subject"], &certificate["serial"]),
            (&json!("CN=fresh"), &json!("0A1B"))
        );
        let not_after = certificate["not_after"].as_str().expect("a string");
        assert!(
            not_after.starts_with("20") && not_after.ends_with('Z'),
            "{not_after}"
        );
    }
}

#[test]
fn a_tunnel_without_a_certificate_has_none_to_describe() {
    let (pki, listen, status) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let process = crate::support::ghostunnel()
        .args(["client", "--disable-authentication", "--target=localhost:1"])
        .flag("--listen", listen.address().to_string())
        .flag("--status", status.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .start();
    process.wait_listening(status.port());
    assert_eq!(get(&status, "/_status").json()["certificate"], Value::Null);
    process.wait_for_line("warning: status port speaks plain HTTP");
}

#[test]
fn open_connections_are_counted() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        assert_eq!(tunnel.status_report()["connections_open"], 0);
        let mut peers: Vec<_> = (0..2).map(|_| tunnel.connect().expect("admitted")).collect();
        for peer in &mut peers {
            peer.echo(b"x").expect("open");
        }
        assert_eq!(tunnel.status_report()["connections_open"], 2);
        drop(peers);
        eventually("all are closed", || {
            tunnel.status_report()["connections_open"] == 0
        });
    }
}

#[test]
fn the_sandbox_is_described() {
    let tunnel = Tunnel::start(Mode::Server);
    let sandbox = tunnel.status_report()["sandbox"].clone();
    let line = tunnel.process.stdout();
    match sandbox["state"].as_str() {
        Some("enforced") => {
            let (abi, tcp) = (&sandbox["abi"], sandbox["tcp"] == true);
            let word = if tcp { "yes" } else { "no" };
            assert!(line.contains(&format!("sandbox: landlock abi={abi} files=yes tcp={word}")));
            assert_eq!(sandbox["files"], true);
        }
        Some("unsupported") => assert!(line.contains("sandbox: landlock none")),
        other => panic!("{other:?}: {sandbox}"),
    }
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--disable-landlock");
    });
    assert_eq!(tunnel.status_report()["sandbox"], json!({"state": "disabled"}));
}

#[test]
fn a_rule_that_was_left_out_is_told() {
    let (pki, listen, status) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let process = client(&pki, &listen, &"localhost:0")
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    let sandbox = get(&status, "/_status").json()["sandbox"].clone();
    if sandbox["state"] == "enforced" {
        assert_eq!(
            sandbox["rules_left_out"],
            json!(["localhost:0 (--target): nothing can listen on port 0"])
        );
    }
}

/// Starts with an open connection and asks for the end, which then waits for it.
fn draining(mode: Mode, flags: &[&str]) -> (Tunnel, crate::operator::Peer) {
    let tunnel = Tunnel::start_with(mode, |command, _| {
        command.args(flags);
    });
    let mut peer = tunnel.connect().expect("admitted");
    peer.echo(b"open").expect("open");
    tunnel.process.signal(Signal::TERM);
    eventually("the tunnel is closed", || !is_listening(tunnel.listen.port()));
    (tunnel, peer)
}

#[test]
fn the_port_stays_open_through_the_drain_where_that_is_asked_for() {
    for mode in BOTH_MODES {
        let (tunnel, mut peer) = draining(mode, &["--drain-status"]);
        for _ in 0..2 {
            let answer = tunnel.get("/_status");
            assert_eq!(answer.status, 503);
            let report = answer.json();
            assert_eq!(
                (&report["ok"], &report["message"], &report["connections_open"]),
                (&json!(false), &json!("stopping"), &json!(1))
            );
        }
        assert_eq!(tunnel.metric("conn.open"), 1.0);
        peer.echo(b"still").expect("undisturbed");
        peer.close().expect("in good order");
        assert_eq!(tunnel.process.wait_exit(), Exit::Code(0));
        assert!(!is_listening(tunnel.status.port()));
        assert_eq!(tunnel.process.stderr(), "");
    }
}

#[test]
fn the_exit_waits_for_nobody_at_a_port_that_stays_open() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--drain-status");
    });
    // A probe that keeps its connection.
    let idle = ghostunnel_testing::Plain::connect(&tunnel.status.address().into()).expect("listening");
    tunnel.process.signal(Signal::TERM);
    let exit = tunnel.process.wait_exit_within(Duration::from_secs(3));
    assert_eq!(exit, Some(Exit::Code(0)));
    drop(idle);
}

#[test]
fn a_unix_path_is_removed_at_the_end_of_the_drain() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let backend = crate::operator::echo_backend(Mode::Server, &pki);
    let path = pki.path("status.sock");
    let process = command(Mode::Server, &pki, &listen, backend.address())
        .flag("--status", format!("unix:{}", path.display()))
        .arg("--drain-status")
        .start();
    process.wait_listening(listen.port());
    eventually("the path is there", || path.exists());
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    assert!(!path.exists());
}

#[test]
fn https_that_cannot_be_served_stops_the_start() {
    let (pki, listen, status) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let output = crate::support::ghostunnel()
        .args(["client", "--disable-authentication", "--target=localhost:1"])
        .flag("--listen", listen.address().to_string())
        .flag("--status", format!("https://{}", status.address()))
        .flag("--cacert", &pki.ca_file)
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    let cause = format!(
        "--status=https://{} needs a certificate with its key, and there is none; use http://",
        status.address()
    );
    assert_eq!(output.stderr, format!("error: {cause}\n"));
    assert!(
        output
            .stdout
            .contains(&format!("error: unable to serve status port: {cause}\n"))
    );
    assert!(!output.stdout.contains("listening for connections"));
}

#[test]
fn https_that_can_be_served_is() {
    let tunnel = Tunnel::start_with(Mode::Client, |_, _| {});
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = client(&tunnel.pki, &listen, tunnel.backend.address())
        .flag("--status", format!("https://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    let trusting = ghostunnel_testing::TlsClient::trusting(&tunnel.pki.authority).server_name("client");
    // The certificate is the client's, which may be for no name at all: that TLS is spoken is
    // what counts here.
    let _refused_or_not = trusting.connect(&status.address().into());
    let plain = Endpoint::Http(&status.address().into()).get("/_status");
    assert_eq!(plain.expect("an answer").status, 400);
}

/// A target that takes connections and says nothing, so that a client tunnel's check waits for
/// its handshake.
#[test]
fn checks_that_overlap_share_one_connection_to_the_target() {
    let (pki, listen, status) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    hole.set_nonblocking(true).expect("no waiting");
    let target: Address = hole.local_addr().expect("bound").into();
    let process = client(&pki, &listen, &target)
        .arg("--connect-timeout=2s")
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    // Kept open, and counted.
    let taken = Mutex::new(Vec::new());
    let accepted = || {
        let mut taken = taken.lock().expect("no panic");
        taken.extend(std::iter::from_fn(|| hole.accept().ok()));
        taken.len()
    };
    let ask = || {
        let answer = get(&status, "/_status");
        assert_eq!(answer.status, 503);
        answer.json()["backend_error"].clone()
    };
    thread::scope(|scope| {
        let first = scope.spawn(ask);
        eventually("the target is asked", || accepted() > 0);
        let others: Vec<_> = (0..5).map(|_| scope.spawn(ask)).collect();
        for asked in others.into_iter().chain([first]) {
            assert_eq!(asked.join().expect("answered"), "context deadline exceeded");
        }
    });
    assert_eq!(accepted(), 1, "nobody else was asked");
    // The outcome is not kept.
    assert_eq!(ask(), "context deadline exceeded");
    assert_eq!(accepted(), 2);
}

#[test]
fn the_flag_needs_a_status_port() {
    let output = crate::support::ghostunnel()
        .args([
            "server",
            "--listen=localhost:0",
            "--target=localhost:1",
            "--drain-status",
        ])
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    assert!(
        output
            .stderr
            .contains("--drain-status requires --status to be set")
    );
}
