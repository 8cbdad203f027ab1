//! The program's own log: set-up, the classes that `--quiet` silences, line layouts, and a
//! queue that never lets a slow log reader hold up the data path.
//!
//! Lines go to standard output, or to the local syslog. A `tracing` event becomes one line:
//! its message, escaped, or a JSON object with its fields too. Events of foreign crates are
//! left out. `app` starts the log first of all and flushes it last of all.
//!
//! Levels: `error`, the operator must act; `warn`, degraded but serving; `info`, the life of
//! process and connections; `debug`, decisions.

mod format;
mod json;
mod queue;
mod syslog;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use std::{io, process};

use jiff::Timestamp;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

pub use format::{escape, local_zone, rfc3339};

use format::Line;
use queue::{Gap, Queue, Stdout};
use syslog::Syslog;

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
    /// How all other events are called where the class is shown; not a target.
    pub(super) const PROCESS: &str = "process";
}

/// What to log (`--quiet`, repeatable), how, and where to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where lines go.
    pub destination: Destination,
    /// What lines look like (`--log-format`).
    pub format: Format,
    /// The least important events to log (`--log-level`).
    pub threshold: Threshold,
    /// `--quiet=all`: nothing at all.
    pub quiet_all: bool,
    /// `--quiet=conns`.
    pub quiet_conns: bool,
    /// `--quiet=conn-errs`.
    pub quiet_conn_errs: bool,
    /// `--quiet=handshake-errs`.
    pub quiet_handshake_errs: bool,
}

/// Where lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    #[default]
    Stdout,
    /// The local syslog (`--syslog`).
    Syslog {
        /// The name of the program there: argv\[0\] as typed.
        tag: String,
    },
}

/// What lines look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `[PID] YYYY/MM/DD HH:MM:SS.uuuuuu MESSAGE`, as existing parsers know it.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// The least important events to log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Threshold {
    /// Errors only.
    Error,
    /// Also warnings.
    Warn,
    /// Also the life of process and connections.
    #[default]
    Info,
    /// Also decisions.
    Debug,
}

impl Threshold {
    fn level(self) -> Level {
        match self {
            Self::Error => Level::ERROR,
            Self::Warn => Level::WARN,
            Self::Info => Level::INFO,
            Self::Debug => Level::DEBUG,
        }
    }
}

/// The syslog service could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("Unix syslog delivery error: nobody takes messages at /dev/log, /var/run/syslog or /var/run/log")]
pub struct NoSyslog;

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

/// Sends the program's events to the log from here on.
///
/// Each line is written at once by the thread that logs it, until
/// [`Log::start_writer`]. The first call in a process is the one that counts.
///
/// # Errors
///
/// When there is no syslog service although one is wanted, and not everything is silenced.
pub fn start(settings: &Settings) -> Result<Log, NoSyslog> {
    let descriptor: Box<dyn io::Write + Send> = match settings.destination {
        Destination::Syslog { .. } if !settings.quiet_all => Box::new(Syslog::connect().ok_or(NoSyslog)?),
        Destination::Syslog { .. } | Destination::Stdout => Box::new(Stdout),
    };
    let printer = Printer::new(settings, descriptor);
    let log = Log {
        queue: Arc::clone(&printer.queue),
    };
    // A second log in one process, as only tests could start it, stays silent.
    let _ = tracing::subscriber::set_global_default(printer);
    Ok(log)
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
    layout: Layout,
    queue: Arc<Queue>,
}

/// How lines are put together.
#[derive(Clone)]
struct Layout {
    pid: u32,
    format: Format,
    /// The program's name in syslog's header.
    tag: Option<String>,
}

impl Layout {
    fn event(&self, event: &Event<'_>) -> String {
        let metadata = event.metadata();
        let (now, zone) = (Timestamp::now(), local_zone());
        let front = self.front(*metadata.level(), now);
        match self.format {
            Format::Text => {
                let mut line = Line::begin(&front, self.pid, now, zone);
                event.record(&mut json::Message(&mut line));
                line.end()
            }
            Format::Json => {
                let class = match metadata.target() {
                    class @ (class::CONNS | class::CONN_ERRS | class::HANDSHAKE_ERRS) => class,
                    _ => class::PROCESS,
                };
                front + &json::line(event, class, self.pid, now, zone)
            }
        }
    }

    /// The line that stands for lines that are missing.
    fn missing_lines(&self, gap: &Gap) -> String {
        let lines = gap.lines;
        let message = match &gap.error {
            None => format!("{lines} log lines were dropped because the log's reader was too slow"),
            Some(error) => {
                format!("{lines} log lines were lost because they could not be written: {error}")
            }
        };
        let (now, zone) = (Timestamp::now(), local_zone());
        let front = self.front(Level::WARN, now);
        match self.format {
            Format::Text => {
                let mut line = Line::begin(&front, self.pid, now, zone);
                // A line swallows what it has no room for; it never fails.
                let _ = line.write_str(&message);
                line.end()
            }
            Format::Json => front + &json::own_line(Level::WARN, &message, self.pid, now, zone),
        }
    }

    /// What the destination wants in front of each line.
    fn front(&self, level: Level, now: Timestamp) -> String {
        let tag = self.tag.as_ref();
        tag.map_or_else(String::new, |tag| {
            syslog::header(level, tag, self.pid, now, local_zone())
        })
    }
}

impl Printer {
    fn new(settings: &Settings, descriptor: Box<dyn io::Write + Send>) -> Self {
        // Find the time zone now: later, files may be out of reach.
        let _ = local_zone();
        let layout = Layout {
            pid: process::id(),
            format: settings.format,
            tag: match &settings.destination {
                Destination::Syslog { tag } => Some(tag.clone()),
                Destination::Stdout => None,
            },
        };
        let notices = layout.clone();
        let notice = Box::new(move |gap: &Gap| notices.missing_lines(gap));
        Self {
            settings: settings.clone(),
            layout,
            queue: Arc::new(Queue::new(descriptor, notice)),
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
        metadata.is_event()
            && *metadata.level() <= self.settings.threshold.level()
            && self.settings.admit(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.settings.quiet_all {
            LevelFilter::OFF
        } else {
            LevelFilter::from_level(self.settings.threshold.level())
        })
    }

    fn event(&self, event: &Event<'_>) {
        self.queue.push(&self.layout.event(event));
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
            ..Settings::default()
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
                "opened",
            ],
            "other fields are for the other layout"
        );
    }

    #[test]
    fn dropped_lines_are_told_of_in_words() {
        let gap = Gap {
            lines: 12,
            error: None,
        };
        let message = "12 log lines were dropped because the log's reader was too slow";
        let layout = |format| Layout {
            pid: 7,
            format,
            tag: Some("tag".to_owned()),
        };
        let text = layout(Format::Text).missing_lines(&gap);
        assert!(
            text.starts_with("<30>") && text.contains(" tag[7]: [7] "),
            "{text}"
        );
        assert!(text.ends_with(&format!(" {message}\n")), "{text}");
        let json = layout(Format::Json).missing_lines(&gap);
        let (_, json) = json.split_once(": ").expect("a header");
        let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(
            (&value["message"], &value["level"]),
            (&message.into(), &"warn".into())
        );
    }

    #[test]
    fn events_become_objects_with_their_fields() {
        let settings = Settings {
            format: Format::Json,
            ..Settings::default()
        };
        let (mut reader, writer) = io::pipe().expect("the system makes a pipe");
        let printer = Printer::new(&settings, Box::new(writer));
        tracing::subscriber::with_default(printer, || {
            let peer = "CN=\"a\"\n{}";
            tracing::info!(target: class::CONNS, peer, open = true, bytes = 7_u64, ratio = 0.5, "to {peer} ");
            tracing::error!(error = %io::Error::other("odd"), list = ?[1], "life");
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the log is text");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let [first, second] = lines.as_slice() else {
            panic!("two lines: {text}");
        };
        let expected = serde_json::json!({
            "time": first["time"], "pid": process::id(), "level": "info", "class": "conns",
            "message": "to CN=\"a\"\n{}", "peer": "CN=\"a\"\n{}", "open": true, "bytes": 7, "ratio": 0.5,
        });
        assert_eq!(*first, expected);
        let expected = serde_json::json!({
            "time": second["time"], "pid": process::id(), "level": "error", "class": "process",
            "message": "life", "error": "odd", "list": "[1]",
        });
        assert_eq!(*second, expected);
    }

    #[test]
    fn the_threshold_admits_what_is_at_least_as_important() {
        for (threshold, expected) in [
            (Threshold::Error, &["error"][..]),
            (Threshold::Warn, &["error", "warn"]),
            (Threshold::Info, &["error", "warn", "info"]),
            (Threshold::Debug, &["error", "warn", "info", "debug"]),
        ] {
            let settings = Settings {
                threshold,
                ..Settings::default()
            };
            let lines = logged(&settings, || {
                tracing::error!("error");
                tracing::warn!("warn");
                tracing::info!("info");
                tracing::debug!("debug");
                tracing::trace!("trace");
            });
            assert_eq!(lines, expected, "{threshold:?}");
        }
    }
}
