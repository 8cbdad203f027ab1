//! One tunnelled connection with both of its ends in the hand of the test.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use ghostunnel_testing::{
    Address, ClientCertificates, Command, End, Pki, Plain, Process, ReservedPort, TlsClient, TlsPeer,
    TlsSender, TlsServer, Version, eventually, eventually_some, read_to_end,
};

use crate::support;

/// Which end of the tunnel speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The near one.
    Server,
    /// The far one.
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Tcp,
    Unix,
}

/// A kind of tunnel. The near end connects to the tunnel, the tunnel connects to the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) mode: Mode,
    pub(crate) near: Network,
    pub(crate) far: Network,
}

pub(crate) const SERVER: Route = Route {
    mode: Mode::Server,
    near: Network::Tcp,
    far: Network::Tcp,
};

pub(crate) const CLIENT: Route = Route {
    mode: Mode::Client,
    near: Network::Tcp,
    far: Network::Tcp,
};

/// Every kind. A client tunnel takes no UNIX target.
pub(crate) const ROUTES: [Route; 6] = [
    SERVER,
    Route {
        far: Network::Unix,
        ..SERVER
    },
    Route {
        near: Network::Unix,
        ..SERVER
    },
    Route {
        near: Network::Unix,
        far: Network::Unix,
        ..SERVER
    },
    CLIENT,
    Route {
        near: Network::Unix,
        ..CLIENT
    },
];

/// A command line for a tunnel between any two addresses, which admits everybody that the
/// authority of `pki` vouches for.
pub(crate) fn command(mode: Mode, pki: &Pki, listen: &str, target: &str) -> Command {
    match mode {
        Mode::Server => support::server_at(pki, listen, target),
        Mode::Client => support::client_at(pki, listen, target),
    }
}

/// A running tunnel, and what is needed to make connections through it.
pub(crate) struct Tunnel {
    pub(crate) process: Process,
    pub(crate) near: Address,
    mode: Mode,
    far: Listener,
    client: TlsClient,
    server: TlsServer,
    pub(crate) pki: Pki,
    _port: Option<ReservedPort>,
}

impl Tunnel {
    /// Starts a tunnel with further flags.
    pub(crate) fn start(route: Route, flags: &[&str]) -> Self {
        Self::start_with(route, |command| command.args(flags))
    }

    /// Starts a tunnel with a command line that `adapt` has changed.
    pub(crate) fn start_with(route: Route, adapt: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let pki = Pki::new();
        let (near, port) = match route.near {
            Network::Tcp => {
                let port = ReservedPort::new();
                (Address::from(port.address()), Some(port))
            }
            Network::Unix => (pki.path("near").as_path().into(), None),
        };
        let far = Listener::bind(route.far, &pki.path("far"));
        let mut command = command(route.mode, &pki, &near.to_string(), &far.address.to_string());
        adapt(&mut command);
        let process = command.start();
        process.wait_for_line("listening for connections on");
        Self {
            process,
            near,
            mode: route.mode,
            far,
            client: TlsClient::trusting(&pki.authority).identity(&pki.client),
            server: TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority)),
            pki,
            _port: port,
        }
    }

    /// Makes this the only version that the test's TLS peers speak.
    pub(crate) fn speak(&mut self, version: Version) {
        let clients = ClientCertificates::required(&self.pki.authority);
        self.client = TlsClient::trusting(&self.pki.authority)
            .identity(&self.pki.client)
            .version(version);
        self.server = TlsServer::with_version(&self.pki.server, &clients, version);
    }

    /// Connects through the tunnel: the near and the far end.
    pub(crate) fn connect(&self) -> (Peer, Peer) {
        self.join(self.dial())
    }

    /// Connects to the tunnel and says nothing yet.
    pub(crate) fn dial(&self) -> Plain {
        Plain::connect(&self.near).expect("the tunnel listens")
    }

    /// Makes a dialled connection one through the tunnel.
    pub(crate) fn join(&self, socket: Plain) -> (Peer, Peer) {
        match self.mode {
            Mode::Server => {
                let near = self.client.handshake(socket).expect("admitted");
                (near.into(), self.far.accept().into())
            }
            Mode::Client => {
                let far = self.server.handshake(self.far.accept()).expect("admitted");
                (socket.into(), far.into())
            }
        }
    }

    /// The near end of a server tunnel, whether or not the far one is reached.
    pub(crate) fn try_shake_hands(&self) -> Result<Peer, End> {
        self.client.handshake(self.dial()).map(Peer::from)
    }

    /// Waits until as many pairs as this have ended.
    #[track_caller]
    pub(crate) fn wait_closed(&self, pairs: usize) {
        eventually(&format!("{pairs} pairs have ended"), || {
            self.process.count_lines("closed pipe") >= pairs
        });
    }

    /// Fails if a copy went wrong.
    #[track_caller]
    pub(crate) fn assert_no_copy_errors(&self) {
        assert_eq!(self.process.count_lines("error during copy"), 0);
    }

    /// Where the tunnel connects to.
    pub(crate) fn far(&self) -> &Address {
        &self.far.address
    }
}

struct Listener {
    address: Address,
    socket: ListenerSocket,
}

enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(network: Network, path: &Path) -> Self {
        match network {
            Network::Tcp => {
                let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
                socket.set_nonblocking(true).expect("it can wait");
                Self {
                    address: socket.local_addr().expect("it is bound").into(),
                    socket: ListenerSocket::Tcp(socket),
                }
            }
            Network::Unix => {
                let socket = UnixListener::bind(path).expect("a free path");
                socket.set_nonblocking(true).expect("it can wait");
                Self {
                    address: path.into(),
                    socket: ListenerSocket::Unix(socket),
                }
            }
        }
    }

    fn accept(&self) -> Plain {
        // What is accepted waits again: Linux does not hand O_NONBLOCK on.
        eventually_some("the tunnel has dialled", || match &self.socket {
            ListenerSocket::Tcp(socket) => socket.accept().ok().map(|(stream, _)| stream.into()),
            ListenerSocket::Unix(socket) => socket.accept().ok().map(|(stream, _)| stream.into()),
        })
    }
}

/// One end of a tunnelled connection.
#[derive(Debug)]
pub(crate) enum Peer {
    Plain(Plain),
    Tls(Box<TlsPeer>),
}

impl Peer {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether it can be reset: only TCP has that.
    pub(crate) fn is_tcp(&self) -> bool {
        self.socket().local_address().is_some()
    }

    /// The stream, below TLS if there is TLS.
    pub(crate) fn socket(&self) -> &Plain {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(peer) => peer.socket(),
        }
    }

    /// Half-close: FIN, or close_notify with TLS.
    pub(crate) fn end_writing(&mut self) {
        match self {
            Self::Plain(socket) => socket.end_writing(),
            Self::Tls(peer) => peer.end_writing(),
        }
    }

    /// Closes in good order.
    pub(crate) fn close(mut self) {
        self.end_writing();
    }

    pub(crate) fn reset(self) {
        match self {
            Self::Plain(socket) => socket.reset(),
            Self::Tls(peer) => peer.reset(),
        }
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.write_all(bytes).expect("the tunnel takes bytes");
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.read_exact(&mut read).expect("bytes come through the tunnel");
        assert_eq!(read, bytes);
    }

    /// Reads to the end.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        read_to_end(self)
    }

    /// Two halves for two threads.
    pub(crate) fn split(self) -> (Box<dyn Read + Send>, Sender) {
        match self {
            Self::Plain(socket) => {
                let socket = Arc::new(socket);
                let receiver = PlainReceiver(Arc::clone(&socket));
                (Box::new(receiver), Sender::Plain(socket))
            }
            Self::Tls(peer) => {
                let (receiver, sender) = peer.split();
                (Box::new(receiver), Sender::Tls(sender))
            }
        }
    }
}

impl From<Plain> for Peer {
    fn from(socket: Plain) -> Self {
        Self::Plain(socket)
    }
}

impl From<TlsPeer> for Peer {
    fn from(peer: TlsPeer) -> Self {
        Self::Tls(Box::new(peer))
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(peer) => peer.read(buffer),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(peer) => peer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct PlainReceiver(Arc<Plain>);

impl Read for PlainReceiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

/// The sending half of a [`Peer`].
pub(crate) enum Sender {
    Plain(Arc<Plain>),
    Tls(TlsSender),
}

impl Sender {
    pub(crate) fn end_writing(&mut self) {
        match self {
            Self::Plain(socket) => socket.end_writing(),
            Self::Tls(sender) => sender.end_writing(),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => (&**socket).write(bytes),
            Self::Tls(sender) => sender.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
