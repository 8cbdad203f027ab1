//! Listeners: bind, later listen, then accept.
//!
//! Binding comes early, while the process may still look names up and use low ports;
//! listening comes late, so that a client meets a refusal and not a silent queue until
//! somebody serves it. UNIX sockets are bound at the second step too: callers take a
//! path that exists for one that answers.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::activation::{ActivationError, Inherited};
use super::address::{HostPort, Kind, ListenAddr, ListenKind, Reach, UnixName};
use super::error_text;
use super::resolve::{self, LookupError};
use super::socket_file::{self, Failure, SocketFile};
use super::stale_socket::Obstacle;
use super::stream::{Label, Stream, set_tcp_options};

/// Linux copies TCP options of a listener to what it accepts: five calls less for each
/// connection.
const ACCEPTED_INHERIT_OPTIONS: bool = cfg!(target_os = "linux");

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host or port has no address.
    #[error("listen tcp: {0}")]
    Lookup(#[from] LookupError),
    /// The system refused a TCP address.
    #[error("listen tcp {address}: {call}: {}{}", error_text::phrase(.error), tcp_hint(.address, .error))]
    Tcp {
        /// The resolved address.
        address: SocketAddr,
        /// What failed: `socket`, `bind`, `listen`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The system refused a UNIX name.
    #[error("listen unix {name}: {call}: {}{}", error_text::phrase(.error), unix_hint(.error))]
    Unix {
        /// The name.
        name: UnixName,
        /// What failed: `socket`, `bind`, `listen`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A UNIX path is taken by something that must not be removed.
    #[error("listen unix {name}: bind: address already in use ({obstacle})")]
    PathTaken {
        /// The name.
        name: UnixName,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// The service manager has not passed the socket.
    #[error(transparent)]
    Inherited(#[from] ActivationError),
    /// An inherited socket can't be served.
    #[error("inherited socket {name}: {call}: {}", error_text::phrase(.error))]
    Unfit {
        /// Its name.
        name: String,
        /// What failed: `getsockname`, `fcntl`, `setsockopt`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl ListenAddr {
    /// Resolves the address and binds a TCP socket to it; only checks a UNIX name; takes a socket
    /// of the service manager.
    ///
    /// Blocks on the system's resolver. Of several addresses the first IPv4 one is
    /// taken, else the first; without a host it is `0.0.0.0`. Two processes of one user
    /// may share a port (SO_REUSEPORT), so that one can take over from the other.
    pub fn bind(&self, inherited: &mut Inherited) -> Result<Bound, ListenError> {
        let backlog = backlog();
        match self.kind() {
            ListenKind::Inherited(name) => Ok(Bound(State::Inherited {
                socket: inherited.take(name)?,
                name: name.clone(),
            })),
            ListenKind::Address(Kind::Tcp(address)) => {
                let address = choose(address, self.reach())?;
                let socket = bind_tcp(address)?;
                Ok(Bound(State::Tcp {
                    socket,
                    address,
                    backlog,
                }))
            }
            ListenKind::Address(Kind::Unix(name)) => {
                name.to_socket_address().map_err(|_| too_long(name))?;
                Ok(Bound(State::Unix {
                    name: name.clone(),
                    backlog,
                }))
            }
        }
    }
}

fn choose(address: &HostPort, reach: Reach) -> Result<SocketAddr, LookupError> {
    if address.host.is_empty() {
        return Ok(SocketAddr::new(
            Ipv4Addr::UNSPECIFIED.into(),
            address.port_number()?,
        ));
    }
    let found = resolve::resolve_blocking(address, reach)?;
    let first = found
        .iter()
        .find(|found| found.is_ipv4())
        .or_else(|| found.first());
    first
        .copied()
        .ok_or_else(|| LookupError::NoSuchHost(address.host.clone()))
}

fn bind_tcp(address: SocketAddr) -> Result<Socket, ListenError> {
    let failed = |call: &'static str| move |error: io::Error| ListenError::Tcp { address, call, error };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )
    .map_err(failed("socket"))?;
    socket.set_reuse_address(true).map_err(failed("setsockopt"))?;
    socket.set_reuse_port(true).map_err(failed("setsockopt"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    Ok(socket)
}

/// A claimed address that does not take connections yet.
#[derive(Debug)]
pub struct Bound(State);

#[derive(Debug)]
enum State {
    Tcp {
        socket: Socket,
        address: SocketAddr,
        backlog: i32,
    },
    Unix {
        name: UnixName,
        backlog: i32,
    },
    Inherited {
        socket: Socket,
        name: String,
    },
}

impl Bound {
    /// The TCP port, chosen by the kernel if 0 was asked for.
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            State::Tcp { socket, address, .. } => Some(local_address(socket, *address).port()),
            State::Unix { .. } => None,
            State::Inherited { socket, .. } => {
                let address = socket.local_addr().ok()?;
                address.as_socket().map(|address| address.port())
            }
        }
    }

    /// Takes connections into the backlog from now on.
    ///
    /// A UNIX socket file that a dead process left behind is replaced; a live one, one
    /// of another user, and any other file stay and are an error.
    pub fn listen(self) -> Result<Listener, ListenError> {
        match self.0 {
            State::Tcp {
                socket,
                address,
                backlog,
            } => listen_tcp(socket, address, backlog),
            State::Unix { name, backlog } => listen_unix(name, backlog),
            State::Inherited { socket, name } => adapt(socket, name),
        }
    }
}

fn listen_tcp(socket: Socket, address: SocketAddr, backlog: i32) -> Result<Listener, ListenError> {
    // With SO_REUSEPORT, a port that somebody else holds may show at this call only. To
    // the operator it is the same fault, so it has the same words.
    socket.listen(backlog).map_err(|error| ListenError::Tcp {
        address,
        call: "bind",
        error,
    })?;
    set_tcp_options(SockRef::from(&socket)).map_err(|error| ListenError::Tcp {
        address,
        call: "setsockopt",
        error,
    })?;
    let local = local_address(&socket, address);
    Ok(Listener {
        _file: None,
        socket,
        local: Label::tcp(local),
        is_wildcard: local.ip().to_canonical().is_unspecified(),
    })
}

fn listen_unix(name: UnixName, backlog: i32) -> Result<Listener, ListenError> {
    let failed = |call: &'static str| {
        let name = name.clone();
        move |error: io::Error| ListenError::Unix { name, call, error }
    };
    let (socket, file) = match &name {
        UnixName::Path(path) => {
            socket_file::listen(path, backlog).map_err(|failure| listen_failure(&name, failure))?
        }
        UnixName::Abstract(_) | UnixName::Unnamed => {
            let address = name.to_socket_address().map_err(|_| too_long(&name))?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
                .map_err(failed("socket"))?;
            socket.bind(&address).map_err(failed("bind"))?;
            socket.listen(backlog).map_err(failed("listen"))?;
            (socket, None)
        }
    };
    let local = match &name {
        UnixName::Unnamed => Label::unix(&socket.local_addr().map_err(failed("getsockname"))?),
        UnixName::Path(_) | UnixName::Abstract(_) => Label::Unix(Some(Arc::new(name))),
    };
    Ok(Listener {
        _file: file,
        socket,
        local,
        is_wildcard: false,
    })
}

/// Gives an inherited socket, which listens already, the options of our own. Its UNIX path is the
/// service manager's to remove.
fn adapt(socket: Socket, name: String) -> Result<Listener, ListenError> {
    let failed = |call: &'static str| {
        let name = name.clone();
        move |error: io::Error| ListenError::Unfit { name, call, error }
    };
    socket.set_nonblocking(true).map_err(failed("fcntl"))?;
    let address = socket.local_addr().map_err(failed("getsockname"))?;
    let (local, is_wildcard) = match address.as_socket() {
        Some(address) => {
            set_tcp_options(SockRef::from(&socket)).map_err(failed("setsockopt"))?;
            let is_wildcard = address.ip().to_canonical().is_unspecified();
            (Label::tcp(address), is_wildcard)
        }
        None => (Label::unix(&address), false),
    };
    Ok(Listener {
        _file: None,
        socket,
        local,
        is_wildcard,
    })
}

fn listen_failure(name: &UnixName, failure: Failure) -> ListenError {
    let name = name.clone();
    match failure {
        Failure::Call(call, error) => ListenError::Unix { name, call, error },
        Failure::Taken(obstacle) => ListenError::PathTaken { name, obstacle },
    }
}

fn local_address(socket: &Socket, asked: SocketAddr) -> SocketAddr {
    socket
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .unwrap_or(asked)
}

fn too_long(name: &UnixName) -> ListenError {
    ListenError::Unix {
        name: name.clone(),
        call: "bind",
        error: Errno::INVAL.into(),
    }
}

/// The longest queue the system allows, as Ghostunnel 1.11.1 asks for.
fn backlog() -> i32 {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    match text
        .split_whitespace()
        .next()
        .and_then(|number| number.parse::<i32>().ok())
    {
        Some(limit) if limit > 0 => limit.min(65535),
        _ => 128,
    }
}

fn tcp_hint(address: &SocketAddr, error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => " (another process listens there; stop it or choose another port)",
        Some(Errno::ACCESS | Errno::PERM) if (1..1024).contains(&address.port()) => {
            " (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
        }
        Some(Errno::ADDRNOTAVAIL) => " (no network interface of this machine has this address)",
        _ => "",
    }
}

fn unix_hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::INVAL) => " (the name is too long: a path may have 107 bytes)",
        Some(Errno::NOENT) => " (the directory must exist)",
        Some(Errno::ACCESS | Errno::ROFS) => " (the directory must be writable)",
        _ => "",
    }
}

/// A listening socket that belongs to no runtime yet.
///
/// Dropping it closes it and removes its UNIX socket file.
#[derive(Debug)]
pub struct Listener {
    // Before the socket: the path goes first, so that nobody finds it dead.
    _file: Option<SocketFile>,
    socket: Socket,
    local: Label,
    is_wildcard: bool,
}

impl Listener {
    /// Where it listens, with the port the kernel chose: `127.0.0.1:43211`,
    /// `unix:/run/x.sock`.
    pub fn address(&self) -> String {
        match &self.local {
            Label::Tcp(address) => address.to_string(),
            label @ Label::Unix(_) => label.to_string(),
        }
    }

    /// Registers the listener with the current runtime.
    #[expect(
        deprecated,
        reason = "what its unsafe successor asks for holds by construction: the socket is \
                  private, owned, never exchanged, and closed after the registration has ended"
    )]
    pub fn into_acceptor(self) -> io::Result<Acceptor> {
        Ok(Acceptor {
            listener: AsyncFd::with_interest(self, Interest::READABLE)?,
        })
    }

    /// Stops listening and removes the UNIX socket file.
    pub fn close(self) {
        drop(self);
    }

    fn accept(&self) -> io::Result<Accepted> {
        let (socket, peer) = loop {
            match self.socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
                // The peer gave up while it was queued: nobody needs to know.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                result => break result?,
            }
        };
        let peer = match peer.as_socket() {
            Some(address) => Label::tcp(address),
            None => Label::unix(&peer),
        };
        let local = if self.is_wildcard {
            concrete(&socket)?
        } else {
            self.local.clone()
        };
        Ok(Accepted { socket, local, peer })
    }
}

/// The address a connection came in at, where the listener has them all.
fn concrete(socket: &Socket) -> io::Result<Label> {
    let address = socket.local_addr()?.as_socket();
    address
        .map(Label::tcp)
        .ok_or_else(|| io::Error::other("accepted socket has no address"))
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A listener on a runtime.
///
/// Dropping it closes it and removes its UNIX socket file; connections still in the
/// backlog are reset by the kernel.
#[derive(Debug)]
pub struct Acceptor {
    listener: AsyncFd<Listener>,
}

impl Acceptor {
    /// Where it listens; see [`Listener::address`].
    pub fn address(&self) -> String {
        self.listener.get_ref().address()
    }

    /// Takes the next connection.
    ///
    /// An error does not end the listener, but may come back at once: the caller pauses
    /// before it asks again. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Accepted> {
        self.listener.async_io(Interest::READABLE, Listener::accept).await
    }

    /// The log text of an error of [`Acceptor::accept`]:
    /// `accept tcp 127.0.0.1:443: accept4: too many open files`.
    pub fn accept_error_text(&self, error: &io::Error) -> String {
        let local = &self.listener.get_ref().local;
        format!(
            "accept {} {}: accept4: {}",
            local.network(),
            local.address(),
            error_text::phrase(error)
        )
    }

    /// Stops listening and removes the UNIX socket file.
    pub fn close(self) {
        drop(self);
    }
}

/// An accepted connection that belongs to no runtime yet, so that it can be given to
/// another worker.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    local: Label,
    peer: Label,
}

impl Accepted {
    /// This end.
    pub fn local(&self) -> &Label {
        &self.local
    }

    /// The other end.
    pub fn peer(&self) -> &Label {
        &self.peer
    }

    /// Registers the connection with the current runtime.
    pub fn into_stream(self) -> io::Result<Stream> {
        match self.local {
            Label::Tcp(_) => {
                if !ACCEPTED_INHERIT_OPTIONS {
                    set_tcp_options(SockRef::from(&self.socket))?;
                }
                let stream = tokio::net::TcpStream::from_std(self.socket.into())?;
                Ok(Stream::tcp(stream, self.local, self.peer))
            }
            Label::Unix(_) => {
                let stream = tokio::net::UnixStream::from_std(self.socket.into())?;
                Ok(Stream::unix(stream, self.local, self.peer))
            }
        }
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.peer, self.local)
    }
}

#[cfg(test)]
mod tests;
