//! Many chains that somebody has tampered with, most of them signed anew, so that the damage
//! gets behind the signatures: nothing panics, and no search costs more than its budget.
//!
//! `GHOSTUNNEL_MUTATIONS` is the number of chains; they are the same on every run.

mod forge;

use std::time::{Duration, Instant};

use forge::{CLIENT_AUTH, DNS, Draft, IP, POLICY_CONSTRAINTS, URI, authority, leaf, name, sequence, tlv};
use ghostunnel_pki::{Certificate, PathRequest, TrustAnchors, Usage, validate_counting};
use rustls_pki_types::UnixTime;

/// How many chains are tried unless the environment says otherwise.
const FEW: u64 = 3000;

/// Signatures that one search may check.
const BUDGET: u32 = 100;

/// A verdict takes milliseconds; this is for slow machines and debug builds.
const LONGEST: Duration = Duration::from_secs(10);

/// Numbers that look like chance and are the same on every run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }
}

/// A certificate, and the key that its signature should be by.
#[derive(Clone)]
struct Forgery {
    der: Vec<u8>,
    issuer_key: u8,
}

fn forgery(draft: &Draft, issuer: &str, issuer_key: u8) -> Forgery {
    Forgery {
        der: draft.der(&name(&[issuer]), issuer_key),
        issuer_key,
    }
}

/// Leaves, and an authority whose six keys have all signed each other.
fn thicket() -> (Vec<Forgery>, Vec<Forgery>) {
    let policy: &[u8] = &[0x2a, 3, 4];
    let dressed = |draft: Draft| {
        draft.usages(&[CLIENT_AUTH]).policies(&[policy]).names(&[
            (DNS, b"a.example"),
            (IP, &[10, 0, 0, 1]),
            (URI, b"spiffe://td.example/a"),
        ])
    };
    let leaves = (2..8)
        .map(|key| forgery(&dressed(leaf("client", 9)).key_ids(&[9], &[key]), "middle", key))
        .collect();
    let mut authorities = Vec::new();
    for key in 2..8u8 {
        for issuer_key in 1..8u8 {
            let issuer = if issuer_key == 1 { "root" } else { "middle" };
            let plain = authority("middle", key).key_ids(&[key], &[issuer_key]);
            let draft = match (key + issuer_key) % 3 {
                0 => plain.constraints(&[(DNS, b"example"), (IP, &[0; 8])], &[(URI, b"no.example")]),
                1 => plain.policies(&[policy]).extension(
                    POLICY_CONSTRAINTS,
                    true,
                    &sequence(&[tlv(0x80, &[1])]),
                ),
                _ => plain.usages(&[CLIENT_AUTH]),
            };
            authorities.push(forgery(&draft, issuer, issuer_key));
        }
    }
    (leaves, authorities)
}

/// Exchanges some bytes, or none, mostly in the part that is signed, and mostly signs it again.
fn tamper(forgery: &Forgery, chance: &mut Chance) -> Vec<u8> {
    let mut der = forgery.der.clone();
    if chance.below(3) == 0 {
        return der;
    }
    for _ in 0..=chance.below(3) {
        let at = chance.below(der.len());
        der[at] = match chance.below(3) {
            0 => chance.byte(),
            1 => der[at] ^ (1 << chance.below(8)),
            _ => der[chance.below(der.len())],
        };
    }
    if chance.below(5) == 0 {
        return der;
    }
    // Both lengths have two bytes in certificates of this size: the outer header has four bytes,
    // and behind the signed part follow algorithm (7) and signature (67).
    let signed = der.get(4..der.len().saturating_sub(74)).expect("long enough");
    let signature = forge::key(forgery.issuer_key).sign(signed);
    sequence(&[
        signed.to_vec(),
        vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
        tlv(3, &[&[0], signature.as_ref()].concat()),
    ])
}

#[test]
fn tampered_thickets_neither_panic_nor_cost_more_than_their_budget() {
    let count = std::env::var("GHOSTUNNEL_MUTATIONS").map_or(FEW, |number| {
        number.parse().expect("GHOSTUNNEL_MUTATIONS is a number")
    });
    let (leaves, authorities) = thicket();
    let anchors = TrustAnchors::new(vec![authority("root", 1).self_signed(1)]);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut parsed, mut most, mut at_limit) = (0u64, 0usize, 0, 0u64);
    for number in 0..count {
        let mut ders = vec![tamper(&leaves[chance.below(leaves.len())], &mut chance)];
        for _ in 0..chance.below(30) {
            ders.push(tamper(&authorities[chance.below(authorities.len())], &mut chance));
        }
        let presented: Vec<_> = ders
            .iter()
            .filter_map(|der| Certificate::parse(der).ok())
            .collect();
        parsed += presented.len();
        let request = PathRequest {
            presented: &presented,
            anchors: &anchors,
            time: UnixTime::since_unix_epoch(Duration::from_secs(1_795_564_800)),
            usage: [Usage::ClientAuth, Usage::ServerAuth, Usage::Any][chance.below(3)],
            server_name: [None, Some("a.example"), Some("10.0.0.1")][chance.below(3)],
        };
        let (started, mut verified) = (Instant::now(), 0);
        let verdict = validate_counting(&request, &mut verified);
        assert!(verified <= BUDGET, "chain {number}: {verified} signatures");
        assert!(started.elapsed() < LONGEST, "chain {number}: {verdict:?}");
        most = most.max(verified);
        at_limit += u64::from(verified == BUDGET);
        if let Ok(path) = verdict {
            accepted += 1;
            let anchor = path.chain().last().expect("a chain has an anchor");
            assert!(anchors.contains(anchor), "chain {number} ends nowhere");
        }
    }
    println!(
        "{count} chains of {parsed} certificates that parse: {accepted} hold, at most {most} signatures, {at_limit} \
         at the limit"
    );
    // Damage that is never noticed, or always, would prove nothing.
    assert!(
        accepted > count / 100 && accepted < count / 10 * 9,
        "{accepted} hold"
    );
    assert!(
        at_limit > 0,
        "no search came to its limit: at most {most} signatures"
    );
}
