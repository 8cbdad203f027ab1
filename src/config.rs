//! Everything the process was told to do, already validated.
//!
//! A value that exists is a value that is allowed: nothing downstream looks at
//! strings from argv. The unit of configuration is a [`Tunnel`]; a process holds
//! a list of them beside settings that belong to the process as a whole.

use std::sync::Arc;
use std::time::Duration;

pub use crate::tls::ClientAuth;
use crate::{authorization, credentials, lifecycle, metrics, net, proxy, sandbox, status, tls};

/// A validated configuration: process-wide settings and the tunnels to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the process serves. The command line makes exactly one.
    pub tunnels: Vec<Arc<Tunnel>>,
    /// The status port, if asked for with `--status`.
    pub status: Option<status::Settings>,
    /// Names and consumers of metrics.
    pub metrics: metrics::Settings,
    /// How the process confines itself.
    pub sandbox: sandbox::Settings,
    /// Reload and shutdown.
    pub lifecycle: lifecycle::Settings,
}

/// One tunnel: who may connect where, and with which credentials.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Where peers connect (`--listen`).
    pub listen: net::ListenAddr,
    /// Where admitted connections go (`--target`).
    pub target: net::TargetAddr,
    /// Whether the target's name is looked up once at start, so that a typo stops the
    /// start (`--skip-resolve` turns it off).
    pub resolve_at_start: bool,
    /// Which end speaks TLS, and whom it lets in.
    pub mode: Mode,
    /// Where certificate, key and trust anchors come from.
    pub credentials: credentials::Selection,
    /// Versions and cipher suites, also those of the status port.
    pub tls: tls::Options,
    /// Timeouts and the concurrency limit.
    pub limits: proxy::Limits,
}

/// Which end of a tunnel speaks TLS.
#[derive(Debug, Clone)]
pub enum Mode {
    /// TLS in, plaintext out.
    Server {
        /// Whether peers must show a certificate, and which ones are let in.
        client_auth: ClientAuth,
        /// What the target is told of each peer in a PROXY protocol header, if anything.
        header: Option<proxy::HeaderDetail>,
        /// Who tells in a PROXY protocol header whom it passes on; then everybody must.
        announcers: Option<Arc<proxy::Announcers>>,
        /// How the status port asks the target how it is; `None` to see that it accepts.
        target_status: Option<Arc<net::HttpUrl>>,
    },
    /// Plaintext in, TLS out.
    Client {
        /// The name the server must prove and that is sent as SNI.
        server_name: tls::ServerName,
        /// Further conditions on the server's certificate; empty means none.
        verify: authorization::Rules,
    },
}

impl Mode {
    /// The word users know the mode by: `server` or `client`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::Client { .. } => "client",
        }
    }
}

impl Config {
    /// The longest time any tunnel gives a connection to be set up; also the limit
    /// for reading a request head on the status port.
    pub fn connect_timeout(&self) -> Duration {
        self.tunnels
            .iter()
            .map(|tunnel| tunnel.limits.connect_timeout)
            .max()
            .unwrap_or_default()
    }
}
