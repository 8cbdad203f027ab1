//! The command line: from argv and environment to a validated configuration.
//!
//! `flags` is the one table of flags; `tokens` and `parse` read words by the grammar that
//! existing unit files rely on; `values` reads what the flags take; `resolve` judges the
//! result and makes a [`Config`] of it, or one of the refusals in `errors`; `help` shows
//! the table to people, and `generate` makes man pages, completion and the reference of it. Of the world outside, only response files, the names of services, the address of Graphite
//! and the width of the terminal are read, and nothing is changed.

mod errors;
mod flags;
mod generate;
mod help;
mod parse;
mod resolve;
mod tokens;
mod values;

use std::ffi::OsString;
use std::fmt;

pub use errors::ConfigError;
pub use generate::flag_reference;

use crate::config::Config;
use crate::logging;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment variables that stand for flags.
pub fn variables() -> impl Iterator<Item = &'static str> {
    flags::FLAGS.iter().filter_map(|flag| flag.variable)
}

/// Reads the command line. The first of `argv` is the program's name.
pub fn parse(argv: &[OsString], environment: Environment<'_>) -> Result<Command, UsageError> {
    parse::parse(argv, environment)
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Help or version as asked for: print this text, line feeds included, to standard
    /// output and exit with 0.
    Print(String),
    /// No command was given: print this text to standard error and exit with 0.
    Usage(String),
    /// Serve a tunnel.
    Run(Box<Run>),
    /// Show a tunnel at work.
    Demo(DemoOptions),
}

/// A tunnel to serve, or why it can't be.
#[derive(Debug)]
pub struct Run {
    /// The command given.
    pub mode: ModeWord,
    /// What to log; known even if the rest is refused, since the refusal is logged.
    pub logging: logging::Settings,
    /// The configuration, or what is wrong with it.
    pub config: Result<Config, ConfigError>,
    /// What the operator should know although the program starts, one line each.
    pub warnings: Vec<String>,
}

/// The command that chose a tunnel's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeWord {
    /// TLS in, plaintext out.
    Server,
    /// Plaintext in, TLS out.
    Client,
}

impl fmt::Display for ModeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// How to run the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Exit as soon as every check has run.
    pub once: bool,
    /// What to break on purpose.
    pub breakage: Option<Breakage>,
}

/// What the demo can break to show that it notices (`--break`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// The certificate authority.
    Ca,
    /// A byte on its way.
    Byte,
    /// The refusal of a stranger.
    Stranger,
}

/// Why the command line was refused. Displays as the whole line for standard error;
/// the exit code is 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct UsageError {
    line: String,
}
