use super::super::options::{CipherGroups, Options};
use super::*;

const HYBRID: u16 = 0x11ec;
const X25519: u16 = 0x001d;
const P256: u16 = 0x0017;
const P384: u16 = 0x0018;
const P521: u16 = 0x0019;
const X448: u16 = 0x001e;

fn protocol(newest: Newest) -> Protocol {
    let groups = CipherGroups::parse("AES,CHACHA", false).expect("two groups");
    Protocol::new(Options { newest, groups })
}

fn hello(versions: &[u16], groups: &[u16], shares: &[u16]) -> Hello {
    Hello {
        legacy_version: TLS_1_2,
        suites: vec![0x1301, 0xc02b],
        versions: versions.to_vec(),
        groups: groups.to_vec(),
        shares: shares.to_vec(),
        ..Hello::default()
    }
}

#[test]
fn the_group_is_the_hybrid_or_one_with_a_share_or_the_first() {
    const NEW: &[u16] = &[TLS_1_3, TLS_1_2];
    const OLD: &[u16] = &[TLS_1_2];
    // `None` where rustls chooses well by itself, or finds nothing.
    for (versions, groups, shares, expected) in [
        (NEW, &[HYBRID, X25519, P256][..], &[HYBRID, X25519][..], None),
        (NEW, &[X25519, P256], &[X25519], None),
        (NEW, &[X25519, HYBRID], &[X25519], Some(HYBRID)),
        (NEW, &[P256, X448, HYBRID], &[], Some(HYBRID)),
        (NEW, &[P256, X25519], &[P256], None),
        (NEW, &[P256, X25519], &[X25519], Some(X25519)),
        (NEW, &[P256, X25519], &[], Some(X25519)),
        (NEW, &[P521, P384], &[P521, P384], Some(P384)),
        (NEW, &[P521, X448], &[X448], None),
        (NEW, &[X448], &[X448], None),
        (NEW, &[], &[X25519], None),
        // A share of a group that is not listed is none.
        (NEW, &[P256, P384], &[X25519], None),
        (OLD, &[P256, X25519], &[], Some(X25519)),
        (OLD, &[HYBRID, P256, X25519], &[], Some(X25519)),
        (OLD, &[HYBRID, X25519], &[], None),
        (&[], &[P521, P384], &[], Some(P384)),
    ] {
        let hello = hello(versions, groups, shares);
        let chosen = protocol(Newest::Tls13).provider_for(&hello).map(|provider| {
            let names = provider.kx_groups.iter().map(|group| u16::from(group.name()));
            names.collect::<Vec<_>>()
        });
        assert_eq!(chosen, expected.map(|group| vec![group]), "{hello:x?}");
    }
    // Without TLS 1.3 there is no hybrid to prefer.
    let hello = hello(NEW, &[P256, HYBRID, X25519], &[P256, HYBRID]);
    let provider = protocol(Newest::Tls12).provider_for(&hello).expect("X25519");
    assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519);
}

#[test]
fn chacha_comes_first_for_clients_that_list_it_first() {
    let order = |suites: &[u16]| {
        let hello = Hello {
            suites: suites.to_vec(),
            ..hello(&[TLS_1_3], &[X25519], &[X25519])
        };
        let provider = protocol(Newest::Tls13).provider_for(&hello)?;
        let suites = provider.cipher_suites.iter();
        Some(suites.map(|suite| u16::from(suite.suite())).collect::<Vec<_>>())
    };
    let chacha = Some(vec![
        0xcca9, 0xcca8, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0x1303, 0x1301, 0x1302,
    ]);
    for (suites, expected) in [
        (&[0x1303, 0x1301][..], &chacha),
        (&[0xcca8, 0xc02f], &chacha),
        (&[0x0a0a, 0xc013, 0xcca9, 0x1302], &chacha),
        (&[0x1301, 0x1303, 0xcca9], &None),
        (&[0xc030, 0xcca8], &None),
        // There is nothing to choose between.
        (&[0x1303], &None),
        (&[0xc02f], &None),
        (&[], &None),
    ] {
        assert_eq!(&order(suites), expected, "{suites:x?}");
    }
}

#[test]
fn a_fallback_is_inappropriate_where_the_client_could_do_better() {
    for (newest, versions, legacy_version, suites, expected) in [
        (Newest::Tls13, &[][..], TLS_1_2, &[FALLBACK][..], true),
        (Newest::Tls13, &[TLS_1_2], TLS_1_2, &[0xc02b, FALLBACK], true),
        (Newest::Tls13, &[TLS_1_3, TLS_1_2], TLS_1_2, &[FALLBACK], false),
        (Newest::Tls13, &[], TLS_1_2, &[0xc02b], false),
        // Nothing newer is on here.
        (Newest::Tls12, &[], TLS_1_2, &[FALLBACK], false),
        // Too old in any case, which is a refusal of its own.
        (Newest::Tls13, &[], 0x0302, &[FALLBACK], false),
    ] {
        let hello = Hello {
            suites: suites.to_vec(),
            legacy_version,
            ..hello(versions, &[X25519], &[])
        };
        let is_refused = protocol(newest).is_inappropriate_fallback(&hello);
        assert_eq!(is_refused, expected, "{newest:?} {hello:x?}");
    }
}
