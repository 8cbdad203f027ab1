//! Metrics posted as JSON over HTTP: where to, and one request at a time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;

use crate::net::{AddressError, Kind, Login, TargetAddr, Url, UrlError};

/// How much of an answer is read so that its connection can serve the next request.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where metrics are posted to (`--metrics-url`). Displays without the password that it may
/// hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostUrl {
    url: Url,
    target: TargetAddr,
    /// Host and, if given, port as typed.
    host: HeaderValue,
    path_and_query: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostUrlError {
    /// The text is no URL.
    #[error(transparent)]
    Malformed(#[from] UrlError),
    /// The scheme is not one that metrics can be posted by.
    #[error("scheme must be http or https")]
    Scheme,
    /// There is no host in it.
    #[error("no host in URL")]
    NoHost,
    /// Host and port make no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There are characters in it that a request can't carry.
    #[error("characters in URL that must be escaped")]
    Unescaped,
}

impl PostUrl {
    /// Parses an absolute URL of scheme `http` or `https`. A user name and password in it are
    /// sent as basic authentication (RFC 7617).
    pub fn parse(text: &str) -> Result<Self, PostUrlError> {
        let url = Url::parse(text)?;
        let default_port = match url.scheme.as_str() {
            "http" => "80",
            "https" => "443",
            _ => return Err(PostUrlError::Scheme),
        };
        if url.host.is_empty() {
            return Err(PostUrlError::NoHost);
        }
        let port = if url.port.is_empty() {
            default_port
        } else {
            &url.port
        };
        let target = match url.host.contains(':') {
            true => TargetAddr::tcp(&format!("[{}]:{port}", url.host))?,
            false => TargetAddr::tcp(&format!("{}:{port}", url.host))?,
        };
        if let Kind::Tcp(address) = target.kind() {
            address.port_number()?;
        }
        let (authority, path_and_query) = split(text);
        let path_and_query = path_and_query.parse().map_err(|_| PostUrlError::Unescaped)?;
        let host = HeaderValue::from_str(authority).map_err(|_| PostUrlError::Unescaped)?;
        let authorization = url.login.as_ref().map(basic).transpose()?;
        Ok(Self {
            url,
            target,
            host,
            path_and_query,
            authorization,
        })
    }

    /// What to connect to.
    pub fn target(&self) -> &TargetAddr {
        &self.target
    }

    /// The name that the receiver must prove in TLS; `None` for plain HTTP.
    pub fn tls_name(&self) -> Option<&str> {
        let is_tls = self.url.scheme == "https";
        let host = &self.url.host;
        is_tls.then(|| host.split('%').next().unwrap_or(host))
    }

    fn request(&self, body: String) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path_and_query.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }
}

impl fmt::Display for PostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// The one that Ghostunnel 1.11.1 has, in case a receiver looks at it.
const USER_AGENT_VALUE: &str = "Go-http-client/1.1";

/// Host and port of a URL that has them, and what is asked for there.
fn split(text: &str) -> (&str, String) {
    let text = text.split('#').next().unwrap_or(text);
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let slash = if path.starts_with('/') { "" } else { "/" };
    (authority, format!("{slash}{path}"))
}

fn basic(login: &Login) -> Result<HeaderValue, PostUrlError> {
    let mut value = HeaderValue::from_str(&login.basic()).map_err(|_| PostUrlError::Unescaped)?;
    // Its Debug form then hides it.
    value.set_sensitive(true);
    Ok(value)
}

/// A connection that a request can be sent on.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// Connects to the receiver, over TLS if need be. The error is for the log.
pub type Connect = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, String>>>>>;

/// Posts to one receiver, on one connection as long as it lasts.
pub(super) struct Poster {
    url: PostUrl,
    connect: Connect,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Poster {
    pub(super) fn new(url: PostUrl, connect: Connect) -> Self {
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
            && let Ok(response) = kept.send_request(self.url.request(body.clone())).await
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
        let sent = fresh.send_request(self.url.request(body)).await;
        let response = sent.map_err(|error| describe(&error))?;
        Ok(self.finish(fresh, response).await)
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

fn describe(error: &hyper::Error) -> String {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        struct Case {
            text: &'static str,
            target: &'static str,
            tls_name: Option<&'static str>,
            host: &'static str,
            path: &'static str,
            shown: &'static str,
        }
        let cases = [
            Case {
                text: "http://127.0.0.1:19202/foo?x=y",
                target: "127.0.0.1:19202",
                tls_name: None,
                host: "127.0.0.1:19202",
                path: "/foo?x=y",
                shown: "http://127.0.0.1:19202/foo?x=y",
            },
            Case {
                text: "http://host",
                target: "host:80",
                tls_name: None,
                host: "host",
                path: "/",
                shown: "http://host",
            },
            Case {
                text: "https://host.test?x",
                target: "host.test:443",
                tls_name: Some("host.test"),
                host: "host.test",
                path: "/?x",
                shown: "https://host.test?x",
            },
            Case {
                text: "https://[::1]:8443/",
                target: "[::1]:8443",
                tls_name: Some("::1"),
                host: "[::1]:8443",
                path: "/",
                shown: "https://[::1]:8443/",
            },
            Case {
                text: "http://host:/",
                target: "host:80",
                tls_name: None,
                host: "host:",
                path: "/",
                shown: "http://host:/",
            },
            Case {
                text: "http://unix:80/x#part",
                target: "unix:80",
                tls_name: None,
                host: "unix:80",
                path: "/x",
                shown: "http://unix:80/x#part",
            },
            Case {
                text: "https://user:s%40cret@host:1/x",
                target: "host:1",
                tls_name: Some("host"),
                host: "host:1",
                path: "/x",
                shown: "https://user:xxxxx@host:1/x",
            },
        ];
        for case in cases {
            let url = PostUrl::parse(case.text).expect(case.text);
            assert_eq!(url.target().text(), case.target, "{}", case.text);
            assert!(matches!(url.target().kind(), Kind::Tcp(_)));
            assert_eq!(url.tls_name(), case.tls_name, "{}", case.text);
            assert_eq!(url.host, case.host, "{}", case.text);
            assert_eq!(url.path_and_query, case.path, "{}", case.text);
            assert_eq!(url.to_string(), case.shown, "{}", case.text);
            let request = url.request("[]".to_owned());
            assert_eq!(
                request.headers().contains_key(AUTHORIZATION),
                case.text.contains('@')
            );
        }
    }

    #[test]
    fn a_password_goes_into_the_request_and_nowhere_else() {
        let url = PostUrl::parse("http://Aladdin:open%20sesame@host/").expect("a URL");
        let request = url.request(String::new());
        assert!(!format!("{url:?} {request:?}").contains("sesame"));
        // The example of RFC 7617, section 2.
        assert_eq!(
            request.headers()[AUTHORIZATION],
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert!(!url.to_string().contains("sesame"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "http://",
            "https:///x",
            "http://a b/",
            "http://h:70000/",
            "ftp://h",
            "/x",
            "",
        ] {
            assert!(PostUrl::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?://)?[a-z@:%\\[\\]/?#0-9\\PC]{0,30}") {
            if let Ok(url) = PostUrl::parse(&text) {
                let _ = (url.to_string(), url.tls_name().map(str::len), url.request(String::new()));
            }
        }
    }
}
