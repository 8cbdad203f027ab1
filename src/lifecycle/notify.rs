//! The service manager's protocol (sd_notify(3)): ready, reloading, stopping, a line for
//! `systemctl status`, and the watchdog.
//!
//! Whatever goes wrong here is nobody's business but the service manager's, which notices
//! by itself; therefore errors are ignored.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, process};

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Phase, Pulse};

/// How long a receiver whose queue is full is waited for. Reload and shutdown wait as well,
/// so this is short.
const PATIENCE: Duration = Duration::from_millis(100);

/// The shortest pause between two keep-alives.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The way to the service manager, if there is one. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct Notifier {
    channel: Option<Arc<Channel>>,
    keep_alive: Option<Duration>,
}

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names, a path or, with a leading `@`, an
    /// abstract name, and reads `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// Connected before the process confines itself, the socket stays usable afterwards.
    pub fn connect(environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let channel = environment("NOTIFY_SOCKET").and_then(|name| Channel::open(&name));
        Self {
            keep_alive: channel.as_ref().and_then(|_| keep_alive(environment)),
            channel: channel.map(Arc::new),
        }
    }

    /// Tells of a phase that has begun; `subject` says whose it is.
    pub(super) fn announce(&self, phase: Phase, subject: &str) {
        let Some(channel) = &self.channel else { return };
        let event = match phase {
            Phase::Initializing => return,
            Phase::Listening => "READY=1".to_owned(),
            Phase::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()),
            Phase::Stopping => "STOPPING=1".to_owned(),
        };
        channel.send(&event);
        channel.send(&format!("STATUS={phase} | {subject}"));
    }

    /// Feeds the watchdog, twice in its period, for as long as everybody answers the
    /// `pulse`. Ends at once where nobody asked for a watchdog, else never.
    ///
    /// Each keep-alive stands on the answers to a question that was asked one pause before.
    /// A task that is stuck thus costs the next one, and the service manager acts.
    pub async fn keep_alive(self, pulse: Pulse) {
        let Some((channel, pause)) = self.channel.zip(self.keep_alive) else {
            return;
        };
        let Some(first) = Instant::now().checked_add(pause) else {
            return;
        };
        let mut ticks = interval_at(first, pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut is_well = true;
        pulse.ask();
        loop {
            ticks.tick().await;
            let was_well = std::mem::replace(&mut is_well, pulse.is_answered());
            if is_well {
                channel.send("WATCHDOG=1");
                pulse.ask();
            }
            match (was_well, is_well) {
                (true, false) => tracing::error!(
                    "watchdog: an accept loop does not answer; the service manager gets no more keep-alives until \
                     it does"
                ),
                (false, true) => tracing::info!("watchdog: all accept loops answer again"),
                (true, true) | (false, false) => {}
            }
        }
    }
}

/// Half the watchdog's period, if it is this process that is to be watched.
fn keep_alive(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| -> Option<Option<u64>> {
        match environment(name).filter(|text| !text.is_empty()) {
            None => Some(None),
            Some(text) => Some(Some(text.to_str()?.parse().ok()?)),
        }
    };
    let is_ours = |pid| pid == u64::from(process::id());
    let period = number("WATCHDOG_USEC")??;
    (period > 0 && number("WATCHDOG_PID")?.is_none_or(is_ours))
        .then(|| Duration::from_micros(period / 2).max(SHORTEST_PAUSE))
}

/// The clock that systemd compares with its own; it never jumps.
fn monotonic_microseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64, scale: u64| u64::try_from(number).unwrap_or(0).saturating_mul(scale);
    part(now.tv_sec, 1_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1000)
}

/// A datagram socket that is connected to the service manager's.
struct Channel {
    address: SockAddr,
    socket: Mutex<Option<Socket>>,
}

impl Channel {
    fn open(name: &OsStr) -> Option<Self> {
        let address = address(name)?;
        let socket = Mutex::new(connect(&address).ok());
        Some(Self { address, socket })
    }

    /// Sends one datagram. A receiver that was replaced meanwhile is connected to anew,
    /// where the sandbox lets it be.
    fn send(&self, text: &str) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match &*socket {
            Some(socket) => socket.send(text.as_bytes()),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        let is_gone = |error: io::Error| error.kind() != io::ErrorKind::WouldBlock;
        if sent.is_err_and(is_gone) {
            *socket = connect(&self.address).ok();
            let _nobody_listens = socket.as_ref().map(|socket| socket.send(text.as_bytes()));
        }
    }
}

fn address(name: &OsStr) -> Option<SockAddr> {
    match name.as_bytes() {
        [] => None,
        [b'@', name @ ..] => {
            let name = [b"\0", name].concat();
            SockAddr::unix(Path::new(OsStr::from_bytes(&name))).ok()
        }
        _ => SockAddr::unix(Path::new(name)).ok(),
    }
}

fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.cloexec(), None)?;
    socket.connect(address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::lifecycle::Lifecycle;

    struct Receiver {
        socket: UnixDatagram,
        folder: tempfile::TempDir,
    }

    impl Receiver {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a limit");
            Self { socket, folder }
        }

        fn notifier(&self, more: &[(&str, &str)]) -> Notifier {
            let mut variables: HashMap<&str, OsString> = more
                .iter()
                .map(|(name, value)| (*name, OsString::from(value)))
                .collect();
            variables.insert("NOTIFY_SOCKET", self.folder.path().join("notify").into());
            Notifier::connect(&|name| variables.get(name).cloned())
        }

        fn next(&self) -> String {
            let mut bytes = [0; 1024];
            let length = self.socket.recv(&mut bytes).expect("a datagram");
            String::from_utf8(bytes[..length].to_vec()).expect("text")
        }

        fn is_empty(&self) -> bool {
            self.socket.set_nonblocking(true).expect("no waiting");
            let outcome = self.socket.recv(&mut [0; 16]);
            self.socket.set_nonblocking(false).expect("waiting");
            outcome.is_err()
        }
    }

    #[test]
    fn every_phase_has_its_datagrams() {
        let receiver = Receiver::new();
        let lifecycle = Lifecycle::announcing(receiver.notifier(&[]), "server proxying a => b".to_owned());
        assert!(receiver.is_empty());
        lifecycle.set_phase(Phase::Listening);
        assert_eq!(receiver.next(), "READY=1");
        assert_eq!(receiver.next(), "STATUS=listening | server proxying a => b");
        let before = monotonic_microseconds();
        lifecycle.set_phase(Phase::Reloading);
        let reloading = receiver.next();
        let time = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .expect("the known form");
        let time: u64 = time.parse().expect("a number");
        assert!((before..=monotonic_microseconds()).contains(&time));
        assert_eq!(receiver.next(), "STATUS=reloading | server proxying a => b");
        lifecycle.reload_finished(std::time::SystemTime::now(), Ok(()));
        assert_eq!(receiver.next(), "READY=1");
        assert_eq!(receiver.next(), "STATUS=listening | server proxying a => b");
        lifecycle.set_phase(Phase::Stopping);
        assert_eq!(receiver.next(), "STOPPING=1");
        assert_eq!(receiver.next(), "STATUS=stopping | server proxying a => b");
        lifecycle.set_phase(Phase::Reloading);
        lifecycle.reload_finished(std::time::SystemTime::now(), Ok(()));
        assert!(receiver.is_empty(), "nothing follows the end");
    }

    #[test]
    fn a_receiver_that_was_replaced_is_found_again() {
        let mut receiver = Receiver::new();
        let notifier = receiver.notifier(&[]);
        let path = receiver.folder.path().join("notify");
        std::fs::remove_file(&path).expect("removed");
        receiver.socket = UnixDatagram::bind(&path).expect("bound");
        notifier.announce(Phase::Listening, "x");
        assert_eq!(receiver.next(), "READY=1");
    }

    #[test]
    fn nobody_is_told_where_nobody_asked() {
        for name in [
            None,
            Some(""),
            Some("/nonexistent/notify"),
            Some("@nobody listens here"),
        ] {
            let notifier = Notifier::connect(&|_| name.map(OsString::from));
            notifier.announce(Phase::Listening, "x");
        }
    }

    #[test]
    fn a_full_queue_is_not_waited_for_long() {
        let receiver = Receiver::new();
        let notifier = receiver.notifier(&[]);
        let channel = notifier.channel.expect("connected");
        let socket = channel.socket.lock().expect("not poisoned");
        let socket = socket.as_ref().expect("connected");
        socket.set_nonblocking(true).expect("no waiting");
        while socket.send(b"x").is_ok() {}
        socket.set_nonblocking(false).expect("waiting");
        let error = socket.send(b"x").expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_was_asked_for() {
        let own = process::id().to_string();
        let millis = |milliseconds| Some(Duration::from_millis(milliseconds));
        for (usec, pid, expected) in [
            ("3000000", None, millis(1500)),
            ("3000000", Some(own.as_str()), millis(1500)),
            ("3000000", Some(""), millis(1500)),
            ("3000000", Some("1"), None),
            ("3000000", Some("self"), None),
            ("1", None, millis(1)),
            ("0", None, None),
            ("", None, None),
            ("-1", None, None),
            ("soon", None, None),
        ] {
            let environment = |name: &str| match name {
                "WATCHDOG_USEC" => Some(OsString::from(usec)),
                "WATCHDOG_PID" => pid.map(OsString::from),
                _ => None,
            };
            assert_eq!(keep_alive(&environment), expected, "{usec} {pid:?}");
        }
        assert_eq!(keep_alive(&|_| None), None);
    }

    #[test]
    fn keep_alives_stop_while_somebody_does_not_answer() {
        let receiver = Receiver::new();
        let notifier = receiver.notifier(&[("WATCHDOG_USEC", "20000")]);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let pulse = Pulse::new();
            let mut heartbeat = pulse.heartbeat();
            let mut keep_alive = Box::pin(notifier.keep_alive(pulse));
            let several_pauses = tokio::time::sleep(Duration::from_millis(50));
            tokio::select! {
                () = &mut keep_alive => unreachable!("never ends"),
                () = several_pauses => {}
            }
            assert!(receiver.is_empty(), "the heart does not beat");
            let kept_alive = async {
                while receiver.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = &mut keep_alive => unreachable!("never ends"),
                () = heartbeat.beat() => unreachable!("never ends"),
                () = kept_alive => {}
            }
        });
    }
}
