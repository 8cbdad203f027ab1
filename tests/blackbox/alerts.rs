//! The alert that a refused peer hears, by its number on the wire: every reason for which a
//! certificate is refused, in both modes and both versions.

use std::io::{Read, Write};

use ghostunnel_testing::{
    AlertDescription, Backend, Behaviour, ClientCertificates, End, Issued, Pki, Plain, Request, TlsServer,
    Usage, Version,
};

use crate::client::Dialling;
use crate::server::Served;

/// requireExplicitPolicy from the first certificate on (RFC 5280, section 4.2.1.11), which no
/// chain without policies meets.
fn demanding_policies(request: Request) -> Request {
    request.extension(&[2, 5, 29, 36], true, vec![0x30, 3, 0x80, 1, 0])
}

fn number(end: &End) -> Option<u8> {
    match end {
        End::Alert(alert) => Some(u8::from(*alert)),
        _ => None,
    }
}

#[test]
fn clients_hear_why_they_are_refused() {
    let pki = Pki::new();
    let issue = |request: &Request| Some(pki.authority.issue(request));
    let named = || Request::named("client");
    let middle = pki.authority.misused_leaf(&Request::named("no authority"));
    let rows: [(&str, Option<Issued>, [u8; 2], &str); 11] = [
        ("none", None, [40, 116], "didn't provide a certificate"),
        (
            "of a stranger",
            Some(pki.stranger.clone()),
            [48, 48],
            "unknown authority",
        ),
        (
            "self-signed",
            Some(named().self_signed()),
            [48, 48],
            "unknown authority",
        ),
        (
            "expired",
            issue(&named().expired()),
            [45, 45],
            "has expired or is not yet valid",
        ),
        (
            "not valid yet",
            issue(&named().not_yet_valid()),
            [45, 45],
            "has expired or is not yet valid",
        ),
        (
            "for servers",
            issue(&named().usage(Usage::Server)),
            [42, 42],
            "incompatible key usage",
        ),
        (
            "without the policies it demands",
            issue(&demanding_policies(named())),
            [42, 42],
            "invalid policies",
        ),
        (
            "with an extension that nobody knows",
            issue(&named().extension(&[1, 2, 3, 4], true, vec![5, 0])),
            [42, 42],
            "unhandled critical extension",
        ),
        (
            "below no authority",
            Some(middle.issue(&named())),
            [48, 48],
            "unknown authority",
        ),
        (
            "unparsable",
            issue(&named().uri("spiffe://test/%zz")),
            // In TLS 1.3 the alert is sealed by the library, which has no other.
            [50, 42],
            "failed to parse client certificate",
        ),
        (
            "on no list",
            issue(&Request::named("somebody else")),
            [42, 42],
            "unauthorized: ",
        ),
    ];
    let served = Served::start(pki, &["--allow-cn=client"]);
    for (certificate, identity, alerts, reason) in &rows {
        for (version, alert) in Version::BOTH.into_iter().zip(alerts) {
            let mark = served.process.mark();
            let client = served.client().version(version);
            let client = match identity {
                None => client,
                Some(identity) => client.identity(identity),
            };
            let end = served.greet(&client).err();
            let heard = end.as_ref().and_then(number);
            assert_eq!(heard, Some(*alert), "{certificate} {version:?}: {end:?}");
            let line = served
                .process
                .wait_for_line_after(mark, "error on TLS handshake from 127.0.0.1:");
            assert!(line.contains(reason), "{certificate}: {line}");
        }
    }
    assert_eq!(
        served.backend.accepted(),
        0,
        "the backend heard of a refused client"
    );
}

/// A server learns less than a client: that it was refused.
#[test]
fn servers_hear_bad_certificate_whatever_the_reason() {
    let pki = Pki::new();
    let issue = |request: &Request| pki.authority.issue(request);
    let named = Pki::server_request;
    let middle = pki.authority.misused_leaf(&Request::named("no authority"));
    let rows: [(&str, Issued, &str); 9] = [
        (
            "of a stranger",
            pki.other_authority.issue(&named()),
            "unknown authority",
        ),
        (
            "expired",
            issue(&named().expired()),
            "has expired or is not yet valid",
        ),
        (
            "not valid yet",
            issue(&named().not_yet_valid()),
            "has expired or is not yet valid",
        ),
        (
            "for clients",
            issue(&named().usage(Usage::Client)),
            "incompatible key usage",
        ),
        (
            "without the policies it demands",
            issue(&demanding_policies(named())),
            "invalid policies",
        ),
        ("below no authority", middle.issue(&named()), "x509: "),
        (
            "for another name",
            issue(&Request::named("server").dns("elsewhere.test")),
            "x509: ",
        ),
        (
            "unparsable",
            issue(&named().uri("spiffe://test/%zz")),
            "failed to parse server certificate",
        ),
        (
            "on no list",
            issue(&Request::named("other").dns("localhost").ip([127, 0, 0, 1])),
            "unauthorized: ",
        ),
    ];
    for (certificate, identity, reason) in &rows {
        for version in Version::BOTH {
            let server = TlsServer::with_version(identity, &ClientCertificates::Unasked, version);
            let backend = Backend::tls(server, Behaviour::Sink);
            let tunnel = Dialling::start(&pki, backend.address(), &["--verify-cn=server"]);
            tunnel.greet().expect_err("refused");
            let end = backend.connection(0).wait_end();
            assert_eq!(number(&end), Some(42), "{certificate} {version:?}: {end:?}");
            let line = tunnel.process.wait_for_line("error on dial: ");
            assert!(line.contains(reason), "{certificate}: {line}");
        }
    }
}

/// Before there is a version, and before there are keys.
#[test]
fn hellos_that_are_none_are_answered_by_a_plain_alert() {
    let served = Served::start(Pki::new(), &["--allow-all"]);
    // One suite, no extensions.
    let hello = |version: [u8; 2]| {
        let body = [&version[..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
        let length = u8::try_from(body.len()).expect("short");
        [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
    };
    for (bytes, alert) in [
        (hello([3, 2]), AlertDescription::ProtocolVersion),
        (hello([3, 0]), AlertDescription::ProtocolVersion),
        // A hello that says nothing, and a message that must not come first.
        (vec![22, 3, 1, 0, 4, 1, 0, 0, 0], AlertDescription::DecodeError),
        (
            vec![22, 3, 1, 0, 4, 20, 0, 0, 0],
            AlertDescription::UnexpectedMessage,
        ),
    ] {
        let mut peer = Plain::connect(&served.address()).expect("listening");
        peer.write_all(&bytes).expect("open");
        let mut answer = [0; 7];
        peer.read_exact(&mut answer).expect("an alert");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, u8::from(alert)], "{bytes:?}");
    }
    assert_eq!(served.backend.accepted(), 0);
}
