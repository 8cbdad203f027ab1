//! Who on the same machine can reach the plaintext side: UNIX sockets, their modes and their
//! directories.
//!
//! Names that start with `sNN_` prove the row SNN of `docs/security-model.md`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, Exit, Pki, Plain, Process, ReservedPort,
    TlsServer, curl, private_dir, read_to_end,
};

use crate::sandbox::trace;
use crate::support::{as_nobody, client, client_at, server};

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A client tunnel that listens on a UNIX socket, before a TLS server that answers HTTP.
struct Tunnel {
    socket: PathBuf,
    _process: Process,
    _backend: Backend,
    _pki: Pki,
}

impl Tunnel {
    fn start(socket: PathBuf, adjust: impl FnOnce(&mut Command)) -> Self {
        let pki = Pki::new();
        let tls = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(tls, Behaviour::AnswerAndHalfClose(ANSWER.to_vec()));
        let mut command = client_at(
            &pki,
            &format!("unix:{}", socket.display()),
            &backend.address().to_string(),
        );
        adjust(&mut command);
        let process = command.start();
        process.wait_for_line("listening for connections on");
        Self {
            socket,
            _process: process,
            _backend: backend,
            _pki: pki,
        }
    }

    /// The tunnel's answer to the user nobody; `None` where that can't be tried.
    fn ask_as_nobody(&self) -> Option<Exit> {
        let mut curl = curl(&["--unix-socket"])?;
        curl.arg(&self.socket).arg("http://tunnel/");
        as_nobody(&mut curl).then(|| curl.run().exit)
    }

    fn set_mode(&self, mode: u32) {
        set_mode(&self.socket, mode);
    }
}

const REACHED: Option<Exit> = Some(Exit::Code(0));
/// What curl says when it can't connect.
const REFUSED: Option<Exit> = Some(Exit::Code(7));

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("own file");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").mode() & 0o777
}

/// A directory that everybody may search, with a place for a socket in it.
fn public_place() -> (tempfile::TempDir, PathBuf) {
    let dir = private_dir();
    set_mode(dir.path(), 0o755);
    let socket = dir.path().join("socket");
    (dir, socket)
}

/// The claim is a warning: where others have accounts, use a UNIX socket.
#[test]
fn s30_every_local_user_reaches_a_tcp_listener_on_loopback() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let tls = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
    let backend = Backend::tls(tls, Behaviour::AnswerAndHalfClose(ANSWER.to_vec()));
    let process = client(&pki, &port, backend.address()).start();
    process.wait_for_line("listening for connections on");
    let Some(mut curl) = curl(&[&format!("http://{}/", port.address())]) else {
        return;
    };
    if as_nobody(&mut curl) {
        assert_eq!(curl.run().exit, Exit::Code(0));
    }
}

#[test]
fn s31_a_client_tunnel_listens_on_a_unix_socket() {
    let (_dir, socket) = public_place();
    let tunnel = Tunnel::start(socket, |_| ());
    let mut peer = Plain::connect(&Address::Unix(tunnel.socket.clone())).expect("listening");
    std::io::Write::write_all(&mut peer, b"GET").expect("open");
    assert!(read_to_end(&mut peer).0.ends_with(b"ok"));
}

#[test]
fn s32_who_may_not_write_to_the_socket_can_not_connect() {
    let (_dir, socket) = public_place();
    let tunnel = Tunnel::start(socket, |_| ());
    tunnel.set_mode(0o755);
    let Some(answer) = tunnel.ask_as_nobody() else {
        return;
    };
    assert_eq!(Some(answer), REFUSED);
    tunnel.set_mode(0o777);
    assert_eq!(tunnel.ask_as_nobody(), REACHED);
}

#[test]
fn s33_a_private_directory_keeps_others_from_an_open_socket() {
    let (dir, socket) = public_place();
    let tunnel = Tunnel::start(socket, |_| ());
    tunnel.set_mode(0o777);
    set_mode(dir.path(), 0o700);
    let Some(answer) = tunnel.ask_as_nobody() else {
        return;
    };
    assert_eq!(Some(answer), REFUSED);
    set_mode(dir.path(), 0o755);
    assert_eq!(tunnel.ask_as_nobody(), REACHED);
}

/// No flag yet: the umask decides at once, chmod and chown later.
#[test]
fn s34_the_umask_decides_the_mode_of_the_socket() {
    for (umask, expected) in [("022", 0o755), ("077", 0o700), ("000", 0o777), ("117", 0o660)] {
        let (_dir, socket) = public_place();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let tunnel = Tunnel::start(socket, |command| {
            command.through(Path::new("/bin/sh"), ["-c", &script]);
        });
        assert_eq!(mode(&tunnel.socket), expected, "umask {umask}");
    }
}

#[test]
fn s37_who_may_not_pass_a_directory_on_the_way_can_not_connect() {
    let (dir, _) = public_place();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).expect("own directory");
    set_mode(&inner, 0o755);
    let tunnel = Tunnel::start(inner.join("socket"), |_| ());
    tunnel.set_mode(0o777);
    // Readable, but not to be passed.
    set_mode(dir.path(), 0o744);
    let Some(answer) = tunnel.ask_as_nobody() else {
        return;
    };
    assert_eq!(Some(answer), REFUSED);
    set_mode(dir.path(), 0o711);
    assert_eq!(tunnel.ask_as_nobody(), REACHED);
}

#[test]
fn s38_no_packet_filter_is_touched() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let mut command = server(&pki, &port, backend.address());
    command.arg("--allow-all");
    let Some(trace) = trace(&mut command, "execve,socket,setsockopt,bpf", |process| {
        process.wait_for_line("listening for connections on");
        crate::sandbox::assert_echoes(&pki, &port.address().into());
    }) else {
        return;
    };
    let count = |text: &str| trace.iter().filter(|line| line.contains(text)).count();
    assert!(count("socket(AF_INET") >= 2, "{trace:#?}");
    // The start of the program itself, by strace.
    assert_eq!(count("execve("), 1, "{trace:#?}");
    for never in [
        "NETLINK_NETFILTER",
        "SO_SET_REPLACE",
        "SOCK_RAW, IPPROTO",
        "AF_PACKET",
        "bpf(",
    ] {
        assert_eq!(count(never), 0, "{never} in {trace:#?}");
    }
}

#[test]
fn s39_the_socket_of_a_backend_keeps_a_tunnel_of_another_user_out() {
    let (pki, port) = (Pki::new(), ReservedPort::new());
    let (_dir, socket) = public_place();
    let backend = Backend::unix(&socket, Behaviour::Echo);
    set_mode(&socket, 0o600);
    set_mode(pki.dir(), 0o755);
    let mut command = server(&pki, &port, backend.address());
    command.arg("--allow-all").copied_to(pki.dir());
    if !as_nobody(&mut command) {
        return;
    }
    let process = command.start();
    process.wait_for_line("listening for connections on");
    let client = ghostunnel_testing::TlsClient::trusting(&pki.authority).identity(&pki.client);
    let _refused = client.connect(&port.address().into());
    let line = process.wait_for_line("error on dial: dial unix");
    assert!(line.ends_with("connect: permission denied"), "{line}");
    assert_eq!(backend.accepted(), 0);

    chown(&socket, Some(65534), None).expect("root");
    crate::sandbox::assert_echoes(&pki, &port.address().into());
}
