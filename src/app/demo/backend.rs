//! The service that the demo guards: it sends back what it is sent, in plaintext.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// An echo service on a free port of loopback, for as long as the process lives.
pub(super) struct EchoBackend {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl EchoBackend {
    /// Starts it. With `flip_a_byte` it damages one byte of each connection that brings more
    /// than a little, as a broken relay might.
    pub(super) fn start(flip_a_byte: bool) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::Builder::new().name("echo".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || echo(stream, flip_a_byte));
            }
        })?;
        Ok(Self { address, accepted })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// A peer that goes away ends the loop; the demo notices on its own side.
fn echo(mut stream: TcpStream, mut flip_a_byte: bool) {
    let _only_latency_suffers = stream.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let Some(bytes) = buffer.get_mut(..length) else {
            return;
        };
        if flip_a_byte
            && bytes.len() > 1
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
            flip_a_byte = false;
        }
        if stream.write_all(bytes).is_err() {
            return;
        }
    }
}
