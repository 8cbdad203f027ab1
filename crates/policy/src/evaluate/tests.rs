use std::sync::OnceLock;

use ghostunnel_testing::{Authority, Request};

use super::*;

/// A certificate of somebody called `client`.
pub(crate) fn client() -> Certificate {
    static DER: OnceLock<Vec<u8>> = OnceLock::new();
    let der = DER.get_or_init(|| {
        let authority = Authority::new("policy tests");
        authority.issue(&Request::named("client")).der().to_vec()
    });
    Certificate::parse(der).expect("well formed")
}

fn rego(text: &str) -> Files {
    Files::Rego(vec![File {
        name: "p.rego".to_owned(),
        content: text.as_bytes().to_vec(),
    }])
}

fn bundle(files: &[(&str, &str)]) -> Files {
    let file = |(name, content): &(&str, &str)| File {
        name: (*name).to_owned(),
        content: content.as_bytes().to_vec(),
    };
    Files::Bundle {
        name: "b".to_owned(),
        files: files.iter().map(file).collect(),
    }
}

fn load(files: &Files, query: &str) -> Result<Policy, String> {
    Policy::load(files, query).map_err(|error| error.to_string())
}

fn ask(files: &Files, query: &str) -> Result<bool, String> {
    let policy = load(files, query)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    policy
        .evaluate(&client(), deadline)
        .map_err(|error| error.to_string())
}

/// The answer for the body of a rule, in version 0.
fn holds(body: &str) -> Result<bool, String> {
    ask(&rego(&format!("package p\nallow {{ {body} }}\n")), "data.p.allow")
}

const SIMPLE: &str =
    "package policy\nimport input\nallow { input.certificate.Subject.CommonName == \"client\" }\n";

#[test]
fn only_one_unbound_true_allows() {
    for (query, expected) in [
        ("data.policy.allow", true),
        ("data.policy.allow == true", true),
        ("true", true),
        ("input.certificate.Subject.CommonName == \"client\"", true),
        ("not data.policy.nosuch", true),
        ("x := data.policy.allow", false),
        ("x = true", false),
        ("data.policy.allow; true", false),
        ("some i; [true,true][i]", false),
        ("1", false),
        ("\"true\"", false),
        ("data.policy", false),
        ("data", false),
        ("input", false),
        ("{true}", false),
        ("[true]", false),
        ("false", false),
        ("null", false),
        ("not data.policy.allow", false),
        ("data.policy.nosuch", false),
        ("data.nosuch.allow", false),
        ("to_number(\"x\")", false),
        ("1/0 == 1", false),
        ("not data.policy.allow == false", true),
        ("not data.policy.allow # really\n", false),
        ("not input.certificate with input as {}", true),
        ("[1, 2][_] == 2", true),
        ("[2, 2][_] == 2", false),
        ("[2][_] == 2", true),
        ("some x; x = 1", false),
        ("true; true", false),
        ("true; false", false),
    ] {
        assert_eq!(ask(&rego(SIMPLE), query), Ok(expected), "{query}");
    }
}

#[test]
fn statements_of_version_one_allow_only_when_they_hold() {
    let files = bundle(&[(
        "p.rego",
        "package policy\nallow if input.certificate.Version == 3\n",
    )]);
    for (query, expected) in [
        ("every x in [1, 2] { x > 0 }", true),
        ("every x in [1, 2] { x > 1 }", false),
        ("some x in [1]", false),
        ("some x in []", false),
        ("1 in [1]", true),
        ("1 in [2]", false),
        ("not 1 in [2]", true),
        ("not 1 in [1]", false),
        ("not data.policy.allow", false),
        ("data.policy.allow", true),
    ] {
        assert_eq!(ask(&files, query), Ok(expected), "{query}");
    }
}

#[test]
fn both_versions_of_the_language_are_read() {
    for (text, expected) in [
        ("package p\nallow { input.certificate.Version == 3 }", true),
        ("package p\ndefault allow = false\nallow { false }", false),
        (
            "package p\nimport rego.v1\nallow if input.certificate.Version == 3",
            true,
        ),
        ("package p\nimport future.keywords.if\nallow if { true }", true),
        (
            "package p\nimport future.keywords\nallow if { every x in [1] { x == 1 } }",
            true,
        ),
        (
            "package p\nimport input.certificate.Subject as who\nallow { who.CommonName == \"client\" }",
            true,
        ),
        (
            "package p\nnames[\"client\"]\nallow { names[input.certificate.Subject.CommonName] }",
            true,
        ),
        ("package p\nf(x) = y { y := x }\nallow { f(1) == 1 }", true),
        ("package p\nallow { false } else { true }", true),
        ("package p\nallow { print(\"x\") }", true),
        ("package p\nallow { count(opa.runtime()) == 0 }", true),
        ("package p\nallow { time.now_ns() > 0 }", true),
        (
            "package p\ny { input.a == 1 }\nallow { data.p.y with input as {\"a\": 1} }",
            true,
        ),
        (
            "package p\nallow { any([false, true]); all([true]); re_match(\"c.*\", \"client\") }",
            true,
        ),
    ] {
        assert_eq!(ask(&rego(text), "data.p.allow"), Ok(expected), "{text}");
    }
    let v1 = "package p\nallow if { some x in [1]; x == 1 }\nnames contains \"a\"\n";
    assert_eq!(ask(&bundle(&[("p.rego", v1)]), "data.p.allow"), Ok(true));
    let v0 = "package p\nallow { true }\n";
    for manifest in [
        r#"{"rego_version":0}"#,
        r#"{"rego_version":1,"file_rego_versions":{"/p.rego":0}}"#,
    ] {
        let files = bundle(&[("p.rego", v0), (".manifest", manifest)]);
        assert_eq!(ask(&files, "data.p.allow"), Ok(true), "{manifest}");
    }
}

#[test]
fn faults_of_a_policy_are_found_when_it_is_loaded() {
    for (text, expected) in [
        (
            "",
            "1 error occurred during loading: p.rego:0: rego_parse_error: empty module",
        ),
        (
            "package p\nallow { x == 1 }",
            "1 error occurred: p.rego:2: rego_unsafe_var_error: var x is unsafe",
        ),
        (
            "package p\nallow { foo(1) }",
            "1 error occurred: p.rego:2: rego_type_error: undefined function foo",
        ),
        (
            "package p\nallow { count(1, 2, 3) }",
            "1 error occurred: p.rego:2: rego_type_error: count: arity mismatch",
        ),
        (
            "package p\nf(x) = x\nallow { f(1, 2, 3) }",
            "1 error occurred: p.rego:3: rego_type_error: f: arity mismatch",
        ),
        (
            "package p\nf(x) = x\nf(x, y) = x",
            "rego_type_error: conflicting rules data.p.f found",
        ),
        (
            "package p\nallow { b }\nb { allow }",
            "rego_recursion_error: rule data.p.allow is recursive",
        ),
        (
            "package p\nf(x) = y { y := f(x-1) }",
            "rego_recursion_error: rule data.p.f is recursive: data.p.f -> data.p.f",
        ),
        ("package p\nf(x) { data.p.g(x) }\ng(x) { f(x) }", "recursive"),
        ("package p\nallow { data.p[x] }", "recursive"),
        (
            "package p\nallow if { false }",
            "rego_parse_error: var cannot be used for rule name",
        ),
        (
            "package p\nallow",
            "rego_parse_error: var cannot be used for rule name",
        ),
        ("package p\nallow {", "rego_parse_error"),
        ("allow { true }", "rego_parse_error"),
        (
            "package p\nimport nonsense.x\nallow { true }",
            "import path must begin with one of",
        ),
        (
            "package p\nallow { http.send({}) }",
            "http.send is not available: policies do not reach the network",
        ),
        (
            "package p\nallow { json.marshal(1) with json.marshal as http.send }",
            "http.send is not available",
        ),
        (
            "package p\nallow { io.jwt.decode(\"\") }",
            "io.jwt.decode is not available: it is not supported",
        ),
        (
            "package p\nallow { graph.reachable_paths({}, {}) }",
            "its cost has no bound",
        ),
        (
            "package p\nallow { crypto.md5(\"\") }",
            "crypto.md5 is not available",
        ),
        ("package p\nallow { $\"{1}\" }", "rego_parse_error"),
    ] {
        let error = load(&rego(text), "data.p.allow").expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn faults_of_a_query_are_found_when_it_is_loaded() {
    for (query, expected) in [
        ("data.policy.allow ==", "1 error occurred: 1:"),
        ("x", "var x is unsafe"),
        ("nosuch(1)", "rego_type_error: undefined function nosuch"),
        ("http.send({})", "http.send is not available"),
        ("", "rego_parse_error"),
    ] {
        let error = load(&rego(SIMPLE), query).expect_err(query);
        assert!(error.contains(expected), "{query}: {error}");
    }
}

#[test]
fn version_one_refuses_what_version_zero_let_pass() {
    for (text, expected) in [
        (
            "package p\nallow { true }",
            "loading error: bundle b: 1 error occurred: b/p.rego:2: rego_parse_error: ",
        ),
        (
            "package p\nnames[\"a\"]",
            "b/p.rego:2: rego_parse_error: `contains` keyword is required for partial set rules",
        ),
    ] {
        let error = load(&bundle(&[("p.rego", text)]), "data.p.allow").expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn bundles_hold_policies_and_data() {
    let policy = (
        "policy/p.rego",
        "package policy\nallow if input.certificate.Subject.CommonName in data.policy.names\n",
    );
    for (data, name) in [
        (r#"{"names":["client"]}"#, "policy/data.json"),
        (r#"{"policy":{"names":["client"]}}"#, "data.json"),
        ("names:\n- client\n", "policy/data.yaml"),
        ("[\"client\"]", "policy/names/data.json"),
        ("- client\n", "policy/names/data.yml"),
    ] {
        let files = bundle(&[
            policy,
            (name, data),
            (".manifest", r#"{"roots":["policy"],"revision":"r1"}"#),
        ]);
        assert_eq!(ask(&files, "data.policy.allow"), Ok(true), "{name}");
        assert_eq!(load(&files, "true").expect("loads").revision(), "r1");
    }
    assert_eq!(ask(&bundle(&[]), "data.policy.allow"), Ok(false));
}

#[test]
fn serial_numbers_of_data_are_compared_exactly() {
    let serial = "150135661632217432360885768414286488588387884901";
    let other = "150135661632217432360885768414286488588387884902";
    for (query, expected) in [
        (format!("data.serial == {serial}"), true),
        (format!("data.serial == {other}"), false),
        (format!("data.serial == json.unmarshal(\"{other}\")"), false),
    ] {
        let data = format!("{{\"serial\":{serial}}}");
        assert_eq!(
            ask(&bundle(&[("data.json", &data)]), &query),
            Ok(expected),
            "{query}"
        );
    }
}

#[test]
fn bundles_are_refused_for_what_they_hold() {
    let policy = ("p.rego", "package p\nallow := true\n");
    for (file, expected) in [
        (
            ("data.json", "[]"),
            "bundle load failed on data.json: it is not an object",
        ),
        (
            ("data.json", "{"),
            "bundle load failed on data.json: invalid JSON",
        ),
        (
            ("data.json", r#"{"p":{"allow":true}}"#),
            "rego_compile_error: conflicting rule for data path p/allow found",
        ),
        (("data.json", r#"{"p":1}"#), "conflicting rule for data path"),
        (
            (
                "data.yaml",
                "a: 18446744073709551616000000000000000000000000000001\n",
            ),
            "a number that YAML can't keep exactly",
        ),
        (("data.yaml", "a: [\n"), "bundle load failed on data.yaml"),
        ((".manifest", "{"), "bundle load failed on manifest"),
        (
            (".manifest", r#"{"roots":["q"]}"#),
            "manifest roots [q] do not permit 'package p' in module 'b/p.rego'",
        ),
        (
            (".signatures.json", r#"{"signatures":["x"]}"#),
            "verification key not provided",
        ),
        ((".signatures.json", "x"), ".signatures.json"),
        (("patch.json", "{}"), "delta bundles are not supported"),
    ] {
        let error = load(&bundle(&[policy, file]), "data.p.allow").expect_err(file.1);
        assert!(error.contains(expected), "{file:?}: {error}");
    }
    let outside = bundle(&[
        ("data.json", r#"{"cn":1}"#),
        (".manifest", r#"{"roots":["policy"]}"#),
    ]);
    assert_eq!(
        load(&outside, "true").expect_err("outside"),
        "loading error: bundle b: manifest roots [policy] do not permit data at path '/cn' (hint: check bundle directory structure)"
    );
    let unsigned = bundle(&[policy, (".signatures.json", r#"{"signatures":[]}"#)]);
    assert_eq!(ask(&unsigned, "data.p.allow"), Ok(true));
    let twice = bundle(&[("data.json", r#"{"a":1}"#), ("data.yaml", "a: 2")]);
    assert!(
        load(&twice, "true")
            .expect_err("twice")
            .contains("two of them define the same path")
    );
}

#[test]
fn contradictions_are_errors() {
    for text in [
        "package p\nallow = true { true }\nallow = false { true }\n",
        "package p\nallow = x { x := input.certificate.Version }\nallow = x { x := input.certificate.KeyUsage }\n",
    ] {
        assert_eq!(
            ask(&rego(text), "data.p.allow"),
            Err("p.rego:3: eval_conflict_error: complete rules must not produce multiple outputs".to_owned())
        );
    }
}

#[test]
fn nothing_is_evaluated_at_load() {
    let started = Instant::now();
    let text = "package p\nallow { count([1 | numbers.range(1, 20000)[_]; numbers.range(1, 20000)[_]]) > 0 }";
    load(&rego(text), "data.p.allow").expect("loads");
    load(&rego(text), "data").expect("loads");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_runs_long_is_cut_at_the_deadline() {
    for body in [
        "count([1 | numbers.range(1, 20000)[_]; numbers.range(1, 20000)[_]]) > 0",
        "count({x | x := numbers.range(1, 100000)[_]; y := numbers.range(1, 100000)[_]; x + y < 0}) == 0",
        "every_pair == true",
        "not slow(1)",
    ] {
        let text = format!(
            "package p\nallow {{ {body} }}\n\
             every_pair {{ count([1 | numbers.range(1, 20000)[i] > 0; numbers.range(1, 20000)[j] > i]) > 0 }}\n\
             slow(x) = 1 {{ numbers.range(1, 20000)[i] == -x; numbers.range(1, 20000)[j] == -i }}\n\
             slow(x) = 2 {{ every_pair }}\nslow(x) = 1 {{ false }}\n"
        );
        let policy = load(&rego(&text), "data.p.allow").expect("loads");
        let limit = Duration::from_millis(300);
        let started = Instant::now();
        let outcome = policy.evaluate(&client(), started + limit);
        let took = started.elapsed();
        assert!(took < limit * 10, "{body}: {took:?}");
        match outcome {
            Err(EvaluationError::TimedOut) => assert!(took >= limit, "{body}: {took:?}"),
            // A fast machine gets to the bound on results first.
            Err(EvaluationError::TooLarge(_)) => {}
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn a_deadline_that_is_over_evaluates_nothing() {
    let policy = load(&rego(SIMPLE), "data.policy.allow").expect("loads");
    assert_eq!(
        policy.evaluate(&client(), Instant::now()),
        Err(EvaluationError::TimedOut)
    );
}

/// Each of these would take gigabytes or minutes, or end the process.
#[test]
fn functions_do_not_make_more_than_fits() {
    for body in [
        "count(numbers.range(1, 50000000)) > 0",
        "count(numbers.range(1, 1000000000000000000)) > 0",
        "count(numbers.range(-9223372036854775808, 9223372036854775807)) > 0",
        "count(numbers.range(1, 1000000000000000000000000000000000000000000)) > 0",
        "count(numbers.range_step(1, 1000000000000, 2)) > 0",
        "count(net.cidr_expand(\"10.0.0.0/8\")) > 0",
        "count(net.cidr_expand(\"::/0\")) > 0",
        "sprintf(\"%999999999d\", [1]) != \"\"",
        "sprintf(\"%99999999999999999999d\", [1]) != \"\"",
        "bits.lsh(1, 100000000000) > 0",
        "x := replace(\"aaaaaaaaaa\", \"a\", sprintf(\"%1000000d\", [1])); y := replace(x, \"\", x); y != \"\"",
        "x := sprintf(\"%10000000d\", [1]); y := concat(\"\", [x, x, x]); z := concat(\"\", [y, y, y]); z != \"\"",
        "x := numbers.range(1, 500000); y := array.concat(x, x); z := array.concat(y, y); count(array.concat(z, z)) > 0",
        "regex.match(sprintf(\"%10000d\", [1]), \"x\")",
        "regex.match(\"x\", sprintf(\"%1000000d\", [1]))",
        "glob.match(sprintf(\"%10000d\", [1]), [], \"x\")",
        "x := numbers.range(1, 9000); product(x) > 0",
        "re_match(sprintf(\"%10000d\", [1]), \"x\")",
        "y := [x | _ := numbers.range(1, 100)[_]; x := count(numbers.range(1, 50000))]; count(y) > 0",
        "not numbers.range(1, 50000000)",
    ] {
        let started = Instant::now();
        let answer = holds(body);
        let refused = answer
            .as_ref()
            .is_err_and(|error| error.starts_with("eval_builtin_error"));
        assert!(refused, "{body}: {answer:?}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{body}: {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn functions_answer_as_the_language_says() {
    for (body, expected) in [
        ("numbers.range(3, 1) == [3, 2, 1]", true),
        ("numbers.range_step(1, 7, 3) == [1, 4, 7]", true),
        ("numbers.range_step(1, 7, 0)", false),
        ("numbers.range_step(1, 7, -1)", false),
        ("count(net.cidr_expand(\"10.0.0.0/30\")) == 4", true),
        ("count(net.cidr_expand(\"10.0.0.0/33\")) == 4", false),
        ("net.cidr_contains(\"10.0.0.0/8\", \"10.1.2.3\")", true),
        ("net.cidr_intersects(\"10.0.0.0/8\", \"10.1.0.0/16\")", true),
        ("net.cidr_intersects(\"10.0.0.0/8\", \"11.1.0.0/16\")", false),
        ("net.cidr_intersects(\"0.0.0.0/0\", \"11.1.0.0/16\")", true),
        ("net.cidr_intersects(\"::/0\", \"11.1.0.0/16\")", false),
        ("net.cidr_overlap(\"10.0.0.0/8\", \"10.1.2.3\")", true),
        ("sprintf(\"%s-%d-%5d\", [\"a\", 1, 2]) == \"a-1-    2\"", true),
        ("bits.lsh(1, 3) == 8", true),
        ("bits.rsh(8, 3) == 1", true),
        ("replace(\"aXbX\", \"X\", \"-\") == \"a-b-\"", true),
        (
            "strings.replace_n({\"<\": \"&lt;\", \"&\": \"&amp;\"}, \"<&\") == \"&lt;&amp;\"",
            true,
        ),
        ("concat(\"/\", [\"a\", \"b\"]) == \"a/b\"", true),
        ("split(\"a.b\", \".\") == [\"a\", \"b\"]", true),
        (
            "regex.match(\"^c.*t$\", input.certificate.Subject.CommonName)",
            true,
        ),
        ("regex.replace(\"abc\", \"b\", \"$0$0\") == \"abbc\"", true),
        ("regex.match(\"(\", \"x\")", false),
        ("not regex.match(\"(\", \"x\")", true),
        ("glob.match(\"*.example\", [\".\"], \"a.example\")", true),
        ("json.unmarshal(\"{\\\"a\\\": [1]}\").a[0] == 1", true),
        ("json.unmarshal(\"{\")", false),
        ("not json.is_valid(\"{\")", true),
        ("json.unmarshal(json.marshal(input)) == input", true),
        ("yaml.unmarshal(\"a: 1\").a == 1", true),
        ("json.marshal({\"a\": 1}) == \"{\\\"a\\\":1}\"", true),
        (
            "crypto.sha256(\"abc\") == \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
            true,
        ),
        (
            "crypto.sha1(\"abc\") == \"a9993e364706816aba3e25717850c26c9cd0d89d\"",
            true,
        ),
        (
            "count(crypto.sha256(base64.decode(input.certificate.RawSubjectPublicKeyInfo))) == 64",
            true,
        ),
        (
            "base64.encode(base64.decode(input.certificate.Raw)) == input.certificate.Raw",
            true,
        ),
        ("hex.encode(base64.decode(\"//79\")) == \"fffefd\"", true),
        ("crypto.hmac.equal(\"a\", \"a\")", true),
        ("not base64.is_valid(\"a\")", true),
        ("base64url.encode_no_pad(\"a?>\") == \"YT8-\"", true),
        ("urlquery.encode(\"a b&c\") == \"a+b%26c\"", true),
        ("urlquery.decode(\"a+b%26c\") == \"a b&c\"", true),
        ("union({{1}, {2}}) == {1, 2}", true),
        ("object.union({\"a\": 1}, {\"b\": 2}).b == 2", true),
        ("set_diff({1, 2}, {2}) == {1}", true),
        ("cast_set([1, 1]) == {1}", true),
        ("product([2, 3]) == 6", true),
        ("indexof_n(\"aXbX\", \"X\") == [1, 3]", true),
        ("walk([1], x); x[1] == 1", true),
        ("count([x | walk({\"a\": {\"b\": 1}}, [p, x])]) == 3", true),
        ("semver.compare(\"1.0.0\", \"1.0.1\") == -1", true),
        ("split(\"a.b\", \".\", x); x[0] == \"a\"", true),
    ] {
        assert_eq!(holds(body), Ok(expected), "{body}");
    }
}

#[test]
fn the_stack_holds_what_is_admitted() {
    let chain = |count: usize, link: &dyn Fn(usize) -> String| {
        let links: String = (0..count).map(link).collect();
        format!("package p\nallow {{ r0(1) }}\n{links}r{count}(x) = 1 {{ true }}\n")
    };
    let plain = |index: usize| format!("r{index}(x) = y {{ y := r{}(x) }}\n", index + 1);
    let nested = |index: usize| {
        format!(
            "r{index}(x) = y {{ y := [z | z := {{k: v | k := r{}(x); v := [1 | k > 0]}}] }}\n",
            index + 1
        )
    };
    for link in [&plain as &dyn Fn(usize) -> String, &nested] {
        let (mut admitted, mut refused) = (1, 400);
        while admitted + 1 < refused {
            let middle = usize::midpoint(admitted, refused);
            match load(&rego(&chain(middle, link)), "data.p.allow") {
                Ok(_) => admitted = middle,
                Err(_) => refused = middle,
            }
        }
        assert!(admitted > 40, "{admitted}");
        let answer = ask(&rego(&chain(admitted, link)), "data.p.allow");
        assert!(answer.is_ok(), "{admitted}: {answer:?}");
        let error = load(&rego(&chain(5_000, link)), "data.p.allow").expect_err("too deep");
        assert!(error.contains("nest more than"), "{error}");
    }
}

#[test]
fn names_of_arguments_and_variables_are_no_references_to_rules() {
    for text in [
        "package p\nuser(user) { user == \"client\" }\nallow { user(input.certificate.Subject.CommonName) }",
        "package p\nallow { x := 1; x == 1 }\nx { allow }",
    ] {
        assert_eq!(ask(&rego(text), "data.p.allow"), Ok(true), "{text}");
    }
}

#[test]
fn evaluations_do_not_see_each_other() {
    let text = "package p\nallow { input.certificate.Subject.CommonName == \"client\"; count(numbers.range(1, 100000)) > 0 }";
    let policy = load(&rego(text), "data.p.allow").expect("loads");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let deadline = Instant::now() + Duration::from_secs(20);
                    assert_eq!(policy.evaluate(&client(), deadline), Ok(true));
                }
            });
        }
    });
}
