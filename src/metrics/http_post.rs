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

use crate::net::{AddressError, Kind, TargetAddr};

/// How much of an answer is read so that its connection can serve the next request.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where metrics are posted to (`--metrics-url`). Displays without the password that it may
/// hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostUrl {
    uri: Uri,
    target: TargetAddr,
    authorization: Option<HeaderValue>,
}

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostUrlError {
    /// The text is no URL.
    #[error("{0}")]
    Malformed(String),
    /// The scheme is not one that metrics can be posted by.
    #[error("scheme must be http or https")]
    Scheme,
    /// There is no host in it.
    #[error("no host in URL")]
    NoHost,
    /// Host and port make no address.
    #[error("{0}")]
    Address(AddressError),
}

impl PostUrl {
    /// Parses an absolute URL of scheme `http` or `https`. A user name and password in it are
    /// sent as basic authentication (RFC 7617).
    pub fn parse(text: &str) -> Result<Self, PostUrlError> {
        if text.ends_with("://") {
            return Err(PostUrlError::NoHost);
        }
        let uri = text.parse::<Uri>();
        let uri = uri.map_err(|error| PostUrlError::Malformed(error.to_string()))?;
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(PostUrlError::Scheme),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or(PostUrlError::NoHost)?;
        // Not by the library, which takes a port that is too large for none.
        let port = host_and_port(&uri).strip_prefix(host).unwrap_or_default();
        let target = match port {
            "" | ":" => TargetAddr::tcp(&format!("{host}:{default_port}")),
            port => TargetAddr::tcp(&format!("{host}{port}")),
        };
        let target = target.map_err(PostUrlError::Address)?;
        if let Kind::Tcp(address) = target.kind() {
            address.port_number().map_err(PostUrlError::Address)?;
        }
        let authorization = match userinfo(&uri) {
            None => None,
            Some(userinfo) => {
                let text = format!("Basic {}", base64(&decode_percent(userinfo)));
                HeaderValue::from_str(&text).ok()
            }
        };
        Ok(Self {
            uri,
            target,
            authorization,
        })
    }

    /// What to connect to.
    pub fn target(&self) -> &TargetAddr {
        &self.target
    }

    /// The name that the receiver must prove in TLS; `None` for plain HTTP.
    pub fn tls_name(&self) -> Option<&str> {
        let host = self
            .target
            .host()
            .filter(|_| self.uri.scheme_str() == Some("https"));
        host.map(|host| host.split('%').next().unwrap_or(host))
    }

    fn path_and_query(&self) -> String {
        match self.uri.path_and_query().map(|path| path.as_str()) {
            Some(path) if path.starts_with('/') => path.to_owned(),
            other => format!("/{}", other.unwrap_or_default()),
        }
    }

    fn request(&self, body: String) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.path_and_query())
            .header(HOST, host_and_port(&self.uri))
            .header(USER_AGENT, concat!("ghostunnel/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request
            .body(Full::from(body))
            .map_err(|error| format!("cannot make the request: {error}"))
    }
}

impl fmt::Display for PostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if userinfo(&self.uri).is_some() { "***@" } else { "" };
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let path = self.path_and_query();
        // The library does not tell whether a path was given at all.
        let path = if path == "/" { "" } else { path.as_str() };
        write!(f, "{scheme}://{secret}{}{path}", host_and_port(&self.uri))
    }
}

fn host_and_port(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.rsplit('@').next().unwrap_or(authority)
}

fn userinfo(uri: &Uri) -> Option<&str> {
    let authority = uri.authority()?.as_str();
    authority.rsplit_once('@').map(|(userinfo, _)| userinfo)
}

/// The bytes of a part of a URL (RFC 3986, section 2.1); what is no escape stays.
fn decode_percent(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |byte: &u8| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// RFC 4648, section 4. For a few bytes at start-up.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sextet = usize::try_from(group >> (18 - 6 * place) & 0x3f).unwrap_or(0);
            let is_padding = usize::try_from(place).is_ok_and(|place| place > chunk.len());
            let letter = ALPHABET.get(sextet).copied().map_or('=', char::from);
            text.push(if is_padding { '=' } else { letter });
        }
    }
    text
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
            && let Ok(response) = kept.send_request(self.url.request(body.clone())?).await
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
        let sent = fresh.send_request(self.url.request(body)?).await;
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
                shown: "https://host.test/?x",
            },
            Case {
                text: "https://[::1]:8443/",
                target: "[::1]:8443",
                tls_name: Some("::1"),
                host: "[::1]:8443",
                path: "/",
                shown: "https://[::1]:8443",
            },
            Case {
                text: "http://host:/",
                target: "host:80",
                tls_name: None,
                host: "host:",
                path: "/",
                shown: "http://host:",
            },
            Case {
                text: "http://unix:80/x#part",
                target: "unix:80",
                tls_name: None,
                host: "unix:80",
                path: "/x",
                shown: "http://unix:80/x",
            },
            Case {
                text: "https://user:s%40cret@host:1/x",
                target: "host:1",
                tls_name: Some("host"),
                host: "host:1",
                path: "/x",
                shown: "https://***@host:1/x",
            },
        ];
        for case in cases {
            let url = PostUrl::parse(case.text).expect(case.text);
            assert_eq!(url.target().text(), case.target, "{}", case.text);
            assert!(matches!(url.target().kind(), Kind::Tcp(_)));
            assert_eq!(url.tls_name(), case.tls_name, "{}", case.text);
            assert_eq!(host_and_port(&url.uri), case.host, "{}", case.text);
            assert_eq!(url.path_and_query(), case.path, "{}", case.text);
            assert_eq!(url.to_string(), case.shown, "{}", case.text);
            let request = url.request("[]".to_owned()).expect("a request");
            assert_eq!(
                request.headers().contains_key(AUTHORIZATION),
                case.text.contains('@')
            );
        }
    }

    #[test]
    fn a_password_goes_into_the_request_and_nowhere_else() {
        let url = PostUrl::parse("http://Aladdin:open%20sesame@host/").expect("a URL");
        let request = url.request(String::new()).expect("a request");
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

    #[test]
    fn bytes_are_encoded_by_threes() {
        // The test vectors of RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(decode_percent("a%2fb%zz%"), b"a/b%zz%");
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
