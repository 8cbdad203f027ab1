//! A tolerant PEM reader.
//!
//! RFC 7468 allows "explanatory text" around blocks and asks parsers to be lenient; files
//! in the field need more than it grants. The rules, those of Ghostunnel 1.11.1, are:
//!
//! - Lines end in LF or CRLF. Markers stand at the beginning of a line and may be followed
//!   by blanks.
//! - Text outside of blocks is ignored. Lines with a colon right after the opening marker
//!   are headers (RFC 1421, section 4.6).
//! - A block that is not closed by its own marker, or whose base64 is broken, is skipped as
//!   if it were absent.

use std::fmt;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// The label of a block that holds an X.509 certificate.
const CERTIFICATE: &[u8] = b"CERTIFICATE";

const OPENING: &[u8] = b"-----BEGIN ";
const CLOSING: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// One PEM block, decoded. Its contents may be a key, so they are wiped on drop.
#[derive(Clone)]
pub struct Block {
    label: Vec<u8>,
    headers: Headers,
    contents: Zeroizing<Vec<u8>>,
}

/// All that anybody asks about headers.
#[derive(Debug, Clone, Copy, Default)]
struct Headers {
    present: bool,
    encrypted: bool,
}

/// All complete blocks of a text, in order.
pub fn blocks(text: &[u8]) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open = None;
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = end;
        end = start + line.len();
        let line = trim_end(line);
        if let Some(rest) = line.strip_prefix(OPENING) {
            // A second opening marker means that the block before it was cut off.
            open = rest.strip_suffix(DASHES).map(|label| OpenBlock::new(label, end));
        } else if let Some(rest) = line.strip_prefix(CLOSING) {
            let body_end = start;
            found.extend(
                open.take()
                    .and_then(|block: OpenBlock<'_>| block.close(rest, text, body_end)),
            );
        } else if let Some(block) = &mut open {
            block.read_header(line, end);
        }
    }
    found
}

/// The certificates of a trust bundle: blocks labelled exactly `CERTIFICATE`, without
/// headers. Everything else is passed over. Whether they parse is for the caller to see.
pub fn trust_anchors(text: &[u8]) -> Vec<CertificateDer<'static>> {
    let certificates = blocks(text)
        .into_iter()
        .filter(|block| block.is_certificate() && !block.has_headers());
    certificates.map(Block::into_certificate).collect()
}

impl Block {
    /// A certificate out of another format, as if it had been PEM.
    pub(crate) fn certificate(der: &[u8]) -> Self {
        Self {
            label: CERTIFICATE.to_vec(),
            headers: Headers::default(),
            contents: Zeroizing::new(der.to_vec()),
        }
    }

    /// A key out of another format, as if it had been PEM.
    pub(crate) fn private_key(contents: Zeroizing<Vec<u8>>) -> Self {
        Self {
            label: b"PRIVATE KEY".to_vec(),
            headers: Headers::default(),
            contents,
        }
    }

    /// What the block says it holds, for people: unprintable characters are escaped.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.label).escape_debug().to_string()
    }

    /// Whether the label is exactly `CERTIFICATE`.
    pub fn is_certificate(&self) -> bool {
        self.label == CERTIFICATE
    }

    /// Whether the label names a private key of whatever encoding.
    pub fn is_private_key(&self) -> bool {
        self.label == b"PRIVATE KEY" || self.label.ends_with(b" PRIVATE KEY")
    }

    /// Whether a passphrase is needed to read the contents: PKCS#8 by its label (RFC 7468,
    /// section 11), the older encodings by a header (RFC 1421, section 4.6.1.1).
    pub fn is_encrypted(&self) -> bool {
        self.headers.encrypted || self.label == b"ENCRYPTED PRIVATE KEY"
    }

    /// Whether the contents are an encrypted PKCS#8 key.
    pub(crate) fn is_encrypted_pkcs8(&self) -> bool {
        !self.headers.encrypted && self.label == b"ENCRYPTED PRIVATE KEY"
    }

    /// Whether header lines stood before the contents.
    pub fn has_headers(&self) -> bool {
        self.headers.present
    }

    /// The decoded contents.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// The contents as a certificate, whatever the label.
    pub fn into_certificate(mut self) -> CertificateDer<'static> {
        CertificateDer::from(std::mem::take(&mut *self.contents))
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("label", &self.label())
            .finish_non_exhaustive()
    }
}

/// A block whose closing marker has not been seen.
struct OpenBlock<'a> {
    label: &'a [u8],
    headers: Headers,
    /// Whether the next line may still be a header.
    in_headers: bool,
    /// Where in the text the base64 begins. The body is never collected line by line: a
    /// buffer that grows would leave pieces of a key behind.
    body_start: usize,
}

impl<'a> OpenBlock<'a> {
    fn new(label: &'a [u8], body_start: usize) -> Self {
        Self {
            label,
            headers: Headers::default(),
            in_headers: true,
            body_start,
        }
    }

    /// Takes in a line between the markers that ends before `end`.
    fn read_header(&mut self, line: &[u8], end: usize) {
        self.in_headers &= line.contains(&b':');
        if self.in_headers {
            self.headers.present = true;
            self.headers.encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
            self.body_start = end;
        }
    }

    /// Completes the block, unless its markers differ or its base64 is broken.
    fn close(self, closing: &[u8], text: &[u8], body_end: usize) -> Option<Block> {
        if closing.strip_suffix(DASHES) != Some(self.label) {
            return None;
        }
        let contents = decode_base64(text.get(self.body_start..body_end)?)?;
        Some(Block {
            label: self.label.to_vec(),
            headers: self.headers,
            contents,
        })
    }
}

fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r' | b'\t' | b' '] = line {
        line = rest;
    }
    line
}

/// Decodes base64 with padding (RFC 4648, section 4). Blanks and line ends are passed over;
/// any other character outside the alphabet, wrong padding or a cut-off group is an error.
fn decode_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Room for everything from the start, for the reason given at `OpenBlock::body_start`.
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3));
    let (mut group, mut characters, mut padding) = (0_u32, 0, 0);
    for byte in text {
        let sextet = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'=' if characters >= 2 => {
                padding += 1;
                0
            }
            _ if padding > 0 => return None,
            byte => sextet(*byte)?,
        };
        group = group << 6 | u32::from(sextet);
        characters += 1;
        if characters == 4 {
            let [_, first, second, third] = group.to_be_bytes();
            match padding {
                0 => decoded.extend([first, second, third]),
                1 => decoded.extend([first, second]),
                _ => decoded.push(first),
            }
            (group, characters) = (0, 0);
        }
    }
    (characters == 0).then_some(decoded)
}

/// The value of a character of the base64 alphabet. Computed without branches or tables
/// that depend on it, since the character may belong to a key.
fn sextet(byte: u8) -> Option<u8> {
    let upper = mask(byte, b'A', b'Z');
    let lower = mask(byte, b'a', b'z');
    let digit = mask(byte, b'0', b'9');
    let plus = mask(byte, b'+', b'+');
    let slash = mask(byte, b'/', b'/');
    let value = upper & byte.wrapping_sub(b'A')
        | lower & byte.wrapping_sub(b'a').wrapping_add(26)
        | digit & byte.wrapping_sub(b'0').wrapping_add(52)
        | plus & 62
        | slash & 63;
    (upper | lower | digit | plus | slash != 0).then_some(value)
}

/// All ones if `low <= byte <= high`, else zero.
fn mask(byte: u8, low: u8, high: u8) -> u8 {
    let [is_below, _] = u16::from(byte).wrapping_sub(u16::from(low)).to_be_bytes();
    let [is_above, _] = u16::from(high).wrapping_sub(u16::from(byte)).to_be_bytes();
    !(is_below | is_above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Vec<String> {
        blocks(text.as_bytes()).iter().map(Block::label).collect()
    }

    #[test]
    fn blocks_are_found_where_the_original_finds_them() {
        for (text, expected) in [
            ("", &[][..]),
            ("just text\n", &[]),
            ("-----BEGIN A-----\nAAAA\n-----END A-----\n", &["A"]),
            ("-----BEGIN A-----\nAAAA\n-----END A-----", &["A"]),
            ("-----BEGIN A-----\r\nAAAA\r\n-----END A-----\r\n", &["A"]),
            ("-----BEGIN A----- \t\nAAAA\n-----END A-----  \n", &["A"]),
            (
                "before\n-----BEGIN A-----\nAAAA\n-----END A-----\nafter\n",
                &["A"],
            ),
            ("-----BEGIN A-----\nAA\t AA\n \n-----END A-----\n", &["A"]),
            ("-----BEGIN A-----\n-----END A-----\n", &["A"]),
            (
                "-----BEGIN A-----\nName: value\n\nAAAA\n-----END A-----\n",
                &["A"],
            ),
            ("-----BEGIN A-----\nName: value\nAAAA\n-----END A-----\n", &["A"]),
            (
                "-----BEGIN X509 CERTIFICATE-----\nAAAA\n-----END X509 CERTIFICATE-----\n",
                &["X509 CERTIFICATE"],
            ),
            // Broken in one way each.
            (" -----BEGIN A-----\nAAAA\n-----END A-----\n", &[]),
            ("-----BEGIN A-----\nAAAA\n -----END A-----\n", &[]),
            ("-----BEGIN A----\nAAAA\n-----END A-----\n", &[]),
            ("-----BEGIN A-----\nAAAA\n-----END A----\n", &[]),
            ("-----BEGIN A-----\nAAAA\n-----END A-----x\n", &[]),
            ("-----BEGIN A-----\nAAAA\n-----END B-----\n", &[]),
            ("-----BEGIN A-----\nAAAA\n", &[]),
            ("-----BEGIN A-----\nAAA\n-----END A-----\n", &[]),
            ("-----BEGIN A-----\nAA!A\n-----END A-----\n", &[]),
            ("-----BEGIN A-----\nAAAA\nName: value\n-----END A-----\n", &[]),
            // The block after a broken one is read.
            (
                "-----BEGIN A-----\n-----BEGIN B-----\nAAAA\n-----END B-----\n",
                &["B"],
            ),
            (
                "-----BEGIN A-----\n!\n-----END A-----\n-----BEGIN B-----\nAAAA\n-----END B-----\n",
                &["B"],
            ),
            (
                "-----BEGIN A-----\nAAAA\n-----END B-----\n-----BEGIN C-----\nAAAA\n-----END C-----\n",
                &["C"],
            ),
        ] {
            assert_eq!(labels(text), expected, "{text:?}");
        }
    }

    #[test]
    fn base64_is_decoded_strictly_but_for_blanks() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYmFy", Some(b"foobar")),
            ("Zm 9v\r\nYm\tFy", Some(b"foobar")),
            ("+/+/", Some(b"\xfb\xff\xbf")),
            ("Zg=\n=", Some(b"f")),
            ("Zg", None),
            ("Zg=", None),
            ("Zg===", None),
            ("Z===", None),
            ("====", None),
            ("Zg==Zg==", None),
            ("Zm=v", None),
            ("Zm9v=", None),
            ("Zm9-", None),
            ("Zm9\x0b", None),
        ] {
            let decoded = decode_base64(text.as_bytes());
            assert_eq!(decoded.as_deref().map(Vec::as_slice), expected, "{text:?}");
        }
    }

    #[test]
    fn every_byte_is_a_sextet_or_refused() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for byte in 0..=u8::MAX {
            let expected = alphabet.iter().position(|character| *character == byte);
            assert_eq!(sextet(byte).map(usize::from), expected, "{byte}");
        }
    }

    #[test]
    fn labels_tell_certificates_and_keys() {
        for (label, is_certificate, is_private_key) in [
            ("CERTIFICATE", true, false),
            ("TRUSTED CERTIFICATE", false, false),
            ("X509 CERTIFICATE", false, false),
            ("PRIVATE KEY", false, true),
            ("RSA PRIVATE KEY", false, true),
            ("ENCRYPTED PRIVATE KEY", false, true),
            ("XPRIVATE KEY", false, false),
            ("PUBLIC KEY", false, false),
        ] {
            let text = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
            let [block] = &blocks(text.as_bytes())[..] else {
                panic!("one block: {label}")
            };
            assert_eq!(
                (block.is_certificate(), block.is_private_key()),
                (is_certificate, is_private_key),
                "{label}"
            );
        }
    }

    #[test]
    fn encrypted_keys_are_recognised() {
        let header = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                      -----END RSA PRIVATE KEY-----\n";
        let label = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let plain = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let are_encrypted: Vec<bool> = [header, label, plain]
            .iter()
            .map(|text| blocks(text.as_bytes())[0].is_encrypted())
            .collect();
        assert_eq!(are_encrypted, [true, true, false]);
    }

    #[test]
    fn trust_bundles_yield_plain_certificate_blocks_only() {
        let bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\
                      -----BEGIN TRUSTED CERTIFICATE-----\nAAAB\n-----END TRUSTED CERTIFICATE-----\n\
                      -----BEGIN CERTIFICATE-----\nName: value\n\nAAAC\n-----END CERTIFICATE-----\n\
                      -----BEGIN PRIVATE KEY-----\nAAAD\n-----END PRIVATE KEY-----\n\
                      -----BEGIN CERTIFICATE-----\nAAAE\n-----END CERTIFICATE-----\n";
        let anchors = trust_anchors(bundle.as_bytes());
        assert_eq!(
            anchors,
            [
                CertificateDer::from(vec![0, 0, 0]),
                CertificateDer::from(vec![0, 0, 4])
            ]
        );
    }

    #[test]
    fn debug_output_shows_no_contents() {
        let block = blocks(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").remove(0);
        assert_eq!(format!("{block:?}"), r#"Block { label: "PRIVATE KEY", .. }"#);
    }

    /// Base64 by the book, to check the decoder against.
    fn encode_base64(bytes: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut padded = [0; 3];
            padded[..group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
            for position in 0..4 {
                let sextet = usize::try_from(bits >> (18 - 6 * position) & 63).expect("six bits");
                text.push(if position > group.len() {
                    '='
                } else {
                    char::from(alphabet[sextet])
                });
            }
        }
        text
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text: Vec<u8>) {
            blocks(&text);
            decode_base64(&text);
        }

        #[test]
        fn no_heap_of_fragments_panics(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "-----BEGIN ", "-----END ", "-----", "CERTIFICATE", "PRIVATE KEY", "\n", "\r\n", "AAAA", "=", ":", " ", "ü",
                ]),
                0..40,
            )
        ) {
            blocks(parts.concat().as_bytes());
        }

        #[test]
        fn what_was_encoded_is_read_back(contents: Vec<u8>, label in "[A-Z][A-Z0-9 ]{0,20}", width in 1..80_usize) {
            let base64 = encode_base64(&contents);
            let body: Vec<&str> =
                base64.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.join("\n"));
            let found = blocks(text.as_bytes());
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].contents(), contents);
            prop_assert_eq!(found[0].label(), label);
        }
    }
}
