//! Log lines as JSON objects (`--log-format=json`), and levels (`--log-level`).

use ghostunnel_testing::{
    Authority, Exit, Pki, Plain, Request, ReservedPort, Signal, TlsClient, eventually, read_to_end,
};
use serde_json::Value;

use crate::operator::{BOTH_MODES, Mode, Tunnel, message};

/// All lines so far, each of which must be an object with the common keys in front.
#[track_caller]
fn objects(tunnel: &Tunnel) -> Vec<Value> {
    let text = tunnel.process.stdout();
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let start = [
            "{\"time\":\"2",
            "\",\"pid\":",
            ",\"level\":\"",
            "\",\"class\":\"",
            "\",\"message\":\"",
        ];
        let places: Vec<_> = start.iter().map(|key| line.find(key)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{line}");
        assert_eq!(value["pid"], tunnel.process.id());
        value
    });
    lines.collect()
}

/// The first object of this event, waited for.
#[track_caller]
fn event(tunnel: &Tunnel, name: &str) -> Value {
    tunnel.process.wait_for_line(&format!("\"event\":\"{name}\""));
    let found = objects(tunnel).into_iter().find(|object| object["event"] == name);
    found.expect("there a moment ago")
}

fn start(mode: Mode) -> Tunnel {
    Tunnel::start_with(mode, |command, _| {
        command.arg("--log-format=json");
    })
}

#[test]
fn connections_are_told_with_their_ends_and_numbers() {
    for mode in BOTH_MODES {
        let tunnel = start(mode);
        let mut peer = tunnel.connect().expect("admitted");
        peer.echo(&[7; 2000]).expect("answered");
        peer.close().expect("in good order");
        let (opened, closed) = (
            event(&tunnel, "connection_opened"),
            event(&tunnel, "connection_closed"),
        );
        let subject = match mode {
            Mode::Server => "CN=client,OU=clients",
            Mode::Client => "CN=server",
        };
        for object in [&opened, &closed] {
            assert_eq!(object["class"], "conns");
            assert_eq!(object["level"], "info");
            assert_eq!(object["target"], tunnel.backend.address().to_string());
            assert_eq!(object["subject"], subject, "{object}");
            assert_eq!(object["peer"], opened["peer"]);
        }
        let peer = opened["peer"].as_str().expect("a string");
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        let line = opened["message"].as_str().expect("a string");
        assert!(line.starts_with("opening pipe: tcp:127.0.0.1:"), "{line}");
        assert_eq!(
            (&closed["forwarded"], &closed["returned"]),
            (&2000.into(), &2000.into())
        );
        let duration = closed["duration"].as_f64().expect("a number");
        assert!(duration > 0.0 && duration < 60.0, "{duration}");
    }
}

#[test]
fn the_life_of_the_process_is_told_as_well() {
    let tunnel = start(Mode::Server);
    let listening = event(&tunnel, "listening");
    assert_eq!(listening["address"], tunnel.listen.address().to_string());
    assert_eq!(listening["class"], "process");
    tunnel.reload();
    let loaded = event(&tunnel, "certificate_loaded");
    assert_eq!(loaded["subject"], "CN=server");
    event(&tunnel, "reload_complete");
    std::fs::write(&tunnel.pki.ca_file, "no certificate").expect("writable");
    tunnel.reload();
    let failed = event(&tunnel, "reload_failed");
    assert_eq!(failed["level"], "error");
    assert!(
        failed["error"]
            .as_str()
            .expect("a string")
            .starts_with("loading trust store: ")
    );
    tunnel.process.signal(Signal::TERM);
    assert_eq!(tunnel.process.wait_exit(), Exit::Code(0));
    let first = &objects(&tunnel)[0];
    assert_eq!(first["message"], "starting ghostunnel in server mode");
    let last = objects(&tunnel).pop().expect("some");
    assert_eq!(last["message"], "shutdown proxy, waiting for drain");
}

#[test]
fn refusals_carry_reason_and_error() {
    let tunnel = start(Mode::Server);
    let stranger = Authority::new("stranger").issue(&Pki::client_request());
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(&stranger);
    if let Ok(mut peer) = client.connect(&tunnel.listen.address().into()) {
        read_to_end(&mut peer);
    }
    let refused = event(&tunnel, "handshake_failed");
    assert_eq!(
        (&refused["level"], &refused["class"]),
        (&"warn".into(), &"handshake-errs".into())
    );
    assert_eq!(refused["reason"], "unknown-ca");
    assert_eq!(
        refused["error"],
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert!(
        refused["peer"]
            .as_str()
            .expect("a string")
            .starts_with("127.0.0.1:")
    );
}

#[test]
fn a_target_that_is_away_is_an_error_with_its_address() {
    let (pki, listen, gone) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let process = crate::support::client(&pki, &listen, &gone.address())
        .arg("--log-format=json")
        .start();
    process.wait_listening(listen.port());
    read_to_end(&mut Plain::connect(&listen.address().into()).expect("listening"));
    let line = process.wait_for_line("\"event\":\"dial_failed\"");
    let failed: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&failed["level"], &failed["class"]),
        (&"error".into(), &"conn-errs".into())
    );
    assert_eq!(failed["target"], gone.address().to_string());
    assert_eq!(failed["reason"], "refused");
    assert_eq!(
        failed["error"],
        format!("dial tcp {}: connect: connection refused", gone.address())
    );
}

#[test]
fn a_name_with_control_characters_stays_inside_its_object() {
    let tunnel = start(Mode::Server);
    let name = "a\n{\"time\":\"2026-01-01T00:00:00Z\"}\u{202e}\"";
    let identity = tunnel.pki.authority.issue(&Request::named(name));
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(&identity);
    let peer = client.connect(&tunnel.listen.address().into());
    let opened = event(&tunnel, "connection_opened");
    drop(peer);
    let subject = opened["subject"].as_str().expect("a string");
    assert!(
        subject.contains("a\n{") && subject.contains('\u{202e}'),
        "{subject:?}"
    );
    assert!(!tunnel.process.stdout().contains('\u{202e}'));
}

#[test]
fn a_failed_start_is_an_object_and_its_cause_on_standard_error() {
    let pki = Pki::new();
    let output = crate::support::ghostunnel()
        .args([
            "server",
            "--listen=localhost:0",
            "--target=localhost:1",
            "--allow-all",
        ])
        .flag("--keystore", pki.path("missing.pem"))
        .arg("--log-format=json")
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    let last = output.stdout.lines().next_back().expect("a line");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        (&last["event"], &last["level"]),
        (&"start_failed".into(), &"error".into())
    );
    let cause = last["error"].as_str().expect("a string");
    assert_eq!(output.stderr, format!("error: {cause}\n"));
}

/// Messages of a tunnel that has served one connection and been asked to stop.
fn messages(level: &str) -> Vec<String> {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.flag("--log-level", level);
    });
    tunnel.visit();
    drop(Plain::connect(&tunnel.listen.address().into()).expect("listening"));
    eventually("both are over", || tunnel.metric("conn.lifetime.count") == 2.0);
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_exit();
    let text = tunnel.process.stdout();
    text.lines().map(|line| message(line).to_owned()).collect()
}

#[test]
fn the_level_decides_what_is_logged() {
    let has = |messages: &[String], text: &str| messages.iter().any(|message| message.starts_with(text));
    assert_eq!(messages("error"), [""; 0]);
    let warn = messages("warn");
    assert_eq!(warn.len(), 1, "{warn:?}");
    assert!(has(&warn, "error on TLS handshake"), "{warn:?}");
    let info = messages("info");
    assert!(has(&info, "opening pipe") && !has(&info, "admitted "), "{info:?}");
    let debug = messages("debug");
    assert!(has(&debug, "opening pipe"), "{debug:?}");
    let admitted = debug
        .iter()
        .find(|message| message.starts_with("admitted 127.0.0.1:"));
    assert!(admitted.is_some_and(|line| line.ends_with(": every verified peer is allowed")));
}
