//! Bounds of the engine's own functions.

use regorus::Value;

use super::{Budget, TooMuch};

/// What one value takes beside its content, generously.
const ITEM: u64 = 64;

/// Longest pattern, and longest text to look for it: time grows with their product.
const LONGEST_PATTERN: usize = 8 * 1024;
const LONGEST_TEXT: usize = 256 * 1024;

/// Longest text that is read as YAML, whose aliases repeat what is read once.
const LONGEST_YAML: usize = 256 * 1024;

/// A condition that is checked before a function is called.
pub(super) struct Bound {
    pub(super) name: &'static str,
    /// Whether the function is to be called; its result is undefined otherwise.
    pub(super) check: fn(&Budget, &[Value]) -> Result<bool, TooMuch>,
}

pub(super) const BOUNDS: [Bound; 25] = [
    bound("array.concat", items),
    bound("bits.lsh", shift),
    bound("concat", concat),
    bound("glob.match", glob),
    bound("json.marshal_with_options", sizes),
    bound("net.cidr_expand", expand),
    bound("numbers.range", range),
    bound("numbers.range_step", range),
    bound("object.union", items),
    bound("object.union_n", items),
    bound("regex.find_all_string_submatch_n", regex),
    bound("regex.find_n", regex),
    bound("regex.is_valid", pattern),
    bound("regex.match", regex),
    bound("regex.replace", regex_replace),
    bound("regex.split", regex),
    bound("regex.template_match", regex),
    bound("replace", replace),
    bound("split", split),
    bound("sprintf", sprintf),
    bound("union", items),
    bound("yaml.is_valid", yaml),
    bound("yaml.marshal", sizes),
    bound("yaml.unmarshal", yaml),
    bound("format_int", sizes),
];

const fn bound(name: &'static str, check: fn(&Budget, &[Value]) -> Result<bool, TooMuch>) -> Bound {
    Bound { name, check }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn text(arguments: &[Value], index: usize) -> Option<&str> {
    match arguments.get(index)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn integer(arguments: &[Value], index: usize) -> Option<i128> {
    arguments.get(index)?.as_i128().ok()
}

/// Bytes of a value, all that is in it included.
pub(super) fn size(value: &Value) -> u64 {
    let content: u64 = match value {
        Value::String(text) => wide(text.len()),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Set(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| size(name) + size(value)).sum(),
        Value::Number(_) if value.as_i128().is_err() => 1024,
        _ => 0,
    };
    content + ITEM
}

/// The result holds what the arguments hold.
fn sizes(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    budget.spend(arguments.iter().map(size).sum())?;
    Ok(true)
}

/// The result has the items of the arguments, which it shares.
fn items(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let count = |value: &Value| match value {
        Value::Array(items) => items.len(),
        Value::Set(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 1,
    };
    let nested = |value: &Value| match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Set(items) => items.iter().map(count).sum(),
        _ => 0,
    };
    let items: usize = arguments.iter().map(|value| count(value) + nested(value)).sum();
    budget.spend(wide(items).saturating_mul(ITEM))?;
    Ok(true)
}

/// Both ends and, of three arguments, a step, which must be positive.
fn range(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let step = if arguments.len() > 2 {
        integer(arguments, 2)
    } else {
        Some(1)
    };
    let (Some(first), Some(last), Some(step @ 1..)) = (integer(arguments, 0), integer(arguments, 1), step)
    else {
        // Numbers of more than 128 bits are still numbers.
        let whole = arguments.iter().all(|value| matches!(value, Value::Number(_)));
        let sensible = step.is_none_or(|step| step > 0);
        return if whole && sensible && integer(arguments, 0).zip(integer(arguments, 1)).is_none() {
            Err(TooMuch)
        } else {
            Ok(false)
        };
    };
    let count = first.abs_diff(last) / step.unsigned_abs() + 1;
    budget.spend(u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(ITEM))?;
    Ok(true)
}

fn shift(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let Some(bits) = integer(arguments, 1) else {
        return Ok(false);
    };
    budget.spend(u64::try_from(bits / 8).unwrap_or(u64::MAX))?;
    Ok(bits >= 0)
}

fn expand(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let parsed = text(arguments, 0).and_then(|cidr| cidr.split_once('/'));
    let Some((address, Ok(length))) = parsed.map(|(address, length)| (address, length.parse::<u32>())) else {
        return Ok(false);
    };
    let bits = if address.contains(':') { 128 } else { 32 };
    let Some(host) = u32::checked_sub(bits, length) else {
        return Ok(false);
    };
    budget.spend(2u64.saturating_pow(host).saturating_mul(2 * ITEM))?;
    Ok(true)
}

fn concat(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let delimiter = text(arguments, 0).map_or(0, str::len);
    let content = arguments.get(1).map_or(0, size);
    let count = match arguments.get(1) {
        Some(Value::Array(items)) => items.len(),
        Some(Value::Set(items)) => items.len(),
        _ => return Ok(false),
    };
    budget.spend(
        wide(delimiter)
            .saturating_mul(wide(count))
            .saturating_add(content),
    )?;
    Ok(true)
}

fn split(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let length = text(arguments, 0).map_or(0, str::len);
    let delimiter = text(arguments, 1).map_or(1, str::len).max(1);
    let pieces = wide(length / delimiter + 1);
    budget.spend(pieces.saturating_mul(ITEM).saturating_add(wide(length)))?;
    Ok(true)
}

fn replace(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let lengths = [0, 1, 2].map(|index| text(arguments, index).map(str::len));
    let [Some(length), Some(old), Some(new)] = lengths else {
        return Ok(false);
    };
    let times = length / old.max(1) + 1;
    let result = wide(times).saturating_mul(wide(new)).saturating_add(wide(length));
    budget.spend(result)?;
    Ok(true)
}

/// Widths stand in the format, and nowhere else.
fn sprintf(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let Some(format) = text(arguments, 0) else {
        return Ok(false);
    };
    let numbers = format.split(|character: char| !character.is_numeric());
    let widths = numbers
        .filter(|digits| !digits.is_empty())
        // Digits that are not ASCII are none to the language, but are to the engine.
        .map(|digits| digits.parse::<u32>().map_or(u64::MAX, u64::from))
        .fold(0u64, u64::saturating_add);
    if widths > super::LARGEST {
        return Err(TooMuch);
    }
    let content: u64 = arguments.iter().map(size).sum();
    budget.spend(widths.saturating_add(content))?;
    Ok(true)
}

fn pattern(_: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    match text(arguments, 0).is_some_and(|pattern| pattern.len() > LONGEST_PATTERN) {
        true => Err(TooMuch),
        false => Ok(true),
    }
}

/// A pattern, then what it is looked for in.
fn regex(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    pattern(budget, arguments)?;
    let length = text(arguments, 1).map_or(0, str::len);
    if length > LONGEST_TEXT {
        return Err(TooMuch);
    }
    budget.spend(wide(length))?;
    Ok(true)
}

/// What it is looked for in, a pattern, and what takes its place: the pattern may match
/// everywhere.
fn regex_replace(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    let length = text(arguments, 0).map_or(0, str::len);
    let replacement = text(arguments, 2).map_or(0, str::len);
    let is_long = text(arguments, 1).is_some_and(|pattern| pattern.len() > LONGEST_PATTERN);
    if is_long || length > LONGEST_TEXT {
        return Err(TooMuch);
    }
    // `$0` in the replacement stands for what was found.
    let once = wide(replacement).saturating_add(wide(replacement / 2).saturating_mul(wide(length)));
    let grows = text(arguments, 2).is_some_and(|replacement| replacement.contains('$'));
    let each = if grows { once } else { wide(replacement) };
    budget.spend(wide(length + 1).saturating_mul(each))?;
    Ok(true)
}

/// A pattern, delimiters, and what it is compared with.
fn glob(budget: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    pattern(budget, arguments)?;
    match text(arguments, 2).is_some_and(|text| text.len() > LONGEST_TEXT) {
        true => Err(TooMuch),
        false => Ok(true),
    }
}

fn yaml(_: &Budget, arguments: &[Value]) -> Result<bool, TooMuch> {
    match text(arguments, 0).is_some_and(|text| text.len() > LONGEST_YAML) {
        true => Err(TooMuch),
        false => Ok(true),
    }
}
