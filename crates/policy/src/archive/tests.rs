use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut block = raw_header(name, kind, &format!("{:011o}\0", content.len()));
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

fn raw_header(name: &str, kind: u8, size: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    gzip(&[members.concat(), vec![0; 2 * BLOCK]].concat())
}

fn names(archive: &[u8]) -> Result<Vec<(String, String)>, ArchiveError> {
    let files = unpack(archive, |name| !name.ends_with(".skip"))?;
    let shown = |(name, content): (String, Vec<u8>)| (name, String::from_utf8(content).expect("UTF-8"));
    Ok(files.into_iter().map(shown).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn files_are_found_under_plain_names() {
    let long = "d/".repeat(80) + "long.rego";
    let pax = format!("{} path={long}\n", long.len() + 10);
    let members = [
        member("./", b'5', b""),
        member("/a.rego", b'0', b"one"),
        member("./b//c.rego", 0, &[b'x'; 600]),
        member("d.skip", b'0', b"three"),
        member("link", b'2', b""),
        member("pax", b'x', b"13 future=1x\n"),
        member("e.rego", b'0', b""),
        member("pax", b'x', pax.as_bytes()),
        member("short", b'0', b"four"),
        member("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        member("short", b'0', b"five"),
        member("pax_global_header", b'g', b"30 comment=0123456789abcdefgh\n"),
        member(".manifest", b'0', b"{}"),
    ];
    let expected = pairs(&[
        ("a.rego", "one"),
        ("b/c.rego", &"x".repeat(600)),
        ("e.rego", ""),
        (&long, "four"),
        (&long, "five"),
        (".manifest", "{}"),
    ]);
    assert_eq!(names(&archive(&members)), Ok(expected.clone()));
    let unmarked_end = gzip(&members.concat());
    assert_eq!(names(&unmarked_end), Ok(expected));
}

#[test]
fn what_is_no_archive_is_refused() {
    let good = archive(&[member("a.rego", b'0', b"text")]);
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    for (bytes, expected) in [
        (&b""[..], "EOF"),
        (b"package p", "gzip: invalid header"),
        (&[0x1f, 0x8b, 8], "gzip: "),
        (&good[..good.len() - 12], "gzip: "),
        (&damaged, ""),
        (&gzip(b"package p"), "unexpected EOF"),
        (&gzip(&[b'x'; BLOCK]), "archive/tar: invalid tar header"),
        (
            &archive(&[raw_header("a", b'0', "00000010000\0")]),
            "unexpected EOF",
        ),
        (
            &archive(&[raw_header("a", b'0', "99999999999\0")]),
            "archive/tar: invalid tar header",
        ),
        (&archive(&[raw_header("a", b'0', "77777777777\0")]), "larger than"),
        (
            &archive(&[raw_header("a.skip", b'0', "77777777777\0")]),
            "larger than",
        ),
        (&archive(&[member("../a.rego", b'0', b"")]), "invalid name"),
        (&archive(&[member("a/../../b.rego", b'0', b"")]), "invalid name"),
        (&archive(&[member("", b'0', b"")]), "invalid name"),
        (
            &archive(&[member("pax", b'x', b"99 path=a\n")]),
            "invalid tar header",
        ),
        (
            &archive(&[member("pax", b'x', b"20 size=12345678901\n")]),
            "invalid tar header",
        ),
        (&archive(&[member("pax", b'x', &[b'1'; 70_000])]), "invalid name"),
    ] {
        let error = unpack(bytes, |_| true).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error} for {expected}");
    }
}

/// A few kilobytes that would be gigabytes.
#[test]
fn archives_are_not_unpacked_without_end() {
    let largest = 1024 * 1024;
    let tar = [
        raw_header("a.rego", b'0', "00040000001\0"),
        vec![0; 9 * 1024 * 1024],
    ]
    .concat();
    let bomb = gzip(&tar);
    for wanted in [true, false] {
        let outcome = unpack_within(&bomb, |_| wanted, largest);
        assert_eq!(outcome, Err(ArchiveError::TooLarge));
    }
    // What follows the end counts as well.
    let tail = gzip(&vec![0; 9 * 1024 * 1024]);
    assert_eq!(
        unpack_within(&tail, |_| true, largest),
        Err(ArchiveError::TooLarge)
    );
    assert_eq!(unpack_within(&tail, |_| true, 10 * 1024 * 1024), Ok(Vec::new()));
    let many = vec![member("a.skip", b'0', b""); MOST_MEMBERS + 1];
    assert_eq!(
        unpack(&archive(&many), |_| false),
        Err(ArchiveError::TooManyMembers)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_an_archive_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _outcome = unpack(&gzip(&bytes), |_| true);
        let _outcome = unpack(&bytes, |_| true);
    }

    #[test]
    fn damaged_headers_never_panic(at in 0..BLOCK, byte in any::<u8>()) {
        let mut tar = member("a.rego", b'0', b"text");
        tar[at] = byte;
        let _outcome = unpack(&gzip(&tar), |_| true);
    }
}
