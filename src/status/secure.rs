//! TLS on the status port: the handshake, and the answer to peers that speak plain HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{InvalidMessage, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::apart::{self, Carrier};

/// The length of a TLS record's header; as much is looked at before TLS begins.
const LOOK: usize = 5;

/// How requests begin in plain HTTP.
const PLAIN_REQUESTS: [&[u8; LOOK]; 7] = [
    b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"DELET", b"PATCH",
];

/// What a peer gets that speaks plain HTTP. In version 1.0, which every client knows.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How long the rest of a plain request is read, so that the answer is not lost to the
/// reset that unread bytes cause.
const LINGER: Duration = Duration::from_millis(500);

/// How much of it.
const MAX_LINGER: u64 = 64 * 1024;

/// What to serve a connection with.
#[derive(Clone)]
pub struct TlsConfig {
    /// Certificate and key.
    pub config: Arc<ServerConfig>,
    /// Whether signing may take long, so that it is not to be done on this thread.
    pub may_block: bool,
}

/// A TLS stream.
pub(super) enum Secured<S> {
    /// Right on the stream.
    Here(Box<TlsStream<Looked<S>>>),
    /// With a carrier between, which must be polled beside it.
    Apart(Box<TlsStream<DuplexStream>>, Carrier),
}

/// Does the handshake within `limit`; in one of the `places` if it may take long.
///
/// # Errors
///
/// The text for the log, also when there is no configuration to serve with.
pub(super) async fn handshake<S>(
    stream: S,
    config: Option<TlsConfig>,
    limit: Duration,
    places: &Arc<Semaphore>,
) -> Result<Secured<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let config = config.ok_or("no certificate to serve with")?;
    match timeout(limit, look_and_accept(stream, config, places)).await {
        Ok(outcome) => outcome,
        Err(_) => Err("i/o timeout".to_owned()),
    }
}

async fn look_and_accept<S>(
    mut stream: S,
    TlsConfig { config, may_block }: TlsConfig,
    places: &Arc<Semaphore>,
) -> Result<Secured<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut start = [0; LOOK];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await {
            Ok(0) if filled == 0 => return Err("EOF".to_owned()),
            Ok(0) => return Err("unexpected EOF".to_owned()),
            Ok(length) => filled += length,
            Err(error) => return Err(error_text(&error)),
        }
    }
    if PLAIN_REQUESTS.contains(&&start) {
        answer_plainly(stream).await;
        return Err("client sent an HTTP request to an HTTPS server".to_owned());
    }
    let stream = Looked {
        start,
        given: 0,
        inner: stream,
    };
    let accepted = if may_block {
        let apart = apart::accept(stream, config, places).await;
        apart.map(|(stream, carrier)| Secured::Apart(Box::new(stream), carrier))
    } else {
        let here = TlsAcceptor::from(config).accept(stream).await;
        here.map(|stream| Secured::Here(Box::new(stream)))
    };
    accepted.map_err(|error| error_text(&error))
}

async fn answer_plainly<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.write_all(PLAIN_ANSWER).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = stream.take(MAX_LINGER);
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

/// The error in the words that log readers know from Ghostunnel 1.11.1, where it had some.
fn error_text(error: &io::Error) -> String {
    let source = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>());
    match (source, error.kind()) {
        (Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), _) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        (Some(other), _) => format!("tls: {other}"),
        (None, io::ErrorKind::UnexpectedEof) => "EOF".to_owned(),
        (None, io::ErrorKind::ConnectionReset) => "connection reset by peer".to_owned(),
        (None, io::ErrorKind::BrokenPipe) => "broken pipe".to_owned(),
        (None, _) => error.to_string(),
    }
}

/// A stream whose first bytes were looked at, and are given once more.
pub(super) struct Looked<S> {
    start: [u8; LOOK],
    given: usize,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Looked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.start.get(this.given..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        let part = rest.get(..buffer.remaining()).unwrap_or(rest);
        buffer.put_slice(part);
        this.given += part.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Looked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
