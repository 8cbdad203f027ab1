//! The one message that the agent sends, in the encoding of protocol buffers.
//!
//! Of `X509SVIDResponse` and what is in it only the fields below are read; others are skipped,
//! as the encoding wants it. Nothing is copied but text: the key stays where it was received,
//! in memory that is wiped.

/// More SVIDs or trust domains than any workload has: an answer can't make the process hold
/// many times its own size.
const MOST_ENTRIES: usize = 4096;

/// An answer, taken apart. Nobody has looked into the certificates yet.
#[derive(Debug, Default)]
pub(super) struct Response<'a> {
    pub(super) svids: Vec<Svid<'a>>,
    /// Trust domains, as written, and their certificates in a row.
    pub(super) federated: Vec<(&'a str, &'a [u8])>,
}

/// One identity of the workload.
#[derive(Default)]
pub(super) struct Svid<'a> {
    pub(super) spiffe_id: &'a str,
    /// The chain, leaf first, in a row.
    pub(super) chain: &'a [u8],
    /// PKCS#8.
    pub(super) key: &'a [u8],
    /// The authorities of its own trust domain, in a row.
    pub(super) bundle: &'a [u8],
    pub(super) hint: &'a str,
}

impl std::fmt::Debug for Svid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid")
            .field("spiffe_id", &self.spiffe_id)
            .finish_non_exhaustive()
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends in the middle of a field.
    #[error("message is truncated")]
    Truncated,
    /// A number with more than 64 bits, a field without a number, or a kind of field that is
    /// not in use any more.
    #[error("message has a malformed field")]
    Malformed,
    /// A field that is known, with contents of another kind.
    #[error("field {0} is of the wrong kind")]
    Kind(u64),
    /// A text that is not UTF-8.
    #[error("field {0} is not UTF-8")]
    Text(u64),
    /// More than [`MOST_ENTRIES`] of something.
    #[error("message has too many entries")]
    TooMany,
}

impl<'a> Response<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut response = Self::default();
        for field in Fields(bytes) {
            let field = field?;
            match field.number {
                1 => push(&mut response.svids, Svid::decode(field.bytes()?)?)?,
                3 => push(&mut response.federated, map_entry(field.bytes()?)?)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

impl<'a> Svid<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut svid = Self::default();
        for field in Fields(bytes) {
            let field = field?;
            match field.number {
                1 => svid.spiffe_id = field.text()?,
                2 => svid.chain = field.bytes()?,
                3 => svid.key = field.bytes()?,
                4 => svid.bundle = field.bytes()?,
                5 => svid.hint = field.text()?,
                _ => {}
            }
        }
        Ok(svid)
    }
}

fn map_entry(bytes: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let mut entry = ("", &[][..]);
    for field in Fields(bytes) {
        let field = field?;
        match field.number {
            1 => entry.0 = field.text()?,
            2 => entry.1 = field.bytes()?,
            _ => {}
        }
    }
    Ok(entry)
}

fn push<T>(list: &mut Vec<T>, entry: T) -> Result<(), WireError> {
    if list.len() >= MOST_ENTRIES {
        return Err(WireError::TooMany);
    }
    list.push(entry);
    Ok(())
}

/// The fields of a message in their order. Ends after the first error.
struct Fields<'a>(&'a [u8]);

struct Field<'a> {
    number: u64,
    /// `None` for numbers, none of which are of interest.
    contents: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    fn bytes(&self) -> Result<&'a [u8], WireError> {
        self.contents.ok_or(WireError::Kind(self.number))
    }

    fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Text(self.number))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(WireError::Malformed);
        }
        let contents = match tag & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return Err(WireError::Malformed),
        };
        Ok(Field { number, contents })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            let digits = u64::from(byte & 0x7f);
            // Of the tenth byte only one bit has room.
            if shift == 63 && digits > 1 {
                return Err(WireError::Malformed);
            }
            number |= digits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).expect("seven bits"));
        bytes
    }

    fn field(number: u64, contents: &[u8]) -> Vec<u8> {
        let length = u64::try_from(contents.len()).expect("a length");
        [varint(number << 3 | 2), varint(length), contents.to_vec()].concat()
    }

    #[test]
    fn fields_are_found_in_any_order_and_unknown_ones_skipped() {
        let svid = [
            field(5, b"hint"),
            field(1, b"spiffe://a"),
            field(99, b"?"),
            field(2, b"chain"),
            field(3, b"key"),
            field(4, b"bundle"),
            field(1, b"spiffe://b"),
        ]
        .concat();
        let entry = [field(2, b"anchors"), field(1, b"spiffe://td")].concat();
        let numbers = [&[0x20, 0x96, 1][..], &[0x29; 9], &[0x35; 5]].concat();
        let message = [field(3, &entry), numbers, field(2, b"a CRL"), field(1, &svid)].concat();
        let response = Response::decode(&message).expect("well formed");
        assert_eq!(response.federated, [("spiffe://td", &b"anchors"[..])]);
        let [svid] = response.svids.as_slice() else {
            panic!("one SVID");
        };
        assert_eq!(
            (svid.spiffe_id, svid.chain, svid.key, svid.bundle, svid.hint),
            ("spiffe://b", &b"chain"[..], &b"key"[..], &b"bundle"[..], "hint"),
            "of a field that comes twice the last one counts"
        );
    }

    #[test]
    fn nothing_is_a_message_without_anything() {
        let response = Response::decode(&[]).expect("well formed");
        assert!(response.svids.is_empty() && response.federated.is_empty());
    }

    #[test]
    fn malformed_messages_are_refused() {
        for (bytes, expected) in [
            (&[0x0a][..], WireError::Truncated),
            (&[0x0a, 5, 0], WireError::Truncated),
            (&[0x80], WireError::Truncated),
            (&[0x09, 0], WireError::Truncated),
            (&[0x0d, 0], WireError::Truncated),
            (&[0x08], WireError::Truncated),
            // A length beyond everything.
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                WireError::Truncated,
            ),
            (
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
                WireError::Malformed,
            ),
            (&[0x80; 11], WireError::Malformed),
            // Groups, field 0.
            (&[0x0b], WireError::Malformed),
            (&[0x0c], WireError::Malformed),
            (&[0x02, 0], WireError::Malformed),
            (&[0x08, 1], WireError::Kind(1)),
            (&[0x1a, 3, 0x0a, 1, 0xff], WireError::Text(1)),
            (&[0x0a, 2, 0x2a, 1], WireError::Truncated),
        ] {
            assert_eq!(
                Response::decode(bytes).expect_err("malformed"),
                expected,
                "{bytes:x?}"
            );
        }
        let many = [0x0a, 0].repeat(MOST_ENTRIES + 1);
        assert_eq!(Response::decode(&many).expect_err("many"), WireError::TooMany);
        assert!(Response::decode(&many[2..]).is_ok());
    }

    #[test]
    fn debug_output_shows_no_key() {
        let message = field(1, &[field(1, b"id"), field(3, b"hunter2")].concat());
        let shown = format!("{:?}", Response::decode(&message).expect("well formed"));
        assert!(
            shown.contains("\"id\"") && !shown.contains("key") && !shown.contains("104"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Response::decode(&bytes);
        }

        #[test]
        fn numbers_survive(number: u64) {
            let bytes = varint(number);
            prop_assert_eq!(Fields(&bytes).varint(), Ok(number));
        }
    }
}
