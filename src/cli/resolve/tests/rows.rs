//! Every refusal that users know, in the order in which they know it.

use super::*;
use crate::credentials::{HAS_PKCS11, Role};

/// Asserts for each row that its words, behind `before`, are refused with its text, and that
/// the earlier of two rows wins where both are violated.
#[track_caller]
fn assert_in_order(before: &str, rows: &[(&str, &str)]) {
    for (index, (words, text)) in rows.iter().enumerate() {
        let words = format!("{before} {words}");
        assert_eq!(refusal(&words), *text, "row {index}: {words}");
    }
}

/// Why the words are refused, be it as a usage error or in the log.
#[track_caller]
fn refusal(words: &str) -> String {
    match parse_words(words) {
        Err(line) => line
            .strip_prefix("ghostunnel: error: ")
            .and_then(|line| line.strip_suffix(", try --help"))
            .expect("the usual line")
            .to_owned(),
        Ok(Command::Run(run)) => run.config.expect_err(words).to_string(),
        Ok(other) => panic!("{words}: {other:?}"),
    }
}

#[test]
fn global_rows_are_judged_in_their_order() {
    let pprof = "--enable-pprof requires --status to be set";
    let shutdown = "--enable-shutdown requires --status to be set";
    let url = "--metrics-url should start with http:// or https://";
    let target_status = "--target-status should start with http:// or https://";
    let network = "invalid --status network \"unix\": http(s):// scheme requires a HOST:PORT target";
    let zero = "--connect-timeout duration must not be zero";
    let negative = "--use-workload-api-timeout duration must not be negative (use 0 to wait indefinitely)";
    let late = "--connect-timeout=0 --use-workload-api-timeout=-1s";
    for command in ["", SERVER, CLIENT] {
        assert_in_order(
            command,
            &[
                (
                    &format!("--enable-pprof --enable-shutdown --metrics-url=x {late}"),
                    pprof,
                ),
                (&format!("--enable-shutdown --metrics-url=x {late}"), shutdown),
                (&format!("--metrics-url=x --status=http://unix:x {late}"), url),
                (&format!("--status=http://unix:x {late}"), network),
                (late, zero),
                ("--use-workload-api-timeout=-1s", negative),
            ],
        );
    }
    assert_in_order(
        SERVER,
        &[
            ("--target-status=x --metrics-url=x", url),
            ("--target-status=x --status=http://unix:x", target_status),
            ("--target-status=HTTP://x", target_status),
        ],
    );
}

const PIN: &str = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn rows_of_a_server_are_judged_in_their_order() {
    let none = "at least one of --keystore, --cert/--key, --auto-acme-cert, or --keychain-identity/issuer (if \
                supported) flags is required";
    let several = "--keystore, --cert/--key, --auto-acme-cert, and --keychain-identity/issuer flags are mutually \
                   exclusive";
    let half = "--cert/--key must be set together, unless using PKCS11 for private key";
    let no_rule = "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
                   --disable-authentication) is required";
    let all = "--allow-all is mutually exclusive with other access control flags";
    let disabled = "--disable-authentication is mutually exclusive with other access control flags";
    let pins = "--allow-spki-pin is mutually exclusive with other access control flags";
    let pins_api = "--allow-spki-pin is mutually exclusive with --use-workload-api";
    let pin = "--allow-spki-pin: invalid pin \"abc\": expected format <algo>:<base64-digest>";
    let target = "--target must be unix:PATH or localhost:PORT (unless --unsafe-target is set)";
    let shape = "invalid --target address: address x: missing port in address (give HOST:PORT or unix:PATH)";
    let network = "invalid --target network \"systemd\": only tcp and unix targets are supported (systemd:/launchd: \
                   cannot be dialed)";
    let email = "--auto-acme-cert was specified but no email address was provided with --auto-acme-email";
    let consent =
        "--auto-acme-agree-to-tos was not specified and is required if --auto-acme-cert is specified";
    let policy = "--allow-policy and --allow-query have to be used together";
    let header = "--proxy-protocol and --proxy-protocol-mode are mutually exclusive";
    let cipher = "invalid cipher suite 'x' selected";
    let module = "--pkcs11-module=/dev/null";
    let late = "--allow-query=q --proxy-protocol --proxy-protocol-mode=tls --cipher-suites=x --allow-uri= \
                --max-tls-version=x";
    let last = "--cipher-suites=x --allow-uri= --max-tls-version=x";
    let server = "server --listen=foo";
    assert_in_order(
        server,
        &[
            ("--target=x", none),
            (&format!("--target=x --cert=c {late}"), none),
            (&format!("--target=x {module}"), none),
            (
                "--target=x --storepass=p --pkcs11-pin=p --pkcs11-token-label=l",
                none,
            ),
            ("--target=x --auto-acme-email=e --auto-acme-agree-to-tos", none),
            (
                &format!("--target=x --keystore=s --cert=c --key=k {late}"),
                several,
            ),
            ("--target=x --keystore=s --use-workload-api", several),
            (
                "--target=x --cert=c --key=k --use-workload-api-addr=unix:///x --no-use-workload-api",
                several,
            ),
            ("--target=x --use-workload-api --auto-acme-cert=n", several),
            (&format!("--target=x --cert=c --key=k {module}"), several),
            (&format!("--target=x --cert=c --keystore=s {module}"), several),
            ("--target=x --keystore=s --cert=c", half),
            ("--target=x --use-workload-api --key=k", half),
            (&format!("--target=x --keystore=s --key=k {module}"), half),
            ("--target=x --keystore=s", no_rule),
            ("--target=x --keystore=s --allow-policy= --allow-query=", no_rule),
            (&format!("--target=x --keystore=s --allow-all {late}"), all),
            ("--target=x --keystore=s --allow-all --allow-spki-pin=abc", all),
            ("--target=x --keystore=s --allow-all --allow-policy=p", all),
            (
                &format!("--target=x --keystore=s --allow-all --disable-authentication {late}"),
                disabled,
            ),
            (
                "--target=x --keystore=s --disable-authentication --allow-spki-pin=abc",
                disabled,
            ),
            (
                "--target=x --keystore=s --disable-authentication --allow-query=q",
                disabled,
            ),
            ("--target=x --keystore=s --allow-spki-pin=abc --allow-cn=", pins),
            (
                "--target=x --use-workload-api --allow-spki-pin=abc --allow-query=q",
                pins,
            ),
            ("--target=x --use-workload-api --allow-spki-pin=abc", pins_api),
            ("--target=x --keystore=s --allow-spki-pin=abc", pin),
            (&format!("--target=x --keystore=s {late}"), target),
            (&format!("--target=x --unsafe-target --keystore=s {late}"), shape),
            (&format!("--target=systemd:x --keystore=s {late}"), network),
            (
                &format!("--target=systemd:x --unsafe-target --keystore=s {late}"),
                network,
            ),
            (
                &format!("--target=unix:t --auto-acme-cert=n --auto-acme-agree-to-tos {late}"),
                email,
            ),
            (
                &format!("--target=unix:t --auto-acme-cert=n --auto-acme-email=e {late}"),
                consent,
            ),
            (&format!("--target=unix:t --keystore=s {late}"), policy),
            (
                "--target=unix:t --keystore=s --allow-all --cipher-suites=x --proxy-protocol --proxy-protocol-mode=tls",
                header,
            ),
            (&format!("--target=unix:t --keystore=s {last}"), cipher),
            (
                "--target=unix:t --keystore=s --allow-uri= --max-tls-version=x",
                "invalid max TLS version: unsupported TLS version: x",
            ),
            (
                "--target=unix:t --keystore=s --allow-uri=",
                "invalid URI pattern in --allow-uri flag (input pattern was empty string)",
            ),
            (
                &format!("--target=unix:t --cert=c --allow-all {module}"),
                "invalid --listen address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
            ),
        ],
    );
}

#[test]
fn rows_of_a_client_are_judged_in_their_order() {
    let none = "at least one of --keystore, --cert/--key, --keychain-identity/issuer (if supported), \
                --use-workload-api or --disable-authentication flags is required";
    let several = "--keystore, --cert/--key, --keychain-identity/issuer, --use-workload-api and \
                   --disable-authentication flags are mutually exclusive";
    let half = "--cert/--key must be set together, unless using PKCS11 for private key";
    let listen = "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is \
                  set)";
    let shape = "invalid --target address: address x: missing port in address (give HOST:PORT or unix:PATH)";
    let network = "invalid --target network \"systemd\": client mode requires a HOST:PORT TCP target";
    let policy = "--verify-policy and --verify-query have to be used together";
    let pins_api = "--verify-spki-pin is mutually exclusive with --use-workload-api";
    let pins = "--verify-spki-pin is mutually exclusive with other verification flags";
    let pin = "--verify-spki-pin: invalid pin \"abc\": expected format <algo>:<base64-digest>";
    let late = "--verify-query=q --verify-spki-pin=abc --cipher-suites=x --max-tls-version=x";
    let ready = "--listen=foo --unsafe-listen --target=h:1";
    assert_in_order(
        "client",
        &[
            (&format!("--listen=foo --target=x {late}"), none),
            ("--listen=foo --target=x --pkcs11-module=/dev/null", none),
            (
                &format!("--listen=foo --target=x --keystore=s --use-workload-api {late}"),
                several,
            ),
            (
                "--listen=foo --target=x --keystore=s --disable-authentication",
                several,
            ),
            (
                "--listen=foo --target=x --cert=c --key=k --pkcs11-module=/dev/null",
                several,
            ),
            (
                &format!("--listen=foo --target=x --keystore=s --key=k {late}"),
                half,
            ),
            (
                "--listen=foo --target=x --use-workload-api --disable-authentication --cert=c",
                half,
            ),
            (&format!("--listen=foo --target=x --keystore=s {late}"), listen),
            (
                &format!("--listen=foo --unsafe-listen --target=x --keystore=s {late}"),
                shape,
            ),
            (
                &format!("--listen=foo --unsafe-listen --target=systemd:x --keystore=s {late}"),
                network,
            ),
            (&format!("{ready} --use-workload-api {late}"), policy),
            (&format!("{ready} --keystore=s --verify-policy=p"), policy),
            (
                &format!("{ready} --use-workload-api --verify-spki-pin=abc --verify-cn=x"),
                pins_api,
            ),
            (
                &format!("{ready} --keystore=s --verify-spki-pin=abc --verify-cn="),
                pins,
            ),
            (
                &format!("{ready} --keystore=s --verify-spki-pin={PIN} --verify-policy=p --verify-query=q"),
                pins,
            ),
            (
                &format!("{ready} --disable-authentication --verify-spki-pin=abc --cipher-suites=x"),
                pin,
            ),
            (
                &format!(
                    "{ready} --disable-authentication --verify-spki-pin={PIN} --cipher-suites=x --max-tls-version=x"
                ),
                "invalid cipher suite 'x' selected",
            ),
            (
                &format!("{ready} --disable-authentication --max-tls-version=x --verify-uri= --proxy=x"),
                "invalid max TLS version: unsupported TLS version: x",
            ),
            (
                &format!("{ready} --disable-authentication --verify-uri= --proxy=x"),
                "invalid URI pattern in --verify-uri flag (input pattern was empty string)",
            ),
            (
                &format!("{ready} --disable-authentication --proxy=x"),
                "error configuring proxy: proxy: unknown scheme: ",
            ),
            (
                &format!("{ready} --use-workload-api"),
                "invalid --listen address: address foo: missing port in address (give HOST:PORT or unix:PATH)",
            ),
        ],
    );
}

#[test]
fn versions_and_suites_become_options() {
    let tls = |words: &str| tunnel(&format!("{SERVER} --keystore=s --allow-all {words}")).tls;
    assert_eq!(tls(""), tls::Options::default());
    assert_eq!(
        tls("--max-tls-version= --cipher-suites=CHACHA,AES"),
        tls::Options::default()
    );
    assert_eq!(tls("--max-tls-version=tls1.2").newest, Newest::Tls12);
    assert_ne!(tls("--cipher-suites=AES").groups, tls::Options::default().groups);
}

#[test]
fn what_works_in_pairs_is_no_refusal_alone() {
    // Refused for what is not built, not for a row.
    for words in [
        format!("{SERVER} --keystore=s --allow-cn=x --allow-policy=p --allow-query=q"),
        format!("{CLIENT} --disable-authentication --verify-policy=p --verify-query=q"),
    ] {
        assert!(
            refusal(&words).contains("does not have yet"),
            "{words}: {}",
            refusal(&words)
        );
    }
}

#[test]
fn a_module_goes_with_a_certificate_file_and_takes_its_key_from_the_token() {
    let module = "--pkcs11-module=/dev/null";
    for (words, certificate, role) in [
        ("--cert=c", "c", Role::Certificate),
        ("--keystore=s", "s", Role::Keystore),
    ] {
        let words = format!("{SERVER} {words} {module} --allow-all --pkcs11-token-label=l --pkcs11-pin=p");
        if !HAS_PKCS11 {
            assert!(refusal(&words).starts_with("--pkcs11-module needs a build with PKCS#11"));
            continue;
        }
        let Identity::Pkcs11(settings) = tunnel(&words).credentials.identity.clone() else {
            panic!("{words}")
        };
        assert_eq!(settings.certificate, std::path::Path::new(certificate));
        assert_eq!(settings.certificate_role, role);
        assert_eq!(settings.module, std::path::Path::new("/dev/null"));
        assert_eq!((settings.token_label.as_str(), settings.pin.expose()), ("l", "p"));
    }
}

#[test]
fn what_the_sandbox_must_allow_is_named_by_repeatable_flags() {
    let words = "--sandbox-allow-read=/a --sandbox-allow-read b --sandbox-allow-write=/c --sandbox-allow-connect=1792";
    let Ok(Command::Run(run)) = parse_words(&format!("{SERVER} --keystore=s --allow-all {words}")) else {
        panic!("{words}")
    };
    let sandbox = run.config.expect("allowed").sandbox;
    assert_eq!(sandbox.read, ["/a", "b"].map(std::path::PathBuf::from));
    assert_eq!(sandbox.write, ["/c"].map(std::path::PathBuf::from));
    assert_eq!(sandbox.connect_ports, [1792]);
    // An unset variable in a template must not open the working directory.
    for flag in ["--sandbox-allow-write", "--sandbox-allow-read"] {
        assert_eq!(
            refusal(&format!("{SERVER} {flag}=")),
            format!("{flag}: path must not be empty")
        );
    }
    for port in ["0", "65536", "http", ""] {
        let words = format!("{SERVER} --sandbox-allow-connect={port}");
        assert_eq!(
            refusal(&words),
            format!("--sandbox-allow-connect: port must be a number from 1 to 65535, got '{port}'")
        );
    }
}
