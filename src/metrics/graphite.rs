//! Metrics as lines for Graphite's plaintext receiver: `NAME VALUE UNIXSECONDS`.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::instruments::Timing;
use super::registry::{Sample, Value};
use super::reservoir::PERCENTILES;
use crate::net::{self, Operation, Resolver, TargetAddr};

/// Opens a connection, sends the lines, closes it. The error is for the log.
pub(super) async fn send(
    lines: &str,
    target: &TargetAddr,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<(), String> {
    let dialled = net::dial(target, resolver, deadline).await;
    let mut stream = dialled.map_err(|error| error.to_string())?;
    let sent = stream.write_all(lines.as_bytes()).await;
    sent.and_then(|()| stream.shutdown_write())
        .map_err(|error| stream.error_text(Operation::Write, &error))
}

/// Renders the lines. The prefix goes in front of the names as it is.
pub(super) fn render(samples: &[Sample], prefix: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut lines = Lines {
        text: String::new(),
        prefix,
        seconds,
    };
    for sample in samples {
        let name = sample.declaration.name;
        match &sample.value {
            Value::Count(count) => lines.count(name, *count),
            Value::Timer(timing) => lines.timer(name, timing),
        }
    }
    lines.text
}

struct Lines<'a> {
    text: String,
    prefix: &'a str,
    seconds: u64,
}

impl Lines<'_> {
    /// `count_ps` is no rate but the count once more, as receivers know it from Ghostunnel
    /// 1.11.1.
    fn count(&mut self, name: &str, count: impl Display) {
        self.push(name, "count", &count);
        self.push(name, "count_ps", format_args!("{count}.00"));
    }

    fn timer(&mut self, name: &str, timing: &Timing) {
        let summary = &timing.summary;
        self.count(name, summary.count);
        self.push(name, "min", summary.min);
        self.push(name, "max", summary.max);
        for ((_, percent), value) in PERCENTILES.iter().zip(summary.percentiles) {
            self.push(name, &format!("{percent}-percentile"), format_args!("{value:.2}"));
        }
        let [one, five, fifteen] = timing.rates;
        for (field, value) in [
            ("mean", summary.mean),
            ("std-dev", summary.variance.sqrt()),
            ("one-minute", one),
            ("five-minute", five),
            ("fifteen-minute", fifteen),
            ("mean-rate", timing.mean_rate),
        ] {
            self.push(name, field, format_args!("{value:.2}"));
        }
    }

    fn push(&mut self, name: &str, field: &str, value: impl Display) {
        let (prefix, seconds) = (self.prefix, self.seconds);
        // Writing to a string can't fail.
        let _infallible = writeln!(self.text, "{prefix}.{name}.{field} {value} {seconds}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn lines_have_the_known_fields_and_digits() {
        let registry = Registry::new();
        registry.connection_accepted();
        registry.handshake_took(Duration::from_nanos(2_670_605));
        let now = UNIX_EPOCH + Duration::from_secs(1_795_562_205);
        let text = render(&registry.samples(), "my.pre-fix", now);
        for line in [
            "accept.total.count 1",
            "accept.total.count_ps 1.00",
            "conn.open.count 1",
            "conn.timeout.count_ps 0.00",
            "conn.handshake.count 1",
            "conn.handshake.count_ps 1.00",
            "conn.handshake.min 2670605",
            "conn.handshake.max 2670605",
            "conn.handshake.mean 2670605.00",
            "conn.handshake.std-dev 0.00",
            "conn.handshake.50-percentile 2670605.00",
            "conn.handshake.999-percentile 2670605.00",
            "conn.handshake.fifteen-minute 0.00",
            "conn.lifetime.count 0",
            "conn.lifetime.mean-rate 0.00",
        ] {
            let whole = format!("my.pre-fix.{line} 1795562205\n");
            assert!(text.contains(&whole), "{whole} in {text}");
        }
        assert_eq!(text.lines().count(), 6 * 2 + 2 * 15);
        assert!(render(&registry.samples(), "", now).starts_with(".accept.total.count 1 "));
    }
}
