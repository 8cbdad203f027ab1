//! Sessions of a device that is told when to fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use super::*;

/// Counts what is asked of it. Sessions are numbers; those below `valid_from` are void.
#[derive(Default)]
struct Imagined {
    opened: AtomicUsize,
    closed: AtomicUsize,
    restarts: AtomicUsize,
    valid_from: AtomicUsize,
    /// No session can be opened until the module is started anew.
    needs_restart: AtomicBool,
    /// Nor is that possible.
    is_gone: AtomicBool,
    /// Sessions at most; 0 stands for no limit.
    most: AtomicUsize,
}

fn code(code: RvError) -> Error {
    Error::Pkcs11(code, Function::Sign)
}

impl Device for Imagined {
    type Session = usize;

    fn name(&self) -> String {
        "imagined token".to_owned()
    }

    fn open(&self) -> Result<usize, Failure> {
        if self.needs_restart.load(Ordering::SeqCst) {
            return Err(Failure::NoToken("imagined".to_owned()));
        }
        let open = self.opened.load(Ordering::SeqCst) - self.closed.load(Ordering::SeqCst);
        let most = self.most.load(Ordering::SeqCst);
        if most > 0 && open >= most {
            return Err(Failure::Session(code(RvError::SessionCount)));
        }
        Ok(self.opened.fetch_add(1, Ordering::SeqCst))
    }

    fn close(&self, _session: usize) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn restart(&self) -> Result<(), Failure> {
        self.restarts.fetch_add(1, Ordering::SeqCst);
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(Failure::Session(code(RvError::GeneralError)));
        }
        self.needs_restart.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl Imagined {
    fn sign(&self, session: usize) -> Result<usize, Failure> {
        if session < self.valid_from.load(Ordering::SeqCst) {
            return Err(Failure::Sign(code(RvError::SessionHandleInvalid)));
        }
        Ok(session)
    }
}

fn sign(pool: &Pool<Imagined>) -> Result<usize, Failure> {
    pool.run(|session| pool.device().sign(*session))
}

fn counts(pool: &Pool<Imagined>) -> (usize, usize, usize) {
    let device = pool.device();
    (
        device.opened.load(Ordering::SeqCst),
        device.closed.load(Ordering::SeqCst),
        device.restarts.load(Ordering::SeqCst),
    )
}

#[test]
fn one_after_another_use_one_session() {
    let pool = Pool::new(Imagined::default());
    for _ in 0..10 {
        assert_eq!(sign(&pool).expect("a signature"), 0);
    }
    assert_eq!(counts(&pool), (1, 0, 0));
}

#[test]
fn signatures_at_once_have_a_session_each() {
    let pool = Pool::new(Imagined::default());
    let together = Barrier::new(MOST_SESSIONS);
    thread::scope(|scope| {
        for _ in 0..MOST_SESSIONS {
            scope.spawn(|| {
                pool.run(|_| {
                    together.wait();
                    Ok(())
                })
            });
        }
    });
    assert_eq!(counts(&pool), (MOST_SESSIONS, 0, 0));
    sign(&pool).expect("a signature");
    assert_eq!(counts(&pool), (MOST_SESSIONS, 0, 0));
}

#[test]
fn void_sessions_are_replaced_without_the_caller_noticing_and_not_closed() {
    let pool = Pool::new(Imagined::default());
    let together = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                pool.run(|_| {
                    together.wait();
                    Ok(())
                })
            });
        }
    });
    pool.device().valid_from.store(3, Ordering::SeqCst);
    assert_eq!(sign(&pool).expect("by a new session"), 3);
    assert_eq!(counts(&pool), (4, 0, 0));
}

#[test]
fn a_session_that_fails_otherwise_is_closed_and_not_used_again() {
    let pool = Pool::new(Imagined::default());
    let refused = pool.run(|_| Err::<(), _>(Failure::Sign(code(RvError::KeyFunctionNotPermitted))));
    assert!(matches!(refused, Err(Failure::Sign(_))), "{refused:?}");
    assert_eq!(counts(&pool), (1, 1, 0));
    assert_eq!(sign(&pool).expect("a signature"), 1);
}

#[test]
fn a_token_that_stays_lost_is_back_once_the_module_was_started_anew() {
    let pool = Pool::new(Imagined::default());
    sign(&pool).expect("a signature");
    pool.device().valid_from.store(1, Ordering::SeqCst);
    pool.device().needs_restart.store(true, Ordering::SeqCst);
    assert_eq!(sign(&pool).expect("after a restart"), 1);
    assert_eq!(counts(&pool), (2, 0, 1));
}

#[test]
fn the_module_is_not_started_anew_for_each_failure() {
    let pool = Pool::new(Imagined::default());
    pool.device().needs_restart.store(true, Ordering::SeqCst);
    pool.device().is_gone.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        assert!(sign(&pool).is_err());
    }
    assert_eq!(counts(&pool), (0, 0, 1));
    // The token comes back, and so do signatures.
    pool.device().is_gone.store(false, Ordering::SeqCst);
    pool.state().restarted = Instant::now().checked_sub(RESTART_PAUSE);
    assert_eq!(sign(&pool).expect("after a restart"), 0);
    assert_eq!(counts(&pool), (1, 0, 2));
}

#[test]
fn the_module_is_never_ended_under_a_thread_that_is_in_it() {
    let pool = Pool::new(Imagined::default());
    let (entered, is_in) = mpsc::sync_channel(1);
    let (leave, may_leave) = mpsc::sync_channel::<()>(1);
    thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || {
            pool.run(|_| {
                entered.send(()).expect("somebody waits");
                let _ = may_leave.recv();
                Ok(())
            })
        });
        is_in.recv().expect("in the module");
        pool.device().needs_restart.store(true, Ordering::SeqCst);
        assert!(sign(pool).is_err());
        assert_eq!(counts(pool).2, 0);
        drop(leave);
    });
    assert_eq!(sign(&pool).expect("the session is still good"), 0);
}

#[test]
fn a_token_with_few_sessions_is_shared() {
    let pool = Pool::new(Imagined::default());
    pool.device().most.store(2, Ordering::SeqCst);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let signed = pool.run(|session| {
                    thread::yield_now();
                    Ok(*session)
                });
                signed.expect("there is a session for everybody");
            });
        }
    });
    assert!(counts(&pool).0 <= 2);
}

#[test]
fn waiting_for_a_session_ends() {
    let mut pool = Pool::new(Imagined::default());
    pool.patience = Duration::from_millis(10);
    pool.state().leased = MOST_SESSIONS;
    assert!(matches!(sign(&pool), Err(Failure::Busy(MOST_SESSIONS))));
}
