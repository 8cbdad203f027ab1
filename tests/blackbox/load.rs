//! Thousands of connections, with reloads all the while and a drain at the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_testing::{
    Exit, Pki, Signal, descriptors, eventually, raise_descriptor_limit, threads, within,
};

use crate::operator::{Client, Mode, Peer, SetWhenDropped, Tunnel, replace};

/// Each holds its share of the connections; their number has no other meaning.
const CLIENTS: usize = 8;
const BETWEEN_RELOADS: Duration = Duration::from_millis(100);

#[test]
fn load_ten_thousand_connections_through_a_server_tunnel_see_no_reload() {
    endure(Mode::Server, 10_000, 1_000);
}

#[test]
fn load_ten_thousand_connections_through_a_client_tunnel_see_no_reload() {
    endure(Mode::Client, 10_000, 1_000);
}

/// Opens `total` connections, `held` of them at once, with a reload every 100 ms; then opens as
/// many as it held and asks for the drain.
fn endure(mode: Mode, total: usize, held: usize) {
    raise_descriptor_limit();
    let tunnel = Tunnel::start(mode);
    tunnel.visit();
    eventually("the first visitor is gone", || {
        tunnel.process.count_lines("closed pipe") == 1
    });
    let before = footprint(&tunnel);
    let mut shares: Vec<_> = (0..CLIENTS)
        .map(|_| Share::new(&tunnel, held / CLIENTS))
        .collect();
    let reloads = while_reloading(&tunnel, || {
        let begun = Instant::now();
        in_parallel(&mut shares, |share| {
            share.open_and_close(total / CLIENTS);
            share.close_all();
        });
        println!(
            "{mode:?}: {total} connections, {held} at once, in {:?}",
            begun.elapsed()
        );
        eventually("descriptors and threads are back", || {
            footprint(&tunnel) == before
        });
        in_parallel(&mut shares, Share::open_all);
    });
    tunnel.process.signal(Signal::TERM);
    tunnel.process.wait_for_line("shutdown proxy, waiting for drain");
    assert!(tunnel.connect().is_err(), "new connections are refused");
    in_parallel(&mut shares, Share::close_all);
    assert_eq!(tunnel.process.wait_exit(), Exit::Code(0));

    let failures: Vec<_> = shares.into_iter().flat_map(|share| share.failures).collect();
    let few = failures.len().min(5);
    assert!(
        failures.is_empty(),
        "{} failures, such as {:?}",
        failures.len(),
        &failures[..few]
    );
    assert!(reloads > 5, "{reloads} reloads");
    for phrase in ["error on", "error during", "error reloading", "error accepting"] {
        assert_eq!(tunnel.process.count_lines(phrase), 0, "{phrase}");
    }
    let opened = 1 + (total / CLIENTS + held / CLIENTS) * CLIENTS;
    assert_eq!(tunnel.process.count_lines("opening pipe"), opened);
    assert_eq!(tunnel.process.count_lines("closed pipe"), opened);
}

fn in_parallel<'a>(shares: &mut [Share<'a>], work: impl Fn(&mut Share<'a>) + Sync) {
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(|| work(share));
        }
    });
}

/// Does the work while reloads come; gives their number.
fn while_reloading(tunnel: &Tunnel, work: impl FnOnce()) -> usize {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reloader = scope.spawn(|| reload_until(tunnel, &is_over));
        {
            let _stop = SetWhenDropped(&is_over);
            work();
        }
        reloader.join().expect("every reload was completed")
    })
}

/// Descriptors and threads of the process.
fn footprint(tunnel: &Tunnel) -> (usize, usize) {
    let id = tunnel.process.id();
    (descriptors(id), threads(id).len())
}

/// Each reload brings another certificate and key.
fn reload_until(tunnel: &Tunnel, is_over: &AtomicBool) -> usize {
    let (files, request) = match tunnel.mode {
        Mode::Server => (&tunnel.pki.server_files, Pki::server_request()),
        Mode::Client => (&tunnel.pki.client_files, Pki::client_request()),
    };
    let mut reloads = 0;
    while within(BETWEEN_RELOADS, || is_over.load(Ordering::SeqCst).then_some(())).is_none() {
        let fresh = tunnel.pki.authority.issue(&request);
        replace(&files.key, &fresh.key_pem());
        replace(&files.certificate, &fresh.chain_pem());
        let mark = tunnel.process.mark();
        tunnel.process.signal(Signal::HUP);
        tunnel
            .process
            .wait_for_line_after(mark, "reloading configuration complete");
        reloads += 1;
    }
    reloads
}

/// One thread's connections.
struct Share<'a> {
    tunnel: &'a Tunnel,
    client: Client,
    held: usize,
    open: VecDeque<Peer>,
    failures: Vec<String>,
}

impl<'a> Share<'a> {
    fn new(tunnel: &'a Tunnel, held: usize) -> Self {
        Self {
            tunnel,
            client: tunnel.client(),
            held,
            open: VecDeque::new(),
            failures: Vec::new(),
        }
    }

    /// Opens this many, and closes the oldest whenever too many are open.
    fn open_and_close(&mut self, count: usize) {
        for _ in 0..count {
            if self.open.len() == self.held {
                self.close_oldest();
            }
            self.open_one();
        }
    }

    fn open_all(&mut self) {
        while self.open.len() < self.held {
            if !self.open_one() {
                return;
            }
        }
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close_oldest();
        }
    }

    fn open_one(&mut self) -> bool {
        let outcome = self.client.connect(&self.tunnel.listen.address().into());
        let peer = outcome
            .map_err(|end| format!("connect: {end:?}"))
            .and_then(|mut peer| {
                peer.echo(b"hello")
                    .map_err(|error| format!("first echo: {error}"))?;
                Ok(peer)
            });
        match peer {
            Ok(peer) => {
                self.open.push_back(peer);
                true
            }
            Err(failure) => {
                self.failures.push(failure);
                false
            }
        }
    }

    fn close_oldest(&mut self) {
        let Some(mut peer) = self.open.pop_front() else {
            return;
        };
        let outcome = peer
            .echo(b"goodbye")
            .map_err(|error| format!("last echo: {error}"))
            .and_then(|()| peer.close().map_err(|end| format!("close: {end:?}")));
        if let Err(failure) = outcome {
            self.failures.push(failure);
        }
    }
}
