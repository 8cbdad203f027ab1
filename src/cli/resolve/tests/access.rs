//! Pins, requirements and exclusions.

use super::*;

#[test]
fn pins_become_rules_of_their_own() {
    let pins = [
        "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "sha256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    ];
    let told = |rules: &Rules| rules.pins.iter().map(ToString::to_string).collect::<Vec<_>>();
    let words = |side| format!("--{side}-spki-pin={} --{side}-spki-pin={}", pins[0], pins[1]);
    let Mode::Server { client_auth, .. } = &tunnel(&format!("{SERVER} --keystore=s {}", words("allow"))).mode
    else {
        panic!("a client")
    };
    let ClientAuth::Required(rules) = client_auth else {
        panic!("authentication is off")
    };
    assert_eq!(told(rules), pins);
    assert!(!rules.all);
    // Its key is the server's name.
    let nameless = "client --listen=localhost:1 --target=:2 --disable-authentication";
    let Mode::Client { server_name, verify } = &tunnel(&format!("{nameless} {}", words("verify"))).mode
    else {
        panic!("a server")
    };
    assert_eq!(told(verify), pins);
    assert!(!verify.all);
    assert_eq!(server_name.text, "");
}

#[test]
fn requirements_and_exclusions_narrow_the_rules_of_both_modes() {
    let words = "--require-cn=a --require-ou=b --require-ou=c --require-dns=d --require-ip=::1 --require-uri=e://* \
                 --deny-cn=f --deny-ou=g --deny-dns=h --deny-ip=1.2.3.4 --deny-uri=i://** --deny-serial=0x1F \
                 --deny-spki-pin=sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let server = tunnel(&format!("{SERVER} --keystore=s --allow-all {words}"));
    let client = tunnel(&format!("{CLIENT} --keystore=s {words}"));
    for tunnel in [server, client] {
        let rules = match &tunnel.mode {
            Mode::Server {
                client_auth: ClientAuth::Required(rules),
                ..
            } => rules,
            Mode::Server { .. } => panic!("authentication is off"),
            Mode::Client { verify, .. } => verify,
        };
        assert!(rules.all);
        let (required, denied) = (&rules.required, &rules.denied);
        assert_eq!(required.common_names, ["a"]);
        assert_eq!(required.organizational_units, ["b", "c"]);
        assert_eq!(required.dns_names, ["d"]);
        assert_eq!(required.ip_addresses.len(), 1);
        assert_eq!(required.uris.len(), 1);
        assert_eq!(denied.common_names, ["f"]);
        assert_eq!(denied.organizational_units, ["g"]);
        assert_eq!(denied.dns_names, ["h"]);
        assert_eq!(denied.ip_addresses.len(), 1);
        assert_eq!(denied.uris[0].text(), "i://**");
        assert_eq!(denied.serials[0].to_string(), "1F");
        assert_eq!(denied.pins.len(), 1);
    }
}

#[test]
fn requirements_and_exclusions_that_cannot_work_are_refused() {
    let without = "--require-* and --deny-* flags need client certificates, which --disable-authentication does \
                   without";
    let pin = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let pinned = |side: &str| {
        format!(
            "--require-* flags are mutually exclusive with --{side}-spki-pin: without a chain to an authority the \
             names in a certificate prove nothing"
        )
    };
    let none = "at least one access control flag (--allow-{all,cn,ou,dns,uri,spki-pin}, or OPA flags, or \
                --disable-authentication) is required";
    let (allow, verify) = (pinned("allow"), pinned("verify"));
    assert_refused(
        &format!("{SERVER} --keystore=s"),
        &[
            ("--require-ou=x --deny-cn=y", none),
            ("--disable-authentication --require-ou=x", without),
            ("--disable-authentication --deny-serial=1", without),
            (&format!("--allow-spki-pin={pin} --require-ou=x"), &allow),
            (
                "--allow-all --deny-cn=",
                "--deny-cn with an empty value denies nobody: give a name, or leave the flag out",
            ),
            (
                "--allow-all --deny-uri=",
                "invalid URI pattern in --deny-uri flag (input pattern was empty string)",
            ),
            (
                "--allow-all --require-uri=a*",
                "invalid URI pattern in --require-uri flag (wildcard '*' can only appear between two separators)",
            ),
            (
                "--allow-all --deny-serial=",
                "--deny-serial: invalid serial number \"\": give hexadecimal digits as openssl x509 -serial prints \
                 them",
            ),
            (
                "--allow-all --deny-spki-pin=x",
                "--deny-spki-pin: invalid pin \"x\": expected format <algo>:<base64-digest>",
            ),
        ],
    );
    assert_refused(
        &format!("{CLIENT} --disable-authentication"),
        &[
            (&format!("--verify-spki-pin={pin} --require-cn=x"), &verify),
            (
                "--deny-dns=",
                "--deny-dns with an empty value denies nobody: give a name, or leave the flag out",
            ),
        ],
    );
    // A client without a certificate of its own checks the server's all the same.
    let client = run(&format!(
        "{CLIENT} --disable-authentication --deny-dns=x --require-ou="
    ));
    assert!(client.config.is_ok());
    assert_eq!(
        client.warnings,
        ["--require-ou with an empty value matches nobody"]
    );
    let client = run(&format!(
        "{CLIENT} --disable-authentication --require-cn=a --require-cn=a --require-cn=b"
    ));
    assert_eq!(
        client.warnings,
        ["--require-cn names several common names: nobody has more than one, so nobody gets in"]
    );
}
