//! Words of the command line, with response files spliced in.
//!
//! A word `@FILE` stands for the lines of that file, one argument per line. Files may
//! name further files; depth and total size are bounded, and a file that leads back to
//! itself is an error. After `--`, words are taken as they are.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::vec;

/// How deep response files may nest. Hand-written ones hardly nest at all.
const MAX_DEPTH: usize = 32;

/// How many bytes all response files of one command line may hold together. Larger
/// ones are not argument lists, and the bound ends every expansion.
const MAX_BYTES: u64 = 1024 * 1024;

/// What a word is, by its first characters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `--NAME` or `--NAME=VALUE`.
    Long { name: OsString, value: Option<OsString> },
    /// `-C...`: the character after the dash.
    Short(String),
    /// Anything else; a lone `-` stands for an empty text.
    Positional(OsString),
}

/// Why no further word could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("expected @ file to expand arguments from")]
    NoFileName,
    #[error("failed to open arguments file {name:?}: {reason}")]
    Open { name: String, reason: io::Error },
    #[error("failed to read arguments file {name:?}: {reason}")]
    Read { name: String, reason: io::Error },
    #[error("arguments file {0:?} includes itself")]
    Cycle(String),
    #[error("arguments file {0:?} is nested more than {MAX_DEPTH} files deep")]
    TooDeep(String),
    #[error("arguments files hold more than {MAX_BYTES} bytes together")]
    TooLarge,
}

/// Words that are left, innermost response file last.
pub(super) struct Tokens {
    sources: Vec<Source>,
    only_positionals: bool,
    bytes_read: u64,
}

struct Source {
    /// Device and inode of the file; `None` for the command line itself.
    file: Option<(u64, u64)>,
    words: vec::IntoIter<OsString>,
}

impl Tokens {
    /// Reads these words, which do not include the program's name.
    pub(super) fn new(words: Vec<OsString>) -> Self {
        let source = Source {
            file: None,
            words: words.into_iter(),
        };
        Self {
            sources: vec![source],
            only_positionals: false,
            bytes_read: 0,
        }
    }

    /// The next token, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, TokenError> {
        let Some(word) = self.next_word()? else {
            return Ok(None);
        };
        if self.only_positionals {
            return Ok(Some(Token::Positional(word)));
        }
        if word == "--" {
            self.only_positionals = true;
            return Ok(self.next_word()?.map(Token::Positional));
        }
        let bytes = word.as_bytes();
        if let Some(long) = bytes.strip_prefix(b"--") {
            return Ok(Some(split_long(long)));
        }
        Ok(Some(match bytes.strip_prefix(b"-") {
            Some(b"") => Token::Positional(OsString::new()),
            Some(short) => Token::Short(String::from_utf8_lossy(short).chars().take(1).collect()),
            None => Token::Positional(word),
        }))
    }

    /// The next word as the value of a flag, or `None` if it can't be one because it
    /// looks like a flag or there is none. The word is consumed either way.
    pub(super) fn next_value(&mut self) -> Result<Option<OsString>, TokenError> {
        Ok(self.next_word()?.and_then(|word| match word.as_bytes() {
            b"-" => Some(OsString::new()),
            [b'-', ..] => None,
            _ => Some(word),
        }))
    }

    fn next_word(&mut self) -> Result<Option<OsString>, TokenError> {
        while let Some(source) = self.sources.last_mut() {
            let Some(word) = source.words.next() else {
                self.sources.pop();
                continue;
            };
            match word.as_bytes().strip_prefix(b"@") {
                Some(name) if !self.only_positionals => self.open(OsStr::from_bytes(name))?,
                _ => return Ok(Some(word)),
            }
        }
        Ok(None)
    }

    fn open(&mut self, path: &OsStr) -> Result<(), TokenError> {
        if path.is_empty() {
            return Err(TokenError::NoFileName);
        }
        let name = path.to_string_lossy().into_owned();
        if self.sources.len() > MAX_DEPTH {
            return Err(TokenError::TooDeep(name));
        }
        let open = || File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = open().map_err(|reason| TokenError::Open {
            name: name.clone(),
            reason,
        })?;
        // Identity by inode: a cycle may lead through links and other spellings.
        let identity = Some((metadata.dev(), metadata.ino()));
        if self.sources.iter().any(|source| source.file == identity) {
            return Err(TokenError::Cycle(name));
        }
        let mut bytes = Vec::new();
        let left = MAX_BYTES.saturating_sub(self.bytes_read);
        let count = file
            .take(left.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|reason| TokenError::Read { name, reason })?;
        self.bytes_read = self
            .bytes_read
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.bytes_read > MAX_BYTES {
            return Err(TokenError::TooLarge);
        }
        let words: Vec<OsString> = lines(&bytes)
            .map(|line| OsString::from_vec(line.to_vec()))
            .collect();
        self.sources.push(Source {
            file: identity,
            words: words.into_iter(),
        });
        Ok(())
    }
}

fn split_long(long: &[u8]) -> Token {
    let mut parts = long.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    Token::Long {
        name: OsStr::from_bytes(name).to_owned(),
        value: parts.next().map(|value| OsStr::from_bytes(value).to_owned()),
    }
}

/// Lines that are arguments: neither comments nor blank. A carriage return before the
/// line feed belongs to the line's end.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.starts_with(b"#") && !String::from_utf8_lossy(line).trim().is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn write(directory: &Path, name: &str, content: &str) -> OsString {
        let path = directory.join(name);
        fs::write(&path, content).expect("write a response file");
        OsString::from(format!("@{}", path.display()))
    }

    fn words(words: &[OsString]) -> Result<Vec<String>, String> {
        let mut tokens = Tokens::new(words.to_vec());
        let mut found = Vec::new();
        while let Some(token) = tokens.next().map_err(|error| error.to_string())? {
            found.push(match token {
                Token::Long { name, value: None } => format!("--{}", name.display()),
                Token::Long {
                    name,
                    value: Some(value),
                } => format!("--{}={}", name.display(), value.display()),
                Token::Short(letter) => format!("-{letter}"),
                Token::Positional(word) => word.display().to_string(),
            });
        }
        Ok(found)
    }

    #[test]
    fn lines_are_taken_whole_and_comments_and_blanks_skipped() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = write(
            directory.path(),
            "a",
            "server\r\n# no\n \t\n--listen= x y \n'quoted'\n\n #kept",
        );
        assert_eq!(
            words(&[file, "end".into()]).expect("words"),
            ["server", "--listen= x y ", "'quoted'", " #kept", "end"]
        );
    }

    #[test]
    fn response_files_may_name_others_until_a_double_dash() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = write(directory.path(), "inner", "--b=2\n--\n");
        let outer = write(
            directory.path(),
            "outer",
            &format!("--a=1\n{}\n@literal\n", inner.display()),
        );
        assert_eq!(
            words(&[outer, "--c".into()]).expect("words"),
            ["--a=1", "--b=2", "@literal", "--c"]
        );
    }

    #[test]
    fn a_file_may_be_named_twice_but_not_from_within() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = write(directory.path(), "a", "x");
        assert_eq!(words(&[file.clone(), file]).expect("words"), ["x", "x"]);

        let path = directory.path().display();
        let first = write(directory.path(), "first", &format!("@{path}/second\n"));
        write(directory.path(), "second", &format!("@{path}/./first\n"));
        assert_eq!(
            words(&[first]),
            Err(format!("arguments file \"{path}/./first\" includes itself"))
        );
    }

    #[test]
    fn response_files_that_cannot_be_read_are_named() {
        assert_eq!(
            words(&["@".into()]),
            Err("expected @ file to expand arguments from".to_owned())
        );
        let error = words(&["@/nonexistent/x".into()]).expect_err("no such file");
        assert!(
            error.starts_with("failed to open arguments file \"/nonexistent/x\": "),
            "{error}"
        );
        let error = words(&["@/".into()]).expect_err("a directory");
        assert!(
            error.starts_with("failed to read arguments file \"/\": "),
            "{error}"
        );
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        for level in 0..=MAX_DEPTH {
            write(
                directory.path(),
                &level.to_string(),
                &format!("@{path}/{}", level + 1),
            );
        }
        assert_eq!(
            words(&[format!("@{path}/0").into()]),
            Err(format!(
                "arguments file \"{path}/{MAX_DEPTH}\" is nested more than {MAX_DEPTH} files deep"
            ))
        );

        let large = write(directory.path(), "large", &"x\n".repeat(300_000));
        assert_eq!(
            words(std::slice::from_ref(&large)).map(|words| words.len()),
            Ok(300_000)
        );
        let error = "arguments files hold more than 1048576 bytes together".to_owned();
        assert_eq!(words(&[large.clone(), large]), Err(error.clone()));
        assert_eq!(words(&["@/dev/zero".into()]), Err(error));
    }

    #[test]
    fn a_value_is_any_word_that_does_not_look_like_a_flag() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = write(directory.path(), "a", "from file\n");
        let given = [
            file,
            "-".into(),
            "x".into(),
            "--".into(),
            "-x".into(),
            "--y".into(),
        ];
        let mut tokens = Tokens::new(given.to_vec());
        let values: Vec<_> = given
            .iter()
            .map(|_| tokens.next_value().expect("readable"))
            .collect();
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(values, [some("from file"), some(""), some("x"), None, None, None]);
    }

    #[test]
    fn tokens_are_told_apart_by_their_first_characters() {
        let given = ["-listen", "-x=1", "-", "--a==b=", "--", "--c", "-d", "@e"].map(OsString::from);
        assert_eq!(
            words(&given).expect("words"),
            ["-l", "-x", "", "--a==b=", "--c", "-d", "@e"]
        );
    }
}
