//! Man pages, in the man macros that both groff and mandoc read.

use crate::cli::flags::{CommandWord, FLAGS, Flag, ManPage, Scope};
use crate::cli::help;

/// Addresses, certificates, signals, examples: what the table of flags does not know. Already
/// in troff.
const PROSE: &str = include_str!("prose.1");

/// The page. The short one has what the table of flags has.
pub(in crate::cli) fn man_page(page: ManPage) -> String {
    let mut text = format!(
        ".\\\" Made by ghostunnel --help-{}man\n.TH GHOSTUNNEL 1 \"\" \"ghostunnel {}\" \"User Commands\"\n",
        if page == ManPage::Long { "custom-" } else { "" },
        env!("CARGO_PKG_VERSION")
    );
    text.push_str(".SH NAME\nghostunnel \\- TLS proxy with mutual authentication\n.SH SYNOPSIS\n");
    for command in CommandWord::ALL {
        text.push_str(&synopsis(command));
    }
    text.push_str(&format!(".SH DESCRIPTION\n{}\n", escape(help::DESCRIPTION)));
    for command in CommandWord::ALL {
        text.push_str(&format!(
            ".TP\n.B {}\n{}\n",
            command.word(),
            escape(command.help())
        ));
    }
    text.push_str(&format!(".PP\n{}\n", escape(help::NOTES)));
    text.push_str(".SH OPTIONS\nThese stand before or after the command.\n");
    text.push_str(&options(|flag| flag.scope == Scope::Global));
    for (command, scope) in CommandWord::ALL.into_iter().filter_map(help::scope) {
        text.push_str(&format!(".SS Options of {}\n", command.word()));
        let is_known = |flag: &Flag| flag.scope == scope || flag.scope.is_shared_by(command);
        text.push_str(&options(is_known));
    }
    text.push_str(&environment());
    if page == ManPage::Long {
        text.push_str(PROSE);
    }
    text
}

fn synopsis(command: CommandWord) -> String {
    let arguments = match help::scope(command) {
        None => " [<command>]".to_owned(),
        Some((_, scope)) => help::arguments(scope),
    };
    let line = format!(
        ".B ghostunnel {}\n{}\n",
        command.word(),
        escape(arguments.trim_start())
    );
    match command {
        CommandWord::Help => line,
        CommandWord::Server | CommandWord::Client | CommandWord::Demo => format!(".br\n{line}"),
    }
}

fn options(is_known: impl Fn(&Flag) -> bool) -> String {
    FLAGS
        .iter()
        .filter(|flag| is_known(flag) && !flag.hidden)
        .map(option)
        .collect()
}

fn option(flag: &Flag) -> String {
    let (name, value) = match help::synopsis(flag).split_once('=') {
        Some((name, value)) => (name.to_owned(), format!("=\\fI{}\\fR", escape(value))),
        None => (help::synopsis(flag), String::new()),
    };
    let variable = match flag.variable {
        Some(variable) => format!("\nEnvironment variable:\n.BR {variable} .\n"),
        None => "\n".to_owned(),
    };
    let help = escape(flag.help);
    format!(".TP\n\\fB{}\\fR{value}\n{help}{variable}", escape(&name))
}

fn environment() -> String {
    let mut text =
        ".SH ENVIRONMENT\nA variable gives the value of a flag that is not typed; an empty one counts as \
                    unset.\n"
            .to_owned();
    for flag in FLAGS {
        if let Some(variable) = flag.variable {
            text.push_str(&format!(
                ".TP\n.B {variable}\nThe value of \\fB{}\\fR.\n",
                escape(&format!("--{}", flag.name))
            ));
        }
    }
    text
}

/// Plain text as troff, with dashes of flags that can be copied. Sentences begin new lines, as
/// is the custom.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let is_flag_like = |word: &str| word.contains("--") || word.starts_with('-');
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            escaped.push(if escaped.ends_with('.') { '\n' } else { ' ' });
        }
        // Would be a request to troff.
        if word.starts_with(['.', '\'']) {
            escaped.push_str("\\&");
        }
        for letter in word.chars() {
            match letter {
                '\\' => escaped.push_str("\\e"),
                '-' if is_flag_like(word) => escaped.push_str("\\-"),
                '\'' => escaped.push_str("\\(aq"),
                '"' => escaped.push_str("\\(dq"),
                '`' => escaped.push_str("\\(ga"),
                '^' => escaped.push_str("\\(ha"),
                '~' => escaped.push_str("\\(ti"),
                other => escaped.push(other),
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_troff() {
        for (text, expected) in [
            ("--allow-cn", "\\-\\-allow\\-cn"),
            ("half-close", "half-close"),
            ("a \\ b", "a \\e b"),
            (".SH no", "\\&.SH no"),
            ("it's '", "it\\(aqs \\&\\(aq"),
            ("One. Two.", "One.\nTwo."),
            ("One. .Two", "One.\n\\&.Two"),
        ] {
            assert_eq!(escape(text), expected, "{text}");
        }
    }

    #[test]
    fn visible_flags_are_on_both_pages_and_hidden_ones_on_none() {
        let (short, long) = (man_page(ManPage::Short), man_page(ManPage::Long));
        for flag in FLAGS {
            let option = option(flag);
            assert_eq!(short.contains(&option), !flag.hidden, "--{}", flag.name);
            assert_eq!(long.contains(&option), !flag.hidden, "--{}", flag.name);
        }
        assert!(long.contains(".SH SIGNALS") && !short.contains(".SH SIGNALS"));
    }
}
