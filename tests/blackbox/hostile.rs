//! Peers that mean harm, and peers that are broken: strangers before they are admitted, admitted
//! ones, servers that a client tunnel dials, backends. After each the process serves the next
//! peer and holds nothing of the last.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ghostunnel_testing::{
    Address, AlertDescription, Backend, Behaviour, ClientCertificates, Command, Content, End, Exit, Forger,
    Pki, Plain, Process, ReservedPort, Signal, TlsClient, TlsPeer, TlsServer, Version, descriptors,
    eventually, memory, read_to_end, within,
};
use socket2::{Domain, Socket, Type};

use crate::support::{client, server};

const BOTH: [Version; 2] = [Version::V12, Version::V13];

/// A server tunnel in front of a backend.
struct Target {
    pki: Pki,
    listen: ReservedPort,
    backend: Backend,
    process: Process,
    /// Descriptors that it holds when nobody is connected.
    idle: usize,
}

impl Target {
    fn start(flags: &[&str]) -> Self {
        Self::before(Backend::tcp(Behaviour::Echo), flags)
    }

    fn before(backend: Backend, flags: &[&str]) -> Self {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        let process = server(&pki, &listen, backend.address())
            .arg("--allow-cn=client")
            .args(flags)
            .start();
        // Its last word before it serves.
        process.wait_for_line("listening for connections");
        Self {
            idle: descriptors(process.id()),
            pki,
            listen,
            backend,
            process,
        }
    }

    fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect(self.listen.address()).expect("it listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a timeout");
        socket
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pki.authority).identity(&self.pki.client)
    }

    fn admitted(&self, version: Version) -> TlsPeer {
        let address = Address::from(self.listen.address());
        let peer = self.client().version(version).connect(&address);
        peer.expect("admitted")
    }

    /// Echoes through the tunnel: the process serves.
    fn serves(&self) {
        let mut peer = self.admitted(Version::V13);
        peer.write_all(b"still there?").expect("open");
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).expect("an echo");
        peer.end_writing();
        assert_eq!(read_to_end(&mut peer), (vec![], End::Closed));
    }

    /// It serves, holds nothing, and has said nothing of a panic.
    fn is_unharmed(&self) {
        self.serves();
        self.is_idle();
        assert!(!self.process.stderr().contains("panicked"));
    }

    fn is_idle(&self) {
        eventually("all sockets are closed", || {
            descriptors(self.process.id()) == self.idle
        });
    }
}

/// All that a client sends in a handshake with a tunnel, which is then gone.
fn flights(target: &Target, version: Version) -> Vec<Vec<u8>> {
    let mut session = target.client().version(version).session();
    let mut socket = target.dial();
    let mut flights = Vec::new();
    loop {
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("memory takes everything");
        }
        if !flight.is_empty() {
            socket.write_all(&flight).expect("open");
            flights.push(flight);
        }
        if !session.is_handshaking() {
            return flights;
        }
        session.read_tls(&mut socket).expect("open");
        session.process_new_packets().expect("in order");
    }
}

fn reset(socket: TcpStream) {
    Plain::from(socket).reset();
}

#[test]
fn peers_that_leave_at_any_step_leave_nothing_behind() {
    let target = Target::start(&[]);
    for version in BOTH {
        let hello = flights(&target, version).remove(0);
        // Before and within the hello, after it, and each by FIN and by reset.
        for sent in [0, 1, 4, 5, 9, 44, hello.len() / 2, hello.len() - 1, hello.len()] {
            for with_reset in [false, true] {
                let mut socket = target.dial();
                socket.write_all(&hello[..sent]).expect("open");
                if sent == hello.len() {
                    socket.read_exact(&mut [0; 5]).expect("the answer begins");
                }
                if with_reset {
                    reset(socket);
                }
            }
        }
        // Within the client's second flight: a session for each length, as keys differ.
        for cut in [1, 5, 6, 40, 200, 1000] {
            for with_reset in [false, true] {
                leave_within_second_flight(&target, version, cut, with_reset);
            }
        }
        // Admitted, in the middle of a record, before and after an answer.
        for answered in [false, true] {
            for with_reset in [false, true] {
                let (mut forger, socket) = target.admitted(version).into_forger();
                let record = forger.seal(Content::Data, b"half a record");
                if answered {
                    (&*socket)
                        .write_all(&forger.seal(Content::Data, b"x"))
                        .expect("open");
                    (&*socket).read_exact(&mut [0; 20]).expect("an echo");
                }
                (&*socket).write_all(&record[..10]).expect("open");
                let socket = Arc::into_inner(socket).expect("the only one");
                if with_reset {
                    socket.reset();
                }
            }
        }
    }
    target.is_unharmed();
}

fn leave_within_second_flight(target: &Target, version: Version, cut: usize, with_reset: bool) {
    let mut session = target.client().version(version).session();
    let mut socket = target.dial();
    let mut flight = Vec::new();
    for _ in 0..2 {
        flight.clear();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("memory takes everything");
        }
        if session.protocol_version().is_some() {
            break;
        }
        socket.write_all(&flight).expect("open");
        flight.clear();
        while !session.wants_write() {
            session.read_tls(&mut socket).expect("open");
            session.process_new_packets().expect("in order");
        }
    }
    socket
        .write_all(&flight[..cut.min(flight.len() - 1)])
        .expect("open");
    if with_reset {
        reset(socket);
    }
}

#[test]
fn strangers_never_reach_the_backend_whatever_they_send_along() {
    let target = Target::start(&[]);
    let address = Address::from(target.listen.address());
    for version in BOTH {
        let nameless = TlsClient::trusting(&target.pki.authority).version(version);
        let stranger = TlsClient::trusting(&target.pki.authority)
            .version(version)
            .identity(&target.pki.stranger);
        for client in [nameless, stranger] {
            // TLS 1.3 lets a client believe that it is in.
            if let Ok(mut peer) = client.connect(&address) {
                let _ = peer.write_all(&[b'x'; 100_000]);
                assert!(matches!(read_to_end(&mut peer).1, End::Alert(_) | End::Reset));
            }
        }
        // The client's own first flight, played back by somebody without its key.
        let mut socket = target.dial();
        for flight in flights(&target, version) {
            let _ = socket.write_all(&flight);
        }
        let _ = socket.write_all(&[b'x'; 1000]);
        read_to_end(&mut socket);
    }
    // Those that gave their bytes to `flights` were admitted and left.
    assert!(target.backend.received() == 0);
    eventually("all have left", || target.backend.open() == 0);
    assert!(
        target.backend.accepted() <= BOTH.len(),
        "{}",
        target.backend.accepted()
    );
    target.serves();
}

/// A peer that was refused and does not read the alert holds a slot for a moment only.
#[test]
fn refused_peers_that_do_not_listen_are_let_go() {
    let target = Target::start(&["--max-concurrent-conns=1"]);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = target.dial();
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("open");
        sockets.push(socket);
    }
    target.serves();
}

#[test]
fn silent_strangers_cost_little_and_go_at_the_connect_timeout() {
    const STRANGERS: usize = 400;
    let target = Target::start(&["--connect-timeout=4s"]);
    target.serves();
    target.is_idle();
    let before = memory(target.process.id());
    let sockets: Vec<_> = (0..STRANGERS).map(|_| target.dial()).collect();
    eventually("all are accepted", || {
        descriptors(target.process.id()) == target.idle + STRANGERS
    });
    let each = memory(target.process.id())
        .resident
        .saturating_sub(before.resident)
        / STRANGERS as u64;
    eprintln!("{each} bytes for a peer that has said nothing");
    assert!(each < 24 * 1024, "{each} bytes for a peer that has said nothing");
    // Others are served meanwhile.
    target.serves();
    target.is_idle();
    drop(sockets);
    let timeouts = || target.process.count_lines("context deadline exceeded");
    eventually("all are told of", || timeouts() == STRANGERS);
}

/// Whoever connects early and waits gains nothing from credentials that are gone.
#[test]
fn a_peer_that_waits_through_a_reload_meets_the_new_credentials() {
    let target = Target::start(&[]);
    let sockets = [target.dial(), target.dial()];
    eventually("both are accepted", || {
        descriptors(target.process.id()) == target.idle + 2
    });
    let other_authority = target.pki.other_authority.pem();
    std::fs::write(&target.pki.ca_file, other_authority).expect("writable");
    target.process.signal(Signal::HUP);
    target.process.wait_for_line("reloading configuration complete");
    let trusted = TlsClient::trusting(&target.pki.authority);
    let [old, new] = sockets.map(Plain::from);
    let mut old = trusted
        .identity(&target.pki.client)
        .handshake(old)
        .expect("not refused yet");
    assert_eq!(read_to_end(&mut old).1, End::Alert(AlertDescription::UnknownCA));
    let trusted = TlsClient::trusting(&target.pki.authority);
    let mut new = trusted
        .identity(&target.pki.stranger)
        .handshake(new)
        .expect("admitted");
    new.write_all(b"hello").expect("open");
    new.read_exact(&mut [0; 5]).expect("an echo");
}

/// Activity does not move the deadline of a handshake.
#[test]
fn a_peer_that_drips_is_cut_at_the_connect_timeout() {
    let target = Target::start(&["--connect-timeout=1500ms"]);
    let mut socket = target.dial();
    // A ClientHello of 60000 bytes that comes in records of one byte.
    socket
        .write_all(&[22, 3, 1, 0, 4, 1, 0, 0xea, 0x60])
        .expect("open");
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .expect("a timeout");
    let end = within(Duration::from_secs(10), || {
        let sent = socket.write_all(&[22, 3, 1, 0, 1, 3]);
        // Waits for ten milliseconds, or for the end.
        let is_over = sent.is_err() || matches!(socket.read(&mut [0]), Ok(0));
        is_over.then_some(())
    });
    assert!(end.is_some(), "still connected");
    target.process.wait_for_line("context deadline exceeded");
    target.serves();
}

#[test]
fn a_hello_in_single_bytes_is_a_hello() {
    let target = Target::start(&[]);
    for version in BOTH {
        let mut session = target.client().version(version).session();
        let mut socket = target.dial();
        socket.set_nodelay(true).expect("an option");
        while session.is_handshaking() || session.wants_write() {
            let mut flight = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut flight).expect("memory takes everything");
            }
            for byte in &flight {
                socket.write_all(&[*byte]).expect("open");
            }
            if session.is_handshaking() {
                session.read_tls(&mut socket).expect("open");
                session.process_new_packets().expect("in order");
            }
        }
    }
    target.backend.wait_accepted(BOTH.len());
}

#[test]
fn endless_handshake_messages_are_refused_before_they_take_memory() {
    let target = Target::start(&[]);
    let mut sockets: Vec<_> = (0..8).map(|_| target.dial()).collect();
    let before = memory(target.process.id()).resident;
    for socket in &mut sockets {
        socket
            .write_all(&[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff])
            .expect("open");
        // Sixty thousand records of a byte each, 6 bytes on the wire.
        let _ = socket.write_all(&[22, 3, 1, 0, 1, 3].repeat(60_000));
        read_to_end(socket);
    }
    let grown = memory(target.process.id()).resident.saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "{grown} bytes");
    let refusal = "handshake message is too long";
    eventually("all are refused", || {
        target.process.count_lines(refusal) == sockets.len()
    });
    target.serves();
}

#[test]
fn half_open_connections_do_not_hold_up_the_drain() {
    let target = Target::start(&["--connect-timeout=60s", "--shutdown-timeout=60s"]);
    let hello = flights(&target, Version::V13).remove(0);
    let sockets: Vec<_> = (0..60)
        .map(|index| {
            let mut socket = target.dial();
            let sent = [0, 5, hello.len() / 2, hello.len()][index % 4];
            socket.write_all(&hello[..sent]).expect("open");
            socket
        })
        .collect();
    target.process.signal(Signal::TERM);
    assert_eq!(target.process.wait_exit(), Exit::Code(0));
    drop(sockets);
}

/// Makes the bytes of an attack.
type Attack<'a> = &'a dyn Fn(&mut Forger) -> Vec<u8>;

/// What an admitted peer may send that no library would; each time the connection ends, or it
/// does not, but the process serves on.
#[test]
fn admitted_peers_that_break_the_rules_hurt_themselves_only() {
    let target = Target::start(&["--close-timeout=1s"]);
    let renegotiation = [
        [1, 0, 0, 43, 3, 3].as_slice(),
        &[7; 32],
        &[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0],
    ]
    .concat();
    for version in BOTH {
        let attacks: [Attack<'_>; 9] = [
            // Key updates without end, split over records.
            &|forger| forger.seal_in_pieces(Content::Handshake, &[24, 0, 0, 1, 1].repeat(50), 5),
            &|forger| forger.seal_in_pieces(Content::Handshake, &[24, 0, 0, 1, 0], 1),
            // Empty records without end.
            &|forger| (0..200).flat_map(|_| forger.seal(Content::Data, b"")).collect(),
            // A message that never ends.
            &|forger| {
                forger.seal_in_pieces(
                    Content::Handshake,
                    &[[4, 0, 0xff, 0xff].as_slice(), &[0; 9000]].concat(),
                    1,
                )
            },
            // Renegotiation.
            &|forger| {
                (0..5)
                    .flat_map(|_| forger.seal(Content::Handshake, &renegotiation))
                    .collect()
            },
            // Warnings without end.
            &|forger| {
                (0..50)
                    .flat_map(|_| forger.seal(Content::Alert, &[1, 90]))
                    .collect()
            },
            // A record that is too long, one of nothing but padding, and data behind the end.
            &|forger| forger.seal(Content::Data, &[0; 16 * 1024 + 1]),
            &|forger| forger.seal_padded(Content::ChangeCipherSpec, b"", 100),
            &|forger| {
                let goodbye = forger.seal(Content::Alert, &[1, 0]);
                [
                    goodbye,
                    forger.seal(Content::Data, &[b'x'; 9000]),
                    vec![0xff; 9000],
                ]
                .concat()
            },
        ];
        for attack in attacks {
            let (mut forger, socket) = target.admitted(version).into_forger();
            let bytes = attack(&mut forger);
            // It may have been shown the door already.
            let _ = (&*socket).write_all(&bytes);
            socket.end_writing();
            read_to_end(&mut &*socket);
        }
    }
    target.is_unharmed();
}

/// Neither what passes through a tunnel nor its key is ever in its log.
#[test]
fn no_payload_and_no_key_is_ever_logged() {
    let target = Target::start(&["--close-timeout=1s"]);
    for version in BOTH {
        let mut peer = target.admitted(version);
        peer.write_all(b"hunter2").expect("open");
        peer.read_exact(&mut [0; 7]).expect("an echo");
        let (mut forger, socket) = peer.into_forger();
        let mut records = forger.seal(Content::Data, b"hunter2");
        records.extend([&[23, 3, 3, 0, 40], [7; 40].as_slice()].concat());
        (&*socket).write_all(&records).expect("open");
        read_to_end(&mut &*socket);
    }
    let mut socket = target.dial();
    socket.write_all(b"password hunter2\r\n").expect("open");
    read_to_end(&mut socket);
    eventually("both are logged", || {
        target.process.count_lines("bad record MAC") == 2
    });
    let said = target.process.stdout() + &target.process.stderr();
    assert!(!said.contains("hunter2"), "{said}");
    let key = target.pki.server.key_pem();
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!said.contains(line));
    }
}

/// A backend that accepts and does nothing, with peers that send what they can.
#[test]
fn a_backend_that_stalls_stalls_its_own_connections_only() {
    let target = Target::before(
        Backend::tcp(Behaviour::NeverRead),
        &["--max-conn-lifetime=2s", "--close-timeout=1s"],
    );
    let started = memory(target.process.id()).resident;
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut peer = target.admitted(Version::V13);
                while peer.write_all(&[b'x'; 65536]).is_ok() {}
            });
        }
    });
    let grown = memory(target.process.id()).resident.saturating_sub(started);
    assert!(
        grown < 24 * 1024 * 1024,
        "{grown} bytes for ten stuck connections"
    );
    target.is_idle();
    assert!(target.process.count_lines("i/o timeout") > 0);
}

/// A client tunnel, and a server that a test writes by hand.
struct Dialled {
    pki: Pki,
    listen: ReservedPort,
    server: TcpListener,
    process: Process,
}

impl Dialled {
    fn start(adapt: impl FnOnce(&mut Command)) -> Self {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("bound");
        let mut command = client(&pki, &listen, &Address::from(address));
        command.arg("--override-server-name=localhost");
        adapt(&mut command);
        let process = command.start();
        process.wait_listening(listen.port());
        Self {
            pki,
            listen,
            server,
            process,
        }
    }

    fn dial(&self) -> Plain {
        Plain::connect(&self.listen.address().into()).expect("it listens")
    }

    fn accept(&self) -> Plain {
        self.server.accept().expect("it dials").0.into()
    }

    fn tls(&self, version: Version) -> TlsServer {
        let clients = ClientCertificates::required(&self.pki.authority);
        TlsServer::with_version(&self.pki.server, &clients, version)
    }
}

#[test]
fn servers_that_answer_nonsense_end_the_local_connection() {
    let dialled = Dialled::start(|_| {});
    let hello = [22, 3, 3, 0, 4, 2, 0, 0, 90];
    for answer in [
        b"HTTP/1.1 200 OK\r\n\r\n".as_slice(),
        // An alert, a ServerHello that is cut, one that is no message, a record that is too long.
        &[21, 3, 3, 0, 2, 2, 40],
        &hello,
        &[22, 3, 3, 0, 4, 99, 0, 0, 0],
        &[22, 3, 3, 0xff, 0xff, 0],
        b"",
    ] {
        for with_reset in [false, true] {
            let mut local = dialled.dial();
            let far = dialled.accept();
            (&far).write_all(answer).expect("open");
            if with_reset {
                far.reset();
            } else {
                far.end_writing();
                assert_eq!(read_to_end(&mut local).0, b"");
                continue;
            }
            assert_eq!(read_to_end(&mut local).0, b"");
        }
    }
    eventually("all are told of", || {
        dialled.process.count_lines("error on dial") == 12
    });
    assert_eq!(dialled.process.count_lines("opening pipe"), 0);
}

/// What a server may send once it is connected: tickets in pieces and without end, key updates,
/// requests to renegotiate. The local peer's bytes go on, or the connection ends.
#[test]
fn servers_that_break_the_rules_hurt_themselves_only() {
    let dialled = Dialled::start(|command| {
        command.arg("--close-timeout=1s");
    });
    let ticket = {
        let body = [
            [0, 0, 0, 60, 1, 2, 3, 4, 1, 9, 7, 0xd0].as_slice(),
            &[7; 2000],
            &[0, 0],
        ]
        .concat();
        let [_, a, b, c] = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[4, a, b, c], body.as_slice()].concat()
    };
    // Each ticket ends in a record that begins the next one.
    let rolled: Vec<u8> = ticket.repeat(300);
    for (version, message, piece) in [
        (Version::V13, ticket.clone(), 1),
        (Version::V13, ticket.repeat(200), ticket.len()),
        (Version::V13, rolled, ticket.len() + 1),
        (Version::V13, [24, 0, 0, 1, 1].repeat(100), 5),
        (Version::V12, [0, 0, 0, 0].repeat(10), 1),
        (Version::V12, ticket, 100),
    ] {
        let mut local = dialled.dial();
        let far = thread::scope(|scope| {
            let far = scope.spawn(|| dialled.tls(version).handshake(dialled.accept()));
            local.write_all(b"hello").expect("open");
            far.join().expect("no panic").expect("trusted")
        });
        let (mut forger, socket) = far.into_forger();
        let _ = (&*socket).write_all(&forger.seal_in_pieces(Content::Handshake, &message, piece));
        let _ = local.write_all(b"more");
        socket.end_writing();
        local.end_writing();
        read_to_end(&mut &*socket);
        assert_eq!(read_to_end(&mut local).0, b"");
    }
    // What comes together with the end of a handshake is judged with it.
    let over = || ["closed pipe", "error on dial"].map(|line| dialled.process.count_lines(line));
    eventually("all have ended", || over().iter().sum::<usize>() == 6);
    assert!(!dialled.process.stderr().contains("panicked"));
}

/// A server that accepts TCP and says nothing holds a local peer to the connect timeout.
#[test]
fn servers_that_stall_in_the_handshake_are_given_up() {
    let dialled = Dialled::start(|command| {
        command.arg("--connect-timeout=300ms");
    });
    let mut local = dialled.dial();
    let far = dialled.accept();
    assert_eq!(read_to_end(&mut local).0, b"");
    dialled
        .process
        .wait_for_line("error on dial: context deadline exceeded");
    drop(far);
}

/// A client that says close_notify with its last handshake message wants to listen.
#[test]
fn a_client_that_only_listens_is_served() {
    let target = Target::before(Backend::tcp(Behaviour::SayAndClose(b"news".to_vec())), &[]);
    for version in BOTH {
        let mut session = target.client().version(version).session();
        let mut socket = target.dial();
        while session.is_handshaking() {
            let mut flight = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut flight).expect("memory takes everything");
            }
            socket.write_all(&flight).expect("open");
            session.read_tls(&mut socket).expect("open");
            session.process_new_packets().expect("in order");
        }
        session.send_close_notify();
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("memory takes everything");
        }
        socket.write_all(&flight).expect("open");
        let mut news = [0; 4];
        while session.reader().read(&mut news).is_err() {
            assert!(
                session.read_tls(&mut socket).expect("open") > 0,
                "closed without news"
            );
            session.process_new_packets().expect("in order");
        }
        assert_eq!(&news, b"news");
    }
}

/// When the backend can't be reached the peer hears close_notify, also when it has sent data
/// together with the end of its handshake.
#[test]
fn an_admitted_peer_without_backend_hears_close_notify() {
    let nobody = ReservedPort::new();
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let process = server(&pki, &listen, &Address::from(nobody.address()))
        .arg("--allow-all")
        .start();
    process.wait_listening(listen.port());
    for version in BOTH {
        let client = TlsClient::trusting(&pki.authority)
            .identity(&pki.client)
            .version(version);
        let mut session = client.session();
        let mut socket = TcpStream::connect(listen.address()).expect("it listens");
        // Goes out with Finished.
        session.writer().write_all(b"early").expect("room");
        let closed = loop {
            while session.wants_write() {
                session.write_tls(&mut socket).expect("open");
            }
            if session.read_tls(&mut socket).expect("no reset") == 0 {
                break false;
            }
            let state = session.process_new_packets().expect("in order");
            if state.peer_has_closed() {
                break true;
            }
        };
        assert!(closed, "{version:?}: closed without close_notify");
    }
}

/// Clients of TLS 1.1 know nothing of signature algorithms, and are told what they lack.
#[test]
fn clients_of_old_versions_hear_protocol_version() {
    let target = Target::start(&[]);
    let body = [[3, 2].as_slice(), &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0, 0, 0]].concat();
    let length = u8::try_from(body.len()).expect("short");
    let hello = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], body.as_slice()].concat();
    let mut socket = target.dial();
    socket.write_all(&hello).expect("open");
    assert_eq!(
        read_to_end(&mut socket),
        (vec![21, 3, 3, 0, 2, 2, 70], End::Closed)
    );
    let line = "tls: client offered only unsupported versions: [302 301]";
    target.process.wait_for_line(line);
}

/// A peer with the smallest receive buffer that never reads its echo.
#[test]
fn a_peer_that_never_reads_is_cut_by_the_lifetime() {
    let target = Target::start(&["--max-conn-lifetime=1s", "--close-timeout=500ms"]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("the least there is");
    let address: SocketAddr = target.listen.address();
    socket.connect(&address.into()).expect("it listens");
    let mut peer = target
        .client()
        .handshake(Plain::from(TcpStream::from(socket)))
        .expect("admitted");
    while peer.write_all(&[b'x'; 65536]).is_ok() {}
    target.is_unharmed();
}
