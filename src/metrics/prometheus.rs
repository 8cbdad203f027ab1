//! Metrics in Prometheus' text format, version 0.0.4.
//!
//! First come the families of Ghostunnel 1.11.1, each under its old name and kind, although
//! some are mislabelled: counters are gauges, and each timer has a histogram whose limits
//! are quantiles and whose buckets hold durations. Dashboards rely on them. The families of
//! the second generation stand beside them and follow the format's customs.

use std::fmt::Write;

use super::instruments::{Distribution, Timing};
use super::process;
use super::registry::{Family, Gauges, Points, Registry, Sample, Value};

/// The media type of what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Renders everything there is, families ordered by name.
pub fn render(registry: &Registry, gauges: &Gauges, prefix: &str) -> String {
    let mut page = Page {
        prefix: flat(prefix),
        families: Vec::new(),
    };
    for sample in registry.samples() {
        page.sample(&sample);
    }
    for family in registry.families(gauges) {
        let name = page.prefixed(family.declaration.name);
        page.family(name, family);
    }
    for family in process::families() {
        page.family(family.declaration.name.to_owned(), family);
    }
    page.families.sort();
    page.families.into_iter().map(|(_, text)| text).collect()
}

/// Families by name.
struct Page {
    prefix: String,
    families: Vec<(String, String)>,
}

impl Page {
    /// A metric of the first generation.
    fn sample(&mut self, sample: &Sample) {
        let name = sample.declaration.name;
        match sample.value {
            Value::Count(count) => self.gauge(name, "", count as f64),
            Value::Timer(timing) => self.timer(name, &timing),
        }
    }

    fn timer(&mut self, name: &str, timing: &Timing) {
        let summary = &timing.summary;
        let [rate1, rate5, rate15] = timing.rates;
        for (statistic, value) in [
            ("_count", summary.count as f64),
            ("_sum", summary.sum),
            ("_min", summary.min as f64),
            ("_max", summary.max as f64),
            ("_mean", summary.mean),
            ("_std_dev", summary.variance.sqrt()),
            ("_variance", summary.variance),
            ("_rate1", rate1),
            ("_rate5", rate5),
            ("_rate15", rate15),
            ("_rate_mean", timing.mean_rate),
        ] {
            self.gauge(name, statistic, value);
        }
        let [p50, _, p95, p99, p999] = summary.percentiles;
        let quantiles = [(0.5, p50), (0.95, p95), (0.99, p99), (0.999, p999)];
        let buckets = quantiles.map(|(part, value)| (part, value.trunc()));
        let histogram = self.prefixed(&format!("{}_timer", flat(name)));
        let mut text = header(&histogram, &flat(name), "histogram");
        write_histogram(&mut text, &histogram, &buckets, summary.count, summary.sum);
        self.families.push((histogram, text));
    }

    /// A gauge of the first generation.
    fn gauge(&mut self, name: &str, statistic: &str, value: f64) {
        let meaning = format!("{name}{statistic}");
        let name = self.prefixed(&flat(&meaning));
        let mut text = header(&name, &meaning, "gauge");
        write_value(&mut text, &name, "", value);
        self.families.push((name, text));
    }

    fn family(&mut self, name: String, family: Family) {
        let meaning = family.declaration.meaning;
        let (kind, points) = match family.points {
            Points::Counters(points) => ("counter", points),
            Points::Gauges(points) => ("gauge", points),
            Points::Histogram(Distribution { buckets, count, sum }) => {
                let buckets: Vec<_> = buckets
                    .into_iter()
                    .map(|(limit, count)| (limit, count as f64))
                    .collect();
                let mut text = header(&name, meaning, "histogram");
                write_histogram(&mut text, &name, &buckets, count, sum);
                self.families.push((name, text));
                return;
            }
        };
        if points.is_empty() {
            return;
        }
        let mut text = header(&name, meaning, kind);
        for point in points {
            let labels = point.label.map_or_else(String::new, |(label, value)| {
                format!("{{{label}=\"{}\"}}", escape(&value).replace('"', "\\\""))
            });
            write_value(&mut text, &name, &labels, point.value);
        }
        self.families.push((name, text));
    }

    fn prefixed(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}_{name}", self.prefix)
        }
    }
}

fn header(name: &str, meaning: &str, kind: &str) -> String {
    format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(meaning))
}

fn write_histogram(text: &mut String, name: &str, buckets: &[(f64, f64)], count: u64, sum: f64) {
    let count = count as f64;
    for (limit, value) in buckets.iter().copied().chain([(f64::INFINITY, count)]) {
        let labels = format!("_bucket{{le=\"{}\"}}", number(limit));
        write_value(text, name, &labels, value);
    }
    write_value(text, name, "_sum", sum);
    write_value(text, name, "_count", count);
}

fn write_value(text: &mut String, name: &str, behind_name: &str, value: f64) {
    // Writing to a string can't fail.
    let _infallible = writeln!(text, "{name}{behind_name} {}", number(value));
}

/// A name out of the letters that Prometheus takes: what the first generation's names are
/// separated by, and whatever else a prefix may hold, becomes `_`.
fn flat(name: &str) -> String {
    let is_known = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let mut flat: String = name
        .chars()
        .map(|letter| if is_known(letter) { letter } else { '_' })
        .collect();
    if flat.starts_with(|first: char| first.is_ascii_digit()) {
        flat.insert(0, '_');
    }
    flat
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

/// The shortest decimal that reads back alike, with an exponent of at least two digits for
/// numbers from 1e6 on and below 1e-4.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{CertificateExpiry, HandshakeFailure};

    fn gauges() -> Gauges {
        Gauges {
            certificates: vec![CertificateExpiry {
                listen: "unix:/run/a\\b\"c\nd".to_owned(),
                not_after: 1_900_000_000,
            }],
            log_lines_dropped: 0,
        }
    }

    #[test]
    fn old_families_look_as_dashboards_know_them() {
        let registry = Registry::new();
        registry.connection_accepted();
        registry.connection_accepted();
        registry.connection_closed(Duration::from_nanos(4_975_958));
        registry.connection_closed(Duration::from_nanos(19_400_157));
        let text = render(&registry, &Gauges::default(), "ghostunnel");
        let expected = [
            "# HELP ghostunnel_accept_total accept.total\n\
             # TYPE ghostunnel_accept_total gauge\n\
             ghostunnel_accept_total 2\n",
            "# HELP ghostunnel_conn_lifetime_max conn.lifetime_max\n\
             # TYPE ghostunnel_conn_lifetime_max gauge\n\
             ghostunnel_conn_lifetime_max 1.9400157e+07\n",
            "# HELP ghostunnel_conn_lifetime_timer conn_lifetime\n\
             # TYPE ghostunnel_conn_lifetime_timer histogram\n\
             ghostunnel_conn_lifetime_timer_bucket{le=\"0.5\"} 1.2188057e+07\n\
             ghostunnel_conn_lifetime_timer_bucket{le=\"0.95\"} 1.9400157e+07\n\
             ghostunnel_conn_lifetime_timer_bucket{le=\"0.99\"} 1.9400157e+07\n\
             ghostunnel_conn_lifetime_timer_bucket{le=\"0.999\"} 1.9400157e+07\n\
             ghostunnel_conn_lifetime_timer_bucket{le=\"+Inf\"} 2\n\
             ghostunnel_conn_lifetime_timer_sum 2.4376115e+07\n\
             ghostunnel_conn_lifetime_timer_count 2\n",
            "\nghostunnel_conn_lifetime_std_dev 7.2120995e+06\n",
            "\nghostunnel_conn_lifetime_rate1 0\n",
            "\nghostunnel_conn_open 0\n",
        ];
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
        for statistic in [
            "count",
            "sum",
            "min",
            "max",
            "mean",
            "std_dev",
            "variance",
            "rate1",
            "rate5",
            "rate15",
            "rate_mean",
        ] {
            for timer in ["handshake", "lifetime"] {
                let line = format!("# TYPE ghostunnel_conn_{timer}_{statistic} gauge\n");
                assert!(text.contains(&line), "{line}");
            }
        }
    }

    #[test]
    fn new_families_have_labels_and_buckets_in_seconds() {
        let registry = Registry::new();
        registry.handshake_took(Duration::from_millis(3));
        registry.handshake_failed(HandshakeFailure::NotAllowed);
        let text = render(&registry, &gauges(), "p");
        for part in [
            "# TYPE p_handshake_failures_total counter\n",
            "\np_handshake_failures_total{reason=\"acl-no-match\"} 1\n",
            "\np_handshake_failures_total{reason=\"expired\"} 0\n",
            "\np_handshake_duration_seconds_bucket{le=\"0.0025\"} 0\n\
             p_handshake_duration_seconds_bucket{le=\"0.005\"} 1\n",
            "\np_handshake_duration_seconds_bucket{le=\"+Inf\"} 1\n\
             p_handshake_duration_seconds_sum 0.003\n\
             p_handshake_duration_seconds_count 1\n",
            "\np_certificate_not_after_timestamp_seconds{listen=\"unix:/run/a\\\\b\\\"c\\nd\"} 1.9e+09\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let without = render(&registry, &Gauges::default(), "p");
        assert!(
            !without.contains("certificate_not_after"),
            "no certificate, no family"
        );
    }

    /// The name of a sample's family and of the sample itself, as far as it may not be taken
    /// twice.
    #[test]
    fn families_are_in_order_and_no_name_is_taken_twice() {
        for prefix in ["ghostunnel", "", "process", "a.b-c d=e/f"] {
            let text = render(&Registry::new(), &gauges(), prefix);
            let families: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
                .collect();
            assert!(families.is_sorted_by(|one, next| one.0 < next.0), "{prefix}");
            let mut names = BTreeSet::new();
            for (name, kind) in families {
                let suffixes: &[&str] = match kind {
                    "histogram" => &["", "_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                for suffix in suffixes {
                    assert!(names.insert(format!("{name}{suffix}")), "{name}{suffix}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_becomes_letters_that_the_format_takes() {
        for (prefix, name) in [
            ("", "accept_total"),
            ("my.pre-fix", "my_pre_fix_accept_total"),
            ("a b=c/d:e", "a_b_c_d:e_accept_total"),
            ("7", "_7_accept_total"),
            ("ä\"\n{", "_____accept_total"),
        ] {
            let text = render(&Registry::new(), &Gauges::default(), prefix);
            assert!(text.contains(&format!("\n{name} 0\n")), "{prefix:?} in {text}");
        }
    }

    #[test]
    fn numbers_are_short_and_have_exponents_where_known() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (100_000.0, "100000"),
            (999_999.5, "999999.5"),
            (1e6, "1e+06"),
            (19_400_160.0, "1.940016e+07"),
            (12_188_057.5, "1.21880575e+07"),
            (0.0001, "0.0001"),
            (0.000_099, "9.9e-05"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back_alike(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            prop_assert_eq!(number(value).parse(), Ok(value));
        }
    }
}
