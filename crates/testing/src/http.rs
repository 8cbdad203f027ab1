//! A minimal HTTP/1.1 client for the status port.

use std::io::{Read, Write};

use crate::stream::{Address, End, Plain, read_to_end};
use crate::tls::TlsClient;

/// How to reach a status port.
pub enum Endpoint<'a> {
    /// Plain HTTP over TCP or a UNIX socket.
    Http(&'a Address),
    /// HTTPS.
    Https(&'a Address, &'a TlsClient),
}

impl Endpoint<'_> {
    /// Sends a GET request.
    pub fn get(&self, path: &str) -> Result<Response, End> {
        self.request("GET", path)
    }

    /// Sends a POST request without a body.
    pub fn post(&self, path: &str) -> Result<Response, End> {
        self.request("POST", path)
    }

    /// Sends a request without a body, on a connection of its own. Fails when the connection
    /// does, or ends in any other way than in good order with a complete answer.
    pub fn request(&self, method: &str, path: &str) -> Result<Response, End> {
        match self {
            Self::Http(address) => {
                let mut stream = Plain::connect(address).map_err(|error| End::from(&error))?;
                exchange(&mut stream, method, path)
            }
            Self::Https(address, client) => exchange(&mut client.connect(address)?, method, path),
        }
    }
}

fn exchange(stream: &mut (impl Read + Write), method: &str, path: &str) -> Result<Response, End> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream
        .write_all(head.as_bytes())
        .map_err(|error| End::from(&error))?;
    match read_to_end(stream) {
        (answer, End::Closed) => Response::parse(&answer).map_err(End::Failed),
        (_, end) => Err(end),
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values in order of arrival, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "the body is no JSON ({error}): {:?}",
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    fn parse(answer: &[u8]) -> Result<Self, String> {
        let incomplete = || format!("incomplete answer {:?}", String::from_utf8_lossy(answer));
        let head_end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .ok_or_else(incomplete)?;
        let head = String::from_utf8_lossy(&answer[..head_end]);
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self {
            status: status.ok_or_else(incomplete)?,
            headers,
            body: Vec::new(),
        };
        response.body = response.decode(&answer[head_end + 4..]).ok_or_else(incomplete)?;
        Ok(response)
    }

    /// `None` when bytes are missing.
    fn decode(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.header("transfer-encoding") == Some("chunked") {
            return join_chunks(body);
        }
        let announced = self
            .header("content-length")
            .and_then(|length| length.parse::<usize>().ok());
        (announced.is_none_or(|length| length == body.len())).then(|| body.to_vec())
    }
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let chunk = rest.get(line_end + 2..line_end + 2 + size)?;
        body.extend_from_slice(chunk);
        rest = rest.get(line_end + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let plain = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\n{}";
        let response = Response::parse(plain).expect("complete");
        assert_eq!(
            (response.status, response.header("content-type")),
            (503, Some("a/b"))
        );
        assert_eq!(response.json(), serde_json::json!({}));

        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(Response::parse(chunked).expect("complete").text(), "abcd");
    }

    #[test]
    fn incomplete_answers_are_failures() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(Response::parse(answer.as_bytes()).is_err(), "{answer:?}");
        }
    }
}
