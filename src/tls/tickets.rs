//! Session tickets: a resumed session is authorized again.
//!
//! rustls resumes a session without asking the verifier, for as long as the ticket lives. So a
//! ticket carries, sealed together with rustls' own state, the chain that its owner showed, and
//! when it is opened that chain is judged by the same function and the same rules as in a full
//! handshake of this moment. A ticket that is declined costs the client nothing but a full
//! handshake, and that says why it is refused.
//!
//! The keys belong to one configuration and die with it: after a reload nobody resumes. Sessions
//! are in the tickets only, none in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;

use super::verify::{Conditions, Verdict};

/// How long a client can do without proving once more that it has its key: every resumption
/// gives it a new ticket, but not a new beginning. rustls' ticketer tells clients the same.
const LONGEST_SESSION: Duration = Duration::from_secs(12 * 3600);

/// The most a ticket holds. The chain is in it twice, since rustls' state has it too; clients send
/// the ticket in their hello, before anything is known about them.
const LONGEST_CONTENTS: usize = 8 * 1024;

/// What a ticket is longer by than its contents: name of the key, IV, padding and MAC.
const SEAL: usize = 16 + 16 + 16 + 32;

/// The keys that tickets of one configuration are sealed with.
#[derive(Debug)]
pub(super) struct TicketKeys(Arc<dyn ProducesTickets>);

impl TicketKeys {
    /// New random keys, exchanged every six hours. Without randomness there are no tickets.
    pub(super) fn generate() -> Option<Self> {
        Ticketer::new().ok().map(Self)
    }

    /// For one connection. Without `conditions` the peer was not asked who it is.
    pub(super) fn ticketer(
        &self,
        conditions: Option<Arc<Conditions>>,
        verdict: Arc<Verdict>,
    ) -> Arc<dyn ProducesTickets> {
        Arc::new(ConnectionTicketer {
            keys: Arc::clone(&self.0),
            conditions,
            verdict,
            has_judged: AtomicBool::new(false),
        })
    }
}

/// Seals and opens the tickets of one connection.
#[derive(Debug)]
struct ConnectionTicketer {
    keys: Arc<dyn ProducesTickets>,
    conditions: Option<Arc<Conditions>>,
    verdict: Arc<Verdict>,
    /// A hello may offer many tickets, and judging one takes signatures to be verified: one is
    /// enough.
    has_judged: AtomicBool,
}

impl ProducesTickets for ConnectionTicketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.keys.lifetime()
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let proof = match &self.conditions {
            None => Proof::none(),
            Some(_) => self.verdict.proof()?,
        };
        let contents = proof.write_before(state)?;
        self.keys.encrypt(&contents)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST_CONTENTS + SEAL {
            return None;
        }
        let contents = self.keys.decrypt(ticket)?;
        let (proof, state) = Proof::read_before(&contents)?;
        if self.has_judged.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.admit(proof)?;
        Some(state.to_vec())
    }
}

impl ConnectionTicketer {
    /// Judges the owner of a ticket by the rules of this moment.
    fn admit(&self, proof: Proof) -> Option<()> {
        let Some(conditions) = &self.conditions else {
            return proof.chain.is_empty().then_some(());
        };
        let now = UnixTime::now();
        let age = now.as_secs().checked_sub(proof.given_at.as_secs())?;
        if age >= LONGEST_SESSION.as_secs() {
            return None;
        }
        let (leaf, others) = proof.chain.split_first()?;
        let admitted = conditions.judge(leaf, others, now).ok()?;
        self.verdict.record_resumed(admitted, proof);
        Some(())
    }
}

/// The chain with which a client has proved who it is, and when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) given_at: UnixTime,
}

impl Proof {
    /// Of a client that was not asked.
    fn none() -> Self {
        Self {
            chain: Vec::new(),
            given_at: UnixTime::since_unix_epoch(Duration::ZERO),
        }
    }

    /// Puts it before rustls' state; nothing if that is too much for a ticket.
    fn write_before(&self, state: &[u8]) -> Option<Vec<u8>> {
        let length: usize = self.chain.iter().map(|certificate| 2 + certificate.len()).sum();
        let total = TIME + COUNT + length + state.len();
        if total > LONGEST_CONTENTS {
            return None;
        }
        let mut contents = Vec::with_capacity(total);
        contents.extend(self.given_at.as_secs().to_be_bytes());
        contents.push(u8::try_from(self.chain.len()).ok()?);
        for certificate in &self.chain {
            contents.extend(u16::try_from(certificate.len()).ok()?.to_be_bytes());
            contents.extend_from_slice(certificate);
        }
        contents.extend_from_slice(state);
        Some(contents)
    }

    /// Takes it off what was written, and leaves rustls' state.
    fn read_before(mut contents: &[u8]) -> Option<(Self, &[u8])> {
        let given_at = u64::from_be_bytes(*contents.split_off(..TIME)?.as_array()?);
        let count = *contents.split_off_first()?;
        let chain = (0..count)
            .map(|_| {
                let length = u16::from_be_bytes(*contents.split_off(..2)?.as_array()?);
                let certificate = contents.split_off(..usize::from(length))?;
                Some(CertificateDer::from(certificate.to_vec()))
            })
            .collect::<Option<_>>()?;
        let proof = Self {
            chain,
            given_at: UnixTime::since_unix_epoch(Duration::from_secs(given_at)),
        };
        Some((proof, contents))
    }
}

const TIME: usize = 8;
const COUNT: usize = 1;

#[cfg(test)]
mod tests;
