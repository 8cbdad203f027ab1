//! The handshake as a state machine over bytes.
//!
//! The caller moves bytes: what the peer sent goes in through [`Handshake::receive`], what the
//! peer must get comes out of [`Handshake::outgoing`], also when a step failed, because then
//! it holds the alert. A step waits for no peer; whether it may take long all the same, because
//! the key is elsewhere, is told by [`Handshake::may_block`].

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::{AlertDescription, Error, PeerIncompatible, ProtocolVersion};

use super::alert;
use super::evidence::Evidence;
use super::hello::{Hello, Reading};
use super::server::Undecided;
use super::session::{Engine, Event, LONGEST_UNOPENED, Session};
use super::verify::{PeerIdentity, Verdict};
use crate::authorization::Admission;
use crate::metrics::HandshakeFailure;

/// A handshake in progress. `Send`, owns everything it needs.
#[derive(Debug)]
pub struct Handshake {
    engine: Engine,
    verdict: Arc<Verdict>,
    /// Whether the peer is asked for a certificate, so that the verifier has the last word.
    verified: bool,
    may_block: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    first_record_seen: bool,
    /// Until the client's hello has been read, of which at least so many bytes are needed.
    undecided: Option<Box<Undecided>>,
    hello_needs: usize,
    /// The hello, once it is there; empty where our reader could not read it.
    hello: Hello,
    /// The peer has sent close_notify right behind its last message.
    peer_has_closed: bool,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Send what is outgoing, then bring more bytes of the peer.
    NeedsBytes,
    /// Send what is outgoing, then call [`Handshake::finish`].
    Done,
}

/// A finished handshake: an admitted peer and the keys to talk to it.
#[derive(Debug)]
pub struct Established {
    /// The record layer; bytes that came behind the handshake are in it.
    pub session: Session,
    /// Who the peer is; `None` if it was not asked.
    pub peer: Option<PeerIdentity>,
    /// The proof that it may be served.
    pub admission: Admission,
    /// What was agreed on.
    pub facts: Facts,
    /// Whether an earlier session goes on. Its peer was judged again all the same.
    pub is_resumed: bool,
}

/// What a handshake agreed on, for a target that wants to know. Not needed by an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// The name a client asked for, as it spelled it.
    pub server_name: Option<String>,
    /// The application protocol, if one was negotiated.
    pub application_protocol: Option<Vec<u8>>,
}

/// Why a handshake failed; the text is what Ghostunnel 1.11.1 logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct HandshakeError {
    text: String,
    reason: HandshakeFailure,
    evidence: Option<Box<Evidence>>,
}

impl HandshakeError {
    fn new(reason: HandshakeFailure, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            reason,
            evidence: None,
        }
    }

    /// The kind of failure, for log and metrics.
    pub fn reason(&self) -> HandshakeFailure {
        self.reason
    }

    /// Takes what is known of a peer that was refused for its certificate.
    pub fn take_evidence(&mut self) -> Option<Box<Evidence>> {
        self.evidence.take()
    }
}

impl Handshake {
    pub(super) fn new(engine: Engine, verdict: Arc<Verdict>, verified: bool) -> Self {
        Self {
            engine,
            verdict,
            verified,
            may_block: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            first_record_seen: false,
            undecided: None,
            hello_needs: 0,
            hello: Hello::default(),
            peer_has_closed: false,
        }
    }

    /// The same, with steps that may take long, so that no worker may run them.
    pub(super) fn which_may_block(self, may_block: bool) -> Self {
        Self { may_block, ..self }
    }

    /// The same, where the client's hello has a say in how to go on.
    pub(super) fn undecided(self, undecided: Undecided) -> Self {
        let undecided = Some(Box::new(undecided));
        Self { undecided, ..self }
    }

    /// Whether the next step may take long. It is then to be run where nothing else waits for
    /// it; the state is `Send` for that.
    pub fn may_block(&self) -> bool {
        // Without anything from the peer there is nothing to sign or to judge yet.
        self.may_block && !self.incoming.is_empty()
    }

    /// Adds bytes that the peer sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
    }

    /// Takes the bytes that must be sent to the peer now. After a failed step it is the alert,
    /// or nothing where the peer could not have understood one.
    pub fn outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Goes as far as the bytes received so far allow.
    pub fn step(&mut self) -> Result<Progress, HandshakeError> {
        self.look_at_first_record()?;
        if self.decide()? == Progress::NeedsBytes {
            return Ok(Progress::NeedsBytes);
        }
        let mut used = 0;
        let outcome = loop {
            let input = self.incoming.get_mut(used..).unwrap_or_default();
            let (discard, event) = self.engine.turn(input, None, &mut self.outgoing);
            used = used.saturating_add(discard);
            match event {
                Event::Encoded | Event::Transmitted => {}
                Event::Plaintext | Event::MayWrite if !self.engine.is_handshaking() => {
                    break Ok(Progress::Done);
                }
                // It may want no more than to listen.
                Event::PeerClosed if !self.engine.is_handshaking() => {
                    self.peer_has_closed = true;
                    break Ok(Progress::Done);
                }
                Event::Blocked | Event::MayWrite => break Ok(Progress::NeedsBytes),
                Event::Plaintext | Event::PeerClosed | Event::Closed => {
                    break Err(HandshakeError::new(HandshakeFailure::Closed, "EOF"));
                }
                Event::Failed(error) => {
                    self.engine.collect_alert(&mut self.outgoing);
                    return Err(self.failure(&error));
                }
            }
        };
        self.incoming.drain(..used.min(self.incoming.len()));
        let is_incomplete = outcome == Ok(Progress::NeedsBytes);
        if is_incomplete && self.incoming.len() > LONGEST_UNOPENED {
            return Err(HandshakeError::new(
                HandshakeFailure::Protocol,
                "tls: handshake message is too long",
            ));
        }
        outcome
    }

    /// Turns a handshake whose last step said [`Progress::Done`] into an established
    /// connection.
    pub fn finish(self) -> Result<Established, HandshakeError> {
        let resumed = self.engine.resumed_leaf();
        let (peer, admission) = if self.verified {
            let admitted = match &resumed {
                None => self.verdict.take_admitted(),
                Some(leaf) => self.verdict.take_resumed(leaf),
            };
            let Some((peer, admission)) = admitted else {
                return Err(HandshakeError::new(
                    HandshakeFailure::Internal,
                    "unauthorized: peer was not verified",
                ));
            };
            (Some(peer), admission)
        } else {
            (None, Admission::unauthenticated())
        };
        let facts = self.facts();
        Ok(Established {
            session: Session::new(self.engine, self.incoming, self.peer_has_closed),
            peer,
            admission,
            facts,
            is_resumed: resumed.is_some(),
        })
    }

    fn facts(&self) -> Facts {
        let asked = self.verdict.take_server_name();
        Facts {
            version: match self.engine.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS 1.2",
            },
            server_name: asked.map(|name| as_spelled(name, self.hello.server_name.as_deref())),
            application_protocol: self.engine.application_protocol(),
        }
    }

    /// Refuses peers that don't speak TLS without an alert: they would not understand it.
    fn look_at_first_record(&mut self) -> Result<(), HandshakeError> {
        if self.first_record_seen || self.incoming.len() < RECORD_HEADER {
            return Ok(());
        }
        let kind = self.incoming.first().copied().unwrap_or_default();
        let major = self.incoming.get(1).copied().unwrap_or_default();
        if !matches!(kind, RECORD_ALERT | RECORD_HANDSHAKE) || major >= 0x10 {
            return Err(HandshakeError::new(
                HandshakeFailure::NotTls,
                "tls: first record does not look like a TLS handshake",
            ));
        }
        self.first_record_seen = true;
        Ok(())
    }

    /// Lets the client's hello decide on the configuration, before rustls has seen any of it.
    fn decide(&mut self) -> Result<Progress, HandshakeError> {
        let Some(undecided) = &self.undecided else {
            return Ok(Progress::Done);
        };
        if self.incoming.len() < self.hello_needs {
            return Ok(Progress::NeedsBytes);
        }
        match Hello::read(&self.incoming) {
            Reading::Incomplete { at_least } => {
                self.hello_needs = at_least;
                return Ok(Progress::NeedsBytes);
            }
            Reading::Whole(hello) => {
                if undecided.is_inappropriate_fallback(&hello) {
                    self.outgoing = plain_alert(AlertDescription::InappropriateFallback).to_vec();
                    return Err(HandshakeError::new(
                        HandshakeFailure::Incompatible,
                        "tls: client using inappropriate protocol fallback",
                    ));
                }
                if let Some(engine) = undecided.engine_for(&hello, &self.verdict) {
                    self.engine = engine;
                }
                self.hello = hello;
            }
            Reading::Unreadable => {}
        }
        self.undecided = None;
        Ok(Progress::Done)
    }

    fn failure(&mut self, error: &Error) -> HandshakeError {
        let outcome = self.verdict.take_outcome();
        let is_unparsable = matches!(&outcome, Some(Err(refusal)) if refusal.is_unparsable);
        self.correct_alert(error, is_unparsable);
        let hello = &self.hello;
        let (reason, text, evidence) = match outcome {
            Some(Err(refusal)) => (refusal.reason, refusal.text, refusal.evidence),
            // Whoever was admitted has failed in something else: mostly, to prove that it is not a
            // stranger with a copy of the certificate.
            Some(Ok((peer, _))) => {
                let evidence = Some(Box::new(Evidence::of(peer.leaf())));
                (reason(error), describe(error, hello), evidence)
            }
            None => (reason(error), describe(error, hello), None),
        };
        HandshakeError {
            evidence,
            ..HandshakeError::new(reason, text)
        }
    }

    /// Exchanges alerts of rustls for those that fit, as far as they are still plain.
    fn correct_alert(&mut self, error: &Error, is_unparsable: bool) {
        let is_tls12 = self.engine.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let (from, to) = match error {
            // certificate_required exists since TLS 1.3 (RFC 8446, section 6.2).
            Error::NoCertificatesPresented if is_tls12 => (
                AlertDescription::CertificateRequired,
                AlertDescription::HandshakeFailure,
            ),
            Error::InvalidCertificate(_) if is_unparsable && matches!(self.engine, Engine::Server(_)) => {
                (AlertDescription::BadCertificate, AlertDescription::DecodeError)
            }
            Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
                if self.hello.is_too_old() =>
            {
                (
                    AlertDescription::HandshakeFailure,
                    AlertDescription::ProtocolVersion,
                )
            }
            _ => return,
        };
        if self.outgoing.ends_with(&plain_alert(from))
            && let Some(description) = self.outgoing.last_mut()
        {
            *description = u8::from(to);
        }
    }
}

fn describe(error: &Error, hello: &Hello) -> String {
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::AlertReceived(AlertDescription::CloseNotify) => "EOF".to_owned(),
        Error::AlertReceived(received) => format!("remote error: tls: {}", alert::text(*received)),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => unsupported_versions(hello),
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
            if hello.is_too_old() =>
        {
            unsupported_versions(hello)
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "remote error: tls: protocol version not supported".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => format!(
            "tls: no cipher suite supported by both client and server; client offered: {}",
            hex_list(&hello.suites)
        ),
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "tls: no key exchanges supported by both client and server".to_owned()
        }
        Error::DecryptError => "local error: tls: bad record MAC".to_owned(),
        Error::InvalidCertificate(rustls::CertificateError::BadSignature) => {
            "tls: invalid signature by the peer's certificate".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

/// What kind of failure an error of the protocol is; verdicts on certificates are not among them.
fn reason(error: &Error) -> HandshakeFailure {
    match error {
        Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
        Error::AlertReceived(_)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            HandshakeFailure::RefusedByPeer
        }
        Error::PeerIncompatible(_) => HandshakeFailure::Incompatible,
        Error::InvalidCertificate(rustls::CertificateError::BadSignature) => HandshakeFailure::BadSignature,
        Error::InvalidCertificate(_) => HandshakeFailure::MalformedCertificate,
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::DecryptError
        | Error::PeerSentOversizedRecord
        | Error::NoApplicationProtocol => HandshakeFailure::Protocol,
        _ => HandshakeFailure::Internal,
    }
}

const RECORD_HEADER: usize = 5;
const RECORD_ALERT: u8 = 0x15;
const RECORD_HANDSHAKE: u8 = 0x16;

/// A fatal alert before there are keys.
fn plain_alert(description: AlertDescription) -> [u8; 7] {
    [RECORD_ALERT, 3, 3, 0, 2, 2, u8::from(description)]
}

/// The refusal of an old client, with the versions that it can speak, newest first.
fn unsupported_versions(hello: &Hello) -> String {
    const TLS_1_0: u16 = 0x0301;
    let offered = TLS_1_0..=hello.legacy_version.min(0x0302);
    format!(
        "tls: client offered only unsupported versions: {}",
        hex_list(&offered.rev().collect::<Vec<_>>())
    )
}

/// The name that rustls has read, in lower case, with the spelling of the hello if that is known.
fn as_spelled(name: String, spelled: Option<&str>) -> String {
    match spelled {
        Some(spelled) if spelled.eq_ignore_ascii_case(&name) => spelled.to_owned(),
        _ => name,
    }
}

fn hex_list(numbers: &[u16]) -> String {
    let mut list = String::from("[");
    for (index, number) in numbers.iter().enumerate() {
        let blank = if index == 0 { "" } else { " " };
        // Writing to a string can't fail.
        let _infallible = write!(list, "{blank}{number:x}");
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests;
