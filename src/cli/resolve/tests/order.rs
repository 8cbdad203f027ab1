//! URI patterns, and which of several refusals is the one reported.

use super::*;

#[test]
fn uri_patterns_are_checked_at_once() {
    let empty = "input pattern was empty string";
    let segment = "wildcard '*' can only appear between two separators";
    let end = "wildcard '**' can only appear at end of pattern";
    let text = |side: &str, reason| format!("invalid URI pattern in --{side}-uri flag ({reason})");
    assert_refused(
        &format!("{SERVER} --keystore=s"),
        &[
            ("--allow-uri=", &text("allow", empty)),
            ("--allow-uri=x://a*", &text("allow", segment)),
            ("--allow-uri=x://y --allow-uri=x://**/y", &text("allow", end)),
        ],
    );
    assert_refused(
        &format!("{CLIENT} --keystore=s"),
        &[("--verify-uri-san=a*", &text("verify", segment))],
    );
}

#[test]
fn checks_are_made_in_the_order_that_users_know() {
    let (bad_listen, bad_target) = ("--listen=foo", "--target=foo --unsafe-target");
    assert_refused(
        &format!("server {bad_listen}"),
        &[
            (
                bad_target,
                "at least one of --keystore, --cert/--key, --auto-acme-cert, or --keychain-identity/issuer (if \
                 supported) flags is required",
            ),
            (
                &format!("{bad_target} --keystore=s"),
                "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
                 --disable-authentication) is required",
            ),
            (
                &format!("{bad_target} --keystore=s --allow-uri="),
                "invalid --target address: address foo: missing port in address",
            ),
            (
                &format!("{bad_target} --keystore=s --allow-uri= --proxy-protocol --proxy-protocol-mode=tls"),
                "invalid --target address: address foo: missing port in address",
            ),
            (
                "--target=unix:x --keystore=s --allow-uri= --proxy-protocol --proxy-protocol-mode=tls",
                "--proxy-protocol and --proxy-protocol-mode are mutually exclusive",
            ),
            (
                "--target=unix:x --keystore=s --allow-uri=",
                "invalid URI pattern in --allow-uri flag (input pattern was empty string)",
            ),
            (
                "--target=unix:x --keystore=s --allow-all",
                "invalid --listen address: address foo: missing port in address",
            ),
        ],
    );
    assert_refused(
        "client --keystore=s --verify-uri=",
        &[
            (
                "--listen=foo --target=foo",
                "--listen must be unix:PATH, localhost:PORT, systemd:NAME or launchd:NAME (unless --unsafe-listen is \
                 set)",
            ),
            (
                "--listen=foo --unsafe-listen --target=foo",
                "invalid --target address: address foo: missing port in address",
            ),
            (
                "--listen=foo --unsafe-listen --target=foo:1",
                "invalid URI pattern in --verify-uri flag (input pattern was empty string)",
            ),
        ],
    );
}
