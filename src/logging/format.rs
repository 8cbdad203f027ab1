//! The line layout that existing log parsers know, and the escaping that keeps one
//! event on one line whatever text it carries.

use std::fmt::{self, Display, Write};
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The longest line, its prefix included. A peer chooses parts of some lines (its
/// certificate's subject, an error from its TLS library), so they need a bound; the
/// longest subject seen in practice is far below it.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// What ends a line that was cut at [`MAX_LINE`].
pub(super) const CUT: &str = "...[truncated]";

/// Where time zone files live, in the order in which they are looked for.
const ZONE_DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];

/// Shows `text` with everything escaped that could forge a log line or deceive its
/// reader: control characters (`\n`, `\t`, `\x1b`), line separators, and the invisible
/// format characters that reorder or hide text (`\u{202e}`).
///
/// Backslashes stay as they are, so that escaping twice changes nothing. The log escapes
/// every message itself; this is for texts that go elsewhere too.
pub fn escape(text: &str) -> impl Display {
    struct Escaped<'a>(&'a str);
    impl Display for Escaped<'_> {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_escaped(out, self.0)
        }
    }
    Escaped(text)
}

/// The local time zone, resolved once: by the log when it starts, thus before the
/// process confines itself. UTC where it cannot be found out.
pub fn local_zone() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let named = std::env::var("TZ").ok().and_then(|name| zone_by_name(&name));
        named
            .or_else(|| TimeZone::try_system().ok())
            .unwrap_or(TimeZone::UTC)
    })
}

/// Reads the zone called `name` (`Europe/Berlin`) from the system's database.
///
/// The time library does this itself only by indexing the whole database first, which
/// costs more than the rest of the start.
fn zone_by_name(name: &str) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return None;
    }
    ZONE_DIRECTORIES.iter().find_map(|directory| {
        let data = std::fs::read(format!("{directory}/{name}")).ok()?;
        TimeZone::tzif(name, &data).ok()
    })
}

/// A time as RFC 3339 writes it, with the offset of `zone` and as many digits of the second
/// as it takes.
pub fn rfc3339(time: Timestamp, zone: &TimeZone) -> String {
    let fraction = format!("{:09}", time.subsec_nanosecond().unsigned_abs());
    let mut text = String::new();
    write_local_time(&mut text, time, zone, fraction.trim_end_matches('0'));
    text
}

/// Writes a time as RFC 3339 does; `fraction` are the digits of the second that are shown.
pub(super) fn write_local_time(out: &mut String, time: Timestamp, zone: &TimeZone, fraction: &str) {
    let offset = zone.to_offset(time);
    let local = offset.to_datetime(time);
    let point = if fraction.is_empty() { "" } else { "." };
    // Writing to a string can't fail.
    let _infallible = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{point}{fraction}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second()
    );
    let minutes = offset.seconds() / 60;
    if minutes == 0 {
        out.push('Z');
        return;
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.unsigned_abs();
    let _infallible = write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
}

/// Puts one line together: `[PID] YYYY/MM/DD HH:MM:SS.uuuuuu MESSAGE\n`.
pub(super) struct Line {
    text: String,
    is_cut: bool,
}

impl Line {
    /// Begins a line of process `pid` with the time `now` in `zone`, behind what the
    /// destination wants in front.
    pub(super) fn begin(front: &str, pid: u32, now: Timestamp, zone: &TimeZone) -> Self {
        let time = zone.to_datetime(now);
        let mut text = String::with_capacity(256);
        text.push_str(front);
        let _ = write!(
            text,
            "[{pid}] {:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.subsec_nanosecond() / 1000,
        );
        Self { text, is_cut: false }
    }

    /// Ends the line and gives its bytes, the newline included.
    pub(super) fn end(mut self) -> String {
        if self.is_cut {
            self.text.push_str(CUT);
        }
        self.text.push('\n');
        self.text
    }
}

/// Adds to the message, escaped; what goes beyond [`MAX_LINE`] is left out.
impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let room = MAX_LINE.saturating_sub(CUT.len() + 1);
        let _ = write_escaped(&mut self.text, take(part, room));
        if part.len() > room || self.text.len() > room {
            self.text.truncate(take(&self.text, room).len());
            self.is_cut = true;
        }
        Ok(())
    }
}

/// The longest beginning of `text` of at most `limit` bytes that ends between characters.
fn take(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// Writes `text` with its dangerous characters escaped; clean stretches go out whole.
fn write_escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(is_dangerous) {
        let (clean, tail) = rest.split_at(at);
        out.write_str(clean)?;
        let mut characters = tail.chars();
        if let Some(character) = characters.next() {
            write_escape(out, character)?;
        }
        rest = characters.as_str();
    }
    out.write_str(rest)
}

fn write_escape(out: &mut impl Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        character if character.is_ascii() => write!(out, "\\x{:02x}", u32::from(character)),
        character => write!(out, "\\u{{{:x}}}", u32::from(character)),
    }
}

/// Control characters (category Cc), line and paragraph separators (Zl, Zp) and format
/// characters (Cf) of Unicode 16.
pub(super) fn is_dangerous(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    character.is_control()
        || matches!(
            u32::from(character),
            0xad | 0x600..=0x605
                | 0x61c
                | 0x6dd
                | 0x70f
                | 0x890..=0x891
                | 0x8e2
                | 0x180e
                | 0x200b..=0x200f
                | 0x2028..=0x202e
                | 0x2060..=0x206f
                | 0xfeff
                | 0xfff9..=0xfffb
                | 0x110bd
                | 0x110cd
                | 0x13430..=0x1343f
                | 0x1bca0..=0x1bca3
                | 0x1d173..=0x1d17a
                | 0xe0000..=0xe007f
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(message: &str) -> String {
        let mut line = Line::begin("", 7, Timestamp::UNIX_EPOCH, &TimeZone::UTC);
        line.write_str(message).expect("a line takes any text");
        line.end()
    }

    #[test]
    fn a_line_has_the_layout_of_the_original() {
        let now = Timestamp::new(1_795_562_287, 300_120_999).expect("a valid time");
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let mut line = Line::begin("", 2399, now, &zone);
        line.write_str("opening pipe: a <-> b ")
            .expect("a line takes any text");
        assert_eq!(
            line.end(),
            "[2399] 2026/11/24 18:18:07.300120 opening pipe: a <-> b \n"
        );
    }

    #[test]
    fn dangerous_characters_are_escaped_and_others_kept() {
        let cases = [
            ("CN=client,OU=a\\,b", "CN=client,OU=a\\,b"),
            ("Zoë – 証明書 🦀", "Zoë – 証明書 🦀"),
            ("a\n[1] 2026/01/01 forged", "a\\n[1] 2026/01/01 forged"),
            ("\r\t\0\x1b[2J\x7f", "\\r\\t\\x00\\x1b[2J\\x7f"),
            ("\u{85}\u{9b}31m", "\\u{85}\\u{9b}31m"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            (
                "abc\u{202e}cba\u{2066}\u{200b}\u{feff}",
                "abc\\u{202e}cba\\u{2066}\\u{200b}\\u{feff}",
            ),
            ("\u{e0041}", "\\u{e0041}"),
        ];
        for (text, expected) in cases {
            assert_eq!(escape(text).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        for message in [
            "x".repeat(MAX_LINE),
            "ü".repeat(MAX_LINE),
            "\u{202e}".repeat(MAX_LINE / 4),
        ] {
            let line = line(&message);
            assert!(line.len() <= MAX_LINE, "{} bytes", line.len());
            assert!(line.ends_with("...[truncated]\n"));
        }
        assert!(!line(&"x".repeat(MAX_LINE - 100)).contains("truncated"));
    }

    #[test]
    fn nothing_follows_the_cut() {
        let mut line = Line::begin("", 7, Timestamp::UNIX_EPOCH, &TimeZone::UTC);
        line.write_str(&"x".repeat(MAX_LINE))
            .expect("a line takes any text");
        line.write_str("tail").expect("a line takes any text");
        assert!(!line.end().contains("tail"));
    }

    #[test]
    fn names_cannot_leave_the_zone_directory() {
        for name in ["", "/etc/passwd", "../../../etc/localtime", ":../x"] {
            assert!(zone_by_name(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn zones_are_found_by_name() {
        let name = "Europe/Berlin";
        if !ZONE_DIRECTORIES
            .iter()
            .any(|directory| std::path::Path::new(directory).join(name).exists())
        {
            eprintln!("SKIPPED: this machine has no time zone database");
            return;
        }
        for name in [name, ":Europe/Berlin"] {
            let zone = zone_by_name(name).expect("the zone is in the database");
            let summer = Timestamp::new(1_750_000_000, 0).expect("a valid time");
            assert_eq!(zone.to_offset(summer), jiff::tz::offset(2), "{name}");
        }
    }

    #[test]
    fn times_have_the_local_offset_and_no_trailing_zeros() {
        let time = |nanoseconds| Timestamp::new(1_795_562_059, nanoseconds).expect("a valid time");
        let utc = TimeZone::UTC;
        let kolkata = TimeZone::fixed(jiff::tz::offset(5).saturating_add(jiff::Span::new().minutes(30)));
        let cases = [
            (time(35_681_169), utc.clone(), "2026-11-24T23:14:19.035681169Z"),
            (time(500_000_000), utc.clone(), "2026-11-24T23:14:19.5Z"),
            (time(0), utc, "2026-11-24T23:14:19Z"),
            (
                time(10),
                TimeZone::fixed(jiff::tz::offset(-5)),
                "2026-11-24T18:14:19.00000001-05:00",
            ),
            (time(0), kolkata, "2026-11-25T04:44:19+05:30"),
        ];
        for (time, zone, expected) in cases {
            assert_eq!(rfc3339(time, &zone), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line_without_control_characters(text in any::<String>()) {
            let line = line(&text);
            let body = line.strip_suffix('\n').expect("a line ends with a newline");
            prop_assert!(!body.chars().any(is_dangerous));
        }

        #[test]
        fn escaping_twice_changes_nothing(text in any::<String>()) {
            let once = escape(&text).to_string();
            prop_assert_eq!(escape(&once).to_string(), once);
        }
    }
}
