//! This room's state machines against sessions of a TLS library, in memory: every byte and
//! every piece that travels is the test's choice.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};

use ghostunnel_testing::{Pki, TlsClient, TlsServer, Version};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Connection, SignatureAlgorithm, SignatureScheme};

use super::{
    ClientAuth, ClientConfigs, Established, Handshake, HandshakeError, Opened, Options, Progress,
    ServerConfigs, ServerName, Session, SessionError,
};
use crate::authorization::Rules;
use crate::credentials::{Credentials, Identity, OwnIdentity, Password, Selection, Store, Trust};

/// Credentials on disk, and configurations made of them.
pub(crate) struct Scene {
    pub(crate) pki: Pki,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { pki: Pki::new() }
    }

    /// What a server tunnel has.
    pub(crate) fn server_credentials(&self) -> Arc<Credentials> {
        self.store(&self.pki.server_files).current()
    }

    fn store(&self, files: &ghostunnel_testing::Files) -> Store {
        let selection = Selection {
            identity: Identity::Pair {
                cert: files.certificate.clone(),
                key: files.key.clone(),
                password: Password::None,
            },
            trust: Trust::Bundle(self.pki.ca_file.clone()),
        };
        Store::load(&selection).expect("the files are good")
    }

    pub(crate) fn server_configs(&self, client_auth: ClientAuth) -> ServerConfigs {
        let credentials = self.server_credentials();
        ServerConfigs::new(&credentials, client_auth, Options::default()).expect("there is a certificate")
    }

    /// A server that admits every client of the authority, and whose signatures wait for `gate`.
    pub(crate) fn server_with_remote_key(&self, gate: &Arc<Gate>) -> ServerConfigs {
        let credentials = self.server_credentials();
        let local = credentials.identity().expect("there is a certificate");
        let key = GatedKey {
            key: Arc::clone(local.signing_key()),
            gate: Arc::clone(gate),
        };
        let remote = OwnIdentity::remote(local.chain().to_vec(), Arc::new(key)).expect("a pair");
        let credentials = credentials.with_identity(remote);
        ServerConfigs::new(
            &credentials,
            ClientAuth::Required(everybody()),
            Options::default(),
        )
        .expect("there is a certificate")
    }

    /// Our side as a server that admits every client of the authority.
    pub(crate) fn server(&self) -> Handshake {
        let configs = self.server_configs(ClientAuth::Required(everybody()));
        configs.handshake().expect("a server can always start")
    }

    /// Our side as a client that admits every server of the authority for this name.
    pub(crate) fn client(&self, name: &str) -> Handshake {
        let store = self.store(&self.pki.client_files);
        let name = ServerName {
            text: name.to_owned(),
        };
        let configs = ClientConfigs::new(&store.current(), name, everybody(), Options::default());
        configs.handshake().expect("a client can always start")
    }

    /// A client that our server admits.
    pub(crate) fn good_client(&self, version: Version) -> Peer {
        let client = TlsClient::trusting(&self.pki.authority).identity(&self.pki.client);
        Peer::new(client.version(version).session())
    }

    /// A server that our client admits, and that wants a certificate itself.
    pub(crate) fn good_server(&self, version: Version) -> Peer {
        let clients = ghostunnel_testing::ClientCertificates::required(&self.pki.authority);
        Peer::new(TlsServer::with_version(&self.pki.server, &clients, version).session())
    }

    /// Both sides of an established connection, ours as server or as client.
    pub(crate) fn established(&self, version: Version, side: OurSide) -> (Session, Peer) {
        let (ours, mut peer) = match side {
            OurSide::Server => (self.server(), self.good_client(version)),
            OurSide::Client => (self.client("localhost"), self.good_server(version)),
        };
        let established = shake_hands(ours, &mut peer, usize::MAX).expect("good peers");
        (established.session, peer)
    }
}

/// Which side of the connection is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurSide {
    Server,
    Client,
}

/// All four ways to be connected.
pub(crate) const ALL: [(Version, OurSide); 4] = [
    (Version::V12, OurSide::Server),
    (Version::V12, OurSide::Client),
    (Version::V13, OurSide::Server),
    (Version::V13, OurSide::Client),
];

pub(crate) fn everybody() -> Rules {
    Rules {
        all: true,
        ..Rules::default()
    }
}

/// Where signatures wait until they are let through.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_open: bool,
    waiting: usize,
}

impl Gate {
    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().expect("no holder panics").waiting
    }

    /// Lets through who waits, and who will come.
    pub(crate) fn open(&self) {
        self.state.lock().expect("no holder panics").is_open = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.waiting += 1;
        let waited = self.changed.wait_while(state, |state| !state.is_open);
        waited.expect("no holder panics").waiting -= 1;
    }
}

/// A key that is elsewhere: it signs when its gate is open.
#[derive(Debug)]
struct GatedKey {
    key: Arc<dyn SigningKey>,
    gate: Arc<Gate>,
}

impl SigningKey for GatedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.key.choose_scheme(offered)?;
        let gate = Arc::clone(&self.gate);
        Some(Box::new(GatedSigner { signer, gate }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct GatedSigner {
    signer: Box<dyn Signer>,
    gate: Arc<Gate>,
}

impl Signer for GatedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.gate.pass();
        self.signer.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

/// The other end, and what travels from it.
pub(crate) struct Peer {
    pub(crate) session: Connection,
    /// Why the other end gave up.
    pub(crate) error: Option<rustls::Error>,
    /// Plaintext that it has read.
    pub(crate) received: Vec<u8>,
    wire: VecDeque<u8>,
}

impl Peer {
    pub(crate) fn new(session: Connection) -> Self {
        Self {
            session,
            error: None,
            received: Vec::new(),
            wire: VecDeque::new(),
        }
    }

    /// The next bytes it sends, at most so many.
    pub(crate) fn take(&mut self, most: usize) -> Vec<u8> {
        while self.session.wants_write() {
            let mut bytes = Vec::new();
            self.session
                .write_tls(&mut bytes)
                .expect("memory takes everything");
            self.wire.extend(bytes);
        }
        self.wire.drain(..most.min(self.wire.len())).collect()
    }

    /// Lets it read bytes of ours.
    pub(crate) fn give(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            self.session.read_tls(&mut bytes).expect("room");
            self.error = self.session.process_new_packets().err();
            // The end of the plaintext is told as an error.
            let _would_block = self.session.reader().read_to_end(&mut self.received);
        }
    }

    /// The records with this plaintext.
    pub(crate) fn say(&mut self, text: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for piece in text.chunks(16 * 1024) {
            self.session.writer().write_all(piece).expect("room");
            records.extend(self.take(usize::MAX));
        }
        records
    }

    pub(crate) fn say_goodbye(&mut self) -> Vec<u8> {
        self.session.send_close_notify();
        self.take(usize::MAX)
    }
}

/// Shakes hands; our side gets the peer's bytes in pieces of this size.
pub(crate) fn shake_hands(
    ours: Handshake,
    peer: &mut Peer,
    piece: usize,
) -> Result<Established, HandshakeError> {
    shake_hands_in_pieces(ours, peer, std::iter::repeat(piece))
}

/// Shakes hands; our side gets the peer's bytes in pieces of these sizes.
pub(crate) fn shake_hands_in_pieces(
    mut ours: Handshake,
    peer: &mut Peer,
    mut pieces: impl Iterator<Item = usize>,
) -> Result<Established, HandshakeError> {
    loop {
        let progress = ours.step();
        peer.give(&ours.outgoing());
        if progress? == Progress::Done {
            return ours.finish();
        }
        let piece = peer.take(pieces.next().expect("enough pieces"));
        assert!(!piece.is_empty(), "both sides wait: {:?}", peer.error);
        ours.receive(&piece);
    }
}

/// What came of opening bytes.
pub(crate) struct Heard {
    pub(crate) result: Result<Opened, SessionError>,
    pub(crate) plain: Vec<u8>,
    pub(crate) reply: Vec<u8>,
}

/// Opens bytes behind those that the session keeps, as the relay does.
pub(crate) fn hear(session: &mut Session, bytes: &[u8]) -> Heard {
    let mut input = [session.unopened(), bytes].concat();
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    let result = session.open(&mut input, &mut plain, &mut reply);
    Heard { result, plain, reply }
}

/// Seals this plaintext.
pub(crate) fn speak(session: &mut Session, text: &[u8]) -> Result<Vec<u8>, SessionError> {
    let mut out = vec![0; text.len() + super::SEAL_OVERHEAD];
    let length = session.seal(text, &mut out)?;
    out.truncate(length);
    Ok(out)
}

/// Says close_notify.
pub(crate) fn close(session: &mut Session) -> Result<Vec<u8>, SessionError> {
    let mut out = vec![0; super::CLOSE_NOTIFY_ROOM];
    let length = session.close(&mut out)?;
    out.truncate(length);
    Ok(out)
}
