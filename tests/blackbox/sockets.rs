//! Where the program listens and dials: TCP of both families, UNIX paths and abstract names,
//! and what is in the way.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{self, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostunnel_testing::{
    Address, Backend, Behaviour, Command, End, Exit, Pki, Plain, Process, ReservedPort, Signal, TlsClient,
    eventually, private_dir, sockets,
};
use socket2::{Domain, Socket, Type};

use crate::pair::{CLIENT, Mode, Network, Peer, Route, SERVER, Tunnel, command};

/// A server tunnel to an echo, listening where the text says.
struct Listening {
    process: Process,
    pki: Pki,
    _backend: Backend,
}

fn echo_at(listen: &str) -> Listening {
    let (pki, backend) = (Pki::new(), Backend::tcp(Behaviour::Echo));
    let process = command(Mode::Server, &pki, listen, &backend.address().to_string()).start();
    process.wait_for_line("listening for connections on");
    Listening {
        process,
        pki,
        _backend: backend,
    }
}

impl Listening {
    #[track_caller]
    fn assert_served(&self, socket: Plain) {
        assert_served(&self.pki, socket);
    }
}

/// Shakes hands, says a word and hears it.
#[track_caller]
fn assert_served(pki: &Pki, socket: Plain) {
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = Peer::from(client.handshake(socket).expect("admitted"));
    peer.say(b"word");
    peer.expect(b"word");
    peer.end_writing();
    assert_eq!(peer.rest(), (vec![], End::Closed));
}

/// The arguments of a tunnel that is not going to start.
fn to_nowhere(mode: Mode, pki: &Pki, listen: &str) -> Command {
    command(mode, pki, listen, "127.0.0.1:1")
}

/// Starts in both modes and fails to listen, with these words on standard error and in the log.
#[track_caller]
fn assert_refused(listen: &str, reason: &str) {
    for (mode, phrase) in [
        (Mode::Server, "error trying to listen"),
        (Mode::Client, "error opening socket"),
    ] {
        let output = to_nowhere(mode, &Pki::new(), listen).run();
        assert_eq!(output.exit, Exit::Code(1));
        assert_eq!(output.stderr, format!("error: {reason}\n"));
        let line = format!("{phrase}: {reason}\n");
        assert!(output.stdout.contains(&line), "{}", output.stdout);
    }
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A port that is reserved in both families, so that nobody else can listen on either.
fn reserve_in_both_families() -> [ReservedPort; 2] {
    loop {
        let wildcard = ReservedPort::on(Ipv4Addr::UNSPECIFIED);
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), wildcard.port());
        if let Some(other) = ReservedPort::try_at(address) {
            return [wildcard, other];
        }
    }
}

#[test]
fn every_form_of_a_tcp_address_is_bound_to_the_families_it_stands_for() {
    for (listen, bound, [ipv4, ipv6]) in [
        ("127.0.0.1:PORT", "", [true, false]),
        ("localhost:PORT", "127.0.0.1:PORT", [true, false]),
        (":PORT", "0.0.0.0:PORT", [true, false]),
        ("0.0.0.0:PORT", "", [true, false]),
        ("[::1]:PORT", "", [false, true]),
        ("[::]:PORT", "", [true, true]),
    ] {
        let ports = reserve_in_both_families();
        let port = ports[0].port();
        let listen = listen.replace("PORT", &port.to_string());
        let tunnel = echo_at(&listen);
        let line = tunnel.process.wait_for_line("listening for connections on");
        let expected = match bound.replace("PORT", &port.to_string()) {
            bound if bound.is_empty() => format!("listening for connections on {listen}"),
            bound => format!("listening for connections on {listen} (bound to {bound})"),
        };
        assert!(line.ends_with(&expected), "{line}");
        for (ip, is_served) in LOOPBACK.into_iter().zip([ipv4, ipv6]) {
            match Plain::connect(&SocketAddr::new(ip, port).into()) {
                Ok(socket) if is_served => tunnel.assert_served(socket),
                Err(_) if !is_served => {}
                Ok(_) => panic!("{listen} is reached by {ip}"),
                Err(error) => panic!("{listen} is not reached by {ip}: {error}"),
            }
        }
    }
}

#[test]
fn a_port_that_the_kernel_chose_is_told() {
    for listen in ["127.0.0.1:0", "localhost:", "[::1]:0"] {
        let tunnel = echo_at(listen);
        let line = tunnel.process.wait_for_line("listening for connections on");
        let bound = line
            .strip_suffix(')')
            .and_then(|line| line.split_once(&format!("connections on {listen} (bound to ")))
            .unwrap_or_else(|| panic!("no address in {line}"));
        let address: SocketAddr = bound.1.parse().expect("an address");
        assert_ne!(address.port(), 0);
        tunnel.assert_served(Plain::connect(&address.into()).expect("it listens"));
    }
}

#[test]
fn two_instances_share_a_port_and_one_goes_on_when_the_other_ends() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let (one, other) = (Backend::tcp(Behaviour::Echo), Backend::tcp(Behaviour::Echo));
    let start = |backend: &Backend| {
        let listen = port.address().to_string();
        let process = command(Mode::Server, &pki, &listen, &backend.address().to_string()).start();
        process.wait_for_line("listening for connections on");
        process
    };
    let (first, _second) = (start(&one), start(&other));
    let connect = || Plain::connect(&port.address().into()).expect("somebody listens");
    // The kernel spreads connections by a hash of their addresses.
    eventually("both have been given a connection", || {
        assert_served(&pki, connect());
        one.accepted() > 0 && other.accepted() > 0
    });
    first.signal(Signal::TERM);
    assert_eq!(first.wait_exit(), Exit::Code(0));
    let before = one.accepted();
    (0..10).for_each(|_| assert_served(&pki, connect()));
    assert_eq!(one.accepted(), before);
}

#[test]
fn a_port_of_somebody_who_does_not_share_it_is_refused() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("it is bound");
    assert_refused(
        &address.to_string(),
        &format!(
            "listen tcp {address}: bind: address already in use (another process listens there; stop it or \
             choose another port)"
        ),
    );
}

#[test]
fn an_address_that_no_interface_has_is_refused() {
    let pki = Pki::new();
    let output = to_nowhere(Mode::Server, &pki, "192.0.2.1:8443").run();
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(
        output.stderr,
        "error: listen tcp 192.0.2.1:8443: bind: cannot assign requested address (no network interface of \
         this machine has this address)\n"
    );
}

#[test]
fn an_instance_that_can_not_start_leaves_the_port_to_its_owner() {
    let port = ReservedPort::new();
    let tunnel = echo_at(&port.address().to_string());
    let output = to_nowhere(Mode::Server, &tunnel.pki, &port.address().to_string())
        .arg("--cacert=/no/such/file")
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    tunnel.assert_served(Plain::connect(&port.address().into()).expect("it listens"));
}

// UNIX sockets

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn connect_abstract(name: &str) -> Plain {
    let address = net::SocketAddr::from_abstract_name(name).expect("a short name");
    UnixStream::connect_addr(&address).expect("it listens").into()
}

#[test]
fn an_abstract_name_is_listened_on() {
    let name = format!("ghostunnel-test-{}", std::process::id());
    let tunnel = echo_at(&format!("unix:@{name}"));
    tunnel.assert_served(connect_abstract(&name));
    assert!(!Path::new(&format!("@{name}")).exists());
    let line = tunnel.process.wait_for_line("opening pipe");
    assert!(line.contains("opening pipe: unix:@ ["), "{line}");
}

#[test]
fn an_abstract_name_in_use_is_refused() {
    let name = format!("ghostunnel-test-{}", std::process::id());
    let _tunnel = echo_at(&format!("unix:@{name}"));
    assert_refused(
        &format!("unix:@{name}"),
        &format!("listen unix @{name}: bind: address already in use"),
    );
}

#[test]
fn without_a_name_the_kernel_chooses_one_and_it_is_told() {
    let tunnel = echo_at("unix:");
    let line = tunnel.process.wait_for_line("listening for connections on");
    let name = line
        .strip_suffix(')')
        .and_then(|line| line.split_once("connections on unix: (bound to unix:@"));
    let (_, name) = name.unwrap_or_else(|| panic!("no name in {line}"));
    tunnel.assert_served(connect_abstract(name));
}

#[test]
fn the_path_of_a_killed_instance_is_taken_over() {
    let dir = private_dir();
    let path = dir.path().join("s");
    let killed = echo_at(&unix(&path));
    killed.process.signal(Signal::KILL);
    assert_eq!(killed.process.wait_exit(), Exit::Signal(9));
    assert!(path.exists());
    let tunnel = echo_at(&unix(&path));
    tunnel.assert_served(Plain::connect(&path.as_path().into()).expect("it listens"));
}

#[test]
fn the_path_of_a_live_instance_is_left_to_it() {
    let dir = private_dir();
    let path = dir.path().join("s");
    let tunnel = echo_at(&unix(&path));
    let inode = fs::symlink_metadata(&path).expect("it exists").ino();
    assert_refused(
        &unix(&path),
        &format!(
            "listen unix {}: bind: address already in use (another process uses this socket)",
            path.display()
        ),
    );
    assert_eq!(fs::symlink_metadata(&path).expect("it exists").ino(), inode);
    tunnel.assert_served(Plain::connect(&path.as_path().into()).expect("it listens"));
}

#[test]
fn other_files_are_never_replaced() {
    let dir = private_dir();
    let (file, folder, link) = (
        dir.path().join("file"),
        dir.path().join("folder"),
        dir.path().join("link"),
    );
    fs::write(&file, "precious").expect("a writable directory");
    fs::create_dir(&folder).expect("a writable directory");
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).expect("a free path"));
    std::os::unix::fs::symlink(&dead, &link).expect("a writable directory");
    for path in [&file, &folder, &link] {
        assert_refused(
            &unix(path),
            &format!(
                "listen unix {}: bind: address already in use (a file that is no socket is in the way)",
                path.display()
            ),
        );
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    assert!(folder.is_dir() && link.is_symlink() && dead.exists());
}

/// A path in this directory that has this many bytes.
fn path_of(length: usize, dir: &Path) -> PathBuf {
    let missing = length - dir.as_os_str().len() - 1;
    dir.join("x".repeat(missing))
}

#[test]
fn a_path_may_have_107_bytes() {
    let dir = private_dir();
    let path = path_of(107, dir.path());
    let tunnel = echo_at(&unix(&path));
    tunnel.assert_served(Plain::connect(&path.as_path().into()).expect("it listens"));
    let path = path_of(108, dir.path());
    assert_refused(
        &unix(&path),
        &format!(
            "listen unix {}: bind: invalid argument (the name is too long: a path may have 107 bytes)",
            path.display()
        ),
    );
}

#[test]
fn a_path_in_a_missing_directory_is_refused() {
    let dir = private_dir();
    let path = dir.path().join("missing/s");
    assert_refused(
        &unix(&path),
        &format!(
            "listen unix {}: bind: no such file or directory (the directory must exist)",
            path.display()
        ),
    );
}

#[test]
fn a_relative_path_is_taken_from_the_working_directory() {
    let (dir, pki) = (private_dir(), Pki::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let process = command(Mode::Server, &pki, "unix:s", &backend.address().to_string())
        .directory(dir.path())
        .start();
    process.wait_for_line("listening for connections on");
    let path = dir.path().join("s");
    assert_served(&pki, Plain::connect(&path.as_path().into()).expect("it listens"));
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    assert!(!path.exists());
}

#[test]
fn the_path_goes_when_the_process_ends_in_good_order() {
    for mode in [Mode::Server, Mode::Client] {
        for signal in [Signal::TERM, Signal::INT] {
            let (dir, pki) = (private_dir(), Pki::new());
            let path = dir.path().join("s");
            let process = to_nowhere(mode, &pki, &unix(&path)).start();
            process.wait_for_line("listening for connections on");
            assert!(path.exists());
            process.signal(signal);
            assert_eq!(process.wait_exit(), Exit::Code(0));
            assert!(!path.exists());
        }
    }
}

#[test]
fn a_path_that_a_successor_has_taken_stays() {
    let (dir, pki) = (private_dir(), Pki::new());
    let path = dir.path().join("s");
    let process = to_nowhere(Mode::Server, &pki, &unix(&path)).start();
    process.wait_for_line("listening for connections on");
    // Moved aside, not removed: the successor can't be given the same inode.
    fs::rename(&path, dir.path().join("old")).expect("a writable directory");
    let successor = echo_at(&unix(&path));
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    successor.assert_served(Plain::connect(&path.as_path().into()).expect("it listens"));
}

#[test]
fn a_failed_start_leaves_no_path_behind() {
    let (dir, pki) = (private_dir(), Pki::new());
    let path = dir.path().join("s");
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let status = holder.local_addr().expect("it is bound");
    let output = to_nowhere(Mode::Server, &pki, &unix(&path))
        .flag("--status", status.to_string())
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    assert!(
        output.stderr.contains("address already in use"),
        "{}",
        output.stderr
    );
    assert!(!path.exists());
}

// Targets

/// A TLS client of a server tunnel whose target can't be reached: what it hears, and the log.
#[track_caller]
fn assert_unreachable(target: &str, flags: &[&str], reason: &str) {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let process = command(Mode::Server, &pki, &port.address().to_string(), target)
        .args(flags)
        .start();
    process.wait_listening(port.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(&port.address().into()).expect("admitted");
    let mut bytes = Vec::new();
    // close_notify first, and FIN behind it.
    assert_eq!(
        peer.read_to_end(&mut bytes).map_err(|error| End::from(&error)),
        Ok(0)
    );
    let mut below = peer.socket();
    assert_eq!(below.read(&mut [0]).map_err(|error| End::from(&error)), Ok(0));
    let line = process.wait_for_line("error on dial");
    assert!(line.ends_with(&format!("error on dial: {reason}")), "{line}");
    assert_eq!(process.count_lines("opening pipe"), 0);
}

#[test]
fn a_dead_target_is_told_by_close_notify_and_in_the_log() {
    // Reserved: bound, but nobody listens.
    let dead = ReservedPort::new();
    let address = dead.address().to_string();
    let reason = format!("dial tcp {address}: connect: connection refused");
    assert_unreachable(&address, &[], &reason);
    assert_unreachable(&format!("localhost:{}", dead.port()), &[], &reason);
    assert_unreachable(&format!(":{}", dead.port()), &["--unsafe-target"], &reason);

    let dir = private_dir();
    let path = dir.path().join("s");
    let reason = |what| format!("dial unix {}: connect: {what}", path.display());
    assert_unreachable(&unix(&path), &[], &reason("no such file or directory"));
    drop(UnixListener::bind(&path).expect("a free path"));
    assert_unreachable(&unix(&path), &[], &reason("connection refused"));
    assert_unreachable("unix:", &[], "dial unix: missing address");
}

#[test]
fn a_local_peer_of_a_dead_target_meets_the_end() {
    for near in [Network::Tcp, Network::Unix] {
        let (pki, port, dead) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
        let listen: Address = match near {
            Network::Tcp => port.address().into(),
            Network::Unix => pki.path("s").as_path().into(),
        };
        let process = command(
            Mode::Client,
            &pki,
            &listen.to_string(),
            &dead.address().to_string(),
        )
        .start();
        process.wait_for_line("listening for connections on");
        let mut peer = Peer::from(Plain::connect(&listen).expect("it listens"));
        assert_eq!(peer.rest(), (vec![], End::Closed));
        let line = process.wait_for_line("error on dial");
        let reason = format!("dial tcp {}: connect: connection refused", dead.address());
        assert!(line.ends_with(&format!("error on dial: {reason}")), "{line}");
    }
}

#[test]
fn a_name_reaches_a_target_in_whichever_family_it_listens() {
    let found = ("localhost", 0)
        .to_socket_addrs()
        .expect("a name of this machine");
    for ip in found.map(|address| address.ip()) {
        let backend = Backend::tcp_at(SocketAddr::new(ip, 0), Behaviour::Echo);
        for target in ["localhost", ""] {
            let (pki, port) = (Pki::new(), ReservedPort::new());
            let target = format!("{target}:{}", backend.port());
            let process = command(Mode::Server, &pki, &port.address().to_string(), &target)
                .arg("--unsafe-target")
                .start();
            process.wait_listening(port.port());
            assert_served(&pki, Plain::connect(&port.address().into()).expect("it listens"));
        }
    }
}

#[test]
fn without_a_host_a_target_on_ipv6_alone_is_reached_too() {
    let [ipv4, ipv6] = reserve_in_both_families();
    let backend = listen_v6_only(ipv6.port());
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let target = format!(":{}", ipv4.port());
    let process = command(Mode::Server, &pki, &port.address().to_string(), &target)
        .arg("--unsafe-target")
        .start();
    process.wait_listening(port.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = Peer::from(client.connect(&port.address().into()).expect("admitted"));
    let (accepted, _) = backend.accept().expect("the tunnel has dialled");
    drop(accepted.send(b"x"));
    peer.expect(b"x");
}

fn listen_v6_only(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_only_v6(true).expect("IPV6_V6ONLY");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    socket.bind(&address.into()).expect("a reserved port");
    socket.listen(1).expect("it listens");
    socket
}

// Options

#[test]
fn both_sockets_of_a_connection_send_at_once_and_notice_a_peer_that_has_vanished() {
    let unix = Route {
        near: Network::Unix,
        ..CLIENT
    };
    for (route, connections) in [(SERVER, 2), (CLIENT, 2), (unix, 1)] {
        let tunnel = Tunnel::start(route, &[]);
        let (_near, _far) = tunnel.connect();
        tunnel.process.wait_for_line("opening pipe");
        let found = sockets(tunnel.process.id());
        let connected: Vec<_> = found
            .iter()
            .filter(|socket| {
                let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
                peer.is_some()
            })
            .collect();
        assert_eq!(connected.len(), connections);
        for socket in connected {
            assert!(socket.tcp_nodelay().expect("a TCP socket"));
            assert!(socket.keepalive().expect("a TCP socket"));
            let quarter = Duration::from_secs(15);
            assert_eq!(socket.tcp_keepalive_time().expect("a TCP socket"), quarter);
            assert_eq!(socket.tcp_keepalive_interval().expect("a TCP socket"), quarter);
            assert_eq!(socket.tcp_keepalive_retries().expect("a TCP socket"), 9);
            assert_eq!(socket.linger().expect("a TCP socket"), None);
            assert!(socket.nonblocking().expect("a socket"));
        }
    }
}
