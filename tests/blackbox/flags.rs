//! The command line as a user meets it: exit codes, streams, mistakes and what is said about them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ghostunnel_testing::{
    Address, Backend, Behaviour, ClientCertificates, Command, Exit, Output, Pki, Plain, Process,
    ReservedPort, Signal, TlsClient, TlsPeer, TlsServer, openssl, private_dir,
};

use crate::support::{binary, client, ghostunnel, server, unprivileged};

/// Runs the program with these words, which hold no blanks of their own.
fn run(words: &str) -> Output {
    ghostunnel().args(words.split_whitespace()).run()
}

/// What standard error says of a usage error, between `ghostunnel: error: ` and `, try --help`.
#[track_caller]
fn usage_error(command: &Command) -> String {
    let output = command.run();
    assert_eq!(output.exit, Exit::Code(1), "{output:?}");
    assert_eq!(
        output.stdout, "",
        "nothing has started that could log: {output:?}"
    );
    let text = output
        .stderr
        .strip_prefix("ghostunnel: error: ")
        .and_then(|text| text.strip_suffix(", try --help\n"));
    text.unwrap_or_else(|| panic!("{output:?}")).to_owned()
}

#[track_caller]
fn usage_error_of(words: &str) -> String {
    usage_error(ghostunnel().args(words.split_whitespace()))
}

/// What standard error says of a start that failed, behind `error: `; the log must say it too.
#[track_caller]
fn start_error(command: &Command) -> String {
    let output = command.run();
    assert_eq!(output.exit, Exit::Code(1), "{output:?}");
    let cause = output
        .stderr
        .strip_prefix("error: ")
        .and_then(|text| text.strip_suffix('\n'));
    let cause = cause.unwrap_or_else(|| panic!("{output:?}"));
    assert!(!cause.contains('\n'), "one line: {output:?}");
    let logged = output.stdout.lines().any(|line| line.ends_with(cause));
    assert!(logged, "the log has the cause: {output:?}");
    cause.to_owned()
}

#[track_caller]
fn start_error_of(words: &str) -> String {
    start_error(ghostunnel().args(words.split_whitespace()))
}

#[test]
fn mistakes_are_one_line_on_stderr_and_exit_with_1() {
    for (words, expected) in [
        ("-x", "unknown short flag '-x'"),
        ("-listen=x", "unknown short flag '-l'"),
        ("--nosuch=1", "unknown long flag '--nosuch'"),
        ("server --nosuch x", "unknown long flag '--nosuch'"),
        ("--no-keystore", "unknown long flag '--no-keystore'"),
        ("version", "expected command but got \"version\""),
        ("service", "expected command but got \"service\""),
        ("SERVER", "expected command but got \"SERVER\""),
        ("server extra", "unexpected extra"),
        ("server -- --listen", "unexpected --listen"),
        ("--skip-resolve true", "expected command but got \"true\""),
        ("server --skip-resolve true", "unexpected true"),
        (
            "server --listen --target x",
            "expected argument for flag '--listen'",
        ),
        (
            "--timed-reload -1s server",
            "expected argument for flag '--timed-reload'",
        ),
        ("server --listen=a --listen=b", "flag 'listen' cannot be repeated"),
        (
            "--skip-resolve --no-skip-resolve",
            "flag 'skip-resolve' cannot be repeated",
        ),
        ("server", "required flag(s) '--listen', '--target' not provided"),
        ("client --listen=x", "required flag(s) '--target' not provided"),
        (
            "--connect-timeout=5 server",
            "--connect-timeout: time: missing unit in duration \"5\"",
        ),
        (
            "--timed-reload=1y server",
            "--timed-reload: time: unknown unit \"y\" in duration \"1y\"",
        ),
        (
            "--max-concurrent-conns=-1",
            "--max-concurrent-conns: strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "--max-concurrent-conns=4294967296",
            "--max-concurrent-conns: strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            "--quiet=bogus",
            "--quiet: enum value must be one of ,all,conns,handshake-errs,conn-errs, got 'bogus'",
        ),
        (
            "server --allow-ip=1.2.3.4/8",
            "--allow-ip: '1.2.3.4/8' is not an IP address",
        ),
    ] {
        assert_eq!(usage_error_of(words), expected, "{words}");
    }
}

#[test]
fn unknown_flags_are_answered_with_where_they_belong_or_what_was_meant() {
    for (words, expected) in [
        (
            "--listen x server",
            "unknown long flag '--listen' (it is known after the command server or client)",
        ),
        (
            "client --allow-cn=x",
            "unknown long flag '--allow-cn' (it is known after the command server)",
        ),
        (
            "server --verify-cn x",
            "unknown long flag '--verify-cn' (it is known after the command client)",
        ),
        (
            "server --lisen=x",
            "unknown long flag '--lisen' (did you mean --listen?)",
        ),
    ] {
        assert_eq!(usage_error_of(words), expected, "{words}");
    }
}

#[test]
fn the_first_mistake_by_the_known_order_is_the_one_reported() {
    for (words, expected) in [
        // Grammar, then values, then what is missing, then what does not go together.
        (
            "--connect-timeout=5 server --nosuch",
            "unknown long flag '--nosuch'",
        ),
        ("--help --nosuch", "unknown long flag '--nosuch'"),
        ("--nosuch --version", "unknown long flag '--nosuch'"),
        (
            "server --connect-timeout=5",
            "--connect-timeout: time: missing unit in duration \"5\"",
        ),
        (
            "server --connect-timeout=0",
            "required flag(s) '--listen', '--target' not provided",
        ),
        (
            "server --listen=a --target=b --connect-timeout=0 --enable-shutdown",
            "--enable-shutdown requires --status to be set",
        ),
        (
            "server --listen=a --target=b --connect-timeout=0",
            "--connect-timeout duration must not be zero",
        ),
        // What concerns the whole process is checked even without a command.
        (
            "--enable-shutdown",
            "--enable-shutdown requires --status to be set",
        ),
        (
            "--connect-timeout=0",
            "--connect-timeout duration must not be zero",
        ),
        (
            "--status=http://unix:/x",
            "invalid --status network \"unix\": http(s):// scheme requires a HOST:PORT target",
        ),
    ] {
        assert_eq!(usage_error_of(words), expected, "{words}");
    }
}

#[test]
fn the_program_is_called_what_it_was_started_as() {
    let dir = private_dir();
    let link = dir.path().join("xyz");
    symlink(binary(), &link).expect("a link");
    let output = Command::new(&link).arg("--nosuch").run();
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(
        output.stderr,
        "xyz: error: unknown long flag '--nosuch', try --help\n"
    );
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    for (words, beginning) in [
        ("--version", "rev 2."),
        ("--no-version", "rev 2."),
        ("server --version", "rev 2."),
        ("--version --nosuch", "rev 2."),
        ("--help", "usage: ghostunnel [<flags>] <command>"),
        ("--help-long", "usage: ghostunnel [<flags>] <command>"),
        ("--no-help", "usage: ghostunnel [<flags>] <command>"),
        ("help", "usage: ghostunnel [<flags>] <command>"),
        // Help comes before wrong values and before what is missing.
        (
            "--connect-timeout=5 --help",
            "usage: ghostunnel [<flags>] <command>",
        ),
        (
            "server --help",
            "usage: ghostunnel server --listen=ADDR --target=ADDR",
        ),
        (
            "client --help",
            "usage: ghostunnel client --listen=ADDR --target=ADDR",
        ),
        ("help demo", "usage: ghostunnel demo"),
    ] {
        let output = run(words);
        assert_eq!(
            (output.exit, &*output.stderr),
            (Exit::Code(0), ""),
            "{words}: {output:?}"
        );
        assert!(output.stdout.starts_with(beginning), "{words}: {output:?}");
    }
    assert_eq!(run("--version").stdout.lines().count(), 1);
}

#[test]
fn help_on_what_does_not_exist_is_a_mistake() {
    for (words, expected) in [
        (
            "help nosuch",
            "ghostunnel: error: expected command but got \"nosuch\"\n",
        ),
        ("help server extra", "ghostunnel: error: unexpected extra\n"),
    ] {
        let output = run(words);
        assert_eq!((output.exit, &*output.stdout), (Exit::Code(1), ""), "{words}");
        assert_eq!(output.stderr, expected, "{words}");
    }
}

#[test]
fn without_a_command_usage_goes_to_stderr_and_the_exit_code_is_0() {
    for words in ["", "--keystore x", "--"] {
        let output = run(words);
        assert_eq!(
            (output.exit, &*output.stdout),
            (Exit::Code(0), ""),
            "{words}: {output:?}"
        );
        assert!(
            output.stderr.starts_with("usage: ghostunnel"),
            "{words}: {output:?}"
        );
    }
}

#[test]
fn help_keeps_to_the_width_asked_for() {
    let output = ghostunnel().arg("--help").env("COLUMNS", "60").run();
    let widest = output.stdout.lines().map(str::len).max();
    assert!(
        widest.is_some_and(|width| (40..=60).contains(&width)),
        "{output:?}"
    );
}

/// Runs this with standard streams redirected by a shell.
fn redirected(redirection: &str, words: &str) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(format!("exec \"$0\" \"$@\" {redirection}"))
        .arg(binary())
        .args(words.split_whitespace());
    shell.run()
}

#[test]
fn a_stream_that_takes_nothing_changes_no_exit_code_but_that_of_a_lost_answer() {
    for (redirection, words, exit) in [
        // What was asked for could not be written.
        (">/dev/full", "--version", 1),
        (">&-", "--version", 0),
        // The message is lost, the verdict is not.
        ("2>/dev/full", "--nosuch", 1),
        ("2>&-", "--nosuch", 1),
        ("2>/dev/full", "", 0),
        ("2>/dev/full >/dev/full", "server --listen=x --target=y", 1),
        ("2>&- >&- <&-", "server --listen=x --target=y", 1),
    ] {
        let output = redirected(redirection, words);
        assert_eq!(output.exit, Exit::Code(exit), "{words} {redirection}: {output:?}");
        assert!(!output.stderr.contains("panicked"), "{output:?}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_of_the_help_is_no_failure() {
    let mut child = std::process::Command::new(binary())
        .args(["--help"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let status = child.wait().expect("ended");
    assert_eq!(Exit::from(status), Exit::Code(0));
}

#[test]
fn response_files_hold_one_argument_per_line() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let inner = pki.write(
        "inner",
        &format!(
            "--cert\n{}\n--key={}\n",
            pki.server_files.certificate.display(),
            pki.server_files.key.display()
        ),
    );
    let outer = pki.write(
        "outer",
        &format!(
            "# comment\n\n  \n--listen\n{}\n--target={}\n@{}\n",
            listen.address(),
            backend.address(),
            inner.display()
        ),
    );
    // In the place of a value too, where it gives the value.
    let value = pki.write("value", &format!("{}\n", pki.ca_file.display()));
    let command = pki.write("command", "server\n--allow-all\r\n");
    let process = ghostunnel()
        .arg(at(&command))
        .arg(at(&outer))
        .arg("--cacert")
        .arg(at(&value))
        .start();
    process.wait_listening(listen.port());
    let mut peer = TlsClient::trusting(&pki.authority)
        .identity(&pki.client)
        .connect(&listen.address().into())
        .expect("admitted");
    assert_echoes(&mut peer);
}

#[track_caller]
fn assert_echoes(stream: &mut (impl Read + Write)) {
    stream.write_all(b"there and back").expect("open");
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).expect("echoed");
    assert_eq!(&answer, b"there and back");
}

fn at(path: &Path) -> String {
    format!("@{}", path.display())
}

#[test]
fn response_files_that_cannot_be_used_are_named() {
    let dir = private_dir();
    let path = dir.path().join("args");
    fs::write(&path, format!("{}\n", at(&path))).expect("written");
    assert_eq!(usage_error_of("@"), "expected @ file to expand arguments from");
    assert_eq!(
        usage_error_of("server --listen @"),
        "expected @ file to expand arguments from"
    );
    assert_eq!(
        usage_error_of("@/nonexistent/args"),
        "failed to open arguments file \"/nonexistent/args\": No such file or directory (os error 2)"
    );
    assert_eq!(
        usage_error(ghostunnel().arg(at(&path))),
        format!("arguments file {path:?} includes itself")
    );
    // Behind an equals sign or a double dash it is a word like any other.
    assert_eq!(usage_error_of("server -- @x"), "unexpected @x");
    assert_eq!(
        usage_error_of("--timed-reload=@x"),
        "--timed-reload: time: invalid duration \"@x\""
    );
}

#[test]
fn variables_stand_for_flags_that_were_not_typed() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let mut command = ghostunnel();
    command
        .args(["server", "--allow-all"])
        .flag("--listen", listen.address().to_string())
        .flag("--target", backend.address().to_string())
        .env("CACERT_PATH", &pki.ca_file)
        // Empty is as good as unset.
        .env("KEYSTORE_PATH", "")
        .env("CERT_PATH", &pki.server_files.certificate)
        .env("KEY_PATH", &pki.server_files.key);
    command.start().wait_listening(listen.port());

    let other = ReservedPort::new();
    let process = ghostunnel()
        .args(["server", "--allow-all", "--keystore="])
        .flag("--listen", other.address().to_string())
        .flag("--target", backend.address().to_string())
        .flag("--cert", &pki.server_files.certificate)
        .flag("--key", &pki.server_files.key)
        .flag("--cacert", &pki.ca_file)
        // What was typed wins, even if empty.
        .env("KEYSTORE_PATH", "/nonexistent")
        .env("CERT_PATH", "/nonexistent")
        .start();
    process.wait_listening(other.port());
}

#[test]
fn variables_of_flags_not_built_yet_are_named() {
    let start = |rest: &str, variable, value| {
        let mut command = ghostunnel();
        command
            .args([
                "server",
                "--listen=localhost:0",
                "--target=localhost:1",
                "--allow-all",
            ])
            .args(rest.split_whitespace())
            .env(variable, value);
        start_error(&command)
    };
    assert_eq!(
        start(
            "--no-use-workload-api --cert=c --key=k",
            "SPIFFE_ENDPOINT_SOCKET",
            "unix:///run/agent.sock"
        ),
        format!("{TWO_SERVER_SOURCES} (the environment sets SPIFFE_ENDPOINT_SOCKET)")
    );
    let mut command = ghostunnel();
    command.env("PKCS11_MODULE", "/nonexistent");
    assert_eq!(
        usage_error(&command),
        "PKCS11_MODULE: path '/nonexistent' does not exist"
    );
    // Without a module the others have no effect.
    assert_eq!(start("", "PKCS11_PIN", "1234"), NO_SERVER_SOURCE);
}

#[test]
fn flags_not_built_yet_are_refused_by_name_after_every_check() {
    let server = "server --listen=localhost:0 --target=localhost:1 --cert=c";
    let client = "client --listen=localhost:0 --target=localhost:1 --cert=c";
    for (words, flag) in [
        (
            "server --listen=localhost:0 --target=localhost:1 --allow-all --auto-acme-cert=n --auto-acme-email=e \
             --auto-acme-agree-to-tos"
                .to_owned(),
            "auto-acme-cert",
        ),
        (format!("{server} --key=k --allow-policy=p --allow-query=q"), "allow-policy"),
        (
            format!("{client} --key=k --verify-policy=p --verify-query=q"),
            "verify-policy",
        ),
    ] {
        assert_eq!(
            start_error_of(&words),
            format!("--{flag} is a flag of ghostunnel 1.11.1 that this version does not have yet"),
            "{words}"
        );
        let with_mistake = format!("{words} --allow-unsafe-cipher-suites --cipher-suites=x");
        assert_eq!(start_error_of(&with_mistake), "invalid cipher suite 'x' selected");
    }
}

const NO_SERVER_SOURCE: &str = "at least one of --keystore, --cert/--key, --auto-acme-cert, or \
     --keychain-identity/issuer (if supported) flags is required";
const TWO_SERVER_SOURCES: &str =
    "--keystore, --cert/--key, --auto-acme-cert, and --keychain-identity/issuer flags are mutually exclusive";
const NO_CLIENT_SOURCE: &str = "at least one of --keystore, --cert/--key, --keychain-identity/issuer (if supported), \
     --use-workload-api or --disable-authentication flags is required";
const TWO_CLIENT_SOURCES: &str = "--keystore, --cert/--key, --keychain-identity/issuer, --use-workload-api and \
     --disable-authentication flags are mutually exclusive";
const HALF_PAIR: &str = "--cert/--key must be set together, unless using PKCS11 for private key";
const NO_RULE: &str = "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
     --disable-authentication) is required";
const ALL_AND_OTHERS: &str = "--allow-all is mutually exclusive with other access control flags";
const NONE_AND_OTHERS: &str =
    "--disable-authentication is mutually exclusive with other access control flags";
const REMOTE_TARGET: &str = "--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)";
const REMOTE_LISTEN: &str = "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is set)";

#[test]
fn what_does_not_make_a_server_is_refused_in_the_known_words_and_order() {
    let local = "--listen=localhost:0 --target=localhost:1";
    for (words, expected) in [
        (local.to_owned(), NO_SERVER_SOURCE),
        // Half a pair counts as no source.
        (format!("{local} --cert=c"), NO_SERVER_SOURCE),
        (format!("{local} --key=k --allow-all"), NO_SERVER_SOURCE),
        (
            format!("{local} --keystore=s --cert=c --key=k"),
            TWO_SERVER_SOURCES,
        ),
        (format!("{local} --keystore=s --cert=c"), HALF_PAIR),
        (format!("{local} --keystore=s --key=k"), HALF_PAIR),
        (format!("{local} --keystore=s"), NO_RULE),
        (
            format!("{local} --keystore=s --allow-all --allow-cn=c"),
            ALL_AND_OTHERS,
        ),
        (
            format!("{local} --keystore=s --allow-all --allow-ip=::1"),
            ALL_AND_OTHERS,
        ),
        (
            format!("{local} --keystore=s --disable-authentication --allow-all"),
            NONE_AND_OTHERS,
        ),
        (
            format!("{local} --keystore=s --disable-authentication --allow-all --allow-ou=o"),
            NONE_AND_OTHERS,
        ),
        (
            "--listen=:0 --target=example.com:1 --keystore=s --allow-all".into(),
            REMOTE_TARGET,
        ),
        (
            "--listen=:0 --target=127.0.0.2:1 --keystore=s --allow-all".into(),
            REMOTE_TARGET,
        ),
        (
            "--listen=:0 --target=LOCALHOST:1 --keystore=s --allow-all".into(),
            REMOTE_TARGET,
        ),
        (
            "--listen=:0 --target=foo --unsafe-target --keystore=s --allow-all".into(),
            "invalid --target address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
        ),
        (
            "--listen=:0 --target=systemd:x --unsafe-target --keystore=s --allow-all".into(),
            "invalid --target network \"systemd\": only tcp and unix targets are supported (systemd:/launchd: cannot \
             be dialed)",
        ),
        (
            format!("{local} --keystore=s --allow-uri=spiffe://**/x"),
            "invalid URI pattern in --allow-uri flag (wildcard '**' can only appear at end of pattern)",
        ),
        (
            "--listen=foo --target=unix:x --keystore=s --allow-all".into(),
            "invalid --listen address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
        ),
    ] {
        let mut command = ghostunnel();
        command.arg("server").args(words.split_whitespace());
        assert_eq!(start_error(&command), expected, "{words}");
    }
}

#[test]
fn what_does_not_make_a_client_is_refused_in_the_known_words_and_order() {
    let local = "--listen=localhost:0 --target=localhost:1";
    for (words, expected) in [
        (local, NO_CLIENT_SOURCE),
        (
            "--listen=localhost:0 --target=localhost:1 --cert=c",
            NO_CLIENT_SOURCE,
        ),
        (
            "--listen=localhost:0 --target=localhost:1 --keystore=s --disable-authentication",
            TWO_CLIENT_SOURCES,
        ),
        (
            "--listen=localhost:0 --target=localhost:1 --cert=c --key=k --keystore=s",
            TWO_CLIENT_SOURCES,
        ),
        (
            "--listen=localhost:0 --target=localhost:1 --keystore=s --key=k",
            HALF_PAIR,
        ),
        ("--listen=:0 --target=foo --keystore=s", REMOTE_LISTEN),
        ("--listen=[::]:0 --target=foo --keystore=s", REMOTE_LISTEN),
        (
            "--listen=:0 --unsafe-listen --target=foo --keystore=s",
            "invalid --target address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
        ),
        (
            "--listen=localhost:0 --target=systemd:x --keystore=s",
            "invalid --target network \"systemd\": client mode requires a HOST:PORT TCP target",
        ),
        (
            "--listen=localhost:0 --target=x:1 --keystore=s --verify-uri=a*b",
            "invalid URI pattern in --verify-uri flag (wildcard '*' can only appear between two separators)",
        ),
    ] {
        let mut command = ghostunnel();
        command.arg("client").args(words.split_whitespace());
        assert_eq!(start_error(&command), expected, "{words}");
    }
}

#[test]
fn the_cause_of_a_failed_start_is_on_stderr_even_if_the_log_is_silent() {
    let output = run("server --listen=localhost:0 --target=localhost:1 --quiet=all");
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(
        (output.stdout, output.stderr),
        (String::new(), format!("error: {NO_SERVER_SOURCE}\n"))
    );
}

/// A server tunnel that differs from a good one in its certificate, key and CA bundle.
fn with_files(cert: &Path, key: &Path, ca: &Path) -> Command {
    let mut command = ghostunnel();
    command
        .args([
            "server",
            "--allow-all",
            "--listen=127.0.0.1:0",
            "--target=127.0.0.1:1",
        ])
        .flag("--cert", cert)
        .flag("--key", key)
        .flag("--cacert", ca);
    command
}

#[test]
fn a_missing_or_empty_file_is_named_together_with_its_flag() {
    let pki = Pki::new();
    let (cert, key, ca) = (&pki.server_files.certificate, &pki.server_files.key, &pki.ca_file);
    let (missing, empty) = (pki.path("missing.pem"), pki.write("empty.pem", ""));
    let not_there = "no such file or directory";
    let nothing = "no certificates found";
    for (command, file, why, flag) in [
        (
            with_files(&missing, key, ca),
            &missing,
            not_there,
            "--cert must name",
        ),
        (
            with_files(cert, &missing, ca),
            &missing,
            not_there,
            "--key must name",
        ),
        (
            with_files(cert, key, &missing),
            &missing,
            not_there,
            "--cacert must name",
        ),
        (with_files(&empty, key, ca), &empty, nothing, "--cert must name"),
        (with_files(cert, &empty, ca), &empty, nothing, "--key must name"),
        (
            with_files(cert, key, &empty),
            &empty,
            "unable to read certificates from CA bundle",
            "--cacert must name",
        ),
        (
            with_files(pki.dir(), key, ca),
            &pki.dir().to_owned(),
            "is a directory",
            "--cert must name",
        ),
    ] {
        let cause = start_error(&command);
        for part in [&*file.display().to_string(), why, flag] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_with_both_files_named() {
    let pki = Pki::new();
    let (cert, key) = (&pki.server_files.certificate, &pki.client_files.key);
    assert_eq!(
        start_error(&with_files(cert, key, &pki.ca_file)),
        format!(
            "parsing X509 key pair: tls: private key does not match public key; the key must be that of the first \
             certificate (in {} and {})",
            cert.display(),
            key.display()
        )
    );
}

#[test]
fn exchanged_certificate_and_key_files_are_as_good_as_the_right_order() {
    // Every block of both files counts, wherever it is.
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let process = ghostunnel()
        .args(["server", "--allow-all", "--target=127.0.0.1:1"])
        .flag("--listen", listen.address().to_string())
        .flag("--cert", &pki.server_files.key)
        .flag("--key", &pki.server_files.certificate)
        .flag("--cacert", &pki.ca_file)
        .start();
    process.wait_listening(listen.port());
}

#[test]
fn two_files_of_one_kind_are_refused_with_what_was_found_in_them() {
    let pki = Pki::new();
    let (cert, key, ca) = (&pki.server_files.certificate, &pki.server_files.key, &pki.ca_file);
    let cause = start_error(&with_files(cert, cert, ca));
    assert!(
        cause.contains("type ending in \"PRIVATE KEY\"") && cause.contains("[CERTIFICATE CERTIFICATE]"),
        "{cause}"
    );
    let cause = start_error(&with_files(key, key, ca));
    assert!(
        cause.contains("failed to find \"CERTIFICATE\"") && cause.contains("[PRIVATE KEY PRIVATE KEY]"),
        "{cause}"
    );
}

#[test]
fn a_key_encrypted_in_the_old_way_is_refused_with_what_to_do() {
    let pki = Pki::new();
    let encrypted = pki.path("encrypted.pem");
    let Some(mut command) = openssl(&["pkey", "-traditional", "-aes256", "-passout", "pass:x"]) else {
        return;
    };
    command
        .arg("-in")
        .arg(&pki.server_files.key)
        .arg("-out")
        .arg(&encrypted);
    assert_eq!(command.run().exit, Exit::Code(0));
    let cause = start_error(&with_files(
        &pki.server_files.certificate,
        &encrypted,
        &pki.ca_file,
    ));
    assert!(
        cause.starts_with(
            "parsing X509 key pair: tls: failed to parse private key; it is encrypted in the old way (Proc-Type: \
             4,ENCRYPTED): convert it, for example with openssl pkcs8 -topk8"
        ),
        "{cause}"
    );
    assert!(cause.contains(&encrypted.display().to_string()), "{cause}");
}

#[test]
fn an_occupied_port_is_refused_with_what_to_do() {
    let pki = Pki::new();
    // Without SO_REUSEPORT, as servers usually are.
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound");
    let expected = format!(
        "listen tcp {taken}: bind: address already in use (another process listens there; stop it or choose another \
         port)"
    );
    let listen = |mode: &str, flag: &str, status: Option<String>| {
        let mut command = ghostunnel();
        command
            .args([mode, "--target=127.0.0.1:1"])
            .flag(
                "--listen",
                if status.is_some() {
                    "127.0.0.1:0".to_owned()
                } else {
                    taken.to_string()
                },
            )
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", &pki.server_files.keystore)
            .arg(flag);
        if let Some(status) = status {
            command.flag("--status", status);
        }
        command
    };
    for command in [
        listen("server", "--allow-all", None),
        listen("client", "--skip-resolve", None),
        listen("server", "--allow-all", Some(format!("http://{taken}"))),
    ] {
        assert_eq!(start_error(&command), expected);
    }
}

#[test]
fn an_impossible_port_is_refused_with_the_range() {
    let pki = Pki::new();
    let server = |listen: &str, target: &str| {
        let mut command = ghostunnel();
        command
            .args(["server", "--allow-all"])
            .flag("--listen", listen)
            .flag("--target", target)
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", &pki.server_files.keystore);
        command
    };
    let range = "address 99999: invalid port (a port is a number from 0 to 65535)";
    assert_eq!(
        start_error(&server("localhost:99999", "localhost:1")),
        format!("invalid --listen address: {range}")
    );
    let output = server("localhost:0", "localhost:99999").run();
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(output.stderr, format!("error: {range}\n"));
    assert!(
        output
            .stdout
            .contains(&format!("error: invalid target address: {range}\n")),
        "{output:?}"
    );
    assert_eq!(
        usage_error(server("localhost:0", "localhost:1").arg("--status=localhost:99999")),
        format!("invalid --status address: {range}")
    );
}

#[test]
fn a_target_without_an_address_is_refused_with_what_to_do() {
    let pki = Pki::new();
    let mut command = ghostunnel();
    command
        .args([
            "client",
            "--listen=127.0.0.1:0",
            "--target=nosuch.invalid:1",
            "--disable-authentication",
        ])
        .flag("--cacert", &pki.ca_file);
    let output = command.run();
    assert_eq!(output.exit, Exit::Code(1));
    let advice = "(correct the host in --target, or start without this check by --skip-resolve)";
    assert!(
        output
            .stdout
            .contains("error: invalid target address: lookup nosuch.invalid: "),
        "{output:?}"
    );
    assert!(
        output.stderr.starts_with("error: lookup nosuch.invalid: ") && output.stderr.contains(advice),
        "{output:?}"
    );
    // The advice is good.
    let process = command.arg("--skip-resolve").start();
    process.wait_for_line("listening for connections on");
}

#[test]
fn a_unix_socket_that_cannot_be_made_is_refused_with_what_to_do() {
    let pki = Pki::new();
    let dir = private_dir();
    let Some(program) = unprivileged(dir.path()) else {
        return;
    };
    fs::set_permissions(pki.dir(), fs::Permissions::from_mode(0o755)).expect("ours");
    for file in [&pki.server_files.keystore, &pki.ca_file] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("ours");
    }
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).expect("created");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("ours");
    let file = pki.write("file", "");
    for (path, why) in [
        (
            locked.join("socket"),
            "permission denied (the directory must be writable)",
        ),
        (
            pki.path("nosuch/socket"),
            "no such file or directory (the directory must exist)",
        ),
        (
            file,
            "address already in use (a file that is no socket is in the way)",
        ),
        (
            pki.path(&"x".repeat(120)),
            "invalid argument (the name is too long: a path may have 107 bytes)",
        ),
    ] {
        let mut command = program();
        command
            .args(["server", "--allow-all", "--target=127.0.0.1:1"])
            .flag("--listen", format!("unix:{}", path.display()))
            .flag("--cacert", &pki.ca_file)
            .flag("--keystore", &pki.server_files.keystore);
        assert_eq!(
            start_error(&command),
            format!("listen unix {}: bind: {why}", path.display())
        );
    }
}

#[test]
fn a_dead_backend_is_named_in_the_log_and_the_tunnel_stays_up() {
    let (pki, listen, dead) = (Pki::new(), ReservedPort::new(), ReservedPort::new());
    let process = server(&pki, &listen, &dead.address()).arg("--allow-all").start();
    process.wait_listening(listen.port());
    for _ in 0..2 {
        let mark = process.mark();
        let peer = TlsClient::trusting(&pki.authority)
            .identity(&pki.client)
            .connect(&listen.address().into());
        drop(peer);
        let line = process.wait_for_line_after(mark, "error on dial");
        assert!(
            line.ends_with(&format!(
                "error on dial: dial tcp {}: connect: connection refused",
                dead.address()
            )),
            "{line}"
        );
    }
    assert_eq!(process.try_exit(), None);
    assert_eq!(process.stderr(), "");
}

/// A server tunnel with one connection open through it.
fn with_an_open_connection(more: &str) -> (Process, TlsPeer, Backend, Pki) {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let backend = Backend::tcp(Behaviour::Echo);
    let process = server(&pki, &listen, backend.address())
        .args(["--allow-all", more])
        .start();
    process.wait_listening(listen.port());
    let mut peer = TlsClient::trusting(&pki.authority)
        .identity(&pki.client)
        .connect(&listen.address().into())
        .expect("admitted");
    assert_echoes(&mut peer);
    (process, peer, backend, pki)
}

#[test]
fn a_drained_shutdown_exits_with_0_and_says_nothing_on_stderr() {
    let (process, peer, _backend, _pki) = with_an_open_connection("--shutdown-timeout=1m");
    process.signal(Signal::TERM);
    process.wait_for_line("shutdown proxy, waiting for drain");
    assert_eq!(process.wait_exit_within(Duration::from_millis(50)), None);
    drop(peer);
    let output = process.wait_output();
    assert_eq!((output.exit, &*output.stderr), (Exit::Code(0), ""), "{output:?}");
}

#[test]
fn a_forced_shutdown_exits_with_1() {
    let (process, _peer, _backend, _pki) = with_an_open_connection("--shutdown-timeout=50ms");
    process.signal(Signal::TERM);
    let output = process.wait_output();
    assert_eq!(output.exit, Exit::Code(1));
    assert!(
        output.stdout.contains("graceful shutdown timeout: forcing exit"),
        "{output:?}"
    );
}

#[test]
fn a_second_signal_during_the_drain_ends_the_process_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let (process, _peer, _backend, _pki) = with_an_open_connection("--shutdown-timeout=1m");
        process.signal(signal);
        process.wait_for_line("shutdown proxy, waiting for drain");
        process.signal(signal);
        assert_eq!(process.wait_exit(), Exit::Signal(signal.as_raw()));
    }
}

#[test]
fn a_plain_client_tunnel_needs_no_more_than_listen_target_and_identity() {
    let (pki, listen) = (Pki::new(), ReservedPort::new());
    let tls = TlsServer::new(&pki.server, &ClientCertificates::required(&pki.authority));
    let backend = Backend::tls(tls, Behaviour::Echo);
    let process = client(&pki, &listen, backend.address()).start();
    process.wait_listening(listen.port());
    let address: Address = listen.address().into();
    let mut plain = Plain::connect(&address).expect("listening");
    assert_echoes(&mut plain);
}
