//! Host names and service names to numbers, by the system's resolver.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::address::{AddressError, HostPort, Kind, Reach, TargetAddr};
use super::error_text;

/// Why a host has no usable address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The port has no number.
    #[error(transparent)]
    Port(#[from] AddressError),
    /// The resolver knows no such name.
    #[error("lookup {0}: no such host")]
    NoSuchHost(String),
    /// The resolver could not answer.
    #[error("lookup {host}: {reason}")]
    Failed {
        /// The name asked for.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// The zone of an IPv6 literal names no network interface.
    #[error("lookup {0}: route ip+net: no such network interface")]
    NoSuchZone(String),
    /// An address that must stay on this machine resolves to somewhere else.
    #[error(
        "lookup {host}: resolves to {address}, which is not a loopback address \
         (correct the hosts file, or use an --unsafe- flag if that is meant)"
    )]
    NotLoopback {
        /// The name asked for.
        host: String,
        /// The offending answer.
        address: IpAddr,
    },
}

/// Looks names up for dials.
///
/// Each dial asks anew and nothing is cached, but the C library's look-up can be
/// neither cancelled nor bounded in time. So there is at most one in flight per name,
/// on the blocking pool of whoever asked first, and all who want the same name
/// meanwhile share its answer. Names come from configuration, hence their number is
/// small. Clones share.
#[derive(Clone)]
pub struct Resolver {
    flights: Arc<Mutex<HashMap<String, watch::Receiver<Option<Answer>>>>>,
    look_up: Arc<dyn Fn(&str) -> Answer + Send + Sync>,
}

type Answer = Result<Arc<[IpAddr]>, LookupError>;

impl Resolver {
    /// A resolver that asks the system: hosts file, resolver configuration and all.
    pub fn new() -> Self {
        Self::asking(|host| look_up(host).map(Into::into))
    }

    pub(super) fn asking(look_up: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            flights: Arc::default(),
            look_up: Arc::new(look_up),
        }
    }

    /// Every address to try for a target, best first. Literals cost no look-up.
    ///
    /// Cancel-safe: a look-up that nobody waits for any longer ends by itself.
    pub(super) async fn resolve(
        &self,
        address: &HostPort,
        reach: Reach,
    ) -> Result<Vec<SocketAddr>, LookupError> {
        let port = address.port_number()?;
        if let Some(found) = literal(&address.host, port)? {
            return Ok(found);
        }
        let found = self.share(&address.host).await?;
        require_reach(&address.host, &found, reach)?;
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    async fn share(&self, host: &str) -> Answer {
        let mut answer = self.join(host);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            // The runtime it ran on went away.
            Ok(None) | Err(_) => Err(LookupError::Failed {
                host: host.to_owned(),
                reason: "operation was canceled".to_owned(),
            }),
        }
    }

    /// Joins the flight for this name, or starts one.
    fn join(&self, host: &str) -> watch::Receiver<Option<Answer>> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(host) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(host.to_owned(), receiver.clone());
        let flight = Flight {
            resolver: self.clone(),
            host: host.to_owned(),
            answer: None,
            sender,
        };
        tokio::task::spawn_blocking(move || flight.run());
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Answer>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("in_flight", &self.lock().len())
            .finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

/// One look-up under way. Dropped, also without having run, it makes room for the next
/// and only then hands out its answer, so that who comes later asks anew.
struct Flight {
    resolver: Resolver,
    host: String,
    answer: Option<Answer>,
    sender: watch::Sender<Option<Answer>>,
}

impl Flight {
    fn run(mut self) {
        self.answer = Some((self.resolver.look_up)(&self.host));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.resolver.lock().remove(&self.host);
        self.sender.send_replace(self.answer.take());
    }
}

impl TargetAddr {
    /// Looks the host and port up once, so that a typo stops the start.
    ///
    /// Blocks on the system's resolver. Literals and UNIX names need no look-up, and what is
    /// reached through a forward proxy is the proxy's to look up.
    pub fn check_resolves(&self) -> Result<(), LookupError> {
        match self.kind() {
            Kind::Tcp(_) if self.proxy().is_some() => Ok(()),
            Kind::Tcp(address) => resolve_blocking(address, self.reach()).map(|_| ()),
            Kind::Unix(_) => Ok(()),
        }
    }
}

/// Looks `HOST:PORT` up and gives one address, the first of IPv4 if there is any. Blocks.
pub fn resolve_once(text: &str) -> Result<SocketAddr, LookupError> {
    let address = HostPort::parse(text)?;
    let found = resolve_blocking(&address, Reach::Anywhere)?;
    let first = found
        .iter()
        .find(|found| found.is_ipv4())
        .or_else(|| found.first());
    first.copied().ok_or(LookupError::NoSuchHost(address.host))
}

/// Every address of a host, best first. Blocks.
pub(super) fn resolve_blocking(address: &HostPort, reach: Reach) -> Result<Vec<SocketAddr>, LookupError> {
    let port = address.port_number()?;
    if let Some(found) = literal(&address.host, port)? {
        return Ok(found);
    }
    let found = look_up(&address.host)?;
    require_reach(&address.host, &found, reach)?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Addresses that need no look-up: literals, and the empty host, which is this machine.
fn literal(host: &str, port: u16) -> Result<Option<Vec<SocketAddr>>, LookupError> {
    if host.is_empty() {
        let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok(Some(local.map(|ip| SocketAddr::new(ip, port)).to_vec()));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(vec![SocketAddr::new(ip, port)]));
    }
    let Some((Ok(ip), zone)) = host
        .split_once('%')
        .map(|(ip, zone)| (ip.parse::<Ipv6Addr>(), zone))
    else {
        return Ok(None);
    };
    let zone = zone_index(host, zone)?;
    Ok(Some(vec![SocketAddrV6::new(ip, port, 0, zone).into()]))
}

/// Interface names go through the C library too, which asks the kernel and nobody else
/// for an address that is numeric: no blocking.
fn zone_index(host: &str, zone: &str) -> Result<u32, LookupError> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    // The resolver wants a link-local address to attach a zone to.
    let mut found = (format!("fe80::1%{zone}"), 0)
        .to_socket_addrs()
        .into_iter()
        .flatten();
    match found.next() {
        Some(SocketAddr::V6(address)) if address.scope_id() != 0 => Ok(address.scope_id()),
        _ => Err(LookupError::NoSuchZone(host.to_owned())),
    }
}

fn look_up(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .map_err(|error| explain(host, &error))?
        .map(|found| found.ip())
        .collect();
    if found.is_empty() {
        Err(LookupError::NoSuchHost(host.to_owned()))
    } else {
        Ok(found)
    }
}

/// The standard library gives the resolver's verdict as text only.
fn explain(host: &str, error: &io::Error) -> LookupError {
    let text = error.to_string();
    let reason = text.rsplit(": ").next().unwrap_or_default();
    let unknown = [
        "not known",
        "No address associated",
        "does not resolve",
        "Name has no usable address",
    ];
    if error.raw_os_error().is_none() && unknown.iter().any(|phrase| reason.contains(phrase)) {
        return LookupError::NoSuchHost(host.to_owned());
    }
    let reason = match error.raw_os_error() {
        Some(_) => error_text::phrase(error),
        None => error_text::lower_first(reason),
    };
    LookupError::Failed {
        host: host.to_owned(),
        reason,
    }
}

/// A single answer outside refuses the whole name: which one a connection gets would
/// otherwise be the resolver's choice.
fn require_reach(host: &str, found: &[IpAddr], reach: Reach) -> Result<(), LookupError> {
    let outside = match reach {
        Reach::Anywhere => None,
        Reach::LocalOnly => found.iter().find(|ip| !ip.to_canonical().is_loopback()),
    };
    match outside {
        None => Ok(()),
        Some(ip) => Err(LookupError::NotLoopback {
            host: host.to_owned(),
            address: *ip,
        }),
    }
}

/// A decimal port, or a service by name. Empty means 0.
pub(super) fn port_number(text: &str) -> Result<u16, AddressError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let services = std::fs::read("/etc/services").unwrap_or_default();
        return service_port(&String::from_utf8_lossy(&services), text)
            .ok_or_else(|| AddressError::UnknownPort(text.to_owned()));
    }
    match text {
        "" => Ok(0),
        _ => text
            .parse()
            .map_err(|_| AddressError::InvalidPort(text.to_owned())),
    }
}

/// Looks a TCP service up in the text of a services file. Names are compared without
/// case. Some well-known ones work without the file, which small containers lack.
fn service_port(services: &str, name: &str) -> Option<u16> {
    let listed = services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut fields = line.split_ascii_whitespace();
        let (official, port) = (fields.next()?, fields.next()?);
        let port = port.strip_suffix("/tcp")?.parse().ok()?;
        std::iter::once(official)
            .chain(fields)
            .any(|field| field.eq_ignore_ascii_case(name))
            .then_some(port)
    });
    let well_known = || {
        let (_, port) = WELL_KNOWN
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(*port)
    };
    listed.or_else(well_known)
}

const WELL_KNOWN: [(&str, u16); 14] = [
    ("domain", 53),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("submissions", 465),
    ("ssh", 22),
    ("telnet", 23),
];

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn host_port(text: &str) -> HostPort {
        match TargetAddr::parse(text, Reach::Anywhere).expect(text).kind() {
            Kind::Tcp(address) => address.clone(),
            Kind::Unix(_) => panic!("{text} is not tcp"),
        }
    }

    #[test]
    fn services_are_found_by_name_and_alias_for_tcp_only() {
        let services =
            "# comment\nssh 22/tcp\nsyslog 514/udp\nshell\t514/tcp cmd syslog # old\nbad\nworse x/tcp\n";
        for (name, port) in [
            ("ssh", Some(22)),
            ("SSH", Some(22)),
            ("cmd", Some(514)),
            ("syslog", Some(514)),
            ("worse", None),
            ("old", None),
            ("https", Some(443)),
            ("", None),
        ] {
            assert_eq!(service_port(services, name), port, "{name}");
        }
    }

    #[test]
    fn literals_need_no_look_up() {
        for (text, found) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[fe80::1%7]:80", "[fe80::1%7]:80"),
            ("[::1%lo]:80", "[::1%1]:80"),
        ] {
            let address = host_port(text);
            let literal = literal(&address.host, 80).expect("literal").expect("literal");
            assert_eq!(
                literal.iter().map(ToString::to_string).collect::<Vec<_>>(),
                [found]
            );
        }
        assert_eq!(literal("example.com", 80), Ok(None));
        let unknown = literal("fe80::1%nosuchif0", 80).expect_err("no such interface");
        assert!(
            unknown
                .to_string()
                .ends_with("route ip+net: no such network interface"),
            "{unknown}"
        );
    }

    #[test]
    fn unusable_targets_are_named_at_start() {
        for (text, message) in [
            ("localhost:99999", "address 99999: invalid port"),
            ("127.0.0.1:nosuch", "lookup tcp/nosuch: unknown port"),
        ] {
            let target = TargetAddr::parse(text, Reach::Anywhere).expect(text);
            assert_eq!(target.check_resolves().expect_err(text).to_string(), message);
        }
        for text in ["127.0.0.1:1", "localhost:1", "unix:/nowhere", ":1"] {
            let target = TargetAddr::parse(text, Reach::Anywhere).expect(text);
            assert_eq!(target.check_resolves(), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_words_of_the_resolver_are_classified() {
        for (text, message) in [
            (
                "failed to lookup address information: Name or service not known",
                "lookup h: no such host",
            ),
            (
                "failed to lookup address information: No address associated with hostname",
                "lookup h: no such host",
            ),
            (
                "failed to lookup address information: Name does not resolve",
                "lookup h: no such host",
            ),
            (
                "failed to lookup address information: Temporary failure in name resolution",
                "lookup h: temporary failure in name resolution",
            ),
        ] {
            assert_eq!(explain("h", &io::Error::other(text)).to_string(), message);
        }
        assert_eq!(
            explain("h", &rustix::io::Errno::MFILE.into()).to_string(),
            "lookup h: too many open files"
        );
    }

    #[test]
    fn a_local_name_must_resolve_to_loopback_and_nothing_else() {
        let ips = |texts: &[&str]| {
            texts
                .iter()
                .map(|ip| ip.parse().expect("ip"))
                .collect::<Vec<IpAddr>>()
        };
        for (found, local) in [
            (ips(&["127.0.0.1"]), true),
            (ips(&["127.0.0.1", "::1"]), true),
            (ips(&["::ffff:127.0.0.1"]), true),
            (ips(&["192.0.2.1"]), false),
            (ips(&["::1", "192.0.2.1"]), false),
            (ips(&["::ffff:192.0.2.1"]), false),
            (ips(&["0.0.0.0"]), false),
        ] {
            assert_eq!(
                require_reach("localhost", &found, Reach::LocalOnly).is_ok(),
                local,
                "{found:?}"
            );
            assert!(require_reach("localhost", &found, Reach::Anywhere).is_ok());
        }
    }

    #[tokio::test]
    async fn those_who_ask_for_one_name_at_one_time_share_one_look_up() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(3);
        let gate = Mutex::new(gate);
        let counter = Arc::clone(&asked);
        let resolver = Resolver::asking(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            gate.lock().expect("gate").recv().expect("gate opens");
            Ok(Arc::from([IpAddr::from([192, 0, 2, 1])]))
        });
        let address = host_port("name.test:7");
        let first = resolver.resolve(&address, Reach::Anywhere);
        let second = resolver.resolve(&address, Reach::Anywhere);
        let opener = async {
            // Both are polled before this branch is. The second permit is for later, and
            // lets a look-up that should not exist end.
            open.send(()).expect("look-up waits");
            open.send(()).expect("look-up waits");
        };
        let (first, second, ()) = tokio::join!(first, second, opener);
        assert_eq!(first, Ok(vec!["192.0.2.1:7".parse().expect("address")]));
        assert_eq!(second, first);
        assert_eq!(asked.load(Ordering::SeqCst), 1);

        open.send(()).expect("look-up waits");
        resolver
            .resolve(&address, Reach::Anywhere)
            .await
            .expect("third asks anew");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_look_up_whose_runtime_goes_away_is_an_error_and_leaves_no_trace() {
        let resolver = Resolver::asking(|_| panic!("resolver broke"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("runtime");
        let answer = runtime.block_on(resolver.resolve(&host_port("name.test:7"), Reach::Anywhere));
        assert_eq!(
            answer.expect_err("no answer").to_string(),
            "lookup name.test: operation was canceled"
        );
        assert!(resolver.lock().is_empty());
    }
}
