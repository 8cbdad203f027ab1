//! The reference of all flags in `docs/`, in Markdown.

use crate::cli::flags::{FLAGS, Flag, Kind, Scope};
use crate::cli::help;

const HEAD: &str = "\
# Flags

Made from the table in `src/cli/flags.rs`; edit that, and run `UPDATE_GENERATED=1 cargo test --test generated`. `ghostunnel help` shows the
same in a terminal, `ghostunnel --help-custom-man` as a man page.

A value follows after `=` or as a separate word; a separate word must not begin with `-`, and a separate `-` is an empty value. Switches are
written `--name`, `--no-name` or `--name=true`. Flags marked *repeatable* may be given several times. Flags of all commands stand before or after
the command. A word `@FILE` is replaced by the lines of that file, one argument each. A flag wins over its environment variable, and an empty
variable counts as unset.

Durations are numbers with units (`1h30m`, `1.5s`): `ns` `us` `ms` `s` `m` `h` `d` `w`.
";

/// The page.
pub fn flag_reference() -> String {
    let mut page = HEAD.to_owned();
    for (title, scope) in [
        ("All commands", Scope::Global),
        ("server", Scope::Server),
        ("client", Scope::Client),
        ("server and client", Scope::Tunnel),
        ("demo", Scope::Demo),
    ] {
        page.push_str(&format!("\n## {title}\n"));
        page.push_str(&table(|flag| flag.scope == scope && !flag.hidden));
    }
    page.push_str("\n## Hidden\n\nThey are known, but not shown in help.\n");
    page.push_str(&table(|flag| flag.hidden));
    page.push_str("\n## Older names\n\n| older name | use |\n|---|---|\n");
    for flag in FLAGS {
        for alias in flag.aliases {
            page.push_str(&format!("| `--{alias}` | `--{}` |\n", flag.name));
        }
    }
    page
}

fn table(belongs: impl Fn(&Flag) -> bool) -> String {
    let mut text = "\n| flag | default | variable | meaning |\n|---|---|---|---|\n".to_owned();
    for flag in FLAGS.iter().filter(|flag| belongs(flag)) {
        let code = |text: Option<&str>| text.map_or(String::new(), |text| format!("`{text}`"));
        text.push_str(&format!(
            "| `{}`{} | {} | {} | {} |\n",
            name(flag),
            if flag.kind.is_repeatable() {
                " *repeatable*"
            } else {
                ""
            },
            if flag.required {
                "*required*".to_owned()
            } else {
                code(flag.default)
            },
            code(flag.variable),
            meaning(flag),
        ));
    }
    text
}

/// As help shows it, but with a word for the value and not its default.
fn name(flag: &Flag) -> String {
    let value = match (flag.kind, flag.placeholder) {
        (Kind::Duration(_), None) => "DURATION",
        (Kind::Number(_), None) => "NUMBER",
        (Kind::Choice(words, _), None) => return format!("--{}={}", flag.name, words.join("\\|")),
        (_, None) => return help::synopsis(flag),
        (_, Some(placeholder)) => placeholder,
    };
    format!("--{}={value}", flag.name)
}

fn meaning(flag: &Flag) -> String {
    let scope = match flag.scope {
        Scope::Global => "",
        Scope::Server => "*server*: ",
        Scope::Client => "*client*: ",
        Scope::Tunnel => "*server*, *client*: ",
        Scope::Demo => "*demo*: ",
    };
    let scope = if flag.hidden { scope } else { "" };
    let help = flag.help.replace('|', "\\|").replace('*', "\\*");
    match flag.deprecated {
        Some(reason) => format!("{scope}{help} It {reason}."),
        None => format!("{scope}{help}"),
    }
}
