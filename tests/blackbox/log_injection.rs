//! Names that a client chose, in the log: one bounded line for one event, whatever is in them.

use std::os::unix::net::UnixDatagram;

use ghostunnel_testing::{
    Attribute, Authority, Backend, Behaviour, DEADLINE, Issued, Pki, Process, Request, ReservedPort,
    TlsClient, oid, private_dir, read_to_end,
};

use crate::support;

/// No line of the log is longer, its end included.
const LONGEST: usize = 16 * 1024;

/// Line ends of every kind, ANSI escapes, text direction, quotes, and lines that look like ours.
const EVIL: &str = "x\n[1] 2026/01/01 00:00:00.000000 forged\r\n{\"time\":\"forged\"}\u{2028}\u{85}\x0b\x0c\
                    \x1b[2J\x1b]0;title\x07\u{9b}31m\u{202e}\0\"\\,\"event\":\"forged\"";

/// A name as long as TLS lets a certificate be, with the worst of it at every place.
fn long_name() -> String {
    EVIL.repeat(58_000 / EVIL.len())
}

fn names(authority: &Authority) -> [Issued; 3] {
    let long = long_name();
    let in_parts = long
        .as_bytes()
        .chunks(1000)
        .fold(Request::unnamed(), |request, part| {
            request.attribute(Attribute {
                oid: oid::ORGANIZATION,
                tag: 0x0c,
                value: String::from_utf8_lossy(part).into_owned().into_bytes(),
            })
        });
    [
        authority.issue(&Request::named(EVIL)),
        authority.issue(&Request::named(&long)),
        authority.issue(&in_parts),
    ]
}

fn tunnel(flags: &[&str]) -> (Pki, ReservedPort, Backend, Process) {
    let (pki, listen, backend) = (Pki::new(), ReservedPort::new(), Backend::tcp(Behaviour::Echo));
    let process = support::server(&pki, &listen, backend.address())
        .args(flags)
        .start();
    process.wait_listening(listen.port());
    (pki, listen, backend, process)
}

/// Lets each of them come, and waits for what the log says of it.
fn visit(pki: &Pki, listen: &ReservedPort, process: &Process, phrase: &str) {
    for identity in names(&pki.authority) {
        let mark = process.mark();
        let client = TlsClient::trusting(&pki.authority).identity(&identity);
        if let Ok(mut peer) = client.connect(&listen.address().into()) {
            peer.end_writing();
            read_to_end(&mut peer);
        }
        process.wait_for_line_after(mark, phrase);
    }
}

/// Everything that a terminal or a reader of lines could take for more than text.
#[track_caller]
fn assert_harmless(line: &str) {
    let is_dangerous = |character: char| {
        character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
    };
    assert!(!line.contains(is_dangerous), "{}", line.escape_debug());
    assert!(line.len() < LONGEST, "{} bytes", line.len());
}

#[test]
fn a_name_makes_one_bounded_line_of_text() {
    for (flags, phrase) in [
        (["--allow-all", "--log-level=debug"], "closed pipe: "),
        (
            ["--allow-cn=somebody", "--log-level=debug"],
            "error on TLS handshake from ",
        ),
    ] {
        let (pki, listen, _backend, process) = tunnel(&flags);
        visit(&pki, &listen, &process, phrase);
        assert_eq!(process.count_lines(phrase), 3);
        let output = process.stdout();
        let start = format!("[{}] 2", process.id());
        for line in output.lines() {
            assert!(line.starts_with(&start), "{line:?}");
            assert_harmless(line);
        }
        assert_eq!(process.stderr(), "");
    }
}

#[test]
fn a_name_makes_one_bounded_object() {
    for (rule, event) in [
        ("--allow-all", "connection_closed"),
        ("--allow-cn=somebody", "handshake_failed"),
    ] {
        let (pki, listen, _backend, process) = tunnel(&[rule, "--log-format=json", "--log-level=debug"]);
        visit(&pki, &listen, &process, event);
        let output = process.stdout();
        let mut events = 0;
        for line in output.lines() {
            assert_harmless(line);
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            assert_ne!(object["event"], "forged");
            assert_ne!(object["time"], "forged");
            events += usize::from(object["event"] == event);
        }
        assert_eq!(events, 3);
    }
}

#[test]
fn a_name_makes_one_bounded_packet_of_syslog() {
    let (dev, run) = (private_dir(), private_dir());
    let socket = UnixDatagram::bind(dev.path().join("log")).expect("bound");
    socket.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let (pki, listen, backend) = (Pki::new(), ReservedPort::new(), Backend::tcp(Behaviour::Echo));
    let mut command = support::server(&pki, &listen, backend.address());
    command.args(["--allow-all", "--syslog"]);
    let Some(unshare) = support::as_root("unshare") else {
        return;
    };
    let script = format!(
        "mount --bind '{}' /dev && mount --bind '{}' /run && exec \"$0\" \"$@\"",
        dev.path().display(),
        run.path().display()
    );
    command.through(&unshare, ["--mount", "/bin/sh", "-c", &script]);
    let process = command.start();
    process.wait_listening(listen.port());
    for identity in names(&pki.authority) {
        let client = TlsClient::trusting(&pki.authority).identity(&identity);
        let mut peer = client.connect(&listen.address().into()).expect("admitted");
        peer.end_writing();
        read_to_end(&mut peer);
        loop {
            let mut bytes = vec![0; 256 * 1024];
            let length = socket.recv(&mut bytes).expect("a packet");
            let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
            let line = text.strip_suffix('\n').expect("a line");
            assert!(line.starts_with("<30>"), "{line:?}");
            assert_harmless(line);
            if line.contains("closed pipe: ") {
                break;
            }
        }
    }
}
