//! Every refusal that users know from Ghostunnel 1.11.1, by its phrase, exit code and stream;
//! and that nothing outside the process has been touched by then.

use std::collections::BTreeSet;
use std::fs;

use ghostunnel_testing::{Exit, Pki, require_tool};

use crate::support::ghostunnel;

/// The number of a row, a command line that violates it, and how the refusal begins.
type Row = (u32, &'static str, &'static str);

/// Usage errors, whatever the command.
const GLOBAL: &[Row] = &[
    (
        1,
        "--enable-pprof --enable-shutdown",
        "--enable-pprof requires --status to be set",
    ),
    (
        1,
        "--enable-pprof --status= server --listen=l --target=t",
        "--enable-pprof requires --status to be set",
    ),
    (
        2,
        "--enable-shutdown --metrics-url=x",
        "--enable-shutdown requires --status to be set",
    ),
    (
        3,
        "--metrics-url=HTTP://x",
        "--metrics-url should start with http:// or https://",
    ),
    (
        3,
        "--metrics-url=x server --listen=l --target=t --target-status=x",
        "--metrics-url should start with http:// or https://",
    ),
    (
        4,
        "server --listen=l --target=t --target-status=x --status=foo",
        "--target-status should start with http:// or https://",
    ),
    (
        4,
        "client --listen=l --target=t --target-status=http://x",
        "unknown long flag '--target-status'",
    ),
    (
        5,
        "--status=foo --connect-timeout=0",
        "invalid --status address: address foo: missing port in address",
    ),
    (
        5,
        "--status=http://a:b:c",
        "invalid --status address: address a:b:c: too many colons in address",
    ),
    (
        6,
        "--status=https://unix:/x",
        "invalid --status network \"unix\": http(s):// scheme requires a HOST:PORT target",
    ),
    (
        6,
        "--status=http://systemd:x",
        "invalid --status network \"systemd\": http(s):// scheme requires a HOST:PORT target",
    ),
    (
        6,
        "--status=http://launchd:x",
        "invalid --status network \"launchd\": http(s):// scheme requires a HOST:PORT target",
    ),
    (
        7,
        "--connect-timeout=0 --use-workload-api-timeout=-1s",
        "--connect-timeout duration must not be zero",
    ),
    (
        8,
        "client --listen=l --target=t --use-workload-api-timeout=-1s",
        "--use-workload-api-timeout duration must not be negative (use 0 to wait indefinitely)",
    ),
];

const NO_SOURCE: &str = "at least one of --keystore, --cert/--key, --auto-acme-cert, or --keychain-identity/issuer \
                         (if supported) flags is required";
const SOURCES: &str = "--keystore, --cert/--key, --auto-acme-cert, and --keychain-identity/issuer flags are mutually \
                       exclusive";
const HALF: &str = "--cert/--key must be set together, unless using PKCS11 for private key";
const NO_RULE: &str = "at least one access control flag";
const ALL: &str = "--allow-all is mutually exclusive with other access control flags";
const DISABLED: &str = "--disable-authentication is mutually exclusive with other access control flags";
const PINS: &str = "--allow-spki-pin is mutually exclusive with other access control flags";
const REMOTE: &str = "--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)";
const EMAIL: &str = "--auto-acme-cert was specified but no email address was provided with --auto-acme-email";
const TERMS: &str =
    "--auto-acme-agree-to-tos was not specified and is required if --auto-acme-cert is specified";
const POLICY: &str = "--allow-policy and --allow-query have to be used together";

/// Behind `server --listen=localhost:0 --target=localhost:1`.
const SERVER: &[Row] = &[
    (1, "", NO_SOURCE),
    (1, "--cert=c --allow-all", NO_SOURCE),
    (1, "--pkcs11-module=/dev/null --allow-all", NO_SOURCE),
    (
        1,
        "--auto-acme-email=e --auto-acme-agree-to-tos --allow-all",
        NO_SOURCE,
    ),
    (1, "--disable-authentication", NO_SOURCE),
    (2, "--keystore=s --cert=c --key=k", SOURCES),
    (2, "--keystore=s --use-workload-api", SOURCES),
    (
        2,
        "--keystore=s --no-use-workload-api --use-workload-api-addr=unix:///x",
        SOURCES,
    ),
    (2, "--keystore=s --auto-acme-cert=n", SOURCES),
    (2, "--cert=c --key=k --pkcs11-module=/dev/null", SOURCES),
    (3, "--keystore=s --cert=c", HALF),
    (3, "--keystore=s --key=k", HALF),
    (3, "--use-workload-api --key=k --pkcs11-module=/dev/null", HALF),
    (4, "--keystore=s", NO_RULE),
    (5, "--keystore=s --allow-all --allow-cn=", ALL),
    (5, "--keystore=s --allow-all --allow-ou=x", ALL),
    (5, "--keystore=s --allow-all --allow-dns=x", ALL),
    (5, "--keystore=s --allow-all --allow-ip=::1", ALL),
    (5, "--keystore=s --allow-all --allow-uri=x", ALL),
    (5, "--keystore=s --allow-all --allow-spki-pin=x", ALL),
    (5, "--keystore=s --allow-all --allow-query=x", ALL),
    (
        6,
        "--keystore=s --disable-authentication --allow-all --allow-cn=x",
        DISABLED,
    ),
    (
        6,
        "--keystore=s --disable-authentication --allow-spki-pin=x",
        DISABLED,
    ),
    (
        6,
        "--keystore=s --disable-authentication --allow-policy=x",
        DISABLED,
    ),
    (7, "--keystore=s --allow-spki-pin=x --allow-cn=x", PINS),
    (7, "--keystore=s --allow-spki-pin=x --allow-policy=p", PINS),
    (
        8,
        "--use-workload-api --allow-spki-pin=x",
        "--allow-spki-pin is mutually exclusive with --use-workload-api",
    ),
    (
        9,
        "--keystore=s --allow-spki-pin=abc",
        "--allow-spki-pin: invalid pin \"abc\": expected format <algo>:<base64-digest>",
    ),
    (
        9,
        "--keystore=s --allow-spki-pin=md5:AAAA",
        "--allow-spki-pin: invalid pin \"md5:AAAA\": unsupported hash algorithm \"md5\" (supported: sha256, sha384, sha512)",
    ),
    (
        9,
        "--keystore=s --allow-spki-pin=sha256:@@",
        "--allow-spki-pin: invalid pin \"sha256:@@\": base64 decode failed: illegal base64 data at input byte 0",
    ),
    (
        9,
        "--keystore=s --allow-spki-pin=sha256:AAAA",
        "--allow-spki-pin: invalid pin \"sha256:AAAA\": expected 32 bytes for sha256, got 3",
    ),
    (
        13,
        "--auto-acme-cert=n --allow-all --auto-acme-agree-to-tos",
        EMAIL,
    ),
    (14, "--auto-acme-cert=n --allow-all --auto-acme-email=e", TERMS),
    (15, "--keystore=s --allow-policy=p", POLICY),
    (
        15,
        "--keystore=s --allow-cn=x --allow-query=q --cipher-suites=x",
        POLICY,
    ),
    (
        16,
        "--keystore=s --allow-all --proxy-protocol --proxy-protocol-mode=conn",
        "--proxy-protocol and --proxy-protocol-mode are mutually exclusive",
    ),
    (
        17,
        "--keystore=s --allow-all --cipher-suites=AES,RC4",
        "invalid cipher suite 'RC4' selected",
    ),
    (
        17,
        "--keystore=s --allow-all --cipher-suites=AES,",
        "invalid cipher suite '' selected",
    ),
    (
        17,
        "--keystore=s --allow-all --cipher-suites=",
        "invalid cipher suite '' selected",
    ),
    (
        17,
        "--keystore=s --allow-all --cipher-suites=UNSAFE-AZURE",
        "invalid cipher suite 'UNSAFE-AZURE' selected",
    ),
    // What 1.11.1 found after certificates were loaded.
    (
        18,
        "--keystore=s --allow-all --max-tls-version=TLS1.1",
        "invalid max TLS version: unsupported TLS version: TLS1.1",
    ),
    (
        19,
        "--keystore=s --allow-uri=spiffe://**/x",
        "invalid URI pattern in --allow-uri flag (wildcard '**' can only appear at end of pattern)",
    ),
];

/// Behind `server --keystore=s --allow-all`.
const SERVER_ADDRESSES: &[Row] = &[
    (10, "--listen=localhost:0 --target=example.com:1", REMOTE),
    (10, "--listen=localhost:0 --target=:1", REMOTE),
    (
        11,
        "--listen=localhost:0 --target=x --unsafe-target",
        "invalid --target address: address x: missing port in address",
    ),
    (
        12,
        "--listen=localhost:0 --target=systemd:x",
        "invalid --target network \"systemd\": only tcp and unix targets are supported (systemd:/launchd: cannot be dialed)",
    ),
    (
        12,
        "--listen=localhost:0 --target=launchd:x --unsafe-target",
        "invalid --target network \"launchd\": only tcp and unix targets are supported (systemd:/launchd: cannot be dialed)",
    ),
    (
        20,
        "--listen=foo --target=localhost:1",
        "invalid --listen address: address foo: missing port in address",
    ),
];

const NO_CLIENT_SOURCE: &str = "at least one of --keystore, --cert/--key, --keychain-identity/issuer (if supported), \
                                --use-workload-api or --disable-authentication flags is required";
const CLIENT_SOURCES: &str = "--keystore, --cert/--key, --keychain-identity/issuer, --use-workload-api and \
                              --disable-authentication flags are mutually exclusive";
const VERIFY_PINS: &str = "--verify-spki-pin is mutually exclusive with other verification flags";
const VERIFY_POLICY: &str = "--verify-policy and --verify-query have to be used together";

/// Behind `client --listen=localhost:0 --target=localhost:1`.
const CLIENT: &[Row] = &[
    (1, "", NO_CLIENT_SOURCE),
    (1, "--key=k", NO_CLIENT_SOURCE),
    (2, "--keystore=s --disable-authentication", CLIENT_SOURCES),
    (
        2,
        "--keystore=s --use-workload-api --disable-authentication",
        CLIENT_SOURCES,
    ),
    (2, "--keystore=s --cert=c --key=k", CLIENT_SOURCES),
    (3, "--disable-authentication --cert=c", HALF),
    (7, "--keystore=s --verify-policy=p", VERIFY_POLICY),
    (
        7,
        "--use-workload-api --verify-query=q --verify-spki-pin=x",
        VERIFY_POLICY,
    ),
    (
        8,
        "--use-workload-api --verify-spki-pin=x --verify-cn=x",
        "--verify-spki-pin is mutually exclusive with --use-workload-api",
    ),
    (9, "--keystore=s --verify-spki-pin=x --verify-cn=", VERIFY_PINS),
    (
        9,
        "--keystore=s --verify-spki-pin=x --verify-policy=p --verify-query=q",
        VERIFY_PINS,
    ),
    (
        10,
        "--keystore=s --verify-spki-pin=x --cipher-suites=x",
        "--verify-spki-pin: invalid pin \"x\": expected format <algo>:<base64-digest>",
    ),
    (
        11,
        "--keystore=s --cipher-suites=x",
        "invalid cipher suite 'x' selected",
    ),
    (
        12,
        "--keystore=s --max-tls-version=x",
        "invalid max TLS version: unsupported TLS version: x",
    ),
    (
        13,
        "--keystore=s --verify-uri=",
        "invalid URI pattern in --verify-uri flag (input pattern was empty string)",
    ),
    (
        14,
        "--keystore=s --proxy=https://p",
        "error configuring proxy: proxy: unknown scheme: https",
    ),
];

/// Behind `client --keystore=s`.
const CLIENT_ADDRESSES: &[Row] = &[
    (
        4,
        "--listen=0.0.0.0:0 --target=x",
        "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is set)",
    ),
    (
        4,
        "--listen=foo --target=x",
        "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is set)",
    ),
    (
        5,
        "--listen=localhost:0 --target=x",
        "invalid --target address: address x: missing port in address",
    ),
    (
        6,
        "--listen=localhost:0 --target=unix:x",
        "invalid --target network \"unix\": client mode requires a HOST:PORT TCP target",
    ),
    (
        6,
        "--listen=localhost:0 --target=systemd:x",
        "invalid --target network \"systemd\": client mode requires a HOST:PORT TCP target",
    ),
    (
        6,
        "--listen=localhost:0 --target=launchd:x",
        "invalid --target network \"launchd\": client mode requires a HOST:PORT TCP target",
    ),
    (
        15,
        "--listen=foo --unsafe-listen --target=localhost:1",
        "invalid --listen address: address foo: missing port in address",
    ),
];

/// Tables of rows that are logged, and what stands before each of their command lines.
const LOGGED: &[(&str, &[Row])] = &[
    ("server --listen=localhost:0 --target=localhost:1", SERVER),
    ("server --keystore=s --allow-all", SERVER_ADDRESSES),
    ("client --listen=localhost:0 --target=localhost:1", CLIENT),
    ("client --keystore=s", CLIENT_ADDRESSES),
];

#[test]
fn global_rows_are_usage_errors() {
    for (row, words, phrase) in GLOBAL {
        let output = ghostunnel().args(words.split_whitespace()).run();
        assert_eq!(
            (output.exit, output.stdout.as_str()),
            (Exit::Code(1), ""),
            "row {row}: {words}"
        );
        let start = format!("ghostunnel: error: {phrase}");
        assert!(
            output.stderr.starts_with(&start),
            "row {row}: {words}: {output:?}"
        );
        assert!(
            output.stderr.ends_with(", try --help\n"),
            "row {row}: {words}: {output:?}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "row {row}: {words}");
    }
}

#[test]
fn other_rows_are_logged_and_repeated_on_standard_error() {
    for (before, rows) in LOGGED {
        for (row, words, phrase) in *rows {
            let words = format!("{before} {words}");
            for quiet in [false, true] {
                let mut command = ghostunnel();
                command.args(words.split_whitespace());
                if quiet {
                    command.arg("--quiet=all");
                }
                let output = command.run();
                assert_eq!(output.exit, Exit::Code(1), "row {row}: {words}: {output:?}");
                let start = format!("error: {phrase}");
                assert!(
                    output.stderr.starts_with(&start),
                    "row {row}: {words}: {output:?}"
                );
                assert_eq!(output.stderr.lines().count(), 1, "row {row}: {words}");
                match quiet {
                    true => assert_eq!(output.stdout, "", "row {row}: {words}"),
                    false => {
                        let is_logged = output.stdout.lines().any(|line| line.contains(&start));
                        assert!(is_logged, "row {row}: {words}: {output:?}");
                    }
                }
            }
        }
    }
}

/// Every row has at least one command line.
#[test]
fn no_row_is_forgotten() {
    let numbers = |tables: &[&[Row]]| -> Vec<u32> {
        let all = tables.iter().copied().flatten().map(|(row, ..)| *row);
        all.collect::<BTreeSet<u32>>().into_iter().collect()
    };
    assert_eq!(numbers(&[GLOBAL]), (1..=8).collect::<Vec<_>>());
    assert_eq!(numbers(&[SERVER, SERVER_ADDRESSES]), (1..=20).collect::<Vec<_>>());
    assert_eq!(numbers(&[CLIENT, CLIENT_ADDRESSES]), (1..=15).collect::<Vec<_>>());
}

/// What the words make the program do with files and sockets, by strace: its own calls, as they
/// are written there. `None` if strace is missing.
fn calls(words: &str) -> Option<Vec<String>> {
    let pki = Pki::new();
    let file = pki.ca_file.with_file_name("trace");
    let mut command = ghostunnel();
    let file_name = file.to_str().expect("text");
    let arguments = [
        "-f",
        "-qq",
        "-o",
        file_name,
        "-e",
        "trace=%network,open,openat,openat2,creat",
    ];
    command.args(words.split_whitespace());
    command.through(&require_tool("strace")?, arguments);
    let _refused = command.run();
    let text = fs::read_to_string(&file).expect("a trace");
    Some(text.lines().map(str::to_owned).collect())
}

/// The files that a trace names.
fn files(calls: &[String]) -> BTreeSet<String> {
    calls
        .iter()
        .filter_map(|call| Some(call.split('"').nth(1)?.to_owned()))
        .collect()
}

#[test]
fn a_refused_start_has_touched_nothing() {
    // What the loader and the runtime open for any command line.
    let Some(nothing) = calls("--version") else { return };
    let mut allowed = files(&nothing);
    allowed.extend(["/etc/localtime", "/etc/timezone", "/etc/services"].map(str::to_owned));
    // Of the C library, for names of services.
    allowed.extend(["/etc/nsswitch.conf", "/etc/ld.so.cache"].map(str::to_owned));

    let global = GLOBAL.iter().map(|(row, words, _)| (*row, (*words).to_owned()));
    let logged = LOGGED.iter().flat_map(|(before, rows)| {
        rows.iter()
            .map(move |(row, words, _)| (*row, format!("{before} {words}")))
    });
    // One command line for each row.
    let mut seen = BTreeSet::new();
    for (row, words) in global.chain(logged) {
        let command = words.split(' ').next().expect("a word").to_owned();
        if !seen.insert((command, row)) {
            continue;
        }
        let calls = calls(&words).expect("strace is there");
        let sockets: Vec<&String> = calls.iter().filter(|call| !call.contains("open")).collect();
        assert!(sockets.is_empty(), "row {row}: {words}: {sockets:#?}");
        let opened = files(&calls);
        let others: Vec<&String> = opened
            .difference(&allowed)
            .filter(|file| !file.starts_with("/usr/share/zoneinfo"))
            .collect();
        assert!(others.is_empty(), "row {row}: {words}: {others:#?}");
    }
}

/// Failures of a start behind the checks of flags, which certificates, names and sockets decide.
#[test]
fn later_failures_have_their_known_phrases() {
    let pki = Pki::new();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = busy.local_addr().expect("an address");
    let good = format!(
        "--cert={} --key={} --cacert={}",
        pki.server_files.certificate.display(),
        pki.server_files.key.display(),
        pki.ca_file.display()
    );
    let junk = pki.write("junk.pem", "junk");
    let junk = junk.display();
    let server = "server --allow-all --listen=localhost:0";
    let client = "client --listen=localhost:0";
    for (words, logged, cause) in [
        (
            format!(
                "{server} --target=localhost:1 --keystore=/nonexistent --metrics-url=https://h --cacert={junk}"
            ),
            "error: unable to build TLS config",
            "unable to read certificates from CA bundle",
        ),
        (
            format!("{server} --target=localhost:1 --cert=/nonexistent --key=/nonexistent"),
            "error: unable to load certificates",
            "reading certificate file \"/nonexistent\"",
        ),
        (
            format!(
                "{server} --target=localhost:1 --cert={} --key={}",
                pki.server_files.certificate.display(),
                pki.client_files.key.display()
            ),
            "error: unable to load certificates",
            "parsing X509 key pair",
        ),
        (
            format!("{client} --target=localhost:1 --disable-authentication --cacert={junk}"),
            "error: unable to load certificates",
            "unable to read certificates from CA bundle",
        ),
        (
            format!("{server} --target=nosuch.invalid:1 --unsafe-target {good}"),
            "error: invalid target address",
            "lookup nosuch.invalid",
        ),
        (
            format!("{client} --target=localhost:99999 {good}"),
            "error: invalid target address",
            "address 99999: invalid port",
        ),
        (
            format!("server --allow-all --listen={busy} --target=localhost:1 {good}"),
            "error trying to listen",
            "address already in use",
        ),
        (
            format!("client --listen={busy} --target=localhost:1 {good}"),
            "error opening socket",
            "address already in use",
        ),
        (
            format!("{server} --target=localhost:1 --status={busy} {good}"),
            "error: unable to bind on status port",
            "address already in use",
        ),
    ] {
        let output = ghostunnel().args(words.split_whitespace()).run();
        assert_eq!(output.exit, Exit::Code(1), "{words}: {output:?}");
        assert!(output.stderr.starts_with("error: "), "{words}: {output:?}");
        assert!(output.stderr.contains(cause), "{words}: {output:?}");
        assert!(output.stdout.contains(logged), "{words}: {output:?}");
    }
}
