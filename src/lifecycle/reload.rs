//! Reload requests from all sides as one channel, which holds each kind at most once.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// What asked for a reload. Displays as the log line that announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadTrigger {
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    UserSignal1,
    /// `--timed-reload`; not announced, see [`ReloadTrigger::is_announced`].
    Timer,
}

impl ReloadTrigger {
    /// Whether the log tells of it before the reload begins: it does for signals, while
    /// a timed reload shows by its results only, as in Ghostunnel 1.11.1.
    pub fn is_announced(self) -> bool {
        match self {
            Self::Hangup | Self::UserSignal1 => true,
            Self::Timer => false,
        }
    }
}

impl Display for ReloadTrigger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Hangup => "received hangup, reloading TLS configuration",
            Self::UserSignal1 => "received user defined signal 1, reloading TLS configuration",
            Self::Timer => "reload interval elapsed, reloading TLS configuration",
        })
    }
}

/// Makes the channel of reload requests.
pub fn reload_channel() -> (ReloadRequester, ReloadRequests) {
    let pending = Arc::new(Pending::default());
    (ReloadRequester(Arc::clone(&pending)), ReloadRequests(pending))
}

/// Asks for reloads.
#[derive(Clone)]
pub struct ReloadRequester(Arc<Pending>);

/// Gives the requests to whoever carries them out, one after the other.
pub struct ReloadRequests(Arc<Pending>);

#[derive(Default)]
struct Pending {
    hangup: AtomicBool,
    user_signal_1: AtomicBool,
    timer: AtomicBool,
    wake: Notify,
}

impl Pending {
    fn slot(&self, trigger: ReloadTrigger) -> &AtomicBool {
        match trigger {
            ReloadTrigger::Hangup => &self.hangup,
            ReloadTrigger::UserSignal1 => &self.user_signal_1,
            ReloadTrigger::Timer => &self.timer,
        }
    }
}

impl ReloadRequester {
    /// Asks for a reload that begins after this call.
    ///
    /// A request of the same kind that still waits is joined: it will see the same files.
    /// One that is being carried out is not, since it may have read its files already.
    pub fn request(&self, trigger: ReloadTrigger) {
        self.0.slot(trigger).store(true, Ordering::SeqCst);
        self.0.wake.notify_one();
    }

    /// Asks for a reload every `period`, first after one period, until dropped. Ticks
    /// that were missed while the process was stopped are skipped.
    pub async fn request_every(self, period: Duration) {
        // A zero period would spin; one beyond the clock's end never comes.
        let Some(first) = Instant::now().checked_add(period).filter(|_| !period.is_zero()) else {
            return std::future::pending().await;
        };
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.request(ReloadTrigger::Timer);
        }
    }
}

impl ReloadRequests {
    /// Waits for the next request, signals before timers. Cancel-safe.
    pub async fn next(&mut self) -> ReloadTrigger {
        let kinds = [
            ReloadTrigger::Hangup,
            ReloadTrigger::UserSignal1,
            ReloadTrigger::Timer,
        ];
        loop {
            let is_asked_for = |trigger: &ReloadTrigger| self.0.slot(*trigger).swap(false, Ordering::SeqCst);
            if let Some(trigger) = kinds.into_iter().find(is_asked_for) {
                return trigger;
            }
            self.0.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_runtime(body: impl AsyncFnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().expect("a runtime");
        runtime.block_on(body());
    }

    #[test]
    fn requests_of_one_kind_are_joined_until_taken() {
        with_runtime(async || {
            let (requester, mut requests) = reload_channel();
            requester.request(ReloadTrigger::Timer);
            requester.request(ReloadTrigger::Hangup);
            requester.request(ReloadTrigger::Hangup);
            assert_eq!(requests.next().await, ReloadTrigger::Hangup);
            requester.request(ReloadTrigger::Hangup);
            assert_eq!(requests.next().await, ReloadTrigger::Hangup);
            assert_eq!(requests.next().await, ReloadTrigger::Timer);
            let next = tokio::time::timeout(Duration::ZERO, requests.next());
            assert!(next.await.is_err(), "nothing else was asked for");
        });
    }

    #[test]
    fn the_timer_asks_first_after_one_period() {
        with_runtime(async || {
            let (requester, mut requests) = reload_channel();
            let period = Duration::from_millis(5);
            let start = Instant::now();
            tokio::select! {
                () = requester.request_every(period) => unreachable!("the timer never ends"),
                trigger = requests.next() => assert_eq!(trigger, ReloadTrigger::Timer),
            }
            assert!(start.elapsed() >= period);
        });
    }

    #[test]
    fn an_endless_period_never_comes() {
        with_runtime(async || {
            for period in [Duration::ZERO, Duration::MAX] {
                let (requester, _requests) = reload_channel();
                let timer = tokio::time::timeout(Duration::ZERO, requester.request_every(period));
                assert!(timer.await.is_err(), "{period:?}");
            }
        });
    }
}
