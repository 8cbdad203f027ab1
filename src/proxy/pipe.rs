//! How a pair of connections reads in the log. Scripts match on these lines.

use std::fmt;
use std::time::Duration;

use crate::net::Label;
use crate::tls::PeerIdentity;

/// The two ends of a pipe: who connected, and what was reached for it.
#[derive(Debug)]
pub(super) struct Pipe {
    left: Label,
    right: Label,
    /// Who passed `left` on, if somebody did.
    via: Option<Box<Label>>,
    certificate: Option<PeerIdentity>,
    tls_accepted: bool,
}

impl Pipe {
    /// A TLS peer connected to a plain target, maybe passed on by somebody.
    pub(super) fn tls_accepted(
        left: Label,
        via: Option<Label>,
        peer: Option<PeerIdentity>,
        right: Label,
    ) -> Self {
        Self {
            left,
            right,
            via: via.map(Box::new),
            certificate: peer,
            tls_accepted: true,
        }
    }

    /// A local peer connected to a target that speaks TLS.
    pub(super) fn tls_dialled(left: Label, right: Label, peer: Option<PeerIdentity>) -> Self {
        Self {
            left,
            right,
            via: None,
            certificate: peer,
            tls_accepted: false,
        }
    }

    /// Whether the end that connected is the one that speaks TLS.
    pub(super) fn is_tls_accepted(&self) -> bool {
        self.tls_accepted
    }

    /// The end that connected.
    pub(super) fn peer(&self) -> impl fmt::Display + '_ {
        self.left.address()
    }

    /// Who passed that end on, if somebody did.
    pub(super) fn via(&self) -> Option<&Label> {
        self.via.as_deref()
    }

    /// The end that was reached for it.
    pub(super) fn target(&self) -> impl fmt::Display + '_ {
        self.right.address()
    }

    /// Whom the certificate of the TLS end is about, if it showed one.
    pub(super) fn subject(&self) -> Option<String> {
        self.certificate.as_ref().map(|peer| peer.subject())
    }

    /// What the line that tells of the end adds.
    pub(super) fn summary(&self, forwarded: u64, returned: u64, open: Duration) -> String {
        format!(
            "[forwarded {}, returned {}, open {}]",
            Bytes(forwarded),
            Bytes(returned),
            Length(open)
        )
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secured = self.subject().unwrap_or_else(|| "no cert".to_owned());
        let (left, right) = if self.tls_accepted {
            (secured.as_str(), "no tls")
        } else {
            ("no tls", secured.as_str())
        };
        write!(f, "{} [{left}] <-> {} [{right}]", self.left, self.right)
    }
}

/// `5 bytes`, `4.9 KiB`: one decimal of the largest unit that keeps the number below 1024.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let mut whole = self.0;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        while whole >= 1024 * 1024 {
            whole /= 1024;
            unit = units.next();
        }
        // Tenths with the precision of the division before the last one, as before.
        #[expect(clippy::cast_precision_loss, reason = "below 2^20 by the loop above")]
        let value = whole as f64 / 1024.0;
        write!(f, "{value:.1} {}", unit.copied().unwrap_or_default())
    }
}

/// `485.314µs`, `201ms`, `1m2.003s`: to the millisecond above one, exact below.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000 {
            return write!(f, "{nanos}ns");
        }
        if nanos < 1_000_000 {
            return write!(
                f,
                "{}",
                Fraction {
                    units: nanos,
                    per_unit: 1_000,
                    suffix: "µs"
                }
            );
        }
        let millis = nanos.saturating_add(500_000) / 1_000_000;
        if millis < 1_000 {
            return write!(f, "{millis}ms");
        }
        let (minutes, millis) = (millis / 60_000, millis % 60_000);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(
            f,
            "{}",
            Fraction {
                units: millis,
                per_unit: 1_000,
                suffix: "s"
            }
        )
    }
}

/// A decimal number without trailing zeros: thousandths of a unit.
struct Fraction {
    units: u128,
    per_unit: u128,
    suffix: &'static str,
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.units / self.per_unit, self.units % self.per_unit);
        if rest == 0 {
            return write!(f, "{whole}{}", self.suffix);
        }
        let digits = format!("{rest:03}");
        write!(f, "{whole}.{}{}", digits.trim_end_matches('0'), self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_read_as_log_parsers_know_them() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (5000, "4.9 KiB"),
            (1024 * 1024, "1.0 MiB"),
            (64 * 1024 * 1024, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_read_as_log_parsers_know_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (485_314, "485.314µs"),
            (737_290, "737.29µs"),
            (1_000_000, "1ms"),
            (17_400_000, "17ms"),
            (1_501_700_000, "1.502s"),
            (3_000_000_000, "3s"),
            (62_003_000_000, "1m2.003s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(Length(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
