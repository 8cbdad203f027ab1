//! The PROXY protocol header in front of accepted connections: whom it is believed from, what is
//! done with it, and what is not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Address, Backend, Behaviour, Command, End, Endpoint, Exit, Pki, Plain, Process, ReservedPort, TlsClient,
    TlsPeer, eventually, private_dir, read_to_end, require_tool,
};

use crate::support;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// 192.0.2.1:258, connected to 10.0.0.1:443.
const IPV4: &[u8] = b"\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x01\xbb";

fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &length, rest].concat()
}

/// A server tunnel that expects headers.
struct Tunnel {
    process: Process,
    backend: Backend,
    pki: Pki,
    listen: ReservedPort,
}

impl Tunnel {
    fn start(flags: &[&str]) -> Self {
        let (pki, listen, backend) = (Pki::new(), ReservedPort::new(), Backend::tcp(Behaviour::Echo));
        let process = support::server(&pki, &listen, backend.address())
            .arg("--allow-all")
            .args(flags)
            .start();
        process.wait_listening(listen.port());
        Self {
            process,
            backend,
            pki,
            listen,
        }
    }

    fn socket(&self) -> TcpStream {
        TcpStream::connect(self.listen.address()).expect("listening")
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pki.authority).identity(&self.pki.client)
    }

    /// Sends `first` together with the hello, in one segment.
    fn connect_behind(&self, first: &[u8]) -> TlsPeer {
        let mut socket = self.socket();
        rustix::net::sockopt::set_tcp_cork(&socket, true).expect("an option of TCP");
        socket.write_all(first).expect("open");
        self.client().handshake(Plain::from(socket)).expect("admitted")
    }
}

fn assert_echo(peer: &mut TlsPeer) {
    peer.write_all(b"payload").expect("open");
    peer.end_writing();
    assert_eq!(read_to_end(peer), (b"payload".to_vec(), End::Closed));
}

#[test]
fn announced_addresses_go_to_log_and_target() {
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.0/8", "--proxy-protocol"]);
    let mapped = |ip: [u8; 4]| [&[0; 10][..], &[0xff, 0xff], &ip].concat();
    let in_ipv6 = [mapped([192, 0, 2, 1]), mapped([10, 0, 0, 1]), IPV4[8..].to_vec()].concat();
    let with_fields = [IPV4, b"\x02\x00\x01x\xea\x00\x03\x01vp"].concat();
    let headers = [
        b"PROXY TCP4 192.0.2.1 10.0.0.1 258 443\r\n".to_vec(),
        header(0x21, 0x11, IPV4),
        header(0x21, 0x21, &in_ipv6),
        header(0x21, 0x11, &with_fields),
    ];
    let sent = header(0x21, 0x11, IPV4);
    for (index, first) in headers.iter().enumerate() {
        let mark = tunnel.process.mark();
        let mut peer = tunnel.connect_behind(first);
        let own = peer.socket().local_address().expect("an IP address");
        assert_echo_behind(&tunnel, index, &mut peer, &sent);
        let target = tunnel.backend.address();
        tunnel.process.wait_for_line_after(
            mark,
            &format!("opening pipe: tcp:192.0.2.1:258 [CN=client,OU=clients] <-> tcp:{target} [no tls] (via tcp:{own})"),
        );
        tunnel.process.wait_for_line_after(
            mark,
            &format!(
                "closed pipe: tcp:192.0.2.1:258 [CN=client,OU=clients] <-> tcp:{target} [no tls] [forwarded 7 bytes, "
            ),
        );
    }
}

/// What comes back is what the target was sent: the header, then the payload.
fn assert_echo_behind(tunnel: &Tunnel, index: usize, peer: &mut TlsPeer, header: &[u8]) {
    peer.write_all(b"payload").expect("open");
    peer.end_writing();
    let all = [header, b"payload"].concat();
    assert_eq!(read_to_end(peer), (all.clone(), End::Closed));
    assert_eq!(tunnel.backend.connection(index).received(), all);
}

#[test]
fn a_sender_that_speaks_for_itself_goes_by_its_own_address() {
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.1"]);
    for first in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 10.0.0.1 258 443\r\n".to_vec(),
        header(0x20, 0x00, b""),
        header(0x20, 0x11, IPV4),
        header(0x21, 0x00, b"\x04\x00\x00"),
    ] {
        let mark = tunnel.process.mark();
        let mut peer = tunnel.connect_behind(&first);
        let own = peer.socket().local_address().expect("an IP address");
        assert_echo(&mut peer);
        let line = tunnel.process.wait_for_line_after(mark, "opening pipe: ");
        assert!(
            line.contains(&format!("opening pipe: tcp:{own} [CN=client,OU=clients] <-> ")),
            "{line}"
        );
        assert!(!line.contains("via"), "{line}");
    }
}

#[test]
fn a_peer_that_is_not_named_is_turned_away_with_or_without_a_header() {
    let tunnel = Tunnel::start(&[
        "--proxy-protocol-accept=192.0.2.0/24",
        "--proxy-protocol-accept=::/0",
        "--proxy-protocol-accept=unix",
    ]);
    for first in [
        b"".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        header(0x21, 0x11, IPV4),
    ] {
        let mark = tunnel.process.mark();
        let mut socket = tunnel.socket();
        let own = socket.local_addr().expect("connected");
        let _may_be_closed_already = socket.write_all(&first);
        let refused = tunnel.client().handshake(Plain::from(socket));
        assert!(refused.is_err(), "{refused:?}");
        tunnel.process.wait_for_line_after(
            mark,
            &format!(
                "error on PROXY protocol header from {own}: this peer may not send a PROXY protocol header"
            ),
        );
    }
    assert_eq!(tunnel.backend.accepted(), 0);
}

#[test]
fn what_is_no_header_ends_the_connection_and_nothing_else() {
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.1"]);
    let sum = |sum: &[u8]| header(0x21, 0x11, &[IPV4, b"\x03\x00\x04", sum].concat());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "no PROXY protocol header comes first",
        ),
        (
            b"\x16\x03\x01\x01\x00".to_vec(),
            "no PROXY protocol header comes first",
        ),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
            "malformed PROXY protocol header of version 1",
        ),
        (
            b"PROXY TCP4 1.2.3.4\r\nEVIL 1 1\r\n".to_vec(),
            "malformed PROXY protocol header of version 1",
        ),
        (
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
            "is longer than 107 bytes",
        ),
        (header(0x31, 0x11, IPV4), "of unknown version 3"),
        (header(0x22, 0x11, IPV4), "with unknown command 2"),
        (
            header(0x21, 0x12, IPV4),
            "with family 0x12, which is no stream connection",
        ),
        (header(0x21, 0x21, IPV4), "is too short for its addresses"),
        (
            header(0x21, 0x11, &[IPV4, b"\x04\xff\xff"].concat()),
            "malformed fields",
        ),
        (sum(&[0; 4]), "checksum of PROXY protocol header does not match"),
        (
            header(0x21, 0x11, &vec![0; 65535]),
            "header of 65551 bytes is longer than 16384",
        ),
    ];
    for (first, reason) in cases {
        let mark = tunnel.process.mark();
        let mut socket = tunnel.socket();
        let own = socket.local_addr().expect("connected");
        let _may_be_closed_already = socket.write_all(&first);
        let line = tunnel
            .process
            .wait_for_line_after(mark, "error on PROXY protocol header");
        assert!(
            line.contains(&format!("from {own}: ")) && line.contains(reason),
            "{line}"
        );
        let (bytes, end) = read_to_end(&mut Plain::from(socket));
        assert!(
            bytes.is_empty() && matches!(end, End::Closed | End::Reset),
            "{end:?}"
        );
    }
    // A sender that leaves, or one that was told nothing and speaks TLS.
    drop(tunnel.socket());
    tunnel.process.wait_for_line(": EOF");
    assert!(tunnel.client().connect(&tunnel.listen.address().into()).is_err());

    assert_eq!(tunnel.backend.accepted(), 0);
    assert_echo(&mut tunnel.connect_behind(b"PROXY UNKNOWN\r\n"));
}

#[test]
fn a_header_must_be_complete_before_the_connect_timeout() {
    let status = ReservedPort::new();
    let tunnel = Tunnel::start(&[
        "--proxy-protocol-accept=127.0.0.1",
        "--connect-timeout=1s",
        &format!("--status=http://{}", status.address()),
    ]);
    for first in [
        b"".as_slice(),
        b"PROXY TCP4 192.0.2.1 ",
        &header(0x21, 0x11, IPV4)[..20],
    ] {
        let mark = tunnel.process.mark();
        let mut socket = tunnel.socket();
        socket.write_all(first).expect("open");
        let began = Instant::now();
        let (_, end) = read_to_end(&mut Plain::from(socket));
        assert!(matches!(end, End::Closed | End::Reset), "{end:?}");
        assert!(
            began.elapsed() > Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
        let line = tunnel
            .process
            .wait_for_line_after(mark, "error on PROXY protocol header from ");
        assert!(
            support::phrase(&line).ends_with(": context deadline exceeded"),
            "{line}"
        );
    }
    let address = status.address().into();
    let metrics = Endpoint::Http(&address)
        .get("/_metrics/prometheus")
        .expect("served");
    for line in [
        "\nghostunnel_accept_timeout 3\n",
        "\nghostunnel_accept_error 3\n",
        "\nghostunnel_handshake_failures_total{reason=\"handshake-timeout\"} 3\n",
    ] {
        assert!(metrics.text().contains(line), "{line:?} in {}", metrics.text());
    }
}

#[test]
fn peers_of_a_unix_listener_are_named_by_a_word() {
    let (folder, pki) = (private_dir(), Pki::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let path = folder.path().join("in.sock");
    let process = support::server_at(
        &pki,
        &format!("unix:{}", path.display()),
        &backend.address().to_string(),
    )
    .args(["--proxy-protocol-accept=unix", "--log-format=json"])
    .start();
    process.wait_for_line("listening for connections on");
    let mut socket = Plain::connect(&Address::from(path.as_path())).expect("listening");
    socket.write_all(&header(0x21, 0x11, IPV4)).expect("open");
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    assert_echo(&mut client.handshake(socket).expect("admitted"));
    for event in ["connection_opened", "connection_closed"] {
        let line = process.wait_for_line(event);
        assert!(
            line.contains(r#""peer":"192.0.2.1:258""#) && line.contains(r#""via":"@""#),
            "{line}"
        );
    }
}

#[test]
fn a_refusal_in_the_handshake_tells_both_the_client_and_who_passed_it_on() {
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.1"]);
    let mut socket = tunnel.socket();
    let own = socket.local_addr().expect("connected");
    socket.write_all(&header(0x21, 0x11, IPV4)).expect("open");
    let nobody = TlsClient::trusting(&tunnel.pki.authority);
    let mut peer = nobody
        .handshake(Plain::from(socket))
        .expect("TLS 1.3 tells later");
    assert!(matches!(read_to_end(&mut peer).1, End::Alert(_)));
    tunnel.process.wait_for_line(&format!(
        "error on TLS handshake from 192.0.2.1:258: tls: client didn't provide a certificate (via tcp:{own})"
    ));
}

#[test]
fn names_that_believe_nobody_or_everybody_are_told_at_start() {
    let pki = Pki::new();
    let run = |listen: &str, words: &[&str]| {
        let output = support::server_at(&pki, listen, "localhost:1")
            .args(words.iter().map(|word| format!("--proxy-protocol-accept={word}")))
            .run();
        assert_ne!(output.exit, Exit::Code(0), "{words:?}");
        output.stderr
    };
    for (listen, words, reason) in [
        ("localhost:0", &[""][..], "neither an IP address"),
        (
            "localhost:0",
            &["10.0.0.1", "lb.example.com"],
            "\"lb.example.com\" is neither an IP address",
        ),
        (
            "localhost:0",
            &["10.0.0.1/8"],
            "10.0.0.1/8 has bits set behind its prefix: give 10.0.0.0/8",
        ),
        (
            "localhost:0",
            &["unix"],
            "names no peer that could connect to a TCP port",
        ),
        (
            "unix:/nowhere/s",
            &["10.0.0.1"],
            "names no peer that could connect to a UNIX socket",
        ),
    ] {
        let text = run(listen, words);
        assert!(text.contains(reason), "{words:?}: {text}");
    }
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=0.0.0.0/0"]);
    assert!(
        tunnel
            .process
            .stdout()
            .contains("--proxy-protocol-accept=0.0.0.0/0 lets every client claim to be any other"),
        "{}",
        tunnel.process.stdout()
    );
}

/// HAProxy in front of a tunnel, with these options for how it connects there.
fn haproxy(
    pki: &Pki,
    program: &std::path::Path,
    tunnel: SocketAddr,
    options: &str,
) -> (Process, ReservedPort) {
    let port = ReservedPort::new();
    let config = pki.write(
        "haproxy.cfg",
        &format!(
            "defaults\n  mode tcp\n  timeout client 10s\n  timeout connect 10s\n  timeout server 10s\n\
             listen front\n  bind {}\n  server tunnel {tunnel} {options}\n",
            port.address()
        ),
    );
    let process = Command::new(program).arg("-db").arg("-f").arg(config).start();
    process.wait_listening(port.port());
    (process, port)
}

#[test]
fn haproxy_passes_clients_on_with_every_kind_of_header() {
    let Some(program) = require_tool("haproxy") else {
        return;
    };
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.1", "--proxy-protocol"]);
    for (index, options) in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2-ssl",
        "send-proxy-v2-ssl-cn",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,ssl,cert-cn",
    ]
    .into_iter()
    .enumerate()
    {
        let (_haproxy, front) = haproxy(&tunnel.pki, &program, tunnel.listen.address(), options);
        let mark = tunnel.process.mark();
        let mut peer = tunnel
            .client()
            .connect(&front.address().into())
            .expect("admitted");
        let client = peer.socket().local_address().expect("an IP address");
        let ports = [client.port().to_be_bytes(), front.port().to_be_bytes()].concat();
        let announced = header(
            0x21,
            0x11,
            &[&[127, 0, 0, 1, 127, 0, 0, 1], ports.as_slice()].concat(),
        );
        assert_echo_behind(&tunnel, index, &mut peer, &announced);
        let line = tunnel.process.wait_for_line_after(
            mark,
            &format!("opening pipe: tcp:{client} [CN=client,OU=clients]"),
        );
        assert!(line.contains("(via tcp:127.0.0.1:"), "{options}: {line}");
    }
}

#[test]
fn haproxys_own_health_checks_are_answered() {
    let Some(program) = require_tool("haproxy") else {
        return;
    };
    let tunnel = Tunnel::start(&["--proxy-protocol-accept=127.0.0.1"]);
    let options = "send-proxy-v2 check check-ssl verify none inter 100ms rise 1 fall 1";
    let (haproxy, _front) = haproxy(&tunnel.pki, &program, tunnel.listen.address(), options);
    // It completes the handshake up to the certificate that it does not have: both sides understood
    // what came before.
    eventually("a health check has come as far as TLS", || {
        tunnel
            .process
            .count_lines("error on TLS handshake from 127.0.0.1:")
            > 0
    });
    assert_eq!(tunnel.process.count_lines("error on PROXY protocol header"), 0);
    assert_eq!(haproxy.try_exit(), None);
}
