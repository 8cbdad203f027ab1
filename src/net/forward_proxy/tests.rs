//! URLs of proxies, and talks with good and bad ones.

use std::time::Duration;

use proptest::prelude::*;
use tokio::net::TcpListener;

use super::super::{Resolver, TargetAddr};
use super::*;

fn proxy(url: &str) -> ForwardProxy {
    ForwardProxy::new(Url::parse(url).expect(url)).expect(url)
}

#[test]
fn schemes_choose_protocol_and_default_port() {
    for (url, protocol, address) in [
        ("http://h", Protocol::Http, "h:8080"),
        ("HTTP://h:/x?y", Protocol::Http, "h:8080"),
        ("http://h:3128", Protocol::Http, "h:3128"),
        ("socks5://h", Protocol::Socks5, "h:1080"),
        ("Socks5H://[::1]:99", Protocol::Socks5, "[::1]:99"),
    ] {
        let proxy = proxy(url);
        assert_eq!(proxy.protocol, protocol, "{url}");
        assert_eq!(proxy.address().to_string(), address, "{url}");
    }
    for (url, scheme) in [
        ("", ""),
        ("foo", ""),
        ("//h", ""),
        ("localhost:3128", "localhost"),
        ("https://h", "https"),
        ("SOCKS4://h", "socks4"),
    ] {
        let error = ForwardProxy::new(Url::parse(url).expect(url)).expect_err(url);
        assert_eq!(error.to_string(), format!("proxy: unknown scheme: {scheme}"));
    }
}

#[test]
fn passwords_are_shown_nowhere() {
    let proxy = proxy("http://user:secret@h");
    assert_eq!(proxy.to_string(), "http://user:xxxxx@h");
    assert!(!format!("{proxy:?}").contains("secret"));
}

#[test]
fn base64_is_that_of_the_rfc() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
        ("\u{fffd}?>", "77+9Pz4="),
    ] {
        assert_eq!(base64(bytes.as_bytes()).as_str(), text);
    }
}

/// What a proxy in a test does.
#[derive(Clone)]
enum Step {
    Expect(Vec<u8>),
    Say(Vec<u8>),
    /// Keeps the connection open until the other side has given up.
    Wait,
}

fn expect(bytes: impl AsRef<[u8]>) -> Step {
    Step::Expect(bytes.as_ref().to_vec())
}

fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

/// The outcome of a dial through a proxy that does this, then closes; `{proxy}` stands for its
/// address, `{local}` for the dialling end's.
async fn dial_through(
    scheme: &str,
    login: &str,
    target: &str,
    steps: &[Step],
    limit: Duration,
) -> Result<Stream, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let target = TargetAddr::parse(target, Reach::Anywhere)
        .and_then(|target| target.through(proxy(&format!("{scheme}://{login}{address}"))))
        .expect("target");
    let play = async {
        let (mut stream, peer) = listener.accept().await.expect("accept");
        for step in steps {
            match step {
                Step::Expect(bytes) => {
                    let mut received = vec![0; bytes.len()];
                    stream.read_exact(&mut received).await.expect("request");
                    assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(bytes));
                    assert_eq!(&received, bytes);
                }
                // The other side may have read enough.
                Step::Say(bytes) => drop(stream.write_all(bytes).await),
                Step::Wait => drop(stream.read(&mut [0]).await),
            }
        }
        peer.to_string()
    };
    let resolver = Resolver::new();
    let dialling = async {
        dial::dial(&target, &resolver, Instant::now() + limit)
            .await
            .map_err(|error| {
                assert_eq!(error.is_timeout(), limit < PATIENCE, "{error}");
                error.to_string()
            })
    };
    let (outcome, peer) = tokio::join!(dialling, play);
    outcome.map_err(|text| text.replace(&address, "{proxy}").replace(&peer, "{local}"))
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Asserts what a dial of `h.test:443` fails with.
async fn assert_fails(scheme: &str, login: &str, steps: &[Step], text: &str) {
    let outcome = dial_through(scheme, login, "h.test:443", steps, PATIENCE).await;
    assert_eq!(outcome.expect_err(text), text);
}

const REQUEST: &str =
    "CONNECT h.test:443 HTTP/1.1\r\nHost: h.test:443\r\nUser-Agent: Go-http-client/1.1\r\n\r\n";

#[tokio::test]
async fn an_http_proxy_says_yes_with_200_and_nothing_else() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n",
        "HTTP/1.1 200\n\n",
    ] {
        let answer = answer.as_bytes();
        let (first, second) = answer.split_at(answer.len() / 2);
        let steps = [expect(REQUEST), say(first), say(second)];
        let outcome = dial_through("http", "", "h.test:443", &steps, PATIENCE).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_login_goes_to_an_http_proxy_as_basic() {
    for (login, token) in [
        ("user:pass@", "dXNlcjpwYXNz"),
        ("user@", "dXNlcjo="),
        ("u%3a:p%40@", "dTo6cEA="),
    ] {
        let request = REQUEST.replace(
            "1.1\r\n\r\n",
            &format!("1.1\r\nProxy-Authorization: Basic {token}\r\n\r\n"),
        );
        let steps = [expect(request), say("HTTP/1.1 200 OK\r\n\r\n")];
        let outcome = dial_through("http", login, "h.test:443", &steps, PATIENCE).await;
        assert!(outcome.is_ok(), "{login}");
    }
}

#[tokio::test]
async fn answers_of_http_proxies_that_are_no_tunnel_are_told() {
    let long = format!("HTTP/1.1 403 {}\r\n", "x".repeat(300));
    let long_text = format!("http_tunnel: failed proxying 403: 403 {}", "x".repeat(196));
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(3000));
    for (answer, text) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\n",
            "http_tunnel: failed proxying 503: 503 Service Unavailable",
        ),
        ("HTTP/1.1 407\r\n\r\n", "http_tunnel: failed proxying 407: 407"),
        (
            "HTTP/1.1 201 OK\r\n\r\n",
            "http_tunnel: failed proxying 201: 201 OK",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            "http_tunnel: failed proxying 100: 100 Continue",
        ),
        (
            "HTTP/1.1 403 a\x1bb\x00\r\n",
            "http_tunnel: failed proxying 403: 403 a\\x1bb\\x00",
        ),
        (long.as_str(), long_text.as_str()),
        ("", "unexpected EOF"),
        ("HTTP/1.1 200 OK", "unexpected EOF"),
        ("HTTP/1.1 200 OK\r\nVia: x\r\n", "unexpected EOF"),
        ("garbage\r\n", "malformed HTTP response \"garbage\""),
        ("\r\n", "malformed HTTP response \"\""),
        ("\x16\x03\n", "malformed HTTP response \"\\x16\\x03\""),
        ("HTTP/1.1 20 x\r\n", "malformed HTTP status code \"20\""),
        ("HTTP/1.1 2x0 x\r\n", "malformed HTTP status code \"2x0\""),
        ("SSH-2.0 200 x\r\n", "malformed HTTP version \"SSH-2.0\""),
        (
            endless.as_str(),
            "http_tunnel: response head is longer than 16384 bytes",
        ),
    ] {
        assert_fails("http", "", &[expect(REQUEST), say(answer)], text).await;
    }
}

#[tokio::test]
async fn silent_proxies_are_left_at_the_deadline() {
    let limit = Duration::from_millis(400);
    for (scheme, steps, text) in [
        (
            "http",
            vec![expect(REQUEST), Step::Wait],
            "http_tunnel: failed reading response: read tcp {local}->{proxy}: i/o timeout",
        ),
        (
            "http",
            vec![expect(REQUEST), say("HTTP/1.1 200 OK\r\nVia"), Step::Wait],
            "http_tunnel: failed reading response: read tcp {local}->{proxy}: i/o timeout",
        ),
        (
            "socks5",
            vec![expect([5, 1, 0]), Step::Wait],
            "socks connect tcp {proxy}->h.test:443: read tcp {local}->{proxy}: i/o timeout",
        ),
        (
            "socks5",
            vec![
                expect([5, 1, 0]),
                say([5, 0]),
                expect(b"\x05\x01\x00\x03\x06h.test\x01\xbb"),
                say([5, 0, 0, 3, 200]),
                Step::Wait,
            ],
            "socks connect tcp {proxy}->h.test:443: read tcp {local}->{proxy}: i/o timeout",
        ),
    ] {
        let outcome = dial_through(scheme, "", "h.test:443", &steps, limit).await;
        assert_eq!(outcome.expect_err(text), text);
    }
}

#[tokio::test]
async fn proxies_that_cannot_be_reached_are_told_apart_from_targets() {
    let (_held, port) = {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket
            .bind("127.0.0.1:0".parse().expect("address"))
            .expect("bind");
        let port = socket.local_addr().expect("address").port();
        (socket, port)
    };
    for (scheme, before) in [
        ("http", "http_tunnel: failed dialing to proxy: ".to_owned()),
        (
            "socks5h",
            format!("socks connect tcp 127.0.0.1:{port}->h.test:443: "),
        ),
    ] {
        let target = TargetAddr::parse("h.test:443", Reach::Anywhere)
            .and_then(|target| target.through(proxy(&format!("{scheme}://127.0.0.1:{port}"))))
            .expect("target");
        let resolver = Resolver::asking(|host| panic!("looked {host} up"));
        let error = dial::dial(&target, &resolver, Instant::now() + PATIENCE).await;
        assert_eq!(
            error.expect_err("refused").to_string(),
            format!("{before}dial tcp 127.0.0.1:{port}: connect: connection refused")
        );
        assert_eq!(target.check_resolves(), Ok(()));
    }
}

#[tokio::test]
async fn targets_that_would_break_a_request_are_not_sent() {
    let outcome = dial_through("http", "", "a\r\nb c:443", &[], PATIENCE).await;
    assert_eq!(
        outcome.expect_err("unsafe"),
        "http_tunnel: failed writing request: target \"a\\r\\nb c:443\" holds characters that HTTP does not allow"
    );
}

#[tokio::test]
async fn socks_requests_name_the_target_by_its_kind() {
    let name = "n".repeat(255);
    let done = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for (target, request) in [
        (
            "192.0.2.1:80".to_owned(),
            b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50".to_vec(),
        ),
        (
            "[::ffff:192.0.2.1]:80".to_owned(),
            b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50".to_vec(),
        ),
        (
            "[::1]:443".to_owned(),
            [b"\x05\x01\x00\x04".as_slice(), &[0; 15], b"\x01\x01\xbb"].concat(),
        ),
        (
            "Example.com:https".to_owned(),
            b"\x05\x01\x00\x03\x0bExample.com\x01\xbb".to_vec(),
        ),
        (
            format!("{name}:1"),
            [b"\x05\x01\x00\x03\xff", name.as_bytes(), b"\x00\x01"].concat(),
        ),
    ] {
        let steps = [expect([5, 1, 0]), say([5, 0]), expect(request), say(done)];
        let outcome = dial_through("socks5", "", &target, &steps, PATIENCE).await;
        assert!(outcome.is_ok(), "{target}: {outcome:?}");
    }
    for (target, reason) in [
        (format!("{name}n:1"), "FQDN too long"),
        ("h:nosuch".to_owned(), "lookup tcp/nosuch: unknown port"),
    ] {
        let outcome = dial_through("socks5", "", &target, &[], PATIENCE).await;
        assert_eq!(
            outcome.expect_err(reason),
            format!("socks connect tcp {{proxy}}->{target}: {reason}")
        );
    }
}

#[tokio::test]
async fn a_socks_login_is_made_when_it_is_asked_for() {
    let request = expect(b"\x05\x01\x00\x03\x06h.test\x01\xbb");
    let done = say(b"\x05\x00\x00\x03\x02ab\x00\x00");
    let log_in = |bytes: &[u8]| {
        [
            expect([5, 2, 0, 2]),
            say([5, 2]),
            expect(bytes),
            say([1, 0]),
            request.clone(),
            done.clone(),
        ]
    };
    for (login, bytes) in [("u:pw@", b"\x01\x01u\x02pw".as_slice()), ("u@", b"\x01\x01u\x00")] {
        let outcome = dial_through("socks5", login, "h.test:443", &log_in(bytes), PATIENCE).await;
        assert!(outcome.is_ok(), "{login}: {outcome:?}");
    }
    let unasked = [expect([5, 2, 0, 2]), say([5, 0]), request, done];
    let outcome = dial_through("socks5", "u:pw@", "h.test:443", &unasked, PATIENCE).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn refusals_of_socks_proxies_are_told() {
    let request = expect(b"\x05\x01\x00\x03\x06h.test\x01\xbb");
    let long = format!("{}:p@", "u".repeat(256));
    let offer = |login: &str| {
        expect(if login.is_empty() {
            &[5, 1, 0][..]
        } else {
            &[5, 2, 0, 2][..]
        })
    };
    for (login, answers, reason) in [
        ("", vec![say([5, 0xff])], "no acceptable authentication methods"),
        ("", vec![say([5, 2])], "unsupported authentication method 2"),
        ("", vec![say([5, 1])], "unsupported authentication method 1"),
        ("u:p@", vec![say([5, 1])], "unsupported authentication method 1"),
        ("", vec![say("HTTP/1.1 400 no")], "unexpected protocol version 72"),
        (
            "u:p@",
            vec![say([5, 2]), expect([1, 1, b'u', 1, b'p']), say([1, 1])],
            "username/password authentication failed",
        ),
        (
            "u:p@",
            vec![say([5, 2]), expect([1, 1, b'u', 1, b'p']), say([5, 0])],
            "unexpected protocol version 5",
        ),
        (":p@", vec![say([5, 2])], "invalid username/password"),
        (long.as_str(), vec![say([5, 2])], "invalid username/password"),
        (
            "",
            vec![say([5, 0]), request.clone(), say([4, 0, 0, 1])],
            "unexpected protocol version 4",
        ),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 0, 1, 1])],
            "non-zero reserved field",
        ),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 0, 0, 2])],
            "unknown address type 2",
        ),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 1, 0, 1])],
            "unknown error general SOCKS server failure",
        ),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 5, 0, 1])],
            "unknown error connection refused",
        ),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 9, 0, 1])],
            "unknown error unknown code: 9",
        ),
        ("", vec![], "read tcp {local}->{proxy}: unexpected EOF"),
        (
            "",
            vec![say([5, 0]), request.clone(), say([5, 0, 0])],
            "read tcp {local}->{proxy}: unexpected EOF",
        ),
    ] {
        let steps = [vec![offer(login)], answers].concat();
        let text = format!("socks connect tcp {{proxy}}->h.test:443: {reason}");
        assert_fails("socks5", login, &steps, &text).await;
    }
}

proptest! {
    #[test]
    fn a_head_is_judged_alike_however_it_arrives(head in "(HTTP/1.1 200 OK|HTTP/1.[01] [0-9]{2,4}.{0,5}|.{0,20})(\r?\n.{0,5}){0,6}(\r?\n){0,2}", at in 0_usize..60) {
        let whole = Head::default().add(head.as_bytes()).map_err(|error| error.to_string());
        let (first, second) = head.as_bytes().split_at(at.min(head.len()));
        let mut pieces = Head::default();
        let parts = match pieces.add(first) {
            Ok(false) => pieces.add(second),
            done => done,
        };
        prop_assert_eq!(whole, parts.map_err(|error| error.to_string()));
    }

    #[test]
    fn no_head_is_kept_beyond_the_limit(line in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut head = Head::default();
        for _ in 0..=LONGEST_HEAD {
            if head.add(&line).is_err() {
                break;
            }
        }
        prop_assert!(head.bytes.len() <= LONGEST_HEAD);
    }
}
