//! What the demo claims, checked.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{Context as Digest, Digest as Hash, SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::backend::EchoBackend;
use super::certificates::Files;
use super::tunnels::Tunnels;

/// No check waits longer than this for a peer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pushes `length` bytes through both tunnels and back, ends the sending direction, and
/// compares what came back by SHA-256.
pub(super) fn bulk(tunnels: &Tunnels, length: usize) -> anyhow::Result<String> {
    let mut receiver = connect(tunnels)?;
    let mut sender = receiver.try_clone()?;
    let started = Instant::now();
    let sending = thread::spawn(move || send(&mut sender, length));
    let (received, hash) = receive(&mut receiver);
    let sent = sending
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))?;
    let seconds = started.elapsed().as_secs_f64();
    if received == 0 {
        let why = tunnels
            .client_error()
            .unwrap_or_else(|| "no error was logged".to_owned());
        bail!("nothing came back through the tunnels; the client tunnel says: {why}");
    }
    let sent = sent.context("cannot push data through the tunnels")?;
    ensure!(received == length, "{length} bytes went in, {received} came back");
    ensure!(
        sent.as_ref() == hash.as_ref(),
        "what came back is not what went in: SHA-256 differs"
    );
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = length as f64 / 1024.0 / 1024.0 / seconds;
    Ok(format!(
        "{} MiB through both tunnels and back, SHA-256 {}... equal, {rate:.0} MiB/s each way",
        length / 1024 / 1024,
        hex(&hash, 8)
    ))
}

/// Measures what a byte takes through both tunnels and back.
pub(super) fn latency(tunnels: &Tunnels) -> anyhow::Result<String> {
    const ROUNDS: usize = 500;
    const CONNECTIONS: usize = 20;
    let mut setups = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        echo_byte(&mut connect(tunnels)?)?;
        setups.push(started.elapsed());
    }
    let mut stream = connect(tunnels)?;
    echo_byte(&mut stream)?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        echo_byte(&mut stream)?;
        rounds.push(started.elapsed());
    }
    Ok(format!(
        "a byte there and back takes {} µs (99 of 100 under {} µs), with a new mutual TLS connection {} µs",
        quantile(&mut rounds, 50).as_micros(),
        quantile(&mut rounds, 99).as_micros(),
        quantile(&mut setups, 50).as_micros()
    ))
}

/// A peer whose certificate comes from another CA must get an alert, and the backend must not
/// hear of it.
pub(super) fn stranger_is_refused(
    tunnels: &Tunnels,
    files: &Files,
    backend: &EchoBackend,
) -> anyhow::Result<String> {
    let before = backend.accepted();
    let tcp = TcpStream::connect(tunnels.server_address())?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost")?;
    let connection = ClientConnection::new(Arc::new(stranger_config(files)?), name)?;
    let mut stream = StreamOwned::new(connection, tcp);
    let mut answer = [0; 1];
    let outcome = stream
        .write_all(b"x")
        .and_then(|()| stream.read_exact(&mut answer));
    let alert = match outcome {
        Ok(()) => bail!("the stranger was let in: the backend answered a peer from another CA"),
        Err(error) => match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::AlertReceived(alert)) => *alert,
            _ => bail!("the stranger was not refused by an alert: {error}"),
        },
    };
    ensure!(
        backend.accepted() == before,
        "the backend was dialled for the stranger"
    );
    let line = tunnels.server_logs("error on TLS handshake")?;
    let reason = line
        .split_once("error on TLS handshake")
        .map_or(line.as_str(), |(_, reason)| reason);
    Ok(format!(
        "a stranger is refused inside the handshake by alert {alert:?}; the log says:{reason}"
    ))
}

fn stranger_config(files: &Files) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.path("cacert.pem"))?)?;
    let chain = vec![CertificateDer::from_pem_file(files.path("stranger-cert.pem"))?];
    let key = PrivateKeyDer::from_pem_file(files.path("stranger-key.pem"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?)
}

fn connect(tunnels: &Tunnels) -> anyhow::Result<TcpStream> {
    let address = tunnels.client_address();
    let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn echo_byte(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; 1];
    stream
        .write_all(b"x")
        .and_then(|()| stream.read_exact(&mut answer))
        .context("an echoed byte did not return")?;
    ensure!(&answer == b"x", "another byte came back than went in");
    Ok(())
}

/// Sends bytes that never repeat in a way a relay could hide behind, then ends the direction.
fn send(stream: &mut TcpStream, length: usize) -> anyhow::Result<Hash> {
    let mut digest = Digest::new(&SHA256);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut chunk = vec![0; 256 * 1024];
    let mut left = length;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let bytes = chunk.get(..left.min(chunk.len())).unwrap_or_default();
        digest.update(bytes);
        stream.write_all(bytes)?;
        left -= bytes.len();
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(digest.finish())
}

/// Reads to the end, or to the first error; what is missing then shows in the count.
fn receive(stream: &mut TcpStream) -> (usize, Hash) {
    let mut digest = Digest::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        digest.update(buffer.get(..length).unwrap_or_default());
        received += length;
    }
    (received, digest.finish())
}

fn hex(hash: &Hash, bytes: usize) -> String {
    hash.as_ref()
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn quantile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    let index = samples.len().saturating_sub(1) * percent / 100;
    samples.get(index).copied().unwrap_or_default()
}
