//! A policy that has been loaded, and its answers.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ghostunnel_pki::Certificate;
use regorus::unstable::{Literal, Query, Source};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, PolicyLengthConfig, QueryResults, Value};

use crate::builtins::{self, Budget};
use crate::bundle::{Bundle, BundleError, File, Files};
use crate::check;
use crate::error::LoadError;
use crate::input;
use crate::manifest::Version;
use crate::report::{Fault, Faults, QUERY, code};

/// Stack of an evaluation. It is recursive as deep as [`check`] admits, a step of which takes
/// up to ten kilobytes without the optimiser; only what is touched takes memory.
pub(crate) const STACK: usize = 16 * 1024 * 1024;

/// Largest policy file. The engine's own limits are for policies written by hand.
const LARGEST_FILE: usize = 16 * 1024 * 1024;

/// A policy and the query that is asked of it, checked as far as that goes without evaluating.
pub struct Policy {
    engine: Engine,
    /// As it is put to the engine; `None` for one that can't allow anybody.
    question: Option<String>,
    revision: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It was not found in time.
    #[error("eval_cancel_error: caller cancelled query execution")]
    TimedOut,
    /// Built-in functions were to make more than fits.
    #[error("eval_builtin_error: {0}")]
    TooLarge(String),
    /// The policy contradicts itself, or the like.
    #[error("{0}")]
    Failed(String),
    /// The engine failed.
    #[error("eval_internal_error: the engine failed")]
    Engine,
    /// There is no thread to evaluate in.
    #[error("eval_internal_error: unable to start a thread: {0}")]
    Thread(String),
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("question", &self.question)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Compiles policy and query. Nothing is evaluated.
    pub fn load(files: &Files, query: &str) -> Result<Self, LoadError> {
        // A policy that the engine fails on must not end the process that tries it on a reload.
        catch_unwind(AssertUnwindSafe(|| Self::compile(files, query))).unwrap_or(Err(LoadError::Engine))
    }

    /// What the bundle's manifest calls its revision; empty without one.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    fn compile(files: &Files, query: &str) -> Result<Self, LoadError> {
        let mut engine = new_engine();
        let (revision, v1) = match files {
            Files::Rego(files) => {
                add_policies(
                    &mut engine,
                    files.iter().map(|file| (file, file.name.clone(), Version::V0)),
                )
                .map_err(|faults| LoadError::Parse(Faults::new(" during loading", faults)))?;
                (String::new(), false)
            }
            Files::Bundle { name, files } => {
                let refused = |reason| LoadError::Bundle {
                    name: name.clone(),
                    reason,
                };
                (add_bundle(&mut engine, name, files).map_err(refused)?, true)
            }
        };
        engine.set_rego_v0(!v1);
        let compile_error = |faults| LoadError::Compile(Faults::new("", faults));
        let one = |error: &anyhow::Error, code| compile_error(vec![Fault::of_engine(error, code)]);
        let source = Source::from_contents(QUERY.to_owned(), query.to_owned())
            .map_err(|error| one(&error, code::PARSE))?;
        let parsed = check::parse_query(&source, v1).map_err(|error| one(&error, code::PARSE))?;
        let data = engine.get_data();
        check::check(engine.get_modules(), &data, &parsed).map_err(compile_error)?;
        let question = question(query, &parsed);
        // With no time at all, everything is prepared and nothing evaluated.
        engine.set_execution_timer_config(timer(Duration::ZERO));
        match engine.eval_query(question.clone().unwrap_or_else(|| query.to_owned()), false) {
            Ok(_) => {}
            Err(error) if error.is::<LimitError>() => {}
            Err(error) => return Err(one(&error, code::COMPILE)),
        }
        Ok(Self {
            engine,
            question,
            revision,
        })
    }

    /// Whether the policy allows the owner of `certificate`: whether the query has exactly one
    /// result, without bindings, of one expression, which is `true`.
    ///
    /// Blocks until there is an answer or little longer than until `deadline`: a single built-in
    /// function is not interrupted, but bounded.
    pub fn evaluate(&self, certificate: &Certificate, deadline: Instant) -> Result<bool, EvaluationError> {
        let run = || self.run(input::document(certificate), deadline);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("policy".to_owned()).stack_size(STACK);
            let thread = thread
                .spawn_scoped(scope, run)
                .map_err(|error| EvaluationError::Thread(error.to_string()))?;
            thread.join().unwrap_or(Err(EvaluationError::Engine))
        })
    }

    fn run(&self, input: Value, deadline: Instant) -> Result<bool, EvaluationError> {
        let Some(question) = self.question.clone() else {
            return Ok(false);
        };
        let budget = Arc::new(Budget::default());
        let mut engine = self.engine.clone();
        builtins::install(&mut engine, &budget).map_err(|_| EvaluationError::Engine)?;
        engine.set_input(input);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(EvaluationError::TimedOut);
        }
        engine.set_execution_timer_config(timer(left));
        let outcome = engine.eval_query(question, false);
        // The engine may pass over an error where another definition of a function applies.
        if Instant::now() >= deadline {
            return Err(EvaluationError::TimedOut);
        }
        match outcome {
            Ok(_) if budget.is_exhausted() => {
                let text = "the results of built-in functions are too large";
                Err(EvaluationError::TooLarge(text.to_owned()))
            }
            Ok(results) => Ok(is_true(&results)),
            Err(error) if budget.is_exhausted() => {
                Err(EvaluationError::TooLarge(Fault::of_engine(&error, "").text()))
            }
            Err(error) => Err(failure(&error)),
        }
    }
}

/// How a query is put to the engine, which reports `not …` and `every …` as true whether they
/// hold or not: within a comprehension they count only if they hold.
///
/// Several statements have several results, and a declaration binds variables, so that neither
/// allows anybody.
fn question(query: &str, parsed: &Query) -> Option<String> {
    let [statement] = parsed.stmts.as_slice() else {
        return None;
    };
    match statement.literal {
        Literal::Expr { .. } => Some(query.to_owned()),
        Literal::NotExpr { .. } | Literal::Every { .. } => Some(format!("[1 | {query}\n] == [1]")),
        Literal::SomeVars { .. } | Literal::SomeIn { .. } => None,
    }
}

fn new_engine() -> Engine {
    let mut engine = Engine::new();
    // Errors of built-in functions are undefined.
    engine.set_strict_builtin_errors(false);
    // Otherwise `print` writes to standard error.
    engine.set_gather_prints(true);
    let defaults = PolicyLengthConfig::default();
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: NonZeroU32::MAX,
        max_file_bytes: NonZeroUsize::new(LARGEST_FILE).unwrap_or(defaults.max_file_bytes),
        max_lines: NonZeroUsize::new(LARGEST_FILE).unwrap_or(defaults.max_lines),
    });
    engine
}

/// How many steps there are between two looks at the clock, which take as long as a step.
const STEPS: NonZeroU32 = NonZeroU32::new(16).expect("sixteen is not zero");

fn timer(limit: Duration) -> ExecutionTimerConfig {
    let check_interval = if limit.is_zero() { NonZeroU32::MIN } else { STEPS };
    ExecutionTimerConfig {
        limit,
        check_interval,
    }
}

/// Adds policies under the names by which faults call them.
fn add_policies<'a>(
    engine: &mut Engine,
    files: impl Iterator<Item = (&'a File, String, Version)>,
) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    for (file, name, version) in files {
        engine.set_rego_v0(version == Version::V0);
        if let Err(fault) = add_policy(engine, file, &name) {
            faults.push(fault);
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults),
    }
}

fn add_policy(engine: &mut Engine, file: &File, name: &str) -> Result<(), Fault> {
    let text = std::str::from_utf8(&file.content)
        .map_err(|_| Fault::new(name, 0, code::PARSE, "the file is not UTF-8"))?;
    if text.trim().is_empty() {
        return Err(Fault::new(name, 0, code::PARSE, "empty module"));
    }
    engine
        .add_policy(name.to_owned(), without_empty_imports(text))
        .map_err(|error| Fault::of_engine(&error, code::PARSE))?;
    Ok(())
}

/// The text without the lines `import input`, which mean nothing, and which the engine complains
/// about to standard error.
fn without_empty_imports(text: &str) -> String {
    let keep = |line: &str| match line.trim() {
        "import input" => String::new(),
        _ => line.trim_end_matches('\r').to_owned(),
    };
    let mut kept = text.split('\n').map(keep).collect::<Vec<_>>().join("\n");
    kept.push('\n');
    kept
}

/// Adds what a bundle holds; gives its revision.
fn add_bundle(engine: &mut Engine, name: &str, files: &[File]) -> Result<String, BundleError> {
    let bundle = Bundle::read(files)?;
    let policies = bundle.policies.iter().map(|(file, version)| {
        let name = format!("{}/{}", name.trim_end_matches('/'), file.name);
        (*file, name, *version)
    });
    add_policies(engine, policies).map_err(|faults| BundleError::Parse(Faults::new("", faults)))?;
    for (package, file) in check::packages(engine.get_modules()) {
        if !bundle.manifest.permits(&package) {
            return Err(BundleError::Roots(format!(
                "manifest roots [{}] do not permit 'package {}' in module '{file}'",
                bundle.manifest.roots.join(" "),
                package.replace('/', "."),
            )));
        }
    }
    for document in bundle.data {
        engine.add_data(document).map_err(|_| BundleError::Data {
            file: "data files".to_owned(),
            reason: "two of them define the same path".to_owned(),
        })?;
    }
    Ok(bundle.manifest.revision)
}

fn is_true(results: &QueryResults) -> bool {
    let [result] = results.result.as_slice() else {
        return false;
    };
    let unbound = result
        .bindings
        .as_object()
        .is_ok_and(|bindings| bindings.is_empty());
    match result.expressions.as_slice() {
        [expression] => unbound && expression.value == Value::Bool(true),
        _ => false,
    }
}

fn failure(error: &anyhow::Error) -> EvaluationError {
    if let Some(LimitError::TimeLimitExceeded { .. }) = error.downcast_ref() {
        return EvaluationError::TimedOut;
    }
    let fault = Fault::of_engine(error, "eval_error");
    let text = fault.text();
    let conflicts = ["conflicts with", "multiple outputs", "conflicting"];
    EvaluationError::Failed(if conflicts.iter().any(|word| text.contains(word)) {
        fault.headline_as(
            "eval_conflict_error",
            "complete rules must not produce multiple outputs",
        )
    } else if text.contains("cyclic") || text.contains("recursion") {
        fault.headline_as("eval_internal_error", "the policy is recursive")
    } else {
        fault.headline_as("eval_error", &text)
    })
}

#[cfg(test)]
mod tests;
