//! Wildcard patterns for URI alternative names.
//!
//! A pattern is a list of segments between slashes. `*` stands for one or more characters
//! other than a slash and is always a whole segment; `**` is always the last one and
//! stands for anything. All other characters stand for themselves, and nothing is
//! normalised: scheme and host are segments like any other.

/// A validated pattern, built only by [`UriPattern::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPattern {
    text: String,
    /// What comes before a final `**`, or everything.
    segments: Vec<Segment>,
    ends_in_anything: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Wildcard,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriPatternError {
    /// The pattern was empty.
    #[error("input pattern was empty string")]
    Empty,
    /// A `*` inside a longer segment.
    #[error("wildcard '*' can only appear between two separators")]
    PartialWildcard,
    /// A `**` before the last segment.
    #[error("wildcard '**' can only appear at end of pattern")]
    AnythingBeforeEnd,
}

impl UriPattern {
    /// Parses a pattern. One slash at its end has no meaning.
    pub fn parse(text: &str) -> Result<Self, UriPatternError> {
        if text.is_empty() {
            return Err(UriPatternError::Empty);
        }
        let pattern = text
            .strip_suffix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(text);
        let mut segments = Vec::new();
        let mut ends_in_anything = false;
        for segment in pattern.split('/') {
            if ends_in_anything {
                return Err(UriPatternError::AnythingBeforeEnd);
            }
            match segment {
                "*" => segments.push(Segment::Wildcard),
                "**" => ends_in_anything = true,
                _ if segment.contains('*') => return Err(UriPatternError::PartialWildcard),
                _ => segments.push(Segment::Literal(segment.to_owned())),
            }
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
            ends_in_anything,
        })
    }

    /// Whether the pattern covers `uri`, all of it. One slash at the end of `uri` is ignored.
    pub fn matches(&self, uri: &str) -> bool {
        self.covers(uri, |literal, part| literal == part)
    }

    /// As [`Self::matches`], but letters are equal in any case.
    pub fn matches_in_any_case(&self, uri: &str) -> bool {
        self.covers(uri, str::eq_ignore_ascii_case)
    }

    fn covers(&self, uri: &str, is_equal: fn(&str, &str) -> bool) -> bool {
        if self.segments.is_empty() {
            return true;
        }
        let mut rest = uri.split('/');
        for segment in &self.segments {
            if !rest.next().is_some_and(|part| segment.matches(part, is_equal)) {
                return false;
            }
        }
        self.ends_in_anything || matches!((rest.next(), rest.next()), (None, _) | (Some(""), None))
    }

    /// The pattern as typed.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Segment {
    fn matches(&self, part: &str, is_equal: fn(&str, &str) -> bool) -> bool {
        match self {
            Self::Literal(text) => is_equal(text, part),
            Self::Wildcard => !part.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, input: &str) -> bool {
        UriPattern::parse(pattern)
            .expect("a valid pattern")
            .matches(input)
    }

    const INPUTS: [&str; 20] = [
        "spiffe://td",
        "spiffe://td/",
        "spiffe://td//",
        "spiffe://td/a",
        "spiffe://td/a/",
        "spiffe://td/a//",
        "spiffe://td/a/b",
        "spiffe://td/a%2Fb",
        "spiffe://td/a?b/c",
        "spiffe://td/a#f/g",
        "spiffe://Td/a%20b",
        "urn:x",
        "a/b",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///x",
        "",
        "/",
        "//",
    ];

    /// For each pattern, the inputs above that it matches; all others it must not match.
    #[test]
    fn patterns_match_exactly_these_inputs() {
        let below_td: &[&str] = &INPUTS[..10];
        let with_authority: &[&str] = &[&INPUTS[..11], &["spiffe:/", "spiffe://", "spiffe:///x"]].concat();
        let spiffe: &[&str] = &[with_authority, &["spiffe:"]].concat();
        let cases: &[(&str, &[&str])] = &[
            ("spiffe://td/a", &["spiffe://td/a", "spiffe://td/a/"]),
            ("spiffe://td/a/", &["spiffe://td/a", "spiffe://td/a/"]),
            ("spiffe://td/a//", &["spiffe://td/a/", "spiffe://td/a//"]),
            (
                "spiffe://td/*",
                &["spiffe://td/a", "spiffe://td/a/", "spiffe://td/a%2Fb"],
            ),
            (
                "spiffe://td/*/",
                &["spiffe://td/a", "spiffe://td/a/", "spiffe://td/a%2Fb"],
            ),
            ("spiffe://td/**", below_td),
            ("spiffe://td/**/", below_td),
            ("spiffe://*", &["spiffe://td", "spiffe://td/"]),
            (
                "spiffe://*/*",
                &[
                    "spiffe://td/a",
                    "spiffe://td/a/",
                    "spiffe://td/a%2Fb",
                    "spiffe://Td/a%20b",
                ],
            ),
            ("spiffe://**", with_authority),
            ("spiffe:/**", spiffe),
            ("*", &["urn:x", "spiffe:", "spiffe:/"]),
            ("*/*", &["a/b"]),
            ("/", &["/", "//"]),
            ("//", &["/", "//"]),
            ("**", &INPUTS),
            ("**/", &INPUTS),
        ];
        for (pattern, expected) in cases {
            for input in INPUTS {
                assert_eq!(
                    matches(pattern, input),
                    expected.contains(&input),
                    "{pattern} on {input}"
                );
            }
        }
    }

    #[test]
    fn patterns_match_or_not_as_documented() {
        for (pattern, good, bad) in [
            (
                "spiffe://td/*",
                &["spiffe://td/a?x=1"][..],
                &["spiffe://td/a?b/c"][..],
            ),
            (
                "spiffe://td/**",
                &["spiffe://td/a/b/c"],
                &["spiffe://tdx", "spiffe://Td/a"],
            ),
            ("spiffe:/**", &["spiffe:/x"], &["spiffex:/"]),
            (
                "spiffe://foo/*/bar/**",
                &[
                    "spiffe://foo/baz/bar",
                    "spiffe://foo/baz/bar/",
                    "spiffe://foo/baz/bar/x/y",
                ],
                &["spiffe://foo//bar", "spiffe://foo/bar", "spiffe://foo/baz/barf"],
            ),
            (
                "spiffe://*/client",
                &["spiffe://td.test/client", "spiffe://other.test/client"],
                &["spiffe://td.test/a/client"],
            ),
            ("*", &["a", "a/"], &["a/b", "x://y"]),
            ("*/*", &["a/b/"], &["a", "a//"]),
            ("a/*/**", &["a/b", "a/b/", "a/b/c/d"], &["a", "a/"]),
            ("/", &[], &["a"]),
            (".+", &[".+", ".+/"], &["abc"]),
            ("SPIFFE://**", &[], &["spiffe://td"]),
        ] {
            assert!(good.iter().all(|input| matches(pattern, input)), "{pattern}");
            assert!(!bad.iter().any(|input| matches(pattern, input)), "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_for_their_first_bad_segment() {
        use UriPatternError::{AnythingBeforeEnd, Empty, PartialWildcard};
        for (pattern, expected) in [
            ("", Empty),
            ("a*", PartialWildcard),
            ("*a", PartialWildcard),
            ("spiffe:**", PartialWildcard),
            ("**:", PartialWildcard),
            ("**x", PartialWildcard),
            ("x**", PartialWildcard),
            ("***", PartialWildcard),
            ("x/***", PartialWildcard),
            ("test://foo*/asdf", PartialWildcard),
            ("**/x", AnythingBeforeEnd),
            ("**//x", AnythingBeforeEnd),
            ("**/**", AnythingBeforeEnd),
            ("a/**//", AnythingBeforeEnd),
            ("test://**/asdf", AnythingBeforeEnd),
            ("a/**/**", AnythingBeforeEnd),
            ("a*/**/x", PartialWildcard),
        ] {
            assert_eq!(UriPattern::parse(pattern), Err(expected), "{pattern}");
        }
        assert_eq!(Empty.to_string(), "input pattern was empty string");
        assert_eq!(
            PartialWildcard.to_string(),
            "wildcard '*' can only appear between two separators"
        );
        assert_eq!(
            AnythingBeforeEnd.to_string(),
            "wildcard '**' can only appear at end of pattern"
        );
    }

    /// An independent matcher, character by character with backtracking.
    fn reference(pattern: &str, input: &str) -> bool {
        fn walk(pattern: &[u8], input: &[u8]) -> bool {
            match pattern {
                [] => matches!(input, [] | [b'/']),
                b"/**" => matches!(input, [] | [b'/', ..]),
                [b'*', after @ ..] => (1..=input.len())
                    .any(|taken| !input[..taken].contains(&b'/') && walk(after, &input[taken..])),
                [first, after @ ..] => input.first() == Some(first) && walk(after, &input[1..]),
            }
        }
        let pattern = if pattern.len() > 1 {
            pattern.strip_suffix('/').unwrap_or(pattern)
        } else {
            pattern
        };
        pattern == "**" || walk(pattern.as_bytes(), input.as_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn a_reference_matcher_agrees(
            parts in prop::collection::vec("[ab]{0,2}|\\*", 0..4),
            tail in "|/|/\\*\\*|/\\*\\*/|\\*\\*",
            input in "[ab/]{0,8}",
        ) {
            let pattern = parts.join("/") + &tail;
            if let Ok(parsed) = UriPattern::parse(&pattern) {
                prop_assert_eq!(parsed.matches(&input), reference(&pattern, &input), "{} on {}", pattern, input);
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(pattern in "\\PC{0,20}", input in "\\PC{0,20}") {
            if let Ok(parsed) = UriPattern::parse(&pattern) {
                prop_assert_eq!(parsed.text(), &pattern);
                prop_assert_eq!(parsed.matches(&input), reference(&pattern, &input));
            }
        }
    }
}
