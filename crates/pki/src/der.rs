//! Reading DER: definite, minimal lengths and single-byte tags only.
//!
//! Every function answers `None` for whatever is not strict DER; the caller knows what
//! it was looking for and names it in its error.

use std::fmt;
use std::ops::Range;

/// Tags that certificates use. Context tags are written where they are read.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const NUMERIC_STRING: u8 = 0x12;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const T61_STRING: u8 = 0x14;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const BMP_STRING: u8 = 0x1e;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A primitive context-specific tag, `[number]` in ASN.1.
    pub(crate) const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// A constructed context-specific tag.
    pub(crate) const fn constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// One element: its tag, its contents, and where it lies in the outermost input.
#[derive(Debug, Clone)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) contents: &'a [u8],
    /// Tag, length and contents, as a range of the outermost input.
    pub(crate) span: Range<usize>,
    contents_start: usize,
}

impl<'a> Element<'a> {
    /// Reads what is inside.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader {
            rest: self.contents,
            position: self.contents_start,
        }
    }
}

/// A cursor over DER that remembers its position in the outermost input.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            position: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn peeks(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        let (&tag, after_tag) = self.rest.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, header) = length(after_tag)?;
        let start = header.checked_add(1)?;
        let end = start.checked_add(length)?;
        let contents = self.rest.get(start..end)?;
        let element = Element {
            tag,
            contents,
            span: self.position..self.position.checked_add(end)?,
            contents_start: self.position.checked_add(start)?,
        };
        self.rest = self.rest.get(end..)?;
        self.position = element.span.end;
        Some(element)
    }

    /// The next element if it carries `tag`.
    pub(crate) fn element(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.peeks(tag) { self.any() } else { None }
    }

    /// The contents of the next element if it carries `tag`.
    pub(crate) fn contents(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.element(tag).map(|element| element.contents)
    }

    /// Descends into the next element if it carries `tag`.
    pub(crate) fn nested(&mut self, tag: u8) -> Option<Self> {
        self.element(tag).map(|element| element.reader())
    }

    /// An element that may be missing: `Some(None)` when something else comes next.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Option<Element<'a>>> {
        if self.peeks(tag) {
            self.any().map(Some)
        } else {
            Some(None)
        }
    }

    /// A minimally encoded INTEGER under any tag: two's complement, at least one byte.
    pub(crate) fn integer_tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        let bytes = self.contents(tag)?;
        match *bytes {
            [] => None,
            [0x00, second, ..] if second & 0x80 == 0 => None,
            [0xff, second, ..] if second & 0x80 != 0 => None,
            _ => Some(bytes),
        }
    }

    pub(crate) fn integer(&mut self) -> Option<&'a [u8]> {
        self.integer_tagged(tag::INTEGER)
    }

    /// An INTEGER that fits 64 bits, under any tag.
    pub(crate) fn small_integer_tagged(&mut self, tag: u8) -> Option<i64> {
        let bytes = self.integer_tagged(tag)?;
        if bytes.len() > 8 {
            return None;
        }
        let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
        Some(
            bytes
                .iter()
                .fold(sign, |value: i64, &byte| value << 8 | i64::from(byte)),
        )
    }

    pub(crate) fn boolean(&mut self) -> Option<bool> {
        match self.contents(tag::BOOLEAN)? {
            [0x00] => Some(false),
            [0xff] => Some(true),
            _ => None,
        }
    }

    /// A BIT STRING: number of unused bits (which must be zero) and bytes.
    pub(crate) fn bit_string(&mut self) -> Option<(u8, &'a [u8])> {
        let (&unused, bytes) = self.contents(tag::BIT_STRING)?.split_first()?;
        let unused_bits = match bytes.last() {
            None => return (unused == 0).then_some((0, bytes)),
            Some(last) => last & 1u8.checked_shl(unused.into())?.wrapping_sub(1),
        };
        (unused <= 7 && unused_bits == 0).then_some((unused, bytes))
    }

    /// A BIT STRING that holds whole bytes, as keys and signatures do.
    pub(crate) fn whole_bit_string(&mut self) -> Option<&'a [u8]> {
        self.bit_string()
            .and_then(|(unused, bytes)| (unused == 0).then_some(bytes))
    }

    /// An OBJECT IDENTIFIER whose arcs fit 31 bits.
    pub(crate) fn oid(&mut self) -> Option<Oid<'a>> {
        Oid::from_contents(self.contents(tag::OID)?)
    }
}

/// Length and the number of bytes it took: minimal, at most four bytes long.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((first.into(), 1));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return None;
    }
    let digits = rest.get(..count)?;
    let value = digits
        .iter()
        .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    if value < 0x80 || digits.first() == Some(&0) {
        return None;
    }
    Some((usize::try_from(value).ok()?, count.checked_add(1)?))
}

/// The contents of an OBJECT IDENTIFIER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Oid<'a>(pub(crate) &'a [u8]);

impl<'a> Oid<'a> {
    /// Checks that each arc is minimally encoded and fits 31 bits, the range that
    /// Ghostunnel 1.11.1 could hold.
    fn from_contents(bytes: &'a [u8]) -> Option<Self> {
        let mut arcs = 0usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = arc(rest)?.1;
            arcs = arcs.checked_add(1)?;
        }
        (arcs > 0).then_some(Self(bytes))
    }
}

/// The first arc of `bytes` and what follows it.
fn arc(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate() {
        if index == 0 && byte == 0x80 {
            return None;
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if value > u64::from(i32::MAX.unsigned_abs()) {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, bytes.get(index.checked_add(1)?..)?));
        }
    }
    None
}

/// The dotted notation.
impl fmt::Display for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, mut rest)) = arc(self.0) else {
            return Err(fmt::Error);
        };
        match first {
            0..40 => write!(f, "0.{first}")?,
            40..80 => write!(f, "1.{}", first.wrapping_sub(40))?,
            _ => write!(f, "2.{}", first.wrapping_sub(80))?,
        }
        while let Some((value, after)) = arc(rest) {
            write!(f, ".{value}")?;
            rest = after;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes one element, with a minimal length.
pub(crate) fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(length @ 0..0x80) => der.push(length),
        _ => {
            let length = contents.len().to_be_bytes();
            let digits = length.iter().skip_while(|&&digit| digit == 0);
            der.extend(u8::try_from(digits.clone().count()).map(|count| 0x80 | count));
            der.extend(digits);
        }
    }
    der.extend(contents);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minimal_definite_lengths_are_read() {
        let long = [&[0x04, 0x81, 0x80][..], &[0; 0x80]].concat();
        assert_eq!(Reader::new(&long).any().map(|e| e.contents.len()), Some(0x80));
        for wrong in [
            &[0x04][..],
            &[0x04, 0x80],
            &[0x04, 0x81, 0x01, 0x00],
            &[0x04, 0x82, 0x00, 0x80, 0x00],
            &[0x04, 0x02, 0x00],
            &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x04, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x1f, 0x01, 0x00],
        ] {
            assert!(Reader::new(wrong).any().is_none(), "{wrong:x?}");
        }
    }

    #[test]
    fn integers_are_minimal() {
        for (bytes, expected) in [
            (&[2, 1, 0][..], Some(0)),
            (&[2, 1, 0xff], Some(-1)),
            (&[2, 2, 0, 0x80], Some(128)),
            (&[2, 2, 0, 0x7f], None),
            (&[2, 2, 0xff, 0x80], None),
            (&[2, 0], None),
            (&[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0], None),
        ] {
            assert_eq!(
                Reader::new(bytes).small_integer_tagged(tag::INTEGER),
                expected,
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn unused_bits_must_be_zero_and_at_most_seven() {
        for (bytes, expected) in [
            (&[3, 2, 0, 0xff][..], Some((0, &[0xff][..]))),
            (&[3, 2, 5, 0xa0], Some((5, &[0xa0]))),
            (&[3, 1, 0], Some((0, &[]))),
            (&[3, 2, 5, 0xa1], None),
            (&[3, 2, 8, 0], None),
            (&[3, 1, 1], None),
            (&[3, 0], None),
        ] {
            assert_eq!(Reader::new(bytes).bit_string(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn object_identifiers_are_dotted_and_bounded() {
        for (bytes, expected) in [
            (&[6, 3, 0x55, 4, 3][..], Some("2.5.4.3")),
            (
                &[6, 6, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d],
                Some("1.2.840.113549"),
            ),
            (&[6, 2, 0x53, 4], Some("2.3.4")),
            (&[6, 2, 0x88, 0x37], Some("2.999")),
            (&[6, 0], None),
            (&[6, 2, 0x55, 0x80], None),
            (&[6, 3, 0x55, 0x80, 1], None),
            (&[6, 6, 0x55, 0x88, 0x80, 0x80, 0x80, 0], None),
        ] {
            let shown = Reader::new(bytes).oid().map(|oid| oid.to_string());
            assert_eq!(shown.as_deref(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn spans_point_into_the_outermost_input() {
        let input = [0x30, 5, 2, 1, 7, 5, 0];
        let mut inner = Reader::new(&input).nested(tag::SEQUENCE).expect("a sequence");
        assert_eq!(inner.any().map(|e| e.span), Some(2..5));
        assert_eq!(inner.any().map(|e| e.span), Some(5..7));
        assert!(inner.is_empty());
    }
}
