//! Does a certificate belong to the server that was asked for? (RFC 9525)

use std::net::IpAddr;

use crate::certificate::Certificate;

/// Errors that would list this many names or more only count them.
const NAMES_SHOWN: usize = 100;

/// Checks that `leaf` is for `name`, a host name or an IP literal, perhaps in brackets.
/// The error is the text for the log.
pub(crate) fn check(leaf: &Certificate, name: &str) -> Result<(), String> {
    let unbracketed = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    if let Ok(address) = unbracketed.parse::<IpAddr>() {
        return check_address(leaf, address, unbracketed);
    }
    let matches = leaf.dns_names().iter().any(|pattern| {
        if is_host_name(name, Kind::Name) && is_host_name(pattern, Kind::Pattern) {
            matches_pattern(pattern, name)
        } else {
            matches_exactly(pattern, name)
        }
    });
    if matches {
        Ok(())
    } else {
        Err(name_mismatch(leaf, name))
    }
}

fn check_address(leaf: &Certificate, address: IpAddr, text: &str) -> Result<(), String> {
    let address = address.to_canonical();
    let addresses = leaf.ip_addresses();
    if addresses
        .iter()
        .any(|candidate| candidate.to_canonical() == address)
    {
        return Ok(());
    }
    if relies_on_common_name(leaf, text) {
        return Err(LEGACY_COMMON_NAME.to_owned());
    }
    Err(match addresses.len() {
        0 => format!("x509: cannot validate certificate for {text} because it doesn't contain any IP SANs"),
        NAMES_SHOWN.. => format!(
            "x509: certificate is valid for {} IP SANs, but none matched {text}",
            addresses.len()
        ),
        _ => {
            let valid: Vec<String> = addresses
                .iter()
                .map(|address| address.to_canonical().to_string())
                .collect();
            format!("x509: certificate is valid for {}, not {text}", valid.join(", "))
        }
    })
}

fn name_mismatch(leaf: &Certificate, name: &str) -> String {
    let valid = leaf.dns_names();
    if relies_on_common_name(leaf, name) {
        return LEGACY_COMMON_NAME.to_owned();
    }
    if valid.len() >= NAMES_SHOWN {
        return format!(
            "x509: certificate is valid for {} names, but none matched {name}",
            valid.len()
        );
    }
    let valid = valid.join(", ");
    if valid.is_empty() {
        return format!("x509: certificate is not valid for any names, but wanted to match {name}");
    }
    format!("x509: certificate is valid for {valid}, not {name}")
}

const LEGACY_COMMON_NAME: &str = "x509: certificate relies on legacy Common Name field, use SANs instead";

/// A certificate that would match if common names still counted gets an error that says so.
fn relies_on_common_name(leaf: &Certificate, name: &str) -> bool {
    !leaf.has_alternative_names()
        && leaf
            .subject()
            .common_name()
            .is_some_and(|common_name| matches_pattern(common_name, name))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Pattern,
}

fn is_host_name(text: &str, kind: Kind) -> bool {
    let text = match kind {
        Kind::Name => text.strip_suffix('.').unwrap_or(text),
        Kind::Pattern => text,
    };
    text != "*"
        && text
            .split('.')
            .enumerate()
            .all(|(index, label)| kind == Kind::Pattern && index == 0 && label == "*" || is_label(label))
}

/// Letters, digits, underscores, and hyphens that do not come first.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Compares label by label; `*` as the left-most label stands for exactly one.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if pattern.is_empty() || name.is_empty() {
        return false;
    }
    let (mut pattern, mut name) = (pattern.split('.'), name.split('.'));
    let (first_pattern, first_name) = (pattern.next().unwrap_or(""), name.next().unwrap_or(""));
    (first_pattern == "*" || first_pattern.eq_ignore_ascii_case(first_name))
        && pattern
            .map(str::to_ascii_lowercase)
            .eq(name.map(str::to_ascii_lowercase))
}

fn matches_exactly(pattern: &str, name: &str) -> bool {
    !matches!(pattern, "" | ".") && pattern.eq_ignore_ascii_case(name)
}
