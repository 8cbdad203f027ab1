//! One call of `FetchX509SVID`: gRPC over HTTP/2, without TLS, as the specification of the
//! Workload API wants it.
//!
//! A single call with an empty request and a stream of answers needs little of gRPC: a prefix
//! of five bytes before each message, and a status in the trailers.

mod framing;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use h2::RecvStream;
use h2::client::{Builder, Connection};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Code, Status};
use crate::net::{self, Resolver, Stream, TargetAddr};
use framing::{Assembler, EMPTY_MESSAGE};

const PATH: &str = "http://localhost/SpiffeWorkloadAPI/FetchX509SVID";

/// Without it agents refuse every call: proof that no browser was talked into making it.
const SECURITY_HEADER: HeaderName = HeaderName::from_static("workload.spiffe.io");

/// What gRPC programs allow by default.
const LONGEST_HEADERS: u32 = 16 * 1024;

/// A call in progress.
pub(super) struct Call {
    /// What moves bytes between socket and body; `None` when it has ended.
    connection: Option<Pin<Box<Connection<Stream, Bytes>>>>,
    body: RecvStream,
    messages: Assembler,
    unread: Bytes,
}

impl Call {
    /// Connects and sends the request. Waits for the head of the answer.
    pub(super) async fn open(
        target: &TargetAddr,
        resolver: &Resolver,
        deadline: Instant,
    ) -> Result<Self, Status> {
        let stream = net::dial(target, resolver, deadline).await.map_err(|error| {
            Status::new(
                Code::Unavailable,
                format_args!("connection error: desc = \"transport: Error while dialing: {error}\""),
            )
        })?;
        let handshake = Builder::new()
            .enable_push(false)
            .max_header_list_size(LONGEST_HEADERS)
            .handshake(stream);
        let (requests, connection) = handshake.await.map_err(|error| broken(&error))?;
        let mut connection = Some(Box::pin(connection));
        let mut requests = drive(&mut connection, requests.ready())
            .await
            .map_err(|error| broken(&error))?;
        let sent = requests.send_request(request(), false);
        let (response, mut request_body) = sent.map_err(|error| broken(&error))?;
        let sent = request_body.send_data(Bytes::from_static(&EMPTY_MESSAGE), true);
        sent.map_err(|error| broken(&error))?;
        let response = drive(&mut connection, response)
            .await
            .map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        check_head(head.status, &head.headers)?;
        Ok(Self {
            connection,
            body,
            messages: Assembler::default(),
            unread: Bytes::new(),
        })
    }

    /// The next message. An error is the end of the call. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Zeroizing<Vec<u8>>, Status> {
        loop {
            if let Some(message) = self.messages.take(&mut self.unread)? {
                return Ok(message);
            }
            match drive(&mut self.connection, self.body.data()).await {
                Some(Ok(data)) => {
                    // The agent may send as much again.
                    let released = self.body.flow_control().release_capacity(data.len());
                    released.map_err(|error| broken(&error))?;
                    self.unread = data;
                }
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(self.end().await),
            }
        }
    }

    async fn end(&mut self) -> Status {
        match drive(&mut self.connection, self.body.trailers()).await {
            Err(error) => broken(&error),
            Ok(None) => Status::new(
                Code::Internal,
                "server closed the stream without sending trailers",
            ),
            Ok(Some(trailers)) => match status_in(&trailers) {
                None => Status::new(Code::Internal, "the trailers have no grpc-status"),
                Some(status) if status.code() == Code::Ok => {
                    Status::new(Code::Unavailable, "the agent has ended the stream")
                }
                Some(status) => status,
            },
        }
    }
}

/// Waits for something that a connection brings, and keeps the connection moving meanwhile.
/// What it has brought before it ended is still there.
async fn drive<T>(
    connection: &mut Option<Pin<Box<Connection<Stream, Bytes>>>>,
    wanted: impl Future<Output = T>,
) -> T {
    let mut wanted = std::pin::pin!(wanted);
    poll_fn(|context| {
        if let Some(running) = connection
            && running.as_mut().poll(context).is_ready()
        {
            *connection = None;
        }
        match wanted.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(value),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = hyper::Uri::from_static(PATH);
    *request.version_mut() = hyper::Version::HTTP_2;
    let headers = request.headers_mut();
    let agent = concat!("ghostunnel/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        (CONTENT_TYPE, "application/grpc"),
        (TE, "trailers"),
        (USER_AGENT, agent),
        (SECURITY_HEADER, "true"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

/// Whether the answer is one of gRPC, and no refusal.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Status> {
    if let Some(status) = status_in(headers) {
        return match status.code() {
            Code::Ok => Err(Status::new(Code::Unavailable, "the agent has ended the stream")),
            _ => Err(status),
        };
    }
    if status != StatusCode::OK {
        let code = match status.as_u16() {
            400 => Code::Internal,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        let text = format_args!("unexpected HTTP status code received from server: {status}");
        return Err(Status::new(code, text));
    }
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    match kind.strip_prefix(b"application/grpc") {
        Some([] | [b'+' | b';', ..]) => Ok(()),
        _ => Err(Status::new(
            Code::Unknown,
            format_args!("unexpected content-type {:?}", String::from_utf8_lossy(kind)),
        )),
    }
}

/// The status that is told in headers or trailers.
fn status_in(headers: &HeaderMap) -> Option<Status> {
    let number = headers.get("grpc-status")?.to_str().ok();
    let code = number
        .and_then(|number| number.parse().ok())
        .map_or(Code::Unknown, Code::from_number);
    let message = headers.get("grpc-message").map_or(&[][..], HeaderValue::as_bytes);
    Some(Status::new(code, unescaped(message)))
}

/// A text in which some bytes are written as `%XX`; other uses of the percent sign stay.
fn unescaped(bytes: &[u8]) -> String {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut rest = bytes;
    let mut plain = Vec::with_capacity(bytes.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, rest)
            && let Some((high, low)) = digit(high).zip(digit(low))
        {
            plain.push(high << 4 | low);
            rest = after;
            continue;
        }
        plain.push(*byte);
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A connection that failed, or was no HTTP/2.
fn broken(error: &h2::Error) -> Status {
    let code = match error.reason() {
        Some(h2::Reason::CANCEL) => Code::Canceled,
        Some(h2::Reason::REFUSED_STREAM | h2::Reason::NO_ERROR) | None => Code::Unavailable,
        Some(_) => Code::Internal,
    };
    Status::new(
        code,
        format_args!("connection error: desc = \"transport: {error}\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_an_answer_of_grpc_is_taken_for_one() {
        const OK: StatusCode = StatusCode::OK;
        let grpc = ("content-type", "application/grpc");
        for (status, pairs, expected) in [
            (OK, vec![grpc], None),
            (OK, vec![("content-type", "application/grpc+proto")], None),
            (OK, vec![("content-type", "application/grpc; x")], None),
            (
                OK,
                vec![("content-type", "application/grpcweb")],
                Some("Unknown desc = unexpected content-type \"application/grpcweb\""),
            ),
            (OK, vec![], Some("Unknown desc = unexpected content-type \"\"")),
            (
                OK,
                vec![grpc, ("grpc-status", "7"), ("grpc-message", "no%20entry %zz%")],
                Some("PermissionDenied desc = no entry %zz%"),
            ),
            (
                OK,
                vec![grpc, ("grpc-status", "0")],
                Some("Unavailable desc = the agent has ended the stream"),
            ),
            (OK, vec![grpc, ("grpc-status", "x")], Some("Unknown desc = ")),
            (
                StatusCode::NOT_FOUND,
                vec![],
                Some("Unimplemented desc = unexpected HTTP status code received from server: 404 Not Found"),
            ),
        ] {
            let found = check_head(status, &headers(&pairs))
                .err()
                .map(|error| error.to_string());
            let expected = expected.map(|text| format!("rpc error: code = {text}"));
            assert_eq!(found, expected, "{pairs:?}");
        }
    }
}
