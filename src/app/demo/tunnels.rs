//! The two tunnels, as child processes of the same binary.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::certificates::Files;
use crate::cli::Breakage;

/// How long a tunnel may take to listen, or to log what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server tunnel and a client tunnel, up and listening; killed with this value.
pub(super) struct Tunnels {
    server: Tunnel,
    client: Tunnel,
    server_port: ReservedPort,
    client_port: ReservedPort,
    status_port: ReservedPort,
}

impl Tunnels {
    /// Starts both and waits until they listen.
    pub(super) fn start(
        files: &Files,
        backend: SocketAddr,
        breakage: Option<Breakage>,
    ) -> anyhow::Result<Self> {
        let (server_port, client_port, status_port) =
            (ReservedPort::new()?, ReservedPort::new()?, ReservedPort::new()?);
        let access: &[&str] = if breakage == Some(Breakage::Stranger) {
            &["--allow-all"]
        } else {
            &["--allow-cn", "client"]
        };
        let mut arguments = strings(&["server", "--listen"]);
        arguments.extend([
            server_port.address.to_string(),
            "--target".to_owned(),
            backend.to_string(),
        ]);
        arguments.extend(credentials(files, "server", "cacert.pem"));
        arguments.extend(strings(access));
        arguments.extend(["--status".to_owned(), format!("http://{}", status_port.address)]);
        let server = Tunnel::start("server tunnel", arguments)?;

        let bundle = if breakage == Some(Breakage::Ca) {
            "other-cacert.pem"
        } else {
            "cacert.pem"
        };
        let mut arguments = strings(&["client", "--listen"]);
        arguments.extend([
            client_port.address.to_string(),
            "--target".to_owned(),
            server_port.address.to_string(),
        ]);
        arguments.extend(credentials(files, "client", bundle));
        let client = Tunnel::start("client tunnel", arguments)?;
        Ok(Self {
            server,
            client,
            server_port,
            client_port,
            status_port,
        })
    }

    /// Where the server tunnel speaks TLS.
    pub(super) fn server_address(&self) -> SocketAddr {
        self.server_port.address
    }

    /// Where the client tunnel takes plaintext.
    pub(super) fn client_address(&self) -> SocketAddr {
        self.client_port.address
    }

    /// The server tunnel's status port, plain HTTP.
    pub(super) fn status_address(&self) -> SocketAddr {
        self.status_port.address
    }

    /// What the server tunnel said of its sandbox, in a few words.
    pub(super) fn sandbox(&self) -> String {
        let troubled = |line: &String| {
            line.contains("landlock") && (line.contains("note:") || line.contains("warning:"))
        };
        match self.server.log.find(troubled) {
            Some(line) => line,
            None => "Landlock is on in both tunnels".to_owned(),
        }
    }

    /// The command lines of both tunnels, ready to paste.
    pub(super) fn commands(&self) -> Vec<String> {
        [&self.server, &self.client].map(Tunnel::command_line).to_vec()
    }

    /// Waits for a line of the server tunnel's log that contains `phrase`.
    pub(super) fn server_logs(&self, phrase: &str) -> anyhow::Result<String> {
        self.server
            .log
            .wait_for(phrase)
            .with_context(|| format!("the server tunnel never logged {phrase:?}"))
    }

    /// The last error that the client tunnel logged, if there is one.
    pub(super) fn client_error(&self) -> Option<String> {
        self.client.log.find(|line| line.contains("error"))
    }

    /// Waits until the tunnels, which get the terminal's Ctrl-C like this process, have ended.
    pub(super) fn wait_for_interrupt(mut self) -> anyhow::Result<()> {
        super::ignore_interrupts()?;
        self.server
            .child
            .wait()
            .context("cannot wait for the server tunnel")?;
        self.client
            .child
            .wait()
            .context("cannot wait for the client tunnel")?;
        Ok(())
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn credentials(files: &Files, name: &str, bundle: &str) -> Vec<String> {
    let path = |file: &str| files.path(file).display().to_string();
    vec![
        "--cert".to_owned(),
        path(&format!("{name}-cert.pem")),
        "--key".to_owned(),
        path(&format!("{name}-key.pem")),
        "--cacert".to_owned(),
        path(bundle),
    ]
}

/// One child process and its log.
struct Tunnel {
    child: Child,
    arguments: Vec<String>,
    log: Arc<Log>,
}

impl Tunnel {
    fn start(name: &str, arguments: Vec<String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let child = spawn(&program, &arguments).with_context(|| format!("cannot start the {name}"))?;
        let mut tunnel = Self {
            child,
            arguments,
            log: Arc::default(),
        };
        tunnel.collect_log()?;
        if tunnel.log.wait_for("listening for connections on").is_none() {
            bail!("the {name} did not start; its log says:\n{}", tunnel.log.text());
        }
        Ok(tunnel)
    }

    fn collect_log(&mut self) -> anyhow::Result<()> {
        let stdout = self
            .child
            .stdout
            .take()
            .context("the tunnel's log is not connected")?;
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                log.push(line);
            }
            log.close();
        });
        Ok(())
    }

    fn command_line(&self) -> String {
        let words: Vec<_> = self
            .arguments
            .iter()
            .map(|word| word.replace(' ', "\\ "))
            .collect();
        format!("ghostunnel {}", words.join(" "))
    }
}

fn spawn(program: &Path, arguments: &[String]) -> std::io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // It may have ended by itself; either way it must not outlive the demo.
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Lines that a tunnel has logged so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    fn push(&self, line: String) {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push(line);
        self.grown.notify_all();
    }

    fn close(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.grown.notify_all();
    }

    fn find(&self, wanted: impl Fn(&String) -> bool) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().rev().find(|line| wanted(line)).cloned()
    }

    fn text(&self) -> String {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .join("\n")
    }

    /// The first line with the phrase, once there is one; nothing when the tunnel has ended or
    /// time is up.
    fn wait_for(&self, phrase: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.0.iter().find(|line| line.contains(phrase)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return None;
            }
            lines = self
                .grown
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A free port, kept for a child: bound, so that nobody else is given it, but not listening,
/// and shared, so that the child can bind it too.
struct ReservedPort {
    address: SocketAddr,
    _socket: Socket,
}

impl ReservedPort {
    fn new() -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket
            .local_addr()?
            .as_socket()
            .context("a TCP socket has no TCP address")?;
        Ok(Self {
            address,
            _socket: socket,
        })
    }
}
