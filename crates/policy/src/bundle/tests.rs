use super::*;

#[test]
fn only_policies_data_and_what_describes_the_bundle_are_wanted() {
    for (name, wanted) in [
        ("a.rego", true),
        ("a/b.rego", true),
        ("data.json", true),
        ("a/data.yaml", true),
        ("a/data.yml", true),
        (".manifest", true),
        (".signatures.json", true),
        ("patch.json", true),
        ("a/.manifest", false),
        ("a/patch.json", false),
        ("other.json", false),
        ("a.rego.bak", false),
        ("policy.wasm", false),
        ("README", false),
        ("mydata.json", false),
    ] {
        assert_eq!(Files::is_wanted(name), wanted, "{name}");
    }
}

#[test]
fn aliases_do_not_make_a_small_text_large() {
    let mut text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", "));
    }
    assert!(read_yaml(&text).is_err());
    assert!(read_yaml("a: &a [1]\nb: *a\n").is_ok());
}

#[test]
fn deep_yaml_is_refused() {
    let deep = "[".repeat(100_000);
    assert!(read_yaml(&deep).is_err());
}
