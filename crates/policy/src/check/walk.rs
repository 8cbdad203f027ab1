//! Through the syntax of one rule or query: which functions it calls, what it refers to, which
//! names are its own, how deeply it nests.

use std::collections::HashSet;

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, Query, Rule, RuleBody, RuleHead};

/// What has been met.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) calls: Vec<Call>,
    pub(super) references: Vec<Reference>,
    /// Names that are declared somewhere in the rule: not references to other rules.
    pub(super) locals: HashSet<String>,
    pub(super) deepest: usize,
    depth: usize,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) path: Vec<String>,
    pub(super) arguments: usize,
    pub(super) depth: usize,
    pub(super) file: String,
    pub(super) line: u32,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) path: Vec<String>,
    pub(super) depth: usize,
}

/// The fixed components at the start of a reference, and whether these are all.
pub(super) fn components(expression: &Expr) -> (Vec<String>, bool) {
    let mut fixed = Vec::new();
    let mut reversed = Vec::new();
    let mut current = expression;
    loop {
        match current {
            Expr::RefDot { refr, field, .. } => {
                reversed.push(Some(field.0.text().to_owned()));
                current = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                reversed.push(match index.as_ref() {
                    Expr::String {
                        value: Value::String(name),
                        ..
                    }
                    | Expr::RawString {
                        value: Value::String(name),
                        ..
                    } => Some(name.to_string()),
                    _ => None,
                });
                current = refr;
            }
            Expr::Var { span, .. } => {
                reversed.push(Some(span.text().to_owned()));
                break;
            }
            _ => {
                reversed.push(None);
                break;
            }
        }
    }
    for component in reversed.into_iter().rev() {
        match component {
            Some(component) => fixed.push(component),
            None => return (fixed, false),
        }
    }
    (fixed, true)
}

impl Walk {
    pub(super) fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { args, value, .. } => {
                args.iter().for_each(|argument| self.pattern(argument));
                self.expression(value);
            }
            Rule::Spec { head, bodies, .. } => {
                self.head(head);
                bodies.iter().for_each(|body| self.body(body));
            }
        }
    }

    fn head(&mut self, head: &RuleHead) {
        match head {
            RuleHead::Compr { refr, assign, .. } => {
                self.indices(refr);
                assign.iter().for_each(|assign| self.expression(&assign.value));
            }
            RuleHead::Set { refr, key, .. } => {
                self.indices(refr);
                key.iter().for_each(|key| self.expression(key));
            }
            RuleHead::Func {
                refr, args, assign, ..
            } => {
                self.indices(refr);
                args.iter().for_each(|argument| self.pattern(argument));
                assign.iter().for_each(|assign| self.expression(&assign.value));
            }
        }
    }

    fn body(&mut self, body: &RuleBody) {
        body.assign
            .iter()
            .for_each(|assign| self.expression(&assign.value));
        self.query(&body.query);
    }

    pub(super) fn query(&mut self, query: &Query) {
        self.nested(|walk| {
            for statement in &query.stmts {
                walk.literal(&statement.literal);
                for modifier in &statement.with_mods {
                    walk.replacement(&modifier.r#as);
                }
            }
        });
    }

    /// The value of a `with`, which may be the name of a function.
    fn replacement(&mut self, value: &Expr) {
        self.expression(value);
        let (path, whole) = components(value);
        if whole && path.len() > 1 {
            self.refuse_unavailable(path, value);
        }
    }

    /// A function named without being called: only what is refused by name is of interest.
    fn refuse_unavailable(&mut self, path: Vec<String>, at: &Expr) {
        if matches!(
            crate::builtins::availability(&path.join(".")),
            crate::builtins::Availability::Refused(_)
        ) {
            self.note_call(path, 0, at);
        }
    }

    fn literal(&mut self, literal: &Literal) {
        match literal {
            Literal::SomeVars { vars, .. } => {
                self.locals.extend(vars.iter().map(|name| name.text().to_owned()));
            }
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                key.iter().for_each(|key| self.pattern(key));
                self.pattern(value);
                self.expression(collection);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expression(expr),
            Literal::Every {
                key,
                value,
                domain,
                query,
                ..
            } => {
                self.locals.extend(key.iter().map(|name| name.text().to_owned()));
                self.locals.insert(value.text().to_owned());
                self.expression(domain);
                self.query(query);
            }
        }
    }

    /// An expression whose variables are declared by it.
    fn pattern(&mut self, expression: &Expr) {
        match expression {
            Expr::Var { span, .. } => {
                self.locals.insert(span.text().to_owned());
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().for_each(|item| self.pattern(item));
            }
            Expr::Object { fields, .. } => {
                fields.iter().for_each(|(_, _, value)| self.pattern(value));
            }
            other => self.expression(other),
        }
    }

    fn nested(&mut self, inside: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        inside(self);
        self.depth -= 1;
    }

    pub(super) fn expression(&mut self, expression: &Expr) {
        self.nested(|walk| walk.inside(expression));
    }

    fn inside(&mut self, expression: &Expr) {
        match expression {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                let (path, _) = components(expression);
                if !path.is_empty() {
                    let depth = self.depth;
                    self.references.push(Reference { path, depth });
                }
                self.indices(expression);
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                items.iter().for_each(|item| self.expression(item));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expression(key);
                    self.expression(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expression(term);
                self.query(query);
            }
            Expr::ObjectCompr {
                key, value, query, ..
            } => {
                self.expression(key);
                self.expression(value);
                self.query(query);
            }
            Expr::Call { fcn, params, .. } => {
                self.note_call(components(fcn).0, params.len(), fcn);
                params.iter().for_each(|argument| self.expression(argument));
            }
            Expr::UnaryExpr { expr, .. } => self.expression(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. } => {
                self.expression(lhs);
                self.expression(rhs);
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                match op {
                    AssignOp::ColEq => self.pattern(lhs),
                    AssignOp::Eq => self.expression(lhs),
                }
                self.expression(rhs);
            }
            Expr::Membership {
                key,
                value,
                collection,
                ..
            } => {
                key.iter().for_each(|key| self.expression(key));
                self.expression(value);
                self.expression(collection);
            }
        }
    }

    fn note_call(&mut self, path: Vec<String>, arguments: usize, function: &Expr) {
        let span = function.span();
        self.calls.push(Call {
            path,
            arguments,
            depth: self.depth,
            file: span.source.file().clone(),
            line: span.line,
        });
    }

    /// Expressions in the brackets of a reference, and below its start if that is no name.
    fn indices(&mut self, reference: &Expr) {
        let mut current = reference;
        loop {
            match current {
                Expr::RefDot { refr, .. } => current = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.expression(index);
                    current = refr;
                }
                Expr::Var { .. } => return,
                other => {
                    self.expression(other);
                    return;
                }
            }
        }
    }
}
