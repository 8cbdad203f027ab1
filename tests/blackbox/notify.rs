//! What the service manager is told (sd_notify(3)): in which order, in which words, and that
//! its watchdog is fed by live accept loops only.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Command, DEADLINE, Exit, Pki, Process, ReservedPort, Signal, eventually_some, private_dir, require_tool,
    skip,
};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, echo_backend, replace};

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    /// What `NOTIFY_SOCKET` says.
    name: String,
    _folder: Option<TempDir>,
}

impl Manager {
    /// At a path that no rule of the sandbox covers.
    fn at_a_path() -> Self {
        let folder = private_dir();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a path that is free");
        let name = path.to_str().expect("text").to_owned();
        Self::new(socket, name, Some(folder))
    }

    fn at_an_abstract_name() -> Self {
        let name = format!("ghostunnel-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name that fits");
        let socket = UnixDatagram::bind_addr(&address).expect("a name that is free");
        Self::new(socket, format!("@{name}"), None)
    }

    fn new(socket: UnixDatagram, name: String, folder: Option<TempDir>) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).expect("a limit");
        Self {
            socket,
            name,
            _folder: folder,
        }
    }

    /// The next datagram.
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("another datagram");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next datagram that is no keep-alive, and how many of these came before.
    #[track_caller]
    fn next_event(&self) -> (String, usize) {
        for keep_alives in 0.. {
            let datagram = self.next();
            if datagram != "WATCHDOG=1" {
                return (datagram, keep_alives);
            }
        }
        unreachable!("the loop has no end")
    }

    /// Datagrams that are there already.
    fn pending(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).expect("no waiting");
        let mut bytes = [0; 4096];
        let mut found = Vec::new();
        while let Ok(length) = self.socket.recv(&mut bytes) {
            found.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        self.socket.set_nonblocking(false).expect("waiting");
        found
    }

    /// A tunnel that notifies this manager.
    fn tunnel(&self, mode: Mode, adapt: impl FnOnce(&mut Command)) -> Tunnel {
        Tunnel::start_with(mode, |command, _| {
            command.env("NOTIFY_SOCKET", &self.name);
            adapt(command);
        })
    }
}

/// What `STATUS` says of the tunnel.
fn subject(tunnel: &Tunnel) -> String {
    let word = match tunnel.mode {
        Mode::Server => "server",
        Mode::Client => "client",
    };
    format!(
        "{word} proxying {} => {}",
        tunnel.listen.address(),
        tunnel.backend.address()
    )
}

fn monotonic_microseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).expect("after boot")
}

/// Checks the datagrams of one whole reload.
#[track_caller]
fn expect_reload(manager: &Manager, subject: &str, not_before: u64) {
    let reloading = manager.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time = time.and_then(|time| time.parse().ok());
    let time: u64 = time.unwrap_or_else(|| panic!("{reloading:?}"));
    assert!((not_before..=monotonic_microseconds()).contains(&time), "{time}");
    assert_eq!(manager.next(), format!("STATUS=reloading | {subject}"));
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(manager.next(), format!("STATUS=listening | {subject}"));
}

#[test]
fn every_phase_is_announced_in_order() {
    for (mode, manager) in [
        (Mode::Server, Manager::at_a_path()),
        (Mode::Client, Manager::at_an_abstract_name()),
    ] {
        let tunnel = manager.tunnel(mode, |_| {});
        let subject = subject(&tunnel);
        assert_eq!(manager.next(), "READY=1");
        assert_eq!(manager.next(), format!("STATUS=listening | {subject}"));
        for signal in [Signal::HUP, Signal::USR1] {
            let before = monotonic_microseconds();
            tunnel.process.signal(signal);
            expect_reload(&manager, &subject, before);
        }
        tunnel.process.signal(Signal::TERM);
        assert_eq!(manager.next(), "STOPPING=1");
        assert_eq!(manager.next(), format!("STATUS=stopping | {subject}"));
        assert_eq!(tunnel.process.wait_exit(), Exit::Code(0));
        assert_eq!(manager.pending(), [""; 0]);
    }
}

#[test]
fn a_failed_reload_ends_in_ready_too() {
    let manager = Manager::at_a_path();
    let tunnel = manager.tunnel(Mode::Server, |_| {});
    let subject = subject(&tunnel);
    manager.next();
    manager.next();
    replace(&tunnel.pki.server_files.certificate, "no certificate");
    let before = monotonic_microseconds();
    tunnel.process.signal(Signal::HUP);
    expect_reload(&manager, &subject, before);
    tunnel.process.wait_for_line("error reloading TLS configuration");
}

#[test]
fn ready_means_that_connections_are_served() {
    for mode in BOTH_MODES {
        let (pki, manager, listen) = (Pki::new(), Manager::at_a_path(), ReservedPort::new());
        let backend = echo_backend(mode, &pki);
        let process = command(mode, &pki, &listen, backend.address())
            .env("NOTIFY_SOCKET", &manager.name)
            .start();
        assert_eq!(manager.next(), "READY=1");
        assert!(ghostunnel_testing::is_listening(listen.port()), "{mode:?}");
        drop(process);
    }
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let (pki, manager, listen) = (Pki::new(), Manager::at_a_path(), ReservedPort::new());
    let backend = echo_backend(Mode::Server, &pki);
    replace(&pki.ca_file, "no certificate");
    let output = command(Mode::Server, &pki, &listen, backend.address())
        .env("NOTIFY_SOCKET", &manager.name)
        .run();
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(manager.pending(), [""; 0]);
}

#[test]
fn a_manager_that_is_not_there_does_not_matter() {
    for name in ["/nonexistent/notify", "@nobody-listens-here", "relative", ""] {
        let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
            command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "20000");
        });
        tunnel.visit();
        tunnel.process.signal(Signal::TERM);
        assert_eq!(tunnel.process.wait_exit(), Exit::Code(0), "{name}");
        assert_eq!(tunnel.process.stderr(), "", "{name}");
    }
}

#[test]
fn the_watchdog_is_fed_from_half_its_period_on_and_through_the_drain() {
    let manager = Manager::at_a_path();
    let start = Instant::now();
    let tunnel = manager.tunnel(Mode::Server, |command| {
        command.env("WATCHDOG_USEC", "200000");
    });
    assert_eq!(manager.next(), "READY=1");
    manager.next();
    for count in 1..=3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
        assert!(start.elapsed() >= count * Duration::from_millis(100));
    }
    let mut peer = tunnel.connect().expect("admitted");
    peer.echo(b"open").expect("open");
    tunnel.process.signal(Signal::TERM);
    assert_eq!(manager.next_event().0, "STOPPING=1");
    assert!(manager.next_event().0.starts_with("STATUS=stopping"));
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    tunnel.process.signal(Signal::TERM);
    assert_eq!(
        tunnel.process.wait_exit(),
        Exit::Signal(15),
        "the second one ends it at once"
    );
}

#[test]
fn another_process_s_watchdog_is_not_fed() {
    let manager = Manager::at_a_path();
    let tunnel = manager.tunnel(Mode::Server, |command| {
        command
            .env("WATCHDOG_USEC", "2000")
            .env("WATCHDOG_PID", std::process::id().to_string());
    });
    for _ in 0..3 {
        tunnel.visit();
    }
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_exit();
    assert!(!manager.pending().contains(&"WATCHDOG=1".to_owned()));
}

/// Holds single threads of a process, which goes on otherwise.
struct Debugger(Process);

impl Debugger {
    /// `None` if gdb is missing or may not look into other processes.
    fn attach(pid: u32) -> Option<Self> {
        let gdb = require_tool("gdb")?;
        let process = Command::new(gdb)
            .args(["-nx", "--readnever", "-q"])
            .env("DEBUGINFOD_URLS", "")
            .with_input()
            .start();
        let debugger = Self(process);
        debugger.say(&format!(
            "set pagination off\nset confirm off\nset non-stop on\nattach {pid}&"
        ));
        Some(debugger)
    }

    fn say(&self, commands: &str) {
        self.0.write_input(format!("{commands}\n").as_bytes());
    }

    /// Stops the thread of this name; `false` where that is not permitted.
    fn hold(&self, thread: &str) -> bool {
        let known = format!("has target name '{thread}'");
        let number = eventually_some("gdb knows the thread", || {
            let mark = self.0.mark();
            self.say(&format!("thread find {thread}"));
            let line = self.0.wait_for_line_after(mark, "hread");
            if line.contains(&known) {
                let number = line.split("Thread ").nth(1)?.split(' ').next()?;
                return Some(number.parse::<u32>().ok());
            }
            (self.0.count_lines("not permitted") > 0).then_some(None)
        });
        let Some(number) = number else {
            return false;
        };
        self.say(&format!("thread {number}\ninterrupt"));
        self.0.wait_for_line("stopped.");
        true
    }

    fn release(&self) {
        self.say("detach");
    }
}

#[test]
fn a_stuck_accept_loop_is_not_reported_as_alive() {
    let manager = Manager::at_a_path();
    let tunnel = manager.tunnel(Mode::Client, |command| {
        command.env("WATCHDOG_USEC", "600000");
    });
    manager.next();
    manager.next();
    assert_eq!(manager.next(), "WATCHDOG=1");
    let Some(debugger) = Debugger::attach(tunnel.process.id()) else {
        return;
    };
    let mark = tunnel.process.mark();
    // The first listener is served by the first worker.
    if !debugger.hold("worker-0") {
        skip("gdb may not look into other processes (kernel.yama.ptrace_scope)");
        return;
    }
    tunnel
        .process
        .wait_for_line_after(mark, "watchdog: an accept loop does not answer");
    manager.pending();
    // The status port is served by another thread, and answers while several keep-alives are
    // due.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(900) {
        assert_eq!(tunnel.get("/_metrics").status, 200);
    }
    assert_eq!(manager.pending(), [""; 0]);
    debugger.release();
    tunnel
        .process
        .wait_for_line("watchdog: all accept loops answer again");
    assert_eq!(manager.next(), "WATCHDOG=1");
    tunnel.visit();
}
