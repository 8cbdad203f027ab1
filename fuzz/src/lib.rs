//! What is fuzzed: one function for each target, which takes any bytes.
//!
//! A panic or a broken assertion is a defect. `fuzz_targets/` hands these functions to libFuzzer;
//! `tests/fuzz_seeds.rs` of the root package runs them on the seeds and on mutations of them, so
//! that they are exercised without nightly too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use aws_lc_rs::digest;
use ghostunnel::authorization::UriPattern;
use ghostunnel::cli::{self, Command};
use ghostunnel::credentials::workload_api::Update;
use ghostunnel::net::{AddressError, Label, ListenAddr, Reach, TargetAddr, Url};
use ghostunnel::proxy::{Announcement, LONGEST, Progress, read_on};
use ghostunnel_keystore::{Block, Entry, Format, KeystoreError, blocks, read_within, trust_anchors};
use ghostunnel_pki::{Certificate, Identity, PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::UnixTime;

/// The command line: words between zero bytes. The first is the program's name, the last one
/// stands for the environment as well.
pub fn argv(data: &[u8]) {
    // Nobody types more, and response files would read whatever files the machine has.
    const WORDS: usize = 64;
    let words: Vec<OsString> = data
        .split(|byte| *byte == 0)
        .filter(|word| !word.starts_with(b"@"))
        .take(WORDS)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    let variable = words.last().cloned();
    for is_set in [false, true] {
        let lookup = |_: &str| variable.clone().filter(|_| is_set);
        match cli::parse(&words, &lookup) {
            Ok(Command::Run(run)) => match run.config {
                Ok(config) => assert_eq!(config.tunnels.len(), 1, "one command line, one tunnel"),
                Err(error) => assert!(!error.to_string().is_empty()),
            },
            Ok(Command::Print(text) | Command::Usage(text)) => assert!(text.ends_with('\n')),
            Ok(Command::Demo(_)) => {}
            Err(error) => assert!(error.to_string().contains(": error: "), "{error}"),
        }
    }
}

/// Addresses of listeners and targets.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let listen = |reach| ListenAddr::parse(&text, reach);
    let target = |reach| TargetAddr::parse(&text, reach);
    for result in [
        listen(Reach::Anywhere).map(|address| address.text().to_owned()),
        target(Reach::Anywhere).map(|address| address.text().to_owned()),
    ] {
        check_text(&text, &result);
    }
    // What may not leave the machine is a part of what may.
    if let Ok(local) = listen(Reach::LocalOnly) {
        let anywhere = listen(Reach::Anywhere).expect("local, hence allowed anywhere");
        assert_eq!(local.kind(), anywhere.kind());
        assert!(is_local(&text) || text.starts_with("systemd:"), "{text:?}");
    }
    if let Ok(local) = target(Reach::LocalOnly) {
        let anywhere = target(Reach::Anywhere).expect("local, hence allowed anywhere");
        assert_eq!((local.kind(), local.host()), (anywhere.kind(), anywhere.host()));
        assert!(is_local(&text), "{text:?}");
    }
}

fn check_text(text: &str, result: &Result<String, AddressError>) {
    match result {
        Ok(kept) => assert_eq!(kept, text),
        Err(error) => assert!(!format!("{error}{}", error.remedy()).is_empty()),
    }
}

fn is_local(text: &str) -> bool {
    ["unix:", "localhost:", "127.0.0.1:", "[::1]:"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

/// The URL of a forward proxy.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(url) = Url::parse(&text) else {
        return;
    };
    assert!(url.port.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
    let shown = url.to_string();
    if url.login.as_ref().is_some_and(|login| login.password.is_some()) {
        // A URL again, of the same place, without the password.
        let again = Url::parse(&shown).expect("a URL");
        let password = again.login.and_then(|login| login.password).expect("a mask");
        assert_eq!(password.as_str(), "xxxxx", "{text:?}");
        assert_eq!(
            (again.scheme, again.host, again.port),
            (url.scheme, url.host, url.port)
        );
    }
}

/// What comes first from a load balancer. The first byte says in pieces of which size it comes.
pub fn proxy_header(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    let mut taken = 0;
    while let Ok(progress) = read_on(stream.get(..taken).expect("taken")) {
        match progress {
            Progress::Done(announcement, length) => {
                assert_eq!(length, taken, "not a byte beyond the header is taken");
                if let Announcement::Client { source, destination } = &announcement {
                    for end in [source, destination] {
                        let shown = end.to_string();
                        assert!(!shown.chars().any(char::is_control), "{shown:?}");
                    }
                    // Two ends of one connection are alike, but for IPv4 within IPv6.
                    let is_unix = |end: &Label| matches!(end, Label::Unix(_));
                    assert_eq!(is_unix(source), is_unix(destination));
                }
                // What follows the header changes nothing.
                assert_eq!(read_on(stream), Ok(Progress::Done(announcement, length)));
                return;
            }
            Progress::Needs(more) => {
                assert!(more > 0 && taken + more <= LONGEST);
                let next = (taken + more.min(piece)).min(stream.len());
                if next == taken {
                    return;
                }
                taken = next;
            }
        }
    }
}

/// A URI pattern, a line feed, a URI.
pub fn uri_pattern(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, uri) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(parsed) = UriPattern::parse(pattern) else {
        return;
    };
    assert_eq!(parsed.text(), pattern);
    let matches = parsed.matches(uri);
    if !pattern.contains('*') {
        // Without wildcards a pattern is the URI itself, but for one slash at the end of either.
        let literal = pattern
            .strip_suffix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(pattern);
        let is_same = uri == literal || uri.strip_suffix('/') == Some(literal);
        assert_eq!(matches, is_same, "{pattern:?} {uri:?}");
    }
    let wildcards = pattern.matches('*').count();
    if matches && wildcards == 0 {
        assert!(uri.len() <= pattern.len() + 1, "{pattern:?} {uri:?}");
    }
}

/// A certificate as a peer sends it.
pub fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::parse(data) else {
        return;
    };
    assert_eq!(certificate.der(), data, "nothing before or behind is ignored");
    look_at(&certificate);
}

fn look_at(certificate: &Certificate) {
    let identity = Identity::of(certificate);
    let text = format!(
        "{} {} {} {:?} {:?} {:?}",
        certificate.subject(),
        certificate.issuer(),
        identity.subject(),
        identity.common_name(),
        identity.organizational_units(),
        identity.uris(),
    );
    assert!(!text.is_empty());
    let (not_before, not_after) = certificate.validity();
    assert!((1..=3).contains(&certificate.version()));
    assert!(!certificate.subject_public_key_info().is_empty());
    assert!(certificate.der().len() > certificate.serial().len());
    let years = |time: ghostunnel_pki::Time| time.unix_seconds() / (365 * 86_400);
    assert!(years(not_before) < 10_000 && years(not_after) < 10_000);
    assert_eq!(identity.dns_names(), certificate.dns_names());
    assert_eq!(identity.ip_addresses(), certificate.ip_addresses());
    assert_eq!(certificate.uris().count(), identity.uris().len());
}

/// A chain with anchors. The first byte says what is asked of it: two bits for the usage, one for
/// a server name, and the rest how many of the certificates are anchors. Certificates follow, each
/// with its length in two bytes; the anchors come first, then the leaf.
pub fn path(data: &[u8]) {
    // A peer can send more, but time grows only with the number of signatures, which is bounded.
    const CERTIFICATES: usize = 16;
    let Some((question, mut rest)) = data.split_first() else {
        return;
    };
    let mut certificates = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(more.len());
        let (der, more) = more.split_at(length);
        rest = more;
        certificates.extend(Certificate::parse(der));
        if certificates.len() == CERTIFICATES {
            break;
        }
    }
    let presented = certificates.split_off(usize::from(question >> 3).min(certificates.len()));
    let anchors = TrustAnchors::new(certificates);
    let Some(leaf) = presented.first() else {
        return;
    };
    // So that seeds stay valid for ever.
    let issued = u64::try_from(leaf.validity().0.unix_seconds()).unwrap_or_default();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(issued.saturating_add(3600)));
    let request = PathRequest {
        presented: &presented,
        anchors: &anchors,
        time,
        usage: match question & 3 {
            0 => Usage::ClientAuth,
            1 => Usage::ServerAuth,
            _ => Usage::Any,
        },
        server_name: (question & 4 != 0).then_some("localhost"),
    };
    match validate(&request) {
        Ok(path) => {
            assert_eq!(path.leaf(), leaf);
            assert!(path.chain().last().is_some_and(|last| anchors.contains(last)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What the agent of a SPIFFE Workload API sends.
pub fn workload_api_message(data: &[u8]) {
    match Update::parse(data) {
        Ok(update) => {
            let own = update.id().trust_domain();
            let anchors = update
                .bundles()
                .of(own)
                .expect("who has an identity has a trust domain");
            assert!(!anchors.is_empty());
            assert!(data.len() > update.id().text().len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A certificate, key or keystore file.
pub fn keystore_pem(data: &[u8]) {
    let _ = Format::from_first_bytes(data);
    let _ = Format::from_file_name(&String::from_utf8_lossy(data));
    for anchor in trust_anchors(data) {
        assert!(
            anchor.len() < data.len(),
            "base64 and its frame are longer than what they hold"
        );
    }
    let found = blocks(data);
    for block in &found {
        assert!(block.contents().len() < data.len());
        assert!(
            !(block.is_certificate() && block.is_private_key()),
            "{}",
            block.label()
        );
    }
    if let Ok(entry) = Entry::from_blocks(found) {
        assert!(!entry.chain().is_empty());
        let _ = entry.private_key("password");
        assert!(!entry.into_chain().is_empty());
    }
}

/// The work that a keystore may cost here: less than it may otherwise, since there are many.
const ROUNDS: u64 = 10_000;

/// The password of all keystores.
const PASSWORD: &str = "open-sesame";

/// A PKCS#12 file, with a password and without. What has no checksum is looked into without.
pub fn keystore_pkcs12(data: &[u8]) {
    for password in [PASSWORD, ""] {
        let result = read_within(Format::Pkcs12, data, password, ROUNDS);
        check_blocks(Format::Pkcs12, data, &result);
        if let Ok(found) = result {
            let keys = found.iter().filter(|block| block.is_private_key()).count();
            assert_eq!(keys, 1);
            assert!(found.iter().any(Block::is_certificate));
        }
    }
}

/// A JCEKS or JKS file: as it is, and with the checksum that belongs to it, which no chance
/// would find.
pub fn keystore_jceks(data: &[u8]) {
    let result = read_within(Format::Jceks, data, PASSWORD, ROUNDS);
    check_blocks(Format::Jceks, data, &result);
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let covered = data
        .get(..data.len().saturating_sub(digest::SHA1_OUTPUT_LEN))
        .unwrap_or_default();
    let hashed = [&password, &b"Mighty Aphrodite"[..], covered].concat();
    let checksum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &hashed);
    let genuine = [covered, checksum.as_ref()].concat();
    let result = read_within(Format::Jceks, &genuine, PASSWORD, ROUNDS);
    check_blocks(Format::Jceks, &genuine, &result);
}

/// Certificates in DER, or PKCS#7.
pub fn keystore_der(data: &[u8]) {
    let result = read_within(Format::Der, data, PASSWORD, 0);
    check_blocks(Format::Der, data, &result);
    if let Ok(found) = result {
        assert!(found.iter().all(Block::is_certificate));
    }
}

/// What is inside of a PKCS#7 file, which is given the frame that makes it one.
pub fn keystore_pkcs7(data: &[u8]) {
    // SEQUENCE { signedData, [0] { data } }, all of indefinite length.
    let head = [
        0x30, 0x80, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xa0, 0x80,
    ];
    let framed = [&head[..], data, &[0; 4]].concat();
    keystore_der(&framed);
}

fn check_blocks(format: Format, data: &[u8], result: &Result<Vec<Block>, KeystoreError>) {
    match result {
        Ok(found) => {
            for block in found {
                assert!(block.contents().len() <= data.len());
                assert!(block.is_certificate() != block.is_private_key());
            }
            if let Ok(entry) = ghostunnel_keystore::entry(format, found.clone()) {
                let _ = entry.private_key(PASSWORD);
            }
        }
        Err(error) => {
            assert!(!error.to_string().contains(PASSWORD));
            let _ = error.is_wrong_password();
        }
    }
}
