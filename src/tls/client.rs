//! Client configurations: built from credentials, replaced whole, one for each connection.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ghostunnel_pki::Usage;
use rustls::client::UnbufferedClientConnection;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName as RustlsName;
use rustls::sign::SingleCertAndKey;

use super::ServerName;
use super::handshake::Handshake;
use super::options::{Options, Protocol};
use super::session::Engine;
use super::verify::{Conditions, ServerVerifier, Verdict};
use crate::authorization::Rules;
use crate::credentials::Credentials;

/// The TLS side of a client tunnel's dial: follows the credentials and gives every
/// connection a configuration of its own. Shared by all workers.
#[derive(Debug)]
pub struct ClientConfigs {
    name: ServerName,
    rules: Rules,
    protocol: Protocol,
    parts: ArcSwap<Parts>,
}

/// What the connections of one configuration share.
#[derive(Debug)]
struct Parts {
    resolver: Option<Arc<SingleCertAndKey>>,
    conditions: Arc<Conditions>,
    /// Whether steps of a handshake may take long.
    may_block: bool,
}

impl ClientConfigs {
    /// Builds the first configuration.
    pub fn new(credentials: &Credentials, name: ServerName, rules: Rules, options: Options) -> Self {
        let parts = ArcSwap::from_pointee(Parts::new(credentials, &name, &rules));
        Self {
            name,
            rules,
            protocol: Protocol::new(options),
            parts,
        }
    }

    /// Makes dials that start from now on use these credentials.
    pub fn renew(&self, credentials: &Credentials) {
        self.parts
            .store(Arc::new(Parts::new(credentials, &self.name, &self.rules)));
    }

    /// A handshake with a server that has just been reached, by the newest configuration.
    pub fn handshake(&self) -> Result<Handshake, rustls::Error> {
        let parts = self.parts.load();
        let verdict = Arc::new(Verdict::default());
        let (name, send_name) = wire_name(&self.name.text);
        let config = parts.config(&verdict, send_name, &self.protocol)?;
        let connection = UnbufferedClientConnection::new(Arc::new(config), name)?;
        Ok(
            Handshake::new(Engine::Client(Box::new(connection)), verdict, true)
                .which_may_block(parts.may_block),
        )
    }
}

impl Parts {
    fn new(credentials: &Credentials, name: &ServerName, rules: &Rules) -> Self {
        Self {
            resolver: credentials
                .presented()
                .map(|own| Arc::new(SingleCertAndKey::from(own.certified_key()))),
            conditions: Arc::new(Conditions {
                anchors: Arc::clone(credentials.anchors()),
                bundles: credentials.bundles().cloned(),
                rules: rules.clone(),
                usage: Usage::ServerAuth,
                server_name: Some(name.text.clone()),
            }),
            may_block: credentials.identity().is_some_and(|own| own.is_remote()),
        }
    }

    fn config(
        &self,
        verdict: &Arc<Verdict>,
        send_name: bool,
        protocol: &Protocol,
    ) -> Result<ClientConfig, rustls::Error> {
        let verifier = ServerVerifier {
            conditions: Arc::clone(&self.conditions),
            verdict: Arc::clone(verdict),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&protocol.provider))
            .with_protocol_versions(protocol.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.resolver {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::clone(own) as Arc<_>),
        };
        // Every dial is a full handshake: a resumed one would not verify the server again.
        config.resumption = Resumption::disabled();
        config.enable_sni = send_name;
        Ok(config)
    }
}

/// The name rustls puts into the hello, and whether it may be sent at all. A text that is no
/// host name can't be sent; the verifier, which compares the text itself, will refuse the
/// server in its own words.
pub(super) fn wire_name(text: &str) -> (RustlsName<'static>, bool) {
    // Trailing dots are not sent; rustls would take off one (RFC 6066, section 3).
    match RustlsName::try_from(text.trim_end_matches('.').to_owned()) {
        Ok(name) => (name, true),
        Err(_) => (
            RustlsName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
            false,
        ),
    }
}
