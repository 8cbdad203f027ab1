//! `--require-*` and `--deny-*`: what narrows the rules that admit, in both modes.

use ghostunnel_testing::{Exit, Issued, Pki, Request, ReservedPort};

use crate::access::{KNOWN_AS, accepts};
use crate::server::Served;
use crate::support::server;

/// Checks who is admitted with these flags, by a server tunnel that also has `admitting`, and by
/// a client tunnel.
fn assert_narrowed(admitting: &str, flags: &[&str], admitted: &[Request], refused: &[Request]) {
    let served = Served::start(Pki::new(), &[&[admitting], flags].concat());
    let pki = Pki::new();
    let cases = admitted.iter().map(|request| (request, true));
    for (request, expected) in cases.chain(refused.iter().map(|request| (request, false))) {
        let request = request.clone().dns(KNOWN_AS);
        let identity = served.pki.authority.issue(&request);
        assert_eq!(served.admits(&identity), expected, "{flags:?} and {request:?}");
        let identity = pki.authority.issue(&request);
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        assert_eq!(
            accepts(&pki, &identity, &flags),
            expected,
            "{flags:?} and {request:?}"
        );
    }
}

fn peer() -> Request {
    Request::named("peer").organizational_unit("one")
}

#[test]
fn whom_an_exclusion_names_stays_out_whatever_admits_it() {
    assert_narrowed(
        "--allow-all",
        &[
            "--deny-cn=evil",
            "--deny-ou=two",
            "--deny-dns=Evil.Test",
            "--deny-ip=192.0.2.1",
            "--deny-uri=spiffe://evil/**",
            "--deny-serial=1f:a0",
        ],
        &[
            peer(),
            peer().serial(&[0x1f, 0xa1]),
            peer().uri("spiffe://good/evil"),
            Request::named("EVIL"),
            peer().dns("not.evil.test"),
        ],
        &[
            Request::named("evil"),
            peer().organizational_unit("two"),
            peer().dns("evil.TEST"),
            peer().ip([192, 0, 2, 1]),
            peer().uri("SPIFFE://EVIL/a/b"),
            peer().serial(&[0x1f, 0xa0]),
        ],
    );
}

#[test]
fn an_exclusion_wins_over_a_name_on_a_list() {
    assert_narrowed(
        "--allow-cn=peer",
        &["--deny-ou=one"],
        &[Request::named("peer")],
        &[peer()],
    );
}

#[test]
fn requirements_hold_all_together_and_beside_the_lists() {
    assert_narrowed(
        "--allow-all",
        &[
            "--require-ou=one",
            "--require-ou=two",
            "--require-uri=spiffe://td/**",
        ],
        &[peer().organizational_unit("two").uri("spiffe://td/a")],
        &[
            peer().uri("spiffe://td/a"),
            peer().organizational_unit("two"),
            peer().organizational_unit("two").uri("spiffe://other/a"),
            Request::named("x").uri("spiffe://td/a"),
        ],
    );
    assert_narrowed(
        "--allow-cn=peer",
        &["--require-ou=one"],
        &[peer()],
        &[Request::named("peer")],
    );
    let served = Served::start(Pki::new(), &["--allow-cn=peer", "--require-ou=one"]);
    let other = Request::named("other").organizational_unit("one");
    assert!(!served.admits(&served.pki.authority.issue(&other)));
}

#[test]
fn a_key_can_be_excluded_also_where_keys_admit() {
    let pki = Pki::new();
    let served = Served::start(pki, &["--allow-all"]);
    let identity = served.pki.authority.issue(&peer());
    let Some(pin) = crate::pins::pin(&identity, "sha256") else {
        return;
    };
    let deny = format!("--deny-spki-pin={pin}");
    let shows = |flags: &[&str], identity: &Issued| Served::start(Pki::new(), flags).admits(identity);
    let allow = format!("--allow-spki-pin={pin}");
    assert!(shows(&[&allow], &identity));
    assert!(!shows(&[&allow, &deny], &identity));

    let mut command = server(&served.pki, &ReservedPort::new(), &"localhost:1");
    let output = command.args(["--allow-all", "--deny-ou="]).run();
    assert_eq!(output.exit, Exit::Code(1));
    assert_eq!(
        output.stderr,
        "error: --deny-ou with an empty value denies nobody: give a name, or leave the flag out\n"
    );
}
