//! The local syslog: one packet for each line (RFC 3164), over a socket that the syslog
//! service listens at.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::Level;

use super::format::escape;

/// Where syslog services listen.
const PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// How long connecting and sending may take each. Lines wait in the queue meanwhile.
const PATIENCE: Duration = Duration::from_millis(20);

/// Facility `daemon`.
const FACILITY: u8 = 3;

/// A connection to the syslog service. Each write takes one line and sends it as a packet.
pub(super) struct Syslog {
    paths: Vec<&'static Path>,
    socket: Option<Socket>,
}

impl Syslog {
    /// Connects to the first socket that takes a connection: datagrams at every place
    /// first, then streams.
    pub(super) fn connect() -> Option<Self> {
        Self::connect_to(PATHS.iter().map(Path::new).collect())
    }

    fn connect_to(paths: Vec<&'static Path>) -> Option<Self> {
        let socket = Some(open(&paths)?);
        Some(Self { paths, socket })
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let socket = self.socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let sent = socket.write_all(packet);
        if sent.is_err() {
            // A stream may hold half a packet now.
            self.socket = None;
        }
        sent
    }
}

fn open(paths: &[&Path]) -> Option<Socket> {
    let kinds = [Type::DGRAM, Type::STREAM];
    let places = kinds
        .into_iter()
        .flat_map(|kind| paths.iter().map(move |path| (kind, path)));
    places
        .into_iter()
        .find_map(|(kind, path)| open_one(kind, path).ok())
}

fn open_one(kind: Type, path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind.cloexec(), None)?;
    // Also the limit for a stream's backlog.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

impl Write for Syslog {
    /// Sends the first line of `lines`, on a new connection if the old one fails.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let length = lines
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(lines.len(), |end| end + 1);
        let packet = lines.get(..length).unwrap_or(lines);
        if self.send(packet).is_err() {
            self.socket = open(&self.paths);
            self.send(packet).map_err(|error| match error.kind() {
                // The limit has passed: this is no descriptor that becomes ready.
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What stands in front of a line: `<PRIORITY>Mon _2 HH:MM:SS TAG[PID]: `. Errors have the
/// severity `err`, all else `info`.
pub(super) fn header(level: Level, tag: &str, pid: u32, now: Timestamp, zone: &TimeZone) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let severity = if level == Level::ERROR { 3 } else { 6 };
    let time = zone.to_datetime(now);
    let month = usize::try_from(time.month()).unwrap_or(1).saturating_sub(1);
    let mut header = String::new();
    // Writing to a string can't fail.
    let _infallible = write!(
        header,
        "<{}>{} {:>2} {:02}:{:02}:{:02} {}[{pid}]: ",
        FACILITY * 8 + severity,
        MONTHS.get(month).copied().unwrap_or_default(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        escape(tag),
    );
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    /// Paths live as long as the test's process.
    fn path(folder: &tempfile::TempDir, name: &str) -> &'static Path {
        Box::leak(folder.path().join(name).into_boxed_path())
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn receive(socket: &UnixDatagram) -> String {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a limit");
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).expect("a packet");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn the_header_is_that_of_the_original() {
        let now = Timestamp::new(1_795_562_540, 466_390_000).expect("a valid time");
        let header = |level, tag| header(level, tag, 22998, now, &TimeZone::UTC);
        assert_eq!(
            header(Level::INFO, "./ghostunnel"),
            "<30>Nov 24 23:22:20 ./ghostunnel[22998]: "
        );
        assert_eq!(header(Level::ERROR, "x\n"), "<27>Nov 24 23:22:20 x\\n[22998]: ");
        let early = Timestamp::new(1_785_542_400, 0).expect("a valid time");
        let text = super::header(Level::WARN, "t", 1, early, &TimeZone::UTC);
        assert_eq!(text, "<30>Aug  1 00:00:00 t[1]: ");
    }

    #[test]
    fn each_line_is_a_packet_of_its_own() {
        let folder = folder();
        let path = path(&folder, "log");
        let receiver = UnixDatagram::bind(path).expect("bound");
        let mut syslog = Syslog::connect_to(vec![path]).expect("connected");
        assert_eq!(syslog.write(b"one\ntwo\n").expect("sent"), 4);
        assert_eq!(syslog.write(b"two\n").expect("sent"), 4);
        assert_eq!(receive(&receiver), "one\n");
        assert_eq!(receive(&receiver), "two\n");
    }

    #[test]
    fn datagrams_anywhere_come_before_streams() {
        let folder = folder();
        let (first, second) = (path(&folder, "first"), path(&folder, "second"));
        let _stream = UnixListener::bind(first).expect("bound");
        let receiver = UnixDatagram::bind(second).expect("bound");
        let mut syslog = Syslog::connect_to(vec![first, second]).expect("connected");
        syslog.write_all(b"one\n").expect("sent");
        assert_eq!(receive(&receiver), "one\n");
    }

    #[test]
    fn streams_are_taken_where_there_are_no_datagrams() {
        let folder = folder();
        let (missing, path) = (path(&folder, "missing"), path(&folder, "log"));
        let listener = UnixListener::bind(path).expect("bound");
        let mut syslog = Syslog::connect_to(vec![missing, path]).expect("connected");
        syslog.write_all(b"one\ntwo\n").expect("sent");
        drop(syslog);
        let mut text = String::new();
        let (mut stream, _) = listener.accept().expect("connected");
        stream.read_to_string(&mut text).expect("text");
        assert_eq!(text, "one\ntwo\n");
        assert!(Syslog::connect_to(vec![missing]).is_none());
    }

    #[test]
    fn a_service_that_was_restarted_gets_the_next_line() {
        let folder = folder();
        let path = path(&folder, "log");
        let first = UnixDatagram::bind(path).expect("bound");
        let mut syslog = Syslog::connect_to(vec![path]).expect("connected");
        drop(first);
        std::fs::remove_file(path).expect("removed");
        assert!(syslog.write(b"lost\n").is_err());
        let second = UnixDatagram::bind(path).expect("bound");
        syslog.write_all(b"kept\n").expect("sent");
        assert_eq!(receive(&second), "kept\n");
    }

    #[test]
    fn a_service_that_does_not_read_costs_lines_and_little_time() {
        let folder = folder();
        let path = path(&folder, "log");
        let _receiver = UnixDatagram::bind(path).expect("bound");
        let mut syslog = Syslog::connect_to(vec![path]).expect("connected");
        let error = loop {
            if let Err(error) = syslog.write(b"line\n") {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
