use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};

use ghostunnel_testing::{
    AlertDescription, Content, End as Ending, Forger, Plain, TlsClient, TlsPeer, Version, eventually,
    read_to_end,
};
use proptest::prelude::*;
use socket2::SockRef;

use super::super::handshake;
use super::super::steps::{self, Steps};
use super::*;
use crate::tls::test_support::Scene;

/// What a finished relay has to tell.
#[derive(Debug, Default)]
struct Report {
    opened: u64,
    sealed: u64,
    failed: Vec<String>,
    timed_out: Vec<String>,
}

#[derive(Default)]
struct Notes(Mutex<Report>);

impl Observer for Notes {
    fn moved(&self, volume: Volume) {
        let mut report = self.0.lock().expect("one thread");
        report.opened += volume.opened;
        report.sealed += volume.sealed;
    }

    fn failed(&self, text: &str) {
        self.0.lock().expect("one thread").failed.push(text.to_owned());
    }

    fn timed_out(&self, text: &str) {
        self.0.lock().expect("one thread").timed_out.push(text.to_owned());
    }
}

/// A relay on a thread of its own, which accepts TLS.
struct Running(JoinHandle<Report>);

impl Running {
    fn report(self) -> Report {
        eventually("the relay ends", || self.0.is_finished());
        self.0.join().expect("no panic")
    }
}

/// How a rig differs from the usual one.
struct Settings {
    version: Version,
    close_timeout: Duration,
    lifetime: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: Version::V13,
            close_timeout: Duration::from_secs(60),
            lifetime: None,
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn into_stream(self) -> Stream {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true).expect("it can be");
                Stream::from_tcp(tokio::net::TcpStream::from_std(socket).expect("a runtime"))
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true).expect("it can be");
                Stream::from_unix(tokio::net::UnixStream::from_std(socket).expect("a runtime"))
            }
        }
        .expect("connected")
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    (ours, listener.accept().expect("connected").0)
}

fn run(scene: &Scene, tls: Socket, plain: Socket, settings: &Settings) -> Running {
    let ours = scene.server();
    let (close_timeout, lifetime) = (settings.close_timeout, settings.lifetime);
    Running(thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut stream = tls.into_stream();
            let session = handshake::drive(ours, &mut stream, &Steps::new(steps::AT_ONCE))
                .await
                .expect("admitted")
                .session;
            let deadlines = Deadlines {
                close_timeout,
                end_of_life: lifetime.map(super::super::deadline_after),
            };
            let notes = Notes::default();
            let end = TlsEnd { stream, session };
            let volume = relay(end, plain.into_stream(), deadlines, &notes).await;
            let report = notes.0.into_inner().expect("one thread");
            assert_eq!((report.opened, report.sealed), (volume.opened, volume.sealed));
            report
        })
    }))
}

fn client(scene: &Scene, version: Version) -> TlsClient {
    TlsClient::trusting(&scene.pki.authority)
        .identity(&scene.pki.client)
        .version(version)
}

/// A TLS peer and a plain one with a relay between them.
fn rig(settings: &Settings) -> (TlsPeer, Plain, Running) {
    let scene = Scene::new();
    let ((near, tls), (far, plain)) = (tcp_pair(), tcp_pair());
    let running = run(&scene, Socket::Tcp(tls), Socket::Tcp(plain), settings);
    let peer = client(&scene, settings.version)
        .handshake(Plain::from(near))
        .expect("admitted");
    (peer, Plain::from(far), running)
}

fn forger_rig(settings: &Settings) -> (Forger, std::sync::Arc<Plain>, Plain, Running) {
    let (peer, plain, running) = rig(settings);
    let (forger, socket) = peer.into_forger();
    (forger, socket, plain, running)
}

const BOTH: [Version; 2] = [Version::V12, Version::V13];

fn with(version: Version) -> Settings {
    Settings {
        version,
        ..Settings::default()
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

fn read_exactly(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("so many bytes");
    bytes
}

#[test]
fn much_passes_both_ways_at_once() {
    let text = pattern(5_000_000);
    for version in BOTH {
        let (mut peer, mut plain, running) = rig(&with(version));
        thread::scope(|scope| {
            scope.spawn(|| {
                // Each writes while it reads, so that a relay that waits for one direction hangs.
                let mut writer = &plain;
                writer.write_all(&text).expect("open");
                plain.end_writing();
            });
            let (far, near) = (scope.spawn(|| read_to_end(&mut &plain)), &mut peer);
            for piece in text.chunks(100_000) {
                near.write_all(piece).expect("open");
                near.read_exact(&mut vec![0; piece.len()]).expect("open");
            }
            near.end_writing();
            assert_eq!(read_to_end(near), (vec![], Ending::Closed));
            let (received, end) = far.join().expect("no panic");
            assert!(received == text && end == Ending::Closed);
        });
        plain.flush().expect("nothing is kept");
        let report = running.report();
        assert_eq!((report.opened, report.sealed), (5_000_000, 5_000_000));
        assert_eq!(
            (report.failed.len(), report.timed_out.len()),
            (0, 0),
            "{report:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn streams_arrive_whole_in_any_pieces(
        pieces in prop::collection::vec((any::<bool>(), 1_usize..90_000), 1..20),
        version in prop::sample::select(BOTH.to_vec()),
    ) {
        let (mut peer, mut plain, running) = rig(&with(version));
        let (mut sealed, mut opened) = (0, 0);
        for (up, size) in pieces {
            let text = pattern(size);
            let arrived = if up {
                opened += size;
                peer.write_all(&text).expect("open");
                read_exactly(&mut plain, size)
            } else {
                sealed += size;
                plain.write_all(&text).expect("open");
                read_exactly(&mut peer, size)
            };
            prop_assert!(arrived == text);
        }
        peer.end_writing();
        drop(plain);
        let report = running.report();
        prop_assert_eq!((report.opened, report.sealed), (as_u64(opened), as_u64(sealed)));
    }
}

#[test]
fn bytes_behind_the_handshake_reach_the_target_at_once() {
    for (version, length) in BOTH
        .into_iter()
        .flat_map(|version| [(version, 5), (version, 200 * 1024)])
    {
        let scene = Scene::new();
        let ((mut near, tls), (far, plain)) = (tcp_pair(), tcp_pair());
        let running = run(&scene, Socket::Tcp(tls), Socket::Tcp(plain), &with(version));
        let mut session = client(&scene, version).session();
        session.set_buffer_limit(None);
        let text = pattern(length);
        // Written before the handshake is over, it goes out together with Finished.
        session.writer().write_all(&text).expect("no limit");
        while session.is_handshaking() {
            let mut flight = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut flight).expect("memory takes everything");
            }
            near.write_all(&flight).expect("open");
            session.read_tls(&mut near).expect("open");
            session.process_new_packets().expect("in order");
        }
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("memory takes everything");
        }
        near.write_all(&flight).expect("open");
        assert!(read_exactly(&mut Plain::from(far), text.len()) == text);
        drop(near);
        assert_eq!(running.report().opened, as_u64(text.len()));
    }
}

/// A target that does not read stops the peer, and gets everything when it does.
#[test]
fn a_side_that_does_not_read_stops_the_other() {
    let (mut peer, mut plain, running) = rig(&Settings::default());
    let piece = pattern(64 * 1024);
    peer.socket().set_timeout(Duration::from_millis(300));
    let mut sent = 0;
    let stopped = loop {
        match peer.write_all(&piece) {
            Ok(()) => sent += piece.len(),
            Err(error) => break error,
        }
        // Sockets hold some megabytes, the relay a fraction of one.
        assert!(sent < 64 * 1024 * 1024, "never stopped");
    };
    assert_eq!(Ending::from(&stopped), Ending::TimedOut);
    drop(peer);
    let (received, end) = read_to_end(&mut plain);
    assert_eq!(end, Ending::Closed);
    assert!(received.len() >= sent, "{} of {sent}", received.len());
    assert!(received.chunks(piece.len()).all(|chunk| piece.starts_with(chunk)));
    drop(plain);
    running.report();
}

#[test]
fn each_direction_ends_by_itself() {
    for version in BOTH {
        let (mut peer, mut plain, running) = rig(&with(version));
        peer.write_all(b"request").expect("open");
        peer.end_writing();
        assert_eq!(read_to_end(&mut plain), (b"request".to_vec(), Ending::Closed));
        plain.write_all(b"answer").expect("this direction is open");
        assert_eq!(read_exactly(&mut peer, 6), b"answer");
        drop(plain);
        assert_eq!(read_to_end(&mut peer), (vec![], Ending::Closed));
        assert_eq!(running.report().failed.len(), 0);

        let (mut peer, mut plain, running) = rig(&with(version));
        plain.write_all(b"banner").expect("open");
        plain.end_writing();
        assert_eq!(read_to_end(&mut peer), (b"banner".to_vec(), Ending::Closed));
        peer.write_all(b"request").expect("this direction is open");
        assert_eq!(read_exactly(&mut plain, 7), b"request");
        peer.close_abruptly();
        assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
        assert_eq!(running.report().failed.len(), 0);
    }
}

#[test]
fn peers_that_vanish_are_an_end_and_no_fault() {
    // The TLS peer: without close_notify, and by a reset.
    for reset in [false, true] {
        let (mut peer, mut plain, running) = rig(&Settings::default());
        peer.write_all(b"last words").expect("open");
        assert_eq!(read_exactly(&mut plain, 10), b"last words");
        if reset {
            peer.reset();
        } else {
            peer.close_abruptly();
        }
        assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
        drop(plain);
        let report = running.report();
        assert_eq!((report.opened, report.failed.len()), (10, 0), "{report:?}");
    }
    // The plain peer resets: the TLS peer hears close_notify.
    let (mut peer, mut plain, running) = rig(&Settings::default());
    plain.write_all(b"last words").expect("open");
    assert_eq!(read_exactly(&mut peer, 10), b"last words");
    plain.reset();
    assert_eq!(read_to_end(&mut peer), (vec![], Ending::Closed));
    drop(peer);
    assert_eq!(running.report().failed.len(), 0);
}

#[test]
fn a_stream_cut_within_a_record_is_a_fault() {
    for version in BOTH {
        let (mut forger, socket, mut plain, running) = forger_rig(&with(version));
        let records = [
            forger.seal(Content::Data, b"whole"),
            forger.seal(Content::Data, b"cut"),
        ]
        .concat();
        (&*socket).write_all(&records[..records.len() - 1]).expect("open");
        socket.end_writing();
        assert_eq!(read_to_end(&mut plain), (b"whole".to_vec(), Ending::Closed));
        drop(plain);
        assert_eq!(running.report().failed, ["unexpected EOF"]);
    }
}

/// What came before a bad record is delivered, its sender hears why, and nobody is reset though
/// both go on sending.
#[test]
fn a_bad_record_ends_both_directions_in_good_order() {
    for version in BOTH {
        let (mut forger, socket, mut plain, running) = forger_rig(&with(version));
        plain.write_all(&pattern(3000)).expect("open");
        read_exactly(&mut &*socket, 3000);
        let mut records = forger.seal(Content::Data, b"good");
        records.extend([23, 3, 3, 0, 40]);
        records.extend([0; 40]);
        records.extend(pattern(300_000));
        (&*socket).write_all(&records).expect("open");
        assert_eq!(read_exactly(&mut plain, 4), b"good");
        plain.write_all(&pattern(300_000)).expect("not reset");
        assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
        drop(plain);
        socket.end_writing();
        // The rest of the record with data, then the alert: type and length are in the clear.
        let (rest, end) = read_to_end(&mut &*socket);
        assert_eq!(end, Ending::Closed, "no reset");
        let alert = if version == Version::V12 {
            5 + 8 + 2 + 16
        } else {
            5 + 2 + 1 + 16
        };
        let alert = rest.get(rest.len() - alert..).expect("an alert");
        let kind = if version == Version::V12 { 21 } else { 23 };
        assert_eq!(alert.first(), Some(&kind), "{alert:?}");
        assert_eq!(running.report().failed, ["local error: tls: bad record MAC"]);
    }
}

#[test]
fn a_fatal_alert_ends_the_session_and_is_told() {
    let (mut forger, socket, mut plain, running) = forger_rig(&Settings::default());
    let handshake_failure = [2, u8::from(AlertDescription::HandshakeFailure)];
    (&*socket)
        .write_all(&forger.seal(Content::Alert, &handshake_failure))
        .expect("open");
    assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
    drop((plain, socket));
    assert_eq!(running.report().failed, ["remote error: tls: handshake failure"]);
}

#[test]
fn messages_in_pieces_while_the_other_direction_flows() {
    const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
    let (mut forger, socket, mut plain, running) = forger_rig(&Settings::default());
    let record = 5 + 4 + 1 + 16;
    for bytes in forger
        .seal_in_pieces(Content::Handshake, &KEY_UPDATE, 2)
        .chunks(5)
    {
        (&*socket).write_all(bytes).expect("open");
        plain.write_all(b"data").expect("open");
        let sealed = read_exactly(&mut &*socket, record);
        assert_eq!(forger.open(&sealed), [(Content::Data as u8, b"data".to_vec())]);
    }
    drop((socket, plain));
    assert_eq!(running.report().failed.len(), 0);
}

/// A TLS peer that takes little, and the relay's view of what it took.
#[test]
fn bytes_that_the_peer_never_took_are_not_counted() {
    let scene = Scene::new();
    let (near, tls) = UnixStream::pair().expect("a pair");
    SockRef::from(&tls)
        .set_send_buffer_size(1)
        .expect("the least there is");
    let (far, plain) = tcp_pair();
    let mut far = Plain::from(far);
    let settings = Settings::default();
    let running = run(&scene, Socket::Unix(tls), Socket::Tcp(plain), &settings);
    let mut peer = client(&scene, Version::V13)
        .handshake(Plain::from(near))
        .expect("admitted");
    far.write_all(b"taken").expect("open");
    assert_eq!(read_exactly(&mut peer, 5), b"taken");
    far.write_all(&pattern(50_000)).expect("open");
    // Some of the records have arrived: the rest waits in the relay.
    assert_eq!(read_exactly(&mut peer.socket(), 5).first(), Some(&23));
    drop((peer, far));
    assert_eq!(running.report().sealed, 5);
}

#[test]
fn the_close_timeout_cuts_what_does_not_end() {
    let settings = Settings {
        close_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let (mut peer, mut plain, running) = rig(&settings);
    peer.end_writing();
    assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
    assert_eq!(read_to_end(&mut peer), (vec![], Ending::Closed));
    let report = running.report();
    assert!(
        matches!(report.timed_out.as_slice(), [text] if text.contains("i/o timeout")),
        "{report:?}"
    );

    // Zero is a way to end, not a fault.
    let settings = Settings {
        close_timeout: Duration::ZERO,
        ..Settings::default()
    };
    let (mut peer, _plain, running) = rig(&settings);
    peer.end_writing();
    assert_eq!(read_to_end(&mut peer), (vec![], Ending::Closed));
    assert_eq!(running.report().timed_out.len(), 0);
}

#[test]
fn the_lifetime_cuts_idle_and_stuck_connections_alike() {
    let settings = Settings {
        lifetime: Some(Duration::from_millis(100)),
        ..Settings::default()
    };
    let (mut peer, mut plain, running) = rig(&settings);
    assert_eq!(read_to_end(&mut peer), (vec![], Ending::Closed));
    assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
    assert_eq!(running.report().timed_out.len(), 2);

    // Nobody reads, both write.
    let (mut peer, plain, running) = rig(&settings);
    thread::scope(|scope| {
        scope.spawn(|| while (&plain).write_all(&[0; 65536]).is_ok() {});
        while peer.write_all(&[0; 65536]).is_ok() {}
    });
    let report = running.report();
    assert_eq!(report.timed_out.len(), 2, "{report:?}");
    assert!(
        report.timed_out.iter().all(|text| text.starts_with("write ")),
        "{report:?}"
    );
}

/// A peer that says close_notify and goes on sending holds nothing but its socket.
#[test]
fn what_follows_close_notify_reaches_nobody() {
    let (mut forger, socket, mut plain, running) = forger_rig(&Settings::default());
    let mut records = forger.seal(Content::Alert, &[1, 0]);
    records.extend(forger.seal(Content::Data, b"smuggled"));
    (&*socket).write_all(&records).expect("open");
    assert_eq!(read_to_end(&mut plain), (vec![], Ending::Closed));
    plain.write_all(b"answer").expect("this direction is open");
    let sealed = read_exactly(&mut &*socket, 5 + 6 + 1 + 16);
    assert_eq!(forger.open(&sealed), [(Content::Data as u8, b"answer".to_vec())]);
    drop((socket, plain));
    assert_eq!(running.report().opened, 0);
}
