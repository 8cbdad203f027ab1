//! The accept loop: the concurrency limit, and patience when descriptors run out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::error;

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
    _busy: DrainGuard,
) {
    let acceptor = match listener.into_acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            error!(
                target: class::CONN_ERRS,
                event = "accept_failed",
                error = %error,
                "error accepting connection: {error}"
            );
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
                error!(
                    target: class::CONN_ERRS,
                    event = "accept_failed",
                    error = text,
                    "error accepting connection: {text}"
                );
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::task::{Context, Waker};

    use super::super::{Limits, Proxy, Side, Surroundings};
    use super::*;
    use crate::lifecycle::{Drain, Pulse};
    use crate::metrics::Registry;
    use crate::net::{Inherited, ListenAddr, Reach, Resolver, TargetAddr};
    use crate::tls::ClientAuth;
    use crate::tls::test_support::{Scene, everybody};

    /// A tunnel that lets everybody in, to a target that nobody will be taken to.
    fn proxy(drain: &Drain) -> Proxy {
        let configs = Scene::new().server_configs(ClientAuth::Required(everybody()));
        let limits = Limits {
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            max_lifetime: None,
            max_concurrent: None,
        };
        let surroundings = Surroundings {
            metrics: Arc::new(Registry::disabled()),
            drain: drain.clone(),
            pulse: Pulse::default(),
            resolver: Resolver::new(),
        };
        let side = Side::Server {
            tls: Arc::new(configs),
            header: None,
            announcers: None,
        };
        let target = TargetAddr::parse("127.0.0.1:1", Reach::LocalOnly).expect("an address");
        Proxy::new(side, target, limits, surroundings)
    }

    #[test]
    fn the_drain_waits_for_a_listener_whose_loop_has_not_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let address = ListenAddr::parse(&format!("unix:{}", path.display()), Reach::Anywhere);
        let listener = address
            .expect("a path")
            .bind(&mut Inherited::default())
            .expect("free")
            .listen()
            .expect("free");

        let workers = Workers::start_some(1).expect("a thread");
        let (release, held) = sync_channel::<()>(0);
        workers.run(0, move || async move {
            let _released = held.recv();
        });
        let drain = Drain::new();
        proxy(&drain).serve(listener, &workers, 0);
        drain.begin();
        {
            let mut drained = Box::pin(drain.drained());
            let poll = drained.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending(), "the listener is still open");
        }
        drop(release);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().expect("a runtime").block_on(drain.drained());
        assert!(!path.exists());
    }
}
