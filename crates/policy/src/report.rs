//! What is wrong with a policy, in the form that operators know: `FILE:LINE: CODE: TEXT`, then
//! the line in question and a mark below it.

use std::fmt;

/// One fault in a policy's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    file: String,
    line: u32,
    /// Shown instead of the file's name in faults of the query.
    column: Option<u32>,
    code: &'static str,
    text: String,
    source: Option<(String, usize)>,
}

/// Kinds of faults.
pub(crate) mod code {
    pub(crate) const PARSE: &str = "rego_parse_error";
    pub(crate) const COMPILE: &str = "rego_compile_error";
    pub(crate) const TYPE: &str = "rego_type_error";
    pub(crate) const RECURSION: &str = "rego_recursion_error";
    pub(crate) const UNSAFE: &str = "rego_unsafe_var_error";
}

/// How the engine names the text of a query.
pub(crate) const QUERY: &str = "<query.rego>";

impl Fault {
    pub(crate) fn new(file: &str, line: u32, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            column: None,
            code,
            text: text.into(),
            source: None,
        }
    }

    /// With the line in question, and where in it.
    pub(crate) fn at(mut self, source: &str, column: u32) -> Self {
        if self.file == QUERY {
            self.column = Some(column);
        }
        let blanks = usize::try_from(column).unwrap_or_default().saturating_sub(1);
        self.source = Some((source.to_owned(), blanks.min(source.len())));
        self
    }

    /// The message alone.
    pub(crate) fn text(&self) -> String {
        self.text.clone()
    }

    /// The place, another kind and another message, on one line.
    pub(crate) fn headline_as(&self, code: &'static str, text: &str) -> String {
        let other = Self {
            code,
            text: text.lines().collect::<Vec<_>>().join(" "),
            source: None,
            ..self.clone()
        };
        other.to_string()
    }

    /// Takes apart what the engine reports: a quotation with `--> FILE:LINE:COLUMN` above it, and
    /// the message behind a label.
    pub(crate) fn of_engine(error: &anyhow::Error, default: &'static str) -> Self {
        let report = format!("{error:#}");
        Self::quoted(&report, default).unwrap_or_else(|| Self::new("", 0, default, report.trim()))
    }

    fn quoted(report: &str, default: &'static str) -> Option<Self> {
        let mut lines = report.lines();
        let place = lines.find_map(|line| line.strip_prefix("--> "))?;
        let mut place = place.rsplitn(3, ':');
        let column = place.next()?.parse().ok()?;
        let line = place.next()?.parse().ok()?;
        let file = place.next()?;
        let source = lines.find_map(|text| text.strip_prefix(&format!("{line} | ")));
        let text = lines.by_ref().skip(1).collect::<Vec<_>>().join(" ");
        let text = text.trim();
        let text = text.strip_prefix("error: ").unwrap_or(text);
        let (code, text) = refine(default, text);
        let fault = Self::new(file, line, code, text);
        Some(match source {
            Some(source) => fault.at(source, column),
            None => fault,
        })
    }
}

/// Some messages of the engine tell a kind of their own.
fn refine(default: &'static str, text: &str) -> (&'static str, String) {
    let unsafe_variable = text
        .strip_prefix("use of undefined variable `")
        .and_then(|rest| rest.strip_suffix("` is unsafe"));
    match unsafe_variable {
        Some(name) => (code::UNSAFE, format!("var {name} is unsafe")),
        None => (default, text.to_owned()),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.column, self.file.as_str()) {
            (Some(column), _) => write!(f, "{}:{column}: ", self.line)?,
            (None, "" | QUERY) => {}
            (None, file) => write!(f, "{file}:{}: ", self.line)?,
        }
        write!(f, "{}: {}", self.code, self.text)?;
        match &self.source {
            Some((source, blanks)) => write!(f, "\n\t{source}\n\t{:blanks$}^", "", blanks = *blanks),
            None => Ok(()),
        }
    }
}

/// Several faults: `1 error occurred: …`, or one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    occasion: &'static str,
    list: Vec<Fault>,
}

impl Faults {
    /// `occasion` follows the word `occurred`.
    pub(crate) fn new(occasion: &'static str, list: Vec<Fault>) -> Self {
        Self { occasion, list }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.as_slice() {
            [fault] => write!(f, "1 error occurred{}: {fault}", self.occasion),
            faults => {
                write!(f, "{} errors occurred{}:", faults.len(), self.occasion)?;
                faults.iter().try_for_each(|fault| write!(f, "\n{fault}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_reports_are_taken_apart() {
        let report = "\n--> p.rego:2:9\n  |\n2 | allow { x == 1 }\n  |         ^\nerror: use of undefined variable `x` is unsafe";
        let fault = Fault::of_engine(&anyhow::anyhow!(report), code::COMPILE);
        assert_eq!(
            fault.to_string(),
            "p.rego:2: rego_unsafe_var_error: var x is unsafe\n\tallow { x == 1 }\n\t        ^"
        );
        let fault = Fault::of_engine(&anyhow::anyhow!("no place"), code::PARSE);
        assert_eq!(fault.to_string(), "rego_parse_error: no place");
        let report = "\n--> <query.rego>:1:5\n  |\n1 | true ==\n  |     ^\nerror: expecting expression";
        let fault = Fault::of_engine(&anyhow::anyhow!(report), code::PARSE);
        assert_eq!(
            fault.to_string(),
            "1:5: rego_parse_error: expecting expression\n\ttrue ==\n\t    ^"
        );
    }

    #[test]
    fn one_fault_is_on_the_line_and_several_are_below() {
        let fault = || Fault::new("a.rego", 1, code::TYPE, "undefined function f");
        let shown = |list| Faults::new(" during loading", list).to_string();
        assert_eq!(
            shown(vec![fault()]),
            "1 error occurred during loading: a.rego:1: rego_type_error: undefined function f"
        );
        assert_eq!(
            shown(vec![fault(), fault()]),
            "2 errors occurred during loading:\na.rego:1: rego_type_error: undefined function f\n\
             a.rego:1: rego_type_error: undefined function f"
        );
    }
}
