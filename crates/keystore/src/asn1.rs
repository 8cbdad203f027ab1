//! A reader for the ASN.1 of keystores.
//!
//! PKCS#12 and PKCS#7 files are written in BER as well as in DER: NSS and old versions of
//! Windows use indefinite lengths and strings in pieces (X.690, sections 8.1.3.6 and
//! 8.7.3). Both are read. Nothing of a certificate is read here but where it ends.
//!
//! Every function answers `None` for what is not there; callers know what they looked for.

use std::borrow::Cow;
use std::fmt::Write;

use zeroize::Zeroizing;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(crate) const CONTEXT_0: u8 = 0xa0;

const CONSTRUCTED: u8 = 0x20;

/// How deep indefinite lengths and strings in pieces may be nested. Real files have fewer
/// than ten around anything that is looked into, and each level may be scanned once more.
const DEPTH: usize = 16;

/// One element: its tag, its contents, and all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) contents: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads what is inside.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader::new(self.contents)
    }

    /// The octets of a string, put together if it is in pieces. The tag may be one that
    /// stands in place of the usual one.
    pub(crate) fn octets(&self) -> Option<Octets<'a>> {
        if self.tag & CONSTRUCTED == 0 {
            return Some(Octets(Cow::Borrowed(self.contents)));
        }
        // All at once, so that the buffer leaves no copy behind while it grows.
        let mut octets = Vec::with_capacity(self.contents.len());
        match append_pieces(self.contents, &mut octets, DEPTH) {
            Some(()) => Some(Octets(Cow::Owned(octets))),
            None => {
                drop(Zeroizing::new(octets));
                None
            }
        }
    }
}

/// The octets of a string. They may hold a key, so a copy is wiped on drop.
#[derive(Debug)]
pub(crate) struct Octets<'a>(Cow<'a, [u8]>);

impl std::ops::Deref for Octets<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Octets<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(octets) = &mut self.0 {
            drop(Zeroizing::new(std::mem::take(octets)));
        }
    }
}

fn append_pieces(contents: &[u8], octets: &mut Vec<u8>, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    let mut pieces = Reader::new(contents);
    while !pieces.is_empty() {
        let piece = pieces.any()?;
        match piece.tag {
            OCTET_STRING => octets.extend_from_slice(piece.contents),
            tag if tag == OCTET_STRING | CONSTRUCTED => append_pieces(piece.contents, octets, depth)?,
            _ => return None,
        }
    }
    Some(())
}

/// Why there is no element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No bytes are left.
    End,
    /// The element reaches beyond the bytes that are left.
    Truncated,
    /// The bytes encode no element, or one that no keystore has.
    Malformed,
}

/// A cursor over elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn peeks(&self, tag: u8) -> bool {
        self.rest.first() == Some(&tag)
    }

    /// The next element, or why there is none.
    pub(crate) fn next(&mut self) -> Result<Element<'a>, Missing> {
        let (element, rest) = split(self.rest, DEPTH)?;
        self.rest = rest;
        Ok(element)
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        self.next().ok()
    }

    /// The next element if it carries `tag`.
    pub(crate) fn element(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.peeks(tag) { self.any() } else { None }
    }

    /// Descends into the next element if it carries `tag`.
    pub(crate) fn nested(&mut self, tag: u8) -> Option<Self> {
        self.element(tag).map(|element| element.reader())
    }

    /// The contents of an object identifier.
    pub(crate) fn oid(&mut self) -> Option<&'a [u8]> {
        self.element(OID).map(|element| element.contents)
    }

    /// A number that is not negative and fits.
    pub(crate) fn unsigned(&mut self) -> Option<u64> {
        let contents = self.element(INTEGER)?.contents;
        let digits = match contents {
            [] | [0x80..=0xff, ..] => return None,
            [0, rest @ ..] => rest,
            digits => digits,
        };
        (digits.len() <= size_of::<u64>()).then(|| {
            digits
                .iter()
                .fold(0, |number, digit| number << 8 | u64::from(*digit))
        })
    }

    /// The octets of the next element, if it is an OCTET STRING.
    pub(crate) fn octets(&mut self) -> Option<Octets<'a>> {
        let element = match self.rest.first()? & !CONSTRUCTED {
            OCTET_STRING => self.any()?,
            _ => return None,
        };
        element.octets()
    }
}

/// Splits off the first element.
fn split(bytes: &[u8], depth: usize) -> Result<(Element<'_>, &[u8]), Missing> {
    let depth = depth.checked_sub(1).ok_or(Missing::Malformed)?;
    let (&tag, after_tag) = bytes.split_first().ok_or(Missing::End)?;
    // Tags of several bytes stand for numbers beyond 30; no keystore has one.
    if tag & 0x1f == 0x1f {
        return Err(Missing::Malformed);
    }
    let (&first, after_first) = after_tag.split_first().ok_or(Missing::Truncated)?;
    let (length, body) = match first {
        0x80 => return split_indefinite(bytes, tag, after_first, depth),
        0xff => return Err(Missing::Malformed),
        short if short < 0x80 => (usize::from(short), after_first),
        long => {
            let count = usize::from(long & 0x7f);
            let digits = after_first.get(..count).ok_or(Missing::Truncated)?;
            let body = after_first.get(count..).ok_or(Missing::Truncated)?;
            (length(digits).ok_or(Missing::Malformed)?, body)
        }
    };
    let contents = body.get(..length).ok_or(Missing::Truncated)?;
    let rest = body.get(length..).ok_or(Missing::Truncated)?;
    let whole = before(bytes, rest);
    Ok((Element { tag, contents, whole }, rest))
}

/// A length in several bytes. Nobody reads files for which four do not suffice.
fn length(digits: &[u8]) -> Option<usize> {
    let significant = digits.iter().position(|digit| *digit != 0)?;
    let digits = digits.get(significant..)?;
    (digits.len() <= 4).then(|| {
        digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit))
    })
}

/// Contents that end where two zero bytes stand in place of an element.
fn split_indefinite<'a>(
    bytes: &'a [u8],
    tag: u8,
    body: &'a [u8],
    depth: usize,
) -> Result<(Element<'a>, &'a [u8]), Missing> {
    if tag & CONSTRUCTED == 0 {
        return Err(Missing::Malformed);
    }
    let mut rest = body;
    loop {
        if let [0, 0, after @ ..] = rest {
            let contents = before(body, rest);
            let whole = before(bytes, after);
            return Ok((Element { tag, contents, whole }, after));
        }
        (_, rest) = split(rest, depth).map_err(|missing| match missing {
            // Its own end is missing.
            Missing::End => Missing::Truncated,
            missing => missing,
        })?;
    }
}

/// What stands before `rest`, which is the end of `bytes`.
fn before<'a>(bytes: &'a [u8], rest: &[u8]) -> &'a [u8] {
    bytes
        .get(..bytes.len().saturating_sub(rest.len()))
        .unwrap_or_default()
}

/// An object identifier as people write it, `1.2.840.113549.1.12.1.3` (X.690, section 8.19).
pub(crate) fn dotted(oid: &[u8]) -> String {
    /// Longer ones than any in use; whatever follows is not shown.
    const LONGEST: usize = 32;
    let mut text = String::new();
    let mut number = 0_u64;
    let mut is_first = true;
    for byte in oid.iter().take(LONGEST) {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            // The first two numbers share an encoding: 40 times the first plus the second.
            let first = (number / 40).min(2);
            let _ = write!(text, "{first}.{}", number - first * 40);
            is_first = false;
        } else {
            let _ = write!(text, ".{number}");
        }
        number = 0;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(bytes: &[u8]) -> Result<(u8, &[u8], usize), Missing> {
        let element = Reader::new(bytes).next()?;
        Ok((element.tag, element.contents, element.whole.len()))
    }

    #[test]
    fn lengths_of_all_forms_are_read() {
        for (bytes, expected) in [
            (&[0x04, 1, 7, 9][..], Ok((4, &[7][..], 3))),
            (&[0x04, 0x81, 1, 7, 9], Ok((4, &[7], 4))),
            (&[0x04, 0x85, 0, 0, 0, 0, 1, 7], Ok((4, &[7], 8))),
            (&[0x30, 0x80, 0x04, 1, 7, 0, 0, 9], Ok((0x30, &[4, 1, 7], 7))),
            (
                &[0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0],
                Ok((0x30, &[0x30, 0x80, 0, 0], 8)),
            ),
            (&[], Err(Missing::End)),
            (&[0x04], Err(Missing::Truncated)),
            (&[0x04, 2, 7], Err(Missing::Truncated)),
            (&[0x04, 0x82, 1], Err(Missing::Truncated)),
            (&[0x30, 0x80, 0x04, 1, 7], Err(Missing::Truncated)),
            (&[0x30, 0x80, 0x04, 1, 7, 0], Err(Missing::Truncated)),
            // A string can't be of indefinite length unless it is in pieces.
            (&[0x04, 0x80, 0, 0], Err(Missing::Malformed)),
            (&[0x04, 0xff], Err(Missing::Malformed)),
            (&[0x04, 0x85, 1, 0, 0, 0, 0], Err(Missing::Malformed)),
            (&[0x1f, 0x01, 0], Err(Missing::Malformed)),
        ] {
            assert_eq!(first(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| [[0x30, 0x80].repeat(depth), [0, 0].repeat(depth)].concat();
        assert!(first(&nested(DEPTH)).is_ok());
        assert_eq!(first(&nested(DEPTH + 1)), Err(Missing::Malformed));
        assert_eq!(first(&[0x30, 0x80].repeat(1 << 20)), Err(Missing::Malformed));
    }

    #[test]
    fn strings_in_pieces_are_put_together() {
        for (bytes, expected) in [
            (&[0x04, 2, 1, 2][..], Some(&[1, 2][..])),
            (&[0x24, 6, 0x04, 1, 1, 0x04, 1, 2], Some(&[1, 2])),
            (
                &[0x24, 0x80, 0x04, 1, 1, 0x24, 3, 0x04, 1, 2, 0, 0],
                Some(&[1, 2]),
            ),
            (&[0x24, 0], Some(&[])),
            (&[0x24, 3, 0x02, 1, 1], None),
            (&[0x02, 1, 1], None),
        ] {
            let octets = Reader::new(bytes).octets();
            assert_eq!(octets.as_deref(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_are_read_if_they_fit_and_are_not_negative() {
        for (bytes, expected) in [
            (&[2, 1, 0][..], Some(0)),
            (&[2, 1, 0x7f], Some(127)),
            (&[2, 2, 0, 0x80], Some(128)),
            (&[2, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255], Some(u64::MAX)),
            (&[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0], None),
            (&[2, 1, 0x80], None),
            (&[2, 0], None),
            (&[4, 1, 1], None),
        ] {
            assert_eq!(Reader::new(bytes).unsigned(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn object_identifiers_are_shown_as_people_write_them() {
        for (bytes, expected) in [
            (
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 3][..],
                "1.2.840.113549.1.12.1.3",
            ),
            (&[0x2b, 0x65, 0x70], "1.3.101.112"),
            (&[0x88, 0x37], "2.999"),
            (&[], ""),
            (&[0x80], ""),
        ] {
            assert_eq!(dotted(bytes), expected);
        }
        assert!(dotted(&[0xff; 1 << 20]).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while let Some(element) = reader.any() {
                prop_assert!(element.contents.len() < element.whole.len());
                let _ = element.octets();
                let _ = element.reader().unsigned();
            }
            let _ = dotted(&bytes);
        }
    }
}
