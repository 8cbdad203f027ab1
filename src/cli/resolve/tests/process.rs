//! What concerns the process as a whole: limits, durations, the status port.

use std::time::Duration;

use super::*;

#[test]
fn global_checks_are_usage_errors_in_known_order() {
    for (words, text) in [
        (
            "--enable-shutdown",
            "--enable-shutdown requires --status to be set",
        ),
        (
            "--enable-shutdown --status= --connect-timeout=0",
            "--enable-shutdown requires --status to be set",
        ),
        ("--drain-status", "--drain-status requires --status to be set"),
        (
            "--enable-shutdown --metrics-url=x",
            "--enable-shutdown requires --status to be set",
        ),
        (
            "--metrics-url=HTTP://x --status=foo",
            "--metrics-url should start with http:// or https://",
        ),
        (
            "--metrics-url=https:/x",
            "--metrics-url should start with http:// or https://",
        ),
        (
            "--metrics-url=http:// --status=foo",
            "invalid --metrics-url: no host in URL",
        ),
        (
            "--status=foo --connect-timeout=0",
            "invalid --status address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
        ),
        (
            "--status=https://a:b:c",
            "invalid --status address: address a:b:c: too many colons in address (give HOST:PORT, with brackets around an IPv6 address: \
             [::1]:PORT)",
        ),
        (
            "--status=http://",
            "invalid --status address: missing port in address (give HOST:PORT or unix:PATH)",
        ),
        (
            "--status=HTTP://a:1",
            "invalid --status address: address HTTP://a:1: too many colons in address (give HOST:PORT, with brackets \
             around an IPv6 address: [::1]:PORT)",
        ),
        (
            "--status=http://localhost:99/",
            "invalid --status address: lookup tcp/99/: unknown port (a port is a number, or a service that /etc/services \
             names)",
        ),
        (
            "--status=http://unix:/x",
            "invalid --status network \"unix\": http(s):// scheme requires a HOST:PORT target",
        ),
        (
            "--status=https://systemd:x",
            "invalid --status network \"systemd\": http(s):// scheme requires a HOST:PORT target",
        ),
        (
            "--status=launchd:x",
            "invalid --status address: launchd socket activation is only supported on darwin",
        ),
        (
            "--connect-timeout=0",
            "--connect-timeout duration must not be zero",
        ),
        (
            "--connect-timeout=0h",
            "--connect-timeout duration must not be zero",
        ),
        (
            &format!("{SERVER} --connect-timeout=0s"),
            "--connect-timeout duration must not be zero",
        ),
    ] {
        let expected = format!("ghostunnel: error: {text}, try --help");
        assert_eq!(parse_words(words).map(|_| ()), Err(expected), "{words}");
    }
}

#[test]
fn the_status_port_is_served_as_its_address_says() {
    let status = |words: &str| config(&format!("{SERVER} --keystore=s --allow-all {words}")).status;
    for (text, address, transport) in [
        ("localhost:1", "localhost:1", status::Transport::PreferHttps),
        ("https://localhost:1", "localhost:1", status::Transport::Https),
        ("http://0.0.0.0:1", "0.0.0.0:1", status::Transport::Http),
        ("unix:/x", "unix:/x", status::Transport::Http),
        ("systemd:x", "systemd:x", status::Transport::Http),
    ] {
        let settings = status(&format!("--status={text}")).expect("a status port");
        assert_eq!(
            (settings.listen.text(), settings.transport),
            (address, transport),
            "{text}"
        );
        assert!(!settings.enable_shutdown && !settings.stays_open);
    }
    assert!(
        status("--status=localhost:1 --enable-shutdown").is_some_and(|settings| settings.enable_shutdown)
    );
    assert!(status("--status=localhost:1 --drain-status").is_some_and(|settings| settings.stays_open));
    assert_eq!(status(""), None);
    assert_eq!(status("--status="), None);
}

#[test]
fn defaults_are_those_that_users_know() {
    let config = config(&format!("{SERVER} --keystore=s --allow-all"));
    assert_eq!(config.metrics.prefix, "ghostunnel");
    assert!(config.sandbox.landlock);
    assert_eq!(config.lifecycle.timed_reload, None);
    assert_eq!(config.lifecycle.shutdown_timeout, Duration::from_secs(300));
    let tunnel = config.tunnels.first().expect("one tunnel");
    assert!(tunnel.resolve_at_start);
    assert_eq!(
        tunnel.limits,
        proxy::Limits {
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(60),
            max_lifetime: None,
            max_concurrent: None,
        }
    );
}

#[test]
fn limits_and_durations_are_taken_as_given() {
    let config = config(&format!(
        "{SERVER} --keystore=s --allow-all --timed-reload=1h --shutdown-timeout=0 --connect-timeout=1s \
         --close-timeout=0 --max-conn-lifetime=1d --max-concurrent-conns=0x10 --metrics-prefix= --disable-landlock \
         --metrics-interval=0"
    ));
    assert_eq!(config.metrics.prefix, "");
    assert!(!config.sandbox.landlock);
    assert_eq!(config.lifecycle.timed_reload, Some(Duration::from_secs(3600)));
    assert_eq!(config.lifecycle.shutdown_timeout, Duration::ZERO);
    let limits = &config.tunnels.first().expect("one tunnel").limits;
    assert_eq!(
        (limits.connect_timeout, limits.close_timeout),
        (Duration::from_secs(1), Duration::ZERO)
    );
    assert_eq!(limits.max_lifetime, Some(Duration::from_secs(86_400)));
    assert_eq!(limits.max_concurrent, NonZeroU32::new(16));
}

#[test]
fn the_log_goes_where_it_is_told_to() {
    let logging = |words: &str| run(&format!("{SERVER} --keystore=s --allow-all {words}")).logging;
    assert_eq!(logging(""), logging::Settings::default());
    let settings = logging("--syslog --log-format=json --log-level=debug");
    let tag = "ghostunnel".to_owned();
    assert_eq!(
        settings,
        logging::Settings {
            destination: logging::Destination::Syslog { tag },
            format: logging::Format::Json,
            threshold: logging::Threshold::Debug,
            ..logging::Settings::default()
        }
    );
    assert_eq!(logging("--log-level=warn").threshold, logging::Threshold::Warn);
    assert_eq!(logging("--log-level=error").threshold, logging::Threshold::Error);
}

#[test]
fn metrics_go_where_they_are_told_to() {
    let metrics = |words: &str| config(&format!("{SERVER} --keystore=s --allow-all {words}")).metrics;
    let nobody = metrics("--metrics-url=");
    assert!(!nobody.is_pushed());
    assert_eq!(nobody.interval, Some(Duration::from_secs(30)));
    let both = metrics(
        "--metrics-graphite=localhost:2003 --metrics-url=https://h/x --metrics-prefix=p --metrics-interval=5s",
    );
    assert!(both.is_pushed());
    assert_eq!(both.graphite, Some("127.0.0.1:2003".parse().expect("an address")));
    assert_eq!(
        both.post.map(|url| url.to_string()).as_deref(),
        Some("https://h/x")
    );
    assert_eq!(
        (both.prefix.as_str(), both.interval),
        ("p", Some(Duration::from_secs(5)))
    );
}

#[test]
fn metrics_that_are_never_posted_are_warned_about() {
    let warnings = |words: &str| run(&format!("{SERVER} --keystore=s --allow-all {words}")).warnings;
    assert_eq!(
        warnings("--metrics-url=http://h --metrics-interval=0"),
        ["--metrics-interval is not positive: nothing is ever posted to --metrics-url"]
    );
    assert!(warnings("--metrics-interval=0").is_empty());
}

#[test]
fn negative_durations_start_with_a_warning() {
    let words = "--timed-reload=-1s --shutdown-timeout=-1s --connect-timeout=-1s --close-timeout=-1s \
                 --max-conn-lifetime=-1s --metrics-interval=-1s";
    let run = run(&format!("{SERVER} --keystore=s --allow-all {words}"));
    assert_eq!(
        run.warnings,
        [
            "--timed-reload is negative: certificates are reloaded on signal only",
            "--shutdown-timeout is negative: a shutdown does not wait for open connections",
            "--connect-timeout is negative: every connection fails at once",
            "--close-timeout is negative: connections are cut as soon as one direction has ended",
            "--max-conn-lifetime is negative: the age of connections is not limited",
            "--metrics-interval is negative: it has no effect",
        ]
    );
    let config = run.config.expect("a configuration");
    assert_eq!(
        config.lifecycle,
        lifecycle::Settings {
            timed_reload: None,
            shutdown_timeout: Duration::ZERO
        }
    );
    let limits = &config.tunnels.first().expect("one tunnel").limits;
    assert_eq!(
        (limits.connect_timeout, limits.close_timeout, limits.max_lifetime),
        (Duration::ZERO, Duration::ZERO, None)
    );
}
