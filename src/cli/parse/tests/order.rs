//! Which mistake is reported, and what wins over mistakes.

use super::*;

#[test]
fn the_program_goes_by_the_name_it_was_called_by() {
    let none = |_: &str| None;
    for (name, expected) in [
        ("xyz", "xyz"),
        ("/opt/a/xyz", "xyz"),
        ("./g", "g"),
        ("", "ghostunnel"),
        ("/", "ghostunnel"),
    ] {
        let error = parse(&[name.into(), "-x".into()], &none).expect_err(name);
        assert_eq!(
            error.to_string(),
            format!("{expected}: error: unknown short flag '-x', try --help")
        );
    }
    assert!(matches!(parse(&[], &none), Ok(Command::Usage(_))));
}

#[test]
fn no_command_is_answered_with_usage() {
    for words in ["", "--keystore x", "--", "--skip-resolve --"] {
        assert!(
            matches!(parse_words(words), Ok(Command::Usage(text)) if text.starts_with("usage: ")),
            "{words}"
        );
    }
    assert_refused(&[
        (
            "--enable-shutdown",
            "--enable-shutdown requires --status to be set",
        ),
        (
            "--connect-timeout=0",
            "--connect-timeout duration must not be zero",
        ),
    ]);
}

#[test]
fn missing_required_flags_are_listed_in_order() {
    assert_refused(&[
        ("server", "required flag(s) '--listen', '--target' not provided"),
        ("client --listen=", "required flag(s) '--target' not provided"),
        ("server --target x", "required flag(s) '--listen' not provided"),
    ]);
}

#[test]
fn the_first_of_several_mistakes_is_the_one_reported() {
    assert_refused(&[
        // Grammar beats conversion, however late it is.
        (
            "--connect-timeout=5 server --nosuch",
            "unknown long flag '--nosuch'",
        ),
        ("--a --b", "unknown long flag '--a'"),
        // Grammar beats help.
        ("--help --nosuch", "unknown long flag '--nosuch'"),
        ("--help=maybe", "expected command but got \"maybe\""),
        // The first conversion error or repeat beats the next.
        (
            "--skip-resolve --skip-resolve --connect-timeout=5",
            "flag 'skip-resolve' cannot be repeated",
        ),
        (
            "--connect-timeout=5 --skip-resolve --skip-resolve",
            "--connect-timeout: time: missing unit in duration \"5\"",
        ),
        // Conversion beats missing flags, missing flags beat validation.
        (
            "server --connect-timeout=5",
            "--connect-timeout: time: missing unit in duration \"5\"",
        ),
        (
            "server --connect-timeout=0",
            "required flag(s) '--listen', '--target' not provided",
        ),
        // A mistake before help or version wins.
        ("--nosuch --version", "unknown long flag '--nosuch'"),
        ("--nosuch help", "unknown long flag '--nosuch'"),
    ]);
}

#[test]
fn help_and_version_win_over_what_they_should() {
    for words in [
        "--version",
        "--no-version",
        "--version=x",
        "--version --nosuch",
        "server --version",
        "--help --version",
    ] {
        assert!(printed(words).starts_with("rev "), "{words}");
    }
    for words in [
        "--help",
        "--no-help",
        "--help=true",
        "--help=false",
        "--help-long",
        "--help-long --nosuch",
        "help",
        "help --nosuch",
        "help help",
        "--help --connect-timeout=5",
        "--help --enable-shutdown",
        "--help-long --connect-timeout=0",
        "--help --help",
    ] {
        let text = printed(words);
        assert!(
            text.starts_with("usage: ghostunnel [<flags>] <command>"),
            "{words}: {text}"
        );
    }
    for words in [
        "server --help",
        "--help server",
        "help server",
        "server --listen=x --listen=y --help",
    ] {
        assert!(
            printed(words).starts_with("usage: ghostunnel server --listen=ADDR"),
            "{words}"
        );
    }
    assert!(printed("demo --help").contains("--break=WHAT"));
}

#[test]
fn man_pages_scripts_and_candidates_are_printed_before_mistakes_are_told() {
    for (flag, start) in [
        ("--help-man", ".\\\" Made by"),
        ("--help-custom-man", ".\\\" Made by"),
        ("--completion-script-bash", "# Completion"),
        ("--completion-script-zsh", "#compdef ghostunnel\n"),
        ("--completion-script-fish", "# Completion"),
    ] {
        for words in [
            flag.to_owned(),
            format!("server {flag} --nosuch"),
            format!("{flag} --enable-pprof"),
        ] {
            assert!(printed(&words).starts_with(start), "{words}");
        }
        assert!(parse_words(&format!("--nosuch {flag}")).is_err());
    }
    // Candidates have no line feed at their end, and are given whatever is wrong.
    assert_eq!(
        printed("--completion-bash --nosuch x"),
        "help\nserver\nclient\ndemo"
    );
    assert!(printed("--completion-bash server --version --").starts_with("--listen\n"));
    assert!(printed("--version --completion-bash").starts_with("rev "));
}

#[test]
fn help_is_asked_about_one_known_command_at_most() {
    for (words, expected) in [
        (
            "help nosuch",
            "ghostunnel: error: expected command but got \"nosuch\"",
        ),
        ("help server extra", "ghostunnel: error: unexpected extra"),
    ] {
        assert_eq!(parse_words(words).expect_err(words), expected);
    }
    let error =
        parse(&["xyz".into(), "help".into(), "nosuch".into()], &|_| None).expect_err("no such command");
    assert_eq!(
        error.to_string(),
        "ghostunnel: error: expected command but got \"nosuch\""
    );
}

#[test]
fn demo_takes_its_own_flags_only() {
    let options = |words: &str| match parse_words(words) {
        Ok(Command::Demo(options)) => options,
        other => panic!("{words}: {other:?}"),
    };
    assert_eq!(
        options("demo"),
        DemoOptions {
            once: false,
            breakage: None
        }
    );
    assert_eq!(
        options("demo --once --break ca"),
        DemoOptions {
            once: true,
            breakage: Some(Breakage::Ca)
        }
    );
    assert_eq!(
        options("demo --no-once --break=byte").breakage,
        Some(Breakage::Byte)
    );
    assert_eq!(
        options("demo --break=stranger").breakage,
        Some(Breakage::Stranger)
    );
    for word in flags::BREAKAGES {
        assert!(
            options(&format!("demo --break={word}")).breakage.is_some(),
            "{word}"
        );
    }
    assert_refused(&[
        ("demo --keystore k", "--keystore cannot be used with demo"),
        ("--quiet=all demo", "--quiet cannot be used with demo"),
        (
            "--enable-shutdown demo",
            "--enable-shutdown cannot be used with demo",
        ),
        ("demo --listen x", "unknown long flag '--listen'"),
    ]);
    assert!(parse_in(&["demo"], &[("KEYSTORE_PATH", "/ks")]).is_ok());
}
