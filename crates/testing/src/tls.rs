//! TLS peers for both sides of a tunnel, with a hand on every way to end a stream.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use crate::ca::{Authority, Issued};
use crate::forge::Forger;
use crate::stream::{Address, End, Plain};

/// A TLS version to insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

type Versions = &'static [&'static SupportedProtocolVersion];
static BOTH_VERSIONS: Versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
static ONLY_V12: Versions = &[&rustls::version::TLS12];
static ONLY_V13: Versions = &[&rustls::version::TLS13];

impl Version {
    /// All there are.
    pub const BOTH: [Self; 2] = [Self::V12, Self::V13];

    fn only(self) -> Versions {
        match self {
            Self::V12 => ONLY_V12,
            Self::V13 => ONLY_V13,
        }
    }
}

/// A client that makes TLS connections: trusts one authority, asks for `localhost`, shows no
/// certificate and resumes no session unless told otherwise.
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    identity: Option<Issued>,
    server_name: String,
    versions: Versions,
    provider: CryptoProvider,
    resumes: bool,
    /// Built at the first connection and kept, because sessions to resume live in it.
    config: OnceLock<Arc<ClientConfig>>,
}

impl TlsClient {
    /// A client that trusts this authority.
    pub fn trusting(authority: &Authority) -> Self {
        Self::with_roots(roots(authority))
    }

    /// A client that trusts the one certificate of a PEM file.
    pub fn trusting_file(path: &Path) -> Self {
        Self::with_roots(roots_of_file(path))
    }

    fn with_roots(roots: Arc<RootCertStore>) -> Self {
        Self {
            roots,
            identity: None,
            server_name: "localhost".to_owned(),
            versions: BOTH_VERSIONS,
            provider: aws_lc_rs::default_provider(),
            resumes: false,
            config: OnceLock::new(),
        }
    }

    /// Shows this certificate when asked for one.
    #[must_use]
    pub fn identity(mut self, identity: &Issued) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// Asks for this server, and checks that its certificate says so.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.server_name);
        self
    }

    /// Offers this version only.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.versions = version.only();
        self
    }

    /// Lists these key exchange groups only, and sends a share for the first.
    #[must_use]
    pub fn groups(mut self, groups: &[NamedGroup]) -> Self {
        let known = aws_lc_rs::ALL_KX_GROUPS;
        let named = |name: &NamedGroup| known.iter().find(|group| group.name() == *name);
        self.provider.kx_groups = groups
            .iter()
            .map(|name| *named(name).expect("a group of the library"))
            .collect();
        self
    }

    /// Resumes sessions of earlier connections of this client where the server lets it.
    #[must_use]
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// Connects and shakes hands.
    ///
    /// In TLS 1.3 this succeeds before the server has judged the client's certificate: a
    /// refusal shows as the end of the first read.
    pub fn connect(&self, address: &Address) -> Result<TlsPeer, End> {
        let socket = Plain::connect(address).map_err(|error| End::from(&error))?;
        self.handshake(socket)
    }

    /// Shakes hands over a stream that is connected already.
    pub fn handshake(&self, socket: Plain) -> Result<TlsPeer, End> {
        TlsPeer::handshake(self.session(), Arc::new(socket))
    }

    /// A session without a socket, for whoever carries its bytes himself.
    pub fn session(&self) -> Connection {
        let config = self.config.get_or_init(|| Arc::new(self.build()));
        let name = ServerName::try_from(self.server_name.clone()).expect("a DNS name or IP address");
        let session = ClientConnection::new(Arc::clone(config), name).expect("a client can always start");
        session.into()
    }

    fn build(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(self.versions)
            .expect("the provider serves both versions")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(certified(identity)),
        };
        if !self.resumes {
            config.resumption = Resumption::disabled();
        }
        config.enable_secret_extraction = true;
        config
    }
}

/// Whether a [`TlsServer`] asks for a certificate.
#[derive(Clone)]
pub enum ClientCertificates {
    /// Does not ask.
    Unasked,
    /// Asks, and lets peers in without.
    Optional(Arc<RootCertStore>),
    /// Refuses peers without.
    Required(Arc<RootCertStore>),
}

impl ClientCertificates {
    /// Certificates of this authority may be shown.
    pub fn optional(authority: &Authority) -> Self {
        Self::Optional(roots(authority))
    }

    /// A certificate of this authority must be shown.
    pub fn required(authority: &Authority) -> Self {
        Self::Required(roots(authority))
    }

    /// A certificate of the authority in a PEM file must be shown.
    pub fn required_by_file(path: &Path) -> Self {
        Self::Required(roots_of_file(path))
    }
}

/// The server side of TLS, for a backend behind a client-mode tunnel.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// A server with this certificate. Accepts every version the library knows.
    pub fn new(identity: &Issued, clients: &ClientCertificates) -> Self {
        Self::build(identity, clients, BOTH_VERSIONS)
    }

    /// A server that speaks this version only.
    pub fn with_version(identity: &Issued, clients: &ClientCertificates, version: Version) -> Self {
        Self::build(identity, clients, version.only())
    }

    /// Shakes hands over an accepted stream.
    pub fn handshake(&self, socket: Plain) -> Result<TlsPeer, End> {
        self.handshake_shared(Arc::new(socket))
    }

    pub(crate) fn handshake_shared(&self, socket: Arc<Plain>) -> Result<TlsPeer, End> {
        TlsPeer::handshake(self.session(), socket)
    }

    /// A session without a socket, for whoever carries its bytes himself.
    pub fn session(&self) -> Connection {
        let session = ServerConnection::new(Arc::clone(&self.config)).expect("a server can always start");
        session.into()
    }

    fn build(identity: &Issued, clients: &ClientCertificates, versions: Versions) -> Self {
        let verifier = |roots| WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = match clients {
            ClientCertificates::Unasked => Ok(WebPkiClientVerifier::no_client_auth()),
            ClientCertificates::Optional(roots) => {
                verifier(Arc::clone(roots)).allow_unauthenticated().build()
            }
            ClientCertificates::Required(roots) => verifier(Arc::clone(roots)).build(),
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider serves both versions")
            .with_client_cert_verifier(verifier.expect("there is a root"))
            .with_cert_resolver(certified(identity));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        Self {
            config: Arc::new(config),
        }
    }
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.trust_anchor())
        .expect("an authority is a trust anchor");
    Arc::new(roots)
}

fn roots_of_file(path: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(path).expect("a certificate in PEM");
    roots.add(certificate).expect("an authority is a trust anchor");
    Arc::new(roots)
}

/// Certificate and key as they are: rustls' own way refuses a key that does not belong to the
/// certificate, and certificates of version 1.
fn certified(identity: &Issued) -> Arc<SingleCertAndKey> {
    let key =
        aws_lc_rs::sign::any_supported_type(&identity.private_key()).expect("keys of all kinds can sign");
    Arc::new(CertifiedKey::new(identity.chain(), key).into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version.
    pub version: ProtocolVersion,
    /// The name the client asked for; on the server's side only.
    pub server_name: Option<String>,
    /// What the peer showed, leaf first; empty if nothing.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
    /// The key exchange group; `None` for a session of TLS 1.2 that was resumed.
    pub group: Option<NamedGroup>,
    /// Whether the server asked for another hello.
    pub is_retried: bool,
}

/// One end of an established TLS stream. Dropping it closes the connection without
/// close_notify.
#[derive(Debug)]
pub struct TlsPeer {
    session: Connection,
    socket: Arc<Plain>,
}

impl TlsPeer {
    fn handshake(session: Connection, socket: Arc<Plain>) -> Result<Self, End> {
        let mut peer = Self { session, socket };
        let result = peer.session.complete_io(&mut &*peer.socket);
        if let Err(error) = result {
            // `complete_io` writes once, which may not reach to the alert.
            let _ = peer.flush();
            return Err(End::from(&error));
        }
        Ok(peer)
    }

    /// What the handshake agreed on.
    pub fn facts(&self) -> TlsFacts {
        let server_name = match &self.session {
            Connection::Client(_) => None,
            Connection::Server(session) => session.server_name().map(str::to_owned),
        };
        TlsFacts {
            version: self
                .session
                .protocol_version()
                .expect("the handshake is complete"),
            server_name,
            peer_certificates: self.session.peer_certificates().unwrap_or_default().to_vec(),
            is_resumed: self.session.handshake_kind() == Some(HandshakeKind::Resumed),
            group: self
                .session
                .negotiated_key_exchange_group()
                .map(|group| group.name()),
            is_retried: self.session.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest),
        }
    }

    /// The stream below TLS.
    pub fn socket(&self) -> &Plain {
        &self.socket
    }

    /// Sends close_notify and goes on reading; the TCP connection stays open both ways.
    pub fn end_writing(&mut self) {
        self.session.send_close_notify();
        // A peer that is gone already shows when the test reads.
        let _ = self.flush();
    }

    /// The keys and the stream, for whoever wants to break the rules.
    pub fn into_forger(self) -> (Forger, Arc<Plain>) {
        (Forger::new(self.session), self.socket)
    }

    /// Closes the connection without close_notify.
    pub fn close_abruptly(self) {
        self.socket.end();
    }

    /// Closes the connection with a reset.
    pub fn reset(self) {
        self.socket.reset_when_dropped();
    }

    /// Sends the alert of a peer that could not open a record: a fatal bad_record_mac.
    pub fn send_fatal_alert(&mut self) {
        // As if garbage had arrived: nothing but a failure makes the library send one.
        let mut garbage: &[u8] = &[&[23, 3, 3, 0, 32], [0; 32].as_slice()].concat();
        let _ = self.session.read_tls(&mut garbage);
        let _ = self.session.process_new_packets();
        let _ = self.flush();
    }

    /// Two halves for two threads, as a peer needs that sends and receives at once.
    /// Dropping both closes the connection without close_notify.
    pub fn split(self) -> (TlsReceiver, TlsSender) {
        let shared = Arc::new(Halves {
            session: Mutex::new(self.session),
            socket: self.socket,
        });
        let receiver = TlsReceiver {
            shared: Arc::clone(&shared),
            opened: Vec::new(),
        };
        (receiver, TlsSender { shared })
    }

    /// Reads from the socket into the session.
    fn receive(&mut self) -> io::Result<()> {
        self.session.read_tls(&mut &*self.socket)?;
        if let Err(error) = self.session.process_new_packets() {
            // The alert that says what is wrong with the peer's bytes.
            let _ = self.flush();
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.flush()
    }
}

impl Read for TlsPeer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                result => return result,
            }
        }
    }
}

impl Write for TlsPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut &*self.socket)?;
        }
        Ok(())
    }
}

/// What both halves of a split [`TlsPeer`] need.
struct Halves {
    session: Mutex<Connection>,
    socket: Arc<Plain>,
}

impl Halves {
    fn session(&self) -> MutexGuard<'_, Connection> {
        self.session.lock().expect("no holder panics")
    }
}

/// The receiving half of a [`TlsPeer`]. Sends nothing, not even an alert.
pub struct TlsReceiver {
    shared: Arc<Halves>,
    opened: Vec<u8>,
}

impl TlsReceiver {
    fn receive(&mut self) -> io::Result<()> {
        let mut sealed = vec![0; 64 * 1024];
        let length = (&*self.shared.socket).read(&mut sealed)?;
        let mut rest = &sealed[..length];
        let mut session = self.shared.session();
        // At least once: an empty read tells the session of the end.
        loop {
            session.read_tls(&mut rest)?;
            let state = session
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let held = self.opened.len();
            self.opened.resize(held + state.plaintext_bytes_to_read(), 0);
            session.reader().read_exact(&mut self.opened[held..])?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Read for TlsReceiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.opened.is_empty() {
            let result = self.shared.session().reader().read(buffer);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                result => return result,
            }
        }
        let length = self.opened.as_slice().read(buffer)?;
        self.opened.drain(..length);
        Ok(length)
    }
}

/// The sending half of a [`TlsPeer`].
pub struct TlsSender {
    shared: Arc<Halves>,
}

impl TlsSender {
    /// Sends close_notify; the TCP connection stays open both ways.
    pub fn end_writing(&mut self) {
        self.shared.session().send_close_notify();
        // A peer that is gone already shows when the other half reads.
        let _ = self.flush();
    }
}

impl Write for TlsSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.shared.session().writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        {
            let mut session = self.shared.session();
            while session.wants_write() {
                session.write_tls(&mut sealed)?;
            }
        }
        // Not under the lock: a peer that is read by nobody must still be able to read.
        (&*self.shared.socket).write_all(&sealed)
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;
    use crate::ca::{Pki, Request};
    use crate::stream::read_to_end;
    use crate::{Backend, Behaviour};

    #[test]
    fn both_sides_know_each_other_in_both_versions() {
        let pki = Pki::new();
        for version in Version::BOTH {
            let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
            let backend = Backend::tls(server, Behaviour::Echo);
            let client = TlsClient::trusting(&pki.authority)
                .identity(&pki.client)
                .version(version);
            let mut peer = client.connect(backend.address()).expect("a trusted peer");
            peer.write_all(b"hello").expect("open");
            peer.end_writing();
            assert_eq!(read_to_end(&mut peer), (b"hello".to_vec(), End::Closed));

            let facts = backend.connection(0).tls().expect("complete");
            assert_eq!(facts.peer_certificates, pki.client.chain());
            assert_eq!(facts.server_name.as_deref(), Some("localhost"));
            assert_eq!(peer.facts().peer_certificates, pki.server.chain());
            assert_eq!(
                (peer.facts().version, peer.facts().is_resumed),
                (facts.version, false)
            );
        }
    }

    #[test]
    fn refusals_arrive_as_alerts() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(server, Behaviour::Echo);
        let mut peer = TlsClient::trusting(&pki.authority)
            .connect(backend.address())
            .expect("not refused yet");
        assert_eq!(
            read_to_end(&mut peer).1,
            End::Alert(AlertDescription::CertificateRequired)
        );

        let distrustful = TlsClient::trusting(&pki.other_authority);
        assert!(matches!(
            distrustful.connect(backend.address()),
            Err(End::Failed(_))
        ));
        assert_eq!(
            backend.connection(1).wait_end(),
            End::Alert(AlertDescription::UnknownCA)
        );
    }

    #[test]
    fn certificates_do_not_help_without_their_key() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(server, Behaviour::Echo);
        let thief = pki.client.clone().with_key_of(&pki.stranger);
        let mut peer = TlsClient::trusting(&pki.authority)
            .identity(&thief)
            .connect(backend.address())
            .expect("not refused yet");
        assert_eq!(
            read_to_end(&mut peer).1,
            End::Alert(AlertDescription::DecryptError)
        );
    }

    #[test]
    fn chains_through_intermediates_are_sent() {
        let pki = Pki::new();
        let middle = pki.authority.intermediate(&Request::named("middle"));
        let identity = middle.issue(&Request::named("deep").dns("localhost"));
        let backend = Backend::tls(
            TlsServer::new(&identity, &ClientCertificates::Unasked),
            Behaviour::Sink,
        );
        let peer = TlsClient::trusting(&pki.authority)
            .connect(backend.address())
            .expect("a whole chain");
        assert_eq!(peer.facts().peer_certificates.len(), 2);
    }

    #[test]
    fn every_way_to_end_a_stream_is_told_from_the_others() {
        let pki = Pki::new();
        let backend = Backend::tls(
            TlsServer::new(&pki.server, &ClientCertificates::Unasked),
            Behaviour::Sink,
        );
        let client = TlsClient::trusting(&pki.authority);
        let connect = || {
            client
                .connect(backend.address())
                .expect("a server without conditions")
        };

        connect().end_writing();
        assert_eq!(backend.connection(0).wait_end(), End::Closed);
        connect().close_abruptly();
        assert_eq!(backend.connection(1).wait_end(), End::Truncated);
        connect().reset();
        assert_eq!(backend.connection(2).wait_end(), End::Reset);
    }

    #[test]
    fn halves_send_and_receive_at_once() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Echo);
        let peer = TlsClient::trusting(&pki.authority)
            .connect(backend.address())
            .expect("trusted");
        let (mut receiver, mut sender) = peer.split();
        let bytes: Vec<u8> = (0..3_000_000).map(Backend::source_byte).collect();
        let echoed = std::thread::scope(|scope| {
            let echoed = scope.spawn(|| read_to_end(&mut receiver));
            sender.write_all(&bytes).expect("open");
            sender.end_writing();
            echoed.join().expect("reading does not panic")
        });
        assert!(echoed == (bytes, End::Closed));
    }

    #[test]
    fn a_fatal_alert_can_be_sent() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::Unasked);
        let backend = Backend::tls(server, Behaviour::Sink);
        let mut peer = TlsClient::trusting(&pki.authority)
            .connect(backend.address())
            .expect("trusted");
        peer.send_fatal_alert();
        let end = backend.connection(0).wait_end();
        assert_eq!(end, End::Alert(AlertDescription::BadRecordMac));
    }
}
