//! A sample of recent durations that stays small however many there are.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};

/// How many values are kept. With [`DECAY`] this is what Ghostunnel 1.11.1 uses: 99.9 %
/// confidence in the quantiles, over about the last five minutes.
const SIZE: usize = 1028;

/// How fast the past fades, per second.
const DECAY: f64 = 0.015;

/// An exponentially decaying reservoir (Cormode et al., "Forward decay", 2009): each value
/// gets the priority `exp(DECAY * t) / u`, with `u` random in (0, 1], and the values with
/// the highest priorities stay.
///
/// Priorities are kept as logarithms. That orders them alike, and makes the periodic
/// rescaling unnecessary that otherwise keeps the exponential from overflowing.
pub(super) struct Reservoir {
    /// Lowest priority on top.
    kept: BinaryHeap<Reverse<Weighted>>,
    count: u64,
    random: Random,
}

struct Weighted {
    priority: f64,
    value: u64,
}

/// What a reservoir says about its values. All zero while it is empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How many values there ever were.
    pub count: u64,
    /// The smallest value in the sample.
    pub min: u64,
    /// The largest value in the sample.
    pub max: u64,
    /// The sum of the sample.
    pub sum: f64,
    /// The mean of the sample.
    pub mean: f64,
    /// The variance of the sample as a population of its own.
    pub variance: f64,
    /// The 50th, 75th, 95th, 99th and 99.9th percentile of the sample.
    pub percentiles: [f64; 5],
}

/// The percentiles of a [`Summary`], as parts of one and as they are named.
pub(super) const PERCENTILES: [(f64, &str); 5] = [
    (0.5, "50"),
    (0.75, "75"),
    (0.95, "95"),
    (0.99, "99"),
    (0.999, "999"),
];

impl Reservoir {
    pub(super) fn new() -> Self {
        Self {
            kept: BinaryHeap::new(),
            count: 0,
            random: Random::new(),
        }
    }

    /// Adds a value `age` seconds after the reservoir was made.
    pub(super) fn add(&mut self, value: u64, age: f64) {
        self.count += 1;
        let new = Weighted {
            priority: DECAY * age - self.random.unit().ln(),
            value,
        };
        if self.kept.len() < SIZE {
            self.kept.push(Reverse(new));
        } else if let Some(mut lowest) = self.kept.peek_mut()
            && lowest.0 < new
        {
            *lowest = Reverse(new);
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let mut values: Vec<u64> = self.kept.iter().map(|kept| kept.0.value).collect();
        values.sort_unstable();
        // From a positive zero, unlike `sum`, so that an empty sample does not show a sign.
        let total = |terms: &mut dyn Iterator<Item = f64>| terms.fold(0.0, |total, term| total + term);
        let sum = total(&mut values.iter().map(|value| *value as f64));
        // An empty sample is all zero.
        let length = values.len().max(1) as f64;
        let mean = sum / length;
        let squares = total(&mut values.iter().map(|value| (*value as f64 - mean).powi(2)));
        Summary {
            count: self.count,
            min: values.first().copied().unwrap_or(0),
            max: values.last().copied().unwrap_or(0),
            sum,
            mean,
            variance: squares / length,
            percentiles: PERCENTILES.map(|(part, _)| percentile(&values, part)),
        }
    }
}

/// The value below which `part` of the sorted `values` lie: at the rank `part * (n + 1)`,
/// with linear interpolation, clamped to the ends.
fn percentile(values: &[u64], part: f64) -> f64 {
    let rank = part * (values.len() as f64 + 1.0);
    // A rank is at most SIZE + 1 and never negative.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number"
    )]
    let below = rank as usize;
    let at = |rank: usize| {
        let index = rank.clamp(1, values.len().max(1)) - 1;
        values.get(index).map_or(0.0, |value| *value as f64)
    };
    at(below) + rank.fract() * (at(below + 1) - at(below))
}

impl Ord for Weighted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.total_cmp(&other.priority)
    }
}

impl PartialOrd for Weighted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Weighted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Weighted {}

/// SplitMix64. Statistics need no more; nothing secret depends on it.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// A number in (0, 1].
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The upper 53 bits, as many as a double holds.
        ((mixed >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(values: impl IntoIterator<Item = u64>) -> Reservoir {
        let mut reservoir = Reservoir::new();
        for value in values {
            reservoir.add(value, 0.0);
        }
        reservoir
    }

    #[test]
    fn an_empty_reservoir_is_all_zero() {
        let expected = Summary {
            count: 0,
            min: 0,
            max: 0,
            sum: 0.0,
            mean: 0.0,
            variance: 0.0,
            percentiles: [0.0; 5],
        };
        assert_eq!(Reservoir::new().summary(), expected);
    }

    #[test]
    fn percentiles_interpolate_between_ranks_and_stop_at_the_ends() {
        let cases: [(&[u64], [f64; 5]); 4] = [
            (&[7], [7.0, 7.0, 7.0, 7.0, 7.0]),
            (&[10, 20], [15.0, 20.0, 20.0, 20.0, 20.0]),
            (&[40, 10, 30, 20], [25.0, 37.5, 40.0, 40.0, 40.0]),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9], [5.0, 7.5, 9.0, 9.0, 9.0]),
        ];
        for (values, expected) in cases {
            let summary = filled(values.iter().copied()).summary();
            assert_eq!(summary.percentiles, expected, "{values:?}");
        }
    }

    #[test]
    fn the_spread_is_that_of_a_population() {
        let summary = filled([2, 4, 4, 4, 5, 5, 7, 9]).summary();
        assert_eq!((summary.sum, summary.mean, summary.variance), (40.0, 5.0, 4.0));
    }

    #[test]
    fn the_count_goes_on_while_the_sample_stays_small() {
        let reservoir = filled(0..5000);
        let summary = reservoir.summary();
        assert_eq!(summary.count, 5000);
        assert_eq!(reservoir.kept.len(), SIZE);
        let (low, high) = (1800.0, 3200.0);
        assert!(
            (low..high).contains(&summary.mean),
            "a fair sample, not {}",
            summary.mean
        );
    }

    #[test]
    fn the_past_fades() {
        let mut reservoir = filled(std::iter::repeat_n(1, 2000));
        for _ in 0..2000 {
            reservoir.add(2, 3600.0);
        }
        assert_eq!(reservoir.summary().min, 2);
        // Years later the arithmetic still orders new before old.
        for _ in 0..2000 {
            reservoir.add(3, 1e9);
        }
        assert_eq!(reservoir.summary().min, 3);
    }
}
