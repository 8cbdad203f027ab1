//! Sockets that a service manager has opened: by hand, descriptor by descriptor, and by
//! `systemd-socket-activate`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, Endpoint, Exit, Output, Pki, Plain, Process,
    ReservedPort, Signal, TlsClient, TlsServer, eventually, private_dir, require_tool,
};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::support::{client_at, server_at};

/// Sockets on their way to a process. They are the service manager's too, which this test plays.
struct Passed {
    descriptors: Vec<OwnedFd>,
}

impl Passed {
    fn new(descriptors: &[&dyn AsFd]) -> Self {
        // Far from those that they become in the process.
        const BEYOND: i32 = 100;
        let copy = |descriptor: &&dyn AsFd| {
            let copy = fcntl_dupfd_cloexec(descriptor, BEYOND).expect("a descriptor");
            fcntl_setfd(&copy, FdFlags::empty()).expect("it is open");
            copy
        };
        Self {
            descriptors: descriptors.iter().map(copy).collect(),
        }
    }

    /// Lets a process start with them as descriptors 3, 4 and so on, and with these variables,
    /// as a shell writes them; `false`, and a word about it, without a shell that can.
    fn to(&self, command: &mut Command, variables: &str) -> bool {
        // The Bourne shell only knows descriptors of one digit.
        let Some(bash) = require_tool("bash") else {
            return false;
        };
        let mut script = String::new();
        for (descriptor, number) in self.descriptors.iter().zip(3..) {
            let copy = descriptor.as_raw_fd();
            write!(script, "exec {number}<&{copy} {copy}<&-; ").expect("memory");
        }
        write!(script, "export {variables}; exec \"$0\" \"$@\"").expect("memory");
        command.through(&bash, ["-c", &script]);
        true
    }

    /// The variables that announce all of them by these names.
    fn announced(&self, names: &str) -> String {
        let count = self.descriptors.len();
        format!("LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES='{names}'")
    }
}

/// The usual other ends of a server tunnel.
struct Scene {
    pki: Pki,
    backend: Backend,
}

impl Scene {
    fn new() -> Self {
        Self {
            pki: Pki::new(),
            backend: Backend::tcp(Behaviour::Echo),
        }
    }

    fn server(&self, listen: &str, more: &[&str]) -> Command {
        let mut command = server_at(&self.pki, listen, &self.backend.address().to_string());
        command.args(more);
        command
    }

    /// Starts a server tunnel with these sockets under these names; `None` where it can't be.
    fn start(&self, listen: &str, more: &[&str], descriptors: &[&dyn AsFd], names: &str) -> Option<Process> {
        let (passed, mut command) = (Passed::new(descriptors), self.server(listen, more));
        passed
            .to(&mut command, &passed.announced(names))
            .then(|| command.start())
    }

    #[track_caller]
    fn assert_served(&self, address: &Address) {
        let client = TlsClient::trusting(&self.pki.authority).identity(&self.pki.client);
        let mut peer = client.connect(address).expect("admitted");
        assert_echoes(&mut peer);
    }
}

#[track_caller]
fn assert_echoes(peer: &mut (impl Read + Write)) {
    peer.write_all(b"hello").expect("open");
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).expect("an echo");
    assert_eq!(&answer, b"hello");
}

fn listener(ip: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip.into(), 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

#[test]
fn tunnel_and_status_port_take_their_sockets_by_name() {
    let scene = Scene::new();
    let (web, web_address) = listener(Ipv4Addr::LOCALHOST);
    let (status, status_address) = listener(Ipv4Addr::LOCALHOST);
    let (unused, _) = listener(Ipv4Addr::LOCALHOST);
    let flags = ["--status=systemd:status port"];
    let sockets: [&dyn AsFd; 3] = [&status, &unused, &web];
    let Some(process) = scene.start("systemd:web", &flags, &sockets, "status port::web") else {
        return;
    };
    let line = process.wait_for_line("listening for connections on systemd:web");
    assert!(line.ends_with(&format!("(bound to {web_address})")), "{line}");
    scene.assert_served(&web_address.into());
    let answer = Endpoint::Http(&status_address.into())
        .get("/_status")
        .expect("plain HTTP");
    let answer = answer.json();
    assert_eq!(
        (&answer["ok"], &answer["listen_address"]),
        (&true.into(), &"systemd:web".into())
    );
    assert_eq!(process.count_lines("warning"), 0);
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    // What the service manager keeps open queues for the next process.
    Plain::connect(&web_address.into()).expect("it still listens");
}

#[test]
fn sockets_without_a_name_are_known_by_their_number() {
    let scene = Scene::new();
    let (first, _) = listener(Ipv4Addr::LOCALHOST);
    let (second, address) = listener(Ipv4Addr::LOCALHOST);
    for names in ["first:", "first", "first::"] {
        let sockets: [&dyn AsFd; 2] = [&first, &second];
        let Some(process) = scene.start("systemd:LISTEN_FD_4", &[], &sockets, names) else {
            return;
        };
        process.wait_for_line("listening for connections on");
        scene.assert_served(&address.into());
    }
}

#[test]
fn sockets_of_every_family_are_served() {
    let (scene, folder) = (Scene::new(), private_dir());
    let path = folder.path().join("in.sock");
    let unix = UnixListener::bind(&path).expect("bind");
    let Some(process) = scene.start("systemd:u", &["--proxy-protocol"], &[&unix], "u") else {
        return;
    };
    let line = process.wait_for_line("listening for connections on systemd:u");
    assert!(
        line.ends_with(&format!("(bound to unix:{})", path.display())),
        "{line}"
    );
    let client = TlsClient::trusting(&scene.pki.authority).identity(&scene.pki.client);
    let _peer = client.connect(&path.as_path().into()).expect("admitted");
    let header = scene.backend.connection(0).wait_received(232);
    assert_eq!(
        header.get(124..124 + path.as_os_str().len()),
        path.to_str().map(str::as_bytes)
    );

    let Ok(wildcard) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        eprintln!("SKIPPED: no IPv6 here");
        return;
    };
    let port = wildcard.local_addr().expect("bound").port();
    let Some(process) = scene.start("systemd:w", &["--proxy-protocol"], &[&wildcard], "w") else {
        return;
    };
    process.wait_for_line("listening for connections on");
    for (index, (ip, destination)) in [
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.octets().to_vec()),
        (
            IpAddr::from(Ipv6Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.octets().to_vec(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let address = SocketAddr::from((ip, port)).into();
        let _peer = client.connect(&address).expect("admitted");
        let (from, to) = (16 + destination.len(), 16 + 2 * destination.len());
        let header = scene.backend.connection(index + 1).wait_received(to as u64 + 4);
        assert_eq!(header.get(from..to), Some(destination.as_slice()));
    }
}

#[test]
fn the_file_of_an_inherited_socket_is_left_as_it_is() {
    let (scene, folder) = (Scene::new(), private_dir());
    let path = folder.path().join("in.sock");
    let unix = UnixListener::bind(&path).expect("bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("ours");
    let before = fs::metadata(&path).expect("there");
    let Some(process) = scene.start("systemd:u", &[], &[&unix], "u") else {
        return;
    };
    process.wait_for_line("listening for connections on");
    scene.assert_served(&path.as_path().into());
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    let after = fs::metadata(&path).expect("still there");
    let identity = |file: &fs::Metadata| (file.ino(), file.mode(), file.uid(), file.gid());
    assert_eq!(identity(&after), identity(&before));
}

#[test]
fn a_client_tunnel_takes_an_inherited_socket_for_a_local_one() {
    let scene = Scene::new();
    let server = TlsServer::new(
        &scene.pki.server,
        &ClientCertificates::required(&scene.pki.authority),
    );
    let backend = Backend::tls(server, Behaviour::Echo);
    let (socket, address) = listener(Ipv4Addr::UNSPECIFIED);
    let passed = Passed::new(&[&socket]);
    let target = format!("localhost:{}", backend.port());
    let mut command = client_at(&scene.pki, "systemd:in", &target);
    if !passed.to(&mut command, &passed.announced("in")) {
        return;
    }
    let process = command.start();
    process.wait_for_line("listening for connections on systemd:in");
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    assert_echoes(&mut Plain::connect(&local.into()).expect("it listens"));
}

#[test]
fn descriptors_that_do_not_fit_are_named_and_the_others_served() {
    let scene = Scene::new();
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let (connected, (web, address)) = (
        std::os::unix::net::UnixStream::pair().expect("a pair").0,
        listener(Ipv4Addr::LOCALHOST),
    );
    let file = File::open("/dev/null").expect("open");
    let sockets: [&dyn AsFd; 4] = [&datagrams, &connected, &file, &web];
    let Some(process) = scene.start("systemd:web", &[], &sockets, "web:b:c:web") else {
        return;
    };
    for line in [
        "warning: inherited descriptor 3 (\"web\") is not used: it is no stream socket",
        "warning: inherited descriptor 4 (\"b\") is not used: it does not listen",
        "warning: inherited descriptor 5 (\"c\") is not used: it is no socket",
    ] {
        process.wait_for_line(line);
    }
    process.wait_for_line("listening for connections on");
    scene.assert_served(&address.into());
}

#[test]
fn announcing_more_descriptors_than_there_are_takes_none_of_the_process() {
    let scene = Scene::new();
    let (web, address) = listener(Ipv4Addr::LOCALHOST);
    let (passed, mut command) = (Passed::new(&[&web]), scene.server("systemd:web", &[]));
    let status = ReservedPort::new();
    command.flag("--status", format!("http://{}", status.address()));
    let variables = "LISTEN_PID=$$ LISTEN_FDS=40 LISTEN_FDNAMES=web";
    if !passed.to(&mut command, variables) {
        return;
    }
    let process = command.start();
    process.wait_for_line("listening for connections on");
    scene.assert_served(&address.into());
    let answer = Endpoint::Http(&status.address().into())
        .get("/_status")
        .expect("served");
    assert_eq!(answer.status, 200);
    process.wait_for_line("(\"LISTEN_FD_42\") is not used: it is not open");
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
}

/// The outcome of a start that must fail.
#[track_caller]
fn refused(mut command: Command, passed: &Passed, variables: &str) -> Option<Output> {
    if !passed.to(&mut command, variables) {
        return None;
    }
    let output = command.run();
    assert_eq!(output.exit, Exit::Code(1), "{output:?}");
    Some(output)
}

#[test]
fn sockets_that_were_not_passed_stop_the_start() {
    let scene = Scene::new();
    let (web, _) = listener(Ipv4Addr::LOCALHOST);
    let passed = Passed::new(&[&web]);
    let none = |name: &str| format!("expected listener with name {name}, but found none");
    for (name, variables) in [
        ("other", passed.announced("web")),
        ("", passed.announced("web")),
        ("web", "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=web".to_owned()),
        ("web", "LISTEN_PID=$$ LISTEN_FDS=0 LISTEN_FDNAMES=web".to_owned()),
        ("web", "LISTEN_PID=$$ LISTEN_FDNAMES=web".to_owned()),
        ("web", "NOTHING=".to_owned()),
        ("LISTEN_FD_3", passed.announced("web")),
    ] {
        let command = scene.server(&format!("systemd:{name}"), &[]);
        let Some(output) = refused(command, &passed, &variables) else {
            return;
        };
        let text = none(name);
        for line in [
            format!("error trying to listen: {text}\n"),
            format!("error from server listen: {text}\n"),
        ] {
            assert!(output.stdout.contains(&line), "{variables}: {output:?}");
        }
        assert!(output.stderr.ends_with(&format!("error: {text}\n")), "{output:?}");
    }
    let command = client_at(&scene.pki, "systemd:x", "localhost:1");
    let output = refused(command, &passed, "NOTHING=").expect("there is a shell");
    assert!(
        output
            .stdout
            .contains(&format!("error opening socket: {}", none("x"))),
        "{output:?}"
    );
    let command = scene.server("systemd:web", &["--status=systemd:x"]);
    let output = refused(command, &passed, &passed.announced("web")).expect("there is a shell");
    let line = format!("error: unable to bind on status port: {}", none("x"));
    assert!(output.stdout.contains(&line), "{output:?}");
}

#[test]
fn a_name_means_one_socket_and_one_user_of_it() {
    let scene = Scene::new();
    let ((one, _), (two, _)) = (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
    let passed = Passed::new(&[&one, &two]);
    let command = scene.server("systemd:web", &[]);
    let Some(output) = refused(command, &passed, &passed.announced("web:web")) else {
        return;
    };
    let text = "expected exactly 1 listening socket configured in systemd for name web, found 2";
    assert!(output.stderr.contains(text), "{output:?}");
    let command = scene.server("systemd:web", &["--status=systemd:web"]);
    let output = refused(command, &passed, &passed.announced("web:other")).expect("there is a shell");
    assert!(
        output
            .stderr
            .contains("--listen and --status cannot both use systemd:web"),
        "{output:?}"
    );
}

#[test]
fn launchd_is_of_another_system() {
    let scene = Scene::new();
    for (listen, status) in [("launchd:x", "localhost:0"), ("localhost:0", "launchd:x")] {
        let output = scene.server(listen, &[&format!("--status={status}")]).run();
        assert_eq!(output.exit, Exit::Code(1));
        let text = "launchd socket activation is only supported on darwin";
        assert!(output.stderr.contains(text), "{output:?}");
    }
}

#[test]
fn the_variables_are_gone_once_they_were_read() {
    let Some(gdb) = require_tool("gdb") else {
        return;
    };
    let scene = Scene::new();
    let (web, _) = listener(Ipv4Addr::LOCALHOST);
    let Some(process) = scene.start("systemd:web", &[], &[&web], "web") else {
        return;
    };
    process.wait_for_line("listening for connections on");
    let mut command = Command::new(gdb);
    command
        .args(["-nx", "-batch", "-p"])
        .arg(process.id().to_string());
    for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "PWD"] {
        command.arg("-ex").arg(format!(
            "print ((char *(*)(const char *))getenv)(\"{variable}\") == 0"
        ));
    }
    let output = command.run();
    let found: Vec<&str> = output
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix('$')?.split_once(" = ").map(|(_, value)| value))
        .collect();
    // The last one is there, which shows that the question is the right one.
    assert_eq!(found, ["1", "1", "1", "0"], "{output:?}");
}

/// `systemd-socket-activate` for a server tunnel at these addresses, which have these names.
fn activator(scene: &Scene, addresses: &[&str], names: &str, more: &[&str]) -> Option<Process> {
    let mut command = scene.server("systemd:web", more);
    let activate = require_tool("systemd-socket-activate")?;
    let mut arguments: Vec<String> = addresses
        .iter()
        .map(|address| format!("--listen={address}"))
        .collect();
    arguments.push(format!("--fdname={names}"));
    command.through(&activate, arguments);
    Some(command.start())
}

#[test]
fn systemd_starts_it_for_the_first_connection_which_is_served() {
    let scene = Scene::new();
    let port = ReservedPort::new();
    let Some(process) = activator(&scene, &[&port.address().to_string()], "web", &[]) else {
        return;
    };
    process.wait_listening(port.port());
    assert_eq!(process.count_lines("starting ghostunnel"), 0);
    for _ in 0..2 {
        scene.assert_served(&port.address().into());
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
}

#[test]
fn systemd_passes_several_sockets_of_several_families() {
    let (scene, folder) = (Scene::new(), private_dir());
    let (path, status) = (folder.path().join("in.sock"), ReservedPort::new());
    let addresses = [&*status.address().to_string(), path.to_str().expect("text")];
    let Some(process) = activator(&scene, &addresses, "status:web", &["--status=systemd:status"]) else {
        return;
    };
    eventually("the socket is there", || path.exists());
    process.wait_listening(status.port());
    // A glance that is over before anybody looks.
    drop(Plain::connect(&status.address().into()).expect("it listens"));
    scene.assert_served(&path.as_path().into());
    let answer = Endpoint::Http(&status.address().into())
        .get("/_status")
        .expect("served");
    assert_eq!(answer.json()["ok"], true);
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    assert!(path.exists());
}
