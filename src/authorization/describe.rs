//! Rules and claims in words, for the log: foreign text quoted, everything bounded.

use std::fmt::{self, Write};

use super::Rules;

/// How many entries of a list are shown.
const MOST_SHOWN: usize = 16;

/// How many characters of an entry are shown.
const LONGEST_SHOWN: usize = 128;

impl Rules {
    /// Who is admitted, in the order of comparison: `cn "a", dns "b.test"`. At most 16 rules; of
    /// the others their number.
    pub fn description(&self) -> String {
        let mut list = List::default();
        for pin in &self.pins {
            list.push(format_args!("spki-pin {pin}"));
        }
        if self.all {
            list.push(format_args!("all"));
        }
        for name in &self.common_names {
            list.push(format_args!("cn {}", Quoted(name)));
        }
        for unit in &self.organizational_units {
            list.push(format_args!("ou {}", Quoted(unit)));
        }
        for name in &self.dns_names {
            list.push(format_args!("dns {}", Quoted(name)));
        }
        for address in &self.ip_addresses {
            list.push(format_args!("ip {address}"));
        }
        for pattern in &self.uris {
            list.push(format_args!("uri {}", Quoted(pattern.text())));
        }
        list.finish()
    }
}

/// The names of one kind that a peer claims: `"a.test", "b.test"`. At most 16; of the others
/// their number.
pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut list = List::default();
    for name in names {
        list.push(format_args!("{}", Quoted(name)));
    }
    list.finish()
}

/// Text of unknown length, cut and quoted; what could deceive a reader is escaped.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(LONGEST_SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", self.0.get(..end).unwrap_or_default()),
        }
    }
}

/// Entries with commas between.
#[derive(Default)]
struct List {
    text: String,
    shown: usize,
    left_out: usize,
}

impl List {
    fn push(&mut self, entry: fmt::Arguments<'_>) {
        if self.shown >= MOST_SHOWN {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let comma = if self.shown == 0 { "" } else { ", " };
        // Writing to a string can't fail.
        let _infallible = write!(self.text, "{comma}{entry}");
        self.shown = self.shown.saturating_add(1);
    }

    fn finish(mut self) -> String {
        if self.left_out > 0 {
            let _infallible = write!(self.text, " and {} more", self.left_out);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::{SpkiPin, UriPattern};

    #[test]
    fn rules_are_told_in_the_order_of_comparison() {
        let list = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect();
        let rules = Rules {
            common_names: list(&["a", "b\n\""]),
            organizational_units: list(&["c"]),
            dns_names: list(&[""]),
            ip_addresses: vec![[127, 0, 0, 1].into()],
            uris: vec![UriPattern::parse("spiffe://td/**").expect("a pattern")],
            ..Rules::default()
        };
        assert_eq!(
            rules.description(),
            r#"cn "a", cn "b\n\"", ou "c", dns "", ip 127.0.0.1, uri "spiffe://td/**""#
        );
        assert_eq!(Rules::default().description(), "");
        let pins = vec![SpkiPin::of(b"")];
        assert_eq!(
            Rules { pins, ..rules }.description().split(", ").next(),
            Some("spki-pin sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
        );
    }

    #[test]
    fn what_a_peer_claims_is_cut_and_escaped() {
        assert_eq!(names([]), "");
        assert_eq!(names(["a", "\u{202e}b\x1b"]), r#""a", "\u{202e}b\u{1b}""#);
        let many: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let told = names(many.iter().map(String::as_str));
        assert!(told.ends_with(r#", "15" and 4 more"#), "{told}");
        let long = "ü".repeat(1000);
        assert_eq!(names([long.as_str()]), format!("\"{}\"...", "ü".repeat(128)));
    }
}
