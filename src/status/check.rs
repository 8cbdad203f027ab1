//! The check of one tunnel's target, shared by those who ask at the same time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::health::HealthCheck;

/// Whether the target can be reached, and why not.
pub(super) type Outcome = Result<(), String>;

/// A check of which at most one is under way: whoever asks meanwhile shares its outcome,
/// which is forgotten as soon as it is given. So a crowd of requests costs the target one
/// connection, and none is answered by what was true before it came.
pub(super) struct SharedCheck {
    check: HealthCheck,
    limit: Duration,
    flight: Rc<RefCell<Option<Flight>>>,
}

/// The outcome of a check under way, once it is there.
type Flight = watch::Receiver<Option<Outcome>>;

impl SharedCheck {
    /// A check that may take as long as `limit`.
    pub(super) fn new(check: HealthCheck, limit: Duration) -> Self {
        Self {
            check,
            limit,
            flight: Rc::default(),
        }
    }

    /// Joins the check under way, or begins one. It goes on when this is dropped, for others
    /// may wait for it. Must be called in a `LocalSet`.
    pub(super) async fn outcome(&self) -> Outcome {
        let under_way = self.flight.borrow().clone();
        let mut flight = under_way.unwrap_or_else(|| self.begin());
        match flight.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err("operation was canceled".to_owned()),
        }
    }

    fn begin(&self) -> Flight {
        let (sender, receiver) = watch::channel(None);
        *self.flight.borrow_mut() = Some(receiver.clone());
        let (check, limit, flight) = ((self.check)(), self.limit, Rc::clone(&self.flight));
        spawn_local(async move {
            let outcome = timeout(limit, check).await;
            let outcome = outcome.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
            // Whoever asks from now on asks anew.
            *flight.borrow_mut() = None;
            sender.send_replace(Some(outcome));
        });
        receiver
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;
    use tokio::task::LocalSet;

    use super::*;

    /// A check that counts, waits to be released, and tells its number.
    fn counting(count: &Rc<Cell<usize>>, release: &Rc<Notify>) -> HealthCheck {
        let (count, release) = (Rc::clone(count), Rc::clone(release));
        Rc::new(move || {
            count.set(count.get() + 1);
            let (number, release) = (count.get(), Rc::clone(&release));
            Box::pin(async move {
                release.notified().await;
                Err(number.to_string())
            })
        })
    }

    fn run(body: impl AsyncFnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, body());
    }

    #[test]
    fn those_who_ask_at_the_same_time_share_one_check() {
        run(async || {
            let (count, release) = (Rc::default(), Rc::default());
            let check = SharedCheck::new(counting(&count, &release), Duration::from_secs(60));
            let all = async { tokio::join!(check.outcome(), check.outcome(), check.outcome()) };
            let (outcomes, ()) = tokio::join!(all, async {
                assert_eq!(count.get(), 1, "the first one has begun");
                release.notify_one();
            });
            let first = Err("1".to_owned());
            assert_eq!(outcomes, (first.clone(), first.clone(), first));
            release.notify_one();
            assert_eq!(check.outcome().await, Err("2".to_owned()), "nothing is kept");
        });
    }

    #[test]
    fn a_check_outlives_who_began_it() {
        run(async || {
            let (count, release) = (Rc::default(), Rc::default());
            let check = SharedCheck::new(counting(&count, &release), Duration::from_secs(60));
            let gone = timeout(Duration::ZERO, check.outcome()).await;
            assert!(gone.is_err());
            release.notify_one();
            assert_eq!(check.outcome().await, Err("1".to_owned()));
        });
    }

    #[test]
    fn a_check_ends_at_its_limit() {
        run(async || {
            let never: HealthCheck = Rc::new(|| Box::pin(std::future::pending()));
            let check = SharedCheck::new(never, Duration::from_millis(1));
            assert_eq!(check.outcome().await, Err("context deadline exceeded".to_owned()));
        });
    }
}
