//! Telling of failures that come back again and again, without flooding the log.

use std::time::Duration;

use tokio::time::Instant;

/// How long the log is spared after it was told of a failure: doubling from the first to the
/// second.
const SILENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// Decides which failures of a thing that is tried again and again are worth a line.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    failures: u64,
    untold: u64,
    silence: Duration,
    quiet_until: Instant,
}

impl Complaints {
    /// It has failed. Gives how often it did since the last line if it is time for another.
    pub(super) fn failed(&mut self, now: Instant) -> Option<u64> {
        let trouble = self.trouble.get_or_insert(Trouble {
            failures: 0,
            untold: 0,
            silence: SILENCE.0,
            quiet_until: now,
        });
        trouble.failures += 1;
        trouble.untold += 1;
        if now < trouble.quiet_until {
            return None;
        }
        trouble.quiet_until = now + trouble.silence;
        trouble.silence = (trouble.silence * 2).min(SILENCE.1);
        Some(std::mem::take(&mut trouble.untold))
    }

    /// It has worked. Gives how often it had failed before, if it had.
    pub(super) fn succeeded(&mut self) -> Option<u64> {
        self.trouble.take().map(|trouble| trouble.failures)
    }

    /// Whether it worked the last time, as far as is known.
    pub(super) fn is_well(&self) -> bool {
        self.trouble.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_of_ever_more_rarely_until_it_works_again() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for second in 0..7200 {
            let now = start + Duration::from_secs(second);
            told.extend(complaints.failed(now).map(|count| (second, count)));
        }
        let expected = [
            (0, 1),
            (60, 60),
            (180, 120),
            (420, 240),
            (900, 480),
            (1860, 960),
            (3780, 1920),
        ];
        assert_eq!(told, expected);
        assert!(!complaints.is_well());
        assert_eq!(complaints.succeeded(), Some(7200));
        assert_eq!(complaints.succeeded(), None);
        assert!(complaints.is_well());
        assert_eq!(
            complaints.failed(start),
            Some(1),
            "the next trouble is news again"
        );
    }
}
