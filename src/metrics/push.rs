//! Sends metrics to those who don't ask for them: at every tick, and a last time at the end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::complaints::Complaints;
use super::http_post::{Connect, Poster};
use super::{Registry, graphite, json};
use crate::net::{HttpUrl, Resolver, TargetAddr};

/// How often Graphite is sent to, whatever `--metrics-interval` says.
pub const GRAPHITE_INTERVAL: Duration = Duration::from_secs(1);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How long the last attempt may take. The process waits for it.
pub const LAST_ATTEMPT: Duration = Duration::from_millis(200);

/// What is sent, and under which names.
pub struct Content {
    /// The metrics.
    pub registry: Arc<Registry>,
    /// What their names begin with.
    pub prefix: String,
    /// The name of this machine.
    pub hostname: String,
}

/// Sends to one receiver.
pub struct Reporter {
    content: Content,
    receiver: Receiver,
    complaints: Complaints,
}

enum Receiver {
    Graphite { target: TargetAddr, resolver: Resolver },
    Http(Box<Poster>),
}

impl Reporter {
    /// A reporter that opens a connection to Graphite each time.
    pub fn graphite(content: Content, target: TargetAddr, resolver: Resolver) -> Self {
        Self::new(content, Receiver::Graphite { target, resolver })
    }

    /// A reporter that posts to a URL.
    pub fn http(content: Content, url: HttpUrl, connect: Connect) -> Self {
        Self::new(content, Receiver::Http(Box::new(Poster::new(url, connect))))
    }

    fn new(content: Content, receiver: Receiver) -> Self {
        Self {
            content,
            receiver,
            complaints: Complaints::default(),
        }
    }

    /// Sends every `period`, first after one, and once more when `end` becomes true: then to
    /// a receiver that has not been in trouble, and for [`LAST_ATTEMPT`] at most.
    ///
    /// One attempt at a time; ticks that it overruns are left out. Must run in a `LocalSet`.
    pub async fn run(mut self, period: Duration, mut end: watch::Receiver<bool>) {
        let Some(first) = Instant::now().checked_add(period) else {
            return;
        };
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = end.wait_for(|end| *end) => break,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                biased;
                () = self.report() => {}
                // What is on its way is as good as the last values.
                _ = end.wait_for(|end| *end) => return,
            }
        }
        if self.complaints.is_well() {
            let _may_be_lost = timeout(LAST_ATTEMPT, self.attempt()).await;
        }
    }

    async fn report(&mut self) {
        let outcome = match timeout(ATTEMPT, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err("error reporting metrics: i/o timeout".to_owned()),
        };
        match outcome {
            Ok(()) => {
                if let Some(failures) = self.complaints.succeeded() {
                    tracing::info!("metrics are reported again, after {failures} failures");
                }
            }
            Err(text) => match self.complaints.failed(Instant::now()) {
                None => {}
                Some(1) => tracing::error!("{text}"),
                Some(count) => tracing::error!("{text} ({count} times since the last line)"),
            },
        }
    }

    /// The error is the line for the log.
    async fn attempt(&mut self) -> Result<(), String> {
        let now = SystemTime::now();
        let Content {
            registry,
            prefix,
            hostname,
        } = &self.content;
        let samples = registry.samples();
        let failed = |error| format!("error reporting metrics: {error}");
        match &mut self.receiver {
            Receiver::Graphite { target, resolver } => {
                let lines = graphite::render(&samples, prefix, now);
                let deadline = Instant::now() + ATTEMPT;
                graphite::send(&lines, target, resolver, deadline)
                    .await
                    .map_err(failed)
            }
            Receiver::Http(poster) => {
                let body = json::render(&samples, prefix, hostname, now);
                let status = poster.post(body).await.map_err(failed)?;
                if status.is_success() {
                    Ok(())
                } else {
                    Err(format!("receiver of metrics answered {status}"))
                }
            }
        }
    }
}
