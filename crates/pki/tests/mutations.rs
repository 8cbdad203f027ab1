//! Bytes that have been tampered with: nothing panics, and nothing forged is believed.

mod forge;

use std::sync::LazyLock;
use std::time::Duration;

use forge::{CLIENT_AUTH, DNS, IP, SERVER_AUTH, URI, authority, leaf, name};
use ghostunnel_pki::{Certificate, PathRequest, TrustAnchors, Usage, validate};
use proptest::prelude::*;
use rustls_pki_types::UnixTime;

/// Leaf, intermediate, anchor, with all sorts of extensions.
static CHAIN: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let policy: &[u8] = &[0x2a, 3, 4];
    let root = authority("root", 1)
        .key_ids(&[1], &[])
        .constraints(&[(DNS, b"example"), (IP, &[0; 8])], &[]);
    let middle = authority("middle", 2)
        .key_ids(&[2], &[1])
        .usages(&[CLIENT_AUTH])
        .policies(&[policy])
        .constraints(&[(URI, b"td.example")], &[(DNS, b"no.example")]);
    let leaf = leaf("client", 3)
        .key_ids(&[3], &[2])
        .usages(&[CLIENT_AUTH])
        .policies(&[policy])
        .names(&[
            (DNS, b"a.example"),
            (IP, &[10, 0, 0, 1]),
            (URI, b"spiffe://td.example/a"),
        ]);
    [
        leaf.der(&name(&["middle"]), 2),
        middle.der(&name(&["root"]), 1),
        root.der(&name(&["root"]), 1),
    ]
});

fn chain() -> [Vec<u8>; 3] {
    CHAIN.clone()
}

/// The chain that is found for these certificates, all of which the peer sent.
fn path(presented: &[Certificate], anchor: &Certificate, usage: Usage) -> Option<Vec<Certificate>> {
    let request = PathRequest {
        presented,
        anchors: &TrustAnchors::new(vec![anchor.clone()]),
        time: UnixTime::since_unix_epoch(Duration::from_secs(1_795_564_800)),
        usage,
        server_name: None,
    };
    validate(&request).ok().map(|path| path.chain().to_vec())
}

#[test]
fn the_chain_holds_as_it_is() {
    let [leaf, middle, root] = chain().map(|der| forge::parsed(&der));
    let presented = [leaf.clone(), middle.clone()];
    assert_eq!(
        path(&presented, &root, Usage::ClientAuth),
        Some(vec![leaf, middle, root.clone()])
    );
    assert_eq!(path(&presented, &root, Usage::ServerAuth), None);
}

/// Where to hit (as a fraction of the certificate) and what to put there.
fn damage() -> impl Strategy<Value = Vec<(usize, prop::sample::Index, u8)>> {
    prop::collection::vec((0usize..2, any::<prop::sample::Index>(), 1u8..), 1..4)
}

fn damaged(damage: &[(usize, prop::sample::Index, u8)]) -> Vec<Vec<u8>> {
    let [leaf, middle, _] = chain();
    let mut presented = vec![leaf, middle];
    for (which, at, bits) in damage {
        let der = &mut presented[*which];
        let at = at.index(der.len());
        der[at] ^= bits;
    }
    presented
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_certificates_never_become_part_of_a_chain(damage in damage()) {
        let [leaf, middle, root] = chain();
        let root = forge::parsed(&root);
        let presented = damaged(&damage);
        // As the original handshake does, but also with whatever still parses.
        let parsed: Vec<_> = presented.iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        let genuine = [leaf, middle, root.der().to_vec()];
        if let Some(chain) = path(&parsed, &root, Usage::ClientAuth) {
            for certificate in chain {
                prop_assert!(genuine.iter().any(|der| der == certificate.der()), "forged: {certificate:?}");
            }
        }
        prop_assert_eq!(path(&parsed, &root, Usage::ServerAuth), None);
    }

    #[test]
    fn a_stranger_stays_a_stranger(damage in damage()) {
        let stranger = authority("root", 9).self_signed(9);
        let parsed: Vec<_> = damaged(&damage).iter().filter_map(|der| Certificate::parse(der).ok()).collect();
        prop_assert_eq!(path(&parsed, &stranger, Usage::Any), None);
    }

    #[test]
    fn damaged_anchors_do_not_panic(at in any::<prop::sample::Index>(), bits in 1u8..) {
        let [leaf, middle, mut root] = chain();
        let at = at.index(root.len());
        root[at] ^= bits;
        if let Ok(root) = Certificate::parse(&root) {
            let _ = path(&[forge::parsed(&leaf), forge::parsed(&middle)], &root, Usage::Any);
            let _ = path(std::slice::from_ref(&root), &root, Usage::Any);
        }
    }

    #[test]
    fn any_bytes_are_a_certificate_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Certificate::parse(&bytes);
        let _ = Certificate::parse(&forge::tlv(0x30, &bytes));
        let _ = Certificate::parse(&forge::tlv(0x30, &forge::tlv(0x30, &bytes)));
    }

    #[test]
    fn any_extension_value_is_understood_or_refused(
        number in 14u8..56,
        value in prop::collection::vec(prop_oneof![Just(0x30u8), Just(0), Just(1), Just(2), Just(0xa0), any::<u8>()], 0..24),
    ) {
        let draft = leaf("client", 3).extension(number, true, &value).usages(&[SERVER_AUTH]);
        if let Ok(certificate) = Certificate::parse(&draft.der(&name(&["root"]), 1)) {
            let root = authority("root", 1).self_signed(1);
            let _ = path(std::slice::from_ref(&certificate), &root, Usage::ServerAuth);
            let _ = path(std::slice::from_ref(&certificate), &certificate, Usage::ServerAuth);
        }
    }
}
