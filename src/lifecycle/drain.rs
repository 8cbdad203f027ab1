//! The drain: one signal that everybody can await, and guards that tell who is still busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// The end of a tunnel, or of the process: announced once, then awaited.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    is_draining: AtomicBool,
    guards: AtomicUsize,
    /// Becomes true with the drain; for those who await its begin.
    begun: watch::Sender<bool>,
    /// Told when the last guard goes during a drain.
    empty: Notify,
}

/// Somebody is busy and wants to end in peace: held by each connection.
pub struct DrainGuard {
    shared: Arc<Shared>,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        let shared = Shared {
            is_draining: AtomicBool::new(false),
            guards: AtomicUsize::new(0),
            begun: watch::Sender::new(false),
            empty: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Begins the drain. Further calls change nothing.
    pub fn begin(&self) {
        self.shared.is_draining.store(true, Ordering::SeqCst);
        self.shared.begun.send_replace(true);
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::SeqCst)
    }

    /// Waits until the drain begins. Cancel-safe.
    pub async fn begun(&self) {
        let mut begun = self.shared.begun.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = begun.wait_for(|begun| *begun).await;
    }

    /// Holds the drain back until the guard is dropped. Costs one atomic addition and
    /// takes no lock; works during the drain too.
    ///
    /// Whoever accepts connections takes the guard first and accepts then: a connection
    /// that is on its way while the last guard goes would be missed otherwise.
    pub fn guard(&self) -> DrainGuard {
        self.shared.guards.fetch_add(1, Ordering::SeqCst);
        DrainGuard {
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many guards there are now.
    pub fn busy(&self) -> usize {
        self.shared.guards.load(Ordering::SeqCst)
    }

    /// Waits until the drain has begun and no guard is left. Cancel-safe.
    pub async fn drained(&self) {
        self.begun().await;
        loop {
            // Registered before the count is read: a guard that goes in between wakes it.
            let mut empty = std::pin::pin!(self.shared.empty.notified());
            empty.as_mut().enable();
            if self.shared.guards.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        let was_last = self.shared.guards.fetch_sub(1, Ordering::SeqCst) == 1;
        // All four accesses are sequentially consistent: either this sees the drain, or
        // `drained`, which looks after it has begun, sees the new count.
        if was_last && self.shared.is_draining.load(Ordering::SeqCst) {
            self.shared.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::thread;

    use super::*;

    fn block_on(body: impl AsyncFnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().expect("a runtime").block_on(body());
    }

    async fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = pin!(future);
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
    }

    #[test]
    fn the_drain_ends_when_it_has_begun_and_no_guard_is_left() {
        block_on(async || {
            let drain = Drain::new();
            let guard = drain.guard();
            assert!(!is_ready(drain.begun()).await);
            drain.begin();
            assert!(drain.is_draining());
            drain.begun().await;
            let second = drain.guard();
            drop(guard);
            assert!(!is_ready(drain.drained()).await);
            drop(second);
            drain.drained().await;
        });
    }

    #[test]
    fn without_guards_the_drain_still_waits_for_its_begin() {
        block_on(async || {
            let drain = Drain::new();
            drop(drain.guard());
            assert!(!is_ready(drain.drained()).await);
            drain.begin();
            drain.drained().await;
        });
    }

    #[test]
    fn the_last_guard_wakes_the_waiter_from_any_thread() {
        for _ in 0..200 {
            let drain = Drain::new();
            let guards: Vec<_> = (0..4).map(|_| drain.guard()).collect();
            let threads: Vec<_> = guards
                .into_iter()
                .map(|guard| thread::spawn(|| drop(guard)))
                .collect();
            drain.begin();
            block_on(async || drain.drained().await);
            for thread in threads {
                thread.join().expect("dropping a guard does not panic");
            }
        }
    }
}
