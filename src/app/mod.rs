//! The composition root: the only place where all rooms meet.

mod demo;
mod reload;
mod reporting;
pub mod sandbox_plan;
mod startup;
mod status_port;
mod tunnel;

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use crate::cli::{self, Command};

/// Runs the program with these arguments (the first is its own name) to its end.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match cli::parse(arguments, &|name| std::env::var_os(name)) {
        Err(error) => {
            complain(&format!("{error}\n"));
            ExitCode::FAILURE
        }
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Usage(text)) => {
            complain(&text);
            ExitCode::SUCCESS
        }
        Ok(Command::Run(run)) => startup::run(*run),
        Ok(Command::Demo(options)) => demo::run(options),
    }
}

/// A reader that has seen enough of the help closes the pipe, which is no failure; a full
/// disk is one.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: cannot write to standard output: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard error. Where nobody takes it, the exit code must do; `eprint!` would
/// panic.
fn complain(text: &str) {
    let _nobody_listens = std::io::stderr().write_all(text.as_bytes());
}
