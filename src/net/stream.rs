//! One stream type over TCP and UNIX sockets, with half-close, and the names of its ends.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::address::UnixName;
use super::error_text;

/// A connected stream socket, registered with the runtime it was made on.
///
/// Beside the traits of tokio there are the readiness and `try_` calls of its streams
/// on `&self`, for two pumps that share a stream within one task. At most one task may
/// wait per direction.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    local: Label,
    peer: Label,
    via: Option<Box<Label>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The name of one end of a stream. Cheap to clone and to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// A TCP address; IPv4-mapped IPv6 addresses are plain IPv4 here.
    Tcp(SocketAddr),
    /// A UNIX socket; `None` for one without a name, as most clients are.
    Unix(Option<Arc<UnixName>>),
}

/// What was being done when a stream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading from the stream.
    Read,
    /// Writing to the stream.
    Write,
}

impl Stream {
    /// Wraps a connected TCP stream.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        let (local, peer) = (Label::tcp(stream.local_addr()?), Label::tcp(stream.peer_addr()?));
        Ok(Self::tcp(stream, local, peer))
    }

    /// Wraps a connected UNIX stream.
    pub fn from_unix(stream: UnixStream) -> io::Result<Self> {
        let socket = SockRef::from(&stream);
        let (local, peer) = (
            Label::unix(&socket.local_addr()?),
            Label::unix(&socket.peer_addr()?),
        );
        Ok(Self::unix(stream, local, peer))
    }

    pub(super) fn tcp(stream: TcpStream, local: Label, peer: Label) -> Self {
        Self {
            socket: Socket::Tcp(stream),
            local,
            peer,
            via: None,
        }
    }

    pub(super) fn unix(stream: UnixStream, local: Label, peer: Label) -> Self {
        Self {
            socket: Socket::Unix(stream),
            local,
            peer,
            via: None,
        }
    }

    /// This end.
    pub fn local(&self) -> &Label {
        &self.local
    }

    /// The other end.
    pub fn peer(&self) -> &Label {
        &self.peer
    }

    /// Who is really at the other end, where [`Self::peer`] is whom it passes on.
    pub fn via(&self) -> Option<&Label> {
        self.via.as_deref()
    }

    /// Names the ends anew: the peer passes on somebody else, who had connected to `local`.
    pub fn passes_on(&mut self, peer: Label, local: Label) {
        let sender = std::mem::replace(&mut self.peer, peer);
        self.local = local;
        self.via = Some(Box::new(sender));
    }

    /// Takes no more bytes from the peer: later reads find the end of the stream.
    ///
    /// A connection that is already gone is no error.
    pub fn shutdown_read(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Read)
    }

    /// Tells the peer that no more bytes will come; reading goes on.
    ///
    /// A connection that is already gone is no error.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self.as_socket().shutdown(how) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    pub(super) fn as_socket(&self) -> SockRef<'_> {
        match &self.socket {
            Socket::Tcp(stream) => SockRef::from(stream),
            Socket::Unix(stream) => SockRef::from(stream),
        }
    }

    /// Waits until the stream may have bytes, its end or an error to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Waits until the stream may take bytes.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads what is there; [`io::ErrorKind::WouldBlock`] when nothing is.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_read(buffer),
            Socket::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what fits; [`io::ErrorKind::WouldBlock`] when nothing does.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Writes what fits of several buffers; [`io::ErrorKind::WouldBlock`] when nothing does.
    pub fn try_write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_write_vectored(buffers),
            Socket::Unix(stream) => stream.try_write_vectored(buffers),
        }
    }

    /// The log text of an error on this stream, such as
    /// `read tcp 10.0.0.1:443->10.0.0.2:5000: read: connection reset by peer`. An error
    /// made from [`io::ErrorKind::TimedOut`] stands for a deadline that has passed.
    pub fn error_text(&self, operation: Operation, error: &io::Error) -> String {
        let word = match operation {
            Operation::Read => "read",
            Operation::Write => "write",
        };
        let call = if error.raw_os_error().is_some() {
            format!("{word}: ")
        } else {
            String::new()
        };
        let (network, local, peer) = (self.local.network(), self.local.address(), self.peer.address());
        format!(
            "{word} {network} {local}->{peer}: {call}{}",
            error_text::phrase(error)
        )
    }
}

impl Label {
    /// The name of a TCP address; an IPv4-mapped one becomes plain.
    pub fn tcp(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                Self::Tcp(SocketAddr::new(v6.ip().to_canonical(), v6.port()))
            }
            address => Self::Tcp(address),
        }
    }

    pub(super) fn unix(address: &socket2::SockAddr) -> Self {
        match UnixName::of_socket(address) {
            UnixName::Unnamed => Self::Unix(None),
            name => Self::Unix(Some(Arc::new(name))),
        }
    }

    /// `tcp` or `unix`.
    pub fn network(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Unix(_) => "unix",
        }
    }

    /// The address without the network: `127.0.0.1:443`, `/run/x.sock`, `@`.
    pub fn address(&self) -> impl fmt::Display + '_ {
        Address(self)
    }
}

/// `tcp:127.0.0.1:443`, `unix:/run/x.sock`, `unix:@name`, `unix:@`.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.network(), self.address())
    }
}

struct Address<'a>(&'a Label);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Label::Tcp(address) => address.fmt(f),
            Label::Unix(Some(name)) => name.fmt(f),
            Label::Unix(None) => UnixName::Unnamed.fmt(f),
        }
    }
}

/// Small writes leave at once, and a peer that vanished is noticed after
/// 15 s + 9 * 15 s without traffic.
pub(super) fn set_tcp_options(socket: SockRef<'_>) -> io::Result<()> {
    const PROBE: Duration = Duration::from_secs(15);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(PROBE)
            .with_interval(PROBE)
            .with_retries(9),
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn labels_look_as_in_the_log() {
        let tcp = |text: &str| Label::tcp(text.parse().expect("address"));
        let unix = |name| Label::Unix(Some(Arc::new(name)));
        for (label, text, address) in [
            (tcp("127.0.0.1:42972"), "tcp:127.0.0.1:42972", "127.0.0.1:42972"),
            (tcp("[::1]:1"), "tcp:[::1]:1", "[::1]:1"),
            (tcp("[::ffff:192.0.2.1]:1"), "tcp:192.0.2.1:1", "192.0.2.1:1"),
            (Label::Unix(None), "unix:@", "@"),
            (unix(UnixName::Path("/path".into())), "unix:/path", "/path"),
            (unix(UnixName::Abstract(b"name".to_vec())), "unix:@name", "@name"),
        ] {
            assert_eq!(label.to_string(), text);
            assert_eq!(label.address().to_string(), address);
        }
    }

    #[tokio::test]
    async fn half_close_ends_one_direction_only() {
        let (one, other) = UnixStream::pair().expect("pair");
        let (mut one, mut other) = (
            Stream::from_unix(one).expect("one"),
            Stream::from_unix(other).expect("other"),
        );
        assert_eq!(one.peer().to_string(), "unix:@");
        one.shutdown_write().expect("half-close");
        assert_eq!(other.read(&mut [0]).await.expect("end"), 0);
        other.write_all(b"still").await.expect("write");
        let mut bytes = [0; 5];
        one.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"still");
        one.shutdown_read().expect("stop reading");
        assert_eq!(one.read(&mut bytes).await.expect("end"), 0);
    }

    #[tokio::test]
    async fn shutting_down_a_lost_connection_is_no_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address"))
            .await
            .expect("connect");
        let (server, _) = listener.accept().await.expect("accept");
        let mut client = Stream::from_tcp(client).expect("stream");
        SockRef::from(&server)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
        drop(server);
        let error = client.read(&mut [0]).await.expect_err("reset");
        client.shutdown_write().expect("write side");
        client.shutdown_read().expect("read side");
        let (local, peer) = (client.local().address(), client.peer().address());
        assert_eq!(
            client.error_text(Operation::Read, &error),
            format!("read tcp {local}->{peer}: read: connection reset by peer")
        );
    }

    #[tokio::test]
    async fn errors_are_told_with_both_ends() {
        let (one, _other) = UnixStream::pair().expect("pair");
        let local = Label::tcp("10.0.0.1:443".parse().expect("address"));
        let peer = Label::tcp("10.0.0.2:5000".parse().expect("address"));
        let stream = Stream::unix(one, local, peer);
        for (operation, error, text) in [
            (
                Operation::Read,
                io::ErrorKind::TimedOut.into(),
                "read tcp 10.0.0.1:443->10.0.0.2:5000: i/o timeout",
            ),
            (
                Operation::Read,
                Errno::TIMEDOUT.into(),
                "read tcp 10.0.0.1:443->10.0.0.2:5000: read: connection timed out",
            ),
            (
                Operation::Write,
                Errno::PIPE.into(),
                "write tcp 10.0.0.1:443->10.0.0.2:5000: write: broken pipe",
            ),
        ] {
            assert_eq!(stream.error_text(operation, &error), text);
        }
    }
}
