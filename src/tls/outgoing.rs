//! TLS for requests that this program makes by itself, such as posting metrics: no
//! certificate is shown, and the server is verified by the same rules as a tunnel's target.

use std::io;
use std::sync::Arc;

use ghostunnel_pki::Usage;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName as RustlsName;

use super::client::wire_name;
use super::options;
use super::verify::{Conditions, ServerVerifier, Verdict};
use crate::authorization::Rules;
use crate::credentials::Credentials;

/// What one connection needs.
pub struct Outgoing {
    config: Arc<ClientConfig>,
    name: RustlsName<'static>,
    verdict: Arc<Verdict>,
}

impl Outgoing {
    /// For a server that must prove to be `host`, a name or an IP address without brackets,
    /// by the trust anchors of these credentials.
    pub fn new(credentials: &Credentials, host: &str) -> Result<Self, rustls::Error> {
        let verdict = Arc::new(Verdict::default());
        let verifier = ServerVerifier {
            conditions: Arc::new(Conditions {
                anchors: Arc::clone(credentials.anchors()),
                bundles: None,
                rules: Rules {
                    all: true,
                    ..Rules::default()
                },
                usage: Usage::ServerAuth,
                server_name: Some(host.to_owned()),
            }),
            verdict: Arc::clone(&verdict),
        };
        let (name, send_name) = wire_name(host);
        let mut config = ClientConfig::builder_with_provider(options::provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_sni = send_name;
        Ok(Self {
            config: Arc::new(config),
            name,
            verdict,
        })
    }

    /// The configuration of the connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The name to begin the handshake with.
    pub fn name(&self) -> RustlsName<'static> {
        self.name.clone()
    }

    /// Why the handshake failed, in the words of the log: the verifier's, if it was the one
    /// that refused.
    pub fn explain(&self, error: &io::Error) -> String {
        match self.verdict.take_refusal() {
            Some(refusal) => refusal.text,
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
                _ => format!("tls: {error}"),
            },
        }
    }
}
