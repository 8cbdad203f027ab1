//! What the modules of this suite share: starting the binary, and tunnels with the usual
//! credentials.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ghostunnel_testing::{Address, Command, Pki, ReservedPort, require_tool};

/// The binary under test, with arguments to be added.
pub(crate) fn ghostunnel() -> Command {
    ghostunnel_testing::ghostunnel(env!("CARGO_BIN_EXE_ghostunnel"))
}

/// A server tunnel from a free port to `target`, with the server's credentials of `pki`; which
/// peers may enter is for the caller to add.
pub(crate) fn server(pki: &Pki, listen: &ReservedPort, target: &Address) -> Command {
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
pub(crate) fn client(pki: &Pki, listen: &ReservedPort, target: &Address) -> Command {
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

/// The path of the binary under test, for what is started in other ways.
pub(crate) fn binary() -> PathBuf {
    env::var_os("GHOSTUNNEL_BIN")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_ghostunnel").into())
        .into()
}

/// The binary under test, run by a user without privileges, who can read `dir` but not write
/// to it. A copy is run, since the original may lie where that user can't go.
///
/// `None` if the tests run as root and the tool that gives up privileges is missing.
pub(crate) fn unprivileged(dir: &Path) -> Option<impl Fn() -> Command> {
    const NOBODY: &str = "65534";
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("a directory of the test");
    let copy = dir.join("ghostunnel");
    fs::copy(binary(), &copy).expect("a copy of the program");
    let is_root = rustix::process::geteuid().is_root();
    let tool = if is_root {
        Some(require_tool("setpriv")?)
    } else {
        None
    };
    Some(move || {
        let mut command = match &tool {
            None => Command::new(&copy),
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command
                    .flag("--reuid", NOBODY)
                    .flag("--regid", NOBODY)
                    .arg("--clear-groups")
                    .arg(&copy);
                command
            }
        };
        command.clear_environment();
        command
    })
}
