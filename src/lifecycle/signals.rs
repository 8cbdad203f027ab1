//! Signals to intents. The only place that knows signal numbers.

use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::emulate_default_handler;
use tokio::net::UnixStream as WatchedStream;

use super::ReloadTrigger;

/// What the operator wants the process to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Read certificates, trust anchors and policies again.
    Reload(ReloadTrigger),
    /// Drain and exit.
    Shutdown(ShutdownTrigger),
}

/// What asked for a shutdown. Displays as the log line that announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownTrigger {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupt,
    /// `POST /_shutdown`.
    StatusEndpoint,
}

impl Display for ShutdownTrigger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Terminated => "received terminated, shutting down",
            Self::Interrupt => "received interrupt, shutting down",
            Self::StatusEndpoint => "shutdown was requested via status endpoint",
        })
    }
}

/// The caught signals, kept until somebody asks for them with [`Intents::next`].
pub struct Signals {
    delivery: SignalDelivery<ReadEnd, SignalOnly>,
    is_draining: AtomicBool,
    is_fatal: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the signals the program reacts to, and those it must survive.
    ///
    /// Needs neither a runtime nor a thread, and keeps two descriptors.
    ///
    /// # Errors
    ///
    /// When the pair of sockets or a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let is_fatal = Arc::new(AtomicBool::new(false));
        // Before the delivery below, since handlers run in this order.
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_default(signal, Arc::clone(&is_fatal))?;
        }
        // Users' scripts send these without harm: the original's runtime swallows them.
        for signal in [SIGUSR2, SIGALRM] {
            flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let wanted = [SIGHUP, SIGUSR1, SIGTERM, SIGINT];
        let delivery = SignalDelivery::with_pipe(ReadEnd::Still(read), write, SignalOnly, wanted)?;
        Ok(Self {
            delivery,
            is_draining: AtomicBool::new(false),
            is_fatal,
        })
    }

    /// Follows the signals from inside a runtime. Those that came before are kept.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the descriptor.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub fn into_intents(mut self) -> io::Result<Intents> {
        let read = self.delivery.get_read_mut();
        if let ReadEnd::Still(stream) = std::mem::replace(read, ReadEnd::Gone) {
            *read = ReadEnd::Watched(WatchedStream::from_std(stream)?);
        }
        Ok(Intents { signals: self })
    }

    /// The next signal that came, unless a drain makes it moot.
    fn take(&mut self) -> Option<Intent> {
        // Signals that are not taken stay where they are.
        let intent = self.delivery.pending().find_map(intent_of)?;
        (!self.is_draining.load(Ordering::SeqCst)).then_some(intent)
    }
}

/// The end of the pipe that the handlers write to, in the delivery's hands for good.
enum ReadEnd {
    Still(UnixStream),
    Watched(WatchedStream),
    /// Between the two, and after a failure to watch it.
    Gone,
}

impl AsRawFd for ReadEnd {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Still(stream) => stream.as_raw_fd(),
            Self::Watched(stream) => stream.as_raw_fd(),
            Self::Gone => -1,
        }
    }
}

impl ReadEnd {
    /// Waits for a handler to have written, and takes what it wrote.
    async fn woken(&self) -> io::Result<()> {
        let Self::Watched(stream) = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        stream.readable().await?;
        // Reading through the runtime tells it that the descriptor is no longer ready.
        while stream.try_read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

/// Signals as a stream of intents.
pub struct Intents {
    signals: Signals,
}

impl Intents {
    /// Waits for the next intent. Cancel-safe: no signal is lost.
    ///
    /// Never ends once the drain has begun.
    pub async fn next(&mut self) -> Intent {
        loop {
            if let Some(intent) = self.signals.take() {
                return intent;
            }
            if self.signals.delivery.get_read().woken().await.is_err() {
                // The runtime is going down, and nobody can act on a signal any more.
                return std::future::pending().await;
            }
        }
    }

    /// From here on SIGTERM and SIGINT end the process at once, by themselves, after
    /// `last_words` has run with the name of the signal; SIGHUP and SIGUSR1 do nothing.
    ///
    /// A thread of its own does this, so that a runtime that is stuck cannot hold it up.
    /// `last_words` must be quick: until it returns the process lives, but for a further
    /// signal, which the handler obeys by itself. So it does when there is no thread to be had.
    pub fn begin_drain(&self, last_words: impl FnOnce(&str) + Send + 'static) {
        // Followed before the flag is set: a signal in between is seen by both, not by none.
        let followed = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]);
        self.signals.is_draining.store(true, Ordering::SeqCst);
        let is_fatal = Arc::clone(&self.signals.is_fatal);
        let end = move |signal| {
            is_fatal.store(true, Ordering::SeqCst);
            last_words(name_of(signal));
            // Fails for signals that have no default disposition, which these two have.
            let _ = emulate_default_handler(signal);
        };
        let spawned = followed.and_then(|mut signals| {
            thread::Builder::new()
                .name("second-signal".to_owned())
                .spawn(move || signals.forever().next().map(end))
        });
        if spawned.is_err() {
            self.signals.is_fatal.store(true, Ordering::SeqCst);
        }
    }
}

/// As the line names it that announces a shutdown.
fn name_of(signal: i32) -> &'static str {
    if signal == SIGINT {
        "interrupt"
    } else {
        "terminated"
    }
}

fn intent_of(signal: i32) -> Option<Intent> {
    match signal {
        SIGHUP => Some(Intent::Reload(ReloadTrigger::Hangup)),
        SIGUSR1 => Some(Intent::Reload(ReloadTrigger::UserSignal1)),
        SIGTERM => Some(Intent::Shutdown(ShutdownTrigger::Terminated)),
        SIGINT => Some(Intent::Shutdown(ShutdownTrigger::Interrupt)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, Stdio};

    use signal_hook::low_level::raise;

    use super::*;

    /// Tells a test that it is the child whose death its parent looks at. Signals concern
    /// a whole process, so these tests run in one of their own.
    const CHILD: &str = "GHOSTUNNEL_SIGNAL_TEST_CHILD";

    /// Runs `child` in a process of its own, by starting this test once more, and gives
    /// its end to `check`.
    fn in_a_child(test: &str, signal: i32, child: impl FnOnce(i32), check: impl FnOnce(ExitStatus)) {
        if let Ok(signal) = std::env::var(CHILD) {
            return child(signal.parse().expect("the parent gives a number"));
        }
        let program = std::env::current_exe().expect("the test knows its program");
        let name = format!("lifecycle::signals::tests::{test}");
        let mut command = Command::new(program);
        command
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, signal.to_string());
        let output = command.stderr(Stdio::inherit()).output().expect("the child runs");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(report.contains("running 1 test"), "no test is called {name}");
        check(output.status);
    }

    fn with_intents(body: impl AsyncFnOnce(Intents)) {
        let signals = Signals::catch().expect("signals can be caught");
        with_runtime(async || body(signals.into_intents().expect("watchable")).await);
    }

    fn with_runtime(body: impl AsyncFnOnce()) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime").block_on(body());
    }

    #[test]
    fn signals_become_intents() {
        in_a_child(
            "signals_become_intents",
            0,
            |_| {
                with_intents(async |mut intents| {
                    let cases = [
                        (SIGHUP, Intent::Reload(ReloadTrigger::Hangup)),
                        (SIGUSR1, Intent::Reload(ReloadTrigger::UserSignal1)),
                        (SIGTERM, Intent::Shutdown(ShutdownTrigger::Terminated)),
                        (SIGINT, Intent::Shutdown(ShutdownTrigger::Interrupt)),
                    ];
                    for (signal, expected) in cases {
                        raise(signal).expect("raised");
                        assert_eq!(intents.next().await, expected);
                    }
                    raise(SIGHUP).expect("raised");
                    raise(SIGTERM).expect("raised");
                    let both = [intents.next().await, intents.next().await];
                    assert!(both.contains(&Intent::Reload(ReloadTrigger::Hangup)));
                    assert!(both.contains(&Intent::Shutdown(ShutdownTrigger::Terminated)));
                });
            },
            |status| assert!(status.success()),
        );
    }

    #[test]
    fn a_signal_before_the_runtime_is_kept() {
        in_a_child(
            "a_signal_before_the_runtime_is_kept",
            0,
            |_| {
                let signals = Signals::catch().expect("signals can be caught");
                raise(SIGUSR1).expect("raised");
                with_runtime(async || {
                    let mut intents = signals.into_intents().expect("watchable");
                    assert_eq!(intents.next().await, Intent::Reload(ReloadTrigger::UserSignal1));
                });
            },
            |status| assert!(status.success()),
        );
    }

    #[test]
    fn other_signals_have_no_effect() {
        in_a_child(
            "other_signals_have_no_effect",
            0,
            |_| {
                with_intents(async |mut intents| {
                    for signal in [SIGUSR2, SIGALRM, signal_hook::consts::SIGPIPE, SIGHUP] {
                        raise(signal).expect("raised");
                    }
                    assert_eq!(intents.next().await, Intent::Reload(ReloadTrigger::Hangup));
                });
            },
            |status| assert!(status.success()),
        );
    }

    #[test]
    fn reload_signals_are_ignored_during_the_drain() {
        in_a_child(
            "reload_signals_are_ignored_during_the_drain",
            0,
            |_| {
                with_intents(async |mut intents| {
                    intents.begin_drain(|_| ());
                    raise(SIGHUP).expect("raised");
                    raise(SIGUSR1).expect("raised");
                    let polled = std::future::poll_fn(|context| {
                        let next = std::pin::pin!(intents.next());
                        std::task::Poll::Ready(next.poll(context).is_pending())
                    });
                    assert!(polled.await);
                });
            },
            |status| assert!(status.success()),
        );
    }

    #[test]
    fn a_third_signal_does_not_wait_for_the_last_words_of_the_second() {
        in_a_child(
            "a_third_signal_does_not_wait_for_the_last_words_of_the_second",
            0,
            |_| {
                with_intents(async |intents| {
                    let (tell, told) = std::sync::mpsc::sync_channel(0);
                    intents.begin_drain(move |name| {
                        tell.send(name.to_owned()).expect("somebody waits");
                        loop {
                            thread::park();
                        }
                    });
                    raise(SIGTERM).expect("raised");
                    assert_eq!(told.recv().expect("last words"), "terminated");
                    raise(SIGINT).expect("raised");
                });
            },
            |status| assert_eq!(status.signal(), Some(SIGINT)),
        );
    }

    #[test]
    fn a_second_signal_kills_a_draining_process_that_is_stuck() {
        let test = "a_second_signal_kills_a_draining_process_that_is_stuck";
        for signal in [SIGTERM, SIGINT] {
            in_a_child(
                test,
                signal,
                |second| {
                    with_intents(async |mut intents| {
                        raise(SIGTERM).expect("raised");
                        assert_eq!(
                            intents.next().await,
                            Intent::Shutdown(ShutdownTrigger::Terminated)
                        );
                        intents.begin_drain(|_| ());
                        // Nothing polls the intents here, and the runtime is stuck.
                        raise(second).expect("raised");
                        loop {
                            thread::park();
                        }
                    });
                },
                |status| assert_eq!(status.signal(), Some(signal)),
            );
        }
    }
}
