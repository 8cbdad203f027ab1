//! Signals, the drain, and how the process ends.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, End, Endpoint, Exit, Pki, Plain, Process, ReservedPort,
    Signal, TlsClient, TlsPeer, TlsServer, eventually, eventually_some, is_listening, read_to_end,
};

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, message};
use crate::support::phrase;

/// "At once", on a machine that does other things too: far below every timeout in here.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Waits for an exit that nothing should hold up.
#[track_caller]
fn exit_at_once(process: &Process) -> Exit {
    match process.wait_exit_within(AT_ONCE) {
        Some(exit) => exit,
        None => panic!("still running {AT_ONCE:?} later"),
    }
}

#[test]
fn process_with_nothing_open_exits_at_once() {
    for mode in BOTH_MODES {
        for (signal, announcement) in [
            (Signal::TERM, "received terminated, shutting down"),
            (Signal::INT, "received interrupt, shutting down"),
        ] {
            let tunnel = Tunnel::start(mode);
            tunnel.visit();
            tunnel.process.wait_for_line("closed pipe");
            let mark = tunnel.process.mark();
            tunnel.process.signal(signal);
            assert_eq!(
                exit_at_once(&tunnel.process),
                Exit::Code(0),
                "{mode:?} {signal:?}"
            );
            let lines = tunnel.process.lines();
            let messages: Vec<_> = lines[mark..].iter().map(|line| message(line.text())).collect();
            assert_eq!(messages, [announcement, "shutdown proxy, waiting for drain"]);
            assert_eq!(tunnel.process.stderr(), "");
        }
    }
}

#[test]
fn drain_refuses_new_connections_and_lets_open_ones_finish() {
    for mode in BOTH_MODES {
        for signal in [Signal::TERM, Signal::INT] {
            let tunnel = Tunnel::start(mode);
            let mut peers: Vec<_> = (0..3).map(|_| tunnel.connect().expect("admitted")).collect();
            for peer in &mut peers {
                peer.echo(b"before").expect("open");
            }
            tunnel.process.signal(signal);
            eventually("the ports are closed", || {
                !is_listening(tunnel.listen.port()) && !is_listening(tunnel.status.port())
            });
            assert!(Plain::connect(&tunnel.listen.address().into()).is_err());
            for mut peer in peers {
                peer.echo(&vec![7; 100_000]).expect("undisturbed");
                assert_eq!(tunnel.process.try_exit(), None, "somebody is still there");
                peer.close().expect("in good order");
            }
            assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0));
            assert_eq!(tunnel.process.count_lines("error during copy"), 0);
            assert_eq!(tunnel.process.count_lines("closed pipe"), 3);
        }
    }
}

#[test]
fn handshakes_in_progress_are_cancelled() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut silent = Plain::connect(&tunnel.listen.address().into()).expect("listening");
    eventually("the connection is accepted", || tunnel.metric("conn.open") > 0.0);
    tunnel.process.signal(Signal::TERM);
    assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0));
    let line = tunnel.process.wait_for_line("error on TLS handshake");
    assert!(phrase(&line).ends_with(": context canceled"), "{line}");
    assert_eq!(read_to_end(&mut silent).0, b"");
}

#[test]
fn dials_in_progress_are_cancelled() {
    let pki = Pki::new();
    // Accepts in the kernel and never answers: a client tunnel waits for its handshake.
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let target = hole.local_addr().expect("bound").into();
    let listen = ReservedPort::new();
    let process = command(Mode::Client, &pki, &listen, &target).start();
    process.wait_listening(listen.port());
    let mut waiting = Plain::connect(&listen.address().into()).expect("listening");
    let _dialled = hole.accept().expect("the tunnel dials");
    process.signal(Signal::TERM);
    assert_eq!(exit_at_once(&process), Exit::Code(0));
    let line = process.wait_for_line("error on dial");
    assert!(
        line.contains("operation was canceled") || line.contains("context canceled"),
        "{line}"
    );
    assert_eq!(read_to_end(&mut waiting).0, b"");
}

#[test]
fn connections_that_outlast_the_shutdown_timeout_are_cut() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start_with(mode, |command, _| {
            command.arg("--shutdown-timeout=300ms");
        });
        let mut peer = tunnel.connect().expect("admitted");
        peer.echo(b"open").expect("open");
        let begun = Instant::now();
        tunnel.process.signal(Signal::TERM);
        assert_eq!(tunnel.process.wait_exit(), Exit::Code(1));
        assert!(
            begun.elapsed() >= Duration::from_millis(300),
            "{:?}",
            begun.elapsed()
        );
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        tunnel
            .process
            .wait_for_line("graceful shutdown timeout: forcing exit");
        assert_eq!(tunnel.process.stderr(), "");
        assert_ne!(peer.echo(b"gone").map_err(|error| End::from(&error)), Ok(()));
    }
}

#[test]
fn shutdown_timeout_of_zero_succeeds_when_nothing_is_open() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start_with(mode, |command, _| {
            command.arg("--shutdown-timeout=0s");
        });
        tunnel.visit();
        tunnel.process.wait_for_line("closed pipe");
        tunnel.process.signal(Signal::TERM);
        assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0), "{mode:?}");
    }
}

#[test]
fn shutdown_timeout_of_zero_fails_when_something_is_open() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start_with(mode, |command, _| {
            command.arg("--shutdown-timeout=0s");
        });
        let mut peer = tunnel.connect().expect("admitted");
        peer.echo(b"open").expect("open");
        tunnel.process.signal(Signal::TERM);
        assert_eq!(exit_at_once(&tunnel.process), Exit::Code(1), "{mode:?}");
        tunnel
            .process
            .wait_for_line("graceful shutdown timeout: forcing exit");
    }
}

/// A tunnel in the middle of its drain, held back by one open connection.
fn draining() -> (Tunnel, crate::operator::Peer) {
    let tunnel = Tunnel::start(Mode::Server);
    let mut peer = tunnel.connect().expect("admitted");
    peer.echo(b"open").expect("open");
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_for_line("shutdown proxy, waiting for drain");
    (tunnel, peer)
}

#[test]
fn second_signal_kills_and_is_logged() {
    for (signal, number, name) in [(Signal::TERM, 15, "terminated"), (Signal::INT, 2, "interrupt")] {
        let (tunnel, _peer) = draining();
        tunnel.process.signal(signal);
        assert_eq!(exit_at_once(&tunnel.process), Exit::Signal(number));
        let lines = tunnel.process.lines();
        let last = lines.last().expect("lines").text();
        assert_eq!(
            message(last),
            format!("received {name} while shutting down, exiting at once")
        );
    }
}

#[test]
fn signals_other_than_the_second_are_ignored_during_the_drain() {
    let (tunnel, mut peer) = draining();
    let mark = tunnel.process.mark();
    for signal in [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::WINCH,
        Signal::CONT,
    ] {
        tunnel.process.signal(signal);
        peer.echo(b"still here").expect("undisturbed");
    }
    peer.close().expect("in good order");
    assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0));
    let lines = tunnel.process.lines();
    let messages: Vec<_> = lines[mark..].iter().map(|line| message(line.text())).collect();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].starts_with("closed pipe"), "{messages:?}");
}

#[test]
fn signals_without_a_meaning_have_no_effect() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut peer = tunnel.connect().expect("admitted");
    peer.echo(b"before").expect("open");
    tunnel.process.wait_for_line("opening pipe");
    let mark = tunnel.process.mark();
    for signal in [
        Signal::USR2,
        Signal::ALARM,
        Signal::PIPE,
        Signal::WINCH,
        Signal::CONT,
    ] {
        tunnel.process.signal(signal);
        peer.echo(b"after").expect("undisturbed");
        assert_eq!(tunnel.process.try_exit(), None, "{signal:?}");
    }
    assert_eq!(tunnel.status_report()["last_reload"], "0001-01-01T00:00:00Z");
    assert_eq!(tunnel.process.mark(), mark, "no line about it");
}

#[test]
fn unix_paths_are_removed() {
    const RUNS: usize = 20;
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (pki.path("listen.sock"), pki.path("status.sock"));
    for run in 0..RUNS {
        let process = crate::support::ghostunnel()
            .arg("server")
            .flag("--listen", unix(&listen))
            .flag("--status", unix(&status))
            .flag("--target", backend.address().to_string())
            .flag("--cacert", &pki.ca_file)
            .flag("--cert", &pki.server_files.certificate)
            .flag("--key", &pki.server_files.key)
            .arg("--allow-all")
            .start();
        eventually("the status path exists", || status.exists());
        // The moment it exists it can be connected to, and so can the listener.
        let report = Endpoint::Http(&status.as_path().into())
            .get("/_status")
            .expect("answered");
        assert_eq!(report.status, 200, "{}", report.text());
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        drop(client.connect(&listen.as_path().into()).expect("admitted"));
        process.signal(if run % 2 == 0 { Signal::TERM } else { Signal::INT });
        assert_eq!(exit_at_once(&process), Exit::Code(0), "run {run}");
        assert!(!listen.exists(), "run {run}: the listen path stayed");
        assert!(!status.exists(), "run {run}: the status path stayed");
    }
}

#[test]
fn unix_paths_are_removed_even_when_the_exit_is_forced() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (pki.path("listen.sock"), pki.path("status.sock"));
    let process = crate::support::ghostunnel()
        .arg("server")
        .flag("--listen", unix(&listen))
        .flag("--status", unix(&status))
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key)
        .args(["--allow-all", "--shutdown-timeout=100ms"])
        .start();
    eventually("the status path exists", || status.exists());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(&listen.as_path().into()).expect("admitted");
    peer.write_all(b"x").expect("open");
    peer.read_exact(&mut [0]).expect("answered");
    process.signal(Signal::TERM);
    assert_eq!(exit_at_once(&process), Exit::Code(1));
    assert!(!listen.exists() && !status.exists());
}

fn unix(path: &Path) -> String {
    Address::from(path).to_string()
}

/// How the peers of the last pair leave.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Fin,
    Reset,
}

/// The end of a pair must be noticed as such, and not be waited out until the close timeout,
/// which here is as long as the shutdown timeout.
#[test]
fn last_pair_that_closes_from_both_sides_at_once_is_noticed() {
    const RUNS: usize = 12;
    for mode in BOTH_MODES {
        for run in 0..RUNS {
            let leave = if run % 2 == 0 { Leave::Fin } else { Leave::Reset };
            let pki = Pki::new();
            let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let target = hole.local_addr().expect("bound").into();
            let listen = ReservedPort::new();
            let process = command(mode, &pki, &listen, &target)
                .args(["--close-timeout=1s", "--shutdown-timeout=1s"])
                .start();
            process.wait_listening(listen.port());
            let (near, far) = pair(mode, &pki, &listen, &hole);
            process.wait_for_line("opening pipe");
            process.signal(Signal::TERM);
            process.wait_for_line("waiting for drain");
            let begun = Instant::now();
            for end in [near, far] {
                end.leave(leave);
            }
            assert_eq!(process.wait_exit(), Exit::Code(0), "{mode:?} run {run}");
            let took = begun.elapsed();
            assert!(
                took < Duration::from_millis(800),
                "{mode:?} run {run} {leave:?}: {took:?}"
            );
        }
    }
}

enum Open {
    Tls(Box<TlsPeer>),
    Plain(Plain),
}

impl Open {
    /// Leaves without close_notify.
    fn leave(self, how: Leave) {
        match (self, how) {
            (Self::Tls(peer), Leave::Fin) => peer.close_abruptly(),
            (Self::Tls(peer), Leave::Reset) => peer.reset(),
            (Self::Plain(stream), Leave::Fin) => drop(stream),
            (Self::Plain(stream), Leave::Reset) => stream.reset(),
        }
    }
}

/// A connection through the tunnel, both of whose ends are in the test's hands.
fn pair(mode: Mode, pki: &Pki, listen: &ReservedPort, hole: &TcpListener) -> (Open, Open) {
    let address = listen.address().into();
    let accept = || Plain::from(hole.accept().expect("the tunnel dials").0);
    match mode {
        Mode::Server => {
            let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
            let near = client.connect(&address).expect("admitted");
            (Open::Tls(Box::new(near)), Open::Plain(accept()))
        }
        Mode::Client => {
            let near = Plain::connect(&address).expect("listening");
            let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
            let far = server.handshake(accept()).expect("the tunnel shakes hands");
            (Open::Plain(near), Open::Tls(Box::new(far)))
        }
    }
}

#[test]
fn drain_is_shortened_by_the_close_timeout() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.args(["--close-timeout=200ms", "--shutdown-timeout=30s"]);
    });
    let held = tunnel.connect().expect("admitted");
    tunnel.process.wait_for_line("opening pipe");
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_for_line("waiting for drain");
    // A backend that goes away for good ends one direction; the client stays.
    let Tunnel { backend, process, .. } = tunnel;
    drop(backend);
    assert_eq!(exit_at_once(&process), Exit::Code(0));
    drop(held);
}

#[test]
fn signals_right_after_the_first_status_answer_are_handled() {
    for _ in 0..10 {
        let pki = Pki::new();
        let backend = Backend::tcp(Behaviour::Echo);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .flag("--status", format!("http://{}", status.address()))
            .start();
        let address = status.address().into();
        eventually_some("the status port answers", || {
            Endpoint::Http(&address).get("/_status").ok()
        });
        process.signal(Signal::HUP);
        process.wait_for_line("reloading configuration complete");
        process.signal(Signal::USR1);
        process.wait_for_line("received user defined signal 1");
        process.signal(Signal::TERM);
        assert_eq!(exit_at_once(&process), Exit::Code(0));
    }
}

#[test]
fn termination_right_after_the_first_status_answer_is_graceful() {
    for _ in 0..10 {
        let pki = Pki::new();
        let backend = Backend::tcp(Behaviour::Echo);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .flag("--status", format!("http://{}", status.address()))
            .start();
        // A connection that is accepted is as good a sign as an answer.
        eventually_some("the status port accepts", || {
            TcpStream::connect(status.address()).ok()
        });
        process.signal(Signal::TERM);
        assert_eq!(exit_at_once(&process), Exit::Code(0));
    }
}

#[test]
fn idle_status_connections_do_not_hold_up_the_exit() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut idle = Plain::connect(&tunnel.status.address().into()).expect("listening");
    idle.write_all(b"GET /_status HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("open");
    idle.read_exact(&mut [0; 12]).expect("answered");
    let _silent = Plain::connect(&tunnel.status.address().into()).expect("listening");
    let begun = Instant::now();
    tunnel.process.signal(Signal::TERM);
    assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn status_check_that_hangs_does_not_hold_up_the_exit() {
    let pki = Pki::new();
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let target: Address = hole.local_addr().expect("bound").into();
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(Mode::Client, &pki, &listen, &target)
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    let mut asking = Plain::connect(&status.address().into()).expect("listening");
    asking
        .write_all(b"GET /_status HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("open");
    let _dialled = hole.accept().expect("the check dials");
    process.signal(Signal::TERM);
    assert_eq!(exit_at_once(&process), Exit::Code(0));
}

#[test]
fn successor_can_take_the_ports_during_the_drain() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut old = tunnel.connect().expect("admitted");
    old.echo(b"old").expect("open");
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_for_line("waiting for drain");
    let successor = command(
        Mode::Server,
        &tunnel.pki,
        &tunnel.listen,
        tunnel.backend.address(),
    )
    .flag("--status", format!("http://{}", tunnel.status.address()))
    .start();
    successor.wait_listening(tunnel.status.port());
    // All of them reach the successor: none is lost to a socket nobody accepts from.
    for _ in 0..20 {
        tunnel.visit();
    }
    assert_eq!(successor.count_lines("opening pipe"), 20);
    old.echo(b"still there").expect("undisturbed");
    old.close().expect("in good order");
    assert_eq!(exit_at_once(&tunnel.process), Exit::Code(0));
}
