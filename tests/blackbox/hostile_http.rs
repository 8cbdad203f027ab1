//! Strangers at the status port: whatever they send, others are answered, and memory stays bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Backend, Behaviour, Endpoint, Pki, Plain, Process, ReservedPort, descriptors, eventually, memory,
    raise_descriptor_limit, read_to_end,
};

use crate::support;

struct StatusPort {
    process: Process,
    port: ReservedPort,
    _backend: Backend,
}

impl StatusPort {
    fn start(flags: &[&str]) -> Self {
        let (pki, listen, port) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let process = support::server(&pki, &listen, backend.address())
            .args(["--allow-all", "--enable-pprof"])
            .flag("--status", format!("http://{}", port.address()))
            .args(flags)
            .start();
        process.wait_listening(port.port());
        Self {
            process,
            port,
            _backend: backend,
        }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.port.address()).expect("listening");
        socket
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a limit");
        socket
    }

    /// How long an honest request takes.
    #[track_caller]
    fn latency(&self) -> Duration {
        let began = Instant::now();
        let address = self.port.address().into();
        let answer = Endpoint::Http(&address).get("/_status").expect("served");
        assert_eq!(answer.status, 200, "{}", answer.text());
        began.elapsed()
    }

    fn resident(&self) -> u64 {
        memory(self.process.id()).resident
    }

    #[track_caller]
    fn assert_unharmed(&self) {
        assert_eq!(self.process.try_exit(), None);
        assert_eq!(self.process.count_lines("panicked"), 0);
        self.latency();
    }
}

/// What comes back, if anything does: an answer, or the end.
fn answer_to(status: &StatusPort, request: &[u8]) -> String {
    let mut socket = status.connect();
    let _may_be_closed_already = socket.write_all(request);
    let _may_be_closed_already = socket.shutdown(std::net::Shutdown::Write);
    let (bytes, _) = read_to_end(&mut Plain::from(socket));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn heads_beyond_the_limit_are_refused_and_take_no_memory() {
    let status = StatusPort::start(&[]);
    let before = status.resident();
    let long = |length: usize| "x".repeat(length);
    for (request, code) in [
        (format!("GET /_status?{} HTTP/1.1\r\n\r\n", long(200_000)), "431"),
        (
            format!("GET /_status HTTP/1.1\r\nX: {}\r\n\r\n", long(200_000)),
            "431",
        ),
        (
            format!("GET /_status HTTP/1.1\r\n{}: x\r\n\r\n", long(200_000)),
            "4",
        ),
        (
            format!("GET /_status HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(2_000)),
            "431",
        ),
        (format!("{} / HTTP/1.1\r\n\r\n", long(200_000)), "4"),
    ] {
        let answer = answer_to(&status, request.as_bytes());
        assert!(
            answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{:.60}: {answer}",
            request
        );
    }
    // Fifty at once that never end.
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut socket = status.connect();
                let _ = socket.write_all(b"GET / HTTP/1.1\r\nX: ");
                while socket.write_all(&[b'x'; 64 * 1024]).is_ok() {}
            });
        }
    });
    let grown = status.resident().saturating_sub(before);
    eprintln!("FIGURES endless heads: grown by {} KiB", grown / 1024);
    assert!(grown < 32 * 1024 * 1024, "{grown}");
    status.assert_unharmed();
}

#[test]
fn garbage_is_answered_with_400_or_the_end() {
    let status = StatusPort::start(&[]);
    let mut cases: Vec<Vec<u8>> = [
        "\0",
        "\r\n\r\n\r\n\r\n",
        "GET",
        "GET /",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /_status\r\n\r\n",
        "GET  /_status  HTTP/1.1\r\n\r\n",
        "GET /\u{7f}\x01 HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\n: x\r\n\r\n",
        "GET / HTTP/1.1\r\nA b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\nContent-Length: 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "GET http://other/_status HTTP/1.1\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\n\r\n",
        "GET /%00%ff%2e%2e/ HTTP/1.1\r\n\r\n",
        "GET /debug/pprof/%0a HTTP/1.1\r\n\r\n",
        "GET /debug/pprof/profile?seconds=%ff HTTP/0.9\r\n\r\n",
        "GET /_metrics?format=%f HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    // And bytes that are always the same, of no kind at all.
    let mut state = 0x9e37_79b9_u32;
    for length in [1, 7, 64, 1000, 20_000] {
        let noise = (0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        });
        cases.push(noise.collect());
    }
    for case in cases {
        let answer = answer_to(&status, &case);
        let shown = case.get(..case.len().min(80)).unwrap_or_default().escape_ascii();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.") || answer.starts_with("HTTP/0.9"),
            "{shown}: {answer}"
        );
        assert!(!answer.contains("root:"), "{shown}: {answer}");
    }
    status.assert_unharmed();
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_flood_of_them_is_held_back() {
    let status = StatusPort::start(&[]);
    let paths = ["/_metrics", "/nowhere", "/debug/pprof/symbol", "/_status"];
    let requests: String = (0..200)
        .map(|number| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", paths[number % paths.len()]))
        .collect();
    let answers = answer_to(&status, requests.as_bytes());
    let codes: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3))
        .collect();
    assert_eq!(codes, ["200", "404", "200", "200"].repeat(50));

    // Those that ask and never read are held back by their own sockets.
    let before = status.resident();
    let flooders: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut socket = status.connect();
            socket.set_nonblocking(true).expect("an option");
            let request = b"GET /_metrics/prometheus HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
            for _ in 0..1000 {
                if socket.write(&request).is_err() {
                    break;
                }
            }
            socket
        })
        .collect();
    let latency = status.latency();
    let grown = status.resident().saturating_sub(before);
    eprintln!(
        "FIGURES flood: grown by {} KiB, latency {latency:?}",
        grown / 1024
    );
    assert!(grown < 32 * 1024 * 1024, "{grown}");
    assert!(latency < Duration::from_secs(2), "{latency:?}");
    drop(flooders);
    status.assert_unharmed();
}

#[test]
fn heads_that_drip_are_cut_and_hold_up_nobody() {
    let status = StatusPort::start(&["--connect-timeout=2s"]);
    let mut drips: Vec<TcpStream> = (0..100).map(|_| status.connect()).collect();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        for socket in &mut drips {
            let _may_be_cut_already = socket.write_all(b"G");
        }
        slowest = slowest.max(status.latency());
    }
    eprintln!("FIGURES 100 drips: slowest answer {slowest:?}");
    for socket in drips {
        let (bytes, _) = read_to_end(&mut Plain::from(socket));
        let answer = String::from_utf8_lossy(&bytes);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    status.assert_unharmed();
}

#[test]
fn two_thousand_idle_connections_cost_little_and_others_are_served_meanwhile() {
    const IDLE: usize = 2_000;
    raise_descriptor_limit();
    let status = StatusPort::start(&["--connect-timeout=1s"]);
    status.latency();
    let (before, open) = (status.resident(), descriptors(status.process.id()));
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| status.connect()).collect();
    // Those that are served at once are cut when their time is over, and make room.
    let mut slowest = Duration::ZERO;
    let mut most = before;
    for _ in 0..10 {
        slowest = slowest.max(status.latency());
        most = most.max(status.resident());
    }
    eprintln!(
        "FIGURES {IDLE} idle connections: resident {} KiB before, {} KiB at most, slowest answer {slowest:?}",
        before / 1024,
        most / 1024
    );
    assert!(most.saturating_sub(before) < 32 * 1024 * 1024, "{most}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    drop(idle);
    eventually("all are closed", || descriptors(status.process.id()) <= open + 1);
    let after = status.resident();
    eprintln!("FIGURES afterwards: {} KiB, {:?}", after / 1024, status.latency());
    assert!(after.saturating_sub(before) < 32 * 1024 * 1024, "{after}");
    status.assert_unharmed();
    let mut one = status.connect();
    one.write_all(b"GET /_metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        .expect("open");
    let mut text = String::new();
    one.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}
