//! Reaching the target: dial, and in client mode the TLS handshake and the verification of
//! the server. Wants the admission of the peer on whose behalf it happens.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::handshake::{self, Failure};
use super::{Shared, Side, deadline_after};
use crate::authorization::Admission;
use crate::metrics::{DialFailure, HandshakeFailure, Reason as _};
use crate::net::{self, DialError, Kind, Operation, Stream};
use crate::tls::{Established, Evidence};

/// The target, reached.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    /// The finished handshake where the target speaks TLS.
    pub(super) tls: Option<Established>,
}

/// Why the target was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    /// For log and metrics.
    pub(super) reason: DialFailure,
    /// Why the handshake with it failed, if it came to one.
    pub(super) handshake: Option<HandshakeFailure>,
    /// Who was refused, as far as it is known.
    pub(super) evidence: Option<Box<Evidence>>,
    /// For the log, behind [`Unreached::phrase`].
    pub(super) text: String,
    /// A target that was sent an alert, and is to be given time to read it.
    pub(super) refused: Option<Box<Stream>>,
}

impl Unreached {
    pub(super) fn new(reason: DialFailure, text: String) -> Self {
        Self {
            reason,
            handshake: None,
            evidence: None,
            text,
            refused: None,
        }
    }

    /// The reason in one word: that of the handshake, where it came to one.
    pub(super) fn label(&self) -> &'static str {
        self.handshake
            .map_or_else(|| self.reason.label(), |reason| reason.label())
    }

    /// How the line of the log begins.
    pub(super) fn phrase(&self) -> &'static str {
        match self.reason {
            DialFailure::HeaderNotBuilt => "error building proxy header",
            DialFailure::HeaderNotSent => "error writing proxy header",
            DialFailure::Lookup
            | DialFailure::TimedOut
            | DialFailure::Refused
            | DialFailure::Proxy
            | DialFailure::Tls
            | DialFailure::Canceled => "error on dial",
        }
    }
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        let reason = match error {
            _ if error.is_timeout() => DialFailure::TimedOut,
            DialError::Lookup(_) => DialFailure::Lookup,
            DialError::Proxy(_) => DialFailure::Proxy,
            DialError::LookupTimedOut(_)
            | DialError::TimedOut(_)
            | DialError::Refused { .. }
            | DialError::MissingAddress => DialFailure::Refused,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<Failure> for Unreached {
    fn from(failure: Failure) -> Self {
        Self {
            handshake: Some(failure.reason),
            evidence: failure.evidence,
            ..Self::new(DialFailure::Tls, failure.text)
        }
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
    let mut stream = net::dial(&shared.target, resolver, deadline).await?;
    let tls = match &shared.side {
        Side::Server { .. } => None,
        Side::Client(configs) => {
            let handshake = configs
                .handshake()
                .map_err(|error| Failure::unconfigured(&error))?;
            let driven = handshake::drive(handshake, &mut stream, &shared.steps);
            match tokio::time::timeout_at(deadline, driven).await {
                Err(_) => return Err(Failure::timed_out().into()),
                Ok(Ok(established)) => Some(established),
                Ok(Err(failure)) => {
                    return Err(Unreached {
                        refused: Some(Box::new(stream)),
                        ..failure.into()
                    });
                }
            }
        }
    };
    Ok(Upstream { stream, tls })
}

/// Sends bytes that must be out by `deadline`.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8], deadline: Instant) -> Result<(), Unreached> {
    let sent = tokio::time::timeout_at(deadline, stream.write_all(bytes)).await;
    sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| {
            let text = stream.error_text(Operation::Write, &error);
            Unreached::new(DialFailure::HeaderNotSent, text)
        })
}

/// A dial that was given up because the process is shutting down.
pub(super) fn canceled(shared: &Shared) -> Unreached {
    let network = match shared.target.kind() {
        Kind::Tcp(_) => "tcp ",
        // Here the address as typed already names the network.
        Kind::Unix(_) => "",
    };
    let text = format!("dial {network}{}: operation was canceled", shared.target.text());
    Unreached::new(DialFailure::Canceled, text)
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
