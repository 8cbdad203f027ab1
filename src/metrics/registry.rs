//! Every metric, declared once: name, unit, meaning.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reservoir::{Reservoir, Summary};

/// What is known about a metric beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// The name, without prefix.
    pub name: &'static str,
    /// What it counts or measures in.
    pub unit: Unit,
    /// What it means, for people.
    pub meaning: &'static str,
}

/// What a metric counts or measures in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Connections.
    Connections,
    /// Directions of connections; each has two.
    Directions,
    /// Nanoseconds.
    Nanoseconds,
}

/// A metric and its value at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Which metric.
    pub declaration: &'static Declaration,
    /// Its value.
    pub value: Value,
}

/// The value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(i64),
    /// A distribution of durations.
    Timer(Summary),
}

/// Counts what happens to connections. One per process, shared by all its tunnels; its
/// methods are named after the events and cheap enough for each connection.
///
/// Names are an interface: users select by substring and take the first hit, so no new
/// name may contain an old one.
pub struct Registry {
    is_enabled: bool,
    accept_total: Counter,
    accept_success: Counter,
    accept_error: Counter,
    accept_timeout: Counter,
    conn_open: Counter,
    conn_timeout: Counter,
    conn_handshake: Timer,
    conn_lifetime: Timer,
}

impl Registry {
    /// A registry that records.
    pub fn new() -> Self {
        Self::build(true)
    }

    /// A registry that records nothing, for a process whose metrics nobody reads.
    pub fn disabled() -> Self {
        Self::build(false)
    }

    fn build(is_enabled: bool) -> Self {
        use Unit::{Connections, Directions, Nanoseconds};
        Self {
            is_enabled,
            accept_total: Counter::new(&Declaration {
                name: "accept.total",
                unit: Connections,
                meaning: "connections accepted, counted before the handshake",
            }),
            accept_success: Counter::new(&Declaration {
                name: "accept.success",
                unit: Connections,
                meaning: "connections joined with the backend: handshake, dial and PROXY header done",
            }),
            accept_error: Counter::new(&Declaration {
                name: "accept.error",
                unit: Connections,
                meaning: "connections that failed before they were joined, and failures to accept one",
            }),
            accept_timeout: Counter::new(&Declaration {
                name: "accept.timeout",
                unit: Connections,
                meaning: "handshakes that overran the connect timeout; also counted as errors",
            }),
            conn_open: Counter::new(&Declaration {
                name: "conn.open",
                unit: Connections,
                meaning: "connections open now",
            }),
            conn_timeout: Counter::new(&Declaration {
                name: "conn.timeout",
                unit: Directions,
                meaning: "directions cut by the close timeout or the maximum lifetime",
            }),
            conn_handshake: Timer::new(&Declaration {
                name: "conn.handshake",
                unit: Nanoseconds,
                meaning: "time spent in TLS handshakes with accepted peers, failed ones included",
            }),
            conn_lifetime: Timer::new(&Declaration {
                name: "conn.lifetime",
                unit: Nanoseconds,
                meaning: "time from accepting a connection to its end, failed ones included",
            }),
        }
    }

    /// A connection was accepted. Each such call is followed by one of
    /// [`Self::connection_closed`].
    pub fn connection_accepted(&self) {
        self.count(&self.accept_total, 1);
        self.count(&self.conn_open, 1);
    }

    /// A connection was joined with the backend: handshake, dial and PROXY header are done.
    pub fn connection_admitted(&self) {
        self.count(&self.accept_success, 1);
    }

    /// An accepted connection failed before it was joined, for whatever reason.
    pub fn connection_failed(&self) {
        self.count(&self.accept_error, 1);
    }

    /// No connection could be accepted, for instance for want of descriptors.
    pub fn accept_failed(&self) {
        self.count(&self.accept_error, 1);
    }

    /// A handshake overran its deadline. Comes on top of [`Self::connection_failed`].
    pub fn handshake_timed_out(&self) {
        self.count(&self.accept_timeout, 1);
    }

    /// One direction of a joined connection was cut by a deadline.
    pub fn direction_timed_out(&self) {
        self.count(&self.conn_timeout, 1);
    }

    /// A handshake with an accepted peer ended, well or badly, after this time.
    pub fn handshake_took(&self, time: Duration) {
        self.time(&self.conn_handshake, time);
    }

    /// An accepted connection ended, well or badly, this long after it was accepted.
    pub fn connection_closed(&self, lifetime: Duration) {
        self.count(&self.conn_open, -1);
        self.time(&self.conn_lifetime, lifetime);
    }

    /// All metrics with their values now; those of a disabled registry are zero.
    pub fn samples(&self) -> Vec<Sample> {
        let counters = [
            &self.accept_total,
            &self.accept_success,
            &self.accept_error,
            &self.accept_timeout,
            &self.conn_open,
            &self.conn_timeout,
        ];
        let timers = [&self.conn_handshake, &self.conn_lifetime];
        counters
            .map(Counter::sample)
            .into_iter()
            .chain(timers.map(Timer::sample))
            .collect()
    }

    fn count(&self, counter: &Counter, difference: i64) {
        if self.is_enabled {
            counter.value.fetch_add(difference, Ordering::Relaxed);
        }
    }

    fn time(&self, timer: &Timer, time: Duration) {
        if self.is_enabled {
            timer.add(time);
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

struct Counter {
    declaration: &'static Declaration,
    value: AtomicI64,
}

impl Counter {
    fn new(declaration: &'static Declaration) -> Self {
        Self {
            declaration,
            value: AtomicI64::new(0),
        }
    }

    fn sample(&self) -> Sample {
        let value = Value::Count(self.value.load(Ordering::Relaxed));
        Sample {
            declaration: self.declaration,
            value,
        }
    }
}

struct Timer {
    declaration: &'static Declaration,
    since: Instant,
    reservoir: Mutex<Reservoir>,
}

impl Timer {
    fn new(declaration: &'static Declaration) -> Self {
        Self {
            declaration,
            since: Instant::now(),
            reservoir: Mutex::new(Reservoir::new()),
        }
    }

    fn add(&self, time: Duration) {
        let age = self.since.elapsed().as_secs_f64();
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.reservoir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(nanoseconds, age);
    }

    fn sample(&self) -> Sample {
        let summary = self
            .reservoir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .summary();
        Sample {
            declaration: self.declaration,
            value: Value::Timer(summary),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(registry: &Registry) -> Vec<(&'static str, i64)> {
        let count = |sample: Sample| match sample.value {
            Value::Count(count) => (sample.declaration.name, count),
            Value::Timer(summary) => (
                sample.declaration.name,
                i64::try_from(summary.count).expect("few"),
            ),
        };
        registry.samples().into_iter().map(count).collect()
    }

    #[test]
    fn events_reach_the_metrics_they_are_documented_to() {
        type Case = (&'static str, fn(&Registry), &'static [&'static str]);
        let cases: [Case; 8] = [
            (
                "accepted",
                Registry::connection_accepted,
                &["accept.total", "conn.open"],
            ),
            ("admitted", Registry::connection_admitted, &["accept.success"]),
            ("failed", Registry::connection_failed, &["accept.error"]),
            ("accept failed", Registry::accept_failed, &["accept.error"]),
            (
                "handshake timed out",
                Registry::handshake_timed_out,
                &["accept.timeout"],
            ),
            (
                "direction timed out",
                Registry::direction_timed_out,
                &["conn.timeout"],
            ),
            (
                "handshake",
                |registry| registry.handshake_took(Duration::ZERO),
                &["conn.handshake"],
            ),
            (
                "closed",
                |registry| {
                    registry.connection_accepted();
                    registry.connection_closed(Duration::ZERO);
                },
                &["accept.total", "conn.lifetime"],
            ),
        ];
        for (event, happen, expected) in cases {
            let registry = Registry::new();
            happen(&registry);
            let changed = counts(&registry).into_iter().filter(|(_, count)| *count != 0);
            let expected: Vec<_> = expected.iter().map(|name| (*name, 1)).collect();
            assert_eq!(changed.collect::<Vec<_>>(), expected, "{event}");
        }
    }

    #[test]
    fn a_disabled_registry_records_nothing() {
        let registry = Registry::disabled();
        registry.connection_accepted();
        registry.handshake_took(Duration::from_secs(1));
        assert!(counts(&registry).into_iter().all(|(_, count)| count == 0));
    }

    #[test]
    fn no_name_contains_another() {
        let names: Vec<_> = counts(&Registry::new())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for (index, name) in names.iter().enumerate() {
            let others = names.iter().enumerate().filter(|(other, _)| *other != index);
            assert!(
                others.into_iter().all(|(_, other)| !other.contains(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn timers_measure_in_nanoseconds() {
        let registry = Registry::new();
        registry.handshake_took(Duration::from_millis(2));
        let samples = registry.samples();
        let timer = samples
            .iter()
            .find(|sample| sample.declaration.name == "conn.handshake");
        let Some(Value::Timer(summary)) = timer.map(|sample| sample.value) else {
            panic!("conn.handshake is a timer");
        };
        assert_eq!((summary.min, summary.max), (2_000_000, 2_000_000));
    }
}
