//! Every metric, declared once: name, unit, meaning.
//!
//! There are two generations. The first has the names of Ghostunnel 1.11.1, its kinds and
//! its units, and appears in all formats. The second, in Prometheus' format only, follows
//! that format's customs; where both tell of the same events, they share a counter.

use std::time::Duration;

use super::instruments::{Counter, Distribution, Histogram, Tally, Timer, Timing};
use super::reasons::{DialFailure, HandshakeFailure, HandshakeKind, ReloadResult};

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
    /// Whatever the name says.
    Things,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Nanoseconds,
    /// Seconds.
    Seconds,
}

/// A metric of the first generation and its value at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Which metric.
    pub declaration: &'static Declaration,
    /// Its value.
    pub value: Value,
}

/// The value of such a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(i64),
    /// A distribution of durations.
    Timer(Timing),
}

/// A metric of the second generation and its values at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Which metric.
    pub declaration: &'static Declaration,
    /// Its values.
    pub points: Points,
}

/// The values of such a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Points {
    /// Only ever grows.
    Counters(Vec<Point>),
    /// Goes up and down.
    Gauges(Vec<Point>),
    /// A distribution of durations.
    Histogram(Distribution),
}

/// One value, with the label that tells it from others, if there are any.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Name and value of the label.
    pub label: Option<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Point {
    fn plain(value: f64) -> Self {
        Self { label: None, value }
    }

    fn labelled(name: &'static str, label: impl Into<String>, value: f64) -> Self {
        Self {
            label: Some((name, label.into())),
            value,
        }
    }
}

impl Family {
    /// A counter without labels.
    pub(super) fn counter(declaration: &'static Declaration, value: f64) -> Self {
        Self {
            declaration,
            points: Points::Counters(vec![Point::plain(value)]),
        }
    }

    /// A gauge without labels.
    pub(super) fn gauge(declaration: &'static Declaration, value: f64) -> Self {
        Self {
            declaration,
            points: Points::Gauges(vec![Point::plain(value)]),
        }
    }

    fn tally<R: super::Reason>(
        declaration: &'static Declaration,
        label: &'static str,
        tally: &Tally<R>,
    ) -> Self {
        let points = tally
            .values()
            .map(|(reason, count)| Point::labelled(label, reason, count as f64));
        Self {
            declaration,
            points: Points::Counters(points.collect()),
        }
    }
}

/// What the registry is not told of, but others know at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// The tunnels' own certificates.
    pub certificates: Vec<CertificateExpiry>,
    /// Log lines that never reached their reader.
    pub log_lines_dropped: u64,
}

/// When a tunnel's own certificate ceases to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The tunnel's `--listen`, as typed.
    pub listen: String,
    /// Unix time in seconds.
    pub not_after: i64,
}

/// Counts what happens to connections. One per process, shared by all its tunnels; its
/// methods are named after the events and cheap enough for each connection.
///
/// Names are an interface: users of the first generation select by substring and take the
/// first hit, so no new name may contain an old one there.
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
    accept_failures: Counter,
    handshakes: Tally<HandshakeKind>,
    handshake_failures: Tally<HandshakeFailure>,
    dial_failures: Tally<DialFailure>,
    forwarded: Counter,
    returned: Counter,
    handshake_duration: Histogram,
    connection_duration: Histogram,
    reloads: Tally<ReloadResult>,
}

/// Limits for durations of handshakes, in seconds.
const HANDSHAKE_LIMITS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Limits for durations of connections, in seconds: up to a day.
const CONNECTION_LIMITS: &[f64] = &[
    0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0,
];

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
        Self {
            is_enabled,
            accept_total: Counter::default(),
            accept_success: Counter::default(),
            accept_error: Counter::default(),
            accept_timeout: Counter::default(),
            conn_open: Counter::default(),
            conn_timeout: Counter::default(),
            conn_handshake: Timer::new(),
            conn_lifetime: Timer::new(),
            accept_failures: Counter::default(),
            handshakes: Tally::new(),
            handshake_failures: Tally::new(),
            dial_failures: Tally::new(),
            forwarded: Counter::default(),
            returned: Counter::default(),
            handshake_duration: Histogram::new(HANDSHAKE_LIMITS),
            connection_duration: Histogram::new(CONNECTION_LIMITS),
            reloads: Tally::new(),
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

    /// The handshake with an accepted peer succeeded.
    pub fn handshake_done(&self, kind: HandshakeKind) {
        self.tally(&self.handshakes, kind);
    }

    /// The handshake with an accepted peer failed, which ends its connection.
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        self.count(&self.accept_error, 1);
        if reason == HandshakeFailure::TimedOut {
            self.count(&self.accept_timeout, 1);
        }
        self.tally(&self.handshake_failures, reason);
    }

    /// The target of an accepted connection was not reached, which ends it.
    pub fn dial_failed(&self, reason: DialFailure) {
        self.count(&self.accept_error, 1);
        self.tally(&self.dial_failures, reason);
    }

    /// The handshake with the target of an accepted connection failed. Comes on top of
    /// [`Self::dial_failed`].
    pub fn target_handshake_failed(&self, reason: HandshakeFailure) {
        self.tally(&self.handshake_failures, reason);
    }

    /// An accepted connection, or the next one, could not be handled for want of descriptors
    /// or the like.
    pub fn accept_failed(&self) {
        self.count(&self.accept_error, 1);
        self.count(&self.accept_failures, 1);
    }

    /// One direction of a joined connection was cut by a deadline.
    pub fn direction_timed_out(&self) {
        self.count(&self.conn_timeout, 1);
    }

    /// A handshake ended, well or badly, after this time.
    pub fn handshake_took(&self, time: Duration) {
        self.time(&self.conn_handshake, time);
        self.measure(&self.handshake_duration, time);
    }

    /// Payload of a connection has reached its destination: `forwarded` went from the peer to
    /// the target, `returned` came back.
    pub fn bytes_relayed(&self, forwarded: u64, returned: u64) {
        for (counter, bytes) in [(&self.forwarded, forwarded), (&self.returned, returned)] {
            if bytes > 0 {
                self.count(counter, i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }

    /// An accepted connection ended, well or badly, this long after it was accepted.
    pub fn connection_closed(&self, lifetime: Duration) {
        self.count(&self.conn_open, -1);
        self.time(&self.conn_lifetime, lifetime);
        self.measure(&self.connection_duration, lifetime);
    }

    /// A reload ended.
    pub fn reload_finished(&self, result: ReloadResult) {
        self.tally(&self.reloads, result);
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> i64 {
        self.conn_open.value()
    }

    /// The first generation with its values now; those of a disabled registry are zero.
    pub fn samples(&self) -> Vec<Sample> {
        let counters = [
            (ACCEPT_TOTAL, &self.accept_total),
            (ACCEPT_SUCCESS, &self.accept_success),
            (ACCEPT_ERROR, &self.accept_error),
            (ACCEPT_TIMEOUT, &self.accept_timeout),
            (CONN_OPEN, &self.conn_open),
            (CONN_TIMEOUT, &self.conn_timeout),
        ];
        let timers = [
            (CONN_HANDSHAKE, &self.conn_handshake),
            (CONN_LIFETIME, &self.conn_lifetime),
        ];
        let counters = counters.map(|(declaration, counter)| Sample {
            declaration,
            value: Value::Count(counter.value()),
        });
        let timers = timers.map(|(declaration, timer)| Sample {
            declaration,
            value: Value::Timer(timer.timing()),
        });
        counters.into_iter().chain(timers).collect()
    }

    /// The second generation with its values now.
    pub fn families(&self, gauges: &Gauges) -> Vec<Family> {
        let counter = |declaration, counter: &Counter| Family::counter(declaration, counter.value() as f64);
        let certificates = gauges
            .certificates
            .iter()
            .map(|certificate| Point::labelled("listen", &certificate.listen, certificate.not_after as f64));
        let version = Point::labelled("version", env!("CARGO_PKG_VERSION"), 1.0);
        vec![
            Family {
                declaration: BUILD_INFO,
                points: Points::Gauges(vec![version]),
            },
            counter(CONNECTIONS_ACCEPTED, &self.accept_total),
            counter(CONNECTIONS_ADMITTED, &self.accept_success),
            Family::gauge(CONNECTIONS_OPEN, self.conn_open.value() as f64),
            counter(ACCEPT_FAILURES, &self.accept_failures),
            Family::tally(HANDSHAKES, "kind", &self.handshakes),
            Family::tally(HANDSHAKE_FAILURES, "reason", &self.handshake_failures),
            Family::tally(DIAL_FAILURES, "reason", &self.dial_failures),
            counter(DIRECTIONS_CUT, &self.conn_timeout),
            counter(FORWARDED_BYTES, &self.forwarded),
            counter(RETURNED_BYTES, &self.returned),
            Family {
                declaration: HANDSHAKE_DURATION,
                points: Points::Histogram(self.handshake_duration.distribution()),
            },
            Family {
                declaration: CONNECTION_DURATION,
                points: Points::Histogram(self.connection_duration.distribution()),
            },
            Family::tally(RELOADS, "result", &self.reloads),
            Family {
                declaration: CERTIFICATE_NOT_AFTER,
                points: Points::Gauges(certificates.collect()),
            },
            Family::counter(LOG_LINES_DROPPED, gauges.log_lines_dropped as f64),
        ]
    }

    fn count(&self, counter: &Counter, difference: i64) {
        if self.is_enabled {
            counter.add(difference);
        }
    }

    fn tally<R: super::Reason>(&self, tally: &Tally<R>, reason: R) {
        if self.is_enabled {
            tally.count(reason);
        }
    }

    fn time(&self, timer: &Timer, time: Duration) {
        if self.is_enabled {
            timer.add(time);
        }
    }

    fn measure(&self, histogram: &Histogram, time: Duration) {
        if self.is_enabled {
            histogram.add(time);
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

const ACCEPT_TOTAL: &Declaration = &Declaration {
    name: "accept.total",
    unit: Unit::Connections,
    meaning: "connections accepted",
};

const ACCEPT_SUCCESS: &Declaration = &Declaration {
    name: "accept.success",
    unit: Unit::Connections,
    meaning: "connections joined with the backend",
};

const ACCEPT_ERROR: &Declaration = &Declaration {
    name: "accept.error",
    unit: Unit::Connections,
    meaning: "failures to accept, and connections that failed before they were joined",
};

const ACCEPT_TIMEOUT: &Declaration = &Declaration {
    name: "accept.timeout",
    unit: Unit::Connections,
    meaning: "handshakes that overran the connect timeout; also counted as errors",
};

const CONN_OPEN: &Declaration = &Declaration {
    name: "conn.open",
    unit: Unit::Connections,
    meaning: "connections open now",
};

const CONN_TIMEOUT: &Declaration = &Declaration {
    name: "conn.timeout",
    unit: Unit::Directions,
    meaning: "directions cut by the close timeout or the maximum lifetime",
};

const CONN_HANDSHAKE: &Declaration = &Declaration {
    name: "conn.handshake",
    unit: Unit::Nanoseconds,
    meaning: "time spent in TLS handshakes with accepted peers, failed ones included",
};

const CONN_LIFETIME: &Declaration = &Declaration {
    name: "conn.lifetime",
    unit: Unit::Nanoseconds,
    meaning: "time from accepting a connection to its end, failed ones included",
};

const BUILD_INFO: &Declaration = &Declaration {
    name: "build_info",
    unit: Unit::Things,
    meaning: "The version of the program; always 1.",
};

const CONNECTIONS_ACCEPTED: &Declaration = &Declaration {
    name: "connections_accepted_total",
    unit: Unit::Connections,
    meaning: "Connections accepted.",
};

const CONNECTIONS_ADMITTED: &Declaration = &Declaration {
    name: "connections_admitted_total",
    unit: Unit::Connections,
    meaning: "Connections joined with their target: handshake and dial succeeded.",
};

const CONNECTIONS_OPEN: &Declaration = &Declaration {
    name: "connections_open",
    unit: Unit::Connections,
    meaning: "Connections open now, in set-up or joined.",
};

const ACCEPT_FAILURES: &Declaration = &Declaration {
    name: "accept_failures_total",
    unit: Unit::Things,
    meaning: "Failures to accept a connection, mostly for want of descriptors.",
};

const HANDSHAKES: &Declaration = &Declaration {
    name: "handshakes_total",
    unit: Unit::Things,
    meaning: "TLS handshakes with accepted peers that succeeded, by whether they resumed a session.",
};

const HANDSHAKE_FAILURES: &Declaration = &Declaration {
    name: "handshake_failures_total",
    unit: Unit::Things,
    meaning: "TLS handshakes that failed, with peers in server mode, with the target in client mode.",
};

const DIAL_FAILURES: &Declaration = &Declaration {
    name: "dial_failures_total",
    unit: Unit::Things,
    meaning: "Accepted connections whose target was not reached.",
};

const DIRECTIONS_CUT: &Declaration = &Declaration {
    name: "directions_cut_total",
    unit: Unit::Directions,
    meaning: "Directions of connections (each has two) cut by the close timeout or the maximum lifetime.",
};

const FORWARDED_BYTES: &Declaration = &Declaration {
    name: "forwarded_bytes_total",
    unit: Unit::Bytes,
    meaning: "Payload delivered from peers to the target.",
};

const RETURNED_BYTES: &Declaration = &Declaration {
    name: "returned_bytes_total",
    unit: Unit::Bytes,
    meaning: "Payload delivered from the target to peers.",
};

const HANDSHAKE_DURATION: &Declaration = &Declaration {
    name: "handshake_duration_seconds",
    unit: Unit::Seconds,
    meaning: "Time in TLS handshakes with accepted peers, failed ones included.",
};

const CONNECTION_DURATION: &Declaration = &Declaration {
    name: "connection_duration_seconds",
    unit: Unit::Seconds,
    meaning: "Time from accepting a connection to its end, failed ones included.",
};

const RELOADS: &Declaration = &Declaration {
    name: "reloads_total",
    unit: Unit::Things,
    meaning: "Reloads of certificates and trust anchors.",
};

const CERTIFICATE_NOT_AFTER: &Declaration = &Declaration {
    name: "certificate_not_after_timestamp_seconds",
    unit: Unit::Seconds,
    meaning: "When the tunnel's own certificate expires, in Unix time.",
};

const LOG_LINES_DROPPED: &Declaration = &Declaration {
    name: "log_lines_dropped_total",
    unit: Unit::Things,
    meaning: "Log lines that were dropped or could not be written.",
};

#[cfg(test)]
mod tests;
