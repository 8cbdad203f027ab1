use std::sync::OnceLock;

use ghostunnel_testing::Version;
use proptest::prelude::*;
use rustls::server::Acceptor;

use super::super::test_support::Scene;
use super::*;

/// The hello of a library's client, in one record.
fn record(version: Version) -> &'static [u8] {
    static HELLOS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let hellos = HELLOS.get_or_init(|| {
        let scene = Scene::new();
        Version::BOTH.map(|version| scene.good_client(version).take(usize::MAX))
    });
    match version {
        Version::V12 => &hellos[0],
        Version::V13 => &hellos[1],
    }
}

/// The same message in records of so many bytes.
fn in_pieces(record: &[u8], size: usize) -> Vec<u8> {
    let pieces = record[RECORD_HEADER..].chunks(size);
    pieces
        .flat_map(|piece| {
            let length = u16::try_from(piece.len()).expect("short");
            [&[22, 3, 1][..], &length.to_be_bytes(), piece].concat()
        })
        .collect()
}

fn whole(records: &[u8]) -> Hello {
    match Hello::read(records) {
        Reading::Whole(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_is_read() {
    let hello = whole(record(Version::V13));
    assert_eq!(hello.server_name.as_deref(), Some("localhost"));
    assert_eq!((hello.legacy_version, &*hello.versions), (0x0303, &[0x0304][..]));
    assert!(hello.suites.contains(&0x1301) && hello.groups.contains(&0x11ec));
    assert_eq!(hello.shares.first(), Some(&0x11ec));
    assert!(hello.offers(TLS_1_3) && !hello.offers(TLS_1_2));
    let hello = whole(record(Version::V12));
    assert!(hello.offers(TLS_1_2) && !hello.offers(TLS_1_3));
    assert!(hello.shares.is_empty());
}

#[test]
fn a_hello_in_pieces_is_the_same_and_is_waited_for() {
    let record = record(Version::V13);
    let expected = whole(record);
    for size in [1, 2, 3, 5, 100, 1000] {
        let records = in_pieces(record, size);
        assert_eq!(whole(&records), expected, "{size}");
        assert_eq!(whole(&[&records, &b"more"[..]].concat()), expected);
        let mut needed = 0;
        for length in 0..records.len() {
            match Hello::read(&records[..length]) {
                Reading::Incomplete { at_least } => {
                    assert!(at_least > length && at_least <= records.len());
                    assert!(at_least >= needed, "it never asks for less");
                    needed = at_least;
                }
                other => panic!("{size} {length}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_is_no_hello_is_not_waited_for() {
    for bytes in [
        &[21, 3, 3, 0, 2, 1, 0][..],
        &[23],
        // A Finished, and a hello without end.
        &[22, 3, 1, 0, 4, 20, 0, 0, 0],
        &[22, 3, 1, 0xff, 0xff, 1],
        // A hello that says nothing.
        &[22, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        assert_eq!(Hello::read(bytes), Reading::Unreadable, "{bytes:?}");
    }
    // Empty records, and one byte in each.
    for record in [&[22, 3, 1, 0, 0][..], &[22, 3, 1, 0, 1, 1]] {
        assert_eq!(Hello::read(&record.repeat(4000)), Reading::Unreadable);
    }
    assert_eq!(Hello::read(&[]), Reading::Incomplete { at_least: 5 });
}

/// What rustls reads, if it can read it.
fn as_rustls(records: &[u8]) -> Option<(Vec<u16>, Vec<u16>, Option<String>)> {
    let mut acceptor = Acceptor::default();
    let mut rest = records;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let suites = hello.cipher_suites().iter().map(|suite| u16::from(*suite));
            let groups = hello.named_groups().unwrap_or_default().iter();
            return Some((
                suites.collect(),
                groups.map(|group| u16::from(*group)).collect(),
                hello.server_name().map(str::to_owned),
            ));
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever rustls can read is read here too, and alike.
    #[test]
    fn hellos_are_read_as_rustls_reads_them(
        changes in prop::collection::vec((0_usize..1600, any::<u8>()), 0..4),
        size in 1_usize..2000,
        is_newer: bool,
    ) {
        let mut record = record(if is_newer { Version::V13 } else { Version::V12 }).to_vec();
        for (at, byte) in changes {
            let at = RECORD_HEADER + at % (record.len() - RECORD_HEADER);
            record[at] = byte;
        }
        let records = in_pieces(&record, size);
        if let Some((suites, groups, name)) = as_rustls(&records) {
            let hello = Hello::read(&records);
            let Reading::Whole(hello) = hello else {
                return Err(TestCaseError::fail(format!("{hello:?}")));
            };
            prop_assert_eq!(hello.suites, suites);
            prop_assert_eq!(hello.groups, groups);
            if let Some(name) = name {
                prop_assert_eq!(hello.server_name.map(|name| name.to_ascii_lowercase()), Some(name));
            }
        }
    }

    #[test]
    fn noise_makes_no_panic(noise in prop::collection::vec(any::<u8>(), 0..300), is_record: bool) {
        let length = u16::try_from(noise.len()).expect("short").to_be_bytes();
        let header: &[u8] = if is_record { &[22, 3, 1, length[0], length[1]] } else { &[] };
        let _ = Hello::read(&[header, &noise].concat());
    }
}
