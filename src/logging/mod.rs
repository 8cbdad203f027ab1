//! The program's own log: set-up, classes that `--quiet` silences, line layout, and a
//! queue that never lets a slow log reader hold up the data path.

/// Classes of log lines, used as `tracing` targets: `tracing::info!(target: class::CONNS, ...)`.
/// Lines without one of these targets belong to the life of the process and are
/// silenced by `--quiet=all` only.
pub mod class {
    /// Opening and closing of connections (`--quiet=conns`).
    pub const CONNS: &str = "conns";
    /// Accept, dial and copy errors (`--quiet=conn-errs`).
    pub const CONN_ERRS: &str = "conn-errs";
    /// Failed TLS handshakes of the proxy's listener (`--quiet=handshake-errs`).
    pub const HANDSHAKE_ERRS: &str = "handshake-errs";
}

/// What to log (`--quiet`, repeatable).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--quiet=all`: nothing at all.
    pub quiet_all: bool,
    /// `--quiet=conns`.
    pub quiet_conns: bool,
    /// `--quiet=conn-errs`.
    pub quiet_conn_errs: bool,
    /// `--quiet=handshake-errs`.
    pub quiet_handshake_errs: bool,
}
