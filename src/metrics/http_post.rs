//! Metrics posted as JSON over HTTP, one request at a time.

use std::io;
use std::pin::Pin;
use std::rc::Rc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;

use crate::net::HttpUrl;

/// How much of an answer is read so that its connection can serve the next request.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A connection that a request can be sent on.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// Connects to the receiver, over TLS if need be. The error is for the log.
pub type Connect = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, String>>>>>;

/// Posts to one receiver, on one connection as long as it lasts.
pub(super) struct Poster {
    url: HttpUrl,
    connect: Connect,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Poster {
    pub(super) fn new(url: HttpUrl, connect: Connect) -> Self {
        Self {
            url,
            connect,
            kept: None,
        }
    }

    /// Sends one request and gives the status of its answer. The error is for the log.
    ///
    /// Only a kept connection that turns out to be closed is replaced and the request sent
    /// again. Cancel-safe: the connection is given up then.
    pub(super) async fn post(&mut self, body: String) -> Result<StatusCode, String> {
        if let Some(mut kept) = self.kept.take()
            && kept.ready().await.is_ok()
            && let Ok(response) = kept.send_request(self.request(body.clone())).await
        {
            return Ok(self.finish(kept, response).await);
        }
        let stream = (self.connect)().await?;
        let (mut fresh, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends with its last user, or with the connection.
        spawn_local(connection);
        let sent = fresh.send_request(self.request(body)).await;
        let response = sent.map_err(|error| describe(&error))?;
        Ok(self.finish(fresh, response).await)
    }

    fn request(&self, body: String) -> Request<Full<Bytes>> {
        let mut request = self.url.request(Method::POST, Full::from(body));
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        request
    }

    /// Reads the answer away, so that the connection can be used again.
    async fn finish(&mut self, sender: SendRequest<Full<Bytes>>, response: Response<Incoming>) -> StatusCode {
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER);
        if body.collect().await.is_ok() {
            self.kept = Some(sender);
        }
        status
    }
}

/// What went wrong on a connection, in the words of the log.
pub fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() {
        return "EOF".to_owned();
    }
    let source = std::error::Error::source(error);
    let io_error = source.and_then(|source| source.downcast_ref::<io::Error>());
    match (io_error.map(io::Error::kind), source) {
        (Some(io::ErrorKind::ConnectionReset), _) => "connection reset by peer".to_owned(),
        (Some(io::ErrorKind::BrokenPipe), _) => "broken pipe".to_owned(),
        (_, Some(source)) => format!("{error}: {source}"),
        (_, None) => error.to_string(),
    }
}
