//! One JSON object for each event, for machines: `{"time":…,"pid":…,"level":…,"class":…,
//! "message":…}` and what the event's fields tell.

use std::fmt::{self, Debug, Display, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::format::{CUT, is_dangerous, write_local_time};

/// The longest text of a value. A peer chooses some of them, so they need a bound.
const MAX_VALUE: usize = 4 * 1024;

/// Renders an event as one line.
pub(super) fn line(event: &Event<'_>, class: &str, pid: u32, now: Timestamp, zone: &TimeZone) -> String {
    let level = *event.metadata().level();
    let mut fields = Fields {
        message: String::new(),
        rest: String::new(),
    };
    event.record(&mut fields);
    assemble(
        level,
        class,
        fields.message.trim_end(),
        &fields.rest,
        pid,
        now,
        zone,
    )
}

/// Renders a message of the log itself.
pub(super) fn own_line(level: Level, message: &str, pid: u32, now: Timestamp, zone: &TimeZone) -> String {
    assemble(level, super::class::PROCESS, message, "", pid, now, zone)
}

fn assemble(
    level: Level,
    class: &str,
    message: &str,
    rest: &str,
    pid: u32,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let mut line = String::from("{\"time\":\"");
    write_local_time(&mut line, now, zone, &format!("{:06}", microseconds(now)));
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    // Writing to a string can't fail.
    let _infallible = write!(
        line,
        "\",\"pid\":{pid},\"level\":\"{level}\",\"class\":\"{class}\",\"message\":"
    );
    push_string(&mut line, message);
    line.push_str(rest);
    line.push_str("}\n");
    line
}

fn microseconds(time: Timestamp) -> u32 {
    time.subsec_nanosecond().unsigned_abs() / 1000
}

/// The message, and the other fields as they follow it in the line.
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn push_string(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push_name(field);
            push_string(&mut self.rest, value);
        }
    }

    fn push_number(&mut self, field: &Field, value: impl Display) {
        self.push_name(field);
        let _infallible = write!(self.rest, "{value}");
    }

    /// Names are identifiers of this program.
    fn push_name(&mut self, field: &Field) {
        let _infallible = write!(self.rest, ",\"{}\":", field.name());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push_string(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_string(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push_number(field, value);
        } else {
            self.push_string(field, &value.to_string());
        }
    }
}

/// Appends a JSON string (RFC 8259, section 7). Everything that could deceive the reader of
/// the raw line is escaped as well, so no line looks like two; what is too long is cut.
fn push_string(line: &mut String, text: &str) {
    line.push('"');
    let limit = line.len().saturating_add(MAX_VALUE);
    let mut units = [0; 2];
    for character in text.chars() {
        if line.len() > limit {
            line.push_str(CUT);
            break;
        }
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            character if is_dangerous(character) => {
                for unit in character.encode_utf16(&mut units) {
                    let _infallible = write!(line, "\\u{unit:04x}");
                }
            }
            character => line.push(character),
        }
    }
    line.push('"');
}

/// Shows an event's message for the layout that has no other fields.
pub(super) struct Message<'a, W>(pub(super) &'a mut W);

impl<W: Write> Visit for Message<'_, W> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // A line swallows what it has no room for; it never fails.
            let _: fmt::Result = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn parsed(message: &str, rest: &str) -> Value {
        let now = Timestamp::new(1_795_562_287, 300_120_999).expect("a valid time");
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let line = assemble(Level::WARN, "conns", message, rest, 7, now, &zone);
        let body = line.strip_suffix('\n').expect("a line ends with a newline");
        assert!(!body.chars().any(is_dangerous), "{body:?}");
        serde_json::from_str(body).expect("JSON")
    }

    #[test]
    fn the_keys_have_their_order_and_the_time_its_offset() {
        let now = Timestamp::new(1_795_562_287, 300_120_999).expect("a valid time");
        let line = own_line(Level::INFO, "a \"b\" \\ c", 7, now, &TimeZone::UTC);
        assert_eq!(
            line,
            "{\"time\":\"2026-11-24T23:18:07.300120Z\",\"pid\":7,\"level\":\"info\",\"class\":\"process\",\
             \"message\":\"a \\\"b\\\" \\\\ c\"}\n"
        );
        assert_eq!(
            parsed("x", ",\"n\":1")["time"],
            "2026-11-24T18:18:07.300120-05:00"
        );
    }

    #[test]
    fn a_long_text_is_cut_and_the_line_stays_whole() {
        for letter in ["x", "\n", "\u{e0041}", "ü"] {
            let message = letter.repeat(100_000);
            let value = parsed(&message, "");
            let text = value["message"].as_str().expect("a string");
            assert!(text.ends_with(CUT) && text.len() < 2 * MAX_VALUE, "{letter:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC*|[\\x00-\\x20\"\\\\\u{80}-\u{9f}\u{202e}\u{e0041}]{0,20}") {
            prop_assume!(text.len() < MAX_VALUE);
            let value = parsed(&text, "");
            prop_assert_eq!(value["message"].as_str(), Some(text.as_str()));
        }
    }
}
