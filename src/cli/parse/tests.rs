mod order;
mod table;

use std::os::unix::ffi::OsStringExt;

use super::super::flags::Scope;
use super::super::{Breakage, DemoOptions, Run};
use super::*;

/// Parses words after the program's name, with an environment.
fn parse_in(words: &[&str], variables: &[(&str, &str)]) -> Result<Command, String> {
    let argv: Vec<OsString> = ["/usr/bin/ghostunnel"]
        .iter()
        .chain(words)
        .map(OsString::from)
        .collect();
    let lookup = |name: &str| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into())
    };
    parse(&argv, &lookup).map_err(|error| error.to_string())
}

fn parse_words(words: &str) -> Result<Command, String> {
    parse_in(
        &words
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>(),
        &[],
    )
}

/// Asserts that each command line is refused with this text, which a hint in parentheses
/// may follow.
#[track_caller]
fn assert_refused(cases: &[(&str, &str)]) {
    for (words, text) in cases {
        match parse_words(words) {
            Err(line) => assert_eq!(
                without_hint(&line),
                format!("ghostunnel: error: {text}"),
                "{words}"
            ),
            Ok(command) => panic!("{words}: {command:?}"),
        }
    }
}

/// An error line without its end, which must be there, and without a hint before that.
#[track_caller]
fn without_hint(line: &str) -> &str {
    let line = line.strip_suffix(", try --help").expect("the usual end");
    match line.split_once(" (") {
        Some((line, hint)) if hint.ends_with(')') => line,
        _ => line,
    }
}

#[test]
fn an_unknown_flag_is_answered_with_where_it_belongs_or_what_was_meant() {
    for (words, hint) in [
        (
            "--listen x server",
            " (it is known after the command server or client)",
        ),
        ("client --allow-cn x", " (it is known after the command server)"),
        ("server --verify-cn=x", " (it is known after the command client)"),
        ("server --once", " (it is known after the command demo)"),
        ("server --lisen x", " (did you mean --listen?)"),
        ("server --alow-al", " (did you mean --allow-all?)"),
        ("--cacerts x", " (did you mean --cacert?)"),
        (
            "server --shutdown-timout=1s",
            " (did you mean --shutdown-timeout?)",
        ),
        // Hidden, too far away, too short, absurdly long.
        ("server --allow-ip-sans", ""),
        ("--nosuch", ""),
        ("--kex", ""),
        (&format!("--{}", "x".repeat(100_000)), ""),
    ] {
        let name = words
            .split(['=', ' '])
            .find(|word| word.starts_with("--"))
            .expect("a flag");
        assert_eq!(
            parse_words(words).expect_err(words),
            format!("ghostunnel: error: unknown long flag '{name}'{hint}, try --help")
        );
    }
}

fn run(words: &str, variables: &[(&str, &str)]) -> Run {
    let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
    match parse_in(&words, variables) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn printed(words: &str) -> String {
    match parse_words(words) {
        Ok(Command::Print(text)) => text,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn mistakes_in_grammar_are_named() {
    assert_refused(&[
        ("-x", "unknown short flag '-x'"),
        ("-listen", "unknown short flag '-l'"),
        ("-x=1", "unknown short flag '-x'"),
        ("server -h", "unknown short flag '-h'"),
        ("version", "expected command but got \"version\""),
        ("service", "expected command but got \"service\""),
        ("serv", "expected command but got \"serv\""),
        ("-", "expected command but got \"\""),
        ("-- nosuch", "expected command but got \"nosuch\""),
        ("--nosuch", "unknown long flag '--nosuch'"),
        ("--nosuch=1", "unknown long flag '--nosuch'"),
        ("--=x", "unknown long flag '--'"),
        ("--listen x server", "unknown long flag '--listen'"),
        ("server --verify-cn=x", "unknown long flag '--verify-cn'"),
        ("client --allow-cn x", "unknown long flag '--allow-cn'"),
        ("server --once", "unknown long flag '--once'"),
        ("server --no-listen", "unknown long flag '--no-listen'"),
        ("--no-keystore", "unknown long flag '--no-keystore'"),
        ("--no-no-skip-resolve", "unknown long flag '--no-no-skip-resolve'"),
        ("--skip", "unknown long flag '--skip'"),
        ("server --listen", "expected argument for flag '--listen'"),
        (
            "server --listen --target x",
            "expected argument for flag '--listen'",
        ),
        ("server --listen --", "expected argument for flag '--listen'"),
        ("server --listen -- x", "expected argument for flag '--listen'"),
        (
            "--timed-reload -1s server",
            "expected argument for flag '--timed-reload'",
        ),
        (
            "server --allow-dns-san",
            "expected argument for flag '--allow-dns-san'",
        ),
        ("server extra", "unexpected extra"),
        ("server client", "unexpected client"),
        ("server -- --listen", "unexpected --listen"),
        ("server -- @file", "unexpected @file"),
        ("server -", "unexpected "),
        ("demo extra", "unexpected extra"),
        ("--skip-resolve true", "expected command but got \"true\""),
        ("server --skip-resolve true", "unexpected true"),
        ("--skip-resolve=yes", "expected command but got \"yes\""),
        ("--skip-resolve=server", "expected command but got \"server\""),
        ("server --skip-resolve=", "unexpected "),
        ("server --no-skip-resolve=false", "unexpected false"),
        ("@", "expected @ file to expand arguments from"),
        ("server --storepass @", "expected @ file to expand arguments from"),
    ]);
}

#[test]
fn values_follow_after_an_equals_sign_or_as_a_word() {
    let run = run(
        "server --listen=unix:a=b --target - --keystore=-k --cert - --allow-cn - --allow-cn=- --allow-cn=@x \
         --unsafe-target",
        &[],
    );
    let error = run.config.expect_err("an empty target");
    assert_eq!(
        error.to_string(),
        "invalid --target address: missing port in address (give HOST:PORT or unix:PATH)"
    );

    let config = self::run(
        "server --listen=unix:a=b --target=unix:t --keystore=-k --allow-cn - --allow-cn=@x",
        &[],
    );
    let config = config.config.expect("a configuration");
    let tunnel = config.tunnels.first().expect("a tunnel");
    assert_eq!(
        (tunnel.listen.text(), tunnel.target.text()),
        ("unix:a=b", "unix:t")
    );
    assert!(
        format!("{tunnel:?}").contains(r#"common_names: ["", "@x"]"#),
        "{tunnel:?}"
    );
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    let before = run(
        "--quiet=all --keystore k server --listen=unix:l --allow-all --target=unix:t",
        &[],
    );
    let after = run(
        "server --target=unix:t --allow-all --listen=unix:l --quiet=all --keystore k",
        &[],
    );
    assert!(before.logging.quiet_all && before.config.is_ok());
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn booleans_take_a_negative_form_and_an_attached_truth_value() {
    for (words, on) in [
        ("--skip-resolve", true),
        ("--no-skip-resolve", false),
        ("--skip-resolve=true", true),
        ("--skip-resolve=false", false),
        ("", false),
    ] {
        let words = format!("{words} server --listen=unix:l --target=unix:t --keystore k --allow-all");
        let config = run(&words, &[]).config.expect("a configuration");
        assert_eq!(
            config.tunnels.first().map(|tunnel| tunnel.resolve_at_start),
            Some(!on),
            "{words}"
        );
    }
}

#[test]
fn only_lists_can_be_repeated() {
    assert_refused(&[
        (
            "server --listen=a --listen=b --target=t",
            "flag 'listen' cannot be repeated",
        ),
        (
            "--skip-resolve --no-skip-resolve",
            "flag 'skip-resolve' cannot be repeated",
        ),
        (
            "--skip-resolve --skip-resolve",
            "flag 'skip-resolve' cannot be repeated",
        ),
        (
            "--connect-timeout=1s --connect-timeout=1s",
            "flag 'connect-timeout' cannot be repeated",
        ),
        (
            "--use-landlock --use-landlock",
            "flag 'use-landlock' cannot be repeated",
        ),
        ("demo --break=ca --break=ca", "flag 'break' cannot be repeated"),
    ]);
    let words = "client --listen=unix:l --target=h:1 --disable-authentication --verify-dns a --verify-dns-san b \
                 --verify-dns=c --quiet=conns --quiet= --quiet conn-errs";
    let run = run(words, &[]);
    assert!(format!("{:?}", run.config).contains(r#"dns_names: ["a", "b", "c"]"#));
    assert!(run.logging.quiet_conns && run.logging.quiet_conn_errs);
    assert!(!run.logging.quiet_all && !run.logging.quiet_handshake_errs);
}

#[test]
fn conversion_errors_name_the_flag_and_keep_their_phrase() {
    assert_refused(&[
        (
            "--connect-timeout=5",
            "--connect-timeout: time: missing unit in duration \"5\"",
        ),
        ("--timed-reload=", "--timed-reload: time: invalid duration \"\""),
        (
            "--close-timeout=1x",
            "--close-timeout: time: unknown unit \"x\" in duration \"1x\"",
        ),
        (
            "--max-concurrent-conns=-1",
            "--max-concurrent-conns: strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "--max-concurrent-conns 4294967296",
            "--max-concurrent-conns: strconv.ParseUint: parsing \"4294967296\": value out of range",
        ),
        (
            "--quiet=everything",
            "--quiet: enum value must be one of ,all,conns,handshake-errs,conn-errs, got 'everything'",
        ),
        ("server --allow-ip=foo", "--allow-ip: 'foo' is not an IP address"),
        (
            "client --verify-ip-san 1.2.3.4/8",
            "--verify-ip-san: '1.2.3.4/8' is not an IP address",
        ),
        (
            "demo --break=all",
            "--break: enum value must be one of ca,byte,stranger, got 'all'",
        ),
    ]);
}

const PAIR: [(&str, &str); 2] = [("CERT_PATH", "/c"), ("KEY_PATH", "/k")];

#[test]
fn the_environment_stands_in_for_flags_that_are_not_typed() {
    let words = "server --listen=unix:l --target=unix:t --allow-all";
    assert!(run(words, &PAIR).config.is_ok());
    assert!(
        run(
            words,
            &[
                ("KEYSTORE_PATH", "/ks"),
                ("KEYSTORE_PASS", "pass"),
                ("CACERT_PATH", "/ca")
            ]
        )
        .config
        .is_ok()
    );
    // Empty is unset.
    assert!(
        run(
            words,
            &[("KEYSTORE_PATH", ""), PAIR[0], PAIR[1], ("PKCS11_MODULE", "")]
        )
        .config
        .is_ok()
    );
    // A flag, even an empty one, suppresses its variable.
    let keystore = ("KEYSTORE_PATH", "/ks");
    assert!(run(words, &[keystore, PAIR[0], PAIR[1]]).config.is_err());
    assert!(
        run(&format!("{words} --keystore="), &[keystore, PAIR[0], PAIR[1]])
            .config
            .is_ok()
    );
    assert!(
        run(&format!("{words} --cert= --key="), &[keystore, PAIR[0], PAIR[1]])
            .config
            .is_ok()
    );
}

#[test]
fn deprecated_spellings_are_warned_about() {
    let words = "server --listen=unix:l --target=unix:t --keystore=k --allow-dns-san a --allow-dns-san b \
                 --allow-uri-san=x://y --use-landlock";
    assert_eq!(
        run(words, &[]).warnings,
        [
            "--allow-dns-san is deprecated: use --allow-dns",
            "--allow-uri-san is deprecated: use --allow-uri",
            "--use-landlock is ignored: the Landlock sandbox is on unless --disable-landlock is given",
        ]
    );
}

#[test]
fn bytes_that_are_not_utf8_are_for_paths_only() {
    let bytes = |prefix: &str| OsString::from_vec([prefix.as_bytes(), b"\xff\xfe"].concat());
    let attempt = |words: &[OsString]| {
        let argv: Vec<OsString> = [OsString::from("g")].iter().chain(words).cloned().collect();
        parse(&argv, &|_| None).map_err(|error| error.to_string())
    };
    let rest = ["server", "--listen=unix:l", "--target=unix:t", "--allow-all"].map(OsString::from);
    let with = |word: OsString| [&rest[..], &[word]].concat();
    assert!(matches!(attempt(&with(bytes("--keystore="))), Ok(Command::Run(run)) if run.config.is_ok()));
    for (word, expected) in [
        (
            bytes("--storepass="),
            "g: error: --storepass: value is not valid UTF-8, try --help",
        ),
        (
            bytes("--allow-cn="),
            "g: error: --allow-cn: value is not valid UTF-8, try --help",
        ),
        (
            bytes("--status=unix:"),
            "g: error: --status: value is not valid UTF-8, try --help",
        ),
        (
            bytes("--"),
            "g: error: unknown long flag '--\u{fffd}\u{fffd}', try --help",
        ),
        (bytes("-"), "g: error: unknown short flag '-\u{fffd}', try --help"),
        (bytes(""), "g: error: unexpected \u{fffd}\u{fffd}, try --help"),
    ] {
        assert_eq!(attempt(&with(word)).expect_err("not UTF-8"), expected);
    }
    let argv = ["g", "server", "--listen=l", "--target=t"].map(OsString::from);
    let error = parse(&argv, &|name| (name == "KEYSTORE_PASS").then(|| bytes(""))).expect_err("not UTF-8");
    assert_eq!(
        error.to_string(),
        "g: error: KEYSTORE_PASS: value is not valid UTF-8, try --help"
    );
}

#[test]
fn response_files_work_in_every_position() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("write a response file");
        format!("@{}", path.display())
    };
    let command = file("command", "# a comment\nserver\n--listen\n");
    let value = file("value", "unix:l\n\n--target=unix:t\n");
    let flags = file("flags", "--keystore=k\n--allow-cn\na name with spaces \n");
    let run = match parse_in(&[&command, &value, &flags], &[]) {
        Ok(Command::Run(run)) => run,
        other => panic!("{other:?}"),
    };
    assert!(
        format!("{:?}", run.config).contains(r#"common_names: ["a name with spaces "]"#),
        "{run:?}"
    );
    // After the equals sign it is an ordinary value.
    let words = [
        "server",
        "--listen=unix:l",
        "--target=unix:t",
        "--allow-all",
        &format!("--keystore={value}"),
    ];
    assert!(matches!(parse_in(&words, &[]), Ok(Command::Run(run)) if run.config.is_ok()));
}
