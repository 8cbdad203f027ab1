//! `--help-man` and `--help-custom-man`, as formatters of man pages judge them.

use ghostunnel_testing::{Command, Exit, Pki, require_tool};

use crate::support::ghostunnel;

fn page(flag: &str) -> String {
    let output = ghostunnel().arg(flag).run();
    assert_eq!((output.exit, output.stderr.as_str()), (Exit::Code(0), ""));
    output.stdout
}

#[test]
fn pages_are_written_without_a_mistake_in_troff() {
    let Some(mandoc) = require_tool("mandoc") else {
        return;
    };
    let folder = Pki::new();
    for flag in ["--help-man", "--help-custom-man"] {
        let file = folder.write("ghostunnel.1", &page(flag));
        let mut lint = Command::new(&mandoc);
        lint.args(["-T", "lint", "-W", "warning"]).arg(&file);
        let findings = lint.run().stdout;
        // Pages that are made anew at each packaging have no date worth telling.
        let findings: Vec<&str> = findings
            .lines()
            .filter(|line| !line.contains("missing date"))
            .collect();
        assert!(findings.is_empty(), "{flag}: {findings:#?}");
    }
}

#[test]
fn the_whole_page_tells_more_than_flags() {
    let Some(mandoc) = require_tool("mandoc") else {
        return;
    };
    let folder = Pki::new();
    let file = folder.write("ghostunnel.1", &page("--help-custom-man"));
    let mut plain = Command::new(&mandoc);
    plain.args(["-T", "utf8", "-O", "width=200"]).arg(&file);
    // Bold letters are printed twice, with a step back between.
    let shown = plain.run().stdout;
    let mut text = String::new();
    for letter in shown.chars() {
        match letter {
            '\u{8}' => drop(text.pop()),
            other => text.push(other),
        }
    }
    for expected in [
        "SIGNALS",
        "ghostunnel server --listen=ADDR --target=ADDR [<flags>]",
        "--allow-cn=CN ...",
        "--[no-]proxy-protocol",
        "ghostunnel client \\",
        "KEYSTORE_PATH",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    assert!(!text.contains("--use-landlock"), "hidden flags stay hidden");
}
