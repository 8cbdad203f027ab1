//! Sessions that are used again, and replaced when they or their token are lost.
//!
//! A PKCS#11 session does one thing at a time, so there are as many as there are signatures
//! at once, up to a bound. A lost session costs the caller nothing: the next one is tried, then
//! a new one, then one of a module that was started anew.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::failure::Failure;

/// Sessions at most: as many as there are handshake steps of one tunnel at once.
pub(super) const MOST_SESSIONS: usize = 16;

/// How long to wait for a session where all are in use.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a module that was started anew is left alone: each handshake with a token that is
/// gone would start it otherwise.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Where sessions come from.
pub(super) trait Device {
    /// Logged in, with the key at hand.
    type Session;

    /// For messages.
    fn name(&self) -> String;

    /// A new session.
    fn open(&self) -> Result<Self::Session, Failure>;

    /// Ends a session that may still be valid.
    fn close(&self, session: Self::Session);

    /// Starts the module anew; all sessions are void then. Nobody is using any.
    fn restart(&self) -> Result<(), Failure>;
}

/// The sessions of one key.
pub(super) struct Pool<D: Device> {
    device: D,
    state: Mutex<State<D::Session>>,
    changed: Condvar,
    patience: Duration,
}

struct State<S> {
    idle: Vec<S>,
    /// Sessions that are used or being opened.
    leased: usize,
    most: usize,
    is_restarting: bool,
    restarted: Option<Instant>,
    is_lost: bool,
}

/// How a session was come by.
enum Leased<S> {
    /// It has served before, and may have become void since.
    Idle(S),
    /// There is leave to open one.
    New,
}

impl<D: Device> Pool<D> {
    pub(super) fn new(device: D) -> Self {
        Self {
            device,
            state: Mutex::new(State {
                idle: Vec::new(),
                leased: 0,
                most: MOST_SESSIONS,
                is_restarting: false,
                restarted: None,
                is_lost: false,
            }),
            changed: Condvar::new(),
            patience: PATIENCE,
        }
    }

    pub(super) fn device(&self) -> &D {
        &self.device
    }

    /// Does the work in a session. It is done again in another one when the session turns out
    /// to be lost.
    pub(super) fn run<T>(&self, work: impl Fn(&D::Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = self.try_sessions(&work);
        match &outcome {
            Ok(_) => self.note_found(),
            Err(failure) if failure.is_loss() => self.note_lost(failure),
            Err(_) => {}
        }
        outcome
    }

    fn try_sessions<T>(&self, work: &impl Fn(&D::Session) -> Result<T, Failure>) -> Result<T, Failure> {
        loop {
            match self.lease()? {
                Leased::Idle(session) => match self.use_leased(session, work) {
                    Err(failure) if failure.is_loss() => {}
                    outcome => return outcome,
                },
                Leased::New => match self.use_new(work) {
                    // Somebody else will give back what this token has too few of.
                    Err(failure) if failure.is_shortage() && self.lower_limit() => {}
                    Err(failure) if failure.is_loss() && self.restart() => return self.last_try(work),
                    outcome => return outcome,
                },
            }
        }
    }

    fn last_try<T>(&self, work: &impl Fn(&D::Session) -> Result<T, Failure>) -> Result<T, Failure> {
        match self.lease()? {
            Leased::Idle(session) => self.use_leased(session, work),
            Leased::New => self.use_new(work),
        }
    }

    fn use_new<T>(&self, work: &impl Fn(&D::Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let place = Place(self);
        let session = self.device.open()?;
        std::mem::forget(place);
        self.use_leased(session, work)
    }

    fn use_leased<T>(
        &self,
        session: D::Session,
        work: &impl Fn(&D::Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let _place = Place(self);
        let outcome = work(&session);
        match &outcome {
            Ok(_) => self.state().idle.push(session),
            // Whatever state a failed session is in, it is not used again.
            Err(failure) if failure.voids_session() => drop(session),
            Err(_) => self.device.close(session),
        }
        outcome
    }

    fn lease(&self) -> Result<Leased<D::Session>, Failure> {
        let must_wait = |state: &mut State<D::Session>| {
            state.is_restarting || (state.idle.is_empty() && state.leased >= state.most)
        };
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(self.state(), self.patience, must_wait)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(Failure::Busy(state.most));
        }
        state.leased += 1;
        Ok(state.idle.pop().map_or(Leased::New, Leased::Idle))
    }

    /// Whether there are sessions to wait for, given that no other can be opened.
    fn lower_limit(&self) -> bool {
        let mut state = self.state();
        let open = state.idle.len().saturating_add(state.leased);
        if open == 0 {
            return false;
        }
        state.most = open;
        true
    }

    /// Starts the module anew, unless somebody is using it, or it has been a moment ago.
    ///
    /// A module that is ended while a thread is in it may do anything. A thread that is stuck
    /// in it thus keeps it from being started anew, but not the other sessions from signing.
    fn restart(&self) -> bool {
        {
            let mut state = self.state();
            let is_fresh = state.restarted.is_some_and(|at| at.elapsed() < RESTART_PAUSE);
            if state.leased > 0 || state.is_restarting || is_fresh {
                return false;
            }
            state.is_restarting = true;
            state.restarted = Some(Instant::now());
            // Their handles end with the module, and may be given out again.
            state.idle.clear();
        }
        let outcome = self.device.restart();
        self.state().is_restarting = false;
        self.changed.notify_all();
        if let Err(failure) = &outcome {
            self.note_lost(failure);
        }
        outcome.is_ok()
    }

    fn note_lost(&self, failure: &Failure) {
        let was_lost = std::mem::replace(&mut self.state().is_lost, true);
        if !was_lost {
            error!(
                event = "pkcs11_lost",
                "pkcs11: {} is lost, handshakes fail until it is back: {failure}",
                self.device.name()
            );
        }
    }

    fn note_found(&self) {
        let was_lost = std::mem::replace(&mut self.state().is_lost, false);
        if was_lost {
            info!(event = "pkcs11_back", "pkcs11: {} is back", self.device.name());
        }
    }

    fn state(&self) -> MutexGuard<'_, State<D::Session>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as a session in use until it is dropped, also by a panic.
struct Place<'a, D: Device>(&'a Pool<D>);

impl<D: Device> Drop for Place<'_, D> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.leased = state.leased.saturating_sub(1);
        drop(state);
        // All of them: who waits for the restart of the module waits here as well.
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
