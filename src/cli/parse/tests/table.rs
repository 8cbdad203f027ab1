//! The table of flags and the parser agree, whatever is typed.

use proptest::prelude::*;

use super::*;

#[test]
fn flags_of_other_commands_and_systems_are_unknown() {
    assert_refused(&[
        ("server --proxy=x", "unknown long flag '--proxy'"),
        ("client --target-status=x", "unknown long flag '--target-status'"),
        (
            "client --auto-acme-cert=x",
            "unknown long flag '--auto-acme-cert'",
        ),
        ("--no-pkcs11-module", "unknown long flag '--no-pkcs11-module'"),
        ("--keychain-identity=x", "unknown long flag '--keychain-identity'"),
        ("--eventlog", "unknown long flag '--eventlog'"),
    ]);
}

#[test]
fn a_variable_that_names_a_missing_file_breaks_all_but_help_and_version() {
    let variable = [("PKCS11_MODULE", "/nonexistent/x.so")];
    for words in [
        &["server", "--listen=l"][..],
        &[],
        &["--help-long"],
        &["--nosuch"],
    ] {
        assert_eq!(
            parse_in(words, &variable).expect_err("no such file"),
            "ghostunnel: error: PKCS11_MODULE: path '/nonexistent/x.so' does not exist, try --help",
            "{words:?}"
        );
    }
    for word in ["--help", "--version", "help", "demo"] {
        assert!(parse_in(&[word], &variable).is_ok(), "{word}");
    }
}

/// A value that a flag of this kind takes.
fn sample(flag: &Flag) -> Option<&'static str> {
    match flag.kind {
        Kind::Text(_) if flag.name == "metrics-url" => Some("http://a:1"),
        Kind::Bool(_) | Kind::Immediate(_) => None,
        Kind::Text(_) | Kind::Texts(_) | Kind::Path(_) | Kind::Paths(_) | Kind::Url(_) => Some("a:1"),
        Kind::ExistingFile(_) => Some("/dev/null"),
        Kind::Duration(_) => Some("1h2m"),
        Kind::Number(_) => Some("0x10"),
        Kind::Ports(_) => Some("1792"),
        Kind::Integer(_) => Some("1e3"),
        Kind::TcpAddress(_) => Some("[::1]:1"),
        Kind::IpAddresses(_) => Some("::1"),
        Kind::Choice(allowed, _) | Kind::Choices(allowed, _) => allowed.last().copied(),
    }
}

#[test]
fn every_flag_of_the_table_is_read_in_every_form() {
    for flag in FLAGS {
        let command = match flag.scope {
            Scope::Global | Scope::Server | Scope::Tunnel => "server",
            Scope::Client => "client",
            Scope::Demo => "demo",
        };
        for name in [flag.name].iter().chain(flag.aliases) {
            let forms = match sample(flag) {
                Some(value) => vec![
                    vec![format!("--{name}={value}")],
                    vec![format!("--{name}"), value.to_owned()],
                ],
                None => vec![
                    vec![format!("--{name}")],
                    vec![format!("--no-{name}")],
                    vec![format!("--{name}=true")],
                ],
            };
            for form in forms {
                let mut line = Line::default();
                let words = [command.to_owned()]
                    .into_iter()
                    .chain(form.clone())
                    .map(OsString::from)
                    .collect();
                assert!(line.read(&mut Tokens::new(words)).is_ok(), "{form:?}");
                assert!(line.has(flag), "{form:?}");
                assert!(convert(&mut Args::default(), &line).is_ok(), "{form:?}");
            }
        }
    }
}

#[test]
fn the_table_is_sound() {
    for (index, flag) in FLAGS.iter().enumerate() {
        let mut args = Args::default();
        if let Some(default) = flag.default {
            assert!(
                store(&mut args, flag, &TypedValue::Word(default.into())).is_ok(),
                "--{}",
                flag.name
            );
        }
        for name in [flag.name].iter().chain(flag.aliases) {
            assert!(!name.starts_with("no-") && !name.is_empty(), "--{name}");
            for other in FLAGS.iter().skip(index + 1) {
                let is_both = |command: &CommandWord| {
                    flag.scope.covers(Some(*command)) && other.scope.covers(Some(*command))
                };
                let apart = !CommandWord::ALL.iter().any(is_both);
                assert!(
                    apart || (other.name != *name && !other.aliases.contains(name)),
                    "--{name} twice"
                );
            }
        }
        assert!(flag.help.ends_with('.'), "--{}", flag.name);
    }
}

/// Words that get far into the parser.
fn word() -> impl Strategy<Value = OsString> {
    let name = (0..FLAGS.len()).prop_map(|index| FLAGS.get(index).map_or("", |flag| flag.name));
    let known = [
        "server",
        "client",
        "demo",
        "help",
        "-",
        "--",
        "-x",
        "@",
        "@/nonexistent",
        "unix:x",
        "localhost:1",
        "",
    ];
    prop_oneof![
        name.clone().prop_map(|name| format!("--{name}").into()),
        name.clone().prop_map(|name| format!("--no-{name}").into()),
        (name, "[a-z0-9:=.@-]{0,12}").prop_map(|(name, value)| format!("--{name}={value}").into()),
        proptest::sample::select(known.to_vec()).prop_map(OsString::from),
        "[^@].{0,10}".prop_map(OsString::from),
        proptest::collection::vec(any::<u8>(), 1..8)
            .prop_filter("no files", |bytes| bytes.first() != Some(&b'@'))
            .prop_map(OsString::from_vec),
    ]
}

proptest! {
    #[test]
    fn no_command_line_panics(words in proptest::collection::vec(word(), 0..12), variable in word()) {
        let _ = parse(&words, &|name| name.contains("PATH").then(|| variable.clone()));
    }

    #[test]
    fn a_flag_is_judged_alike_wherever_it_stands(index in 0..FLAGS.len(), value in "[^@].{0,12}|", attached: bool) {
        let flag = FLAGS.get(index).expect("within");
        // What these print may depend on the words around them.
        if matches!(flag.kind, Kind::Immediate(_)) {
            return Ok(());
        }
        let name = format!("--{}", flag.name);
        let words = match attached {
            true => vec![format!("{name}={value}")],
            false if flag.kind.is_bool() => vec![name.clone()],
            false => vec![name.clone(), value],
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (command, rest): (_, &[&str]) = match flag.scope {
            Scope::Global | Scope::Server | Scope::Tunnel => ("server", &["--listen=unix:l", "--target=unix:t"]),
            Scope::Client => ("client", &["--listen=unix:l", "--target=h:1"]),
            Scope::Demo => ("demo", &[]),
        };
        let verdict = |words: &[&[&str]]| format!("{:?}", parse_in(&words.concat(), &[]));
        let after = verdict(&[&[command], rest, &words]);
        prop_assert_eq!(&verdict(&[&[command], &words, rest]), &after);
        let before = verdict(&[&words, &[command], rest]);
        match flag.scope {
            // What a stray word is called, and which help is shown, depends on the command.
            Scope::Global if !flag.kind.is_bool() => prop_assert_eq!(&before, &after),
            Scope::Global => {}
            _ => {
                let expected = format!("unknown long flag '{name}'");
                prop_assert!(before.contains(&expected), "{}", before);
            }
        }
    }

    #[test]
    fn no_tunnel_panics(server: bool, words in proptest::collection::vec(word(), 0..6), listen in ".*", target in ".*") {
        let argv = ["g".into(), if server { "server" } else { "client" }.into(), "--keystore=k".into(),
            format!("--listen={listen}").into(), format!("--target={target}").into()];
        let _ = parse(&[&argv[..], &words].concat(), &|_| None);
        let _ = parse(&argv, &|_| None);
    }
}
