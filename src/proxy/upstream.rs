//! Reaching the target: dial, and in client mode the TLS handshake and the verification of
//! the server. Wants the admission of the peer on whose behalf it happens.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{Shared, Side, deadline_after, handshake};
use crate::authorization::Admission;
use crate::net::{self, Kind, Operation, Stream};
use crate::tls::Established;

/// The target, reached.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    /// The finished handshake where the target speaks TLS.
    pub(super) tls: Option<Established>,
}

/// Why the target was not reached.
pub(super) struct Unreached {
    /// For the log.
    pub(super) text: String,
    /// A target that was sent an alert, and is to be given time to read it.
    pub(super) refused: Option<Box<Stream>>,
}

impl From<String> for Unreached {
    fn from(text: String) -> Self {
        Self { text, refused: None }
    }
}

/// Reaches the target for an admitted peer by `deadline`.
///
/// The admission is not looked at: asking for it is what keeps everybody else out.
pub(super) async fn reach(
    shared: &Shared,
    _admission: &Admission,
    deadline: Instant,
) -> Result<Upstream, Unreached> {
    let resolver = &shared.surroundings.resolver;
    let mut stream = net::dial(&shared.target, resolver, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let tls = match &shared.side {
        Side::Server { .. } => None,
        Side::Client(configs) => {
            let handshake = configs.handshake().map_err(|error| format!("tls: {error}"))?;
            let driven = tokio::time::timeout_at(deadline, handshake::drive(handshake, &mut stream));
            match driven.await {
                Err(_) => return Err("context deadline exceeded".to_owned().into()),
                Ok(Ok(established)) => Some(established),
                Ok(Err(text)) => {
                    let refused = Some(Box::new(stream));
                    return Err(Unreached { text, refused });
                }
            }
        }
    };
    Ok(Upstream { stream, tls })
}

/// Sends bytes that must be out by `deadline`; the error is the text of the log.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8], deadline: Instant) -> Result<(), String> {
    let sent = tokio::time::timeout_at(deadline, stream.write_all(bytes)).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| stream.error_text(Operation::Write, &error))
}

/// What the log says of a dial that was given up because the process is shutting down.
pub(super) fn canceled_text(shared: &Shared) -> String {
    let network = match shared.target.kind() {
        Kind::Tcp(_) => "tcp ",
        // Here the address as typed already names the network.
        Kind::Unix(_) => "",
    };
    format!("dial {network}{}: operation was canceled", shared.target.text())
}

/// Reaches the target and hangs up, without waiting for the target to do the same.
pub(super) async fn probe(shared: &Shared) -> Result<(), String> {
    let deadline = deadline_after(shared.limits.connect_timeout);
    let reached = reach(shared, &Admission::local_peer(), deadline).await;
    let upstream = reached.map_err(|failure| failure.text)?;
    if let Upstream {
        stream,
        tls: Some(mut tls),
    } = upstream
    {
        let _peer_may_be_gone = stream.try_write(&tls.session.hang_up());
    }
    Ok(())
}
