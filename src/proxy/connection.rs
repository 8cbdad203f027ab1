//! The life of one connection, top to bottom.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::accept::Arrival;
use super::pipe::Pipe;
use super::proxy_protocol::{self, Certificate, HeaderError, Introduced};
use super::relay::{self, Deadlines, Observer, TlsEnd, Volume};
use super::upstream::{self, Unreached, Upstream};
use super::{Shared, Side, deadline_after, handshake};
use crate::authorization::Admission;
use crate::logging::class;
use crate::metrics::Registry;
use crate::net::{Accepted, Stream};
use crate::tls::{Established, Facts, PeerIdentity, Session};

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

/// Handshake, dial and introduction, under one deadline; all are given up when the drain begins.
async fn join(shared: &Shared, accepted: Accepted) -> Option<Joined> {
    let deadline = deadline_after(shared.limits.connect_timeout);
    let mut stream = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            return failed(
                shared,
                &format!("error on dial: cannot use the accepted socket: {error}"),
            );
        }
    };
    let (admission, tls) = match &shared.side {
        Side::Client(_) => (Admission::local_peer(), None),
        Side::Server { .. } => {
            let established = shake_hands(shared, &mut stream, deadline).await?;
            let Established {
                session,
                peer,
                admission,
                facts,
            } = established;
            (admission, Some(TlsPeer { session, peer, facts }))
        }
    };
    let reached = match introduction(shared, &stream, tls.as_ref()) {
        Err(error) => Err(format!("error building proxy header: {error}").into()),
        Ok(header) => {
            let reaching = reach_and_introduce(shared, &admission, &header, deadline);
            let canceled = || Err(format!("error on dial: {}", upstream::canceled_text(shared)).into());
            unless_draining(shared, reaching).await.unwrap_or_else(canceled)
        }
    };
    match reached {
        Ok(upstream) => join_ends(stream, tls, upstream),
        Err(Unreached { text, refused }) => {
            let failed = failed(shared, &text);
            if let Some(mut tls) = tls {
                handshake::hang_up(&mut tls.session, &mut stream).await;
            }
            // The peer that is here need not wait for the one that was refused.
            drop(stream);
            if let Some(mut refused) = refused {
                unless_draining(shared, handshake::say_farewell(&mut refused)).await;
            }
            failed
        }
    }
}

/// The accepted end after its handshake.
struct TlsPeer {
    session: Session,
    peer: Option<PeerIdentity>,
    facts: Facts,
}

/// What the target is sent before anything else; empty where it was not asked for.
fn introduction(shared: &Shared, accepted: &Stream, tls: Option<&TlsPeer>) -> Result<Vec<u8>, HeaderError> {
    let Side::Server {
        header: Some(detail), ..
    } = &shared.side
    else {
        return Ok(Vec::new());
    };
    let Some(TlsPeer { peer, facts, .. }) = tls else {
        return Ok(Vec::new());
    };
    let certificate = peer.as_ref().map(|peer| Certificate {
        der: peer.leaf().der(),
        common_name: peer.common_name().unwrap_or_default(),
    });
    let connection = Introduced {
        source: accepted.peer(),
        destination: accepted.local(),
        facts,
        certificate,
    };
    proxy_protocol::header(*detail, &connection)
}

/// The text of the error is the whole line of the log.
async fn reach_and_introduce(
    shared: &Shared,
    admission: &Admission,
    header: &[u8],
    deadline: Instant,
) -> Result<Upstream, Unreached> {
    let mut upstream = upstream::reach(shared, admission, deadline)
        .await
        .map_err(|failure| Unreached {
            text: format!("error on dial: {}", failure.text),
            ..failure
        })?;
    upstream::send(&mut upstream.stream, header, deadline)
        .await
        .map_err(|text| format!("error writing proxy header: {text}"))?;
    Ok(upstream)
}

/// Exactly one of the two ends speaks TLS.
fn join_ends(accepted: Stream, accepted_tls: Option<TlsPeer>, upstream: Upstream) -> Option<Joined> {
    let (left, right) = (accepted.peer().clone(), upstream.stream.peer().clone());
    match (accepted_tls, upstream.tls) {
        (Some(TlsPeer { session, peer, .. }), None) => Some(Joined {
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
    let Side::Server { tls: configs, .. } = &shared.side else {
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

fn failed(shared: &Shared, line: &str) -> Option<Joined> {
    shared.surroundings.metrics.connection_failed();
    info!(target: class::CONN_ERRS, "{line}");
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
