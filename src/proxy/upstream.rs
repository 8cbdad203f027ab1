//! Reaching the target: dial, and in client mode the TLS handshake and the verification of
//! the server. Wants the admission of the peer on whose behalf it happens.

use tokio::time::Instant;

use super::handshake::{self, Failure};
use super::{Shared, Side, deadline_after};
use crate::authorization::Admission;
use crate::metrics::{DialFailure, HandshakeFailure};
use crate::net::{self, DialError, Kind, Stream};
use crate::tls::Established;

/// The target, reached.
pub(super) struct Upstream {
    pub(super) stream: Stream,
    /// The finished handshake where the target speaks TLS.
    pub(super) tls: Option<Established>,
}

/// Why the target was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    /// For the metrics.
    pub(super) reason: DialFailure,
    /// Why the handshake with it failed, if it came to one.
    pub(super) handshake: Option<HandshakeFailure>,
    /// For the log.
    pub(super) text: String,
}

impl From<DialError> for Unreached {
    fn from(error: DialError) -> Self {
        let reason = match error {
            DialError::Lookup(_) => DialFailure::Lookup,
            DialError::LookupTimedOut(_) | DialError::TimedOut(_) => DialFailure::TimedOut,
            DialError::Refused { .. } | DialError::MissingAddress => DialFailure::Refused,
        };
        Self {
            reason,
            handshake: None,
            text: error.to_string(),
        }
    }
}

impl From<Failure> for Unreached {
    fn from(failure: Failure) -> Self {
        Self {
            reason: DialFailure::Tls,
            handshake: Some(failure.reason),
            text: failure.text,
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
        Side::Server(_) => None,
        Side::Client(configs) => {
            let handshake = configs
                .handshake()
                .map_err(|error| Failure::unconfigured(&error))?;
            let driven = tokio::time::timeout_at(deadline, handshake::drive(handshake, &mut stream));
            Some(driven.await.map_err(|_| Failure::timed_out())??)
        }
    };
    Ok(Upstream { stream, tls })
}

/// A dial that was given up because the process is shutting down.
pub(super) fn canceled(shared: &Shared) -> Unreached {
    let network = match shared.target.kind() {
        Kind::Tcp(_) => "tcp ",
        // Here the address as typed already names the network.
        Kind::Unix(_) => "",
    };
    Unreached {
        reason: DialFailure::Canceled,
        handshake: None,
        text: format!("dial {network}{}: operation was canceled", shared.target.text()),
    }
}

/// Reaches the target and hangs up, without waiting for the target to do the same.
pub(super) async fn probe(shared: &Shared) -> Result<(), String> {
    let deadline = deadline_after(shared.limits.connect_timeout);
    let upstream = reach(shared, &Admission::local_peer(), deadline)
        .await
        .map_err(|unreached| unreached.text)?;
    if let Upstream {
        stream,
        tls: Some(mut tls),
    } = upstream
    {
        let _peer_may_be_gone = stream.try_write(&tls.session.hang_up());
    }
    Ok(())
}
