//! Asks a target over HTTP how it is (`--target-status`).
//!
//! The request goes over connections to the tunnel's own target. The host of the URL is only what
//! the target is asked as: `Host`, and the name that it must prove in TLS.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT_ENCODING, HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::timeout;

use crate::metrics::{Wire, describe};
use crate::net::HttpUrl;

/// Connects to the tunnel's target, over TLS if it is to prove this name. The error is for
/// `/_status`.
pub type Reach = Rc<dyn Fn(Option<String>) -> Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, String>>>>>;

/// How often an answer may lead somewhere else, as in Ghostunnel 1.11.1.
const REDIRECTS: usize = 10;

/// The most that the head of an answer may take.
const LONGEST_HEAD: usize = 64 * 1024;

/// How much of an answer is read, and for how long, so that its sender is not cut short. Nobody
/// waits for it, and nobody looks at it.
const BODY: (usize, Duration) = (64 * 1024, Duration::from_secs(1));

/// Whether the target answers with 200, and why not. Must be called in a `LocalSet`.
///
/// Each request has a connection of its own: some targets serve one at a time, and one that is
/// kept would keep them from their users. Dropping the future closes it.
pub async fn ask(url: &HttpUrl, reach: &Reach) -> Result<(), String> {
    let mut url = Cow::Borrowed(url);
    for _ in 0..=REDIRECTS {
        let response = get(&url, reach)
            .await
            .map_err(|error| format!("Get \"{url}\": {error}"))?;
        match next(&url, &response)? {
            None if response.status() == StatusCode::OK => return Ok(()),
            None => return Err(format!("target returned status: {}", response.status().as_u16())),
            Some(next) => url = Cow::Owned(next),
        }
    }
    Err(format!("Get \"{url}\": stopped after {REDIRECTS} redirects"))
}

/// Where an answer leads, if it does.
fn next(url: &HttpUrl, response: &Response<()>) -> Result<Option<HttpUrl>, String> {
    let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(LOCATION).filter(|_| leads_on) else {
        return Ok(None);
    };
    let location = location.to_str().map_err(|error| error.to_string());
    let joined = location.and_then(|location| url.join(location).map_err(|error| error.to_string()));
    joined
        .map(Some)
        .map_err(|error| format!("Get \"{url}\": failed to parse Location header: {error}"))
}

/// The head of the answer.
async fn get(url: &HttpUrl, reach: &Reach) -> Result<Response<()>, String> {
    let stream = reach(url.tls_name().map(str::to_owned)).await?;
    let handshake = http1::Builder::new()
        .title_case_headers(true)
        .max_buf_size(LONGEST_HEAD)
        .handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| describe(&error))?;
    // Ends with this future, unless that hands it on.
    let mut tasks = JoinSet::new();
    tasks.spawn_local(async move {
        // What goes wrong there shows in the answer.
        let _ = connection.await;
    });
    let mut request = url.request(Method::GET, Empty::<Bytes>::new());
    let encoding = HeaderValue::from_static("gzip");
    request.headers_mut().insert(ACCEPT_ENCODING, encoding);
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(|error| describe(&error))?.into_parts();
    spawn_local(read_away(body, tasks));
    Ok(Response::from_parts(head, ()))
}

async fn read_away(body: Incoming, connection: JoinSet<()>) {
    let (length, time) = BODY;
    let _nobody_looks_at_it = timeout(time, Limited::new(body, length).collect()).await;
    drop(connection);
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::LocalSet;

    use super::*;

    /// What a check says of a target that gives these answers, one on each connection; and what
    /// it was asked.
    fn asked(url: &str, answers: &[&str]) -> (Result<(), String>, Vec<String>) {
        let requests = Rc::new(RefCell::new(Vec::new()));
        let mut answers = answers
            .iter()
            .map(|answer| (*answer).to_owned())
            .collect::<Vec<_>>()
            .into_iter();
        let (answers, heard) = (
            Rc::new(RefCell::new(move || answers.next())),
            Rc::clone(&requests),
        );
        let reach: Reach = Rc::new(move |name| {
            let (answer, heard) = ((answers.borrow_mut())(), Rc::clone(&heard));
            Box::pin(async move {
                let answer = answer.ok_or("refused")?;
                let (ours, mut theirs) = duplex(1024);
                spawn_local(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(theirs.read_u8().await.expect("a request"));
                    }
                    let text = String::from_utf8(request).expect("text");
                    heard.borrow_mut().push(format!("{name:?} {text}"));
                    // The reader may have left before the end.
                    let _ = theirs.write_all(answer.as_bytes()).await;
                });
                Ok(Box::new(ours) as Box<dyn Wire>)
            })
        });
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().build().expect("a runtime");
        let url = HttpUrl::parse(url).expect("a URL");
        let outcome = LocalSet::new().block_on(&runtime, ask(&url, &reach));
        let requests = requests.borrow().clone();
        (outcome, requests)
    }

    #[test]
    fn only_200_is_good() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(())),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", Ok(())),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(())),
            (
                "HTTP/1.1 204 No Content\r\n\r\n",
                Err("target returned status: 204"),
            ),
            ("HTTP/1.1 503 Busy\r\n\r\n", Err("target returned status: 503")),
            ("HTTP/1.1 302 Found\r\n\r\n", Err("target returned status: 302")),
            (
                "HTTP/1.1 304 Same\r\nLocation: /\r\n\r\n",
                Err("target returned status: 304"),
            ),
            ("", Err("Get \"http://host:1/x\": EOF")),
            ("HTTP/1.1 200", Err("Get \"http://host:1/x\": EOF")),
        ] {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(asked("http://host:1/x", &[answer]).0, expected, "{answer}");
        }
        for nonsense in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n"] {
            let error = asked("http://host:1/x", &[nonsense]).0.expect_err(nonsense);
            assert!(error.starts_with("Get \"http://host:1/x\": "), "{error}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * LONGEST_HEAD));
        assert!(asked("http://host:1/x", &[&endless]).0.is_err());
    }

    #[test]
    fn the_request_names_the_host_of_the_url() {
        let (outcome, requests) = asked("https://name:secret@host.test/x?y", &["HTTP/1.1 200 OK\r\n\r\n"]);
        assert_eq!(outcome, Ok(()));
        let expected = "Some(\"host.test\") GET /x?y HTTP/1.1\r\nHost: host.test\r\nUser-Agent: \
                        Go-http-client/1.1\r\nAuthorization: Basic bmFtZTpzZWNyZXQ=\r\nAccept-Encoding: gzip\r\n\r\n";
        assert_eq!(requests, [expected]);
    }

    #[test]
    fn redirects_are_followed_a_few_times() {
        let to = |location: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
        };
        let (first, second) = (to("/y"), to("https://other/z"));
        let (outcome, requests) = asked("http://host/x", &[&first, &second, "HTTP/1.1 200 OK\r\n\r\n"]);
        assert_eq!(outcome, Ok(()));
        let starts = [
            "None GET /x HTTP/1.1\r\nHost: host\r\n",
            "None GET /y HTTP/1.1\r\nHost: host\r\n",
            "Some(\"other\") GET /z HTTP/1.1\r\nHost: other\r\n",
        ];
        assert_eq!(requests.len(), starts.len());
        for (request, start) in requests.iter().zip(starts) {
            assert!(request.starts_with(start), "{request}");
        }

        let circle = vec![first.as_str(); 20];
        let (outcome, requests) = asked("http://host/x", &circle);
        let expected = "Get \"http://host/y\": stopped after 10 redirects".to_owned();
        assert_eq!((outcome, requests.len()), (Err(expected), 11));

        let (outcome, _) = asked("http://host/x", &[&to("ftp://host/")]);
        let expected = "Get \"http://host/x\": failed to parse Location header: scheme must be http or https";
        assert_eq!(outcome, Err(expected.to_owned()));
        assert_eq!(
            asked("http://u:p@host/", &[]).0,
            Err("Get \"http://u:xxxxx@host/\": refused".to_owned())
        );
    }
}
