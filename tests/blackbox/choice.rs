//! What a server tunnel agrees on with clients of every taste: suite, key exchange group, and
//! no older version than both can.

use ghostunnel_testing::{KeyKind, NamedGroup, Pki, Version};

use crate::server::Served;

/// A tunnel with this kind of key that admits the usual client.
fn served(key: KeyKind, flags: &[&str]) -> Served {
    let mut pki = Pki::new();
    let own = pki.authority.issue(&Pki::server_request().key(key));
    pki.server_files = own.write_to(pki.dir(), "own");
    Served::start(pki, &[&["--allow-cn=client"], flags].concat())
}

#[test]
fn chacha_is_chosen_for_clients_that_list_it_before_aes() {
    let served = served(KeyKind::Rsa2048, &[]);
    const AES: &str = "TLS_AES_128_GCM_SHA256";
    const LONG_AES: &str = "TLS_AES_256_GCM_SHA384";
    const CHACHA: &str = "TLS_CHACHA20_POLY1305_SHA256";
    for (offer, expected) in [
        ([AES, LONG_AES, CHACHA], AES),
        ([LONG_AES, CHACHA, AES], AES),
        ([CHACHA, LONG_AES, AES], CHACHA),
        ([CHACHA, AES, LONG_AES], CHACHA),
    ] {
        let options = ["-tls1_3", "-ciphersuites", &offer.join(":")];
        let Some(chosen) = served.chosen_suite(&options) else {
            return;
        };
        assert_eq!(chosen.as_deref(), Some(expected), "{offer:?}");
    }
    const AES_12: &str = "ECDHE-RSA-AES128-GCM-SHA256";
    const LONG_AES_12: &str = "ECDHE-RSA-AES256-GCM-SHA384";
    const CHACHA_12: &str = "ECDHE-RSA-CHACHA20-POLY1305";
    for (offer, expected) in [
        ([LONG_AES_12, CHACHA_12, AES_12], AES_12),
        ([CHACHA_12, LONG_AES_12, AES_12], CHACHA_12),
    ] {
        let chosen = served.chosen_suite(&["-tls1_2", "-cipher", &offer.join(":")]);
        assert_eq!(chosen.flatten().as_deref(), Some(expected), "{offer:?}");
    }
}

#[test]
fn the_hybrid_is_chosen_whenever_the_client_lists_it() {
    use NamedGroup as Group;
    let served = served(KeyKind::P256, &[]);
    for (groups, expected, is_retried) in [
        (
            &[Group::X25519MLKEM768, Group::X25519][..],
            Group::X25519MLKEM768,
            false,
        ),
        (
            &[Group::X25519, Group::X25519MLKEM768],
            Group::X25519MLKEM768,
            true,
        ),
        (
            &[Group::secp256r1, Group::secp384r1, Group::X25519MLKEM768],
            Group::X25519MLKEM768,
            true,
        ),
        (&[Group::X25519, Group::secp256r1], Group::X25519, false),
        // There is a share for the first.
        (&[Group::secp384r1, Group::X25519], Group::secp384r1, false),
    ] {
        let client = served.client().identity(&served.pki.client).groups(groups);
        let facts = served.greet(&client).expect("admitted").facts();
        assert_eq!(
            (facts.group, facts.is_retried),
            (Some(expected), is_retried),
            "{groups:?}"
        );
    }
    // In TLS 1.2 there is no hybrid, and the server's order counts.
    let client = served.client().identity(&served.pki.client);
    let client = client.groups(&[Group::secp384r1, Group::secp256r1, Group::X25519]);
    let facts = served
        .greet(&client.version(Version::V12))
        .expect("admitted")
        .facts();
    assert_eq!(facts.group, Some(Group::X25519));
}

#[test]
fn a_client_that_falls_back_to_tls_1_2_is_told_that_it_can_do_better() {
    let current = served(KeyKind::P256, &[]);
    for (options, is_refused) in [
        (&["-tls1_2", "-fallback_scsv"][..], true),
        (&["-tls1_2"], false),
        (&["-fallback_scsv"], false),
        (&["-tls1_3", "-fallback_scsv"], false),
    ] {
        let Some(report) = current.handshake_report(options) else {
            return;
        };
        let alert = report.stderr.contains("SSL alert number 86");
        assert_eq!(alert, is_refused, "{options:?} {report:?}");
        assert_eq!(!report.stdout.contains("Cipher is (NONE)"), !is_refused);
    }
    current
        .process
        .wait_for_line(": tls: client using inappropriate protocol fallback");
    // Where 1.2 is the newest, the client has not fallen back at all.
    let older = served(KeyKind::P256, &["--max-tls-version=TLS1.2"]);
    let report = older.handshake_report(&["-tls1_2", "-fallback_scsv"]);
    let report = report.expect("OpenSSL is there");
    assert!(report.stdout.contains("New, TLSv1.2, "), "{report:?}");
}
