//! What is counted, and under which name.

use super::*;

fn counts(registry: &Registry) -> Vec<(&'static str, i64)> {
    let count = |sample: Sample| match sample.value {
        Value::Count(count) => (sample.declaration.name, count),
        Value::Timer(timing) => (
            sample.declaration.name,
            i64::try_from(timing.summary.count).expect("few"),
        ),
    };
    registry.samples().into_iter().map(count).collect()
}

#[test]
fn events_reach_the_metrics_they_are_documented_to() {
    type Case = (&'static str, fn(&Registry), &'static [&'static str]);
    let cases: [Case; 9] = [
        (
            "accepted",
            Registry::connection_accepted,
            &["accept.total", "conn.open"],
        ),
        ("admitted", Registry::connection_admitted, &["accept.success"]),
        (
            "refused",
            |registry| registry.handshake_failed(HandshakeFailure::NotAllowed),
            &["accept.error"],
        ),
        (
            "dial failed",
            |registry| registry.dial_failed(DialFailure::TimedOut),
            &["accept.error"],
        ),
        ("accept failed", Registry::accept_failed, &["accept.error"]),
        (
            "handshake timed out",
            |registry| registry.handshake_failed(HandshakeFailure::TimedOut),
            &["accept.error", "accept.timeout"],
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
    let Some(Value::Timer(Timing { summary, .. })) = timer.map(|sample| sample.value) else {
        panic!("conn.handshake is a timer");
    };
    assert_eq!((summary.min, summary.max), (2_000_000, 2_000_000));
}

/// The values that are not zero, as `name` or `name{label}`, and counts of histograms.
fn moved(registry: &Registry) -> Vec<(String, f64)> {
    let mut moved = Vec::new();
    for family in registry.families(&Gauges::default()) {
        let name = family.declaration.name;
        match family.points {
            Points::Counters(points) | Points::Gauges(points) => {
                for Point { label, value } in points.into_iter().filter(|point| point.value != 0.0) {
                    let label = label.map_or_else(String::new, |(_, label)| format!("{{{label}}}"));
                    moved.push((format!("{name}{label}"), value));
                }
            }
            Points::Histogram(distribution) if distribution.count > 0 => {
                moved.push((name.to_owned(), distribution.count as f64));
            }
            Points::Histogram(_) => {}
        }
    }
    moved.retain(|(name, _)| !name.starts_with("build_info"));
    moved
}

#[test]
fn the_second_generation_tells_reasons_apart() {
    type Case = (fn(&Registry), &'static [(&'static str, f64)]);
    let cases: [Case; 8] = [
        (
            |registry| registry.connection_accepted(),
            &[("connections_accepted_total", 1.0), ("connections_open", 1.0)],
        ),
        (
            |registry| registry.handshake_failed(HandshakeFailure::NotAllowed),
            &[("handshake_failures_total{acl-no-match}", 1.0)],
        ),
        (
            |registry| {
                registry.dial_failed(DialFailure::Tls);
                registry.target_handshake_failed(HandshakeFailure::WrongName);
            },
            &[
                ("handshake_failures_total{wrong-name}", 1.0),
                ("dial_failures_total{tls}", 1.0),
            ],
        ),
        (Registry::accept_failed, &[("accept_failures_total", 1.0)]),
        (
            |registry| registry.bytes_relayed(7, 0),
            &[("forwarded_bytes_total", 7.0)],
        ),
        (
            |registry| registry.bytes_relayed(0, u64::MAX),
            &[("returned_bytes_total", i64::MAX as f64)],
        ),
        (
            |registry| registry.handshake_took(Duration::from_secs(1)),
            &[("handshake_duration_seconds", 1.0)],
        ),
        (
            |registry| registry.reload_finished(ReloadResult::Failure),
            &[("reloads_total{failure}", 1.0)],
        ),
    ];
    for (happen, expected) in cases {
        let registry = Registry::new();
        happen(&registry);
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        assert_eq!(moved(&registry), expected);
    }
}

#[test]
fn what_others_know_is_shown_as_they_say() {
    let gauges = Gauges {
        certificates: vec![CertificateExpiry {
            listen: ":8443".to_owned(),
            not_after: 1_800_000_000,
        }],
        log_lines_dropped: 3,
    };
    let families = Registry::new().families(&gauges);
    let points = |name| {
        let family = families
            .iter()
            .find(|family| family.declaration.name == name)
            .expect("there");
        family.points.clone()
    };
    assert_eq!(
        points("certificate_not_after_timestamp_seconds"),
        Points::Gauges(vec![Point::labelled("listen", ":8443", 1.8e9)])
    );
    assert_eq!(
        points("log_lines_dropped_total"),
        Points::Counters(vec![Point::plain(3.0)])
    );
}
