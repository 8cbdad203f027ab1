//! What bounds a connection: timeouts, lifetime, the number of connections, descriptors.
//!
//! Lower bounds on time are exact, upper bounds are generous: far below the deadline that would
//! hold if the rule under test did not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::ClientCertificates::Unasked;
use ghostunnel_testing::{
    AlertDescription, End, Pki, Plain, Process, ReservedPort, TlsClient, TlsServer, descriptor_limits,
    eventually, eventually_some, free_descriptors, read_to_end, within,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::pair::{CLIENT, Mode, Network, Peer, Route, SERVER, Tunnel, command};
use crate::support::phrase;

/// Far more than what is to happen takes, far less than what must not be waited for.
const SOON: Duration = Duration::from_secs(8);

/// Long enough to see that something does not happen.
const A_WHILE: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_took(started: Instant, at_least: Duration, less_than: Duration) {
    let took = started.elapsed();
    assert!(
        (at_least..less_than).contains(&took),
        "took {took:?}, not {at_least:?} to {less_than:?}"
    );
}

// --connect-timeout

#[test]
fn a_client_that_dribbles_its_hello_is_dropped_at_the_connect_timeout() {
    let tunnel = Tunnel::start(SERVER, &["--connect-timeout=600ms"]);
    let started = Instant::now();
    let mut socket = tunnel.dial();
    let from = socket.local_address().expect("a TCP address");
    // One byte more whenever nothing comes: a hello of 512 bytes would last for a minute.
    socket.set_timeout(Duration::from_millis(100));
    let mut hello = [22, 3, 1, 2, 0, 1].iter().chain([0; 512].iter());
    let end = loop {
        let byte = hello.next().expect("it is dropped before its hello is complete");
        let _may_be_closed = socket.write(&[*byte]);
        let (bytes, end) = read_to_end(&mut socket);
        assert!(bytes.is_empty(), "a timeout has no alert");
        if end != End::TimedOut {
            break end;
        }
    };
    assert_eq!(end, End::Closed);
    assert_took(started, Duration::from_millis(600), SOON);
    let line = tunnel.process.wait_for_line("error on TLS handshake");
    let text = format!("error on TLS handshake from {from}: context deadline exceeded");
    assert!(phrase(&line).ends_with(&text), "{line}");
}

#[test]
fn a_target_that_does_not_shake_hands_is_given_up_at_the_connect_timeout() {
    let tunnel = Tunnel::start(CLIENT, &["--connect-timeout=600ms"]);
    let started = Instant::now();
    let mut near = tunnel.dial();
    assert_eq!(read_to_end(&mut near), (vec![], End::Closed));
    assert_took(started, Duration::from_millis(600), SOON);
    let line = tunnel.process.wait_for_line("error on dial");
    assert!(
        phrase(&line).ends_with("error on dial: context deadline exceeded"),
        "{line}"
    );
}

#[test]
fn a_refused_client_that_does_not_leave_is_not_taken_for_a_slow_one() {
    let tunnel = Tunnel::start(SERVER, &["--connect-timeout=800ms"]);
    let stranger = TlsClient::trusting(&tunnel.pki.authority);
    let alert = End::Alert(AlertDescription::CertificateRequired);
    // The connection stays open on this side, beyond the connect timeout.
    let (mark, _stays_open) = eventually_some("the refusal comes in time, however busy we are", || {
        let mark = tunnel.process.mark();
        let mut peer = stranger.handshake(tunnel.dial()).ok()?;
        (read_to_end(&mut peer).1 == alert).then_some((mark, peer))
    });
    let line = tunnel.process.wait_for_line_after(mark, "error on TLS handshake");
    assert!(
        line.contains("tls: client didn't provide a certificate"),
        "{line}"
    );
}

#[test]
fn a_refused_server_that_does_not_leave_is_not_taken_for_a_slow_one() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = target.local_addr().expect("it is bound").to_string();
    let process = command(Mode::Client, &pki, &port.address().to_string(), &address)
        .arg("--connect-timeout=800ms")
        .start();
    process.wait_listening(port.port());
    let unknown = TlsServer::new(&pki.other_authority.issue(&Pki::server_request()), &Unasked);
    let (mark, mut near, _stays_open) =
        eventually_some("the refusal comes in time, however busy we are", || {
            let mark = process.mark();
            let near = Plain::connect(&port.address().into()).expect("it listens");
            let (socket, _) = target.accept().expect("the tunnel dials");
            let stays_open = socket.try_clone().expect("a second handle");
            let end = unknown.handshake(socket.into()).expect_err("not trusted");
            matches!(end, End::Alert(_)).then_some((mark, near, stays_open))
        });
    assert_eq!(read_to_end(&mut near), (vec![], End::Closed));
    let line = process.wait_for_line_after(mark, "error on dial");
    assert!(
        line.contains("x509: certificate signed by unknown authority"),
        "{line}"
    );
}

/// A TCP listener with a full queue: the kernel answers no further request to connect.
struct Silent {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Silent {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&any_port.into()).expect("a free port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket());
        let address = address.expect("bound to an IP address");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
        }
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }
}

struct ServerTo {
    process: Process,
    pki: Pki,
    port: ReservedPort,
}

/// A server tunnel to a target that is not one of the usual ones.
fn server_to(target: &str, connect_timeout: &str) -> ServerTo {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let process = command(Mode::Server, &pki, &port.address().to_string(), target)
        .flag("--connect-timeout", connect_timeout)
        .start();
    process.wait_listening(port.port());
    ServerTo { process, pki, port }
}

impl ServerTo {
    fn dial(&self) -> Plain {
        Plain::connect(&self.port.address().into()).expect("it listens")
    }

    fn shake_hands(&self, socket: Plain) -> Peer {
        let client = TlsClient::trusting(&self.pki.authority).identity(&self.pki.client);
        client.handshake(socket).expect("admitted").into()
    }
}

#[test]
fn a_dial_that_nobody_answers_ends_at_the_connect_timeout() {
    let silent = Silent::new();
    let tunnel = server_to(&silent.address.to_string(), "1500ms");
    let started = Instant::now();
    let mut peer = tunnel.shake_hands(tunnel.dial());
    assert_eq!(peer.rest(), (vec![], End::Closed));
    assert_took(started, Duration::from_millis(1500), SOON);
    let line = tunnel.process.wait_for_line("error on dial");
    let text = format!("error on dial: dial tcp {}: i/o timeout", silent.address);
    assert!(line.ends_with(&text), "{line}");
}

#[test]
fn a_slow_handshake_leaves_less_time_for_the_dial() {
    let silent = Silent::new();
    let tunnel = server_to(&silent.address.to_string(), "3s");
    let started = Instant::now();
    let mut socket = tunnel.dial();
    // The handshake takes half of the time by saying nothing for that long.
    socket.set_timeout(Duration::from_millis(1500));
    assert_eq!(read_to_end(&mut socket), (vec![], End::TimedOut));
    socket.set_timeout(SOON);
    let mut peer = tunnel.shake_hands(socket);
    let handshake_ended = Instant::now();
    assert_eq!(peer.rest(), (vec![], End::Closed));
    assert_took(started, Duration::from_secs(3), SOON);
    // A budget of its own would be 3 s.
    assert_took(handshake_ended, Duration::ZERO, Duration::from_millis(2500));
    tunnel.process.wait_for_line("i/o timeout");
}

/// A UNIX listener whose queue is full.
fn full_unix_listener(path: &Path) -> (Socket, Vec<Socket>) {
    let address = SockAddr::unix(path).expect("a short path");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&address).expect("a free path");
    listener.listen(0).expect("it listens");
    let mut queued = Vec::new();
    loop {
        let next = socket();
        next.set_nonblocking(true)
            .expect("a socket can be asked not to wait");
        if next.connect(&address).is_err() {
            return (listener, queued);
        }
        queued.push(next);
    }
}

#[test]
fn a_busy_unix_target_is_waited_for_until_the_connect_timeout() {
    let dir = ghostunnel_testing::private_dir();
    let path = dir.path().join("busy");
    let (listener, queued) = full_unix_listener(&path);
    let tunnel = server_to(&format!("unix:{}", path.display()), "1500ms");
    let started = Instant::now();
    let mut peer = tunnel.shake_hands(tunnel.dial());
    assert_eq!(peer.rest(), (vec![], End::Closed));
    // It asks again every 50 ms at most, and not after the deadline.
    assert_took(started, Duration::from_millis(1400), SOON);
    let line = tunnel.process.wait_for_line("error on dial");
    let text = format!(
        "error on dial: dial unix {}: connect: resource temporarily unavailable",
        path.display()
    );
    assert!(line.ends_with(&text), "{line}");

    let patient = server_to(&format!("unix:{}", path.display()), "10s");
    let mut peer = patient.shake_hands(patient.dial());
    for _ in 0..=queued.len() {
        let (far, _) = listener.accept().expect("the queue moves up");
        drop(far.send(b"x"));
    }
    peer.expect(b"x");
}

#[test]
fn a_negative_connect_timeout_warns_and_fails_every_connection_at_once() {
    const WARNING: &str = "warning: --connect-timeout is negative: every connection fails at once";
    let tunnel = Tunnel::start(SERVER, &["--connect-timeout=-1s"]);
    assert!(tunnel.process.wait_for_line(WARNING).ends_with(WARNING));
    assert_eq!(read_to_end(&mut tunnel.dial()), (vec![], End::Closed));
    tunnel.process.wait_for_line("context deadline exceeded");
    // Nor is a client let through that is quicker than the clock.
    for _ in 0..20 {
        if let Ok(mut peer) = tunnel.try_shake_hands() {
            assert!(peer.rest().0.is_empty());
        }
    }
    assert_eq!(tunnel.process.count_lines("opening pipe"), 0);

    let tunnel = Tunnel::start(CLIENT, &["--connect-timeout=-1s"]);
    assert!(tunnel.process.wait_for_line(WARNING).ends_with(WARNING));
    assert_eq!(read_to_end(&mut tunnel.dial()), (vec![], End::Closed));
    let line = tunnel.process.wait_for_line("error on dial");
    let text = format!("error on dial: dial tcp {}: i/o timeout", tunnel.far());
    assert!(line.ends_with(&text), "{line}");
}

// --close-timeout and --max-conn-lifetime

/// Sends a byte and waits for it at the other end, again and again until the end has come.
fn talk_until_cut(speaker: &mut Peer, listener: &mut Peer) {
    let mut byte = [0];
    loop {
        let _may_be_cut = speaker.write(b"x");
        match listener.read(&mut byte).map_err(|error| End::from(&error)) {
            Ok(1) => {}
            Ok(_) | Err(End::Reset) => return,
            Err(end) => panic!("not cut but {end:?}"),
        }
    }
}

#[test]
fn the_close_timeout_is_not_renewed_by_traffic() {
    for route in [SERVER, CLIENT] {
        let tunnel = Tunnel::start(route, &["--close-timeout=600ms"]);
        for first_is_near in [true, false] {
            let (near, far) = tunnel.connect();
            let (mut first, mut second) = if first_is_near { (near, far) } else { (far, near) };
            let (started, mark) = (Instant::now(), tunnel.process.mark());
            first.end_writing();
            assert_eq!(second.rest(), (vec![], End::Closed));
            talk_until_cut(&mut second, &mut first);
            assert_took(started, Duration::from_millis(600), SOON);
            let line = tunnel.process.wait_for_line_after(mark, "error during copy");
            assert!(line.contains("error during copy: read tcp "), "{line}");
            assert!(line.ends_with(": i/o timeout"), "{line}");
        }
        tunnel.wait_closed(2);
        // One for each pair: the other direction had ended well.
        assert_eq!(tunnel.process.count_lines("error during copy"), 2);
    }
}

#[test]
fn without_a_close_timeout_the_other_direction_is_cut_at_once_and_silently() {
    for route in [SERVER, CLIENT] {
        for flag in ["--close-timeout=0", "--close-timeout=-1s"] {
            let tunnel = Tunnel::start(route, &[flag]);
            for first_is_near in [true, false] {
                let (near, far) = tunnel.connect();
                let (mut first, mut second) = if first_is_near { (near, far) } else { (far, near) };
                let words = vec![b'w'; 100_000];
                first.say(&words);
                first.end_writing();
                let (read, end) = second.rest();
                assert_eq!((read.len(), end), (words.len(), End::Closed));
                assert_eq!(first.rest(), (vec![], End::Closed));
            }
            tunnel.wait_closed(2);
            tunnel.assert_no_copy_errors();
        }
    }
}

#[test]
fn idle_pairs_are_cut_at_their_lifetime_all_of_them() {
    const PAIRS: usize = 20;
    for route in [SERVER, CLIENT] {
        // With the default close timeout of a minute.
        let tunnel = Tunnel::start(route, &["--max-conn-lifetime=1s"]);
        let mut started = Instant::now();
        let pairs: Vec<_> = (0..PAIRS)
            .map(|_| {
                started = Instant::now();
                tunnel.connect()
            })
            .collect();
        for (mut near, mut far) in pairs {
            assert_eq!(near.rest(), (vec![], End::Closed));
            assert_eq!(far.rest(), (vec![], End::Closed));
        }
        assert_took(started, Duration::from_secs(1), SOON);
        tunnel.wait_closed(PAIRS);
        assert_eq!(tunnel.process.count_lines(": i/o timeout"), 2 * PAIRS);
    }
}

#[test]
fn neither_traffic_nor_a_half_close_prolongs_a_life() {
    for route in [SERVER, CLIENT] {
        let tunnel = Tunnel::start(route, &["--max-conn-lifetime=1s"]);
        let started = Instant::now();
        let (mut near, mut far) = tunnel.connect();
        talk_until_cut(&mut far, &mut near);
        assert_took(started, Duration::from_secs(1), SOON);

        let started = Instant::now();
        let (mut near, mut far) = tunnel.connect();
        near.end_writing();
        assert_eq!(far.rest(), (vec![], End::Closed));
        assert_eq!(near.rest(), (vec![], End::Closed));
        assert_took(started, Duration::from_secs(1), SOON);
        tunnel.wait_closed(2);
        assert_eq!(tunnel.process.count_lines(": i/o timeout"), 3);
    }
}

#[test]
fn a_long_life_does_not_prolong_the_close_timeout() {
    let tunnel = Tunnel::start(SERVER, &["--max-conn-lifetime=1h", "--close-timeout=300ms"]);
    let (mut near, _far) = tunnel.connect();
    let started = Instant::now();
    near.end_writing();
    assert_eq!(near.rest(), (vec![], End::Closed));
    assert_took(started, Duration::from_millis(300), SOON);
}

// --max-concurrent-conns

/// Connects one more than the tunnel holds, sees it wait, and served after `make_room`.
fn one_waits_until(tunnel: &Tunnel, make_room: impl FnOnce()) {
    thread::scope(|scope| {
        let socket = tunnel.dial();
        let waiting = scope.spawn(|| tunnel.join(socket));
        let served = within(A_WHILE, || waiting.is_finished().then_some(()));
        assert_eq!(served, None, "served beyond the limit");
        make_room();
        let (mut near, mut far) = waiting.join().expect("served in the end");
        near.say(b"x");
        far.expect(b"x");
    });
}

#[test]
fn a_connection_beyond_the_limit_is_served_when_another_has_ended() {
    let unix = Route {
        near: Network::Unix,
        ..CLIENT
    };
    for route in [SERVER, CLIENT, unix] {
        let tunnel = Tunnel::start(route, &["--max-concurrent-conns=2"]);
        let (_first, (near, far)) = (tunnel.connect(), tunnel.connect());
        one_waits_until(&tunnel, || {
            near.close();
            far.close();
        });
    }
}

#[test]
fn a_handshake_counts_as_a_connection() {
    let tunnel = Tunnel::start(SERVER, &["--max-concurrent-conns=1"]);
    let silent = tunnel.dial();
    one_waits_until(&tunnel, || drop(silent));
}

#[test]
fn a_half_closed_pair_counts_as_a_connection() {
    for route in [SERVER, CLIENT] {
        let tunnel = Tunnel::start(route, &["--max-concurrent-conns=1"]);
        let (near, mut far) = tunnel.connect();
        near.close();
        assert_eq!(far.rest(), (vec![], End::Closed));
        one_waits_until(&tunnel, || far.close());
    }
}

#[test]
fn failed_connections_give_their_place_back() {
    let tunnel = Tunnel::start(SERVER, &["--max-concurrent-conns=1", "--connect-timeout=2s"]);
    for _ in 0..10 {
        let mut stranger = tunnel.dial();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it listens");
        assert_eq!(read_to_end(&mut stranger).1, End::Closed);
    }
    let (mut near, mut far) = tunnel.connect();
    near.say(b"x");
    far.expect(b"x");
}

// Descriptors

#[test]
fn the_soft_limit_on_descriptors_is_raised_to_the_hard_one() {
    let tunnel = Tunnel::start_with(SERVER, |command| command.soft_descriptor_limit(256));
    let (_, hard) = descriptor_limits(process::id());
    assert_eq!(descriptor_limits(tunnel.process.id()), (hard, hard));
}

#[test]
fn running_out_of_descriptors_is_said_and_survived() {
    let tunnel = Tunnel::start_with(SERVER, |command| command.descriptor_limit(64));
    let (mut near, mut far) = tunnel.connect();
    let crowd: Vec<_> = (0..80).map(|_| tunnel.dial()).collect();
    let line = tunnel.process.wait_for_line("error accepting connection");
    let text = format!(
        "error accepting connection: accept tcp {}: accept4: too many open files",
        tunnel.near
    );
    assert!(line.ends_with(&text), "{line}");
    // Who is inside is served as before.
    near.say(b"x");
    far.expect(b"x");

    drop(crowd);
    let relieved = Instant::now();
    let (mut near, mut far) = tunnel.connect();
    near.say(b"x");
    far.expect(b"x");
    // A second at most until it asks again, and the crowd in the queue goes first.
    assert_took(relieved, Duration::ZERO, Duration::from_secs(4));
    // From 5 ms on the pauses double: a flood would be thousands.
    assert!(tunnel.process.count_lines("error accepting connection") < 50);
}

#[test]
fn a_dial_without_a_descriptor_is_said_and_the_client_hears_close_notify() {
    let tunnel = Tunnel::start_with(SERVER, |command| command.descriptor_limit(64));
    let mut crowd = Vec::new();
    let free = || free_descriptors(tunnel.process.id());
    // Start-up may still have something open that it closes a moment later.
    while within(A_WHILE, || (free() > 1).then_some(())).is_some() {
        let before = free();
        crowd.push(tunnel.dial());
        eventually("it is accepted", || free() < before);
    }
    let mut peer = tunnel.try_shake_hands().expect("admitted");
    assert_eq!(peer.rest(), (vec![], End::Closed));
    let line = tunnel.process.wait_for_line("error on dial");
    let text = format!(
        "error on dial: dial tcp {}: socket: too many open files",
        tunnel.far()
    );
    assert!(line.ends_with(&text), "{line}");
}
