//! Listening peers: what a tunnel's `--target` can meet, over TCP, UNIX sockets and TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};

use crate::eventually::{eventually, eventually_some};
use crate::stream::{Address, End, Plain};
use crate::tls::{TlsFacts, TlsPeer, TlsServer};

/// What a backend does with each connection. "Half-close" is close_notify on a TLS backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends back what it reads; at the end half-closes, then closes.
    Echo,
    /// Reads to the end, then closes.
    Sink,
    /// Sends this many bytes of [`Backend::source_byte`], half-closes, reads to the end.
    Source(usize),
    /// Sends these bytes, half-closes, reads to the end.
    SayAndHalfClose(Vec<u8>),
    /// Reads to the end, only then sends these bytes, then closes.
    AnswerAfterEnd(Vec<u8>),
    /// Waits for the first bytes, sends these, half-closes, reads to the end.
    AnswerAndHalfClose(Vec<u8>),
    /// Waits for the first bytes, sends these and resets the connection at once.
    AnswerAndReset(Vec<u8>),
    /// Sends these bytes without waiting for any, then closes without half-close: FIN
    /// without close_notify on a TLS backend.
    SayAndClose(Vec<u8>),
    /// Resets the connection at once.
    Reset,
    /// Reads to the end, and keeps its own side open until the backend is dropped.
    KeepOpen,
    /// Never reads, never closes until the backend is dropped.
    NeverRead,
}

/// A peer that listens on a thread and serves each connection on another. Dropping it stops
/// all of them.
pub struct Backend {
    address: Address,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    behaviour: Behaviour,
    tls: Option<TlsServer>,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    connections: Vec<Arc<Connection>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Backend {
    /// A TCP backend on a free port of 127.0.0.1.
    pub fn tcp(behaviour: Behaviour) -> Self {
        Self::tcp_at((Ipv4Addr::LOCALHOST, 0).into(), behaviour)
    }

    /// A TCP backend on this address, for one that comes back after it was gone.
    pub fn tcp_at(address: SocketAddr, behaviour: Behaviour) -> Self {
        let (listener, address) = bind_tcp(address);
        Self::start(listener, address, behaviour, None)
    }

    /// A backend on a UNIX socket. An old socket file is replaced.
    pub fn unix(path: &Path, behaviour: Behaviour) -> Self {
        Self::start(bind_unix(path), path.into(), behaviour, None)
    }

    /// A TLS backend on a free port of 127.0.0.1.
    pub fn tls(server: TlsServer, behaviour: Behaviour) -> Self {
        let (listener, address) = bind_tcp((Ipv4Addr::LOCALHOST, 0).into());
        Self::start(listener, address, behaviour, Some(server))
    }

    /// A TLS backend on a UNIX socket. An old socket file is replaced.
    pub fn tls_unix(path: &Path, server: TlsServer, behaviour: Behaviour) -> Self {
        Self::start(bind_unix(path), path.into(), behaviour, Some(server))
    }

    fn start(listener: Listener, address: Address, behaviour: Behaviour, tls: Option<TlsServer>) -> Self {
        let shared = Arc::new(Shared {
            behaviour,
            tls,
            state: Mutex::default(),
            stopped: Condvar::new(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accept_until_stopped(&listener))
        };
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens; displayed as `--target` takes it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The TCP port it listens on.
    pub fn port(&self) -> u16 {
        match &self.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(path) => panic!("{} is no port", path.display()),
        }
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// How many accepted connections are still open on this side.
    pub fn open(&self) -> usize {
        self.shared
            .lock()
            .connections
            .iter()
            .filter(|connection| connection.is_open())
            .count()
    }

    /// Bytes received on all connections so far.
    pub fn received(&self) -> u64 {
        self.shared
            .lock()
            .connections
            .iter()
            .map(|connection| connection.received_count())
            .sum()
    }

    /// The connection with this index, in the order of acceptance; waits until it exists.
    pub fn connection(&self, index: usize) -> Arc<Connection> {
        eventually_some(
            &format!("backend {} has accepted {} connections", self.address, index + 1),
            || self.shared.lock().connections.get(index).cloned(),
        )
    }

    /// Waits until this many connections were accepted in all.
    #[track_caller]
    pub fn wait_accepted(&self, count: usize) {
        eventually(
            &format!("backend {} has accepted {count} connections", self.address),
            || self.accepted() >= count,
        );
    }

    /// What [`Behaviour::Source`] sends at this offset.
    pub fn source_byte(offset: usize) -> u8 {
        // A prime period, so that lost, doubled or swapped blocks of any usual size show.
        u8::try_from(offset % 251).expect("below 251")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop();
        // Wakes the acceptor, which then sees that it is to stop.
        let _ = Plain::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        if let Address::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> (Listener, Address) {
    let listener =
        TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let address = listener.local_addr().expect("a bound socket has an address");
    (Listener::Tcp(listener), address.into())
}

fn bind_unix(path: &Path) -> Listener {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)
        .unwrap_or_else(|error| panic!("cannot listen on {}: {error}", path.display()));
    Listener::Unix(listener)
}

impl Listener {
    fn accept(&self) -> io::Result<Plain> {
        match self {
            Self::Tcp(listener) => Ok(listener.accept()?.0.into()),
            Self::Unix(listener) => Ok(listener.accept()?.0.into()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn accept_until_stopped(self: &Arc<Self>, listener: &Listener) {
        let mut servants: Vec<JoinHandle<()>> = Vec::new();
        while let Ok(socket) = listener.accept() {
            let socket = Arc::new(socket);
            let Some(connection) = self.register(&socket) else {
                break;
            };
            // A thread that has ended keeps its stack for as long as somebody can join it.
            servants.retain(|servant| !servant.is_finished());
            let shared = Arc::clone(self);
            servants.push(thread::spawn(move || shared.serve(socket, &connection)));
        }
        servants.into_iter().for_each(|servant| drop(servant.join()));
    }

    /// `None` once stopped. Stopping and registering exclude each other, so that no
    /// connection is missed when all are ended.
    fn register(&self, socket: &Arc<Plain>) -> Option<Arc<Connection>> {
        let mut state = self.lock();
        let connection = Arc::new(Connection {
            socket: Arc::downgrade(socket),
            observed: Mutex::default(),
        });
        state.connections.push(Arc::clone(&connection));
        (!state.is_stopped).then_some(connection)
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        for socket in state
            .connections
            .iter()
            .filter_map(|connection| connection.socket.upgrade())
        {
            socket.end();
        }
        self.stopped.notify_all();
    }

    fn wait_until_stopped(&self) {
        drop(self.stopped.wait_while(self.lock(), |state| !state.is_stopped));
    }

    fn serve(&self, socket: Arc<Plain>, connection: &Connection) {
        let Some(tls) = &self.tls else {
            return self.behave(&mut PlainEnd(socket), connection);
        };
        match tls.handshake_shared(socket) {
            Ok(mut peer) => {
                connection.observe().tls = Some(peer.facts());
                self.behave(&mut peer, connection);
            }
            Err(end) => connection.observe().end = Some(end),
        }
    }

    fn behave(&self, stream: &mut dyn Stream, connection: &Connection) {
        // A failing write needs no report: the tested program has closed on us, and the
        // test looks at what it did instead.
        let _ = match &self.behaviour {
            Behaviour::Echo => echo(stream, connection),
            Behaviour::Sink => sink(stream, connection),
            Behaviour::Source(length) => {
                send_source(stream, *length).and_then(|()| half_close_and_sink(stream, connection))
            }
            Behaviour::SayAndHalfClose(bytes) => stream
                .write_all(bytes)
                .and_then(|()| half_close_and_sink(stream, connection)),
            Behaviour::AnswerAndHalfClose(bytes) => read_some(stream, connection)
                .and_then(|()| stream.write_all(bytes))
                .and_then(|()| half_close_and_sink(stream, connection)),
            Behaviour::AnswerAfterEnd(bytes) => sink(stream, connection)
                .and_then(|()| stream.write_all(bytes))
                .map(|()| stream.end_writing()),
            Behaviour::AnswerAndReset(bytes) => read_some(stream, connection)
                .and_then(|()| stream.write_all(bytes))
                .map(|()| stream.socket().reset_when_dropped()),
            Behaviour::SayAndClose(bytes) => stream.write_all(bytes),
            Behaviour::Reset => {
                stream.socket().reset_when_dropped();
                Ok(())
            }
            Behaviour::KeepOpen => sink(stream, connection).map(|()| self.wait_until_stopped()),
            Behaviour::NeverRead => {
                self.wait_until_stopped();
                Ok(())
            }
        };
    }
}

/// One accepted connection, as the backend saw it.
pub struct Connection {
    /// Weak, so that only the thread that serves the connection decides when it closes.
    socket: Weak<Plain>,
    observed: Mutex<Observed>,
}

#[derive(Default)]
struct Observed {
    count: u64,
    head: Vec<u8>,
    end: Option<End>,
    tls: Option<TlsFacts>,
}

impl Connection {
    /// Enough for headers and small talk; whole transfers are only counted.
    const HEAD: usize = 256 * 1024;

    /// The first 256 KiB received so far.
    pub fn received(&self) -> Vec<u8> {
        self.observe().head.clone()
    }

    /// The number of bytes received so far.
    pub fn received_count(&self) -> u64 {
        self.observe().count
    }

    /// Waits until at least this many bytes were received and returns the received head.
    #[track_caller]
    pub fn wait_received(&self, count: u64) -> Vec<u8> {
        eventually(&format!("the backend has received {count} bytes"), || {
            self.received_count() >= count
        });
        self.received()
    }

    /// How the peer's bytes ended, or the handshake failed; `None` while they have not. Seen
    /// only by behaviours that read.
    pub fn end(&self) -> Option<End> {
        self.observe().end.clone()
    }

    /// Waits for [`Connection::end`].
    #[track_caller]
    pub fn wait_end(&self) -> End {
        eventually_some("the backend has seen the end of the stream", || self.end())
    }

    /// Whether this side has not closed it yet.
    pub fn is_open(&self) -> bool {
        self.socket.strong_count() > 0
    }

    /// What the handshake agreed on; `None` without TLS and before the handshake is complete.
    pub fn tls(&self) -> Option<TlsFacts> {
        self.observe().tls.clone()
    }

    fn observe(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().expect("no holder panics")
    }

    fn record(&self, bytes: &[u8]) {
        let mut observed = self.observe();
        observed.count += bytes.len() as u64;
        let room = Self::HEAD.saturating_sub(observed.head.len()).min(bytes.len());
        observed.head.extend_from_slice(&bytes[..room]);
    }
}

/// What behaviours need of a stream, plain or TLS.
trait Stream: Read + Write {
    fn end_writing(&mut self);
    fn socket(&self) -> &Plain;
}

struct PlainEnd(Arc<Plain>);

impl Read for PlainEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for PlainEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for PlainEnd {
    fn end_writing(&mut self) {
        self.0.end_writing();
    }

    fn socket(&self) -> &Plain {
        &self.0
    }
}

impl Stream for TlsPeer {
    fn end_writing(&mut self) {
        Self::end_writing(self);
    }

    fn socket(&self) -> &Plain {
        Self::socket(self)
    }
}

fn echo(stream: &mut dyn Stream, connection: &Connection) -> io::Result<()> {
    each_chunk(stream, connection, |stream, chunk| stream.write_all(chunk))?;
    stream.end_writing();
    Ok(())
}

fn sink(stream: &mut dyn Stream, connection: &Connection) -> io::Result<()> {
    each_chunk(stream, connection, |_, _| Ok(()))
}

fn half_close_and_sink(stream: &mut dyn Stream, connection: &Connection) -> io::Result<()> {
    stream.end_writing();
    sink(stream, connection)
}

/// Reads to the end and records both bytes and end.
fn each_chunk(
    stream: &mut dyn Stream,
    connection: &Connection,
    mut take: impl FnMut(&mut dyn Stream, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).inspect_err(|error| {
            connection.observe().end = Some(End::from(error));
        })?;
        if length == 0 {
            connection.observe().end = Some(End::Closed);
            return Ok(());
        }
        connection.record(&buffer[..length]);
        take(stream, &buffer[..length])?;
    }
}

fn read_some(stream: &mut dyn Stream, connection: &Connection) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer)?;
    connection.record(&buffer[..length]);
    Ok(())
}

fn send_source(stream: &mut dyn Stream, length: usize) -> io::Result<()> {
    const CHUNK: usize = 251 * 256;
    let chunk: Vec<u8> = (0..CHUNK).map(Backend::source_byte).collect();
    let mut sent = 0;
    while sent < length {
        let now = CHUNK.min(length - sent);
        stream.write_all(&chunk[..now])?;
        sent += now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Pki, private_dir};
    use crate::stream::read_to_end;
    use crate::tls::{ClientCertificates, TlsClient};

    fn connect(backend: &Backend) -> Plain {
        Plain::connect(backend.address()).expect("the backend listens")
    }

    #[test]
    fn behaviours_end_streams_as_described() {
        for (behaviour, say, bytes, end) in [
            (Behaviour::Echo, "abc", b"abc".to_vec(), End::Closed),
            (Behaviour::Sink, "abc", vec![], End::Closed),
            (
                Behaviour::Source(600),
                "abc",
                (0..600).map(Backend::source_byte).collect(),
                End::Closed,
            ),
            (
                Behaviour::SayAndHalfClose(b"x".to_vec()),
                "abc",
                b"x".to_vec(),
                End::Closed,
            ),
            (
                Behaviour::AnswerAndHalfClose(b"x".to_vec()),
                "abc",
                b"x".to_vec(),
                End::Closed,
            ),
            (
                Behaviour::AnswerAfterEnd(b"x".to_vec()),
                "abc",
                b"x".to_vec(),
                End::Closed,
            ),
            (
                Behaviour::SayAndClose(b"x".to_vec()),
                "",
                b"x".to_vec(),
                End::Closed,
            ),
        ] {
            let backend = Backend::tcp(behaviour.clone());
            let mut stream = connect(&backend);
            stream.write_all(say.as_bytes()).expect("open");
            stream.end_writing();
            assert_eq!(read_to_end(&mut stream), (bytes, end), "{behaviour:?}");
        }
    }

    #[test]
    fn resets_are_resets() {
        for behaviour in [Behaviour::Reset, Behaviour::AnswerAndReset(b"x".to_vec())] {
            let backend = Backend::tcp(behaviour.clone());
            // A reset can be so quick that it is the connect that fails.
            let end = match Plain::connect(backend.address()) {
                Err(error) => End::from(&error),
                Ok(mut stream) => {
                    let _ = stream.write_all(b"abc");
                    read_to_end(&mut stream).1
                }
            };
            assert_eq!(end, End::Reset, "{behaviour:?}");
        }
    }

    #[test]
    fn half_closed_backend_goes_on_reading() {
        let backend = Backend::tcp(Behaviour::SayAndHalfClose(b"bye".to_vec()));
        let mut stream = connect(&backend);
        assert_eq!(read_to_end(&mut stream), (b"bye".to_vec(), End::Closed));
        stream
            .write_all(b"still here")
            .expect("only one direction has ended");
        assert_eq!(backend.connection(0).wait_received(10), b"still here");
        assert_eq!(backend.connection(0).end(), None);
    }

    #[test]
    fn connections_stay_open_until_the_backend_is_dropped() {
        for behaviour in [Behaviour::KeepOpen, Behaviour::NeverRead] {
            let backend = Backend::tcp(behaviour.clone());
            let mut stream = connect(&backend);
            stream.end_writing();
            backend.wait_accepted(1);
            assert_eq!(backend.open(), 1, "{behaviour:?}");
            drop(backend);
            assert_eq!(read_to_end(&mut stream), (vec![], End::Closed), "{behaviour:?}");
        }
    }

    #[test]
    fn unix_backend_echoes_and_removes_its_socket() {
        let dir = private_dir();
        let path = dir.path().join("socket");
        let backend = Backend::unix(&path, Behaviour::Echo);
        assert_eq!(backend.address().to_string(), format!("unix:{}", path.display()));
        let mut stream = connect(&backend);
        stream.write_all(b"abc").expect("open");
        stream.end_writing();
        assert_eq!(read_to_end(&mut stream), (b"abc".to_vec(), End::Closed));
        assert_eq!((backend.accepted(), backend.received()), (1, 3));
        drop(backend);
        assert!(!path.exists());
    }

    #[test]
    fn stopped_backend_refuses_and_its_address_can_be_taken_again() {
        let backend = Backend::tcp(Behaviour::Echo);
        let address = backend.address().clone();
        drop(backend);
        assert!(Plain::connect(&address).is_err());
        let Address::Tcp(socket_address) = address else {
            panic!("a TCP backend")
        };
        let again = Backend::tcp_at(socket_address, Behaviour::Echo);
        drop(connect(&again));
    }

    #[test]
    fn tls_backend_that_just_closes_truncates() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::SayAndClose(b"x".to_vec()));
        let mut peer = TlsClient::trusting(&pki.authority)
            .connect(backend.address())
            .expect("trusted");
        assert_eq!(read_to_end(&mut peer), (b"x".to_vec(), End::Truncated));
    }
}
