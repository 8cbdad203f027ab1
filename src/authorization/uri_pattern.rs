//! Wildcard URI patterns (spec authorization.md section 4).

/// A validated pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPattern {
    text: String,
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriPatternError {
    /// The pattern was empty.
    #[error("input pattern was empty string")]
    Empty,
}

impl UriPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, UriPatternError> {
        Ok(Self {
            text: text.to_owned(),
        })
    }
    /// The pattern as typed.
    pub fn text(&self) -> &str {
        &self.text
    }
}
