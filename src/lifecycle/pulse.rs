//! Proof that long-lived tasks are still being run: asked for by the watchdog, given by
//! every task that took a [`Heartbeat`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Asks, and sees who has answered. Cheap to clone; clones share.
#[derive(Clone)]
pub struct Pulse {
    shared: Arc<Shared>,
}

struct Shared {
    /// The number of the last question.
    question: watch::Sender<u64>,
    /// What each heartbeat answered last.
    answers: Mutex<Vec<Arc<AtomicU64>>>,
}

/// The promise of one task to answer as long as it is run. Dropped without
/// [`Heartbeat::retire`], as by a panic, it counts as one that answers no more.
pub struct Heartbeat {
    shared: Arc<Shared>,
    question: watch::Receiver<u64>,
    answer: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse that nobody has promised yet.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                question: watch::Sender::new(0),
                answers: Mutex::default(),
            }),
        }
    }

    /// A promise for one more task. It counts from now on, also before the task runs.
    pub fn heartbeat(&self) -> Heartbeat {
        let question = self.shared.question.subscribe();
        let answer = Arc::new(AtomicU64::new(*question.borrow()));
        self.shared.lock().push(Arc::clone(&answer));
        Heartbeat {
            shared: Arc::clone(&self.shared),
            question,
            answer,
        }
    }

    /// Asks everybody once more.
    pub(super) fn ask(&self) {
        self.shared.question.send_modify(|number| *number += 1);
    }

    /// Whether everybody has answered the last question.
    pub(super) fn is_answered(&self) -> bool {
        let number = *self.shared.question.borrow();
        let answers = self.shared.lock();
        answers
            .iter()
            .all(|answer| answer.load(Ordering::Relaxed) == number)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Heartbeat {
    /// Answers for as long as it is polled. Never ends. Cancel-safe.
    pub async fn beat(&mut self) {
        while self.question.changed().await.is_ok() {
            let number = *self.question.borrow_and_update();
            self.answer.store(number, Ordering::Relaxed);
        }
        // Nobody asks any more.
        std::future::pending().await
    }

    /// Takes the promise back: the task has ended as it should.
    pub fn retire(self) {
        self.shared
            .lock()
            .retain(|answer| !Arc::ptr_eq(answer, &self.answer));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    fn with_runtime(body: impl AsyncFnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().expect("a runtime").block_on(body());
    }

    /// Runs a task's heartbeat once, as its worker does when it is woken.
    async fn run_once(heartbeat: &mut Heartbeat) {
        let mut beat = pin!(heartbeat.beat());
        std::future::poll_fn(|context| {
            assert!(beat.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[test]
    fn everybody_must_answer_each_question() {
        with_runtime(async || {
            let pulse = Pulse::new();
            assert!(pulse.is_answered(), "nobody was asked");
            let (mut first, mut second) = (pulse.heartbeat(), pulse.heartbeat());
            pulse.ask();
            assert!(!pulse.is_answered());
            run_once(&mut first).await;
            assert!(!pulse.is_answered(), "the second one is silent");
            run_once(&mut second).await;
            assert!(pulse.is_answered());
            pulse.ask();
            assert!(!pulse.is_answered(), "an old answer does not count");
        });
    }

    #[test]
    fn a_task_that_ends_unexpectedly_never_answers_again() {
        with_runtime(async || {
            let pulse = Pulse::new();
            drop(pulse.heartbeat());
            pulse.ask();
            assert!(!pulse.is_answered());
        });
    }

    #[test]
    fn a_task_that_retires_is_not_asked() {
        with_runtime(async || {
            let pulse = Pulse::new();
            let (mut first, second) = (pulse.heartbeat(), pulse.heartbeat());
            pulse.ask();
            second.retire();
            run_once(&mut first).await;
            assert!(pulse.is_answered());
        });
    }
}
