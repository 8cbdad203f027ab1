//! The life of the process: signals, reload requests, phases, drain.

use std::time::Duration;

/// Process-wide settings of reload and shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--timed-reload`: reload this often; `None` when off (zero or negative).
    pub timed_reload: Option<Duration>,
    /// `--shutdown-timeout`: how long open connections may finish after a shutdown was
    /// asked for. Zero (also for negative values) does not wait.
    pub shutdown_timeout: Duration,
}
