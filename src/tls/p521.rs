//! Key exchange on P-521, which rustls does not bring along for this cryptography library.

use aws_lc_rs::agreement::{ECDH_P521, EphemeralPrivateKey, PublicKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// An uncompressed point: 4, then two coordinates of 521 bits. No other form may be used (RFC
/// 8446, section 4.2.8.2; RFC 8422, section 5.1.2), and the library would take others.
const POINT: usize = 1 + 2 * 66;
const UNCOMPRESSED: u8 = 4;

/// secp521r1.
#[derive(Debug)]
pub(super) struct P521;

impl SupportedKxGroup for P521 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private = EphemeralPrivateKey::generate(&ECDH_P521, &SystemRandom::new());
        let private = private.map_err(|_| GetRandomFailed)?;
        let public = private.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { private, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Exchange {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        if peer.len() != POINT || peer.first() != Some(&UNCOMPRESSED) {
            return Err(invalid());
        }
        // Whether the point is on the curve is checked in here.
        let peer = UnparsedPublicKey::new(&ECDH_P521, peer);
        agree_ephemeral(self.private, peer, invalid(), |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Box<dyn ActiveKeyExchange> {
        P521.start().expect("there is randomness")
    }

    #[test]
    fn both_sides_come_to_the_same_secret() {
        let (left, right) = (start(), start());
        let keys = [&left, &right].map(|side| side.pub_key().to_vec());
        assert_eq!(keys[0].len(), POINT);
        let secrets = [left.complete(&keys[1]), right.complete(&keys[0])];
        let [left, right] = secrets.map(|secret| secret.expect("good points"));
        assert_eq!(left.secret_bytes(), right.secret_bytes());
        assert_eq!(left.secret_bytes().len(), 66);
    }

    #[test]
    fn points_in_other_forms_or_off_the_curve_are_refused() {
        let good = start().pub_key().to_vec();
        let mut compressed = good[..67].to_vec();
        compressed[0] = 2;
        let mut hybrid = good.clone();
        hybrid[0] = 6 + (good[POINT - 1] & 1);
        let mut off = good.clone();
        off[POINT - 1] ^= 1;
        let longer = [good.as_slice(), &[0]].concat();
        for point in [&[][..], &[0], &compressed, &hybrid, &off, &longer, &[4; POINT]] {
            assert!(start().complete(point).is_err(), "{point:?}");
        }
        assert!(start().complete(&good).is_ok());
    }
}
