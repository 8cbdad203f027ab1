//! The life of one connection, top to bottom.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::accept::Arrival;
use super::pipe::Pipe;
use super::relay::{self, Deadlines, Observer, TlsEnd, Volume};
use super::upstream::{self, Unreached, Upstream};
use super::{Shared, Side, deadline_after, handshake};
use crate::authorization::Admission;
use crate::logging::class;
use crate::metrics::Registry;
use crate::net::{Accepted, Stream};
use crate::tls::{Established, PeerIdentity, Session};

/// Serves an accepted connection to its end. What it holds of the process (its slot, its
/// place in the drain) is given back when this returns.
pub(super) async fn serve(shared: Arc<Shared>, arrival: Arrival) {
    let Arrival {
        accepted,
        permit: _permit,
        busy: _busy,
    } = arrival;
    let metrics = &shared.surroundings.metrics;
    let _open = Open {
        metrics,
        since: Instant::now(),
    };
    // Boxed, so that an open connection does not carry the state of its set-up.
    if let Some(joined) = Box::pin(join(&shared, accepted)).await {
        metrics.connection_admitted();
        joined.relay(&shared).await;
    }
}

/// Counts a connection's end, also that of a task that panics.
struct Open<'a> {
    metrics: &'a Registry,
    since: Instant,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.since.elapsed());
    }
}

/// A peer that was admitted and the target that was reached for it.
struct Joined {
    pipe: Pipe,
    tls: TlsEnd,
    plain: Stream,
}

/// Handshake and dial, under one deadline; both are given up when the drain begins.
async fn join(shared: &Shared, accepted: Accepted) -> Option<Joined> {
    let deadline = deadline_after(shared.limits.connect_timeout);
    let mut stream = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(error) => return dial_failed(shared, &format!("cannot use the accepted socket: {error}")),
    };
    let (admission, tls) = match &shared.side {
        Side::Client(_) => (Admission::local_peer(), None),
        Side::Server(_) => {
            let established = shake_hands(shared, &mut stream, deadline).await?;
            let Established {
                session,
                peer,
                admission,
            } = established;
            (admission, Some((session, peer)))
        }
    };
    let upstream = match unless_draining(shared, upstream::reach(shared, &admission, deadline)).await {
        Some(Ok(upstream)) => upstream,
        failed => {
            let Unreached { text, refused } = failed
                .and_then(Result::err)
                .unwrap_or_else(|| upstream::canceled_text(shared).into());
            let failed = dial_failed(shared, &text);
            if let Some((mut session, _)) = tls {
                handshake::hang_up(&mut session, &mut stream).await;
            }
            // The peer that is here need not wait for the one that was refused.
            drop(stream);
            if let Some(mut refused) = refused {
                unless_draining(shared, handshake::say_farewell(&mut refused)).await;
            }
            return failed;
        }
    };
    join_ends(stream, tls, upstream)
}

type TlsPeer = (Session, Option<PeerIdentity>);

/// Exactly one of the two ends speaks TLS.
fn join_ends(accepted: Stream, accepted_tls: Option<TlsPeer>, upstream: Upstream) -> Option<Joined> {
    let (left, right) = (accepted.peer().clone(), upstream.stream.peer().clone());
    match (accepted_tls, upstream.tls) {
        (Some((session, peer)), None) => Some(Joined {
            pipe: Pipe::tls_accepted(left, peer, right),
            tls: TlsEnd {
                stream: accepted,
                session,
            },
            plain: upstream.stream,
        }),
        (None, Some(Established { session, peer, .. })) => Some(Joined {
            pipe: Pipe::tls_dialled(left, right, peer),
            tls: TlsEnd {
                stream: upstream.stream,
                session,
            },
            plain: accepted,
        }),
        _ => None,
    }
}

async fn shake_hands(shared: &Shared, stream: &mut Stream, deadline: Instant) -> Option<Established> {
    let Side::Server(configs) = &shared.side else {
        return None;
    };
    let metrics = &shared.surroundings.metrics;
    let from = stream.peer().address().to_string();
    let started = Instant::now();
    let shaken = tokio::time::timeout_at(deadline, async {
        // A silent peer costs a socket and no more, and one that is silent while credentials are
        // renewed meets the new ones.
        handshake::first_bytes(stream).await?;
        let handshake = configs.handshake().map_err(|error| format!("tls: {error}"))?;
        handshake::drive(handshake, stream).await
    });
    let mut was_refused = false;
    let outcome = match unless_draining(shared, shaken).await {
        None => Err("context canceled".to_owned()),
        Some(Err(_)) => {
            metrics.handshake_timed_out();
            Err("context deadline exceeded".to_owned())
        }
        Some(Ok(outcome)) => {
            was_refused = outcome.is_err();
            outcome
        }
    };
    metrics.handshake_took(started.elapsed());
    if let Err(text) = &outcome {
        metrics.connection_failed();
        info!(target: class::HANDSHAKE_ERRS, "error on TLS handshake from {from}: {text}");
    }
    if was_refused {
        unless_draining(shared, handshake::say_farewell(stream)).await;
    }
    outcome.ok()
}

fn dial_failed(shared: &Shared, text: &str) -> Option<Joined> {
    shared.surroundings.metrics.connection_failed();
    info!(target: class::CONN_ERRS, "error on dial: {text}");
    None
}

/// The outcome of `work`, or nothing if the process began to drain first.
async fn unless_draining<T>(shared: &Shared, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        outcome = work => Some(outcome),
        () = shared.surroundings.drain.begun() => None,
    }
}

impl Joined {
    /// Relays until both directions have ended, and logs both moments.
    async fn relay(self, shared: &Shared) {
        let Self { pipe, tls, plain } = self;
        let opened = Instant::now();
        info!(target: class::CONNS, "opening pipe: {pipe} ");
        let deadlines = Deadlines {
            close_timeout: shared.limits.close_timeout,
            end_of_life: shared.limits.max_lifetime.map(deadline_after),
        };
        let volume = relay::relay(tls, plain, deadlines, &Faults(&shared.surroundings.metrics)).await;
        let Volume {
            opened: from_tls,
            sealed: from_plain,
        } = volume;
        let (forwarded, returned) = if pipe.is_tls_accepted() {
            (from_tls, from_plain)
        } else {
            (from_plain, from_tls)
        };
        let summary = pipe.summary(forwarded, returned, opened.elapsed());
        info!(target: class::CONNS, "closed pipe: {pipe} {summary}");
    }
}

/// Logs and counts what goes wrong in a relay.
struct Faults<'a>(&'a Registry);

impl Observer for Faults<'_> {
    fn failed(&self, text: &str) {
        info!(target: class::CONN_ERRS, "error during copy: {text}");
    }

    fn timed_out(&self, text: &str) {
        self.0.direction_timed_out();
        self.failed(text);
    }
}
