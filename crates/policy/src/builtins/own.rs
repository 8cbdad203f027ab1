//! Functions that the engine lacks, or has in another meaning.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use aws_lc_rs::{constant_time, digest, hmac};
use regorus::Value;
use regorus::unstable::BUILTINS;

use super::{Budget, Call, Function, TooMuch, bounds, bytes, call_original};
use crate::json;

/// Longest text that is read as JSON.
const LONGEST_JSON: usize = 8 * 1024 * 1024;

pub(super) const FUNCTIONS: [Function; 37] = [
    plain("base64.decode", 1, |a| raw(bytes::from_base64(text(a, 0)?)?)),
    plain("base64.encode", 1, |a| {
        Some(bytes::to_base64(&bytes_of(a, 0)?).into())
    }),
    plain("base64.is_valid", 1, |a| {
        Some(bytes::from_base64(text(a, 0)?).is_some().into())
    }),
    plain("base64url.decode", 1, |a| {
        raw(bytes::from_base64_url(text(a, 0)?)?)
    }),
    plain("base64url.encode", 1, |a| {
        Some(bytes::to_base64_url(&bytes_of(a, 0)?, true).into())
    }),
    plain("base64url.encode_no_pad", 1, |a| {
        Some(bytes::to_base64_url(&bytes_of(a, 0)?, false).into())
    }),
    plain("hex.decode", 1, |a| raw(bytes::from_hex(text(a, 0)?)?)),
    plain("hex.encode", 1, |a| Some(bytes::to_hex(&bytes_of(a, 0)?).into())),
    plain("urlquery.encode", 1, |a| {
        Some(encode_query(&bytes_of(a, 0)?).into())
    }),
    plain("urlquery.decode", 1, |a| raw(decode_query(&bytes_of(a, 0)?)?)),
    plain("crypto.sha1", 1, |a| hashed(&digest::SHA1_FOR_LEGACY_USE_ONLY, a)),
    plain("crypto.sha256", 1, |a| hashed(&digest::SHA256, a)),
    plain("crypto.hmac.sha1", 2, |a| {
        authenticated(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, a)
    }),
    plain("crypto.hmac.sha256", 2, |a| authenticated(hmac::HMAC_SHA256, a)),
    plain("crypto.hmac.sha512", 2, |a| authenticated(hmac::HMAC_SHA512, a)),
    plain("crypto.hmac.equal", 2, |a| {
        let equal = constant_time::verify_slices_are_equal(&bytes_of(a, 0)?, &bytes_of(a, 1)?);
        Some(equal.is_ok().into())
    }),
    bounded("json.unmarshal", 1, |budget, a| {
        let Some(text) = text(a, 0) else {
            return Ok(None);
        };
        if text.len() > LONGEST_JSON {
            return Err(TooMuch);
        }
        // A number in brackets takes some thirty times the room of its digits.
        budget.spend(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
        Ok(json::parse(text).ok())
    }),
    plain("json.is_valid", 1, |a| {
        Some(json::parse(text(a, 0)?).is_ok().into())
    }),
    bounded("json.marshal", 1, |budget, a| {
        budget.spend(a.iter().map(bounds::size).sum())?;
        Ok(a.first().map(|value| json::write(value).into()))
    }),
    bounded("strings.replace_n", 2, replace_several),
    plain("opa.runtime", 0, |_| Some(Value::new_object())),
    plain("net.cidr_overlap", 2, |a| {
        Some(contains(text(a, 0)?, text(a, 1)?)?.into())
    }),
    plain("net.cidr_intersects", 2, |a| {
        let (first, second) = (Network::parse(text(a, 0)?)?, Network::parse(text(a, 1)?)?);
        Some((first.holds(&second) || second.holds(&first)).into())
    }),
    // What follows is of version 0 of the language.
    plain("any", 1, |a| {
        Some(elements(a.first()?)?.contains(&&Value::Bool(true)).into())
    }),
    plain("all", 1, |a| {
        let elements = elements(a.first()?)?;
        Some(elements.iter().all(|value| **value == Value::Bool(true)).into())
    }),
    bounded("re_match", 2, |_, a| {
        let lengths = [0, 1].map(|index| text(a, index).map_or(0, str::len));
        if lengths.iter().any(|&length| length > 8 * 1024) {
            return Err(TooMuch);
        }
        Ok(BUILTINS
            .get("regex.match")
            .and_then(|(original, _)| call_original(*original, a)))
    }),
    plain("set_diff", 2, |a| match a {
        [Value::Set(first), Value::Set(second)] => {
            let rest = first.iter().filter(|value| !second.contains(value));
            Some(Value::from(rest.cloned().collect::<BTreeSet<_>>()))
        }
        _ => None,
    }),
    plain("cast_array", 1, |a| match a.first()? {
        array @ Value::Array(_) => Some(array.clone()),
        Value::Set(items) => Some(Value::from(items.iter().cloned().collect::<Vec<_>>())),
        _ => None,
    }),
    plain("cast_set", 1, |a| match a.first()? {
        set @ Value::Set(_) => Some(set.clone()),
        Value::Array(items) => Some(Value::from(items.iter().cloned().collect::<BTreeSet<_>>())),
        _ => None,
    }),
    plain("cast_string", 1, |a| {
        only(a, |value| matches!(value, Value::String(_)))
    }),
    plain("cast_boolean", 1, |a| {
        only(a, |value| matches!(value, Value::Bool(_)))
    }),
    plain("cast_null", 1, |a| only(a, |value| matches!(value, Value::Null))),
    plain("cast_object", 1, |a| {
        only(a, |value| matches!(value, Value::Object(_)))
    }),
    // Functions without an upper bound on their arguments' sizes would need one; these have it.
    plain("bits.rsh", 2, |a| engine("bits.rsh", a)),
    bounded("indexof_n", 2, |budget, a| {
        let length = text(a, 0).map_or(0, str::len);
        budget.spend(u64::try_from(length.saturating_mul(32)).unwrap_or(u64::MAX))?;
        Ok(engine("indexof_n", a))
    }),
    bounded("product", 1, |budget, a| {
        let items = a.first().and_then(elements).map_or(0, |items| items.len());
        // The work grows with the square of the number of factors.
        let work = u64::try_from(items.saturating_mul(items)).unwrap_or(u64::MAX);
        budget.spend(work)?;
        Ok(engine("product", a))
    }),
    plain("units.parse", 1, |a| {
        (text(a, 0)?.len() < 1024).then(|| engine("units.parse", a))?
    }),
];

const fn plain(name: &'static str, arity: u8, call: fn(&[Value]) -> Option<Value>) -> Function {
    Function {
        name,
        arity,
        call: Call::Plain(call),
    }
}

const fn bounded(
    name: &'static str,
    arity: u8,
    call: fn(&Budget, &[Value]) -> Result<Option<Value>, TooMuch>,
) -> Function {
    Function {
        name,
        arity,
        call: Call::Bounded(call),
    }
}

fn engine(name: &str, arguments: &[Value]) -> Option<Value> {
    let (original, _) = BUILTINS.get(name)?;
    call_original(*original, arguments)
}

fn text(arguments: &[Value], index: usize) -> Option<&str> {
    match arguments.get(index)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn bytes_of(arguments: &[Value], index: usize) -> Option<Vec<u8>> {
    text(arguments, index).map(bytes::to_bytes)
}

fn raw(decoded: Vec<u8>) -> Option<Value> {
    Some(bytes::from_bytes(&decoded).into())
}

fn hashed(algorithm: &'static digest::Algorithm, arguments: &[Value]) -> Option<Value> {
    Some(bytes::digest(algorithm, text(arguments, 0)?).into())
}

fn authenticated(algorithm: hmac::Algorithm, arguments: &[Value]) -> Option<Value> {
    Some(bytes::hmac(algorithm, text(arguments, 0)?, text(arguments, 1)?).into())
}

fn only(arguments: &[Value], is_kind: fn(&Value) -> bool) -> Option<Value> {
    arguments.first().filter(|value| is_kind(value)).cloned()
}

fn elements(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Array(items) => Some(items.iter().collect()),
        Value::Set(items) => Some(items.iter().collect()),
        _ => None,
    }
}

/// Replaces in one pass from left to right: what was put in is not looked at again. Of several
/// texts that fit, the first of the object counts.
fn replace_several(budget: &Budget, arguments: &[Value]) -> Result<Option<Value>, TooMuch> {
    let (Some(Value::Object(patterns)), Some(mut rest)) = (arguments.first(), text(arguments, 1)) else {
        return Ok(None);
    };
    let mut pairs = Vec::new();
    for (old, new) in patterns.iter() {
        match (old, new) {
            (Value::String(old), Value::String(new)) => pairs.push((&**old, &**new)),
            _ => return Ok(None),
        }
    }
    pairs.sort_unstable();
    let mut result = String::new();
    while let Some(first) = rest.chars().next() {
        let found = pairs
            .iter()
            .find(|(old, _)| !old.is_empty() && rest.starts_with(old));
        let taken = found.map_or_else(|| first.len_utf8(), |(old, _)| old.len());
        let (start, after) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        let put = found.map_or(start, |(_, new)| new);
        budget.spend(u64::try_from(put.len() + pairs.len()).unwrap_or(u64::MAX))?;
        result.push_str(put);
        rest = after;
    }
    Ok(Some(result.into()))
}

/// A text as part of a query (`application/x-www-form-urlencoded`).
fn encode_query(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        match byte {
            b' ' => text.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => text.push(char::from(byte)),
            byte => {
                // Writing to a string can't fail.
                let _infallible = write!(text, "%{byte:02X}");
            }
        }
        text
    })
}

fn decode_query(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [*rest.next()?, *rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                *bytes::from_hex(digits)?.first()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// A network, or an address as the smallest one.
struct Network {
    bits: u128,
    length: u32,
    is_v6: bool,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let (bits, longest, is_v6) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32, false),
            IpAddr::V6(address) => (u128::from(address), 128, true),
        };
        let length = length.unwrap_or(longest);
        (length <= longest).then_some(Self { bits, length, is_v6 })
    }

    fn holds(&self, other: &Self) -> bool {
        let differing = (self.bits ^ other.bits)
            .checked_shr(128 - self.length)
            .unwrap_or(0);
        self.is_v6 == other.is_v6 && self.length <= other.length && differing == 0
    }
}

fn contains(network: &str, other: &str) -> Option<bool> {
    Some(Network::parse(network)?.holds(&Network::parse(other)?))
}
