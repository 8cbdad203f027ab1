//! Confinement of the process: what was asked for, what the kernel enforces.
//!
//! A [`Plan`] is a value: `app` derives it from the configuration, [`enter`] turns it
//! into restrictions that can't be undone, and the [`Report`] says which of them hold.
//! Entering never stops the start, and a rule that can't be made costs that rule only.

#[cfg(target_os = "linux")]
mod landlock;
#[cfg(not(target_os = "linux"))]
mod other;

use std::fmt;
use std::path::PathBuf;

#[cfg(target_os = "linux")]
use landlock as mechanism;
#[cfg(not(target_os = "linux"))]
use other as mechanism;

/// Which layers are wanted, and what they must let through that no other setting tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Landlock; off with `--disable-landlock`.
    pub landlock: bool,
    /// Files and directories to read (`--sandbox-allow-read`).
    pub read: Vec<PathBuf>,
    /// Files and directories to read and write (`--sandbox-allow-write`).
    pub write: Vec<PathBuf>,
    /// TCP ports to connect to (`--sandbox-allow-connect`).
    pub connect_ports: Vec<u16>,
}

/// What the process needs; everything else is to be denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files and directories, with all that is beneath them.
    pub files: Vec<FileRule>,
    /// TCP ports to connect to, on any host: the kernel knows no hosts here.
    pub connect_ports: Vec<PortRule>,
    /// TCP ports to bind after the sandbox was entered.
    pub bind_ports: Vec<PortRule>,
    /// What the configuration asks for but no rule can express.
    pub skipped: Vec<Skipped>,
}

/// Access to a file or to everything beneath a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRule {
    /// The file or directory; must exist when the sandbox is entered.
    pub path: PathBuf,
    /// What may be done there.
    pub access: Access,
    /// Who needs it.
    pub why: &'static str,
    /// Whether the path may well be missing, so that this is not worth a word.
    pub is_optional: bool,
}

/// Use of a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    /// The port.
    pub port: u16,
    /// Who needs it.
    pub why: &'static str,
}

/// Kinds of access to files. None of them allows to execute, to move files between
/// directories, or to send commands to devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read files and list directories.
    Read,
    /// Also create, change and remove files, directories and sockets, and connect to
    /// sockets.
    ReadWrite,
    /// Create, replace and remove the socket of a listener.
    Listen,
    /// Connect to sockets.
    Connect,
}

/// A rule that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path or port it was for.
    pub what: String,
    /// Who needs it.
    pub why: &'static str,
    /// Why it can't be made.
    pub reason: String,
}

/// What came of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the kernel enforces.
    pub outcome: Outcome,
    /// Rules of the plan that were left out.
    pub skipped: Vec<Skipped>,
}

/// What the kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The plan, as far as this version of Landlock goes.
    Enforced {
        /// The version the kernel offers.
        abi: u32,
        /// Whether TCP ports are restricted too (from version 4, Linux 6.7, on).
        tcp: bool,
    },
    /// Nothing: the kernel has no Landlock. Carries the reason.
    Unsupported(&'static str),
    /// Nothing: it went wrong. Carries the reason.
    Failed(String),
    /// Nothing: the system has no such mechanism.
    Absent,
}

/// Confines this process and its children for good, as far as the kernel can.
///
/// Must be called while the process has a single thread: others would stay free, so
/// with others around nothing is restricted and the report says so. On Linux the
/// process can't gain privileges by executing files from here on (`no_new_privs`).
pub fn enter(plan: &Plan) -> Report {
    mechanism::enter(plan)
}

/// Number of threads of this process, where the system tells.
#[cfg(target_os = "linux")]
fn thread_count() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

impl Access {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read and write",
            Self::Listen => "listen",
            Self::Connect => "connect",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Report {
    /// The lines of the log, in order. Their beginnings are those of Ghostunnel 1.11.1.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = match &self.outcome {
            Outcome::Absent => return Vec::new(),
            _ => vec!["setting up landlock rules to limit process privileges".to_owned()],
        };
        lines.extend(
            self.skipped
                .iter()
                .map(|skipped| format!("warning: landlock rule left out: {skipped}")),
        );
        lines.extend(self.outcome_lines());
        lines
    }

    fn outcome_lines(&self) -> Vec<String> {
        const NO_NET: &str = "note: kernel does not support landlock net rules, sandboxing will be limited";
        match &self.outcome {
            Outcome::Enforced { abi, tcp: true } => {
                vec![format!("sandbox: landlock abi={abi} files=yes tcp=yes")]
            }
            Outcome::Enforced { abi, tcp: false } => {
                vec![
                    format!("{NO_NET} to files"),
                    format!("sandbox: landlock abi={abi} files=yes tcp=no"),
                ]
            }
            Outcome::Unsupported(reason) => {
                vec![
                    format!("{NO_NET} to nothing: {reason}"),
                    "sandbox: landlock none".to_owned(),
                ]
            }
            Outcome::Failed(reason) => {
                vec![format!("warning: unable to set up landlock: {reason}")]
            }
            Outcome::Absent => Vec::new(),
        }
    }
}

/// [`Report::lines`], one below the other.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.what, self.why, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_keep_the_known_beginnings() {
        let report = |outcome| {
            Report {
                outcome,
                skipped: Vec::new(),
            }
            .lines()
        };
        const FIRST: &str = "setting up landlock rules to limit process privileges";
        for (outcome, lines) in [
            (
                Outcome::Enforced { abi: 7, tcp: true },
                vec![FIRST, "sandbox: landlock abi=7 files=yes tcp=yes"],
            ),
            (
                Outcome::Enforced { abi: 3, tcp: false },
                vec![
                    FIRST,
                    "note: kernel does not support landlock net rules, sandboxing will be limited to files",
                    "sandbox: landlock abi=3 files=yes tcp=no",
                ],
            ),
            (
                Outcome::Unsupported("not built in"),
                vec![
                    FIRST,
                    "note: kernel does not support landlock net rules, sandboxing will be limited \
                     to nothing: not built in",
                    "sandbox: landlock none",
                ],
            ),
            (
                Outcome::Failed("odd".to_owned()),
                vec![FIRST, "warning: unable to set up landlock: odd"],
            ),
            (Outcome::Absent, vec![]),
        ] {
            assert_eq!(report(outcome), lines);
        }
    }

    #[test]
    fn a_rule_left_out_is_named() {
        let skipped = Skipped {
            what: "port 0".to_owned(),
            why: "--target",
            reason: "no port".to_owned(),
        };
        let report = Report {
            outcome: Outcome::Enforced { abi: 7, tcp: true },
            skipped: vec![skipped],
        };
        assert_eq!(
            report.lines()[1],
            "warning: landlock rule left out: port 0 (--target): no port"
        );
    }
}
