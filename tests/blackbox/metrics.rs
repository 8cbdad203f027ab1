//! Metrics as JSON: their names, and which events move them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};

use ghostunnel_testing::{
    Backend, Behaviour, End, Pki, Plain, ReservedPort, TlsClient, eventually, read_to_end,
};
use serde_json::Value;

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, get};
use crate::support::phrase;

const COUNTERS: [&str; 6] = [
    "accept.total",
    "accept.success",
    "accept.error",
    "accept.timeout",
    "conn.open",
    "conn.timeout",
];
const TIMERS: [&str; 2] = ["conn.handshake", "conn.lifetime"];
const STATISTICS: [&str; 8] = [
    "count",
    "min",
    "max",
    "mean",
    "50-percentile",
    "75-percentile",
    "95-percentile",
    "99-percentile",
];

/// The values of the counters in the order of [`COUNTERS`], and the counts of the timers in
/// that of [`TIMERS`].
#[derive(Debug, PartialEq)]
struct Counts([f64; 6], [f64; 2]);

fn counts(tunnel: &Tunnel) -> Counts {
    let answer = tunnel.get("/_metrics/json");
    let value = |name: String| crate::operator::metric(&answer, &format!("ghostunnel.{name}"));
    Counts(
        COUNTERS.map(|name| value(name.to_owned())),
        TIMERS.map(|name| value(format!("{name}.count"))),
    )
}

#[track_caller]
fn eventually_counts(tunnel: &Tunnel, expected: &Counts) {
    let mut last = counts(tunnel);
    let outcome = ghostunnel_testing::within(ghostunnel_testing::DEADLINE, || {
        last = counts(tunnel);
        (last == *expected).then_some(())
    });
    assert!(outcome.is_some(), "{last:?} instead of {expected:?}");
}

#[test]
fn names_are_complete_from_the_first_request_on() {
    let tunnel = Tunnel::start(Mode::Server);
    let metrics = tunnel.get("/_metrics/json").json();
    let entries = metrics.as_array().expect("an array");
    let names: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| entry["metric"].as_str())
        .collect();
    assert_eq!(names.len(), entries.len(), "no name twice");
    for name in COUNTERS {
        assert!(names.contains(format!("ghostunnel.{name}").as_str()), "{name}");
    }
    for (timer, statistic) in TIMERS.iter().flat_map(|timer| STATISTICS.map(|one| (timer, one))) {
        let name = format!("ghostunnel.{timer}.{statistic}");
        assert!(names.contains(name.as_str()), "{name}");
    }
    for timer in TIMERS {
        let prefix = format!("ghostunnel.{timer}.");
        let count = names.iter().filter(|name| name.starts_with(&prefix)).count();
        assert_eq!(count, STATISTICS.len(), "{timer}");
    }
    assert!(entries.iter().all(|entry| entry["value"] == 0), "{metrics}");
}

#[test]
fn entries_have_the_four_known_keys_in_order() {
    let tunnel = Tunnel::start(Mode::Server);
    let answer = tunnel.get("/_metrics/json");
    let metrics = answer.json();
    let entries = metrics.as_array().expect("an array");
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    for entry in entries {
        assert_eq!(entry["hostname"], hostname.trim());
        assert_eq!(entry["timestamp"], entries[0]["timestamp"]);
        assert!(entry["value"].is_number(), "{entry}");
    }
    for entry in answer.text().trim_matches(['[', ']']).split("},{") {
        let places: Vec<_> = ["hostname", "metric", "timestamp", "value"]
            .iter()
            .map(|key| entry.find(&format!("\"{key}\":")).expect("each has it"))
            .collect();
        assert!(places.is_sorted(), "{entry}");
    }
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
}

/// Users pick metrics by substring and take the first hit.
#[test]
fn no_name_contains_the_name_of_another_counter() {
    let tunnel = Tunnel::start(Mode::Server);
    let metrics = tunnel.get("/_metrics/json").json();
    for counter in COUNTERS {
        let hits: Vec<_> = metrics
            .as_array()
            .expect("an array")
            .iter()
            .filter_map(|entry| entry["metric"].as_str())
            .filter(|name| name.contains(counter))
            .collect();
        assert_eq!(hits.len(), 1, "{counter}: {hits:?}");
    }
}

#[test]
fn prefix_is_the_operator_s() {
    for (flag, start) in [
        ("--metrics-prefix=my.pre-fix", "my.pre-fix."),
        ("--metrics-prefix=", "."),
    ] {
        let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
            command.arg(flag);
        });
        let metrics = tunnel.get("/_metrics").json();
        let is_prefixed = |entry: &Value| {
            entry["metric"]
                .as_str()
                .is_some_and(|name| name.starts_with(start))
        };
        assert!(
            metrics.as_array().expect("an array").iter().all(is_prefixed),
            "{metrics}"
        );
    }
}

#[test]
fn served_connections_are_counted() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let mut open = tunnel.connect().expect("admitted");
        open.echo(b"x").expect("answered");
        for _ in 0..3 {
            tunnel.visit();
        }
        eventually_counts(
            &tunnel,
            &Counts([4., 4., 0., 0., 1., 0.], [handshakes(mode, 4.), 3.]),
        );
        open.close().expect("in good order");
        eventually_counts(
            &tunnel,
            &Counts([4., 4., 0., 0., 0., 0.], [handshakes(mode, 4.), 4.]),
        );
    }
}

/// Handshakes with accepted peers happen in server mode only.
fn handshakes(mode: Mode, count: f64) -> f64 {
    match mode {
        Mode::Server => count,
        Mode::Client => 0.,
    }
}

#[test]
fn status_requests_are_not_counted() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        for _ in 0..3 {
            tunnel.status_report();
            drop(Plain::connect(&tunnel.status.address().into()));
        }
        assert_eq!(counts(&tunnel), Counts([0.; 6], [0.; 2]));
    }
}

/// Each failure counts as one connection, one error, one handshake and one lifetime.
#[test]
fn failed_handshakes_are_errors() {
    type Failure = (&'static str, fn(&Tunnel));
    let failures: [Failure; 5] = [
        ("no certificate", |tunnel| {
            let client = TlsClient::trusting(&tunnel.pki.authority);
            let mut peer = client.connect(&tunnel.listen.address().into()).expect("TLS 1.3");
            assert!(matches!(read_to_end(&mut peer).1, End::Alert(_)));
        }),
        ("foreign certificate", |tunnel| {
            let client = TlsClient::trusting(&tunnel.pki.authority).identity(&tunnel.pki.stranger);
            let mut peer = client.connect(&tunnel.listen.address().into()).expect("TLS 1.3");
            assert!(matches!(read_to_end(&mut peer).1, End::Alert(_)));
        }),
        ("closes", |tunnel| {
            drop(Plain::connect(&tunnel.listen.address().into()).expect("listening"));
        }),
        ("resets", |tunnel| {
            Plain::connect(&tunnel.listen.address().into())
                .expect("listening")
                .reset();
        }),
        ("speaks something else", |tunnel| {
            let mut plain = Plain::connect(&tunnel.listen.address().into()).expect("listening");
            plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("open");
            read_to_end(&mut plain);
        }),
    ];
    for (name, fail) in failures {
        let tunnel = Tunnel::start(Mode::Server);
        fail(&tunnel);
        tunnel.process.wait_for_line("error on TLS handshake");
        println!("{name}");
        eventually_counts(&tunnel, &Counts([1., 0., 1., 0., 0., 0.], [1., 1.]));
        assert_eq!(tunnel.backend.accepted(), 0, "{name}");
    }
}

#[test]
fn refused_principals_are_errors() {
    let tunnel = Tunnel::start_with(Mode::Server, |_, _| {});
    let pki = &tunnel.pki;
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = crate::support::server(pki, &listen, tunnel.backend.address())
        .flag("--status", format!("http://{}", status.address()))
        .arg("--allow-cn=somebody-else")
        .start();
    process.wait_listening(status.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(&listen.address().into()).expect("TLS 1.3");
    assert!(matches!(read_to_end(&mut peer).1, End::Alert(_)));
    eventually("the error is counted", || {
        crate::operator::metric(&get(&status, "/_metrics"), "ghostunnel.accept.error") == 1.0
    });
}

#[test]
fn handshake_that_overruns_the_connect_timeout_is_a_timeout_and_an_error() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--connect-timeout=100ms");
    });
    let _silent = Plain::connect(&tunnel.listen.address().into()).expect("listening");
    let line = tunnel.process.wait_for_line("error on TLS handshake");
    assert!(phrase(&line).ends_with(": context deadline exceeded"), "{line}");
    eventually_counts(&tunnel, &Counts([1., 0., 1., 1., 0., 0.], [1., 1.]));
}

#[test]
fn failed_dials_are_errors() {
    for mode in BOTH_MODES {
        let pki = Pki::new();
        let nobody = ReservedPort::new();
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(mode, &pki, &listen, &nobody.address().into())
            .flag("--status", format!("http://{}", status.address()))
            .start();
        process.wait_listening(status.port());
        let tunnel = Tunnel {
            mode,
            pki,
            backend: Backend::tcp(Behaviour::Sink),
            listen,
            status,
            process,
        };
        let mut peer = tunnel.connect().expect("TLS 1.3 or plain");
        assert_eq!(read_to_end(peer.stream()).1, End::Closed);
        tunnel.process.wait_for_line("error on dial");
        eventually_counts(
            &tunnel,
            &Counts([1., 0., 1., 0., 0., 0.], [handshakes(mode, 1.), 1.]),
        );
    }
}

/// A dial that runs into the connect timeout is no `accept.timeout`.
#[test]
fn dial_timeouts_are_errors_and_no_timeouts() {
    let pki = Pki::new();
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let target = hole.local_addr().expect("bound").into();
    let process = command(Mode::Client, &pki, &listen, &target)
        .flag("--status", format!("http://{}", status.address()))
        .arg("--connect-timeout=100ms")
        .start();
    process.wait_listening(status.port());
    let tunnel = Tunnel {
        mode: Mode::Client,
        pki,
        backend: Backend::tcp(Behaviour::Sink),
        listen,
        status,
        process,
    };
    let _waiting = tunnel.connect().expect("listening");
    tunnel.process.wait_for_line("error on dial");
    eventually_counts(&tunnel, &Counts([1., 0., 1., 0., 0., 0.], [0., 1.]));
}

#[test]
fn directions_cut_by_a_deadline_are_timeouts() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.args(["--max-conn-lifetime=200ms", "--close-timeout=100ms"]);
    });
    let mut idle: Vec<_> = (0..5).map(|_| tunnel.connect().expect("admitted")).collect();
    for peer in &mut idle {
        read_to_end(peer.stream());
    }
    eventually("all are gone", || tunnel.metric("conn.open") == 0.0);
    let timeouts = tunnel.metric("conn.timeout");
    assert!((5.0..=10.0).contains(&timeouts), "{timeouts}");
    assert_eq!(tunnel.metric("accept.success"), 5.0);
    assert_eq!(tunnel.metric("accept.error"), 0.0);
}

#[test]
fn timers_are_in_nanoseconds_and_in_order() {
    let tunnel = Tunnel::start(Mode::Server);
    for _ in 0..5 {
        tunnel.visit();
    }
    eventually("all are closed", || tunnel.metric("conn.lifetime.count") == 5.0);
    for timer in TIMERS {
        let [min, mid, high, max, mean] = ["min", "50-percentile", "99-percentile", "max", "mean"]
            .map(|statistic| tunnel.metric(&format!("{timer}.{statistic}")));
        assert!(
            min <= mid && mid <= high && high <= max,
            "{timer}: {min} {mid} {high} {max}"
        );
        assert!(min <= mean && mean <= max, "{timer}: {mean}");
        // Between ten microseconds and a minute.
        assert!(min > 1e4 && max < 6e10, "{timer}: {min} {max}");
    }
}
