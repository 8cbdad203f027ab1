//! Distinguished names: what they contain and how they are written.

use std::fmt::{self, Write};

use crate::der::{Oid, Reader, tag};
use crate::error::ParseError;
use crate::strings;

/// The attribute types that have a keyword, all below `2.5.4`, in the order in which
/// they are written: most specific first, whatever the certificate's own order.
const KEYWORDS: [(u8, &str); 9] = [
    (SERIAL_NUMBER, "SERIALNUMBER"),
    (COMMON_NAME, "CN"),
    (ORGANIZATIONAL_UNIT, "OU"),
    (ORGANIZATION, "O"),
    (17, "POSTALCODE"),
    (9, "STREET"),
    (7, "L"),
    (8, "ST"),
    (6, "C"),
];
const COMMON_NAME: u8 = 3;
const SERIAL_NUMBER: u8 = 5;
const ORGANIZATION: u8 = 10;
const ORGANIZATIONAL_UNIT: u8 = 11;

/// A distinguished name, decoded and as encoded.
///
/// Two names are equal when their encodings are: chains are built by comparing bytes.
///
/// Displayed as the log shows subjects, in the manner of RFC 2253: `CN=client,OU=a+OU=b,C=US`.
/// Of several common names or serial numbers only the last is shown; attributes without a
/// keyword come last as `1.2.3=#hexDER`. Control characters are *not* escaped: that is
/// the logger's task.
#[derive(Debug, Clone)]
pub struct Name {
    der: Box<[u8]>,
    attributes: Vec<Attribute>,
    organizational_units: Vec<String>,
}

#[derive(Debug, Clone)]
struct Attribute {
    oid: Box<[u8]>,
    value: String,
}

impl Attribute {
    /// The last arc, if the type is one of those below `2.5.4` that have a keyword.
    fn keyword_arc(&self) -> Option<u8> {
        match *self.oid {
            [0x55, 0x04, arc] if KEYWORDS.iter().any(|&(known, _)| known == arc) => Some(arc),
            _ => None,
        }
    }
}

impl Name {
    /// Parses `der`, one Name with nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, ParseError> {
        let attributes = attributes(der).ok_or(ParseError::Invalid("distinguished name"))?;
        let organizational_units = attributes
            .iter()
            .filter(|attribute| attribute.keyword_arc() == Some(ORGANIZATIONAL_UNIT))
            .map(|attribute| attribute.value.clone())
            .collect();
        Ok(Self {
            der: der.into(),
            attributes,
            organizational_units,
        })
    }

    /// The name as encoded.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The last common name, which is the one that counts.
    pub fn common_name(&self) -> Option<&str> {
        self.values(COMMON_NAME).last()
    }

    /// All common names in encoding order, those that do not count included.
    pub fn common_names(&self) -> impl Iterator<Item = &str> {
        self.values(COMMON_NAME)
    }

    /// All organizational units in encoding order.
    pub fn organizational_units(&self) -> &[String] {
        &self.organizational_units
    }

    /// All attributes in encoding order: the contents of the type's object identifier, and
    /// the value.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&[u8], &str)> {
        let attributes = self.attributes.iter();
        attributes.map(|attribute| (&*attribute.oid, attribute.value.as_str()))
    }

    /// The first organization.
    pub(crate) fn organization(&self) -> Option<&str> {
        self.values(ORGANIZATION).next()
    }

    fn values(&self, arc: u8) -> impl Iterator<Item = &str> {
        self.attributes
            .iter()
            .filter(move |attribute| attribute.keyword_arc() == Some(arc))
            .map(|attribute| attribute.value.as_str())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Name {}

fn attributes(der: &[u8]) -> Option<Vec<Attribute>> {
    let mut input = Reader::new(der);
    let mut rdns = input.nested(tag::SEQUENCE)?;
    let mut found = Vec::new();
    while !rdns.is_empty() {
        let mut set = rdns.nested(tag::SET)?;
        while !set.is_empty() {
            let mut pair = set.nested(tag::SEQUENCE)?;
            let oid = pair.oid()?;
            let value = pair.any()?;
            let value = strings::decode(value.tag, value.contents)?;
            if !pair.is_empty() {
                return None;
            }
            found.push(Attribute {
                oid: oid.0.into(),
                value,
            });
        }
    }
    input.is_empty().then_some(found)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (arc, keyword) in KEYWORDS {
            match arc {
                COMMON_NAME | SERIAL_NUMBER => {
                    let Some(value) = self.values(arc).last().filter(|value| !value.is_empty()) else {
                        continue;
                    };
                    write!(f, "{separator}{keyword}={}", Escaped(value))?;
                    separator = ",";
                }
                _ => {
                    for (index, value) in self.values(arc).enumerate() {
                        let separator = if index > 0 { "+" } else { separator };
                        write!(f, "{separator}{keyword}={}", Escaped(value))?;
                    }
                    if self.values(arc).next().is_some() {
                        separator = ",";
                    }
                }
            }
        }
        // The last attribute of the certificate is the most specific one.
        for attribute in self
            .attributes
            .iter()
            .rev()
            .filter(|attribute| attribute.keyword_arc().is_none())
        {
            write!(f, "{separator}{}=#", Oid(&attribute.oid))?;
            write_hex(f, &strings::encode(&attribute.value))?;
            separator = ",";
        }
        Ok(())
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A value with its special characters behind backslashes (RFC 2253, section 2.4).
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.len().saturating_sub(1);
        for (index, character) in self.0.char_indices() {
            let special = match character {
                ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
                ' ' => index == 0 || index == last,
                '#' => index == 0,
                _ => false,
            };
            if special {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::encode;

    /// RDNs, each a list of (type, string tag, value).
    type Rdns<'a> = &'a [&'a [(&'a [u8], u8, &'a [u8])]];

    fn name(rdns: Rdns<'_>) -> Vec<u8> {
        let rdns: Vec<u8> = rdns
            .iter()
            .flat_map(|rdn| {
                let set: Vec<u8> = rdn
                    .iter()
                    .flat_map(|(oid, string, value)| {
                        encode(
                            tag::SEQUENCE,
                            &[encode(tag::OID, oid), encode(*string, value)].concat(),
                        )
                    })
                    .collect();
                encode(tag::SET, &set)
            })
            .collect();
        encode(tag::SEQUENCE, &rdns)
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const SERIAL: &[u8] = &[0x55, 4, 5];
    const C: &[u8] = &[0x55, 4, 6];
    const L: &[u8] = &[0x55, 4, 7];
    const ST: &[u8] = &[0x55, 4, 8];
    const STREET: &[u8] = &[0x55, 4, 9];
    const O: &[u8] = &[0x55, 4, 10];
    const OU: &[u8] = &[0x55, 4, 11];
    const POSTAL: &[u8] = &[0x55, 4, 17];
    const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
    const U: u8 = tag::UTF8_STRING;
    const P: u8 = tag::PRINTABLE_STRING;

    fn shown(rdns: Rdns<'_>) -> Option<String> {
        Name::parse(&name(rdns)).ok().map(|name| name.to_string())
    }

    #[test]
    fn attributes_are_written_in_a_fixed_order() {
        let big: Rdns<'_> = &[
            &[(C, P, b"US")],
            &[(ST, U, b"CA")],
            &[(&[0x53, 4], U, b"odd")],
            &[(L, U, b"SF")],
            &[(STREET, U, b"1 Main")],
            &[(POSTAL, U, b"94000")],
            &[(O, U, b"Org")],
            &[(OU, U, b"a")],
            &[(OU, U, b"b")],
            &[(CN, U, b"big")],
            &[(SERIAL, P, b"77")],
        ];
        let expected = "SERIALNUMBER=77,CN=big,OU=a+OU=b,O=Org,POSTALCODE=94000,STREET=1 Main,L=SF,ST=CA,C=US,2.3.4=#13036f6464";
        assert_eq!(shown(big).as_deref(), Some(expected));
    }

    #[test]
    fn odd_names_are_written_like_this() {
        let cases: &[(Rdns<'_>, Option<&str>)] = &[
            (&[], Some("")),
            (&[&[]], Some("")),
            (
                &[&[(CN, U, b"aa"), (OU, U, b"x"), (CN, U, b"bb")]],
                Some("CN=bb,OU=x"),
            ),
            (&[&[(CN, U, b"aa")], &[(CN, U, b"")]], Some("")),
            (&[&[(OU, U, b"")]], Some("OU=")),
            (
                &[&[(EMAIL, tag::IA5_STRING, b"a@b")], &[(&[0x53, 4], P, b"y")]],
                Some("2.3.4=#130179,1.2.840.113549.1.9.1=#0c03614062"),
            ),
            (
                &[&[(CN, U, b" #a,b+c\"d\\e<f>g;h ")]],
                Some("CN=\\ #a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h\\ "),
            ),
            (&[&[(CN, U, b"#a #")]], Some("CN=\\#a #")),
            (&[&[(CN, U, b"a\nb")]], Some("CN=a\nb")),
            (&[&[(CN, tag::T61_STRING, b"\xfc")]], Some("CN=ü")),
            (&[&[(CN, tag::BMP_STRING, &[0x20, 0xac, 0, 0])]], Some("CN=€")),
            (&[&[(CN, tag::BMP_STRING, &[0xd8, 0x00])]], None),
            (&[&[(CN, tag::NUMERIC_STRING, b"12 3")]], Some("CN=12 3")),
            (&[&[(CN, tag::NUMERIC_STRING, b"1a")]], None),
            (&[&[(CN, P, b"a*&b")]], Some("CN=a*&b")),
            (&[&[(CN, P, b"a@b")]], None),
            (&[&[(CN, U, b"\xff")]], None),
            (&[&[(CN, tag::IA5_STRING, b"\x80")]], None),
            (&[&[(CN, tag::OCTET_STRING, b"a")]], None),
        ];
        for (rdns, expected) in cases {
            assert_eq!(shown(rdns).as_deref(), *expected, "{rdns:x?}");
        }
    }

    #[test]
    fn the_last_common_name_counts() {
        let der = name(&[
            &[(CN, U, b"aa")],
            &[(OU, U, b"x"), (OU, U, b"y")],
            &[(CN, U, b"bb")],
        ]);
        let name = Name::parse(&der).expect("well formed");
        assert_eq!(name.common_name(), Some("bb"));
        assert_eq!(name.organizational_units(), ["x", "y"]);
        assert_eq!(name.der(), der);
    }

    #[test]
    fn bytes_after_a_name_are_refused() {
        let mut der = name(&[&[(CN, U, b"aa")]]);
        der.push(0);
        assert!(Name::parse(&der).is_err());
    }
}
