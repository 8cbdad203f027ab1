//! The grammar of the command line, driven by the table in `flags`.
//!
//! Which of several mistakes is reported, and when help or version win over a mistake,
//! follows Ghostunnel 1.11.1. [`interpret`] reads like that order.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::errors::GlobalError;
use super::flags::{self, Args, CommandWord, FLAGS, Flag, Immediate, Kind};
use super::tokens::{Token, TokenError, Tokens};
use super::values::{self, ValueError};
use super::{Command, Environment, ModeWord, UsageError, generate, help, redact, resolve};

/// The name in error lines if argv has none.
const PROGRAM: &str = "ghostunnel";

#[derive(Debug, thiserror::Error)]
enum ParseError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("unknown long flag '--{name}'{}", hint(.name, *.command))]
    UnknownLong {
        name: String,
        command: Option<CommandWord>,
    },
    #[error("unknown short flag '-{0}'")]
    UnknownShort(String),
    #[error("expected argument for flag '--{0}'")]
    ExpectedArgument(String),
    #[error("expected command but got {0:?}")]
    ExpectedCommand(String),
    #[error("unexpected {0}")]
    Unexpected(String),
    #[error("flag '{0}' cannot be repeated")]
    Repeated(String),
    #[error("{origin}: {reason}")]
    Value { origin: String, reason: ValueError },
    #[error("required flag(s) {0} not provided")]
    Required(String),
    #[error("--{0} cannot be used with demo")]
    NotWithDemo(String),
    #[error(transparent)]
    Global(#[from] GlobalError),
    /// What was asked of the help command; reported without the hint to ask for help.
    #[error(transparent)]
    HelpTopic(Box<Self>),
}

pub(super) fn parse(argv: &[OsString], environment: Environment<'_>) -> Result<Command, UsageError> {
    let (name, words) = match argv.split_first() {
        Some((name, words)) => (Path::new(name).file_name(), words),
        None => (None, argv),
    };
    let program = argv
        .first()
        .map_or_else(|| PROGRAM.into(), |name| name.to_string_lossy());
    interpret(&program, words, environment).map_err(|error| UsageError {
        line: match error {
            ParseError::HelpTopic(_) => format!("{PROGRAM}: error: {error}"),
            _ => {
                let name = name.unwrap_or_else(|| OsStr::new(PROGRAM)).display();
                format!("{name}: error: {error}, try --help")
            }
        },
    })
}

fn interpret(program: &str, words: &[OsString], environment: Environment<'_>) -> Result<Command, ParseError> {
    let mut line = Line::default();
    let syntax = line.read(&mut Tokens::new(words.to_vec()));
    let mut args = Args {
        program: program.to_owned(),
        command_line: redact::command_line(program, words),
        ..Args::default()
    };
    fill_in(&mut args, &line, environment)?;
    let conversion = convert(&mut args, &line);
    match line.acts.first() {
        Some(Act::HelpCommand) => return help_command(&line.topics, environment),
        Some(Act::Flag(immediate)) => {
            return Ok(Command::Print(answer(
                *immediate,
                line.command,
                words,
                environment,
            )));
        }
        None => {}
    }
    syntax?;
    if line.wants_help {
        return Ok(Command::Print(help::usage(line.command, environment)));
    }
    conversion?;
    line.check_required()?;
    if line.command == Some(CommandWord::Demo) {
        line.check_demo()?;
        return Ok(Command::Demo(resolve::demo(&args)));
    }
    let global = resolve::global(&args)?;
    let mode = match line.command {
        Some(CommandWord::Server) => ModeWord::Server,
        Some(CommandWord::Client) => ModeWord::Client,
        Some(CommandWord::Help | CommandWord::Demo) | None => {
            return Ok(Command::Usage(help::usage(None, environment)));
        }
    };
    let mut run = resolve::run(mode, &args, global);
    run.warnings.splice(..0, line.deprecations());
    Ok(Command::Run(Box::new(run)))
}

/// The text that a flag asks for which acts at once.
fn answer(
    immediate: Immediate,
    command: Option<CommandWord>,
    words: &[OsString],
    environment: Environment<'_>,
) -> String {
    match immediate {
        Immediate::Version => help::version(),
        Immediate::Help | Immediate::LongHelp => help::usage(command, environment),
        Immediate::ManPage(page) => generate::man_page(page),
        Immediate::CompletionScript(shell) => generate::completion_script(shell).to_owned(),
        Immediate::Completion => {
            let mut words = words.iter();
            let _flag = words.by_ref().find(|word| *word == "--completion-bash");
            let words: Vec<String> = words.map(|word| lossy(word)).collect();
            generate::candidates(&words).join("\n")
        }
    }
}

/// What was typed, up to the first mistake in grammar.
#[derive(Default)]
struct Line {
    command: Option<CommandWord>,
    flags: Vec<Typed>,
    /// Arguments of the help command.
    topics: Vec<String>,
    /// What acts at once, in the order typed.
    acts: Vec<Act>,
    wants_help: bool,
}

struct Typed {
    flag: &'static Flag,
    /// The name or alias used.
    spelling: String,
    value: TypedValue,
}

enum TypedValue {
    Switch(bool),
    Word(OsString),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Flag(Immediate),
    HelpCommand,
}

impl Line {
    fn read(&mut self, tokens: &mut Tokens) -> Result<(), ParseError> {
        while let Some(token) = tokens.next()? {
            match token {
                Token::Short(letter) => return Err(ParseError::UnknownShort(letter)),
                Token::Long { name, value } => self.read_flag(&name, value, tokens)?,
                Token::Positional(word) => self.read_positional(&word)?,
            }
        }
        Ok(())
    }

    fn read_flag(
        &mut self,
        name: &OsStr,
        attached: Option<OsString>,
        tokens: &mut Tokens,
    ) -> Result<(), ParseError> {
        // Names that are not UTF-8 are unknown by way of the replacement character.
        let name = name.to_string_lossy();
        if let Some(flag) = flags::find(&name, self.command) {
            if flag.kind.is_bool() {
                return self.read_switch(flag, &name, true, attached);
            }
            let word = match attached {
                Some(word) => word,
                None => tokens
                    .next_value()?
                    .ok_or_else(|| ParseError::ExpectedArgument(name.clone().into_owned()))?,
            };
            self.flags.push(Typed {
                flag,
                spelling: name.into_owned(),
                value: TypedValue::Word(word),
            });
            return Ok(());
        }
        let positive = name.strip_prefix("no-");
        match positive.and_then(|name| flags::find(name, self.command)) {
            Some(flag) if flag.kind.is_bool() => self.read_switch(flag, flag.name, false, attached),
            _ => Err(ParseError::UnknownLong {
                name: name.into_owned(),
                command: self.command,
            }),
        }
    }

    /// `--name`, `--no-name`, `--name=true` or `--name=false`. Any other attached value is
    /// a stray word, which matters for `--version=x`: the version comes first.
    fn read_switch(
        &mut self,
        flag: &'static Flag,
        name: &str,
        polarity: bool,
        attached: Option<OsString>,
    ) -> Result<(), ParseError> {
        let (on, stray) = match attached {
            None => (polarity, None),
            Some(word) if polarity && word == "true" => (true, None),
            Some(word) if polarity && word == "false" => (false, None),
            Some(word) => (polarity, Some(word)),
        };
        // Either polarity acts, as it always did.
        match flag.kind {
            Kind::Immediate(Immediate::Help) => self.wants_help = true,
            Kind::Immediate(immediate) => self.acts.push(Act::Flag(immediate)),
            _ => {}
        }
        self.flags.push(Typed {
            flag,
            spelling: name.to_owned(),
            value: TypedValue::Switch(on),
        });
        match stray {
            None => Ok(()),
            Some(word) if self.command.is_none() => Err(ParseError::ExpectedCommand(lossy(&word))),
            Some(word) => Err(ParseError::Unexpected(lossy(&word))),
        }
    }

    fn read_positional(&mut self, word: &OsStr) -> Result<(), ParseError> {
        match self.command {
            None => {
                let command = find_command(word).ok_or_else(|| ParseError::ExpectedCommand(lossy(word)))?;
                self.command = Some(command);
                if command == CommandWord::Help {
                    self.acts.push(Act::HelpCommand);
                }
                Ok(())
            }
            Some(CommandWord::Help) => {
                self.topics.push(lossy(word));
                Ok(())
            }
            Some(CommandWord::Server | CommandWord::Client | CommandWord::Demo) => {
                Err(ParseError::Unexpected(lossy(word)))
            }
        }
    }

    fn has(&self, flag: &Flag) -> bool {
        self.flags.iter().any(|typed| std::ptr::eq(typed.flag, flag))
    }

    fn check_required(&self) -> Result<(), ParseError> {
        let mut missing: Vec<String> = FLAGS
            .iter()
            .filter(|flag| flag.required && flag.scope.covers(self.command) && !self.has(flag))
            .map(|flag| format!("'--{}'", flag.name))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        Err(ParseError::Required(missing.join(", ")))
    }

    /// The demo brings its own certificates and addresses: a flag that would have no
    /// effect is a misunderstanding.
    fn check_demo(&self) -> Result<(), ParseError> {
        match self
            .flags
            .iter()
            .find(|typed| typed.flag.scope == flags::Scope::Global)
        {
            Some(typed) => Err(ParseError::NotWithDemo(typed.spelling.clone())),
            None => Ok(()),
        }
    }

    fn deprecations(&self) -> Vec<String> {
        let warning = |typed: &Typed| match typed.flag.deprecated {
            Some(reason) => Some(format!("--{} {reason}", typed.spelling)),
            None if typed.spelling != typed.flag.name => Some(format!(
                "--{} is deprecated: use --{}",
                typed.spelling, typed.flag.name
            )),
            None => None,
        };
        let mut warnings: Vec<String> = self.flags.iter().filter_map(warning).collect();
        warnings.dedup();
        warnings
    }
}

/// Where an unknown flag would be known, or which known one it resembles.
fn hint(name: &str, command: Option<CommandWord>) -> String {
    let homes: Vec<&str> = CommandWord::ALL
        .into_iter()
        .filter(|home| flags::find(name, Some(*home)).is_some())
        .map(CommandWord::word)
        .collect();
    if !homes.is_empty() {
        return format!(" (it is known after the command {})", homes.join(" or "));
    }
    match flags::most_similar(name, command) {
        Some(flag) => format!(" (did you mean --{}?)", flag.name),
        None => String::new(),
    }
}

fn find_command(word: &OsStr) -> Option<CommandWord> {
    CommandWord::ALL
        .into_iter()
        .find(|command| word == command.word())
}

fn help_command(topics: &[String], environment: Environment<'_>) -> Result<Command, ParseError> {
    let fail = |error| Err(ParseError::HelpTopic(Box::new(error)));
    let command = match topics {
        [] => None,
        [topic, ..] => match find_command(OsStr::new(topic)) {
            Some(command) => Some(command),
            None => return fail(ParseError::ExpectedCommand(topic.clone())),
        },
    };
    match topics.get(1) {
        Some(extra) => fail(ParseError::Unexpected(extra.clone())),
        None => Ok(Command::Print(help::usage(command, environment))),
    }
}

/// Gives flags that were not typed their value from the environment, or their default.
///
/// Whoever asks for help or version gets it whatever the environment holds. The demo
/// has settings of its own, so variables meant for tunnels don't concern it.
fn fill_in(args: &mut Args, line: &Line, environment: Environment<'_>) -> Result<(), ParseError> {
    if line.wants_help
        || line
            .acts
            .iter()
            .any(|act| matches!(act, Act::Flag(Immediate::Version) | Act::HelpCommand))
    {
        return Ok(());
    }
    let lookup = |variable| environment(variable).filter(|value| !value.is_empty());
    let heeds_environment = line.command != Some(CommandWord::Demo);
    args.credentials_directory = lookup("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for flag in FLAGS
        .iter()
        .filter(|flag| flag.scope.covers(line.command) && !line.has(flag))
    {
        let variable = flag.variable.filter(|_| heeds_environment);
        if let Some((variable, value)) = variable.and_then(|name| Some((name, lookup(name)?))) {
            let value = TypedValue::Word(value);
            store(args, flag, &value).map_err(|reason| ParseError::Value {
                origin: variable.to_owned(),
                reason,
            })?;
            args.variables.push(variable);
        } else if let Some(default) = flag.default {
            let value = TypedValue::Word(default.into());
            store(args, flag, &value).map_err(|reason| ParseError::Value {
                origin: format!("--{}", flag.name),
                reason,
            })?;
        }
    }
    Ok(())
}

/// Gives typed flags their values, in the order typed, up to the first mistake.
fn convert(args: &mut Args, line: &Line) -> Result<(), ParseError> {
    for (index, typed) in line.flags.iter().enumerate() {
        let mut earlier = line.flags.iter().take(index);
        if !typed.flag.kind.is_repeatable() && earlier.any(|other| std::ptr::eq(other.flag, typed.flag)) {
            return Err(ParseError::Repeated(typed.spelling.clone()));
        }
        store(args, typed.flag, &typed.value).map_err(|reason| ParseError::Value {
            origin: format!("--{}", typed.spelling),
            reason,
        })?;
    }
    Ok(())
}

/// Converts one value by the kind of its flag and puts it where it belongs.
fn store(args: &mut Args, flag: &Flag, value: &TypedValue) -> Result<(), ValueError> {
    let (on, word) = match value {
        TypedValue::Switch(on) => (*on, OsStr::new("")),
        TypedValue::Word(word) => (true, word.as_os_str()),
    };
    match flag.kind {
        Kind::Bool(field) => *field(args) = on,
        Kind::Immediate(_) => {}
        Kind::Text(field) => *field(args) = Some(values::utf8(word)?.to_owned()),
        Kind::Texts(field) => field(args).push(values::utf8(word)?.to_owned()),
        Kind::Path(field) => *field(args) = Some(word.into()).filter(|_| !word.is_empty()),
        Kind::Paths(field) => field(args).push(values::path(word)?),
        Kind::Ports(field) => field(args).push(values::port(values::utf8(word)?)?),
        Kind::ExistingFile(field) => *field(args) = Some(values::existing_file(word)?),
        Kind::Duration(field) => *field(args) = values::duration(values::utf8(word)?)?,
        Kind::Number(field) => *field(args) = values::uint32(values::utf8(word)?)?,
        Kind::Integer(field) => *field(args) = values::integer(values::utf8(word)?)?,
        Kind::TcpAddress(field) => *field(args) = Some(values::tcp_address(values::utf8(word)?)?),
        Kind::IpAddresses(field) => field(args).push(values::ip_address(values::utf8(word)?)?),
        Kind::Url(field) => *field(args) = Some(values::url(values::utf8(word)?)?),
        Kind::Choice(allowed, field) => *field(args) = Some(values::choice(values::utf8(word)?, allowed)?),
        Kind::Choices(allowed, field) => field(args).push(values::choice(values::utf8(word)?, allowed)?),
    }
    Ok(())
}

fn lossy(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
