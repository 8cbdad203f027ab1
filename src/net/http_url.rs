//! URLs of HTTP, for the requests that this program makes by itself.

use std::fmt;

use hyper::header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};

use super::address::{AddressError, Kind, TargetAddr};
use super::url::{Login, Url, UrlError};

/// Where a request goes, and for what. Displays without the password that it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    url: Url,
    target: TargetAddr,
    /// Host and, if given, port as typed.
    host: HeaderValue,
    path_and_query: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// The text is no URL.
    #[error(transparent)]
    Malformed(#[from] UrlError),
    /// The scheme is not one of HTTP.
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

impl HttpUrl {
    /// Parses an absolute URL of scheme `http` or `https`. A user name and password in it are
    /// sent as basic authentication (RFC 7617).
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        let url = Url::parse(text)?;
        let default_port = match url.scheme.as_str() {
            "http" => "80",
            "https" => "443",
            _ => return Err(HttpUrlError::Scheme),
        };
        if url.host.is_empty() {
            return Err(HttpUrlError::NoHost);
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
        let path_and_query = path_and_query.parse().map_err(|_| HttpUrlError::Unescaped)?;
        let host = HeaderValue::from_str(authority).map_err(|_| HttpUrlError::Unescaped)?;
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

    /// A request without further headers.
    pub fn request<B>(&self, method: Method, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.path_and_query.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Where a `Location` of its answer leads (RFC 3986, section 5.2). Another host is told no
    /// password.
    pub fn join(&self, location: &str) -> Result<Self, HttpUrlError> {
        let scheme = &self.url.scheme;
        let host = self.host.to_str().unwrap_or_default();
        let is_absolute = location
            .split_once("://")
            .is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let text = if is_absolute {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else {
            format!("{scheme}://{host}{}", self.path_of(location))
        };
        let mut joined = Self::parse(&text)?;
        if joined.host == self.host && joined.authorization.is_none() {
            joined.authorization.clone_from(&self.authorization);
        }
        Ok(joined)
    }

    /// The path and query that a reference without host means.
    fn path_of(&self, reference: &str) -> String {
        let own = self.path_and_query.path();
        let (path, query) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
        let path = match path {
            "" => own.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => {
                let (directory, _) = own.rsplit_once('/').unwrap_or_default();
                without_dots(&format!("{directory}/{path}"))
            }
        };
        format!("{path}{query}")
    }
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with("/.") || path.ends_with("/..") {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", parts.join("/"))
}

impl fmt::Display for HttpUrl {
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

fn basic(login: &Login) -> Result<HeaderValue, HttpUrlError> {
    let mut value = HeaderValue::from_str(&login.basic()).map_err(|_| HttpUrlError::Unescaped)?;
    // Its Debug form then hides it.
    value.set_sensitive(true);
    Ok(value)
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
            let url = HttpUrl::parse(case.text).expect(case.text);
            assert_eq!(url.target().text(), case.target, "{}", case.text);
            assert!(matches!(url.target().kind(), Kind::Tcp(_)));
            assert_eq!(url.tls_name(), case.tls_name, "{}", case.text);
            assert_eq!(url.host, case.host, "{}", case.text);
            assert_eq!(url.path_and_query, case.path, "{}", case.text);
            assert_eq!(url.to_string(), case.shown, "{}", case.text);
            let request = url.request(Method::GET, ());
            assert_eq!(
                request.headers().contains_key(AUTHORIZATION),
                case.text.contains('@')
            );
        }
    }

    #[test]
    fn a_password_goes_into_the_request_and_nowhere_else() {
        let url = HttpUrl::parse("http://Aladdin:open%20sesame@host/").expect("a URL");
        let request = url.request(Method::POST, ());
        assert!(!format!("{url:?} {request:?}").contains("sesame"));
        // The example of RFC 7617, section 2.
        assert_eq!(
            request.headers()[AUTHORIZATION],
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert!(!url.to_string().contains("sesame"));
    }

    #[test]
    fn locations_are_understood_as_of_their_page() {
        let base = HttpUrl::parse("http://name:secret@host:1/a/b?c").expect("a URL");
        for (location, host, path, has_login) in [
            ("https://other/x?y", "other", "/x?y", false),
            ("HTTP://host:1", "host:1", "/", true),
            ("//other:2/x", "other:2", "/x", false),
            ("/x", "host:1", "/x", true),
            ("/x/../y/.", "host:1", "/y/", true),
            ("x", "host:1", "/a/x", true),
            ("../../x", "host:1", "/x", true),
            ("./", "host:1", "/a/", true),
            ("?d", "host:1", "/a/b?d", true),
            ("", "host:1", "/a/b", true),
            ("x:y", "host:1", "/a/x:y", true),
        ] {
            let url = base.join(location).expect(location);
            assert_eq!(
                (url.host.as_bytes(), url.path_and_query.to_string()),
                (host.as_bytes(), path.to_owned())
            );
            assert_eq!(url.authorization.is_some(), has_login, "{location}");
        }
        for location in ["http://", "ftp://host/", "/a b", "http://h:70000/"] {
            assert!(base.join(location).is_err(), "{location}");
        }
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
            assert!(HttpUrl::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?://)?[a-z@:%\\[\\]/?#0-9\\PC]{0,30}") {
            if let Ok(url) = HttpUrl::parse(&text) {
                let _ = (url.to_string(), url.tls_name().map(str::len), url.request(Method::GET, ()));
                let _ = url.join(&text);
            }
        }
    }
}
