//! Access rules in both modes: which certificates a rule admits, and which it does not.
//!
//! `--allow-X` of a server and `--verify-X` of a client are one rule; most tests here try both.

use std::net::{Ipv4Addr, Ipv6Addr};

use ghostunnel_testing::{
    Attribute, Authority, Backend, Behaviour, ClientCertificates, Exit, Issued, KeyKind, Pki, Request,
    ReservedPort, TlsServer, Usage, Version, oid,
};

use crate::client::{Dialling, assert_refusal};
use crate::server::Served;
use crate::support::{client, server};

/// The name by which client tunnels of these tests know every server, so that only the rule
/// decides.
pub(crate) const KNOWN_AS: &str = "known.test";

/// Checks which certificates are admitted by a server with `--allow-RULE` and accepted by a
/// client with `--verify-RULE`, for all of these rules at once.
fn assert_rules(rules: &[&str], admitted: &[Request], refused: &[Request]) {
    let flags = |verb: &str| -> Vec<String> { rules.iter().map(|rule| format!("--{verb}-{rule}")).collect() };
    let cases = || {
        let admitted = admitted.iter().map(|request| (request, true));
        admitted.chain(refused.iter().map(|request| (request, false)))
    };
    let allow = flags("allow");
    let served = Served::start(Pki::new(), &borrowed(&allow));
    for (request, expected) in cases() {
        let identity = served.pki.authority.issue(request);
        assert_eq!(served.admits(&identity), expected, "{allow:?} and {request:?}");
    }
    let (pki, verify) = (Pki::new(), flags("verify"));
    for (request, expected) in cases() {
        let identity = pki.authority.issue(&request.clone().dns(KNOWN_AS));
        assert_eq!(
            accepts(&pki, &identity, &verify),
            expected,
            "{verify:?} and {request:?}"
        );
    }
}

fn borrowed(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Whether a client tunnel talks to this server; if not, it must be for not being on any list.
pub(crate) fn accepts(pki: &Pki, identity: &Issued, flags: &[String]) -> bool {
    let server = TlsServer::new(identity, &ClientCertificates::Unasked);
    let backend = Backend::tls(server, Behaviour::Echo);
    let known_as = format!("--override-server-name={KNOWN_AS}");
    let mut flags = borrowed(flags);
    flags.push(&known_as);
    let tunnel = Dialling::start(pki, backend.address(), &flags);
    if tunnel.greet().is_ok() {
        return true;
    }
    let refused = Backend::tls(
        TlsServer::new(identity, &ClientCertificates::Unasked),
        Behaviour::Sink,
    );
    let tunnel = Dialling::start(pki, refused.address(), &flags);
    assert_refusal(
        &tunnel,
        &refused,
        "unauthorized: invalid principal, or principal not allowed",
    );
    false
}

fn common_name(value: &str) -> Attribute {
    Attribute::text(oid::COMMON_NAME, value)
}

fn unit(value: &str) -> Attribute {
    Attribute::text(oid::ORGANIZATIONAL_UNIT, value)
}

fn uri(uri: &str) -> Request {
    Request::named("x").uri(uri)
}

fn uris(uris: &[&str]) -> Vec<Request> {
    uris.iter().map(|text| uri(text)).collect()
}

mod lists {
    use super::*;

    #[test]
    fn last_common_name_counts_byte_by_byte() {
        assert_rules(
            &["cn=bb"],
            &[
                Request::named("bb"),
                Request::named("aa")
                    .organizational_unit("x")
                    .attribute(common_name("bb")),
            ],
            &[
                Request::named("bb").attribute(common_name("aa")),
                Request::named("BB"),
                Request::named("bb "),
                Request::named(" bb"),
                Request::named("b"),
                Request::named("bbb"),
                Request::named("bb\0"),
                Request::named("x").organizational_unit("bb").dns("bb").uri("bb"),
                Request::unnamed().dns("bb"),
            ],
        );
    }

    #[test]
    fn rules_are_not_trimmed_or_split() {
        assert_rules(
            &["cn= one", "cn=two,three"],
            &[Request::named(" one"), Request::named("two,three")],
            &[
                Request::named("one"),
                Request::named("two"),
                Request::named("three"),
            ],
        );
    }

    #[test]
    fn patterns_in_names_are_plain_text() {
        assert_rules(
            &["cn=*", "ou=*", "dns=*", "cn=.*"],
            &[Request::named("*"), Request::unnamed().dns("*")],
            &[Request::named("x").organizational_unit("y").dns("z.test")],
        );
    }

    #[test]
    fn any_organizational_unit_counts() {
        assert_rules(
            &["ou=two"],
            &[
                Request::named("x")
                    .organizational_unit("one")
                    .organizational_unit("two"),
                Request::named("x")
                    .organizational_unit("two")
                    .organizational_unit("one"),
                Request::named("x").attributes(vec![unit("one"), unit("two")]),
                Request::unnamed().organizational_unit("two"),
            ],
            &[
                Request::named("x").organizational_unit("TWO"),
                Request::named("x").organizational_unit("one"),
                Request::named("two").dns("two"),
                Request::unnamed(),
            ],
        );
    }

    #[test]
    fn dns_names_are_literal() {
        assert_rules(
            &["dns=peer.example", "dns=*.wild.example"],
            &[
                Request::named("x").dns("peer.example"),
                Request::unnamed().dns("first.example").dns("peer.example"),
                Request::named("x").dns("*.wild.example"),
            ],
            &[
                Request::named("x").dns("PEER.example"),
                Request::named("x").dns("peer.example."),
                Request::named("x").dns("*.example"),
                Request::named("x").dns("a.peer.example"),
                Request::named("x").dns("a.wild.example"),
                Request::named("peer.example"),
                Request::named("x").uri("dns:peer.example"),
            ],
        );
    }

    #[test]
    fn addresses_are_numbers() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_rules(
            &["ip=192.0.2.1", "ip=::ffff:192.0.2.7", "ip=2001:db8:0:0::1"],
            &[
                Request::named("x").ip(address),
                Request::named("x").ip(address.to_ipv6_mapped()),
                Request::named("x").ip(Ipv4Addr::new(10, 0, 0, 1)).ip(address),
                Request::named("x").ip(Ipv4Addr::new(192, 0, 2, 7)),
                Request::named("x").ip("2001:db8::1".parse::<Ipv6Addr>().expect("an address")),
            ],
            &[
                Request::named("x").ip(Ipv4Addr::new(192, 0, 2, 2)),
                Request::named("x").ip(address.to_ipv6_compatible()),
                Request::named("192.0.2.1").dns("192.0.2.1"),
            ],
        );
    }

    #[test]
    fn any_rule_of_any_kind_is_enough() {
        assert_rules(
            &[
                "cn=nobody",
                "cn=one",
                "ou=two",
                "dns=three.test",
                "ip=192.0.2.4",
                "uri=urn:five",
            ],
            &[
                Request::named("one"),
                Request::named("x").organizational_unit("two"),
                Request::named("x").dns("three.test"),
                Request::named("x").ip(Ipv4Addr::new(192, 0, 2, 4)),
                uri("urn:five"),
            ],
            &[Request::named("six"), Request::unnamed()],
        );
    }

    #[test]
    fn aliases_add_to_the_same_lists() {
        assert_rules(
            &[
                "dns-san=a.test",
                "dns=b.test",
                "ip-san=192.0.2.1",
                "uri-san=urn:x",
            ],
            &[
                Request::named("x").dns("a.test"),
                Request::named("x").dns("b.test"),
                Request::named("x").ip(Ipv4Addr::new(192, 0, 2, 1)),
                uri("urn:x"),
            ],
            &[Request::named("a.test").dns("c.test")],
        );
    }

    #[test]
    fn empty_rules_match_nobody_and_are_warned_about() {
        let rules = ["cn=", "ou=", "dns="];
        let nameless = [
            Request::unnamed(),
            Request::named(""),
            Request::named("x").organizational_unit(""),
            Request::named("x"),
        ];
        assert_rules(&rules, &[], &nameless);

        let served = Served::start(
            Pki::new(),
            &["--allow-cn=", "--allow-ou=", "--allow-dns=", "--allow-cn=x"],
        );
        for kind in ["cn", "ou", "dns"] {
            served.process.wait_for_line(&format!(
                "warning: --allow-{kind} with an empty value matches nobody"
            ));
        }
        assert!(served.admits(&served.pki.authority.issue(&Request::named("x"))));
    }

    #[test]
    fn everybody_means_everybody_with_a_valid_certificate() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        for request in [Request::unnamed(), Request::named("x"), Pki::client_request()] {
            assert!(
                served.admits(&served.pki.authority.issue(&request)),
                "{request:?}"
            );
        }
    }

    #[test]
    fn server_is_accepted_without_any_rule() {
        let pki = Pki::new();
        let identity = pki.authority.issue(&Request::unnamed().dns(KNOWN_AS));
        assert!(accepts(&pki, &identity, &[]));
    }
}

mod uri_patterns {
    use super::*;

    #[test]
    fn literal() {
        assert_rules(
            &["uri=spiffe://td/a"],
            &uris(&["spiffe://td/a", "spiffe://td/a/", "SPIFFE://td/a"]),
            &uris(&[
                "spiffe://td/a//",
                "spiffe://td/a/b",
                "spiffe://td/a?b/c",
                "spiffe://td/A",
                "spiffe://TD/a",
            ]),
        );
    }

    #[test]
    fn one_segment() {
        assert_rules(
            &["uri=spiffe://td/*"],
            &uris(&[
                "spiffe://td/a",
                "spiffe://td/a/",
                "spiffe://td/a%2Fb",
                "spiffe://td/a?x=1",
            ]),
            &uris(&[
                "spiffe://td",
                "spiffe://td/",
                "spiffe://td/a/b",
                "spiffe://td/a//",
                "spiffe://td/a?b/c",
                "spiffe://td/a#f/g",
            ]),
        );
    }

    #[test]
    fn everything_below() {
        assert_rules(
            &["uri=spiffe://td/**"],
            &uris(&[
                "spiffe://td",
                "spiffe://td/",
                "spiffe://td//",
                "spiffe://td/a/b",
                "spiffe://td/a?b/c",
            ]),
            &uris(&[
                "spiffe://tdx",
                "spiffe://Td/a",
                "spiffe://td.evil/a",
                "spiffe://td@evil/a",
                "urn:x",
            ]),
        );
    }

    #[test]
    fn in_the_middle() {
        assert_rules(
            &["uri=spiffe://*/client", "uri=spiffe://foo/*/bar/**"],
            &uris(&[
                "spiffe://one.test/client",
                "spiffe://foo/baz/bar",
                "spiffe://foo/baz/bar/x/y",
            ]),
            &uris(&[
                "spiffe://one.test/a/client",
                "spiffe://foo//bar",
                "spiffe://foo/baz/barf",
            ]),
        );
    }

    /// What is matched is the URI as its parser writes it; the pattern stays as typed.
    #[test]
    fn names_are_normalised_and_patterns_are_not() {
        assert_rules(
            &["uri=spiffe://Td/a%20b", "uri=SPIFFE://**", "uri=spiffe://td/c d"],
            &uris(&["SPIFFE://Td/a b", "spiffe://Td/a%20b"]),
            &uris(&["spiffe://td/x", "SPIFFE://td/x", "spiffe://td/c d"]),
        );
    }

    #[test]
    fn any_uri_at_all() {
        assert_rules(
            &["uri=**"],
            &uris(&["urn:x:y", "https://user@host:1/p?q#f"]),
            &[Request::named("x").dns("y.test")],
        );
    }

    #[test]
    fn dots_and_pluses_are_plain_text() {
        assert_rules(&["uri=urn:.+"], &uris(&["urn:.+"]), &uris(&["urn:abc"]));
    }

    #[test]
    fn other_names_are_no_uris() {
        assert_rules(
            &["uri=peer.test"],
            &[],
            &[Request::named("peer.test").dns("peer.test")],
        );
    }

    #[test]
    fn bad_patterns_do_not_start() {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        for (pattern, reason) in [
            ("", "input pattern was empty string"),
            ("a*", "wildcard '*' can only appear between two separators"),
            (
                "spiffe://td/**/x",
                "wildcard '**' can only appear at end of pattern",
            ),
        ] {
            let mut server = server(&pki, &listen, &"localhost:1");
            let server = server.arg(format!("--allow-uri={pattern}")).run();
            let mut client = client(&pki, &listen, &"localhost:1");
            let client = client.arg(format!("--verify-uri={pattern}")).run();
            for (output, flag) in [(server, "--allow-uri"), (client, "--verify-uri")] {
                assert_eq!(output.exit, Exit::Code(1));
                let text = format!("invalid URI pattern in {flag} flag ({reason})");
                assert!(output.stdout.contains(&text), "{output:?}");
                assert!(output.stderr.contains(reason), "{output:?}");
            }
        }
    }

    #[test]
    fn bad_addresses_do_not_start() {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        for address in ["", "127.0.0.0/8", "localhost", "127.0.0.01"] {
            let mut command = server(&pki, &listen, &"localhost:1");
            let output = command.arg(format!("--allow-ip={address}")).run();
            assert_eq!(output.exit, Exit::Code(1));
            assert!(
                output
                    .stderr
                    .contains(&format!("'{address}' is not an IP address")),
                "{output:?}"
            );
        }
    }
}

mod chains {
    use super::*;

    /// Checks that both modes accept this identity under these anchors, in both versions.
    fn assert_trusted(anchors: &str, identity: &Issued) {
        let mut pki = Pki::new();
        pki.ca_file = pki.write("anchors.pem", anchors);
        let served = Served::start(pki, &["--allow-cn=peer"]);
        for version in Version::BOTH {
            let client = served.client().identity(identity).version(version);
            served
                .greet(&client)
                .unwrap_or_else(|end| panic!("{version:?}: {end:?}"));
        }
        for version in Version::BOTH {
            let server = TlsServer::with_version(identity, &ClientCertificates::Unasked, version);
            let backend = Backend::tls(server, Behaviour::Echo);
            let tunnel = Dialling::start(&served.pki, backend.address(), &["--verify-cn=peer"]);
            tunnel
                .greet()
                .unwrap_or_else(|end| panic!("{version:?}: {end:?}"));
        }
    }

    fn peer() -> Request {
        Request::named("peer").ip(Ipv4Addr::LOCALHOST)
    }

    /// What `openssl req -x509` makes.
    #[test]
    fn self_signed_authority_is_its_own_anchor() {
        let identity = peer().authority().self_signed();
        assert_trusted(&identity.leaf_pem(), &identity);
    }

    #[test]
    fn self_signed_leaf_is_its_own_anchor() {
        let identity = peer().self_signed();
        assert_trusted(&identity.leaf_pem(), &identity);
    }

    #[test]
    fn leaf_is_an_anchor_without_its_issuer() {
        let identity = Authority::new("nobody knows").issue(&peer());
        assert_trusted(&identity.leaf_pem(), &identity);
    }

    #[test]
    fn leaf_is_an_authority() {
        let root = Authority::new("root");
        assert_trusted(&root.pem(), &root.issue(&peer().authority()));
    }

    #[test]
    fn intermediate_is_an_anchor() {
        let middle = Authority::new("root").intermediate(&Request::named("middle"));
        let identity = middle.issue(&peer());
        assert_trusted(&middle.pem(), &identity);
        assert_trusted(&middle.pem(), &identity.followed_by(&[]));
    }

    #[test]
    fn every_usage_is_this_usage_too() {
        let root = Authority::new("root");
        for usage in [Usage::Anything, Usage::Unrestricted] {
            assert_trusted(&root.pem(), &root.issue(&peer().usage(usage)));
        }
    }

    #[test]
    fn intermediates_come_in_any_order_and_company() {
        let root = Authority::new("root");
        let first = root.intermediate(&Request::named("first").key(KeyKind::P384));
        let second = first.intermediate(&Request::named("second").key(KeyKind::Rsa2048));
        let third = second.intermediate(&Request::named("third").key(KeyKind::Ed25519));
        let identity = third.issue(&peer());
        let junk = Authority::new("third");
        assert_trusted(&root.pem(), &identity);
        for order in [
            [junk.der(), first.der(), root.der(), second.der(), third.der()],
            [first.der(), first.der(), third.der(), junk.der(), second.der()],
        ] {
            assert_trusted(&root.pem(), &identity.clone().followed_by(&order));
        }
    }

    #[test]
    fn eight_intermediates_are_not_too_many() {
        let root = Authority::new("root");
        let mut authority = root.intermediate(&Request::named("middle 1"));
        for number in 2..=8 {
            authority = authority.intermediate(&Request::named(&format!("middle {number}")));
        }
        assert_trusted(&root.pem(), &authority.issue(&peer()));
    }

    #[test]
    fn missing_intermediate_is_not_guessed() {
        let mut pki = Pki::new();
        let root = Authority::new("root");
        let middle = root.intermediate(&Request::named("middle"));
        pki.ca_file = pki.write("anchors.pem", &root.pem());
        let served = Served::start(pki, &["--allow-all"]);
        let identity = middle.issue(&peer()).followed_by(&[]);
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        served.assert_refuses(
            Some(&identity),
            [ghostunnel_testing::AlertDescription::UnknownCA; 2],
            reason,
        );
    }

    #[test]
    fn leaf_cannot_issue() {
        let served = Served::start(Pki::new(), &["--allow-all"]);
        let forger = served.pki.authority.misused_leaf(&Pki::client_request());
        let identity = forger.issue(&Pki::client_request());
        let reason = "tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of ";
        let alerts = [ghostunnel_testing::AlertDescription::UnknownCA; 2];
        served.assert_refuses(Some(&identity), alerts, reason);
    }

    /// Certificates of version 1 have no names, so only a server's peers can have them.
    #[test]
    fn client_has_a_certificate_of_version_1() {
        let served = Served::start(Pki::new(), &["--allow-cn=old"]);
        let identity = served.pki.authority.issue(&Request::named("old").version_1());
        for version in Version::BOTH {
            let client = served.client().identity(&identity).version(version);
            served
                .greet(&client)
                .unwrap_or_else(|end| panic!("{version:?}: {end:?}"));
        }
    }

    #[test]
    fn client_has_a_self_signed_certificate_of_version_1() {
        let mut pki = Pki::new();
        let identity = Request::named("old").version_1().self_signed();
        pki.ca_file = pki.write("anchors.pem", &identity.leaf_pem());
        let served = Served::start(pki, &["--allow-cn=old"]);
        assert!(served.admits(&identity));
    }
}
