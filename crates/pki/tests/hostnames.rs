//! Server names: which certificate is for whom.

mod forge;

use std::time::Duration;

use forge::{DNS, Draft, IP, leaf};
use ghostunnel_pki::{PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::UnixTime;

/// What is said about `name` by a server that is its own anchor.
fn verdict(server: &Draft, name: &str) -> String {
    let server = server.self_signed(1);
    let request = PathRequest {
        presented: std::slice::from_ref(&server),
        anchors: &TrustAnchors::new(vec![server.clone()]),
        time: UnixTime::since_unix_epoch(Duration::from_secs(1_795_564_800)),
        usage: Usage::ServerAuth,
        server_name: Some(name),
    };
    validate(&request).map_or_else(|error| error.to_string(), |_| String::new())
}

fn server(names: &[(u8, &[u8])]) -> Draft {
    leaf("cn.example", 1).names(names)
}

#[test]
fn host_names_match_label_by_label() {
    for (pattern, name, matches) in [
        ("a.example", "a.example", true),
        ("a.example", "A.Example.", true),
        ("A.EXAMPLE", "a.example", true),
        ("a.example", "b.example", false),
        ("a.example", "a.example..", false),
        ("a.example.", "a.example.", true),
        ("a.example.", "a.example", false),
        ("a.example", "x.a.example", false),
        ("*.wild.example", "a.wild.example", true),
        ("*.wild.example", "A.WILD.Example.", true),
        ("*.wild.example", "a.b.wild.example", false),
        ("*.wild.example", "wild.example", false),
        ("*.wild.example", ".wild.example", false),
        ("*.wild.example", "*.wild.example", true),
        ("*.wild.example", "-a.wild.example", false),
        ("*", "example", false),
        ("*", "*", true),
        ("a.*.example", "a.b.example", false),
        ("w*.example", "wild.example", false),
        ("foo_bar.example", "foo_bar.example", true),
        ("*.under_score", "a_b.under_score", true),
        ("foo bar", "FOO bar", true),
        ("foo bar", "foo_bar", false),
        ("", "", false),
        (".", ".", false),
        ("127.0.0.1", "127.0.0.1", false),
        ("cn.example", "", false),
    ] {
        let answer = verdict(&server(&[(DNS, pattern.as_bytes())]), name);
        assert_eq!(answer.is_empty(), matches, "{pattern} for {name}: {answer}");
    }
}

#[test]
fn addresses_match_by_value() {
    let both = server(&[
        (IP, &[127, 0, 0, 1]),
        (IP, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (DNS, b"10.0.0.1"),
    ]);
    for name in [
        "127.0.0.1",
        "[127.0.0.1]",
        "::ffff:127.0.0.1",
        "::1",
        "[::1]",
        "0:0::1",
    ] {
        assert_eq!(verdict(&both, name), "", "{name}");
    }
    let answer = "x509: certificate is valid for 127.0.0.1, ::1, not 10.0.0.1";
    assert_eq!(verdict(&both, "10.0.0.1"), answer);
    assert_eq!(verdict(&both, "[10.0.0.1]"), answer, "without the brackets");
    let mapped = server(&[(IP, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1])]);
    assert_eq!(verdict(&mapped, "10.0.0.1"), "");
}

#[test]
fn refusals_say_what_the_certificate_is_for() {
    let names: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    let names: Vec<(u8, &[u8])> = names.iter().map(|name| (DNS, name.as_bytes())).collect();
    let addresses: Vec<(u8, &[u8])> = (0..100).map(|_| (IP, &[1, 1, 1, 1][..])).collect();
    for (case, server, name, expected) in [
        (
            "two names",
            server(&[(DNS, b"a"), (DNS, b"b")]),
            "c",
            "x509: certificate is valid for a, b, not c",
        ),
        (
            "none of this kind",
            server(&[(IP, &[1, 1, 1, 1])]),
            "c.example",
            "x509: certificate is not valid for any names, but wanted to match c.example",
        ),
        (
            "no alternative names at all",
            leaf("cn.example", 1),
            "c.example",
            "x509: certificate is not valid for any names, but wanted to match c.example",
        ),
        (
            "only the common name",
            leaf("cn.example", 1),
            "CN.example",
            "x509: certificate relies on legacy Common Name field, use SANs instead",
        ),
        (
            "only the common name, an address",
            leaf("127.0.0.1", 1),
            "127.0.0.1",
            "x509: certificate relies on legacy Common Name field, use SANs instead",
        ),
        (
            "no addresses",
            server(&[(DNS, b"a")]),
            "127.0.0.1",
            "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
        ),
        (
            "many names",
            server(&names),
            "c",
            "x509: certificate is valid for 100 names, but none matched c",
        ),
        (
            "many addresses",
            server(&addresses),
            "::1",
            "x509: certificate is valid for 100 IP SANs, but none matched ::1",
        ),
    ] {
        assert_eq!(verdict(&server, name), expected, "{case}");
    }
}
