//! The program's own log: set-up, the classes that `--quiet` silences, line layout, and a
//! queue that never lets a slow log reader hold up the data path.
//!
//! Lines go to standard output. A `tracing` event becomes one line, its message escaped;
//! events of foreign crates and below `info` are left out. `app` starts the log first of
//! all and flushes it last of all.

mod format;
mod queue;

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

pub use format::{escape, local_zone};

use format::Line;
use queue::{Gap, Queue, Stdout};

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

impl Settings {
    /// Whether events with this target are printed: the program's own ones, unless their
    /// class is silenced.
    fn admit(&self, target: &str) -> bool {
        let is_quiet = match target {
            class::CONNS => self.quiet_conns,
            class::CONN_ERRS => self.quiet_conn_errs,
            class::HANDSHAKE_ERRS => self.quiet_handshake_errs,
            other => !is_own(other),
        };
        !self.quiet_all && !is_quiet
    }
}

/// The running log: what is left to do with it once events flow by themselves.
#[derive(Clone)]
pub struct Log {
    queue: Arc<Queue>,
}

/// Sends the program's events to standard output from here on.
///
/// Each line is written at once by the thread that logs it, until
/// [`Log::start_writer`]. The first call in a process is the one that counts.
pub fn start(settings: &Settings) -> Log {
    let printer = Printer::new(settings, Box::new(Stdout));
    let log = Log {
        queue: Arc::clone(&printer.queue),
    };
    // A second log in one process, as only tests could start it, stays silent.
    let _ = tracing::subscriber::set_global_default(printer);
    log
}

impl Log {
    /// Starts the thread that writes lines from now on. Callers then never wait for the
    /// log's reader: when it is too slow, lines are dropped, counted, and told of in one
    /// line as soon as it reads again.
    ///
    /// # Errors
    ///
    /// When no thread could be started; lines are then still written directly.
    pub fn start_writer(&self) -> io::Result<()> {
        self.queue.start_writer()
    }

    /// Blocks until all lines so far are written or `timeout` has passed, and says whether
    /// they are. For the end of the process: a blocked reader must not keep it alive.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }

    /// How many lines were dropped so far: the reader was too slow, or writing failed.
    pub fn dropped_lines(&self) -> u64 {
        self.queue.dropped()
    }
}

/// Turns events into lines.
struct Printer {
    settings: Settings,
    pid: u32,
    queue: Arc<Queue>,
}

impl Printer {
    fn new(settings: &Settings, descriptor: Box<dyn io::Write + Send>) -> Self {
        // Find the time zone now: later, files may be out of reach.
        let _ = local_zone();
        let queue = Arc::new(Queue::new(descriptor, missing_lines));
        Self {
            settings: settings.clone(),
            pid: process::id(),
            queue,
        }
    }
}

impl Subscriber for Printer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The answer never changes, so the call site may remember it.
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && self.settings.admit(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.settings.quiet_all {
            LevelFilter::OFF
        } else {
            LevelFilter::INFO
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(begin_line(self.pid));
        event.record(&mut message);
        self.queue.push(&message.0.end());
    }

    // Spans are never enabled, so none of these is called with one of ours.
    fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

/// The line of one event: its message, then other fields as ` name=value`.
struct Message(Line);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A line swallows what it has no room for; it never fails.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

fn begin_line(pid: u32) -> Line {
    Line::begin(pid, Timestamp::now(), local_zone())
}

/// The line that stands for lines that are missing.
fn missing_lines(gap: &Gap) -> String {
    let mut line = begin_line(process::id());
    let _ = match &gap.error {
        None => write!(
            line,
            "{} log lines were dropped because the log's reader was too slow",
            gap.lines
        ),
        Some(error) => {
            write!(
                line,
                "{} log lines were lost because they could not be written: {error}",
                gap.lines
            )
        }
    };
    line.end()
}

/// Whether a target belongs to this program: one of its crates, or a module of theirs.
fn is_own(target: &str) -> bool {
    target
        .strip_prefix("ghostunnel")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What the log holds after `events`, without the prefixes of its lines.
    fn logged(settings: &Settings, events: impl FnOnce()) -> Vec<String> {
        let (mut reader, writer) = io::pipe().expect("the system makes a pipe");
        tracing::subscriber::with_default(Printer::new(settings, Box::new(writer)), events);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the log is text");
        let prefix = "[] 2026/11/24 23:18:07.300120 ".len() + process::id().to_string().len();
        text.lines()
            .map(|line| line.get(prefix..).expect("a whole line").to_owned())
            .collect()
    }

    fn one_event_of_each_kind() {
        tracing::info!("life");
        tracing::info!(target: class::CONNS, "pipe");
        tracing::warn!(target: class::CONN_ERRS, "dial");
        tracing::warn!(target: class::HANDSHAKE_ERRS, "handshake");
    }

    #[test]
    fn quiet_silences_its_class_only() {
        let quiet = |name: &str| Settings {
            quiet_all: name == "all",
            quiet_conns: name == "conns",
            quiet_conn_errs: name == "conn-errs",
            quiet_handshake_errs: name == "handshake-errs",
        };
        let cases: [(&str, &[&str]); 5] = [
            ("", &["life", "pipe", "dial", "handshake"]),
            ("conns", &["life", "dial", "handshake"]),
            ("conn-errs", &["life", "pipe", "handshake"]),
            ("handshake-errs", &["life", "pipe", "dial"]),
            ("all", &[]),
        ];
        for (name, expected) in cases {
            assert_eq!(
                logged(&quiet(name), one_event_of_each_kind),
                expected,
                "--quiet={name}"
            );
        }
    }

    #[test]
    fn events_of_foreign_crates_and_decisions_are_left_out() {
        let lines = logged(&Settings::default(), || {
            tracing::error!(target: "rustls::conn", "foreign");
            tracing::error!(target: "hyper", "foreign");
            tracing::error!(target: "ghostunnels", "foreign");
            tracing::debug!("a decision");
            tracing::info!(target: "ghostunnel_pki::path", "own");
        });
        assert_eq!(lines, ["own"]);
    }

    #[test]
    fn an_event_cannot_forge_a_second_line() {
        let peer = "CN=a\n[1] 2026/01/01 00:00:00.000000 opening pipe";
        let lines = logged(&Settings::default(), || {
            tracing::info!("from {peer}");
            tracing::info!(%peer, "opened");
        });
        assert_eq!(
            lines,
            [
                "from CN=a\\n[1] 2026/01/01 00:00:00.000000 opening pipe",
                "opened peer=CN=a\\n[1] 2026/01/01 00:00:00.000000 opening pipe",
            ]
        );
    }

    #[test]
    fn dropped_lines_are_told_of_in_words() {
        let gap = Gap {
            lines: 12,
            error: None,
        };
        let expected = "12 log lines were dropped because the log's reader was too slow\n";
        assert!(missing_lines(&gap).ends_with(expected));
    }
}
