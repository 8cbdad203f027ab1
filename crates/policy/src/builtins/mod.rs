//! Built-in functions: those that the engine lacks, and bounds for those of its own whose cost
//! does not follow from the size of what they are given.
//!
//! The deadline of an evaluation is looked at between the steps of the engine, never inside a
//! function. Therefore no function may run long or make something large: it is bounded by what
//! an evaluation may make altogether, or refused when a policy is loaded.

mod bounds;
pub(crate) mod bytes;
mod own;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regorus::unstable::{BUILTINS, Expr, Ref, Source, Span};
use regorus::{Engine, Value};

/// What the bounded functions of one evaluation may make altogether.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Whether and how a function can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// With so many arguments, and perhaps one more, which is unified with the result.
    Available { arity: usize, output: bool },
    /// With any.
    AnyArguments,
    /// It is known, and this is why it can't be used.
    Refused(&'static str),
    /// There is none.
    Unknown,
}

const NETWORK: &str = "policies do not reach the network";
const UNSUPPORTED: &str = "it is not supported";
const UNBOUNDED: &str = "its cost has no bound";

/// Functions that the language has and that are not to be had here.
const REFUSED: [(&str, &str); 12] = [
    ("http.send", NETWORK),
    ("net.lookup_ip_addr", NETWORK),
    ("graph.reachable_paths", UNBOUNDED),
    ("regex.globs_match", UNBOUNDED),
    ("net.cidr_merge", UNSUPPORTED),
    ("net.cidr_contains_matches", UNSUPPORTED),
    ("array.flatten", UNSUPPORTED),
    ("strings.render_template", UNSUPPORTED),
    ("json.match_schema", UNSUPPORTED),
    ("json.verify_schema", UNSUPPORTED),
    ("urlquery.encode_object", UNSUPPORTED),
    ("urlquery.decode_object", UNSUPPORTED),
];

/// Families of functions, of which what is not available is refused by family.
const REFUSED_FAMILIES: [&str; 7] = [
    "crypto.",
    "graphql.",
    "internal.",
    "io.jwt.",
    "providers.",
    "rego.",
    "uri.",
];

/// Whether and how the function of this name can be called.
pub(crate) fn availability(name: &str) -> Availability {
    if name == "print" {
        return Availability::AnyArguments;
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Availability::Refused(reason);
    }
    if let Some((_, arity)) = BUILTINS.get(name) {
        let arity = usize::from(*arity);
        return Availability::Available { arity, output: true };
    }
    // The engine does not know that these can have one argument more.
    if let Some(function) = own::FUNCTIONS.iter().find(|function| function.name == name) {
        let arity = usize::from(function.arity);
        return Availability::Available { arity, output: false };
    }
    match REFUSED_FAMILIES.iter().any(|family| name.starts_with(family)) {
        true => Availability::Refused(UNSUPPORTED),
        false => Availability::Unknown,
    }
}

/// A function made too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// What the bounded functions of one evaluation may still make.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(LARGEST),
        }
    }
}

impl Budget {
    /// Takes so many bytes out. What has been overdrawn stays so.
    fn spend(&self, bytes: u64) -> Result<(), TooMuch> {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        match left {
            0 => Err(TooMuch),
            _ => Ok(()),
        }
    }

    fn exhaust(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    /// Whether a function wanted to make too much, though the policy may have gone on.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// One function in place of, or in addition to, the engine's.
struct Function {
    name: &'static str,
    arity: u8,
    call: Call,
}

/// What is called. The result `None` is undefined, as errors of functions are.
#[derive(Clone, Copy)]
enum Call {
    /// Costs what its arguments cost.
    Plain(fn(&[Value]) -> Option<Value>),
    /// Tells what it costs.
    Bounded(fn(&Budget, &[Value]) -> Result<Option<Value>, TooMuch>),
}

/// Puts the functions into an engine that is about to evaluate.
pub(crate) fn install(engine: &mut Engine, budget: &Arc<Budget>) -> anyhow::Result<()> {
    for function in own::FUNCTIONS {
        let budget = Arc::clone(budget);
        let call = move |arguments: Vec<Value>| {
            let outcome = match function.call {
                Call::Plain(call) => Ok(call(&arguments)),
                Call::Bounded(call) => call(&budget, &arguments),
            };
            answer(&budget, function.name, outcome)
        };
        engine.add_extension(function.name.to_owned(), function.arity, Box::new(call))?;
    }
    for bound in bounds::BOUNDS {
        let Some((original, arity)) = BUILTINS.get(bound.name) else {
            continue;
        };
        let budget = Arc::clone(budget);
        let call = move |arguments: Vec<Value>| {
            let checked = (bound.check)(&budget, &arguments);
            answer(
                &budget,
                bound.name,
                checked.map(|sensible| sensible.then(|| call_original(*original, &arguments)).flatten()),
            )
        };
        engine.add_extension(bound.name.to_owned(), *arity, Box::new(call))?;
    }
    Ok(())
}

fn answer(budget: &Budget, name: &str, outcome: Result<Option<Value>, TooMuch>) -> anyhow::Result<Value> {
    match outcome {
        Ok(value) => Ok(value.unwrap_or(Value::Undefined)),
        Err(TooMuch) => {
            budget.exhaust();
            anyhow::bail!("{name}: the result is too large")
        }
    }
}

type Original = fn(&Span, &[Ref<Expr>], &[Value], bool) -> anyhow::Result<Value>;

/// Calls a function of the engine. It wants to know where in the policy it is called, for its
/// messages, which nobody sees.
fn call_original(original: Original, arguments: &[Value]) -> Option<Value> {
    let source = Source::from_contents("builtin".to_owned(), String::new()).ok()?;
    let span = Span {
        source,
        line: 1,
        col: 1,
        start: 0,
        end: 0,
    };
    let places: Vec<_> = arguments
        .iter()
        .map(|_| {
            Ref::new(Expr::Null {
                span: span.clone(),
                value: Value::Null,
                eidx: 0,
            })
        })
        .collect();
    original(&span, &places, arguments, false).ok()
}

#[cfg(test)]
mod tests;
