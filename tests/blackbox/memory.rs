//! What connections cost: memory while they are idle or blocked, and that nothing is left of
//! them afterwards.

use std::io::{Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::ClientCertificates::Unasked;
use ghostunnel_testing::{
    Address, Backend, Behaviour, End, Pki, Plain, Process, ReservedPort, TlsClient, TlsServer, descriptors,
    eventually, memory, raise_descriptor_limit, read_to_end, threads, within,
};

use crate::pair::{CLIENT, Mode, Peer, Route, SERVER, Sender, Tunnel, command};

const MIB: u64 = 1024 * 1024;

/// A stream of [`Backend::source_byte`]s that its reader is slow to take.
struct Flood {
    sent: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Sender>,
    receiver: Box<dyn Read + Send>,
}

impl Flood {
    /// Sends `most` bytes from one peer to the other, or fewer if it is ended before.
    fn start(source: Peer, target: Peer, most: u64) -> Self {
        // What does not fit the tunnel waits at the source, not in the kernel.
        source.socket().limit_buffers(256 * 1024);
        target.socket().limit_buffers(256 * 1024);
        // The reader takes its time.
        source.socket().set_timeout(Duration::from_secs(60));
        let (sent, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (_, mut sender) = source.split();
        let (receiver, _) = target.split();
        let thread = {
            let (sent, is_over) = (Arc::clone(&sent), Arc::clone(&is_over));
            let chunk = pattern(CHUNK);
            thread::spawn(move || {
                while sent.load(Ordering::SeqCst) < most && !is_over.load(Ordering::SeqCst) {
                    sender
                        .write_all(&chunk)
                        .expect("the tunnel takes bytes in the end");
                    sent.fetch_add(CHUNK as u64, Ordering::SeqCst);
                }
                sender.end_writing();
                sender
            })
        };
        Self {
            sent,
            is_over,
            thread,
            receiver,
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Reads all that was sent, and compares it.
    fn drain(mut self) -> u64 {
        let mut read = 0;
        let mut buffer = vec![0; CHUNK];
        let expected = pattern(CHUNK + PERIOD);
        loop {
            let length = self.receiver.read(&mut buffer).expect("bytes come");
            if length == 0 {
                break;
            }
            let offset = usize::try_from(read % PERIOD as u64).expect("below the period");
            let expected = &expected[offset..offset + length];
            assert!(&buffer[..length] == expected, "changed on the way");
            read += length as u64;
        }
        drop(self.thread.join().expect("sending does not panic"));
        assert_eq!(read, self.sent.load(Ordering::SeqCst));
        read
    }
}

/// Of [`Backend::source_byte`].
const PERIOD: usize = 251;
const CHUNK: usize = PERIOD * 256;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(Backend::source_byte).collect()
}

/// Waits until nothing moves any more, and returns the most memory seen meanwhile.
fn wait_blocked(process: &Process, floods: &[Flood]) -> u64 {
    let mut most = 0;
    eventually("every flood has begun", || {
        floods.iter().all(|flood| flood.sent() > 0)
    });
    let total = || floods.iter().map(Flood::sent).sum::<u64>();
    eventually("nothing moves any more", || {
        let before = total();
        let moved = within(Duration::from_millis(500), || {
            most = most.max(memory(process.id()).resident);
            (total() != before).then_some(())
        });
        moved.is_none()
    });
    most
}

/// The median of some round trips over this connection.
fn round_trip(near: &mut Peer, far: &mut Peer) -> Duration {
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let started = Instant::now();
            near.say(b"ping");
            far.expect(b"ping");
            far.say(b"pong");
            near.expect(b"pong");
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Which end does not read.
#[derive(Debug, Clone, Copy)]
enum Blocked {
    Near,
    Far,
}

impl Blocked {
    fn flood(self, (near, far): (Peer, Peer), most: u64) -> Flood {
        match self {
            Self::Near => Flood::start(far, near, most),
            Self::Far => Flood::start(near, far, most),
        }
    }
}

fn assert_fifty_blocked_connections_are_bounded(route: Route, blocked: Blocked) {
    let tunnel = Tunnel::start(route, &[]);
    let (mut near, mut far) = tunnel.connect();
    let floods: Vec<_> = (0..50)
        .map(|_| blocked.flood(tunnel.connect(), u64::MAX))
        .collect();
    let most = wait_blocked(&tunnel.process, &floods);
    let median = round_trip(&mut near, &mut far);
    println!(
        "{:?}, {blocked:?} blocked: at most {} KiB resident, round trip {median:?} beside",
        route.mode,
        most / 1024
    );
    assert!(most < 100 * MIB, "{most} bytes resident");
    assert!(median < Duration::from_millis(200), "{median:?}");
    for flood in &floods {
        flood.is_over.store(true, Ordering::SeqCst);
    }
    thread::scope(|scope| {
        for flood in floods {
            scope.spawn(|| flood.drain());
        }
    });
    tunnel.assert_no_copy_errors();
}

#[test]
fn load_fifty_clients_that_do_not_read_cost_a_server_tunnel_little() {
    assert_fifty_blocked_connections_are_bounded(SERVER, Blocked::Near);
}

#[test]
fn load_fifty_backends_that_do_not_read_cost_a_server_tunnel_little() {
    assert_fifty_blocked_connections_are_bounded(SERVER, Blocked::Far);
}

#[test]
fn load_fifty_clients_that_do_not_read_cost_a_client_tunnel_little() {
    assert_fifty_blocked_connections_are_bounded(CLIENT, Blocked::Near);
}

#[test]
fn load_fifty_backends_that_do_not_read_cost_a_client_tunnel_little() {
    assert_fifty_blocked_connections_are_bounded(CLIENT, Blocked::Far);
}

#[test]
fn load_a_large_transfer_through_a_blocked_reader_arrives_whole() {
    const VOLUME: u64 = 256 * MIB;
    for (route, blocked) in [
        (SERVER, Blocked::Near),
        (SERVER, Blocked::Far),
        (CLIENT, Blocked::Near),
        (CLIENT, Blocked::Far),
    ] {
        let tunnel = Tunnel::start(route, &[]);
        let flood = [blocked.flood(tunnel.connect(), VOLUME)];
        let most = wait_blocked(&tunnel.process, &flood);
        let [flood] = flood;
        let waiting = flood.sent();
        assert!(waiting < VOLUME, "all of it went into buffers");
        assert!(most < 40 * MIB, "{most} bytes resident");
        assert!(flood.drain() >= VOLUME);
        let after = memory(tunnel.process.id()).resident;
        println!(
            "{:?}, {blocked:?} blocked: stopped after {} KiB, {} KiB resident, {} KiB in the end",
            route.mode,
            waiting / 1024,
            most / 1024,
            after / 1024
        );
        assert!(after < 40 * MIB, "{after} bytes resident");
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn load_a_thousand_idle_connections_cost_little() {
    const CONNECTIONS: u64 = 1000;
    raise_descriptor_limit();
    for route in [SERVER, CLIENT] {
        let tunnel = Tunnel::start(route, &[]);
        let open = || {
            let (mut near, mut far) = tunnel.connect();
            near.say(b"x");
            far.expect(b"x");
            far.say(b"x");
            near.expect(b"x");
            (near, far)
        };
        // What the first connections make the process allocate for good is not theirs.
        drop((0..20).map(|_| open()).collect::<Vec<_>>());
        tunnel.wait_closed(20);
        let before = memory(tunnel.process.id()).proportional;
        let pairs: Vec<_> = (0..CONNECTIONS).map(|_| open()).collect();
        let each = memory(tunnel.process.id()).proportional.saturating_sub(before) / CONNECTIONS;
        println!("{:?}: {each} bytes for each idle connection", route.mode);
        assert!(each < 24 * 1024, "{each} bytes for each idle connection");
        drop(pairs);
    }
}

/// A tunnel to an echo, and clients that leave it in every way.
struct Echo {
    process: Process,
    backend: Backend,
    near: Address,
    client: Option<TlsClient>,
    _port: ReservedPort,
    _pki: Pki,
}

impl Echo {
    fn behind(mode: Mode) -> Self {
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let backend = match mode {
            Mode::Server => Backend::tcp(Behaviour::Echo),
            Mode::Client => Backend::tls(TlsServer::new(&pki.server, &Unasked), Behaviour::Echo),
        };
        let near = Address::from(port.address());
        let process = command(mode, &pki, &near.to_string(), &backend.address().to_string()).start();
        process.wait_listening(port.port());
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        Self {
            process,
            backend,
            near,
            client: (mode == Mode::Server).then_some(client),
            _port: port,
            _pki: pki,
        }
    }

    fn dial(&self) -> Plain {
        Plain::connect(&self.near).expect("the tunnel listens")
    }

    fn connect(&self) -> Peer {
        match &self.client {
            Some(client) => client.handshake(self.dial()).expect("admitted").into(),
            None => self.dial().into(),
        }
    }

    fn visit(&self, number: usize) {
        match number % 5 {
            0 => drop(self.dial()),
            1 => {
                let mut socket = self.dial();
                socket.write_all(b"no TLS").expect("the tunnel listens");
                socket.end_writing();
                read_to_end(&mut socket);
            }
            2 => self.connect().reset(),
            3 => {
                let mut peer = self.connect();
                peer.say(b"x");
                peer.expect(b"x");
                drop(peer);
            }
            _ => {
                let mut peer = self.connect();
                peer.say(b"x");
                peer.end_writing();
                assert_eq!(peer.rest(), (b"x".to_vec(), End::Closed));
            }
        }
    }

    fn footprint(&self) -> (usize, usize) {
        let id = self.process.id();
        (descriptors(id), threads(id).len())
    }
}

fn assert_visits_leave_nothing_behind(mode: Mode) {
    const CLIENTS: usize = 8;
    const EACH: usize = 250;
    let tunnel = Echo::behind(mode);
    tunnel.visit(4);
    let mut before = (0, 0);
    eventually("the first visitor is gone for good", || {
        before = tunnel.footprint();
        within(Duration::from_millis(200), || {
            (tunnel.footprint() != before).then_some(())
        })
        .is_none()
    });
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..EACH).for_each(|number| tunnel.visit(number)));
        }
    });
    eventually("descriptors and threads are back", || {
        tunnel.footprint() == before
    });
    assert_eq!(tunnel.backend.open(), 0);
    let count = |line| tunnel.process.count_lines(line);
    eventually("every pair has been logged", || {
        count("opening pipe") == count("closed pipe")
    });
}

#[test]
fn load_visitors_of_a_server_tunnel_leave_nothing_behind() {
    assert_visits_leave_nothing_behind(Mode::Server);
}

#[test]
fn load_visitors_of_a_client_tunnel_leave_nothing_behind() {
    assert_visits_leave_nothing_behind(Mode::Client);
}
