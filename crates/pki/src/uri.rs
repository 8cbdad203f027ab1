//! URIs in certificates, parsed and written again.
//!
//! Access rules have always been compared with the URI as Ghostunnel 1.11.1 wrote it
//! after parsing, not with the bytes in the certificate: a lower-case scheme, escapes
//! added where a character needs one, and nothing else normalised. Certificates with
//! a URI that it could not parse were refused as a whole, and still are.

use std::net::Ipv6Addr;

/// Why a URI was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// A byte below 0x20, or 0x7f, before the fragment.
    #[error("net/url: invalid control character in URL")]
    ControlCharacter,
    /// The text starts with a colon.
    #[error("missing protocol scheme")]
    MissingScheme,
    /// A relative reference would be mistaken for a scheme.
    #[error("first path segment in URL cannot contain colon")]
    ColonInFirstSegment,
    /// A percent sign without two hexadecimal digits, or one that may not be escaped here.
    #[error("invalid URL escape")]
    Escape,
    /// A character that may not be in a host name.
    #[error("invalid character in host name")]
    HostCharacter,
    /// User information with a character that must be escaped.
    #[error("net/url: invalid userinfo")]
    UserInfo,
    /// A bracket without its partner.
    #[error("missing ']' in host")]
    MissingBracket,
    /// Brackets around something that is not an IPv6 address.
    #[error("invalid IP-literal")]
    IpLiteral,
    /// A port that is not a number, or more than one colon.
    #[error("invalid port after host")]
    Port,
    /// A host with an empty label or a trailing dot.
    #[error("invalid domain")]
    Domain,
}

/// A parsed URI: its text after serialisation, and its host for name constraints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) text: String,
    /// Host and port, decoded; empty when there is none.
    pub(crate) host: String,
}

impl Uri {
    /// Parses ASCII `text` (RFC 3986, with the leniency that old certificates rely on).
    pub(crate) fn parse(text: &str) -> Result<Self, UriError> {
        let (reference, fragment) = text.split_once('#').unwrap_or((text, ""));
        if reference.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(UriError::ControlCharacter);
        }
        let (mut text, host) = parse_reference(reference)?;
        if !fragment.is_empty() {
            text.push('#');
            text.push_str(&reescape(fragment, Part::Fragment)?);
        }
        Ok(Self { text, host })
    }
}

/// A URI in parts, decoded where the generic syntax (RFC 3986) lets parts be encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UriParts {
    /// In lower case, without the colon.
    pub scheme: String,
    /// What follows the scheme if that is not a slash: `x:y` of `urn:x:y`.
    pub opaque: String,
    /// Whether there is user information, be it empty.
    pub has_user: bool,
    /// Host and port.
    pub host: String,
    /// The path; any bytes may have been encoded in it.
    pub path: Vec<u8>,
    /// The path as it was written, if encoding [`Self::path`] gives another text.
    pub raw_path: String,
    /// A path follows the scheme without `//` between them.
    pub omits_host: bool,
    /// The query is there and empty.
    pub has_empty_query: bool,
    /// The query as it was written.
    pub raw_query: String,
    /// The fragment.
    pub fragment: Vec<u8>,
    /// The fragment as it was written, if encoding [`Self::fragment`] gives another text.
    pub raw_fragment: String,
}

impl UriParts {
    /// Takes apart what [`Uri::parse`] accepts.
    pub(crate) fn parse(text: &str) -> Result<Self, UriError> {
        let (reference, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = split_scheme(reference)?;
        let (rest, query) = split_query(rest);
        let mut parts = Self {
            scheme: scheme.unwrap_or_default().to_ascii_lowercase(),
            has_empty_query: query == Some(""),
            raw_query: query.unwrap_or_default().to_owned(),
            ..Self::default()
        };
        (parts.fragment, parts.raw_fragment) = decoded(fragment, Part::Fragment)?;
        if scheme.is_some() && !rest.starts_with('/') {
            parts.opaque = rest.to_owned();
            return Ok(parts);
        }
        let path = match rest.strip_prefix("//") {
            Some(after) if scheme.is_some() || !after.starts_with('/') => {
                let at = after.find('/').unwrap_or(after.len());
                let (authority, path) = after.split_at_checked(at).unwrap_or((after, ""));
                let authority = Authority::parse(authority)?;
                parts.has_user = authority.user.is_some();
                parts.host = authority.host;
                path
            }
            _ => {
                parts.omits_host = scheme.is_some();
                rest
            }
        };
        (parts.path, parts.raw_path) = decoded(path, Part::Path)?;
        Ok(parts)
    }
}

/// The decoded bytes, and the text itself if encoding them does not lead back to it.
fn decoded(text: &str, part: Part) -> Result<(Vec<u8>, String), UriError> {
    let decoded = unescape(text, part)?;
    let mut encoded = String::new();
    escape_into(&mut encoded, &decoded, part);
    let raw = if encoded == text {
        String::new()
    } else {
        text.to_owned()
    };
    Ok((decoded, raw))
}

/// Everything before the fragment: the text written again, and the host.
fn parse_reference(reference: &str) -> Result<(String, String), UriError> {
    let (scheme, rest) = split_scheme(reference)?;
    let mut text = scheme.map_or_else(String::new, |scheme| scheme.to_ascii_lowercase() + ":");
    let (rest, query) = split_query(rest);
    let mut host = String::new();
    if !rest.starts_with('/') && scheme.is_some() {
        text.push_str(rest);
    } else {
        if rest
            .split('/')
            .next()
            .is_some_and(|segment| segment.contains(':'))
            && !rest.starts_with('/')
        {
            return Err(UriError::ColonInFirstSegment);
        }
        let path = match rest.strip_prefix("//") {
            Some(after) if scheme.is_some() || !after.starts_with('/') => {
                let at = after.find('/').unwrap_or(after.len());
                let (authority, path) = after.split_at_checked(at).unwrap_or((after, ""));
                let authority = Authority::parse(authority)?;
                // An authority that is there but empty is written only before a path.
                if !authority.is_empty() || (scheme.is_some() && !path.is_empty()) {
                    text.push_str("//");
                }
                authority.write(&mut text);
                host = authority.host;
                path
            }
            _ => rest,
        };
        let path = reescape(path, Part::Path)?;
        if text.is_empty()
            && path
                .split('/')
                .next()
                .is_some_and(|segment| segment.contains(':'))
        {
            text.push_str("./");
        }
        text.push_str(&path);
    }
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    Ok((text, host))
}

/// Splits `scheme:` off. A text that cannot start with a scheme has none.
fn split_scheme(text: &str) -> Result<(Option<&str>, &str), UriError> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Ok((None, text));
    };
    let mut bytes = scheme.bytes();
    match bytes.next() {
        None => Err(UriError::MissingScheme),
        Some(first)
            if first.is_ascii_alphabetic()
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            Ok((Some(scheme), rest))
        }
        Some(_) => Ok((None, text)),
    }
}

/// Splits the query off. A single question mark at the end is an empty query and kept;
/// `a??` has the query `?`.
fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        None => (text, None),
        Some((path, query)) => (path, Some(query)),
    }
}

/// User information and host of a URI with `//`.
struct Authority {
    /// Written again, with everything but the `@`.
    user: Option<String>,
    host: String,
}

impl Authority {
    fn parse(text: &str) -> Result<Self, UriError> {
        let (user, host) = match text.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, text),
        };
        let host = parse_host(host)?;
        if !host.is_empty() && !is_domain(&host) {
            return Err(UriError::Domain);
        }
        Ok(Self {
            user: user.map(parse_user).transpose()?,
            host,
        })
    }

    fn is_empty(&self) -> bool {
        self.user.is_none() && self.host.is_empty()
    }

    fn write(&self, text: &mut String) {
        if let Some(user) = &self.user {
            text.push_str(user);
            text.push('@');
        }
        escape_into(text, self.host.as_bytes(), Part::Host);
    }
}

fn parse_user(user: &str) -> Result<String, UriError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !user.bytes().all(allowed) {
        return Err(UriError::UserInfo);
    }
    let mut written = String::new();
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    escape_into(&mut written, &unescape(name, Part::User)?, Part::User);
    if let Some(password) = password {
        written.push(':');
        escape_into(&mut written, &unescape(password, Part::User)?, Part::User);
    }
    Ok(written)
}

fn parse_host(text: &str) -> Result<String, UriError> {
    let host = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.rsplit_once(']').ok_or(UriError::MissingBracket)?;
            check_port(port)?;
            let address = parse_ip_literal(address)?;
            return Ok(format!("[{address}]{port}"));
        }
        None if text.contains('[') => return Err(UriError::IpLiteral),
        None => text,
    };
    if let Some(colon) = host.find(':') {
        check_port(host.get(colon..).unwrap_or(""))?;
    }
    // Only bytes beyond ASCII may be escaped in a host, and no host with such a byte is
    // a valid domain, so this never fails for a host that is accepted in the end.
    String::from_utf8(unescape(host, Part::Host)?).map_err(|_| UriError::Domain)
}

/// An IPv6 address, perhaps with a zone behind `%25` (RFC 6874).
fn parse_ip_literal(text: &str) -> Result<String, UriError> {
    let at = text.find("%25").unwrap_or(text.len());
    let (address, zone) = text.split_at_checked(at).ok_or(UriError::IpLiteral)?;
    let address = String::from_utf8(unescape(address, Part::Host)?).map_err(|_| UriError::IpLiteral)?;
    let zone = String::from_utf8(unescape(zone, Part::Zone)?).map_err(|_| UriError::IpLiteral)?;
    if address.parse::<Ipv6Addr>().is_err() || zone == "%" {
        return Err(UriError::IpLiteral);
    }
    Ok(address + &zone)
}

/// Nothing, or a colon and perhaps digits.
fn check_port(port: &str) -> Result<(), UriError> {
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(UriError::Port),
    }
}

/// Labels of visible ASCII, none empty, no trailing dot. Deliberately no more: underscores
/// and ports must pass.
pub(crate) fn is_domain(text: &str) -> bool {
    text.is_empty()
        || text
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|byte| (33..=126).contains(&byte)))
}

/// Where in a URI a character is, which decides whether it must be escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    User,
    Host,
    Zone,
    Path,
    Fragment,
}

fn must_escape(byte: u8, part: Part) -> bool {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        return false;
    }
    let plain: &[u8] = match part {
        Part::User => b"$&+,;=",
        Part::Host | Part::Zone => b"!$&'()*+,;=:[]<>\"",
        Part::Path => b"$&+,/:;=@",
        Part::Fragment => b"$&+,/:;=?@!()*",
    };
    !plain.contains(&byte)
}

/// Characters that a path or fragment may keep unescaped if it was written so, beyond
/// those that are never escaped.
fn may_stay(byte: u8, part: Part) -> bool {
    b"!'()*[]%".contains(&byte) || !must_escape(byte, part)
}

fn escape_into(text: &mut String, bytes: &[u8], part: Part) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if must_escape(byte, part) {
            text.push('%');
            for digit in [byte >> 4, byte & 0x0f] {
                text.extend(DIGITS.get(usize::from(digit)).copied().map(char::from));
            }
        } else {
            text.push(char::from(byte));
        }
    }
}

/// A path or fragment as it is written again: unchanged if it was validly escaped, else
/// with exactly the necessary escapes.
fn reescape(text: &str, part: Part) -> Result<String, UriError> {
    let decoded = unescape(text, part)?;
    if text.bytes().all(|byte| may_stay(byte, part)) {
        return Ok(text.to_owned());
    }
    let mut escaped = String::new();
    escape_into(&mut escaped, &decoded, part);
    Ok(escaped)
}

fn unescape(text: &str, part: Part) -> Result<Vec<u8>, UriError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex_digit(bytes.next())?, hex_digit(bytes.next())?);
            let value = high << 4 | low;
            let allowed = match part {
                Part::Host => value >= 0x80 || value == b'%',
                Part::Zone => value == b'%' || value == b' ' || !must_escape(value, Part::Host),
                Part::User | Part::Path | Part::Fragment => true,
            };
            if !allowed {
                return Err(UriError::Escape);
            }
            decoded.push(value);
        } else if matches!(part, Part::Host | Part::Zone) && byte < 0x80 && must_escape(byte, part) {
            return Err(UriError::HostCharacter);
        } else {
            decoded.push(byte);
        }
    }
    Ok(decoded)
}

fn hex_digit(byte: Option<u8>) -> Result<u8, UriError> {
    let value = byte
        .and_then(|byte| char::from(byte).to_digit(16))
        .ok_or(UriError::Escape)?;
    u8::try_from(value).map_err(|_| UriError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uris_are_written_like_this() {
        for (input, expected) in [
            ("spiffe://td/a", "spiffe://td/a"),
            ("SPIFFE://Td/a", "spiffe://Td/a"),
            ("SPIFFE://Td/a b", "spiffe://Td/a%20b"),
            ("spiffe://td/%7Ea", "spiffe://td/%7Ea"),
            ("spiffe://td/a%2Fb", "spiffe://td/a%2Fb"),
            ("spiffe://td/a%2fb", "spiffe://td/a%2fb"),
            ("spiffe://td/a%20b", "spiffe://td/a%20b"),
            ("spiffe://td/a%20b c", "spiffe://td/a%20b%20c"),
            ("spiffe://td/a%2Fb c", "spiffe://td/a/b%20c"),
            ("spiffe://td/[a]!'()*", "spiffe://td/[a]!'()*"),
            ("spiffe://td/[a]!^", "spiffe://td/%5Ba%5D%21%5E"),
            ("spiffe://td/a/../b//c/.", "spiffe://td/a/../b//c/."),
            ("spiffe://td/a?b/c", "spiffe://td/a?b/c"),
            ("spiffe://td/a?", "spiffe://td/a?"),
            ("spiffe://td/a??", "spiffe://td/a??"),
            ("spiffe://td?b c", "spiffe://td?b c"),
            ("spiffe://td/a#f/g", "spiffe://td/a#f/g"),
            ("spiffe://td/a#f g'", "spiffe://td/a#f%20g%27"),
            ("spiffe://td/a#", "spiffe://td/a"),
            (
                "https://u:p@h.example:8443/a%2Fb?q#frag",
                "https://u:p@h.example:8443/a%2Fb?q#frag",
            ),
            ("https://u%41@h/", "https://uA@h/"),
            ("https://a@b@h/", "https://a%40b@h/"),
            ("https://u:@h", "https://u:@h"),
            ("https://@h", "https://@h"),
            ("urn:x:y", "urn:x:y"),
            ("URN:x y%zz", "urn:x y%zz"),
            ("a/b", "a/b"),
            ("a/b:c", "a/b:c"),
            ("*", "*"),
            ("", ""),
            ("/", "/"),
            ("//", ""),
            ("///x", "///x"),
            ("//h/x", "//h/x"),
            ("spiffe:", "spiffe:"),
            ("spiffe:/", "spiffe:/"),
            ("spiffe:/a", "spiffe:/a"),
            ("spiffe://", "spiffe:"),
            ("spiffe:///x", "spiffe:///x"),
            ("spiffe://td:", "spiffe://td:"),
            ("spiffe://[::1]:80/x", "spiffe://[::1]:80/x"),
            ("spiffe://[fe80::1%25en0]/x", "spiffe://[fe80::1%25en0]/x"),
            ("1a:b/c", ""),
            ("1a/b:c", "1a/b:c"),
            ("spiffe://a_b*.c/", "spiffe://a_b*.c/"),
        ] {
            match Uri::parse(input) {
                Ok(uri) => assert_eq!(uri.text, expected, "{input}"),
                Err(error) => assert_eq!((error, expected), (UriError::ColonInFirstSegment, ""), "{input}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_refused() {
        for (input, expected) in [
            ("spiffe://td/%zz", UriError::Escape),
            ("spiffe://td/%2", UriError::Escape),
            ("spiffe://td/a#%x0", UriError::Escape),
            ("spiffe://a%20b/", UriError::Escape),
            ("spiffe://a b/", UriError::HostCharacter),
            ("spiffe://a%c3%a4/", UriError::Domain),
            ("spiffe://td:80x/", UriError::Port),
            ("spiffe://td:1:2/", UriError::Port),
            ("spiffe://[::1/", UriError::MissingBracket),
            ("spiffe://[::1]80/", UriError::Port),
            ("spiffe://[1.2.3.4]/", UriError::IpLiteral),
            ("spiffe://[td]/", UriError::IpLiteral),
            ("spiffe://x[::1]/", UriError::IpLiteral),
            ("spiffe://td./", UriError::Domain),
            ("spiffe://a..b/", UriError::Domain),
            ("spiffe://.a/", UriError::Domain),
            ("https://u^@h/", UriError::UserInfo),
            (":a", UriError::MissingScheme),
            (" spiffe://td/", UriError::ColonInFirstSegment),
            ("a:b/c\n", UriError::ControlCharacter),
            ("a b:c", UriError::ColonInFirstSegment),
        ] {
            assert_eq!(Uri::parse(input), Err(expected), "{input}");
        }
    }

    proptest! {
        #[test]
        fn writing_again_changes_nothing_more(input in "[ -~]{0,40}|spiffe://[a-z.:\\[\\]%]{0,10}/[ -~]{0,20}") {
            if let Ok(uri) = Uri::parse(&input) {
                // An empty authority is dropped, after which the rest may read otherwise.
                prop_assume!(!input.contains("//") || !uri.host.is_empty());
                let again = Uri::parse(&uri.text);
                prop_assert_eq!(again.map(|again| again.text), Ok(uri.text));
            }
        }
    }
}
