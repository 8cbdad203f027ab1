//! The accept loop: the concurrency limit, and patience when descriptors run out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::info;

use super::worker::Workers;
use super::{Shared, connection};
use crate::lifecycle::{DrainGuard, Heartbeat};
use crate::logging::class;
use crate::net::{Accepted, Acceptor, Listener};

/// An accepted connection with all that must be given back when it ends.
pub(super) struct Arrival {
    pub(super) accepted: Accepted,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) busy: DrainGuard,
}

/// Accepts until the drain begins. Dropping the acceptor then closes the socket, which
/// removes a UNIX path; the drain waits for that too.
///
/// The heartbeat answers from this task, so it shows that the worker still runs it.
pub(super) async fn run(
    shared: Arc<Shared>,
    listener: Listener,
    workers: Arc<Workers>,
    mut heartbeat: Heartbeat,
) {
    let _busy = shared.surroundings.drain.guard();
    let acceptor = match listener.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            info!(target: class::CONN_ERRS, "error accepting connection: {error}");
            return;
        }
    };
    tokio::select! {
        () = accept_all(&shared, &acceptor, &workers) => {}
        () = heartbeat.beat() => {}
        () = shared.surroundings.drain.begun() => heartbeat.retire(),
    }
}

async fn accept_all(shared: &Arc<Shared>, acceptor: &Acceptor, workers: &Workers) {
    let mut pause = FIRST_PAUSE;
    loop {
        // A slot is taken before the connection: those beyond the limit wait in the kernel's queue.
        let Ok(permit) = Arc::clone(&shared.permits).acquire_owned().await else {
            return;
        };
        match acceptor.accept().await {
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                shared.surroundings.metrics.connection_accepted();
                let arrival = Arrival {
                    accepted,
                    permit,
                    busy: shared.surroundings.drain.guard(),
                };
                let shared = Arc::clone(shared);
                workers.run_on_least_loaded(move || connection::serve(shared, arrival));
            }
            Err(error) => {
                shared.surroundings.metrics.accept_failed();
                let text = acceptor.accept_error_text(&error);
                info!(target: class::CONN_ERRS, "error accepting connection: {text}");
                drop(permit);
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// How long to wait after accept has failed (no descriptors left, mostly): doubling, so that
/// neither the log nor a core is flooded, and short enough to recover within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
