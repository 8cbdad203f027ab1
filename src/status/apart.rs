//! A TLS handshake apart from the thread that serves the status port, for certificates whose
//! key is in an HSM: a token that is slow or stuck must not hold up signals, reloads and the
//! other status connections.
//!
//! The stream stays where it is. What it carries goes through a pair of buffers to a thread
//! that makes the handshake, and that is over when the handshake is.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Threads at once. A stuck token keeps them all, and the status port then waits for it.
pub(super) const AT_ONCE: usize = 4;

/// Bytes under way in one direction: a whole record.
const BUFFER: usize = 18 * 1024;

/// A TLS stream, and what carries its bytes: it must be polled as long as the stream is used,
/// and until it ends.
pub(super) type Apart = (TlsStream<DuplexStream>, Carrier);

/// Ends when the stream was closed here and everything was written, or the peer is gone.
pub(super) type Carrier = Pin<Box<dyn Future<Output = ()>>>;

/// Waits for a place and does the handshake. Dropping the future closes the stream; a thread
/// that is stuck keeps its place.
pub(super) async fn accept<S>(
    stream: S,
    config: Arc<ServerConfig>,
    places: &Arc<Semaphore>,
) -> io::Result<Apart>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (near, far) = duplex(BUFFER);
    let mut carrier: Carrier = Box::pin(carry(stream, near));
    let mut accepted = accept_on_thread(far, config, place)?;
    let mut is_carried_out = false;
    let outcome = tokio::select! {
        outcome = &mut accepted => outcome,
        () = &mut carrier => {
            // A handshake that fails lets go of its end first, and tells why right after.
            is_carried_out = true;
            accepted.await
        }
    };
    match outcome {
        Ok(Ok(_)) if is_carried_out => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(stream)) => Ok((stream, carrier)),
        Ok(Err(error)) => {
            if !is_carried_out {
                // The alert is still on its way.
                carrier.await;
            }
            Err(error)
        }
        Err(_) => Err(io::Error::other("the thread of the handshake is gone")),
    }
}

type Accepted = oneshot::Receiver<io::Result<TlsStream<DuplexStream>>>;

fn accept_on_thread(
    far: DuplexStream,
    config: Arc<ServerConfig>,
    place: OwnedSemaphorePermit,
) -> io::Result<Accepted> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (reply, accepted) = oneshot::channel();
    let handshake = move || {
        let outcome = runtime.block_on(async { TlsAcceptor::from(config).accept(far).await });
        let _nobody_may_wait = reply.send(outcome);
        drop(place);
    };
    thread::Builder::new()
        .name("status-tls".to_owned())
        .spawn(handshake)?;
    Ok(accepted)
}

/// Moves bytes both ways until the near end was closed and emptied.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(stream: S, near: DuplexStream) {
    let (mut from_peer, mut to_peer) = split(stream);
    let (mut from_near, mut to_near) = split(near);
    let inward = async {
        let _peer_may_be_gone = copy(&mut from_peer, &mut to_near).await;
        let _ = to_near.shutdown().await;
        // What is still to be answered is.
        pending::<()>().await;
    };
    let outward = async {
        let _peer_may_be_gone = copy(&mut from_near, &mut to_peer).await;
        let _ = to_peer.shutdown().await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
