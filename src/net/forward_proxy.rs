//! Reaching a target through a forward proxy: HTTP CONNECT (RFC 9110, section 9.3.6) and SOCKS5
//! (RFC 1928, with the login of RFC 1929).
//!
//! A proxy is a stranger: what it answers is bounded, read no further than it has to be, and
//! decides nothing but whether there is a tunnel. TLS with the target goes through that tunnel and
//! is verified as it would be without. The target's name goes to the proxy and is not looked up
//! here.

use std::fmt;
use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::address::{AddressError, HostPort, Reach};
use super::dial::{self, DialError};
use super::resolve::Resolver;
use super::stream::{Operation, Stream};
use super::url::{Login, Quoted, Url};

/// A forward proxy (`--proxy`). Shows no password, neither displayed nor in debug output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardProxy {
    protocol: Protocol,
    address: HostPort,
    url: Url,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Socks5,
}

/// A URL whose scheme is none of a forward proxy's; carries the scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("proxy: unknown scheme: {0}")]
pub struct UnknownScheme(String);

impl ForwardProxy {
    /// The proxy at a URL with the scheme `http` (port 8080 unless given), `socks5` or `socks5h`
    /// (1080). The latter two are the same: names are always the proxy's to look up.
    pub fn new(url: Url) -> Result<Self, UnknownScheme> {
        let (protocol, default_port) = match url.scheme.as_str() {
            "http" => (Protocol::Http, "8080"),
            "socks5" | "socks5h" => (Protocol::Socks5, "1080"),
            scheme => return Err(UnknownScheme(scheme.to_owned())),
        };
        let port = if url.port.is_empty() {
            default_port
        } else {
            &url.port
        };
        Ok(Self {
            protocol,
            address: HostPort::new(&url.host, port),
            url,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Connects to the proxy and has it connect to the target, which is named by `text` too.
    ///
    /// Cancel-safe: dropping the future closes what it opened.
    pub(super) async fn dial(
        &self,
        target: &HostPort,
        text: &str,
        resolver: &Resolver,
        deadline: Instant,
    ) -> Result<Stream, ProxyError> {
        let dialled = dial::dial_tcp(&self.address, Reach::Anywhere, resolver, deadline).await;
        let login = self.url.login.as_ref();
        match self.protocol {
            Protocol::Http => {
                let stream = dialled.map_err(|error| ProxyError::HttpDial(Box::new(error)))?;
                let mut talk = Talk { stream, deadline };
                connect_by_http(&mut talk, text, login).await?;
                Ok(talk.stream)
            }
            Protocol::Socks5 => {
                let failed = |reason| ProxyError::Socks {
                    proxy: self.address.to_string(),
                    target: text.to_owned(),
                    reason,
                };
                let stream = dialled.map_err(|error| failed(SocksError::Dial(Box::new(error))))?;
                let mut talk = Talk { stream, deadline };
                let connected = connect_by_socks5(&mut talk, target, login).await;
                connected.map_err(failed)?;
                Ok(talk.stream)
            }
        }
    }
}

/// The URL as typed, with `xxxxx` for a password.
impl fmt::Display for ForwardProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// Why a target could not be reached through a proxy. Texts are those of Ghostunnel 1.11.1 where
/// it has any.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The HTTP proxy itself could not be reached.
    #[error("http_tunnel: failed dialing to proxy: {0}")]
    HttpDial(Box<DialError>),
    /// The target cannot be written into a request.
    #[error("http_tunnel: failed writing request: target {0:?} holds characters that HTTP does not allow")]
    HttpTarget(String),
    /// The request could not be sent.
    #[error("http_tunnel: failed writing request: {0}")]
    HttpWrite(TalkError),
    /// The answer could not be read.
    #[error("http_tunnel: failed reading response: {0}")]
    HttpRead(TalkError),
    /// The answer is not over where every reasonable one is.
    #[error("http_tunnel: response head is longer than {LONGEST_HEAD} bytes")]
    HttpHeadTooLong,
    /// The proxy closed the connection before its answer was complete.
    #[error("unexpected EOF")]
    HttpEnd,
    /// The answer is no HTTP; carries what is wrong and the text, escaped.
    #[error("malformed HTTP {0} {1}")]
    HttpMalformed(&'static str, String),
    /// The proxy refused.
    #[error("http_tunnel: failed proxying {code}: {status}")]
    HttpRefused {
        /// The status code.
        code: String,
        /// Code and reason, escaped.
        status: String,
    },
    /// Whatever went wrong with a SOCKS5 proxy.
    #[error("socks connect tcp {proxy}->{target}: {reason}")]
    Socks {
        /// Where the proxy should be.
        proxy: String,
        /// The target as typed.
        target: String,
        /// What went wrong.
        reason: SocksError,
    },
}

/// Why a SOCKS5 proxy was of no use.
#[derive(Debug, thiserror::Error)]
pub enum SocksError {
    /// It could not be reached.
    #[error("{0}")]
    Dial(Box<DialError>),
    /// Sending or receiving failed.
    #[error("{0}")]
    Talk(#[from] TalkError),
    /// The target's port has no number.
    #[error("{0}")]
    Port(#[from] AddressError),
    /// The target's name does not fit into a request.
    #[error("FQDN too long")]
    NameTooLong,
    /// It speaks something else; carries the version it claims.
    #[error("unexpected protocol version {0}")]
    Version(u8),
    /// It takes none of the methods offered.
    #[error("no acceptable authentication methods")]
    NoAcceptableMethod,
    /// It chose a method that was not offered.
    #[error("unsupported authentication method {0}")]
    Method(u8),
    /// Name and password can't be sent.
    #[error("invalid username/password")]
    Login,
    /// Name and password were refused.
    #[error("username/password authentication failed")]
    LoginRefused,
    /// It could not or would not connect to the target.
    #[error("unknown error {}", reply_text(*.0))]
    Refused(u8),
    /// A byte that must be zero is not.
    #[error("non-zero reserved field")]
    Reserved,
    /// It answers with an address of unknown kind.
    #[error("unknown address type {0}")]
    AddressType(u8),
}

/// Why bytes could not be exchanged.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct TalkError {
    text: String,
    kind: io::ErrorKind,
}

impl ProxyError {
    /// Whether the deadline passed, as opposed to a refusal.
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::HttpDial(error) => error.is_timeout(),
            Self::HttpWrite(error) | Self::HttpRead(error) => error.is_timeout(),
            Self::HttpTarget(_)
            | Self::HttpHeadTooLong
            | Self::HttpEnd
            | Self::HttpMalformed(..)
            | Self::HttpRefused { .. } => false,
            Self::Socks { reason, .. } => match reason {
                SocksError::Dial(error) => error.is_timeout(),
                SocksError::Talk(error) => error.is_timeout(),
                SocksError::Port(_)
                | SocksError::NameTooLong
                | SocksError::Version(_)
                | SocksError::NoAcceptableMethod
                | SocksError::Method(_)
                | SocksError::Login
                | SocksError::LoginRefused
                | SocksError::Refused(_)
                | SocksError::Reserved
                | SocksError::AddressType(_) => false,
            },
        }
    }
}

impl TalkError {
    fn is_timeout(&self) -> bool {
        self.kind == io::ErrorKind::TimedOut
    }
}

/// A conversation with a proxy, to be over by a deadline.
struct Talk {
    stream: Stream,
    deadline: Instant,
}

impl Talk {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), TalkError> {
        let written = timeout_at(self.deadline, self.stream.write_all(bytes)).await;
        self.judge(Operation::Write, written)
    }

    async fn read_some(&mut self, room: &mut [u8]) -> Result<usize, TalkError> {
        let read = timeout_at(self.deadline, self.stream.read(room)).await;
        self.judge(Operation::Read, read)
    }

    async fn read_exact(&mut self, room: &mut [u8]) -> Result<(), TalkError> {
        let read = timeout_at(self.deadline, self.stream.read_exact(room)).await;
        self.judge(Operation::Read, read).map(|_| ())
    }

    async fn read<const N: usize>(&mut self) -> Result<[u8; N], TalkError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    fn judge<T>(
        &self,
        operation: Operation,
        outcome: Result<io::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, TalkError> {
        outcome
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| TalkError {
                text: self.stream.error_text(operation, &error),
                kind: error.kind(),
            })
    }
}

/// The most that an answer to CONNECT may have: common proxies send a few hundred bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// What is read at a time.
const PIECE: usize = 1024;

async fn connect_by_http(talk: &mut Talk, target: &str, login: Option<&Login>) -> Result<(), ProxyError> {
    let request = http_request(target, login)?;
    talk.write(request.as_bytes())
        .await
        .map_err(ProxyError::HttpWrite)?;
    let mut head = Head::default();
    let mut piece = [0; PIECE];
    loop {
        let length = talk.read_some(&mut piece).await.map_err(ProxyError::HttpRead)?;
        if length == 0 {
            return Err(ProxyError::HttpEnd);
        }
        // What comes behind the head in the same piece is dropped, as Ghostunnel 1.11.1 does: in
        // TLS the client speaks first, so it can't be the target's.
        if head.add(piece.get(..length).unwrap_or_default())? {
            return Ok(());
        }
    }
}

/// The user agent is the one that Ghostunnel 1.11.1 has: some proxies admit by it.
fn http_request(target: &str, login: Option<&Login>) -> Result<Zeroizing<String>, ProxyError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ProxyError::HttpTarget(target.to_owned()));
    }
    let mut request = Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: Go-http-client/1.1\r\n"
    ));
    if let Some(login) = login {
        request.push_str("Proxy-Authorization: ");
        request.push_str(&login.basic());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    Ok(request)
}

impl Login {
    /// The value of a header that tells name and password (RFC 7617).
    pub fn basic(&self) -> Zeroizing<String> {
        let password = self.password.as_ref().map_or("", |password| password.as_str());
        let token = Zeroizing::new(format!("{}:{password}", self.name));
        Zeroizing::new(format!("Basic {}", base64(token.as_bytes()).as_str()))
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) % 64;
            let letter = ALPHABET.get(digit).copied().unwrap_or_default();
            text.push(if place <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// The head of an answer while it arrives.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    /// Where the line starts that is not complete yet.
    line_start: usize,
    status_seen: bool,
}

impl Head {
    /// Adds what has arrived; true once the head is complete and says yes. Says no as soon as
    /// the status line does.
    fn add(&mut self, piece: &[u8]) -> Result<bool, ProxyError> {
        for byte in piece {
            self.bytes.push(*byte);
            if *byte == b'\n' {
                let line = self.bytes.get(self.line_start..).unwrap_or_default();
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if !self.status_seen {
                    judge_status(line)?;
                    self.status_seen = true;
                } else if line.is_empty() {
                    return Ok(true);
                }
                self.line_start = self.bytes.len();
            }
            if self.bytes.len() >= LONGEST_HEAD {
                return Err(ProxyError::HttpHeadTooLong);
            }
        }
        Ok(false)
    }
}

/// `HTTP/1.1 200 Reason`; no other code will do.
fn judge_status(line: &[u8]) -> Result<(), ProxyError> {
    let line = String::from_utf8_lossy(line);
    let malformed = |what, text: &str| Err(ProxyError::HttpMalformed(what, Quoted(short(text)).to_string()));
    let Some((version, status)) = line.split_once(' ') else {
        return malformed("response", &line);
    };
    let status = status.trim_start_matches(' ');
    let code = status.split(' ').next().unwrap_or_default();
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return malformed("status code", code);
    }
    let is_version = matches!(version.as_bytes(), [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    if !is_version {
        return malformed("version", version);
    }
    match code {
        "200" => Ok(()),
        _ => Err(ProxyError::HttpRefused {
            code: code.to_owned(),
            status: escape(short(status)),
        }),
    }
}

/// As much of a stranger's text as the log takes.
fn short(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

fn escape(text: &str) -> String {
    let quoted = Quoted(text).to_string();
    let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

const SOCKS_VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

async fn connect_by_socks5(
    talk: &mut Talk,
    target: &HostPort,
    login: Option<&Login>,
) -> Result<(), SocksError> {
    let request = socks_request(target)?;
    let methods: &[u8] = match login {
        None => &[SOCKS_VERSION, 1, NO_LOGIN],
        Some(_) => &[SOCKS_VERSION, 2, NO_LOGIN, LOGIN],
    };
    talk.write(methods).await?;
    let [version, method] = talk.read().await?;
    require_version(version)?;
    match (method, login) {
        (NO_LOGIN, _) => {}
        (LOGIN, Some(login)) => log_in(talk, login).await?,
        (NO_ACCEPTABLE_METHOD, _) => return Err(SocksError::NoAcceptableMethod),
        (method, _) => return Err(SocksError::Method(method)),
    }
    talk.write(&request).await?;
    let [version, reply, reserved, address_type] = talk.read().await?;
    require_version(version)?;
    if reply != 0 {
        return Err(SocksError::Refused(reply));
    }
    if reserved != 0 {
        return Err(SocksError::Reserved);
    }
    skip_address(talk, address_type).await
}

fn require_version(version: u8) -> Result<(), SocksError> {
    match version {
        SOCKS_VERSION => Ok(()),
        other => Err(SocksError::Version(other)),
    }
}

/// RFC 1929.
async fn log_in(talk: &mut Talk, login: &Login) -> Result<(), SocksError> {
    let password = login.password.as_ref().map_or("", |password| password.as_str());
    let length = |text: &str| u8::try_from(text.len()).map_err(|_| SocksError::Login);
    if login.name.is_empty() {
        return Err(SocksError::Login);
    }
    let mut message = Zeroizing::new(vec![LOGIN_VERSION, length(&login.name)?]);
    message.extend(login.name.as_bytes());
    message.push(length(password)?);
    message.extend(password.as_bytes());
    talk.write(&message).await?;
    match talk.read().await? {
        [LOGIN_VERSION, 0] => Ok(()),
        [LOGIN_VERSION, _] => Err(SocksError::LoginRefused),
        [version, _] => Err(SocksError::Version(version)),
    }
}

/// Names go as they are; literals as addresses.
fn socks_request(target: &HostPort) -> Result<Vec<u8>, SocksError> {
    let mut request = vec![SOCKS_VERSION, CONNECT, 0];
    match target.host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(target.host.len()).map_err(|_| SocksError::NameTooLong)?;
            request.extend([NAME, length]);
            request.extend(target.host.as_bytes());
        }
    }
    request.extend(target.port_number()?.to_be_bytes());
    Ok(request)
}

/// Reads the address that the proxy connected from, byte for byte: what follows is the target's.
async fn skip_address(talk: &mut Talk, address_type: u8) -> Result<(), SocksError> {
    let length = match address_type {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = talk.read().await?;
            usize::from(length)
        }
        other => return Err(SocksError::AddressType(other)),
    };
    const PORT: usize = 2;
    let mut room = [0; u8::MAX as usize + PORT];
    talk.read_exact(room.get_mut(..length + PORT).unwrap_or_default())
        .await?;
    Ok(())
}

/// RFC 1928, section 6, in the words of Ghostunnel 1.11.1.
fn reply_text(reply: u8) -> String {
    let text = match reply {
        1 => "general SOCKS server failure",
        2 => "connection not allowed by ruleset",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        other => return format!("unknown code: {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests;
