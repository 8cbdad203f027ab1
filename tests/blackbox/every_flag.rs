//! Every flag, in every way it can be typed, by the binary. The list here is compared with
//! what the binary itself knows, so that none is forgotten.

use std::collections::BTreeSet;
use std::fs;

use ghostunnel_testing::{Exit, Output};

use crate::support::ghostunnel;

/// A flag as users know it.
struct Flag {
    /// The command after which it is known; empty for all.
    command: &'static str,
    name: &'static str,
    /// A value that is taken; `None` for a switch.
    value: Option<&'static str>,
    /// Values that are not, and why.
    refused: &'static [(&'static str, &'static str)],
    variable: Option<&'static str>,
    is_repeatable: bool,
    is_hidden: bool,
}

const fn switch(command: &'static str, name: &'static str) -> Flag {
    Flag {
        command,
        name,
        value: None,
        refused: &[],
        variable: None,
        is_repeatable: false,
        is_hidden: false,
    }
}

const fn valued(command: &'static str, name: &'static str, value: &'static str) -> Flag {
    Flag {
        value: Some(value),
        ..switch(command, name)
    }
}

const fn duration(name: &'static str) -> Flag {
    Flag {
        refused: &[
            ("", r#"time: invalid duration """#),
            ("5", r#"time: missing unit in duration "5""#),
            ("1x", r#"time: unknown unit "x" in duration "1x""#),
        ],
        ..valued("", name, "1h2m3.5s")
    }
}

const fn address(command: &'static str, name: &'static str) -> Flag {
    Flag {
        refused: &[
            ("", "'' is not an IP address"),
            ("10.0.0.0/8", "'10.0.0.0/8' is not an IP address"),
            ("fe80::1%lo", "'fe80::1%lo' is not an IP address"),
        ],
        ..valued(command, name, "2001:db8::1")
    }
}

const fn url(name: &'static str) -> Flag {
    Flag {
        refused: &[
            (
                "127.0.0.1:1",
                r#"invalid URL: parse "127.0.0.1:1": first path segment in URL cannot contain colon"#,
            ),
            (":1", r#"invalid URL: parse ":1": missing protocol scheme"#),
        ],
        ..valued("client", name, "http://proxy:3128")
    }
}

impl Flag {
    const fn variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    const fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.is_hidden = true;
        self
    }

    const fn refusing(mut self, refused: &'static [(&'static str, &'static str)]) -> Self {
        self.refused = refused;
        self
    }

    /// The flag as one word, set or with its value.
    fn typed(&self) -> String {
        match self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }

    /// A command after which it is known.
    fn home(&self) -> &'static str {
        if self.command.is_empty() {
            "server"
        } else {
            self.command
        }
    }
}

/// Every flag of Ghostunnel 1.11.1 on Linux, in its order, but for those that print something.
const ORIGINAL: &[Flag] = &[
    valued("", "keystore", "k").variable("KEYSTORE_PATH"),
    valued("", "cert", "c").variable("CERT_PATH"),
    valued("", "key", "k").variable("KEY_PATH"),
    valued("", "storepass", "p").variable("KEYSTORE_PASS"),
    valued("", "cacert", "c").variable("CACERT_PATH"),
    switch("", "use-workload-api"),
    valued("", "use-workload-api-addr", "unix:///s").variable("SPIFFE_ENDPOINT_SOCKET"),
    duration("use-workload-api-timeout"),
    valued("", "pkcs11-module", "/dev/null")
        .variable("PKCS11_MODULE")
        .refusing(&[
            ("", "path '' does not exist"),
            ("/nonexistent/m.so", "path '/nonexistent/m.so' does not exist"),
            ("/usr/bin", "'bin' is a directory"),
        ]),
    valued("", "pkcs11-token-label", "l").variable("PKCS11_TOKEN_LABEL"),
    valued("", "pkcs11-pin", "p").variable("PKCS11_PIN"),
    valued("", "cipher-suites", "AES").hidden(),
    switch("", "allow-unsafe-cipher-suites").hidden(),
    valued("", "max-tls-version", "TLS1.2").hidden(),
    duration("timed-reload"),
    duration("shutdown-timeout"),
    duration("connect-timeout"),
    duration("close-timeout"),
    duration("max-conn-lifetime"),
    valued("", "max-concurrent-conns", "0x1_0").refusing(&[
        ("", r#"strconv.ParseUint: parsing "": invalid syntax"#),
        ("-1", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
        (
            "4294967296",
            r#"strconv.ParseUint: parsing "4294967296": value out of range"#,
        ),
    ]),
    valued("", "metrics-graphite", "127.0.0.1:2003").refusing(&[(
        "x",
        "'x' is not a valid TCP address: address x: missing port in address",
    )]),
    valued("", "metrics-url", "http://h"),
    valued("", "metrics-prefix", "p"),
    duration("metrics-interval"),
    valued("", "status", "localhost:1"),
    switch("", "enable-pprof"),
    switch("", "enable-shutdown"),
    valued("", "quiet", "conns").repeatable().refusing(&[(
        "loud",
        "enum value must be one of ,all,conns,handshake-errs,conn-errs, got 'loud'",
    )]),
    switch("", "skip-resolve"),
    switch("", "syslog"),
    switch("", "disable-landlock"),
    switch("", "use-landlock").hidden(),
    valued("server", "listen", "l"),
    valued("server", "target", "t"),
    valued("server", "target-status", "http://h"),
    switch("server", "proxy-protocol"),
    valued("server", "proxy-protocol-mode", "tls-full").refusing(&[
        ("", "enum value must be one of conn,tls,tls-full, got ''"),
        ("TLS", "enum value must be one of conn,tls,tls-full, got 'TLS'"),
    ]),
    switch("server", "unsafe-target"),
    switch("server", "allow-all"),
    valued("server", "allow-cn", "x").repeatable(),
    valued("server", "allow-ou", "x").repeatable(),
    valued("server", "allow-dns", "x").repeatable(),
    address("server", "allow-ip").repeatable().hidden(),
    valued("server", "allow-uri", "x").repeatable(),
    valued("server", "allow-dns-san", "x").repeatable().hidden(),
    address("server", "allow-ip-san").repeatable().hidden(),
    valued("server", "allow-uri-san", "x").repeatable().hidden(),
    valued("server", "allow-spki-pin", "x").repeatable(),
    valued("server", "allow-policy", "p"),
    valued("server", "allow-query", "q"),
    switch("server", "disable-authentication"),
    valued("server", "auto-acme-cert", "n"),
    valued("server", "auto-acme-email", "e"),
    switch("server", "auto-acme-agree-to-tos"),
    valued("server", "auto-acme-ca", "u"),
    valued("server", "auto-acme-testca", "u"),
    Flag {
        command: "server",
        ..duration("auto-acme-renew-check-interval")
    }
    .hidden(),
    valued("server", "auto-acme-alt-tls-alpn-port", "1.9")
        .hidden()
        .refusing(&[("x", r#"strconv.ParseFloat: parsing "x": invalid syntax"#)]),
    valued("client", "listen", "l"),
    valued("client", "target", "t"),
    switch("client", "unsafe-listen"),
    valued("client", "override-server-name", "n"),
    url("proxy"),
    url("connect-proxy").hidden(),
    valued("client", "verify-cn", "x").repeatable(),
    valued("client", "verify-ou", "x").repeatable(),
    valued("client", "verify-dns", "x").repeatable(),
    valued("client", "verify-uri", "x").repeatable(),
    address("client", "verify-ip").repeatable().hidden(),
    valued("client", "verify-dns-san", "x").repeatable().hidden(),
    address("client", "verify-ip-san").repeatable().hidden(),
    valued("client", "verify-uri-san", "x").repeatable().hidden(),
    valued("client", "verify-spki-pin", "x").repeatable(),
    valued("client", "verify-policy", "p"),
    valued("client", "verify-query", "q"),
    switch("client", "disable-authentication"),
];

/// Flags that print something and end the process.
const PRINTING: &[(&str, bool)] = &[
    ("help", false),
    ("version", false),
    ("help-long", true),
    ("help-man", true),
    ("help-custom-man", true),
    ("completion-bash", true),
    ("completion-script-bash", true),
    ("completion-script-zsh", true),
    // New.
    ("completion-script-fish", true),
];

/// Flags that Ghostunnel 1.11.1 does not have. They have tests of their own.
const NEW: &[&str] = &[
    "deny-cn",
    "deny-dns",
    "deny-ip",
    "deny-ou",
    "deny-serial",
    "deny-spki-pin",
    "deny-uri",
    "drain-status",
    "log-format",
    "log-level",
    "proxy-protocol-accept",
    "require-cn",
    "require-dns",
    "require-ip",
    "require-ou",
    "require-uri",
    "sandbox-allow-connect",
    "sandbox-allow-read",
    "sandbox-allow-write",
    "storepass-file",
];

#[test]
fn the_list_is_that_of_the_binary() {
    let listed = |is_hidden: bool| -> BTreeSet<String> {
        let printing = PRINTING.iter().filter(|(_, hidden)| *hidden == is_hidden);
        ORIGINAL
            .iter()
            .filter(|flag| flag.is_hidden == is_hidden)
            .map(|flag| format!("{} --{}", flag.command, flag.name))
            .chain(printing.map(|(name, _)| format!(" --{name}")))
            .collect()
    };

    let help = ghostunnel().arg("--help-long").env("COLUMNS", "300").run();
    let (mut command, mut visible) = ("", BTreeSet::new());
    for line in help.stdout.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_command = line.starts_with("  ") && !line.starts_with("   ");
        if let Some(name) = word
            .strip_prefix("--")
            .filter(|_| line.starts_with("  --") || line.starts_with("      --"))
        {
            let name = name
                .trim_start_matches("[no-]")
                .split('=')
                .next()
                .unwrap_or_default();
            if command != "demo" && !NEW.contains(&name) {
                visible.insert(format!("{command} --{name}"));
            }
        } else if is_command {
            command = ["server", "client", "demo"]
                .into_iter()
                .find(|known| *known == word)
                .unwrap_or("");
        }
    }
    assert_same(&visible, &listed(false));

    // The page is what the table of flags makes (tests/generated.rs).
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/flags.md")).expect("readable");
    let (_, hidden) = page.split_once("\n## Hidden\n").expect("a section");
    let mut found = BTreeSet::new();
    for row in hidden.lines().filter(|line| line.starts_with("| `--")) {
        let name = row
            .trim_start_matches("| `--")
            .trim_start_matches("[no-]")
            .split(['=', '`'])
            .next()
            .expect("a name");
        let command = ["server", "client"].into_iter().find(|command| {
            let is_older = row.contains(&format!(
                "| `--{}",
                if *command == "server" { "allow" } else { "verify" }
            ));
            row.contains(&format!("*{command}*: ")) || (is_older && row.contains("-san`"))
        });
        found.insert(format!("{} --{name}", command.unwrap_or_default()));
    }
    assert_same(&found, &listed(true));
}

#[track_caller]
fn assert_same(known: &BTreeSet<String>, listed: &BTreeSet<String>) {
    let difference: Vec<&String> = known.symmetric_difference(listed).collect();
    assert!(
        difference.is_empty(),
        "in the binary or in the list, but not in both (new flags go into NEW): {difference:?}"
    );
}

fn run(words: &[&str]) -> Output {
    ghostunnel().args(words).run()
}

/// Asserts a usage error, on standard error only, that begins so.
#[track_caller]
fn assert_usage_error(words: &[&str], text: &str) {
    let output = run(words);
    assert_eq!(
        (output.exit, output.stdout.as_str()),
        (Exit::Code(1), ""),
        "{words:?}"
    );
    let expected = format!("ghostunnel: error: {text}");
    assert!(output.stderr.starts_with(&expected), "{words:?}: {output:?}");
    assert!(output.stderr.ends_with(", try --help\n"), "{words:?}: {output:?}");
}

/// Asserts that the words, which lack required flags, have no other fault: that is the first
/// check behind grammar and values.
#[track_caller]
fn assert_taken(words: &[&str]) {
    let output = run(words);
    assert_eq!(
        (output.exit, output.stdout.as_str()),
        (Exit::Code(1), ""),
        "{words:?}"
    );
    let start = "ghostunnel: error: required flag(s) '--";
    assert!(output.stderr.starts_with(start), "{words:?}: {output:?}");
}

/// Flags by turns, so that the tests run beside each other.
fn share(index: usize) -> impl Iterator<Item = &'static Flag> {
    ORIGINAL.iter().skip(index).step_by(2)
}

fn every_flag_is_taken(flags: impl Iterator<Item = &'static Flag>) {
    for flag in flags {
        let (home, typed, name) = (flag.home(), flag.typed(), format!("--{}", flag.name));
        assert_taken(&[home, &typed]);
        match flag.value {
            Some(value) => {
                assert_taken(&[home, &name, value]);
                assert_usage_error(&[home, &name], &format!("expected argument for flag '{name}'"));
                let negative = format!("--no-{}", flag.name);
                assert_usage_error(&[home, &negative], &format!("unknown long flag '{negative}'"));
            }
            None => {
                assert_taken(&[home, &format!("--no-{}", flag.name)]);
                assert_taken(&[home, &format!("{name}=false")]);
                assert_usage_error(&[home, &format!("{name}=maybe")], "unexpected maybe");
            }
        }
        for (value, reason) in flag.refused {
            assert_usage_error(&[home, &format!("{name}={value}")], &format!("{name}: {reason}"));
        }
        match flag.is_repeatable {
            true => assert_taken(&[home, &typed, &typed]),
            false => {
                let expected = format!("flag '{}' cannot be repeated", flag.name);
                assert_usage_error(&[home, &typed, &typed], &expected);
            }
        }
        if let Some((variable, value)) = flag.variable.zip(flag.value) {
            for value in [value, ""] {
                let output = ghostunnel().arg(home).env(variable, value).run();
                assert!(
                    output.stderr.contains("required flag(s)"),
                    "{variable}: {output:?}"
                );
            }
        }
    }
}

#[test]
fn flags_are_taken_in_every_form_and_no_other() {
    every_flag_is_taken(share(0));
}

#[test]
fn the_other_flags_are_taken_in_every_form_and_no_other() {
    every_flag_is_taken(share(1));
}

#[test]
fn flags_are_known_where_they_belong() {
    for flag in ORIGINAL {
        let (typed, name) = (flag.typed(), format!("--{}", flag.name));
        let unknown = format!("unknown long flag '{name}'");
        if flag.command.is_empty() {
            for command in ["server", "client"] {
                assert_taken(&[&typed, command]);
                assert_taken(&[command, &typed]);
            }
        } else {
            let other = if flag.command == "server" {
                "client"
            } else {
                "server"
            };
            assert_usage_error(&[&typed, flag.command], &unknown);
            let is_in_both = ORIGINAL
                .iter()
                .any(|twin| twin.name == flag.name && twin.command == other);
            match is_in_both {
                true => assert_taken(&[other, &typed]),
                false => assert_usage_error(&[other, &typed], &unknown),
            }
        }
    }
}

#[test]
fn what_prints_goes_to_standard_output_and_succeeds() {
    for (name, start) in [
        ("help", "usage: ghostunnel [<flags>] <command> [<args> ...]\n"),
        (
            "help-long",
            "usage: ghostunnel [<flags>] <command> [<args> ...]\n",
        ),
        ("version", "rev 2."),
        ("help-man", ".\\\" "),
        ("help-custom-man", ".\\\" "),
        ("completion-bash", "help\nserver\nclient\n"),
        ("completion-script-bash", "# "),
        ("completion-script-zsh", "#compdef "),
        ("completion-script-fish", "# "),
    ] {
        assert!(PRINTING.iter().any(|(known, _)| *known == name), "--{name}");
        for flag in [format!("--{name}"), format!("--no-{name}")] {
            let output = run(&[&flag]);
            assert_eq!(
                (output.exit, output.stderr.as_str()),
                (Exit::Code(0), ""),
                "{flag}"
            );
            assert!(output.stdout.starts_with(start), "{flag}: {output:?}");
        }
    }
}
