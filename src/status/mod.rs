//! The status port: `/_status`, `/_metrics`, `/_shutdown`.

use crate::net::ListenAddr;

/// The status port as configured with `--status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens (scheme prefix removed).
    pub listen: ListenAddr,
    /// Plain HTTP or HTTPS with the tunnel's own certificate.
    pub transport: Transport,
    /// `--enable-shutdown`: whether `POST /_shutdown` exists.
    pub enable_shutdown: bool,
}

/// How the status port is served (spec network.md 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `http://` prefix, or a UNIX socket.
    Http,
    /// `https://` or no prefix: TLS if the credentials can serve, else plain HTTP.
    Https,
}
