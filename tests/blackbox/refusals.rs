//! Every reason of a refusal, provoked, and read where operators read it: in the text log, in
//! the JSON log and in the metrics.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use ghostunnel_testing::{
    Address, Authority, Backend, Behaviour, ClientCertificates, Issued, Pki, Plain, Process, Request,
    ReservedPort, Signal, TlsClient, TlsServer, Usage, Version, eventually, read_to_end,
};
use serde_json::Value;

use crate::operator::{Mode, get, message};
use crate::support;

/// How a peer earns a refusal.
enum Peer {
    /// It shows this certificate, or none.
    Shows(Option<Issued>),
    /// It speaks only this version.
    Only(Version),
    /// It does not trust the tunnel.
    Distrusts,
    /// It sends these bytes.
    Says(&'static [u8]),
    /// It leaves at once.
    Leaves,
    /// It says nothing.
    IsSilent,
}

struct Case {
    reason: &'static str,
    /// How the words of the log begin, behind the address.
    phrase: &'static str,
    flags: &'static [&'static str],
    peer: fn(&Pki) -> Peer,
    /// What the log must tell beside the reason.
    evidence: &'static [&'static str],
}

const NO_MATCH: &str = "unauthorized: invalid principal, or principal not allowed";
const PIN: &str = "--allow-spki-pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// dNSName `example` is all that is permitted (RFC 5280, section 4.2.1.10).
const ONLY_EXAMPLE: &[u8] = b"\x30\x0d\xa0\x0b\x30\x09\x82\x07example";

fn shows(pki: &Pki, request: &Request) -> Peer {
    Peer::Shows(Some(pki.authority.issue(request)))
}

/// Clients that a server tunnel refuses.
const CLIENTS: &[Case] = &[
    Case {
        reason: "no-certificate",
        phrase: "tls: client didn't provide a certificate",
        flags: &["--allow-all"],
        peer: |_| Peer::Shows(None),
        evidence: &[],
    },
    Case {
        reason: "malformed-certificate",
        phrase: "tls: failed to parse client certificate: ",
        flags: &["--allow-all"],
        peer: |pki| shows(pki, &Request::named("x").uri("spiffe://test/%zz")),
        evidence: &[],
    },
    Case {
        reason: "unknown-ca",
        phrase: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        flags: &["--allow-all"],
        peer: |_| {
            Peer::Shows(Some(
                Authority::new("x").issue(&Request::named("stranger").dns("x.test")),
            ))
        },
        evidence: &[
            "subject=\"CN=stranger\"",
            "dns=[\"x.test\"]",
            " spki=sha256:",
            " serial=",
        ],
    },
    Case {
        reason: "expired",
        phrase: "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: ",
        flags: &["--allow-all"],
        peer: |pki| shows(pki, &Request::named("old").serial(&[0x1f, 0xa0]).expired()),
        evidence: &["subject=\"CN=old\" serial=1FA0 "],
    },
    Case {
        reason: "not-yet-valid",
        phrase: "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: ",
        flags: &["--allow-all"],
        peer: |pki| shows(pki, &Request::named("new").not_yet_valid()),
        evidence: &["subject=\"CN=new\""],
    },
    Case {
        reason: "bad-usage",
        phrase: "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage",
        flags: &["--allow-all"],
        peer: |pki| shows(pki, &Request::named("server").usage(Usage::Server)),
        evidence: &["subject=\"CN=server\""],
    },
    Case {
        reason: "name-constraint",
        phrase: "tls: failed to verify certificate: x509: a root or intermediate certificate is not authorized to \
                 sign for this name: ",
        flags: &["--allow-all"],
        peer: |pki| {
            let narrow = Request::named("narrow").extension(&[2, 5, 29, 30], true, ONLY_EXAMPLE.to_vec());
            let issuer = pki.authority.intermediate(&narrow);
            Peer::Shows(Some(issuer.issue(&Request::named("x").dns("elsewhere.test"))))
        },
        evidence: &["dns=[\"elsewhere.test\"]"],
    },
    Case {
        reason: "invalid-chain",
        phrase: "tls: failed to verify certificate: x509: unhandled critical extension",
        flags: &["--allow-all"],
        peer: |pki| {
            shows(
                pki,
                &Request::named("odd").extension(&[1, 2, 3, 4], true, vec![5, 0]),
            )
        },
        evidence: &["subject=\"CN=odd\""],
    },
    Case {
        reason: "bad-signature",
        phrase: "tls: invalid signature by the peer's certificate",
        flags: &["--allow-all"],
        peer: |pki| Peer::Shows(Some(pki.client.clone().with_key_of(&pki.stranger))),
        evidence: &["subject=\"CN=client,OU=clients\""],
    },
    Case {
        reason: "acl-no-match",
        phrase: NO_MATCH,
        flags: &["--allow-cn=somebody", "--allow-uri=spiffe://td/**"],
        peer: |pki| shows(pki, &Request::named("nobody").uri("urn:x").ip([127, 0, 0, 1])),
        evidence: &[
            "subject=\"CN=nobody\"",
            "ip=[\"127.0.0.1\"] uri=[\"urn:x\"] rules=[cn \"somebody\", uri \"spiffe://td/**\"]]",
        ],
    },
    Case {
        reason: "denied",
        phrase: NO_MATCH,
        flags: &["--allow-all", "--deny-ou=clients"],
        peer: |pki| Peer::Shows(Some(pki.client.clone())),
        evidence: &["subject=\"CN=client,OU=clients\"", "rules=[deny ou \"clients\"]]"],
    },
    Case {
        reason: "requirement-unmet",
        phrase: NO_MATCH,
        flags: &["--allow-all", "--require-ou=payments"],
        peer: |pki| Peer::Shows(Some(pki.client.clone())),
        evidence: &["rules=[require ou \"payments\"]]"],
    },
    Case {
        reason: "pin-mismatch",
        phrase: "unauthorized: pin verification failed",
        flags: &[PIN],
        peer: |pki| Peer::Shows(Some(pki.client.clone())),
        evidence: &["rules=[spki-pin sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=]]"],
    },
    Case {
        reason: "refused-by-peer",
        phrase: "remote error: tls: ",
        flags: &["--allow-all"],
        peer: |_| Peer::Distrusts,
        evidence: &[],
    },
    Case {
        reason: "no-common-parameters",
        phrase: "tls: client offered only unsupported versions: ",
        flags: &["--allow-all", "--max-tls-version=TLS1.2"],
        peer: |_| Peer::Only(Version::V13),
        evidence: &[],
    },
    Case {
        reason: "not-tls",
        phrase: "tls: first record does not look like a TLS handshake",
        flags: &["--allow-all"],
        peer: |_| Peer::Says(b"GET / HTTP/1.1\r\n\r\n"),
        evidence: &[],
    },
    Case {
        reason: "protocol-error",
        phrase: "tls: ",
        flags: &["--allow-all"],
        // A Finished that nothing went before.
        peer: |_| Peer::Says(b"\x16\x03\x03\x00\x04\x14\x00\x00\x00"),
        evidence: &[],
    },
    Case {
        reason: "closed",
        phrase: "EOF",
        flags: &["--allow-all"],
        peer: |_| Peer::Leaves,
        evidence: &[],
    },
    Case {
        reason: "handshake-timeout",
        phrase: "context deadline exceeded",
        flags: &["--allow-all", "--connect-timeout=300ms"],
        peer: |_| Peer::IsSilent,
        evidence: &[],
    },
];

/// Servers that a client tunnel refuses, or is refused by.
const SERVERS: &[Case] = &[
    Case {
        reason: "wrong-name",
        phrase: "tls: failed to verify certificate: x509: certificate is valid for elsewhere.test, not known.test",
        flags: &["--override-server-name=known.test"],
        peer: |pki| shows(pki, &Request::named("x").dns("elsewhere.test")),
        evidence: &["subject=\"CN=x\"", "dns=[\"elsewhere.test\"]"],
    },
    Case {
        reason: "unknown-ca",
        phrase: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        flags: &["--override-server-name=known.test"],
        peer: |_| {
            Peer::Shows(Some(
                Authority::new("x").issue(&Request::named("x").dns("known.test")),
            ))
        },
        evidence: &["subject=\"CN=x\""],
    },
    Case {
        reason: "acl-no-match",
        phrase: NO_MATCH,
        flags: &["--override-server-name=known.test", "--verify-ou=servers"],
        peer: |pki| shows(pki, &Request::named("x").dns("known.test")),
        evidence: &["rules=[ou \"servers\"]]"],
    },
    Case {
        reason: "denied",
        phrase: NO_MATCH,
        flags: &["--override-server-name=known.test", "--deny-dns=KNOWN.test"],
        peer: |pki| shows(pki, &Request::named("x").dns("known.test")),
        evidence: &["rules=[deny dns \"KNOWN.test\"]]"],
    },
    Case {
        reason: "requirement-unmet",
        phrase: NO_MATCH,
        flags: &["--override-server-name=known.test", "--require-cn=y"],
        peer: |pki| shows(pki, &Request::named("x").dns("known.test")),
        evidence: &["rules=[require cn \"y\"]]"],
    },
    Case {
        reason: "handshake-timeout",
        phrase: "context deadline exceeded",
        flags: &["--connect-timeout=300ms"],
        peer: |_| Peer::IsSilent,
        evidence: &[],
    },
];

/// A tunnel whose peer is refused once.
struct Refusing {
    process: Process,
    status: ReservedPort,
    /// What must stay open while the process is looked at.
    _held: (Pki, Option<Plain>, Option<Backend>),
}

impl Refusing {
    fn start(mode: Mode, case: &Case, more: &[&str]) -> Self {
        let pki = Pki::new();
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let peer = (case.peer)(&pki);
        let backend = match (mode, &peer) {
            (Mode::Client, Peer::Shows(Some(identity))) => {
                let server = TlsServer::new(identity, &ClientCertificates::Unasked);
                Backend::tls(server, Behaviour::Sink)
            }
            _ => Backend::tcp(Behaviour::Sink),
        };
        let mut command = match mode {
            Mode::Server => support::server(&pki, &listen, backend.address()),
            Mode::Client => support::client(&pki, &listen, backend.address()),
        };
        command.flag("--status", format!("http://{}", status.address()));
        let process = command.args(case.flags).args(more).start();
        process.wait_listening(status.port());
        let address = listen.address().into();
        let held = match mode {
            Mode::Server => visit(&pki, peer, &address),
            Mode::Client => Some(Plain::connect(&address).expect("it listens")),
        };
        Self {
            process,
            status,
            _held: (pki, held, Some(backend)),
        }
    }

    fn count(&self, reason: &str) -> usize {
        let text = get(&self.status, "/_metrics/prometheus").text().to_owned();
        let name = format!("ghostunnel_handshake_failures_total{{reason=\"{reason}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value
            .expect("every reason has a counter")
            .parse()
            .expect("a number")
    }
}

/// Comes as this peer and waits for the end.
fn visit(pki: &Pki, peer: Peer, address: &Address) -> Option<Plain> {
    let refused = |client: TlsClient| {
        // In TLS 1.3 a client learns of it when it reads.
        if let Ok(mut peer) = client.connect(address) {
            read_to_end(&mut peer);
        }
    };
    let trusting = TlsClient::trusting(&pki.authority);
    match peer {
        Peer::Shows(None) => refused(trusting),
        Peer::Shows(Some(identity)) => refused(trusting.identity(&identity)),
        Peer::Only(version) => refused(trusting.version(version)),
        Peer::Distrusts => refused(TlsClient::trusting(&pki.other_authority)),
        Peer::Says(bytes) => {
            let mut socket = Plain::connect(address).expect("it listens");
            socket.write_all(bytes).expect("taken");
            read_to_end(&mut socket);
        }
        Peer::Leaves => drop(Plain::connect(address).expect("it listens")),
        Peer::IsSilent => return Some(Plain::connect(address).expect("it listens")),
    }
    None
}

fn beginning(mode: Mode) -> &'static str {
    match mode {
        Mode::Server => "error on TLS handshake from 127.0.0.1:",
        Mode::Client => "error on dial: ",
    }
}

fn assert_told(mode: Mode, case: &Case) {
    let Case { reason, phrase, .. } = case;
    let text = Refusing::start(mode, case, &[]);
    let line = text.process.wait_for_line(beginning(mode));
    assert!(line.contains(&format!(": {phrase}")), "{line}");
    let (told, bracket) = line.split_once(" [reason=").unwrap_or_else(|| panic!("{line}"));
    assert!(!told.contains("subject="), "{line}");
    let code = bracket.split([' ', ']']).next();
    assert_eq!((code, bracket.ends_with(']')), (Some(*reason), true), "{line}");
    for evidence in case.evidence {
        assert!(line.contains(evidence), "{evidence} is not in {line}");
    }
    eventually("the refusal is counted", || text.count(reason) == 1);

    let json = Refusing::start(mode, case, &["--log-format=json"]);
    let event = match mode {
        Mode::Server => "handshake_failed",
        Mode::Client => "dial_failed",
    };
    let line = json.process.wait_for_line(&format!("\"event\":\"{event}\""));
    let object: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(object["reason"], *reason, "{object}");
    let error = object["error"].as_str().expect("a text");
    assert!(
        error.starts_with(phrase) && !error.contains("[reason="),
        "{object}"
    );
    let has_evidence = !case.evidence.is_empty();
    for field in ["subject", "serial", "spki_pin"] {
        assert_eq!(object[field].is_string(), has_evidence, "{field}: {object}");
    }
    let has_rules = case.evidence.iter().any(|evidence| evidence.contains("rules="));
    assert_eq!(object["rules"].is_string(), has_rules, "{object}");
    eventually("the refusal is counted", || json.count(reason) == 1);
}

fn find(cases: &'static [Case], reason: &str) -> &'static Case {
    cases.iter().find(|case| case.reason == reason).expect("a case")
}

#[test]
fn refused_clients_are_told_with_reason_and_evidence() {
    for case in CLIENTS {
        assert_told(Mode::Server, case);
    }
}

#[test]
fn refused_servers_are_told_with_reason_and_evidence() {
    for case in SERVERS {
        assert_told(Mode::Client, case);
    }
}

#[test]
fn a_handshake_that_a_shutdown_cuts_is_told_as_such() {
    let silent = find(CLIENTS, "closed");
    let silent = Case {
        peer: |_| Peer::IsSilent,
        flags: silent.flags,
        evidence: silent.evidence,
        ..*silent
    };
    let tunnel = Refusing::start(Mode::Server, &silent, &[]);
    eventually("the connection is accepted", || {
        crate::operator::metric(&get(&tunnel.status, "/_metrics"), "ghostunnel.conn.open") > 0.0
    });
    tunnel.process.signal(Signal::TERM);
    let line = tunnel.process.wait_for_line(beginning(Mode::Server));
    assert!(line.ends_with(": context canceled [reason=canceled]"), "{line}");
}

#[test]
fn a_bad_announcement_is_told_as_such() {
    let case = Case {
        flags: &["--allow-all", "--proxy-protocol-accept=127.0.0.0/8"],
        ..*find(CLIENTS, "not-tls")
    };
    for more in [&[][..], &["--log-format=json"]] {
        let tunnel = Refusing::start(Mode::Server, &case, more);
        let line = tunnel
            .process
            .wait_for_line("error on PROXY protocol header from 127.0.0.1:");
        match more.is_empty() {
            true => assert!(line.ends_with(" [reason=proxy-header]"), "{line}"),
            false => assert!(line.contains("\"reason\":\"proxy-header\""), "{line}"),
        }
        eventually("the refusal is counted", || tunnel.count("proxy-header") == 1);
    }
}

/// What nobody can provoke from outside, or needs more than this build has.
const UNPROVOKED: [&str; 3] = ["internal-error", "policy-denied", "policy-error"];

#[test]
fn every_reason_of_the_page_is_provoked() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/refusals.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, table) = page.split_once("## Reasons").expect("the section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let cases = CLIENTS.iter().chain(SERVERS).map(|case| case.reason);
    let provoked: BTreeSet<_> = cases
        .chain(UNPROVOKED)
        .chain(["canceled", "proxy-header"])
        .collect();
    assert_eq!(listed, provoked);
}

/// Names that pretend to be other fields, or other lines, stay inside their quotes.
#[test]
fn a_name_cannot_forge_a_reason() {
    let case = Case {
        reason: "acl-no-match",
        phrase: NO_MATCH,
        flags: &["--allow-cn=somebody"],
        peer: |pki| {
            let name = "x\" [reason=denied]\n[1] 2026/01/01 00:00:00.000000 forged\u{202e}";
            shows(pki, &Request::named(name).dns("y\"] rules=[all]"))
        },
        evidence: &["\\\" [reason=denied]\\n[1] 2026", "dns=[\"y\\\"] rules=[all]\"]"],
    };
    let text = Refusing::start(Mode::Server, &case, &[]);
    let line = text.process.wait_for_line(beginning(Mode::Server));
    let message = message(&line);
    let (_, bracket) = message.split_once(" [reason=").expect("a reason");
    assert!(bracket.starts_with("acl-no-match "), "{line}");
    for evidence in case.evidence {
        assert!(line.contains(evidence), "{evidence} is not in {line}");
    }
    assert!(!text.process.stdout().contains('\u{202e}'));
    let lines = text.process.lines();
    assert!(lines.iter().all(|line| !line.text().starts_with("[1] 2026")));
}

/// A certificate may have thousands of names; a line of the log does not.
#[test]
fn what_is_told_of_a_peer_is_bounded() {
    let case = Case {
        reason: "acl-no-match",
        phrase: NO_MATCH,
        flags: &["--allow-cn=somebody"],
        peer: |pki| {
            let mut request = Request::named(&"n".repeat(10_000));
            for number in 0..500 {
                request = request.dns(&format!("{number}.{}.test", "a".repeat(50)));
            }
            shows(pki, &request.uri(&format!("urn:{}", "u".repeat(10_000))))
        },
        evidence: &[" and 484 more]", "nnn...\"", "uuu\"...]"],
    };
    for more in [&[][..], &["--log-format=json"]] {
        let tunnel = Refusing::start(Mode::Server, &case, more);
        let line = tunnel.process.wait_for_line(beginning(Mode::Server));
        assert!(line.len() < 8192, "{} bytes: {line}", line.len());
        if more.is_empty() {
            for evidence in case.evidence {
                assert!(line.contains(evidence), "{evidence} is not in {line}");
            }
        }
    }
}
