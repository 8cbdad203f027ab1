//! Where the process stands: its phase and its last reload, published whole.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::Notifier;

/// The phase the process is in. Displays as the word that `/_status` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is served yet.
    Initializing,
    /// Connections are served.
    Listening,
    /// Connections are served while credentials and policies are read again.
    Reloading,
    /// The drain has begun. Final.
    Stopping,
}

impl Phase {
    /// Whether new connections are served.
    pub fn is_serving(self) -> bool {
        match self {
            Self::Listening | Self::Reloading => true,
            Self::Initializing | Self::Stopping => false,
        }
    }
}

impl Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Initializing => "initializing",
            Self::Listening => "listening",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
        })
    }
}

/// A reload that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadRecord {
    /// When it began.
    pub at: SystemTime,
    /// How it ended; an error leaves what was in force before.
    pub result: Result<(), String>,
}

/// A consistent view of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The phase.
    pub phase: Phase,
    /// The last reload that is over, if there was one.
    pub last_reload: Option<ReloadRecord>,
}

/// Publishes the state; `app` writes it, the status port follows it, and the service manager
/// is told of each phase.
#[derive(Clone)]
pub struct Lifecycle {
    state: Arc<watch::Sender<State>>,
    notifier: Notifier,
    subject: Arc<str>,
}

impl Lifecycle {
    /// A process that has just started, and that no service manager waits for.
    pub fn new() -> Self {
        Self::announcing(Notifier::default(), String::new())
    }

    /// A process that has just started. The service manager is told of the phases as they
    /// begin, each of them, however short; `subject` says what the process is for.
    pub fn announcing(notifier: Notifier, subject: String) -> Self {
        let state = State {
            phase: Phase::Initializing,
            last_reload: None,
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
            notifier,
            subject: subject.into(),
        }
    }

    /// Enters a phase. [`Phase::Stopping`] is final: reloads go on during a drain, and
    /// must not make the process look alive again.
    pub fn set_phase(&self, phase: Phase) {
        if self.state.send_if_modified(|state| enter(state, phase)) {
            self.notifier.announce(phase, &self.subject);
        }
    }

    /// Ends a reload that began at `at`: shows it as the last one and, in the same update,
    /// goes back to [`Phase::Listening`].
    ///
    /// Callers watch the time of the last reload and rely on the new material from the
    /// moment it changes, so call this when the material is in force, not before.
    pub fn reload_finished(&self, at: SystemTime, result: Result<(), String>) {
        let mut is_listening_again = false;
        self.state.send_modify(|state| {
            state.last_reload = Some(ReloadRecord { at, result });
            is_listening_again = enter(state, Phase::Listening);
        });
        if is_listening_again {
            self.notifier.announce(Phase::Listening, &self.subject);
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Waits until the phase is as wanted. Cancel-safe.
    pub async fn phase_becomes(&self, is_wanted: impl Fn(Phase) -> bool) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.subscribe().wait_for(|state| is_wanted(state.phase)).await;
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

fn enter(state: &mut State, phase: Phase) -> bool {
    let changes = state.phase != phase && state.phase != Phase::Stopping;
    if changes {
        state.phase = phase;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_reload_and_the_phase_change_in_one_update() {
        let lifecycle = Lifecycle::new();
        lifecycle.set_phase(Phase::Listening);
        lifecycle.set_phase(Phase::Reloading);
        assert_eq!(lifecycle.state().last_reload, None);
        let mut follower = lifecycle.subscribe();
        follower.borrow_and_update();
        let at = SystemTime::now();
        lifecycle.reload_finished(at, Err("no such file".to_owned()));
        assert!(follower.has_changed().expect("the sender lives"));
        let expected = State {
            phase: Phase::Listening,
            last_reload: Some(ReloadRecord {
                at,
                result: Err("no such file".to_owned()),
            }),
        };
        assert_eq!(*follower.borrow_and_update(), expected);
        assert!(!follower.has_changed().expect("the sender lives"));
    }

    #[test]
    fn a_reload_during_the_drain_does_not_revive_the_process() {
        let lifecycle = Lifecycle::new();
        lifecycle.set_phase(Phase::Stopping);
        lifecycle.set_phase(Phase::Reloading);
        assert_eq!(lifecycle.state().phase, Phase::Stopping);
        lifecycle.reload_finished(SystemTime::now(), Ok(()));
        assert_eq!(lifecycle.state().phase, Phase::Stopping);
        assert!(lifecycle.state().last_reload.is_some());
    }
}
