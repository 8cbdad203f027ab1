//! The status port: `/_status`, `/_metrics`, `/_shutdown`, `/debug/pprof/`.
//!
//! Shows what the process and its tunnels are doing and takes one order, to shut down.
//! It has no access control of its own: who can reach the port can use it. `app` starts
//! it, hands in what it shows, and carries out what it is asked for.

mod apart;
mod check;
mod deadline;
mod health;
mod pprof;
mod routes;
mod seats;
mod secure;
mod server;
mod target_status;
#[cfg(test)]
mod tests;

use crate::net::ListenAddr;

pub use health::{CertificateView, HealthCheck, SandboxView, TunnelView, WorkloadApiView};
pub use pprof::Census;
pub use secure::TlsConfig;
pub use server::{ConfigSource, Listen, Scheme, Sources, serve};
pub use target_status::{Reach, ask};

/// The status port as configured with `--status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens (scheme prefix removed).
    pub listen: ListenAddr,
    /// Plain HTTP or HTTPS with the tunnel's own certificate.
    pub transport: Transport,
    /// `--enable-shutdown`: whether `POST /_shutdown` exists.
    pub enable_shutdown: bool,
    /// `--enable-pprof`: the command line without secrets, if profiles are served.
    pub profiles: Option<Vec<u8>>,
    /// `--drain-status`: whether the port stays open until the process ends, rather than until
    /// the drain begins.
    pub stays_open: bool,
}

/// How the status port was asked to be served. What is really spoken is a [`Scheme`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `http://` prefix, or a UNIX socket.
    Http,
    /// No prefix: TLS if the credentials can serve, else plain HTTP.
    PreferHttps,
    /// `https://` prefix.
    Https,
}
