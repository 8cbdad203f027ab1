//! What the modules of this suite share: starting the binary, and tunnels with the usual
//! credentials.

use ghostunnel_testing::process::{self, Command};

/// The binary under test, with arguments to be added.
pub(crate) fn ghostunnel() -> Command {
    process::ghostunnel(env!("CARGO_BIN_EXE_ghostunnel"))
}
