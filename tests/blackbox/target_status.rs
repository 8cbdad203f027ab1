//! `--target-status`: the status port asks the target over HTTP how it is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Backend, Behaviour, ClientCertificates, Command, Endpoint, Exit, Issued, Pki, Process, Request,
    ReservedPort, Response, TlsServer, private_dir,
};

use crate::support;

/// An HTTP server that gives these answers, one on each connection, and keeps what it was asked.
struct Target {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Target {
    fn tcp(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        Self::serve(address, answers, move || {
            listener.accept().map(|(stream, _)| stream)
        })
    }

    fn unix(path: &std::path::Path, answers: &[&str]) -> Self {
        let listener = UnixListener::bind(path).expect("free");
        Self::serve(format!("unix:{}", path.display()), answers, move || {
            listener.accept().map(|(stream, _)| stream)
        })
    }

    fn serve<S: Read + Write>(
        address: String,
        answers: &[&str],
        accept: impl Fn() -> std::io::Result<S> + Send + 'static,
    ) -> Self {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        thread::spawn(move || {
            for answer in answers {
                let mut stream = accept().expect("a connection");
                let request = read_head(&mut stream);
                heard.lock().expect("unpoisoned").push(request);
                let _peer_may_be_gone = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("unpoisoned").clone()
    }
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A tunnel whose target is asked at this URL.
fn tunnel(target: &str, url: &str, flags: &[&str]) -> (Process, ReservedPort) {
    let pki = Pki::new();
    start(&pki, target, url, |command| {
        command.args(flags);
    })
}

fn start(pki: &Pki, target: &str, url: &str, adapt: impl FnOnce(&mut Command)) -> (Process, ReservedPort) {
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let mut command = support::server(pki, &listen, &target);
    command
        .arg("--allow-all")
        .flag("--status", format!("http://{}", status.address()))
        .flag("--target-status", url);
    adapt(&mut command);
    let process = command.start();
    process.wait_listening(status.port());
    (process, status)
}

fn ask(status: &ReservedPort) -> Response {
    let address = status.address().into();
    Endpoint::Http(&address).get("/_status").expect("served")
}

#[track_caller]
fn assert_critical(answer: &Response, error: &str) {
    let json = answer.json();
    assert_eq!(
        (
            answer.status,
            &json["ok"],
            &json["backend_ok"],
            &json["backend_status"]
        ),
        (503, &false.into(), &false.into(), &"critical".into())
    );
    assert_eq!(json["backend_error"], error);
}

#[test]
fn the_answer_of_the_target_decides() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ];
    let target = Target::tcp(&answers);
    // The host and port of the URL lead nowhere, and are only what the target is asked as.
    let (process, status) = tunnel(&target.address, "http://health.test:1/healthz?full", &[]);

    let answer = ask(&status);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["backend_status"], "ok");
    assert!(!answer.text().contains("backend_error"));
    assert_critical(&ask(&status), "target returned status: 503");
    assert_eq!(ask(&status).status, 200, "HTTP/1.0");
    assert_critical(&ask(&status), "target returned status: 204");
    assert_eq!(ask(&status).status, 200, "after a redirect");

    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: health.test:1\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"
        )
    };
    let mut expected = vec![get("/healthz?full"); 5];
    expected.push(get("/other"));
    assert_eq!(target.asked(), expected);
    // What a check finds is no error of a connection.
    assert_eq!(process.count_lines("error on dial"), 0);
}

#[test]
fn a_target_on_a_unix_socket_is_asked_within_the_sandbox() {
    let folder = private_dir();
    let target = Target::unix(
        &folder.path().join("http.sock"),
        &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    );
    let (process, status) = tunnel(&target.address, "http://localhost/", &[]);
    process.wait_for_line("setting up landlock rules");
    assert_eq!(ask(&status).status, 200);
    assert!(target.asked()[0].starts_with("GET / HTTP/1.1\r\nHost: localhost\r\n"));
}

#[test]
fn a_target_that_is_not_there_or_speaks_no_http_is_critical() {
    let closed = ReservedPort::new();
    let (_process, status) = tunnel(&closed.address().to_string(), "http://localhost/x", &[]);
    let error = format!(
        "Get \"http://localhost/x\": dial tcp {}: connect: connection refused",
        closed.address()
    );
    assert_critical(&ask(&status), &error);

    let target = Target::tcp(&["", "SSH-2.0-OpenSSH_9.2\r\n\r\n"]);
    let (_process, status) = tunnel(&target.address, "http://localhost/x", &[]);
    assert_critical(&ask(&status), "Get \"http://localhost/x\": EOF");
    let answer = ask(&status);
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[test]
fn a_target_that_does_not_answer_is_left_at_the_connect_timeout() {
    let backend = Backend::tcp(Behaviour::Sink);
    let (_process, status) = tunnel(
        &backend.address().to_string(),
        "http://localhost/",
        &["--connect-timeout=1s"],
    );
    let began = Instant::now();
    assert_critical(&ask(&status), "context deadline exceeded");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // And its connection is closed, not left behind.
    backend.connection(0).wait_end();
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn https_is_verified_by_the_trust_store_of_the_system_and_by_the_name_in_the_url() {
    let (pki, system) = (Pki::new(), Pki::new());
    let named = |pki: &Pki| {
        let request = Request::named("health").dns("health.test");
        pki.authority.issue(&request)
    };
    // SSL_CERT_FILE stands for the system's bundle; --cacert names another authority.
    let check = |identity: &Issued, url: &str| {
        let server = TlsServer::new(identity, &ClientCertificates::Unasked);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        let backend = Backend::tls(server, Behaviour::AnswerAndHalfClose(answer));
        let target = backend.address().to_string();
        let (_process, status) = start(&pki, &target, url, |command| {
            command.env("SSL_CERT_FILE", &system.ca_file);
        });
        ask(&status)
    };
    let answer = check(&named(&pki), "https://health.test/").json();
    let error = answer["backend_error"].as_str().expect("an error");
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(
        error.starts_with(&format!("Get \"https://health.test/\": {unknown}")),
        "{error}"
    );
    let answer = check(&named(&system), "https://other.test/").json();
    let error = answer["backend_error"].as_str().expect("an error");
    assert!(
        error.contains("x509: certificate is valid for health.test, not other.test"),
        "{error}"
    );
    assert_eq!(check(&named(&system), "https://health.test/").status, 200);
}

#[test]
fn a_url_that_is_none_stops_the_start() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    for (url, reason) in [
        ("health", "--target-status should start with http:// or https://"),
        ("http://", "invalid --target-status: no host in URL"),
        ("http://h:x/", "invalid --target-status: invalid URL: parse"),
    ] {
        let output = support::server(&pki, &listen, &"localhost:1")
            .arg("--allow-all")
            .flag("--target-status", url)
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        assert!(output.stderr.contains(reason), "{url}: {}", output.stderr);
    }
}
