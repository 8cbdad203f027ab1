//! Log lines that go to the local syslog (`--syslog`).

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use ghostunnel_testing::{
    Command, DEADLINE, Exit, Pki, Plain, ReservedPort, Signal, private_dir, read_to_end,
};

use crate::operator::{Mode, Tunnel, message};
use crate::support::{as_root, binary, ghostunnel};

/// Lets it see other directories in the places of `/dev` and `/run`, where syslog services
/// listen. `false`, and a word about it, where this can't be done.
fn with_directories(command: &mut Command, dev: &Path, run: &Path) -> bool {
    let Some(unshare) = as_root("unshare") else {
        return false;
    };
    let script = format!(
        "mount --bind '{}' /dev && mount --bind '{}' /run && exec \"$0\" \"$@\"",
        dev.display(),
        run.display()
    );
    command.through(&unshare, ["--mount", "/bin/sh", "-c", &script]);
    true
}

fn receive(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let mut bytes = [0; 20_000];
    let length = socket.recv(&mut bytes).expect("a packet");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Packets up to the first whose line contains this text.
#[track_caller]
fn receive_until(socket: &UnixDatagram, text: &str) -> String {
    loop {
        let packet = receive(socket);
        if packet.contains(text) {
            return packet;
        }
    }
}

/// A tunnel that logs to a syslog service in one of these directories.
fn tunnel_with(dev: &Path, run: &Path, adapt: impl FnOnce(&mut Command)) -> Option<Tunnel> {
    let mut is_possible = false;
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        is_possible = with_directories(command, dev, run);
        if is_possible {
            command.arg("--syslog");
            adapt(command);
        }
    });
    is_possible.then_some(tunnel)
}

/// Takes `<PRIORITY>Mon _2 HH:MM:SS TAG[PID]: LINE` apart.
#[track_caller]
fn packet<'a>(packet: &'a str, tunnel: &Tunnel) -> (&'a str, &'a str) {
    let (priority, rest) = packet.split_at(packet.find('>').expect("a priority") + 1);
    let (time, rest) = rest.split_at(16);
    let months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    assert!(months.contains(&time[..3]) && time.ends_with(' '), "{packet}");
    assert!(time[4..6].trim_start().parse::<u8>().is_ok(), "{packet}");
    assert_eq!(time[6..].matches(':').count(), 2, "{packet}");
    let pid = tunnel.process.id();
    let tag = format!("{}[{pid}]: ", binary().display());
    let line = rest.strip_prefix(&tag).unwrap_or_else(|| panic!("{packet}"));
    let line = line.strip_suffix('\n').expect("a newline at the end");
    assert!(line.starts_with(&format!("[{pid}] 2")), "{packet}");
    (priority, message(line))
}

#[test]
fn every_line_is_a_datagram_in_the_known_form() {
    let folder = private_dir();
    let socket = UnixDatagram::bind(folder.path().join("log")).expect("bound");
    let Some(tunnel) = tunnel_with(folder.path(), private_dir().path(), |_| {}) else {
        return;
    };
    let first = receive(&socket);
    assert_eq!(
        packet(&first, &tunnel),
        ("<30>", "starting ghostunnel in server mode")
    );
    receive_until(&socket, "listening for connections on ");
    tunnel.visit();
    let opened = receive_until(&socket, "opening pipe");
    assert!(packet(&opened, &tunnel).1.ends_with("[no tls] "), "{opened}");
    assert_eq!(packet(&opened, &tunnel).0, "<30>");
    receive_until(&socket, "closed pipe");
    // Strangers must not be able to fill the log with errors; a missing target is one.
    drop(Plain::connect(&tunnel.listen.address().into()).expect("listening"));
    let refused = receive_until(&socket, "error on TLS handshake");
    assert_eq!(packet(&refused, &tunnel).0, "<30>");
    let Tunnel {
        backend,
        process,
        pki,
        listen,
        ..
    } = tunnel;
    drop(backend);
    let client = ghostunnel_testing::TlsClient::trusting(&pki.authority).identity(&pki.client);
    if let Ok(mut peer) = client.connect(&listen.address().into()) {
        read_to_end(&mut peer);
    }
    let failed = receive_until(&socket, "error on dial");
    assert!(failed.starts_with("<27>"), "{failed}");
    process.signal(Signal::TERM);
    receive_until(&socket, "shutdown proxy, waiting for drain");
    assert_eq!(process.wait_exit(), Exit::Code(0));
    assert_eq!(
        (process.stdout(), process.stderr()),
        (String::new(), String::new())
    );
}

#[test]
fn a_stream_at_another_place_is_taken_too() {
    let folder = private_dir();
    let listener = UnixListener::bind(folder.path().join("log")).expect("bound");
    // /var/run leads to /run.
    let Some(tunnel) = tunnel_with(private_dir().path(), folder.path(), |_| {}) else {
        return;
    };
    let (stream, _) = listener.accept().expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.starts_with("<30>"), "{first}");
    assert!(first.ends_with(" starting ghostunnel in server mode"), "{first}");
    tunnel.visit();
    assert!(lines.any(|line| line.expect("text").contains("closed pipe")));
}

#[test]
fn a_service_that_was_restarted_is_found_again_inside_the_sandbox() {
    let folder = private_dir();
    let path = folder.path().join("log");
    let socket = UnixDatagram::bind(&path).expect("bound");
    let Some(tunnel) = tunnel_with(folder.path(), private_dir().path(), |_| {}) else {
        return;
    };
    receive_until(&socket, "sandbox: landlock");
    receive_until(&socket, "listening for connections on ");
    drop(socket);
    std::fs::remove_file(&path).expect("removed");
    // These lines are lost, and nothing else is.
    tunnel.visit();
    let socket = UnixDatagram::bind(&path).expect("bound");
    tunnel.visit();
    receive_until(&socket, "closed pipe");
    assert_eq!(tunnel.process.stderr(), "");
}

#[test]
fn objects_can_go_there_too() {
    let folder = private_dir();
    let socket = UnixDatagram::bind(folder.path().join("log")).expect("bound");
    let Some(_tunnel) = tunnel_with(folder.path(), private_dir().path(), |command| {
        command.arg("--log-format=json");
    }) else {
        return;
    };
    let first = receive(&socket);
    let (header, object) = first.split_once("]: ").expect("a header");
    assert!(header.starts_with("<30>"), "{first}");
    let object: serde_json::Value = serde_json::from_str(object).expect("JSON");
    assert_eq!(object["message"], "starting ghostunnel in server mode");
}

#[test]
fn without_a_service_the_start_fails_unless_everything_is_silenced() {
    let (folder, pki) = (private_dir(), Pki::new());
    let listen = ReservedPort::new();
    let command = |flags: &[&str]| {
        let mut command = ghostunnel();
        command
            .args(["server", "--target=localhost:1", "--allow-all", "--syslog"])
            .flag("--listen", listen.address().to_string())
            .flag("--keystore", &pki.server_files.keystore)
            .flag("--cacert", &pki.ca_file)
            .args(flags);
        // Empty directories, both.
        let is_possible = with_directories(&mut command, folder.path(), folder.path());
        is_possible.then_some(command)
    };
    let Some(failing) = command(&[]) else { return };
    let output = failing.run();
    assert_eq!(output.exit, Exit::Code(1));
    let start = "error: unable to set up logger: Unix syslog delivery error";
    assert!(output.stderr.starts_with(start), "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1);
    assert_eq!(output.stdout, "");
    let process = command(&["--quiet=all"]).expect("as before").start();
    process.wait_listening(listen.port());
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    assert_eq!(
        (process.stdout(), process.stderr()),
        (String::new(), String::new())
    );
}
