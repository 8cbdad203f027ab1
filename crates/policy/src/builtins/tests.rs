use super::*;

#[test]
fn what_is_bounded_exists_and_is_there_once() {
    let names = bounds::BOUNDS.iter().map(|bound| bound.name);
    let missing: Vec<_> = names
        .clone()
        .filter(|name| !BUILTINS.contains_key(name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
    let mut all: Vec<_> = names
        .chain(own::FUNCTIONS.iter().map(|function| function.name))
        .collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn functions_in_place_of_the_engines_take_as_many_arguments() {
    for function in own::FUNCTIONS {
        if let Some((_, arity)) = BUILTINS.get(function.name) {
            assert_eq!(*arity, function.arity, "{}", function.name);
        }
    }
}

#[test]
fn what_is_refused_says_why() {
    for (name, expected) in [
        ("http.send", Availability::Refused(NETWORK)),
        ("io.jwt.verify_rs256", Availability::Refused(UNSUPPORTED)),
        (
            "crypto.x509.parse_certificates",
            Availability::Refused(UNSUPPORTED),
        ),
        (
            "crypto.sha256",
            Availability::Available {
                arity: 1,
                output: false,
            },
        ),
        (
            "numbers.range",
            Availability::Available {
                arity: 2,
                output: true,
            },
        ),
        ("print", Availability::AnyArguments),
        ("nosuch", Availability::Unknown),
    ] {
        assert_eq!(availability(name), expected, "{name}");
    }
}
