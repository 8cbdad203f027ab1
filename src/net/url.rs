//! URLs as flags take them.
//!
//! Lenient on purpose, with the refusals of Ghostunnel 1.11.1 and no others: `foo`, `/x` and
//! `http://` are URLs here, and whether a scheme, host or port is of use is for its user to say.
//! Path, query and fragment are checked for nothing but escapes, and dropped.

use std::fmt::{self, Write as _};

use zeroize::Zeroizing;

/// What a URL says about where to go, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// In lower case; empty if there is none.
    pub scheme: String,
    /// Name and password in front of the host.
    pub login: Option<Login>,
    /// Without brackets and port, escapes undone; empty if there is none.
    pub host: String,
    /// Digits; empty if there are none.
    pub port: String,
    /// As typed, without the password.
    text: String,
}

/// A name and, if given, a password. Never shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// May be empty.
    pub name: String,
    /// `None` where not even a colon was given.
    pub password: Option<Zeroizing<String>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a text is no URL. Displays without the password that the text may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL: parse {}: {reason}", Quoted(.text))]
pub struct UrlError {
    text: String,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("net/url: invalid control character in URL")]
    ControlCharacter,
    #[error("missing protocol scheme")]
    MissingScheme,
    #[error("first path segment in URL cannot contain colon")]
    ColonInFirstSegment,
    #[error("missing ']' in host")]
    MissingBracket,
    #[error("invalid port {} after host", Quoted(.0))]
    Port(String),
    #[error("invalid character {} in host name", Quoted(.0))]
    HostCharacter(String),
    #[error("net/url: invalid userinfo")]
    Login,
    #[error("invalid URL escape {}", Quoted(.0))]
    Escape(String),
}

impl Url {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (before_fragment, fragment) = text.split_once('#').unwrap_or((text, ""));
        let parsed = parse(before_fragment).map_err(|reason| (before_fragment, reason));
        let checked = parsed.and_then(|url| match unescape(fragment, Part::Other) {
            Ok(_) => Ok(url),
            Err(reason) => Err((text, reason)),
        });
        let url = checked.map_err(|(text, reason)| UrlError {
            reason: reason.without_secrets(text),
            text: mask(text),
        })?;
        Ok(Self {
            text: mask(text),
            ..url
        })
    }
}

/// As typed, with `xxxxx` for a password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Url, Reason> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Reason::ControlCharacter);
    }
    let (scheme, rest) = split_scheme(text)?;
    let (rest, _query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        scheme: scheme.unwrap_or_default().to_ascii_lowercase(),
        login: None,
        host: String::new(),
        port: String::new(),
        text: String::new(),
    };
    if !rest.starts_with('/') {
        if scheme.is_some() {
            return Ok(url);
        }
        let segment = rest.split('/').next().unwrap_or_default();
        if segment.contains(':') {
            return Err(Reason::ColonInFirstSegment);
        }
    }
    let has_authority = scheme.is_some() || !rest.starts_with("///");
    let path = match rest.strip_prefix("//").filter(|_| has_authority) {
        None => rest,
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            parse_authority(authority, &mut url)?;
            path
        }
    };
    unescape(path, Part::Other)?;
    Ok(url)
}

fn split_scheme(text: &str) -> Result<(Option<&str>, &str), Reason> {
    match text.split_once(':') {
        Some(("", _)) => Err(Reason::MissingScheme),
        Some((scheme, rest)) if is_scheme(scheme) => Ok((Some(scheme), rest)),
        _ => Ok((None, text)),
    }
}

/// A letter, then letters, digits and `+-.`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn parse_authority(authority: &str, url: &mut Url) -> Result<(), Reason> {
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    (url.host, url.port) = parse_host(host)?;
    url.login = login.map(parse_login).transpose()?;
    Ok(())
}

fn parse_login(login: &str) -> Result<Login, Reason> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !login.bytes().all(is_allowed) {
        return Err(Reason::Login);
    }
    let (name, password) = match login.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (login, None),
    };
    let name = unescape(name, Part::Other)?;
    let password = password.map(|password| unescape(password, Part::Other).map(Zeroizing::new));
    Ok(Login {
        name,
        password: password.transpose()?,
    })
}

/// Splits the port off: whatever is behind the last colon, or behind the brackets.
fn parse_host(text: &str) -> Result<(String, String), Reason> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => inner.rsplit_once(']').ok_or(Reason::MissingBracket)?,
        None => text.split_at(text.rfind(':').unwrap_or(text.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port =
        port.is_empty() || port.starts_with(':') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port {
        return Err(Reason::Port(port.to_owned()));
    }
    // A zone (RFC 6874) may hold what a host may not.
    let host = match host.split_once("%25").filter(|_| text.starts_with('[')) {
        Some((address, zone)) => format!(
            "{}%{}",
            unescape(address, Part::Host)?,
            unescape(zone, Part::Zone)?
        ),
        None => unescape(host, Part::Host)?,
    };
    Ok((host, digits.to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Zone,
    Other,
}

impl Part {
    fn may_hold(self, byte: u8) -> bool {
        self == Self::Other
            || !byte.is_ascii()
            || byte.is_ascii_alphanumeric()
            || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
    }

    /// Whether this byte may be written as an escape. In a host only those that could not be
    /// written otherwise, and the percent sign.
    fn may_escape(self, byte: u8) -> bool {
        match self {
            Self::Host => !byte.is_ascii() || byte == b'%',
            Self::Zone => byte == b'%' || byte == b' ' || self.may_hold(byte),
            Self::Other => true,
        }
    }
}

/// Undoes escapes. What they make that is not UTF-8 is replaced.
fn unescape(text: &str, part: Part) -> Result<String, Reason> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte != b'%' {
            if !part.may_hold(*byte) {
                return Err(Reason::HostCharacter(char::from(*byte).to_string()));
            }
            bytes.push(*byte);
            rest = after;
            continue;
        }
        let escape = rest.get(..3).unwrap_or(rest);
        match escaped(escape).filter(|byte| part.may_escape(*byte)) {
            Some(byte) => bytes.push(byte),
            None => return Err(Reason::Escape(String::from_utf8_lossy(escape).into_owned())),
        }
        rest = rest.get(3..).unwrap_or_default();
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn escaped(escape: &[u8]) -> Option<u8> {
    let [b'%', high, low] = escape else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// The text with `xxxxx` for whatever may be a password: all from the first colon behind the
/// scheme to the last at sign, also where the text is no URL.
fn mask(text: &str) -> String {
    let has_scheme = |before: &str| before.is_empty() || before.strip_suffix(':').is_some_and(is_scheme);
    let start = match text.split_once("//") {
        Some((before, _)) if has_scheme(before) => before.len() + 2,
        _ => 0,
    };
    let authority = text.get(start..).unwrap_or_default();
    let (Some(colon), Some(at)) = (authority.find(':'), authority.rfind('@')) else {
        return text.to_owned();
    };
    match (text.get(..=start + colon), text.get(start + at..)) {
        (Some(before), Some(after)) if colon < at => format!("{before}xxxxx{after}"),
        _ => text.to_owned(),
    }
}

impl Reason {
    /// Without the part of the text that it names, if that is masked in the text.
    fn without_secrets(self, text: &str) -> Self {
        let shown = mask(text);
        let or_masked = |detail: String, masked: &str| match shown.contains(&detail) {
            true => detail,
            false => masked.to_owned(),
        };
        match self {
            Self::Port(port) => Self::Port(or_masked(port, ":xxxxx")),
            Self::HostCharacter(character) => Self::HostCharacter(or_masked(character, "x")),
            Self::Escape(escape) => Self::Escape(or_masked(escape, "%xx")),
            reason @ (Self::ControlCharacter
            | Self::MissingScheme
            | Self::ColonInFirstSegment
            | Self::MissingBracket
            | Self::Login) => reason,
        }
    }
}

/// In double quotes, control characters as `\n` or `\x01`.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0b' => f.write_str("\\v")?,
                '\x0c' => f.write_str("\\f")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn login(url: &Url) -> Option<(&str, Option<&str>)> {
        let login = url.login.as_ref()?;
        Some((
            login.name.as_str(),
            login.password.as_ref().map(|password| password.as_str()),
        ))
    }

    #[test]
    fn urls_are_taken_apart() {
        for (text, scheme, host, port) in [
            ("http://proxy:3128", "http", "proxy", "3128"),
            ("SOCKS5h://Proxy.Example:/", "socks5h", "Proxy.Example", ""),
            ("http://proxy/path:1?query:2#frag:3", "http", "proxy", ""),
            ("http://proxy?query", "http", "proxy", ""),
            ("http://[::1]:80", "http", "::1", "80"),
            ("http://[fe80::1%25eth0]:80", "http", "fe80::1%eth0", "80"),
            ("http://[fe80::1%25a%20b]", "http", "fe80::1%a b", ""),
            ("http://::1:80", "http", "::1", "80"),
            ("http://h:99999", "http", "h", "99999"),
            ("http://%e4%bd%a0", "http", "\u{4f60}", ""),
            ("http://\u{4f60}", "http", "\u{4f60}", ""),
            ("http://%25", "http", "%", ""),
            ("http://", "http", "", ""),
            ("http:", "http", "", ""),
            ("//h:1", "", "h", "1"),
            ("///h:1", "", "", ""),
            ("http:///h:1", "http", "", ""),
            ("/x", "", "", ""),
            ("foo", "", "", ""),
            ("*", "", "", ""),
            ("", "", "", ""),
            ("host:3128", "host", "", ""),
            ("a+b-c.1:%zz", "a+b-c.1", "", ""),
        ] {
            let url = url(text);
            assert_eq!(
                (url.scheme.as_str(), url.host.as_str(), url.port.as_str()),
                (scheme, host, port),
                "{text}"
            );
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn names_and_passwords_are_told_apart_and_unescaped() {
        for (text, expected) in [
            ("http://h", None),
            ("http://@h", Some(("", None))),
            ("http://u@h", Some(("u", None))),
            ("http://u:@h", Some(("u", Some("")))),
            ("http://u%40x:p%3Aq%2f@h", Some(("u@x", Some("p:q/")))),
            ("http://u:p:q@h", Some(("u", Some("p:q")))),
            ("http://u:p@q@h", Some(("u", Some("p@q")))),
        ] {
            assert_eq!(login(&url(text)), expected, "{text}");
        }
    }

    #[test]
    fn refusals_have_the_known_words() {
        for (text, shown, reason) in [
            (":3128", ":3128", "missing protocol scheme"),
            ("::bad", "::bad", "missing protocol scheme"),
            (
                "127.0.0.1:3128",
                "127.0.0.1:3128",
                "first path segment in URL cannot contain colon",
            ),
            ("1a:b", "1a:b", "first path segment in URL cannot contain colon"),
            ("-1:x", "-1:x", "first path segment in URL cannot contain colon"),
            ("a b:x", "a b:x", "first path segment in URL cannot contain colon"),
            (
                "http://h:port",
                "http://h:port",
                r#"invalid port ":port" after host"#,
            ),
            ("http://h:-1", "http://h:-1", r#"invalid port ":-1" after host"#),
            ("http://[::1]x", "http://[::1]x", r#"invalid port "x" after host"#),
            ("http://[::1", "http://[::1", "missing ']' in host"),
            (
                "http://a b",
                "http://a b",
                r#"invalid character " " in host name"#,
            ),
            (
                "http://a\\b",
                r"http://a\\b",
                r#"invalid character "\\" in host name"#,
            ),
            ("http://a%20b", "http://a%20b", r#"invalid URL escape "%20""#),
            ("http://a b@h", "http://a b@h", "net/url: invalid userinfo"),
            ("http://h/%zz", "http://h/%zz", r#"invalid URL escape "%zz""#),
            ("http://h/%4", "http://h/%4", r#"invalid URL escape "%4""#),
            ("http://h/#%", "http://h/#%", r#"invalid URL escape "%""#),
            ("http://h:x#f", "http://h:x", r#"invalid port ":x" after host"#),
            (
                "http://h\u{1}\n\u{7f}",
                r"http://h\x01\n\x7f",
                "net/url: invalid control character in URL",
            ),
        ] {
            let error = Url::parse(text).expect_err(text).to_string();
            assert_eq!(
                error,
                format!("invalid URL: parse \"{shown}\": {reason}"),
                "{text}"
            );
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for text in [
            "http://u:secret@h",
            "http://u:sec@secret@h",
            "http://u:secret@h:port",
            "http://u:sec/secret@h",
            "http://u:secret%zz@h",
            "http://u:sec ret@h secret@h",
            "1u:secret@h",
            "u:secret@h",
            "u:secret@h//x",
            "//u:secret@h#%",
        ] {
            let shown = match Url::parse(text) {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error}"),
            };
            assert!(!shown.contains("secret"), "{shown}");
            assert!(!shown.contains("sec"), "{shown}");
            assert!(shown.contains("u:xxxxx@"), "{shown}");
        }
        let error = Url::parse("http://u:%zq@h").expect_err("no escape").to_string();
        assert_eq!(
            error,
            r#"invalid URL: parse "http://u:xxxxx@h": invalid URL escape "%xx""#
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*", pieces in "(http:|//|[a-z@:/?#%\\[\\]0-9 é]){0,24}") {
            let _ = Url::parse(&text).map_err(|error| error.to_string());
            let _ = Url::parse(&pieces).map_err(|error| error.to_string());
        }

        #[test]
        fn a_url_is_what_it_was_made_of(name in "[a-z0-9._~!$&'()*+,;=-]{0,8}", password in "[ -~]{0,12}", host in "[a-z0-9.-]{0,12}", port in "[0-9]{0,6}", path in "(/[a-z?]{0,4})?") {
            let escaped: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let url = Url::parse(&format!("http://{name}:{escaped}@{host}:{port}{path}")).expect("well formed");
            prop_assert_eq!(login(&url), Some((name.as_str(), Some(password.as_str()))));
            prop_assert_eq!((&url.host, &url.port), (&host, &port));
            prop_assert_eq!(url.to_string(), format!("http://{name}:xxxxx@{host}:{port}{path}"));
        }

        #[test]
        fn what_is_behind_the_last_at_sign_is_the_host(junk in "[a-z:@%0-9]{0,10}", host in "[a-z]{1,6}") {
            if let Ok(url) = Url::parse(&format!("socks5://{junk}@{host}")) {
                prop_assert_eq!(url.host, host);
            }
        }
    }
}
