//! What the demo must not leave behind: its files and its child processes.
//!
//! However it ends, by itself or by a signal, both are gone. Only SIGKILL leaves them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::ensure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Everything that has to go; cleared with this value, or by the first signal.
pub(super) struct Leftovers(Arc<Mutex<State>>);

/// What there is to clear.
#[derive(Default)]
pub(super) struct Kept {
    /// A directory with all that is in it.
    pub(super) folder: Option<PathBuf>,
    /// Processes, running or not.
    pub(super) children: Vec<Child>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    is_cleared: bool,
    is_end_expected: bool,
}

impl Leftovers {
    /// Catches the signals that end a process: Ctrl-C, a closed terminal, and the polite kill.
    pub(super) fn new() -> io::Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let shared = Arc::clone(&state);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if !clear_on_signal(&shared) {
                    // Ends the process as if nobody had caught the signal.
                    let _does_not_return = emulate_default_handler(signal);
                }
            }
        })?;
        Ok(Self(state))
    }

    /// Makes something that has to go. Nobody clears up meanwhile, and once somebody has,
    /// nothing is made any more.
    pub(super) fn add<T>(&self, make: impl FnOnce(&mut Kept) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut state = lock(&self.0);
        ensure!(!state.is_cleared, "interrupted");
        make(&mut state.kept)
    }

    /// Waits for the end of the process if a signal has cleared up, which makes all that still
    /// runs fail: the signal ends it, not the failure.
    pub(super) fn let_a_signal_win(&self) {
        let is_ending = {
            let state = lock(&self.0);
            state.is_cleared && !state.is_end_expected
        };
        if is_ending {
            loop {
                thread::park();
            }
        }
    }

    /// From now on a signal is the way the demo is meant to end: it clears up, and the rest is
    /// left to whoever waits for the children.
    pub(super) fn expect_an_end(&self) {
        lock(&self.0).is_end_expected = true;
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        lock(&self.0).clear();
    }
}

/// Clears up, and returns whether the signal was expected.
fn clear_on_signal(state: &Mutex<State>) -> bool {
    let mut state = lock(state);
    state.clear();
    state.is_end_expected
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Children first: they read the files.
    fn clear(&mut self) {
        self.is_cleared = true;
        for mut child in self.kept.children.drain(..) {
            let _may_be_gone = child.kill();
            let _reaped = child.wait();
        }
        if let Some(folder) = self.kept.folder.take() {
            // Left behind, the files would harm nobody: the directory is private, the CA trusted nowhere.
            let _best_effort = fs::remove_dir_all(folder);
        }
    }
}
