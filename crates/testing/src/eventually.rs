//! Waiting for a condition: poll until a deadline, then fail with a text that says
//! what was waited for.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything in a test may take. Generous, because it is only ever used up by
/// a failure: two busy cores must not turn into a red test.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Short enough not to be felt in a test's duration, long enough not to occupy a core.
const INTERVAL: Duration = Duration::from_millis(2);

/// Polls until `condition` holds; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Polls until `condition` yields a value; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn eventually_some<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, condition) {
        Some(value) => value,
        None => panic!("waited {DEADLINE:?} in vain until {what}"),
    }
}

/// Polls until `condition` yields a value, or gives `None` once `limit` has passed. The
/// condition is asked at least once, and a last time after the limit.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let expired = Instant::now() >= deadline;
        let value = condition();
        if value.is_some() || expired {
            return value;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests wait by the clock"
)]
fn pause() {
    thread::sleep(INTERVAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_returned_as_soon_as_it_exists() {
        let mut asked = 0;
        let value = eventually_some("asked three times", || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value, 3);
    }

    #[test]
    fn condition_is_asked_even_without_any_time() {
        assert_eq!(within(Duration::ZERO, || Some(1)), Some(1));
        assert_eq!(within(Duration::ZERO, || None::<u8>), None);
    }
}
