//! The data plane: accept, handshake, dial, relay.

use std::num::NonZeroU32;
use std::time::Duration;

/// Timeouts and limits of one tunnel (spec network.md section 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `--connect-timeout`: one budget for handshake and dial together. Zero stands for
    /// a negative flag value: every connection fails at once.
    pub connect_timeout: Duration,
    /// `--close-timeout`: how long the other direction may go on after one has ended.
    pub close_timeout: Duration,
    /// `--max-conn-lifetime`: absolute limit from the moment both ends are joined.
    pub max_lifetime: Option<Duration>,
    /// `--max-concurrent-conns`: connections held at once; `None` is unlimited.
    pub max_concurrent: Option<NonZeroU32>,
}
