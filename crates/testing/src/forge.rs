//! Records that no TLS library would send: of any type, in any pieces, padded, broken.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{Connection, ConnectionTrafficSecrets, ProtocolVersion};

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// change_cipher_spec
    ChangeCipherSpec = 20,
    /// alert
    Alert = 21,
    /// handshake
    Handshake = 22,
    /// application_data
    Data = 23,
}

/// The keys of an established connection that uses AES-GCM, in the hands of somebody who
/// seals what he likes. Does not follow key updates.
pub struct Forger {
    version: ProtocolVersion,
    sending: Direction,
    receiving: Direction,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    /// Takes the keys out of a session whose handshake is complete and whose bytes have all been
    /// sent ([`crate::TlsClient::session`], [`crate::TlsServer::session`]).
    pub fn new(session: Connection) -> Self {
        let version = session.protocol_version().expect("the handshake is complete");
        let secrets = session
            .dangerous_extract_secrets()
            .expect("sessions of this crate give their keys away");
        Self {
            version,
            sending: Direction::new(secrets.tx),
            receiving: Direction::new(secrets.rx),
        }
    }

    /// Seals one record.
    pub fn seal(&mut self, content: Content, payload: &[u8]) -> Vec<u8> {
        self.seal_padded(content, payload, 0)
    }

    /// Seals one record with this many zeros behind its payload (TLS 1.3 only).
    pub fn seal_padded(&mut self, content: Content, payload: &[u8], padding: usize) -> Vec<u8> {
        if self.version == ProtocolVersion::TLSv1_3 {
            let mut inner = payload.to_vec();
            inner.push(content as u8);
            inner.resize(inner.len() + padding, 0);
            let header = header(Content::Data as u8, inner.len() + 16);
            self.sending.seal(Aad::from(header.to_vec()), &mut inner);
            return [&header, inner.as_slice()].concat();
        }
        let mut inner = payload.to_vec();
        let explicit = self.sending.sequence.to_be_bytes();
        let mut nonce = self.sending.iv;
        nonce[4..].copy_from_slice(&explicit);
        let aad = aad12(self.sending.sequence, content as u8, payload.len());
        self.sending.seal_with(nonce, Aad::from(aad), &mut inner);
        let header = header(content as u8, inner.len() + explicit.len());
        [&header, explicit.as_slice(), &inner].concat()
    }

    /// Seals a message in records of `piece` payload bytes.
    pub fn seal_in_pieces(&mut self, content: Content, payload: &[u8], piece: usize) -> Vec<u8> {
        let pieces = payload.chunks(piece);
        pieces.flat_map(|piece| self.seal(content, piece)).collect()
    }

    /// Opens all records in `bytes`; gives the type and payload of each.
    ///
    /// # Panics
    ///
    /// If a record is not whole, or not sealed with the expected key and number.
    pub fn open(&mut self, mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut opened = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            let (record, rest) = rest.split_at(length);
            opened.push(self.open_one(*head, record));
            bytes = rest;
        }
        assert!(bytes.is_empty(), "a piece of a header is left");
        opened
    }

    fn open_one(&mut self, head: [u8; 5], record: &[u8]) -> (u8, Vec<u8>) {
        let direction = &mut self.receiving;
        if self.version == ProtocolVersion::TLSv1_3 {
            let nonce = direction.nonce();
            let mut inner = direction.open(nonce, Aad::from(head.to_vec()), record.to_vec());
            while inner.last() == Some(&0) {
                inner.pop();
            }
            let kind = inner.pop().expect("a record has a type");
            return (kind, inner);
        }
        let (explicit, sealed) = record.split_at(8);
        let mut nonce = direction.iv;
        nonce[4..].copy_from_slice(explicit);
        let aad = aad12(direction.sequence, head[0], sealed.len() - 16);
        (head[0], direction.open(nonce, Aad::from(aad), sealed.to_vec()))
    }
}

fn header(content: u8, length: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(length)
        .expect("a record's length has two bytes")
        .to_be_bytes();
    [content, 3, 3, high, low]
}

fn aad12(sequence: u64, content: u8, length: usize) -> Vec<u8> {
    [sequence.to_be_bytes().as_slice(), &header(content, length)].concat()
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => panic!("only AES-GCM is understood here"),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).expect("as long as it should be");
        Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().expect("12 bytes"),
            sequence,
        }
    }

    /// The nonce of TLS 1.3 (RFC 8446, section 5.3).
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    fn seal(&mut self, aad: Aad<Vec<u8>>, payload: &mut Vec<u8>) {
        self.seal_with(self.nonce(), aad, payload);
    }

    fn seal_with(&mut self, nonce: [u8; 12], aad: Aad<Vec<u8>>, payload: &mut Vec<u8>) {
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, payload)
            .expect("records are short");
        self.sequence += 1;
    }

    fn open(&mut self, nonce: [u8; 12], aad: Aad<Vec<u8>>, mut sealed: Vec<u8>) -> Vec<u8> {
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .expect("sealed with the expected key and number");
        self.sequence += 1;
        opened.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::{ClientCertificates, Pki, TlsClient, TlsServer, Version};

    fn carry(from: &mut Connection, to: &mut Connection) {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).expect("memory takes everything");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).expect("room");
            to.process_new_packets().expect("no fault");
        }
    }

    #[test]
    fn forged_records_are_understood_and_answers_are_read() {
        let pki = Pki::new();
        for version in [Version::V12, Version::V13] {
            let mut client = TlsClient::trusting(&pki.authority).version(version).session();
            let mut server = TlsServer::new(&pki.server, &ClientCertificates::Unasked).session();
            while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
                carry(&mut client, &mut server);
                carry(&mut server, &mut client);
            }
            let mut forger = Forger::new(client);
            let records = forger.seal_in_pieces(Content::Data, b"hello", 2);
            server.read_tls(&mut records.as_slice()).expect("room");
            server.process_new_packets().expect("no fault");
            let mut text = [0; 5];
            server.reader().read_exact(&mut text).expect("opened");
            assert_eq!(&text, b"hello");

            server.writer().write_all(b"answer").expect("room");
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).expect("memory takes everything");
            assert_eq!(forger.open(&bytes), [(Content::Data as u8, b"answer".to_vec())]);
        }
    }
}
