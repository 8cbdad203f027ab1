//! The composition root: the only place where all rooms meet.

mod demo;
mod reload;
pub mod sandbox_plan;
mod startup;
mod status_port;
mod tunnel;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::{self, Command};

/// Runs the program with these arguments (the first is its own name) to its end.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match cli::parse(arguments, &|name| std::env::var_os(name)) {
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Ok(Command::Print(text)) => {
            // A reader that has seen enough of the help closes the pipe; that is no failure.
            let _reader_may_be_gone = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Command::Usage(text)) => {
            eprint!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Run(run)) => startup::run(*run),
        Ok(Command::Demo(options)) => demo::run(options),
    }
}
