use ghostunnel_testing::{ClientCertificates, Request, TlsClient, TlsServer, Version};
use proptest::prelude::*;

use super::super::test_support::{
    ALL, OurSide, Peer, Scene, everybody, hear, shake_hands, shake_hands_in_pieces,
};
use super::super::{ClientAuth, Opened};
use super::*;
use crate::authorization::Rules;

const BOTH: [Version; 2] = [Version::V12, Version::V13];

fn pair(scene: &Scene, version: Version, side: OurSide) -> (Handshake, Peer) {
    match side {
        OurSide::Server => (scene.server(), scene.good_client(version)),
        OurSide::Client => (scene.client("localhost"), scene.good_server(version)),
    }
}

fn hello_of(peer: &mut Peer) -> Vec<u8> {
    peer.take(usize::MAX)
}

/// Runs a handshake that must be refused: the text for the log, and what the peer heard.
fn refusal(ours: Handshake, mut peer: Peer) -> (String, Option<Error>) {
    let text = shake_hands(ours, &mut peer, usize::MAX)
        .expect_err("not admitted")
        .to_string();
    (text, peer.error)
}

#[test]
fn bytes_one_at_a_time_make_the_same_handshake() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (ours, mut peer) = pair(&scene, version, side);
        let established = shake_hands(ours, &mut peer, 1).expect("admitted");
        let name = if side == OurSide::Server {
            "client"
        } else {
            "server"
        };
        let peer_name = established.peer.expect("it was asked").subject();
        assert!(peer_name.contains(name), "{peer_name}");
        let mut session = established.session;
        assert_eq!(hear(&mut session, &peer.say(b"hello")).plain, b"hello");
    }
}

#[test]
fn a_peer_that_is_not_asked_has_no_name() {
    let scene = Scene::new();
    let configs = scene.server_configs(ClientAuth::Disabled);
    for version in BOTH {
        let client = TlsClient::trusting(&scene.pki.authority).version(version);
        let mut peer = Peer::new(client.session());
        let ours = configs.handshake().expect("a server can always start");
        let established = shake_hands(ours, &mut peer, usize::MAX).expect("admitted");
        assert!(established.peer.is_none());
    }
}

/// The alert that the peer hears, and the words of the log, for all that is wrong with a client.
#[test]
fn clients_are_refused_by_the_alert_that_fits() {
    use AlertDescription as Alert;
    let scene = Scene::new();
    let pki = &scene.pki;
    let expired = pki.authority.issue(&Request::named("late").expired());
    for (identity, alert12, alert13, words) in [
        (
            None,
            Alert::HandshakeFailure,
            Alert::CertificateRequired,
            "didn't provide a certificate",
        ),
        (
            Some(&pki.stranger),
            Alert::UnknownCA,
            Alert::UnknownCA,
            "signed by unknown authority",
        ),
        (
            Some(&expired),
            Alert::CertificateExpired,
            Alert::CertificateExpired,
            "has expired or is not yet valid",
        ),
    ] {
        for (version, alert) in [(Version::V12, alert12), (Version::V13, alert13)] {
            let client = TlsClient::trusting(&pki.authority).version(version);
            let client = match identity {
                None => client,
                Some(identity) => client.identity(identity),
            };
            let (text, heard) = refusal(scene.server(), Peer::new(client.session()));
            assert!(text.contains(words), "{version:?}: {text}");
            assert_eq!(heard, Some(Error::AlertReceived(alert)), "{version:?} {text}");
        }
    }
}

#[test]
fn a_verified_client_that_no_rule_admits_hears_bad_certificate() {
    let scene = Scene::new();
    let rules = Rules {
        common_names: vec!["somebody else".to_owned()],
        ..Rules::default()
    };
    let configs = scene.server_configs(ClientAuth::Required(rules));
    for version in BOTH {
        let ours = configs.handshake().expect("a server can always start");
        let (text, heard) = refusal(ours, scene.good_client(version));
        assert_eq!(text, "unauthorized: invalid principal, or principal not allowed");
        let expected = Error::AlertReceived(AlertDescription::BadCertificate);
        assert_eq!(heard, Some(expected), "{version:?}");
    }
}

#[test]
fn servers_are_refused_while_the_handshake_lasts() {
    let scene = Scene::new();
    let pki = &scene.pki;
    for version in BOTH {
        for (identity, name, words) in [
            (&pki.stranger, "localhost", "x509: certificate"),
            (&pki.server, "elsewhere.test", "elsewhere.test"),
        ] {
            let server = TlsServer::with_version(identity, &ClientCertificates::Unasked, version);
            let mut peer = Peer::new(server.session());
            let text = shake_hands(scene.client(name), &mut peer, usize::MAX)
                .expect_err("not admitted")
                .to_string();
            assert!(text.contains(words), "{text}");
            assert!(peer.session.is_handshaking(), "refused before Finished");
            let expected = Error::AlertReceived(AlertDescription::BadCertificate);
            assert_eq!(peer.error, Some(expected), "{version:?} {text}");
        }
    }
}

#[test]
fn peers_that_do_not_speak_tls_get_no_alert() {
    let scene = Scene::new();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\x80\x2e\x01\x00\x02",
        b"\x00\x00\x00\x00\x00",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\xff\x01\x00\x05hello",
    ] {
        let mut ours = scene.server();
        ours.receive(bytes);
        let error = ours.step().expect_err("no TLS");
        assert_eq!(
            error.to_string(),
            "tls: first record does not look like a TLS handshake"
        );
        assert_eq!(ours.outgoing(), b"");
    }
}

/// A ClientHello of TLS 1.1 with one suite; lengths are filled in.
fn old_hello() -> Vec<u8> {
    let body = [
        [3, 2].as_slice(),
        &[7; 32],
        &[0],
        &[0, 2, 0xc0, 0x13],
        &[1, 0],
        &[0, 0],
    ]
    .concat();
    let length = u8::try_from(body.len()).expect("short");
    let message = [&[1, 0, 0, length], body.as_slice()].concat();
    [&[22, 3, 1, 0, length + 4], message.as_slice()].concat()
}

#[test]
fn old_versions_are_refused_by_protocol_version() {
    let mut ours = Scene::new().server();
    ours.receive(&old_hello());
    let error = ours.step().expect_err("too old");
    assert_eq!(
        error.to_string(),
        "tls: client offered only unsupported versions: [302 301]"
    );
    assert_eq!(ours.outgoing(), [21, 3, 3, 0, 2, 2, 70]);
}

#[test]
fn a_message_that_is_longer_than_any_is_refused() {
    let mut ours = Scene::new().server();
    // A ClientHello of 64 KiB and one byte.
    ours.receive(&[22, 3, 1, 0, 5, 1, 1, 0, 0, 3]);
    let error = ours.step().expect_err("too long");
    assert!(error.to_string().starts_with("tls: "), "{error}");
}

#[test]
fn a_message_in_countless_records_is_refused_before_it_takes_much_memory() {
    let mut ours = Scene::new().server();
    // A ClientHello of 60000 bytes, each in a record of its own: 6 bytes on the wire.
    ours.receive(&[22, 3, 1, 0, 4, 1, 0, 0xea, 0x60]);
    let mut sent = 0;
    let error = loop {
        ours.receive(&[22, 3, 1, 0, 1, 3].repeat(100));
        sent += 600;
        match ours.step() {
            Ok(progress) => assert_eq!(progress, Progress::NeedsBytes),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "tls: handshake message is too long");
    assert!(sent <= LONGEST_UNOPENED + 600, "{sent}");
}

#[test]
fn a_peer_that_closes_in_the_same_breath_was_admitted() {
    let scene = Scene::new();
    for (version, side) in ALL {
        for last_words in ["", "bye"] {
            let (ours, mut peer) = pair(&scene, version, side);
            let established = shake_hands_and_leave(ours, &mut peer, last_words);
            let mut session = established.expect("admitted").session;
            let heard = hear(&mut session, b"");
            assert_eq!(heard.plain, last_words.as_bytes(), "{version:?} {side:?}");
            assert_eq!(
                heard.result.expect("in order"),
                Opened::Closed,
                "{version:?} {side:?}"
            );
        }
    }
}

/// The peer says its last words and close_notify as soon as it can, so that they arrive
/// together with the end of its handshake.
fn shake_hands_and_leave(
    mut ours: Handshake,
    peer: &mut Peer,
    last_words: &str,
) -> Result<Established, HandshakeError> {
    let mut is_gone = false;
    loop {
        let progress = ours.step();
        peer.give(&ours.outgoing());
        if progress? == Progress::Done {
            if !is_gone {
                // The peer had to wait for our last message.
                ours.receive(&[peer.say(last_words.as_bytes()), peer.say_goodbye()].concat());
            }
            return ours.finish();
        }
        let mut flight = peer.take(usize::MAX);
        if !peer.session.is_handshaking() && !is_gone {
            is_gone = true;
            flight.extend(peer.say(last_words.as_bytes()));
            flight.extend(peer.say_goodbye());
        }
        ours.receive(&flight);
    }
}

#[test]
fn a_peer_that_closes_before_it_has_finished_is_at_its_end() {
    let scene = Scene::new();
    let mut ours = scene.server();
    let mut peer = scene.good_client(Version::V13);
    ours.receive(&hello_of(&mut peer));
    ours.step().expect("a good hello");
    ours.receive(&[21, 3, 3, 0, 2, 1, 0]);
    assert_eq!(ours.step().expect_err("it has left").to_string(), "EOF");
}

#[test]
fn bytes_behind_the_handshake_are_kept_whatever_they_are() {
    let scene = Scene::new();
    let text = vec![b'x'; 200 * 1024];
    let mut ours = scene.server();
    let mut peer = scene.good_client(Version::V13);
    ours.receive(&hello_of(&mut peer));
    ours.step().expect("a good hello");
    peer.give(&ours.outgoing());
    let flight = [peer.take(usize::MAX), peer.say(&text)].concat();
    ours.receive(&flight);
    assert_eq!(ours.step(), Ok(Progress::Done));
    let mut session = ours.finish().expect("admitted").session;
    assert_eq!(hear(&mut session, b"").plain, text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_of_any_size_make_the_same_handshake(
        pieces in prop::collection::vec(1_usize..700, 1..40),
        case in 0_usize..4,
    ) {
        let scene = Scene::new();
        let (version, side) = ALL[case];
        let (ours, mut peer) = pair(&scene, version, side);
        let pieces = pieces.into_iter().cycle();
        prop_assert!(shake_hands_in_pieces(ours, &mut peer, pieces).is_ok());
    }

    /// Whatever a stranger sends, it does not get in and nothing panics.
    #[test]
    fn noise_is_never_admitted(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        kind in prop::sample::select(vec![20_u8, 21, 22, 23, 24]),
        piece in 1_usize..100,
    ) {
        let scene = noise_scene();
        let mut ours = scene.handshake().expect("a server can always start");
        let length = u16::try_from(noise.len()).expect("short").to_be_bytes();
        let bytes = [&[kind, 3, 1], length.as_slice(), &noise].concat();
        for piece in bytes.chunks(piece) {
            ours.receive(piece);
            match ours.step() {
                Ok(progress) => prop_assert_eq!(progress, Progress::NeedsBytes),
                Err(_) => break,
            }
        }
        prop_assert!(ours.finish().is_err());
    }

    /// A good client's bytes with one of them changed: refused, or harmless.
    #[test]
    fn a_flipped_bit_never_admits_a_stranger(at in 0_usize..4000, bit in 0_u8..8, case in 0_usize..2) {
        let scene = Scene::new();
        let stranger = TlsClient::trusting(&scene.pki.authority)
            .version(BOTH[case])
            .identity(&scene.pki.stranger);
        let mut peer = Peer::new(stranger.session());
        let mut ours = scene.server();
        let mut seen = 0;
        let admitted = loop {
            match ours.step() {
                Err(_) => break false,
                Ok(Progress::Done) => break ours.finish().is_ok(),
                Ok(Progress::NeedsBytes) => {}
            }
            peer.give(&ours.outgoing());
            let mut flight = peer.take(usize::MAX);
            if flight.is_empty() {
                break false;
            }
            if let Some(byte) = at.checked_sub(seen).and_then(|at| flight.get_mut(at)) {
                *byte ^= 1 << bit;
            }
            seen += flight.len();
            ours.receive(&flight);
        };
        prop_assert!(!admitted);
    }
}

fn noise_scene() -> &'static super::super::ServerConfigs {
    use std::sync::OnceLock;
    static CONFIGS: OnceLock<super::super::ServerConfigs> = OnceLock::new();
    CONFIGS.get_or_init(|| Scene::new().server_configs(ClientAuth::Required(everybody())))
}

#[test]
fn nothing_that_is_printed_for_debugging_holds_the_key() {
    let scene = Scene::new();
    let configs = scene.server_configs(ClientAuth::Required(everybody()));
    let handshake = configs.handshake().expect("a server can always start");
    let key = scene.pki.server.key_der();
    let shown = format!("{configs:?} {handshake:?}");
    // Any eight bytes of the key, as Debug prints byte strings.
    let private = key.get(36..68).expect("a P-256 key in PKCS #8");
    for window in private.windows(8) {
        let decimal = format!("{window:?}");
        let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(decimal.trim_matches(['[', ']'])));
        assert!(!shown.contains(&hex));
    }
}

#[test]
fn the_name_a_client_asks_for_keeps_its_spelling() {
    let scene = Scene::new();
    for (version, told) in [(Version::V12, "TLS 1.2"), (Version::V13, "TLS 1.3")] {
        for (name, asked, piece) in [
            ("LocalHost", Some("LocalHost"), usize::MAX),
            ("localhost", Some("localhost"), 7),
            ("LOCALHOST", Some("LOCALHOST"), 7),
            ("127.0.0.1", None, usize::MAX),
        ] {
            let client = TlsClient::trusting(&scene.pki.authority)
                .identity(&scene.pki.client)
                .version(version)
                .server_name(name);
            let mut peer = Peer::new(client.session());
            let established = shake_hands(scene.server(), &mut peer, piece).expect("admitted");
            let facts = Facts {
                version: told,
                server_name: asked.map(str::to_owned),
                application_protocol: None,
            };
            assert_eq!(established.facts, facts, "{name}");
        }
    }
    assert_eq!(as_spelled("other".to_owned(), Some("LocalHost")), "other");
    assert_eq!(as_spelled("other".to_owned(), None), "other");
}
