//! The two tunnels, as child processes of the same binary.

use std::borrow::Cow;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::certificates::Files;
use super::leftovers::Leftovers;
use crate::cli::{self, Breakage};

/// How long a tunnel may take to listen, or to log what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server tunnel and a client tunnel, up and listening; both are among the [`Leftovers`].
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
        leftovers: &Leftovers,
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
        let server = Tunnel::start("server tunnel", arguments, leftovers)?;

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
        let client = Tunnel::start("client tunnel", arguments, leftovers)?;
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

    /// The first error of a connection that the client tunnel logs, which may come later than
    /// the end of the connection; nothing if there is none.
    pub(super) fn client_error(&self) -> Option<String> {
        self.client.log.wait_for("error on ")
    }

    /// Waits until both tunnels have ended, by whatever.
    pub(super) fn wait_for_end(&self) {
        self.server.log.wait_until_closed();
        self.client.log.wait_until_closed();
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

/// One child process, by its log.
struct Tunnel {
    arguments: Vec<String>,
    log: Arc<Log>,
}

impl Tunnel {
    fn start(name: &str, arguments: Vec<String>, leftovers: &Leftovers) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let stdout = leftovers.add(|kept| {
            let mut child =
                spawn(&program, &arguments).with_context(|| format!("cannot start the {name}"))?;
            let stdout = child.stdout.take();
            kept.children.push(child);
            stdout.context("the tunnel's log is not connected")
        })?;
        let log = Log::collect(stdout);
        if log.wait_for("listening for connections on").is_none() {
            bail!("the {name} did not start; its log says:\n{}", log.text());
        }
        Ok(Self { arguments, log })
    }

    fn command_line(&self) -> String {
        let words: Vec<_> = self.arguments.iter().map(|word| quoted(word)).collect();
        format!("ghostunnel {}", words.join(" "))
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''")).into()
    }
}

/// Variables that stand for flags are meant for the tunnels of somebody else.
fn spawn(program: &Path, arguments: &[String]) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    for variable in cli::variables() {
        command.env_remove(variable);
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Lines that a tunnel has logged so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    /// Follows a stream to its end.
    fn collect(stream: ChildStdout) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.push(line);
            }
            lines.close();
        });
        log
    }

    /// Waits for the end of the tunnel.
    fn wait_until_closed(&self) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _closed = self.grown.wait_while(lines, |lines| !lines.1);
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted_whatever_the_temporary_directory_is_called() {
        for (word, expected) in [
            ("--listen", "--listen"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("/tmp/it's $HOME", r"'/tmp/it'\''s $HOME'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
