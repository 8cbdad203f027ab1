//! What the modules on operation share: a running tunnel with a status port, seen from both
//! of its ends and by its operator.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, End, Endpoint, Pki, Plain, Process,
    ReservedPort, Response, Signal, TlsClient, TlsPeer, TlsServer, eventually_some,
};
use serde_json::Value;

use crate::support;

/// Which end of the tunnel speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Server,
    Client,
}

pub(crate) const BOTH_MODES: [Mode; 2] = [Mode::Server, Mode::Client];

/// A tunnel to an echo backend, with a status port that speaks plain HTTP. A server tunnel
/// lets every verified client in.
pub(crate) struct Tunnel {
    pub(crate) mode: Mode,
    pub(crate) pki: Pki,
    pub(crate) backend: Backend,
    pub(crate) listen: ReservedPort,
    pub(crate) status: ReservedPort,
    pub(crate) process: Process,
}

impl Tunnel {
    pub(crate) fn start(mode: Mode) -> Self {
        Self::start_with(mode, |_, _| {})
    }

    /// Starts with what `adapt` adds to the command line.
    pub(crate) fn start_with(mode: Mode, adapt: impl FnOnce(&mut Command, &Pki)) -> Self {
        let pki = Pki::new();
        let backend = echo_backend(mode, &pki);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let mut command = command(mode, &pki, &listen, backend.address());
        command.flag("--status", format!("http://{}", status.address()));
        adapt(&mut command, &pki);
        let process = command.start();
        process.wait_listening(status.port());
        Self {
            mode,
            pki,
            backend,
            listen,
            status,
            process,
        }
    }

    /// Connects the way the usual client of the tunnel does.
    pub(crate) fn connect(&self) -> Result<Peer, End> {
        self.client().connect(&self.listen.address().into())
    }

    /// The usual client of the tunnel.
    pub(crate) fn client(&self) -> Client {
        match self.mode {
            Mode::Server => Client::Tls(Box::new(
                TlsClient::trusting(&self.pki.authority).identity(&self.pki.client),
            )),
            Mode::Client => Client::Plain,
        }
    }

    /// One connection from its beginning to its end, with an answer from the backend.
    #[track_caller]
    pub(crate) fn visit(&self) {
        let mut peer = self.connect().expect("admitted");
        peer.echo(b"hello").expect("answered");
        peer.close().expect("closed in good order");
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        get(&self.status, path)
    }

    /// The body of `/_status`.
    pub(crate) fn status_report(&self) -> Value {
        self.get("/_status").json()
    }

    pub(crate) fn last_reload(&self) -> String {
        text(&self.status_report(), "last_reload")
    }

    /// Asks for a reload and waits until the status port shows that it is over. Gives the report
    /// that first said so.
    #[track_caller]
    pub(crate) fn reload(&self) -> Value {
        let before = self.last_reload();
        self.process.signal(Signal::HUP);
        eventually_some("last_reload has changed", || {
            let report = self.status_report();
            (text(&report, "last_reload") != before).then_some(report)
        })
    }

    /// The value of a metric, by its whole name.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&self.get("/_metrics/json"), &format!("ghostunnel.{name}"))
    }
}

/// A command line of either mode with the usual credentials.
pub(crate) fn command(mode: Mode, pki: &Pki, listen: &ReservedPort, target: &Address) -> Command {
    match mode {
        Mode::Server => {
            let mut command = support::server(pki, listen, target);
            command.arg("--allow-all");
            command
        }
        Mode::Client => support::client(pki, listen, target),
    }
}

/// What echoes behind a tunnel of this mode.
pub(crate) fn echo_backend(mode: Mode, pki: &Pki) -> Backend {
    match mode {
        Mode::Server => Backend::tcp(Behaviour::Echo),
        Mode::Client => Backend::tls(
            TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority)),
            Behaviour::Echo,
        ),
    }
}

pub(crate) fn get(status: &ReservedPort, path: &str) -> Response {
    Endpoint::Http(&status.address().into())
        .get(path)
        .unwrap_or_else(|end| panic!("{path} was not answered: {end:?}"))
}

/// A string of a JSON object.
pub(crate) fn text(report: &Value, key: &str) -> String {
    let value = report[key].as_str();
    value
        .unwrap_or_else(|| panic!("{key} is no string in {report}"))
        .to_owned()
}

/// A value out of the answer of `/_metrics/json`, by its whole name.
pub(crate) fn metric(answer: &Response, name: &str) -> f64 {
    let metrics = answer.json();
    let entries = metrics.as_array().expect("an array");
    let mut values = entries.iter().filter(|entry| entry["metric"] == name);
    let value = values.next().and_then(|entry| entry["value"].as_f64());
    assert!(values.next().is_none(), "{name} is there twice in {metrics}");
    value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

/// What comes to a tunnel. Can be used from several threads.
pub(crate) enum Client {
    Tls(Box<TlsClient>),
    Plain,
}

impl Client {
    pub(crate) fn connect(&self, address: &Address) -> Result<Peer, End> {
        match self {
            Self::Tls(client) => client.connect(address).map(|peer| Peer::Tls(Box::new(peer))),
            Self::Plain => Plain::connect(address)
                .map(Peer::Plain)
                .map_err(|error| End::from(&error)),
        }
    }
}

/// The client's end of a connection.
pub(crate) enum Peer {
    Tls(Box<TlsPeer>),
    Plain(Plain),
}

impl Peer {
    /// Sends these bytes and waits for them to come back.
    pub(crate) fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream();
        stream.write_all(bytes)?;
        let mut answer = vec![0; bytes.len()];
        stream.read_exact(&mut answer)?;
        assert!(answer == bytes, "other bytes came back");
        Ok(())
    }

    /// Ends its own direction and waits for the other to end in good order.
    pub(crate) fn close(mut self) -> Result<(), End> {
        match &mut self {
            Self::Tls(peer) => peer.end_writing(),
            Self::Plain(stream) => stream.end_writing(),
        }
        match ghostunnel_testing::read_to_end(self.stream()) {
            (_, End::Closed) => Ok(()),
            (_, end) => Err(end),
        }
    }

    pub(crate) fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Tls(peer) => peer.as_mut(),
            Self::Plain(stream) => stream,
        }
    }
}

pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Puts a file in the place of another in one step.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).expect("writable");
    std::fs::rename(&fresh, path).expect("renamed");
}

/// The message of a log line, behind process id and time.
pub(crate) fn message(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or_default()
}

/// Ends the threads of a test also when an assertion fails.
pub(crate) struct SetWhenDropped<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
