//! Moves the bytes of a handshake between its state machine and a socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::scratch;
use super::steps::{Lost, Steps};
use crate::metrics::HandshakeFailure;
use crate::net::{Operation, Stream};
use crate::tls::{Established, Evidence, Handshake, HandshakeError, Progress, Session};

/// Handshake messages are read in pieces of this size; a whole flight mostly fits one.
const PIECE: usize = 16 * 1024;

/// How long a refused peer is given to read the alert before the socket is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a handshake failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// For log and metrics.
    pub(super) reason: HandshakeFailure,
    /// For the log.
    pub(super) text: String,
    /// Who was refused, as far as it is known.
    pub(super) evidence: Option<Box<Evidence>>,
}

impl Failure {
    pub(super) fn new(reason: HandshakeFailure, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
            evidence: None,
        }
    }

    pub(super) fn timed_out() -> Self {
        Self::new(HandshakeFailure::TimedOut, "context deadline exceeded")
    }

    /// There is no configuration to begin a handshake with.
    pub(super) fn unconfigured(error: &rustls::Error) -> Self {
        Self::new(HandshakeFailure::Internal, format!("tls: {error}"))
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::new(HandshakeFailure::Internal, format!("tls: {lost}"))
    }
}

impl From<HandshakeError> for Failure {
    fn from(mut error: HandshakeError) -> Self {
        Self {
            evidence: error.take_evidence(),
            ..Self::new(error.reason(), error.to_string())
        }
    }
}

/// Waits until there is something to read, be it the end.
pub(super) async fn first_bytes(stream: &Stream) -> Result<(), Failure> {
    let ready = poll_fn(|context| stream.poll_read_ready(context)).await;
    ready.map_err(|error| {
        let text = stream.error_text(Operation::Read, &error);
        Failure::new(HandshakeFailure::Closed, text)
    })
}

/// Brings a handshake to its end. On failure the peer has been sent the alert, and is to be
/// given time to read it ([`say_farewell`]).
///
/// Steps that may take long are run by `steps`, so that what else is on this worker goes on.
pub(super) async fn drive(
    mut handshake: Handshake,
    stream: &mut Stream,
    steps: &Steps,
) -> Result<Established, Failure> {
    loop {
        let progress = if handshake.may_block() {
            let step = move || {
                let progress = handshake.step();
                (handshake, progress)
            };
            let progress;
            (handshake, progress) = steps.run(step).await?;
            progress
        } else {
            handshake.step()
        };
        let outgoing = handshake.outgoing();
        if !outgoing.is_empty() {
            let written = stream.write_all(&outgoing).await;
            // A refusal is the better reason when the peer is gone before it hears of it.
            if let (Ok(_), Err(error)) = (&progress, written) {
                let text = stream.error_text(Operation::Write, &error);
                return Err(Failure::new(HandshakeFailure::Closed, text));
            }
        }
        match progress {
            Ok(Progress::Done) => return handshake.finish().map_err(Failure::from),
            Ok(Progress::NeedsBytes) => receive(&mut handshake, stream).await?,
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

async fn receive(handshake: &mut Handshake, stream: &mut Stream) -> Result<(), Failure> {
    let text = match poll_read_piece(handshake, stream).await {
        Ok(0) => "EOF".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) => stream.error_text(Operation::Read, &error),
    };
    Err(Failure::new(HandshakeFailure::Closed, text))
}

/// Reads through the worker's buffer, so that a silent peer holds none.
async fn poll_read_piece(handshake: &mut Handshake, stream: &mut Stream) -> io::Result<usize> {
    poll_fn(|context| {
        scratch::with(|scratch| {
            let mut buffer = ReadBuf::new(scratch.input.get_mut(..PIECE).unwrap_or_default());
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            handshake.receive(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

/// Ends an established session whose target could not be reached: close_notify, then FIN.
pub(super) async fn hang_up(session: &mut Session, stream: &mut Stream) {
    let _peer_may_be_gone = stream.try_write(&session.hang_up());
    say_farewell(stream).await;
}

/// Closes our direction and reads until the peer has closed its own: a socket that is closed
/// with unread bytes is reset, and a reset can overtake the alert. Takes up to a second, so
/// what happened is logged before.
pub(super) async fn say_farewell(stream: &mut Stream) {
    let _peer_may_be_gone = stream.shutdown_write();
    let gone = poll_fn(|context| {
        loop {
            let read = scratch::with(|scratch| {
                let mut buffer = ReadBuf::new(scratch.input.get_mut(..PIECE).unwrap_or_default());
                ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok::<_, io::Error>(buffer.filled().len()))
            });
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    });
    let _peer_may_be_slow = tokio::time::timeout(FAREWELL, gone).await;
}
