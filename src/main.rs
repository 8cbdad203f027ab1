//! The `ghostunnel` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostunnel::run(&std::env::args_os().collect::<Vec<_>>())
}
