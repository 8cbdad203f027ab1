//! Public path validation vectors through the whole program, in both modes: the verdicts are
//! those of Ghostunnel 1.11.1, but for differences that are listed with their reason.
//!
//! The vectors come from C2SP/x509-limbo and are not part of this repository. They are looked
//! for in the folder named by `GHOSTUNNEL_VECTORS` (empty to go without), else in
//! `shared/vectors` in one of the folders above; without them the test says that it skips.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Issued, Pki, Plain, Process, ReservedPort, TlsClient,
    TlsServer, eventually_some, is_listening, require_tool, s_client, s_server,
};
use serde_json::Value;

use crate::support::ghostunnel;

/// 2026-11-24T23:18:46Z, when the vectors were made and judged.
const JUDGED_AT: Duration = Duration::from_secs(1_795_562_326);

/// How long after that their certificates are good for the same verdicts.
const GOOD_FOR: Duration = Duration::from_secs(300 * 24 * 3600);

/// One line for each difference: identifier, mode, reason.
const DIFFERENCES: &str = include_str!("../fixtures/vectors/differences.txt");

/// Tunnels at work at a time.
const AT_A_TIME: usize = 3;

fn folder() -> Option<PathBuf> {
    match std::env::var_os("GHOSTUNNEL_VECTORS") {
        Some(named) => Some(PathBuf::from(named)).filter(|named| !named.as_os_str().is_empty()),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|folder| folder.join("shared/vectors"))
            .find(|folder| folder.is_dir()),
    }
}

/// A chain and the verdict of the original.
struct Case {
    id: String,
    mode: String,
    was_accepted: bool,
    trusted: String,
    identity: Issued,
    peer_name: Option<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every case that the original has judged; it could not where there is no key to show the chain
/// with.
fn cases(folder: &Path) -> Vec<Case> {
    let vectors = GzDecoder::new(File::open(folder.join("x509-limbo.json.gz")).expect("the vectors"));
    let vectors: Value = serde_json::from_reader(vectors).expect("readable vectors");
    let verdicts = fs::read(folder.join("x509-limbo-go.json")).expect("the verdicts");
    let verdicts: Value = serde_json::from_slice(&verdicts).expect("readable verdicts");
    let key = |row: &Value| (text(&row["id"]).to_owned(), text(&row["mode"]).to_owned());
    let rows = verdicts["rows"].as_array().expect("rows");
    let verdicts: BTreeMap<_, _> = rows.iter().map(|row| (key(row), text(&row["result"]))).collect();
    let judged = vectors["cases"]
        .as_array()
        .expect("cases")
        .iter()
        .filter_map(|case| {
            let was_accepted = match *verdicts.get(&key(case))? {
                "SUCCESS" => true,
                "FAILURE" => false,
                _ => return None,
            };
            let pems = |value: &Value| {
                value
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(text)
                    .collect::<String>()
            };
            let chain = format!("{}\n{}", text(&case["leaf"]), pems(&case["intermediates"]));
            Some(Case {
                id: text(&case["id"]).to_owned(),
                mode: text(&case["mode"]).to_owned(),
                was_accepted,
                trusted: pems(&case["trusted"]),
                identity: Issued::from_pem(&chain, case["key"].as_str()?),
                peer_name: case["peer_name"]["value"].as_str().map(str::to_owned),
            })
        });
    judged.collect()
}

/// Whether the program accepts this chain. An anchor that it can't load stops its start, which
/// is a refusal too.
fn accepts(pki: &Pki, case: &Case, number: usize) -> bool {
    let listen = ReservedPort::new();
    let anchors = pki.write(&format!("anchors-{number}.pem"), &case.trusted);
    if case.mode == "client-cert" {
        let backend = Backend::tcp(Behaviour::Echo);
        let process = ghostunnel()
            .args(["server", "--allow-all"])
            .flag("--listen", listen.address().to_string())
            .flag("--target", backend.address().to_string())
            .flag("--cert", &pki.server_files.certificate)
            .flag("--key", &pki.server_files.key)
            .flag("--cacert", anchors)
            .start();
        if !starts(&process, &listen) {
            return false;
        }
        let address = listen.address().into();
        if !case.identity.can_sign() {
            let files = case.identity.write_to(pki.dir(), &format!("peer-{number}"));
            let _peer = s_client(&address, &pki.ca_file, Some(&files), OLD_KEYS).expect("OpenSSL is there");
            return is_opened(&process, "error on TLS handshake");
        }
        let client = TlsClient::trusting(&pki.authority).identity(&case.identity);
        let peer = client.connect(&address);
        return peer.is_ok_and(|mut peer| is_echoed(&mut peer));
    }
    let server = Server::start(pki, case, number);
    let mut command = ghostunnel();
    command
        .args(["client", "--disable-authentication"])
        .flag("--listen", listen.address().to_string())
        .flag("--target", server.address().to_string())
        .flag("--cacert", anchors);
    if let Some(name) = &case.peer_name {
        command.flag("--override-server-name", name);
    }
    let process = command.start();
    if !starts(&process, &listen) {
        return false;
    }
    let mut peer = Plain::connect(&listen.address().into()).expect("it listens");
    match server {
        Server::Ours(_) => is_echoed(&mut peer),
        Server::OpenSsl { .. } => is_opened(&process, "error on dial"),
    }
}

/// What a client tunnel is to judge.
enum Server {
    Ours(Backend),
    OpenSsl { address: Address, _runs: Process },
}

impl Server {
    fn start(pki: &Pki, case: &Case, number: usize) -> Self {
        if case.identity.can_sign() {
            let server = TlsServer::new(&case.identity, &ClientCertificates::Unasked);
            return Self::Ours(Backend::tls(server, Behaviour::Echo));
        }
        let files = case.identity.write_to(pki.dir(), &format!("peer-{number}"));
        let (_runs, address) = s_server(&files, OLD_KEYS).expect("OpenSSL is there");
        Self::OpenSsl { address, _runs }
    }

    fn address(&self) -> &Address {
        match self {
            Self::Ours(backend) => backend.address(),
            Self::OpenSsl { address, .. } => address,
        }
    }
}

/// What makes OpenSSL use keys that nobody should have any more.
const OLD_KEYS: &[&str] = &["-cipher", "DEFAULT@SECLEVEL=0"];

/// Whether the log says that the two ends were joined; if not, it must begin with this.
fn is_opened(process: &Process, refusal: &str) -> bool {
    eventually_some("the log has the verdict", || {
        match (process.count_lines("opening pipe"), process.count_lines(refusal)) {
            (0, 0) => None,
            (opened, _) => Some(opened > 0),
        }
    })
}

fn starts(process: &Process, listen: &ReservedPort) -> bool {
    eventually_some("the tunnel listens, or has ended", || match process.try_exit() {
        Some(_) => Some(false),
        None => is_listening(listen.port()).then_some(true),
    })
}

fn is_echoed(stream: &mut (impl std::io::Read + std::io::Write)) -> bool {
    let mut answer = [0; 5];
    stream
        .write_all(b"hello")
        .and_then(|()| stream.read_exact(&mut answer))
        .is_ok_and(|()| &answer == b"hello")
}

/// The listed differences with their reasons.
fn differences() -> BTreeMap<(String, String), String> {
    let lines = DIFFERENCES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let [Some(id), Some(mode), Some(reason)] = [words.next(), words.next(), words.next()] else {
                panic!("no reason: {line}");
            };
            assert!(reason.len() > 20, "no reason: {line}");
            ((id, mode), reason)
        })
        .collect()
}

#[test]
fn verdicts_of_the_program_are_those_of_the_original() {
    let Some(folder) = folder() else {
        eprintln!("SKIPPED: no path validation vectors; name their folder in GHOSTUNNEL_VECTORS");
        return;
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    if !(JUDGED_AT..JUDGED_AT + GOOD_FOR).contains(&now) {
        eprintln!("SKIPPED: the certificates of the path validation vectors are not of this time");
        return;
    }
    if require_tool("openssl").is_none() {
        return;
    }
    let cases = cases(&folder);
    assert!(cases.len() > 300, "only {} verdicts to compare with", cases.len());
    let pki = Pki::new();
    let (queue, answers) = (Mutex::new(cases.iter().enumerate()), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic").next();
                    let Some((number, case)) = next else { return };
                    let is_accepted = accepts(&pki, case, number);
                    let key = (case.id.clone(), case.mode.clone());
                    answers
                        .lock()
                        .expect("no panic")
                        .insert(key, (is_accepted, case.was_accepted));
                }
            });
        }
    });
    let answers = answers.into_inner().expect("no panic");
    let listed = differences();
    let differ: BTreeSet<_> = answers
        .iter()
        .filter(|(_, (is, was))| is != was)
        .map(|(key, _)| key)
        .collect();
    println!(
        "{} verdicts: {} agree, {} differ",
        answers.len(),
        answers.len() - differ.len(),
        differ.len()
    );
    for key in &differ {
        let (is, was) = answers[key];
        println!("{key:?}: accepted here {is}, by the original {was}");
    }
    let too_kind: Vec<_> = answers.iter().filter(|(_, (is, was))| *is && !*was).collect();
    assert!(too_kind.is_empty(), "the original keeps these out: {too_kind:?}");
    let unexplained: Vec<_> = differ.iter().filter(|key| !listed.contains_key(**key)).collect();
    assert!(unexplained.is_empty(), "without a reason: {unexplained:?}");
    let stale: Vec<_> = listed.keys().filter(|key| !differ.contains(key)).collect();
    assert!(stale.is_empty(), "no difference any more: {stale:?}");
}
