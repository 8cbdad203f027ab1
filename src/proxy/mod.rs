//! The data plane: accept, handshake, dial, relay.
//!
//! A [`Proxy`] is one tunnel at work: it is given a listener and runs on the process'
//! [`Workers`] until the drain begins. `connection.rs` tells the life of one connection.

mod accept;
mod announcement;
mod announcers;
mod complaint;
mod connection;
mod crc32c;
mod handshake;
mod pipe;
mod proxy_protocol;
mod receive;
mod relay;
mod scratch;
mod steps;
mod upstream;
mod worker;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::lifecycle::{Drain, Pulse};
use crate::metrics::Registry;
use crate::net::{Listener, Resolver, TargetAddr};
use crate::tls::{ClientConfigs, ServerConfigs};

pub use announcement::{Announcement, AnnouncementError, LONGEST, Progress, read_on};
pub use announcers::{Announcers, AnnouncersError};
pub use proxy_protocol::HeaderDetail;
pub use worker::Workers;

use steps::Steps;

/// Timeouts and limits of one tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `--connect-timeout`: one budget for handshake and dial together. Zero stands for
    /// a negative flag value: every connection fails at once.
    pub connect_timeout: Duration,
    /// `--close-timeout`: how long the other direction may go on after one has ended.
    pub close_timeout: Duration,
    /// `--max-conn-lifetime`: absolute limit from the moment both ends are joined.
    pub max_lifetime: Option<Duration>,
    /// `--max-concurrent-conns`: connections held at once; `None` is unlimited.
    pub max_concurrent: Option<NonZeroU32>,
}

/// Which end speaks TLS, with what it takes to speak it.
#[derive(Debug, Clone)]
pub enum Side {
    /// Peers speak TLS, the target doesn't.
    Server {
        /// To speak it.
        tls: Arc<ServerConfigs>,
        /// What the target is told of each peer in a PROXY protocol header, if anything.
        header: Option<HeaderDetail>,
        /// Who tells in a PROXY protocol header whom it passes on. If anybody does, everybody must.
        announcers: Option<Arc<Announcers>>,
    },
    /// Peers are local and plain, the target speaks TLS.
    Client(Arc<ClientConfigs>),
}

/// What the tunnels of a process share.
#[derive(Clone)]
pub struct Surroundings {
    /// Counts what happens.
    pub metrics: Arc<Registry>,
    /// Tells when to stop, and is told who is still busy.
    pub drain: Drain,
    /// Asks the accept loops whether they are alive.
    pub pulse: Pulse,
    /// Looks names up.
    pub resolver: Resolver,
}

/// One tunnel at work. Cheap to clone; shared by all workers.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    side: Side,
    target: TargetAddr,
    limits: Limits,
    surroundings: Surroundings,
    /// One permit for each connection that may be held at once.
    permits: Arc<Semaphore>,
    /// Where steps of handshakes run that may take long.
    steps: Steps,
}

impl Proxy {
    /// Puts a tunnel together. Nothing happens until [`Proxy::serve`].
    pub fn new(side: Side, target: TargetAddr, limits: Limits, surroundings: Surroundings) -> Self {
        let most = limits
            .max_concurrent
            .and_then(|most| usize::try_from(most.get()).ok())
            .map_or(Semaphore::MAX_PERMITS, |most| most.min(Semaphore::MAX_PERMITS));
        let permits = Arc::new(Semaphore::new(most));
        Self {
            shared: Arc::new(Shared {
                side,
                target,
                limits,
                surroundings,
                permits,
                steps: Steps::new(steps::AT_ONCE),
            }),
        }
    }

    /// Accepts connections from `listener` until the drain begins; the accept loop runs on the
    /// worker that `index` falls on, the connections on all of them. Returns at once.
    pub fn serve(&self, listener: Listener, workers: &Arc<Workers>, index: usize) {
        let shared = Arc::clone(&self.shared);
        let pool = Arc::clone(workers);
        // Taken here: a drain that begins before the loop does must wait for the listener too.
        let busy = shared.surroundings.drain.guard();
        let heartbeat = shared.surroundings.pulse.heartbeat();
        workers.run(index, move || {
            accept::run(shared, listener, pool, heartbeat, busy)
        });
    }

    /// Reaches the target just as a connection would, and hangs up: for the status port.
    /// Whatever fails is told in the words of the log.
    pub async fn probe(&self) -> Result<(), String> {
        upstream::probe(&self.shared).await
    }
}

/// The moment `wait` from now, or one that no process lives to see.
fn deadline_after(wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(wait.min(NEVER)).unwrap_or(now)
}
