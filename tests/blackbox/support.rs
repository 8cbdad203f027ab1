//! What the modules of this suite share: starting the binary, and tunnels with the usual
//! credentials.

use std::env;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ghostunnel_testing::{Command, Pki, ReservedPort, require_tool, skip};

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

/// A server tunnel between addresses written in any way, with the server's credentials of
/// `pki`, that admits whoever has a certificate.
pub(crate) fn server_at(pki: &Pki, listen: &str, target: &str) -> Command {
    let mut command = ghostunnel();
    command
        .args(["server", "--allow-all"])
        .flag("--listen", listen)
        .flag("--target", target)
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key);
    command
}

/// A client tunnel between addresses written in any way, with the client's credentials of `pki`.
pub(crate) fn client_at(pki: &Pki, listen: &str, target: &str) -> Command {
    let mut command = ghostunnel();
    command
        .arg("client")
        .flag("--listen", listen)
        .flag("--target", target)
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.client_files.certificate)
        .flag("--key", &pki.client_files.key);
    command
}

/// A line of the log up to where the reason of a refusal follows in brackets.
pub(crate) fn phrase(line: &str) -> &str {
    line.split_once(" [reason=").map_or(line, |(phrase, _)| phrase)
}

/// Lets it run as the user nobody. `false`, and a word about it, where this can't be done.
pub(crate) fn as_nobody(command: &mut Command) -> bool {
    let Some(setpriv) = as_root("setpriv") else {
        return false;
    };
    command.through(&setpriv, ["--reuid=65534", "--regid=65534", "--clear-groups"]);
    true
}

/// Lets it see another `/etc`, with these files and nothing else. `false`, and a word about
/// it, where this can't be done.
pub(crate) fn with_etc(command: &mut Command, directory: &Path, files: &[(&str, &str)]) -> bool {
    let Some(unshare) = as_root("unshare") else {
        return false;
    };
    for (name, text) in files {
        fs::write(directory.join(name), text).expect("writable");
    }
    // Where the loader finds what the C library loads for the first look-up.
    let _ = fs::copy("/etc/ld.so.cache", directory.join("ld.so.cache"));
    let script = format!(
        "mount --bind '{}' /etc && exec \"$0\" \"$@\"",
        directory.display()
    );
    command.through(&unshare, ["--mount", "/bin/sh", "-c", &script]);
    true
}

/// A tool that only root can use.
pub(crate) fn as_root(tool: &str) -> Option<PathBuf> {
    if fs::metadata("/proc/self").expect("procfs").uid() == 0 {
        return require_tool(tool);
    }
    skip("only root can become another user or replace /etc");
    None
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
