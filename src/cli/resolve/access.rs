//! Who is let in: access rules of a server, conditions on a client's server.

use super::{given, sources};
use crate::authorization::{Rules, SpkiPin, UriPattern};
use crate::cli::errors::ConfigError;
use crate::cli::flags::Args;

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
    pins(flag, args).map(drop)
}

/// The pins given by `flag`.
pub(super) fn pins(flag: &'static str, args: &Args) -> Result<Vec<SpkiPin>, ConfigError> {
    let parse = |text: &String| {
        SpkiPin::parse(text).map_err(|reason| ConfigError::SpkiPin {
            flag,
            text: text.clone(),
            reason,
        })
    };
    args.spki_pins.iter().map(parse).collect()
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
    let uris: Result<Vec<_>, _> = args.uris.iter().map(|uri| UriPattern::parse(uri)).collect();
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
        uris: uris.map_err(|reason| ConfigError::UriPattern { side, reason })?,
    })
}
