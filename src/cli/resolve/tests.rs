mod access;
mod addresses;
mod order;
mod process;
mod rows;

use std::ffi::OsString;

use super::super::{Command, parse};
use super::*;
use crate::authorization::{Rules, UriPattern};
use crate::credentials::{Identity, Password, Trust};

fn parse_words(words: &str) -> Result<Command, String> {
    let words = ["ghostunnel"]
        .into_iter()
        .chain(words.split(' ').filter(|word| !word.is_empty()));
    let argv: Vec<OsString> = words.map(OsString::from).collect();
    parse(&argv, &|_| None).map_err(|error| error.to_string())
}

fn run(words: &str) -> Run {
    match parse_words(words) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{words}: {other:?}"),
    }
}

fn config(words: &str) -> Config {
    run(words)
        .config
        .unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn tunnel(words: &str) -> Arc<Tunnel> {
    config(words).tunnels.into_iter().next().expect("one tunnel")
}

/// Asserts that each command line, after these words, is no configuration for this reason,
/// which advice in parentheses may follow.
#[track_caller]
fn assert_refused(before: &str, cases: &[(&str, &str)]) {
    for (words, text) in cases {
        let words = format!("{before} {words}");
        let error = run(&words).config.expect_err(&words).to_string();
        assert!(error == *text || is_advised(&error, text), "{words}: {error}");
    }
}

fn is_advised(error: &str, text: &str) -> bool {
    error
        .strip_prefix(text)
        .is_some_and(|advice| advice.starts_with(" (") && advice.ends_with(')'))
}

const SERVER: &str = "server --listen=localhost:1 --target=localhost:2";
const CLIENT: &str = "client --listen=localhost:1 --target=example.com:2";

#[test]
fn a_server_has_exactly_one_source_of_credentials() {
    let none = "at least one of --keystore, --cert/--key, --auto-acme-cert, or --keychain-identity/issuer (if \
                supported) flags is required";
    let several = "--keystore, --cert/--key, --auto-acme-cert, and --keychain-identity/issuer flags are mutually \
                   exclusive";
    let half = "--cert/--key must be set together, unless using PKCS11 for private key";
    assert_refused(
        &format!("{SERVER} --allow-all"),
        &[
            ("", none),
            ("--cert=c", none),
            ("--key=k", none),
            ("--keystore=", none),
            ("--keystore= --cert=c --key=", none),
            ("--keystore=s --cert=c --key=k", several),
            ("--keystore=s --cert=c", half),
            ("--keystore=s --key=k", half),
        ],
    );
    // Not a source: the server needs a certificate all the same.
    assert_refused(SERVER, &[("--disable-authentication", none)]);
}

#[test]
fn a_client_has_exactly_one_source_of_credentials_or_wants_none() {
    let none = "at least one of --keystore, --cert/--key, --keychain-identity/issuer (if supported), \
                --use-workload-api or --disable-authentication flags is required";
    let several = "--keystore, --cert/--key, --keychain-identity/issuer, --use-workload-api and \
                   --disable-authentication flags are mutually exclusive";
    let half = "--cert/--key must be set together, unless using PKCS11 for private key";
    assert_refused(
        CLIENT,
        &[
            ("", none),
            ("--cert=c", none),
            ("--keystore=s --cert=c --key=k", several),
            ("--keystore=s --disable-authentication", several),
            ("--cert=c --key=k --disable-authentication", several),
            ("--cert=c --disable-authentication", half),
            ("--keystore=s --key=k", half),
        ],
    );
}

#[test]
fn passwords_come_from_one_place() {
    let parse_in = |words: &str, directory: Option<&str>| {
        let argv = format!("ghostunnel {CLIENT} {words}");
        let argv: Vec<OsString> = argv.split(' ').map(OsString::from).collect();
        let variable = |name: &str| {
            directory
                .filter(|_| name == "CREDENTIALS_DIRECTORY")
                .map(OsString::from)
        };
        match parse(&argv, &variable) {
            Ok(Command::Run(run)) => run.config.map_err(|error| error.to_string()),
            other => panic!("{words}: {other:?}"),
        }
    };
    let file = |words: &str, directory| -> Result<String, String> {
        let config = parse_in(words, directory)?;
        match &config.tunnels[0].credentials.identity {
            Identity::Keystore {
                password: Password::File(path),
                ..
            }
            | Identity::Pair {
                password: Password::File(path),
                ..
            } => Ok(path.display().to_string()),
            other => panic!("{words}: {other:?}"),
        }
    };
    let ok = |path: &str| Ok(path.to_owned());
    assert_eq!(file("--keystore=s --storepass-file=dir/p", None), ok("dir/p"));
    assert_eq!(file("--cert=c --key=k --storepass-file=/p", None), ok("/p"));
    let with = |name: &str, directory| {
        file(
            &format!("--keystore=s --storepass-file=credential:{name}"),
            directory,
        )
    };
    assert_eq!(
        with("pass", Some("/run/credentials/unit")),
        ok("/run/credentials/unit/pass")
    );
    let failure = with("pass", None).expect_err("nobody hands over credentials");
    assert!(
        failure.starts_with("--storepass-file=credential: needs $CREDENTIALS_DIRECTORY"),
        "{failure}"
    );
    for name in ["", "..", ".", "a/b", "../pass"] {
        let failure = with(name, Some("/run")).expect_err("no name");
        assert!(
            failure.starts_with(&format!("--storepass-file=credential:{name}: ")),
            "{failure}"
        );
    }
    assert_eq!(
        file("--keystore=s --storepass=p --storepass-file=f", None),
        Err("--storepass and --storepass-file are mutually exclusive".to_owned())
    );
    // Where nobody needs a password, none is looked for.
    parse_in("--disable-authentication --storepass-file=credential:x", None).expect("unused");
}

#[test]
fn credentials_are_taken_as_given() {
    let credentials = |words: &str| tunnel(&format!("{CLIENT} {words}")).credentials.clone();
    let pair = credentials("--cert=c --key=k --storepass=unused --cacert=ca");
    assert!(
        matches!(pair.identity, Identity::Pair { cert, key, .. } if cert.as_os_str() == "c" && key.as_os_str() == "k")
    );
    assert!(matches!(pair.trust, Trust::Bundle(path) if path.as_os_str() == "ca"));
    let keystore = credentials("--keystore=s --storepass=p");
    assert!(matches!(
        keystore.identity,
        Identity::Keystore {
            password: Password::Given(_),
            ..
        }
    ));
    assert!(matches!(keystore.trust, Trust::System));
    let keystore = credentials("--keystore=s --storepass= --cacert=");
    assert!(matches!(
        keystore.identity,
        Identity::Keystore {
            password: Password::None,
            ..
        }
    ));
    assert!(matches!(keystore.trust, Trust::System));
    assert!(matches!(
        credentials("--disable-authentication").identity,
        Identity::None
    ));
}

#[test]
fn a_server_is_told_whom_to_admit_in_one_way() {
    let none = "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
                --disable-authentication) is required";
    let all = "--allow-all is mutually exclusive with other access control flags";
    let disabled = "--disable-authentication is mutually exclusive with other access control flags";
    assert_refused(
        &format!("{SERVER} --keystore=s"),
        &[
            ("", none),
            ("--no-allow-all --no-disable-authentication", none),
            ("--allow-all --allow-cn=", all),
            ("--allow-all --allow-ou=x", all),
            ("--allow-all --allow-dns=x", all),
            ("--allow-all --allow-ip=::1", all),
            ("--allow-all --allow-uri=x://y", all),
            ("--disable-authentication --allow-all", disabled),
            ("--disable-authentication --allow-cn=x", disabled),
            ("--disable-authentication --allow-all --allow-cn=x", disabled),
        ],
    );
}

#[test]
fn access_rules_become_rules() {
    let client_auth = |words: &str| match &tunnel(&format!("{SERVER} --keystore=s {words}")).mode {
        Mode::Server { client_auth, .. } => client_auth.clone(),
        Mode::Client { .. } => panic!("{words}: a client"),
    };
    assert!(matches!(
        client_auth("--disable-authentication"),
        ClientAuth::Disabled
    ));
    assert!(matches!(
        client_auth("--allow-all"),
        ClientAuth::Required(Rules { all: true, .. })
    ));
    let words = "--allow-cn=a --allow-ou=b --allow-dns=c --allow-dns-san=d --allow-ip=::1 --allow-ip-san=1.2.3.4 \
                 --allow-uri=x://* --allow-uri-san=y://**";
    let ClientAuth::Required(rules) = client_auth(words) else {
        panic!("authentication is off")
    };
    assert!(!rules.all);
    assert_eq!(
        (rules.common_names, rules.organizational_units),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!(rules.dns_names, ["c", "d"]);
    assert_eq!(
        rules
            .ip_addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["::1", "1.2.3.4"]
    );
    assert_eq!(
        rules.uris.iter().map(UriPattern::text).collect::<Vec<_>>(),
        ["x://*", "y://**"]
    );
}

#[test]
fn senders_of_headers_are_those_who_can_connect() {
    let announcers = |words: &str| match &tunnel(&format!("server --target=localhost:2 {words}")).mode {
        Mode::Server { announcers, .. } => announcers.clone(),
        Mode::Client { .. } => panic!("{words}: a client"),
    };
    let rest = "--keystore=s --allow-all";
    assert_eq!(announcers(&format!("--listen=localhost:1 {rest}")), None);
    for (words, tcp, unix) in [
        (
            "--listen=localhost:1 --proxy-protocol-accept=10.0.0.1",
            true,
            false,
        ),
        ("--listen=unix:/s --proxy-protocol-accept=unix", false, true),
        ("--listen=systemd:s --proxy-protocol-accept=unix", false, true),
        (
            "--listen=systemd:s --proxy-protocol-accept=unix --proxy-protocol-accept=::/0",
            true,
            true,
        ),
    ] {
        let found = announcers(&format!("{words} {rest}")).expect(words);
        assert_eq!(
            (found.include_tcp(), found.include_unix()),
            (tcp, unix),
            "{words}"
        );
    }
    assert_refused(
        &format!("server --target=localhost:2 {rest}"),
        &[
            (
                "--listen=localhost:1 --proxy-protocol-accept=unix",
                "--proxy-protocol-accept names no peer that could connect to a TCP port: give addresses or ranges",
            ),
            (
                "--listen=unix:/s --proxy-protocol-accept=::1",
                "--proxy-protocol-accept names no peer that could connect to a UNIX socket: give \
                 --proxy-protocol-accept=unix",
            ),
            (
                "--listen=localhost:1 --proxy-protocol-accept=",
                "invalid --proxy-protocol-accept: \"\" is neither an IP address, nor a range such as 10.0.0.0/8, nor \
                 the word unix",
            ),
        ],
    );
}

#[test]
fn a_header_for_the_target_is_asked_for_in_one_way() {
    let header = |words: &str| match &tunnel(&format!("{SERVER} --keystore=s --allow-all {words}")).mode {
        Mode::Server { header, .. } => *header,
        Mode::Client { .. } => panic!("{words}: a client"),
    };
    for (words, expected) in [
        ("", None),
        ("--no-proxy-protocol", None),
        ("--proxy-protocol", Some(HeaderDetail::Addresses)),
        ("--proxy-protocol-mode=conn", Some(HeaderDetail::Addresses)),
        ("--proxy-protocol-mode tls", Some(HeaderDetail::Tls)),
        (
            "--no-proxy-protocol --proxy-protocol-mode=tls-full",
            Some(HeaderDetail::TlsFull),
        ),
    ] {
        assert_eq!(header(words), expected, "{words}");
    }
    assert_refused(
        &format!("{SERVER} --keystore=s --allow-all"),
        &[(
            "--proxy-protocol --proxy-protocol-mode=conn",
            "--proxy-protocol and --proxy-protocol-mode are mutually exclusive",
        )],
    );
    for (value, got) in [("", ""), ("Tls", "Tls")] {
        assert_eq!(
            parse_words(&format!("{SERVER} --proxy-protocol-mode={value}")).map(|_| ()),
            Err(format!(
                "ghostunnel: error: --proxy-protocol-mode: enum value must be one of conn,tls,tls-full, got '{got}', \
                 try --help"
            ))
        );
    }
}

#[test]
fn a_client_without_rules_accepts_every_server_that_proves_its_name() {
    let verify = |words: &str| match &tunnel(&format!("{CLIENT} --keystore=s {words}")).mode {
        Mode::Client { verify, .. } => verify.clone(),
        Mode::Server { .. } => panic!("{words}: a server"),
    };
    assert!(verify("").all);
    for words in [
        "--verify-cn=x",
        "--verify-cn=",
        "--verify-ou=x",
        "--verify-dns=x",
        "--verify-ip=::1",
        "--verify-uri=x",
    ] {
        assert!(!verify(words).all, "{words}");
    }
}

#[test]
fn empty_rules_match_nobody_and_are_warned_about() {
    let server = run(&format!(
        "{SERVER} --keystore=s --allow-cn= --allow-ou= --allow-dns="
    ));
    assert!(server.config.is_ok());
    assert_eq!(
        server.warnings,
        [
            "--allow-cn with an empty value matches nobody",
            "--allow-ou with an empty value matches nobody",
            "--allow-dns with an empty value matches nobody",
        ]
    );
    let client = run(&format!("{CLIENT} --keystore=s --verify-dns-san= --verify-dns=x"));
    assert_eq!(
        client.warnings,
        [
            "--verify-dns-san is deprecated: use --verify-dns",
            "--verify-dns with an empty value matches nobody"
        ]
    );
}
