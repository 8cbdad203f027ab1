//! Targets reached through a forward proxy: real ones, and some that mean no good.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Backend, Behaviour, ClientCertificates, Command, End, Endpoint, Exit, Pki, Plain, Process, ReservedPort,
    Signal, TlsServer, eventually, read_to_end, require_tool,
};

use crate::support;

/// A client tunnel through a proxy to a TLS backend that echoes.
struct Tunnel {
    process: Process,
    backend: Backend,
    listen: ReservedPort,
    pki: Pki,
}

impl Tunnel {
    /// `flags` gives the flags for the backend's port.
    fn start(flags: impl FnOnce(u16) -> Vec<String>) -> Self {
        let (pki, listen) = (Pki::new(), ReservedPort::new());
        let server = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
        let backend = Backend::tls(server, Behaviour::Echo);
        let process = support::ghostunnel()
            .arg("client")
            .flag("--listen", listen.address().to_string())
            .flag("--keystore", &pki.client_files.keystore)
            .flag("--cacert", &pki.ca_file)
            .args(flags(backend.port()))
            .start();
        process.wait_listening(listen.port());
        Self {
            process,
            backend,
            listen,
            pki,
        }
    }

    /// To the backend by name, through this proxy.
    fn through(proxy: &str, flags: &[&str]) -> Self {
        Self::start(|port| {
            let mut all = vec![format!("--target=localhost:{port}"), format!("--proxy={proxy}")];
            all.extend(flags.iter().map(|flag| (*flag).to_owned()));
            all
        })
    }

    fn connect(&self) -> Plain {
        Plain::connect(&self.listen.address().into()).expect("listening")
    }

    /// Sends a word through and returns what came back, and how it ended.
    fn exchange(&self) -> (Vec<u8>, End) {
        let mut peer = self.connect();
        // The tunnel may have given up already; the read tells.
        let _ = peer.write_all(b"hello");
        peer.end_writing();
        read_to_end(&mut peer)
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(self.exchange(), (b"hello".to_vec(), End::Closed));
    }

    /// Asserts that a connection ends without a byte, with a line in the log that holds this.
    #[track_caller]
    fn assert_fails(&self, line: &str) {
        let mark = self.process.mark();
        let mut peer = self.connect();
        let (bytes, _) = read_to_end(&mut peer);
        assert_eq!(bytes, b"");
        self.process.wait_for_line_after(mark, line);
    }
}

/// A proxy in this process; each connection is served by `serve` on a thread of its own.
struct Fake {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(serve: impl Fn(TcpStream, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, serve) = (Arc::clone(&requests), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, serve) = (Arc::clone(&seen), Arc::clone(&serve));
                thread::spawn(move || {
                    let request = read_head(&stream);
                    seen.lock().expect("no holder panics").push(request.clone());
                    serve(stream, &request);
                });
            }
        });
        Self { address, requests }
    }

    /// Says this to everybody, then closes once the other side has.
    fn saying(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::start(move |mut stream, _| {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no holder panics").clone()
    }
}

fn read_head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

/// Copies both ways until both have ended.
fn join(one: TcpStream, other: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let there = copy(clone(&one), clone(&other));
    let back = copy(other, one);
    let _ = (there.join(), back.join());
}

/// Who may use a real proxy.
const LOGIN: (&str, &str) = ("user", "pass-word");

/// tinyproxy on a free port.
fn tinyproxy(pki: &Pki) -> Option<(Process, ReservedPort)> {
    let (program, port) = (require_tool("tinyproxy")?, ReservedPort::new());
    let config = pki.write(
        "tinyproxy.conf",
        &format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Connect\nBasicAuth {} {}\n",
            port.port(),
            LOGIN.0,
            LOGIN.1
        ),
    );
    let process = Command::new(program).arg("-d").arg("-c").arg(config).start();
    process.wait_listening(port.port());
    Some((process, port))
}

/// microsocks on a free port.
fn microsocks(login: Option<(&str, &str)>) -> Option<(Process, ReservedPort)> {
    let (program, port) = (require_tool("microsocks")?, ReservedPort::new());
    let mut command = Command::new(program);
    command.args(["-i", "127.0.0.1", "-p", &port.port().to_string()]);
    if let Some((name, password)) = login {
        command.args(["-u", name, "-P", password]);
    }
    let process = command.start();
    process.wait_listening(port.port());
    Some((process, port))
}

#[test]
fn tinyproxy_connects_by_http_with_a_login() {
    let files = Pki::new();
    let Some((proxy, port)) = tinyproxy(&files) else {
        return;
    };
    let tunnel = Tunnel::through(&format!("http://user:pass%2Dword@{}", port.address()), &[]);
    tunnel.assert_works();
    proxy.wait_for_line(&format!("CONNECT localhost:{} HTTP/1.1", tunnel.backend.port()));
    tunnel
        .process
        .wait_for_line(&format!("using proxy URL http://user:xxxxx@{}", port.address()));
    tunnel
        .process
        .wait_for_line(&format!(" <-> tcp:{} [CN=server]", port.address()));
    let log = tunnel.process.stdout() + &tunnel.process.stderr();
    assert!(!log.contains("pass"), "{log}");

    let stranger = Tunnel::through(&format!("http://{}", port.address()), &[]);
    stranger
        .assert_fails("error on dial: http_tunnel: failed proxying 407: 407 Proxy Authentication Required");
    let gone = Tunnel::start(|_| {
        let closed = ReservedPort::new();
        vec![
            format!("--target=localhost:{}", closed.port()),
            format!("--proxy=http://user:pass%2Dword@{}", port.address()),
        ]
    });
    gone.assert_fails("error on dial: http_tunnel: failed proxying 50");
}

#[test]
fn microsocks_connects_by_socks5_with_and_without_a_login() {
    let Some((_open, port)) = microsocks(None) else {
        return;
    };
    for scheme in ["socks5", "SOCKS5h"] {
        let tunnel = Tunnel::through(&format!("{scheme}://{}", port.address()), &[]);
        tunnel.assert_works();
        tunnel
            .process
            .wait_for_line(&format!(" <-> tcp:{} [CN=server]", port.address()));
    }
    let literal = Tunnel::start(|backend| {
        vec![
            format!("--target=127.0.0.1:{backend}"),
            format!("--proxy=socks5://{}", port.address()),
        ]
    });
    literal.assert_works();
    let closed = ReservedPort::new();
    let gone = Tunnel::start(|_| {
        vec![
            format!("--target=localhost:{}", closed.port()),
            format!("--connect-proxy=socks5://{}", port.address()),
        ]
    });
    gone.assert_fails(&format!(
        "error on dial: socks connect tcp {}->localhost:{}: unknown error connection refused",
        port.address(),
        closed.port()
    ));

    let Some((_closed, port)) = microsocks(Some(LOGIN)) else {
        return;
    };
    let tunnel = Tunnel::through(&format!("socks5://user:pass-word@{}", port.address()), &[]);
    tunnel.assert_works();
    let log = tunnel.process.stdout() + &tunnel.process.stderr();
    assert!(
        log.contains("socks5://user:xxxxx@") && !log.contains("pass"),
        "{log}"
    );
    let wrong = Tunnel::through(&format!("socks5://user:wrong@{}", port.address()), &[]);
    wrong.assert_fails(": username/password authentication failed");
    let stranger = Tunnel::through(&format!("socks5://{}", port.address()), &[]);
    stranger.assert_fails(": no acceptable authentication methods");
}

#[test]
fn the_request_is_byte_for_byte_and_the_target_is_not_looked_up() {
    let fake = Fake::saying("HTTP/1.1 502 No\r\n\r\n");
    let tunnel = Tunnel::start(|_| {
        vec![
            "--target=No-Such-Host.invalid:443".to_owned(),
            format!("--proxy={}", fake.url()),
        ]
    });
    tunnel.assert_fails("error on dial: http_tunnel: failed proxying 502: 502 No");
    assert_eq!(
        fake.requests(),
        [
            "CONNECT No-Such-Host.invalid:443 HTTP/1.1\r\nHost: No-Such-Host.invalid:443\r\n\
             User-Agent: Go-http-client/1.1\r\n\r\n"
        ]
    );
}

#[test]
fn the_status_port_checks_the_target_through_the_proxy() {
    let Some((_process, port)) = microsocks(None) else {
        return;
    };
    let status = ReservedPort::new();
    let tunnel = Tunnel::through(
        &format!("socks5://{}", port.address()),
        &[&format!("--status=http://{}", status.address())],
    );
    let answer = Endpoint::Http(&status.address().into())
        .get("/_status")
        .expect("served");
    assert_eq!(answer.json()["backend_ok"], true, "{}", answer.text());
    tunnel.backend.wait_accepted(1);
}

#[test]
fn a_proxy_that_talks_nonsense_ends_the_connection_and_nothing_else() {
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(100_000)].concat();
    let line = [b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 1 << 20]].concat();
    for (answer, text) in [
        (b"garbage\n".to_vec(), "malformed HTTP response \"garbage\""),
        (
            b"\x05\x00\n\x1b[2J\n".to_vec(),
            "malformed HTTP response \"\\x05\\x00\"",
        ),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), "unexpected EOF"),
        (Vec::new(), "unexpected EOF"),
        (endless, "http_tunnel: response head is longer than 16384 bytes"),
        (line, "http_tunnel: response head is longer than 16384 bytes"),
        // A tunnel, but nobody at its end.
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "EOF"),
    ] {
        let tunnel = Tunnel::through(&Fake::saying(answer).url(), &["--max-concurrent-conns=1"]);
        // Twice, so that the only slot must have been given back.
        for _ in 0..2 {
            tunnel.assert_fails(&format!("error on dial: {text}"));
        }
        assert_eq!(tunnel.backend.accepted(), 0);
    }
}

#[test]
fn a_silent_proxy_is_left_when_the_connect_timeout_is_over() {
    let silent = Fake::start(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    for proxy in [silent.url(), silent.url().replace("http", "socks5")] {
        let flags = ["--connect-timeout=300ms", "--max-concurrent-conns=1"];
        let tunnel = Tunnel::through(&proxy, &flags);
        for _ in 0..2 {
            let started = Instant::now();
            tunnel.assert_fails(": i/o timeout");
            assert!(started.elapsed() >= Duration::from_millis(300));
        }
    }
}

#[test]
fn a_shutdown_does_not_wait_for_a_silent_proxy() {
    let silent = Fake::start(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    let tunnel = Tunnel::through(&silent.url(), &["--connect-timeout=1h", "--shutdown-timeout=1h"]);
    let mut peer = tunnel.connect();
    eventually("the proxy was asked", || !silent.requests().is_empty());
    tunnel.process.signal(Signal::TERM);
    assert_eq!(read_to_end(&mut peer).0, b"");
    assert_eq!(tunnel.process.wait_exit(), Exit::Code(0));
    tunnel.process.wait_for_line("operation was canceled");
}

#[test]
fn what_a_proxy_says_behind_its_answer_does_not_reach_tls() {
    let chatty = Fake::start(|mut stream, request| {
        let target = request.split(' ').nth(1).expect("a target");
        let target = TcpStream::connect(target).expect("the backend");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\njunk");
        join(stream, target);
    });
    Tunnel::through(&chatty.url(), &[]).assert_works();
}

#[test]
fn tls_is_verified_through_a_proxy_as_without_one() {
    let Some((_process, port)) = microsocks(None) else {
        return;
    };
    let tunnel = Tunnel::through(
        &format!("socks5://{}", port.address()),
        &["--verify-cn=somebody-else"],
    );
    tunnel.assert_fails("error on dial: unauthorized: invalid principal, or principal not allowed");
    let impostor = TlsServer::new(&tunnel.pki.stranger, &ClientCertificates::Unasked);
    let impostor = Backend::tls(impostor, Behaviour::Echo);
    let elsewhere = Fake::start(move |mut stream, _| {
        let target = TcpStream::connect(("127.0.0.1", impostor.port())).expect("the impostor");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        join(stream, target);
    });
    Tunnel::through(&elsewhere.url(), &[])
        .assert_fails("error on dial: tls: failed to verify certificate: x509: ");
}

#[test]
fn a_proxy_of_unknown_kind_stops_the_start() {
    let pki = Pki::new();
    for (url, scheme) in [
        ("https://user:secret@h", "https"),
        ("", ""),
        ("localhost:3128", "localhost"),
    ] {
        let output = support::ghostunnel()
            .args(["client", "--listen=localhost:0", "--target=localhost:1"])
            .flag("--keystore", &pki.client_files.keystore)
            .flag("--proxy", url)
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        let reason = format!("proxy: unknown scheme: {scheme}\n");
        assert!(
            output
                .stdout
                .contains(&format!("error: error configuring proxy: {reason}")),
            "{output:?}"
        );
        assert!(
            output.stdout.contains("error: unable to build dialer: "),
            "{output:?}"
        );
        assert!(output.stderr.ends_with(&reason), "{output:?}");
        assert!(!format!("{output:?}").contains("secret"), "{output:?}");
    }
}
