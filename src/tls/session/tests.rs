use ghostunnel_testing::{Content, Forger, Version};
use proptest::prelude::*;

use super::super::test_support::{ALL, OurSide, Peer, Scene, close, hear, speak};
use super::*;

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUEST: [u8; 5] = [24, 0, 0, 1, 1];
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

fn forged(scene: &Scene, version: Version, side: OurSide) -> (Session, Forger) {
    let (mut session, peer) = scene.established(version, side);
    assert!(hear(&mut session, b"").result.is_ok(), "as the relay begins");
    (session, Forger::new(peer.session))
}

/// A NewSessionTicket of TLS 1.3 with a ticket of so many bytes (RFC 8446, section 4.6.1).
fn ticket(length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).expect("two bytes").to_be_bytes();
    let body = [
        [0, 0, 0, 60].as_slice(),
        &[1, 2, 3, 4],
        &[1, 9],
        &[high, low],
        &vec![7; length],
        &[0, 0],
    ]
    .concat();
    let size = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[4], &size[1..], &body].concat()
}

#[test]
fn both_ends_understand_each_other_to_the_end() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut peer) = scene.established(version, side);
        let text: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
        peer.give(&speak(&mut session, &text).expect("open"));
        assert!(peer.received == text);
        let heard = hear(&mut session, &peer.say(&text));
        assert!(heard.plain == text);
        assert_eq!(heard.result.expect("open"), Opened::Open);
        assert_eq!(session.unopened(), b"");

        let heard = hear(&mut session, &peer.say_goodbye());
        assert_eq!(heard.result.expect("in order"), Opened::Closed);
        peer.give(&speak(&mut session, b"more").expect("one side has closed"));
        peer.give(&close(&mut session).expect("open"));
        assert!(peer.received.ends_with(b"more"));
        assert_eq!(peer.error, None);
        speak(&mut session, b"late").expect_err("closed");
    }
}

#[test]
fn what_follows_close_notify_is_ignored_and_not_kept() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        let mut bytes = forger.seal(Content::Alert, &CLOSE_NOTIFY);
        bytes.extend(forger.seal(Content::Data, &[b'x'; 9000]));
        bytes.extend([0xff; 9000]);
        let heard = hear(&mut session, &bytes);
        assert_eq!(heard.result.expect("in order"), Opened::Closed);
        assert_eq!((heard.plain.len(), session.unopened().len()), (0, 0));
        let sealed = speak(&mut session, b"still open").expect("this side is open");
        assert_eq!(
            forger.open(&sealed),
            [(Content::Data as u8, b"still open".to_vec())]
        );
        close(&mut session).expect("open");
    }
}

#[test]
fn a_key_update_that_is_asked_for_goes_ahead_of_the_next_data() {
    let scene = Scene::new();
    for side in [OurSide::Server, OurSide::Client] {
        let (mut session, mut forger) = forged(&scene, Version::V13, side);
        let heard = hear(
            &mut session,
            &forger.seal(Content::Handshake, &KEY_UPDATE_REQUEST),
        );
        assert_eq!(heard.result.expect("in order"), Opened::Open);
        let sealed = speak(&mut session, &[b'x'; 256 * 1024]).expect("there is room");
        // The record after it is sealed with the new key, which the forger does not have.
        let update = sealed.get(..27).expect("a record of a key update");
        assert_eq!(
            forger.open(update),
            [(Content::Handshake as u8, KEY_UPDATE.to_vec())]
        );
    }
}

/// What a peer can make us owe it does not grow with what it sends.
#[test]
fn key_updates_without_end_are_owed_one_answer() {
    let scene = Scene::new();
    let (mut session, peer) = scene.established(Version::V13, OurSide::Server);
    let mut peer = Follower::new(peer);
    let mut owed = 0;
    for _ in 0..500 {
        let heard = hear(&mut session, &peer.update_and_say(b"x"));
        assert_eq!(heard.plain, b"x");
        owed += heard.reply.len();
    }
    assert_eq!(owed, 0);
    let sealed = speak(&mut session, b"answer").expect("there is room");
    assert!(sealed.len() < 100, "{}", sealed.len());
    peer.0.give(&sealed);
    assert_eq!(peer.0.received, b"answer");
}

/// A library's session, which changes its keys.
struct Follower(Peer);

impl Follower {
    fn new(peer: Peer) -> Self {
        Self(peer)
    }

    fn update_and_say(&mut self, text: &[u8]) -> Vec<u8> {
        let Connection::Client(session) = &mut self.0.session else {
            panic!("the peer is a client");
        };
        session.refresh_traffic_keys().expect("TLS 1.3");
        let mut bytes = self.0.take(usize::MAX);
        bytes.extend(self.0.say(text));
        bytes
    }
}

use rustls::Connection;

#[test]
fn a_flood_of_key_updates_without_data_is_refused() {
    let scene = Scene::new();
    let (mut session, peer) = scene.established(Version::V13, OurSide::Server);
    let mut peer = Follower::new(peer);
    let refused = (0..100).find_map(|_| hear(&mut session, &peer.update_and_say(b"")).result.err());
    assert!(refused.is_some());
}

/// Messages after the handshake come in pieces while the other direction seals: rustls keeps
/// positions in bytes that it must be shown again, whoever calls it next.
#[test]
fn messages_in_pieces_do_not_disturb_the_other_direction() {
    let scene = Scene::new();
    for piece in [1, 2, 3, 4] {
        for (side, message) in [
            (OurSide::Server, KEY_UPDATE.to_vec()),
            (OurSide::Client, KEY_UPDATE.to_vec()),
            (OurSide::Client, ticket(40)),
            (OurSide::Client, [ticket(3), ticket(5)].concat()),
        ] {
            for bytes_at_once in [1, 7, 1000] {
                let (mut session, mut forger) = forged(&scene, Version::V13, side);
                let records = forger.seal_in_pieces(Content::Handshake, &message, piece);
                for bytes in records.chunks(bytes_at_once) {
                    let heard = hear(&mut session, bytes);
                    assert_eq!(heard.result.expect("in order"), Opened::Open);
                    let sealed = speak(&mut session, b"meanwhile").expect("open");
                    assert_eq!(
                        forger.open(&sealed),
                        [(Content::Data as u8, b"meanwhile".to_vec())]
                    );
                }
                assert_eq!(session.unopened(), b"");
                close(&mut session).expect("open");
            }
        }
    }
}

#[test]
fn a_session_can_be_closed_in_the_middle_of_anything() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        // A piece of a message, then a piece of a record.
        let mut bytes = forger.seal(Content::Handshake, &[4, 0]);
        bytes.extend(&forger.seal(Content::Handshake, &[0, 9, 9])[..7]);
        hear(&mut session, &bytes).result.expect("in order so far");
        speak(&mut session, b"x").expect("open");
        close(&mut session).expect("open");
        speak(&mut session, b"x").expect_err("closed");
    }
}

#[test]
fn data_within_a_message_is_refused() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        let piece = forger.seal(Content::Handshake, &KEY_UPDATE[..3]);
        hear(&mut session, &piece).result.expect("in order so far");
        let data = forger.seal(Content::Data, b"x");
        let heard = hear(&mut session, &data);
        heard.result.expect_err("out of order");
        assert_eq!(heard.plain, b"");
        is_dead(&mut session);
    }
}

/// After a failure every call fails, and none panics.
fn is_dead(session: &mut Session) {
    assert_eq!(session.unopened(), b"");
    speak(session, b"x").expect_err("dead");
    close(session).expect_err("dead");
    hear(session, b"x").result.expect_err("dead");
}

/// Only a client's session gets tickets; every ticket here ends within a record that begins the
/// next one, so that the library's bookkeeping never comes to rest.
#[test]
fn what_waits_for_the_end_of_a_message_is_bounded() {
    let scene = Scene::new();
    let (mut session, mut forger) = forged(&scene, Version::V13, OurSide::Client);
    let ticket = ticket(2000);
    let (head, tail) = ticket.split_at(10);
    hear(&mut session, &forger.seal(Content::Handshake, head))
        .result
        .expect("a piece");
    let mut most = 0;
    let refusal = (0..500).find_map(|_| {
        let record = forger.seal(Content::Handshake, &[tail, head].concat());
        let result = hear(&mut session, &record).result;
        most = most.max(session.unopened().len());
        result.err()
    });
    assert_eq!(
        refusal.map(|error| error.to_string()).as_deref(),
        Some("tls: handshake message is too long")
    );
    assert!(most <= LONGEST_UNOPENED, "{most}");
    is_dead(&mut session);
}

#[test]
fn records_of_the_largest_size_and_padding_are_opened() {
    const MOST: usize = 16 * 1024;
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        let heard = hear(&mut session, &forger.seal(Content::Data, &[b'x'; MOST]));
        heard.result.expect("the largest there is");
        assert_eq!(heard.plain.len(), MOST);
        if version == Version::V13 {
            let heard = hear(&mut session, &forger.seal_padded(Content::Data, b"x", MOST - 1));
            heard.result.expect("padding up to the limit");
            assert_eq!(heard.plain, b"x");
            // RFC 8446, section 5.4: nothing but padding is an unexpected_message.
            let heard = hear(&mut session, &forger.seal_padded(Content::Data, b"", 100));
            heard.result.expect("no data, one type");
            assert_eq!(heard.plain, b"");
        }
        let heard = hear(&mut session, &forger.seal(Content::Data, &[b'x'; MOST + 1]));
        let error = heard.result.expect_err("one byte too many");
        assert_eq!(error.to_string(), "local error: tls: record overflow");
        assert_eq!(forger.open(&heard.reply), [(Content::Alert as u8, vec![2, 22])]);
        is_dead(&mut session);
    }
}

#[test]
fn empty_records_without_end_are_refused() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        let mut endless = (0..100).map(|_| hear(&mut session, &forger.seal(Content::Data, b"")).result);
        assert!(endless.any(|result| result.is_err()));
        is_dead(&mut session);
    }
}

#[test]
fn a_record_that_was_tampered_with_is_answered_by_one_alert() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        let mut bytes = forger.seal(Content::Data, b"good");
        let mut bad = forger.seal(Content::Data, b"bad");
        *bad.last_mut().expect("a record") ^= 1;
        bytes.extend(bad);
        let heard = hear(&mut session, &bytes);
        let error = heard.result.expect_err("bad");
        assert_eq!(error.to_string(), "local error: tls: bad record MAC");
        assert_eq!(heard.plain, b"good");
        assert_eq!(forger.open(&heard.reply), [(Content::Alert as u8, vec![2, 20])]);
        is_dead(&mut session);
    }
}

#[test]
fn alerts_of_every_level_end_the_session_or_not() {
    let scene = Scene::new();
    for (version, alert, error) in [
        (
            Version::V13,
            [2, 40],
            Some("remote error: tls: handshake failure"),
        ),
        (
            Version::V12,
            [2, 40],
            Some("remote error: tls: handshake failure"),
        ),
        // user_canceled is a warning in both, and nothing follows from it.
        (Version::V13, [1, 90], None),
        (Version::V12, [1, 90], None),
        // Warnings are outlawed in TLS 1.3.
        (
            Version::V13,
            [1, 40],
            Some("remote error: tls: handshake failure"),
        ),
        (Version::V12, [1, 40], None),
        (
            Version::V13,
            [7, 40],
            Some("remote error: tls: handshake failure"),
        ),
        (
            Version::V12,
            [7, 40],
            Some("remote error: tls: handshake failure"),
        ),
        (Version::V13, [2, 200], Some("remote error: tls: alert(200)")),
    ] {
        for side in [OurSide::Server, OurSide::Client] {
            let (mut session, mut forger) = forged(&scene, version, side);
            let heard = hear(&mut session, &forger.seal(Content::Alert, &alert));
            let text = heard.result.err().map(|error| error.to_string());
            assert_eq!(text.as_deref(), error, "{version:?} {alert:?}");
            if text.is_some() {
                is_dead(&mut session);
            } else {
                speak(&mut session, b"x").expect("open");
            }
        }
    }
}

#[test]
fn renegotiation_is_declined_once_and_refused_then() {
    const NO_RENEGOTIATION: [u8; 2] = [1, 100];
    let scene = Scene::new();
    let hello = [
        [1, 0, 0, 43, 3, 3].as_slice(),
        &[7; 32],
        &[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 0],
    ]
    .concat();
    for (side, request) in [(OurSide::Client, vec![0, 0, 0, 0]), (OurSide::Server, hello)] {
        for piece in [1, 3, 1000] {
            let (mut session, mut forger) = forged(&scene, Version::V12, side);
            let mut reply = Vec::new();
            for bytes in forger
                .seal_in_pieces(Content::Handshake, &request, piece)
                .chunks(11)
            {
                let heard = hear(&mut session, bytes);
                heard.result.expect("declined, not refused");
                reply.extend(heard.reply);
                let sealed = speak(&mut session, b"meanwhile").expect("open");
                reply.extend(sealed);
            }
            let alerts = forger.open(&reply);
            let alerts = alerts.iter().filter(|(kind, _)| *kind == Content::Alert as u8);
            let alerts: Vec<_> = alerts.map(|(_, alert)| alert.as_slice()).collect();
            assert_eq!(alerts, [NO_RENEGOTIATION], "{side:?}");
            let again = forger.seal(Content::Handshake, &request);
            hear(&mut session, &again).result.expect_err("the second time");
            is_dead(&mut session);
        }
    }
}

#[test]
fn messages_that_do_not_belong_here_are_refused() {
    let scene = Scene::new();
    for (version, side) in ALL {
        for message in [
            // Finished, Certificate, CertificateRequest, an unknown one, and a lie about length.
            vec![20, 0, 0, 4, 1, 2, 3, 4],
            vec![11, 0, 0, 4, 0, 0, 0, 0],
            vec![13, 0, 0, 3, 0, 0, 0],
            vec![99, 0, 0, 0],
            vec![24, 0, 0, 2, 0, 0],
        ] {
            let (mut session, mut forger) = forged(&scene, version, side);
            let heard = hear(&mut session, &forger.seal(Content::Handshake, &message));
            heard.result.expect_err("out of place");
            is_dead(&mut session);
        }
        let (mut session, mut forger) = forged(&scene, version, side);
        let heard = hear(&mut session, &forger.seal(Content::ChangeCipherSpec, &[1]));
        heard.result.expect_err("out of place");
        is_dead(&mut session);
    }
}

#[test]
fn a_bad_record_after_our_close_notify_is_an_end_and_no_panic() {
    let scene = Scene::new();
    for (version, side) in ALL {
        let (mut session, mut forger) = forged(&scene, version, side);
        close(&mut session).expect("open");
        let mut bad = forger.seal(Content::Data, b"bad");
        *bad.last_mut().expect("a record") ^= 1;
        hear(&mut session, &bad).result.expect_err("bad");
        is_dead(&mut session);
    }
}

#[test]
fn hanging_up_says_close_notify_whatever_has_come() {
    let scene = Scene::new();
    for (version, side) in ALL {
        for text in [b"".as_slice(), b"unread", &[b'x'; 40_000]] {
            let (session, mut peer) = scene.established(version, side);
            let Session { engine, .. } = session;
            // What came behind the handshake, with a piece of a further record.
            let mut unopened = peer.say(text);
            unopened.extend([23, 3, 3, 0, 99, 1]);
            let mut session = Session::new(engine, unopened, false);
            peer.give(&session.hang_up());
            assert_eq!(peer.error, None);
            let state = peer.session.process_new_packets().expect("in order");
            assert!(state.peer_has_closed(), "{version:?} {side:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn streams_survive_any_cutting(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40_000), 1..4),
        pieces in prop::collection::vec(1_usize..30_000, 1..10),
        case in 0_usize..4,
    ) {
        let scene = Scene::new();
        let (version, side) = ALL[case];
        let (mut session, mut peer) = scene.established(version, side);
        let mut wire: Vec<u8> = texts.iter().flat_map(|text| peer.say(text)).collect();
        wire.extend(peer.say_goodbye());
        let mut plain = hear(&mut session, b"").plain;
        let mut sizes = pieces.iter().cycle();
        let mut closed = Opened::Open;
        while !wire.is_empty() {
            let size = wire.len().min(*sizes.next().expect("endless"));
            let piece: Vec<u8> = wire.drain(..size).collect();
            let heard = hear(&mut session, &piece);
            plain.extend(heard.plain);
            closed = heard.result.expect("in order");
            peer.give(&speak(&mut session, &piece[..1]).expect("open"));
        }
        prop_assert_eq!(closed, Opened::Closed);
        prop_assert!(plain == texts.concat());
        prop_assert_eq!(peer.error, None);
    }

    /// Whatever a peer seals, nothing panics, and a session that failed stays so.
    #[test]
    fn no_sequence_of_records_panics(
        records in prop::collection::vec(
            (prop::sample::select(vec![
                Content::ChangeCipherSpec, Content::Alert, Content::Handshake, Content::Data,
            ]), prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 4, 20, 24, 100, 255]), 0..12)),
            1..12,
        ),
        piece in 1_usize..60,
        case in 0_usize..4,
    ) {
        let scene = Scene::new();
        let (version, side) = ALL[case];
        let (mut session, mut forger) = forged(&scene, version, side);
        let wire: Vec<u8> = records
            .iter()
            .flat_map(|(content, payload)| forger.seal(*content, payload))
            .collect();
        let mut has_failed = false;
        for piece in wire.chunks(piece) {
            has_failed |= hear(&mut session, piece).result.is_err();
            let sealed = speak(&mut session, b"x");
            prop_assert_eq!(sealed.is_err(), has_failed);
        }
        prop_assert_eq!(close(&mut session).is_err(), has_failed);
    }
}
