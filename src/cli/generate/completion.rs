//! Completion: scripts for shells, and the candidates that they ask this program for.

use crate::cli::flags::{self, CommandWord, FLAGS, Flag, Kind, Scope, Shell};

/// The script for a shell to read at its start.
pub(in crate::cli) fn completion_script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("completion.bash"),
        Shell::Zsh => include_str!("completion.zsh"),
        Shell::Fish => include_str!("completion.fish"),
    }
}

/// What the last of these words, which may be empty or half a word, can become. The shell picks
/// what begins like it. None where a file name or a free text belongs.
pub(in crate::cli) fn candidates(words: &[String]) -> Vec<String> {
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", words),
    };
    let command = command(before);
    // bash takes `--flag=value` apart, at the equals sign too.
    let (before, current) = match (before, current) {
        (before, "=") => (before, ""),
        ([before @ .., equals], current) if equals == "=" => (before, current),
        _ => (before, current),
    };
    if let Some((name, _)) = current.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
        let values = flags::find(name, command).map(values).unwrap_or_default();
        return values.iter().map(|value| format!("--{name}={value}")).collect();
    }
    if current.starts_with("--") {
        return names(command);
    }
    match before.last().and_then(|word| awaited(word, command)) {
        Some(flag) => values(flag).iter().map(|value| (*value).to_owned()).collect(),
        None => match command {
            None | Some(CommandWord::Help) => CommandWord::ALL.map(|word| word.word().to_owned()).into(),
            Some(CommandWord::Server | CommandWord::Client | CommandWord::Demo) => Vec::new(),
        },
    }
}

/// The command that is in force after these words.
fn command(words: &[String]) -> Option<CommandWord> {
    let mut is_value = false;
    for word in words {
        let known = CommandWord::ALL
            .into_iter()
            .find(|command| command.word() == word);
        if known.is_some() && !is_value {
            return known;
        }
        is_value = word == "=" || awaited(word, None).is_some();
    }
    None
}

/// The flag whose value comes next if `word` is its name.
fn awaited(word: &str, command: Option<CommandWord>) -> Option<&'static Flag> {
    let flag = flags::find(word.strip_prefix("--")?, command)?;
    Some(flag).filter(|flag| !flag.kind.is_bool())
}

/// Visible flags: those of the command, then those of all.
fn names(command: Option<CommandWord>) -> Vec<String> {
    let known = |flag: &&Flag| !flag.hidden && flag.scope.covers(command);
    let (global, own): (Vec<&Flag>, Vec<&Flag>) = FLAGS
        .iter()
        .filter(known)
        .partition(|flag| flag.scope == Scope::Global);
    // The demo takes no other flags of all than those that act.
    let global = global
        .into_iter()
        .filter(|flag| command != Some(CommandWord::Demo) || matches!(flag.kind, Kind::Immediate(_)));
    own.into_iter()
        .chain(global)
        .map(|flag| format!("--{}", flag.name))
        .collect()
}

/// The words from which a flag's value is chosen. Repeatable ones are left out, as they
/// always were.
fn values(flag: &Flag) -> &'static [&'static str] {
    match flag.kind {
        Kind::Choice(words, _) => words,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(words: &str) -> Vec<String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        candidates(&words)
    }

    #[test]
    fn commands_come_first() {
        for words in ["", "ser", "--skip-resolve ", "--keystore server ", "help "] {
            assert_eq!(complete(words), ["help", "server", "client", "demo"], "{words}");
        }
        assert_eq!(candidates(&[]), ["help", "server", "client", "demo"]);
        for words in ["server ", "client x", "demo ", "--keystore ", "server --target "] {
            assert!(complete(words).is_empty(), "{words}");
        }
    }

    #[test]
    fn flags_are_those_of_the_command_and_of_all_without_hidden_ones() {
        let has = |words: &str, name: &str| complete(words).iter().any(|candidate| candidate == name);
        assert!(has("--", "--keystore") && !has("--", "--listen"));
        assert!(has("server --", "--allow-cn") && !has("server --", "--verify-cn"));
        assert!(has("client --skip-resolve --li", "--verify-cn"));
        assert!(!has("server --", "--allow-ip") && !has("--", "--help-man"));
        assert!(has("demo --", "--once") && has("demo --", "--help") && !has("demo --", "--keystore"));
        assert_eq!(
            complete("server --").first().map(String::as_str),
            Some("--listen")
        );
        assert_eq!(complete("--").first().map(String::as_str), Some("--help"));
    }

    #[test]
    fn values_are_offered_where_they_are_chosen_from_a_list() {
        for words in [
            "server --proxy-protocol-mode ",
            "server --proxy-protocol-mode t",
            "server --proxy-protocol-mode =",
            "server --proxy-protocol-mode = tl",
        ] {
            assert_eq!(complete(words), ["conn", "tls", "tls-full"], "{words}");
        }
        assert_eq!(
            complete("--log-format=j"),
            ["--log-format=text", "--log-format=json"]
        );
        assert!(complete("--quiet ").is_empty() && complete("--cert=x").is_empty());
        assert!(complete("client --proxy-protocol-mode ").is_empty());
    }
}
