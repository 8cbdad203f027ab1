//! Completion of command lines, by the shells themselves.

use std::path::PathBuf;

use ghostunnel_testing::{Command, Exit, Pki, require_tool};

use crate::support::ghostunnel;

/// What the program offers for the last of these words.
fn candidates(words: &[&str]) -> String {
    let output = ghostunnel().arg("--completion-bash").args(words).run();
    assert_eq!(
        (output.exit, output.stderr.as_str()),
        (Exit::Code(0), ""),
        "{words:?}"
    );
    output.stdout.trim_end().to_owned()
}

#[test]
fn candidates_stand_on_lines() {
    assert_eq!(candidates(&[]), "help\nserver\nclient\ndemo");
    assert_eq!(candidates(&["ser"]), "help\nserver\nclient\ndemo");
    assert_eq!(
        candidates(&["server", "--proxy-protocol-mode", ""]),
        "conn\ntls\ntls-full"
    );
    for nothing in [
        &["--quiet", ""][..],
        &["--keystore", "x"],
        &["server", "--listen", ""],
    ] {
        assert_eq!(candidates(nothing), "", "{nothing:?}");
    }
    let flags = candidates(&["server", "--"]);
    assert!(flags.starts_with("--listen\n--target\n"), "{flags}");
    let (own, all) = flags.split_once("--help\n").expect("flags of all commands");
    assert!(
        own.contains("--allow-cn\n") && all.contains("--keystore\n"),
        "{flags}"
    );
    assert!(
        !flags.contains("--verify-cn") && !flags.contains("--allow-ip"),
        "{flags}"
    );
    // Mistakes before it, and what would act, do not matter.
    assert_eq!(
        candidates(&["--nosuch", "client", "--"]),
        candidates(&["client", "--"])
    );
    assert_eq!(candidates(&["--version", "--"]), candidates(&["--"]));
}

/// The script, and the program by the name it is completed by.
struct Scene {
    pki: Pki,
    program: String,
}

impl Scene {
    fn new() -> Self {
        let pki = Pki::new();
        let program = pki.ca_file.with_file_name("ghostunnel");
        let built = std::env::var_os("GHOSTUNNEL_BIN")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_ghostunnel")), PathBuf::from);
        std::os::unix::fs::symlink(built, &program).expect("a link");
        let program = program.display().to_string();
        Self { pki, program }
    }

    fn script(&self, flag: &str, name: &str) -> String {
        let output = ghostunnel().arg(flag).run();
        assert_eq!(output.exit, Exit::Code(0));
        self.pki.write(name, &output.stdout).display().to_string()
    }
}

fn lines(mut command: Command) -> Vec<String> {
    command.env("LC_ALL", "C");
    let output = command.run();
    assert_eq!((output.exit, output.stderr.as_str()), (Exit::Code(0), ""));
    output.stdout.lines().map(str::to_owned).collect()
}

/// What each shell makes of half a line: the line's words, and what the last can become.
const CASES: &[(&[&str], &[&str])] = &[
    (&["ser"], &["server"]),
    (&["server", "--proxy-protocol-m"], &["--proxy-protocol-mode"]),
    (&["server", "--proxy-protocol-mode", "tl"], &["tls", "tls-full"]),
    (&["--skip-resolve", "client", "--verify-d"], &["--verify-dns"]),
    (&["server", "--verify-"], &[]),
];

#[test]
fn bash_completes_command_lines() {
    let Some(bash) = require_tool("bash") else { return };
    let scene = Scene::new();
    let script = scene.script("--completion-script-bash", "ghostunnel.bash");
    let run = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _ghostunnel; \
               for word in \"${COMPREPLY[@]}\"; do echo \"$word\"; done";
    let complete = |words: &[&str]| {
        let mut command = Command::new(&bash);
        command
            .args(["--norc", "-c", run, "bash", &script, &scene.program])
            .args(words);
        lines(command)
    };
    for (words, expected) in CASES {
        assert_eq!(complete(words), *expected, "{words:?}");
    }
    // bash takes words apart at the equals sign.
    for words in [
        &["server", "--proxy-protocol-mode", "=", "tl"][..],
        &["server", "--proxy-protocol-mode", "=", "tls"],
    ] {
        assert_eq!(complete(words), ["tls", "tls-full"], "{words:?}");
    }
    assert_eq!(complete(&["--log-format", "="]), ["text", "json"]);
    // Registered for the program, with files where nothing else is offered.
    let mut registered = Command::new(&bash);
    registered.args([
        "--norc",
        "-c",
        "source \"$1\"; complete -p ghostunnel",
        "bash",
        &script,
    ]);
    assert_eq!(
        lines(registered),
        ["complete -o default -F _ghostunnel ghostunnel"]
    );
}

#[test]
fn zsh_completes_command_lines() {
    let Some(zsh) = require_tool("zsh") else { return };
    let scene = Scene::new();
    let script = scene.script("--completion-script-zsh", "_ghostunnel");
    // What zsh offers inside of completion only, so that the words can be seen.
    let run = "compdef() { registered=\"$*\" }; source \"$1\"; shift; \
               [ \"$registered\" = '_ghostunnel ghostunnel' ] || exit 3; \
               compadd() { shift; print -l -- \"$@\" }; _files() { print FILES }; \
               words=(\"$@\"); CURRENT=$#; _ghostunnel";
    let complete = |words: &[&str]| {
        let mut command = Command::new(&zsh);
        command
            .args(["-f", "-c", run, "zsh", &script, &scene.program])
            .args(words);
        lines(command)
    };
    for (words, expected) in CASES {
        let last = words.last().expect("a word");
        let offered = complete(words);
        let fitting: Vec<&String> = offered.iter().filter(|word| word.starts_with(last)).collect();
        assert_eq!(fitting, expected.iter().collect::<Vec<_>>(), "{words:?}");
    }
    assert_eq!(
        complete(&["--log-format="]),
        ["--log-format=text", "--log-format=json"]
    );
    assert_eq!(complete(&["--keystore", ""]), ["FILES"]);
}

#[test]
fn fish_completes_command_lines() {
    let Some(fish) = require_tool("fish") else { return };
    let scene = Scene::new();
    let script = scene.script("--completion-script-fish", "ghostunnel.fish");
    let complete = |words: &[&str]| {
        let line = [&[scene.program.as_str()], words].concat().join(" ");
        let mut command = Command::new(&fish);
        command
            .env("HOME", scene.pki.ca_file.parent().expect("a folder"))
            .args([
                "--no-config",
                "-c",
                "source $argv[1]; complete -C $argv[2]",
                &script,
                &line,
            ]);
        lines(command)
    };
    for (words, expected) in CASES {
        assert_eq!(complete(words), *expected, "{words:?}");
    }
    assert_eq!(complete(&["--log-format=j"]), ["--log-format=json"]);
}
