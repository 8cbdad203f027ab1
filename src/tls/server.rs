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
use super::options::{Options, Protocol};
use super::session::Engine;
use super::verify::{ClientVerifier, Conditions, Verdict};
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

    /// A handshake with a peer that has just connected, by the newest configuration.
    pub fn handshake(&self) -> Result<Handshake, rustls::Error> {
        let parts = self.parts.load();
        let verdict = Arc::new(Verdict::default());
        let config = parts.config(&verdict, &self.protocol)?;
        let connection = UnbufferedServerConnection::new(Arc::new(config))?;
        let asks_for_certificate = parts.peers.is_some();
        Ok(Handshake::new(
            Engine::Server(Box::new(connection)),
            verdict,
            asks_for_certificate,
        )
        .which_may_block(parts.may_block))
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
        without_resumption(&mut config);
        Ok(config)
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
/// that has been thrown out of the rules would stay in for the life of its ticket.
fn without_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.ignore_client_order = true;
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
