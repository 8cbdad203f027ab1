//! Values of flags: durations, numbers, addresses, words from a list.
//!
//! The grammar of each type and the key phrases of its errors are those that
//! existing unit files and scripts know from Ghostunnel 1.11.1.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::net::{self, LookupError};

/// Why a value was refused. The caller puts the flag's name in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("time: invalid duration {0:?}")]
    InvalidDuration(String),
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit { unit: String, text: String },
    #[error("strconv.ParseUint: parsing {0:?}: invalid syntax")]
    InvalidNumber(String),
    #[error("strconv.ParseUint: parsing {0:?}: value out of range")]
    NumberOutOfRange(String),
    #[error("strconv.ParseFloat: parsing {0:?}: invalid syntax")]
    InvalidInteger(String),
    #[error("path '{0}' does not exist")]
    NoSuchFile(String),
    #[error("'{0}' is a directory")]
    IsDirectory(String),
    #[error("cannot look at '{path}': {reason}")]
    Unreachable { path: String, reason: String },
    #[error("'{0}' is not an IP address")]
    NotAnIpAddress(String),
    #[error("'{text}' is not a valid TCP address: {reason}")]
    NotATcpAddress { text: String, reason: LookupError },
    #[error("path must not be empty")]
    EmptyPath,
    #[error("port must be a number from 1 to 65535, got '{0}'")]
    NotAPort(String),
    #[error("enum value must be one of {allowed}, got '{text}'")]
    NotInList { allowed: String, text: String },
    #[error(transparent)]
    Url(#[from] net::UrlError),
    /// Without the value: it may be a password.
    #[error("value is not valid UTF-8")]
    NotUtf8,
}

/// A duration as typed, which may be negative: whether that means "off", "at once" or
/// a refusal differs from flag to flag and is decided in `resolve`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SignedDuration {
    nanoseconds: i64,
}

impl SignedDuration {
    pub(super) fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    pub(super) fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// The duration, with zero in place of a negative one.
    pub(super) fn or_zero(self) -> Duration {
        u64::try_from(self.nanoseconds)
            .map(Duration::from_nanos)
            .unwrap_or_default()
    }

    /// The duration, if it is longer than zero.
    pub(super) fn positive(self) -> Option<Duration> {
        Some(self.or_zero()).filter(|duration| !duration.is_zero())
    }
}

/// Nanoseconds per unit. The two spellings of the microsecond are the micro sign
/// (U+00B5) and the Greek letter mu (U+03BC).
const UNITS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// An optional sign, then number-and-unit pairs without spaces (`1h30m`, `1.5s`, `-2d`);
/// or a bare zero.
pub(super) fn duration(text: &str) -> Result<SignedDuration, ValueError> {
    let invalid = || ValueError::InvalidDuration(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::default());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), split_digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(ValueError::MissingUnit(text.to_owned()));
        }
        let (_, scale) =
            UNITS
                .into_iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| ValueError::UnknownUnit {
                    unit: unit.to_owned(),
                    text: text.to_owned(),
                })?;
        total = in_nanoseconds(whole, fraction, scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        rest = after;
    }
    let nanoseconds = if negative {
        0_i64.checked_sub_unsigned(total)
    } else {
        0_i64.checked_add_unsigned(total)
    };
    Ok(SignedDuration {
        nanoseconds: nanoseconds.ok_or_else(invalid)?,
    })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `WHOLE.FRACTION` units of `scale` nanoseconds, rounded down; `None` on overflow.
fn in_nanoseconds(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    // Digits beyond the eighteenth are worth less than a nanosecond in every unit.
    let (fraction, _) = fraction.split_at(fraction.len().min(18));
    let mut part: u128 = 0;
    let mut divisor: u128 = 1;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        part = part * 10 + u128::from(digit);
        divisor *= 10;
    }
    let fraction = u64::try_from(part * u128::from(scale) / divisor).ok()?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(scale)?.checked_add(fraction)
}

/// An unsigned 32-bit integer: decimal, or with the prefix `0x`, `0b`, `0o` or `0`
/// (octal); underscores may separate digits.
pub(super) fn uint32(text: &str) -> Result<u32, ValueError> {
    let invalid = || ValueError::InvalidNumber(text.to_owned());
    let (digits, base) = split_base(text);
    let mut number: u32 = 0;
    let mut any = false;
    let mut out_of_range = false;
    // An underscore needs a digit or the base prefix before it, and a digit after it.
    let mut underscore_allowed = base != 10;
    for c in digits.chars() {
        if c == '_' {
            if !underscore_allowed {
                return Err(invalid());
            }
            underscore_allowed = false;
            any = false;
            continue;
        }
        let digit = c.to_digit(base).ok_or_else(invalid)?;
        match number
            .checked_mul(base)
            .and_then(|shifted| shifted.checked_add(digit))
        {
            Some(next) => number = next,
            None => out_of_range = true,
        }
        underscore_allowed = true;
        any = true;
    }
    if !any {
        return Err(invalid());
    }
    if out_of_range {
        return Err(ValueError::NumberOutOfRange(text.to_owned()));
    }
    Ok(number)
}

/// Digits without their prefix, and the base that the prefix stands for.
fn split_base(text: &str) -> (&str, u32) {
    let prefixes = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)];
    for (prefix, base) in prefixes {
        if let Some(digits) = text.strip_prefix(prefix) {
            return (digits, base);
        }
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    }
}

/// A whole number by way of a floating-point one: what is behind the point is cut off.
#[expect(clippy::cast_possible_truncation, reason = "that is how this type is defined")]
pub(super) fn integer(text: &str) -> Result<i64, ValueError> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number as i64),
        _ => Err(ValueError::InvalidInteger(text.to_owned())),
    }
}

/// A file that is there, by way of links; a directory is not meant.
pub(super) fn existing_file(path: &OsStr) -> Result<PathBuf, ValueError> {
    let shown = path.to_string_lossy().into_owned();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let name = Path::new(path)
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            Err(ValueError::IsDirectory(name.unwrap_or(shown)))
        }
        Ok(_) => Ok(path.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ValueError::NoSuchFile(shown)),
        Err(error) => Err(ValueError::Unreachable {
            path: shown,
            reason: error.to_string(),
        }),
    }
}

/// A path. An empty one would be the working directory.
pub(super) fn path(path: &OsStr) -> Result<PathBuf, ValueError> {
    match path.is_empty() {
        true => Err(ValueError::EmptyPath),
        false => Ok(path.into()),
    }
}

/// A TCP port that something can listen on.
pub(super) fn port(text: &str) -> Result<u16, ValueError> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| ValueError::NotAPort(text.to_owned()))
}

/// An IPv4 or IPv6 literal, without zone or prefix length.
pub(super) fn ip_address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse()
        .map_err(|_| ValueError::NotAnIpAddress(text.to_owned()))
}

/// `HOST:PORT`, looked up at once: one address, the first of IPv4 if there is any.
pub(super) fn tcp_address(text: &str) -> Result<SocketAddr, ValueError> {
    net::resolve_once(text).map_err(|reason| ValueError::NotATcpAddress {
        text: text.to_owned(),
        reason,
    })
}

/// A URL, as far as the text alone tells.
pub(super) fn url(text: &str) -> Result<net::Url, ValueError> {
    Ok(net::Url::parse(text)?)
}

/// One of the words that a flag knows, exactly as listed.
pub(super) fn choice(text: &str, allowed: &[&'static str]) -> Result<&'static str, ValueError> {
    allowed
        .iter()
        .copied()
        .find(|word| *word == text)
        .ok_or_else(|| ValueError::NotInList {
            allowed: allowed.join(","),
            text: text.to_owned(),
        })
}

/// Text; only paths may hold bytes that are not UTF-8.
pub(super) fn utf8(value: &OsStr) -> Result<&str, ValueError> {
    value.to_str().ok_or(ValueError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanoseconds(text: &str) -> Result<i64, String> {
        duration(text)
            .map(|duration| duration.nanoseconds)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_read_in_every_documented_form() {
        for (text, expected) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("2us", 2_000),
            ("2\u{b5}s", 2_000),
            ("2\u{3bc}s", 2_000),
            ("3ms", 3_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("-1s", -1_000_000_000),
            ("+1m", 60_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1s1s", 2_000_000_000),
            ("1s1h", 3_601_000_000_000),
            ("1d", 86_400_000_000_000),
            ("2w", 1_209_600_000_000_000),
            ("0.000000001s", 1),
            ("0.1234567890123456789999999s", 123_456_789),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanoseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong_with_them() {
        for (text, expected) in [
            ("", r#"time: invalid duration """#),
            ("-", r#"time: invalid duration "-""#),
            ("+", r#"time: invalid duration "+""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("00", r#"time: missing unit in duration "00""#),
            ("1s5", r#"time: missing unit in duration "1s5""#),
            ("1.5", r#"time: missing unit in duration "1.5""#),
            ("s", r#"time: invalid duration "s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("--1s", r#"time: invalid duration "--1s""#),
            (" 1s", r#"time: invalid duration " 1s""#),
            ("1S", r#"time: unknown unit "S" in duration "1S""#),
            ("1 s", r#"time: unknown unit " s" in duration "1 s""#),
            ("1s ", r#"time: unknown unit "s " in duration "1s ""#),
            ("1y", r#"time: unknown unit "y" in duration "1y""#),
            (
                "9223372036854775808ns",
                r#"time: invalid duration "9223372036854775808ns""#,
            ),
            (
                "-9223372036854775809ns",
                r#"time: invalid duration "-9223372036854775809ns""#,
            ),
            (
                "99999999999999999999999s",
                r#"time: invalid duration "99999999999999999999999s""#,
            ),
            ("20000w", r#"time: invalid duration "20000w""#),
            ("293y", r#"time: unknown unit "y" in duration "293y""#),
        ] {
            assert_eq!(nanoseconds(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn negative_durations_are_kept_apart_from_zero() {
        let negative = duration("-1s").expect("a duration");
        assert!(negative.is_negative() && !negative.is_zero());
        assert_eq!((negative.or_zero(), negative.positive()), (Duration::ZERO, None));
        let zero = duration("0").expect("a duration");
        assert!(zero.is_zero() && !zero.is_negative());
        assert_eq!(zero.positive(), None);
        assert_eq!(
            duration("2s").expect("a duration").positive(),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn numbers_are_read_with_base_prefixes_and_separators() {
        for (text, expected) in [
            ("0", 0),
            ("7", 7),
            ("00", 0),
            ("010", 8),
            ("0o17", 15),
            ("0O17", 15),
            ("0x10", 16),
            ("0XfF", 255),
            ("0b101", 5),
            ("0B1", 1),
            ("1_000", 1000),
            ("0x_10", 16),
            ("0_7", 7),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(uint32(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_numbers_are_refused() {
        let invalid = [
            "", "-1", "+1", "abc", "1.5", "0x", "0b2", "09", "_1", "1_", "1__0", "0x_", "1 ", "1e3",
        ];
        for text in invalid {
            let expected = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            assert_eq!(
                uint32(text).map_err(|error| error.to_string()),
                Err(expected),
                "{text}"
            );
        }
        for text in ["4294967296", "0x1_0000_0000", "99999999999999999999999999"] {
            let expected = format!("strconv.ParseUint: parsing {text:?}: value out of range");
            assert_eq!(
                uint32(text).map_err(|error| error.to_string()),
                Err(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn the_odd_number_is_read_as_a_fraction_and_cut() {
        for (text, expected) in [
            ("0", 0),
            ("8443", 8443),
            ("1.9", 1),
            ("-1.9", -1),
            ("1e3", 1000),
            (".5", 0),
            ("1e300", i64::MAX),
        ] {
            assert_eq!(integer(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "1s", "0x10", " 1", "nan", "inf"] {
            let expected = format!("strconv.ParseFloat: parsing {text:?}: invalid syntax");
            assert_eq!(
                integer(text).map_err(|error| error.to_string()),
                Err(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn files_that_must_exist_are_looked_for_at_once() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("module.so");
        std::fs::write(&file, "").expect("a file");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(existing_file(link.as_os_str()), Ok(link.clone()));

        let refused = |path: &Path| existing_file(path.as_os_str()).map_err(|error| error.to_string());
        assert_eq!(refused(Path::new("")), Err("path '' does not exist".to_owned()));
        assert_eq!(
            refused(Path::new("/nonexistent/x.so")),
            Err("path '/nonexistent/x.so' does not exist".to_owned())
        );
        let name = folder.path().file_name().expect("a name").to_string_lossy();
        assert_eq!(refused(folder.path()), Err(format!("'{name}' is a directory")));
        assert_eq!(refused(Path::new("/")), Err("'/' is a directory".to_owned()));
        std::fs::remove_file(&file).expect("removed");
        assert!(refused(&link).is_err(), "a link to nowhere");
        let through_a_file = folder.path().join("link/x");
        assert!(refused(&through_a_file).is_err());
    }

    #[test]
    fn only_plain_ip_literals_are_ip_addresses() {
        for text in ["127.0.0.1", "::1", "2001:DB8::1", "::ffff:127.0.0.1"] {
            assert!(ip_address(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "foo",
            "127.0.0.1/8",
            "fe80::1%eth0",
            "[::1]",
            "127.1",
            "127.0.0.01",
            "localhost",
        ] {
            let expected = format!("'{text}' is not an IP address");
            assert_eq!(
                ip_address(text).map_err(|error| error.to_string()),
                Err(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn tcp_addresses_are_looked_up() {
        for (text, expected) in [
            ("127.0.0.1:2003", "127.0.0.1:2003"),
            ("[::1]:2003", "[::1]:2003"),
            ("localhost:2003", "127.0.0.1:2003"),
            (":2003", "127.0.0.1:2003"),
        ] {
            let address = tcp_address(text).map(|address| address.to_string());
            assert_eq!(address, Ok(expected.to_owned()), "{text}");
        }
        for (text, reason) in [
            ("foo", "address foo: missing port in address"),
            ("a:b:c", "address a:b:c: too many colons in address"),
            ("127.0.0.1:99999", "address 99999: invalid port"),
            ("unix:/run/x.sock", "lookup tcp//run/x.sock: unknown port"),
        ] {
            let error = tcp_address(text).map_err(|error| error.to_string());
            assert_eq!(
                error,
                Err(format!("'{text}' is not a valid TCP address: {reason}"))
            );
        }
    }

    #[test]
    fn words_from_a_list_match_exactly() {
        let allowed = ["", "all", "conns"];
        assert_eq!(choice("all", &allowed), Ok("all"));
        assert_eq!(choice("", &allowed), Ok(""));
        let error = choice("ALL", &allowed).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("enum value must be one of ,all,conns, got 'ALL'".to_owned())
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (duration(&text), uint32(&text), ip_address(&text), choice(&text, &["a"]));
        }

        #[test]
        fn texts_made_of_the_right_letters_do_not_panic(text in "[-+]?([0-9._]{0,25}(ns|us|ms|s|m|h|d|w|x)?){0,4}") {
            let _ = (duration(&text), uint32(&text));
        }

        #[test]
        fn every_count_of_nanoseconds_is_read_back(count: i64) {
            prop_assert_eq!(nanoseconds(&format!("{count}ns")), Ok(count));
        }

        #[test]
        fn pairs_add_up(hours in 0_i64..1000, seconds in 0_i64..100_000, millis in 0_i64..1000) {
            let expected = (hours * 3600 + seconds) * 1_000_000_000 + millis * 1_000_000;
            prop_assert_eq!(nanoseconds(&format!("{hours}h{seconds}.{millis:03}s")), Ok(expected));
        }

        #[test]
        fn every_number_is_read_back_in_every_base(number: u32) {
            for text in [format!("{number}"), format!("{number:#x}"), format!("{number:#b}"), format!("{number:#o}")] {
                prop_assert_eq!(uint32(&text), Ok(number));
            }
        }
    }
}
