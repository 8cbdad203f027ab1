//! The log: its layout, its classes, and readers of it that are slow or gone.

use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ghostunnel_testing::{
    Backend, Behaviour, End, Exit, Pki, Plain, Process, Request, ReservedPort, Signal, TlsClient, eventually,
    eventually_some, read_to_end,
};

use crate::operator::{BOTH_MODES, Mode, Tunnel, command, message};

/// Takes a line apart: process id, minutes of the day, message. `None` unless it reads
/// `[PID] YYYY/MM/DD HH:MM:SS.uuuuuu MESSAGE`.
fn dissect(line: &str) -> Option<(u32, u32, &str)> {
    let (pid, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (time, message) = rest.split_at_checked("2026/11/24 23:18:07.300120".len())?;
    let pattern = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
    if pattern.collect::<String>() != "0000/00/00 00:00:00.000000" {
        return None;
    }
    let minutes = time[11..13].parse::<u32>().ok()? * 60 + time[14..16].parse::<u32>().ok()?;
    Some((pid.parse().ok()?, minutes, message.strip_prefix(' ')?))
}

#[test]
fn every_line_has_the_known_layout() {
    let tunnel = Tunnel::start(Mode::Server);
    tunnel.visit();
    drop(Plain::connect(&tunnel.listen.address().into()).expect("listening"));
    tunnel.process.wait_for_line("error on TLS handshake");
    tunnel.reload();
    tunnel.process.signal(Signal::TERM);
    let (id, output) = (tunnel.process.id(), tunnel.process.wait_output());
    assert!(output.stdout.ends_with('\n') && !output.stdout.contains("\n\n"));
    for line in output.stdout.lines() {
        let (pid, _, message) = dissect(line).unwrap_or_else(|| panic!("odd line {line:?}"));
        assert_eq!(pid, id, "{line}");
        assert!(!message.starts_with(' ') && !message.is_empty(), "{line}");
    }
    assert_eq!(output.stderr, "");
}

#[test]
fn time_is_local() {
    let zone = "Asia/Kolkata";
    if !Path::new("/usr/share/zoneinfo").join(zone).exists() {
        eprintln!("SKIPPED: no time zones are installed");
        return;
    }
    for (zone, offset) in [("UTC", 0), (zone, 5 * 60 + 30)] {
        let tunnel = Tunnel::start_with(Mode::Server, |command, _| {
            command.env("TZ", zone);
        });
        let line = tunnel.process.wait_for_line("listening for connections");
        let (_, minutes, _) = dissect(&line).expect("a line");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let now = u32::try_from(now / 60 % (24 * 60)).expect("a day") + offset;
        let late = (now + 24 * 60 - minutes) % (24 * 60);
        assert!(late <= 1, "{zone}: {line} is {late} minutes off");
    }
}

#[test]
fn start_up_lines_come_in_the_known_order() {
    for (mode, first) in [
        (Mode::Server, "starting ghostunnel in server mode"),
        (Mode::Client, "starting ghostunnel in client mode"),
    ] {
        let tunnel = Tunnel::start(mode);
        tunnel.process.wait_for_line("listening for connections on");
        let lines = tunnel.process.stdout();
        let messages: Vec<_> = lines.lines().map(message).collect();
        let expected = [
            first.to_owned(),
            "setting up landlock rules to limit process privileges".to_owned(),
            "using cert/key files on disk as certificate source".to_owned(),
            format!("using target address {}", tunnel.backend.address()),
            format!("listening for connections on {}", tunnel.listen.address()),
        ];
        let places: Vec<_> = expected
            .iter()
            .map(|text| messages.iter().position(|message| message == text))
            .collect();
        assert!(places.iter().all(Option::is_some), "{messages:#?}");
        assert!(places.is_sorted(), "{messages:#?}");
        assert_eq!(places[0], Some(0), "always first");
        assert_eq!(places[4], Some(messages.len() - 1), "the last start-up line");
    }
}

#[test]
fn lines_of_a_connection_name_both_ends_and_the_peer() {
    for mode in BOTH_MODES {
        let tunnel = Tunnel::start(mode);
        let mut peer = tunnel.connect().expect("admitted");
        peer.echo(b"hello").expect("open");
        let opening = tunnel.process.wait_for_line("opening pipe");
        peer.close().expect("in good order");
        let closed = tunnel.process.wait_for_line("closed pipe");
        let (left, right) = match mode {
            Mode::Server => ("CN=client,OU=clients", "no tls"),
            Mode::Client => ("no tls", "CN=server"),
        };
        let opening = message(&opening)
            .strip_prefix("opening pipe: tcp:127.0.0.1:")
            .expect("tcp");
        let (port, rest) = opening.split_once(' ').expect("a port");
        assert!(port.parse::<u16>().is_ok(), "{opening}");
        assert_eq!(
            rest,
            format!("[{left}] <-> tcp:{} [{right}] ", tunnel.backend.address())
        );
        let pipe = opening.trim_end();
        let closed = message(&closed)
            .strip_prefix(&format!(
                "closed pipe: tcp:127.0.0.1:{pipe} [forwarded 5 bytes, returned 5 bytes, open "
            ))
            .unwrap_or_else(|| panic!("{closed}"));
        assert!(
            is_duration(closed.strip_suffix(']').expect("the end")),
            "{closed}"
        );
    }
}

/// `737.291µs`, `17ms`, `1.502s`, `1m3.5s`.
fn is_duration(text: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().is_ok() && !text.starts_with('-');
    if let Some(text) = text.strip_suffix("µs") {
        return number(text) && text.split_once('.').is_none_or(|(_, digits)| digits.len() <= 3);
    }
    if let Some(text) = text.strip_suffix("ms") {
        return text.parse::<u16>().is_ok_and(|text| text < 1000);
    }
    text.strip_suffix('s').is_some_and(number)
}

#[test]
fn peer_without_certificate_is_no_cert() {
    let tunnel = Tunnel::start(Mode::Server);
    let listen = ReservedPort::new();
    let process = crate::support::server(&tunnel.pki, &listen, tunnel.backend.address())
        .arg("--disable-authentication")
        .start();
    process.wait_listening(listen.port());
    drop(
        TlsClient::trusting(&tunnel.pki.authority)
            .connect(&listen.address().into())
            .expect("nothing is asked for"),
    );
    let line = process.wait_for_line("opening pipe");
    assert!(line.contains(" [no cert] <-> tcp:"), "{line}");
}

#[test]
fn unix_peers_are_named_by_their_paths() {
    let pki = Pki::new();
    let backend = Backend::unix(&pki.path("backend.sock"), Behaviour::Echo);
    let listen = pki.path("listen.sock");
    let process = crate::support::ghostunnel()
        .arg("server")
        .flag("--listen", format!("unix:{}", listen.display()))
        .flag("--target", backend.address().to_string())
        .flag("--cacert", &pki.ca_file)
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key)
        .arg("--allow-all")
        .start();
    eventually("the path exists", || listen.exists());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let _peer = client.connect(&listen.as_path().into()).expect("admitted");
    let line = process.wait_for_line("opening pipe");
    let expected = format!(
        "opening pipe: unix:@ [CN=client,OU=clients] <-> {} [no tls] ",
        backend.address()
    );
    assert_eq!(message(&line), expected);
}

#[test]
fn volumes_are_printed_in_the_known_units() {
    for (length, text) in [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (5000, "4.9 KiB"),
        (1024 * 1024, "1.0 MiB"),
        (3_000_000, "2.9 MiB"),
    ] {
        let pki = Pki::new();
        let backend = Backend::tcp(Behaviour::Source(length));
        let listen = ReservedPort::new();
        let process = command(Mode::Server, &pki, &listen, backend.address()).start();
        process.wait_listening(listen.port());
        let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
        let mut peer = client.connect(&listen.address().into()).expect("admitted");
        assert_eq!(read_to_end(&mut peer).0.len(), length);
        peer.end_writing();
        let line = process.wait_for_line("closed pipe");
        assert!(
            line.contains(&format!("[forwarded 0 bytes, returned {text}, open ")),
            "{line}"
        );
    }
}

#[test]
fn control_characters_of_a_subject_cannot_forge_lines() {
    let tunnel = Tunnel::start(Mode::Server);
    let forger = tunnel
        .pki
        .authority
        .issue(&Request::named("x\n[1] 2026/01/01 00:00:00.000000 forged\x1b[2J"));
    let client = TlsClient::trusting(&tunnel.pki.authority).identity(&forger);
    let peer = client.connect(&tunnel.listen.address().into()).expect("admitted");
    let line = tunnel.process.wait_for_line("opening pipe");
    assert!(
        line.contains("[CN=x\\n[1] 2026/01/01 00:00:00.000000 forged\\x1b[2J]"),
        "{line}"
    );
    drop(peer);
    tunnel.process.wait_for_line("closed pipe");
    for line in tunnel.process.stdout().lines() {
        assert!(
            dissect(line).is_some_and(|(pid, ..)| pid == tunnel.process.id()),
            "{line:?}"
        );
        assert!(!line.contains('\x1b'), "{line:?}");
    }
}

/// Lines of each class, by the phrase that `--quiet` is checked with.
const PHRASES: [(&str, &[&str]); 3] = [
    ("conns", &["opening pipe", "closed pipe"]),
    ("conn-errs", &["error on dial"]),
    ("handshake-errs", &["error on TLS handshake"]),
];

/// Everything a tunnel says when one thing of each class happens to it.
fn said(quiet: &[&str]) -> ghostunnel_testing::Output {
    let pki = Pki::new();
    let backend = Backend::tcp(Behaviour::Echo);
    let (listen, status) = (ReservedPort::new(), ReservedPort::new());
    let process = command(Mode::Server, &pki, &listen, backend.address())
        .flag("--status", format!("http://{}", status.address()))
        .args(quiet)
        .start();
    process.wait_listening(status.port());
    let client = TlsClient::trusting(&pki.authority).identity(&pki.client);
    let connect = || client.connect(&listen.address().into()).expect("admitted");
    let mut peer = connect();
    peer.write_all(b"x").expect("open");
    peer.read_exact(&mut [0]).expect("answered");
    drop(peer);
    drop(Plain::connect(&listen.address().into()).expect("listening"));
    drop(backend);
    assert_eq!(read_to_end(&mut connect()), (vec![], End::Closed));
    let metric = |name| crate::operator::metric(&crate::operator::get(&status, "/_metrics"), name);
    eventually("all has happened", || {
        metric("ghostunnel.accept.error") == 2.0 && metric("ghostunnel.conn.open") == 0.0
    });
    process.signal(Signal::TERM);
    process.wait_output()
}

#[test]
fn quiet_silences_its_class_and_no_other() {
    for (class, _) in PHRASES {
        let output = said(&[&format!("--quiet={class}")]);
        assert_eq!((output.exit, output.stderr.as_str()), (Exit::Code(0), ""));
        for (other, phrases) in PHRASES {
            for phrase in phrases {
                assert_eq!(
                    output.stdout.contains(phrase),
                    other != class,
                    "--quiet={class}: {phrase}"
                );
            }
        }
        for phrase in [
            "starting ghostunnel",
            "listening for",
            "received terminated",
            "waiting for drain",
        ] {
            assert!(output.stdout.contains(phrase), "--quiet={class}: {phrase}");
        }
    }
}

#[test]
fn quiet_can_be_repeated() {
    let output = said(&["--quiet=conns", "--quiet=conn-errs", "--quiet=handshake-errs"]);
    for (_, phrases) in PHRASES {
        for phrase in phrases {
            assert!(!output.stdout.contains(phrase), "{phrase} in {}", output.stdout);
        }
    }
    assert!(output.stdout.contains("starting ghostunnel"));
}

#[test]
fn quiet_all_leaves_both_streams_empty() {
    let output = said(&["--quiet=all"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!(output.exit, Exit::Code(0));
}

#[test]
fn failed_start_ends_with_its_cause_on_standard_error() {
    for quiet in [None, Some("--quiet=all")] {
        let pki = Pki::new();
        let (listen, target) = (ReservedPort::new(), ReservedPort::new());
        std::fs::remove_file(&pki.server_files.certificate).expect("it was there");
        let output = command(Mode::Server, &pki, &listen, &target.address().into())
            .args(quiet)
            .run();
        assert_eq!(output.exit, Exit::Code(1));
        assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
        assert!(
            output.stderr.contains("no such file or directory"),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        match quiet {
            None => assert!(
                output.stdout.contains("error: unable to load certificates: "),
                "{}",
                output.stdout
            ),
            Some(_) => assert_eq!(output.stdout, ""),
        }
    }
}

#[test]
fn lines_come_while_the_process_runs() {
    let tunnel = Tunnel::start(Mode::Server);
    for _ in 0..3 {
        let mark = tunnel.process.mark();
        let peer = tunnel.connect().expect("admitted");
        tunnel.process.wait_for_line_after(mark, "opening pipe");
        peer.close().expect("in good order");
        tunnel.process.wait_for_line_after(mark, "closed pipe");
    }
}

#[test]
fn no_line_is_lost_at_the_exit() {
    const RUNS: usize = 10;
    for _ in 0..RUNS {
        let tunnel = Tunnel::start(Mode::Server);
        let mut peers: Vec<_> = (0..20).map(|_| tunnel.connect().expect("admitted")).collect();
        for peer in &mut peers {
            peer.echo(b"x").expect("open");
        }
        for peer in peers {
            peer.close().expect("in good order");
        }
        // The other ends have just seen the end; the lines may still be on their way.
        tunnel.process.signal(Signal::TERM);
        let output = tunnel.process.wait_output();
        assert_eq!(output.exit, Exit::Code(0));
        for phrase in ["opening pipe", "closed pipe"] {
            assert_eq!(output.stdout.matches(phrase).count(), 20, "{phrase}");
        }
        assert!(output.stdout.contains("shutdown proxy, waiting for drain"));
    }
}

/// A server tunnel whose log goes into a pipe that the test reads, or not.
struct Unread {
    pki: Pki,
    _backend: Backend,
    listen: ReservedPort,
    process: Process,
    /// `None` once its reader has gone away.
    log: Option<PipeReader>,
    /// Its subject makes each of its lines about eight hundred bytes long.
    talkative: TlsClient,
}

impl Unread {
    fn start() -> Self {
        let pki = Pki::new();
        let backend = Backend::tcp(Behaviour::Echo);
        let listen = ReservedPort::new();
        let (log, writer) = io::pipe().expect("a pipe");
        let process = command(Mode::Server, &pki, &listen, backend.address())
            .output_to(writer)
            .start();
        process.wait_listening(listen.port());
        let request = (0..12).fold(Request::named("talkative"), |request, _| {
            request.organizational_unit(&"o".repeat(60))
        });
        let talkative = TlsClient::trusting(&pki.authority).identity(&pki.authority.issue(&request));
        Self {
            pki,
            _backend: backend,
            listen,
            process,
            log: Some(log),
            talkative,
        }
    }

    /// One connection with an answer from the backend; how long it took.
    fn visit(&self) -> Duration {
        let begun = Instant::now();
        let mut peer = self
            .talkative
            .connect(&self.listen.address().into())
            .expect("admitted");
        peer.write_all(b"x").expect("open");
        peer.read_exact(&mut [0]).expect("answered");
        peer.end_writing();
        read_to_end(&mut peer);
        begun.elapsed()
    }
}

/// Queue, batch and pipe hold two megabytes and a bit; each connection here writes 1.6 KB.
const ENOUGH_TO_FILL_THE_LOG: usize = 2000;

#[test]
fn load_log_that_nobody_reads_holds_up_no_connection() {
    let unread = Unread::start();
    let mut times: Vec<_> = (0..ENOUGH_TO_FILL_THE_LOG).map(|_| unread.visit()).collect();
    let mut late = times.split_off(ENOUGH_TO_FILL_THE_LOG * 9 / 10);
    times.truncate(100);
    times.sort();
    late.sort();
    let (before, after) = (times[times.len() / 2], late[late.len() / 2]);
    println!("median with an empty log pipe {before:?}, with a full one {after:?}");
    assert!(
        after < before * 3 + Duration::from_millis(5),
        "{before:?}, then {after:?}"
    );
    assert!(
        late[late.len() - 1] < Duration::from_secs(1),
        "{:?}",
        late[late.len() - 1]
    );

    // Read again, the log is whole up to one gap, which says how large it is, and goes on.
    let Unread { log, process, .. } = unread;
    let lines = Lines::of(log.expect("nobody took it"));
    let gap = eventually_some("the gap is reported", || lines.find("dropped"));
    let dropped: usize = message(&gap)
        .split(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a number");
    assert_eq!(
        message(&gap),
        format!("{dropped} log lines were dropped because the log's reader was too slow")
    );
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(), Exit::Code(0));
    eventually("the last line has come", || {
        lines.find("waiting for drain").is_some()
    });
    let lines = lines.all();
    assert!(lines.iter().all(|line| dissect(line).is_some()), "a line is torn");
    let count = |phrase| lines.iter().filter(|line| line.contains(phrase)).count();
    assert_eq!(count("dropped"), 1, "reported once");
    assert_eq!(
        count(" pipe: ") + dropped,
        2 * ENOUGH_TO_FILL_THE_LOG,
        "every line is there or counted"
    );
}

/// The lines of a pipe, read on a thread, so that waiting for one can end.
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(pipe: PipeReader) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                read.lock().expect("no holder panics").push(line.expect("text"));
            }
        });
        Self(lines)
    }

    fn find(&self, text: &str) -> Option<String> {
        self.all().into_iter().find(|line| line.contains(text))
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").clone()
    }
}

#[test]
fn load_log_that_nobody_reads_does_not_hold_up_the_exit() {
    let unread = Unread::start();
    for _ in 0..ENOUGH_TO_FILL_THE_LOG / 10 {
        unread.visit();
    }
    let begun = Instant::now();
    unread.process.signal(Signal::TERM);
    assert_eq!(unread.process.wait_exit(), Exit::Code(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn load_log_that_nobody_reads_does_not_hold_up_reloads() {
    let unread = Unread::start();
    for _ in 0..ENOUGH_TO_FILL_THE_LOG / 10 {
        unread.visit();
    }
    let fresh = unread.pki.authority.issue(&Pki::server_request());
    crate::operator::replace(&unread.pki.server_files.key, &fresh.key_pem());
    crate::operator::replace(&unread.pki.server_files.certificate, &fresh.chain_pem());
    unread.process.signal(Signal::HUP);
    eventually("the new certificate is shown", || {
        let peer = unread
            .talkative
            .connect(&unread.listen.address().into())
            .expect("admitted");
        &*peer.facts().peer_certificates[0] == fresh.der()
    });
}

#[test]
fn standard_output_closed_by_its_reader_costs_lines_only() {
    let mut unread = Unread::start();
    drop(unread.log.take());
    for _ in 0..20 {
        unread.visit();
    }
    unread.process.signal(Signal::HUP);
    unread.visit();
    unread.process.signal(Signal::TERM);
    assert_eq!(unread.process.wait_exit(), Exit::Code(0));
    assert_eq!(unread.process.stderr(), "");
}
