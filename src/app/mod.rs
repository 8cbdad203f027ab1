//! The composition root.

pub mod sandbox_plan;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments (the first is its own name).
pub fn run(_args: Vec<OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
