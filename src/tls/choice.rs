//! What is agreed on with a client: suite and key exchange group, in the server's order.
//!
//! rustls takes the first group of the client's list that it knows, and one order of suites for
//! everybody. Ghostunnel 1.11.1 chooses by an order of its own, takes the post-quantum hybrid
//! whenever the client can, and prefers ChaCha20 for clients that do. So the hello is read first,
//! and where rustls would choose otherwise it is given a configuration that leaves it no other
//! choice.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{NamedGroup, ProtocolVersion};

use super::hello::{Hello, TLS_1_2, TLS_1_3};
use super::options::{Newest, Protocol, is_chacha, prefer_chacha};

/// Sent by clients that have failed with a newer version and try an older one (RFC 7507).
const FALLBACK: u16 = 0x5600;

impl Protocol {
    /// Whether a client that could do better was made to try an older version.
    pub(super) fn is_inappropriate_fallback(&self, hello: &Hello) -> bool {
        self.newest == Newest::Tls13
            && hello.suites.contains(&FALLBACK)
            && !hello.offers(TLS_1_3)
            && hello.offers(TLS_1_2)
    }

    /// The provider for this client, where the usual one would not do.
    pub(super) fn provider_for(&self, hello: &Hello) -> Option<Arc<CryptoProvider>> {
        let group = self.group_for(hello);
        let wants_chacha = self.wants_chacha(hello);
        if group.is_none() && !wants_chacha {
            return None;
        }
        let mut provider = CryptoProvider::clone(&self.provider);
        if let Some(group) = group {
            provider.kx_groups = vec![group];
        }
        if wants_chacha {
            prefer_chacha(&mut provider.cipher_suites);
        }
        Some(Arc::new(provider))
    }

    /// The group to agree on, where rustls would take another one or none.
    fn group_for(&self, hello: &Hello) -> Option<&'static dyn SupportedKxGroup> {
        let is_13 = self.newest == Newest::Tls13 && hello.offers(TLS_1_3);
        let version = if is_13 {
            ProtocolVersion::TLSv1_3
        } else {
            ProtocolVersion::TLSv1_2
        };
        let known = self.provider.kx_groups.iter().copied();
        let usable = || known.clone().filter(|group| group.usable_for_version(version));
        let listed = |list: &[u16], group: NamedGroup| list.contains(&u16::from(group));
        let mut common = usable().filter(|group| listed(&hello.groups, group.name()));
        let first = common.next()?;
        let chosen = if is_13 && first.name() != NamedGroup::X25519MLKEM768 {
            // Without a share there is one more round trip.
            std::iter::once(first)
                .chain(common)
                .find(|group| listed(&hello.shares, group.name()))
                .unwrap_or(first)
        } else {
            first
        };
        let rustls_takes = |client: &u16| usable().find(|group| u16::from(group.name()) == *client);
        let usual = hello.groups.iter().find_map(rustls_takes)?;
        (usual.name() != chosen.name()).then_some(chosen)
    }

    /// Whether this client prefers ChaCha20, in spite of which the usual order has AES first.
    fn wants_chacha(&self, hello: &Hello) -> bool {
        let first = |wanted: fn(u16) -> bool| hello.suites.iter().position(|suite| wanted(*suite));
        match (first(is_chacha), first(is_aes_gcm)) {
            (Some(chacha), Some(aes)) => chacha < aes,
            _ => false,
        }
    }
}

/// The suites with AES-GCM that are known here.
fn is_aes_gcm(suite: u16) -> bool {
    matches!(suite, 0x1301 | 0x1302 | 0xc02b | 0xc02c | 0xc02f | 0xc030)
}

#[cfg(test)]
mod tests;
