//! `--enable-pprof`: profiles on the status port, read by tools that were made for Go programs.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use ghostunnel_testing::{
    Address, Backend, Behaviour, Endpoint, Pki, Process, ReservedPort, Response, TlsClient, eventually,
};

use crate::support;

/// A server tunnel with a status port that serves profiles.
struct Tunnel {
    process: Process,
    pki: Pki,
    listen: ReservedPort,
    status: Address,
    _status: ReservedPort,
    _backend: Backend,
}

impl Tunnel {
    fn start(flags: &[&str]) -> Self {
        let (pki, listen, status) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let process = support::server(&pki, &listen, backend.address())
            .arg("--allow-all")
            .flag("--status", format!("http://{}", status.address()))
            .args(flags)
            .start();
        process.wait_listening(status.port());
        Self {
            process,
            pki,
            listen,
            status: status.address().into(),
            _status: status,
            _backend: backend,
        }
    }

    fn get(&self, path: &str) -> Response {
        Endpoint::Http(&self.status).get(path).expect("served")
    }

    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.pki.authority).identity(&self.pki.client)
    }

    fn tasks(&self) -> usize {
        let answer = self.get("/debug/pprof/goroutine?debug=1");
        let first = answer.text().lines().next().unwrap_or_default();
        let number = first
            .strip_prefix("goroutine profile: total ")
            .expect("the known words");
        number.parse().expect("a number")
    }
}

/// A protocol buffer, field by field: numbers, and bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().expect("not cut short");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        match key & 7 {
            0 => found.push((key >> 3, value, Vec::new())),
            2 => {
                let (content, rest) = bytes.split_at(usize::try_from(value).expect("short"));
                found.push((key >> 3, 0, content.to_vec()));
                bytes = rest;
            }
            kind => panic!("no such field: {kind}"),
        }
    }
    found
}

/// What a profile says: the sum of each sample's first value, and the names of functions.
fn profile(answer: &Response) -> (u64, Vec<String>) {
    let mut bytes = Vec::new();
    GzDecoder::new(answer.body.as_slice())
        .read_to_end(&mut bytes)
        .expect("gzip");
    let fields_of_profile = fields(&bytes);
    let all = |number| {
        fields_of_profile
            .iter()
            .filter(move |(field, ..)| *field == number)
    };
    let strings: Vec<String> = all(6)
        .map(|(_, _, text)| String::from_utf8(text.clone()).expect("text"))
        .collect();
    assert_eq!(strings.first().map(String::as_str), Some(""));
    let locations = all(4).count() as u64;
    let samples = all(2).map(|(_, _, sample)| {
        let parts = fields(sample);
        for (_, location, _) in parts.iter().filter(|(field, ..)| *field == 1) {
            assert!((1..=locations).contains(location));
        }
        parts
            .iter()
            .find(|(field, ..)| *field == 2)
            .map_or(0, |(_, value, _)| *value)
    });
    let functions = all(5).map(|(_, _, function)| {
        let name = fields(function).into_iter().find(|(field, ..)| *field == 2);
        let (_, place, _) = name.expect("a name");
        strings[usize::try_from(place).expect("small")].clone()
    });
    (samples.sum(), functions.collect())
}

#[test]
fn a_profile_under_load_names_the_functions_that_work() {
    let tunnel = Tunnel::start(&["--enable-pprof"]);
    tunnel.process.wait_for_line("sandbox: landlock");
    let is_over = AtomicBool::new(false);
    let answer = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let client = tunnel.client();
                while !is_over.load(Ordering::Relaxed) {
                    let mut peer = client.connect(&tunnel.listen.address().into()).expect("admitted");
                    peer.write_all(&[0; 10_000]).expect("open");
                    peer.end_writing();
                    let _ = peer.read_to_end(&mut Vec::new());
                }
            });
        }
        let profile = scope.spawn(|| {
            // The one below may come first.
            loop {
                let answer = tunnel.get("/debug/pprof/profile?seconds=2");
                if answer.status == 200 {
                    return answer;
                }
            }
        });
        // Meanwhile others are served, and a second profile is refused.
        eventually("a profile is being made", || {
            tunnel.get("/debug/pprof/profile?seconds=1").status == 500 || profile.is_finished()
        });
        let began = Instant::now();
        assert_eq!(tunnel.get("/_status").status, 200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let answer = profile.join().expect("a profile");
        is_over.store(true, Ordering::Relaxed);
        answer
    });
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/octet-stream"))
    );
    let (samples, functions) = profile(&answer);
    assert!(samples > 10, "{samples} samples");
    // How far up a stack can be followed depends on how each part was compiled.
    assert!(functions.len() > 3, "{functions:?}");
    // Which of those that work are met is up to chance and to the optimiser.
    let workers = ["aws_lc", "ghostunnel", "rustls", "tokio"];
    assert!(
        functions
            .iter()
            .any(|name| workers.iter().any(|worker| name.contains(worker))),
        "{functions:?}"
    );
    assert_eq!(tunnel.process.try_exit(), None, "the samples did it no harm");
}

#[test]
fn tasks_follow_the_connections() {
    let tunnel = Tunnel::start(&["--enable-pprof"]);
    let before = tunnel.tasks();
    assert!((3..12).contains(&before), "{before}");
    let client = tunnel.client();
    let peers: Vec<_> = (0..40)
        .map(|_| client.connect(&tunnel.listen.address().into()).expect("admitted"))
        .collect();
    eventually("forty more", || tunnel.tasks() >= before + 40);
    assert!(tunnel.tasks() <= before + 42);
    drop(peers);
    eventually("as before", || tunnel.tasks() <= before + 1);

    let (total, names) = profile(&tunnel.get("/debug/pprof/goroutine"));
    assert!(
        total >= 3 && names.iter().any(|name| name == "connections and listeners"),
        "{names:?}"
    );
}

#[test]
fn other_pages_tell_what_there_is_and_what_is_not() {
    let tunnel = Tunnel::start(&["--enable-pprof"]);
    let (bytes, names) = profile(&tunnel.get("/debug/pprof/heap"));
    assert!(bytes > 1024 * 1024, "{bytes} bytes");
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        tunnel
            .get("/debug/pprof/allocs?debug=1")
            .text()
            .contains("(VmRSS)")
    );
    assert!(
        tunnel
            .get("/debug/pprof/threadcreate?debug=1")
            .text()
            .starts_with("threadcreate profile: total ")
    );
    assert_eq!(tunnel.get("/debug/pprof/symbol").text(), "num_symbols: 0\n");
    for path in ["trace?seconds=1", "block", "mutex"] {
        let answer = tunnel.get(&format!("/debug/pprof/{path}"));
        assert_eq!(answer.status, 501, "{path}");
        assert!(answer.text().len() > 20, "{path}");
    }
    let unknown = tunnel.get("/debug/pprof/nonsense");
    assert_eq!((unknown.status, unknown.text()), (404, "Unknown profile\n"));
    let index = tunnel.get("/debug/pprof/");
    assert!(
        index
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert!(index.text().contains("goroutine?debug=1"));
    let redirect = tunnel.get("/debug/pprof");
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (307, Some("/debug/pprof/"))
    );
}

#[test]
fn the_command_line_is_shown_without_secrets() {
    let tunnel = Tunnel::start(&[
        "--enable-pprof",
        "--storepass",
        "sesame",
        "--metrics-url=http://name:sesame@localhost:1/",
    ]);
    let answer = tunnel.get("/debug/pprof/cmdline");
    let words: Vec<&str> = answer.text().split('\0').collect();
    assert!(
        words.contains(&"server") && words.contains(&"--enable-pprof"),
        "{words:?}"
    );
    assert!(words.contains(&"xxxxx") && words.contains(&"--metrics-url=http://name:xxxxx@localhost:1/"));
    assert!(!answer.text().contains("sesame"), "{words:?}");
}

#[test]
fn profiles_exist_only_where_they_are_asked_for() {
    let tunnel = Tunnel::start(&[]);
    for path in ["", "/", "/goroutine?debug=1", "/profile?seconds=1", "/cmdline"] {
        let answer = tunnel.get(&format!("/debug/pprof{path}"));
        assert_eq!(
            (answer.status, answer.text()),
            (404, "404 page not found\n"),
            "{path}"
        );
    }
}
