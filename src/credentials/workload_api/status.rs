//! How a call ended, in the words that operators know from other programs.

use std::fmt;

/// The codes of gRPC, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The call went well.
    Ok,
    /// It was called off.
    Canceled,
    /// Nobody knows what happened.
    Unknown,
    /// The request makes no sense to the agent.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// The workload has no registration entry.
    PermissionDenied,
    /// Something was too large.
    ResourceExhausted,
    /// The agent does not have this method, or this build can't call it.
    Unimplemented,
    /// What came was no gRPC.
    Internal,
    /// The agent can't be reached.
    Unavailable,
    /// Another code, by its number.
    Other(u32),
}

impl Code {
    /// The code of this number.
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Canceled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            number => Self::Other(number),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Self::Other(number) => *number,
            known => return fmt::Debug::fmt(known, f),
        };
        match number {
            5 => f.write_str("NotFound"),
            6 => f.write_str("AlreadyExists"),
            9 => f.write_str("FailedPrecondition"),
            10 => f.write_str("Aborted"),
            11 => f.write_str("OutOfRange"),
            15 => f.write_str("DataLoss"),
            16 => f.write_str("Unauthenticated"),
            number => write!(f, "Code({number})"),
        }
    }
}

/// The end of a call, with a text on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code} desc = {description}")]
pub struct Status {
    code: Code,
    description: String,
}

impl Status {
    /// The longest description that is kept. Agents say a sentence.
    const LONGEST: usize = 1024;

    /// Control characters of the description are escaped, and what is too long is cut.
    pub fn new(code: Code, description: impl fmt::Display) -> Self {
        let text = description.to_string();
        let shown = text.chars().take(Self::LONGEST).map(|letter| match letter {
            letter if letter.is_control() => letter.escape_default().to_string(),
            letter => letter.to_string(),
        });
        Self {
            code,
            description: shown.collect(),
        }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_operators_know() {
        for (number, name) in [
            (1, "Canceled"),
            (3, "InvalidArgument"),
            (5, "NotFound"),
            (7, "PermissionDenied"),
            (14, "Unavailable"),
            (16, "Unauthenticated"),
            (17, "Code(17)"),
            (u32::MAX, "Code(4294967295)"),
        ] {
            assert_eq!(Code::from_number(number).to_string(), name);
        }
    }

    #[test]
    fn descriptions_stay_on_their_line() {
        let status = Status::new(Code::PermissionDenied, format!("a\nb\u{1b}{}", "c".repeat(5000)));
        let text = status.to_string();
        assert!(
            text.starts_with("rpc error: code = PermissionDenied desc = a\\nb\\u{1b}ccc"),
            "{text}"
        );
        assert!(text.len() < 1100);
    }
}
