//! Metrics in Prometheus' text format: the families of 1.11.1 as dashboards know them, and
//! those that stand beside them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use ghostunnel_testing::{
    Authority, Command, Exit, Pki, Plain, Request, TlsClient, descriptors, eventually, require_tool,
};

use crate::operator::{Mode, Tunnel, replace};

/// Each value by the name and labels of its sample.
fn values(tunnel: &Tunnel) -> BTreeMap<String, f64> {
    let answer = tunnel.get("/_metrics/prometheus");
    assert_eq!(answer.status, 200);
    let lines = answer.text();
    let samples = lines.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    pairs.collect()
}

#[track_caller]
fn value(tunnel: &Tunnel, name: &str) -> f64 {
    let values = values(tunnel);
    let value = values.get(&format!("ghostunnel_{name}")).copied();
    value.unwrap_or_else(|| panic!("no {name} in {values:?}"))
}

#[track_caller]
fn eventually_value(tunnel: &Tunnel, name: &str, expected: f64) {
    eventually(&format!("{name} is {expected}"), || {
        value(tunnel, name) == expected
    });
}

const COUNTERS: [&str; 6] = [
    "accept_total",
    "accept_success",
    "accept_error",
    "accept_timeout",
    "conn_open",
    "conn_timeout",
];

const STATISTICS: [&str; 11] = [
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
];

#[test]
fn families_of_the_original_are_there_with_their_kinds() {
    let tunnel = Tunnel::start(Mode::Server);
    let answer = tunnel.get("/_metrics/prometheus");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    );
    let text = answer.text();
    for name in COUNTERS {
        let help = name.replacen('_', ".", 1);
        let family =
            format!("# HELP ghostunnel_{name} {help}\n# TYPE ghostunnel_{name} gauge\nghostunnel_{name} 0\n");
        assert!(text.contains(&family), "{family} in {text}");
    }
    for timer in ["handshake", "lifetime"] {
        for statistic in STATISTICS {
            let name = format!("ghostunnel_conn_{timer}_{statistic}");
            let family = format!("# HELP {name} conn.{timer}_{statistic}\n# TYPE {name} gauge\n{name} 0\n");
            assert!(text.contains(&family), "{family} in {text}");
        }
        let name = format!("ghostunnel_conn_{timer}_timer");
        let mut family = format!("# HELP {name} conn_{timer}\n# TYPE {name} histogram\n");
        for quantile in ["0.5", "0.95", "0.99", "0.999", "+Inf"] {
            family += &format!("{name}_bucket{{le=\"{quantile}\"}} 0\n");
        }
        family += &format!("{name}_sum 0\n{name}_count 0\n");
        assert!(text.contains(&family), "{family} in {text}");
    }
}

#[test]
fn the_query_chooses_the_format() {
    let tunnel = Tunnel::start(Mode::Server);
    for path in [
        "/_metrics?format=prometheus",
        "/_metrics?format=prometheus&format=json",
    ] {
        assert!(tunnel.get(path).text().starts_with("# HELP "), "{path}");
    }
    for path in [
        "/_metrics",
        "/_metrics?format=Prometheus",
        "/_metrics?format=json&format=prometheus",
    ] {
        assert!(tunnel.get(path).text().starts_with("[{"), "{path}");
    }
}

#[test]
fn both_generations_count_what_happens() {
    let tunnel = Tunnel::start(Mode::Server);
    tunnel.visit();
    let mut open = tunnel.connect().expect("admitted");
    open.echo(&[7; 1000]).expect("answered");
    // While a connection is open its bytes are counted already.
    eventually_value(&tunnel, "forwarded_bytes_total", 1005.0);
    eventually_value(&tunnel, "returned_bytes_total", 1005.0);
    eventually_value(&tunnel, "connection_duration_seconds_count", 1.0);
    let values = values(&tunnel);
    for (name, expected) in [
        ("accept_total", 2.0),
        ("accept_success", 2.0),
        ("conn_open", 1.0),
        ("conn_handshake_count", 2.0),
        ("conn_lifetime_timer_count", 1.0),
        ("connections_accepted_total", 2.0),
        ("connections_admitted_total", 2.0),
        ("connections_open", 1.0),
        ("handshake_duration_seconds_count", 2.0),
        ("handshake_duration_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("accept_failures_total", 0.0),
        ("log_lines_dropped_total", 0.0),
    ] {
        assert_eq!(values[&format!("ghostunnel_{name}")], expected, "{name}");
    }
    // One is in nanoseconds, the other in seconds; the first knows the last few only.
    let (old, new) = (
        values["ghostunnel_conn_handshake_sum"],
        values["ghostunnel_handshake_duration_seconds_sum"],
    );
    assert!((old / 1e9 - new).abs() < 1e-6, "{old} {new}");
}

#[test]
fn refusals_are_told_apart_by_reason() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--connect-timeout=3s");
    });
    let address = tunnel.listen.address().into();
    let trusting = || TlsClient::trusting(&tunnel.pki.authority);
    let refused = |client: TlsClient| {
        // In TLS 1.3 a client learns of it when it reads.
        if let Ok(mut peer) = client.connect(&address) {
            ghostunnel_testing::read_to_end(&mut peer);
        }
    };
    let stranger = Authority::new("stranger").issue(&Pki::client_request());
    let expired = tunnel.pki.authority.issue(&Pki::client_request().expired());
    refused(trusting());
    refused(trusting().identity(&stranger));
    refused(trusting().identity(&expired));
    refused(trusting().identity(&expired));
    let mut plain = Plain::connect(&address).expect("listening");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
    ghostunnel_testing::read_to_end(&mut plain);
    drop(plain);
    drop(Plain::connect(&address).expect("listening"));
    let _silent = Plain::connect(&address).expect("listening");
    for (reason, count) in [
        ("no-certificate", 1.0),
        ("unknown-ca", 1.0),
        ("expired", 2.0),
        ("not-tls", 1.0),
        ("closed", 1.0),
        ("handshake-timeout", 1.0),
        ("acl-no-match", 0.0),
    ] {
        eventually_value(
            &tunnel,
            &format!("handshake_failures_total{{reason=\"{reason}\"}}"),
            count,
        );
    }
    assert_eq!(value(&tunnel, "accept_error"), 7.0);
    assert_eq!(value(&tunnel, "accept_timeout"), 1.0);
}

#[test]
fn a_peer_that_no_rule_admits_is_counted_as_such() {
    let pki = Pki::new();
    let (listen, status) = (
        ghostunnel_testing::ReservedPort::new(),
        ghostunnel_testing::ReservedPort::new(),
    );
    let backend = ghostunnel_testing::Backend::tcp(ghostunnel_testing::Behaviour::Echo);
    let process = crate::support::server(&pki, &listen, backend.address())
        .arg("--allow-cn=somebody else")
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    if let Ok(mut peer) = client.connect(&listen.address().into()) {
        ghostunnel_testing::read_to_end(&mut peer);
    }
    eventually("the refusal is counted", || {
        let text = crate::operator::get(&status, "/_metrics/prometheus")
            .text()
            .to_owned();
        text.contains("\nghostunnel_handshake_failures_total{reason=\"acl-no-match\"} 1\n")
    });
}

#[test]
fn targets_that_are_not_reached_are_told_apart_by_reason() {
    let (pki, listen, status) = (
        Pki::new(),
        ghostunnel_testing::ReservedPort::new(),
        ghostunnel_testing::ReservedPort::new(),
    );
    // Its certificate is for other names than the one that the client asks for.
    let identity = pki.authority.issue(&Request::named("other").dns("other.test"));
    let server = ghostunnel_testing::TlsServer::new(
        &identity,
        &ghostunnel_testing::ClientCertificates::optional(&pki.authority),
    );
    let backend = ghostunnel_testing::Backend::tls(server, ghostunnel_testing::Behaviour::Echo);
    let process = crate::support::client(&pki, &listen, backend.address())
        .flag("--status", format!("http://{}", status.address()))
        .start();
    process.wait_listening(status.port());
    let visit = || {
        drop(ghostunnel_testing::read_to_end(
            &mut Plain::connect(&listen.address().into()).expect("listening"),
        ))
    };
    let expect = |line: &str| {
        eventually(line, || {
            let text = crate::operator::get(&status, "/_metrics/prometheus")
                .text()
                .to_owned();
            text.contains(&format!("\nghostunnel_{line}\n"))
        });
    };
    visit();
    expect("dial_failures_total{reason=\"tls\"} 1");
    expect("handshake_failures_total{reason=\"wrong-name\"} 1");
    drop(backend);
    visit();
    expect("dial_failures_total{reason=\"refused\"} 1");
    expect("accept_error 2");
}

#[test]
fn reloads_and_the_certificate_in_force_are_shown() {
    let tunnel = Tunnel::start(Mode::Server);
    let not_after = |tunnel: &Tunnel| {
        value(
            tunnel,
            &format!(
                "certificate_not_after_timestamp_seconds{{listen=\"{}\"}}",
                tunnel.listen.address()
            ),
        )
    };
    let before = not_after(&tunnel);
    let now = SystemTime::now();
    let later = now + Duration::from_secs(7 * 24 * 3600);
    let fresh = tunnel
        .pki
        .authority
        .issue(&Pki::server_request().valid(now, later));
    replace(&tunnel.pki.server_files.certificate, &fresh.chain_pem());
    // The old key does not fit yet.
    tunnel.reload();
    assert_eq!(value(&tunnel, "reloads_total{result=\"failure\"}"), 1.0);
    assert_eq!(not_after(&tunnel), before);
    replace(&tunnel.pki.server_files.key, &fresh.key_pem());
    tunnel.reload();
    assert_eq!(value(&tunnel, "reloads_total{result=\"success\"}"), 1.0);
    let expected = later
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    assert!((not_after(&tunnel) - expected).abs() <= 1.0);
}

#[test]
fn the_process_is_described_inside_the_sandbox() {
    let tunnel = Tunnel::start(Mode::Server);
    let values = values(&tunnel);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    let start = values["process_start_time_seconds"];
    assert!((now - 120.0..=now + 1.0).contains(&start), "{start} at {now}");
    assert!(values["process_cpu_seconds_total"] >= 0.0);
    assert!(values["process_resident_memory_bytes"] > 1e6);
    assert!(values["process_virtual_memory_bytes"] > values["process_resident_memory_bytes"]);
    assert!(values["process_max_fds"] >= 64.0);
    let open = descriptors(tunnel.process.id()) as f64;
    assert!((values["process_open_fds"] - open).abs() <= 3.0, "{open}");
    for name in [
        "process_virtual_memory_max_bytes",
        "process_network_receive_bytes_total",
        "process_network_transmit_bytes_total",
    ] {
        assert!(values.contains_key(name), "{name}");
    }
}

/// What Prometheus' own tool says of this text.
fn promtool(text: &str) -> Option<ghostunnel_testing::Output> {
    let process = Command::new(require_tool("promtool")?)
        .args(["check", "metrics"])
        .with_input()
        .start();
    process.write_input(text.as_bytes());
    process.close_input();
    Some(process.wait_output())
}

#[test]
fn prometheus_own_linter_finds_nothing_in_the_families_of_today() {
    let tunnel = Tunnel::start(Mode::Server);
    tunnel.visit();
    let text = tunnel.get("/_metrics/prometheus").text().to_owned();
    // Its counters are gauges, and its histograms hold quantiles: no linter can like that.
    let is_old = |line: &&str| line.contains("ghostunnel_accept_") || line.contains("ghostunnel_conn_");
    let is_today = |line: &&str| line.contains("ghostunnel_accept_failures") || !is_old(line);
    let today: String = text
        .lines()
        .filter(is_today)
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(today.lines().count() > 60, "{today}");
    let Some(output) = promtool(&today) else { return };
    assert_eq!(output.exit, Exit::Code(0), "{}{}", output.stdout, output.stderr);
    assert_eq!(output.stdout + &output.stderr, "");
    // With the old ones the text is still well formed: what is left are complaints.
    let whole = promtool(&text).expect("promtool was there a moment ago");
    assert_eq!(whole.exit, Exit::Code(3), "{}{}", whole.stdout, whole.stderr);
}
