//! The life of one connection, top to bottom.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::accept::Arrival;
use super::handshake::{self, Failure};
use super::pipe::Pipe;
use super::proxy_protocol::{self, Certificate, HeaderError, Introduced};
use super::receive;
use super::relay::{self, Deadlines, Observer, TlsEnd, Volume};
use super::upstream::{self, Unreached, Upstream};
use super::{Shared, Side, complaint, deadline_after};
use crate::authorization::Admission;
use crate::logging::class;
use crate::metrics::{DialFailure, HandshakeFailure, HandshakeKind, Registry};
use crate::net::{Accepted, Label, Stream};
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
            shared.surroundings.metrics.accept_failed();
            error!(
                target: class::CONN_ERRS,
                event = "accept_failed",
                error = %error,
                "error accepting connection: cannot use the accepted socket: {error}"
            );
            return None;
        }
    };
    let (admission, tls) = match &shared.side {
        Side::Client(_) => (Admission::local_peer(), None),
        Side::Server { .. } => {
            hear_announcement(shared, &mut stream, deadline).await?;
            let established = shake_hands(shared, &mut stream, deadline).await?;
            let Established {
                session,
                peer,
                admission,
                facts,
                is_resumed,
            } = established;
            debug!(
                target: class::CONNS,
                event = "peer_admitted",
                peer = %stream.peer().address(),
                subject = peer.as_ref().map(|peer| peer.subject()),
                reason = %admission.reason(),
                resumed = is_resumed,
                "admitted {}: {}",
                stream.peer().address(),
                admission.reason()
            );
            (admission, Some(TlsPeer { session, peer, facts }))
        }
    };
    let reached = match introduction(shared, &stream, tls.as_ref()) {
        Err(error) => Err(Unreached::new(DialFailure::HeaderNotBuilt, error.to_string())),
        Ok(header) => {
            let reaching = reach_and_introduce(shared, &admission, &header, deadline);
            let canceled = || Err(upstream::canceled(shared));
            unless_draining(shared, reaching).await.unwrap_or_else(canceled)
        }
    };
    match reached {
        Ok(upstream) => join_ends(stream, tls, upstream),
        Err(mut unreached) => {
            complaint::dial_failed(shared, &stream, &unreached);
            if let Some(mut tls) = tls {
                handshake::hang_up(&mut tls.session, &mut stream).await;
            }
            // The peer that is here need not wait for the one that was refused.
            drop(stream);
            if let Some(refused) = &mut unreached.refused {
                unless_draining(shared, handshake::say_farewell(refused)).await;
            }
            None
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

async fn reach_and_introduce(
    shared: &Shared,
    admission: &Admission,
    header: &[u8],
    deadline: Instant,
) -> Result<Upstream, Unreached> {
    let mut upstream = upstream::reach(shared, admission, deadline).await?;
    upstream::send(&mut upstream.stream, header, deadline).await?;
    Ok(upstream)
}

/// Exactly one of the two ends speaks TLS.
fn join_ends(accepted: Stream, accepted_tls: Option<TlsPeer>, upstream: Upstream) -> Option<Joined> {
    let (left, right) = (accepted.peer().clone(), upstream.stream.peer().clone());
    match (accepted_tls, upstream.tls) {
        (Some(TlsPeer { session, peer, .. }), None) => Some(Joined {
            pipe: Pipe::tls_accepted(left, accepted.via().cloned(), peer, right),
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

/// Learns whom the peer passes on, where peers are to tell.
async fn hear_announcement(shared: &Shared, stream: &mut Stream, deadline: Instant) -> Option<()> {
    let Side::Server {
        announcers: Some(announcers),
        ..
    } = &shared.side
    else {
        return Some(());
    };
    let from = stream.peer().address().to_string();
    let heard = tokio::time::timeout_at(deadline, receive::announcement(announcers, stream));
    let outcome = match unless_draining(shared, heard).await {
        None => Err(Failure::new(HandshakeFailure::Canceled, "context canceled")),
        Some(Err(_)) => Err(Failure::timed_out()),
        Some(Ok(outcome)) => outcome,
    };
    if let Err(failure) = &outcome {
        complaint::announcement_failed(&shared.surroundings.metrics, &from, failure);
    }
    outcome.ok()
}

/// The sender of a PROXY protocol header, as a field of the log.
pub(super) fn via_field(via: Option<&Label>) -> Option<String> {
    via.map(|via| via.address().to_string())
}

async fn shake_hands(shared: &Shared, stream: &mut Stream, deadline: Instant) -> Option<Established> {
    let Side::Server { tls: configs, .. } = &shared.side else {
        return None;
    };
    let metrics = &shared.surroundings.metrics;
    let started = Instant::now();
    let shaken = tokio::time::timeout_at(deadline, async {
        // A silent peer costs a socket and no more, and one that is silent while credentials are
        // renewed meets the new ones.
        handshake::first_bytes(stream).await?;
        let handshake = configs
            .handshake()
            .map_err(|error| Failure::unconfigured(&error))?;
        handshake::drive(handshake, stream, &shared.steps).await
    });
    let mut was_refused = false;
    let outcome = match unless_draining(shared, shaken).await {
        None => Err(Failure::new(HandshakeFailure::Canceled, "context canceled")),
        Some(Err(_)) => Err(Failure::timed_out()),
        Some(Ok(outcome)) => {
            was_refused = outcome.is_err();
            outcome
        }
    };
    metrics.handshake_took(started.elapsed());
    if let Ok(established) = &outcome {
        metrics.handshake_done(if established.is_resumed {
            HandshakeKind::Resumed
        } else {
            HandshakeKind::Full
        });
    }
    if let Err(failure) = &outcome {
        complaint::handshake_failed(metrics, stream, failure);
    }
    if was_refused {
        unless_draining(shared, handshake::say_farewell(stream)).await;
    }
    outcome.ok()
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
        info!(
            target: class::CONNS,
            event = "connection_opened",
            peer = %pipe.peer(),
            target = %pipe.target(),
            via = via_field(pipe.via()),
            subject = pipe.subject(),
            "opening pipe: {pipe} {}",
            pipe.via().map(|via| format!("(via {via})")).unwrap_or_default()
        );
        let deadlines = Deadlines {
            close_timeout: shared.limits.close_timeout,
            end_of_life: shared.limits.max_lifetime.map(deadline_after),
        };
        let watcher = Watcher {
            pipe: &pipe,
            metrics: &shared.surroundings.metrics,
            is_tls_accepted: pipe.is_tls_accepted(),
        };
        let volume = relay::relay(tls, plain, deadlines, &watcher).await;
        let (forwarded, returned) = watcher.directions(volume);
        let open = opened.elapsed();
        info!(
            target: class::CONNS,
            event = "connection_closed",
            peer = %pipe.peer(),
            target = %pipe.target(),
            via = via_field(pipe.via()),
            subject = pipe.subject(),
            forwarded,
            returned,
            duration = open.as_secs_f64(),
            "closed pipe: {pipe} {}",
            pipe.summary(forwarded, returned, open)
        );
    }
}

/// Logs and counts what happens in a relay.
struct Watcher<'a> {
    pipe: &'a Pipe,
    metrics: &'a Registry,
    is_tls_accepted: bool,
}

impl Watcher<'_> {
    /// What went forward, from the peer to the target, and what came back.
    fn directions(&self, volume: Volume) -> (u64, u64) {
        let Volume { opened, sealed } = volume;
        if self.is_tls_accepted {
            (opened, sealed)
        } else {
            (sealed, opened)
        }
    }
}

impl Observer for Watcher<'_> {
    fn moved(&self, volume: Volume) {
        let (forwarded, returned) = self.directions(volume);
        self.metrics.bytes_relayed(forwarded, returned);
    }

    fn failed(&self, text: &str) {
        warn!(
            target: class::CONN_ERRS,
            event = "copy_failed",
            peer = %self.pipe.peer(),
            target = %self.pipe.target(),
            via = via_field(self.pipe.via()),
            error = text,
            "error during copy: {text}"
        );
    }

    fn timed_out(&self, text: &str) {
        self.metrics.direction_timed_out();
        self.failed(text);
    }
}
