//! Ports that no other test will be given, and who listens on them.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port reserved for the life of this value: bound, but not listening.
///
/// With `SO_REUSEADDR` and `SO_REUSEPORT` on both sides the tested program can still bind
/// it, while the kernel hands it to nobody who asks for just any port.
pub struct ReservedPort {
    address: SocketAddr,
    _reservation: Socket,
}

impl ReservedPort {
    /// Reserves a port of 127.0.0.1.
    #[expect(
        clippy::new_without_default,
        reason = "a default that binds a socket surprises"
    )]
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    /// Reserves a port of this address.
    pub fn on(ip: impl Into<IpAddr>) -> Self {
        Self::try_at(SocketAddr::new(ip.into(), 0)).expect("the kernel has a free port")
    }

    /// Reserves this port, unless somebody has it.
    ///
    /// An IPv6 wildcard does not include IPv4, so that a port can be reserved in both families.
    pub fn try_at(address: SocketAddr) -> Option<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        if address.is_ipv6() {
            socket.set_only_v6(true).expect("IPV6_V6ONLY");
        }
        socket.bind(&address.into()).ok()?;
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        Some(Self {
            address: address.expect("bound to an IP address"),
            _reservation: socket,
        })
    }

    /// The reserved port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The reserved address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Whether somebody listens on this TCP port, by the kernel's table: asking makes no
/// connection that the tested program would count, log or hand on.
pub fn is_listening(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        fs::read_to_string(table).is_ok_and(|text| text.lines().any(|line| is_listener(line, port)))
    })
}

/// The TCP ports on which a process listens, in ascending order.
pub fn listening_ports(pid: u32) -> Vec<u16> {
    let sockets: HashSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap_or_else(|error| panic!("cannot list the descriptors of process {pid}: {error}"))
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let mut ports: Vec<u16> = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            const INODE: usize = 9;
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
            (is_listener(line, port) && sockets.contains(*fields.get(INODE)?)).then_some(port)
        })
        .collect();
    ports.sort_unstable();
    ports
}

/// A line reads `sl local_address rem_address st ...` in hexadecimal; state 0A is LISTEN.
fn is_listener(line: &str, port: u16) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next().unwrap_or_default();
    local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some("0A")
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn reserved_port_is_not_listening_until_somebody_binds_it_too() {
        let reserved = ReservedPort::new();
        assert!(!is_listening(reserved.port()));
        assert!(!listening_ports(std::process::id()).contains(&reserved.port()));
        assert!(TcpStream::connect(reserved.address()).is_err());

        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.set_reuse_address(true).expect("SO_REUSEADDR");
        listener.set_reuse_port(true).expect("SO_REUSEPORT");
        listener
            .bind(&reserved.address().into())
            .expect("a reservation is no conflict");
        listener.listen(1).expect("listening");
        assert!(is_listening(reserved.port()));
        assert!(listening_ports(std::process::id()).contains(&reserved.port()));
        assert!(TcpStream::connect(reserved.address()).is_ok());
    }
}
