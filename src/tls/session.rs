//! The record layer of an established connection: plaintext in and out of caller-owned
//! buffers. This is the seam behind which another record engine can come.

use std::fmt;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{Error, HandshakeKind, ProtocolVersion};

use super::alert;

/// What sealing adds at most to 256 KiB of plaintext: 16 records of 29 bytes (TLS 1.2 with
/// AES-GCM), a key update that the peer asked for, and room for a close_notify.
pub const SEAL_OVERHEAD: usize = 4096;

/// More than any close_notify record: with two bytes of alert it takes 31 in TLS 1.2 with
/// AES-GCM and 24 in TLS 1.3; a key update that is owed may go ahead of it.
pub const CLOSE_NOTIFY_ROOM: usize = 256;

/// The longest stretch of bytes a peer may leave unfinished: rustls takes handshake messages of
/// up to 64 KiB, and lets messages that end within a record pile up behind each other.
pub(super) const LONGEST_UNOPENED: usize = 128 * 1024;

/// An established connection's keys and sequence numbers, on either side of TLS, and the
/// bytes of the peer that could not be opened yet.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    /// An incomplete record or handshake message; after the handshake whatever came behind it.
    /// rustls keeps positions in it and must be shown it on every call: with another buffer it
    /// panics.
    unopened: Vec<u8>,
    /// The peer has sent close_notify.
    peer_has_closed: bool,
    /// We have sent it. rustls would go on sealing.
    has_closed: bool,
    /// Set by the first failure, which every later call repeats: the engine's positions may
    /// then point anywhere.
    failure: Option<Error>,
}

/// Whether the peer goes on sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// More records may follow.
    Open,
    /// The peer has sent close_notify: no plaintext will follow.
    Closed,
}

/// Why records can't be opened or sealed any more.
#[derive(Debug, Clone)]
pub struct SessionError(Error);

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::AlertReceived(received) => write!(f, "remote error: tls: {}", alert::text(*received)),
            Error::DecryptError => f.write_str("local error: tls: bad record MAC"),
            Error::PeerSentOversizedRecord => f.write_str("local error: tls: record overflow"),
            Error::General(text) => write!(f, "tls: {text}"),
            other => write!(f, "tls: {other}"),
        }
    }
}

impl std::error::Error for SessionError {}

impl Session {
    pub(super) fn new(engine: Engine, unopened: Vec<u8>, peer_has_closed: bool) -> Self {
        Self {
            engine,
            unopened,
            peer_has_closed,
            has_closed: false,
            failure: None,
        }
    }

    /// What has arrived and could not be opened yet; at most 128 KiB once [`Session::open`] has
    /// been called, and before that what came behind the handshake.
    pub fn unopened(&self) -> &[u8] {
        &self.unopened
    }

    /// Opens all complete records in `input`, which is [`Session::unopened`] with new bytes
    /// behind it; appends their plaintext to `plain` and whatever the protocol owes the peer
    /// (alerts) to `reply`. To be called once without new bytes right after the handshake.
    ///
    /// On an error `reply` may hold the alert that tells the peer, and `plain` what was opened
    /// before the bad record; both are still to be delivered.
    pub fn open(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Opened, SessionError> {
        self.require_no_failure()?;
        let mut consumed = 0;
        loop {
            let rest = input.get_mut(consumed..).unwrap_or_default();
            let (discard, event) = self.engine.turn(rest, Some(plain), reply);
            consumed = consumed.saturating_add(discard);
            match event {
                Event::Plaintext | Event::Encoded | Event::Transmitted => {}
                Event::PeerClosed => self.peer_has_closed = true,
                Event::Closed | Event::Blocked | Event::MayWrite => break,
                Event::Failed(error) => {
                    self.engine.collect_alert(reply);
                    return Err(self.fail(error));
                }
            }
        }
        self.keep(input.get(consumed..).unwrap_or_default())
    }

    fn keep(&mut self, rest: &[u8]) -> Result<Opened, SessionError> {
        if self.peer_has_closed {
            // What follows close_notify is ignored (RFC 8446, section 6.1), now and later.
            self.unopened = Vec::new();
            return Ok(Opened::Closed);
        }
        if rest.len() > LONGEST_UNOPENED {
            return Err(self.fail(Error::General("handshake message is too long".to_owned())));
        }
        // An exact copy, so that nothing stays allocated when nothing is left.
        self.unopened = rest.to_vec();
        Ok(Opened::Open)
    }

    /// Seals `plain` into as few records as possible, written to the front of `out`; returns
    /// how many bytes of `out` are to be sent.
    ///
    /// `out` must have [`SEAL_OVERHEAD`] bytes more than `plain`, which may be up to 256 KiB.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, SessionError> {
        if self.has_closed {
            return Err(SessionError(Error::General("session is closed".to_owned())));
        }
        self.write(out, |writer, out| writer.encrypt(plain, out))
    }

    /// Writes close_notify to the front of `out` and returns its length: nothing can be sealed
    /// afterwards, but records of the peer can still be opened.
    pub fn close(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        self.has_closed = true;
        self.write(out, |writer, out| writer.close_notify(out))
    }

    /// The last words of a session that nobody will use: close_notify, or the alert that what
    /// the peer has sent meanwhile calls for. What else it has sent is dropped.
    pub fn hang_up(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        let mut input = std::mem::take(&mut self.unopened);
        if self.open(&mut input, &mut Vec::new(), &mut words).is_ok() {
            let mut alert = [0; CLOSE_NOTIFY_ROOM];
            let length = self.close(&mut alert).unwrap_or_default();
            words.extend_from_slice(alert.get(..length).unwrap_or_default());
        }
        words
    }

    fn write(
        &mut self,
        out: &mut [u8],
        action: impl Fn(&mut dyn Writer, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<usize, SessionError> {
        self.require_no_failure()?;
        let written = match &mut self.engine {
            Engine::Server(connection) => write(connection.as_mut(), &mut self.unopened, out, action),
            Engine::Client(connection) => write(connection.as_mut(), &mut self.unopened, out, action),
        };
        written.map_err(|error| self.fail(error))
    }

    fn require_no_failure(&self) -> Result<(), SessionError> {
        self.failure
            .as_ref()
            .map_or(Ok(()), |error| Err(SessionError(error.clone())))
    }

    fn fail(&mut self, error: Error) -> SessionError {
        self.unopened = Vec::new();
        self.failure = Some(error.clone());
        SessionError(error)
    }
}

/// rustls' two connection types behind one face. Boxed: a connection moves from the handshake
/// into the relay, and both futures should be small.
pub(super) enum Engine {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What one turn of the engine came to.
pub(super) enum Event {
    /// Plaintext was appended, or is waiting when nobody asked for it.
    Plaintext,
    /// Bytes for the peer were appended.
    Encoded,
    /// All bytes for the peer so far have been handed over.
    Transmitted,
    /// close_notify arrived; seen once.
    PeerClosed,
    /// Both sides have closed.
    Closed,
    /// More bytes from the peer are needed to go on.
    Blocked,
    /// Nothing more to do with the input; application data may be sent.
    MayWrite,
    Failed(Error),
}

trait Side {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

impl Engine {
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Server(connection) => connection.is_handshaking(),
            Self::Client(connection) => connection.is_handshaking(),
        }
    }

    pub(super) fn protocol_version(&self) -> Option<ProtocolVersion> {
        match self {
            Self::Server(connection) => connection.protocol_version(),
            Self::Client(connection) => connection.protocol_version(),
        }
    }

    /// The peer's leaf certificate, empty without one, if the handshake has resumed a session.
    pub(super) fn resumed_leaf(&self) -> Option<Vec<u8>> {
        let (kind, chain) = match self {
            Self::Server(connection) => (connection.handshake_kind(), connection.peer_certificates()),
            Self::Client(connection) => (connection.handshake_kind(), connection.peer_certificates()),
        };
        let leaf = || chain.and_then(<[_]>::first).map(|leaf| leaf.to_vec());
        (kind == Some(HandshakeKind::Resumed)).then(|| leaf().unwrap_or_default())
    }

    pub(super) fn application_protocol(&self) -> Option<Vec<u8>> {
        let negotiated = match self {
            Self::Server(connection) => connection.alpn_protocol(),
            Self::Client(connection) => connection.alpn_protocol(),
        };
        negotiated.map(<[u8]>::to_vec)
    }

    /// Lets rustls make one step; returns how many bytes of `input` it is done with.
    pub(super) fn turn(
        &mut self,
        input: &mut [u8],
        plain: Option<&mut Vec<u8>>,
        out: &mut Vec<u8>,
    ) -> (usize, Event) {
        match self {
            Self::Server(connection) => turn(connection.as_mut(), input, plain, out),
            Self::Client(connection) => turn(connection.as_mut(), input, plain, out),
        }
    }

    /// After a failure: appends the alert that rustls has ready for the peer, if any.
    ///
    /// Nothing is processed, or the failed record would fail, and be answered, once more.
    pub(super) fn collect_alert(&mut self, out: &mut Vec<u8>) {
        while self.wants_write() {
            let (_, Event::Encoded) = self.turn(&mut [], None, out) else {
                return;
            };
        }
    }

    fn wants_write(&self) -> bool {
        match self {
            Self::Server(connection) => connection.wants_write(),
            Self::Client(connection) => connection.wants_write(),
        }
    }
}

fn turn<S: Side>(
    side: &mut S,
    input: &mut [u8],
    plain: Option<&mut Vec<u8>>,
    out: &mut Vec<u8>,
) -> (usize, Event) {
    let status = side.process(input);
    let mut discard = status.discard;
    let event = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let Some(plain) = plain else {
                return (discard, Event::Plaintext);
            };
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard = discard.saturating_add(record.discard);
                        plain.extend_from_slice(record.payload);
                    }
                    Err(error) => return (discard, Event::Failed(error)),
                }
            }
            Event::Plaintext
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = out.len();
            match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(needed)) => {
                    out.resize(start.saturating_add(needed.required_size), 0);
                    let room = out.get_mut(start..).unwrap_or_default();
                    match data.encode(room) {
                        Ok(_) => Event::Encoded,
                        Err(_) => Event::Failed(Error::General("handshake data did not fit".to_owned())),
                    }
                }
                _ => Event::Encoded,
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Event::Transmitted
        }
        Ok(ConnectionState::PeerClosed) => Event::PeerClosed,
        Ok(ConnectionState::Closed) => Event::Closed,
        Ok(ConnectionState::BlockedHandshake) => Event::Blocked,
        Ok(ConnectionState::WriteTraffic(_)) => Event::MayWrite,
        // Early data is never enabled, and a state that this release doesn't know can't be served.
        Ok(_) => Event::Failed(Error::General("unexpected TLS state".to_owned())),
        Err(error) => Event::Failed(error),
    };
    (discard, event)
}

/// The two things that can be written once a connection is established.
trait Writer {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Writer for rustls::unbuffered::WriteTraffic<'_, Data> {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        rustls::unbuffered::WriteTraffic::encrypt(self, plain, out)
    }

    fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

fn write<S: Side>(
    side: &mut S,
    unopened: &mut Vec<u8>,
    out: &mut [u8],
    action: impl Fn(&mut dyn Writer, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<usize, Error> {
    let failed = |error: &dyn fmt::Display| Error::General(error.to_string());
    let mut written = 0_usize;
    loop {
        let room = out.get_mut(written..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = side.process(unopened);
        let (length, is_done) = match state? {
            ConnectionState::WriteTraffic(mut writer) => {
                let length = action(&mut writer, room).map_err(|error| failed(&error))?;
                (length, true)
            }
            // The answer to something that the peer sent goes out ahead of our data.
            ConnectionState::EncodeTlsData(mut data) => {
                (data.encode(room).map_err(|error| failed(&error))?, false)
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                (0, false)
            }
            ConnectionState::PeerClosed => (0, false),
            _ => return Err(Error::General("session is closed".to_owned())),
        };
        unopened.drain(..discard.min(unopened.len()));
        written = written.saturating_add(length);
        if is_done {
            return Ok(written);
        }
    }
}

#[cfg(test)]
mod tests;
