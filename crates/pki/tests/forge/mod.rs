//! Certificates as strange as a test needs them, put together byte by byte and signed
//! with Ed25519 keys made from a number, so that they are the same on every run.

#![allow(dead_code, reason = "each test binary uses its own part")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use ghostunnel_pki::Certificate;

pub(crate) const SUBJECT_KEY_ID: u8 = 14;
pub(crate) const KEY_USAGE: u8 = 15;
pub(crate) const ALTERNATIVE_NAMES: u8 = 17;
pub(crate) const BASIC_CONSTRAINTS: u8 = 19;
pub(crate) const NAME_CONSTRAINTS: u8 = 30;
pub(crate) const POLICIES: u8 = 32;
pub(crate) const AUTHORITY_KEY_ID: u8 = 35;
pub(crate) const POLICY_CONSTRAINTS: u8 = 36;
pub(crate) const EXTENDED_KEY_USAGE: u8 = 37;

pub(crate) const EMAIL: u8 = 0x81;
pub(crate) const DNS: u8 = 0x82;
pub(crate) const DIRECTORY: u8 = 0xa4;
pub(crate) const URI: u8 = 0x86;
pub(crate) const IP: u8 = 0x87;

pub(crate) const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0];
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

/// One DER element.
pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(u8::try_from(length).expect("below 0x80"));
    } else {
        let digits: Vec<u8> = length
            .to_be_bytes()
            .into_iter()
            .skip_while(|&digit| digit == 0)
            .collect();
        der.push(0x80 | u8::try_from(digits.len()).expect("at most eight"));
        der.extend(digits);
    }
    der.extend(contents);
    der
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A name of common names only; none for an empty name.
pub(crate) fn name(common_names: &[&str]) -> Vec<u8> {
    let rdns: Vec<_> = common_names
        .iter()
        .map(|value| {
            tlv(
                0x31,
                &sequence(&[tlv(6, &[0x55, 4, 3]), tlv(0x0c, value.as_bytes())]),
            )
        })
        .collect();
    sequence(&rdns)
}

pub(crate) fn key(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("any 32 bytes are a seed")
}

pub(crate) fn spki(number: u8) -> Vec<u8> {
    sequence(&[
        ED25519.to_vec(),
        tlv(3, &[&[0], key(number).public_key().as_ref()].concat()),
    ])
}

/// A certificate to be.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: u8,
    pub(crate) serial: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) validity: [Vec<u8>; 2],
    pub(crate) extensions: Vec<Vec<u8>>,
    /// What follows the subject's public key instead of the extensions.
    pub(crate) rest: Option<Vec<u8>>,
}

/// A version 3 leaf, valid from 2020 to 2040.
pub(crate) fn leaf(common_name: &str, key: u8) -> Draft {
    Draft {
        version: 3,
        serial: vec![1],
        algorithm: ED25519.to_vec(),
        subject: name(&[common_name]),
        spki: spki(key),
        validity: [tlv(0x17, b"200101000000Z"), tlv(0x17, b"400101000000Z")],
        extensions: Vec::new(),
        rest: None,
    }
}

/// A version 3 authority that may sign.
pub(crate) fn authority(common_name: &str, key: u8) -> Draft {
    leaf(common_name, key).ca(None).key_usage(0b0000_0110)
}

impl Draft {
    pub(crate) fn extension(self, number: u8, critical: bool, value: &[u8]) -> Self {
        self.extension_of(&[0x55, 0x1d, number], critical, value)
    }

    pub(crate) fn extension_of(mut self, oid: &[u8], critical: bool, value: &[u8]) -> Self {
        let critical = if critical { vec![1, 1, 0xff] } else { Vec::new() };
        self.extensions
            .push(sequence(&[tlv(6, oid), critical, tlv(4, value)]));
        self
    }

    pub(crate) fn ca(self, path_length: Option<u8>) -> Self {
        let path_length = path_length.map_or_else(Vec::new, |length| vec![2, 1, length]);
        self.extension(
            BASIC_CONSTRAINTS,
            true,
            &sequence(&[vec![1, 1, 0xff], path_length]),
        )
    }

    pub(crate) fn key_usage(self, bits: u8) -> Self {
        let unused = u8::try_from(bits.trailing_zeros().min(7)).expect("at most seven");
        self.extension(KEY_USAGE, true, &[3, 2, unused, bits])
    }

    pub(crate) fn usages(self, usages: &[&[u8]]) -> Self {
        let usages: Vec<_> = usages.iter().map(|usage| tlv(6, usage)).collect();
        self.extension(EXTENDED_KEY_USAGE, false, &sequence(&usages))
    }

    pub(crate) fn names(self, names: &[(u8, &[u8])]) -> Self {
        let names: Vec<_> = names.iter().map(|(tag, name)| tlv(*tag, name)).collect();
        self.extension(ALTERNATIVE_NAMES, false, &sequence(&names))
    }

    pub(crate) fn constraints(self, permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> Self {
        let subtrees = |tag, names: &[(u8, &[u8])]| {
            let names: Vec<_> = names
                .iter()
                .map(|(tag, name)| sequence(&[tlv(*tag, name)]))
                .collect();
            if names.is_empty() {
                Vec::new()
            } else {
                tlv(tag, &names.concat())
            }
        };
        let value = sequence(&[subtrees(0xa0, permitted), subtrees(0xa1, excluded)]);
        self.extension(NAME_CONSTRAINTS, true, &value)
    }

    pub(crate) fn policies(self, policies: &[&[u8]]) -> Self {
        let policies: Vec<_> = policies
            .iter()
            .map(|policy| sequence(&[tlv(6, policy)]))
            .collect();
        self.extension(POLICIES, true, &sequence(&policies))
    }

    pub(crate) fn key_ids(self, subject: &[u8], authority: &[u8]) -> Self {
        let with_subject = match subject {
            [] => self,
            id => self.extension(SUBJECT_KEY_ID, false, &tlv(4, id)),
        };
        match authority {
            [] => with_subject,
            id => with_subject.extension(AUTHORITY_KEY_ID, false, &sequence(&[tlv(0x80, id)])),
        }
    }

    pub(crate) fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn valid(mut self, from: &str, to: &str) -> Self {
        self.validity = [tlv(0x17, from.as_bytes()), tlv(0x17, to.as_bytes())];
        self
    }

    /// The certificate as DER, issued under the name of `issuer` with the key of that number.
    pub(crate) fn der(&self, issuer: &[u8], issuer_key: u8) -> Vec<u8> {
        let version = match self.version {
            1 => Vec::new(),
            version => tlv(0xa0, &[2, 1, version.wrapping_sub(1)]),
        };
        let rest = self
            .rest
            .clone()
            .unwrap_or_else(|| match self.extensions.as_slice() {
                [] => Vec::new(),
                extensions => tlv(0xa3, &sequence(extensions)),
            });
        let tbs = sequence(&[
            version,
            tlv(2, &self.serial),
            self.algorithm.clone(),
            issuer.to_vec(),
            sequence(&self.validity),
            self.subject.clone(),
            self.spki.clone(),
            rest,
        ]);
        let signature = key(issuer_key).sign(&tbs);
        sequence(&[
            tbs,
            self.algorithm.clone(),
            tlv(3, &[&[0], signature.as_ref()].concat()),
        ])
    }

    /// Issued by an authority of this common name and key.
    pub(crate) fn issued_by(&self, issuer: &str, issuer_key: u8) -> Certificate {
        parsed(&self.der(&name(&[issuer]), issuer_key))
    }

    pub(crate) fn self_signed(&self, key: u8) -> Certificate {
        parsed(&self.der(&self.subject.clone(), key))
    }
}

pub(crate) fn parsed(der: &[u8]) -> Certificate {
    Certificate::parse(der).expect("a well-formed certificate")
}
