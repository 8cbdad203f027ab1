//! Sessions that are resumed from tickets, and what a ticket is worth once its owner would not
//! be let in any more.

use std::fs;
use std::time::{Duration, SystemTime};

use ghostunnel_testing::{
    AlertDescription, End, Issued, Request, Signal, TlsClient, Version, eventually, openssl, s_client,
};

use crate::operator::{Mode, Peer, Tunnel, command, get, replace};

fn option(version: Version) -> &'static str {
    match version {
        Version::V12 => "-tls1_2",
        Version::V13 => "-tls1_3",
    }
}

/// A client that resumes where it can.
fn client(tunnel: &Tunnel, identity: &Issued, version: Version) -> TlsClient {
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(identity);
    client.version(version).resuming()
}

/// Connects and waits for an echo: whether a session was resumed, or how the connection ended.
fn greet(tunnel: &Tunnel, client: &TlsClient) -> Result<bool, End> {
    let peer = client.connect(&tunnel.listen.address().into())?;
    let is_resumed = peer.facts().is_resumed;
    let mut peer = Peer::Tls(Box::new(peer));
    peer.echo(b"hello").map_err(|error| End::from(&error))?;
    Ok(is_resumed)
}

fn alert(alert: AlertDescription) -> Result<bool, End> {
    Err(End::Alert(alert))
}

#[test]
fn sessions_are_resumed_in_both_versions() {
    let tunnel = Tunnel::start(Mode::Server);
    for version in Version::BOTH {
        let client = client(&tunnel, &tunnel.pki.client, version);
        let mark = tunnel.process.mark();
        let resumed = [(); 3].map(|()| greet(&tunnel, &client).expect("admitted"));
        assert_eq!(resumed, [false, true, true], "{version:?}");
        // The log knows the peer of a resumed session as well as that of a full handshake.
        eventually("three connections are in the log", || {
            let lines = tunnel.process.lines();
            let opened =
                |line: &&ghostunnel_testing::Line| line.text().contains("[CN=client,OU=clients] <->");
            lines[mark..].iter().filter(opened).count() >= 3
        });
    }
    let metrics = get(&tunnel.status, "/_metrics/prometheus").text().to_owned();
    for line in ["full\"} 2", "resumed\"} 4"] {
        let line = format!("\nghostunnel_handshakes_total{{kind=\"{line}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn openssl_gets_one_ticket_and_resumes_with_it() {
    let tunnel = Tunnel::start(Mode::Server);
    for version in Version::BOTH {
        let session = tunnel.pki.dir().join(format!("session{version:?}"));
        let path = session.to_str().expect("a path of ours");
        let files = Some(&tunnel.pki.client_files);
        let options = ["-msg", option(version), "-sess_out", path];
        let address = tunnel.listen.address().into();
        let Some(process) = s_client(&address, &tunnel.pki.ca_file, files, &options) else {
            return;
        };
        process.write_input(b"hello\n");
        process.wait_for_line("hello");
        let messages = process.stdout();
        assert_eq!(messages.matches("NewSessionTicket").count(), 1, "{messages}");
        eventually("the session is saved", || {
            fs::metadata(&session).is_ok_and(|file| file.len() > 0)
        });
        let report = report(&tunnel, version, &["-msg", "-sess_in", path]);
        assert!(report.contains("Reused, TLSv1."), "{version:?}: {report}");
        assert!(!report.contains("CertificateVerify"), "{version:?}: {report}");
    }
}

/// What OpenSSL says about a handshake; its input is at its end.
fn report(tunnel: &Tunnel, version: Version, more: &[&str]) -> String {
    let mut command = openssl(&["s_client", "-servername", "localhost", "-connect"]).expect("it was there");
    command
        .arg(tunnel.listen.address().to_string())
        .arg("-CAfile")
        .arg(&tunnel.pki.ca_file)
        .arg("-cert")
        .arg(&tunnel.pki.client_files.certificate)
        .arg("-key")
        .arg(&tunnel.pki.client_files.key)
        .arg(option(version))
        .args(more);
    command.run().stdout
}

#[test]
fn a_reload_ends_all_sessions() {
    let tunnel = Tunnel::start(Mode::Server);
    for version in Version::BOTH {
        let client = client(&tunnel, &tunnel.pki.client, version);
        assert_eq!(greet(&tunnel, &client), Ok(false));
        assert_eq!(greet(&tunnel, &client), Ok(true));
        tunnel.reload();
        assert_eq!(greet(&tunnel, &client), Ok(false), "{version:?}");
        assert_eq!(greet(&tunnel, &client), Ok(true), "{version:?}");
    }
}

#[test]
fn nobody_resumes_whose_authority_is_no_longer_trusted() {
    for version in Version::BOTH {
        let tunnel = Tunnel::start(Mode::Server);
        let client = client(&tunnel, &tunnel.pki.client, version);
        assert_eq!(greet(&tunnel, &client), Ok(false));
        assert_eq!(greet(&tunnel, &client), Ok(true));
        replace(&tunnel.pki.ca_file, &tunnel.pki.other_authority.pem());
        tunnel.reload();
        let refused = alert(AlertDescription::UnknownCA);
        assert_eq!(greet(&tunnel, &client), refused, "{version:?}");
        assert_eq!(greet(&tunnel, &client), refused, "{version:?}");
    }
}

/// Without a reload too: time goes on by itself.
#[test]
fn nobody_resumes_whose_certificate_has_expired() {
    let tunnel = Tunnel::start(Mode::Server);
    let now = SystemTime::now();
    let request = Request::named("short").valid(now - Duration::from_secs(60), now + Duration::from_secs(5));
    let short = tunnel.pki.authority.issue(&request);
    let clients = Version::BOTH.map(|version| {
        // Two each, since a ticket of TLS 1.3 is used once.
        [(); 2].map(|()| {
            let client = client(&tunnel, &short, version);
            assert_eq!(greet(&tunnel, &client), Ok(false));
            assert_eq!(greet(&tunnel, &client), Ok(true));
            client
        })
    });
    let refused = alert(AlertDescription::CertificateExpired);
    eventually("the certificate has expired", || {
        greet(&tunnel, &client(&tunnel, &short, Version::V13)) == refused
    });
    for [first, _] in &clients {
        assert_eq!(greet(&tunnel, first), refused);
    }
    tunnel.reload();
    for [_, second] in &clients {
        assert_eq!(greet(&tunnel, second), refused);
    }
}

/// Flags, the access rules among them, change with a restart.
#[test]
fn nobody_resumes_what_another_process_began() {
    let mut tunnel = Tunnel::start(Mode::Server);
    let clients = Version::BOTH.map(|version| client(&tunnel, &tunnel.pki.client, version));
    for client in &clients {
        assert_eq!(greet(&tunnel, client), Ok(false));
        assert_eq!(greet(&tunnel, client), Ok(true));
    }
    tunnel.process.signal(Signal::KILL);
    tunnel.process.wait_exit();
    let mut narrowed = crate::support::server(&tunnel.pki, &tunnel.listen, tunnel.backend.address());
    tunnel.process = narrowed.arg("--allow-cn=somebody else").start();
    tunnel.process.wait_listening(tunnel.listen.port());
    for client in &clients {
        let refused = alert(AlertDescription::BadCertificate);
        assert_eq!(greet(&tunnel, client), refused);
    }
    tunnel.process.signal(Signal::KILL);
    tunnel.process.wait_exit();
    tunnel.process = command(
        Mode::Server,
        &tunnel.pki,
        &tunnel.listen,
        tunnel.backend.address(),
    )
    .start();
    tunnel.process.wait_listening(tunnel.listen.port());
    for client in &clients {
        assert_eq!(greet(&tunnel, client), Ok(false));
        assert_eq!(greet(&tunnel, client), Ok(true));
    }
}
