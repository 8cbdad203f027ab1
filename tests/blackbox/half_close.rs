//! How connections end: every way, on either side, in both modes, over TCP and UNIX sockets.
//!
//! The tunnels run with the default close timeout of a minute, longer than any wait of a test:
//! an end that arrives at all has been passed on at once.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use ghostunnel_testing::{
    AlertDescription, Backend, Behaviour, ClientCertificates, End, Pki, Plain, ReservedPort, TlsClient,
    TlsServer, Version, eventually, read_to_end, within,
};

use crate::pair::{CLIENT, Mode, Network, Peer, ROUTES, Route, SERVER, Tunnel, command};

const LAST_WORDS: &[u8] = b"last words";

/// Runs `check` for both ends of a connection in turn: it is given who ends it, and the other.
fn from_both_ends(tunnel: &Tunnel, check: impl Fn(Peer, Peer)) {
    let (near, far) = tunnel.connect();
    check(near, far);
    let (near, far) = tunnel.connect();
    check(far, near);
}

/// Who goes says goodbye and goes; the other gets every byte and then an orderly end.
fn goes(mut leaver: Peer, stayer: &mut Peer, leave: impl FnOnce(Peer)) {
    leaver.say(LAST_WORDS);
    leave(leaver);
    assert_eq!(stayer.rest(), (LAST_WORDS.to_vec(), End::Closed));
}

#[test]
fn a_half_close_passes_at_once_and_leaves_the_other_direction_open() {
    for route in ROUTES {
        for version in [Version::V12, Version::V13] {
            let mut tunnel = Tunnel::start(route, &[]);
            tunnel.speak(version);
            from_both_ends(&tunnel, |mut first, mut second| {
                first.say(b"question");
                first.end_writing();
                assert_eq!(second.rest(), (b"question".to_vec(), End::Closed));
                for word in [b"one", b"two"] {
                    second.say(word);
                    first.expect(word);
                }
                second.end_writing();
                assert_eq!(first.rest(), (vec![], End::Closed));
            });
            tunnel.wait_closed(2);
            tunnel.assert_no_copy_errors();
        }
    }
}

#[test]
fn nothing_but_an_end_can_be_said() {
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        from_both_ends(&tunnel, |mut first, mut second| {
            first.end_writing();
            assert_eq!(second.rest(), (vec![], End::Closed));
            second.end_writing();
            assert_eq!(first.rest(), (vec![], End::Closed));
        });
        tunnel.wait_closed(2);
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn close_notify_arrives_while_the_tcp_connection_stays_open() {
    for route in [SERVER, CLIENT] {
        let tunnel = Tunnel::start(route, &[]);
        let (near, far) = tunnel.connect();
        let (mut tls, mut plain) = if near.is_tls() { (near, far) } else { (far, near) };
        plain.end_writing();
        assert_eq!(tls.rest(), (vec![], End::Closed));
        // No FIN behind it: a read still waits.
        tls.socket().set_timeout(Duration::from_millis(100));
        let mut socket = tls.socket();
        let end = socket.read(&mut [0]).map_err(|error| End::from(&error));
        assert_eq!(end, Err(End::TimedOut));
        tls.say(b"answer");
        plain.expect(b"answer");
    }
}

#[test]
fn a_full_close_is_an_end_for_the_other_side() {
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        from_both_ends(&tunnel, |leaver, mut stayer| {
            goes(leaver, &mut stayer, Peer::close);
            stayer.close();
        });
        tunnel.wait_closed(2);
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn writing_to_a_peer_that_has_closed_ends_the_pair() {
    thread::scope(|scope| {
        // Side by side, since the tunnel goes on reading for a second in each case.
        for (route, is_near) in ROUTES.iter().flat_map(|route| [(*route, true), (*route, false)]) {
            scope.spawn(move || {
                let tunnel = Tunnel::start(route, &[]);
                let (near, far) = tunnel.connect();
                let (leaver, mut stayer) = if is_near { (near, far) } else { (far, near) };
                goes(leaver, &mut stayer, Peer::close);
                eventually("the pair has ended", || {
                    let _may_be_closed = stayer.write(b"x");
                    tunnel.process.count_lines("closed pipe") == 1
                });
                tunnel.assert_no_copy_errors();
            });
        }
    });
}

#[test]
fn a_reset_is_an_orderly_end_for_the_other_side() {
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        let mut pairs = 0;
        for is_near in [true, false] {
            let (near, far) = tunnel.connect();
            let (leaver, mut stayer) = if is_near { (near, far) } else { (far, near) };
            pairs += 1;
            if leaver.is_tcp() {
                goes(leaver, &mut stayer, Peer::reset);
            }
        }
        tunnel.wait_closed(pairs);
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn a_tls_stream_that_ends_between_records_is_at_its_end() {
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        let (near, far) = tunnel.connect();
        let (mut tls, mut plain) = if near.is_tls() { (near, far) } else { (far, near) };
        tls.say(LAST_WORDS);
        tls.socket().end_writing();
        assert_eq!(plain.rest(), (LAST_WORDS.to_vec(), End::Closed));
        plain.say(b"answer");
        tls.expect(b"answer");
        plain.close();
        assert_eq!(tls.rest(), (vec![], End::Closed));
        tunnel.wait_closed(1);
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn no_byte_is_lost_both_ways_at_once() {
    let pattern: Vec<u8> = (0..16 << 20).map(Backend::source_byte).collect();
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        let volumes = [
            (0, "0 bytes"),
            (1, "1 bytes"),
            (1 << 20, "1.0 MiB"),
            (16 << 20, "16.0 MiB"),
        ];
        for (volume, text) in volumes {
            let (near, far) = tunnel.connect();
            let mark = tunnel.process.mark();
            exchange(near, far, &pattern[..volume]);
            let line = tunnel.process.wait_for_line_after(mark, "closed pipe");
            let summary = format!("[forwarded {text}, returned {text}, open ");
            assert!(line.contains(&summary), "{line}");
        }
        tunnel.assert_no_copy_errors();
    }
}

/// Sends `bytes` both ways at once.
fn exchange(near: Peer, far: Peer, bytes: &[u8]) {
    thread::scope(|scope| {
        for peer in [near, far] {
            let (mut receiver, mut sender) = peer.split();
            scope.spawn(move || {
                sender.write_all(bytes).expect("the tunnel takes bytes");
                sender.end_writing();
                // Keeps the socket until both directions have ended.
                sender
            });
            scope.spawn(move || {
                let (read, end) = read_to_end(&mut receiver);
                assert_eq!((read.len(), end), (bytes.len(), End::Closed));
                assert!(read == bytes, "bytes have changed on the way");
            });
        }
    });
}

#[test]
fn an_answer_before_a_reset_is_delivered_every_time() {
    // Fits the first window of a connection: a reset throws away what could not be sent yet.
    const ANSWER: usize = 32 * 1024;
    let answer: Vec<u8> = (0..ANSWER).map(Backend::source_byte).collect();
    for mode in [Mode::Server, Mode::Client] {
        let (pki, port) = (Pki::new(), ReservedPort::new());
        let behaviour = Behaviour::AnswerAndReset(answer.clone());
        let backend = match mode {
            Mode::Server => Backend::tcp(behaviour),
            Mode::Client => Backend::tls(
                TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority)),
                behaviour,
            ),
        };
        let process = command(
            mode,
            &pki,
            &port.address().to_string(),
            &backend.address().to_string(),
        )
        .start();
        process.wait_listening(port.port());
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        for round in 0..50 {
            let socket = Plain::connect(&port.address().into()).expect("it listens");
            let mut peer: Peer = match mode {
                Mode::Server => client.handshake(socket).expect("admitted").into(),
                Mode::Client => socket.into(),
            };
            peer.say(b"question");
            let (read, end) = peer.rest();
            assert_eq!((read.len(), end), (ANSWER, End::Closed), "round {round}");
            assert!(read == answer);
        }
        assert_eq!(process.count_lines("error during copy"), 0);
    }
}

#[test]
fn the_answer_to_an_unfinished_upload_arrives() {
    for route in ROUTES {
        let tunnel = Tunnel::start(route, &[]);
        from_both_ends(&tunnel, |mut judge, uploader| {
            let (mut receiver, mut sender) = uploader.split();
            thread::scope(|scope| {
                scope.spawn(move || {
                    // More than fits the buffers on the way; the rest may meet a reset.
                    let _ = sender.write_all(&vec![0; 16 << 20]);
                    sender
                });
                judge.expect(&[0; 1000]);
                judge.say(b"too large");
                // With bytes unread, so that the kernel resets a TCP connection.
                judge.close();
                let mut answer = [0; 9];
                receiver
                    .read_exact(&mut answer)
                    .expect("the answer comes before any reset");
                assert_eq!(&answer, b"too large");
                drop(receiver);
            });
        });
        tunnel.wait_closed(2);
        tunnel.assert_no_copy_errors();
    }
}

#[test]
fn a_long_answer_survives_an_upload_that_nobody_reads() {
    let answer: Vec<u8> = (0..300_000).map(Backend::source_byte).collect();
    // The one that judges is on a UNIX socket: what it has said is the tunnel's at once, where
    // TCP would lose it when the judge closes with bytes unread.
    let (server, client) = (
        Route {
            far: Network::Unix,
            ..SERVER
        },
        Route {
            near: Network::Unix,
            ..CLIENT
        },
    );
    for route in [server, client] {
        let tunnel = Tunnel::start(route, &[]);
        let (near, far) = tunnel.connect();
        let (uploader, mut judge) = if near.is_tls() { (near, far) } else { (far, near) };
        // Most of the answer waits in the tunnel's socket, which a reset would empty.
        uploader.socket().limit_buffers(64 * 1024);
        let (mut receiver, mut sender) = uploader.split();
        thread::scope(|scope| {
            scope.spawn(move || {
                let _ = sender.write_all(&vec![0; 4 << 20]);
                sender
            });
            judge.expect(&[0; 1000]);
            judge.say(&answer);
            judge.close();
            // Time for a tunnel that would close too early to do so.
            let is_closed = || tunnel.process.count_lines("closed pipe") > 0;
            let _ = within(Duration::from_millis(100), || is_closed().then_some(()));
            let (read, end) = read_to_end(&mut receiver);
            assert_eq!((read.len(), end), (answer.len(), End::Closed));
            assert!(read == answer);
        });
        drop(receiver);
        tunnel.wait_closed(1);
        tunnel.assert_no_copy_errors();
    }
}

/// A connection whose TLS end can be made to send any bytes at all.
fn with_tls_end(route: Route, check: impl FnOnce(&Tunnel, Peer, Peer)) {
    let tunnel = Tunnel::start(route, &[]);
    let (near, far) = tunnel.connect();
    let (tls, plain) = if near.is_tls() { (near, far) } else { (far, near) };
    check(&tunnel, tls, plain);
}

#[test]
fn a_stream_cut_inside_a_record_is_reported() {
    for route in ROUTES {
        for cut in [&[23][..], &[23, 3, 3, 1, 0], &[23, 3, 3, 1, 0, 7, 7, 7]] {
            with_tls_end(route, |tunnel, mut tls, mut plain| {
                tls.say(LAST_WORDS);
                let mut socket = tls.socket();
                socket.write_all(cut).expect("the tunnel takes bytes");
                socket.end_writing();
                assert_eq!(plain.rest(), (LAST_WORDS.to_vec(), End::Closed));
                let line = tunnel.process.wait_for_line("error during copy");
                assert!(line.ends_with("error during copy: unexpected EOF"), "{line}");
                // Only this direction is broken.
                plain.say(b"answer");
                plain.end_writing();
                assert_eq!(tls.rest(), (b"answer".to_vec(), End::Closed));
                tunnel.wait_closed(1);
                assert_eq!(tunnel.process.count_lines("error during copy"), 1);
            });
        }
    }
}

#[test]
fn a_corrupted_record_is_answered_by_an_alert_and_ends_the_pair() {
    for route in ROUTES {
        with_tls_end(route, |tunnel, mut tls, mut plain| {
            tls.say(LAST_WORDS);
            let mut socket = tls.socket();
            let record = [&[23, 3, 3, 0, 64], [9; 64].as_slice()].concat();
            socket.write_all(&record).expect("the tunnel takes bytes");
            assert_eq!(plain.rest(), (LAST_WORDS.to_vec(), End::Closed));
            assert_eq!(tls.rest(), (vec![], End::Alert(AlertDescription::BadRecordMac)));
            // Although the plain end is still open.
            tunnel.wait_closed(1);
            let line = tunnel.process.wait_for_line("error during copy");
            assert!(
                line.ends_with("error during copy: local error: tls: bad record MAC"),
                "{line}"
            );
            assert_eq!(tunnel.process.count_lines("error during copy"), 1);
        });
    }
}

#[test]
fn a_fatal_alert_is_named_and_ends_the_pair() {
    for route in ROUTES {
        with_tls_end(route, |tunnel, mut tls, mut plain| {
            tls.say(LAST_WORDS);
            let Peer::Tls(peer) = &mut tls else {
                panic!("the TLS end")
            };
            peer.send_fatal_alert();
            assert_eq!(plain.rest(), (LAST_WORDS.to_vec(), End::Closed));
            tunnel.wait_closed(1);
            let line = tunnel.process.wait_for_line("error during copy");
            assert!(
                line.ends_with("error during copy: remote error: tls: bad record MAC"),
                "{line}"
            );
            assert_eq!(tunnel.process.count_lines("error during copy"), 1);
        });
    }
}

#[test]
fn bytes_that_are_no_records_end_the_pair() {
    for route in [SERVER, CLIENT] {
        with_tls_end(route, |tunnel, tls, mut plain| {
            let mut socket = tls.socket();
            // A record type that does not exist, and a length that is not allowed.
            socket.write_all(&[0xff; 4096]).expect("the tunnel takes bytes");
            assert_eq!(plain.rest(), (vec![], End::Closed));
            tunnel.wait_closed(1);
            assert_eq!(tunnel.process.count_lines("error during copy"), 1);
        });
    }
}

#[test]
fn one_direction_ends_while_the_other_is_blocked() {
    for route in [
        SERVER,
        CLIENT,
        Route {
            near: Network::Unix,
            ..CLIENT
        },
    ] {
        let tunnel = Tunnel::start(route, &[]);
        from_both_ends(&tunnel, |mut quiet, flooding| {
            let (mut receiver, mut sender) = flooding.split();
            thread::scope(|scope| {
                scope.spawn(move || {
                    sender
                        .write_all(&vec![0; 16 << 20])
                        .expect("it is read in the end");
                    sender.end_writing();
                    sender
                });
                quiet.expect(&[0; 1000]);
                // Reads nothing more, yet its own end gets through.
                quiet.say(LAST_WORDS);
                quiet.end_writing();
                assert_eq!(read_to_end(&mut receiver), (LAST_WORDS.to_vec(), End::Closed));
                let (rest, end) = quiet.rest();
                assert_eq!((rest.len(), end), ((16 << 20) - 1000, End::Closed));
            });
        });
        tunnel.wait_closed(2);
        tunnel.assert_no_copy_errors();
    }
}
