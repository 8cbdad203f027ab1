//! The format of profiles that `pprof` reads: a protocol buffer, compressed
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>).
//!
//! It is short enough to be written by hand, and never read here.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What was measured. Each sample has a value of each kind.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

/// A place in the program. Where a function was inlined, several lines belong to one address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Line {
    pub(super) function: String,
    pub(super) file: String,
    /// Zero stands for none.
    pub(super) line: u32,
}

/// How often, or how much of it, was seen where.
pub(super) struct Sample {
    /// Innermost first.
    pub(super) stack: Vec<Vec<Line>>,
    pub(super) values: Vec<i64>,
    /// Name of the thread, if it is told apart.
    pub(super) thread: Option<String>,
}

/// When, and how often it was looked.
pub(super) struct Timing {
    pub(super) start: SystemTime,
    pub(super) duration: Duration,
    pub(super) period: Duration,
}

/// Writes a profile.
pub(super) fn encode(kinds: &[Kind], samples: &[Sample], timing: Option<&Timing>) -> Vec<u8> {
    let mut profile = Profile::default();
    profile.strings.index("");
    for kind in kinds {
        let value_type = profile.value_type(kind);
        profile.out.message(1, &value_type);
    }
    for sample in samples {
        let sample = profile.sample(sample);
        profile.out.message(2, &sample);
    }
    if let Some(timing) = timing {
        profile.timing(timing, kinds.last());
    }
    let mut out = profile.out;
    for text in &profile.strings.all {
        out.bytes(6, text.as_bytes());
    }
    out.0
}

/// Compresses it, as profiles always are.
pub(super) fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[derive(Default)]
struct Profile {
    out: Message,
    strings: Strings,
    functions: HashMap<(u64, u64), u64>,
    locations: HashMap<Vec<Line>, u64>,
}

impl Profile {
    fn value_type(&mut self, kind: &Kind) -> Message {
        let mut message = Message::default();
        message.number(1, self.strings.index(kind.name));
        message.number(2, self.strings.index(kind.unit));
        message
    }

    fn sample(&mut self, sample: &Sample) -> Message {
        let mut message = Message::default();
        for lines in &sample.stack {
            let location = self.location(lines);
            message.number(1, location);
        }
        for value in &sample.values {
            message.number(2, value.cast_unsigned());
        }
        if let Some(thread) = &sample.thread {
            let mut label = Message::default();
            label.number(1, self.strings.index("thread"));
            label.number(2, self.strings.index(thread));
            message.message(3, &label);
        }
        message
    }

    fn location(&mut self, lines: &[Line]) -> u64 {
        if let Some(known) = self.locations.get(lines) {
            return *known;
        }
        let id = next(self.locations.len());
        let mut message = Message::default();
        message.number(1, id);
        for line in lines {
            let mut place = Message::default();
            let function = self.function(line);
            place.number(1, function);
            place.number(2, line.line.into());
            message.message(4, &place);
        }
        self.out.message(4, &message);
        self.locations.insert(lines.to_vec(), id);
        id
    }

    fn function(&mut self, line: &Line) -> u64 {
        let (name, file) = (self.strings.index(&line.function), self.strings.index(&line.file));
        if let Some(known) = self.functions.get(&(name, file)) {
            return *known;
        }
        let id = next(self.functions.len());
        let mut message = Message::default();
        message.number(1, id);
        message.number(2, name);
        message.number(3, name);
        message.number(4, file);
        self.out.message(5, &message);
        self.functions.insert((name, file), id);
        id
    }

    fn timing(&mut self, timing: &Timing, period_of: Option<&Kind>) {
        let start = timing.start.duration_since(SystemTime::UNIX_EPOCH);
        self.out.number(9, nanoseconds(start.unwrap_or_default()));
        self.out.number(10, nanoseconds(timing.duration));
        if let Some(kind) = period_of {
            let value_type = self.value_type(kind);
            self.out.message(11, &value_type);
            self.out.number(12, nanoseconds(timing.period));
        }
    }
}

/// Numbers begin with one: zero stands for none.
fn next(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Texts stand in one table and are named by their places in it.
#[derive(Default)]
struct Strings {
    all: Vec<String>,
    places: HashMap<String, u64>,
}

impl Strings {
    fn index(&mut self, text: &str) -> u64 {
        if let Some(known) = self.places.get(text) {
            return *known;
        }
        let place = u64::try_from(self.all.len()).unwrap_or(u64::MAX);
        self.all.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

/// A protocol buffer that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A number; nothing for zero, which is what is read there then.
    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str) -> Line {
        Line {
            function: function.to_owned(),
            file: String::new(),
            line: 300,
        }
    }

    #[test]
    fn a_profile_has_the_fields_of_the_format() {
        let kinds = [Kind { name: "n", unit: "u" }];
        let sample = |value| Sample {
            stack: vec![vec![line("in"), line("f")], vec![line("f")]],
            values: vec![value],
            thread: Some("t".to_owned()),
        };
        let bytes = encode(&kinds, &[sample(1), sample(-1)], None);
        let sample = |value: &[u8]| {
            let values = [b"\x08\x01\x08\x02\x10", value, b"\x1a\x04\x08\x05\x10\x06"].concat();
            [
                &[0x12, u8::try_from(values.len()).expect("short")],
                values.as_slice(),
            ]
            .concat()
        };
        let expected = [
            b"\x0a\x04\x08\x01\x10\x02".as_slice(),
            // Functions and locations come before what names them: the order is free.
            b"\x2a\x06\x08\x01\x10\x03\x18\x03",
            b"\x2a\x06\x08\x02\x10\x04\x18\x04",
            b"\x22\x10\x08\x01\x22\x05\x08\x01\x10\xac\x02\x22\x05\x08\x02\x10\xac\x02",
            b"\x22\x09\x08\x02\x22\x05\x08\x02\x10\xac\x02",
            &sample(b"\x01"),
            &sample(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            b"\x32\x00\x32\x01n\x32\x01u\x32\x02in\x32\x01f\x32\x06thread\x32\x01t",
        ]
        .concat();
        assert_eq!(bytes, expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn what_is_compressed_is_what_gzip_reads() {
        let packed = compress(b"profile").expect("memory");
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut text)
            .expect("gzip");
        assert_eq!(text, "profile");
    }
}
