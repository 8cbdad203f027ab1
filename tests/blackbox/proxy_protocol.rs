//! The PROXY protocol header in front of each connection to the target: byte for byte, and as a
//! receiver that shares no code with the program reads it.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use ghostunnel_testing::{
    Address, AlertDescription, Authority, Backend, Behaviour, Command, Connection, End, Endpoint, Issued,
    KeyKind, Pki, Plain, Process, Request, ReservedPort, TlsClient, TlsPeer, Version, read_to_end,
    require_tool,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support;

const PREFIX: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21";

/// A server tunnel in front of a backend that echoes.
struct Tunnel {
    process: Process,
    backend: Backend,
    pki: Pki,
    address: Address,
    _listen: Option<ReservedPort>,
}

impl Tunnel {
    fn start(flags: &[&str]) -> Self {
        let listen = ReservedPort::new();
        let address = listen.address();
        Self::at(&address.to_string(), address, Some(listen), flags)
    }

    /// Listens as `typed`, which clients reach at `address`.
    fn at(typed: &str, address: impl Into<Address>, listen: Option<ReservedPort>, flags: &[&str]) -> Self {
        let (pki, backend) = (Pki::new(), Backend::tcp(Behaviour::Echo));
        let process = server(&pki, typed, backend.address()).args(flags).start();
        process.wait_for_line("listening for connections on");
        Self {
            process,
            backend,
            pki,
            address: address.into(),
            _listen: listen,
        }
    }

    /// Below a path in a directory of its own.
    fn unix(folder: &Path, flags: &[&str]) -> Self {
        let path = folder.join("in.sock");
        Self::at(&format!("unix:{}", path.display()), path.as_path(), None, flags)
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pki.authority).identity(&self.pki.client)
    }

    fn connect(&self, client: &TlsClient) -> TlsPeer {
        client.connect(&self.address).expect("admitted")
    }
}

fn server(pki: &Pki, listen: &str, target: &Address) -> Command {
    let mut command = support::ghostunnel();
    command
        .arg("server")
        .flag("--listen", listen)
        .flag("--target", target.to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key);
    command
}

/// Asserts that the target was sent exactly this before any payload, which then follows.
#[track_caller]
fn assert_header(connection: &Arc<Connection>, peer: &mut TlsPeer, expected: &[u8]) {
    let length = expected.len() as u64;
    assert_eq!(
        connection.wait_received(length),
        expected,
        "before the client has sent anything"
    );
    peer.write_all(b"payload").expect("open");
    let received = connection.wait_received(length + 7);
    assert_eq!(received.strip_prefix(expected), Some(b"payload".as_slice()));
}

fn tcp4(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else {
        panic!("no IPv4")
    };
    let mut block = [source.ip().octets(), destination.ip().octets()].concat();
    block.extend(source.port().to_be_bytes());
    block.extend(destination.port().to_be_bytes());
    block
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short");
    [&[kind], length.to_be_bytes().as_slice(), value].concat()
}

fn header(family: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [PREFIX, &[family], &length, &rest].concat()
}

fn local(peer: &TlsPeer) -> SocketAddr {
    peer.socket().local_address().expect("an IP address")
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{} is no port", path.display()),
    }
}

#[test]
fn a_target_is_told_both_ends_of_an_ipv4_connection() {
    for flags in [
        ["--allow-all", "--proxy-protocol"],
        ["--allow-all", "--proxy-protocol-mode=conn"],
    ] {
        let tunnel = Tunnel::start(&flags);
        let mut peer = tunnel.connect(&tunnel.client());
        let expected = header(0x11, &[&tcp4(local(&peer), tcp(&tunnel.address))]);
        assert_eq!(expected.len(), 28);
        assert_header(&tunnel.backend.connection(0), &mut peer, &expected);
        // The header is no payload.
        drop(peer);
        tunnel.process.wait_for_line("[forwarded 7 bytes,");
    }
}

#[test]
fn a_target_is_told_both_ends_of_an_ipv6_connection() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("SKIPPED: no IPv6 here");
        return;
    }
    let listen = ReservedPort::on(Ipv6Addr::LOCALHOST);
    let address = listen.address();
    let flags = ["--allow-all", "--proxy-protocol"];
    let tunnel = Tunnel::at(&address.to_string(), address, Some(listen), &flags);
    let mut peer = tunnel.connect(&tunnel.client());
    let ip = Ipv6Addr::LOCALHOST.octets();
    let ports = [local(&peer).port().to_be_bytes(), address.port().to_be_bytes()].concat();
    let expected = header(0x21, &[&ip, &ip, &ports]);
    assert_eq!(expected.len(), 52);
    assert_header(&tunnel.backend.connection(0), &mut peer, &expected);
}

#[test]
fn an_ipv4_client_of_a_listener_for_both_families_is_told_as_one() {
    if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        eprintln!("SKIPPED: no IPv6 here");
        return;
    }
    let listen = ReservedPort::on(Ipv6Addr::UNSPECIFIED);
    let address = SocketAddr::from(([127, 0, 0, 1], listen.port()));
    let flags = ["--allow-all", "--proxy-protocol"];
    let tunnel = Tunnel::at(&listen.address().to_string(), address, Some(listen), &flags);
    let mut peer = tunnel.connect(&tunnel.client());
    let expected = header(0x11, &[&tcp4(local(&peer), address)]);
    assert_header(&tunnel.backend.connection(0), &mut peer, &expected);
}

#[test]
fn unix_clients_are_told_by_path_and_the_length_counts_every_field() {
    let folder = ghostunnel_testing::private_dir();
    let tunnel = Tunnel::unix(folder.path(), &["--allow-all", "--proxy-protocol-mode=tls"]);
    let Address::Unix(path) = &tunnel.address else {
        panic!("listens on a path")
    };
    let padded = |name: &str| {
        let mut block = name.as_bytes().to_vec();
        block.resize(108, 0);
        block
    };
    let listener = padded(path.to_str().expect("text"));
    let fields = [
        field(0x02, b"localhost"),
        field(0x20, b"\x01\0\0\0\0\x21\x00\x07TLS 1.3"),
    ]
    .concat();

    let mut unnamed = tunnel.connect(&tunnel.client());
    let expected = header(0x31, &[&padded("@"), &listener, &fields]);
    assert_eq!(expected.len(), 232 + fields.len());
    assert_header(&tunnel.backend.connection(0), &mut unnamed, &expected);

    let own = folder.path().join("client.sock");
    let abstract_name = format!("ghostunnel-proxy-protocol-{}", std::process::id());
    for (index, name, shown) in [
        (
            1,
            own.to_str().expect("text").to_owned(),
            own.to_str().expect("text").to_owned(),
        ),
        (2, format!("\0{abstract_name}"), format!("@{abstract_name}")),
    ] {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::unix(name).expect("fits")).expect("free");
        socket
            .connect(&SockAddr::unix(path).expect("fits"))
            .expect("listening");
        let socket = Plain::from(UnixStream::from(socket));
        let mut peer = tunnel.client().handshake(socket).expect("admitted");
        let expected = header(0x31, &[&padded(&shown), &listener, &fields]);
        assert_header(&tunnel.backend.connection(index), &mut peer, &expected);
    }
}

#[test]
fn a_target_is_told_the_version_and_the_name_as_the_client_spelled_it() {
    let tunnel = Tunnel::start(&["--allow-all", "--proxy-protocol-mode=tls"]);
    let cases = [
        (Version::V13, "localhost", "TLS 1.3"),
        (Version::V12, "LocalHost", "TLS 1.2"),
        (Version::V13, "LOCALHOST", "TLS 1.3"),
    ];
    for (index, (version, name, shown)) in cases.into_iter().enumerate() {
        let mut peer = tunnel.connect(&tunnel.client().version(version).server_name(name));
        let ssl = [b"\x01\0\0\0\0".to_vec(), field(0x21, shown.as_bytes())].concat();
        let addresses = tcp4(local(&peer), tcp(&tunnel.address));
        let expected = header(
            0x11,
            &[&addresses, &field(0x02, name.as_bytes()), &field(0x20, &ssl)],
        );
        assert_eq!(expected.len(), 58);
        assert_header(&tunnel.backend.connection(index), &mut peer, &expected);
    }
    // An IP address is no name to ask for.
    let mut peer = tunnel.connect(&tunnel.client().server_name("127.0.0.1"));
    let addresses = tcp4(local(&peer), tcp(&tunnel.address));
    let expected = header(
        0x11,
        &[&addresses, b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLS 1.3"],
    );
    assert_header(&tunnel.backend.connection(3), &mut peer, &expected);
}

#[test]
fn a_target_is_told_the_certificate_of_a_client_that_showed_one() {
    let full = "--proxy-protocol-mode=tls-full";
    let tunnel = Tunnel::start(&["--allow-all", full]);
    let nameless = tunnel
        .pki
        .authority
        .issue(&Request::unnamed().dns("nameless.test"));
    let clients: [(&Issued, Vec<u8>); 2] = [
        (&tunnel.pki.client, field(0x22, b"client")),
        (&nameless, Vec::new()),
    ];
    for (index, (identity, common_name)) in clients.into_iter().enumerate() {
        let client = TlsClient::trusting(&tunnel.pki.authority).identity(identity);
        let mut peer = tunnel.connect(&client);
        let ssl = [
            b"\x07\0\0\0\0".to_vec(),
            field(0x21, b"TLS 1.3"),
            common_name,
            field(0x28, identity.der()),
        ]
        .concat();
        let addresses = tcp4(local(&peer), tcp(&tunnel.address));
        let expected = header(
            0x11,
            &[&addresses, &field(0x02, b"localhost"), &field(0x20, &ssl)],
        );
        assert_header(&tunnel.backend.connection(index), &mut peer, &expected);
    }

    let open = Tunnel::start(&["--disable-authentication", full]);
    let mut peer = open.connect(&open.client());
    let addresses = tcp4(local(&peer), tcp(&open.address));
    let ssl = field(0x20, b"\x01\0\0\0\0\x21\x00\x07TLS 1.3");
    let expected = header(0x11, &[&addresses, &field(0x02, b"localhost"), &ssl]);
    assert_header(&open.backend.connection(0), &mut peer, &expected);
}

#[test]
fn the_status_port_checks_the_target_without_a_header() {
    let status = ReservedPort::new();
    let tunnel = Tunnel::start(&[
        "--allow-all",
        "--proxy-protocol",
        &format!("--status=http://{}", status.address()),
    ]);
    let answer = Endpoint::Http(&status.address().into())
        .get("/_status")
        .expect("served");
    assert_eq!(answer.json()["backend_ok"], true);
    let check = tunnel.backend.connection(0);
    assert_eq!(check.wait_end(), End::Closed);
    assert_eq!(check.received_count(), 0);
}

#[test]
fn a_certificate_that_fits_no_header_is_refused_before_any_payload() {
    // With this kind of key, and a serial number that is not drawn, a certificate's length
    // depends on its content alone.
    let key = |request: Request| request.key(KeyKind::Ed25519).serial(&[1]);
    let authority = Authority::root(&key(Request::named("ed25519 root")));
    let of_length = |length: usize| {
        let issue = |filling: usize| {
            let request =
                key(Request::named("large")).extension(&[1, 3, 6, 1, 4, 1, 0], false, vec![0; filling]);
            authority.issue(&request)
        };
        let overhead = issue(65000).der().len() - 65000;
        let issued = issue(length - overhead);
        assert_eq!(issued.der().len(), length);
        issued
    };
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let trusted = pki.write("large-ca.pem", &authority.pem());
    let process = support::ghostunnel()
        .arg("server")
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", trusted)
        .flag("--keystore", &pki.server_files.keystore)
        .args(["--allow-all", "--proxy-protocol-mode=tls-full"])
        .start();
    process.wait_listening(listen.port());
    // Together with its authority it is longer than what Ghostunnel 1.11.1 took.
    for length in [65520, 65500] {
        let mark = process.mark();
        let client = TlsClient::trusting(&pki.authority).identity(&of_length(length));
        let end = client
            .version(Version::V12)
            .connect(&listen.address().into())
            .err();
        assert_eq!(end, Some(End::Alert(AlertDescription::BadCertificate)));
        process.wait_for_line_after(mark, "bytes of certificates, more than 65535");
    }
    assert_eq!(backend.received(), 0);
}

/// HAProxy on a free port; answers any HTTP request with what the header in front of it said.
fn haproxy() -> Option<(Process, ReservedPort, Pki)> {
    let program = require_tool("haproxy")?;
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let config = pki.write(
        "haproxy.cfg",
        &format!(
            "defaults\n  mode http\n  timeout client 10s\n  timeout connect 10s\n  timeout server 10s\n\
             frontend introduced\n  bind {} accept-proxy\n  http-request return status 200 \
             content-type text/plain lf-string \
             \"from %[src]:%[src_port] to %[dst]:%[dst_port] asked <%[fc_pp_authority]> id <%[fc_pp_unique_id]>\"\n",
            port.address()
        ),
    );
    let process = Command::new(program).arg("-db").arg("-f").arg(config).start();
    process.wait_listening(port.port());
    Some((process, port, pki))
}

/// What HAProxy answers through a tunnel with these flags, and who asked.
fn asked_through(pki: &Pki, haproxy: &ReservedPort, flags: &[&str]) -> (String, SocketAddr, SocketAddr) {
    let listen = ReservedPort::new();
    let tunnel = server(pki, &listen.address().to_string(), &haproxy.address().into())
        .arg("--allow-all")
        .args(flags)
        .start();
    tunnel.wait_listening(listen.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(&listen.address().into()).expect("admitted");
    let source = local(&peer);
    (answer(&mut peer), source, listen.address())
}

fn answer(peer: &mut (impl Read + Write)) -> String {
    peer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("open");
    let (bytes, end) = read_to_end(peer);
    let text = String::from_utf8(bytes).expect("text");
    assert_eq!(end, End::Closed, "{text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}

#[test]
fn haproxy_reads_every_kind_of_header() {
    let Some((process, port, pki)) = haproxy() else {
        return;
    };
    for (flag, name) in [
        ("--proxy-protocol", ""),
        ("--proxy-protocol-mode=conn", ""),
        ("--proxy-protocol-mode=tls", "localhost"),
        ("--proxy-protocol-mode=tls-full", "localhost"),
    ] {
        let (answer, source, destination) = asked_through(&pki, &port, &[flag]);
        assert_eq!(
            answer,
            format!("from {source} to {destination} asked <{name}> id <>"),
            "{flag}"
        );
    }
    assert_eq!(process.try_exit(), None);
}
