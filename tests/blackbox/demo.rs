//! `ghostunnel demo`: it shows what it claims, notices what is broken, and leaves nothing behind.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ghostunnel_testing::{
    Command, Exit, Process, Signal, curl, eventually, eventually_some, private_dir, require_tool,
};

use crate::support::{binary, ghostunnel, unprivileged};

/// A demo whose files go to a directory of their own, so that what is left of them shows.
fn demo(temporary: &Path) -> Command {
    let mut command = ghostunnel();
    command.arg("demo").env("TMPDIR", temporary);
    command
}

/// What processes run on files in this directory; the demo's tunnels name their certificates.
fn tunnels_on(directory: &Path) -> Vec<u32> {
    let needle = directory.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").expect("a list of processes");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.windows(needle.len()).any(|window| window == needle)
            && line.windows(6).any(|window| window == b"--cert")
    })
    .collect()
}

fn folders_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("readable");
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[track_caller]
fn assert_nothing_is_left(directory: &Path) {
    assert_eq!(tunnels_on(directory), [] as [u32; 0], "processes");
    assert_eq!(folders_in(directory), [] as [PathBuf; 0], "files");
}

/// The two command lines that the demo prints, without the program's name.
fn commands(output: &str) -> [Vec<String>; 2] {
    ["server", "client"].map(|mode| {
        let beginning = format!("  ghostunnel {mode} ");
        let line = output.lines().find(|line| line.starts_with(&beginning));
        let words = line.expect("a command").split_whitespace().skip(1);
        words.map(str::to_owned).collect()
    })
}

fn value_of<'a>(words: &'a [String], flag: &str) -> &'a str {
    let position = words.iter().position(|word| word == flag).expect("a flag");
    &words[position + 1]
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let temporary = private_dir();
    let output = demo(temporary.path()).arg("--once").run();
    assert_eq!((output.exit, &*output.stderr), (Exit::Code(0), ""), "{output:?}");
    assert_eq!(
        output
            .stdout
            .lines()
            .filter(|line| line.starts_with("ok  "))
            .count(),
        3,
        "{output:?}"
    );
    let [server, client] = commands(&output.stdout);
    assert_eq!(value_of(&client, "--target"), value_of(&server, "--listen"));
    assert!(value_of(&server, "--cert").starts_with(&temporary.path().display().to_string()));
    assert!(!output.stdout.contains("Ctrl-C"), "it does not wait: {output:?}");
    assert_nothing_is_left(temporary.path());
}

#[test]
fn each_breakage_is_noticed_and_named() {
    for (what, says) in [
        (
            "ca",
            "nothing came back through the tunnels; the client tunnel says: [",
        ),
        ("byte", "what came back is not what went in: SHA-256 differs"),
        (
            "stranger",
            "the stranger was let in: the backend answered a peer from another CA",
        ),
    ] {
        let temporary = private_dir();
        let output = demo(temporary.path())
            .args(["--once", &format!("--break={what}")])
            .run();
        assert_eq!(output.exit, Exit::Code(1), "{what}: {output:?}");
        assert!(
            output
                .stderr
                .starts_with(&format!("error: the demo did not hold: {says}")),
            "{what}: {output:?}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "{what}: {output:?}");
        assert_nothing_is_left(temporary.path());
    }
}

#[test]
fn a_certificate_that_fails_is_shown_in_the_words_of_the_tunnel() {
    let temporary = private_dir();
    let output = demo(temporary.path()).args(["--once", "--break=ca"]).run();
    assert!(
        output
            .stderr
            .contains("x509: certificate signed by unknown authority"),
        "{output:?}"
    );
}

/// A demo on a terminal of its own, which is what it takes for it to stay up.
fn on_a_terminal(temporary: &Path) -> Option<Process> {
    let mut command = Command::new(require_tool("script")?);
    command
        .args(["--quiet", "--return", "--command"])
        // Without a shell in between, which would have its own view of Ctrl-C.
        .arg(format!("exec {} demo", binary().display()))
        .arg("/dev/null")
        .clear_environment()
        .env("SHELL", "/bin/sh")
        .env("TMPDIR", temporary)
        .with_input();
    Some(command.start())
}

/// What a terminal shows has carriage returns in it.
fn shown(process: &Process) -> String {
    process.stdout().replace('\r', "")
}

fn echo(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address.parse::<SocketAddr>().expect("an address"))?;
    stream.write_all(b"hello\n")?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"hello\n");
    Ok(())
}

#[test]
fn the_demo_stays_up_on_a_terminal_and_can_be_tried_by_hand() {
    let temporary = private_dir();
    let Some(process) = on_a_terminal(temporary.path()) else {
        return;
    };
    process.wait_for_line("Both tunnels stay up until you press Ctrl-C");
    process.wait_for_line("/_status");
    let [server, client] = commands(&shown(&process));

    echo(value_of(&client, "--listen")).expect("through both tunnels and back");
    let status = value_of(&server, "--status");
    if let Some(curl) = curl(&["--fail", &format!("{status}/_status")]) {
        let output = curl.run();
        assert_eq!(output.exit, Exit::Code(0), "{output:?}");
        assert!(output.stdout.contains("\"ok\":true"), "{output:?}");
    }

    // The same by hand: another pair beside the demo's, which share its ports.
    let by_hand: Vec<Process> = [&server, &client]
        .map(|words| ghostunnel().args(words.as_slice()).start())
        .into_iter()
        .collect();
    for process in &by_hand {
        process.wait_for_line("listening for connections on");
    }
    // The kernel spreads connections over both pairs: each gets some of many.
    eventually("a connection through the pair started by hand", || {
        echo(value_of(&client, "--listen")).expect("echoed");
        by_hand
            .iter()
            .all(|process| process.count_lines("opening pipe") > 0)
    });
    drop(by_hand);

    process.write_input(b"\x03");
    assert_eq!(process.wait_exit(), Exit::Code(0), "Ctrl-C is how it ends");
    assert_nothing_is_left(temporary.path());
}

#[test]
fn a_closed_terminal_ends_the_demo_and_its_tunnels() {
    let temporary = private_dir();
    let Some(process) = on_a_terminal(temporary.path()) else {
        return;
    };
    process.wait_for_line("Both tunnels stay up until you press Ctrl-C");
    // The end of whoever holds the terminal hangs it up.
    process.signal(Signal::KILL);
    process.wait_exit();
    eventually("the demo and its tunnels are gone", || {
        tunnels_on(temporary.path()).is_empty() && folders_in(temporary.path()).is_empty()
    });
}

#[test]
fn a_signal_in_mid_run_ends_the_demo_its_tunnels_and_its_files() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let temporary = private_dir();
        let process = demo(temporary.path()).start();
        // Both tunnels are there, and 64 MiB on their way.
        eventually_some("two tunnels", || {
            (tunnels_on(temporary.path()).len() == 2).then_some(())
        });
        process.signal(signal);
        let output = process.wait_output();
        assert_eq!(output.exit, Exit::Signal(signal.as_raw()), "{output:?}");
        assert_eq!(output.stderr, "", "an interruption is no failure");
        assert_nothing_is_left(temporary.path());
    }
}

#[test]
fn a_demo_whose_start_is_interrupted_leaves_nothing_either() {
    let temporary = private_dir();
    for _ in 0..10 {
        let process = demo(temporary.path()).start();
        eventually("the first file", || {
            !folders_in(temporary.path()).is_empty() || process.try_exit().is_some()
        });
        process.signal(Signal::TERM);
        assert_eq!(process.wait_exit(), Exit::Signal(15));
        assert_nothing_is_left(temporary.path());
    }
}

#[test]
fn a_tunnel_that_dies_is_noticed() {
    let temporary = private_dir();
    let process = demo(temporary.path()).start();
    let tunnels = eventually_some("two tunnels", || {
        Some(tunnels_on(temporary.path())).filter(|tunnels| tunnels.len() == 2)
    });
    for id in tunnels {
        let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
        // May have ended with the demo already, if that was quick; it must not be.
        rustix::process::kill_process(id.expect("a process"), Signal::KILL).expect("running");
    }
    let output = process.wait_output();
    assert_eq!(output.exit, Exit::Code(1), "{output:?}");
    assert!(
        output.stderr.starts_with("error: the demo did not hold: "),
        "{output:?}"
    );
    assert_nothing_is_left(temporary.path());
}

#[test]
fn the_demo_needs_no_privileges_and_no_directory_to_write_to() {
    let dir = private_dir();
    let Some(program) = unprivileged(dir.path()) else {
        return;
    };
    let temporary = dir.path().join("temporary");
    fs::create_dir(&temporary).expect("created");
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777)).expect("ours");
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).expect("created");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("ours");
    let output = program()
        .args(["demo", "--once"])
        .env("TMPDIR", &temporary)
        .directory(&locked)
        .run();
    assert_eq!((output.exit, &*output.stderr), (Exit::Code(0), ""), "{output:?}");
    assert_nothing_is_left(&temporary);
}

#[test]
fn the_demo_says_where_it_could_not_write() {
    let dir = private_dir();
    let nowhere = dir.path().join("nowhere");
    let output = demo(&nowhere).arg("--once").run();
    assert_eq!(output.exit, Exit::Code(1));
    let beginning = format!(
        "error: the demo did not hold: cannot mint certificates: cannot create {}/",
        nowhere.display()
    );
    assert!(output.stderr.starts_with(&beginning), "{output:?}");
}

#[test]
fn a_temporary_directory_with_an_awkward_name_is_as_good_as_any() {
    let dir = private_dir();
    let temporary = dir.path().join("it's a \"$HOME\" & more");
    fs::create_dir(&temporary).expect("created");
    let output = demo(&temporary).arg("--once").run();
    assert_eq!(output.exit, Exit::Code(0), "{output:?}");
    // A shell takes the printed command apart as it is meant.
    let line = output
        .stdout
        .lines()
        .find(|line| line.starts_with("  ghostunnel server "));
    let script = format!("printf '%s\\n' {}", line.expect("a command").trim_start());
    let words = Command::new("/bin/sh").args(["-c", &script]).run().stdout;
    assert!(
        words
            .lines()
            .any(|word| word.starts_with(&temporary.display().to_string())
                && word.ends_with("/server-cert.pem")),
        "{words}"
    );
    assert_nothing_is_left(&temporary);
}

#[test]
fn variables_meant_for_tunnels_do_not_reach_those_of_the_demo() {
    let temporary = private_dir();
    let output = demo(temporary.path())
        .arg("--once")
        .env("KEYSTORE_PATH", "/nonexistent")
        .env("CACERT_PATH", "/nonexistent")
        .env("SPIFFE_ENDPOINT_SOCKET", "unix:/nonexistent")
        .env("PKCS11_MODULE", "/nonexistent")
        .run();
    assert_eq!((output.exit, &*output.stderr), (Exit::Code(0), ""), "{output:?}");
}

#[test]
fn output_that_nobody_takes_changes_no_verdict() {
    for (redirection, breakage, exit) in [
        (">&- 2>&- <&-", "", 0),
        (">/dev/full 2>/dev/full", "--break=byte", 1),
    ] {
        let temporary = private_dir();
        let output = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("exec \"$0\" demo --once {breakage} {redirection}"))
            .arg(binary())
            .clear_environment()
            .env("TMPDIR", temporary.path())
            .run();
        assert_eq!(output.exit, Exit::Code(exit), "{redirection}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        assert_nothing_is_left(temporary.path());
    }
}

#[test]
fn a_reader_who_leaves_early_changes_no_verdict() {
    let temporary = private_dir();
    let mut child = std::process::Command::new(binary())
        .args(["demo", "--once"])
        .env_clear()
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut first).expect("a first word");
    drop(stdout);
    assert_eq!(Exit::from(child.wait().expect("ended")), Exit::Code(0));
    assert_nothing_is_left(temporary.path());
}
