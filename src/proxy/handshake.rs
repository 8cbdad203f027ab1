//! Moves the bytes of a handshake between its state machine and a socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::scratch;
use crate::net::{Operation, Stream};
use crate::tls::{Established, Handshake, Progress, Session};

/// Handshake messages are read in pieces of this size; a whole flight mostly fits one.
const PIECE: usize = 16 * 1024;

/// How long a refused peer is given to read the alert before the socket is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Waits until there is something to read, be it the end.
pub(super) async fn first_bytes(stream: &Stream) -> Result<(), String> {
    poll_fn(|context| stream.poll_read_ready(context))
        .await
        .map_err(|error| stream.error_text(Operation::Read, &error))
}

/// Brings a handshake to its end. On failure the peer has been sent the alert, and is to be
/// given time to read it ([`say_farewell`]); the text is for the log.
pub(super) async fn drive(mut handshake: Handshake, stream: &mut Stream) -> Result<Established, String> {
    loop {
        let progress = handshake.step();
        let outgoing = handshake.outgoing();
        if !outgoing.is_empty() {
            let written = stream.write_all(&outgoing).await;
            // A refusal is the better reason when the peer is gone before it hears of it.
            if let (Ok(_), Err(error)) = (&progress, written) {
                return Err(stream.error_text(Operation::Write, &error));
            }
        }
        match progress {
            Ok(Progress::Done) => return handshake.finish().map_err(|error| error.to_string()),
            Ok(Progress::NeedsBytes) => receive(&mut handshake, stream).await?,
            Err(refusal) => return Err(refusal.to_string()),
        }
    }
}

async fn receive(handshake: &mut Handshake, stream: &mut Stream) -> Result<(), String> {
    match poll_read_piece(handshake, stream).await {
        Ok(0) => Err("EOF".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(stream.error_text(Operation::Read, &error)),
    }
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
