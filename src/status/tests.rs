//! The status server from outside: bytes in, bytes out.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;
use crate::lifecycle::{Intent, Lifecycle, Phase, ShutdownTrigger};
use crate::metrics::{Gauges, Registry};
use crate::net::Reach;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, String)> {
        let (stream, peer) = Self::accept(self).await?;
        Ok((stream, peer.to_string()))
    }

    fn accept_error_text(&self, error: &io::Error) -> String {
        error.to_string()
    }
}

/// Connections that a test made up, and failures between them.
struct Scripted(mpsc::Receiver<io::Result<DuplexStream>>);

impl Listen for Scripted {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, String)> {
        match self.0.recv().await {
            Some(next) => Ok((next?, "@".to_owned())),
            None => std::future::pending().await,
        }
    }

    fn accept_error_text(&self, error: &io::Error) -> String {
        error.to_string()
    }
}

/// A status port to be started, and what its surroundings see of it.
struct Fixture {
    settings: Settings,
    scheme: Scheme,
    lifecycle: Lifecycle,
    backend: Rc<Cell<Result<(), &'static str>>>,
    dials: Rc<Cell<usize>>,
    head_limit: Duration,
}

impl Fixture {
    fn new() -> Self {
        let lifecycle = Lifecycle::new();
        lifecycle.set_phase(Phase::Listening);
        let listen = ListenAddr::parse("127.0.0.1:0", Reach::Anywhere).expect("a valid address");
        Self {
            settings: Settings {
                listen,
                transport: Transport::Http,
                enable_shutdown: true,
                profiles: None,
                stays_open: false,
            },
            scheme: Scheme::Http,
            lifecycle,
            backend: Rc::new(Cell::new(Ok(()))),
            dials: Rc::default(),
            head_limit: PATIENCE,
        }
    }

    /// Runs `body` against the server on a port of its own.
    fn run(self, body: impl AsyncFnOnce(&Self, SocketAddr, &mut mpsc::Receiver<Intent>)) {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            self.serve_while(listener, async |intents| body(&self, address, intents).await)
                .await;
        });
    }

    async fn serve_while(&self, listener: impl Listen, body: impl AsyncFnOnce(&mut mpsc::Receiver<Intent>)) {
        let (shutdown, mut intents) = mpsc::channel(1);
        let server = serve(
            listener,
            &self.settings,
            self.scheme.clone(),
            self.sources(shutdown),
        );
        let mut server = Box::pin(server);
        let mut is_over = false;
        let server = std::future::poll_fn(|context| {
            // The server ends when the process stops; the body goes on.
            is_over = is_over || server.as_mut().poll(context).is_ready();
            std::task::Poll::<()>::Pending
        });
        tokio::select! {
            () = server => unreachable!("never ready"),
            outcome = timeout(PATIENCE, body(&mut intents)) => outcome.expect("the test ends in time"),
        }
    }

    fn sources(&self, shutdown: mpsc::Sender<Intent>) -> Sources {
        let (backend, dials) = (Rc::clone(&self.backend), Rc::clone(&self.dials));
        let check: HealthCheck = Rc::new(move || {
            dials.set(dials.get() + 1);
            let outcome = backend.get().map_err(str::to_owned);
            Box::pin(async { outcome })
        });
        Sources {
            tunnels: vec![TunnelView {
                listen: ":8443".to_owned(),
                forward: "127.0.0.1:80".to_owned(),
                listening_on: None,
                check,
                certificate: Rc::new(|| {
                    Some(CertificateView {
                        subject: "CN=server".to_owned(),
                        serial: "0A".to_owned(),
                        not_after: "2027-01-01T00:00:00Z".to_owned(),
                    })
                }),
                workload_api: Rc::new(|| None),
            }],
            lifecycle: self.lifecycle.clone(),
            metrics: Arc::new(Registry::new()),
            metrics_prefix: "ghostunnel".to_owned(),
            gauges: Rc::new(Gauges::default),
            busy: Rc::new(|| 0),
            sandbox: SandboxView {
                state: "enforced",
                abi: Some(7),
                files: Some(true),
                tcp: Some(true),
                ..SandboxView::default()
            },
            shutdown,
            request_head_timeout: self.head_limit,
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(future);
}

/// Sends a request on a connection of its own and gives all that comes back.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    exchange(connect(address).await, &request(method, path)).await
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost:0\r\nConnection: close\r\n\r\n")
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address)
        .await
        .expect("the status port accepts")
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is taken");
    read_all(&mut stream).await
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .expect("an answer, not a reset");
    text
}

/// Reads one answer, whose body ends with `end`, and leaves the connection open.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(stream.read_u8().await.expect("the answer goes on"));
    }
    String::from_utf8(text).expect("text")
}

#[test]
fn status_follows_the_backend() {
    Fixture::new().run(async |fixture, address, _| {
        let text = ask(address, "GET", "/_status").await;
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(head.contains("\r\nDate: "), "{head}");
        assert!(
            body.starts_with(r#"{"ok":true,"#) && body.ends_with('}'),
            "{body}"
        );

        fixture
            .backend
            .set(Err("dial tcp 127.0.0.1:80: connect: connection refused"));
        let text = ask(address, "GET", "/_status").await;
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.contains("\"backend_error\":\"dial tcp 127.0.0.1:80: connect: connection refused\""));
    });
}

#[test]
fn the_backend_is_dialled_once_per_status_request_and_never_else() {
    Fixture::new().run(async |fixture, address, _| {
        for path in ["/_metrics", "/_metrics/json", "/", "//_status"] {
            ask(address, "GET", path).await;
        }
        drop(connect(address).await);
        assert_eq!(fixture.dials.get(), 0);
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            fixture.dials.set(0);
            let text = ask(address, method, "/_status").await;
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{method}: {text}");
            assert_eq!(text.ends_with("\r\n\r\n"), method == "HEAD", "{method}: {text}");
            assert_eq!(fixture.dials.get(), 1, "{method}");
        }
    });
}

#[test]
fn a_request_that_comes_early_waits_until_the_process_listens() {
    let mut fixture = Fixture::new();
    fixture.lifecycle = Lifecycle::new();
    fixture.run(async |fixture, address, _| {
        let lifecycle = fixture.lifecycle.clone();
        let listening = async {
            // Other endpoints answer meanwhile, which also shows that the server runs.
            assert!(ask(address, "GET", "/_metrics").await.starts_with("HTTP/1.1 200"));
            assert_eq!(fixture.dials.get(), 0);
            lifecycle.set_phase(Phase::Listening);
        };
        let (text, ()) = tokio::join!(ask(address, "GET", "/_status"), listening);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains(r#""message":"listening""#), "{text}");
    });
}

#[test]
fn a_reload_shows_when_it_is_over() {
    Fixture::new().run(async |fixture, address, _| {
        fixture.lifecycle.set_phase(Phase::Reloading);
        let text = ask(address, "GET", "/_status").await;
        assert!(
            text.contains(r#""ok":true"#) && text.contains(r#""message":"reloading""#),
            "{text}"
        );
        assert!(text.contains(r#""last_reload":"0001-01-01T00:00:00Z""#), "{text}");
        fixture.lifecycle.reload_finished(SystemTime::now(), Ok(()));
        let text = ask(address, "GET", "/_status").await;
        assert!(text.contains(r#""last_reload_ok":true"#), "{text}");
        assert!(!text.contains(r#""last_reload":"0001"#), "{text}");
    });
}

#[test]
fn other_paths_have_their_answers() {
    Fixture::new().run(async |_, address, _| {
        let cases: [(&str, &str, &[&str]); 7] = [
            (
                "GET",
                "/_metrics/prometheus",
                &[
                    "HTTP/1.1 200 OK\r\n",
                    "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8; escaping=underscores\r\n",
                    "\r\n\r\n# HELP ghostunnel_accept_error accept.error\n",
                    "\nghostunnel_log_lines_dropped_total 0\n",
                ],
            ),
            (
                "GET",
                "/_metrics?format=prometheus",
                &["HTTP/1.1 200 OK\r\n", "\nghostunnel_accept_total 0\n"],
            ),
            (
                "GET",
                "/_metrics",
                &[
                    "HTTP/1.1 200 OK\r\n",
                    "\r\nContent-Type: text/plain; charset=utf-8\r\n",
                ],
            ),
            (
                "GET",
                "/_metrics?format=json",
                &["HTTP/1.1 200 OK\r\n", "\"ghostunnel.accept.total\""],
            ),
            (
                "GET",
                "/",
                &[
                    "HTTP/1.1 404 Not Found\r\n",
                    "\r\nContent-Type: text/plain",
                    "\r\n\r\n404 page not found\n",
                ],
            ),
            (
                "POST",
                "//_status",
                &[
                    "HTTP/1.1 307 Temporary Redirect\r\n",
                    "\r\nLocation: /_status\r\n",
                ],
            ),
            ("OPTIONS", "*", &["HTTP/1.1 404 Not Found\r\n"]),
        ];
        for (method, path, expected) in cases {
            let text = ask(address, method, path).await;
            for part in expected {
                assert!(text.contains(part), "{method} {path}: {part:?} in {text}");
            }
        }
    });
}

#[test]
fn a_shutdown_is_answered_before_it_begins() {
    Fixture::new().run(async |_, address, intents| {
        let text = ask(address, "GET", "/_shutdown").await;
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{text}");
        assert!(!text.contains("Allow:") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(intents.try_recv().is_err());

        let mut stream = connect(address).await;
        let body = "x".repeat(100_000);
        let head = format!(
            "POST /_shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the head is taken");
        assert!(intents.try_recv().is_err());
        stream
            .write_all(body.as_bytes())
            .await
            .expect("the body is taken");
        let intent = intents.recv().await;
        assert_eq!(intent, Some(Intent::Shutdown(ShutdownTrigger::StatusEndpoint)));
        // By now the answer has left: all of it can be read, to a clean end.
        let text = read_all(&mut stream).await;
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("Content-Length: 0"),
            "{text}"
        );
    });
}

#[test]
fn a_shutdown_waits_for_the_last_byte_of_its_answer() {
    let fixture = Fixture::new();
    block_on(async {
        let (script, accepted) = mpsc::channel(2 * server::MAX_CONNECTIONS);
        let (mut ours, theirs) = duplex(64);
        script.try_send(Ok(theirs)).expect("the server listens");
        fixture
            .serve_while(Scripted(accepted), async |intents| {
                ours.write_all(request("POST", "/_shutdown").as_bytes())
                    .await
                    .expect("taken");
                let begin = read_answer(&mut ours, "200 OK\r\n").await;
                assert!(intents.try_recv().is_err(), "{begin}");
                read_all(&mut ours).await;
                assert!(intents.recv().await.is_some());
            })
            .await;
    });
}

#[test]
fn without_the_flag_there_is_no_shutdown() {
    let mut fixture = Fixture::new();
    fixture.settings.enable_shutdown = false;
    fixture.run(async |_, address, intents| {
        let text = ask(address, "POST", "/_shutdown").await;
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        assert!(intents.try_recv().is_err());
    });
}

#[test]
fn connections_are_kept_for_further_requests() {
    Fixture::new().run(async |_, address, _| {
        let mut stream = connect(address).await;
        for _ in 0..3 {
            let request = "GET /_status HTTP/1.1\r\nHost: x\r\n\r\n";
            stream
                .write_all(request.as_bytes())
                .await
                .expect("the request is taken");
            let text = read_answer(&mut stream, "}}").await;
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        }
    });
}

#[test]
fn a_client_that_closes_its_side_first_is_answered() {
    let mut fixture = Fixture::new();
    fixture.lifecycle = Lifecycle::new();
    fixture.run(async |fixture, address, _| {
        let mut stream = connect(address).await;
        stream
            .write_all(b"GET /_status HTTP/1.0\r\n\r\n")
            .await
            .expect("the request is taken");
        stream.shutdown().await.expect("half-closed");
        // The server sees the end of the stream before it can answer.
        ask(address, "GET", "/_metrics").await;
        fixture.lifecycle.set_phase(Phase::Listening);
        let text = read_all(&mut stream).await;
        assert!(text.starts_with("HTTP/1.0 200") && text.ends_with('}'), "{text}");
    });
}

#[test]
fn a_large_body_is_not_read() {
    Fixture::new().run(async |_, address, _| {
        let mut stream = connect(address).await;
        let head = "POST /_metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the head is taken");
        let text = read_all(&mut stream).await;
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("Connection: close"),
            "{text}"
        );
    });
}

#[test]
fn a_slow_head_is_refused_and_a_silent_peer_closed() {
    let mut fixture = Fixture::new();
    fixture.head_limit = Duration::from_millis(50);
    fixture.run(async |_, address, _| {
        let text = exchange(connect(address).await, "GET /_status HT").await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert_eq!(exchange(connect(address).await, "").await, "");
    });
}

#[test]
fn garbage_is_refused() {
    Fixture::new().run(async |_, address, _| {
        let text = exchange(connect(address).await, "\x16\x03\x01 hello\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
        let mut stream = connect(address).await;
        let _ = stream.write_all(long.as_bytes()).await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("an answer");
        assert_eq!(status, *b"HTTP/1.1 431");
    });
}

#[test]
fn the_port_closes_when_the_process_stops() {
    Fixture::new().run(async |fixture, address, _| {
        let mut idle = connect(address).await;
        idle.write_all(b"GET /_status HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("taken");
        read_answer(&mut idle, "}}").await;
        fixture.lifecycle.set_phase(Phase::Stopping);
        assert_eq!(read_all(&mut idle).await, "");
        assert!(TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_port_that_stays_open_says_that_the_process_stops() {
    let mut fixture = Fixture::new();
    fixture.settings.stays_open = true;
    fixture.run(async |fixture, address, _| {
        fixture.lifecycle.set_phase(Phase::Stopping);
        for _ in 0..2 {
            let text = ask(address, "GET", "/_status").await;
            assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
            assert!(text.contains(r#""message":"stopping""#), "{text}");
            assert!(text.contains(r#""backend_ok":true"#), "{text}");
        }
        assert!(ask(address, "GET", "/_metrics").await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn the_process_and_its_certificate_are_described() {
    Fixture::new().run(async |_, address, _| {
        let text = ask(address, "GET", "/_status").await;
        let expected = concat!(
            r#""connections_open":0,"certificate":{"subject":"CN=server","serial":"0A","#,
            r#""not_after":"2027-01-01T00:00:00Z"},"#,
            r#""sandbox":{"state":"enforced","abi":7,"files":true,"tcp":true}}"#
        );
        assert!(text.ends_with(expected), "{text}");
    });
}

#[test]
fn accepting_goes_on_after_failures() {
    let fixture = Fixture::new();
    block_on(async {
        let (script, accepted) = mpsc::channel(2 * server::MAX_CONNECTIONS);
        let begin = Instant::now();
        for _ in 0..3 {
            script
                .try_send(Err(rustix::io::Errno::MFILE.into()))
                .expect("the server listens");
        }
        let (ours, theirs) = duplex(1024);
        script.try_send(Ok(theirs)).expect("the server listens");
        fixture
            .serve_while(Scripted(accepted), async |_| {
                let text = exchange(ours, &request("GET", "/_metrics")).await;
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            })
            .await;
        assert!(begin.elapsed() >= Duration::from_millis(5 + 10 + 20));
    });
}

#[test]
fn beyond_the_limit_the_oldest_without_a_request_makes_room() {
    let fixture = Fixture::new();
    block_on(async {
        let (script, accepted) = mpsc::channel(2 * server::MAX_CONNECTIONS);
        let open = || {
            let (ours, theirs) = duplex(4096);
            script.try_send(Ok(theirs)).expect("the server listens");
            ours
        };
        let mut held: Vec<_> = (0..server::MAX_CONNECTIONS).map(|_| open()).collect();
        let metrics = request("GET", "/_metrics");
        fixture
            .serve_while(Scripted(accepted), async |_| {
                for _ in 0..3 {
                    let text = exchange(open(), &metrics).await;
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                }
                // One had to go; those that came then found room, for each was over before the next.
                assert_eq!(read_all(&mut held.remove(0)).await, "");
                for mut other in held {
                    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("taken");
                    read_answer(&mut other, "not found\n").await;
                }
            })
            .await;
    });
}

#[test]
fn peers_that_left_take_no_place() {
    let fixture = Fixture::new();
    block_on(async {
        let (script, accepted) = mpsc::channel(2 * server::MAX_CONNECTIONS);
        let open = || {
            let (ours, theirs) = duplex(4096);
            script.try_send(Ok(theirs)).expect("the server listens");
            ours
        };
        fixture
            .serve_while(Scripted(accepted), async |_| {
                for _ in 0..=server::MAX_CONNECTIONS {
                    drop(open()); // a readiness probe
                }
                for _ in 0..=server::MAX_CONNECTIONS {
                    let mut kept_alive = open();
                    kept_alive
                        .write_all(b"GET / HTTP/1.1\r\n\r\n")
                        .await
                        .expect("taken");
                    read_answer(&mut kept_alive, "not found\n").await;
                }
            })
            .await;
    });
}

/// A server and a client that trusts it, for `localhost`.
fn tls_pair() -> (Arc<ServerConfig>, TlsConnector) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificate = own.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .expect("certificate and key match");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a trust anchor");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), TlsConnector::from(Arc::new(client)))
}

fn with(config: &Arc<ServerConfig>, may_block: bool) -> TlsConfig {
    TlsConfig {
        config: Arc::clone(config),
        may_block,
    }
}

fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

#[test]
fn https_is_served_with_the_certificate_of_the_moment() {
    for may_block in [false, true] {
        serve_with_the_certificate_of_the_moment(may_block);
    }
}

fn serve_with_the_certificate_of_the_moment(may_block: bool) {
    let (first, first_client) = tls_pair();
    let (second, second_client) = tls_pair();
    let current = Rc::new(std::cell::RefCell::new(first));
    let mut fixture = Fixture::new();
    let source = Rc::clone(&current);
    fixture.scheme = Scheme::Https(Rc::new(move || Some(with(&source.borrow(), may_block))));
    fixture.run(async |_, address, _| {
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = first_client.connect(name.clone(), connect(address).await).await;
        // Reading to the end succeeds only after a close_notify.
        let text = exchange(stream.expect("trusted"), &request("GET", "/_status")).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        current.replace(second);
        assert!(
            first_client
                .connect(name.clone(), connect(address).await)
                .await
                .is_err()
        );
        let stream = second_client.connect(name, connect(address).await).await;
        let text = exchange(stream.expect("trusted"), &request("POST", "/_shutdown")).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    });
}

#[test]
fn plain_http_to_the_tls_port_is_told_so() {
    let (config, _) = tls_pair();
    let mut fixture = Fixture::new();
    fixture.scheme = Scheme::Https(Rc::new(move || Some(with(&config, false))));
    fixture.run(async |_, address, _| {
        let text = ask(address, "GET", "/_status").await;
        assert_eq!(
            text,
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
        );
    });
}

#[test]
fn failed_handshakes_have_their_known_words() {
    let (config, _) = tls_pair();
    let cases: [(&[u8], bool, &str); 5] = [
        (b"", true, "EOF"),
        (b"\x16\x03", true, "unexpected EOF"),
        (b"\x16\x03\x01\x00\xff\x01", true, "EOF"),
        (
            b"SSH-2.0-x\r\n",
            true,
            "tls: first record does not look like a TLS handshake",
        ),
        (b"\x16\x03", false, "i/o timeout"),
    ];
    block_on(async {
        for ((bytes, closes, expected), may_block) in
            cases.into_iter().flat_map(|case| [(case, false), (case, true)])
        {
            let (mut ours, theirs) = duplex(1024);
            ours.write_all(bytes).await.expect("room");
            if closes {
                ours.shutdown().await.expect("closed");
            }
            let limit = if closes {
                PATIENCE
            } else {
                Duration::from_millis(1)
            };
            let outcome = secure::handshake(theirs, Some(with(&config, may_block)), limit, &places()).await;
            assert_eq!(outcome.err().as_deref(), Some(expected), "{bytes:?}");
        }
        let outcome = secure::handshake(duplex(1).0, None, PATIENCE, &places()).await;
        assert_eq!(outcome.err().as_deref(), Some("no certificate to serve with"));
    });
}
