//! Addresses, and plain streams over TCP and UNIX sockets.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::AlertDescription;
use socket2::SockRef;

use crate::eventually::DEADLINE;

/// Where a peer listens. Displayed the way the flags of the tested program take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

/// How the other side's bytes came to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In good order: FIN on a plain stream, close_notify on a TLS stream.
    Closed,
    /// FIN on a TLS stream that had not said close_notify, or during a handshake.
    Truncated,
    /// Connection reset, or a pipe without a reader.
    Reset,
    /// The peer sent this fatal alert.
    Alert(AlertDescription),
    /// Nothing came in time.
    TimedOut,
    /// Anything else, in words.
    Failed(String),
}

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return Self::Alert(*alert);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Reads until the stream ends one way or another.
pub fn read_to_end(stream: &mut (impl Read + ?Sized)) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    // Keeps what it has read when it fails.
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => End::Closed,
        Err(error) => End::from(&error),
    };
    (bytes, end)
}

/// A plain stream. Reads and writes give up after [`DEADLINE`]. Usable from several threads
/// by reference.
#[derive(Debug)]
pub struct Plain(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Plain {
    /// Connects.
    pub fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpStream::connect_timeout(address, DEADLINE).map(Self::from),
            Address::Unix(path) => UnixStream::connect(path).map(Self::from),
        }
    }

    /// Changes how long reads and writes wait.
    pub fn set_timeout(&self, limit: Duration) {
        let socket = self.socket();
        socket
            .set_read_timeout(Some(limit))
            .and_then(|()| socket.set_write_timeout(Some(limit)))
            .expect("sockets take timeouts above zero");
    }

    /// Keeps the kernel's buffers of this end at about this size, so that a peer which is
    /// not read soon has to wait.
    pub fn limit_buffers(&self, bytes: usize) {
        let socket = self.socket();
        socket
            .set_recv_buffer_size(bytes)
            .and_then(|()| socket.set_send_buffer_size(bytes))
            .expect("sockets take buffer sizes");
    }

    /// Half-close: no more bytes from here, reading goes on. A peer that is gone already is no error.
    pub fn end_writing(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Ends both directions at once, also for other threads that read or write this stream.
    pub fn end(&self) {
        self.shutdown(Shutdown::Both);
    }

    /// Closes with a reset instead of FIN (TCP only; a UNIX socket just closes).
    pub fn reset(self) {
        self.reset_when_dropped();
    }

    /// The address of this end, if it has one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.socket().local_addr().ok()?.as_socket()
    }

    pub(crate) fn reset_when_dropped(&self) {
        if let Kind::Tcp(stream) = &self.0 {
            // Fails only when the peer has reset the connection first.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = self.socket().shutdown(how);
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.0 {
            Kind::Tcp(stream) => SockRef::from(stream),
            Kind::Unix(stream) => SockRef::from(stream),
        }
    }
}

impl From<TcpStream> for Plain {
    fn from(stream: TcpStream) -> Self {
        // Fails only on a dead connection, which the first read will show.
        let _ = stream.set_nodelay(true);
        let plain = Self(Kind::Tcp(stream));
        plain.set_timeout(DEADLINE);
        plain
    }
}

impl From<UnixStream> for Plain {
    fn from(stream: UnixStream) -> Self {
        let plain = Self(Kind::Unix(stream));
        plain.set_timeout(DEADLINE);
        plain
    }
}

impl Read for &Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => (&*stream).read(buffer),
            Kind::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => (&*stream).write(bytes),
            Kind::Unix(stream) => (&*stream).write(bytes),
        }
    }

    /// TLS sends its records this way; one by one they would be as many packets.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => (&*stream).write_vectored(parts),
            Kind::Unix(stream) => (&*stream).write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
