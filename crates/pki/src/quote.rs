//! Quoting of foreign text in messages, as Ghostunnel 1.11.1 printed it.

use std::fmt::{self, Write};

/// Displays text in double quotes with control characters escaped.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            write_escaped(f, character)?;
        }
        f.write_char('"')
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '"' | '\\' => write!(f, "\\{character}"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        ' '..='~' => f.write_char(character),
        '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(character)),
        // `escape_debug` knows which characters can be seen; it leaves those alone.
        _ if character.escape_debug().count() == 1 => f.write_char(character),
        _ if u32::from(character) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(character)),
        _ => write!(f, "\\U{:08x}", u32::from(character)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_reach_the_log() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\t\x1b\x7f", r#""\n\t\x1b\x7f""#),
            ("größe", r#""größe""#),
            ("a\u{202e}b\u{e0001}", r#""a\u202eb\U000e0001""#),
        ] {
            assert_eq!(Quoted(text).to_string(), expected);
        }
    }
}
