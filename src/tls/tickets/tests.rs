use ghostunnel_pki::Usage;
use ghostunnel_testing::{Issued, Request, TlsClient, Version};
use proptest::prelude::*;

use super::super::test_support::{Peer, Scene, everybody, shake_hands};
use super::super::{ClientAuth, Established, HandshakeError, ServerConfigs};
use super::*;
use crate::authorization::{Exclusions, Requirements, Rules};

/// A client that resumes.
fn client(scene: &Scene, version: Version) -> TlsClient {
    let client = TlsClient::trusting(&scene.pki.authority).identity(&scene.pki.client);
    client.version(version).resuming()
}

/// Connects, and lets the client have what comes behind the handshake.
fn connect(configs: &ServerConfigs, client: &TlsClient) -> Result<Established, HandshakeError> {
    let ours = configs.handshake().expect("a server can always start");
    let mut peer = Peer::new(client.session());
    let established = shake_hands(ours, &mut peer, usize::MAX)?;
    assert_eq!(peer.error, None);
    Ok(established)
}

fn named(common_name: &str) -> Rules {
    Rules {
        common_names: vec![common_name.to_owned()],
        ..Rules::default()
    }
}

#[test]
fn resumed_session_is_authorized_again() {
    let scene = Scene::new();
    for version in Version::BOTH {
        let configs = scene.server_configs(ClientAuth::Required(named("client")));
        let client = client(&scene, version);
        let first = connect(&configs, &client).expect("admitted");
        assert!(!first.is_resumed);
        for _ in 0..3 {
            let next = connect(&configs, &client).expect("admitted");
            assert!(next.is_resumed, "{version:?}");
            assert_eq!(next.admission, first.admission);
            let chains = [&first, &next].map(|end| end.peer.as_ref().expect("it was asked").leaf().der());
            assert_eq!(chains[0], chains[1]);
        }
        // The rules change, and nothing else: its tickets can still be opened.
        let configs = configs.with_rules(&scene.server_credentials(), named("somebody else"));
        let refusal = connect(&configs, &client).expect_err("not on the list");
        assert_eq!(
            refusal.to_string(),
            "unauthorized: invalid principal, or principal not allowed"
        );
    }
}

#[test]
fn exclusions_and_requirements_hold_for_resumed_sessions_too() {
    let scene = Scene::new();
    let denied = Exclusions {
        common_names: vec!["client".to_owned()],
        ..Exclusions::default()
    };
    let required = Requirements {
        common_names: vec!["somebody else".to_owned()],
        ..Requirements::default()
    };
    for version in Version::BOTH {
        for rules in [
            Rules {
                denied: denied.clone(),
                ..everybody()
            },
            Rules {
                required: required.clone(),
                ..everybody()
            },
        ] {
            let configs = scene.server_configs(ClientAuth::Required(everybody()));
            let client = client(&scene, version);
            connect(&configs, &client).expect("admitted");
            let configs = configs.with_rules(&scene.server_credentials(), rules);
            connect(&configs, &client).expect_err("kept out");
        }
    }
}

#[test]
fn rules_that_still_admit_the_owner_of_a_ticket_admit_it_for_their_own_reason() {
    let scene = Scene::new();
    for version in Version::BOTH {
        let configs = scene.server_configs(ClientAuth::Required(everybody()));
        let client = client(&scene, version);
        connect(&configs, &client).expect("admitted");
        let configs = configs.with_rules(&scene.server_credentials(), named("client"));
        let next = connect(&configs, &client).expect("admitted");
        assert!(next.is_resumed);
        assert_eq!(next.admission.reason().to_string(), "common name \"client\"");
    }
}

#[test]
fn tickets_die_with_the_configuration_that_issued_them() {
    let scene = Scene::new();
    for version in Version::BOTH {
        let configs = scene.server_configs(ClientAuth::Required(everybody()));
        let client = client(&scene, version);
        connect(&configs, &client).expect("admitted");
        assert!(connect(&configs, &client).expect("admitted").is_resumed);
        configs.renew(&scene.server_credentials()).expect("the same");
        assert!(!connect(&configs, &client).expect("admitted").is_resumed);
        assert!(connect(&configs, &client).expect("admitted").is_resumed);
    }
}

#[test]
fn clients_that_are_not_asked_resume_without_a_name() {
    let scene = Scene::new();
    for version in Version::BOTH {
        let configs = scene.server_configs(ClientAuth::Disabled);
        let client = client(&scene, version);
        assert!(!connect(&configs, &client).expect("admitted").is_resumed);
        let next = connect(&configs, &client).expect("admitted");
        assert!(next.is_resumed && next.peer.is_none());
    }
}

#[test]
fn every_handshake_gives_one_ticket() {
    let scene = Scene::new();
    let configs = scene.server_configs(ClientAuth::Required(everybody()));
    let client = client(&scene, Version::V13);
    // Two handshakes at a time have one ticket between them.
    connect(&configs, &client).expect("admitted");
    let mut peers = [0, 1].map(|_| Peer::new(client.session()));
    let resumed = peers.each_mut().map(|peer| {
        let ours = configs.handshake().expect("a server can always start");
        shake_hands(ours, peer, usize::MAX).expect("admitted").is_resumed
    });
    assert_eq!(resumed, [true, false]);
}

/// Tickets outside of any handshake.
struct Desk {
    scene: Scene,
    keys: TicketKeys,
}

impl Desk {
    fn new() -> Self {
        Self {
            scene: Scene::new(),
            keys: TicketKeys::default(),
        }
    }

    fn conditions(&self) -> Arc<Conditions> {
        Arc::new(Conditions {
            anchors: Arc::clone(self.scene.server_credentials().anchors()),
            bundles: None,
            rules: everybody(),
            usage: Usage::ClientAuth,
            server_name: None,
        })
    }

    fn ticketer(&self) -> (Arc<dyn ProducesTickets>, Arc<Verdict>) {
        let verdict = Arc::new(Verdict::default());
        let ticketer = self.keys.ticketer(Some(self.conditions()), Arc::clone(&verdict));
        (ticketer.expect("there is randomness"), verdict)
    }

    fn keys(&self) -> &dyn ProducesTickets {
        &**self.keys.keys().expect("there is randomness")
    }

    /// A ticket of a client that has shown this certificate so long ago.
    fn ticket(&self, owner: &Issued, age: Duration) -> Vec<u8> {
        let contents = proof(owner, age).write_before(STATE).expect("short");
        self.keys().encrypt(&contents).expect("random bytes")
    }

    fn opens(&self, ticket: &[u8]) -> bool {
        let (ticketer, verdict) = self.ticketer();
        let state = ticketer.decrypt(ticket);
        assert!(state.is_none() || state.as_deref() == Some(STATE));
        assert_eq!(verdict.proof().is_some(), state.is_some());
        state.is_some()
    }
}

const STATE: &[u8] = b"what rustls wants back";

fn proof(owner: &Issued, age: Duration) -> Proof {
    let now = UnixTime::now().as_secs();
    Proof {
        chain: owner.chain(),
        given_at: UnixTime::since_unix_epoch(Duration::from_secs(now.saturating_sub(age.as_secs()))),
    }
}

#[test]
fn tickets_are_opened_for_those_whom_a_full_handshake_would_admit() {
    let desk = Desk::new();
    let pki = &desk.scene.pki;
    let expired = pki.authority.issue(&Request::named("late").expired());
    let middle = pki.authority.intermediate(&Request::named("middle"));
    let below = middle.issue(&Request::named("below"));
    let fresh = Duration::ZERO;
    let almost = LONGEST_SESSION - Duration::from_secs(5);
    for (owner, age, opens) in [
        (&pki.client, fresh, true),
        (&below, fresh, true),
        (&pki.client, almost, true),
        (&pki.client, LONGEST_SESSION, false),
        (&expired, fresh, false),
        (&pki.stranger, fresh, false),
    ] {
        assert_eq!(desk.opens(&desk.ticket(owner, age)), opens, "{age:?}");
    }
    let mut early = proof(&pki.client, fresh);
    early.given_at = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 100));
    let early = desk.keys().encrypt(&early.write_before(STATE).expect("short"));
    assert!(!desk.opens(&early.expect("random bytes")), "from the future");
}

#[test]
fn a_ticket_without_a_chain_is_for_servers_that_do_not_ask() {
    let desk = Desk::new();
    let nobody = Proof::none().write_before(STATE).expect("short");
    let nobody = desk.keys().encrypt(&nobody).expect("random bytes");
    assert!(!desk.opens(&nobody));
    let somebody = desk.ticket(&desk.scene.pki.client, Duration::ZERO);
    for (ticket, opens) in [(nobody, true), (somebody, false)] {
        let ticketer = desk.keys.ticketer(None, Arc::default());
        let ticketer = ticketer.expect("there is randomness");
        assert_eq!(ticketer.decrypt(&ticket).is_some(), opens);
    }
}

#[test]
fn what_was_not_sealed_here_is_not_opened() {
    let desk = Desk::new();
    let mut ticket = desk.ticket(&desk.scene.pki.client, Duration::ZERO);
    assert!(desk.opens(&ticket));
    let last = ticket.len() - 1;
    ticket[last] ^= 1;
    assert!(!desk.opens(&ticket));
    ticket[last] ^= 1;
    assert!(!desk.opens(&ticket[..last]) && !desk.opens(&[]) && !desk.opens(&[0; 100_000]));
    assert!(!Desk::new().opens(&ticket));
}

#[test]
fn one_ticket_of_a_hello_is_judged() {
    let desk = Desk::new();
    let pki = &desk.scene.pki;
    let (ticketer, _) = desk.ticketer();
    assert_eq!(ticketer.decrypt(b"of another key"), None);
    assert_eq!(
        ticketer.decrypt(&desk.ticket(&pki.stranger, Duration::ZERO)),
        None
    );
    assert_eq!(ticketer.decrypt(&desk.ticket(&pki.client, Duration::ZERO)), None);
}

#[test]
fn a_session_counts_from_the_full_handshake_however_often_it_is_resumed() {
    let desk = Desk::new();
    let old = Duration::from_secs(3600);
    let (ticketer, verdict) = desk.ticketer();
    ticketer
        .decrypt(&desk.ticket(&desk.scene.pki.client, old))
        .expect("young enough");
    let first = verdict.proof().expect("it was opened");
    let next = ticketer.encrypt(STATE).expect("a ticket for the next time");
    let contents = desk.keys().decrypt(&next).expect("our own");
    assert_eq!(Proof::read_before(&contents), Some((first, STATE)));
}

#[test]
fn without_a_verified_chain_there_is_no_ticket() {
    let desk = Desk::new();
    let (ticketer, _) = desk.ticketer();
    assert_eq!(ticketer.encrypt(STATE), None);
}

#[test]
fn chains_that_are_too_long_get_no_ticket() {
    let desk = Desk::new();
    let certificate = |length: usize| CertificateDer::from(vec![0; length]);
    let ticket = |chain: Vec<CertificateDer<'static>>| {
        let given_at = UnixTime::now();
        Proof { chain, given_at }.write_before(STATE)
    };
    let room = LONGEST_CONTENTS - TIME - COUNT - 2 - STATE.len();
    let longest = ticket(vec![certificate(room)]).expect("it just fits");
    let sealed = desk.keys().encrypt(&longest).expect("random bytes");
    assert!(sealed.len() <= LONGEST_CONTENTS + SEAL);
    assert_eq!(ticket(vec![certificate(room + 1)]), None);
    assert_eq!(ticket(vec![certificate(0); 256]), None);
}

#[test]
fn a_resumed_session_of_somebody_else_is_nobodys() {
    let desk = Desk::new();
    let pki = &desk.scene.pki;
    for (leaf, is_known) in [(pki.client.der(), true), (pki.server.der(), false), (&[], false)] {
        let (ticketer, verdict) = desk.ticketer();
        ticketer
            .decrypt(&desk.ticket(&pki.client, Duration::ZERO))
            .expect("admitted");
        assert_eq!(verdict.take_resumed(leaf).is_some(), is_known);
        assert_eq!(verdict.take_resumed(leaf), None, "taken");
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        seconds in any::<u64>(),
        state in prop::collection::vec(any::<u8>(), 0..100),
        cut in 0_usize..3000,
    ) {
        let proof = Proof {
            chain: chain.into_iter().map(CertificateDer::from).collect(),
            given_at: UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        };
        let contents = proof.write_before(&state).expect("short");
        prop_assert_eq!(Proof::read_before(&contents), Some((proof.clone(), state.as_slice())));
        // Cut off, it is what was written with less of the state, or nothing.
        let cut = contents.get(..cut).unwrap_or_default();
        if let Some((other, rest)) = Proof::read_before(cut) {
            prop_assert_eq!(other, proof);
            prop_assert!(state.starts_with(rest));
        }
    }
}
