//! Who is let in: access rules of a server, conditions on a client's server.

use super::{given, sources};
use crate::authorization::{Exclusions, Requirements, Rules, SerialNumber, SpkiPin, UriPattern};
use crate::cli::errors::ConfigError;
use crate::cli::flags::{Args, Names};

/// One way to tell whom to admit. Presence counts, so an empty name satisfies the check
/// although it admits nobody.
pub(super) fn check_server(args: &Args) -> Result<(), ConfigError> {
    let (has_pins, has_policy) = (!args.spki_pins.is_empty(), has_policy(args));
    let has_others = has_lists(args) || has_pins || has_policy;
    match (args.disable_authentication, args.allow_all, has_others) {
        (false, false, false) => return Err(ConfigError::NoAccessRule),
        (false, true, true) => return Err(ConfigError::AllowAllWithOthers),
        (true, true, _) | (true, _, true) => return Err(ConfigError::DisableAuthenticationWithOthers),
        (true, false, false) | (false, true, false) | (false, false, true) => {}
    }
    let flag = "allow-spki-pin";
    if has_pins && (has_lists(args) || has_policy) {
        let rules = "access control";
        return Err(ConfigError::PinsWithOthers { flag, rules });
    }
    check_pins(flag, args)
}

/// Pins stand alone in client mode too, but need no other rule beside them or instead.
pub(super) fn check_client(args: &Args) -> Result<(), ConfigError> {
    let flag = "verify-spki-pin";
    let has_pins = !args.spki_pins.is_empty();
    if has_pins && sources::uses_workload_api(args) {
        return Err(ConfigError::PinsWithWorkloadApi(flag));
    }
    if has_pins && (has_lists(args) || has_policy(args)) {
        let rules = "verification";
        return Err(ConfigError::PinsWithOthers { flag, rules });
    }
    check_pins(flag, args)
}

fn check_pins(flag: &'static str, args: &Args) -> Result<(), ConfigError> {
    if !args.spki_pins.is_empty() && sources::uses_workload_api(args) {
        return Err(ConfigError::PinsWithWorkloadApi(flag));
    }
    pins(flag, &args.spki_pins).map(drop)
}

/// The pins given by `flag`.
fn pins(flag: &'static str, texts: &[String]) -> Result<Vec<SpkiPin>, ConfigError> {
    let parse = |text: &String| {
        SpkiPin::parse(text).map_err(|reason| ConfigError::SpkiPin {
            flag,
            text: text.clone(),
            reason,
        })
    };
    texts.iter().map(parse).collect()
}

/// What narrows rules that there must be, and that must be able to tell names. Judged behind
/// everything that 1.11.1 knows.
pub(super) fn check_narrowing(side: &'static str, args: &Args) -> Result<(), ConfigError> {
    let (is_required, is_denied) = (is_given(&args.required), is_given(&args.denied));
    if side == "allow" && args.disable_authentication && (is_required || is_denied) {
        return Err(ConfigError::NarrowingWithoutAuthentication);
    }
    if is_required && !args.spki_pins.is_empty() {
        return Err(ConfigError::RequirementsWithPins(pin_flag(side)));
    }
    Ok(())
}

fn is_given(names: &Names) -> bool {
    let Names {
        common_names,
        organizational_units,
        dns_names,
        ip_addresses,
        uris,
        spki_pins,
        serials,
    } = names;
    let mut lists = [
        common_names,
        organizational_units,
        dns_names,
        uris,
        spki_pins,
        serials,
    ]
    .into_iter();
    !ip_addresses.is_empty() || lists.any(|list| !list.is_empty())
}

/// A policy and a query, or neither; `side` is `allow` or `verify`.
pub(super) fn check_policy(side: &'static str, args: &Args) -> Result<(), ConfigError> {
    match (args.policy.is_some(), given(&args.query).is_some()) {
        (true, true) | (false, false) => Ok(()),
        (true, false) | (false, true) => Err(ConfigError::HalfPolicy(side)),
    }
}

pub(super) fn has_policy(args: &Args) -> bool {
    args.policy.is_some() || given(&args.query).is_some()
}

fn has_lists(args: &Args) -> bool {
    !args.ip_addresses.is_empty()
        || [
            &args.common_names,
            &args.organizational_units,
            &args.dns_names,
            &args.uris,
        ]
        .into_iter()
        .any(|list| !list.is_empty())
}

/// Whether anything narrows the peers whose chain verifies.
pub(super) fn has_conditions(args: &Args) -> bool {
    has_lists(args) || has_policy(args) || !args.spki_pins.is_empty()
}

/// The lists as rules; `side` is `allow` or `verify`. A client without any condition accepts
/// every server that proves its name; a server has to be told.
pub(super) fn rules(side: &'static str, args: &Args) -> Result<Rules, ConfigError> {
    let all = match side {
        "allow" => args.allow_all,
        _ => !has_conditions(args),
    };
    Ok(Rules {
        all,
        common_names: args.common_names.clone(),
        organizational_units: args.organizational_units.clone(),
        dns_names: args.dns_names.clone(),
        ip_addresses: args.ip_addresses.clone(),
        uris: uri_patterns(side, &args.uris)?,
        pins: pins(pin_flag(side), &args.spki_pins)?,
        required: required(args)?,
        denied: denied(args)?,
    })
}

fn required(args: &Args) -> Result<Requirements, ConfigError> {
    let names = &args.required;
    Ok(Requirements {
        common_names: names.common_names.clone(),
        organizational_units: names.organizational_units.clone(),
        dns_names: names.dns_names.clone(),
        ip_addresses: names.ip_addresses.clone(),
        uris: uri_patterns("require", &names.uris)?,
    })
}

/// An empty name, as an unset variable leaves it, must not leave out an exclusion without a word.
fn denied(args: &Args) -> Result<Exclusions, ConfigError> {
    let names = &args.denied;
    for (list, kind) in [
        (&names.common_names, "cn"),
        (&names.organizational_units, "ou"),
        (&names.dns_names, "dns"),
    ] {
        if list.iter().any(String::is_empty) {
            return Err(ConfigError::EmptyExclusion(kind));
        }
    }
    let serials = names.serials.iter().map(|text| SerialNumber::parse(text));
    Ok(Exclusions {
        common_names: names.common_names.clone(),
        organizational_units: names.organizational_units.clone(),
        dns_names: names.dns_names.clone(),
        ip_addresses: names.ip_addresses.clone(),
        uris: uri_patterns("deny", &names.uris)?,
        pins: pins("deny-spki-pin", &names.spki_pins)?,
        serials: serials
            .collect::<Result<_, _>>()
            .map_err(ConfigError::SerialNumber)?,
    })
}

fn uri_patterns(side: &'static str, patterns: &[String]) -> Result<Vec<UriPattern>, ConfigError> {
    let patterns = patterns.iter().map(|pattern| UriPattern::parse(pattern));
    patterns
        .collect::<Result<_, _>>()
        .map_err(|reason| ConfigError::UriPattern { side, reason })
}

fn pin_flag(side: &'static str) -> &'static str {
    match side {
        "allow" => "allow-spki-pin",
        _ => "verify-spki-pin",
    }
}
