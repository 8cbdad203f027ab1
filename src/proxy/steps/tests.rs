use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ghostunnel_testing::{
    Address, Backend, Behaviour, DEADLINE, End, TlsClient, TlsPeer, Version, eventually, read_to_end,
};

use super::super::{Limits, Proxy, Side, Surroundings, Workers};
use super::*;
use crate::lifecycle::{Drain, Pulse};
use crate::metrics::Registry;
use crate::net::{Inherited, ListenAddr, Reach, Resolver, TargetAddr};
use crate::tls::test_support::{Gate, Scene, everybody};
use crate::tls::{ClientAuth, ServerConfigs};

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("is not zero");

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    runtime.block_on(work)
}

/// A step that says when it begins, and goes on when it is told to.
fn stuck() -> (impl FnOnce() + Send, Receiver<()>, SyncSender<()>) {
    let (begun, has_begun) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let step = move || {
        begun.send(()).expect("heard");
        let _released_or_dropped = released.recv();
    };
    (step, has_begun, release)
}

#[test]
fn steps_run_elsewhere_and_give_their_outcome() {
    let steps = Steps::new(TWO);
    let here = thread::current().id();
    for _ in 0..3 {
        let there = block_on(steps.run(move || thread::current().id())).expect("an outcome");
        assert_ne!(there, here);
    }
    assert!(steps.pool.state().threads <= 2);
}

#[test]
fn a_step_that_nobody_waits_for_holds_its_permit_until_it_returns() {
    let steps = Steps::new(TWO);
    block_on(async {
        let (step, has_begun, release) = stuck();
        let waited = tokio::time::timeout(Duration::from_millis(20), steps.run(step)).await;
        waited.expect_err("given up");
        has_begun.recv_timeout(DEADLINE).expect("it has begun");
        assert_eq!(steps.permits.available_permits(), 1);

        // The other permit still serves, and both together are all there are.
        steps.run(|| ()).await.expect("an outcome");
        let (second, has_begun, _release) = stuck();
        let waited = tokio::time::timeout(Duration::from_millis(20), steps.run(second)).await;
        waited.expect_err("given up");
        has_begun.recv_timeout(DEADLINE).expect("it has begun");
        let third = tokio::time::timeout(Duration::from_millis(20), steps.run(|| ()));
        third.await.expect_err("no permit is left");

        release.send(()).expect("it waits");
        steps.run(|| ()).await.expect("the permit came back");
    });
}

#[test]
fn a_step_that_panics_is_lost_alone() {
    let steps = Steps::new(TWO);
    for _ in 0..5 {
        let outcome = block_on(steps.run(|| panic!("on purpose")));
        assert_eq!(outcome, Err::<(), _>(Lost));
    }
    assert_eq!(block_on(steps.run(|| 7)), Ok(7));
    eventually("all permits are back", || steps.permits.available_permits() == 2);
}

/// Two tunnels on one worker to one backend: the first has a key behind a gate.
struct Tunnels {
    scene: Scene,
    gate: Arc<Gate>,
    slow: Proxy,
    slow_address: Address,
    fast_address: Address,
    _workers: Arc<Workers>,
    _backend: Backend,
    _drain: Drain,
}

impl Tunnels {
    fn new(connect_timeout: Duration) -> Self {
        let (scene, gate) = (Scene::new(), Arc::default());
        let (workers, drain) = (Workers::start_some(1).expect("a thread"), Drain::new());
        let backend = Backend::tcp(Behaviour::Echo);
        let tunnel = |configs: ServerConfigs| {
            let limits = Limits {
                connect_timeout,
                close_timeout: DEADLINE,
                max_lifetime: None,
                max_concurrent: None,
            };
            let surroundings = Surroundings {
                metrics: Arc::new(Registry::disabled()),
                drain: drain.clone(),
                pulse: Pulse::default(),
                resolver: Resolver::new(),
            };
            let side = Side::Server {
                tls: Arc::new(configs),
                header: None,
                announcers: None,
            };
            let target = TargetAddr::parse(&backend.address().to_string(), Reach::LocalOnly);
            let proxy = Proxy::new(side, target.expect("an address"), limits, surroundings);
            let address = ListenAddr::parse("127.0.0.1:0", Reach::Anywhere).expect("an address");
            let bound = address.bind(&mut Inherited::default()).expect("a free port");
            let listener = bound.listen().expect("it is ours");
            let address: std::net::SocketAddr = listener.address().parse().expect("an address");
            proxy.serve(listener, &workers, 0);
            (proxy, Address::from(address))
        };
        let (slow, slow_address) = tunnel(scene.server_with_remote_key(&gate));
        let (_, fast_address) = tunnel(scene.server_configs(ClientAuth::Required(everybody())));
        Self {
            scene,
            gate,
            slow,
            slow_address,
            fast_address,
            _workers: workers,
            _backend: backend,
            _drain: drain,
        }
    }

    fn connect(&self, address: &Address, version: Version) -> Result<TlsPeer, End> {
        let pki = &self.scene.pki;
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        client.version(version).connect(address)
    }

    fn is_served(&self, address: &Address) {
        let mut peer = self.connect(address, Version::V13).expect("admitted");
        peer.write_all(b"hello").expect("open");
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).expect("an echo");
        assert_eq!(&answer, b"hello");
    }

    fn free_permits(&self) -> usize {
        self.slow.shared.steps.permits.available_permits()
    }
}

#[test]
fn a_slow_key_holds_up_its_own_connections_only() {
    let tunnels = Tunnels::new(DEADLINE);
    thread::scope(|scope| {
        for version in Version::BOTH {
            let tunnels = &tunnels;
            scope.spawn(move || {
                let mut peer = tunnels
                    .connect(&tunnels.slow_address, version)
                    .expect("admitted at last");
                peer.end_writing();
                assert_eq!(read_to_end(&mut peer), (Vec::new(), End::Closed));
            });
        }
        eventually("both wait for their signature", || tunnels.gate.waiting() == 2);
        tunnels.is_served(&tunnels.fast_address);
        tunnels.gate.open();
    });
    tunnels.is_served(&tunnels.slow_address);
}

#[test]
fn a_stuck_key_is_left_at_the_connect_timeout_and_keeps_its_permits() {
    let tunnels = Tunnels::new(Duration::from_millis(300));
    let most = AT_ONCE.get();
    thread::scope(|scope| {
        for _ in 0..most + 4 {
            scope.spawn(|| {
                let refused = tunnels.connect(&tunnels.slow_address, Version::V13);
                refused.expect_err("nobody has signed");
            });
        }
    });
    assert_eq!((tunnels.gate.waiting(), tunnels.free_permits()), (most, 0));
    tunnels.is_served(&tunnels.fast_address);
    tunnels.gate.open();
    eventually("all permits are back", || tunnels.free_permits() == most);
    tunnels.is_served(&tunnels.slow_address);
}
