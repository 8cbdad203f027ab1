//! What can be known of a policy without evaluating it, and what the engine would only meet
//! while it evaluates: unknown functions, wrong numbers of arguments, recursion, rules that
//! collide with data, nesting that no stack holds.

mod dependencies;
mod walk;

use std::collections::{BTreeMap, HashMap};

use regorus::Value;
use regorus::unstable::{Expr, Module, Parser, Query, Ref, Rule, RuleHead};

use crate::builtins::{self, Availability};
use crate::report::{Fault, code};
use walk::{Reference, Walk};

/// A path in the document `data`, without its first component.
type Path = Vec<String>;

/// Checks modules, data and query against each other.
pub(crate) fn check(modules: &[Ref<Module>], data: &Value, query: &Query) -> Result<(), Vec<Fault>> {
    let mut program = Program::gather(modules)?;
    program.refuse_conflicts_with_data(data);
    for module in modules {
        program.walk_module(module);
    }
    program.walk_query(query);
    if program.faults.is_empty() {
        program.faults.extend(dependencies::fault(&program.units));
    }
    match program.faults.is_empty() {
        true => Ok(()),
        false => Err(program.faults),
    }
}

/// A rule, or the query.
#[derive(Debug)]
struct Unit {
    /// None leads to the query.
    path: Option<Path>,
    file: String,
    line: u32,
    /// How deeply its own expressions nest.
    depth: usize,
    /// Rules it may evaluate, and how deep in it that happens.
    needs: Vec<(Path, usize)>,
}

struct Program {
    /// Functions by path, with their number of arguments.
    functions: HashMap<String, usize>,
    /// First components of the rules of each package.
    names: HashMap<Path, Vec<String>>,
    units: Vec<Unit>,
    faults: Vec<Fault>,
    /// Where each rule is defined.
    places: BTreeMap<Path, (String, u32)>,
}

impl Program {
    fn gather(modules: &[Ref<Module>]) -> Result<Self, Vec<Fault>> {
        let mut program = Self {
            functions: HashMap::new(),
            names: HashMap::new(),
            units: Vec::new(),
            faults: Vec::new(),
            places: BTreeMap::new(),
        };
        for module in modules {
            let package = package(module);
            for rule in &module.policy {
                program.gather_rule(&package, rule, module.rego_v1);
            }
        }
        match program.faults.is_empty() {
            true => Ok(program),
            false => Err(program.faults),
        }
    }

    fn gather_rule(&mut self, package: &Path, rule: &Rule, v1: bool) {
        let (refr, arguments) = match rule {
            Rule::Spec { head, bodies, .. } => {
                if let (
                    RuleHead::Compr {
                        refr, assign: None, ..
                    },
                    true,
                ) = (head, bodies.is_empty())
                {
                    // In version 0 `allow if {…}` reads as two rules, of which the first is
                    // always true.
                    self.faults.push(bare_rule(refr));
                }
                if let (
                    true,
                    RuleHead::Set {
                        refr, key: Some(key), ..
                    },
                ) = (v1, head)
                {
                    self.faults.extend(set_without_contains(refr, key));
                }
                match head {
                    RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } => (refr, None),
                    RuleHead::Func { refr, args, .. } => (refr, Some(args.len())),
                }
            }
            Rule::Default { refr, args, .. } => (refr, (!args.is_empty()).then_some(args.len())),
        };
        let own = walk::components(refr).0;
        if let Some(first) = own.first() {
            if is_keyword(first) {
                self.faults.push(keyword_rule(refr, first));
            }
            self.names.entry(package.clone()).or_default().push(first.clone());
        }
        let path = [package.as_slice(), &own].concat();
        if let Some(arguments) = arguments {
            let name = path.join(".");
            let known = *self.functions.entry(name).or_insert(arguments);
            if known != arguments {
                let text = format!("conflicting rules data.{} found", path.join("."));
                self.fault(refr, code::TYPE, &text);
            }
        }
        let span = refr.span();
        let place = (span.source.file().clone(), span.line);
        self.places.entry(path).or_insert(place);
    }

    fn fault(&mut self, expression: &Expr, code: &'static str, text: &str) {
        let span = expression.span();
        let fault = Fault::new(span.source.file(), span.line, code, text);
        self.faults.push(fault);
    }

    /// What a rule defines must not be there already.
    fn refuse_conflicts_with_data(&mut self, data: &Value) {
        let conflicts = self.places.iter().filter_map(|(path, (file, line))| {
            let mut value = data;
            for component in path {
                match value {
                    Value::Undefined => return None,
                    Value::Object(_) => value = &value[component.as_str()],
                    _ => break,
                }
            }
            (*value != Value::Undefined).then(|| {
                let text = format!("conflicting rule for data path {} found", path.join("/"));
                Fault::new(file, *line, code::COMPILE, text)
            })
        });
        let conflicts: Vec<_> = conflicts.collect();
        self.faults.extend(conflicts);
    }

    fn walk_module(&mut self, module: &Module) {
        let package = package(module);
        let imports = imports(module);
        for rule in &module.policy {
            let mut walk = Walk::default();
            walk.rule(rule);
            let refr = match rule.as_ref() {
                Rule::Default { refr, .. } => refr,
                Rule::Spec { head, .. } => match head {
                    RuleHead::Compr { refr, .. }
                    | RuleHead::Set { refr, .. }
                    | RuleHead::Func { refr, .. } => refr,
                },
            };
            let path = [package.as_slice(), &walk::components(refr).0].concat();
            self.take(walk, Some(path), rule.span(), &package, &imports);
        }
    }

    fn walk_query(&mut self, query: &Query) {
        let mut walk = Walk::default();
        walk.query(query);
        self.take(walk, None, &query.span, &Path::new(), &HashMap::new());
    }

    /// Checks the calls of one rule, and notes what it needs.
    fn take(
        &mut self,
        walk: Walk,
        path: Option<Path>,
        span: &regorus::unstable::Span,
        package: &Path,
        imports: &HashMap<String, Path>,
    ) {
        let mut needs = Vec::new();
        for call in &walk.calls {
            match self.resolve_call(&call.path, package, imports) {
                Some((function, arity)) => {
                    if !(call.arguments == arity || call.arguments == arity + 1) {
                        self.faults.push(arity_fault(
                            &call.path,
                            call.arguments,
                            arity,
                            &call.file,
                            call.line,
                        ));
                    }
                    needs.push((function, call.depth));
                }
                None => self.check_builtin(call),
            }
        }
        for reference in &walk.references {
            if let Some(target) = self.resolve(reference, &walk, package, imports) {
                needs.push((target, reference.depth));
            }
        }
        self.units.push(Unit {
            path,
            file: span.source.file().clone(),
            line: span.line,
            depth: walk.deepest,
            needs,
        });
    }

    fn resolve_call(
        &self,
        path: &[String],
        package: &Path,
        imports: &HashMap<String, Path>,
    ) -> Option<(Path, usize)> {
        let (first, rest) = path.split_first()?;
        let candidates = [
            (first == "data").then(|| rest.to_vec()),
            imports
                .get(first)
                .map(|import| [import.as_slice(), rest].concat()),
            Some([package.as_slice(), path].concat()),
        ];
        candidates.into_iter().flatten().find_map(|path| {
            let arity = *self.functions.get(&path.join("."))?;
            Some((path, arity))
        })
    }

    fn check_builtin(&mut self, call: &walk::Call) {
        let name = call.path.join(".");
        let fault = match builtins::availability(&name) {
            Availability::Available { arity, output } => {
                let most = arity + usize::from(output);
                if (arity..=most).contains(&call.arguments) {
                    return;
                }
                arity_fault(&call.path, call.arguments, arity, &call.file, call.line)
            }
            Availability::AnyArguments => return,
            Availability::Refused(reason) => {
                let text = format!("the built-in function {name} is not available: {reason}");
                Fault::new(&call.file, call.line, code::TYPE, text)
            }
            Availability::Unknown => {
                let text = format!("undefined function {name}");
                Fault::new(&call.file, call.line, code::TYPE, text)
            }
        };
        self.faults.push(fault);
    }

    /// The path in `data` that a reference leads to, as far as it is fixed.
    fn resolve(
        &self,
        reference: &Reference,
        walk: &Walk,
        package: &Path,
        imports: &HashMap<String, Path>,
    ) -> Option<Path> {
        let (first, rest) = reference.path.split_first()?;
        if first == "data" {
            return Some(rest.to_vec());
        }
        if walk.locals.contains(first) {
            return None;
        }
        if self.names.get(package).is_some_and(|names| names.contains(first)) {
            return Some([package.as_slice(), &reference.path].concat());
        }
        let import = imports.get(first)?;
        Some([import.as_slice(), rest].concat())
    }
}

fn bare_rule(refr: &Expr) -> Fault {
    let span = refr.span();
    let text = "var cannot be used for rule name (version 0 of the language, in which a .rego file is read, \
                knows `if` and `contains` only after `import rego.v1`)";
    Fault::new(span.source.file(), span.line, code::PARSE, text)
}

/// `names["a"]` for `names contains "a"`, which the engine lets pass in version 1 too.
fn set_without_contains(refr: &Expr, key: &Expr) -> Option<Fault> {
    let (refr, key) = (refr.span(), key.span());
    let between = usize::try_from(refr.end).ok()?..usize::try_from(key.start).ok()?;
    let says_contains = refr.source.contents().get(between)?.contains("contains");
    (!says_contains).then(|| {
        let text = "`contains` keyword is required for partial set rules";
        Fault::new(refr.source.file(), refr.line, code::PARSE, text)
    })
}

fn keyword_rule(refr: &Expr, name: &str) -> Fault {
    let span = refr.span();
    let text = format!("unexpected {name} keyword: it is not known here without `import rego.v1`");
    Fault::new(span.source.file(), span.line, code::PARSE, text)
}

fn is_keyword(name: &str) -> bool {
    matches!(
        name,
        "if" | "contains" | "in" | "every" | "else" | "not" | "data" | "input"
    )
}

fn arity_fault(path: &[String], arguments: usize, arity: usize, file: &str, line: u32) -> Fault {
    let name = path.join(".");
    let text = format!("{name}: arity mismatch: {arguments} arguments, but it takes {arity}");
    Fault::new(file, line, code::TYPE, text)
}

/// A module's package.
fn package(module: &Module) -> Path {
    walk::components(&module.package.refr).0
}

/// Names by which a module knows documents of others.
fn imports(module: &Module) -> HashMap<String, Path> {
    let imports = module.imports.iter().filter_map(|import| {
        let path = walk::components(&import.refr).0;
        let (root, rest) = path.split_first()?;
        let name = match &import.r#as {
            Some(name) => name.text().to_owned(),
            None => path.last()?.clone(),
        };
        (root == "data").then(|| (name, rest.to_vec()))
    });
    imports.collect()
}

/// The packages of modules, slashes between their components, with the file of each.
pub(crate) fn packages(modules: &[Ref<Module>]) -> Vec<(String, String)> {
    let packages = modules.iter().map(|module| {
        let file = module.package.span.source.file().clone();
        (package(module).join("/"), file)
    });
    packages.collect()
}

/// Parses a query by itself, to be walked.
pub(crate) fn parse_query(source: &regorus::unstable::Source, v1: bool) -> anyhow::Result<Ref<Query>> {
    let mut parser = Parser::new(source)?;
    if v1 {
        parser.enable_rego_v1()?;
    }
    parser.parse_user_query()
}
