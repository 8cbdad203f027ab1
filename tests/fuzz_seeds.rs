//! The fuzz targets without a fuzzer: every seed, and mutations that are always the same.

#[expect(unreachable_pub, reason = "in fuzz/ it is a library of its own")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use ghostunnel_testing::{Authority, Identities, Request, Usage, oid};

/// How many mutations each target sees.
const MUTATIONS: usize = 2_000;

/// Longest input; bugs rarely need more, and time does.
const LONGEST: usize = 8 * 1024;

#[test]
fn argv_holds() {
    exercise("argv", targets::argv);
}

#[test]
fn address_holds() {
    exercise("address", targets::address);
}

#[test]
fn url_holds() {
    exercise("url", targets::url);
}

#[test]
fn uri_pattern_holds() {
    exercise("uri_pattern", targets::uri_pattern);
}

#[test]
fn certificate_holds() {
    exercise("certificate", targets::certificate);
}

#[test]
fn path_holds() {
    exercise("path", targets::path);
}

#[test]
fn keystore_pem_holds() {
    exercise("keystore_pem", targets::keystore_pem);
}

#[test]
fn proxy_header_holds() {
    exercise("proxy_header", targets::proxy_header);
}

#[test]
fn workload_api_message_holds() {
    exercise("workload_api_message", targets::workload_api_message);
}

#[test]
fn keystore_pkcs12_holds() {
    exercise("keystore_pkcs12", targets::keystore_pkcs12);
}

#[test]
fn keystore_jceks_holds() {
    exercise("keystore_jceks", targets::keystore_jceks);
}

#[test]
fn keystore_der_holds() {
    exercise("keystore_der", targets::keystore_der);
}

#[test]
fn keystore_pkcs7_holds() {
    exercise("keystore_pkcs7", targets::keystore_pkcs7);
}

#[test]
fn every_target_has_its_function_and_its_seeds() {
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("readable");
    let mut targets: Vec<String> = entries(&fuzz("fuzz_targets"))
        .iter()
        .map(|path| stem(path))
        .collect();
    targets.sort();
    assert_eq!(
        targets,
        [
            "address",
            "argv",
            "certificate",
            "keystore_der",
            "keystore_jceks",
            "keystore_pem",
            "keystore_pkcs12",
            "keystore_pkcs7",
            "path",
            "proxy_header",
            "uri_pattern",
            "url",
            "workload_api_message"
        ]
    );
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        assert!(fuzz(&format!("seeds/{target}/README.md")).is_file(), "{target}");
        assert!(seeds(&target).len() >= 3, "{target}");
    }
}

/// Runs a target on its seeds, on nothing at all, and on mutations.
fn exercise(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    for input in seeds.iter().map(Vec::as_slice).chain([&[][..]]) {
        run_shown(run, input);
    }
    let mut random = Random::new(target);
    for _ in 0..MUTATIONS {
        run_shown(run, &mutated(&seeds, &mut random));
    }
}

/// Prints the input if it is one that panics.
fn run_shown(run: fn(&[u8]), input: &[u8]) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("input: \"{}\"", self.0.escape_ascii());
            }
        }
    }
    let _shown = Shown(input);
    run(input);
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.pick(seeds).clone();
    for _ in 0..random.below(8) + 1 {
        let start = random.below(input.len() + 1);
        let end = (start + random.below(32) + 1).min(input.len());
        match random.below(7) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(start) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                // Values at which lengths and signs turn over.
                if let Some(byte) = input.get_mut(start) {
                    *byte =
                        *random.pick(&[0, 1, 0x7f, 0x80, 0x81, 0x82, 0xff, b'\n', b'/', b':', b'*', b'-']);
                }
            }
            3 => drop(input.drain(start..end)),
            4 => {
                let piece = input.get(start..end).unwrap_or_default().to_vec();
                let place = random.below(input.len() + 1);
                input.splice(place..place, piece);
            }
            5 => input.truncate(start),
            _ => {
                let other = random.pick(seeds);
                let from = random.below(other.len() + 1);
                let piece = other.get(from..).unwrap_or_default();
                input.truncate(start);
                input.extend_from_slice(piece);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// A small generator (xorshift*), the same numbers on every machine and on every day.
struct Random(u64);

impl Random {
    fn new(name: &str) -> Self {
        let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    // Directories have an order of their own.
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let paths = entries(&fuzz(&format!("seeds/{target}")));
    let seeds = paths.iter().filter(|path| stem(path) != "README");
    seeds.map(|path| fs::read(path).expect("readable")).collect()
}

/// Writes those seeds that are no text. They need no renewal: the targets take the time from the
/// certificates.
#[test]
#[ignore = "writes into fuzz/seeds"]
fn write_seeds() {
    let write = |name: &str, bytes: &[u8]| fs::write(fuzz(&format!("seeds/{name}")), bytes).expect("written");
    let root = Authority::new("root");
    let middle = root.intermediate(&Request::named("middle"));
    let server = middle.issue(&Request::named("server").dns("localhost").ip([127, 0, 0, 1]));
    let client = root.issue(
        &Request::named("client")
            .organizational_unit("one")
            .organizational_unit("two")
            .dns("client.test")
            .uri("spiffe://test/client")
            .usage(Usage::Client),
    );
    let odd = root.issue(
        &Request::unnamed()
            .attribute(ghostunnel_testing::Attribute {
                oid: oid::ORGANIZATION,
                tag: 0x1e,
                value: b"\0a\0\n\xd8\0".to_vec(),
            })
            .uri("spiffe://test/%2e%2e/")
            .expired()
            .serial(&[0x7f; 20]),
    );
    write("certificate/root", root.der());
    write("certificate/middle", middle.der());
    write("certificate/server", server.der());
    write("certificate/client", client.der());
    write("certificate/odd", odd.der());
    write(
        "certificate/self-signed",
        Request::named("x").authority().self_signed().der(),
    );

    let one_anchor = |usage: u8| 1 << 3 | usage;
    write(
        "path/server",
        &chain(one_anchor(1) | 4, &[root.der(), server.der(), middle.der()]),
    );
    write("path/client", &chain(one_anchor(0), &[root.der(), client.der()]));
    write("path/gap", &chain(one_anchor(2), &[root.der(), server.der()]));
    write(
        "path/leaf-is-anchor",
        &chain(one_anchor(2), &[client.der(), client.der()]),
    );
    write(
        "path/many",
        &chain(
            2 << 3 | 2,
            &[
                root.der(),
                middle.der(),
                server.der(),
                middle.der(),
                middle.der(),
                root.der(),
            ],
        ),
    );

    let id = "spiffe://test/client";
    let other = Authority::new("other");
    let workload = Identities::of(id, &middle.issue(&Request::unnamed().uri(id)), &root);
    write("workload_api_message/one", &workload.encode());
    let federated = workload.federated("spiffe://other.test", &other);
    write("workload_api_message/federated", &federated.encode());
    let hinted = Identities::default()
        .hinted("internal", id, &root.issue(&Request::unnamed().uri(id)), &root)
        .hinted("internal", id, &client, &root);
    write("workload_api_message/hinted", &hinted.encode());
    let no_svid = Identities::of("spiffe://test", &server, &root);
    write("workload_api_message/no-svid", &no_svid.encode());
    write(
        "workload_api_message/kinds",
        b"\x08\x01\x11\0\0\0\0\0\0\0\0\x1d\0\0\0\0\x0a\x02\x2a\0\x1a\x02\x0a\0",
    );

    // The shape of a PKCS#8 key on P-256 whose number is zero, which is no key.
    let shape =
        "MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCAAAAAAAAAAAAAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAA==";
    let key = format!("-----BEGIN PRIVATE KEY-----\n{shape}\n-----END PRIVATE KEY-----\n");
    write("keystore_pem/chain", server.chain_pem().as_bytes());
    write(
        "keystore_pem/both",
        format!("subject=x\r\n{}{key}", client.leaf_pem()).as_bytes(),
    );
    write("keystore_pem/key", key.as_bytes());
    write(
        "keystore_pem/headers",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA \
          PRIVATE KEY-----\n",
    );
    write(
        "keystore_pem/broken",
        b"-----BEGIN CERTIFICATE-----\n!\n-----BEGIN CERTIFICATE-----\nAAA=\n-----END CERTIFICATE-----",
    );
}

fn chain(question: u8, certificates: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![question];
    for der in certificates {
        bytes.extend(u16::try_from(der.len()).expect("short").to_be_bytes());
        bytes.extend(*der);
    }
    bytes
}
