//! Threads for handshake steps that may take long: a signature by an HSM, a verdict by a policy.
//!
//! Each tunnel has its own, and a permit for each. A step that overruns the deadline of its
//! connection can't be interrupted: nobody waits for it any more, and it holds its permit until
//! it returns. So whatever gets stuck stops its own tunnel only.
//!
//! Threads are started when there is something to do, hence inside the sandbox, and end when
//! there has been nothing for a while.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many steps of one tunnel run at a time. More than cores, because most of them wait for
/// another machine or a device; few enough that those which compute leave the workers their share.
pub(super) const AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).expect("is not zero");

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of one tunnel.
pub(super) struct Steps {
    permits: Arc<Semaphore>,
    pool: Arc<Pool>,
}

/// A step without an outcome: no thread could be started for it, or it has panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handshake could not be continued on a thread of its own")]
pub(super) struct Lost;

impl Steps {
    /// Threads for so many steps at once; none is started yet.
    pub(super) fn new(at_once: NonZeroUsize) -> Self {
        let most = at_once.get().min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(most)),
            pool: Arc::new(Pool {
                most,
                state: Mutex::default(),
                work: Condvar::new(),
            }),
        }
    }

    /// Waits for a permit, then runs the step and gives its outcome.
    ///
    /// Dropping the future gives up the wait. A step that has begun goes on, and its outcome is
    /// dropped on its thread.
    pub(super) async fn run<T, F>(&self, step: F) -> Result<T, Lost>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Lost)?;
        let (reply, outcome) = oneshot::channel();
        let work = Box::new(move || {
            let _nobody_may_wait = reply.send(step());
        });
        self.pool.start(Job { work, permit })?;
        outcome.await.map_err(|_| Lost)
    }
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    permit: OwnedSemaphorePermit,
}

struct Pool {
    /// Threads at most. There are as many permits, so no job waits for long.
    most: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    fn start(self: &Arc<Self>, job: Job) -> Result<(), Lost> {
        let mut state = self.state();
        state.jobs.push_back(job);
        if state.jobs.len() > state.idle && state.threads < self.most {
            let pool = Arc::clone(self);
            let thread = thread::Builder::new().name("handshake".to_owned());
            if thread.spawn(move || pool.work()).is_ok() {
                state.threads += 1;
            } else if state.threads == 0 {
                // With the job goes its reply, which nobody waits for.
                state.jobs.clear();
                return Err(Lost);
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// What a thread does from its start to its end.
    fn work(&self) {
        while let Some(Job { work, permit }) = self.next() {
            // The panic was printed; whoever waits learns of it because the reply is dropped.
            let _panic = catch_unwind(AssertUnwindSafe(work));
            drop(permit);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        state.idle += 1;
        let (mut state, _) = self
            .work
            .wait_timeout_while(state, IDLE, |state| state.jobs.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.threads -= 1;
        }
        job
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
