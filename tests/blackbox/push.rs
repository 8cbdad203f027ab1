//! Metrics that are sent without being asked for: to Graphite, and by POST.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Authority, ClientCertificates, Command, DEADLINE, Exit, Pki, Plain, Process, Request, ReservedPort,
    Signal, TlsServer, eventually, within,
};
use serde_json::Value;

use crate::operator::{BOTH_MODES, Mode, Tunnel, message};

/// "At once", on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Where metrics are sent to.
struct Receiver(TcpListener);

impl Receiver {
    fn new() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("no waiting");
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The next connection.
    #[track_caller]
    fn accept(&self) -> TcpStream {
        let found = within(DEADLINE, || self.0.accept().ok());
        let (stream, _) = found.expect("somebody connects");
        stream.set_nonblocking(false).expect("waiting");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        stream
    }

    /// All that the next connection brings, up to its end.
    #[track_caller]
    fn lines(&self) -> String {
        let mut text = String::new();
        self.accept()
            .read_to_string(&mut text)
            .expect("an end in good order");
        text
    }

    /// The next connection and its first request, which is answered.
    #[track_caller]
    fn request(&self) -> (BufReader<TcpStream>, Post) {
        let mut stream = BufReader::new(self.accept());
        let post = Post::read(&mut stream);
        answer(stream.get_mut(), "200 OK");
        (stream, post)
    }
}

fn answer(stream: &mut impl Write, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
    stream.write_all(text.as_bytes()).expect("the answer is taken");
}

/// A request, its head as lines.
#[derive(Debug)]
struct Post {
    head: Vec<String>,
    body: String,
}

impl Post {
    #[track_caller]
    fn read(stream: &mut impl BufRead) -> Self {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a head");
            assert!(line.ends_with("\r\n"), "{head:?} {line:?}");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut post = Self {
            head,
            body: String::new(),
        };
        let length = post.header("content-length").expect("never chunked");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).expect("a body");
        post.body = String::from_utf8(body).expect("text");
        post
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }

    #[track_caller]
    fn metric(&self, name: &str) -> f64 {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        let entries = body.as_array().expect("an array");
        let entry = entries.iter().find(|entry| entry["metric"] == name);
        entry.and_then(|entry| entry["value"].as_f64()).expect("there")
    }
}

#[track_caller]
fn exit_at_once(process: &Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit_within(AT_ONCE), Some(Exit::Code(0)));
}

fn start(mode: Mode, adapt: impl FnOnce(&mut Command)) -> Tunnel {
    Tunnel::start_with(mode, |command, _| adapt(command))
}

#[test]
fn graphite_gets_its_lines_every_second_whatever_the_interval() {
    for mode in BOTH_MODES {
        let receiver = Receiver::new();
        let tunnel = start(mode, |command| {
            command
                .flag("--metrics-graphite", receiver.address().to_string())
                .arg("--metrics-interval=1h")
                .arg("--metrics-prefix=my.pre-fix");
        });
        let line = format!(
            "metrics enabled; reporting metrics via TCP to {}",
            receiver.address()
        );
        tunnel.process.wait_for_line(&line);
        tunnel.visit();
        let mut values = 0.0;
        let begin = Instant::now();
        for _ in 0..3 {
            let text = receiver.lines();
            for line in text.lines() {
                let fields: Vec<_> = line.split(' ').collect();
                assert!(
                    fields.len() == 3 && fields[0].starts_with("my.pre-fix."),
                    "{line}"
                );
                assert!(fields[1].parse::<f64>().is_ok(), "{line}");
                assert!(
                    fields[2].parse::<u64>().is_ok_and(|time| time > 1_700_000_000),
                    "{line}"
                );
                if fields[0] == "my.pre-fix.accept.total.count" {
                    values = fields[1].parse().expect("a number");
                }
            }
            assert_eq!(text.lines().count(), 6 * 2 + 2 * 15, "{text}");
        }
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(values, 1.0);
        assert_eq!(tunnel.process.stderr(), "");
    }
}

/// Whoever sends metrics somewhere need not open a port to see them.
#[test]
fn metrics_are_collected_without_a_status_port() {
    let (pki, receiver) = (Pki::new(), Receiver::new());
    let (backend, listen) = (
        crate::operator::echo_backend(Mode::Server, &pki),
        ReservedPort::new(),
    );
    let process = crate::operator::command(Mode::Server, &pki, &listen, backend.address())
        .flag("--metrics-graphite", receiver.address().to_string())
        .start();
    process.wait_listening(listen.port());
    drop(Plain::connect(&listen.address().into()).expect("listening"));
    eventually("the connection is told of", || {
        receiver.lines().contains("ghostunnel.accept.total.count 1 ")
    });
}

#[test]
fn the_last_values_are_sent_at_the_end() {
    let (graphite, web) = (Receiver::new(), Receiver::new());
    let tunnel = start(Mode::Server, |command| {
        command
            .flag("--metrics-graphite", graphite.address().to_string())
            .flag("--metrics-url", web.url("/"))
            .arg("--metrics-interval=1h");
    });
    tunnel.visit();
    tunnel.process.wait_for_line("closed pipe");
    tunnel.process.signal(Signal::TERM);
    let (_, post) = web.request();
    assert_eq!(post.metric("ghostunnel.conn.lifetime.count"), 1.0);
    eventually("Graphite has them too", || {
        graphite.lines().contains("ghostunnel.conn.lifetime.count 1 ")
    });
    assert_eq!(tunnel.process.wait_exit_within(AT_ONCE), Some(Exit::Code(0)));
}

#[test]
fn failures_are_told_in_the_log_once_and_recovery_too() {
    // Bound, so that nobody else takes it, and not listening.
    let reserved = ReservedPort::new();
    let address = reserved.address();
    let tunnel = start(Mode::Server, |command| {
        command.flag("--metrics-graphite", address.to_string());
    });
    let failure = format!("error reporting metrics: dial tcp {address}: connect: connection refused");
    let line = tunnel.process.wait_for_line("error reporting metrics");
    assert_eq!(message(&line), failure);
    // Several more attempts fail meanwhile.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        tunnel.visit();
    }
    assert_eq!(tunnel.process.count_lines("error reporting metrics"), 1);
    assert_eq!(tunnel.process.stderr(), "");
    exit_at_once(&tunnel.process);
}

#[test]
fn a_receiver_that_comes_back_is_found_again() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag("--metrics-url", receiver.url("/"))
            .arg("--metrics-interval=50ms");
    });
    drop(receiver.accept());
    let line = tunnel.process.wait_for_line("error reporting metrics: ");
    assert!(
        line.ends_with(": EOF") || line.contains("connection reset"),
        "{line}"
    );
    let (_, _) = receiver.request();
    tunnel.process.wait_for_line("metrics are reported again, after ");
}

#[test]
fn each_tick_posts_the_json_of_the_status_port() {
    for mode in BOTH_MODES {
        let receiver = Receiver::new();
        let tunnel = start(mode, |command| {
            command
                .flag("--metrics-url", receiver.url("/foo?x=y"))
                .arg("--metrics-interval=100ms")
                // Not heeded, as nobody listens there.
                .env("http_proxy", "http://127.0.0.1:9")
                .env("HTTP_PROXY", "http://127.0.0.1:9");
        });
        let line = format!(
            "metrics enabled; reporting metrics via POST to {}",
            receiver.url("/foo?x=y")
        );
        tunnel.process.wait_for_line(&line);
        tunnel.visit();
        let (mut stream, first) = receiver.request();
        assert_eq!(first.head[0], "POST /foo?x=y HTTP/1.1");
        assert_eq!(
            first.header("host"),
            Some(receiver.address().to_string().as_str())
        );
        assert_eq!(first.header("content-type"), Some("application/json"));
        assert_eq!(first.header("transfer-encoding"), None);
        // The connection is kept for further ticks.
        for _ in 0..3 {
            let next = Post::read(&mut stream);
            answer(stream.get_mut(), "202 Accepted");
            assert_eq!(next.head, {
                let mut head = first.head.clone();
                // Only the length of the body may differ.
                for line in &mut head {
                    if line.to_lowercase().starts_with("content-length") {
                        *line = format!("Content-Length: {}", next.body.len());
                    }
                }
                head
            });
            let names = |text: &str| -> Vec<String> {
                let json: Value = serde_json::from_str(text).expect("JSON");
                let entries = json.as_array().expect("an array").iter();
                entries.map(|entry| entry["metric"].to_string()).collect()
            };
            assert_eq!(names(&next.body), names(tunnel.get("/_metrics/json").text()));
        }
        assert_eq!(tunnel.process.count_lines("error reporting metrics"), 0);
    }
}

#[test]
fn a_host_name_is_tried_with_all_its_addresses() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag(
                "--metrics-url",
                format!("http://localhost:{}/", receiver.address().port()),
            )
            .arg("--metrics-interval=50ms");
    });
    let (_, post) = receiver.request();
    assert_eq!(post.metric("ghostunnel.accept.total"), 0.0);
    exit_at_once(&tunnel.process);
}

#[test]
fn a_password_in_the_url_is_sent_and_not_logged() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag(
                "--metrics-url",
                format!("http://Aladdin:open%20sesame@{}/x", receiver.address()),
            )
            .arg("--metrics-interval=50ms");
    });
    let (_, post) = receiver.request();
    assert_eq!(
        post.header("authorization"),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
    let shown = format!(
        "reporting metrics via POST to http://Aladdin:xxxxx@{}/x",
        receiver.address()
    );
    tunnel.process.wait_for_line(&shown);
    assert_eq!(tunnel.process.count_lines("sesame"), 0);
}

#[test]
fn a_receiver_that_never_answers_delays_nothing() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag("--metrics-url", receiver.url("/"))
            .arg("--metrics-interval=20ms");
    });
    let mut stream = BufReader::new(receiver.accept());
    Post::read(&mut stream);
    for _ in 0..5 {
        tunnel.visit();
        assert_eq!(tunnel.get("/_status").status, 200);
    }
    tunnel.reload();
    // One request at a time.
    assert!(receiver.0.accept().is_err());
    exit_at_once(&tunnel.process);
}

#[test]
fn other_answers_are_no_transport_errors_but_told() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag("--metrics-url", receiver.url("/"))
            .arg("--metrics-interval=50ms");
    });
    let mut stream = BufReader::new(receiver.accept());
    for _ in 0..3 {
        Post::read(&mut stream);
        answer(stream.get_mut(), "500 Internal Server Error");
    }
    Post::read(&mut stream);
    let answered = "receiver of metrics answered 500 Internal Server Error";
    tunnel.process.wait_for_line(answered);
    assert_eq!(tunnel.process.count_lines(answered), 1);
    assert_eq!(tunnel.process.count_lines("error reporting metrics"), 0);
}

/// One request that arrives over TLS, or how the handshake ended.
fn tls_request(receiver: &Receiver, server: &TlsServer) -> Result<Post, String> {
    let peer = server.handshake(Plain::from(receiver.accept()));
    let mut peer = BufReader::new(peer.map_err(|end| format!("{end:?}"))?);
    let post = Post::read(&mut peer);
    answer(peer.get_mut(), "200 OK");
    Ok(post)
}

#[test]
fn https_receivers_are_verified_with_the_ca_bundle() {
    let receiver = Receiver::new();
    let tunnel = start(Mode::Server, |command| {
        command
            .flag(
                "--metrics-url",
                format!("https://localhost:{}/x", receiver.address().port()),
            )
            .arg("--metrics-interval=100ms");
    });
    let clients = || ClientCertificates::optional(&tunnel.pki.authority);
    let request = || Request::named("receiver").dns("localhost");
    let stranger = Authority::new("stranger").issue(&request());
    let other_name = tunnel
        .pki
        .authority
        .issue(&Request::named("receiver").dns("other.test"));
    let good = tunnel.pki.authority.issue(&request());
    assert!(tls_request(&receiver, &TlsServer::new(&stranger, &clients())).is_err());
    tunnel.process.wait_for_line(
        "error reporting metrics: tls: failed to verify certificate: x509: certificate signed by unknown authority",
    );
    assert!(tls_request(&receiver, &TlsServer::new(&other_name, &clients())).is_err());
    let post = tls_request(&receiver, &TlsServer::new(&good, &clients())).expect("verified");
    assert_eq!(post.head[0], "POST /x HTTP/1.1");
    tunnel.process.wait_for_line("metrics are reported again, after ");
}

#[test]
fn addresses_that_cannot_be_used_stop_the_start() {
    for (flag, text) in [
        (
            "--metrics-graphite=foo",
            "'foo' is not a valid TCP address: address foo: missing port in address",
        ),
        (
            "--metrics-graphite=host.invalid:1",
            "'host.invalid:1' is not a valid TCP address: lookup host.invalid: ",
        ),
        (
            "--metrics-url=ftp://x",
            "--metrics-url should start with http:// or https://",
        ),
        ("--metrics-url=http://", "invalid --metrics-url: "),
    ] {
        let output = crate::support::ghostunnel()
            .args(["server", "--listen=localhost:0", "--target=localhost:1", flag])
            .run();
        assert_eq!(output.exit, Exit::Code(1), "{flag}");
        assert!(output.stderr.contains(text), "{}", output.stderr);
        assert_eq!(output.stdout, "", "{flag}");
    }
}
