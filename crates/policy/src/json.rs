//! JSON (RFC 8259) to values of the engine, with numbers of any size kept exactly.
//!
//! The engine's own reader makes floating-point numbers of integers beyond 128 bits, so that
//! two serial numbers which differ in their last digits would be equal.

use std::collections::BTreeMap;

use regorus::Value;

/// Nesting beyond this is refused; every value is dropped recursively.
const DEPTH: usize = 128;

/// Longest number that is converted: the conversion takes quadratic time.
const LONGEST_NUMBER: usize = 8 * 1024;

/// Why a text is not JSON; `at` counts bytes from zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON: {what} at byte {at}")]
pub(crate) struct JsonError {
    what: &'static str,
    at: usize,
}

/// Reads one document with nothing but white space around it.
pub(crate) fn parse(text: &str) -> Result<Value, JsonError> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(DEPTH)?;
    reader.skip_space();
    match reader.rest() {
        "" => Ok(value),
        _ => Err(reader.error("something behind the document")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { what, at: self.at }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        let after = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - after.len();
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.rest().bytes().next()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| self.error("too deep nesting"))?;
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::from(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("true") => Ok(Value::from(true)),
            _ if self.take("false") => Ok(Value::from(false)),
            _ if self.take("null") => Ok(Value::Null),
            None => Err(self.error("unexpected end")),
            Some(_) => Err(self.error("unexpected character")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut members = BTreeMap::new();
        self.take("{");
        if self.peek() != Some(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.error("a member without a name"));
                }
                let name = Value::from(self.string()?);
                self.skip_space();
                if !self.take(":") {
                    return Err(self.error("no colon behind a name"));
                }
                // The last of several members of one name counts, as everywhere.
                members.insert(name, self.value(depth)?);
                self.skip_space();
                if !self.take(",") {
                    break;
                }
            }
        }
        self.skip_space();
        match self.take("}") {
            true => Ok(Value::from(members)),
            false => Err(self.error("an object without its end")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.take("[");
        if self.peek() != Some(b']') {
            loop {
                items.push(self.value(depth)?);
                self.skip_space();
                if !self.take(",") {
                    break;
                }
            }
        }
        self.skip_space();
        match self.take("]") {
            true => Ok(Value::from(items)),
            false => Err(self.error("an array without its end")),
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        let mut escaped = false;
        let length = self.rest().bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let end = start + length.ok_or_else(|| self.error("a string without its end"))? + 2;
        let literal = self.text.get(start..end).unwrap_or_default();
        let string = serde_json::from_str(literal).map_err(|_| self.error("an invalid string"))?;
        self.at = end;
        Ok(string)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let rest = self.rest();
        let in_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let length = rest
            .bytes()
            .position(|byte| !in_number(byte))
            .unwrap_or(rest.len());
        let literal = rest.get(..length).unwrap_or_default();
        if length > LONGEST_NUMBER || !is_number(literal) {
            return Err(self.error("an invalid number"));
        }
        let number = Value::from_numeric_string(literal).map_err(|_| self.error("a number out of range"))?;
        self.at += length;
        Ok(number)
    }
}

/// The grammar of section 6, with a bounded exponent.
fn is_number(literal: &str) -> bool {
    let unsigned = literal.strip_prefix('-').unwrap_or(literal);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            // Beyond that it is no number of double precision, and would be expanded in full.
            digits(exponent) && exponent.parse::<u16>().is_ok_and(|exponent| exponent <= 308)
        })
}

/// Writes a value without white space, members in order of their names, sets as arrays, and
/// characters that mean something in HTML escaped.
pub(crate) fn write(value: &Value) -> String {
    let mut text = String::new();
    write_into(&mut text, value);
    text
}

fn write_into(text: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Undefined => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        // A number in double precision has a shortest form, which the engine does not write.
        Value::Number(number) if !number.is_integer() => match value.as_f64() {
            Ok(number) => text.push_str(&serde_json::Value::from(number).to_string()),
            Err(_) => text.push_str("null"),
        },
        Value::Number(number) => text.push_str(&number.format_decimal()),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => write_items(text, items.iter()),
        Value::Set(items) => write_items(text, items.iter()),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            let mut separator = '{';
            for (name, value) in &members {
                text.push(separator);
                separator = ',';
                match name {
                    Value::String(name) => write_string(text, name),
                    name => write_string(text, &write(name)),
                }
                text.push(':');
                write_into(text, value);
            }
            text.push_str(if members.is_empty() { "{}" } else { "}" });
        }
    }
}

fn write_items<'a>(text: &mut String, items: impl Iterator<Item = &'a Value>) {
    let mut separator = '[';
    for item in items {
        text.push(separator);
        separator = ',';
        write_into(text, item);
    }
    text.push_str(if separator == '[' { "[]" } else { "]" });
}

fn write_string(text: &mut String, string: &str) {
    let quoted = serde_json::Value::from(string).to_string();
    for character in quoted.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_read_like_this() {
        for (text, expected) in [
            (" {} ", Some("{}")),
            ("[]", Some("[]")),
            (
                r#"{"a":[1,-2,true,false,null,"x\u00e9\n\"\\"]}"#,
                Some(r#"{"a":[1,-2,true,false,null,"xé\n\"\\"]}"#),
            ),
            (r#"{"a":1,"a":2}"#, Some(r#"{"a":2}"#)),
            ("[1 , 2\t,3\r\n]", Some("[1,2,3]")),
            ("1.5", Some("1.5")),
            ("", None),
            ("[1,]", None),
            ("{\"a\" 1}", None),
            ("{a:1}", None),
            ("{\"a\":1,}", None),
            ("01", None),
            ("1.", None),
            (".5", None),
            ("+1", None),
            ("--1", None),
            ("1e", None),
            ("NaN", None),
            ("1e999999999", None),
            ("\"\\ud800\"", None),
            ("\"a", None),
            ("\"a\nb\"", None),
            ("truex", None),
            ("[1] 2", None),
            ("'a'", None),
        ] {
            let expected = expected.map(|text| Value::from_json_str(text).expect("JSON"));
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn integers_of_any_size_are_exact() {
        let (a, b) = (
            "150135661632217432360885768414286488588387884901",
            "150135661632217432360885768414286488588387884902",
        );
        assert_ne!(parse(a), parse(b));
        assert_eq!(parse(a), Ok(Value::from_numeric_string(a).expect("a number")));
    }

    #[test]
    fn values_are_written_like_this() {
        for text in [
            r#"{"a":[1,-2.5,true,null,"x\"\\"],"b":{}}"#,
            "[[],{}]",
            "150135661632217432360885768414286488588387884901",
            "-150135661632217432360885768414286488588387884901",
            "\"\\u003ca\\u0026\"",
            "\"\\n\"",
            "1e+100",
        ] {
            let written = write(&parse(text).expect("JSON"));
            assert_eq!(parse(&written), parse(text), "{text}: {written}");
        }
        assert_eq!(
            write(&parse(" [ 1.0, 0.1 ,\"<\" ]").expect("JSON")),
            "[1,0.1,\"\\u003c\"]"
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH)).is_ok());
        assert!(parse(&nested(DEPTH + 1)).is_err());
        assert!(parse(&nested(1_000_000)).is_err());
    }

    proptest! {
        // Without exponents, which are bounded here.
        #[test]
        fn it_agrees_with_another_reader(text in r#"[\[\]{}:,"\\ a1.\-tru0fnl]{0,24}"#) {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(parse(&text).is_ok(), other.is_ok(), "{}", text);
        }
    }
}
