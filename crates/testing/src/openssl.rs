//! Real peers that share no code with the tested program: OpenSSL and curl.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::ca::Files;
use crate::ports::ReservedPort;
use crate::process::{Command, Process};
use crate::stream::Address;

/// Finds a tool on the search path.
///
/// A missing tool fails the test where the environment variable `CI` is set. Elsewhere it
/// prints `SKIPPED: …` and gives `None`, and the test returns.
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let found = search(name, env::var_os("PATH").as_deref());
    if found.is_none() {
        skip(&format!(
            "{name} is not installed: `./test` installs what the tests need"
        ));
    }
    found
}

/// Says why a test can't run here; it returns next. Fails where the environment variable `CI`
/// is set, since nobody would read it there.
pub fn skip(reason: &str) {
    let is_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{reason}");
    eprintln!("SKIPPED: {reason}");
}

fn search(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// A command line for `openssl`; `None` if it is missing.
pub fn openssl(arguments: &[&str]) -> Option<Command> {
    tool("openssl", arguments)
}

/// A command line for `curl`, without progress meter and user configuration; `None` if it is
/// missing.
pub fn curl(arguments: &[&str]) -> Option<Command> {
    let mut command = tool(
        "curl",
        &["--disable", "--silent", "--show-error", "--max-time", "10"],
    )?;
    command.args(arguments);
    Some(command)
}

fn tool(name: &str, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::new(require_tool(name)?);
    command.args(arguments);
    Some(command)
}

/// Starts `openssl s_client` towards this address, with `localhost` as SNI and a checked
/// chain. Lines written to its input are sent, lines received are its standard output.
///
/// `identity` is the client certificate to show. `None` if OpenSSL is missing.
pub fn s_client(address: &Address, ca: &Path, identity: Option<&Files>, more: &[&str]) -> Option<Process> {
    let Address::Tcp(address) = address else {
        panic!("s_client is used over TCP only")
    };
    let mut command = openssl(&[
        "s_client",
        "-quiet",
        "-servername",
        "localhost",
        "-verify_return_error",
    ])?;
    command
        .arg("-connect")
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(ca);
    add_identity(&mut command, identity);
    Some(command.args(more).with_input().start())
}

/// Starts `openssl s_server` on a free port of 127.0.0.1 and returns it with its address.
/// Lines written to its input are sent, lines received are its standard output.
///
/// `None` if OpenSSL is missing.
pub fn s_server(identity: &Files, more: &[&str]) -> Option<(Process, Address)> {
    let mut command = openssl(&["s_server", "-quiet"])?;
    // Reserved only until it listens; quiet as it is, it would not say which port it chose.
    let reserved = ReservedPort::new();
    command.arg("-accept").arg(reserved.address().to_string());
    add_identity(&mut command, Some(identity));
    let process = command.args(more).with_input().start();
    process.wait_listening(reserved.port());
    Some((process, reserved.address().into()))
}

fn add_identity(command: &mut Command, identity: Option<&Files>) {
    if let Some(files) = identity {
        command
            .arg("-cert")
            .arg(&files.certificate)
            .arg("-key")
            .arg(&files.key);
        command.arg("-cert_chain").arg(&files.certificate);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{
        Backend, Behaviour, ClientCertificates, Exit, KeyKind, Output, Pki, Request, TlsClient, TlsServer,
    };

    #[test]
    fn tools_are_searched_on_the_path_only() {
        assert_eq!(
            search("sh", Some(OsStr::new("/nowhere:/bin"))),
            Some("/bin/sh".into())
        );
        assert_eq!(search("sh", Some(OsStr::new("/nowhere"))), None);
        assert_eq!(search("sh", None), None);
    }

    #[test]
    fn openssl_talks_to_our_server_and_our_client() {
        let pki = Pki::new();
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(server, Behaviour::Echo);
        let Some(client) = s_client(
            backend.address(),
            &pki.ca_file,
            Some(&pki.client_files),
            &["-quiet"],
        ) else {
            return;
        };
        client.write_input(b"to the server\n");
        client.wait_for_line("to the server");

        let Some((server, address)) = s_server(&pki.server_files, &[]) else {
            return;
        };
        let mut peer = TlsClient::trusting(&pki.authority)
            .connect(&address)
            .expect("a trusted server");
        peer.write_all(b"to the program\n").expect("open");
        server.wait_for_line("to the program");
    }

    #[test]
    fn openssl_accepts_certificates_of_every_kind() {
        let pki = Pki::new();
        for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let authority = pki.authority.intermediate(&Request::named("middle").key(key));
            let request = Request::named("leaf")
                .organizational_unit("a")
                .organizational_unit("b")
                .key(key);
            let files = authority.issue(&request).write_to(pki.dir(), "leaf");
            let Some(mut verify) = openssl(&["verify", "-x509_strict", "-show_chain", "-CAfile"]) else {
                return;
            };
            verify
                .arg(&pki.ca_file)
                .arg("-untrusted")
                .arg(&files.certificate)
                .arg(&files.certificate);
            let output = verify.run();
            assert_eq!(output.exit, Exit::Code(0), "{key:?}: {output:?}");
            // Blanks around the equals sign depend on the version of OpenSSL.
            assert!(
                output.stdout.replace(' ', "").contains("CN=leaf,OU=a,OU=b"),
                "{output:?}"
            );
        }
    }

    #[test]
    fn curl_reaches_a_server() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
        let backend = Backend::tcp(Behaviour::AnswerAndHalfClose(answer));
        let Some(curl) = curl(&[&format!("http://{}/", backend.address())]) else {
            return;
        };
        assert_eq!(
            curl.run(),
            Output {
                exit: Exit::Code(0),
                stdout: "ok\n".into(),
                stderr: String::new()
            }
        );
    }
}
