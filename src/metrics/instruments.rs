//! What metrics are made of: counters, tallies by reason, timers, histograms. All of them may
//! be used from every thread.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reservoir::{Reservoir, Summary};

/// A number of things; goes down too where it counts what is there now.
#[derive(Default)]
pub(super) struct Counter(AtomicI64);

impl Counter {
    pub(super) fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that happens for one of a few reasons.
pub trait Reason: Copy + 'static {
    /// All reasons. Their places are their indexes.
    const ALL: &'static [Self];
    /// How a reason is called in labels.
    fn label(self) -> &'static str;
    /// Its place in [`Reason::ALL`].
    fn index(self) -> usize;
}

/// One counter for each reason.
pub(super) struct Tally<R> {
    counts: Box<[AtomicU64]>,
    reasons: std::marker::PhantomData<fn(R)>,
}

impl<R: Reason> Tally<R> {
    pub(super) fn new() -> Self {
        Self {
            counts: R::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            reasons: std::marker::PhantomData,
        }
    }

    pub(super) fn count(&self, reason: R) {
        if let Some(count) = self.counts.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every reason with its count, those that never came too.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        R::ALL.iter().map(|reason| reason.label()).zip(counts)
    }
}

/// Durations in buckets with fixed limits.
pub(super) struct Histogram {
    /// Upper limits in seconds, growing.
    limits: &'static [f64],
    /// One for each limit, and one for what is beyond all.
    buckets: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Each limit in seconds with the number of values up to it.
    pub buckets: Vec<(f64, u64)>,
    /// The number of all values.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl Histogram {
    pub(super) fn new(limits: &'static [f64]) -> Self {
        Self {
            limits,
            buckets: (0..=limits.len()).map(|_| AtomicU64::new(0)).collect(),
            nanoseconds: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = self.limits.iter().take_while(|limit| seconds > **limit).count();
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanoseconds.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    pub(super) fn distribution(&self) -> Distribution {
        let mut count = 0;
        let mut up_to = self.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let buckets = self.limits.iter().copied().zip(up_to.by_ref()).collect();
        let all = up_to.last().unwrap_or(0);
        Distribution {
            buckets,
            count: all,
            sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

/// Durations as Ghostunnel 1.11.1 describes them: a sample of the recent ones, and how many
/// there are in a second.
pub(super) struct Timer {
    since: Instant,
    state: Mutex<(Reservoir, Meter)>,
}

/// What a timer says. Rates are events in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The sample.
    pub summary: Summary,
    /// Averages over about 1, 5 and 15 minutes; zero for the first five seconds.
    pub rates: [f64; 3],
    /// The average since the start.
    pub mean_rate: f64,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            state: Mutex::new((Reservoir::new(), Meter::default())),
        }
    }

    pub(super) fn add(&self, time: Duration) {
        let age = self.since.elapsed();
        let (reservoir, meter) = &mut *self.lock();
        reservoir.add(nanoseconds(time), age.as_secs_f64());
        meter.tick(age);
        meter.uncounted += 1;
    }

    pub(super) fn timing(&self) -> Timing {
        let age = self.since.elapsed();
        let (reservoir, meter) = &mut *self.lock();
        meter.tick(age);
        let summary = reservoir.summary();
        let mean_rate = if summary.count == 0 {
            0.0
        } else {
            summary.count as f64 / age.as_secs_f64()
        };
        Timing {
            summary,
            rates: meter.rates,
            mean_rate,
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Reservoir, Meter)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Exponentially weighted averages, brought up to date when somebody counts or looks.
#[derive(Default)]
struct Meter {
    /// Events since the last tick.
    uncounted: u64,
    ticks: u64,
    rates: [f64; 3],
}

impl Meter {
    /// How often averages are formed, in seconds.
    const TICK: u64 = 5;
    /// What they reach back over, in seconds.
    const SPANS: [f64; 3] = [60.0, 300.0, 900.0];
    /// After this many quiet ticks the longest average is below any number that is shown.
    const FORGOTTEN: u64 = 20_000;

    /// Makes up for the ticks that fell due up to `age`.
    fn tick(&mut self, age: Duration) {
        let due = age.as_secs() / Self::TICK;
        let missed = due.saturating_sub(self.ticks);
        for _ in 0..missed.min(Self::FORGOTTEN) {
            let rate = std::mem::take(&mut self.uncounted) as f64 / Self::TICK as f64;
            let is_first = self.ticks == 0;
            self.ticks += 1;
            for (average, span) in self.rates.iter_mut().zip(Self::SPANS) {
                let weight = if is_first {
                    1.0
                } else {
                    1.0 - (-(Self::TICK as f64) / span).exp()
                };
                *average += weight * (rate - *average);
            }
        }
        self.ticks = self.ticks.max(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_reaches_it() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for milliseconds in [50, 100, 101, 1000, 1001] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let expected = Distribution {
            buckets: vec![(0.1, 2), (1.0, 4)],
            count: 5,
            sum: 2.252,
        };
        assert_eq!(histogram.distribution(), expected);
    }

    #[test]
    fn rates_are_zero_at_first_and_fade_in_silence() {
        let mut meter = Meter {
            uncounted: 50,
            ..Meter::default()
        };
        meter.tick(Duration::from_millis(4999));
        assert_eq!(meter.rates, [0.0; 3]);
        meter.tick(Duration::from_secs(5));
        assert_eq!(meter.rates, [10.0; 3]);
        meter.tick(Duration::from_secs(65));
        // Twelve ticks of silence are one minute: e^-1 of the shortest average is left.
        assert!((meter.rates[0] - 10.0 / std::f64::consts::E).abs() < 1e-9);
        assert!(meter.rates[0] < meter.rates[1] && meter.rates[1] < meter.rates[2]);
        meter.tick(Duration::from_secs(u64::MAX));
        assert!(meter.rates.iter().all(|rate| *rate < 1e-9));
        meter.uncounted = 50;
        meter.tick(Duration::from_secs(u64::MAX));
        assert_eq!(meter.uncounted, 50, "no further tick is due");
    }

    #[test]
    fn the_mean_rate_counts_from_the_start() {
        let timer = Timer::new();
        assert_eq!(timer.timing().mean_rate, 0.0);
        timer.add(Duration::from_millis(1));
        assert!(timer.timing().mean_rate > 0.0);
        assert_eq!(timer.timing().rates, [0.0; 3]);
    }
}
