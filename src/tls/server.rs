//! Server configurations: built from credentials, replaced whole, one for each connection.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ghostunnel_pki::Usage;
use rustls::DistinguishedName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig, UnbufferedServerConnection,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::ClientAuth;
use super::handshake::Handshake;
use super::hello::Hello;
use super::options::{Options, Protocol};
use super::session::Engine;
use super::tickets::TicketKeys;
use super::verify::{ClientVerifier, Conditions, Verdict};
#[cfg(test)]
use crate::authorization::Rules;
use crate::credentials::Credentials;

/// The credentials hold no certificate with a key, so nothing can be served with them.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("certificate cannot be used as a server")]
pub struct NotServable;

/// The TLS side of a listener: follows the credentials and gives every connection a
/// configuration of its own. Shared by all workers.
#[derive(Debug)]
pub struct ServerConfigs {
    client_auth: ClientAuth,
    protocol: Protocol,
    parts: ArcSwap<Parts>,
}

/// What the connections of one configuration share.
#[derive(Debug)]
struct Parts {
    resolver: Arc<SingleCertAndKey>,
    /// `None` with `--disable-authentication`.
    peers: Option<Peers>,
    /// Whether steps of a handshake may take long.
    may_block: bool,
    ticket_keys: TicketKeys,
}

#[derive(Debug)]
struct Peers {
    conditions: Arc<Conditions>,
    hints: Arc<[DistinguishedName]>,
}

impl ServerConfigs {
    /// Builds the first configuration.
    pub fn new(
        credentials: &Credentials,
        client_auth: ClientAuth,
        options: Options,
    ) -> Result<Self, NotServable> {
        let parts = ArcSwap::from_pointee(Parts::new(credentials, &client_auth)?);
        Ok(Self {
            client_auth,
            protocol: Protocol::new(options),
            parts,
        })
    }

    /// Makes handshakes that start from now on use these credentials. Connections that are
    /// open, or in the middle of a handshake, keep theirs.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), NotServable> {
        self.parts
            .store(Arc::new(Parts::new(credentials, &self.client_auth)?));
        Ok(())
    }

    /// Other rules with the same keys for tickets, which no reload can bring about.
    #[cfg(test)]
    pub(super) fn with_rules(self, credentials: &Credentials, rules: Rules) -> Self {
        let client_auth = ClientAuth::Required(rules);
        let fresh = Parts::new(credentials, &client_auth).expect("they were good before");
        let old = Arc::into_inner(self.parts.into_inner()).expect("no handshake is under way");
        let parts = ArcSwap::from_pointee(Parts {
            ticket_keys: old.ticket_keys,
            ..fresh
        });
        Self {
            client_auth,
            parts,
            ..self
        }
    }

    /// A handshake with a peer that has just connected, by the newest configuration.
    pub fn handshake(&self) -> Result<Handshake, rustls::Error> {
        let parts = self.parts.load_full();
        let verdict = Arc::new(Verdict::default());
        let engine = parts.engine(&verdict, &self.protocol)?;
        let (asks_for_certificate, may_block) = (parts.peers.is_some(), parts.may_block);
        let protocol = self.protocol.clone();
        Ok(Handshake::new(engine, verdict, asks_for_certificate)
            .which_may_block(may_block)
            .undecided(Undecided { parts, protocol }))
    }
}

/// What can still be decided for a connection until rustls sees the client's hello.
#[derive(Debug)]
pub(super) struct Undecided {
    parts: Arc<Parts>,
    protocol: Protocol,
}

impl Undecided {
    /// Whether a client that could do better was made to try an older version.
    pub(super) fn is_inappropriate_fallback(&self, hello: &Hello) -> bool {
        self.protocol.is_inappropriate_fallback(hello)
    }

    /// The engine for this client, where the usual one would choose otherwise.
    pub(super) fn engine_for(&self, hello: &Hello, verdict: &Arc<Verdict>) -> Option<Engine> {
        let protocol = Protocol {
            provider: self.protocol.provider_for(hello)?,
            ..self.protocol.clone()
        };
        self.parts.engine(verdict, &protocol).ok()
    }
}

impl Parts {
    fn new(credentials: &Credentials, client_auth: &ClientAuth) -> Result<Self, NotServable> {
        let identity = credentials.identity().ok_or(NotServable)?;
        let peers = match client_auth {
            ClientAuth::Disabled => None,
            ClientAuth::Required(rules) => Some(Peers {
                hints: match rules.replace_path() {
                    // A client that looks for a certificate of one of these would find none.
                    true => Arc::default(),
                    false => hints(credentials),
                },
                conditions: Arc::new(Conditions {
                    anchors: Arc::clone(credentials.anchors()),
                    bundles: credentials.bundles().cloned(),
                    rules: rules.clone(),
                    usage: Usage::ClientAuth,
                    server_name: None,
                }),
            }),
        };
        Ok(Self {
            resolver: Arc::new(SingleCertAndKey::from(identity.certified_key())),
            peers,
            may_block: identity.is_remote(),
            ticket_keys: TicketKeys::default(),
        })
    }

    fn config(&self, verdict: &Arc<Verdict>, protocol: &Protocol) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&protocol.provider))
            .with_protocol_versions(protocol.versions)?;
        let builder = match &self.peers {
            None => builder.with_no_client_auth(),
            Some(peers) => builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                conditions: Arc::clone(&peers.conditions),
                hints: Arc::clone(&peers.hints),
                verdict: Arc::clone(verdict),
            })),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver {
            own: Arc::clone(&self.resolver),
            verdict: Arc::clone(verdict),
        }));
        config.ignore_client_order = true;
        without_resumption(&mut config);
        Ok(config)
    }

    fn engine(&self, verdict: &Arc<Verdict>, protocol: &Protocol) -> Result<Engine, rustls::Error> {
        let mut config = self.config(verdict, protocol)?;
        self.enable_tickets(&mut config, verdict);
        let connection = UnbufferedServerConnection::new(Arc::new(config))?;
        Ok(Engine::Server(Box::new(connection)))
    }

    /// Gives the client one ticket for its next connection, as Ghostunnel 1.11.1 does, and takes
    /// one of an earlier connection.
    fn enable_tickets(&self, config: &mut ServerConfig, verdict: &Arc<Verdict>) {
        let conditions = self.peers.as_ref().map(|peers| Arc::clone(&peers.conditions));
        if let Some(ticketer) = self.ticket_keys.ticketer(conditions, Arc::clone(verdict)) {
            config.ticketer = ticketer;
            config.send_tls13_tickets = 1;
        }
    }
}

/// The authorities whose certificates clients are asked for.
fn hints(credentials: &Credentials) -> Arc<[DistinguishedName]> {
    let subjects = credentials.anchors().subjects();
    subjects
        .map(|der| DistinguishedName::from(der.to_vec()))
        .collect()
}

/// Serves every client with the one certificate, and remembers the name it asked for: rustls'
/// unbuffered connections don't tell it.
#[derive(Debug)]
struct Resolver {
    own: Arc<SingleCertAndKey>,
    verdict: Arc<Verdict>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            self.verdict.record_server_name(name);
        }
        self.own.resolve(hello)
    }
}

/// rustls resumes sessions by default, and does not ask the verifier when it does: a peer
/// that has been thrown out of the rules would stay in for the life of its session. Tickets of
/// our own make up for that; sessions in memory don't.
fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// The configuration of the TLS status port: the tunnel's own certificate, no client
/// certificate asked. `None` when the credentials have no certificate.
pub fn status_config(credentials: &Credentials, options: Options) -> Option<Arc<ServerConfig>> {
    let parts = Parts::new(credentials, &ClientAuth::Disabled).ok()?;
    parts
        .config(&Arc::default(), &Protocol::new(options))
        .ok()
        .map(Arc::new)
}
