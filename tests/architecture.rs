//! Keeps the arrows between rooms: who may know whom, and where `unsafe` may live.
//!
//! The table below is the one in ARCHITECTURE.md. When a change needs another arrow,
//! change both in the same commit and say why.

use std::fs;
use std::path::{Path, PathBuf};

/// A room of `src/` and what it may use besides itself.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
}

/// From the top row to the bottom one. `app`, `main.rs` and `lib.rs` may use everything.
const TABLE: &[Room] = &[
    Room {
        name: "cli",
        rooms: &[
            "config",
            "proxy",
            "status",
            "tls",
            "credentials",
            "metrics",
            "authorization",
            "net",
            "lifecycle",
            "logging",
            "sandbox",
        ],
        crates: &[],
    },
    Room {
        name: "config",
        rooms: &[
            "proxy",
            "status",
            "tls",
            "credentials",
            "metrics",
            "authorization",
            "net",
            "lifecycle",
            "logging",
            "sandbox",
        ],
        crates: &[],
    },
    Room {
        name: "proxy",
        rooms: &["tls", "net", "authorization", "lifecycle", "metrics", "logging"],
        crates: &[],
    },
    Room {
        name: "status",
        rooms: &["tls", "net", "authorization", "lifecycle", "metrics", "logging"],
        crates: &[],
    },
    Room {
        name: "tls",
        rooms: &["credentials", "authorization", "metrics", "logging"],
        crates: &["pki"],
    },
    Room {
        name: "credentials",
        rooms: &["net", "lifecycle", "metrics"],
        crates: &["keystore", "pki"],
    },
    Room {
        name: "metrics",
        rooms: &["net", "lifecycle"],
        crates: &[],
    },
    Room {
        name: "authorization",
        rooms: &[],
        crates: &["pki", "policy"],
    },
    Room {
        name: "net",
        rooms: &[],
        crates: &[],
    },
    Room {
        name: "lifecycle",
        rooms: &[],
        crates: &[],
    },
    Room {
        name: "logging",
        rooms: &[],
        crates: &[],
    },
    Room {
        name: "sandbox",
        rooms: &[],
        crates: &[],
    },
];

/// Where all rooms meet.
const TOP: &[&str] = &["main", "lib", "app"];

/// The only files that may contain `unsafe`; a name that ends in `/` stands for a folder.
const UNSAFE: &[&str] = &[
    "src/net/activation.rs",
    "src/net/peer_credentials.rs",
    "src/sandbox/",
    "src/credentials/secret.rs",
    "src/credentials/keychain.rs",
    "src/lifecycle/memory.rs",
];

#[test]
fn rooms_use_only_the_rooms_and_crates_below_them() {
    let broken: Vec<String> = rust_files("src")
        .iter()
        .flat_map(|file| broken_arrows(file, &read(file)))
        .collect();
    assert!(
        broken.is_empty(),
        "arrows that are not in the table:\n{}",
        broken.join("\n")
    );
}

#[test]
fn every_room_is_in_the_table_and_the_table_has_no_others() {
    let mut rooms: Vec<String> = fs::read_dir(root().join("src"))
        .expect("the sources are there")
        .map(|entry| entry.expect("a readable entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    let mut known: Vec<&str> = TABLE
        .iter()
        .map(|room| room.name)
        .chain(TOP.iter().copied())
        .collect();
    rooms.sort();
    known.sort_unstable();
    assert_eq!(rooms, known);
}

#[test]
fn table_has_no_cycle() {
    for (row, room) in TABLE.iter().enumerate() {
        for used in room.rooms {
            let lower = TABLE.iter().skip(row + 1).any(|other| other.name == *used);
            assert!(lower, "{} uses {used}, which does not stand below it", room.name);
        }
    }
}

#[test]
fn crates_know_nothing_of_the_program() {
    for file in rust_files("crates") {
        let tokens = tokens(&read(&file));
        let found = tokens
            .windows(2)
            .find(|pair| pair[0].is("ghostunnel") && pair[1].is("::"));
        assert!(
            found.is_none(),
            "{}:{}: names the program",
            file.display(),
            found.map_or(0, |pair| pair[0].line)
        );
    }
}

#[test]
fn unsafe_is_only_in_the_files_that_are_named() {
    let mut broken = Vec::new();
    for file in ["src", "crates", "tests"]
        .iter()
        .flat_map(|folder| rust_files(folder))
    {
        let name = file.to_str().expect("names are ASCII");
        let is_allowed = UNSAFE.iter().any(|allowed| {
            if allowed.ends_with('/') {
                name.starts_with(allowed)
            } else {
                name == *allowed
            }
        });
        let found = tokens(&read(&file)).into_iter().find(|token| token.is("unsafe"));
        broken.extend(
            found
                .filter(|_| !is_allowed)
                .map(|token| format!("{name}:{}", token.line)),
        );
    }
    assert!(
        broken.is_empty(),
        "unsafe outside the files that are named:\n{}",
        broken.join("\n")
    );
}

#[test]
fn broken_arrows_are_noticed() {
    for (file, source, broken) in [
        ("src/net/dial.rs", "use crate::tls::Options;", 1),
        ("src/net/mod.rs", "fn f() { crate::proxy::g() }", 1),
        (
            "src/net/mod.rs",
            "use crate::{\n    lifecycle,\n    metrics::{Registry, tls},\n};",
            2,
        ),
        ("src/net/mod.rs", "use super::proxy;", 1),
        ("src/net/dial.rs", "use super::super::{proxy::Limits, net};", 1),
        ("src/net/mod.rs", "mod tests { use super::super::tls; }", 1),
        ("src/net/mod.rs", "use crate::*;", 1),
        (
            "src/net/mod.rs",
            "use crate as program; use crate::{self as root};",
            2,
        ),
        ("src/net/mod.rs", "pub(in crate::tls) fn f() {}", 1),
        ("src/net/mod.rs", "use ghostunnel::tls;", 1),
        ("src/net/mod.rs", "use ghostunnel_pki::Identity;", 1),
        (
            "src/proxy/relay.rs",
            "use crate::credentials::Secret; use crate::status;",
            2,
        ),
        ("src/config.rs", "use crate::cli::Args;", 1),
        ("src/tls/verify.rs", "let x = '\"'; use crate::proxy; // \"", 1),
        ("src/unheard_of/mod.rs", "", 1),
    ] {
        let found = broken_arrows(Path::new(file), source);
        assert_eq!(found.len(), broken, "{file}: {source}: {found:?}");
    }
}

#[test]
fn permitted_arrows_are_left_alone() {
    for (file, source) in [
        (
            "src/net/dial.rs",
            "use crate::net::Reach; use super::TargetAddr; use self::inner::X;",
        ),
        (
            "src/net/mod.rs",
            "mod tests { use super::*; mod deep { use super::super::*; } }",
        ),
        (
            "src/net/mod.rs",
            "//! [`crate::tls`]\n/* crate::tls /* nested */ crate::proxy */ pub(crate) fn f() {}",
        ),
        (
            "src/net/mod.rs",
            r####"let a = "crate::tls \" crate::tls"; let b = r#"crate::"tls"#; let c = b"crate::tls";"####,
        ),
        ("src/net/mod.rs", "fn f<'a>(x: &'a str) -> char { '\\'' }"),
        ("src/net/mod.rs", "use tokio::net; use ghostunnel_testing::Pki;"),
        (
            "src/app/startup.rs",
            "use crate::{cli, proxy, sandbox}; use ghostunnel_keystore::Entry;",
        ),
        ("src/main.rs", "fn main() { ghostunnel::run() }"),
        (
            "src/tls/verify.rs",
            "use ghostunnel_pki::Identity; use crate::logging::class;",
        ),
        ("src/cli/parse/tests.rs", "use super::super::flags::Scope;"),
    ] {
        assert_eq!(
            broken_arrows(Path::new(file), source),
            Vec::<String>::new(),
            "{file}: {source}"
        );
    }
}

#[test]
fn unsafe_is_found_in_code_only() {
    let has_unsafe = |source| tokens(source).iter().any(|token| token.is("unsafe"));
    assert!(has_unsafe("fn f() { unsafe { g() } }"));
    assert!(!has_unsafe(
        "// unsafe\n#![forbid(unsafe_code)] const A: &str = \"unsafe\";"
    ));
}

/// What this file uses and may not, one line each.
fn broken_arrows(file: &Path, source: &str) -> Vec<String> {
    let module = module_path(file);
    let name = module.first().map_or("lib", String::as_str);
    if TOP.contains(&name) {
        return Vec::new();
    }
    let Some(room) = TABLE.iter().find(|room| room.name == name) else {
        return vec![format!("{}: room {name} is not in the table", file.display())];
    };
    let uses = references(&tokens(source), module.len());
    let forbidden = uses.into_iter().filter(|(_, used)| !room.may_use(used));
    forbidden
        .map(|(line, used)| format!("{}:{line}: {name} uses {used}", file.display()))
        .collect()
}

impl Room {
    fn may_use(&self, used: &Used) -> bool {
        match used {
            Used::Room(name) => name == self.name || self.rooms.contains(&name.as_str()),
            // Support for tests, which Cargo gives to tests only.
            Used::Crate(name) => name == "testing" || self.crates.contains(&name.as_str()),
            Used::Everything => false,
        }
    }
}

/// `src/net/dial.rs` is module `net::dial`; `lib.rs` is the root.
fn module_path(file: &Path) -> Vec<String> {
    let inside = file
        .strip_prefix("src")
        .expect("a file of the program")
        .with_extension("");
    let names = inside.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// Something a file refers to.
#[derive(Debug, PartialEq, Eq)]
enum Used {
    Room(String),
    Crate(String),
    /// The root itself, through which everything could be reached unseen.
    Everything,
}

impl std::fmt::Display for Used {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Room(name) => write!(out, "crate::{name}"),
            Self::Crate(name) => write!(out, "ghostunnel_{name}"),
            Self::Everything => write!(out, "the whole crate"),
        }
    }
}

/// Every path that starts at the root of the crate or names one of our crates. `depth` is the
/// number of modules the file itself is below the root.
fn references(tokens: &[Token], depth: usize) -> Vec<(usize, Used)> {
    let mut found = Vec::new();
    // For each open brace, whether it belongs to an inline module.
    let mut braces = Vec::new();
    let mut position = 0;
    while let Some(token) = tokens.get(position) {
        let here = depth + braces.iter().filter(|is_module| **is_module).count();
        let rest = &tokens[position..];
        let mut used = Vec::new();
        let mut length = 1;
        match token.text.as_str() {
            "{" => braces.push(position >= 2 && tokens[position - 2].is("mod")),
            "}" => drop(braces.pop()),
            "crate" if rest.get(1).is_some_and(|next| next.is("as")) => used.push(Used::Everything),
            "crate" if rest.get(1).is_some_and(|next| next.is("::")) => used = first_segments(&rest[2..]),
            "super" => {
                let supers = rest
                    .chunks(2)
                    .take_while(|pair| pair[0].is("super") && pair.len() == 2)
                    .count();
                length = (2 * supers).max(1);
                if supers >= here {
                    used = first_segments(&rest[length..]);
                }
            }
            "ghostunnel" => used.push(Used::Everything),
            name => used.extend(
                name.strip_prefix("ghostunnel_")
                    .map(|name| Used::Crate(name.to_owned())),
            ),
        }
        found.extend(used.into_iter().map(|used| (token.line, used)));
        position += length;
    }
    found
}

/// The names a path goes on with: one, or those of a `{…}` group.
fn first_segments(tokens: &[Token]) -> Vec<Used> {
    let named = |token: &Token| {
        if token.is("self") || token.is("*") {
            Used::Everything
        } else {
            Used::Room(token.text.clone())
        }
    };
    let Some((first, inner)) = tokens.split_first() else {
        return vec![Used::Everything];
    };
    if !first.is("{") {
        return vec![named(first)];
    }
    let mut found = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for token in inner {
        match token.text.as_str() {
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            "{" => depth += 1,
            "," if depth == 0 => is_start = true,
            _ if is_start => {
                found.push(named(token));
                is_start = false;
            }
            _ => {}
        }
    }
    found
}

/// A word, `::`, or any other single character of Rust source outside comments and literals.
#[derive(Debug)]
struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest).unwrap_or_else(|| {
            let length = token_length(rest, first);
            if !first.is_whitespace() {
                found.push(Token {
                    line,
                    text: rest[..length].to_owned(),
                });
            }
            length
        });
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn token_length(rest: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if is_word(first) {
        return rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    }
    if rest.starts_with("::") {
        2
    } else {
        first.len_utf8()
    }
}

/// The length of a comment or literal that starts here.
fn skipped(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix)
            .is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    });
    if let Some(prefix) = prefix {
        let literal = &rest[prefix.len()..];
        let hashes = literal.len() - literal.trim_start_matches('#').len();
        if prefix.ends_with('r') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 1;
            let end = literal[body..]
                .find(&close)
                .map_or(literal.len(), |end| body + end + close.len());
            return Some(prefix.len() + end);
        }
        if hashes == 0 {
            return Some(prefix.len() + quoted(literal, '"'));
        }
    }
    // A quote starts a character unless it starts a lifetime.
    let mut after = rest.strip_prefix('\'')?.chars();
    let is_character = after.next() == Some('\\') || after.next() == Some('\'');
    is_character.then(|| quoted(rest, '\''))
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut position = 0;
    while position < rest.len() {
        let here = &rest[position..];
        if here.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a literal with escapes, quotes included.
fn quoted(literal: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (position, c) in literal.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return position + c.len_utf8(),
            _ => {}
        }
    }
    literal.len()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).expect("a source file is readable")
}

/// All Rust files below a folder, with names relative to the root.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    assert!(!files.is_empty(), "no sources found");
    files.sort();
    files
}
