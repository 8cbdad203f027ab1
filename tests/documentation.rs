//! Keeps the documentation true where a machine can: tests that pages name as proofs exist,
//! no claim is missing, lists agree with the sources, links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The claims of the security page, by their numbers. Those between are not in use.
const CLAIMS: [RangeInclusive<u32>; 5] = [1..=8, 10..=18, 20..=28, 30..=39, 40..=57];

#[test]
fn every_claim_has_one_row() {
    let page = read("docs/security-model.md");
    let rows: Vec<&str> = claims(&page).map(|row| &row[3..5]).collect();
    let claims: Vec<String> = CLAIMS
        .into_iter()
        .flatten()
        .map(|number| format!("{number:02}"))
        .collect();
    assert_eq!(rows, claims);
}

/// A row without a proof must say that the claim comes later.
#[test]
fn every_claim_has_a_proof_or_comes_later() {
    let page = read("docs/security-model.md");
    for row in claims(&page) {
        let is_proved = code_spans(row).iter().any(|span| is_test_name(span));
        assert_ne!(is_proved, row.contains("| comes later"), "{row}");
    }
}

/// Rows that begin with `| S01 |`.
fn claims(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| {
        let number = line.strip_prefix("| S").and_then(|rest| rest.split_once(" |"));
        number.is_some_and(|(number, _)| number.len() == 2 && number.parse::<u32>().is_ok())
    })
}

#[test]
fn tests_named_as_proofs_exist() {
    let mut named = 0;
    for page in markdown_files("docs") {
        for span in code_spans(&read(&page)) {
            if is_test_name(&span) {
                named += 1;
                assert!(
                    is_test(&span),
                    "{} names {span}, which is no test",
                    page.display()
                );
            }
        }
    }
    assert!(named > 50, "only {named} names were found");
}

/// `module::test` or `module::submodule::test`.
fn is_test_name(span: &str) -> bool {
    let parts: Vec<&str> = span.split("::").collect();
    let is_word = |part: &&str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    parts.len() > 1 && parts.iter().all(is_word)
}

fn is_test(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [file, modules @ .., test] = parts.as_slice() else {
        return false;
    };
    let Ok(source) = fs::read_to_string(root().join(format!("tests/blackbox/{file}.rs"))) else {
        return false;
    };
    // The test stands behind the last of its modules.
    let mut rest = source.as_str();
    for module in modules {
        let Some((_, after)) = rest.split_once(&format!("\nmod {module} {{")) else {
            return false;
        };
        rest = after;
    }
    let Some((before, _)) = rest.split_once(&format!("fn {test}()")) else {
        return false;
    };
    // With its attribute right above, or other attributes between.
    before
        .trim_end()
        .lines()
        .rev()
        .take_while(|line| line.trim_start().starts_with("#["))
        .any(|line| line.trim() == "#[test]")
}

/// What 1.11.1 has and this version does not: the page and the table of the command line agree.
#[test]
fn flags_not_built_yet_are_those_that_are_listed() {
    let source = read("src/cli/resolve/unbuilt.rs");
    let (_, table) = source
        .split_once("const NAMES: &[&[&str]] = &[")
        .expect("the table");
    let (table, _) = table.split_once("\n];").expect("its end");
    let built: BTreeSet<String> = strings(table).collect();

    let page = read("docs/compatibility.md");
    let (_, section) = page.split_once("## Not there yet").expect("the section");
    let section = section.split("\n## ").next().expect("something");
    let first_cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let listed: BTreeSet<String> = first_cells
        .flat_map(code_spans)
        .filter(|span| {
            span.starts_with("--")
                || span
                    .chars()
                    .all(|letter| letter.is_ascii_uppercase() || letter == '_' || letter.is_ascii_digit())
        })
        .collect();
    assert_eq!(listed, built);
}

/// The words that metrics and log use, and the page that explains them.
#[test]
fn every_reason_of_a_refusal_is_explained() {
    let source = read("src/metrics/reasons.rs");
    let (_, vocabulary) = source
        .split_once("    HandshakeFailure {")
        .expect("the vocabulary");
    let (vocabulary, _) = vocabulary.split_once("\n    }\n").expect("its end");
    let reasons: Vec<String> = strings(vocabulary).collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    let page = read("docs/refusals.md");
    let (_, table) = page.split_once("## Reasons").expect("the section");
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), reasons);
}

/// The texts between quotes.
fn strings(source: &str) -> impl Iterator<Item = String> {
    source.split('"').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = markdown_files(".");
    pages.extend(
        ["docs", "docs/decisions", "tests", "crates", "src"]
            .into_iter()
            .flat_map(markdown_files),
    );
    for page in pages {
        for target in links(&read(&page)) {
            let (path, _) = target.split_once('#').unwrap_or((&target, ""));
            let folder = root().join(&page).parent().expect("a folder").to_owned();
            let is_outside = target.contains("://") || target.starts_with("mailto:") || path.is_empty();
            assert!(
                is_outside || folder.join(path).exists(),
                "{} links to {target}",
                page.display()
            );
        }
    }
}

fn links(text: &str) -> Vec<String> {
    let after_bracket = text.split("](").skip(1);
    after_bracket
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()))
        .collect()
}

/// What stands between single backticks, outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    prose
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

fn markdown_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder exists");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    names
        .map(|name| Path::new(folder).join(name))
        .filter(is_page)
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
