//! The life of the process: signals, reload requests, phases, drain.
//!
//! This room turns what the operator does into intents, keeps the state that others follow,
//! and tells the service manager of it. It neither reloads nor shuts down anything itself:
//! `app` does.

mod drain;
mod notify;
mod pulse;
mod reload;
mod signals;
mod state;

use std::time::Duration;

pub use drain::{Drain, DrainGuard};
pub use notify::Notifier;
pub use pulse::{Heartbeat, Pulse};
pub use reload::{ReloadRequester, ReloadRequests, ReloadTrigger, reload_channel};
pub use signals::{Intent, Intents, ShutdownTrigger, Signals};
pub use state::{Lifecycle, Phase, ReloadRecord, State};

/// Process-wide settings of reload and shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--timed-reload`: reload this often; `None` when off (zero or negative).
    pub timed_reload: Option<Duration>,
    /// `--shutdown-timeout`: how long open connections may finish after a shutdown was
    /// asked for. Zero (also for negative values) does not wait.
    pub shutdown_timeout: Duration,
}
