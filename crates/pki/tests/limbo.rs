//! Verdicts on public path validation vectors, compared with those of Ghostunnel 1.11.1.
//!
//! The vectors come from C2SP/x509-limbo and are not part of this repository. They are
//! looked for in the folder named by `GHOSTUNNEL_VECTORS` (empty to go without), else in
//! `shared/vectors` in one of the folders above; without them the test says that it skips.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use ghostunnel_pki::{Certificate, PathRequest, TrustAnchors, Usage, validate};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;

/// 2026-11-24T23:18:46Z, when the vectors were made and judged.
const JUDGED_AT: u64 = 1_795_562_326;

/// A verdict takes milliseconds; this is for slow machines and debug builds.
const LONGEST: Duration = Duration::from_secs(5);

/// Verdicts that are not shared, and why. Empty but for what was not about the path.
const NOT_SHARED: &[(&str, &str, &str)] = &[
    ("pathological::nc-dos-1", "client-cert", TICKET),
    ("pathological::nc-dos-2", "client-cert", TICKET),
];

/// Ghostunnel 1.11.1 accepted the same chains from a server, and judged paths alike in both
/// directions. What differs is that a client's chain went into a session ticket, whose
/// length has two bytes, and leaf and anchor together are longer than 64 KiB.
const TICKET: &str = "an accepted chain did not fit its session ticket";

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    mode: String,
    peer_name: Option<PeerName>,
    trusted: Vec<String>,
    intermediates: Vec<String>,
    leaf: String,
}

#[derive(Deserialize)]
struct PeerName {
    value: String,
}

#[derive(Deserialize)]
struct Verdicts {
    rows: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    id: String,
    mode: String,
    result: String,
}

fn folder() -> Option<PathBuf> {
    match std::env::var_os("GHOSTUNNEL_VECTORS") {
        Some(named) => Some(PathBuf::from(named)).filter(|named| !named.as_os_str().is_empty()),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|folder| folder.join("shared/vectors"))
            .find(|folder| folder.is_dir()),
    }
}

fn parse(pem: &str) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("the vectors are PEM");
    Certificate::parse(&der).map_err(|error| error.to_string())
}

/// An anchor that cannot be parsed stops Ghostunnel's start; a presented one the handshake.
fn judge(case: &Case) -> Result<(), String> {
    let anchors = case
        .trusted
        .iter()
        .map(|pem| parse(pem))
        .collect::<Result<_, _>>()?;
    let presented: Vec<_> = [&case.leaf]
        .into_iter()
        .chain(&case.intermediates)
        .map(|pem| parse(pem))
        .collect::<Result<_, _>>()?;
    let is_server = case.mode == "server-cert";
    let request = PathRequest {
        presented: &presented,
        anchors: &TrustAnchors::new(anchors),
        time: UnixTime::since_unix_epoch(Duration::from_secs(JUDGED_AT)),
        usage: if is_server {
            Usage::ServerAuth
        } else {
            Usage::ClientAuth
        },
        server_name: case
            .peer_name
            .as_ref()
            .filter(|_| is_server)
            .map(|name| name.value.as_str()),
    };
    validate(&request).map(drop).map_err(|error| error.to_string())
}

#[test]
fn verdicts_are_those_of_ghostunnel() {
    let Some(folder) = folder() else {
        eprintln!("skipped: no path validation vectors; name their folder in GHOSTUNNEL_VECTORS");
        return;
    };
    let vectors = GzDecoder::new(File::open(folder.join("x509-limbo.json.gz")).expect("the vectors"));
    let vectors: Vectors = serde_json::from_reader(vectors).expect("readable vectors");
    let verdicts = fs::read(folder.join("x509-limbo-go.json")).expect("the verdicts");
    let verdicts: Verdicts = serde_json::from_slice(&verdicts).expect("readable verdicts");
    let verdicts: HashMap<_, _> = verdicts
        .rows
        .iter()
        .map(|row| ((row.id.as_str(), row.mode.as_str()), row.result.as_str()))
        .collect();
    let not_shared: HashMap<_, _> = NOT_SHARED
        .iter()
        .map(|&(id, mode, why)| ((id, mode), why))
        .collect();

    let mut surprises = Vec::new();
    let mut compared = 0;
    for case in &vectors.cases {
        let started = Instant::now();
        let answer = judge(case);
        let took = started.elapsed();
        let key = (case.id.as_str(), case.mode.as_str());
        let verdict = verdicts.get(&key).copied().unwrap_or("SKIPPED");
        compared += usize::from(verdict != "SKIPPED");
        let agrees = match verdict {
            "SUCCESS" => answer.is_ok(),
            "FAILURE" => answer.is_err(),
            _ => true,
        };
        if let Some(why) = not_shared.get(&key) {
            println!("{} {} was {verdict}: {why}", case.id, case.mode);
            assert!(!agrees, "{key:?} is no exception any more");
            continue;
        }
        if !agrees || took > LONGEST {
            surprises.push(format!(
                "{} {}: {verdict}, but {answer:?} in {took:?}",
                case.id, case.mode
            ));
        }
    }
    assert!(compared > 300, "only {compared} verdicts to compare with");
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}
