use proptest::collection::vec;
use proptest::prelude::*;

use super::super::proxy_protocol::{self, HeaderDetail, Introduced};
use super::*;
use crate::tls::Facts;

fn done(bytes: &[u8]) -> Result<Announcement, AnnouncementError> {
    read_on(bytes).map(|progress| match progress {
        Progress::Done(announcement, length) => {
            assert_eq!(length, bytes.len(), "{}", bytes.escape_ascii());
            announcement
        }
        Progress::Needs(more) => panic!("{}: needs {more}", bytes.escape_ascii()),
    })
}

fn client(source: &str, destination: &str) -> Announcement {
    let tcp = |text: &str| Label::Tcp(text.parse().expect("an address"));
    Announcement::Client {
        source: tcp(source),
        destination: tcp(destination),
    }
}

fn unix_client(source: Option<UnixName>, destination: Option<UnixName>) -> Announcement {
    let unix = |name: Option<UnixName>| Label::Unix(name.map(Arc::new));
    Announcement::Client {
        source: unix(source),
        destination: unix(destination),
    }
}

/// A header of version 2 around what follows its fixed part.
fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&SIGNATURE, &[version_and_command, family][..], &length, rest].concat()
}

const IPV4: &[u8] = b"\xc0\x00\x02\x01\x0a\x00\x00\x01\x01\x02\x01\xbb";

#[test]
fn lines_of_version_1_are_understood() {
    for (line, expected) in [
        (
            "PROXY TCP4 192.0.2.1 10.0.0.1 258 443",
            client("192.0.2.1:258", "10.0.0.1:443"),
        ),
        (
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535",
            client("0.0.0.0:0", "255.255.255.255:65535"),
        ),
        (
            "PROXY TCP6 2001:db8::1 ::1 1 2",
            client("[2001:db8::1]:1", "[::1]:2"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.1 1 2",
            client("192.0.2.1:1", "10.0.0.1:2"),
        ),
        ("PROXY UNKNOWN", Announcement::None),
        ("PROXY UNKNOWN ffff::1 whatever 65535 65535", Announcement::None),
    ] {
        assert_eq!(done(format!("{line}\r\n").as_bytes()), Ok(expected), "{line}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(
        (longest.len(), done(longest.as_bytes())),
        (107, Ok(Announcement::None))
    );
}

#[test]
fn lines_that_can_be_read_in_two_ways_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 10.0.0.1 258",
        "PROXY TCP4 192.0.2.1 10.0.0.1 258 443 1",
        "PROXY TCP4 192.0.2.1 10.0.0.1 258 443 ",
        "PROXY TCP4  192.0.2.1 10.0.0.1 258 443",
        "PROXY TCP4 192.0.2.01 10.0.0.1 258 443",
        "PROXY TCP4 192.0.2.1 10.0.0.1 0258 443",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +258 443",
        "PROXY TCP4 192.0.2.1 10.0.0.1 65536 443",
        "PROXY TCP4 ::1 ::1 258 443",
        "PROXY TCP6 192.0.2.1 10.0.0.1 258 443",
        "PROXY TCP6 [::1] [::1] 258 443",
        "PROXY TCP6 fe80::1%1 ::1 258 443",
        "PROXY UDP4 192.0.2.1 10.0.0.1 258 443",
        "PROXY tcp4 192.0.2.1 10.0.0.1 258 443",
        "PROXY UNKNOWNX",
        "PROXY \u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        "PROXY TCP4\t192.0.2.1 10.0.0.1 258 443",
        "PROXY TCP4 192.0.2.1 10.0.0.1 258 443\n",
        "PROXY          ",
    ] {
        let bytes = format!("{line}\r\n");
        assert_eq!(done(bytes.as_bytes()), Err(AnnouncementError::BadLine), "{line}");
    }
    assert_eq!(
        read_on(b"PROXY \xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n"),
        Err(AnnouncementError::BadLine)
    );
}

#[test]
fn a_line_ends_in_time_or_is_refused() {
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    for length in 107..=endless.len() {
        assert_eq!(
            read_on(&endless[..length]),
            Err(AnnouncementError::LineTooLong),
            "{length}"
        );
    }
    assert_eq!(read_on(&endless[..105]), Ok(Progress::Needs(2)));
    // A line end needs two bytes, and there is room for one.
    assert_eq!(read_on(&endless[..106]), Err(AnnouncementError::LineTooLong));
    let almost = [&endless[..105], b"\r"].concat();
    assert_eq!(read_on(&almost), Ok(Progress::Needs(1)));
}

#[test]
fn headers_of_version_2_are_understood() {
    let padded = |text: &[u8]| [text, &vec![0; 108 - text.len()]].concat();
    let path = |text: &str| Some(UnixName::Path(text.into()));
    let ipv6 = [
        &[0x20, 1, 0x0d, 0xb8][..],
        &[0; 11],
        &[1],
        &[0; 15],
        &[1],
        &[0, 1, 0xff, 0xff],
    ]
    .concat();
    let mapped = |last: u8| [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, last]].concat();
    for (bytes, expected) in [
        (header(0x21, 0x11, IPV4), client("192.0.2.1:258", "10.0.0.1:443")),
        (
            header(0x21, 0x21, &ipv6),
            client("[2001:db8::1]:1", "[::1]:65535"),
        ),
        (
            header(0x21, 0x21, &[mapped(1), mapped(2), vec![0, 1, 0, 2]].concat()),
            client("10.0.0.1:1", "10.0.0.2:2"),
        ),
        (
            header(0x21, 0x31, &[padded(b"/from"), padded(b"/to")].concat()),
            unix_client(path("/from"), path("/to")),
        ),
        (
            header(0x21, 0x31, &[padded(b"@"), padded(b"\0name")].concat()),
            unix_client(None, Some(UnixName::Abstract(b"name".to_vec()))),
        ),
        (
            header(0x21, 0x31, &[padded(b""), padded(b"@name")].concat()),
            unix_client(None, Some(UnixName::Abstract(b"name".to_vec()))),
        ),
        (
            header(0x21, 0x31, &[padded(b"/from\0junk"), vec![b'x'; 108]].concat()),
            unix_client(path("/from"), path(&"x".repeat(108))),
        ),
        // Fields of any kind are passed over, also those of private use (AWS: 0xea).
        (
            header(
                0x21,
                0x11,
                &[IPV4, b"\x04\x00\x02..\xea\x00\x03\x01vp\x20\x00\x00"].concat(),
            ),
            client("192.0.2.1:258", "10.0.0.1:443"),
        ),
        (header(0x20, 0x00, b""), Announcement::None),
        (header(0x20, 0x11, IPV4), Announcement::None),
        (header(0x20, 0x11, b"junk"), Announcement::None),
        (header(0x21, 0x00, b""), Announcement::None),
        (header(0x21, 0x00, b"\xff\xff\xff\xff\xff"), Announcement::None),
    ] {
        assert_eq!(done(&bytes), Ok(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn headers_that_break_the_format_are_refused() {
    use AnnouncementError::{
        BadField, Missing, TooLong, TooShort, UnknownCommand, UnknownFamily, UnknownVersion,
    };
    let long = |length: usize| header(0x21, 0x11, &vec![0; length]);
    for (bytes, error) in [
        (header(0x11, 0x11, IPV4), UnknownVersion(1)),
        (header(0x31, 0x11, IPV4), UnknownVersion(3)),
        (header(0x22, 0x11, IPV4), UnknownCommand(2)),
        (header(0x2f, 0x11, IPV4), UnknownCommand(15)),
        (header(0x21, 0x12, IPV4), UnknownFamily(0x12)),
        (header(0x21, 0x10, IPV4), UnknownFamily(0x10)),
        (header(0x21, 0x32, IPV4), UnknownFamily(0x32)),
        (header(0x21, 0x41, IPV4), UnknownFamily(0x41)),
        (header(0x21, 0xff, IPV4), UnknownFamily(0xff)),
        (header(0x21, 0x11, &IPV4[..11]), TooShort),
        (header(0x21, 0x21, IPV4), TooShort),
        (header(0x21, 0x31, &[0; 215]), TooShort),
        (header(0x21, 0x11, &[IPV4, b"\x04"].concat()), BadField),
        (header(0x21, 0x11, &[IPV4, b"\x04\x00"].concat()), BadField),
        (header(0x21, 0x11, &[IPV4, b"\x04\x00\x01"].concat()), BadField),
        (header(0x21, 0x11, &[IPV4, b"\x04\xff\xff.."].concat()), BadField),
        (long(LONGEST - 15), TooLong(LONGEST + 1)),
        (long(65535), TooLong(65535 + 16)),
        (b"\x16\x03\x01".to_vec(), Missing),
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"PROXX".to_vec(), Missing),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Missing),
    ] {
        assert_eq!(
            read_on(&bytes),
            Err(error),
            "{}",
            bytes[..bytes.len().min(40)].escape_ascii()
        );
    }
    assert_eq!(
        done(&header(
            0x21,
            0x11,
            &[IPV4, b"\x04\x3f\xe1", &[0; LONGEST - 31]].concat()
        )),
        Ok(client("192.0.2.1:258", "10.0.0.1:443")),
        "the longest"
    );
}

/// The header with the checksum field filled in, wherever it stands.
fn summed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = crc32c::of(&[&bytes]);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn a_checksum_is_verified() {
    for (before, after) in [
        (&b""[..], &b""[..]),
        (b"\x04\x00\x01.", b"\xea\x00\x02.."),
        (b"", b"\x04\x00\x00"),
    ] {
        let fields = [IPV4, before, b"\x03\x00\x04\0\0\0\0", after].concat();
        let good = summed(header(0x21, 0x11, &fields), 16 + 12 + before.len() + 3);
        assert_eq!(done(&good), Ok(client("192.0.2.1:258", "10.0.0.1:443")));
        // Any other byte of the addresses, of the sum, or of a field's value.
        for place in (16..28).chain(31 + before.len()..35 + before.len()) {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(done(&bad), Err(AnnouncementError::BadChecksum), "{place}");
        }
    }
    for fields in [
        &b"\x03\x00\x03\0\0\0"[..],
        b"\x03\x00\x05\0\0\0\0\0",
        b"\x03\x00\x00",
    ] {
        let bytes = header(0x21, 0x11, &[IPV4, fields].concat());
        assert_eq!(done(&bytes), Err(AnnouncementError::BadField));
    }
    let twice = summed(
        header(
            0x21,
            0x11,
            &[IPV4, b"\x03\x00\x04\0\0\0\0\x03\x00\x04\0\0\0\0"].concat(),
        ),
        31,
    );
    assert_eq!(done(&twice), Err(AnnouncementError::BadField));
}

#[test]
fn what_this_program_sends_it_understands() {
    let facts = Facts {
        version: "TLS 1.3",
        server_name: Some("localhost".to_owned()),
        application_protocol: None,
    };
    let unix = |name| Label::Unix(Some(Arc::new(name)));
    for (source, destination) in [
        (
            Label::Tcp("1.2.3.4:5".parse().expect("an address")),
            Label::Tcp("6.7.8.9:10".parse().expect("an address")),
        ),
        (
            Label::Tcp("[2001:db8::1]:5".parse().expect("an address")),
            Label::Tcp("[::1]:10".parse().expect("an address")),
        ),
        (Label::Unix(None), unix(UnixName::Path("/run/x".into()))),
        (unix(UnixName::Abstract(b"one".to_vec())), Label::Unix(None)),
    ] {
        let connection = Introduced {
            source: &source,
            destination: &destination,
            facts: &facts,
            certificate: None,
        };
        let bytes = proxy_protocol::header(HeaderDetail::Tls, &connection).expect("fits");
        assert_eq!(done(&bytes), Ok(Announcement::Client { source, destination }));
    }
}

/// Reads from `stream` as a connection would: what is needed, in pieces of at most `piece`.
fn consume(stream: &[u8], piece: usize) -> (Result<Announcement, AnnouncementError>, usize) {
    let mut taken = 0;
    loop {
        match read_on(&stream[..taken]) {
            Err(error) => return (Err(error), taken),
            Ok(Progress::Done(announcement, length)) => {
                assert_eq!(length, taken, "not a byte beyond the header was taken");
                return (Ok(announcement), taken);
            }
            Ok(Progress::Needs(more)) => {
                assert!(more > 0 && taken + more <= LONGEST.max(LONGEST_LINE));
                let next = (taken + more.min(piece)).min(stream.len());
                if next == taken {
                    return (Ok(Announcement::None), taken);
                }
                taken = next;
            }
        }
    }
}

proptest! {
    #[test]
    fn any_client_is_told_in_both_versions(
        source: SocketAddr, destination: SocketAddr, behind in vec(any::<u8>(), 0..50), piece in 1..40_usize,
    ) {
        // Families are not mixed, and zones are not told.
        let canonical = |ip: IpAddr, port: u16| SocketAddr::new(ip.to_canonical(), port);
        let source = canonical(source.ip(), source.port());
        let ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(_), IpAddr::V6(_)) => Ipv4Addr::LOCALHOST.into(),
            (IpAddr::V6(_), IpAddr::V4(_)) => Ipv6Addr::LOCALHOST.into(),
            (_, ip) => ip.to_canonical(),
        };
        prop_assume!(ip.is_ipv4() == source.is_ipv4());
        let destination = canonical(ip, destination.port());
        let expected = Announcement::Client { source: Label::Tcp(source), destination: Label::Tcp(destination) };

        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.port(), destination.port());
        let line = format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip());
        let stream = [line.as_bytes(), &behind].concat();
        prop_assert_eq!(consume(&stream, piece), (Ok(expected.clone()), line.len()));

        let facts = Facts { version: "TLS 1.3", server_name: None, application_protocol: None };
        let connection = Introduced {
            source: &Label::Tcp(source), destination: &Label::Tcp(destination), facts: &facts, certificate: None,
        };
        let bytes = proxy_protocol::header(HeaderDetail::Addresses, &connection).expect("fits");
        let stream = [bytes.as_slice(), &behind].concat();
        prop_assert_eq!(consume(&stream, piece), (Ok(expected), bytes.len()));
    }

    #[test]
    fn the_size_of_pieces_makes_no_difference(
        kind in 0..4_usize, junk in vec(any::<u8>(), 0..400), piece in 1..40_usize,
    ) {
        let start: [&[u8]; 4] = [b"", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x20"];
        let stream = [start[kind], &junk].concat();
        let (whole, pieces) = (consume(&stream, usize::MAX), consume(&stream, piece));
        prop_assert_eq!(whole.0, pieces.0);
    }
}
