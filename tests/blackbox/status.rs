//! The status port: who may ask what over which transport, and what the answer means.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, End, Endpoint, Exit, Pki, Plain, Process, ReservedPort,
    Response, Signal, TlsClient, TlsServer, Version, curl, eventually, eventually_some, read_to_end, within,
};

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, echo_backend, get, metric};

/// The keys of `/_status` that users know, in their order.
const KEYS: [&str; 12] = [
    "ok",
    "status",
    "listen_address",
    "forward_address",
    "backend_ok",
    "backend_status",
    "time",
    "last_reload",
    "hostname",
    "message",
    "revision",
    "compiler",
];

#[track_caller]
fn assert_keys(answer: &Response, expected: &[&str]) {
    let place = |key: &&str| answer.text().find(&format!("\"{key}\":"));
    let places: Vec<_> = expected.iter().map(place).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{}",
        answer.text()
    );
}

/// A tunnel whose status port is named by `status` as typed.
fn start(mode: Mode, pki: &Pki, listen: &ReservedPort, target: &Address, status: &str) -> Process {
    command(mode, pki, listen, target)
        .flag("--status", status)
        .arg("--enable-shutdown")
        .start()
}

#[test]
fn healthy_tunnel_answers_with_the_known_keys() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let answer = tunnel.get("/_status");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("date").is_some() && answer.header("content-length").is_some());
        assert_keys(&answer, &KEYS);
        assert!(!answer.text().ends_with('\n'));
        let report = answer.json();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
        for (key, value) in [
            ("ok", true.into()),
            ("status", "ok".into()),
            ("listen_address", tunnel.listen.address().to_string().into()),
            ("forward_address", tunnel.backend.address().to_string().into()),
            ("backend_ok", true.into()),
            ("backend_status", "ok".into()),
            ("last_reload", "0001-01-01T00:00:00Z".into()),
            ("hostname", hostname.trim().into()),
            ("message", "listening".into()),
        ] {
            let value: serde_json::Value = value;
            assert_eq!(report[key], value, "{key}");
        }
        assert!(report.get("backend_error").is_none());
    }
}

#[test]
fn unreachable_backend_is_503_with_the_reason() {
    for mode in BOTH_MODES {
        let (pki, nobody) = (Pki::new(), ReservedPort::new());
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = start(
            mode,
            &pki,
            &listen,
            &nobody.address().into(),
            &format!("http://{}", status.address()),
        );
        process.wait_listening(status.port());
        let answer = get(&status, "/_status");
        assert_eq!(answer.status, 503);
        let report = answer.json();
        assert_eq!(
            (&report["ok"], &report["status"]),
            (&false.into(), &"critical".into())
        );
        assert_eq!(report["backend_status"], "critical");
        assert_eq!(report["message"], "listening");
        let error = report["backend_error"].as_str().expect("a reason");
        assert!(error.contains("connection refused"), "{error}");
        let mut keys = KEYS.to_vec();
        keys.insert(6, "backend_error");
        assert_keys(&answer, &keys);
        // A failed check is no failed connection.
        assert_eq!(process.count_lines("error on dial"), 0);
        assert_eq!(process.count_lines("error during copy"), 0);
    }
}

#[test]
fn backend_that_comes_and_goes_is_seen_at_each_request() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let Address::Tcp(address) = *backend.address() else {
        panic!("a TCP backend")
    };
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = start(
        Mode::Server,
        &pki,
        &listen,
        backend.address(),
        &format!("http://{}", status.address()),
    );
    process.wait_listening(status.port());
    assert_eq!(get(&status, "/_status").status, 200);
    drop(backend);
    assert_eq!(get(&status, "/_status").status, 503);
    let _again = Backend::tcp_at(address, Behaviour::Echo);
    assert_eq!(get(&status, "/_status").status, 200);
}

#[test]
fn https_shows_the_tunnel_s_own_certificate_and_asks_for_none() {
    for mode in BOTH_MODES {
        for scheme in ["", "https://"] {
            let pki = Pki::new();
            let backend = echo_backend(mode, &pki);
            let (listen, status) = (ReservedPort::new(), ReservedPort::new());
            let typed = format!("{scheme}{}", status.address());
            let process = start(mode, &pki, &listen, backend.address(), &typed);
            process.wait_listening(status.port());
            let (name, own) = match mode {
                Mode::Server => ("localhost", &pki.server),
                Mode::Client => ("client.test", &pki.client),
            };
            let address = status.address().into();
            for version in [Version::V12, Version::V13] {
                let client = TlsClient::trusting(&pki.authority)
                    .server_name(name)
                    .version(version);
                let peer = client.connect(&address).expect("no certificate is asked for");
                assert_eq!(&*peer.facts().peer_certificates[0], own.der());
                let answer = Endpoint::Https(&address, &client)
                    .get("/_status")
                    .expect("answered");
                assert_eq!(answer.status, 200, "{mode:?} {}", answer.text());
            }
        }
    }
}

#[test]
fn curl_is_answered_over_every_transport() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    for typed in ["", "https://", "http://", "unix:"] {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let path = pki.path("status.sock");
        let (typed, url) = match typed {
            "unix:" => (
                format!("unix:{}", path.display()),
                "http://localhost/_status".to_owned(),
            ),
            "http://" => {
                let url = format!("http://{}", status.address());
                (url.clone(), url + "/_status")
            }
            scheme => (
                format!("{scheme}{}", status.address()),
                format!("https://localhost:{}/_status", status.port()),
            ),
        };
        let process = start(Mode::Server, &pki, &listen, backend.address(), &typed);
        let Some(mut curl) = curl(&["--fail", "--cacert"]) else {
            return;
        };
        curl.arg(&pki.ca_file);
        if typed.starts_with("unix:") {
            eventually("the path exists", || path.exists());
            curl.arg("--unix-socket").arg(&path);
        } else {
            process.wait_listening(status.port());
            // `localhost` may be ::1 first, where nobody listens.
            curl.arg("--ipv4");
        }
        let output = curl.arg(&url).run();
        assert_eq!(output.exit, Exit::Code(0), "{typed}: {output:?}");
        assert!(
            output.stdout.starts_with("{\"ok\":true,\"status\":\"ok\","),
            "{output:?}"
        );
    }
}

#[test]
fn port_without_a_certificate_to_serve_with_speaks_plain_http() {
    let pki = Pki::new();
    let backend = Backend::tls(
        TlsServer::new(&pki.server, &ClientCertificates::Unasked),
        Behaviour::Echo,
    );
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = crate::support::ghostunnel()
        .arg("client")
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--status", status.address().to_string())
        .arg("--disable-authentication")
        .start();
    process.wait_listening(status.port());
    assert_eq!(get(&status, "/_status").status, 200);
}

#[test]
fn plain_request_to_the_tls_port_is_told_so() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = start(
        Mode::Server,
        &pki,
        &listen,
        backend.address(),
        &status.address().to_string(),
    );
    process.wait_listening(status.port());
    let mut plain = Plain::connect(&status.address().into()).expect("listening");
    plain
        .write_all(b"GET /_status HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("open");
    let (answer, end) = read_to_end(&mut plain);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
    assert!(
        answer.contains("Client sent an HTTP request to an HTTPS server."),
        "{answer}"
    );
    assert_eq!(end, End::Closed);
    process.wait_for_line("http: TLS handshake error from 127.0.0.1:");
}

#[test]
fn check_makes_one_connection_for_each_status_request_and_none_otherwise() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        assert_eq!(tunnel.backend.accepted(), 0, "none at start");
        for count in 1..=5 {
            assert_eq!(tunnel.get("/_status").status, 200);
            tunnel.backend.wait_accepted(count);
        }
        for path in [
            "/_metrics",
            "/_metrics/json",
            "/",
            "/_status/",
            "//_status",
            "/_shutdown",
        ] {
            tunnel.get(path);
        }
        drop(Plain::connect(&tunnel.status.address().into()));
        tunnel.process.signal(Signal::HUP);
        tunnel.process.wait_for_line("reloading configuration complete");
        // A visit comes through after all of these: they have had their chance.
        tunnel.visit();
        assert_eq!(tunnel.backend.accepted(), 6, "{mode:?}");
        eventually("the checks have closed their connections", || {
            tunnel.backend.open() == 0
        });
    }
}

#[test]
fn check_of_a_client_tunnel_is_a_whole_handshake_with_its_certificate() {
    let tunnel = Tunnel::start(Mode::Client);
    assert_eq!(tunnel.get("/_status").status, 200);
    let facts = eventually_some("the check has shaken hands", || {
        tunnel.backend.connection(0).tls()
    });
    assert_eq!(facts.peer_certificates, tunnel.pki.client.chain());
}

#[test]
fn check_of_a_client_tunnel_fails_with_its_target_s_handshake() {
    let pki = Pki::new();
    let foreign = pki.other_authority.issue(&Pki::server_request());
    let backend = Backend::tls(
        TlsServer::new(&foreign, &ClientCertificates::Unasked),
        Behaviour::Echo,
    );
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = start(
        Mode::Client,
        &pki,
        &listen,
        backend.address(),
        &format!("http://{}", status.address()),
    );
    process.wait_listening(status.port());
    let answer = get(&status, "/_status");
    assert_eq!(answer.status, 503);
    let error = answer.json()["backend_error"]
        .as_str()
        .expect("a reason")
        .to_owned();
    assert!(
        error.contains("certificate signed by unknown authority"),
        "{error}"
    );
    assert_eq!(backend.accepted(), 1, "no second try");
}

#[test]
fn check_that_gets_no_answer_ends_at_the_connect_timeout() {
    let pki = Pki::new();
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(
        Mode::Client,
        &pki,
        &listen,
        &hole.local_addr().expect("bound").into(),
    )
    .flag("--status", format!("http://{}", status.address()))
    .arg("--connect-timeout=200ms")
    .start();
    process.wait_listening(status.port());
    let begun = Instant::now();
    assert_eq!(get(&status, "/_status").status, 503);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn target_may_be_the_status_port_itself() {
    let pki = Pki::new();
    for mode in BOTH_MODES {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let mut command = crate::support::ghostunnel();
        command.arg(if mode == Mode::Server { "server" } else { "client" });
        if mode == Mode::Server {
            command.arg("--allow-all");
        }
        // In both modes with the server's certificate, which is good for the address.
        let process = command
            .flag("--listen", listen.address().to_string())
            .flag("--target", status.address().to_string())
            .flag("--status", status.address().to_string())
            .flag("--cacert", &pki.ca_file)
            .flag("--cert", &pki.server_files.certificate)
            .flag("--key", &pki.server_files.key)
            .start();
        process.wait_listening(status.port());
        let client = TlsClient::trusting(&pki.authority);
        let address = status.address().into();
        let answer = Endpoint::Https(&address, &client)
            .get("/_status")
            .expect("answered");
        assert_eq!(answer.status, 200, "{mode:?}: {}", answer.text());
    }
}

#[test]
fn target_may_be_the_status_socket_itself() {
    let pki = Pki::new();
    let path = pki.path("status.sock");
    let listen = ReservedPort::new();
    let typed = format!("unix:{}", path.display());
    let _process = start(Mode::Server, &pki, &listen, &path.as_path().into(), &typed);
    eventually("the path exists", || path.exists());
    let answer = Endpoint::Http(&path.as_path().into())
        .get("/_status")
        .expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    // And the tunnel leads to it.
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let address = listen.address().into();
    let answer = Endpoint::Https(&address, &client)
        .get("/_status")
        .expect("answered");
    assert_eq!(answer.status, 200);
}

#[test]
fn unknown_paths_are_not_found_and_unclean_ones_lead_to_clean_ones() {
    let tunnel = Tunnel::start(Mode::Server);
    for path in [
        "/",
        "/_status/",
        "/_STATUS",
        "/_metrics/",
        "/favicon.ico",
        "/_shutdown",
        "/debug/pprof/",
    ] {
        let answer = tunnel.get(path);
        assert_eq!(
            (answer.status, answer.text()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert!(
            answer
                .header("content-type")
                .is_some_and(|text| text.starts_with("text/plain"))
        );
    }
    for path in [
        "//_status",
        "/./_status",
        "/x/../_status",
        "//evil.example/../_status",
    ] {
        let answer = tunnel.get(path);
        assert_eq!(
            (answer.status, answer.header("location")),
            (307, Some("/_status")),
            "{path}"
        );
    }
}

#[test]
fn every_method_asks_and_head_gets_no_body() {
    let tunnel = Tunnel::start(Mode::Server);
    let address = tunnel.status.address().into();
    for path in ["/_status", "/_metrics"] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = Endpoint::Http(&address).request(method, path).expect("answered");
            assert_eq!(answer.status, 200, "{method} {path}");
            assert!(!answer.body.is_empty(), "{method} {path}");
        }
        let mut plain = Plain::connect(&address).expect("listening");
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        plain.write_all(head.as_bytes()).expect("open");
        let (answer, end) = read_to_end(&mut plain);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
        assert_eq!((answer.matches("\r\n\r\n").count(), end), (1, End::Closed));
    }
}

#[test]
fn connection_serves_several_requests_and_any_host() {
    let tunnel = Tunnel::start(Mode::Server);
    let mut plain = Plain::connect(&tunnel.status.address().into()).expect("listening");
    for host in ["localhost:0", "evil.example", "127.0.0.1"] {
        let head = format!("GET /_metrics?x=y HTTP/1.1\r\nHost: {host}\r\n\r\n");
        plain.write_all(head.as_bytes()).expect("open");
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"}]") {
            let length = plain.read(&mut buffer).expect("answered");
            assert_ne!(length, 0, "closed early");
            answer.extend_from_slice(&buffer[..length]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn post_to_shutdown_is_answered_in_full_before_the_process_ends() {
    const RUNS: usize = 10;
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let client = TlsClient::trusting(&pki.authority);
    for run in 0..RUNS {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let scheme = if run % 2 == 0 { "http://" } else { "https://" };
        let typed = format!("{scheme}{}", status.address());
        let process = start(Mode::Server, &pki, &listen, backend.address(), &typed);
        process.wait_listening(status.port());
        let address = status.address().into();
        let endpoint = if run % 2 == 0 {
            Endpoint::Http(&address)
        } else {
            Endpoint::Https(&address, &client)
        };
        for method in ["GET", "PUT", "DELETE"] {
            let answer = endpoint.request(method, "/_shutdown").expect("answered");
            assert_eq!((answer.status, answer.text()), (405, ""), "{method}");
            assert_eq!(answer.header("allow"), None);
        }
        // Fails on any end but an orderly one.
        let answer = endpoint.post("/_shutdown").expect("a complete answer");
        assert_eq!((answer.status, answer.text()), (200, ""), "run {run}");
        assert_eq!(process.wait_exit(), Exit::Code(0), "run {run}");
        process.wait_for_line("shutdown was requested via status endpoint");
    }
}

#[test]
fn post_to_shutdown_through_a_unix_socket_drains() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, path) = (ReservedPort::new(), pki.path("status.sock"));
    let typed = format!("unix:{}", path.display());
    let process = start(Mode::Server, &pki, &listen, backend.address(), &typed);
    eventually("the path exists", || path.exists());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let mut peer = client.connect(&listen.address().into()).expect("admitted");
    process.wait_for_line("opening pipe");
    let address = path.as_path().into();
    assert_eq!(
        Endpoint::Http(&address)
            .post("/_shutdown")
            .expect("answered")
            .status,
        200
    );
    process.wait_for_line("waiting for drain");
    peer.write_all(b"still open").expect("undisturbed");
    peer.read_exact(&mut [0; 10]).expect("undisturbed");
    assert_eq!(process.try_exit(), None);
    peer.end_writing();
    assert_eq!(process.wait_exit(), Exit::Code(0));
}

#[test]
fn shutdown_is_not_found_unless_enabled() {
    let tunnel = Tunnel::start(Mode::Server);
    let address = tunnel.status.address().into();
    let answer = Endpoint::Http(&address).post("/_shutdown").expect("answered");
    assert_eq!(answer.status, 404);
    tunnel.visit();
    assert_eq!(tunnel.process.try_exit(), None);
}

/// Readiness is often probed by a connection that is closed at once. Scripts check that no
/// `error on TLS handshake` is in the output.
#[test]
fn bare_connections_are_no_handshake_errors_of_the_proxy() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(Mode::Server, &pki, &listen, backend.address())
        .flag("--status", status.address().to_string())
        .arg("--quiet=handshake-errs")
        .start();
    process.wait_listening(status.port());
    for _ in 0..10 {
        drop(TcpStream::connect(status.address()).expect("listening"));
        Plain::connect(&status.address().into())
            .expect("listening")
            .reset();
    }
    let client = TlsClient::trusting(&pki.authority);
    let address = status.address().into();
    let answer = Endpoint::Https(&address, &client)
        .get("/_status")
        .expect("it still serves");
    assert_eq!(answer.status, 200);
    process.signal(Signal::TERM);
    let output = process.wait_output();
    assert_eq!(output.exit, Exit::Code(0));
    assert!(
        !output.stdout.contains("error on TLS handshake"),
        "{}",
        output.stdout
    );
    assert_eq!(output.stderr, "");
}

#[test]
fn bare_connections_print_nothing_under_quiet_all() {
    for scheme in ["http://", "https://"] {
        let pki = Pki::new();
        let backend = Backend::tcp(Behaviour::Echo);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .flag("--status", format!("{scheme}{}", status.address()))
            .arg("--quiet=all")
            .start();
        process.wait_listening(status.port());
        for _ in 0..10 {
            drop(TcpStream::connect(status.address()).expect("listening"));
            drop(TcpStream::connect(listen.address()).expect("listening"));
        }
        process.signal(Signal::TERM);
        let output = process.wait_output();
        assert_eq!(output.exit, Exit::Code(0));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
}

#[test]
fn metrics_are_answered_with_all_descriptors_in_use() {
    const LIMIT: u32 = 64;
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.descriptor_limit(LIMIT).arg("--connect-timeout=1s");
    });
    let silent: Vec<_> = (0..100)
        .map(|_| Plain::connect(&tunnel.listen.address().into()).expect("the kernel accepts"))
        .collect();
    tunnel.process.wait_for_line("too many open files");
    // Waits in the kernel's queue until handshakes time out; the test's own limit is longer.
    let answer = tunnel.get("/_metrics");
    assert_eq!(answer.status, 200);
    assert!(metric(&answer, "ghostunnel.accept.error") > 0.0);
    drop(silent);
    eventually("it has recovered", || tunnel.metric("conn.open") == 0.0);
    tunnel.visit();
    assert_eq!(tunnel.get("/_status").status, 200);
}

#[test]
fn status_port_says_so_when_it_cannot_accept_and_recovers() {
    const LIMIT: u32 = 64;
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.descriptor_limit(LIMIT).arg("--connect-timeout=3s");
    });
    let silent: Vec<_> = (0..100)
        .map(|_| Plain::connect(&tunnel.status.address().into()).expect("the kernel accepts"))
        .collect();
    let line = tunnel.process.wait_for_line("http: Accept error: ");
    assert!(
        line.contains("accept4: too many open files; retrying in "),
        "{line}"
    );
    drop(silent);
    assert_eq!(tunnel.get("/_status").status, 200);
    tunnel.visit();
}

/// The answer to a client that asks from the very first moment on.
fn first_answer(address: &Address) -> Response {
    eventually_some("the status port answers", || {
        // Refused until it listens; from then on it must answer.
        let mut stream = Plain::connect(address).ok()?;
        stream
            .write_all(b"GET /_status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("accepted");
        let (answer, end) = read_to_end(&mut stream);
        assert_eq!(end, End::Closed, "accepted, but not answered");
        let text = String::from_utf8(answer).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        Some(Response {
            status: head[9..12].parse().expect("a number"),
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        })
    })
}

#[test]
fn first_answer_is_final() {
    const STARTS: usize = 20;
    for run in 0..STARTS {
        let mode = BOTH_MODES[run % 2];
        let pki = Pki::new();
        let backend = echo_backend(mode, &pki);
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let _process = command(mode, &pki, &listen, backend.address())
            .flag("--status", format!("http://{}", status.address()))
            .start();
        let answer = first_answer(&status.address().into());
        assert_eq!(answer.status, 200, "run {run}: {}", answer.text());
        let report = answer.json();
        assert_eq!(
            (&report["ok"], &report["message"]),
            (&true.into(), &"listening".into())
        );
    }
}

#[test]
fn status_port_accepts_only_when_the_proxy_listens() {
    const STARTS: usize = 20;
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    for _ in 0..STARTS {
        let (listen, status) = (ReservedPort::new(), ReservedPort::new());
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .flag("--status", status.address().to_string())
            .start();
        busily(&process, || TcpStream::connect(status.address()).ok());
        // No second try: what callers do next is final too.
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        drop(
            client
                .connect(&listen.address().into())
                .expect("the proxy listens"),
        );
    }
}

#[test]
fn unix_paths_can_be_connected_to_as_soon_as_they_exist() {
    const STARTS: usize = 20;
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let path = pki.path("status.sock");
    for _ in 0..STARTS {
        let listen = ReservedPort::new();
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .flag("--status", format!("unix:{}", path.display()))
            .start();
        busily(&process, || path.exists().then_some(()));
        let answer = Endpoint::Http(&path.as_path().into())
            .get("/_status")
            .expect("connected at once");
        assert_eq!(answer.status, 200);
        process.signal(Signal::TERM);
        assert_eq!(process.wait_exit(), Exit::Code(0));
    }
}

/// Like `eventually_some`, without a pause between two looks.
fn busily<T>(process: &Process, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert_eq!(within(Duration::ZERO, || process.try_exit()), None, "ended early");
    }
}

/// Callers give up after about 150 ms. The best of several starts, since other tests run
/// beside this one.
#[test]
fn start_takes_well_under_150_milliseconds() {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let mut times: Vec<Duration> = (0..10)
        .map(|_| {
            let (listen, status) = (ReservedPort::new(), ReservedPort::new());
            let begun = Instant::now();
            let process = command(Mode::Server, &pki, &listen, backend.address())
                .flag("--status", status.address().to_string())
                .start();
            busily(&process, || TcpStream::connect(status.address()).ok());
            begun.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "from start to an accepting status port: best {:?}, median {:?}, worst {:?}",
        times[0], times[5], times[9]
    );
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn half_sent_request_is_given_up_at_the_connect_timeout() {
    let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
        command.arg("--connect-timeout=200ms");
    });
    let mut slow = Plain::connect(&tunnel.status.address().into()).expect("listening");
    slow.write_all(b"GET /_status HTTP/1.1\r\nHost:").expect("open");
    let (answer, end) = read_to_end(&mut slow);
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(end, End::Closed);
}
