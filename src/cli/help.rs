//! Help and version, from the table of flags.

use std::ffi::OsString;

use super::Environment;
use super::flags::{CommandWord, FLAGS, Flag, Kind, Scope};
use crate::credentials::HAS_PKCS11;

pub(super) const DESCRIPTION: &str =
    "A TLS proxy with mutual authentication, for services and clients that do not speak TLS themselves.";

pub(super) const NOTES: &str = "Booleans take --name, --no-name or --name=true|false. A value may follow as a separate word \
                     unless it starts with '-'; a separate '-' is an empty value. A word @FILE is replaced by the \
                     lines of that file, one argument each; write --name=@value for a value that starts with '@'.";

/// Width of lines where neither environment nor terminal gives one.
const DEFAULT_WIDTH: usize = 80;

/// Columns that the left side of a list may take; longer entries get a line of their own.
const MAX_LEFT: usize = 30;

/// Fewest columns for the right side, however narrow the terminal.
const MIN_RIGHT: usize = 20;

/// The line that `--version` prints.
pub(super) fn version() -> String {
    format!(
        "rev {} built with rustc {} (pkcs11: {}, keychain: false)\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_RUST_VERSION"),
        HAS_PKCS11
    )
}

/// The whole help, or that of one command.
pub(super) fn usage(command: Option<CommandWord>, environment: Environment<'_>) -> String {
    let width = width(environment("COLUMNS"));
    match command.and_then(scope) {
        Some((command, scope)) => command_usage(command, scope, width),
        None => whole_usage(width),
    }
}

fn whole_usage(width: usize) -> String {
    let mut text = String::from("usage: ghostunnel [<flags>] <command> [<args> ...]\n\n");
    paragraph(&mut text, 0, width, DESCRIPTION);
    text.push('\n');
    paragraph(&mut text, 0, width, NOTES);
    text.push_str("\nFlags:\n");
    list(&mut text, 2, width, &entries(of_scope(Scope::Global)));
    text.push_str("\nCommands:\n");
    for command in CommandWord::ALL {
        let synopsis = match scope(command) {
            Some((_, scope)) => format!("{}{}", command.word(), arguments(scope)),
            None => format!("{} [<command>]", command.word()),
        };
        text.push_str(&format!("  {synopsis}\n"));
        paragraph(&mut text, 4, width, command.help());
        if let Some((_, scope)) = scope(command) {
            text.push('\n');
            let own = |flag: &&Flag| flag.scope == scope || flag.scope.is_shared_by(command);
            list(&mut text, 6, width, &entries(FLAGS.iter().filter(own)));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn command_usage(command: CommandWord, scope: Scope, width: usize) -> String {
    let mut text = format!("usage: ghostunnel {}{}\n\n", command.word(), arguments(scope));
    paragraph(&mut text, 0, width, command.help());
    text.push_str("\nFlags:\n");
    let flags = FLAGS.iter().filter(|flag| match flag.scope {
        Scope::Global => command != CommandWord::Demo || matches!(flag.kind, Kind::Immediate(_)),
        other => other == scope || other.is_shared_by(command),
    });
    list(&mut text, 2, width, &entries(flags));
    text
}

/// Commands that have flags of their own, and the scope of those.
pub(super) fn scope(command: CommandWord) -> Option<(CommandWord, Scope)> {
    match command {
        CommandWord::Help => None,
        CommandWord::Server => Some((command, Scope::Server)),
        CommandWord::Client => Some((command, Scope::Client)),
        CommandWord::Demo => Some((command, Scope::Demo)),
    }
}

/// What follows the command in a usage line: required flags, then a word for the rest.
pub(super) fn arguments(scope: Scope) -> String {
    let required = FLAGS.iter().filter(|flag| flag.scope == scope && flag.required);
    required
        .map(|flag| format!(" {}", synopsis(flag)))
        .chain([" [<flags>]".to_owned()])
        .collect()
}

pub(super) fn of_scope(scope: Scope) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |flag| flag.scope == scope)
}

fn entries(flags: impl Iterator<Item = &'static Flag>) -> Vec<(String, String)> {
    flags
        .filter(|flag| !flag.hidden)
        .map(|flag| (synopsis(flag), description(flag)))
        .collect()
}

/// `--[no-]name`, `--name=PLACEHOLDER`, and ` ...` where it may be repeated.
pub(super) fn synopsis(flag: &Flag) -> String {
    let repeat = if flag.kind.is_repeatable() { " ..." } else { "" };
    let name = flag.name;
    match flag.kind {
        Kind::Immediate(_) => format!("--{name}"),
        Kind::Bool(_) => format!("--[no-]{name}"),
        _ => match flag.placeholder.or(flag.default) {
            Some(value) => format!("--{name}={value}{repeat}"),
            None => format!("--{name}={}{repeat}", name.to_uppercase()),
        },
    }
}

fn description(flag: &Flag) -> String {
    match flag.variable {
        Some(variable) => format!("{} (${variable})", flag.help),
        None => flag.help.to_owned(),
    }
}

/// `COLUMNS` if it is a number, else the width of the terminal, else 80.
fn width(columns: Option<OsString>) -> usize {
    let from_environment = columns.and_then(|columns| columns.to_str()?.trim().parse().ok());
    let from_terminal = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    from_environment.or_else(from_terminal).unwrap_or(DEFAULT_WIDTH)
}

/// Two columns: the left one as wide as its entries need, the right one wrapped.
fn list(text: &mut String, indent: usize, width: usize, entries: &[(String, String)]) {
    let left = entries
        .iter()
        .map(|(left, _)| left.len())
        .filter(|length| *length < MAX_LEFT)
        .max()
        .unwrap_or(0);
    let margin = indent.saturating_add(left).saturating_add(2);
    for (name, explanation) in entries {
        let mut lines = wrap(explanation, width.saturating_sub(margin).max(MIN_RIGHT)).into_iter();
        if name.len() <= left {
            let first = lines.next().unwrap_or_default();
            text.push_str(&format!("{:indent$}{name:<left$}  {first}\n", ""));
        } else {
            text.push_str(&format!("{:indent$}{name}\n", ""));
        }
        for line in lines {
            text.push_str(&format!("{:margin$}{line}\n", ""));
        }
    }
}

fn paragraph(text: &mut String, indent: usize, width: usize, content: &str) {
    for line in wrap(content, width.saturating_sub(indent).max(MIN_RIGHT)) {
        text.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

/// Words filled into lines of at most `width` characters; longer words stay whole.
fn wrap(content: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in content.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len().saturating_add(1).saturating_add(word.len()) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_at(columns: &str, command: Option<CommandWord>) -> String {
        usage(command, &|name| (name == "COLUMNS").then(|| columns.into()))
    }

    #[test]
    fn whole_help_shows_every_visible_flag_and_no_hidden_one() {
        let text = usage_at("200", None);
        assert!(
            text.starts_with("usage: ghostunnel [<flags>] <command> [<args> ...]\n"),
            "{text}"
        );
        for flag in FLAGS {
            let line = format!("{} ", synopsis(flag));
            assert_eq!(
                text.contains(&line) || text.contains(line.trim_end()),
                !flag.hidden,
                "--{}",
                flag.name
            );
        }
        for expected in [
            "  --keystore=PATH ",
            "($KEYSTORE_PATH)",
            "  --connect-timeout=10s ",
            "--[no-]enable-shutdown",
            "--quiet=CLASS ...",
            "--allow-cn=CN ...",
            "  server --listen=ADDR --target=ADDR [<flags>]\n",
            "  demo [<flags>]\n",
            "  help [<command>]\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("-san="), "{text}");
    }

    #[test]
    fn help_of_a_command_shows_its_flags_beside_the_global_ones() {
        let text = usage_at("200", Some(CommandWord::Client));
        assert!(
            text.starts_with("usage: ghostunnel client --listen=ADDR --target=ADDR [<flags>]\n"),
            "{text}"
        );
        assert!(
            text.contains("--verify-cn=") && text.contains("--keystore="),
            "{text}"
        );
        assert!(
            !text.contains("--allow-cn=") && !text.contains("Commands:"),
            "{text}"
        );
    }

    #[test]
    fn lines_keep_to_the_width_asked_for() {
        for (columns, width) in [("60", 60), ("100", 100), ("many", DEFAULT_WIDTH)] {
            if columns == "many" && rustix::termios::tcgetwinsize(std::io::stdout()).is_ok() {
                continue;
            }
            for line in usage_at(columns, None).lines() {
                assert!(line.len() <= width, "{columns}: {line}");
            }
        }
        for columns in ["0", "1", "18446744073709551615", "-5"] {
            assert!(!usage_at(columns, None).is_empty(), "{columns}");
        }
    }

    #[test]
    fn the_version_is_one_line_of_the_known_shape() {
        let version = version();
        assert!(
            version.starts_with("rev 2.") && version.contains(" built with rustc 1."),
            "{version}"
        );
        assert!(
            version.ends_with(&format!(" (pkcs11: {}, keychain: false)\n", HAS_PKCS11)),
            "{version}"
        );
    }
}
