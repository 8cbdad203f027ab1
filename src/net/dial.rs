//! Connects to targets, within a deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use socket2::{Domain, SockRef, Type};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::address::{HostPort, Kind, Reach, TargetAddr, UnixName};
use super::error_text;
use super::forward_proxy::ProxyError;
use super::resolve::{LookupError, Resolver};
use super::stream::{Label, Stream, set_tcp_options};

/// How long the second address family waits for the first (RFC 8305, section 8, allows
/// up to 2 s and recommends 250 ms; this is Ghostunnel 1.11.1's value).
const FALLBACK_DELAY: Duration = Duration::from_millis(300);

/// The least time one of several addresses is given, if that much is left.
const LEAST_SHARE: Duration = Duration::from_secs(2);

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host has no usable address.
    #[error("dial tcp: {0}")]
    Lookup(LookupError),
    /// The deadline passed during the look-up.
    #[error("dial tcp: lookup {0}: i/o timeout")]
    LookupTimedOut(String),
    /// The deadline passed while connecting.
    #[error("dial {0}: i/o timeout")]
    TimedOut(Destination),
    /// The system refused.
    #[error("dial {destination}: {call}: {}", error_text::phrase(.error))]
    Refused {
        /// Where the connection should have gone.
        destination: Destination,
        /// The call that failed: `socket`, `connect`.
        call: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A UNIX target without a name.
    #[error("dial unix: missing address")]
    MissingAddress,
    /// The forward proxy could not be reached, or did not reach the target.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

impl DialError {
    /// Whether the deadline passed, as opposed to a refusal.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::LookupTimedOut(_) | Self::TimedOut(_) => true,
            Self::Proxy(error) => error.is_timeout(),
            Self::Lookup(_) | Self::Refused { .. } | Self::MissingAddress => false,
        }
    }
}

/// One address that a dial tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A UNIX name.
    Unix(UnixName),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(name) => write!(f, "unix {name}"),
        }
    }
}

/// Connects to a target.
///
/// A host name is looked up anew by each dial. Of several addresses, the family of the
/// first is tried first, address by address; the other family joins after 300 ms, or at
/// once when the first has failed (RFC 8305). The first connection wins; if there is
/// none, the first family's first error is told. Where the target has a forward proxy, all this is
/// said of the proxy, and the target's name is left to it.
/// Cancel-safe: dropping the future closes what it opened.
pub async fn dial(target: &TargetAddr, resolver: &Resolver, deadline: Instant) -> Result<Stream, DialError> {
    match target.kind() {
        Kind::Tcp(address) => match target.proxy() {
            None => dial_tcp(address, target.reach(), resolver, deadline).await,
            Some(proxy) => Ok(proxy.dial(address, target.text(), resolver, deadline).await?),
        },
        Kind::Unix(name) => dial_unix(name, deadline).await,
    }
}

pub(super) async fn dial_tcp(
    address: &HostPort,
    reach: Reach,
    resolver: &Resolver,
    deadline: Instant,
) -> Result<Stream, DialError> {
    let found = timeout_at(deadline, resolver.resolve(address, reach))
        .await
        .map_err(|_| DialError::LookupTimedOut(address.host.clone()))?
        .map_err(DialError::Lookup)?;
    let is_primary = |ip: &SocketAddr| found.first().is_some_and(|first| first.is_ipv4() == ip.is_ipv4());
    let (primary, fallback): (Vec<_>, Vec<_>) = found.iter().copied().partition(is_primary);
    race(&primary, &fallback, deadline).await
}

async fn race(
    primary: &[SocketAddr],
    fallback: &[SocketAddr],
    deadline: Instant,
) -> Result<Stream, DialError> {
    let mut first = pin!(connect_in_turn(primary, deadline));
    if fallback.is_empty() {
        return first.await;
    }
    match tokio::time::timeout(FALLBACK_DELAY, &mut first).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => return connect_in_turn(fallback, deadline).await.map_err(|_| error),
        Err(_) => {}
    }
    let mut second = pin!(connect_in_turn(fallback, deadline));
    tokio::select! {
        biased;
        result = &mut first => match result {
            Ok(stream) => Ok(stream),
            Err(error) => second.await.map_err(|_| error),
        },
        result = &mut second => match result {
            Ok(stream) => Ok(stream),
            Err(_) => first.await,
        },
    }
}

/// Tries addresses one after the other; the first error is the one to tell.
async fn connect_in_turn(addresses: &[SocketAddr], deadline: Instant) -> Result<Stream, DialError> {
    let mut first_error = None;
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let share = share(now, deadline, addresses.len().saturating_sub(tried));
        if now >= deadline {
            first_error.get_or_insert(DialError::TimedOut(Destination::Tcp(*address)));
            break;
        }
        let error = match timeout_at(share, connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => DialError::TimedOut(Destination::Tcp(*address)),
        };
        first_error.get_or_insert(error);
    }
    Err(first_error.expect("a look-up without any address is an error of its own"))
}

/// When the next of `left` addresses must have answered: an equal share of the time
/// left, but at least [`LEAST_SHARE`] as long as there is that much.
fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    let remaining = deadline.saturating_duration_since(now);
    let equal = remaining / u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    now + equal.max(LEAST_SHARE.min(remaining))
}

async fn connect(address: SocketAddr) -> Result<Stream, DialError> {
    let failed = |call: &'static str| {
        move |error: io::Error| DialError::Refused {
            destination: Destination::Tcp(address),
            call,
            error,
        }
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let stream = socket
        .map_err(failed("socket"))?
        .connect(address)
        .await
        .map_err(failed("connect"))?;
    set_tcp_options(SockRef::from(&stream)).map_err(failed("setsockopt"))?;
    let local = stream.local_addr().map_err(failed("getsockname"))?;
    // A target that answers and resets at once has no address any more; its bytes are there.
    let peer = stream.peer_addr().unwrap_or(address);
    Ok(Stream::tcp(stream, Label::tcp(local), Label::tcp(peer)))
}

async fn dial_unix(name: &UnixName, deadline: Instant) -> Result<Stream, DialError> {
    if *name == UnixName::Unnamed {
        return Err(DialError::MissingAddress);
    }
    if Instant::now() >= deadline {
        return Err(DialError::TimedOut(Destination::Unix(name.clone())));
    }
    let mut pause = Duration::from_millis(1);
    loop {
        match connect_unix(name) {
            // The listener's backlog is full. The kernel would let a blocking caller
            // wait, but reports no readiness for it: ask again until the deadline.
            Err(DialError::Refused { error, .. })
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() + pause < deadline =>
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Connecting to a UNIX socket never waits.
fn connect_unix(name: &UnixName) -> Result<Stream, DialError> {
    let failed = |call: &'static str| {
        move |error: io::Error| DialError::Refused {
            destination: Destination::Unix(name.clone()),
            call,
            error,
        }
    };
    let address = name
        .to_socket_address()
        .map_err(|_| io::Error::from(rustix::io::Errno::INVAL))
        .map_err(failed("connect"))?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
        .map_err(failed("socket"))?;
    socket.connect(&address).map_err(failed("connect"))?;
    let stream = UnixStream::from_std(socket.into()).map_err(failed("connect"))?;
    Stream::from_unix(stream).map_err(failed("getsockname"))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn target(text: &str) -> TargetAddr {
        TargetAddr::parse(text, Reach::Anywhere).expect(text)
    }

    fn answering(found: &'static [IpAddr]) -> Resolver {
        Resolver::asking(move |_| Ok(Arc::from(found)))
    }

    /// A port that refuses: bound, never listening.
    fn refusing_port() -> (TcpSocket, u16) {
        let socket = TcpSocket::new_v4().expect("socket");
        socket
            .bind("127.0.0.1:0".parse().expect("address"))
            .expect("bind");
        let port = socket.local_addr().expect("address").port();
        (socket, port)
    }

    async fn failure(text: &str) -> String {
        dial(&target(text), &Resolver::new(), soon())
            .await
            .expect_err(text)
            .to_string()
    }

    #[tokio::test]
    async fn a_dialled_socket_has_its_options_and_labels() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let stream = dial(&target(&address.to_string()), &Resolver::new(), soon())
            .await
            .expect("dial");
        let (mut accepted, peer) = listener.accept().await.expect("accept");
        assert_eq!(stream.peer().to_string(), format!("tcp:{address}"));
        assert_eq!(stream.local().to_string(), format!("tcp:{peer}"));
        let socket = stream.as_socket();
        assert!(socket.tcp_nodelay().expect("option") && socket.keepalive().expect("option"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("option"),
            Duration::from_secs(15)
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("option"), 9);
        let mut stream = stream;
        stream.write_all(b"x").await.expect("write");
        assert_eq!(accepted.read_u8().await.expect("read"), b'x');
    }

    #[tokio::test]
    async fn refusals_are_told_in_the_known_words() {
        let (_held, port) = refusing_port();
        let address = format!("127.0.0.1:{port}");
        assert_eq!(
            failure(&address).await,
            format!("dial tcp {address}: connect: connection refused")
        );
        assert_eq!(failure("unix:").await, "dial unix: missing address");
        assert_eq!(
            failure("127.0.0.1:nosuch").await,
            "dial tcp: lookup tcp/nosuch: unknown port"
        );
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let unix = format!("unix:{}", path.display());
        assert_eq!(
            failure(&unix).await,
            format!("dial unix {}: connect: no such file or directory", path.display())
        );
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        assert_eq!(
            failure(&unix).await,
            format!("dial unix {}: connect: connection refused", path.display())
        );
        let long = format!("/{}", "x".repeat(107));
        assert_eq!(
            failure(&format!("unix:{long}")).await,
            format!("dial unix {long}: connect: invalid argument")
        );
    }

    #[tokio::test]
    async fn unknown_names_are_told_in_the_known_words() {
        let resolver = Resolver::asking(|host| Err(LookupError::NoSuchHost(host.to_owned())));
        let error = dial(&target("nowhere.test:1"), &resolver, soon())
            .await
            .expect_err("no such host");
        assert_eq!(error.to_string(), "dial tcp: lookup nowhere.test: no such host");
    }

    #[tokio::test]
    async fn unix_targets_are_reached_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("bind");
        let text = format!("unix:{}", path.display());
        let stream = dial(&target(&text), &Resolver::new(), soon())
            .await
            .expect("dial");
        listener.accept().await.expect("accept");
        assert_eq!(stream.peer().to_string(), text);
        assert_eq!(stream.local().to_string(), "unix:@");

        let name = format!("ghostunnel-dial-{}", std::process::id());
        let _listener = UnixListener::bind(format!("\0{name}")).expect("bind");
        let text = format!("unix:@{name}");
        let stream = dial(&target(&text), &Resolver::new(), soon())
            .await
            .expect("dial");
        assert_eq!(stream.peer().to_string(), text);
    }

    #[tokio::test]
    async fn a_full_backlog_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        socket
            .bind(&socket2::SockAddr::unix(&path).expect("address"))
            .expect("bind");
        socket.listen(0).expect("listen");
        let target = target(&format!("unix:{}", path.display()));
        let _first = dial(&target, &Resolver::new(), soon()).await.expect("fits");
        let error = dial(
            &target,
            &Resolver::new(),
            Instant::now() + Duration::from_millis(5),
        )
        .await;
        assert_eq!(
            error.expect_err("full").to_string(),
            format!(
                "dial unix {}: connect: resource temporarily unavailable",
                path.display()
            )
        );
        let resolver = Resolver::new();
        let waiting = dial(&target, &resolver, soon());
        let room = async { socket.accept().expect("accept") };
        let (waiting, _room) = tokio::join!(waiting, room);
        waiting.expect("admitted once there is room");
    }

    #[tokio::test]
    async fn a_passed_deadline_is_a_timeout() {
        for text in ["127.0.0.1:1", "unix:/nowhere"] {
            let error = dial(&target(text), &Resolver::new(), Instant::now())
                .await
                .expect_err("too late");
            assert!(error.is_timeout(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_look_up_that_never_answers_ends_at_the_deadline() {
        let (release, gate) = std::sync::mpsc::sync_channel::<()>(1);
        let gate = std::sync::Mutex::new(gate);
        let resolver = Resolver::asking(move |host| {
            gate.lock().expect("gate").recv().ok();
            Err(LookupError::NoSuchHost(host.to_owned()))
        });
        let error = dial(
            &target("slow.test:1"),
            &resolver,
            Instant::now() + Duration::from_millis(5),
        )
        .await;
        assert_eq!(
            error.expect_err("too late").to_string(),
            "dial tcp: lookup slow.test: i/o timeout"
        );
        drop(release);
    }

    #[tokio::test]
    async fn the_other_family_is_tried_at_once_when_the_first_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (target, resolver) = (target(&format!("both.test:{port}")), answering(&[LOCAL6, LOCAL4]));
        let mut fastest = Duration::MAX;
        // A busy machine may be slow once, not each time.
        for _ in 0..5 {
            let started = Instant::now();
            // Nothing listens on this port of ::1.
            let stream = dial(&target, &resolver, soon()).await.expect("dial");
            assert_eq!(stream.peer().to_string(), format!("tcp:127.0.0.1:{port}"));
            fastest = fastest.min(started.elapsed());
        }
        assert!(fastest < FALLBACK_DELAY, "{fastest:?}");
    }

    #[tokio::test]
    async fn the_other_family_overtakes_one_that_does_not_answer() {
        let silent = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        silent.bind(&SocketAddr::new(LOCAL4, 0).into()).expect("bind");
        // With its queue full, the kernel drops further requests to connect.
        silent.listen(0).expect("listen");
        let address = silent
            .local_addr()
            .expect("address")
            .as_socket()
            .expect("address");
        let _queued = std::net::TcpStream::connect(address).expect("fills the queue");
        let Ok(listener) = TcpListener::bind((LOCAL6, address.port())).await else {
            eprintln!("SKIPPED: no IPv6 here, or the port is taken");
            return;
        };
        let target = target(&format!("both.test:{}", address.port()));
        let stream = dial(&target, &answering(&[LOCAL4, LOCAL6]), soon())
            .await
            .expect("dial");
        assert_eq!(
            stream.peer(),
            &Label::Tcp(listener.local_addr().expect("address"))
        );

        let only_silent = answering(&[LOCAL4]);
        let error = dial(&target, &only_silent, Instant::now() + Duration::from_millis(5)).await;
        assert_eq!(
            error.expect_err("silent").to_string(),
            format!("dial tcp {address}: i/o timeout")
        );

        drop(listener);
        let resolver = answering(&[LOCAL4, LOCAL6]);
        let error = dial(
            &target,
            &resolver,
            Instant::now() + FALLBACK_DELAY + FALLBACK_DELAY / 2,
        )
        .await;
        assert_eq!(
            error.expect_err("silent and refused").to_string(),
            format!("dial tcp {address}: i/o timeout")
        );
    }

    #[tokio::test]
    async fn when_all_fail_the_first_error_is_told() {
        let (_held, port) = refusing_port();
        let resolver = answering(&[LOCAL4, LOCAL6]);
        let error = dial(&target(&format!("both.test:{port}")), &resolver, soon())
            .await
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("dial tcp 127.0.0.1:{port}: connect: connection refused")
        );
    }

    #[tokio::test]
    async fn a_local_target_that_resolves_elsewhere_is_refused_at_each_dial() {
        let target = TargetAddr::parse("localhost:80", Reach::LocalOnly).expect("target");
        let resolver = answering(&[ELSEWHERE]);
        let error = dial(&target, &resolver, soon())
            .await
            .expect_err("not local")
            .to_string();
        assert!(
            error.contains("resolves to 192.0.2.1, which is not a loopback address"),
            "{error}"
        );
    }

    #[test]
    fn addresses_share_the_time_but_get_a_least_part() {
        let now = Instant::now();
        let seconds = |s: u64| now + Duration::from_secs(s);
        assert_eq!(share(now, seconds(30), 3), seconds(10));
        assert_eq!(share(now, seconds(30), 1), seconds(30));
        assert_eq!(share(now, seconds(4), 4), seconds(2));
        assert_eq!(share(now, seconds(1), 4), seconds(1));
        assert_eq!(share(now, now, 4), now);
    }
}
