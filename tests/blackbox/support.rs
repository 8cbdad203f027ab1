//! What the modules of this suite share: starting the binary, and tunnels with the usual
//! credentials.

use std::fmt::Display;

use ghostunnel_testing::{Command, Pki, ReservedPort};

/// The binary under test, with arguments to be added.
pub(crate) fn ghostunnel() -> Command {
    ghostunnel_testing::ghostunnel(env!("CARGO_BIN_EXE_ghostunnel"))
}

/// A server tunnel from a free port to `target`, with the server's credentials of `pki`; which
/// peers may enter is for the caller to add.
pub(crate) fn server(pki: &Pki, listen: &ReservedPort, target: &impl Display) -> Command {
    let mut command = ghostunnel();
    command
        .arg("server")
        .flag("--listen", listen.address().to_string())
        .flag("--target", target.to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key);
    command
}

/// A client tunnel from a free port to `target`, with the client's credentials of `pki`.
pub(crate) fn client(pki: &Pki, listen: &ReservedPort, target: &impl Display) -> Command {
    let mut command = ghostunnel();
    command
        .arg("client")
        .flag("--listen", listen.address().to_string())
        .flag("--target", target.to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.client_files.certificate)
        .flag("--key", &pki.client_files.key);
    command
}
