use ghostunnel_testing::{Authority, Request};

use super::*;

/// The certificate of a fixture, as it is shown to policies.
fn shown(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.der", env!("CARGO_MANIFEST_DIR"));
    let der = std::fs::read(path).expect("a fixture");
    document(&Certificate::parse(&der).expect("well formed"))
}

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a fixture");
    crate::json::parse(&text).expect("JSON")
}

#[test]
fn certificates_are_shown_in_full() {
    for name in ["rsa", "ecdsa", "ed25519"] {
        let (shown, golden) = (shown(name), golden(name));
        let (Value::Object(shown), Value::Object(golden)) = (&shown["certificate"], &golden["certificate"])
        else {
            panic!("{name} is not shown as an object");
        };
        for (field, value) in golden.iter() {
            assert_eq!(shown.get(field), Some(value), "{field} of {name}");
        }
        assert_eq!(shown.len(), golden.len(), "{name}");
    }
}

fn field(request: Request, name: &str) -> Value {
    let issued = Authority::new("authority").issue(&request);
    let document = document(&Certificate::parse(issued.der()).expect("well formed"));
    document["certificate"][name].clone()
}

#[test]
fn a_certificate_of_version_one_has_no_extensions() {
    let request = || Request::named("old").version_1();
    assert_eq!(field(request(), "Version"), Value::from(1u64));
    assert_eq!(field(request(), "Extensions"), Value::Null);
    assert_eq!(field(request(), "BasicConstraintsValid"), Value::from(false));
}

#[test]
fn serial_numbers_of_any_length_are_exact() {
    let serial = [0x7f; 64];
    let shown = field(Request::named("x").serial(&serial), "SerialNumber");
    assert_eq!(
        shown,
        Value::from_numeric_string(&decimal(&serial)).expect("a number")
    );
}

#[test]
fn characters_that_stand_for_bytes_do_not_come_from_certificates() {
    let odd = "a\u{10fe41}b";
    let subject = field(Request::named(odd), "Subject");
    assert_eq!(subject["CommonName"], Value::from("a\u{fffd}b"));
}

#[test]
fn undecodable_paths_have_a_replacement_for_each_byte() {
    assert_eq!(
        bytes_as_text(b"a\xff\xfe\xe2\x82"),
        Value::from("a\u{fffd}\u{fffd}\u{fffd}\u{fffd}")
    );
}
